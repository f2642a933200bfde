"""Pictures of a dataset: resized as the device resizes, decoded when they are asked for, kept within bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

pytest.importorskip("tqdm", reason="needs the build extra")

from agent.model.manifest import InputSpec
from agent.vision.resize import Resizer
from build_models.data.dataset import load_dataset
from build_models.data.formats import ClassFolders
from build_models.data.formats import Pictures as Folder
from build_models.data.sample import ClassTruth
from build_models.errors import RecipeError
from build_models.pictures import Pictures

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.build

SPEC = InputSpec(height=48, width=64)
ONE_PICTURE = 48 * 64 * 3


def write_pictures(folder: Path, count: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(count):
        picture = np.random.default_rng(seed).integers(0, 256, (30 + seed, 50, 3)).astype(np.uint8)
        cv2.imwrite(str(folder / f"{seed}.png"), picture)
    return folder


def pictures_of(folder: Path, kept_bytes: int = 1 << 20) -> Pictures:
    return Pictures(load_dataset(Folder(format="pictures", path=folder), ["a"], "detect"), SPEC, kept_bytes)


def test_a_picture_lies_in_the_input_as_the_device_puts_it_there(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path, 3)
    seen = list(pictures_of(folder))
    assert len(seen) == 3
    for each in seen:
        frame = np.asarray(cv2.imread(str(folder / each.name)), np.uint8)
        expected = np.zeros((48, 64, 3), np.uint8)
        placement = Resizer(SPEC, expected)(frame)
        assert np.array_equal(each.input_image, expected)
        assert each.placement == placement
        assert each.truth is None


def test_labels_come_along(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        write_pictures(tmp_path / name, 1 if name == "cat" else 2)
    (tmp_path / "dog" / "0.png").unlink()  # the same picture as the cat's
    dataset = load_dataset(ClassFolders(format="class_folders", path=tmp_path), ["cat", "dog"], "classify")
    truths = {each.name: each.truth for each in Pictures(dataset, SPEC)}
    assert truths == {"cat/0.png": ClassTruth(0), "dog/1.png": ClassTruth(1)}


def test_every_look_shows_the_same_pictures_in_the_same_order(tmp_path: Path) -> None:
    pictures = pictures_of(write_pictures(tmp_path, 5), kept_bytes=2 * ONE_PICTURE)
    first, second = list(pictures), list(pictures)
    assert [each.name for each in first] == [each.name for each in second]
    assert [each.name for each in pictures.first(2)] == [each.name for each in first[:2]]
    assert all(np.array_equal(one, other.input_image) for one, other in zip(pictures.images(), first, strict=True))


@pytest.mark.parametrize(("kept", "decoded_again"), [(0, 5), (2, 3), (5, 0), (9, 0)])
def test_only_as_many_are_kept_as_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: int, decoded_again: int
) -> None:
    pictures = pictures_of(write_pictures(tmp_path, 5), kept_bytes=kept * ONE_PICTURE)
    list(pictures)
    decoded = []
    load = Pictures._load

    def counted(self: Pictures, sample: object) -> object:
        decoded.append(sample)
        return load(self, sample)  # type: ignore[arg-type] # passed on

    monkeypatch.setattr(Pictures, "_load", counted)
    list(pictures)
    assert len(decoded) == decoded_again


def test_a_look_that_ends_early_loses_none(tmp_path: Path) -> None:
    pictures = pictures_of(write_pictures(tmp_path, 5))
    assert len(pictures.first(2)) == 2
    assert len({each.name for each in pictures}) == len(pictures) == 5


def test_two_looks_at_once_keep_the_order(tmp_path: Path) -> None:
    pictures = pictures_of(write_pictures(tmp_path, 5))
    expected = [each.name for each in pictures_of(tmp_path)]
    one, other = iter(pictures), iter(pictures)
    names = [(next(one).name, next(other).name) for _ in range(5)]
    assert names == [(name, name) for name in expected]
    assert [each.name for each in pictures] == expected


def test_a_picture_that_changed_since_it_was_listed_is_told(tmp_path: Path) -> None:
    pictures = pictures_of(write_pictures(tmp_path, 3))
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(RecipeError, match=r"\d\.png"):
        list(pictures)
