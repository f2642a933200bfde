"""The recipes under ``configs/recipes``: each network of the zoo comes out as the canonical graph of its task.

Exporting takes seconds a network, so that each is exported once, small, with weights that answer to the picture.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the torch extra")

import torch

from build_models.graph.canonical_output import canonical_output
from build_models.graph.model_io import run_model
from build_models.graph.native_input import native_input, source_input
from build_models.graph.portable import make_portable
from build_models.recipe_file import load_recipe
from build_models.source.torch_export import export_torch
from build_models.source.zoo import bisenet, deeplabv3, mobilenet_v2, unet

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx
    from numpy.typing import NDArray
    from torch import nn

    from build_models.recipe import InputRecipe, Recipe

pytestmark = pytest.mark.torch

RECIPES = Path(__file__).parents[4] / "configs" / "recipes"
# The recipe, what builds its network, the arguments of a small one, and its number of classes.
ZOO: dict[str, tuple[Callable[..., nn.Module], dict[str, Any], int]] = {
    "mobilenet-v2": (mobilenet_v2.build, {"width": 0.35, "num_classes": 1000}, 1000),
    "deeplabv3-mobilenet": (deeplabv3.build, {}, 21),
    "deeplabv3-resnet50": (deeplabv3.build, {"backbone": "resnet50"}, 21),
    "unet": (unet.build, {"width": 8}, 2),
    "bisenet": (bisenet.build, {}, 19),
}
EXPORTED = [name for name in ZOO if name != "deeplabv3-resnet50"]  # its head is that of the other DeepLabV3
SIZE_WH = (96, 64)


class Exported(NamedTuple):
    """A recipe's network with lively weights, as torch has it and as the canonical graph."""

    recipe: Recipe
    input: InputRecipe
    module: nn.Module
    graph: onnx.ModelProto

    def expected(self, image_bgr: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Torch's logits for a picture."""
        with torch.inference_mode():
            logits = self.module(torch.from_numpy(source_input(image_bgr[None], self.input)))
        return np.asarray(logits.numpy())

    def got(self, image_bgr: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        """The canonical outputs for it."""
        return dict(run_model(self.graph, {"image": image_bgr[None]}))


@pytest.fixture(scope="module", params=EXPORTED)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    recipe = load_recipe(RECIPES / f"{request.param}.yaml")
    build, kwargs, _ = ZOO[request.param]
    module = lively(build(**kwargs))
    weights = tmp_path_factory.mktemp("weights") / "weights.pth"
    torch.save(module.state_dict(), weights)
    width, height = SIZE_WH
    small = recipe.input.model_copy(update={"width": width, "height": height})
    assert recipe.source.kind == "torch"
    source = recipe.source.model_copy(update={"weights": weights, "kwargs": {**recipe.source.kwargs, **kwargs}})
    model, _ = export_torch(source, small)
    model, _ = native_input(model, small)
    model, report = canonical_output(model, recipe.output, (height, width), recipe.labels)
    model, _ = make_portable(model, list(report.raw_tensors.values()))
    return Exported(recipe, small, module, model)


@pytest.mark.parametrize("name", ZOO)
def test_a_recipe_names_a_network_of_the_zoo_and_all_its_classes(name: str) -> None:
    recipe = load_recipe(RECIPES / f"{name}.yaml")
    build, _, classes = ZOO[name]
    assert recipe.source.kind == "torch"
    assert recipe.source.callable == f"{build.__module__}:{build.__name__}"
    assert len(recipe.labels) == classes
    with torch.device("meta"):
        model = build(**recipe.source.kwargs)
        size_hw = (recipe.input.height or 0, recipe.input.width or 0)
        logits = model.eval()(torch.zeros(1, 3, *size_hw))
    assert logits.shape == ((1, classes) if recipe.task == "classify" else (1, classes, *size_hw))


def test_the_canonical_graph_answers_as_torch_does(exported: Exported) -> None:
    """A pixel may go either way only where torch's two best logits are as good as equal."""
    pictures = [picture(seed) for seed in range(3)]
    for image_bgr in pictures:
        logits, got = exported.expected(image_bgr), exported.got(image_bgr)
        if exported.recipe.task == "classify":
            np.testing.assert_allclose(got["scores"], softmax(logits), rtol=1e-3, atol=1e-6)
            continue
        lower, higher = np.sort(logits, axis=1)[:, -2:].transpose(1, 0, 2, 3)
        clear = higher - lower > 1e-3 * np.ptp(logits)
        assert clear.mean() > 0.95
        np.testing.assert_array_equal(got["mask"][clear], logits.argmax(axis=1)[clear])


def test_another_picture_gets_another_answer(exported: Exported) -> None:
    """The control of the comparison: what torch says of one picture is not what the graph says of the next."""
    logits, got = exported.expected(picture(0)), exported.got(picture(1))
    if exported.recipe.task == "classify":
        assert np.abs(got["scores"] - softmax(logits)).max() > 1e-3
    else:
        assert (got["mask"] != logits.argmax(axis=1)).mean() > 0.02


def lively(model: nn.Module) -> nn.Module:
    """Weights that answer to the picture: fresh ones of a deep network say the same of all."""
    torch.manual_seed(0)
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = None  # the plain average
    images = torch.from_numpy(np.stack([picture(seed) for seed in range(10, 14)])).permute(0, 3, 1, 2) / 128 - 1
    with torch.no_grad():
        for _ in range(3):
            model.train()(images)
        # No class above all others everywhere.
        last = [layer for layer in model.modules() if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear)][-1]
        assert last.bias is not None
        last.bias -= model.eval()(images).transpose(0, 1).flatten(1).mean(dim=1)
    return model


def picture(seed: int) -> NDArray[np.uint8]:
    """Smooth patches of colour with some noise."""
    rng = np.random.default_rng(seed)
    width, height = SIZE_WH
    coarse = rng.integers(0, 200, (height // 16, width // 16, 3)).repeat(16, axis=0).repeat(16, axis=1)
    return np.asarray(coarse + rng.integers(0, 55, (height, width, 3)), np.uint8)


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    powers = np.exp(logits - logits.max())
    return np.asarray(powers / powers.sum())
