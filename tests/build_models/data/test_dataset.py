"""Datasets: every format, lazily; and everything that can be wrong with one, in one list."""

from __future__ import annotations

import io
import shutil
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from build_models.data.dataset import Dataset, load_dataset
from build_models.data.formats import AnyData
from build_models.data.sample import BoxesTruth, ClassTruth, MaskTruth
from build_models.errors import RecipeError
from build_models.progress import Progress
from tests.build_models.data.folders import LABELS, coco_json, voc_xml, write_mask, write_picture, write_text

if TYPE_CHECKING:
    from agent.model.manifest import Task

TASKS: dict[str, Task] = {"class_folders": "classify", "masks": "segment"}


def config(**values: Any) -> Any:
    """As from a recipe: plain values."""
    return TypeAdapter[Any](AnyData).validate_python(
        {k: str(v) if hasattr(v, "parts") else v for k, v in values.items()}
    )


def load(**values: Any) -> Dataset:
    return load_dataset(config(**values), LABELS, TASKS.get(values["format"], "detect"))


def problems(**values: Any) -> str:
    with pytest.raises(RecipeError) as caught:
        load(**values)
    return str(caught.value)


def by_name(dataset: Dataset) -> dict[str, Any]:
    return {sample.name: sample.truth for sample in dataset.samples}


# All formats


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


# Class folders


def test_a_folder_is_a_class(tmp_path: Path) -> None:
    for number, name in enumerate(["car/a.png", "car/sub/b.png", "person/c.png", "Hund/d.png"]):
        write_picture(tmp_path / name, number)
    dataset = load(format="class_folders", path=tmp_path, class_map={"Hund": "dog"})
    assert by_name(dataset) == {
        "car/a.png": ClassTruth(1),
        "car/sub/b.png": ClassTruth(1),
        "person/c.png": ClassTruth(0),
        "Hund/d.png": ClassTruth(2),
    }
    assert (dataset.task, dataset.said) == ("classify", "4 pictures, 3 of 3 classes")


def test_what_is_wrong_with_class_folders_is_told(tmp_path: Path) -> None:
    for number, name in enumerate(["cars/a.png", "person/b.png", "zebra/c.png", "d.png"]):
        write_picture(tmp_path / name, number)
    (tmp_path / "dog").mkdir()
    told = problems(format="class_folders", path=tmp_path, class_map={"cat": "dog"})
    assert "folder cars: 'cars' is no label of the recipe; did you mean 'car'?" in told
    assert "folder zebra: 'zebra' is no label of the recipe (person, car, dog); map it to one with class_map" in told
    assert "folder dog: expected pictures in it, found none" in told
    assert "class_map: there is no folder 'cat'" in told
    assert "d.png: expected it in the folder of a class" in told
    assert "5 problems" in told


def test_a_label_that_is_there_twice_cannot_be_meant(tmp_path: Path) -> None:
    write_picture(tmp_path / "crane" / "a.png")
    with pytest.raises(RecipeError, match="'crane' names several of the recipe's labels"):
        load_dataset(config(format="class_folders", path=tmp_path), ["crane", "car", "crane"], "classify")


# YOLO


def yolo(folder: Path, lines: str, **values: Any) -> dict[str, Any]:
    write_picture(folder / "images" / "sub" / "a.png")
    write_text(folder / "labels" / "sub" / "a.txt", lines)
    return {"format": "yolo", "images": folder / "images", "labels": folder / "labels", **values}


def boxes_of(dataset: Dataset) -> tuple[list[list[float]], list[int], list[bool]]:
    (sample,) = [sample for sample in dataset.samples if sample.name.endswith("a.png")]
    truth = sample.truth
    assert isinstance(truth, BoxesTruth)
    assert truth.boxes_xyxy.dtype == np.float32
    assert truth.labels.dtype == np.int64
    return truth.boxes_xyxy.tolist(), truth.labels.tolist(), truth.ignore.tolist()


def test_yolo_boxes_and_polygons_become_pixels(tmp_path: Path) -> None:
    values = yolo(tmp_path, "2 0.5 0.5 0.5 0.2\n\n0 0.1 0.2 0.5 0.2 0.3 0.9\n1 0.5 0.5 1.001 1\n")
    write_picture(tmp_path / "images" / "empty.png", 5)
    write_text(tmp_path / "labels" / "classes.txt", "person\ncar\ndog\n")
    dataset = load(**values)
    boxes, labels, ignore = boxes_of(dataset)
    assert np.allclose(boxes, [[10, 12, 30, 18], [4, 6, 20, 27], [0, 0, 40, 30]])
    assert (labels, ignore) == ([2, 0, 1], [False] * 3)
    assert by_name(dataset)["empty.png"].boxes_xyxy.shape == (0, 4)
    assert dataset.said == "2 pictures, 3 objects"


def test_yolo_classes_may_be_mapped_and_others_left_out(tmp_path: Path) -> None:
    lines = "7 0.5 0.5 0.5 0.5\n8 0.5 0.5 0.5 0.5\n0 0.5 0.5 0 0.5\n"
    values = yolo(tmp_path, lines, class_map={"7": "dog", "0": "person"}, unknown="skip")
    dataset = load(**values)
    assert boxes_of(dataset)[1] == [2]
    assert dataset.said == "1 pictures, 1 objects, 1 boxes without area left out, 1 objects of other classes left out"
    assert boxes_of(load(**yolo(tmp_path, "2 0.5 0.5 0.5 0.5\n3 0.5 0.5 0.5 0.5", unknown="skip")))[1] == [2]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("3 0.5 0.5 0.5 0.5", "expected a class of 0 to 2, one per label, got 3"),
        ("-1 0.5 0.5 0.5 0.5", "expected a class of 0 to 2, one per label, got -1"),
        ("0 0.9 0.5 0.5 0.5", "expected a box within 0..1, got 0.65 0.25 1.15 0.75"),
        ("0 nan 0.5 0.5 0.5", "expected a box within 0..1, got nan"),
        ("0 320 200 50 40", "expected a box within 0..1"),
        ("0 0.5 0.5 -0.1 0.5", "expected a box with sides of at least 0 pixels"),
        ("0 0.5 0.5 0.5", "expected `class cx cy w h` or a polygon of at least 3 points, got 4 values"),
        ("0 0.5 0.5 0.5 0.5 0.9", "expected `class cx cy w h` or a polygon of at least 3 points, got 6 values"),
        ("car 0.5 0.5 0.5 0.5", "expected a class and numbers, got 'car 0.5"),
    ],
)
def test_a_wrong_line_is_told_with_its_place(line: str, told: str, tmp_path: Path) -> None:
    assert f"sub/a.txt:2: {told}" in problems(**yolo(tmp_path, f"0 0.5 0.5 0.5 0.5\n{line}\n"))


def test_wrong_yolo_files_are_told(tmp_path: Path) -> None:
    values = yolo(tmp_path, "5 0.5 0.5 0.5 0.5", class_map={"1": "cat"})
    write_text(tmp_path / "labels" / "b.txt", "")
    write_picture(tmp_path / "images" / "c.png", 3)
    (tmp_path / "labels" / "c.txt").write_bytes(b"\xff\xfe\x00")
    told = problems(**values)
    assert f"b.txt: expected a picture of that name in {tmp_path / 'images'}, found none" in told
    assert "c.txt: expected lines of numbers, found bytes that are no text" in told
    assert "sub/a.txt:1: class 5 is not in class_map; add it, or say `unknown: skip`" in told
    assert "class_map: 'cat' is no label of the recipe" in told
    shutil.rmtree(tmp_path / "labels")
    assert f"{tmp_path / 'labels'}: expected a folder, found none" in problems(**values)


# PASCAL VOC


def voc(folder: Path, xml: str, **values: Any) -> dict[str, Any]:
    write_picture(folder / "images" / "a.png")
    write_text(folder / "xml" / "a.xml", xml)
    return {"format": "voc", "images": folder / "images", "annotations": folder / "xml", **values}


def test_voc_pixels_count_from_one_and_difficult_objects_do_not_count(tmp_path: Path) -> None:
    xml = voc_xml([("car", (1, 1, 40, 30), False), ("Hund", (11, 6, 20, 15), True)])
    boxes, labels, ignore = boxes_of(load(**voc(tmp_path, xml, class_map={"Hund": "dog"})))
    assert boxes == [[0, 0, 40, 30], [10, 5, 20, 15]]
    assert (labels, ignore) == ([1, 2], [False, True])


@pytest.mark.parametrize(
    ("xml", "told"),
    [
        (
            voc_xml([("cat", (1, 1, 5, 5), False)]),
            "object 1: 'cat' is no label of the recipe; did you mean 'car'?",
        ),
        (voc_xml([("car", (1, 1, 50, 5), False)]), "a.xml: object 1: expected a box within the picture of 40 x 30"),
        (voc_xml([("car", (9, 1, 5, 5), False)]), "a.xml: object 1: expected a box with sides of at least 0"),
        (voc_xml([("car", ("x", 1, 5, 5), False)]), "a.xml: expected a number, got 'x'"),  # type: ignore[list-item]
        (voc_xml([], (30, 40)), "they are for 30 x 40; the picture is turned by EXIF, label it as it is shown"),
        (voc_xml([], (80, 60)), "a.xml: expected labels for 40 x 30 pixels, they are for 80 x 60"),
        ("<annotation><object><name>car</name></object></annotation>", "a.xml: object 1: expected a name and a bndbox"),
        ("<annotation>", "a.xml: expected an XML file, got no element found"),
        ("<!DOCTYPE a [<!ENTITY b 'c'>]><annotation/>", "a.xml: expected XML without a document type"),
    ],
)
def test_wrong_voc_files_are_told(xml: str, told: str, tmp_path: Path) -> None:
    assert told in problems(**voc(tmp_path, xml))


def test_voc_pictures_and_files_must_match(tmp_path: Path) -> None:
    values = voc(tmp_path, voc_xml([("cat", (1, 1, 5, 5), False)], None), unknown="skip")
    assert boxes_of(load(**values))[1] == []
    write_picture(tmp_path / "images" / "b.png", 1)
    write_text(tmp_path / "xml" / "c.xml", "<annotation/>")
    told = problems(**values)
    assert "b.png: expected its objects in" in told
    assert "c.xml: expected a picture of that name" in told


# COCO


def coco(folder: Path, **changes: Any) -> dict[str, Any]:
    for number, name in enumerate(["a.png", "b.png", "not-in-the-file.png"]):
        write_picture(folder / "images" / name, number)
    return {"format": "coco", "images": folder / "images", "annotations": coco_json(folder / "coco.json", **changes)}


def test_coco_categories_are_matched_by_name_and_crowds_do_not_count(tmp_path: Path) -> None:
    dataset = load(**coco(tmp_path))
    assert sorted(by_name(dataset)) == ["a.png", "b.png"]
    assert boxes_of(dataset) == ([[2, 3, 12, 8.5], [0, 0, 40, 30]], [2, 0], [False, True])


def annotation(**changes: Any) -> dict[str, Any]:
    return {"annotations": [{"id": 5, "image_id": 7, "category_id": 1, "bbox": [0, 0, 5, 5], **changes}]}


def test_other_categories_may_be_mapped_or_left_out(tmp_path: Path) -> None:
    categories = [{"id": 1, "name": "Mensch"}, {"id": 2, "name": "zebra"}]
    both = [{"id": n, "image_id": 7, "category_id": n, "bbox": [0, 0, 5, 5]} for n in (1, 2)]
    values = {**coco(tmp_path, categories=categories, annotations=both), "class_map": {"Mensch": "person"}}
    assert "annotation 2: 'zebra' is no label of the recipe" in problems(**values)
    assert boxes_of(load(**values, unknown="skip"))[1] == [0]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (annotation(image_id=8), "annotation 5: expected the id of an image, got image_id 8"),
        (annotation(category_id=2), "annotation 5: expected the id of a category, got category_id 2"),
        (annotation(category_id=[1]), "annotation 5: expected the id of a category"),
        (annotation(bbox=[0, 0, 5]), "annotation 5: expected a bbox of 4 numbers, got [0, 0, 5]"),
        (annotation(bbox=[0, 0, 50, 5]), "annotation 5: expected a box within the picture of 40 x 30"),
        (annotation(bbox=[0, 0, float("nan"), 5]), "annotation 5: expected a box within the picture"),
        (
            {"images": [{"id": 7, "file_name": "x.png"}], "annotations": []},
            "x.png: named in coco.json, but there is no such file",
        ),
        (
            {"images": [{"id": 7, "file_name": "../coco.json"}], "annotations": []},
            "../coco.json: named in coco.json, but",
        ),
        ({"images": [{"id": 7}], "annotations": []}, "coco.json: expected images with their own id and file_name"),
        ({"images": [], "annotations": []}, "coco.json: expected images in it, found none"),
        ({"categories": [{"id": 1}], "annotations": []}, "coco.json: expected categories with their own id and a name"),
        ({"categories": {}}, "coco.json: expected a COCO file: an object with a list of objects `categories`"),
        (
            {"images": [{"id": 7, "file_name": "a.png", "width": 30, "height": 40}], "annotations": []},
            "a.png: expected labels for 40 x 30 pixels (the picture as it is shown), they are for 30 x 40",
        ),
    ],
)
def test_wrong_coco_files_are_told(changes: dict[str, Any], told: str, tmp_path: Path) -> None:
    assert told in problems(**coco(tmp_path, **changes))


def test_what_is_no_json_is_told(tmp_path: Path) -> None:
    values = coco(tmp_path)
    write_text(values["annotations"], "{")
    assert "coco.json: expected a JSON file" in problems(**values)
    values["annotations"].unlink()
    assert "coco.json: cannot read the file" in problems(**values)


# Masks


def masks(folder: Path, rows: Any, **values: Any) -> dict[str, Any]:
    write_picture(folder / "images" / "a.png", width=4, height=2)
    write_mask(folder / "masks" / "a.png", rows)
    return {"format": "masks", "images": folder / "images", "masks": folder / "masks", **values}


def ids_of(dataset: Dataset) -> list[list[int]]:
    truth = dataset.samples[0].truth
    assert isinstance(truth, MaskTruth)
    assert truth.ids().dtype == np.int16
    ids: list[list[int]] = truth.ids().tolist()
    return ids


ROWS = [[0, 1, 2, 255], [3, 3, 7, 0]]


def test_mask_values_are_mapped(tmp_path: Path) -> None:
    class_map = {"3": "car", "7": "ignore", "1": "dog"}
    values = masks(tmp_path, ROWS, class_map=class_map)
    assert ids_of(load(**values, rest="person")) == [[0, 2, 0, 0], [1, 1, -1, 0]]
    assert ids_of(load(**values, rest="ignore")) == [[-1, 2, -1, -1], [1, 1, -1, -1]]
    told = problems(**values)
    assert "a.png: values without a meaning: 0 (2 pixels), 2 (1 pixels), 255 (1 pixels); list them in class_map" in told


def test_without_a_map_values_are_class_ids_and_255_is_ignored(tmp_path: Path) -> None:
    assert ids_of(load(**masks(tmp_path, [[0, 1, 2, 255], [2, 2, 1, 0]]))) == [[0, 1, 2, -1], [2, 2, 1, 0]]
    assert "a.png: values without a meaning: 3 (2 pixels), 7 (1 pixels)" in problems(**masks(tmp_path, ROWS))


def test_another_meaning_is_another_digest(tmp_path: Path) -> None:
    values = masks(tmp_path, ROWS, class_map={"3": "car"})
    assert load(**values, rest="dog").sha256 != load(**values, rest="person").sha256


def test_wrong_masks_are_told(tmp_path: Path) -> None:
    values = masks(tmp_path, ROWS, rest="nothing", merge={"car": "truck"}, class_map={"1": "dogs"})
    for number, name in enumerate(["small", "colours", "jpeg", "none", "cut"], 1):
        write_picture(tmp_path / "images" / f"{name}.png", number, width=4, height=2)
    write_mask(tmp_path / "masks" / "small.png", [[0, 1]])
    write_picture(tmp_path / "masks" / "colours.png", width=4, height=2)
    jpeg = write_picture(tmp_path / "masks" / "jpeg.jpg", width=4, height=2)
    jpeg.rename(tmp_path / "masks" / "jpeg.png")
    cut = write_mask(tmp_path / "masks" / "cut.png", ROWS)
    cut.write_bytes(cut.read_bytes()[:-14])
    write_mask(tmp_path / "masks" / "alone.png", ROWS)
    told = problems(**values)
    assert "small.png: expected the 4 x 2 pixels of its picture, got 2 x 1" in told
    assert "colours.png: expected one channel of class ids (grey or a palette), got colours" in told
    assert "jpeg.png: expected a PNG, got a JPEG" in told
    assert "none.png: expected its mask" in told
    assert "cut.png: " in told
    assert "alone.png: expected a picture of that name" in told
    assert "rest: 'nothing' is no label of the recipe" in told
    assert "merge: 'truck' is no label of the recipe" in told
    assert "class_map.1: 'dogs' is no label of the recipe; did you mean 'dog'?" in told
    assert "9 problems" in told
