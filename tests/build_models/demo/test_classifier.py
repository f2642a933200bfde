from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the torch extra")

import torch

import build_models.demo
from build_models.demo.classifier import build, classify_with, load
from build_models.demo.crops import INPUT_WH, LABELS
from build_models.demo.evaluate_classifier import evaluate
from build_models.demo.train_classifier import train

pytestmark = pytest.mark.torch
SHIPPED = Path(build_models.demo.__file__).parent


def test_the_output_is_a_logit_a_class() -> None:
    assert build().eval()(torch.zeros(2, 3, INPUT_WH[1], INPUT_WH[0])).shape == (2, len(LABELS))


def test_the_network_fits_its_budget() -> None:
    model, macs = build(), 0

    def count(layer: torch.nn.Conv2d, _: object, output: torch.Tensor) -> None:
        nonlocal macs
        macs += output.numel() * layer.weight[0].numel()

    for layer in model.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.register_forward_hook(count)
    model(torch.zeros(2, 3, INPUT_WH[1], INPUT_WH[0]))
    assert macs / 2 <= 20e6
    assert sum(parameter.numel() for parameter in model.parameters()) <= 150_000


def test_a_picture_of_any_size_is_stretched_and_named() -> None:
    torch.manual_seed(0)
    classify = classify_with(build(width=4))
    label, score = classify(np.zeros((300, 17, 3), np.uint8))
    assert 0 <= label < len(LABELS)
    assert 1 / len(LABELS) <= score <= 1


def test_the_weights_that_ship_name_held_out_crops() -> None:
    facts = json.loads((SHIPPED / "classifier.json").read_bytes())
    result = evaluate(classify_with(load(SHIPPED / "classifier.pt")), pictures=40)
    assert result.top1 >= 0.93, "of some two hundred crops; all are measured in training"
    assert facts["labels"] == list(LABELS)


def test_weights_that_were_not_trained_name_none() -> None:
    torch.manual_seed(0)
    assert evaluate(classify_with(build()), pictures=40).top1 < 0.4


def test_a_seed_gives_the_same_weights_again_and_another_seed_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("build_models.demo.train_classifier.BATCH", 4)
    first, again, other = (_first_weights(seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def _first_weights(seed: int) -> np.ndarray:
    return np.asarray(next(iter(train(2, seed, pool_pictures=4).parameters())).detach().numpy())
