"""Calibration pictures: which are taken, how they are split, and that they are resized as the device resizes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from agent.model.manifest import InputSpec
from agent.vision.resize import Resizer
from build_models.errors import RecipeError
from build_models.pictures import load_pictures

if TYPE_CHECKING:
    from build_models.pictures import PictureSet

SPEC = InputSpec(height=48, width=64)


def write_pictures(folder: Path, count: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(count):
        picture = np.random.default_rng(seed).integers(0, 256, (30 + seed, 50, 3)).astype(np.uint8)
        cv2.imwrite(str(folder / f"{seed}.png"), picture)
    return folder


def digests(pictures: PictureSet) -> tuple[list[str], list[str]]:
    return [each.sha256 for each in pictures.calibration], [each.sha256 for each in pictures.held_out]


def test_the_split_depends_on_the_contents_alone(tmp_path: Path) -> None:
    first = write_pictures(tmp_path / "first", 10)
    second = tmp_path / "second" / "deeper"
    second.mkdir(parents=True)
    for number, path in enumerate(first.iterdir()):
        shutil.copy(path, second / f"renamed-{number}.png")
    sets = [load_pictures(folder, SPEC, 0.3) for folder in (first, second.parent)]
    assert digests(sets[0]) == digests(sets[1])
    assert sets[0].sha256 == sets[1].sha256


def test_other_contents_give_another_digest(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path, 5)
    before = load_pictures(folder, SPEC, 0.3).sha256
    (folder / "4.png").unlink()
    assert load_pictures(folder, SPEC, 0.3).sha256 != before


def test_no_picture_is_in_both_parts_and_none_is_lost(tmp_path: Path) -> None:
    calibration, held_out = digests(load_pictures(write_pictures(tmp_path, 10), SPEC, 0.3))
    assert (len(calibration), len(held_out)) == (7, 3)
    assert len({*calibration, *held_out}) == 10


@pytest.mark.parametrize(("count", "share", "held_out"), [(3, 0.01, 2), (3, 0.99, 2), (10, 0.01, 2), (10, 0.99, 9)])
def test_both_parts_have_enough_pictures(tmp_path: Path, count: int, share: float, held_out: int) -> None:
    pictures = load_pictures(write_pictures(tmp_path, count), SPEC, share)
    assert (len(pictures.calibration), len(pictures.held_out)) == (count - held_out, held_out)


def test_a_picture_lies_in_the_input_as_the_device_puts_it_there(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path, 3)
    pictures = load_pictures(folder, SPEC, 0.3)
    for each in (*pictures.calibration, *pictures.held_out):
        frame = np.asarray(cv2.imread(str(folder / each.name)), np.uint8)
        expected = np.zeros((48, 64, 3), np.uint8)
        placement = Resizer(SPEC, expected)(frame)
        assert np.array_equal(each.input_image, expected)
        assert each.placement == placement


def test_what_is_no_picture_is_named_and_left_out(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path, 4)
    (folder / "text.jpg").write_text("no picture")
    (folder / "empty.jpg").touch()
    (folder / "cut.png").write_bytes((folder / "0.png").read_bytes()[:20])
    pictures = load_pictures(folder, SPEC, 0.3)
    assert sorted(pictures.unreadable) == ["cut.png", "empty.jpg", "text.jpg"]
    assert len(pictures.calibration) + len(pictures.held_out) == 4


def test_other_files_and_folders_are_passed_over(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path, 4)
    (folder / "notes.txt").write_text("none")
    (folder / "folder.jpg").mkdir()
    assert load_pictures(folder, SPEC, 0.3).unreadable == ()


def test_a_copy_of_a_picture_counts_once(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path, 4)
    before = load_pictures(folder, SPEC, 0.3)
    shutil.copy(folder / "0.png", folder / "copy.png")
    assert digests(load_pictures(folder, SPEC, 0.3)) == digests(before)


def test_a_limit_takes_the_first_by_digest(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path, 8)
    (a, b), (c, d) = (digests(load_pictures(folder, SPEC, 0.3, limit)) for limit in (None, 5))
    assert sorted(c + d) == sorted(a + b)[:5]


def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"nowhere: expected a folder with calibration pictures"):
        load_pictures(tmp_path / "nowhere", SPEC, 0.3)


@pytest.mark.parametrize("count", [0, 2])
def test_too_few_pictures_are_told_with_their_number(tmp_path: Path, count: int) -> None:
    with pytest.raises(RecipeError, match=f"expected at least 3 different pictures .* found {count}$"):
        load_pictures(write_pictures(tmp_path, count), SPEC, 0.3)


def test_a_limit_that_leaves_too_few_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"found 2, as calibration\.limit is 2$"):
        load_pictures(write_pictures(tmp_path, 8), SPEC, 0.3, limit=2)


def test_unreadable_pictures_are_counted_when_too_few_are_left(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path, 2)
    (folder / "text.jpg").write_text("no picture")
    with pytest.raises(RecipeError, match=r"found 2 and 1 unreadable$"):
        load_pictures(folder, SPEC, 0.3)


def test_a_file_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    folder = write_pictures(tmp_path, 3)
    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(RecipeError, match=r"0\.png: cannot read the picture: Permission denied"):
        load_pictures(folder, SPEC, 0.3)
