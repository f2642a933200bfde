"""Calibration of a graph: ranges of its body, kept between runs, and the plan that follows from them."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the build extra")

from build_models.progress import Progress
from build_models.quantize.attempts import Memory
from build_models.quantize.ground import Ground, calibrate
from build_models.quantize.plan import make_plan
from build_models.quantize.ranges import collect_ranges
from build_models.quantize.static import quantisable_tensors
from build_models.recipe import InputRecipe
from tests.build_models.quantize.test_static_subsets import PICTURES, RAW, SIDE, network

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

pytestmark = pytest.mark.build


class FakePictures:
    """Calibration pictures from memory; counts how often they are asked for."""

    def __init__(self, *digests: str) -> None:
        self.dataset = SimpleNamespace(samples=[SimpleNamespace(sha256=digest) for digest in digests])
        self.spec = InputRecipe().spec(SIDE, SIDE)
        self.passes = 0

    def __len__(self) -> int:
        return len(PICTURES)

    def images(self) -> Iterator[NDArray[np.uint8]]:
        self.passes += 1
        yield from PICTURES


def calibrated(pictures: FakePictures, folder: Path | None) -> Ground:
    sets: Any = SimpleNamespace(calibration=pictures)
    return calibrate(network()[0], RAW, sets, Memory(folder), Progress(1, io.StringIO()))


def test_ranges_are_those_of_the_pictures_and_the_plan_follows_from_them(tmp_path: Path) -> None:
    model, _ = network()
    ground = calibrated(FakePictures("a", "b"), tmp_path)
    want = collect_ranges(model, quantisable_tensors(model, RAW), PICTURES)
    have = {name: (each.low, each.high) for name, each in ground.histograms.tensors.items()}
    assert have.keys() == want.keys()
    for name, bounds in want.items():
        np.testing.assert_allclose(have[name], bounds)
    assert ground.plan == make_plan(model, RAW, have)
    assert ground.model is model


def test_a_second_run_looks_at_no_picture(tmp_path: Path) -> None:
    first, second = FakePictures("a", "b"), FakePictures("a", "b")
    grounds = [calibrated(pictures, tmp_path) for pictures in (first, second)]
    assert first.passes > 0
    assert second.passes == 0
    assert grounds[0].histograms.digest == grounds[1].histograms.digest
    assert grounds[0].plan == grounds[1].plan


def test_other_pictures_or_another_way_to_resize_are_looked_at(tmp_path: Path) -> None:
    calibrated(FakePictures("a", "b"), tmp_path)
    other, resized = FakePictures("a", "c"), FakePictures("a", "b")
    resized.spec = resized.spec.model_copy(update={"resize": "stretch"})
    assert resized.spec != other.spec
    for pictures in (other, resized):
        calibrated(pictures, tmp_path)
        assert pictures.passes > 0


def test_without_a_memory_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    pictures = FakePictures("a")
    calibrated(pictures, None)
    assert pictures.passes > 0
    assert list(tmp_path.iterdir()) == []
