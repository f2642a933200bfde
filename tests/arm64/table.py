"""What was measured, as Markdown for docs/arm64.md."""

from __future__ import annotations

import platform
from datetime import datetime, timezone
from typing import TYPE_CHECKING

import numpy as np

from agent.model.runtime import available_providers, ort
from agent.model.variants import this_device
from tests.arm64.sides import ARM_CPUS, HOST, Side
from tests.arm64.userland import PYTHON, Userland, emulator_version

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_HEAD = [
    *("CPU", "bundle, variant", "golden", "same bytes: x86 differs by", "own frames: pixels that differ"),
    *("frames", "s a run", "imports, s"),
]


def parity_table(
    sides: Mapping[str, Side], userland: Userland, apart: Mapping[tuple[str, str], Mapping[str, float] | None]
) -> list[str]:
    """One row for each ARM CPU and variant."""
    host = this_device(ort.__version__, available_providers())
    today = datetime.now(timezone.utc).date()
    emulator = f"qemu {emulator_version(userland.emulator)} on {host.cpu_name}"
    versions = f"onnxruntime {host.onnxruntime}, Python {PYTHON} and here {platform.python_version()}"
    rows = [_row(sides, cpu, key, apart[key]) for cpu in ARM_CPUS for key in apart]
    return [f"{today}, {emulator}, {versions}", "", *markdown(_HEAD, rows)]


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table."""
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


def _row(sides: Mapping[str, Side], cpu: str, key: tuple[str, str], apart: Mapping[str, float] | None) -> list[str]:
    side, result = sides[cpu], sides[cpu].result(*key)
    frames = sum(name.startswith("frame") for name in side.runs[key])
    told = "not run" if apart is None else _told(apart)
    other = _pixels_that_differ(side, sides[HOST], key)
    return [
        *(cpu, ", ".join(key), "ok" if "refusal" not in result else "refused", told, other, str(frames)),
        *(f"{result['seconds_per_run']:.2f}", f"{side.facts['import_s']:.0f}"),
    ]


def _told(apart: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.1g}" for name, value in apart.items() if value) or "nothing"


def _pixels_that_differ(side: Side, host: Side, key: tuple[str, str]) -> str:
    """Of the frames that each CPU drew and resized for itself."""
    if key not in host.runs:
        return "-"
    names = [name for name in side.runs[key] if name.startswith("frame")]
    differences = [
        np.abs(side.runs[key][name]["image"].astype(np.int16) - host.runs[key][name]["image"]) for name in names
    ]
    share = float(np.mean([(difference > 0).mean() for difference in differences]))
    return f"{100 * share:.2g} %, by {max(int(difference.max()) for difference in differences)}"
