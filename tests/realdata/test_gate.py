"""The gate on a real classifier: real pictures pass with an interval, noise to calibrate with does not."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the build extra")
pytest.importorskip("matplotlib", reason="needs the build extra")

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from build_models.pipeline import STAGES, build
from build_models.progress import Progress
from build_models.recipe_file import make_recipe
from tests.support.fake_timing import fake_timing

if TYPE_CHECKING:
    from pathlib import Path

    from build_models.workpiece import Candidate

pytestmark = [pytest.mark.realdata, pytest.mark.build]

CIFAR10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def int8_of(
    realdata: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, data: dict[str, Any], **changes: Any
) -> Candidate:
    """The int8 file for ARM and x86 of a build, timing aside."""
    fake_timing(monkeypatch)
    recipe = make_recipe(
        {
            "name": "cifar",
            "source": {"kind": "onnx", "path": str(realdata / "cls-resnet-cifar10" / "resnet20_cifar10.onnx")},
            "input": {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "resize": "stretch"},
            "output": {"family": "logits"},
            "labels": CIFAR10,
            "data": data,
            "quantize": {"forms": ["plain"]},
            **changes,
        }
    )
    piece = build(recipe, Ed25519PrivateKey.generate(), folder / "out", Progress(len(STAGES) + 1, io.StringIO()))
    return piece.candidate("cpu-int8")


def labelled(realdata: Path) -> dict[str, str]:
    return {"format": "class_folders", "path": str(realdata / "data-cifar10-jpg")}


def noise(folder: Path) -> dict[str, str]:
    """Pictures of a covered camera."""
    folder.mkdir()
    for seed in range(40):
        rng = np.random.default_rng(seed)
        picture = rng.integers(0, rng.integers(8, 40, 3), (32, 32, 3)).astype(np.uint8)
        cv2.imwrite(str(folder / f"{seed}.png"), picture)
    return {"format": "pictures", "path": str(folder)}


def test_calibrated_with_real_pictures_it_ships_with_its_interval(
    realdata: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    int8 = int8_of(realdata, tmp_path, monkeypatch, {"train": labelled(realdata)})
    assert int8.refused is None
    (metric,) = int8.variant.metrics
    assert metric.name == "top1"
    assert metric.drop is not None
    assert metric.interval is not None
    assert metric.drop <= 0.01
    assert metric.interval[0] <= metric.drop <= metric.interval[1]
    assert metric.value == pytest.approx(0.795, abs=0.05), "400 of the 1,000 pictures"


def test_calibrated_with_noise_it_is_refused(realdata: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = {"train": noise(tmp_path / "noise"), "val": labelled(realdata)}
    quantize = {"forms": ["plain"], "methods": ["min_max"], "corrections": [], "most_float_share": 0.0}
    int8 = int8_of(realdata, tmp_path, monkeypatch, data, quantize=quantize)
    assert int8.missed_budget
    assert str(int8.refused).startswith(("beyond the budget: top1", "nothing keeps the budget"))


def test_a_budget_that_nothing_meets_is_told_with_what_came_closest(
    realdata: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    budget = {"max_drop": 0.0, "inconclusive": "refuse"}
    quantize = {"forms": ["plain"], "methods": ["min_max"], "corrections": [], "most_float_share": 0.0}
    int8 = int8_of(realdata, tmp_path, monkeypatch, {"train": labelled(realdata)}, budget=budget, quantize=quantize)
    assert int8.missed_budget
    assert "the most is 0" in str(int8.refused)
    assert int8.advice
