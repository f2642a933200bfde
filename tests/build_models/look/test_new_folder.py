"""A folder of results appears whole or not at all, and replaces only its like."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from build_models.errors import RecipeError
from build_models.look.new_folder import new_folder

if TYPE_CHECKING:
    from pathlib import Path


def write(target: Path, text: str) -> None:
    with new_folder(target, "sign") as folder:
        (folder / "sign").write_text(text)


def test_an_older_result_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    write(tmp_path / "deep" / "out", "first")
    (tmp_path / "deep" / "out" / "stale").touch()
    write(tmp_path / "deep" / "out", "second")
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["out"]
    assert [path.name for path in (tmp_path / "deep" / "out").iterdir()] == ["sign"]
    assert (tmp_path / "deep" / "out" / "sign").read_text() == "second"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter").touch()
    (tmp_path / "file").touch()
    for name in ("mine", "file"):
        with pytest.raises(RecipeError, match=f"{name}: there is something else already"):
            write(tmp_path / name, "third")
    with pytest.raises(RecipeError, match="cannot write there"):
        write(tmp_path / "file" / "below", "third")


def test_a_failure_leaves_everything_as_it_was(tmp_path: Path) -> None:
    def fail() -> None:
        with new_folder(tmp_path / "out", "sign") as folder:
            (folder / "sign").write_text("half")
            raise ValueError("halfway")

    with pytest.raises(ValueError, match="halfway"):
        fail()
    assert list(tmp_path.iterdir()) == []
    write(tmp_path / "out", "first")
    with pytest.raises(ValueError, match="halfway"):
        fail()
    assert (tmp_path / "out" / "sign").read_text() == "first"
