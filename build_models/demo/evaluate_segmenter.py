"""How well a segmenter names the pixels of held-out pictures: the overlap of each class, and a contact sheet."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import cv2
import numpy as np
from tqdm import tqdm

from agent.demo.scenes import random_picture
from agent.vision.decode import decode_mask
from build_models.demo.evaluate import HELD_OUT_SEED
from build_models.demo.masks import BACKGROUND, LABELS, class_mask
from build_models.evaluation import Evaluation, Sheet, Table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from build_models.evaluation import Runner

    Segment = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]

PICTURES = 500
COLOURS_BGR = np.array(
    ((0, 0, 0), (60, 60, 240), (240, 140, 40), (60, 200, 60), (40, 220, 240), (220, 60, 220)), np.uint8
)
_SHOWN, _COLUMNS = 12, 2


@dataclass(frozen=True)
class Result:
    """The segmenter's answers.

    Attributes:
        confusion: int64 ``[C, C]``, pixels of a class (row) that were taken for a class (column).
        sheet_bgr: the first pictures, each beside what was seen in it; the truth is outlined in white.
    """

    confusion: NDArray[np.int64]
    sheet_bgr: NDArray[np.uint8]

    @property
    def iou(self) -> NDArray[np.float64]:
        """Intersection over union of each class over all pixels; NaN where there was nothing."""
        right = np.diag(self.confusion)
        union = self.confusion.sum(axis=0) + self.confusion.sum(axis=1) - right
        return np.where(union > 0, right / np.maximum(union, 1), np.nan)

    @property
    def mean_iou(self) -> float:
        """The mean over the classes there were, the background among them, as PASCAL VOC counts it."""
        return float(np.nanmean(self.iou))

    @property
    def object_iou(self) -> float:
        """Of all shapes as one, whichever they were taken for: learned long before their names."""
        return float(
            self.confusion[1:, 1:].sum() / max(1, self.confusion.sum() - self.confusion[BACKGROUND, BACKGROUND])
        )


def evaluate(segment: Segment, pictures: int = PICTURES, seed: int = HELD_OUT_SEED) -> Result:
    """Measure a segmenter on held-out pictures of 320x192.

    Args:
        segment: gives the class ids, uint8 ``[H, W]``, of a uint8 BGR picture ``[H, W, 3]``.
        pictures: how many.
        seed: of the first; the others follow.
    """
    confusion = np.zeros((len(LABELS), len(LABELS)), np.int64)
    cells: list[NDArray[np.uint8]] = []
    for number in tqdm(range(seed, seed + pictures), desc="evaluate", unit="picture", disable=None):
        image_bgr, truth = random_picture(number)
        mask = class_mask(truth)
        found = segment(image_bgr)
        pairs = mask.astype(np.int64) * len(LABELS) + found
        confusion += np.bincount(pairs.ravel(), minlength=confusion.size).reshape(confusion.shape)
        if len(cells) < _SHOWN:
            cells.append(_cell(image_bgr, mask, found))
    return Result(confusion, _grid(cells))


def overlap_table(title: str, result: Result) -> Table:
    """The overlap of each class, and what its pixels were taken for."""
    rows = [("mean", f"{result.mean_iou:.3f}", str(result.confusion.sum()), *([""] * len(LABELS)))]
    for label, iou, row in zip(LABELS, result.iou.tolist(), result.confusion, strict=True):
        shares = (f"{100 * count / max(1, row.sum()):.1f} %" for count in row.tolist())
        rows.append((label, "-" if np.isnan(iou) else f"{iou:.3f}", str(row.sum()), *shares))
    return Table(title, ("class", "IoU", "pixels", *(f"as {label}" for label in LABELS)), tuple(rows))


def table_text(table: Table) -> str:
    """The table for people."""
    return "\n".join("".join(f"{cell:>14}" for cell in row) for row in (table.columns, *table.rows))


def of_bundle(runners: Mapping[str, Runner], pictures: int = PICTURES) -> Evaluation:
    """The recipe's evaluation: a table per file of the bundle, and the first one's contact sheet."""
    tables: list[Table] = []
    sheets: list[Sheet] = []
    for name, run in runners.items():
        result = evaluate(partial(_segment, run), pictures)
        tables.append(overlap_table(f"{name}: mIoU {result.mean_iou:.3f}", result))
        if not sheets:
            webp = cv2.imencode(".webp", result.sheet_bgr, [cv2.IMWRITE_WEBP_QUALITY, 75])[1].tobytes()
            sheets.append(Sheet(f"{name}: what was seen, the truth outlined in white", "image/webp", webp))
    return Evaluation(f"Overlap on {pictures} held-out pictures", tuple(tables), tuple(sheets))


def _segment(run: Runner, image_bgr: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The class of every pixel of the picture from a mask that may be coarser and may have a border."""
    outputs, placement = run(image_bgr)
    mask, covered = decode_mask(outputs, placement).on_frame()
    found = np.full(image_bgr.shape[:2], BACKGROUND, np.uint8)
    found[covered] = mask
    return found


def _cell(image_bgr: NDArray[np.uint8], mask: NDArray[np.uint8], found: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The picture beside itself with the classes found laid over it, both twice enlarged."""
    large = np.asarray(cv2.resize(image_bgr, None, fx=2, fy=2, interpolation=cv2.INTER_LINEAR), np.uint8)
    seen = cv2.resize(found, None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
    painted = np.where(seen[:, :, None] > 0, cv2.addWeighted(large, 0.4, COLOURS_BGR[seen], 0.6, 0), large)
    true = cv2.resize(mask, None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
    edge = cv2.morphologyEx(true, cv2.MORPH_GRADIENT, np.ones((2, 2), np.uint8)) > 0
    painted[edge] = 255
    return np.hstack((large, np.asarray(painted, np.uint8)))


def _grid(cells: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    padded = [*cells, *([np.zeros_like(cells[0])] * (-len(cells) % _COLUMNS))]
    return np.vstack([np.hstack(padded[start : start + _COLUMNS]) for start in range(0, len(padded), _COLUMNS)])
