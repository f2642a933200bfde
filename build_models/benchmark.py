"""Latency of contenders against each other: interleaved rounds, one process each.

Each child runs the device's own session, or another runtime, spinning off, and waits while the others run. Absolute
times hold for this machine only; the ratios are the figures to quote.
"""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from agent.model.runtime import ort
from agent.model.timed_child import TimedChild
from build_models.contenders.figures import summary
from build_models.errors import BuildError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from agent.model.manifest import Task, Variant


@dataclass(frozen=True)
class Contender:
    """A model to time.

    Attributes:
        name: for people.
        model_path: the ONNX file; of a torch module the one that was exported from it.
        task: of a variant.
        variant: the file runs in the device's session; without one it runs in plain ONNX Runtime on noise.
        runner: another of `contenders.child.RUNNERS`.
        options: what that runner needs to know besides.
        shapes: of inputs whose axes are free in the file.
        note: what a reader must know of it, such as that it was calibrated with noise.
    """

    name: str
    model_path: Path
    task: Task
    variant: Variant | None = None
    runner: Literal["session", "onnxruntime", "torch", "openvino"] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    shapes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    note: str = ""


def compare_latency(
    contenders: Sequence[Contender], threads: int, rounds: int = 5, round_s: float = 0.4
) -> Iterator[dict[str, Any]]:
    """Time all contenders in turn; yields after each round, last the result.

    Args:
        contenders: the first one is what the others' ratios refer to.
        threads: of each runtime.
        rounds: how often each contender has its turn.
        round_s: length of a turn in seconds.

    Yields:
        ``{"round": n}`` while it goes on, then ``{"threads": ..., "versions": ..., "results": [...]}`` with a row a
        contender: what `summary` says, ``input``, ``peak_mb`` of its whole process, ``file_mb`` and ``note``.

    Raises:
        BuildError: a child failed.
    """
    measured: list[list[list[float]]] = []  # by round and contender, in ms
    with ExitStack() as stack:
        children = []
        for contender in contenders:
            child = _Child(contender, threads, round_s)
            stack.callback(child.close)
            children.append(child)
        facts = [child.wait_until_ready() for child in children]
        for number in range(1, rounds + 1):
            measured.append([child.run_round() for child in children])
            yield {"round": number, "of": rounds}
        peaks = [child.peak_mb() for child in children]
    versions: dict[str, str] = {"onnxruntime": ort.__version__}
    results = summary([contender.name for contender in contenders], measured)
    for row, contender, said, peak in zip(results, contenders, facts, peaks, strict=True):
        versions.update(said.get("versions", {}))
        row["input"] = said.get("input", "")
        row["peak_mb"] = peak
        row["file_mb"] = _file_mb(contender.model_path)
        row["note"] = contender.note
    yield {
        "threads": threads,
        "rounds": rounds,
        "round_s": round_s,
        "onnxruntime": ort.__version__,
        "versions": versions,
        "results": results,
    }


class _Child(TimedChild):
    """A process that runs one contender."""

    def __init__(self, contender: Contender, threads: int, round_s: float) -> None:
        job = {
            **contender.options,
            "runner": contender.runner or ("session" if contender.variant else "onnxruntime"),
            "model": str(contender.model_path.resolve()),
            "task": contender.task,
            "threads": threads,
            "round_s": round_s,
            "shapes": {name: list(shape) for name, shape in contender.shapes.items()},
            "variant": contender.variant.model_dump(mode="json") if contender.variant else None,
        }
        command = ["build_models.contenders.child", json.dumps(job)]
        super().__init__(contender.name, command, BuildError, Path(__file__).parents[1])


def _file_mb(path: Path) -> float | None:
    return round(path.stat().st_size / 1e6, 3) if path.is_file() else None
