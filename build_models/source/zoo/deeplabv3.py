"""DeepLabV3 (https://arxiv.org/abs/1706.05587) over MobileNetV3-Large or ResNet, with torchvision's parameter names.

``deeplabv3_mobilenet_v3_large``, ``deeplabv3_resnet50`` and ``deeplabv3_resnet101``. Input float32 ``[B, 3, H, W]``,
RGB, normalised with ImageNet's mean and deviation; logits ``[B, C, H, W]``.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from build_models.source.zoo import mobilenet_v3, resnet
from build_models.source.zoo.checkpoint import Published

Backbone = Literal["mobilenet_v3_large", "resnet50", "resnet101"]
_RATES = (12, 24, 36)
_INSIDE = 256


def build(num_classes: int = 21, backbone: Backbone = "mobilenet_v3_large", *, aux: bool = False) -> DeepLabV3:
    """A segmenter with fresh weights.

    Args:
        num_classes: with the background; published weights know the 21 of PASCAL VOC.
        backbone: what extracts the features.
        aux: hold the auxiliary classifier's weights as well. Only training uses them: without it a file's are left out.
    """
    if backbone == "mobilenet_v3_large":
        return DeepLabV3(mobilenet_v3.features(), mobilenet_v3.CHANNELS, 40 if aux else None, num_classes)
    if backbone not in resnet.BLOCKS:
        known = ", ".join(("mobilenet_v3_large", *resnet.BLOCKS))
        raise ValueError(f"expected one of the backbones {known}, got {backbone!r}")
    return DeepLabV3(resnet.features(backbone), resnet.CHANNELS, 1024 if aux else None, num_classes)


class DeepLabV3(Published):
    """The backbone's features, seen at several rates at once, classified and enlarged to the input's size."""

    training_only = ("aux_classifier.",)

    def __init__(self, backbone: nn.Module, channels: int, aux_channels: int | None, num_classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.classifier = nn.Sequential(
            _Pyramid(channels), *_conv(_INSIDE, _INSIDE, 3), nn.Conv2d(_INSIDE, num_classes, 1)
        )
        if aux_channels is not None:
            inside = aux_channels // 4
            self.aux_classifier = nn.Sequential(
                *_conv(aux_channels, inside, 3), nn.Dropout(0.1), nn.Conv2d(inside, num_classes, 1)
            )

    def forward(self, image: Tensor) -> Tensor:
        """See the module; the auxiliary classifier takes no part."""
        logits = self.classifier(self.backbone(image))
        return functional.interpolate(logits, size=image.shape[2:], mode="bilinear", align_corners=False)


class _Pyramid(nn.Module):
    """The same features through a kernel of 1, of 3 at each rate, and as the average of the whole picture."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), *_conv(channels, _INSIDE, 1))
        rates = (nn.Sequential(*_conv(channels, _INSIDE, 3, dilation=rate)) for rate in _RATES)
        self.convs = nn.ModuleList([nn.Sequential(*_conv(channels, _INSIDE, 1)), *rates, pooled])
        self.project = nn.Sequential(*_conv(5 * _INSIDE, _INSIDE, 1), nn.Dropout(0.5))

    def forward(self, features: Tensor) -> Tensor:
        seen = [conv(features) for conv in self.convs]
        seen[-1] = functional.interpolate(seen[-1], size=features.shape[2:], mode="bilinear", align_corners=False)
        projected: Tensor = self.project(torch.cat(seen, dim=1))
        return projected


def _conv(inputs: int, outputs: int, kernel: int, dilation: int = 1) -> tuple[nn.Module, nn.Module, nn.Module]:
    padding = dilation * (kernel // 2)
    layer = nn.Conv2d(inputs, outputs, kernel, padding=padding, dilation=dilation, bias=False)
    return layer, nn.BatchNorm2d(outputs), nn.ReLU()
