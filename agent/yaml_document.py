"""Strict YAML: plain data in which every value and key knows its line and column.

A small, predictable part of YAML 1.2: no anchors, aliases, tags or merges, each key once, ``yes``, ``no``, ``on`` and
``off`` are texts, and size, depth and number of values are bounded, so that a hostile file costs next to nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_BYTES = 256 * 1024
MAX_DEPTH = 16
MAX_VALUES = 2_000  # 64 cameras with all their keys are 800
MAX_CHARACTERS = 4_096  # of one text

KeyPath = tuple[str | int, ...]
Scalar = str | int | float | bool | None


class Position(NamedTuple):
    """A place in a file, both counted from 1."""

    line: int
    column: int


class Problem(NamedTuple):
    """Something wrong at a place: ``message`` says what was expected, what came and what to do."""

    position: Position
    key_path: KeyPath
    message: str


class YamlProblem(Exception):  # noqa: N818 never leaves the configuration reader, which turns it into a ConfigError
    """The text cannot be read any further."""

    def __init__(self, position: Position, message: str) -> None:
        super().__init__(message)
        self.problem = Problem(position, (), message)


@dataclass
class Document:
    """The data of a file, where its values and keys stand, and what was wrong with the keys."""

    data: object = None
    values: dict[KeyPath, Position] = field(default_factory=dict)
    keys: dict[KeyPath, Position] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def parse(text: str) -> Document:
    """Read one document.

    Raises:
        YamlProblem: it is no YAML, or uses what this part of YAML leaves out.
    """
    return _Parser(text).parse()


def scalar_of(text: str) -> Scalar:
    """What an unquoted word means: null, true, false, a number of at most 18 digits (and 24 decimals), else a text."""
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text


_WORDS: dict[str, Scalar] = {"": None, "~": None, "null": None, "true": True, "false": False}
_INTEGER = re.compile(r"[-+]?[0-9]{1,18}")
# A double may need 17 digits behind three zeros.
_FLOAT = re.compile(r"[-+]?(\.[0-9]{1,24}|[0-9]{1,18}(\.[0-9]{0,24})?)([eE][-+]?[0-9]{1,3})?")

_HINTS = {
    "cannot start any token": "indent with spaces, not tabs; put a text that begins with @, ` or % in quotes",
    "mapping values are not allowed": "put a text that contains ': ' in quotes, and check the indentation",
    "expected ',' or": "close the bracket or brace; put a text that contains ${...} in quotes here",
    "found unexpected end of stream": "close the quotes",
    "expected <block end>": "check the indentation of this line",
}


class _Mark(Protocol):
    line: int
    column: int


class _Parser:
    """Recursive descent over the events of PyYAML, which come lazily: a bomb is refused before it is read."""

    def __init__(self, text: str) -> None:
        self._events: Iterator[yaml.Event] = yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        self._document = Document()
        self._count = 0

    def parse(self) -> Document:
        self._next()  # the stream's start
        if isinstance(self._next(), yaml.StreamEndEvent):
            return self._document
        self._document.data = self._node(self._next(), ())
        self._next()  # the document's end
        rest = self._next()
        if not isinstance(rest, yaml.StreamEndEvent):
            raise YamlProblem(_position_of(rest), "expected one document, got a second one; remove it")
        return self._document

    def _node(self, event: yaml.Event, path: KeyPath) -> object:
        position = _position_of(event)
        _refuse_anchors_and_tags(event)
        self._count += 1
        if len(path) > MAX_DEPTH:
            raise YamlProblem(position, f"expected at most {MAX_DEPTH} levels, got more; remove some")
        if self._count > MAX_VALUES:
            raise YamlProblem(position, f"expected at most {MAX_VALUES} values, got more; remove some")
        self._document.values[path] = position
        if isinstance(event, yaml.MappingStartEvent):
            return self._mapping(path)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(path)
        text = _text_of(event)
        is_unquoted = isinstance(event, yaml.ScalarEvent) and event.implicit[0]
        return scalar_of(text) if is_unquoted else text

    def _mapping(self, path: KeyPath) -> dict[str, object]:
        mapping: dict[str, object] = {}
        while not isinstance(event := self._next(), yaml.MappingEndEvent):
            _refuse_anchors_and_tags(event)
            position, key = _position_of(event), _text_of(event)
            key_path = (*path, key)
            if key in mapping:
                first = self._document.keys[key_path]
                message = f"expected each key once, it is already in line {first.line}; remove one of them"
                self._document.problems.append(Problem(position, key_path, message))
            self._document.keys[key_path] = position
            mapping[key] = self._node(self._next(), key_path)
        return mapping

    def _sequence(self, path: KeyPath) -> list[object]:
        entries: list[object] = []
        while not isinstance(event := self._next(), yaml.SequenceEndEvent):
            entries.append(self._node(event, (*path, len(entries))))
        return entries

    def _next(self) -> yaml.Event:
        try:
            return next(self._events)
        except yaml.MarkedYAMLError as err:
            hint = next((advice for part, advice in _HINTS.items() if part in str(err.problem)), "correct the line")
            raise YamlProblem(_at(err.problem_mark), f"expected YAML, got: {err.problem}; {hint}") from err
        except yaml.YAMLError as err:  # a character that YAML does not allow, which comes without a mark
            raise YamlProblem(Position(1, 1), f"expected YAML, got: {' '.join(str(err).split())}; remove it") from err


def _refuse_anchors_and_tags(event: yaml.Event) -> None:
    if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
        message = "anchors and aliases (&, *) are not accepted; write the value out, or quote it"
        raise YamlProblem(_position_of(event), message)
    if getattr(event, "tag", None) is not None:
        raise YamlProblem(_position_of(event), "tags (!) are not accepted; remove the tag, or quote the value")


def _text_of(event: yaml.Event) -> str:
    if not isinstance(event, yaml.ScalarEvent):
        raise YamlProblem(_position_of(event), "expected a word as the key, got a list or a section; write a word")
    if len(event.value) > MAX_CHARACTERS:
        raise YamlProblem(_position_of(event), f"expected a text of at most {MAX_CHARACTERS} characters, got more")
    if "\0" in event.value:
        raise YamlProblem(_position_of(event), "expected a text without NUL characters, got one; remove it")
    return str(event.value)


def _position_of(event: yaml.Event) -> Position:
    return _at(event.start_mark)


def _at(mark: _Mark | None) -> Position:
    """PyYAML's marks count from 0; a problem of the whole text has none."""
    return Position(1, 1) if mark is None else Position(mark.line + 1, mark.column + 1)
