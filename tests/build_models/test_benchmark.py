"""The benchmark: turns are interleaved, ratios are those of one round, and no child outlives it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from agent.model import timed_child
from agent.model.manifest import Golden, InputSpec, Tolerances, Variant
from build_models import benchmark
from build_models.benchmark import Contender, compare_latency
from build_models.errors import BuildError
from tests.support.tiny_models import detect_model
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

VARIANT = Variant(
    id="cpu-fp32",
    file="models/cpu-fp32.onnx",
    precision="fp32",
    providers=["cpu"],
    input=InputSpec(height=48, width=64),
    golden=Golden(file="golden/cpu-fp32.npz", tolerances=Tolerances()),
)


@pytest.fixture
def model_path(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(detect_model(width=64, height=48).file)
    return path


@pytest.fixture(autouse=True)
def _no_child_is_left() -> Iterator[None]:
    before = set(psutil.Process().children())
    yield
    assert set(psutil.Process().children()) <= before


def test_every_contender_has_its_turn_in_every_round(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []

    class Recorder:
        def __init__(self, contender: Contender, threads: int, round_s: float) -> None:
            self.name = contender.name

        def wait_until_ready(self) -> dict[str, Any]:
            told.append(f"{self.name} ready")
            return {"input": "bytes", "versions": {self.name: "1"}}

        def peak_mb(self) -> float:
            return 5.0

        def run_round(self) -> list[float]:
            told.append(self.name)
            return [2.0, 1.0, 3.0]

        def close(self) -> None:
            told.append(f"{self.name} closed")

    monkeypatch.setattr(benchmark, "_Child", Recorder)
    contenders = [Contender(name, Path("model"), "detect") for name in ("a", "b")]
    *rounds, result = compare_latency(contenders, threads=1, rounds=3)
    assert told == ["a ready", "b ready", *["a", "b"] * 3, "b closed", "a closed"]
    assert rounds == [{"round": number, "of": 3} for number in (1, 2, 3)]
    assert [each["median_ms"] for each in result["results"]] == [2.0, 2.0]
    assert [(each["input"], each["peak_mb"], each["file_mb"]) for each in result["results"]] == [
        ("bytes", 5.0, None)
    ] * 2
    assert result["versions"].keys() == {"onnxruntime", "a", "b"}


def test_a_variant_is_timed_in_processes_of_its_own(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(model_path.parent)  # paths may be relative, and the folder may hold anything
    Path("agent").mkdir()
    contenders = [Contender(name, Path(model_path.name), "detect", VARIANT) for name in ("first", "second")]
    *_, result = compare_latency(contenders, threads=1, rounds=2, round_s=0.01)
    assert [each["name"] for each in result["results"]] == ["first", "second"]
    assert all(each["runs"] >= 6 and 0 < each["min_ms"] <= each["median_ms"] for each in result["results"])
    assert all(each["peak_mb"] > 20 and each["input"] == "image uint8[1,48,64,3]" for each in result["results"])


def test_a_contender_that_cannot_start_is_named_with_its_reason(model_path: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    contenders = [Contender("good", model_path, "detect", VARIANT), Contender("bad", broken, "detect", VARIANT)]
    with pytest.raises(BuildError, match=r"benchmark of bad: .*exit code 3: .*cannot load it") as caught:
        list(compare_latency(contenders, threads=1, rounds=1, round_s=0.01))
    assert "\n" not in str(caught.value)


def test_a_contender_that_dies_on_the_way_is_told(model_path: Path) -> None:
    before = set(psutil.Process().children())
    steps = compare_latency([Contender("model", model_path, "detect", VARIANT)], threads=1, rounds=3, round_s=0.01)
    next(steps)
    (child,) = set(psutil.Process().children()) - before
    child.kill()
    assert wait_until(lambda: child.status() == psutil.STATUS_ZOMBIE)
    with pytest.raises(BuildError, match=r"benchmark of model: its process ended with exit code -9: it said nothing"):
        next(steps)


def test_a_benchmark_that_is_given_up_ends_its_children(model_path: Path) -> None:
    before = set(psutil.Process().children())
    steps = compare_latency([Contender("model", model_path, "detect", VARIANT)], threads=1, rounds=3, round_s=0.01)
    next(steps)
    children = set(psutil.Process().children()) - before
    steps.close()  # type: ignore[attr-defined] # a generator
    assert len(children) == 1
    assert not any(child.is_running() for child in children)


def test_a_child_that_does_not_go_is_killed(model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deaf = tmp_path / "deaf"
    deaf.write_text("#!/bin/sh\necho '{}'\necho '[1.0]'\necho 5.5\nexec sleep 1000\n")
    deaf.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(deaf))
    monkeypatch.setattr(timed_child, "_END_TIMEOUT_S", 0.05)
    *_, result = compare_latency([Contender("deaf", model_path, "detect", VARIANT)], threads=1, rounds=1)
    assert result["results"][0]["median_ms"] == 1.0


def test_the_source_file_runs_on_random_input(tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="needs the build extra")
    import onnx

    from tests.support.float_models import spot_detector

    onnx.save(spot_detector(), tmp_path / "source.onnx")
    steps: Any = compare_latency([Contender("source", tmp_path / "source.onnx", "detect")], 1, rounds=1, round_s=0.01)
    *_, result = steps
    assert result["results"][0]["runs"] >= 3
