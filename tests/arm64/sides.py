"""A CPU and what the subject wrote on it; started side by side, since an emulator uses one core each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tests.arm64.userland import CHECKOUT, Userland, locked

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

ARM_CPUS = ("cortex-a72", "cortex-a76")  # of a Raspberry Pi 4 and 5
HOST = "x86-64"
LIMIT_S = 900  # a minute where nobody else computes
_SUBJECT = "tests.arm64.subject"


@dataclass(frozen=True)
class Side:
    """What came of the subject on one CPU.

    Attributes:
        cpu: its name.
        facts: ``facts.json``.
        runs: outputs and ``image`` of each run of a model, by ``(bundle, variant)`` and name of the run.
        left_behind: files in a home that was empty.
        seconds: how long it took.
    """

    cpu: str
    facts: Mapping[str, Any]
    runs: Mapping[tuple[str, str], Mapping[str, Mapping[str, NDArray[Any]]]]
    left_behind: Sequence[str]
    seconds: float

    def result(self, bundle: str, variant: str) -> Mapping[str, Any]:
        """What the facts say of a variant: ``obstacle``, ``refusal``, ``payloads``, ``seconds_per_run``."""
        found: Mapping[str, Any] = self.facts["bundles"][bundle]["variants"][variant]
        return found


def run_sides(userland: Userland, folder: Path, bundles: Sequence[Path]) -> dict[str, Side]:
    """The subject on both ARM CPUs and on this machine's own, at the same time."""
    homes = {cpu: folder / cpu for cpu in (*ARM_CPUS, HOST)}
    for home in homes.values():
        (home / "out").mkdir(parents=True)
        (home / "home").mkdir()
    arguments = {cpu: ["-m", _SUBJECT, str(home / "out"), *map(str, bundles)] for cpu, home in homes.items()}
    with locked():  # two test runs at once would only take turns
        started_s = time.monotonic()
        processes = {
            cpu: _start(userland.command(*arguments[cpu]), userland.environment(cpu, homes[cpu] / "home"))
            for cpu in ARM_CPUS
        }
        processes[HOST] = _start([sys.executable, *arguments[HOST]], _host_environment(homes[HOST] / "home"))
        try:
            seconds = {cpu: _finish(cpu, process, started_s) for cpu, process in processes.items()}
        finally:
            for process in processes.values():
                process.kill()
    return {cpu: _side(cpu, home, seconds[cpu]) for cpu, home in homes.items()}


def run_python(userland: Userland, code: str, home: Path) -> None:
    """Code in an emulated Python of its own; raises CalledProcessError."""
    home.mkdir()
    environment = userland.environment(ARM_CPUS[-1], home)
    subprocess.run(userland.command("-c", code), env=environment, cwd=CHECKOUT, check=True, timeout=LIMIT_S)


def files_below(folder: Path) -> list[str]:
    """Names of all files below a folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def _host_environment(home: Path) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("COV", "PYTHON", "ORT_"))}
    return {**kept, "HOME": str(home)}


def _start(command: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(command, env=environment, cwd=CHECKOUT, stderr=subprocess.PIPE, text=True)


def _finish(cpu: str, process: subprocess.Popen[str], started_s: float) -> float:
    _, errors = process.communicate(timeout=max(1.0, LIMIT_S - (time.monotonic() - started_s)))
    assert process.returncode == 0, f"the subject ended with {process.returncode} on {cpu}:\n{errors}"
    return time.monotonic() - started_s


def _side(cpu: str, folder: Path, seconds: float) -> Side:
    facts = json.loads((folder / "out/facts.json").read_text(encoding="utf-8"))
    runs: dict[tuple[str, str], dict[str, dict[str, NDArray[Any]]]] = {}
    with np.load(folder / "out/outputs.npz", allow_pickle=False) as arrays:
        for key in arrays.files:
            bundle, variant, run, name = key.split("/")
            runs.setdefault((bundle, variant), {}).setdefault(run, {})[name] = arrays[key]
    return Side(cpu, facts, runs, files_below(folder / "home"), round(seconds, 1))
