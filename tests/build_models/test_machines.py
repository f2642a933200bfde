"""This machine as a host of variants, and timing against fp32 on it."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("onnx", reason="needs the build extra")

from agent.model.manifest import Golden, Host, InputSpec, Tolerances, Variant
from agent.model.variants import Device, this_device
from build_models import machines
from build_models.machines import runs_here, time_files
from build_models.progress import Progress
from tests.support.fake_timing import FLOAT_MS, fake_timing

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.build

VNNI = [Host(arch="x86_64", cpu_features=["avx512_vnni"]), Host(arch="x86_64", cpu_features=["avx_vnni"])]
ARM = [Host(arch="aarch64")]


def on(monkeypatch: pytest.MonkeyPatch, arch: str, *features: str) -> None:
    device = this_device("1.22.0", ("cpu",))
    changes: dict[str, Any] = {"arch": arch, "cpu_features": frozenset(features)}
    fake = Device(**{**{name: getattr(device, name) for name in device.__dataclass_fields__}, **changes})
    monkeypatch.setattr(machines, "this_device", lambda *_: fake)


def test_a_host_is_here_when_architecture_and_features_are(monkeypatch: pytest.MonkeyPatch) -> None:
    on(monkeypatch, "x86_64", "avx2", "avx_vnni")
    assert runs_here(VNNI)
    assert runs_here([*ARM, *VNNI])
    assert not runs_here(ARM)
    on(monkeypatch, "x86_64", "avx2")
    assert not runs_here(VNNI)
    on(monkeypatch, "aarch64", "asimddp")
    assert runs_here(ARM)
    assert not runs_here(VNNI)


def test_a_file_without_hosts_is_for_any_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    on(monkeypatch, "aarch64")
    assert runs_here([])


def test_files_are_timed_against_fp32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timed = fake_timing(monkeypatch, others_ms={"fast": FLOAT_MS / 4, "slow": FLOAT_MS * 2})
    variant = Variant(
        id="cpu-fp32",
        file="models/cpu-fp32.onnx",
        precision="fp32",
        providers=["cpu"],
        input=InputSpec(height=8, width=8),
        golden=Golden(file="golden/cpu-fp32.npz", tolerances=Tolerances()),
    )
    files = [("fast", tmp_path / "fast.onnx"), ("slow", tmp_path / "slow.onnx")]
    progress = Progress(1, io.StringIO())
    times = time_files(files, (tmp_path / "fp32.onnx", variant), "detect", progress, "candidates")
    assert timed == ["cpu-fp32", "fast", "slow"], "fp32 first: the ratios refer to it"
    assert {name: each["speedup"] for name, each in times.items()} == {"cpu-fp32": 1.0, "fast": 4.0, "slow": 0.5}
    assert times["fast"]["median_ms"] == FLOAT_MS / 4
