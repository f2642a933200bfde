"""What the agent adds to bare inference: latency to the handed-over PUBLISH, and its own CPU per frame.

    python -m benchmarks.overhead                      yolox-nano and the person video of the real data
    python -m benchmarks.overhead --bundle B --key K --video V

One process per contender, the same model file, threads and spinning; rounds are interleaved.

- ``bare``: ``session.run`` alone, as the device calls it (bound buffers), on inputs that lie in the buffer already.
- ``agent``: the whole frame path on frames that are ready (mailbox, resize, inference, decode, tracking, events,
  detections to a real mosquitto); the clock stops when paho's ``publish()`` has returned.
- ``own``: CPU time of the same path's own threads (loop, network, outbox) less the time inside ``session.run``, per
  frame, the resize's part beside it: one frame after the other with recorded outputs in place of inference (warm
  caches), with real inference, as from a file in lockstep, and with that at 30 frames a second (cold caches).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import paho.mqtt.client as paho

from agent.clock import SystemClock
from agent.config_file import load_config
from agent.delivery.clock_sync import ClockSync
from agent.delivery.outbox import Outbox
from agent.delivery.publisher import MqttPublisher, entry_encoder
from agent.delivery.topics import Topics
from agent.frame import Frame, Mailbox
from agent.model.activate import activate
from agent.model.runtime import ort
from agent.model.variants import parse_cpuinfo
from agent.parts import make_pipeline, origin_of, session_options
from agent.tasks import make_watcher
from agent.turns import Turns
from agent.vision.resize import Resizer
from tests.support.mosquitto import Mosquitto, mosquitto_executable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from agent.config_file import LoadedConfig
    from agent.model.activate import ActiveModel

REALDATA = Path(os.environ.get("EDGE_AGENT_REALDATA") or Path(__file__).parents[2] / "shared" / "realdata")
CONFIG = """
node: {node}
state_dir: {state}
model: {{bundle: {bundle}, trusted_keys: [{key}], variant: {variant}}}
runtime: {{spinning: {spinning}}}
cameras: [{{id: door, source: {video}, pace: lockstep}}]
mqtt: {{port: {port}, detections: {{enabled: true, max_rate_hz: 1000}}}}
"""
PACES = {"replayed": 0.0, "lockstep": 0.0, "30 fps": 1 / 30}  # seconds between two frames at least
HAND_OVER_TIMEOUT_S = 5.0


def main() -> int:
    """Run the contenders in turn and print what they measured."""
    args = _arguments()
    if args.child:
        return _child(args.child, load_config(args.config, os.environ), args.frames)
    with tempfile.TemporaryDirectory(prefix="edge-agent-overhead-") as work, _broker(Path(work)) as port:
        bundle, key = (args.bundle, args.key) if args.bundle else _import_yolox(Path(work))
        results = {}
        for spinning in ("false", "true"):
            fields = {"bundle": bundle, "key": key, "video": args.video, "port": port, "variant": args.variant}
            contenders = {}
            for name in ("bare", "agent", "own"):
                config = Path(work, f"{name}-{spinning}.yaml")
                state = Path(work, f"state-{name}")
                # Two clients of one name would take the connection from each other.
                config.write_text(CONFIG.format(node=f"benchmark-{name}", state=state, spinning=spinning, **fields))
                contenders[name] = _Contender(name, config, args.frames)
            try:
                rounds = [{name: each.round() for name, each in contenders.items()} for _ in range(args.rounds)]
            finally:
                for each in contenders.values():
                    each.close()
            results[f"spinning {'on' if spinning == 'true' else 'off'}"] = _summary(rounds)
    print(json.dumps({"machine": _machine(), "rounds": args.rounds, "frames": args.frames, **results}, indent=1))
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, help="bundle; without it yolox-nano is imported from the real data")
    parser.add_argument("--key", type=Path, help="its public key")
    parser.add_argument("--variant", default="auto")
    parser.add_argument("--video", type=Path, default=REALDATA / "videos" / "one-by-one-person-detection.mp4")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--frames", type=int, default=100, help="frames of a round")
    parser.add_argument("--child", choices=["bare", "agent", "own"], help=argparse.SUPPRESS)
    parser.add_argument("--config", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


class _Contender:
    """A child process that measures a round whenever it is told to."""

    def __init__(self, name: str, config: Path, frames: int) -> None:
        command = [sys.executable, __file__, "--child", name, "--config", str(config), "--frames", str(frames)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=_environment()
        )
        self._answer()

    def round(self) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write("round\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        self._process.communicate()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"a contender ended with exit code {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def _child(name: str, loaded: LoadedConfig, count: int) -> int:
    """Load, say ready, then one round for each line of standard input."""
    config = loaded.config
    options = session_options(config.runtime)
    model = activate(config.model.bundle, config.model.trusted_keys, options, config.model.variant)
    images = _read_frames(Path(config.cameras[0].source), count)
    measure = {"bare": _bare, "agent": _agent, "own": _own}[name](loaded, model, images)
    _say({"ready": name})
    for _ in sys.stdin:
        _say(measure())
    return 0


def _bare(_: LoadedConfig, model: ActiveModel, images: Sequence[NDArray[np.uint8]]) -> Callable[[], dict[str, Any]]:
    """``session.run`` as the device's own session calls it, on inputs that were resized beforehand."""
    resizer = Resizer(model.variant.input, model.session.input_image)
    inputs = []
    for image in images:
        resizer(image)
        inputs.append(model.session.input_image.copy())

    def measure() -> dict[str, Any]:
        times = []
        for image in inputs:
            model.session.input_image[:] = image
            start_s = time.perf_counter()
            model.session.run()
            times.append(time.perf_counter() - start_s)
        return {"ms": [value * 1e3 for value in times]}

    return measure


def _agent(
    loaded: LoadedConfig, model: ActiveModel, images: Sequence[NDArray[np.uint8]]
) -> Callable[[], dict[str, Any]]:
    """From a frame that is ready to a PUBLISH that was handed over, and each outbox commit beside it."""
    handed_over = _watch_publish()
    path = _FramePath(loaded, model)

    def measure() -> dict[str, Any]:
        times = []
        path.commits_ms.clear()
        for image in images:
            frame = path.frame(image)
            handed_over.clear()
            start_s = time.perf_counter()
            path.process(frame)
            if not handed_over.wait(HAND_OVER_TIMEOUT_S):
                raise RuntimeError("the detections of a frame were not published")
            times.append(handed_over.at_s - start_s)
        return {"ms": [value * 1e3 for value in times], "commit_ms": path.commits_ms[:]}

    return measure


def _own(loaded: LoadedConfig, model: ActiveModel, images: Sequence[NDArray[np.uint8]]) -> Callable[[], dict[str, Any]]:
    """CPU time of everything but inference and capture."""
    spent = {"run": 0.0, "resize": 0.0}
    resizer, recorded = Resizer(model.variant.input, model.session.input_image), []
    for image in images:
        resizer(image)
        recorded.append({name: array.copy() for name, array in model.session.run().items()})
    infer = model.session.run
    Resizer.__call__ = _timed(Resizer.__call__, spent, "resize")  # type: ignore[method-assign]
    path = _FramePath(loaded, model)

    def measure() -> dict[str, Any]:
        result = {}
        for name, pace_s in PACES.items():
            run = iter(recorded).__next__ if name == "replayed" else infer
            model.session.run = _timed(run, spent, "run")  # type: ignore[method-assign]
            spent.update(run=0.0, resize=0.0)
            start_cpu_s, due_s = _python_threads_cpu_s(), time.monotonic()
            for image in images:
                path.process(path.frame(image))
                due_s += pace_s
                time.sleep(max(0.0, due_s - time.monotonic()))
            own_s = _python_threads_cpu_s() - start_cpu_s - spent["run"]
            result[name] = {"own": own_s * 1e3 / len(images), "resize": spent["resize"] * 1e3 / len(images)}
        return {"cpu_ms": result}

    return measure


def _timed(function: Callable[..., Any], spent: dict[str, float], name: str) -> Callable[..., Any]:
    """The function, its CPU time on the calling thread added up."""

    def timed(*args: Any) -> Any:
        start_s = time.thread_time()
        result = function(*args)
        spent[name] += time.thread_time() - start_s
        return result

    return timed


def _python_threads_cpu_s() -> float:
    """CPU time of this process's Python threads: those of ONNX Runtime's pool are not among them."""
    idents = [thread.ident for thread in threading.enumerate() if thread.ident is not None]
    return sum(time.clock_gettime(time.pthread_getcpuclockid(ident)) for ident in idents)


class _FramePath:
    """The agent's parts, put together as ``agent.app`` does, without capture threads."""

    def __init__(self, loaded: LoadedConfig, model: ActiveModel) -> None:
        config, clock = loaded.config, SystemClock()
        topics, origin, sync = Topics(config.mqtt.prefix, config.node), origin_of(model), ClockSync(clock.monotonic_s)
        outbox = Outbox(
            config.state_dir / "outbox.sqlite",
            node=config.node,
            max_size_mib=config.outbox.max_size_mib,
            encode=entry_encoder(topics, origin, sync),
            clock=clock,
        )
        outbox.start()
        publisher = MqttPublisher(
            config.mqtt, outbox, topics, origin, node=config.node, is_clock_synced=sync, clock=clock
        )
        publisher.start()
        deadline_s = time.monotonic() + 10
        while not publisher.online:
            if time.monotonic() > deadline_s:
                raise RuntimeError("the broker does not answer")
            time.sleep(0.05)
        self.commits_ms: list[float] = []
        emit = publisher.emit

        def timed_emit(event: Any) -> str:
            start_s = time.perf_counter()
            event_id = emit(event)
            self.commits_ms.append((time.perf_counter() - start_s) * 1e3)
            return event_id

        publisher.emit = timed_emit  # type: ignore[method-assign]
        self._mailbox = Mailbox(["door"])
        self._pipeline = make_pipeline(
            config,
            model,
            Turns(time.monotonic),
            {"door": make_watcher(model.bundle.manifest, config)},
            self._mailbox,
            publisher,
        )
        self._count = 0

    def frame(self, image: NDArray[np.uint8]) -> Frame:
        self._count += 1
        return Frame("door", self._count, image, time.monotonic(), int(time.time() * 1e3), self._count / 10)

    def process(self, frame: Frame) -> None:
        self._mailbox.put(frame)
        taken = self._mailbox.take(1.0)
        assert taken is not None
        self._pipeline.process(taken)


class _HandOver(threading.Event):
    at_s = 0.0


def _watch_publish() -> _HandOver:
    """An event that is set when paho's ``publish()`` of a detections message has returned."""
    handed_over = _HandOver()
    publish = paho.Client.publish

    def watched(self: paho.Client, topic: str, *args: Any, **kwargs: Any) -> Any:
        result = publish(self, topic, *args, **kwargs)
        if topic.endswith("/detections"):
            handed_over.at_s = time.perf_counter()
            handed_over.set()
        return result

    paho.Client.publish = watched  # type: ignore[method-assign]
    return handed_over


def _summary(rounds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Ratios round by round, then their median; p99 over all rounds together."""
    p50 = [statistics.median(each["agent"]["ms"]) / statistics.median(each["bare"]["ms"]) for each in rounds]
    times = {name: [value for each in rounds for value in each[name]["ms"]] for name in ("bare", "agent")}
    commits = [value for each in rounds for value in each["agent"]["commit_ms"]]
    p99 = {name: float(np.percentile(values, 99)) for name, values in times.items()}
    return {
        "p50 ratio agent/bare": round(statistics.median(p50), 3),
        "p50 ratio of each round": [round(value, 3) for value in p50],
        "p99 ratio agent/bare": round(p99["agent"] / p99["bare"], 3),
        "bare ms p50, p99": [round(statistics.median(times["bare"]), 2), round(p99["bare"], 2)],
        "agent ms p50, p99": [round(statistics.median(times["agent"]), 2), round(p99["agent"], 2)],
        "outbox commit ms p50, count": [round(statistics.median(commits), 3) if commits else None, len(commits)],
        **{
            f"CPU ms per frame, {pace}: own, of it resize": [
                round(statistics.median(each["own"]["cpu_ms"][pace][kind] for each in rounds), 3)
                for kind in ("own", "resize")
            ]
            for pace in PACES
        },
    }


def _machine() -> dict[str, Any]:
    cpu = parse_cpuinfo(Path("/proc/cpuinfo").read_text(encoding="utf-8"))[1]
    versions = {"python": platform.python_version(), "onnxruntime": ort.__version__, "opencv": cv2.__version__}
    return {"cpu": cpu, "cores": os.cpu_count(), **versions, "numpy": np.__version__}


def _import_yolox(work: Path) -> tuple[Path, Path]:
    command = [sys.executable, "-m", "build_models"]
    subprocess.run([*command, "keygen", str(work / "key")], check=True, stdout=subprocess.DEVNULL, env=_environment())
    pictures = REALDATA / "data-coco-mini" / "images" / "train2017"
    arguments = ["--family", "yolox", "--labels", "coco", "--pictures", str(pictures)]
    arguments += ["--key", str(work / "key.private.pem"), "--out", str(work / "bundle")]
    model = REALDATA / "det-yolox-nano" / "yolox_nano.onnx"
    subprocess.run([*command, "import", str(model), *arguments], check=True, stdout=sys.stderr, env=_environment())
    return work / "bundle", work / "key.public.pem"


class _broker:  # noqa: N801 - used as a with block
    def __init__(self, work: Path) -> None:
        executable = mosquitto_executable()
        if executable is None:
            raise SystemExit("mosquitto is not installed: apt-get install mosquitto")
        folder = work / "mosquitto"
        folder.mkdir()
        self._broker = Mosquitto(executable, folder)

    def __enter__(self) -> int:
        self._broker.start()
        return self._broker.port

    def __exit__(self, *_: object) -> None:
        self._broker.stop()


def _read_frames(video: Path, count: int) -> list[NDArray[np.uint8]]:
    """Frames spread over the middle of the video, where there is something to see."""
    capture = cv2.VideoCapture(str(video))
    capture.set(cv2.CAP_PROP_POS_FRAMES, 230)
    frames: list[NDArray[np.uint8]] = []
    while len(frames) < count:
        success, image = capture.read()
        if not success:
            raise SystemExit(f"{video}: expected {count + 230} frames, found {len(frames) + 230}")
        frames.append(np.asarray(image, np.uint8))
    return frames


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}


def _say(answer: Mapping[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
