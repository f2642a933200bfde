"""A device's figures: what ``edge-agent bench --json`` prints is understood, and nothing else."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("onnx", reason="needs the build extra")

from agent.__main__ import main as agent_main
from build_models.errors import RecipeError
from build_models.measured import load_measured
from tests.support.bundles import make_bundle

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.build

INT8, FP32 = "1" * 64, "2" * 64


def content(**changes: Any) -> dict[str, Any]:
    rows = [
        {"variant": "cpu-int8", "sha256": INT8, "precision": "int8", "median_ms": 5.0, "runs": 3},
        {"variant": "cpu-fp32", "sha256": FP32, "precision": "fp32", "median_ms": 10.0, "runs": 3},
    ]
    device = {"arch": "aarch64", "cpu": "Cortex-A72", "onnxruntime": "1.22.0"}
    return {"schema": 1, "device": device, "threads": 4, "results": rows, **changes}


def written(folder: Path, **changes: Any) -> Path:
    path = folder / "device.json"
    path.write_text(json.dumps(content(**changes)))
    return path


def test_times_are_found_by_the_digest_of_the_file(tmp_path: Path) -> None:
    measured = load_measured(written(tmp_path))
    assert measured.times(INT8, FP32) == (5.0, 10.0)
    assert measured.times("3" * 64, FP32) is None
    assert measured.times(INT8, "3" * 64) is None
    assert (measured.said, measured.unit) == ("Cortex-A72 (aarch64)", "ms")


def test_times_of_other_providers_are_not_mixed_in(tmp_path: Path) -> None:
    rows = content()["results"]
    rows += [{**rows[1], "provider": "cuda", "median_ms": 1.0}]
    measured = load_measured(written(tmp_path, results=rows))
    assert measured.times(INT8, FP32) == (5.0, 10.0)
    assert measured.times(INT8, FP32, "cuda") is None


def test_figures_that_stand_for_time_say_so(tmp_path: Path) -> None:
    measured = load_measured(written(tmp_path, proxy="instructions"))
    assert (measured.said, measured.unit) == ("Cortex-A72 (aarch64), by instructions", "instructions")


def test_what_a_device_really_prints_is_understood(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = make_bundle(tmp_path / "bundle")
    arguments = ["bench", str(made.root), "--trusted-key", str(made.public_key), "--json", "--rounds", "1"]
    assert agent_main([*arguments, "--seconds", "0.01"]) == 0
    path = tmp_path / "device.json"
    path.write_text(capsys.readouterr().out)
    measured = load_measured(path)
    (result,) = measured.results
    assert result.variant == "cpu-fp32"
    assert measured.times(result.sha256, result.sha256) == (result.median_ms, result.median_ms)


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"schema": 2}, "schema: "),
        ({"results": []}, "results: "),
        ({"threads": 0}, "threads: "),
        ({"device": {"arch": "riscv64", "cpu": "x", "onnxruntime": "1"}}, "device.arch: "),
        ({"results": [{**content()["results"][0], "median_ms": 0}]}, "results.0.median_ms: "),
        ({"results": [{**content()["results"][0], "sha256": "short"}]}, "results.0.sha256: "),
        ({"results": [{"variant": "cpu-int8"}]}, "results.0.sha256: "),
    ],
)
def test_a_file_of_another_kind_is_refused_with_its_place(tmp_path: Path, changes: dict[str, Any], where: str) -> None:
    path = written(tmp_path, **changes)
    with pytest.raises(RecipeError) as caught:
        load_measured(path)
    assert str(caught.value).startswith(
        f"--measured {path}: expected what `edge-agent bench --json` prints, but {where}"
    )


@pytest.mark.parametrize("data", [b"", b"\xff\xfe", b"[1, 2]", b'{"schema": 1'])
def test_a_file_that_is_no_json_object_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "device.json").write_bytes(data)
    with pytest.raises(RecipeError, match=r"device\.json: expected what `edge-agent bench --json` prints, but it: "):
        load_measured(tmp_path / "device.json")
