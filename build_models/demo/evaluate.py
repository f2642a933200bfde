"""How well a detector finds the objects of held-out pictures: a table and a contact sheet.

``python -m build_models.demo.evaluate --weights FILE --out DIR`` measures the torch model; `evaluate` measures
anything that turns a picture into detections.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from tqdm import tqdm

from agent.demo.scenes import LABELS, random_picture
from agent.vision.decode import Thresholds, decode_detections
from agent.vision.detections import Detections
from agent.vision.draw import draw_detections
from build_models.demo.average_precision import mean_precision, precision_table
from build_models.evaluation import Evaluation, Sheet, Table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from build_models.demo.average_precision import Row
    from build_models.evaluation import Runner

HELD_OUT_SEED = 1_000_000_000  # training counts up from its own seed and never comes here
PICTURES = 1000
# Low enough for the whole curve; what a user sees is cut at the bundle's own threshold.
CURVE = Thresholds(score=0.01, iou=0.5, max_detections=100)
SHOWN_SCORE = 0.4


def evaluate(
    detect: Callable[[NDArray[np.uint8]], Detections], pictures: int = PICTURES, seed: int = HELD_OUT_SEED
) -> tuple[list[Row], NDArray[np.uint8]]:
    """Measure a detector on held-out pictures of 320x192.

    Args:
        detect: gives the detections of a uint8 BGR picture ``[192, 320, 3]``, down to a score of about 0.01.
        pictures: how many.
        seed: of the first; the others follow.

    Returns:
        The table of average precision at IoU 0.5, and a contact sheet, uint8 BGR.
    """
    images, truths = zip(*(random_picture(seed + number) for number in range(pictures)), strict=True)
    found = [detect(image) for image in tqdm(images, desc="evaluate", unit="picture", disable=None)]
    table = precision_table(found, truths, LABELS)
    return table, contact_sheet(images[:20], [truth.boxes_xyxy for truth in truths[:20]], found[:20])


def contact_sheet(
    images_bgr: Sequence[NDArray[np.uint8]],
    truths_xyxy: Sequence[NDArray[np.float32]],
    found: Sequence[Detections],
    columns: int = 4,
) -> NDArray[np.uint8]:
    """Pictures in a grid, one and a half times enlarged: the truth white, detections over `SHOWN_SCORE` in colour."""
    cells = []
    for image_bgr, truth_xyxy, detections in zip(images_bgr, truths_xyxy, found, strict=True):
        shown = detections.scores >= SHOWN_SCORE
        large = Detections(detections.boxes_xyxy[shown] * 1.5, detections.scores[shown], detections.labels[shown])
        canvas = np.asarray(cv2.resize(image_bgr, None, fx=1.5, fy=1.5, interpolation=cv2.INTER_LINEAR), np.uint8)
        for left, top, right, bottom in np.rint(truth_xyxy * 1.5).astype(int).tolist():
            cv2.rectangle(canvas, (left - 2, top - 2), (right + 2, bottom + 2), (255, 255, 255), 1)
        cells.append(draw_detections(canvas, large, LABELS))
    cells += [np.zeros_like(cells[0])] * (-len(cells) % columns)
    return np.vstack([np.hstack(cells[start : start + columns]) for start in range(0, len(cells), columns)])


def of_bundle(runners: Mapping[str, Runner], pictures: int = PICTURES) -> Evaluation:
    """The demo recipe's evaluation: a table per file of the bundle, and the first one's contact sheet."""
    tables: list[Table] = []
    sheets: list[Sheet] = []
    for name, run in runners.items():
        rows, sheet_bgr = evaluate(partial(_detect, run), pictures)
        sizes = list(dict.fromkeys(row.size for row in rows))
        cells = {(row.label, row.size): "-" if row.ap is None else f"{row.ap:.3f}" for row in rows}
        counts = ("objects", *(str(next(row.objects for row in rows if row.size == size)) for size in sizes))
        of_classes = [(label, *(cells[label, size] for size in sizes)) for label in ("all", *LABELS)]
        columns = ("class", *(size if size == "all" else f"{size} px" for size in sizes))
        tables.append(Table(f"{name}: mAP50 {mean_precision(rows):.3f}", columns, (*of_classes, counts)))
        if not sheets:
            webp = cv2.imencode(".webp", sheet_bgr, [cv2.IMWRITE_WEBP_QUALITY, 75])[1].tobytes()
            sheets.append(Sheet(f"{name}: the truth in white, detections over {SHOWN_SCORE}", "image/webp", webp))
    return Evaluation(f"Average precision on {pictures} held-out pictures", tuple(tables), tuple(sheets))


def table_text(table: Sequence[Row]) -> str:
    """The table for people: classes down, sizes across."""
    sizes = list(dict.fromkeys(row.size for row in table))
    cells = {(row.label, row.size): row for row in table}
    lines = ["AP50      " + "".join(f"{size:>16}" for size in sizes)]
    for label in ("all", *LABELS):
        rows = [cells[label, size] for size in sizes]
        lines.append(f"{label:10}" + "".join(f"{row.ap or 0:9.3f} ({row.objects:4d})" for row in rows))
    return "\n".join(lines)


def _detect(run: Runner, image_bgr: NDArray[np.uint8]) -> Detections:
    outputs, placement = run(image_bgr)
    return decode_detections(outputs, placement, CURVE)


def main(arguments: Sequence[str] | None = None) -> None:
    """Evaluate the torch model and write ``evaluation.json`` and ``contact_sheet.jpg``."""
    parser = argparse.ArgumentParser(description="Measure the demo detector on held-out pictures.")
    parser.add_argument("--weights", type=Path, default=Path(__file__).with_name("weights.pt"))
    parser.add_argument("--out", type=Path, required=True, help="folder for the table and the contact sheet")
    parser.add_argument("--pictures", type=int, default=PICTURES)
    options = parser.parse_args(arguments)
    from build_models.demo.detector import detect_with, load

    table, sheet_bgr = evaluate(detect_with(load(options.weights), CURVE), options.pictures)
    options.out.mkdir(parents=True, exist_ok=True)
    result = {"map50": mean_precision(table), "table": [asdict(row) for row in table]}
    (options.out / "evaluation.json").write_text(json.dumps(result, indent=1) + "\n")
    cv2.imwrite(str(options.out / "contact_sheet.jpg"), sheet_bgr)
    print(table_text(table))  # noqa: T201 - a command prints its result


if __name__ == "__main__":
    main()
