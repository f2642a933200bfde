"""The boxes of a picture, collected and checked: what all formats for detection share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from build_models.data.sample import BoxesTruth

if TYPE_CHECKING:
    from collections.abc import Iterable

    from build_models.data.problems import LabelIds, Problems
    from build_models.data.sample import Sample

_EXCESS = 1e-3  # of a side: rounding of the tools that write labels
_EXCESS_PX = 1.0


@dataclass(slots=True)
class Tally:
    """What was left out of a whole dataset."""

    empty: int = 0
    skipped: int = 0

    def notes(self, samples: Iterable[Sample]) -> tuple[str, ...]:
        """For people."""
        told = [f"{sum(len(each.truth.labels) for each in samples if isinstance(each.truth, BoxesTruth))} objects"]
        if self.empty:
            told.append(f"{self.empty} boxes without area left out")
        if self.skipped:
            told.append(f"{self.skipped} objects of other classes left out")
        return tuple(told)


class Objects:
    """The objects of one picture.

    Args:
        size_wh: of the picture, in pixels.
        labels: the recipe's.
        problems: where to note what is wrong.
        tally: counts go there.
        skip_unknown: an object whose class is no label is left out; otherwise it is a problem.
    """

    def __init__(
        self, size_wh: tuple[int, int], labels: LabelIds, problems: Problems, tally: Tally, *, skip_unknown: bool
    ) -> None:
        self.size_wh = size_wh
        self._labels, self._problems, self._tally = labels, problems, tally
        self._skip_unknown = skip_unknown
        self._rows: list[tuple[tuple[float, ...], int, bool]] = []

    def add(self, where: str, label: str, xyxy: tuple[float, ...], *, ignore: bool = False) -> None:
        """An object by its label's name; the box is in pixels and is clipped to the picture."""
        if self._skip_unknown and label not in self._labels:
            self._tally.skipped += 1
            return
        label_id = self._labels.id_of(label, where)
        if label_id is not None:
            self.add_id(where, label_id, xyxy, ignore=ignore)

    def add_id(self, where: str, label_id: int, xyxy: tuple[float, ...], *, ignore: bool = False) -> None:
        """The same by its class id."""
        width, height = self.size_wh
        x1, y1, x2, y2 = xyxy
        over_x, over_y = max(_EXCESS_PX, width * _EXCESS), max(_EXCESS_PX, height * _EXCESS)
        inside = all(-over_x <= x <= width + over_x for x in (x1, x2))
        inside = inside and all(-over_y <= y <= height + over_y for y in (y1, y2))
        if not inside:  # also when one of them is NaN
            box = ", ".join(f"{value:.6g}" for value in xyxy)
            self._problems.add(where, f"expected a box within the picture of {width} x {height} pixels, got {box}")
            return
        if x2 < x1 or y2 < y1:
            box = ", ".join(f"{value:.6g}" for value in xyxy)
            self._problems.add(where, f"expected a box with sides of at least 0 pixels, got {box}")
            return
        clipped = (max(0.0, x1), max(0.0, y1), min(float(width), x2), min(float(height), y2))
        if clipped[2] <= clipped[0] or clipped[3] <= clipped[1]:
            self._tally.empty += 1
            return
        self._rows.append((clipped, label_id, ignore))

    def unknown(self, where: str, trouble: str) -> None:
        """An object whose class is no label."""
        if self._skip_unknown:
            self._tally.skipped += 1
        else:
            self._problems.add(where, trouble)

    def truth(self) -> BoxesTruth:
        """All that were added."""
        boxes, labels, ignore = zip(*self._rows, strict=True) if self._rows else ((), (), ())
        return BoxesTruth(
            np.array(boxes, np.float32).reshape(-1, 4), np.array(labels, np.int64), np.array(ignore, np.bool_)
        )
