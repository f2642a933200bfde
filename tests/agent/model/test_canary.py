from __future__ import annotations

import json
import logging
import os
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from agent.errors import BundleError, FatalError
from agent.model import canary as canary_module
from agent.model.bundle import load_bundle
from agent.model.canary import Canary
from agent.model.session import SessionOptions
from agent.model.variants import Device
from tests.support.bundles import SignedBundle, make_bundle
from tests.support.tiny_models import detect_model, nan_model

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Script = Callable[[str], None]

DEVICE = Device("x86_64", frozenset(), "some CPU", "1.23.2", ("cpu",))


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Script:
    """Puts a shell script in the place of the child."""

    def install(script: str) -> None:
        path = tmp_path / "child.sh"
        path.write_text(f"#!/bin/sh\necho run >> {tmp_path}/runs\n{script}\n")
        path.chmod(0o700)
        monkeypatch.setattr(sys, "executable", str(path))

    return install


def runs(tmp_path: Path) -> int:
    path = tmp_path / "runs"
    return len(path.read_text().splitlines()) if path.exists() else 0


def check(
    signed: SignedBundle,
    memory_path: Path,
    timeout_s: float = 60.0,
    device: Device = DEVICE,
    options: SessionOptions | None = None,
) -> None:
    bundle = load_bundle(signed.root, [signed.public_key])
    canary = Canary(memory_path, timeout_s)
    canary.check(bundle, bundle.manifest.variants[0], device, [signed.public_key], options or SessionOptions())


def test_a_model_that_runs_passes_in_a_real_child_and_is_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signed = make_bundle(tmp_path)
    # The child finds this package, whatever lies in the folder that the agent was started in.
    (tmp_path / "agent").mkdir()
    (tmp_path / "agent" / "__init__.py").write_text("raise SystemExit('a stranger of the same name')")
    monkeypatch.chdir(tmp_path)
    check(signed, tmp_path / "state" / "passed.json")
    monkeypatch.setattr(sys, "executable", "/nonexistent")
    check(signed, tmp_path / "state" / "passed.json")


def test_a_model_that_gives_no_numbers_fails_in_the_child_with_its_reason(tmp_path: Path) -> None:
    signed = make_bundle(tmp_path, tiny=nan_model())
    with pytest.raises(BundleError, match=r"its trial run failed: variant cpu-fp32: .* not finite") as caught:
        check(signed, tmp_path / "passed.json")
    assert str(caught.value).isprintable()
    assert not (tmp_path / "passed.json").exists()


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("kill -SEGV $$", r"its trial run was ended by signal 11 \(Segmentation fault\)"),
        ("kill -ILL $$", r"its trial run was ended by signal 4 \(Illegal instruction\)"),
        ("kill -40 $$", r"its trial run was ended by signal 40 \("),
        ("echo first >&2; echo why >&2; exit 3", "its trial run failed: why"),
        ("exit 1", "its trial run failed: no message"),
    ],
)
def test_a_child_that_dies_is_a_refusal_with_the_reason(
    tmp_path: Path, child: Script, script: str, reason: str
) -> None:
    signed = make_bundle(tmp_path)
    child(script)
    for _ in range(2):  # what failed is not remembered as passed
        with pytest.raises(BundleError, match=f"variant cpu-fp32: {reason}"):
            check(signed, tmp_path / "passed.json")
    assert runs(tmp_path) == 2


def test_a_child_that_hangs_is_killed(tmp_path: Path, child: Script) -> None:
    signed = make_bundle(tmp_path)
    child(f"echo $$ > {tmp_path}/pid; exec sleep 600")
    with pytest.raises(BundleError, match=r"did not end within 0\.5 s and was killed; the model is refused"):
        check(signed, tmp_path / "passed.json", timeout_s=0.5)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_a_machine_that_cannot_start_a_process_is_not_the_models_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signed = make_bundle(tmp_path)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "nothing"))
    with pytest.raises(FatalError, match="cannot start the trial run of a model: No such file or directory"):
        check(signed, tmp_path / "passed.json")


def test_a_known_model_starts_no_process_but_a_change_of_anything_that_matters_does(
    tmp_path: Path, child: Script
) -> None:
    signed = make_bundle(tmp_path / "a")
    memory = tmp_path / "passed.json"
    child("exit 0")
    check(signed, memory)
    check(signed, memory)
    assert runs(tmp_path) == 1
    check(signed, memory, device=replace(DEVICE, onnxruntime="1.24.0"))
    check(signed, memory, device=replace(DEVICE, cpu_name="another CPU"))
    check(signed, memory, options=SessionOptions(("cuda", "cpu")))
    check(make_bundle(tmp_path / "b", tiny=detect_model(scores=(0.5, 0.4, 0.3, 0.2))), memory)
    assert runs(tmp_path) == 5
    check(signed, memory)
    assert runs(tmp_path) == 5


def test_the_child_is_told_how_the_agent_would_run_the_model(tmp_path: Path, child: Script) -> None:
    signed = make_bundle(tmp_path)
    child(f'echo "$@" > {tmp_path}/arguments')
    check(signed, tmp_path / "passed.json", options=SessionOptions(("tensorrt", "cpu"), 3))
    assert (tmp_path / "arguments").read_text().split() == [
        *("-m", "agent.model.canary", str(signed.root), "cpu-fp32"),
        *("--threads", "3", "--providers", "tensorrt", "cpu"),
        *("--trusted-keys", str(signed.public_key)),
    ]


def test_the_memory_is_bounded_and_forgets_the_oldest(tmp_path: Path, child: Script) -> None:
    signed = make_bundle(tmp_path)
    memory = tmp_path / "passed.json"
    memory.write_text(json.dumps({"passed": [f"old {number}" for number in range(100)]}))
    child("exit 0")
    check(signed, memory)
    passed = json.loads(memory.read_bytes())["passed"]
    assert len(passed) == 64
    assert passed[0] == "old 37"
    assert "some CPU" in passed[-1]


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"\xff\xfe", b"[]", b'{"passed": 7}', b'{"other": []}', b"null", b"[" * 100_000]
)
def test_a_damaged_memory_costs_one_more_trial(
    tmp_path: Path, child: Script, caplog: pytest.LogCaptureFixture, damage: bytes
) -> None:
    signed = make_bundle(tmp_path)
    memory = tmp_path / "passed.json"
    memory.write_bytes(damage)
    child("exit 0")
    check(signed, memory)
    assert "passed.json cannot be read" in caplog.messages[0]
    check(signed, memory)
    assert runs(tmp_path) == 1


def test_a_memory_that_cannot_be_written_costs_a_trial_at_each_start(
    tmp_path: Path, child: Script, caplog: pytest.LogCaptureFixture
) -> None:
    signed = make_bundle(tmp_path)
    (tmp_path / "file").write_bytes(b"")
    child("exit 0")
    with caplog.at_level(logging.WARNING):
        check(signed, tmp_path / "file" / "passed.json")
        check(signed, tmp_path / "file" / "passed.json")
    assert runs(tmp_path) == 2
    assert any("cannot be written" in message for message in caplog.messages)


# --- the child itself


def arguments(signed: SignedBundle, variant: str = "cpu-fp32") -> list[str]:
    command = [str(signed.root), variant, "--threads", "1", "--providers", "cpu"]
    return [*command, "--trusted-keys", str(signed.public_key)]


def test_the_child_ends_well_for_a_good_model(tmp_path: Path) -> None:
    assert canary_module.main(arguments(make_bundle(tmp_path))) == 0


def test_the_child_ends_with_the_errors_code_and_its_message_last(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert canary_module.main(arguments(make_bundle(tmp_path), "cpu-int8")) == BundleError.exit_code
    assert capsys.readouterr().err.endswith("there is no variant 'cpu-int8'; it has: cpu-fp32\n")
