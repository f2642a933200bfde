"""Train the demo segmenter on procedural pictures: ``python -m build_models.demo.train_segmenter --out DIR``.

About a quarter of an hour on one CPU core. Writes ``segmenter.pt`` (a state dict in half precision),
``segmenter.json`` (what was run and measured) and a contact sheet. The negative control is trained after it, for a
shorter time, with the masks of other pictures: there is nothing to learn, and the overlap must collapse.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import torch
from torch.nn import functional

from build_models.demo.detector import to_input
from build_models.demo.evaluate import HELD_OUT_SEED
from build_models.demo.evaluate_segmenter import PICTURES, evaluate, overlap_table, table_text
from build_models.demo.fit import Effort, fit, halve, save_half
from build_models.demo.mask_pool import POOL_PICTURES, MaskPool
from build_models.demo.masks import LABELS
from build_models.demo.segmenter import Segmenter, build, segment_with

if TYPE_CHECKING:
    from collections.abc import Sequence

STEPS = 2400
CONTROL_STEPS = 300
CONTROL_PICTURES = 200
BATCH = 16


def train(steps: int, seed: int, *, shuffle_masks: bool = False, pool_pictures: int = POOL_PICTURES) -> Segmenter:
    """Train a segmenter.

    Args:
        steps: batches of `BATCH` pictures.
        seed: of weights, pictures and their order.
        shuffle_masks: the negative control.
        pool_pictures: how many pictures are kept for use again.
    """
    torch.manual_seed(seed)
    pool = MaskPool(seed, pool_pictures, shuffle_masks=shuffle_masks)

    def loss_of_batch(model: Segmenter) -> torch.Tensor:
        images_bgr, masks = pool.batch(BATCH)
        images = to_input(images_bgr).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", dtype=torch.bfloat16):  # nearly twice as fast where the CPU multiplies bfloat16
            logits = model(images)
        return functional.cross_entropy(logits.float(), torch.from_numpy(masks))

    model = build(len(LABELS))
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # the stubs forget it; a third faster
    trained = fit(model, steps, loss_of_batch)
    trained.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload] # as above
    return trained


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, measure on held-out pictures, write the weights and what was measured."""
    parser = argparse.ArgumentParser(description="Train the demo segmenter on procedural pictures.")
    parser.add_argument("--out", type=Path, required=True, help="folder for weights, facts and contact sheet")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"batches of {BATCH} pictures (%(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads (%(default)s)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    effort = Effort()
    model = train(options.steps, options.seed)
    halve(model)
    cost = effort.facts()
    result = evaluate(segment_with(model))
    options.out.mkdir(parents=True, exist_ok=True)
    save_half(model, options.out / "segmenter.pt")
    facts = {
        "steps": options.steps,
        "batch": BATCH,
        "seed": options.seed,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        **cost,
        "held_out": {"seed": HELD_OUT_SEED, "pictures": PICTURES},
        "mean_iou": result.mean_iou,
        "object_iou": result.object_iou,
        "iou": dict(zip(LABELS, result.iou.tolist(), strict=True)),
        "control": control(options.seed),
    }
    (options.out / "segmenter.json").write_text(json.dumps(facts, indent=1) + "\n")
    cv2.imwrite(str(options.out / "segmenter_sheet.jpg"), result.sheet_bgr)
    print(table_text(overlap_table(f"mIoU {result.mean_iou:.3f}", result)))  # noqa: T201


def control(seed: int, steps: int = CONTROL_STEPS) -> dict[str, object]:
    """Overlap after a short training with true masks, and after the same with the masks of other pictures.

    So short a training finds the shapes and does not yet name them, so that their overlap as one says most.
    """
    told: dict[str, object] = {"what": "masks of other pictures", "steps": steps}
    for key, shuffled in (("shuffled", True), ("true_masks_same_steps", False)):
        result = evaluate(segment_with(train(steps, seed, shuffle_masks=shuffled)), CONTROL_PICTURES)
        told[f"object_iou_{key}"], told[f"mean_iou_{key}"] = result.object_iou, result.mean_iou
    return told


if __name__ == "__main__":
    main()
