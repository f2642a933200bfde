"""The demo classifier: names the shape that fills a picture, such as the crop of a detector's box.

Plain convolutions, as in the detector, and an average over the whole picture before the one linear layer. Input
float32 ``[B, 3, H, W]``, BGR / 255.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from agent.vision.decode import decode_class
from build_models.demo.crops import INPUT_WH
from build_models.demo.detector import to_input
from build_models.demo.layers import Residual, conv

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray


def build(num_classes: int = 6, width: int = 16) -> Classifier:
    """A classifier with fresh weights; ``width`` is the channels of the first layers, the rest follows from it."""
    return Classifier(num_classes, width)


class Classifier(nn.Module):
    """Down to a sixteenth of the input, where a cell sees all of it; the average of each channel; logits ``[B, C]``."""

    def __init__(self, num_classes: int, width: int) -> None:
        super().__init__()
        double, triple = 2 * width, 3 * width
        self.features = nn.Sequential(
            *(conv(3, width, stride=2), conv(width, width)),
            *(conv(width, double, stride=2), Residual(double)),
            *(conv(double, triple, stride=2), Residual(triple)),
            *(conv(triple, triple, stride=2), Residual(triple)),
        )
        self.average = nn.AdaptiveAvgPool2d(1)
        self.classes = nn.Linear(triple, num_classes)

    def forward(self, image: Tensor) -> Tensor:
        """See the class."""
        logits: Tensor = self.classes(self.average(self.features(image)).flatten(1))
        return logits


def load(weights: Path) -> Classifier:
    """The classifier with the state dict of a file; half precision is widened."""
    model = build()
    model.load_state_dict(torch.load(weights, weights_only=True))
    return model


def classify_with(model: Classifier) -> Callable[[NDArray[np.uint8]], tuple[int, float]]:
    """The torch model as a function of one picture of any size, stretched as the device does it, to class id and score.

    Switches the model to inference mode.
    """
    model.eval()

    def classify(image_bgr: NDArray[np.uint8]) -> tuple[int, float]:
        stretched = np.asarray(cv2.resize(image_bgr, INPUT_WH, interpolation=cv2.INTER_LINEAR), np.uint8)
        with torch.inference_mode():
            return decode_class({"scores": model(to_input(stretched[None])).softmax(dim=1).numpy()})

    return classify
