"""Datasets of any format: lazy, in an order of their contents, refused with one list of what is wrong."""

from __future__ import annotations

import io
import shutil
import tracemalloc
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from build_models.data.dataset import load_dataset
from build_models.data.formats import AnyData
from build_models.data.sample import MaskTruth
from build_models.errors import RecipeError
from build_models.progress import Progress
from tests.build_models.data.folders import (
    LABELS,
    by_name,
    config,
    load,
    problems,
    write_mask,
    write_picture,
    write_text,
)


def test_pictures_are_found_below_the_folder_and_need_no_labels(tmp_path: Path) -> None:
    for number, name in enumerate(["a.png", "sub/b.jpg", "sub/deep/c.bmp", "d.webp"]):
        write_picture(tmp_path / name, number)
    write_text(tmp_path / "notes.txt", "no picture")
    write_picture(tmp_path / ".hidden.png", 9)
    dataset = load(format="pictures", path=tmp_path)
    assert sorted(by_name(dataset)) == ["a.png", "d.webp", "sub/b.jpg", "sub/deep/c.bmp"]
    assert dataset.task is None
    assert dataset.said == "4 pictures"
    for sample in dataset.samples:
        assert sample.truth is None
        assert np.array_equal(sample.image_bgr(), np.asarray(cv2.imread(str(sample.path))))
        assert sample.size_wh == (40, 30)


def test_the_order_and_the_digest_depend_on_contents_alone(tmp_path: Path) -> None:
    for number in range(5):
        write_picture(tmp_path / "one" / f"{number}.png", number)
        write_picture(tmp_path / "other" / "sub" / f"x{9 - number}.png", number)
    one, other = (load(format="pictures", path=tmp_path / name) for name in ("one", "other"))
    assert [sample.sha256 for sample in one.samples] == [sample.sha256 for sample in other.samples]
    assert one.sha256 == other.sha256
    write_picture(tmp_path / "one" / "0.png", 77)
    assert load(format="pictures", path=tmp_path / "one").sha256 != one.sha256


def test_another_label_is_another_digest(tmp_path: Path) -> None:
    write_picture(tmp_path / "images" / "a.png")
    digests = set()
    for line in ("0 0.5 0.5 0.5 0.5", "1 0.5 0.5 0.5 0.5", "0 0.5 0.5 0.5 0.4", ""):
        write_text(tmp_path / "labels" / "a.txt", line)
        digests.add(load(format="yolo", images=tmp_path / "images", labels=tmp_path / "labels").sha256)
    assert len(digests) == 4


def test_a_limit_takes_the_first_by_digest(tmp_path: Path) -> None:
    for number in range(6):
        write_picture(tmp_path / f"{number}.png", number)
    everything = load(format="pictures", path=tmp_path)
    assert [each.name for each in load(format="pictures", path=tmp_path, limit=4).samples] == [
        each.name for each in everything.samples[:4]
    ]
    assert len(load(format="pictures", path=tmp_path, limit=40)) == 6


def test_a_picture_that_lies_there_twice_counts_once(tmp_path: Path) -> None:
    write_picture(tmp_path / "images" / "a.png")
    shutil.copy(tmp_path / "images" / "a.png", tmp_path / "images" / "b.png")
    for name in ("a", "b"):
        write_text(tmp_path / "labels" / f"{name}.txt", "0 0.5 0.5 0.5 0.5")
    folders = {"format": "yolo", "images": tmp_path / "images", "labels": tmp_path / "labels"}
    assert load(**folders).said == "1 pictures, 1 objects, 1 copies left out"
    write_text(tmp_path / "labels" / "b.txt", "1 0.5 0.5 0.5 0.5")
    assert "b.png: the same picture as a.png, but labelled otherwise" in problems(**folders)


def test_a_dataset_of_many_pictures_holds_no_pixels(tmp_path: Path) -> None:
    """200 pictures of 200 x 200, 24 MB of pixels: 2 KB each for names, digests and boxes, and one picture in use."""
    for number in range(200):
        write_picture(tmp_path / "images" / f"{number}.png", number, 200, 200)
        write_text(tmp_path / "labels" / f"{number}.txt", "0 0.5 0.5 0.5 0.5\n" * 5)
    load(format="yolo", images=tmp_path / "images", labels=tmp_path / "labels", limit=1)
    tracemalloc.start()
    try:
        dataset = load(format="yolo", images=tmp_path / "images", labels=tmp_path / "labels")
        for sample in dataset.samples:
            sample.image_bgr()
        kept, peak = tracemalloc.get_traced_memory()
        held = [sample.image_bgr() for sample in dataset.samples]
        control, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(held) == 200
    assert kept < 200 * 3_000
    assert peak < 2_000_000
    assert control > 20_000_000


def test_a_mask_is_read_when_it_is_asked_for(tmp_path: Path) -> None:
    write_picture(tmp_path / "images" / "a.png")
    path = write_mask(tmp_path / "masks" / "a.png", np.ones((30, 40)))
    dataset = load(format="masks", images=tmp_path / "images", masks=tmp_path / "masks", rest="ignore")
    write_mask(path, np.zeros((30, 40)))
    truth = dataset.samples[0].truth
    assert isinstance(truth, MaskTruth)
    with pytest.raises(RecipeError, match=r"a\.png: the file has changed since it was listed"):
        truth.ids()


def test_a_bar_is_shown_while_files_are_read(tmp_path: Path) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    write_picture(tmp_path / "a.png")
    stream = Terminal()
    load_dataset(config(format="pictures", path=tmp_path), LABELS, "detect", Progress(1, stream))
    assert "picture/s" in stream.getvalue()


@pytest.mark.parametrize("format_", ["pictures", "class_folders", "yolo", "voc", "masks"])
def test_no_folder_and_an_empty_folder_are_told(format_: str, tmp_path: Path) -> None:
    keys = {"yolo": ("images", "labels"), "voc": ("images", "annotations"), "masks": ("images", "masks")}
    paths = dict.fromkeys(keys.get(format_, ("path",)), tmp_path / "none")
    assert f"{tmp_path / 'none'}: expected a folder" in problems(format=format_, **paths)
    (tmp_path / "none").mkdir()
    assert f"{tmp_path / 'none'}: expected pictures (.jpg" in problems(format=format_, **paths)


def test_labels_for_another_task_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="to classify, such as pictures, class_folders; yolo has labels"):
        load_dataset(config(format="yolo", images=tmp_path, labels=tmp_path), LABELS, "classify")


def test_twenty_problems_are_shown_and_the_rest_counted(tmp_path: Path) -> None:
    for number in range(25):
        write_text(tmp_path / f"{number:02}.png", f"no picture {number}")
    told = problems(format="pictures", path=tmp_path).splitlines()
    assert told[0] == f"pictures data in {tmp_path}: 25 problems"
    assert told[1].startswith("  00.png: damaged, or no picture: ")
    assert len(told) == 22
    assert told[-1] == "  and 5 more"


def test_one_problem_is_enough_to_refuse(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png")
    cut = write_picture(tmp_path / "b.png", 1)
    cut.write_bytes(cut.read_bytes()[:-30])
    told = problems(format="pictures", path=tmp_path)
    assert told.startswith(f"pictures data in {tmp_path}: 1 problem\n  b.png: damaged")


def test_a_file_that_may_not_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_picture(tmp_path / "a.png")

    def refuse(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)  # root may read every file
    assert f"a.png: {path}: cannot read the file: Permission denied" in problems(format="pictures", path=tmp_path)


@pytest.mark.parametrize(
    "values",
    [
        {"format": "imagenet", "path": "x"},
        {"format": "yolo", "images": "x", "labels": "y", "class_map": {"one": "person"}},
        {"format": "masks", "images": "x", "masks": "y", "class_map": {"-1": "person"}},
        {"format": "pictures", "path": "x", "limit": 0},
        {"format": "pictures", "path": "x", "labels": "y"},
    ],
)
def test_a_config_that_cannot_be_meant_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        config(**values)


def test_paths_are_relative_to_the_recipe(tmp_path: Path) -> None:
    adapter = TypeAdapter[Any](AnyData)
    values = {"format": "masks", "images": "i", "masks": "m", "class_map": {"3": "car"}}
    made = adapter.validate_python(values, context={"base": tmp_path})
    assert (made.images, made.masks, made.class_map) == (tmp_path / "i", tmp_path / "m", {3: "car"})
