"""YOLO's text files: ``class cx cy w h`` a line, in shares of the picture's sides; a polygon counts as its box."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from build_models.data.listing import list_pictures, picture_files
from build_models.data.picture import read_file
from build_models.data.readers.base import Found, note_orphans, partner
from build_models.data.readers.objects import Objects, Tally
from build_models.errors import RecipeError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from build_models.data.formats import Yolo
    from build_models.data.listing import Listed
    from build_models.data.problems import LabelIds, Problems
    from build_models.data.sample import BoxesTruth
    from build_models.progress import Progress

_NO_LABELS = frozenset({"classes.txt"})  # labelling tools put the classes' names there
_EXCESS = 1e-3  # of a side: rounding of the tools that write labels
_BOX = 5
_TRIANGLE = 7


def read_yolo(config: Yolo, labels: LabelIds, problems: Problems, progress: Progress | None) -> Found:
    """All pictures below ``images``; one without a text file shows no objects."""
    paths = picture_files(config.images)
    note_orphans(config.labels, ".txt", paths, config.images, problems, _NO_LABELS)
    for label in (config.class_map or {}).values():
        labels.id_of(label, "class_map")
    tally = Tally()

    def truth_of(listed: Listed) -> BoxesTruth:
        objects = Objects(listed.size_wh, labels, problems, tally, skip_unknown=config.unknown == "skip")
        path = partner(listed.path, config.images, config.labels, ".txt")
        name = path.relative_to(config.labels).as_posix()
        if path.exists():
            try:
                lines = read_file(path).decode().splitlines()
            except UnicodeDecodeError:
                problems.add(name, "expected lines of numbers, found bytes that are no text")
                lines = []
            except RecipeError as err:
                problems.add(name, str(err))
                lines = []
            for number, line in enumerate(lines, 1):
                _read_line(f"{name}:{number}", line.split(), config, len(labels), problems, objects)
        return objects.truth()

    listing = list_pictures(config.images, paths, config.limit, problems, progress)
    samples = listing.samples(truth_of, problems)
    return Found(samples, listing.copies, tally.notes(samples))


def _read_line(
    where: str, words: list[str], config: Yolo, label_count: int, problems: Problems, objects: Objects
) -> None:
    if not words:
        return
    try:
        class_id, corners = _parse(words)
    except ValueError as err:
        problems.add(where, str(err))
        return
    xyxy = tuple((np.clip(corners, 0, 1) * (objects.size_wh * 2)).tolist())
    if config.class_map is None:
        if 0 <= class_id < label_count:
            objects.add_id(where, class_id, xyxy)
        else:
            objects.unknown(where, f"expected a class of 0 to {label_count - 1}, one per label, got {class_id}")
    elif class_id in config.class_map:
        objects.add(where, config.class_map[class_id], xyxy)
    else:
        objects.unknown(where, f"class {class_id} is not in class_map; add it, or say `unknown: skip`")


def _parse(words: list[str]) -> tuple[int, NDArray[np.float64]]:
    """The class and the corners of the box, in shares of the sides."""
    try:
        class_id, values = int(words[0]), np.array([float(word) for word in words[1:]])
    except ValueError:
        raise ValueError(f"expected a class and numbers, got {' '.join(words)[:60]!r}") from None
    if len(words) == _BOX:
        centre, half = values[:2], values[2:] / 2
        corners = np.concatenate([centre - half, centre + half])
    elif len(words) >= _TRIANGLE and len(values) % 2 == 0:
        points = values.reshape(-1, 2)
        corners = np.concatenate([points.min(axis=0), points.max(axis=0)])
    else:
        raise ValueError(f"expected `class cx cy w h` or a polygon of at least 3 points, got {len(words)} values")
    if not (np.abs(corners - 0.5) <= 0.5 + _EXCESS).all():  # also when one of them is NaN
        raise ValueError(f"expected a box within 0..1, got {' '.join(f'{value:.6g}' for value in corners)}")
    return class_id, corners
