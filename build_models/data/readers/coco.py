"""COCO's JSON: one file for all pictures, boxes ``x, y, width, height`` in pixels, categories by name."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from build_models.data.listing import list_pictures
from build_models.data.picture import read_file
from build_models.data.readers.base import Found
from build_models.data.readers.objects import Objects, Tally
from build_models.errors import RecipeError

if TYPE_CHECKING:
    from pathlib import Path

    from build_models.data.formats import Coco
    from build_models.data.listing import Listed
    from build_models.data.problems import LabelIds, Problems
    from build_models.data.sample import BoxesTruth
    from build_models.progress import Progress

_MISSING = object()


@dataclass(frozen=True, slots=True)
class _Image:
    """A picture of the file and its annotations."""

    path: Path
    size_wh: tuple[object, object]
    annotations: list[dict[str, Any]]


def read_coco(config: Coco, labels: LabelIds, problems: Problems, progress: Progress | None) -> Found:
    """The pictures that the file names; others in the folder are left alone."""
    document = _document(config.annotations)
    names = _category_names(document, config, labels, problems)
    images = _images(document, config, problems)
    tally = Tally()

    def truth_of(listed: Listed) -> BoxesTruth:
        objects = Objects(listed.size_wh, labels, problems, tally, skip_unknown=config.unknown == "skip")
        image = images[listed.path]
        if image.size_wh not in {listed.size_wh, (None, None)}:
            problems.add(
                listed.name,
                f"expected labels for {listed.size_wh[0]} x {listed.size_wh[1]} pixels (the picture as it is shown), "
                f"they are for {image.size_wh[0]} x {image.size_wh[1]}",
            )
            return objects.truth()
        for annotation in image.annotations:
            _read_annotation(annotation, names, objects, problems)
        return objects.truth()

    listing = list_pictures(config.images, sorted(images), config.limit, problems, progress)
    samples = listing.samples(truth_of, problems)
    return Found(samples, listing.copies, tally.notes(samples))


def _document(path: Path) -> dict[str, list[dict[str, Any]]]:
    try:
        document = json.loads(read_file(path))
    except (ValueError, RecursionError) as err:
        raise RecipeError(f"{path}: expected a JSON file, got {err}") from err
    for key in ("images", "annotations", "categories"):
        entries = document.get(key) if isinstance(document, dict) else None
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise RecipeError(f"{path}: expected a COCO file: an object with a list of objects `{key}`")
    return dict(document)


def _category_names(
    document: dict[str, list[dict[str, Any]]], config: Coco, labels: LabelIds, problems: Problems
) -> dict[object, str]:
    class_map = config.class_map or {}
    for label in class_map.values():
        labels.id_of(label, "class_map")
    names: dict[object, str] = {}
    for entry in document["categories"]:
        category, name = _key(entry, "id"), entry.get("name")
        if not isinstance(name, str) or category is _MISSING or category in names:
            problems.add(config.annotations.name, f"expected categories with their own id and a name, got {entry}")
            continue
        names[category] = class_map.get(name, name)
    return names


def _images(document: dict[str, list[dict[str, Any]]], config: Coco, problems: Problems) -> dict[Path, _Image]:
    by_id: dict[object, _Image] = {}
    by_path: dict[Path, _Image] = {}
    for entry in document["images"]:
        image_id, name = _key(entry, "id"), entry.get("file_name")
        path = config.images / name if isinstance(name, str) and name else None
        if path is None or image_id is _MISSING or image_id in by_id or path in by_path:
            shown = f"id {entry.get('id')!r}, file_name {name!r}"
            problems.add(config.annotations.name, f"expected images with their own id and file_name, got {shown}")
            continue
        by_id[image_id] = image = _Image(path, (entry.get("width"), entry.get("height")), [])
        if not path.is_relative_to(config.images) or ".." in path.parts or not path.is_file():
            problems.add(str(name), f"named in {config.annotations.name}, but there is no such file in {config.images}")
            continue
        by_path[path] = image
    for entry in document["annotations"]:
        owner = by_id.get(_key(entry, "image_id"))
        if owner is None:
            problems.add(_named(entry), f"expected the id of an image, got image_id {entry.get('image_id')!r}")
        else:
            owner.annotations.append(entry)
    if not by_path and not len(problems):
        raise RecipeError(f"{config.annotations}: expected images in it, found none")
    return by_path


def _read_annotation(entry: dict[str, Any], names: dict[object, str], objects: Objects, problems: Problems) -> None:
    name, box = names.get(_key(entry, "category_id")), entry.get("bbox")
    if name is None:
        problems.add(_named(entry), f"expected the id of a category, got category_id {entry.get('category_id')!r}")
    elif not isinstance(box, list) or len(box) != 4 or not all(isinstance(value, int | float) for value in box):
        problems.add(_named(entry), f"expected a bbox of 4 numbers, got {str(box)[:60]}")
    else:
        x, y, width, height = box
        objects.add(_named(entry), name, (x, y, x + width, y + height), ignore=bool(entry.get("iscrowd")))


def _key(entry: dict[str, Any], key: str) -> object:
    """An id; `_MISSING` for what cannot be one."""
    found = entry.get(key)
    return found if isinstance(found, int | str) else _MISSING


def _named(entry: dict[str, Any]) -> str:
    return f"annotation {entry.get('id', '?')}"
