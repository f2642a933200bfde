"""Every network of the zoo has the parameters of a published one, by name, shape and order, so that its file loads.

The lists under ``published/`` are the state dicts of torchvision 0.28 (auxiliary classifiers included), of
milesial/Pytorch-UNet and of CoinCheung/BiSeNet (training heads included), written by those.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("torch", reason="needs the torch extra")

import torch

from build_models.source.zoo import bisenet, deeplabv3, mobilenet_v2, unet

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

pytestmark = pytest.mark.torch

PUBLISHED = Path(__file__).parent / "published"
# The published list, the network, its arguments, and its number of parameters: as torchvision publishes them, and as
# the other two projects' own code counts.
NETWORKS: list[tuple[str, Callable[..., nn.Module], dict[str, Any], int]] = [
    ("mobilenet_v2", mobilenet_v2.build, {}, 3_504_872),
    ("deeplabv3_mobilenet_v3_large", deeplabv3.build, {"aux": True}, 11_029_328),
    ("deeplabv3_resnet50", deeplabv3.build, {"backbone": "resnet50", "aux": True}, 42_004_074),
    ("deeplabv3_resnet101", deeplabv3.build, {"backbone": "resnet101", "aux": True}, 60_996_202),
    ("unet", unet.build, {}, 31_037_698),
    ("unet_bilinear", unet.build, {"bilinear": True}, 17_263_042),
    ("bisenet_v2", bisenet.build, {}, 3_358_627),
]
NAMES = [name for name, *_ in NETWORKS]


def published(name: str) -> list[tuple[str, tuple[int, ...]]]:
    rows = [line.split() for line in (PUBLISHED / f"{name}.txt").read_text().splitlines()]
    return [(key, () if shape == "scalar" else tuple(map(int, shape.split("x")))) for key, shape in rows]


def on_meta(build: Callable[..., nn.Module], kwargs: dict[str, Any]) -> nn.Module:
    """The network without its weights' memory."""
    with torch.device("meta"):
        return build(**kwargs)


def names_of(model: nn.Module) -> list[tuple[str, tuple[int, ...]]]:
    return [(key, tuple(value.shape)) for key, value in model.state_dict().items()]


@pytest.mark.parametrize(("name", "build", "kwargs", "parameters"), NETWORKS, ids=NAMES)
def test_names_shapes_and_their_order_are_the_published(
    name: str, build: Callable[..., nn.Module], kwargs: dict[str, Any], parameters: int
) -> None:
    model = on_meta(build, kwargs)
    heads = ("aux2.", "aux3.", "aux4.", "aux5_4.") if name == "bisenet_v2" else ()
    assert names_of(model) == [row for row in published(name) if not row[0].startswith(heads or "\0")]
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


@pytest.mark.parametrize(
    ("name", "build", "kwargs"),
    [
        ("mobilenet_v2", mobilenet_v2.build, {"num_classes": 10}),
        ("deeplabv3_resnet50", deeplabv3.build, {"backbone": "resnet101", "aux": True}),
        ("unet", unet.build, {"conv_bias": True}),
        ("unet", unet.build, {"bilinear": True}),
    ],
)
def test_another_network_is_told_apart(name: str, build: Callable[..., nn.Module], kwargs: dict[str, Any]) -> None:
    """The control of the comparison."""
    assert names_of(on_meta(build, kwargs)) != published(name)


@pytest.mark.parametrize(
    ("name", "build", "extra"),
    [
        ("deeplabv3_mobilenet_v3_large", deeplabv3.build, {}),
        ("bisenet_v2", bisenet.build, {}),
        ("unet", unet.build, {"mask_values": [0, 1]}),
    ],
)
def test_a_published_file_loads_without_what_only_training_used(
    name: str, build: Callable[..., nn.Module], extra: dict[str, Any]
) -> None:
    file = {key: torch.full(shape, 0.5) for key, shape in published(name)}
    model = build()
    model.load_state_dict({**file, **extra})
    assert all(bool((parameter == 0.5).all()) for parameter in model.parameters())


def test_an_auxiliary_classifier_that_is_wanted_is_loaded() -> None:
    file = {key: torch.full(shape, 0.5) for key, shape in published("deeplabv3_mobilenet_v3_large")}
    model = deeplabv3.build(aux=True)
    model.load_state_dict(file)
    assert bool((model.get_parameter("aux_classifier.0.weight") == 0.5).all())


@pytest.mark.parametrize(
    ("change", "message"),
    [({"head.spare": torch.zeros(1)}, "Unexpected key.*head.spare"), ({}, "Missing key.*bga.left1.0.weight")],
)
def test_any_other_difference_is_an_error(change: dict[str, Any], message: str) -> None:
    """Only the entries of training are left out: neither a stranger nor a gap is passed over."""
    file = {key: torch.zeros(shape) for key, shape in published("bisenet_v2")}
    if not change:
        del file["bga.left1.0.weight"]
    with pytest.raises(RuntimeError, match=f"(?s){message}"):
        bisenet.build().load_state_dict({**file, **change})
