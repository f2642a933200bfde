"""BiSeNetV2 (https://arxiv.org/abs/2004.02147), with the parameter names of CoinCheung/BiSeNet.

Input float32 ``[B, 3, H, W]``, RGB, normalised as the weights' training did it, sides that 32 divides; logits
``[B, C, H, W]``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from build_models.source.zoo.checkpoint import Published

_CHANNELS = 128
_HEAD_CHANNELS = 1024
_EXPANSION = 6


def build(num_classes: int = 19) -> BiSeNetV2:
    """A segmenter with fresh weights; published weights know the 19 classes of Cityscapes, or COCO's or ADE20K's."""
    return BiSeNetV2(num_classes)


class BiSeNetV2(Published):
    """A shallow, wide branch for details and a deep, narrow one for meaning; each decides what of the other counts."""

    training_only = ("aux2.", "aux3.", "aux4.", "aux5_4.")

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.detail = _Detail()
        self.segment = _Semantic()
        self.bga = _Aggregation()
        self.head = _Head(num_classes)

    def forward(self, image: Tensor) -> Tensor:
        """See the module."""
        logits: Tensor = self.head(self.bga(self.detail(image), self.segment(image)))
        return logits


class _Conv(nn.Module):
    """Convolution, norm, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, features: Tensor) -> Tensor:
        convolved: Tensor = self.relu(self.bn(self.conv(features)))
        return convolved


class _Detail(nn.Module):
    """Down to an eighth."""

    def __init__(self) -> None:
        super().__init__()
        self.S1 = nn.Sequential(_Conv(3, 64, stride=2), _Conv(64, 64))
        self.S2 = nn.Sequential(_Conv(64, 64, stride=2), _Conv(64, 64), _Conv(64, 64))
        self.S3 = nn.Sequential(_Conv(64, 128, stride=2), _Conv(128, 128), _Conv(128, 128))

    def forward(self, image: Tensor) -> Tensor:
        features: Tensor = self.S3(self.S2(self.S1(image)))
        return features


class _Semantic(nn.Module):
    """Down to a thirty-second, with the average of the whole picture added at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.S1S2 = _Stem()
        self.S3 = nn.Sequential(_GatherDown(16, 32), _Gather(32))
        self.S4 = nn.Sequential(_GatherDown(32, 64), _Gather(64))
        self.S5_4 = nn.Sequential(_GatherDown(64, 128), _Gather(128), _Gather(128), _Gather(128))
        self.S5_5 = _Context()

    def forward(self, image: Tensor) -> Tensor:
        features: Tensor = self.S5_5(self.S5_4(self.S4(self.S3(self.S1S2(image)))))
        return features


class _Stem(nn.Module):
    """Down to a quarter, by convolution and by pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = _Conv(3, 16, stride=2)
        self.left = nn.Sequential(_Conv(16, 8, kernel=1), _Conv(8, 16, stride=2))
        self.right = nn.MaxPool2d(3, stride=2, padding=1)
        self.fuse = _Conv(32, 16)

    def forward(self, image: Tensor) -> Tensor:
        features = self.conv(image)
        fused: Tensor = self.fuse(torch.cat((self.left(features), self.right(features)), dim=1))
        return fused


class _Gather(nn.Module):
    """Gather and expand at the same size."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = _Conv(channels, channels)
        self.dwconv = nn.Sequential(*_depthwise(channels, channels * _EXPANSION), nn.ReLU(inplace=True))
        self.conv2 = nn.Sequential(*_pointwise(channels * _EXPANSION, channels))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, features: Tensor) -> Tensor:
        gathered: Tensor = self.relu(self.conv2(self.dwconv(self.conv1(features))) + features)
        return gathered


class _GatherDown(nn.Module):
    """Gather and expand at half the size."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        inside = inputs * _EXPANSION
        self.conv1 = _Conv(inputs, inputs)
        self.dwconv1 = nn.Sequential(*_depthwise(inputs, inside, stride=2))
        self.dwconv2 = nn.Sequential(*_depthwise(inside, inside), nn.ReLU(inplace=True))
        self.conv2 = nn.Sequential(*_pointwise(inside, outputs))
        self.shortcut = nn.Sequential(*_depthwise(inputs, inputs, stride=2), *_pointwise(inputs, outputs))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, features: Tensor) -> Tensor:
        inner = self.conv2(self.dwconv2(self.dwconv1(self.conv1(features))))
        gathered: Tensor = self.relu(inner + self.shortcut(features))
        return gathered


class _Context(nn.Module):
    """Adds the average of the whole picture."""

    def __init__(self) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(_CHANNELS)
        self.conv_gap = _Conv(_CHANNELS, _CHANNELS, kernel=1)
        self.conv_last = _Conv(_CHANNELS, _CHANNELS)

    def forward(self, features: Tensor) -> Tensor:
        average = self.conv_gap(self.bn(features.mean(dim=(2, 3), keepdim=True)))
        embedded: Tensor = self.conv_last(average + features)
        return embedded


class _Aggregation(nn.Module):
    """Both branches, each weighed by the other, at the details' size."""

    def __init__(self) -> None:
        super().__init__()
        self.left1 = nn.Sequential(*_depthwise(_CHANNELS, _CHANNELS), nn.Conv2d(_CHANNELS, _CHANNELS, 1, bias=False))
        self.left2 = nn.Sequential(*_plain(stride=2), nn.AvgPool2d(3, stride=2, padding=1))
        self.right1 = nn.Sequential(*_plain())
        self.right2 = nn.Sequential(*_depthwise(_CHANNELS, _CHANNELS), nn.Conv2d(_CHANNELS, _CHANNELS, 1, bias=False))
        self.up = nn.Upsample(scale_factor=4)
        self.conv = nn.Sequential(*_plain(), nn.ReLU(inplace=True))

    def forward(self, detail: Tensor, meaning: Tensor) -> Tensor:
        fine = self.left1(detail) * self.up(self.right1(meaning)).sigmoid()
        coarse = self.left2(detail) * self.right2(meaning).sigmoid()
        joined: Tensor = self.conv(fine + self.up(coarse))
        return joined


class _Head(nn.Module):
    """The logits, enlarged to the input's size."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv = _Conv(_CHANNELS, _HEAD_CHANNELS)
        self.drop = nn.Dropout(0.1)
        enlarge = nn.Upsample(scale_factor=8, mode="bilinear", align_corners=False)
        self.conv_out = nn.Sequential(nn.Identity(), nn.Conv2d(_HEAD_CHANNELS, num_classes, 1), enlarge)

    def forward(self, features: Tensor) -> Tensor:
        logits: Tensor = self.conv_out(self.drop(self.conv(features)))
        return logits


def _depthwise(inputs: int, outputs: int, stride: int = 1) -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(inputs, outputs, 3, stride, padding=1, groups=inputs, bias=False), nn.BatchNorm2d(outputs)


def _pointwise(inputs: int, outputs: int) -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs)


def _plain(stride: int = 1) -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(_CHANNELS, _CHANNELS, 3, stride, padding=1, bias=False), nn.BatchNorm2d(_CHANNELS)
