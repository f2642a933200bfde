"""The formats of datasets: what each reads, and everything that can be wrong with its files."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from build_models.data.dataset import Dataset, load_dataset
from build_models.data.sample import BoxesTruth, ClassTruth, MaskTruth
from build_models.errors import RecipeError
from tests.build_models.data.folders import (
    by_name,
    coco_json,
    config,
    load,
    problems,
    voc_xml,
    write_mask,
    write_picture,
    write_text,
)

if TYPE_CHECKING:
    from pathlib import Path

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
