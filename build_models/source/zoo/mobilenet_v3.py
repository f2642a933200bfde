"""MobileNetV3-Large (https://arxiv.org/abs/1905.02244) without its classifier, as a segmenter's backbone.

Parameter names are those of torchvision's ``mobilenet_v3_large().features``; features at a sixteenth of the input.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.nn import functional

from build_models.source.zoo.mobilenet_v2 import multiple_of_8

if TYPE_CHECKING:
    from collections.abc import Callable

_FIRST = 16
# Kernel, channels inside, channels out, squeeze and excite, hard swish, stride, dilation; the last three keep the
# resolution of a sixteenth and look twice as far instead.
_BLOCKS = (
    (3, 16, 16, False, False, 1, 1),
    (3, 64, 24, False, False, 2, 1),
    (3, 72, 24, False, False, 1, 1),
    (5, 72, 40, True, False, 2, 1),
    (5, 120, 40, True, False, 1, 1),
    (5, 120, 40, True, False, 1, 1),
    (3, 240, 80, False, True, 2, 1),
    (3, 200, 80, False, True, 1, 1),
    (3, 184, 80, False, True, 1, 1),
    (3, 184, 80, False, True, 1, 1),
    (3, 480, 112, True, True, 1, 1),
    (3, 672, 112, True, True, 1, 1),
    (5, 672, 160, True, True, 1, 2),
    (5, 960, 160, True, True, 1, 2),
    (5, 960, 160, True, True, 1, 2),
)
CHANNELS = 960


def features() -> nn.Sequential:
    """The layers with fresh weights; `CHANNELS` come out."""
    layers: list[nn.Module] = [nn.Sequential(*_conv(3, _FIRST, 3, nn.Hardswish, stride=2))]
    inputs = _FIRST
    for row in _BLOCKS:
        layers.append(_Block(inputs, *row))
        inputs = row[2]
    return nn.Sequential(*layers, nn.Sequential(*_conv(inputs, CHANNELS, 1, nn.Hardswish)))


class _Block(nn.Module):
    """Widen, convolve each channel on its own, weigh the channels, narrow; a shortcut where the shape allows it."""

    def __init__(
        self,
        inputs: int,
        kernel: int,
        inside: int,
        outputs: int,
        squeeze: bool,
        swish: bool,
        stride: int,
        dilation: int,
    ) -> None:
        super().__init__()
        activation = nn.Hardswish if swish else nn.ReLU
        layers = [nn.Sequential(*_conv(inputs, inside, 1, activation))] if inside != inputs else []
        depthwise = _conv(inside, inside, kernel, activation, stride=stride, dilation=dilation, groups=inside)
        layers.append(nn.Sequential(*depthwise))
        weigh = [_SqueezeExcite(inside)] if squeeze else []
        self.block = nn.Sequential(*layers, *weigh, nn.Sequential(*_conv(inside, outputs, 1, nn.Identity)))
        self.has_shortcut = stride == 1 and inputs == outputs

    def forward(self, features: Tensor) -> Tensor:
        narrowed: Tensor = self.block(features)
        return features + narrowed if self.has_shortcut else narrowed


class _SqueezeExcite(nn.Module):
    """Each channel times a weight of 0..1 that the averages of all channels decide."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = multiple_of_8(channels // 4)
        self.average = nn.AdaptiveAvgPool2d(1)
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        weights = self.fc2(functional.relu(self.fc1(self.average(features))))
        return functional.hardsigmoid(weights) * features


def _conv(
    inputs: int,
    outputs: int,
    kernel: int,
    activation: Callable[[], nn.Module],
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
) -> tuple[nn.Module, nn.Module, nn.Module]:
    padding = dilation * (kernel // 2)
    layer = nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, groups, bias=False)
    return layer, nn.BatchNorm2d(outputs, eps=0.001), activation()
