"""Masks: a PNG per picture, whose pixels are class ids."""

from __future__ import annotations

import functools
import hashlib
from typing import TYPE_CHECKING

import numpy as np

from agent.errors import PictureError
from build_models.data.indexed_png import check_indexed, read_indices
from build_models.data.listing import list_pictures, picture_files
from build_models.data.picture import read_file, read_listed
from build_models.data.readers.base import Found, note_orphans, partner
from build_models.data.sample import IGNORE, MaskTruth
from build_models.errors import RecipeError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from build_models.data.formats import Masks
    from build_models.data.listing import Listed
    from build_models.data.problems import LabelIds, Problems
    from build_models.progress import Progress

_VALUES = 65_536
_REFUSED = -2  # in the table: this value has no meaning
_IGNORED_BY_CUSTOM = 255


def read_masks(config: Masks, labels: LabelIds, problems: Problems, progress: Progress | None) -> Found:
    """All pictures below ``images``; each must have its mask, and each mask its picture."""
    paths = picture_files(config.images)
    note_orphans(config.masks, ".png", paths, config.images, problems, frozenset())
    for label in {*config.merge, *config.merge.values()}:
        labels.id_of(label, "merge")
    table = _table(config, labels)
    meaning = hashlib.sha256(table.tobytes()).hexdigest()

    def truth_of(listed: Listed) -> MaskTruth | None:
        path = partner(listed.path, config.images, config.masks, ".png")
        if not path.exists():
            problems.add(listed.name, f"expected its mask {path}, there is no such file")
            return None
        name = path.relative_to(config.masks).as_posix()
        try:
            content = read_file(path)
            size_wh = check_indexed(content)
            if size_wh != listed.size_wh:
                (width, height), came = listed.size_wh, f"{size_wh[0]} x {size_wh[1]}"
                problems.add(name, f"expected the {width} x {height} pixels of its picture, got {came}")
                return None
            if (table == _REFUSED).any():
                _check_values(read_indices(content), table)
        except (RecipeError, PictureError) as err:
            problems.add(name, str(err))
            return None
        sha256 = hashlib.sha256(content).hexdigest()
        load = functools.partial(_load, path, sha256, table)
        return MaskTruth(load, hashlib.sha256(f"{sha256} {meaning}".encode()).hexdigest())

    listing = list_pictures(config.images, paths, config.limit, problems, progress)
    return Found(listing.samples(truth_of, problems), listing.copies)


def _table(config: Masks, labels: LabelIds) -> NDArray[np.int16]:
    """What each value means: a class id, `IGNORE` or `_REFUSED`."""
    table: NDArray[np.int16] = np.full(_VALUES, _meaning(config.rest, "rest", labels), np.int16)
    if config.class_map is None:
        table[: len(labels)] = np.arange(len(labels))
        if len(labels) <= _IGNORED_BY_CUSTOM:
            table[_IGNORED_BY_CUSTOM] = IGNORE
    else:
        for value, label in config.class_map.items():
            table[value] = _meaning(label, f"class_map.{value}", labels)
    table.flags.writeable = False
    return table


def _meaning(label: str | None, where: str, labels: LabelIds) -> int:
    if label is None:
        return _REFUSED
    if label == "ignore":
        return IGNORE
    label_id = labels.id_of(label, where)
    return IGNORE if label_id is None else label_id


def _check_values(indices: NDArray[np.uint16], table: NDArray[np.int16]) -> None:
    values, counts = np.unique(indices, return_counts=True)
    refused = [
        f"{value} ({count} pixels)"
        for value, count in zip(values.tolist(), counts.tolist(), strict=True)
        if table[value] == _REFUSED
    ]
    if refused:
        more = f" and {len(refused) - 5} more" if len(refused) > 5 else ""
        raise RecipeError(
            f"values without a meaning: {', '.join(refused[:5])}{more}; list them in class_map, or set `rest`"
        )


def _load(path: Path, sha256: str, table: NDArray[np.int16]) -> NDArray[np.int16]:
    try:
        ids: NDArray[np.int16] = table[read_indices(read_listed(path, sha256))]
    except PictureError as err:
        raise RecipeError(f"{path}: cannot decode the mask: {err}") from err
    return ids
