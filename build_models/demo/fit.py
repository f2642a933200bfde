"""One training loop for the demo models: a cosine down to nothing, and a moving average of the weights."""

from __future__ import annotations

import copy
import math
import time
from typing import TYPE_CHECKING, TypeVar

import torch
from tqdm import tqdm

from agent.model.variants import this_device

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PEAK_LEARNING_RATE = 3e-3
WARM_UP_STEPS = 200
WEIGHT_DECAY = 0.02
AVERAGE_DECAY = 0.998
LARGEST_GRADIENT = 10.0

Model = TypeVar("Model", bound=torch.nn.Module)


def fit(model: Model, steps: int, loss_of_batch: Callable[[Model], torch.Tensor]) -> Model:
    """Train a model; returns the moving average of its weights, which is better than the last.

    Args:
        model: with fresh weights.
        steps: batches; the learning rate follows a cosine down to 0 over them.
        loss_of_batch: draws the next batch and gives the model's loss on it.
    """
    model.train()
    average = copy.deepcopy(model).eval()
    optimiser = torch.optim.AdamW(_parameter_groups(model), lr=PEAK_LEARNING_RATE)
    progress = tqdm(range(steps), desc="train", unit="batch")
    smooth_loss = math.nan
    for step in progress:
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step, steps)
        loss = loss_of_batch(model)
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


def halve(model: torch.nn.Module) -> None:
    """Round the weights to half precision, as they are stored, so that what is measured is what ships."""
    model.load_state_dict({name: _half(tensor) for name, tensor in model.state_dict().items()})


def save_half(model: torch.nn.Module, weights: Path) -> None:
    """Write the state dict in half precision."""
    torch.save({name: _half(tensor) for name, tensor in model.state_dict().items()}, weights)


class Effort:
    """What a training cost, counted from construction."""

    def __init__(self) -> None:
        self._began_s, self._began_cpu_s = time.perf_counter(), time.process_time()

    def facts(self) -> dict[str, object]:
        """Seconds so far, on which machine."""
        return {
            "seconds": round(time.perf_counter() - self._began_s),
            "cpu_seconds": round(time.process_time() - self._began_cpu_s),
            "threads": torch.get_num_threads(),
            "cpu": this_device(onnxruntime_version="", providers=()).cpu_name,
            "torch": torch.__version__,
        }


def _parameter_groups(model: torch.nn.Module) -> list[dict[str, object]]:
    """Weights decay, biases and norms do not."""
    parameters = list(model.parameters())
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": WEIGHT_DECAY},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


@torch.no_grad()
def _follow(average: torch.nn.Module, model: torch.nn.Module, decay: float) -> None:
    """Move the average's weights and statistics a little towards the model's."""
    for mean, value in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
        if mean.is_floating_point():
            mean.lerp_(value, 1 - decay)
        else:
            mean.copy_(value)


def _half(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.half() if tensor.is_floating_point() else tensor
