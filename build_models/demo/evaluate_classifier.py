"""How well a classifier names the crops of held-out pictures: top-1, what is taken for what, and contact sheets."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING

import cv2
import numpy as np
from tqdm import tqdm

from agent.vision.decode import decode_class
from agent.vision.draw import draw_caption
from build_models.demo.crops import LABELS, crops_of
from build_models.demo.evaluate import HELD_OUT_SEED
from build_models.evaluation import Evaluation, Sheet, Table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from build_models.demo.crops import Crop
    from build_models.evaluation import Runner

    Classify = Callable[[NDArray[np.uint8]], tuple[int, float]]

PICTURES = 1000  # with five crops each, about
_CELL_PX = 96  # the longest caption takes 84
_SHOWN, _COLUMNS = 40, 10


@dataclass(frozen=True)
class Result:
    """The classifier's answers.

    Attributes:
        confusion: int64 ``[C, C]``, crops of a class (row) that were taken for a class (column).
        sheet_bgr: the first crops under what they were taken for.
        mistakes_bgr: the first that were taken for something else; None where there are none.
    """

    confusion: NDArray[np.int64]
    sheet_bgr: NDArray[np.uint8]
    mistakes_bgr: NDArray[np.uint8] | None

    @property
    def top1(self) -> float:
        """The share of the crops that were named right."""
        return float(np.trace(self.confusion) / self.confusion.sum())


def evaluate(classify: Classify, pictures: int = PICTURES, seed: int = HELD_OUT_SEED) -> Result:
    """Measure a classifier on the crops of held-out pictures.

    Args:
        classify: gives the class id and its probability for a uint8 BGR picture ``[h, w, 3]``.
        pictures: how many are cut into crops.
        seed: of the first; the others follow.
    """
    confusion = np.zeros((len(LABELS), len(LABELS)), np.int64)
    shown: list[NDArray[np.uint8]] = []
    mistakes: list[NDArray[np.uint8]] = []
    numbers = tqdm(range(seed, seed + pictures), desc="evaluate", unit="picture", disable=None)
    for crop in chain.from_iterable(map(crops_of, numbers)):
        label, score = classify(crop.image_bgr)
        confusion[crop.label, label] += 1
        for cells in (shown, *([mistakes] if label != crop.label else [])):
            if len(cells) < _SHOWN:
                cells.append(_cell(crop, label, score))
    return Result(confusion, _grid(shown), _grid(mistakes) if mistakes else None)


def confusion_table(title: str, confusion: NDArray[np.int64]) -> Table:
    """Top-1 of each class, and what its crops were taken for."""
    rows = [("all", str(confusion.sum()), f"{np.trace(confusion) / confusion.sum():.3f}", *([""] * len(LABELS)))]
    for label, row in zip(LABELS, confusion, strict=True):
        right = f"{row[LABELS.index(label)] / row.sum():.3f}" if row.sum() else "-"
        rows.append((label, str(row.sum()), right, *(str(count) for count in row)))
    return Table(title, ("class", "crops", "top-1", *(f"as {label}" for label in LABELS)), tuple(rows))


def table_text(table: Table) -> str:
    """The table for people."""
    return "\n".join("".join(f"{cell:>12}" for cell in row) for row in (table.columns, *table.rows))


def of_bundle(runners: Mapping[str, Runner], pictures: int = PICTURES) -> Evaluation:
    """The recipe's evaluation: a table per file of the bundle, and the first one's contact sheets."""
    tables: list[Table] = []
    sheets: list[Sheet] = []
    for name, run in runners.items():
        result = evaluate(partial(_classify, run), pictures)
        tables.append(confusion_table(f"{name}: top-1 {result.top1:.3f}", result.confusion))
        if not sheets:
            sheets.append(_sheet(f"{name}: held-out crops under what they were taken for", result.sheet_bgr))
            if result.mistakes_bgr is not None:
                sheets.append(_sheet(f"{name}: the first mistakes", result.mistakes_bgr))
    return Evaluation(f"Crops of {pictures} held-out pictures", tuple(tables), tuple(sheets))


def _classify(run: Runner, image_bgr: NDArray[np.uint8]) -> tuple[int, float]:
    outputs, _ = run(image_bgr)
    return decode_class(outputs)


def _cell(crop: Crop, label: int, score: float) -> NDArray[np.uint8]:
    """A crop under its caption: the class and its score, or what was taken for what."""
    large = np.asarray(cv2.resize(crop.image_bgr, (_CELL_PX, _CELL_PX), interpolation=cv2.INTER_LINEAR), np.uint8)
    framed = cv2.copyMakeBorder(large, 20, 2, 1, 1, cv2.BORDER_CONSTANT, value=(48, 48, 48))
    right = label == crop.label
    return draw_caption(
        np.asarray(framed, np.uint8),
        f"{LABELS[label]} {score:.2f}" if right else f"{LABELS[crop.label]}>{LABELS[label]}",
    )


def _grid(cells: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    columns = min(_COLUMNS, len(cells))
    padded = [*cells, *([np.zeros_like(cells[0])] * (-len(cells) % columns))]
    return np.vstack([np.hstack(padded[start : start + columns]) for start in range(0, len(padded), columns)])


def _sheet(title: str, image_bgr: NDArray[np.uint8]) -> Sheet:
    webp = cv2.imencode(".webp", image_bgr, [cv2.IMWRITE_WEBP_QUALITY, 75])[1].tobytes()
    return Sheet(title, "image/webp", webp)
