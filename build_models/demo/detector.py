"""The demo model: a small anchor-free detector of plain convolutions, made to survive integer arithmetic.

Input float32 ``[B, 3, H, W]``, BGR / 255. Each level has two heads of its own, kept apart because one scale for
scores and distances would crush one of them in int8.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from agent.vision.decode import Thresholds, decode_detections
from agent.vision.resize import Placement
from build_models.demo.layers import Residual, conv

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from agent.vision.detections import Detections

INPUT_WH = (320, 192)
STRIDES = (8, 16)
OUTPUT_NAMES = ("cls_8", "ltrb_8", "cls_16", "ltrb_16")
RAW_LIMIT = 4.0  # distances are exp(clip(raw, -RAW_LIMIT, RAW_LIMIT)) * stride


def build(num_classes: int = 5, width: int = 32) -> Detector:
    """A detector with fresh weights; ``width`` is the channels of the first layers, the rest follows from it."""
    return Detector(num_classes, width)


class Detector(nn.Module):
    """Stages down to stride 16, one way back up to stride 8, a head on both.

    ``forward`` gives, in the order of `OUTPUT_NAMES`, for each stride class logits ``[B, C, H/s, W/s]`` (sigmoid each)
    and raw distances ``[B, 4, H/s, W/s]``: ``exp(clip(raw)) * stride`` pixels from the cell's centre
    ``((x + 0.5) * s, (y + 0.5) * s)`` to the left, top, right and bottom side.
    """

    def __init__(self, num_classes: int, width: int) -> None:
        super().__init__()
        double = 2 * width
        self.stage_4 = nn.Sequential(conv(3, width, stride=2), conv(width, width, stride=2), conv(width, width))
        self.stage_8 = nn.Sequential(conv(width, double, stride=2), Residual(double))
        self.stage_16 = nn.Sequential(conv(double, double, stride=2), conv(double, double))
        self.lateral = conv(double, double, kernel=1)
        self.head_8 = _Head(double, num_classes)
        self.head_16 = _Head(double, num_classes)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """See the class."""
        features_8 = self.stage_8(self.stage_4(image))
        features_16 = self.stage_16(features_8)
        context = functional.interpolate(self.lateral(features_16), scale_factor=2.0, mode="nearest")
        return *self.head_8(features_8 + context), *self.head_16(features_16)


def flatten(outputs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """All cells of all levels in one row: class logits ``[B, A, C]`` and boxes ``[B, A, 4]``, xyxy in input pixels."""
    logits, boxes = [], []
    for stride, cls, raw in zip(STRIDES, outputs[0::2], outputs[1::2], strict=True):
        centres = cell_centres((cls.shape[3], cls.shape[2]), stride).to(raw)
        distances = raw.clamp(-RAW_LIMIT, RAW_LIMIT).exp().flatten(2).transpose(1, 2) * stride
        boxes.append(torch.cat((centres - distances[..., :2], centres + distances[..., 2:]), dim=2))
        logits.append(cls.flatten(2).transpose(1, 2))
    return torch.cat(logits, dim=1), torch.cat(boxes, dim=1)


def cell_centres(grid_wh: tuple[int, int], stride: int) -> Tensor:
    """Centres of a level's cells, row by row: float32 ``[h * w, 2]``, xy in input pixels."""
    y, x = torch.meshgrid(torch.arange(grid_wh[1]), torch.arange(grid_wh[0]), indexing="ij")
    return (torch.stack((x, y), dim=2).reshape(-1, 2) + 0.5) * stride


def to_input(images_bgr: NDArray[np.uint8]) -> Tensor:
    """Pictures uint8 ``[B, H, W, 3]`` as the detector wants them: float32 ``[B, 3, H, W]``, divided by 255."""
    return torch.from_numpy(images_bgr).permute(0, 3, 1, 2).contiguous().float() / 255


def load(weights: Path) -> Detector:
    """The detector with the state dict of a file; half precision is widened."""
    model = build()
    model.load_state_dict(torch.load(weights, weights_only=True))
    return model


def detect_with(model: Detector, thresholds: Thresholds) -> Callable[[NDArray[np.uint8]], Detections]:
    """The torch model as a function of one picture of the input's size; switches it to inference mode."""
    model.eval()
    placement = Placement((1.0, 1.0), (0.0, 0.0), INPUT_WH, INPUT_WH)

    def detect(image_bgr: NDArray[np.uint8]) -> Detections:
        with torch.inference_mode():
            logits, boxes = flatten(model(to_input(image_bgr[None])))
            scores, labels = logits.sigmoid().max(dim=2)
            best, order = scores[0].topk(_CANDIDATES)
            outputs = {"boxes": boxes[:, order], "scores": best[None], "labels": labels[:, order]}
        return decode_detections({name: tensor.numpy() for name, tensor in outputs.items()}, placement, thresholds)

    return detect


_CANDIDATES = 300  # as the bundle's graph


class _Head(nn.Module):
    """One shared convolution, then class logits and raw distances."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.shared = conv(channels, channels)
        self.cls = _output(channels, num_classes, bias=math.log(0.01 / 0.99))  # nearly every cell is background
        self.ltrb = _output(channels, 4, bias=math.log(1.5))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        shared = self.shared(features)
        return self.cls(shared), self.ltrb(shared)


def _output(inputs: int, outputs: int, bias: float) -> nn.Conv2d:
    layer = nn.Conv2d(inputs, outputs, 1)
    assert layer.bias is not None
    nn.init.constant_(layer.bias, bias)
    return layer
