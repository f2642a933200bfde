"""Train the demo detector on procedural pictures: ``python -m build_models.demo.train --out DIR``.

About sixteen minutes on two CPU cores that do nothing else. Writes ``weights.pt`` (a state dict in half precision),
``training.json`` (what was run and measured) and ``contact_sheet.jpg``. ``--shuffle-labels`` is the negative control:
with the boxes and classes of other pictures there is nothing to learn, and the precision must collapse.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import torch

from build_models.demo.average_precision import mean_precision
from build_models.demo.detector import INPUT_WH, Detector, build, detect_with, flatten, to_input
from build_models.demo.evaluate import CURVE, HELD_OUT_SEED, PICTURES, evaluate, table_text
from build_models.demo.fit import Effort, fit, halve, save_half
from build_models.demo.loss import detection_loss
from build_models.demo.picture_pool import POOL_PICTURES, PicturePool

if TYPE_CHECKING:
    from collections.abc import Sequence

STEPS = 4200
BATCH = 16


def train(steps: int, seed: int, *, shuffle_labels: bool = False, pool_pictures: int = POOL_PICTURES) -> Detector:
    """Train a detector.

    Args:
        steps: batches of `BATCH` pictures.
        seed: of weights, pictures and their order.
        shuffle_labels: the negative control.
        pool_pictures: how many pictures are kept for use again.
    """
    torch.manual_seed(seed)
    pool = PicturePool(seed, pool_pictures, shuffle_labels=shuffle_labels)

    def loss_of_batch(model: Detector) -> torch.Tensor:
        images_bgr, targets = pool.batch(BATCH)
        with torch.autocast("cpu", dtype=torch.bfloat16):  # nearly twice as fast where the CPU multiplies bfloat16
            outputs = model(to_input(images_bgr))
        logits, boxes_xyxy = flatten([output.float() for output in outputs])
        return detection_loss(logits, boxes_xyxy, targets, INPUT_WH)

    return fit(build(), steps, loss_of_batch)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, measure on held-out pictures, write the weights and what was measured."""
    parser = argparse.ArgumentParser(description="Train the demo detector on procedural pictures.")
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for weights.pt, training.json, contact_sheet.jpg"
    )
    parser.add_argument("--steps", type=int, default=STEPS, help=f"batches of {BATCH} pictures (%(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--shuffle-labels", action="store_true", help="negative control: labels of other pictures")
    options = parser.parse_args(arguments)
    effort = Effort()
    model = train(options.steps, options.seed, shuffle_labels=options.shuffle_labels)
    cost = effort.facts()
    halve(model)
    table, sheet_bgr = evaluate(detect_with(model, CURVE))
    options.out.mkdir(parents=True, exist_ok=True)
    save_half(model, options.out / "weights.pt")
    facts = {
        "steps": options.steps,
        "batch": BATCH,
        "seed": options.seed,
        "shuffled_labels": options.shuffle_labels,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        **cost,
        "held_out": {"seed": HELD_OUT_SEED, "pictures": PICTURES},
        "map50": mean_precision(table),
        "table": [asdict(row) for row in table],
    }
    (options.out / "training.json").write_text(json.dumps(facts, indent=1) + "\n")
    cv2.imwrite(str(options.out / "contact_sheet.jpg"), sheet_bgr)
    print(f"trained in {cost['seconds']} s ({cost['cpu_seconds']} s of CPU)\n{table_text(table)}")  # noqa: T201


if __name__ == "__main__":
    main()
