"""ResNet-50 and -101 (https://arxiv.org/abs/1512.03385) without their classifier, as a segmenter's backbone.

Parameter names are those of torchvision; features at an eighth of the input, kept there by dilation.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

CHANNELS = 2048
BLOCKS = {"resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3)}


def features(kind: str) -> nn.Sequential:
    """The layers of a kind in `BLOCKS`, with fresh weights; `CHANNELS` come out."""
    layers = nn.Sequential()
    layers.add_module("conv1", nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False))
    layers.add_module("bn1", nn.BatchNorm2d(64))
    layers.add_module("relu", nn.ReLU(inplace=True))
    layers.add_module("maxpool", nn.MaxPool2d(3, stride=2, padding=1))
    inputs = 64
    # From an eighth on the resolution stays, and later blocks look further instead of the first one's stride.
    for number, (blocks, stride, first, rest) in enumerate(
        zip(BLOCKS[kind], (1, 2, 1, 1), (1, 1, 1, 2), (1, 1, 2, 4), strict=True), start=1
    ):
        inside = 32 * 2**number
        stage = [_Bottleneck(inputs, inside, stride, first)]
        inputs = 4 * inside
        stage += [_Bottleneck(inputs, inside, 1, rest) for _ in range(blocks - 1)]
        layers.add_module(f"layer{number}", nn.Sequential(*stage))
    return layers


class _Bottleneck(nn.Module):
    """Narrow, convolve, widen, beside a shortcut."""

    def __init__(self, inputs: int, inside: int, stride: int, dilation: int) -> None:
        super().__init__()
        outputs = 4 * inside
        self.conv1, self.bn1 = nn.Conv2d(inputs, inside, 1, bias=False), nn.BatchNorm2d(inside)
        self.conv2 = nn.Conv2d(inside, inside, 3, stride, padding=dilation, dilation=dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(inside)
        self.conv3, self.bn3 = nn.Conv2d(inside, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        if stride > 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        else:
            self.downsample = nn.Sequential()

    def forward(self, features: Tensor) -> Tensor:
        inner = functional.relu(self.bn1(self.conv1(features)))
        inner = functional.relu(self.bn2(self.conv2(inner)))
        return functional.relu(self.bn3(self.conv3(inner)) + self.downsample(features))
