"""How an attempt is told, and what is remembered of it."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

import pytest

from build_models.errors import RecipeError
from build_models.metrics.bootstrap import Drop
from build_models.quantize.attempts import Attempt, Choice, Memory

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.build

FACTS = ("look", "of a file", "of pictures")
VALUE: dict[str, Any] = {"value": 0.25, "names": ["a", "b"]}


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        (Choice("mse"), "mse"),
        (Choice("mse", equalized=True, bias=True), "mse, equalised, biases corrected"),
        (Choice("mse", float_nodes=frozenset("ab")), "mse, 2 nodes in float"),
        (Choice("mse", form="packed stem"), "mse (packed stem)"),
    ],
)
def test_a_choice_is_told_in_words(choice: Choice, said: str) -> None:
    assert str(choice) == said


def test_an_attempt_is_plain_for_a_report_without_its_path(tmp_path: Path) -> None:
    drop = Drop(0.1, 0.0, 0.2, 0.9, 0.8, 10, "bootstrap")
    choice = Choice("mse", float_nodes=frozenset({"b", "a"}))
    plain = Attempt(choice, "5a", 7, drop, drop, 0.123456, True, tmp_path).plain()
    assert json.loads(json.dumps(plain)) == plain
    assert plain["choice"]["float_nodes"] == ["a", "b"]
    assert plain["float_share"] == 0.1235
    assert str(tmp_path) not in json.dumps(plain)


def test_what_is_noted_is_recalled_under_the_same_facts_alone(tmp_path: Path) -> None:
    memory = Memory(tmp_path / "made when needed")
    assert memory.recall(*FACTS) is None
    memory.note(VALUE, *FACTS)
    assert Memory(memory.folder).recall(*FACTS) == VALUE
    assert memory.recall(*FACTS[:2]) is None
    assert memory.recall(*FACTS, "more") is None
    assert memory.recall(FACTS[1], FACTS[0], FACTS[2]) is None


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RecipeError, match=r"file: cannot write what the search found: .*; choose another --work"):
        Memory(tmp_path / "file").note(VALUE, *FACTS)


def test_numbers_come_back_exactly(tmp_path: Path) -> None:
    memory = Memory(tmp_path)
    drop = Drop(0.1 + 0.2, -1e-17, 1 / 3, 0.9, float("inf"), 10, "score")
    memory.note(dataclasses.asdict(drop), *FACTS)
    noted = memory.recall(*FACTS)
    assert noted is not None
    assert Drop(**noted) == drop
    memory.note({"value": float("nan")}, *FACTS)
    assert memory.recall(*FACTS) is not None


def test_without_a_folder_nothing_is_kept() -> None:
    memory = Memory(None)
    memory.note(VALUE, *FACTS)
    assert memory.recall(*FACTS) is None


def test_a_note_that_is_cut_or_changed_anywhere_is_not_believed(tmp_path: Path) -> None:
    memory = Memory(tmp_path)
    memory.note(VALUE, *FACTS)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    damaged = [whole[:end] for end in range(len(whole))]
    damaged += [whole[:place] + bytes([whole[place] ^ 0x11]) + whole[place + 1 :] for place in range(len(whole))]
    damaged += [b"[]", b"1", b"null", b"{}", b'{"value": {}}', b"\xff\xfe"]
    for data in damaged:
        path.write_bytes(data)
        assert memory.recall(*FACTS) is None, data
    path.write_bytes(whole)
    assert memory.recall(*FACTS) == VALUE


def test_a_note_of_other_facts_in_its_place_is_not_believed(tmp_path: Path) -> None:
    memory = Memory(tmp_path)
    memory.note(VALUE, *FACTS)
    (path,) = tmp_path.iterdir()
    other = Memory(tmp_path / "other")
    other.note(VALUE, "something", "else")
    (strange,) = (tmp_path / "other").iterdir()
    path.write_bytes(strange.read_bytes())
    assert memory.recall(*FACTS) is None


def test_noting_leaves_no_part_of_a_file(tmp_path: Path) -> None:
    memory = Memory(tmp_path)
    for number in range(3):
        memory.note({"value": number}, *FACTS)
    assert [path.suffix for path in tmp_path.iterdir()] == [".json"]
    assert memory.recall(*FACTS) == {"value": 2}
