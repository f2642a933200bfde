"""What the zoo's networks give for a picture, and that their exports and canonical graphs compute the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("torch", reason="needs the torch extra")

import torch

from build_models.source.zoo import bisenet, deeplabv3, mobilenet_v2, unet

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

pytestmark = pytest.mark.torch


def lively(model: nn.Module) -> nn.Module:
    """The network with norms that have seen pictures: with fresh ones a deep network forgets what it was shown."""
    torch.manual_seed(0)
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = None  # the plain average
    with torch.no_grad():
        for _ in range(2):
            model.train()(torch.randn(4, 3, 64, 96))
    return model.eval()


@pytest.mark.parametrize(
    ("build", "kwargs", "shape"),
    [
        (mobilenet_v2.build, {"num_classes": 7, "width": 0.35}, (2, 7)),
        (deeplabv3.build, {"num_classes": 5}, (2, 5, 64, 96)),
        (deeplabv3.build, {"num_classes": 5, "aux": True}, (2, 5, 64, 96)),
        (deeplabv3.build, {"backbone": "resnet50"}, (2, 21, 64, 96)),
        (unet.build, {"num_classes": 3, "width": 4}, (2, 3, 64, 96)),
        (unet.build, {"num_classes": 3, "width": 4, "bilinear": True}, (2, 3, 64, 96)),
        (bisenet.build, {"num_classes": 4}, (2, 4, 64, 96)),
    ],
)
def test_logits_have_a_channel_a_class_and_the_pictures_size(
    build: Callable[..., nn.Module], kwargs: dict[str, Any], shape: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    model = lively(build(**kwargs))
    with torch.inference_mode():
        logits = model(torch.randn(2, 3, 64, 96))
    assert logits.shape == shape
    assert logits.isfinite().all()
    assert float((logits[0] - logits[1]).abs().max()) > 0.1 * float(logits.std()), "the picture matters"


@pytest.mark.parametrize("bilinear", [False, True])
def test_a_unet_takes_sides_that_sixteen_does_not_divide(bilinear: bool) -> None:
    with torch.inference_mode():
        assert unet.build(width=4, bilinear=bilinear).eval()(torch.randn(1, 3, 53, 70)).shape == (1, 2, 53, 70)


def test_a_backbone_that_is_not_known_is_refused_with_the_list() -> None:
    with pytest.raises(ValueError, match="mobilenet_v3_large, resnet50, resnet101, got 'vgg'"):
        deeplabv3.build(backbone="vgg")  # type: ignore[arg-type] # on purpose


@pytest.mark.parametrize(("channels", "rounded"), [(1, 8), (11.2, 16), (12, 16), (89.6, 88), (30 * 0.35, 16), (96, 96)])
def test_channels_are_multiples_of_eight_and_never_a_tenth_fewer(channels: float, rounded: int) -> None:
    assert mobilenet_v2.multiple_of_8(channels) == rounded
