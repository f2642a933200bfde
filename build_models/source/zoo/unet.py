"""U-Net (https://arxiv.org/abs/1505.04597), padded and batch-normalised, with the names of milesial/Pytorch-UNet.

Input float32 ``[B, 3, H, W]``, RGB / 255; logits ``[B, C, H, W]``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from build_models.source.zoo.checkpoint import Published

_WIDTH = 64


def build(
    num_classes: int = 2, channels: int = 3, width: int = _WIDTH, *, bilinear: bool = False, conv_bias: bool = False
) -> UNet:
    """A U-Net with fresh weights.

    Args:
        num_classes: channels of the output.
        channels: channels of the input.
        width: channels at the input's resolution; published weights have 64.
        bilinear: enlarge by interpolation, as weights trained with ``--bilinear``, and not by transposed convolutions.
        conv_bias: convolutions before a norm have biases, as in weights of before 2021 (release 2.0).
    """
    return UNet(num_classes, channels, width, bilinear=bilinear, conv_bias=conv_bias)


class UNet(Published):
    """Four times down, each time twice as many channels, and back up past what each step down had seen."""

    training_only = ("mask_values",)  # the data set's, not the network's

    def __init__(self, num_classes: int, channels: int, width: int, *, bilinear: bool, conv_bias: bool) -> None:
        super().__init__()
        two, four, eight, sixteen = (width * 2**step for step in range(1, 5))
        less = 2 if bilinear else 1  # interpolation cannot halve the channels, so the convolutions before it do
        self.inc = _DoubleConv(channels, width, width, bias=conv_bias)
        self.down1 = _Down(width, two, bias=conv_bias)
        self.down2 = _Down(two, four, bias=conv_bias)
        self.down3 = _Down(four, eight, bias=conv_bias)
        self.down4 = _Down(eight, sixteen // less, bias=conv_bias)
        self.up1 = _Up(sixteen, eight // less, bilinear=bilinear, bias=conv_bias)
        self.up2 = _Up(eight, four // less, bilinear=bilinear, bias=conv_bias)
        self.up3 = _Up(four, two // less, bilinear=bilinear, bias=conv_bias)
        self.up4 = _Up(two, width, bilinear=bilinear, bias=conv_bias)
        self.outc = _Out(width, num_classes)

    def forward(self, image: Tensor) -> Tensor:
        """See the module."""
        seen = [self.inc(image)]
        for down in (self.down1, self.down2, self.down3, self.down4):
            seen.append(down(seen[-1]))
        features = seen.pop()
        for up in (self.up1, self.up2, self.up3, self.up4):
            features = up(features, seen.pop())
        logits: Tensor = self.outc(features)
        return logits


class _DoubleConv(nn.Module):
    """Twice convolution, norm, ReLU."""

    def __init__(self, inputs: int, inside: int, outputs: int, *, bias: bool) -> None:
        super().__init__()
        self.double_conv = nn.Sequential(
            nn.Conv2d(inputs, inside, 3, padding=1, bias=bias),
            nn.BatchNorm2d(inside),
            nn.ReLU(inplace=True),
            nn.Conv2d(inside, outputs, 3, padding=1, bias=bias),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        )

    def forward(self, features: Tensor) -> Tensor:
        convolved: Tensor = self.double_conv(features)
        return convolved


class _Down(nn.Module):
    """Half the size, then two convolutions."""

    def __init__(self, inputs: int, outputs: int, *, bias: bool) -> None:
        super().__init__()
        self.maxpool_conv = nn.Sequential(nn.MaxPool2d(2), _DoubleConv(inputs, outputs, outputs, bias=bias))

    def forward(self, features: Tensor) -> Tensor:
        smaller: Tensor = self.maxpool_conv(features)
        return smaller


class _Up(nn.Module):
    """Twice the size, beside what was seen at this size on the way down, then two convolutions."""

    def __init__(self, inputs: int, outputs: int, *, bilinear: bool, bias: bool) -> None:
        super().__init__()
        self.up: nn.Module
        if bilinear:
            self.up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
            self.conv = _DoubleConv(inputs, inputs // 2, outputs, bias=bias)
        else:
            self.up = nn.ConvTranspose2d(inputs, inputs // 2, 2, stride=2)
            self.conv = _DoubleConv(inputs, outputs, outputs, bias=bias)

    def forward(self, features: Tensor, seen: Tensor) -> Tensor:
        larger = self.up(features)
        short_h, short_w = seen.shape[2] - larger.shape[2], seen.shape[3] - larger.shape[3]
        if short_h or short_w:  # an odd side lost its last row on the way down
            borders = (short_w // 2, short_w - short_w // 2, short_h // 2, short_h - short_h // 2)
            larger = functional.pad(larger, borders)
        joined: Tensor = self.conv(torch.cat((seen, larger), dim=1))
        return joined


class _Out(nn.Module):
    """The logits of each pixel."""

    def __init__(self, inputs: int, num_classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, num_classes, 1)

    def forward(self, features: Tensor) -> Tensor:
        logits: Tensor = self.conv(features)
        return logits
