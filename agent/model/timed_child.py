"""Latency side by side: each model in a process of its own, a round of inferences in turn.

The parent asks a child for a round by a line on its standard input; the child answers with a line of JSON. While one
works the others wait, so they do not share the processor, and a disturbance from outside meets all of them.
"""

from __future__ import annotations

import json
import os
import resource
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from agent.errors import EdgeAgentError

LEAST_RUNS = 3
_WARM_S = 0.2
_END_TIMEOUT_S = 10.0
_ANSWER_LIMIT_S = 300.0  # a large model may take a minute to load on a small board; a hang takes for ever
_STATUS = Path("/proc/self/status")


class TimedChild:
    """A child process that serves rounds (`serve_rounds`).

    Args:
        name: of the contender, for messages.
        command: module and arguments that Python runs.
        error: what to raise when it fails.
        folder: where it runs, so that ``-m`` finds this very package wherever the parent was started.
    """

    def __init__(self, name: str, command: Sequence[str], error: type[EdgeAgentError], folder: Path) -> None:
        self._name = name
        self._error = error
        self._unread = b""
        self._process = subprocess.Popen(
            [sys.executable, "-m", *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=folder,
            # Thread pools of OpenMP sleep between their tasks too: nobody spins.
            env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"},
        )

    def wait_until_ready(self) -> dict[str, Any]:
        """Return once the model is loaded and warm, with what the child says of itself."""
        return dict(self._answer())

    def run_round(self) -> list[float]:
        """Times in ms of one round's runs."""
        return [float(value) for value in self._ask("round")]

    def peak_mb(self) -> float:
        """The most memory that the process has had resident until now: interpreter, libraries and model."""
        return float(self._ask("memory"))

    def close(self) -> None:
        """End the child, by force if it does not go by itself."""
        try:
            self._process.communicate(timeout=_END_TIMEOUT_S)  # closing its input ends the child
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()

    def _ask(self, wanted: str) -> Any:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{wanted}\n".encode())
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._failure() from None
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        source = self._process.stdout.fileno()
        while b"\n" not in self._unread:
            if not select.select([source], [], [], _ANSWER_LIMIT_S)[0]:
                self._process.kill()
                raise self._error(f"benchmark of {self._name}: no answer within {_ANSWER_LIMIT_S:g} s; it was ended")
            arrived = os.read(source, 1 << 16)
            if not arrived:
                raise self._failure()
            self._unread += arrived
        line, _, self._unread = self._unread.partition(b"\n")
        return json.loads(line)

    def _failure(self) -> EdgeAgentError:
        """What the child said last, on one line."""
        _, said = self._process.communicate()
        last = (said.decode(errors="replace").strip().splitlines() or ["it said nothing"])[-1]
        return self._error(
            f"benchmark of {self._name}: its process ended with exit code {self._process.returncode}: {last[:300]}"
        )


def serve_rounds(run: Callable[[], object], round_s: float, facts: dict[str, Any]) -> None:
    """The child's part: warm up, say that it is ready, then answer until its input ends.

    Args:
        run: one inference.
        round_s: how long a round takes; at least three inferences.
        facts: what the parent is told when the model is ready.
    """
    _round(run, _WARM_S)
    _tell(facts)
    for line in sys.stdin:
        _tell(_peak_mb() if line.strip() == "memory" else _round(run, round_s))


def _round(run: Callable[[], object], seconds: float) -> list[float]:
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < LEAST_RUNS or time.perf_counter() < end:
        start = time.perf_counter()
        run()
        times.append((time.perf_counter() - start) * 1e3)
    return times


def _peak_mb() -> float:
    """Of this program: ``ru_maxrss`` would also count the parent's pages, of which a fresh child is a copy."""
    try:
        for line in _STATUS.read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return round(int(line.split()[1]) * 1024 / 1e6, 1)
    except OSError:
        pass  # a system without procfs
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6, 1)


def _tell(value: object) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()
