"""Latency of the variants against each other and the source: interleaved rounds, one process per contender.

Each child runs the device's own session (or plain ONNX Runtime for the source file), spinning off, and idles while
the others run. Absolute times hold for this machine only; the ratios are the figures to quote.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from agent.model.manifest import Variant
from agent.model.runtime import ort
from agent.model.session import Session, SessionOptions
from build_models.errors import BuildError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from agent.model.manifest import Task

_LEAST_RUNS = 3
_END_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Contender:
    """A file to time; without a variant it is the source model and runs in plain ONNX Runtime on random input."""

    name: str
    model_path: Path
    task: Task
    variant: Variant | None = None


def compare_latency(
    contenders: Sequence[Contender], threads: int, rounds: int = 5, round_s: float = 0.4
) -> Iterator[dict[str, Any]]:
    """Time all contenders in turn; yields after each round, last the result.

    Args:
        contenders: the first one is what the others' ratios refer to.
        threads: of ONNX Runtime.
        rounds: how often each contender has its turn.
        round_s: length of a turn in seconds.

    Yields:
        ``{"round": n}`` while it goes on, then ``{"threads": ..., "results": [{name, median_ms, min_ms, p90_ms,
        ratio}]}``; ``ratio`` is the median over rounds of the contender's time over the first contender's.

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
        for child in children:
            child.wait_until_ready()
        for number in range(1, rounds + 1):
            measured.append([child.run_round() for child in children])
            yield {"round": number, "of": rounds}
    yield {
        "threads": threads,
        "rounds": rounds,
        "onnxruntime": ort.__version__,
        "results": _summary([contender.name for contender in contenders], measured),
    }


def _summary(names: Sequence[str], measured: Sequence[Sequence[Sequence[float]]]) -> list[dict[str, Any]]:
    results = []
    for index, name in enumerate(names):
        times = sorted(value for turns in measured for value in turns[index])
        ratios = [statistics.median(turns[index]) / statistics.median(turns[0]) for turns in measured]
        results.append(
            {
                "name": name,
                "median_ms": round(statistics.median(times), 3),
                "min_ms": round(times[0], 3),
                "p90_ms": round(times[int(len(times) * 0.9)], 3),
                "runs": len(times),
                "ratio": round(statistics.median(ratios), 3),
            }
        )
    return results


class _Child:
    """A process that runs one contender, a round whenever it is asked for one."""

    def __init__(self, contender: Contender, threads: int, round_s: float) -> None:
        job = {
            "model": str(contender.model_path.resolve()),
            "task": contender.task,
            "threads": threads,
            "round_s": round_s,
            "variant": contender.variant.model_dump(mode="json") if contender.variant else None,
        }
        command = [sys.executable, "-m", "build_models.benchmark", json.dumps(job)]
        self._name = contender.name
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[1],  # so that -m finds this very package, wherever the build was started
        )

    def wait_until_ready(self) -> None:
        """Return once the model is loaded and warm."""
        self._answer()

    def run_round(self) -> list[float]:
        """Times in ms of one round's runs."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write("round\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._failure() from None
        return [float(value) for value in json.loads(self._answer())]

    def close(self) -> None:
        """End the child, by force if it does not go by itself."""
        try:
            self._process.communicate(timeout=_END_TIMEOUT_S)  # closing its input ends the child
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise self._failure()
        return line

    def _failure(self) -> BuildError:
        """What the child said last, on one line."""
        _, said = self._process.communicate()
        last = (said.strip().splitlines() or ["it said nothing"])[-1]
        return BuildError(
            f"benchmark of {self._name}: its process ended with exit code {self._process.returncode}: {last[:300]}"
        )


def main(arguments: Sequence[str]) -> int:
    """A child: load, warm up, then a round per line of standard input."""
    job = json.loads(arguments[0])
    run = _variant_runner(job) if job["variant"] else _source_runner(job)
    for _ in range(_LEAST_RUNS):
        run()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for _ in sys.stdin:
        times: list[float] = []
        end = time.perf_counter() + job["round_s"]
        while len(times) < _LEAST_RUNS or time.perf_counter() < end:
            start = time.perf_counter()
            run()
            times.append((time.perf_counter() - start) * 1e3)
        sys.stdout.write(json.dumps(times) + "\n")
        sys.stdout.flush()
    return 0


def _variant_runner(job: dict[str, Any]) -> Callable[[], object]:
    variant = Variant.model_validate_json(json.dumps(job["variant"]))
    session = Session(Path(job["model"]).read_bytes(), job["task"], variant, SessionOptions(threads=job["threads"]))
    session.input_image[:] = np.random.default_rng(0).integers(0, 256, session.input_image.shape, np.uint8)
    return session.run


def _source_runner(job: dict[str, Any]) -> Callable[[], object]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = job["threads"]
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = ort.InferenceSession(job["model"], options, providers=["CPUExecutionProvider"])
    first = session.get_inputs()[0]
    feed = {first.name: np.random.default_rng(0).random(first.shape, np.float32)}
    return lambda: session.run(None, feed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
