"""The part of YAML that a configuration may use, and what is refused."""

from __future__ import annotations

import itertools
import time
import tracemalloc

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from agent.yaml_document import MAX_CHARACTERS, MAX_DEPTH, MAX_VALUES, Position, YamlProblem, parse, scalar_of


def test_every_value_and_key_knows_its_place() -> None:
    document = parse("node: a\ncameras:\n  - id: front\n    fps: 5\n  - {id: back}\n")
    assert document.data == {"node": "a", "cameras": [{"id": "front", "fps": 5}, {"id": "back"}]}
    assert document.values["node",] == Position(1, 7)
    assert document.keys["cameras",] == Position(2, 1)
    assert document.values["cameras", 0] == Position(3, 5)
    assert document.values["cameras", 0, "fps"] == Position(4, 10)
    assert document.values["cameras", 1, "id"] == Position(5, 10)


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("", None),
        ("~", None),
        ("null", None),
        ("true", True),
        ("false", False),
        ("12", 12),
        ("-3", -3),
        ("0123", 123),  # not octal
        ("1.5", 1.5),
        (".5", 0.5),
        ("1e3", 1000.0),
        # YAML 1.1 would make something else of these
        ("yes", "yes"),
        ("on", "on"),
        ("Off", "Off"),
        ("True", "True"),
        ("12:30", "12:30"),
        ("1_000", "1_000"),
        ("0x10", "0x10"),
        ("2020-01-01", "2020-01-01"),
        (".inf", ".inf"),
        ("nan", "nan"),
        ("9" * 4096, "9" * 4096),  # a number of that many digits would be slow to convert
    ],
)
def test_an_unquoted_word_means_what_it_looks_like(word: str, value: object) -> None:
    found = scalar_of(word)
    assert found == value
    assert type(found) is type(value)
    assert parse(f"key: {word}").data == {"key": value}


@pytest.mark.parametrize("written", ["'12'", '"true"', "'null'", "''", "|-\n  5"])
def test_what_is_quoted_is_a_text(written: str) -> None:
    data = parse(f"key: {written}").data
    assert isinstance(data, dict)
    assert isinstance(data["key"], str)


@pytest.mark.parametrize(
    ("text", "place", "expected"),
    [
        ("a: &x 1\n", (1, 4), "anchors and aliases"),
        ("a: 1\nb: *x\n", (2, 4), "anchors and aliases"),
        ("&x a: 1\n", (1, 1), "anchors and aliases"),  # on a key
        ("a: !!python/object:os.system x\n", (1, 4), "tags"),
        ("a: !secret x\n", (1, 4), "tags"),
        ("!!map {a: 1}\n", (1, 1), "tags"),
        ("a:\n\t- b\n", (2, 1), "indent with spaces, not tabs"),
        ("a: b: c\n", (1, 5), "in quotes, and check the indentation"),
        ("a: [${X}]\n", (1, 6), "put a text that contains ${...} in quotes"),
        ("a: @x\n", (1, 4), "begins with @"),
        ("a: 'x\n", (2, 1), "close the quotes"),
        ("? [a]\n: b\n", (1, 3), "expected a word as the key"),
        ('a: "\\0"\n', (1, 4), "NUL"),
        ('"\\0": a\n', (1, 1), "NUL"),
        ("a: \x07\n", (1, 1), "characters are not allowed"),
        ("a: 1\n---\nb: 2\n", (2, 1), "expected one document"),
    ],
)
def test_what_a_configuration_cannot_use_is_refused_at_its_place(
    text: str, place: tuple[int, int], expected: str
) -> None:
    with pytest.raises(YamlProblem) as caught:
        parse(text)
    assert expected in str(caught.value)
    assert caught.value.problem.position == place


def test_a_key_that_stands_twice_is_a_problem_with_both_lines() -> None:
    (problem,) = parse("a: 1\nb: 2\na: 3\n").problems
    assert problem.position == (3, 1)
    assert problem.key_path == ("a",)
    assert "already in line 1" in problem.message


def test_the_same_key_in_two_sections_is_none() -> None:
    assert parse("x: {a: 1}\ny: {a: 1}\nz: [{a: 1}, {a: 1}]\n").problems == []


def test_nothing_is_an_empty_document() -> None:
    assert parse("").data is None
    assert parse("# only a comment\n").data is None


BOMBS = {
    "aliases": "a: &a [x, x]\n"
    + "".join(f"{new}: &{new} [*{old}, *{old}]\n" for old, new in itertools.pairwise("abcdefg")),
    "lists": "[" * 260_000,
    "sections": "{a: " * 60_000,
    "indents": "- " * 120_000,
    "keys": "".join(f"k{number}: 1\n" for number in range(25_000)),
    "one key": "a: b\n" * 50_000,
    "entries": "a: [" + "1," * 120_000 + "]",
    "one word": "a" * 262_144,
    "digits": "a: " + "9" * 262_000,
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_costs_next_to_nothing(bomb: str) -> None:
    took_s = []
    for _ in range(3):  # one may have to collect another test's garbage
        started_s = time.thread_time()
        assert is_refused(BOMBS[bomb])
        took_s.append(time.thread_time() - started_s)
    assert min(took_s) < 0.1
    tracemalloc.start()
    is_refused(BOMBS[bomb])
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 50e6


def is_refused(text: str) -> bool:
    try:
        parse(text)
    except YamlProblem:
        return True
    return False


def test_depth_length_and_number_of_values_may_reach_their_limits() -> None:
    parse("[" * MAX_DEPTH + "]" * MAX_DEPTH)
    with pytest.raises(YamlProblem, match="levels"):
        parse("[" * (MAX_DEPTH + 2) + "]" * (MAX_DEPTH + 2))
    parse("a: " + "x" * MAX_CHARACTERS)
    with pytest.raises(YamlProblem, match="characters"):
        parse("a: " + "x" * (MAX_CHARACTERS + 1))
    parse("a: [" + "1," * (MAX_VALUES - 2) + "]")
    with pytest.raises(YamlProblem, match="values"):
        parse("a: [" + "1," * (MAX_VALUES + 1) + "]")


_words = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=12).filter(
    lambda word: isinstance(scalar_of(word), str)  # the writer knows YAML 1.1, where 1e3 is a text
)
_scalars = st.none() | st.booleans() | st.integers(-(10**17), 10**17) | st.floats(-1e9, 1e9, width=32) | _words
_trees = st.recursive(
    _scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_words, inner, max_size=4), max_leaves=20
)


@given(_trees, st.booleans())
@example(0.0010000000474974513, False)
@example(-0.00012345678901234567, False)
def test_what_a_yaml_writer_writes_is_read_back(tree: object, flow: bool) -> None:
    class Writer(yaml.SafeDumper):
        def ignore_aliases(self, data: object) -> bool:
            return True

    text = yaml.dump(tree, Dumper=Writer, default_flow_style=flow, allow_unicode=True)
    document = parse(text)
    assert document.data == tree
    assert document.problems == []


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused_with_a_place(text: str) -> None:
    try:
        parse(text)
    except YamlProblem as err:
        problem = err.problem
    else:
        return
    assert problem.position >= (1, 1)
    assert "\n" not in problem.message
