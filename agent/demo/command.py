"""``edge-agent demo``: broker, drawn camera, demo bundle and a live view, with nothing to prepare.

The view shows what a subscriber receives, so all of the path is seen at work: camera, model, outbox, broker.
"""

from __future__ import annotations

import json
import os
import queue
import shutil
import sys
import tempfile
import threading
import time
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING

from agent.demo.broker import running_broker
from agent.demo.view import LiveView, Status
from agent.errors import FatalError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from agent.app import App
    from agent.config_file import LoadedConfig
    from agent.demo.broker import DemoBroker

TRIAL = "canary.json"
_SUBSCRIBE_TIMEOUT_S = 5.0
_LAST_EVENTS_TIMEOUT_S = 2.0


def run(args: argparse.Namespace) -> int:
    """Run until Ctrl-C, or for ``args.seconds``; ends with a summary and exit code 0."""
    with (
        tempfile.TemporaryDirectory(prefix="edge-agent-demo-") as state_dir,
        as_file(files("agent.demo")) as folder,
        running_broker(args.port) as broker,
    ):
        # Imported only now: the broker starts on another core meanwhile.
        from agent.app import App
        from agent.config_file import load_config
        from agent.ops.log import configure_logging
        from agent.run_command import stop_event

        stop = stop_event()
        # Each demo has an outbox of its own; that the model was tried out is remembered for all of them.
        remembered, trial = _memory_dir(os.environ) / TRIAL, Path(state_dir, TRIAL)
        is_first_start = not _copied(remembered, trial)
        environ = {**os.environ, "DEMO_PORT": str(broker.port), "DEMO_STATE": state_dir}
        environ["DEMO_WEB_PORT"] = str(args.web_port)
        loaded = load_config(Path(folder, "demo.yaml"), environ)
        configure_logging(loaded.config.logging.level, loaded.config.logging.format, sys.stderr, os.environ)
        view = LiveView(sys.stdout)
        app = App(loaded)
        _copied(trial, remembered)
        _introduce(app, broker.port, loaded, view)
        broker.wait_until_ready()
        elapsed_s, received = _watch(app, broker, args.seconds, stop, view)
        view.say(_summary(app, elapsed_s, received, is_first_start=is_first_start))
    return 0


def _memory_dir(environ: Mapping[str, str]) -> Path:
    """Where the demo remembers that its model was tried out, so that only the first start waits for that."""
    chosen = environ.get("EDGE_AGENT_STATE")
    if chosen:
        return Path(chosen)
    base = environ.get("XDG_STATE_HOME") or Path("~/.local/state").expanduser()
    return Path(base, "edge-agent-demo")


def _copied(source: Path, target: Path) -> bool:
    """Copy a small file; False when that fails, which costs no more than another trial run."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    except OSError:
        return False
    return True


def _introduce(app: App, port: int, loaded: LoadedConfig, view: LiveView) -> None:
    name, fps = app.model.bundle.manifest.name, loaded.config.cameras[0].fps
    view.say(f"edge-agent demo: model {name}, variant {app.model.variant.id}, a drawn camera, {fps:g} frames a second")
    if app.web is not None:
        view.say(f"live picture, API and metrics: {app.web.url}")
    view.say("the messages, in another terminal:\n")
    view.say(f"  mosquitto_sub -h 127.0.0.1 -p {port} -t 'edge/{app.node}/#' -v\n")


def _watch(
    app: App, broker: DemoBroker, seconds: float | None, stop: threading.Event, view: LiveView
) -> tuple[float, int]:
    """Run the agent and show what its subscriber gets; returns seconds and events received."""
    subscriber = _Subscriber(broker.port, f"edge/{app.node}/camera/+/events")
    started_s = time.monotonic()

    def each_turn() -> None:
        subscriber.show(view)
        status = _status(app, time.monotonic() - started_s)
        view.status(status)
        if seconds is not None and status.elapsed_s >= seconds:
            stop.set()

    try:
        app.start()
        app.watch(stop, each_turn)
    finally:
        app.stop()
        elapsed_s = time.monotonic() - started_s
        subscriber.show(view, until=_status(app, elapsed_s).events, timeout_s=_LAST_EVENTS_TIMEOUT_S)
        subscriber.close()
    return elapsed_s, subscriber.received


class _Subscriber:
    """A subscriber of its own, as any other program would be one; it has subscribed when its construction ends.

    Attributes:
        received: events shown so far.
    """

    def __init__(self, port: int, topic: str) -> None:
        from paho.mqtt.client import Client
        from paho.mqtt.enums import CallbackAPIVersion

        self.received = 0
        self._arrived: queue.SimpleQueue[bytes | bytearray] = queue.SimpleQueue()
        self._client = Client(CallbackAPIVersion.VERSION2)
        subscribed = threading.Event()
        self._client.on_connect = lambda client, *_: client.subscribe(topic, qos=1)
        self._client.on_subscribe = lambda *_: subscribed.set()
        self._client.on_message = lambda _client, _data, message: self._arrived.put(message.payload)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        if not subscribed.wait(_SUBSCRIBE_TIMEOUT_S):
            raise FatalError(f"the demo's broker did not answer within {_SUBSCRIBE_TIMEOUT_S:g} s; try again")

    def show(self, view: LiveView, until: int = 0, timeout_s: float = 0.0) -> None:
        """Give the view what has arrived; wait for what is missing ``until`` so many have, at most so long."""
        deadline_s = time.monotonic() + timeout_s
        while True:
            remaining_s = deadline_s - time.monotonic() if self.received < until else 0.0
            try:
                payload = self._arrived.get(timeout=max(0.0, remaining_s))
            except queue.Empty:
                return
            view.event(json.loads(payload))
            self.received += 1

    def close(self) -> None:
        """Disconnect."""
        self._client.disconnect()
        self._client.loop_stop()


def _status(app: App, elapsed_s: float) -> Status:
    (stats,) = app.pipeline.stats.values()
    return Status(
        elapsed_s,
        stats.frames,
        sum(app.mailbox.dropped.values()),
        stats.events.total(),
        app.publisher.counts().get("outbox_pending", 0),
        stats.frame_age_s * 1e3,
        stats.inference_s * 1e3,
    )


def _summary(app: App, elapsed_s: float, received: int, *, is_first_start: bool) -> str:
    status = _status(app, elapsed_s)
    frames = f"{status.frames} frames in {elapsed_s:.1f} s ({status.frames / elapsed_s:.1f} a second)"
    events = f"{status.events} events, {received} of them received by the subscriber"
    lines = ["", f"{frames}, {status.dropped} dropped; {events}"]
    if app.first_result_after_s is not None:
        lines.append(f"first result {app.first_result_after_s:.2f} s after the process started")
        if is_first_start:
            lines.append("  (with the trial run of a model that this device had not seen; later starts are quicker)")
    lines.append("next: your own camera and model, see the README")
    return "\n".join(lines)
