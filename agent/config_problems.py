"""What pydantic found wrong with a configuration, in sentences of our own, each at its line and column."""

from __future__ import annotations

import difflib
import functools
import json
import re
import typing
from collections import defaultdict
from typing import TYPE_CHECKING

from agent.camera.source import redact
from agent.config import SLUG_PATTERN, TOPIC_PATTERN, AgentConfig, Section
from agent.yaml_document import Document, KeyPath, Position, Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pydantic_core import ErrorDetails

_EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "a text",
    "path_type": "a path",
    "list_type": "a list",
    "model_type": "a section of keys and values",
    "greater_than": "a number above {gt:g}",
    "greater_than_equal": "a number of at least {ge:g}",
    "less_than": "a number below {lt:g}",
    "less_than_equal": "a number of at most {le:g}",
    "string_too_short": "a text of at least {min_length} characters",
    "string_too_long": "a text of at most {max_length} characters",
    "too_short": "a list of at least {min_length} entries",
    "too_long": "a list of at most {max_length} entries",
}
_PATTERNS = {
    SLUG_PATTERN: "a name of at most 63 characters: a-z, 0-9, - and _, a letter or digit first",
    TOPIC_PATTERN: "an MQTT topic without +, # and empty levels",
}
_SECRETS = {"password"}
_MOST_COMPARISONS = 100  # a hostile file may have thousands of unknown keys, and comparing words is slow


def problems_of(
    errors: Iterable[ErrorDetails], data: object, document: Document, put_in: set[KeyPath]
) -> list[Problem]:
    """One problem for each place; a value that came from the environment or a file (``put_in``) is not shown.

    ``data`` is what was validated; the errors of a union's branches are told together.
    """
    by_path: defaultdict[KeyPath, list[ErrorDetails]] = defaultdict(list)
    for error in errors:
        by_path[_path_of(error, data)].append(error)
    problems: list[Problem] = []
    for path, together in by_path.items():
        first = together[0]
        if first["type"] == "extra_forbidden":
            is_compared = len(problems) < _MOST_COMPARISONS
            problems.append(Problem(document.keys[path], path, _unknown(path, is_compared=is_compared)))
        elif first["type"] == "missing":
            problems.append(Problem(_place(path, document), path, _missing(path)))
        elif first["type"] in {"misfit", "value_error"}:
            problems.append(Problem(_place(path, document), path, _own_message(first)))
        else:
            shown = "what ${...} gave" if path in put_in else _shown(path, _value_at(path, data))
            problems.append(Problem(_place(path, document), path, _wrong(together, shown, _value_at(path, data))))
    return problems


@functools.cache
def sections() -> Mapping[str, type[Section]]:
    """Every section's model by its key path (list indices left out), the whole configuration as ``""`` first."""
    return dict(_sections_of(AgentConfig, ()))


def _sections_of(model: type[Section], path: tuple[str, ...]) -> Iterator[tuple[str, type[Section]]]:
    yield ".".join(path), model
    for name, field in model.model_fields.items():
        inner = _section_in(field.annotation)
        if inner is not None:
            yield from _sections_of(inner, (*path, name))


def _path_of(error: ErrorDetails, data: object) -> KeyPath:
    """The error's place in the data, without the names that pydantic gives to the branches of a union."""
    path: list[str | int] = []
    for part in error["loc"]:
        if (isinstance(data, dict) and part in data) or (isinstance(data, list) and isinstance(part, int)):
            data = data[part]  # type: ignore[index] # a mapping's key or a list's index
        elif error["type"] != "missing":
            break
        path.append(part)
    if error["type"] == "misfit":
        path.append(error["ctx"]["key"])
    return tuple(path)


def _place(path: KeyPath, document: Document) -> Position:
    while path not in document.values:
        path = path[:-1]
    return document.values[path]


def _value_at(path: KeyPath, data: object) -> object:
    for part in path:
        data = data[part] if isinstance(data, dict | list) else None  # type: ignore[index] # each part was found in it
    return data


def _unknown(path: KeyPath, *, is_compared: bool) -> str:
    *parents, name = path
    section = ".".join(str(part) for part in parents if isinstance(part, str))
    known = {where: list(model.model_fields) for where, model in sections().items()}
    close = [key for key in known[section] if key.startswith(str(name))]
    close += difflib.get_close_matches(str(name), known[section], n=1) if is_compared else []
    if close:
        return f'unknown key; did you mean "{close[0]}"?'
    elsewhere = [where for where, names in known.items() if name in names]
    if elsewhere:
        return f"unknown key here; it belongs into {f'section {elsewhere[0]}' if elsewhere[0] else 'the top level'}"
    return f"unknown key; expected one of: {', '.join(known[section])}"


def _missing(path: KeyPath) -> str:
    *parents, name = path
    section = ".".join(str(part) for part in parents if isinstance(part, str))
    field = sections()[section].model_fields[str(name)]
    inner = _section_in(field.annotation)
    meaning = field.description or (inner.__doc__ if inner is not None else "") or ""
    return f"expected this key, it is missing and has no default; add it ({meaning.rstrip('.')})"


def _own_message(error: ErrorDetails) -> str:
    if error["type"] == "misfit":
        return str(error["ctx"]["message"])
    return str(error["ctx"]["error"])  # the ValueError of a validator


def _wrong(errors: list[ErrorDetails], shown: str, value: object) -> str:
    expected = " or ".join(dict.fromkeys(_expected(error) for error in errors))
    return f"expected {expected}, got {shown}{_advice(errors, value)}"


def _expected(error: ErrorDetails) -> str:
    context = error.get("ctx", {})
    if error["type"] == "literal_error":
        return re.sub(r"'([^']*)'", r'"\1"', context["expected"])
    if error["type"] == "string_pattern_mismatch":
        return _PATTERNS[context["pattern"]]
    sentence = _EXPECTED.get(error["type"])
    return sentence.format(**context) if sentence is not None else error["msg"]


def _shown(path: KeyPath, value: object) -> str:
    if path[-1:] and path[-1] in _SECRETS:
        return "a secret of another kind"
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return f"the number {value}"
    if isinstance(value, str):
        text = redact(value)
        return f"the text {json.dumps(text if len(text) <= 60 else text[:57] + '...', ensure_ascii=False)}"
    return f"a list of {len(value)}" if isinstance(value, list) else "a section"


def _advice(errors: list[ErrorDetails], value: object) -> str:
    types = {error["type"] for error in errors}
    if value is None:
        return "; write one, or remove the line to have the default"
    if types == {"bool_type"} and isinstance(value, str):
        word = {"yes": "true", "on": "true", "no": "false", "off": "false"}.get(value.lower())
        return f"; write {word}" if word else ""
    options = [word for error in errors for word in re.findall(r"'([^']*)'", error.get("ctx", {}).get("expected", ""))]
    if isinstance(value, bool | int | float) and ("string_type" in types or str(value) in options):
        return "; put it in quotes"
    if isinstance(value, str) and types & {"int_type", "float_type"} and re.fullmatch(r"[-+.0-9]+", value):
        return "; remove the quotes"
    if isinstance(value, str) and (close := difflib.get_close_matches(value, options, n=1)):
        return f'; did you mean "{close[0]}"?'
    return ""


def _section_in(annotation: object) -> type[Section] | None:
    """The section inside ``Section``, ``Section | None`` or ``list[Section]``."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    return next((found for part in typing.get_args(annotation) if (found := _section_in(part)) is not None), None)
