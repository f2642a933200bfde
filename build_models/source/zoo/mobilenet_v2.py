"""MobileNetV2 (https://arxiv.org/abs/1801.04381), with the parameter names of torchvision's ``mobilenet_v2``.

Input float32 ``[B, 3, H, W]``, RGB, normalised with ImageNet's mean and deviation; logits ``[B, C]``.
"""

from __future__ import annotations

from torch import Tensor, nn

# How many times wider inside, channels out, repetitions, stride of the first.
_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
_FIRST, _LAST = 32, 1280


def build(num_classes: int = 1000, width: float = 1.0) -> MobileNetV2:
    """A network with fresh weights; ``width`` multiplies the channels, which stay multiples of eight."""
    return MobileNetV2(num_classes, width)


class MobileNetV2(nn.Module):
    """Inverted residuals down to a thirty-second of the input, the average of each channel, one linear layer."""

    def __init__(self, num_classes: int, width: float) -> None:
        super().__init__()
        inputs = multiple_of_8(_FIRST * width)
        layers: list[nn.Module] = [_conv(3, inputs, 3, stride=2)]
        for expansion, channels, repetitions, stride in _STAGES:
            outputs = multiple_of_8(channels * width)
            for number in range(repetitions):
                layers.append(_InvertedResidual(inputs, outputs, expansion, stride if number == 0 else 1))
                inputs = outputs
        last = multiple_of_8(_LAST * max(1.0, width))
        self.features = nn.Sequential(*layers, _conv(inputs, last, 1))
        self.average = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(last, num_classes))

    def forward(self, image: Tensor) -> Tensor:
        """See the module."""
        logits: Tensor = self.classifier(self.average(self.features(image)).flatten(1))
        return logits


def multiple_of_8(channels: float) -> int:
    """The nearest multiple of eight that is not more than a tenth below, at least 8."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * channels else nearest


class _InvertedResidual(nn.Module):
    """Widen, convolve each channel on its own, narrow without an activation; a shortcut where the shape allows it."""

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int) -> None:
        super().__init__()
        inside = inputs * expansion
        widen = [_conv(inputs, inside, 1)] if expansion > 1 else []
        self.conv = nn.Sequential(
            *widen,
            _conv(inside, inside, 3, stride, groups=inside),
            nn.Conv2d(inside, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.has_shortcut = stride == 1 and inputs == outputs

    def forward(self, features: Tensor) -> Tensor:
        narrowed: Tensor = self.conv(features)
        return features + narrowed if self.has_shortcut else narrowed


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU6(inplace=True),
    )
