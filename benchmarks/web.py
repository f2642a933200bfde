"""What clients of the web API cost the live cameras: frame ages with and without eight of them, in turns.

    python -m benchmarks.web [--bundle DIR --key PEM] [--fps 15] [--clients 8] [--seconds 60]

The agent runs a synthetic camera in a process of its own; the clients, in another, post a JPEG as fast as answers come.
Their processor time belongs to other machines in real life, so they run at the lowest priority. Quiet and loaded
stretches alternate. Ages are from the capture of a frame to the start of its inference, and to its result.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import yaml

from agent.app import App
from agent.config_file import load_config
from agent.demo.scenes import random_picture
from agent.model.session import physical_cores
from agent.model.variants import this_device

if TYPE_CHECKING:
    from agent.frame import Frame

DEMO = Path(__file__).parents[1] / "agent" / "demo"
STRETCH_S = 10.0
SETTLE_S = 1.0  # of each stretch, left out
ROOMS = {"start of inference": 0, "result": 1}


def main() -> int:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description="frame ages with and without clients of the web API")
    parser.add_argument("--bundle", type=Path, default=DEMO / "bundles" / "shapes")
    parser.add_argument("--key", type=Path, default=DEMO / "demo.public.pem")
    parser.add_argument("--fps", type=float, default=15.0)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=60.0, help="loaded time in all")
    parser.add_argument("--post", type=int, metavar="PORT", help=argparse.SUPPRESS)  # the clients' own process
    options = parser.parse_args()
    if options.post:
        return post_until_told(options.post, options.clients)
    with tempfile.TemporaryDirectory(prefix="edge-agent-web-") as folder:
        figures = measure(options, Path(folder))
    print(json.dumps(figures, indent=1))
    return 0


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run the agent here, the clients elsewhere, and compare the stretches."""
    logging.disable(logging.WARNING)
    camera = {"id": "live", "engine": "synthetic", "width": 640, "height": 384, "fps": options.fps}
    config = {
        "state_dir": str(folder),
        "model": {"bundle": str(options.bundle.resolve()), "trusted_keys": [str(options.key.resolve())]},
        "cameras": [camera],
        "mqtt": {"port": 9},  # nobody: events go to the outbox
        "web": {"port": 0},
    }
    path = folder / "agent.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    app = App(load_config(path, {}))
    ages = {"quiet": [], "loaded": []}  # type: dict[str, list[tuple[float, float]]]
    now: list[str | None] = [None]
    record_ages(app, ages, now)
    stop = threading.Event()
    app.start()
    watching = threading.Thread(target=app.watch, args=(stop,))
    watching.start()
    assert app.web is not None
    statuses: Counter[str] = Counter()
    try:
        for _ in range(max(1, round(options.seconds / STRETCH_S))):
            stretch(now, "quiet")
            statuses += loaded_stretch(app.web.port, options.clients, now)
    finally:
        stop.set()
        watching.join()
        app.stop()
    device = this_device(onnxruntime_version="", providers=())
    return {
        "cpu": device.cpu_name,
        "inference threads": physical_cores(),
        "model": app.model.bundle.manifest.name,
        "start of inference to result ms, median": round(statistics.median(b - a for a, b in ages["quiet"]) * 1e3, 2),
        "camera fps": options.fps,
        "clients": options.clients,
        "answers by status": dict(statuses),
        "answers a second": round(statuses.total() / options.seconds, 1),
        "frames": {name: len(each) for name, each in ages.items()},
        **{f"age at {room}": compared(ages, index) for room, index in ROOMS.items()},
    }


def record_ages(app: App, ages: dict[str, list[tuple[float, float]]], now: list[str | None]) -> None:
    """Have each frame's ages noted under the name of the stretch that is going on."""
    process = app.pipeline.process

    def timed(frame: Frame) -> Any:
        sighting = process(frame)
        if now[0] is not None:
            done_s = time.monotonic() - frame.captured_monotonic_s
            ages[now[0]].append((app.pipeline.stats["live"].frame_age_s, done_s))
        return sighting

    app.pipeline.process = timed  # type: ignore[method-assign]


def stretch(now: list[str | None], name: str) -> None:
    """Let some time pass, all but its beginning under this name."""
    time.sleep(SETTLE_S)
    now[0] = name
    time.sleep(STRETCH_S)
    now[0] = None


def loaded_stretch(port: int, clients: int, now: list[str | None]) -> Counter[str]:
    """A stretch with clients; returns their answers by status."""
    command = [sys.executable, "-m", "benchmarks.web", "--post", str(port), "--clients", str(clients)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()  # they have begun
        stretch(now, "loaded")
        said, _ = process.communicate("")  # the end of their input ends them
    return Counter(json.loads(said))


def compared(ages: dict[str, list[tuple[float, float]]], index: int) -> dict[str, float]:
    """Median and 95th percentile in milliseconds of both, and the ratios loaded over quiet."""
    figures: dict[str, float] = {}
    for name, each in ages.items():
        values = sorted(pair[index] * 1e3 for pair in each)
        figures[f"{name} p50 ms"] = round(statistics.median(values), 3)
        figures[f"{name} p95 ms"] = round(values[int(0.95 * (len(values) - 1))], 3)
    for share in ("p50", "p95"):
        figures[f"ratio {share}"] = round(figures[f"loaded {share} ms"] / figures[f"quiet {share} ms"], 3)
    return figures


def post_until_told(port: int, clients: int) -> int:
    """Post a picture from so many threads until standard input ends; print how many answers had which status."""
    os.nice(19)
    image_bgr, _ = random_picture(1, 640, 480)
    jpeg = cv2.imencode(".jpg", image_bgr)[1].tobytes()
    statuses: Counter[str] = Counter()
    done = threading.Event()

    def post() -> None:
        connection = HTTPConnection("127.0.0.1", port, timeout=30)
        while not done.is_set():
            connection.request("POST", "/api/v1/infer", jpeg)
            answer = connection.getresponse()
            answer.read()
            statuses[str(answer.status)] += 1

    threads = [threading.Thread(target=post) for _ in range(clients)]
    for thread in threads:
        thread.start()
    print("begun", flush=True)
    sys.stdin.read()
    done.set()
    for thread in threads:
        thread.join()
    print(json.dumps(statuses))
    return 0


if __name__ == "__main__":
    sys.exit(main())
