"""Train the demo classifier on crops of pictures: ``python -m build_models.demo.train_classifier --out DIR``.

Less than five minutes on two CPU cores. Writes ``classifier.pt`` (a state dict in half precision),
``classifier.json`` (what was run and measured) and contact sheets. The negative control is trained after it, for a
shorter time, with the labels of other crops: there is nothing to learn, and its answers must be chance.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import torch
from torch.nn import functional

from build_models.demo.classifier import Classifier, build, classify_with
from build_models.demo.crop_pool import POOL_PICTURES, CropPool
from build_models.demo.crops import LABELS
from build_models.demo.detector import to_input
from build_models.demo.evaluate import HELD_OUT_SEED
from build_models.demo.evaluate_classifier import PICTURES, confusion_table, evaluate, table_text
from build_models.demo.fit import Effort, fit, halve, save_half

if TYPE_CHECKING:
    from collections.abc import Sequence

STEPS = 4400
CONTROL_STEPS = 500
BATCH = 64


def train(steps: int, seed: int, *, shuffle_labels: bool = False, pool_pictures: int = POOL_PICTURES) -> Classifier:
    """Train a classifier.

    Args:
        steps: batches of `BATCH` crops.
        seed: of weights, pictures, crops and their order.
        shuffle_labels: the negative control.
        pool_pictures: how many pictures are kept for use again.
    """
    torch.manual_seed(seed)
    pool = CropPool(seed, pool_pictures, shuffle_labels=shuffle_labels)

    def loss_of_batch(model: Classifier) -> torch.Tensor:
        crops_bgr, labels = pool.batch(BATCH)
        with torch.autocast("cpu", dtype=torch.bfloat16):  # nearly twice as fast where the CPU multiplies bfloat16
            logits = model(to_input(crops_bgr))
        return functional.cross_entropy(logits.float(), torch.from_numpy(labels))

    return fit(build(len(LABELS)), steps, loss_of_batch)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, measure on held-out crops, write the weights and what was measured."""
    parser = argparse.ArgumentParser(description="Train the demo classifier on crops of procedural pictures.")
    parser.add_argument("--out", type=Path, required=True, help="folder for weights, facts and contact sheet")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"batches of {BATCH} crops (%(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    effort = Effort()
    model = train(options.steps, options.seed)
    halve(model)
    cost = effort.facts()
    result = evaluate(classify_with(model))
    options.out.mkdir(parents=True, exist_ok=True)
    save_half(model, options.out / "classifier.pt")
    facts = {
        "steps": options.steps,
        "batch": BATCH,
        "seed": options.seed,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        **cost,
        "held_out": {"seed": HELD_OUT_SEED, "pictures": PICTURES, "crops": int(result.confusion.sum())},
        "top1": result.top1,
        "labels": list(LABELS),
        "confusion": result.confusion.tolist(),
        "control": control(options.seed),
    }
    (options.out / "classifier.json").write_text(json.dumps(facts, indent=1) + "\n")
    cv2.imwrite(str(options.out / "classifier_sheet.jpg"), result.sheet_bgr)
    if result.mistakes_bgr is not None:
        cv2.imwrite(str(options.out / "classifier_mistakes.jpg"), result.mistakes_bgr)
    print(table_text(confusion_table(f"top-1 {result.top1:.3f}", result.confusion)))  # noqa: T201


def control(seed: int, steps: int = CONTROL_STEPS) -> dict[str, object]:
    """Top-1 after a short training with true labels, and after the same with the labels of other crops."""
    told: dict[str, object] = {"what": "labels of other crops", "steps": steps}
    for key, shuffled in (("top1_shuffled", True), ("top1_true_labels_same_steps", False)):
        told[key] = evaluate(classify_with(train(steps, seed, shuffle_labels=shuffled))).top1
    return told


if __name__ == "__main__":
    main()
