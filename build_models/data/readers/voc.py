"""PASCAL VOC's XML files; pixels count from 1 there, and both corners belong to the box."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from build_models.data.listing import list_pictures, picture_files
from build_models.data.picture import read_file
from build_models.data.readers.base import Found, note_orphans, partner
from build_models.data.readers.objects import Objects, Tally
from build_models.errors import RecipeError

if TYPE_CHECKING:
    from pathlib import Path

    from build_models.data.formats import Voc
    from build_models.data.listing import Listed
    from build_models.data.problems import LabelIds, Problems
    from build_models.data.sample import BoxesTruth
    from build_models.progress import Progress

_CORNERS = ("xmin", "ymin", "xmax", "ymax")


def read_voc(config: Voc, labels: LabelIds, problems: Problems, progress: Progress | None) -> Found:
    """All pictures below ``images``; each must have its XML file."""
    paths = picture_files(config.images)
    note_orphans(config.annotations, ".xml", paths, config.images, problems, frozenset())
    for label in (config.class_map or {}).values():
        labels.id_of(label, "class_map")
    tally = Tally()

    def truth_of(listed: Listed) -> BoxesTruth:
        objects = Objects(listed.size_wh, labels, problems, tally, skip_unknown=config.unknown == "skip")
        path = partner(listed.path, config.images, config.annotations, ".xml")
        if not path.exists():
            problems.add(listed.name, f"expected its objects in {path}, there is no such file")
            return objects.truth()
        name = path.relative_to(config.annotations).as_posix()
        try:
            root = _parse(path)
            _check_size(root, listed)
            for number, element in enumerate(root.iter("object"), 1):
                _read_object(f"{name}: object {number}", element, config, objects)
        except ValueError as err:
            problems.add(name, str(err))
        return objects.truth()

    listing = list_pictures(config.images, paths, config.limit, problems, progress)
    samples = listing.samples(truth_of, problems)
    return Found(samples, listing.copies, tally.notes(samples))


def _parse(path: Path) -> ET.Element:
    try:
        content = read_file(path)
        if b"<!DOCTYPE" in content or b"<!ENTITY" in content:
            raise ValueError("expected XML without a document type; remove the DOCTYPE")
        return ET.fromstring(content)  # noqa: S314 - documents with entities of their own were refused
    except (ET.ParseError, RecipeError) as err:
        raise ValueError(f"expected an XML file, got {err}") from err


def _check_size(root: ET.Element, listed: Listed) -> None:
    width, height = (root.findtext(f"size/{side}") for side in ("width", "height"))
    if width is None or height is None or (_number(width), _number(height)) in {listed.size_wh, (0, 0)}:
        return  # 0: a labelling tool did not know
    came = f"{width.strip()} x {height.strip()}"
    turned = f"{listed.size_wh[1]} x {listed.size_wh[0]}"
    hint = "; the picture is turned by EXIF, label it as it is shown" if came == turned else ""
    raise ValueError(f"expected labels for {listed.size_wh[0]} x {listed.size_wh[1]} pixels, they are for {came}{hint}")


def _read_object(where: str, element: ET.Element, config: Voc, objects: Objects) -> None:
    name = (element.findtext("name") or "").strip()
    corners = [element.findtext(f"bndbox/{corner}") for corner in _CORNERS]
    if not name or None in corners:
        raise ValueError(f"{where.rpartition(': ')[2]}: expected a name and a bndbox with {', '.join(_CORNERS)}")
    x1, y1, x2, y2 = (_number(corner or "") for corner in corners)
    difficult = (element.findtext("difficult") or "0").strip() == "1"
    objects.add(where, (config.class_map or {}).get(name, name), (x1 - 1, y1 - 1, x2, y2), ignore=difficult)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"expected a number, got {text[:30]!r}") from None
