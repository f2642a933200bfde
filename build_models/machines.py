"""This machine as a host of variants, and the forms of an int8 file timed on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agent.model.runtime import available_providers, ort
from agent.model.session import physical_cores
from agent.model.variants import this_device
from build_models.benchmark import Contender, compare_latency

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from agent.model.manifest import Host, Task, Variant
    from build_models.progress import Progress

_ROUNDS = 5
_ROUND_S = 0.3


def runs_here(hosts: Sequence[Host]) -> bool:
    """Whether this machine is one of those that a file is made for; no hosts: any machine."""
    device = this_device(ort.__version__, available_providers())
    return not hosts or any(
        host.arch == device.arch and set(host.cpu_features) <= device.cpu_features for host in hosts
    )


def time_files(
    files: Sequence[tuple[str, Path]], fp32: tuple[Path, Variant], task: Task, progress: Progress, what: str
) -> dict[str, dict[str, float]]:
    """Time files against fp32 on this machine, in turns, one process each.

    Args:
        files: names and paths.
        fp32: the float file and its variant, whose input all have.
        task: of the model.
        progress: shows the rounds.
        what: is timed, for the progress.

    Returns:
        ``median_ms`` and ``speedup`` over fp32 by name; fp32's own under ``cpu-fp32``.
    """
    variant = fp32[1]
    contenders = [Contender(variant.id, fp32[0], task, variant)]
    contenders += [Contender(name, path, task, variant) for name, path in files]
    rounds = compare_latency(contenders, physical_cores(), _ROUNDS, _ROUND_S)
    *_, last = progress.track(rounds, _ROUNDS + 1, "round", what)
    results: list[dict[str, Any]] = last["results"]
    return {each["name"]: {"median_ms": each["median_ms"], "speedup": round(1 / each["ratio"], 3)} for each in results}
