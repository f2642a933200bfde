"""Stands for the benchmark: a build's files take the time that a test says, on a machine with VNNI."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from build_models import gate, machines, pipeline, variants

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import pytest

    from agent.model.manifest import Host
    from build_models.benchmark import Contender

FLOAT_MS = 2.0


def fake_timing(
    patch: pytest.MonkeyPatch, int8_ms: float = 1.0, others_ms: Mapping[str, float] | None = None, arch: str = "x86_64"
) -> list[str]:
    """Replace all timing of builds; source and fp32 take `FLOAT_MS`.

    Args:
        patch: undoes it.
        int8_ms: of every other file.
        others_ms: by contender's name, such as a form or a variant, where one differs.
        arch: of the machine that the build believes to run on.

    Returns:
        A list to which the name of every contender is added when it is timed.
    """
    times_ms = {"source": FLOAT_MS, "cpu-fp32": FLOAT_MS, **(others_ms or {})}
    timed: list[str] = []

    def measured(
        contenders: Sequence[Contender], threads: int, rounds: int = 1, _: float = 0.0
    ) -> Iterator[dict[str, Any]]:
        timed.extend(each.name for each in contenders)
        values = [times_ms.get(each.name, int8_ms) for each in contenders]
        results = [
            {"name": each.name, "median_ms": ms, "min_ms": ms, "p90_ms": ms, "ratio": ms / values[0]}
            for each, ms in zip(contenders, values, strict=True)
        ]
        yield {"round": 1}
        yield {"threads": threads, "rounds": rounds, "onnxruntime": "1", "results": results}

    def is_here(hosts: Sequence[Host]) -> bool:
        return not hosts or any(host.arch == arch for host in hosts)

    for module in (pipeline, machines):
        patch.setattr(module, "compare_latency", measured)
    for module in (variants, gate):
        patch.setattr(module, "runs_here", is_here)
    return timed
