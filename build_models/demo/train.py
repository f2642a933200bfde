"""Train the demo detector on procedural pictures: ``python -m build_models.demo.train --out DIR``.

About sixteen minutes on two CPU cores that do nothing else. Writes ``weights.pt`` (a state dict in half precision),
``training.json`` (what was run and measured) and ``contact_sheet.jpg``. ``--shuffle-labels`` is the negative control:
with the boxes and classes of other pictures there is nothing to learn, and the precision must collapse.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import torch
from tqdm import tqdm

from agent.model.variants import this_device
from build_models.demo.average_precision import mean_precision
from build_models.demo.detector import INPUT_WH, Detector, build, detect_with, flatten, to_input
from build_models.demo.evaluate import CURVE, HELD_OUT_SEED, PICTURES, evaluate, table_text
from build_models.demo.loss import detection_loss
from build_models.demo.picture_pool import POOL_PICTURES, PicturePool

if TYPE_CHECKING:
    from collections.abc import Sequence

STEPS = 4200
BATCH = 16
PEAK_LEARNING_RATE = 3e-3
WARM_UP_STEPS = 200
WEIGHT_DECAY = 0.02
AVERAGE_DECAY = 0.998
LARGEST_GRADIENT = 10.0


def train(steps: int, seed: int, *, shuffle_labels: bool = False, pool_pictures: int = POOL_PICTURES) -> Detector:
    """Train a detector; returns the moving average of its weights, which is better than the last.

    Args:
        steps: batches of `BATCH` pictures; the learning rate follows a cosine down to 0 over them.
        seed: of weights, pictures and their order.
        shuffle_labels: the negative control.
        pool_pictures: how many pictures are kept for use again.
    """
    torch.manual_seed(seed)
    pool = PicturePool(seed, pool_pictures, shuffle_labels=shuffle_labels)
    model = build().train()
    average = copy.deepcopy(model).eval()
    optimiser = torch.optim.AdamW(_parameter_groups(model), lr=PEAK_LEARNING_RATE)
    progress = tqdm(range(steps), desc="train", unit="batch")
    smooth_loss = math.nan
    for step in progress:
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step, steps)
        images_bgr, targets = pool.batch(BATCH)
        with torch.autocast("cpu", dtype=torch.bfloat16):  # nearly twice as fast where the CPU multiplies bfloat16
            outputs = model(to_input(images_bgr))
        logits, boxes_xyxy = flatten([output.float() for output in outputs])
        loss = detection_loss(logits, boxes_xyxy, targets, INPUT_WH)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), LARGEST_GRADIENT)
        optimiser.step()
        _follow(average, model, min(AVERAGE_DECAY, (1 + step) / (10 + step)))
        smooth_loss = loss.item() if math.isnan(smooth_loss) else 0.98 * smooth_loss + 0.02 * loss.item()
        progress.set_postfix(loss=f"{smooth_loss:.3f}")
    return average


def learning_rate(step: int, steps: int) -> float:
    """Linear from 0, then a half cosine back to 0."""
    warm_up = min(WARM_UP_STEPS, steps // 10 + 1)
    if step < warm_up:
        return PEAK_LEARNING_RATE * (step + 1) / warm_up
    return PEAK_LEARNING_RATE * 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))


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
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    model = train(options.steps, options.seed, shuffle_labels=options.shuffle_labels)
    seconds, cpu_seconds = time.perf_counter() - began_s, time.process_time() - began_cpu_s
    _halve(model)
    table, sheet_bgr = evaluate(detect_with(model, CURVE))
    options.out.mkdir(parents=True, exist_ok=True)
    torch.save({name: _half(tensor) for name, tensor in model.state_dict().items()}, options.out / "weights.pt")
    facts = {
        "steps": options.steps,
        "batch": BATCH,
        "seed": options.seed,
        "shuffled_labels": options.shuffle_labels,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "seconds": round(seconds),
        "cpu_seconds": round(cpu_seconds),
        "threads": torch.get_num_threads(),
        "cpu": this_device(onnxruntime_version="", providers=()).cpu_name,
        "torch": torch.__version__,
        "held_out": {"seed": HELD_OUT_SEED, "pictures": PICTURES},
        "map50": mean_precision(table),
        "table": [asdict(row) for row in table],
    }
    (options.out / "training.json").write_text(json.dumps(facts, indent=1) + "\n")
    cv2.imwrite(str(options.out / "contact_sheet.jpg"), sheet_bgr)
    print(f"trained in {seconds:.0f} s ({cpu_seconds:.0f} s of CPU)\n{table_text(table)}")  # noqa: T201


def _parameter_groups(model: Detector) -> list[dict[str, object]]:
    """Weights decay, biases and norms do not."""
    parameters = list(model.parameters())
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": WEIGHT_DECAY},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


@torch.no_grad()
def _follow(average: Detector, model: Detector, decay: float) -> None:
    """Move the average's weights and statistics a little towards the model's."""
    for mean, value in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
        if mean.is_floating_point():
            mean.lerp_(value, 1 - decay)
        else:
            mean.copy_(value)


def _halve(model: Detector) -> None:
    """Round the weights to half precision, as they are stored, so that what is measured is what ships."""
    model.load_state_dict({name: _half(tensor) for name, tensor in model.state_dict().items()})


def _half(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.half() if tensor.is_floating_point() else tensor


if __name__ == "__main__":
    main()
