from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the torch extra")

import torch

import build_models.demo
from build_models.demo.evaluate_segmenter import evaluate
from build_models.demo.masks import LABELS
from build_models.demo.segmenter import INPUT_WH, build, load, segment_with
from build_models.demo.train_segmenter import train
from build_models.recipe_file import load_recipe

pytestmark = pytest.mark.torch
SHIPPED = Path(build_models.demo.__file__).parent
WIDTH, HEIGHT = INPUT_WH


def test_every_pixel_has_a_logit_a_class() -> None:
    assert build().eval()(torch.zeros(2, 3, HEIGHT, WIDTH)).shape == (2, len(LABELS), HEIGHT, WIDTH)


def test_the_network_fits_its_budget() -> None:
    model, macs = build(), 0

    def count(layer: torch.nn.Conv2d, _: object, output: torch.Tensor) -> None:
        nonlocal macs
        macs += output.numel() * layer.weight[0].numel()

    for layer in model.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.register_forward_hook(count)
    model(torch.zeros(2, 3, HEIGHT, WIDTH))
    assert macs / 2 <= 450e6
    assert sum(parameter.numel() for parameter in model.parameters()) <= 300_000


def test_a_picture_becomes_a_class_a_pixel() -> None:
    torch.manual_seed(0)
    ids = segment_with(build(width=4))(np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    assert ids.shape == (HEIGHT, WIDTH)
    assert ids.dtype == np.uint8
    assert ids.max() < len(LABELS)


def test_the_weights_that_ship_find_the_shapes_of_held_out_pictures() -> None:
    facts = json.loads((SHIPPED / "segmenter.json").read_bytes())
    assert facts["mean_iou"] >= 0.85
    assert evaluate(segment_with(load(SHIPPED / "segmenter.pt")), pictures=30).mean_iou >= 0.85
    assert list(facts["iou"]) == list(LABELS)
    control = facts["control"]
    assert control["object_iou_shuffled"] < 0.1
    assert control["object_iou_true_masks_same_steps"] > 0.4
    assert control["mean_iou_shuffled"] < 0.2, "all background is 0.155"


def test_the_recipe_is_of_this_network_its_input_and_its_classes() -> None:
    recipe = load_recipe(SHIPPED.parents[1] / "configs" / "recipes" / "demo-segmenter.yaml")
    assert recipe.labels == list(LABELS)
    assert (recipe.input.width, recipe.input.height) == INPUT_WH
    assert recipe.source.kind == "torch"
    assert recipe.source.callable == f"{build.__module__}:{build.__name__}"
    assert recipe.source.weights is not None
    assert recipe.source.weights.resolve() == SHIPPED / "segmenter.pt"


def test_weights_that_were_not_trained_find_none() -> None:
    torch.manual_seed(0)
    assert evaluate(segment_with(build()), pictures=10).mean_iou < 0.2


def test_a_seed_gives_the_same_weights_again_and_another_seed_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("build_models.demo.train_segmenter.BATCH", 2)
    first, again, other = (_first_weights(seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def _first_weights(seed: int) -> np.ndarray:
    return np.asarray(next(iter(train(2, seed, pool_pictures=4).parameters())).detach().numpy())
