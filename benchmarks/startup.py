"""How long until the demo has its first result, and what ``edge-agent --help`` costs over a bare interpreter.

    python -m benchmarks.startup

Both are taken from the start of the process on, the interpreter's own included. The demo's first start ever on a
machine tries the model out in a child process; it is printed beside the warm ones.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time

WARM_STARTS = 5
HELP_RUNS = 21
FIRST_RESULT = re.compile(r"^first result ([\d.]+) s after the process started$", re.MULTILINE)


def main() -> int:
    """Print the figures as JSON."""
    with tempfile.TemporaryDirectory(prefix="edge-agent-startup-") as state:
        first_s, *warm_s = (first_result_s(state) for _ in range(1 + WARM_STARTS))
    # In turns, so that a slow moment of the machine meets both.
    pairs = [(wall_ms("-c", "pass"), wall_ms("-m", "agent", "--help")) for _ in range(HELP_RUNS)]
    figures = {
        "first result s, median of warm starts": statistics.median(warm_s),
        "first result s, each warm start": warm_s,
        "first result s, first start ever": first_s,
        "--help over a bare interpreter ms, median": round(statistics.median(b - a for a, b in pairs), 1),
        "bare interpreter ms, median": round(statistics.median(a for a, _ in pairs), 1),
    }
    print(json.dumps(figures, indent=1))
    return 0


def first_result_s(state: str) -> float:
    """What a demo of two seconds says of its start; ``state`` remembers whether the model was tried out."""
    command = [sys.executable, "-m", "agent", "demo", "--seconds", "2"]
    environment = {**os.environ, "EDGE_AGENT_STATE": state}
    said = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout
    found = FIRST_RESULT.search(said)
    if found is None:
        raise SystemExit(f"the demo had no result: {said}")
    return float(found[1])


def wall_ms(*arguments: str) -> float:
    """Wall time of an interpreter from start to end."""
    start_s = time.perf_counter()
    subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True)
    return (time.perf_counter() - start_s) * 1e3


if __name__ == "__main__":
    sys.exit(main())
