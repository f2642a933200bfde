"""The composition root: the only place that puts an agent together, starts it, watches it and stops it.

start   model (verify, canary, golden) -> outbox, publisher -> pipeline -> cameras -> web, after the first result
stop    cameras -> pipeline -> web -> publisher (flush, offline) -> outbox
"""

from __future__ import annotations

import logging
import random
import threading
import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from agent import __version__
from agent.camera.capture import Capture, make_camera
from agent.clock import SystemClock
from agent.delivery.events import CameraState
from agent.delivery.publisher import MqttPublisher
from agent.errors import CameraError, ConfigError, EdgeAgentError, FatalError
from agent.frame import Mailbox
from agent.ops.process import node_name, seconds_since_process_start
from agent.ops.systemd import NO_SUPERVISOR, Supervisor
from agent.ops.watchdog import Heartbeat, Watchdog
from agent.parts import activate_model, make_outbox, make_pipeline, make_publisher, origin_of
from agent.tasks import make_watcher
from agent.turns import Turns
from agent.vision.opencv_setup import set_up_opencv
from agent.web.server import SILENCE_LIMIT_S, WebServer, require_web_extra

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from agent.config_file import LoadedConfig
    from agent.delivery.outbox import Outbox
    from agent.frame import Frame
    from agent.tasks import Sighting

log = logging.getLogger(__name__)

STOP_TIMEOUT_S = 5.0
_TURN_S = 0.2
_INFERENCE_LIMIT_S = 60.0
_DISK_LIMIT_S = 120.0  # an SD card may take half a minute for one write
_WEB_DELAY_S = 2.0
_NETWORK_LIMIT_S = 180.0  # so may a name's resolution, and a TLS handshake after it
_JOIN_TIMEOUT_S = 3.0


class App:
    """An agent: ``start`` once, ``watch`` until it is over, ``stop`` once; all from the main thread.

    Attributes:
        config: what it runs.
        node: its name in topics.
        model: the active model.
        pipeline: the per-frame loop.
        origin: this run and its model, as payloads name them.
        publisher: events and states on their way.
        mailbox: frames between cameras and pipeline.
        turns: at inference, with the cameras first.
        captures: the cameras' threads by camera id.
        watchdog: knows which of the loops hang.
        web: the web API, None without ``web:`` in the config.
        first_result_after_s: seconds from the start of this process to the first result, None before it.
    """

    def __init__(self, loaded: LoadedConfig, *, dry_run: bool = False, supervisor: Supervisor = NO_SUPERVISOR) -> None:
        """Verify and load everything that can be wrong; nothing runs yet.

        Args:
            loaded: the configuration and where its values stand.
            dry_run: print what would be published; neither broker nor outbox is used.
            supervisor: told that the agent is ready, alive, and stopping.

        Raises:
            ConfigError: the config names something that is not there, or another agent uses this state folder.
            BundleError, FatalError: as `activate` raises them.
        """
        set_up_opencv()
        config = self.config = loaded.config
        self._loaded = loaded
        self.node = node_name() if config.node == "auto" else config.node
        with self._blaming("model"):
            self.model = activate_model(config)
        self.origin = origin_of(self.model)
        with self._blaming("detect.labels"):
            watchers = {camera.id: make_watcher(self.model.bundle.manifest, config) for camera in config.cameras}
        self._outbox: Outbox | None = None
        if not dry_run:
            with self._blaming("state_dir"):
                self._outbox = make_outbox(config, self.node, self.origin)
        self.publisher = make_publisher(config, self.node, self.origin, self._outbox)
        self.mailbox = Mailbox(watchers)
        self.turns = Turns(time.monotonic)
        self.pipeline = make_pipeline(config, self.model, self.turns, watchers, self.mailbox, self.publisher)
        self.captures = {camera.id: self._make_capture(index) for index, camera in enumerate(config.cameras)}
        self._failure: Exception | None = None
        self._supervisor = supervisor
        self._started_s: float | None = None
        self._thread = threading.Thread(target=self._run_pipeline, name="inference", daemon=True)
        self._telemetry_due_s = time.monotonic() + config.mqtt.telemetry_interval_s
        self.first_result_after_s: float | None = None
        self.web = self._make_web()
        self.watchdog = Watchdog(self._heartbeats(), supervisor, time.monotonic)

    def start(self) -> None:
        """Sinks first, sources last."""
        self._started_s = time.monotonic()
        if self._outbox is not None:
            self._outbox.start()
        self.publisher.set_info(self._info())
        self.publisher.start()
        self._thread.start()
        for capture in self.captures.values():
            capture.start()
        count = len(self.captures)
        cameras = f"{count} camera{'s' if count > 1 else ''}"
        self._supervisor.ready(f"node {self.node}, model {self.model.bundle.manifest.name}, {cameras}")
        log.info("agent %s runs as node %s: %s", __version__, self.node, cameras)

    def watch(self, stop: threading.Event, each_turn: Callable[[], None] = lambda: None) -> None:
        """Supervise until ``stop`` is set or every camera's source has ended.

        Raises:
            ConfigError: a camera's source is not what the config says; the message names the place in the file.
            FatalError: a thread died, or inference hangs.
        """
        while not stop.wait(_TURN_S) and self._thread.is_alive():
            self._raise_failures()
            self.watchdog.turn()
            self._check_inference()
            self._tell_first_result()
            self._start_web()
            self._publish_camera_health()
            if time.monotonic() >= self._telemetry_due_s:
                self._telemetry_due_s = time.monotonic() + self.config.mqtt.telemetry_interval_s
                self.publisher.publish_telemetry(self.telemetry())
            each_turn()
        self._raise_failures()
        self._tell_first_result()

    def stop(self) -> None:
        """Sources first, sinks last; flush for at most 5 s. Harmless when `start` was not reached."""
        self._supervisor.stopping()
        if self.web is not None:
            self.web.stop(0.0)  # told now, waited for below: all that takes time to end does so at once
        if self._started_s is not None:
            self._stop_frames()
            self._publish_camera_health()
        if self.web is not None and not self.web.stop(_JOIN_TIMEOUT_S):
            log.warning("left behind, still busy after %g s: web", _JOIN_TIMEOUT_S)
        if not self.publisher.stop(STOP_TIMEOUT_S):
            log.warning("the broker has not taken all events; the rest waits for the next start")
        if self._outbox is not None:
            self._outbox.close()
        log.info("agent stopped")

    def see_once(self) -> list[tuple[Frame, Sighting]]:
        """One frame of each camera through the model, instead of `start` and `watch`.

        Raises:
            ConfigError: as `watch`.
            CameraError: a camera gives no frame.
        """
        seen = []
        for index, config in enumerate(self.config.cameras):
            camera = make_camera(config, SystemClock())
            try:
                with self._blaming(f"cameras.{index}.source"):
                    camera.open()
                frame = camera.read()
            finally:
                camera.close()
            if frame is None:
                raise CameraError(f"camera {config.id}: expected a frame, its source ended at once; check the source")
            seen.append((frame, self.pipeline.process(frame)))
        return seen

    def telemetry(self) -> dict[str, float]:
        """Flat numbers about frames and delivery."""
        values: dict[str, float] = {"uptime_s": round(seconds_since_process_start(), 1)}
        dropped = self.mailbox.dropped
        for camera_id, capture in self.captures.items():
            stats = self.pipeline.stats[camera_id]
            values |= {
                f"{camera_id}_frames_captured": capture.frames,
                f"{camera_id}_frames_inferred": stats.frames,
                f"{camera_id}_frames_dropped": dropped[camera_id],
                f"{camera_id}_frame_age_ms": round(stats.frame_age_s * 1e3, 2),
                f"{camera_id}_inference_ms": round(stats.inference_s * 1e3, 2),
                f"{camera_id}_camera_errors": capture.errors,
            }
        return values | self.publisher.counts()

    def _make_web(self) -> WebServer | None:
        if self.config.web is None:
            return None
        with self._blaming("web"):
            require_web_extra()
        from agent.web.agent_service import service_of

        with self._blaming("web.port"):
            return WebServer(service_of(self), self.config.web)

    def _make_capture(self, index: int) -> Capture:
        camera, clock = self.config.cameras[index], SystemClock()
        return Capture(camera, make_camera(camera, clock), self.mailbox, clock, random.Random())  # noqa: S311 - jitter

    def _stop_frames(self) -> None:
        """End captures and pipeline; what hangs is left behind, it ends with the process."""
        until_s = time.monotonic() + _JOIN_TIMEOUT_S
        for capture in self.captures.values():
            capture.stop(0.0)  # all of them are told before one is waited for: several that hang do not add up
        self.pipeline.stop()
        self._thread.join(_JOIN_TIMEOUT_S)
        hanging = [] if not self._thread.is_alive() else ["inference"]
        hanging += [id_ for id_, capture in self.captures.items() if not capture.stop(until_s - time.monotonic())]
        if hanging:
            log.warning("left behind, still busy after %g s: %s", _JOIN_TIMEOUT_S, ", ".join(hanging))

    def _run_pipeline(self) -> None:
        try:
            self.pipeline.run()
        except (EdgeAgentError, BrokenPipeError) as err:  # of a reader of --dry-run-mqtt
            self._failure = err
        except Exception as err:
            log.exception("the inference thread died")
            self._failure = FatalError(f"the inference thread died: {err}")

    def _raise_failures(self) -> None:
        for index, capture in enumerate(self.captures.values()):
            if isinstance(capture.failure, ConfigError):
                with self._blaming(f"cameras.{index}.source"):
                    raise capture.failure
            if capture.failure is not None:
                raise FatalError(f"camera {self.config.cameras[index].id}: {capture.failure}") from capture.failure
        if self.web is not None and self.web.failure is not None:
            raise FatalError(f"the web server died: {self.web.failure}") from self.web.failure
        if self._failure is not None:
            raise self._failure

    @contextmanager
    def _blaming(self, key_path: str) -> Iterator[None]:
        """Tell a ConfigError with the place of the configuration's key that causes it."""
        try:
            yield
        except ConfigError as err:
            raise ConfigError(f"{self._loaded.locate(key_path)}: {key_path}: {err}") from err

    def _tell_first_result(self) -> None:
        first_s = self.pipeline.first_result_s
        if first_s is not None and self.first_result_after_s is None:
            self.first_result_after_s = seconds_since_process_start() - (time.monotonic() - first_s)
            log.info("first result %.2f s after process start", self.first_result_after_s)

    def _start_web(self) -> None:
        """After the first result: the web's imports would take as long again, and nobody waits for them."""
        late = self._started_s is not None and time.monotonic() > self._started_s + _WEB_DELAY_S
        if self.web is not None and not self.web.started and (late or self.first_result_after_s is not None):
            self.web.start()

    def _heartbeats(self) -> list[Heartbeat]:
        heartbeats = [Heartbeat("inference", lambda: self.pipeline.heartbeat_s, _INFERENCE_LIMIT_S)]
        for camera_id, capture in self.captures.items():
            last_s = partial(getattr, capture, "heartbeat_s")
            heartbeats.append(Heartbeat(f"camera {camera_id}", last_s, capture.heartbeat_limit_s))
        if self._outbox is not None and isinstance(self.publisher, MqttPublisher):
            heartbeats.append(Heartbeat("outbox", partial(getattr, self._outbox, "heartbeat_s"), _DISK_LIMIT_S))
            heartbeats.append(Heartbeat("mqtt", partial(getattr, self.publisher, "heartbeat_s"), _NETWORK_LIMIT_S))
        if self.web is not None:
            heartbeats.append(Heartbeat("web", partial(getattr, self.web, "heartbeat_s"), SILENCE_LIMIT_S))
        return heartbeats

    def _check_inference(self) -> None:
        """A model or a provider that hangs cannot be helped from inside: the process ends and is started again."""
        trouble = self.watchdog.silent().get("inference")
        if trouble is not None:
            raise FatalError(f"inference hangs: {trouble}")

    def camera_health(self, camera_id: str) -> str:
        """``up`` while frames come; ``stalled`` while the driver does not return; else the capture's own state."""
        capture = self.captures[camera_id]
        stalled = time.monotonic() - capture.heartbeat_s > capture.heartbeat_limit_s
        return "stalled" if stalled else capture.state

    def _publish_camera_health(self) -> None:
        for camera_id in self.captures:
            health = self.camera_health(camera_id)
            if health not in ("up", "starting"):
                self.publisher.set_camera_state(camera_id, CameraState(health))

    def _info(self) -> dict[str, object]:
        manifest, variant = self.model.bundle.manifest, self.model.variant
        return {
            "agent": __version__,
            "model": {"name": manifest.name, "version": manifest.version, "variant": variant.id, "task": manifest.task},
            "provider": self.model.session.provider,
            "cameras": [camera.id for camera in self.config.cameras],
        }
