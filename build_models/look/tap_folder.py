"""What taps found, written down: an array a tensor, ``index.json`` with figures, and pictures of feature maps."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from build_models.look.feature_maps import draw

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from build_models.graph.tap import Tap

INDEX = "index.json"
SCHEMA = 1
_NAME_LENGTH = 80


@dataclass(frozen=True, slots=True)
class Written:
    """A tapped tensor as it lies on the disk; the figures are of its finite numbers, None when it has none."""

    tensor: str
    node: str
    op_type: str
    stands_for: str
    shape: list[int]
    dtype: str
    min: float | None
    max: float | None
    mean: float | None
    std: float | None
    zeros: int
    not_finite: int
    array: str
    picture: str | None


def write_taps(
    folder: Path,
    values: Iterable[tuple[Tap, NDArray[Any]]],
    channel_axes: Mapping[str, int],
    most_pictures: int,
    about: Mapping[str, Any],
) -> list[Written]:
    """Write every value as it comes, and at last the index.

    Args:
        folder: exists and is empty.
        values: as `tap_values` yields them.
        channel_axes: where the channels of a tensor lie, see `channel_axes`.
        most_pictures: how many tensors are drawn; all arrays are written.
        about: what else stands in the index, such as the model's name.
    """
    written = []
    for number, (tap, array) in enumerate(values):
        stem = f"{number:04d}-{_safe(tap.tensor)}"
        np.save(folder / f"{stem}.npy", array, allow_pickle=False)
        picture = None
        if number < most_pictures:
            picture = f"{stem}.png"
            title = f"{tap.op_type} {tap.tensor} {list(array.shape)}"
            cv2.imwrite(str(folder / picture), draw(array, title, channel_axes.get(tap.tensor)))
        written.append(_entry(tap, array, f"{stem}.npy", picture))
    index = {"schema": SCHEMA, **about, "tensors": [asdict(each) for each in written]}
    (folder / INDEX).write_text(json.dumps(index, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return written


def _entry(tap: Tap, array: NDArray[Any], file: str, picture: str | None) -> Written:
    values = np.asarray(array, np.float64).reshape(-1)
    finite = values[np.isfinite(values)]
    with np.errstate(over="ignore"):
        figures = [finite.min(), finite.max(), finite.mean(), finite.std()] if finite.size else [np.nan] * 4
    least, largest, mean, std = (float(value) if np.isfinite(value) else None for value in figures)
    return Written(
        tensor=tap.tensor,
        node=tap.node,
        op_type=tap.op_type,
        stands_for=tap.stands_for,
        shape=list(array.shape),
        dtype=array.dtype.name,
        min=least,
        max=largest,
        mean=mean,
        std=std,
        zeros=int(np.count_nonzero(values == 0)),
        not_finite=int(values.size - finite.size),
        array=file,
        picture=picture,
    )


def _safe(name: str) -> str:
    """For any file system; names that become the same differ by their number."""
    return re.sub(r"[^A-Za-z0-9.-]+", "_", name)[-_NAME_LENGTH:].strip("._") or "tensor"
