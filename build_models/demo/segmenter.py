"""The demo segmenter: a small U-Net of plain convolutions that names the class of every pixel.

Input float32 ``[B, 3, H, W]``, BGR / 255, sides that 16 divides. It works at half of the input's resolution and below;
only the logits are enlarged to the whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from build_models.demo.detector import to_input
from build_models.demo.layers import Residual, conv

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

INPUT_WH = (320, 192)


def build(num_classes: int = 6, width: int = 32) -> Segmenter:
    """A segmenter with fresh weights; ``width`` is the channels of the first layers, the rest follows from it."""
    return Segmenter(num_classes, width)


class Segmenter(nn.Module):
    """Down to a sixteenth of the input, and back up past what each step down had seen; logits ``[B, C, H, W]``."""

    def __init__(self, num_classes: int, width: int) -> None:
        super().__init__()
        double = 2 * width
        self.down_2 = conv(3, width, stride=2)
        self.down_4 = nn.Sequential(nn.MaxPool2d(2), conv(width, width), conv(width, width))
        self.down_8 = nn.Sequential(nn.MaxPool2d(2), conv(width, double), conv(double, double))
        self.down_16 = nn.Sequential(nn.MaxPool2d(2), conv(double, double), Residual(double))
        self.up_8 = conv(2 * double, double)
        self.up_4 = conv(double + width, width)
        self.up_2 = conv(2 * width, width, kernel=1)  # at this size a kernel of 3 would cost as much as all the rest
        self.classes = nn.Conv2d(width, num_classes, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        """See the class."""
        seen_2 = self.down_2(image)
        seen_4 = self.down_4(seen_2)
        seen_8 = self.down_8(seen_4)
        features = self.up_8(_beside(self.down_16(seen_8), seen_8))
        features = self.up_4(_beside(features, seen_4))
        logits = self.classes(self.up_2(_beside(features, seen_2)))
        return functional.interpolate(logits, scale_factor=2.0, mode="bilinear", align_corners=False)


def load(weights: Path) -> Segmenter:
    """The segmenter with the state dict of a file; half precision is widened."""
    model = build()
    model.load_state_dict(torch.load(weights, weights_only=True))
    return model


def segment_with(model: Segmenter) -> Callable[[NDArray[np.uint8]], NDArray[np.uint8]]:
    """The torch model as a function of one picture of the input's size to class ids, uint8 ``[H, W]``.

    Switches the model to inference mode.
    """
    model.eval()

    def segment(image_bgr: NDArray[np.uint8]) -> NDArray[np.uint8]:
        with torch.inference_mode():
            logits = model(to_input(image_bgr[None]))
        return np.asarray(logits[0].argmax(dim=0).numpy(), np.uint8)

    return segment


def _beside(coarse: Tensor, fine: Tensor) -> Tensor:
    """The coarser features, twice enlarged, beside the finer."""
    return torch.cat((functional.interpolate(coarse, scale_factor=2.0, mode="nearest"), fine), dim=1)
