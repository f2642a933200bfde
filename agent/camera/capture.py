"""The capture thread of one camera: open, read, leave in the mailbox; back off and reopen when the camera fails."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Literal

from agent.errors import CameraError, EdgeAgentError

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Mapping

    from agent.camera.base import Camera
    from agent.clock import Clock
    from agent.config import CameraConfig
    from agent.frame import Mailbox

_FIRST_BACK_OFF_S = 0.5
_LONGEST_BACK_OFF_S = 5.0  # a camera that has healed is back within this and its open_timeout_s
_HEARTBEAT_SLACK_S = 5.0

_log = logging.getLogger(__name__)


def make_camera(config: CameraConfig, clock: Clock) -> Camera:
    """The camera of the config's engine, not yet opened."""
    return ENGINES[config.engine](config, clock)


class Capture:
    """One camera's thread.

    ``start`` once, then ``stop``, from the supervisor's thread; everything else may be read from any thread. A failing
    camera (CameraError) is reopened for ever; anything else ends the thread and is left in ``failure``. However the
    thread ends, the mailbox is told that the camera has finished.

    Attributes:
        frames: frames read so far.
        errors: CameraErrors so far.
        trouble: the last of them in words, None while frames come.
        state: ``up`` while frames come, ``down`` while backing off, ``ended`` with its source, ``failed``, ``stopped``.
        failure: what ended the thread: a ConfigError, or a bug.
    """

    def __init__(
        self, config: CameraConfig, camera: Camera, mailbox: Mailbox, clock: Clock, jitter: random.Random
    ) -> None:
        self.frames = 0
        self.errors = 0
        self.trouble: str | None = None
        self.state: Literal["starting", "up", "down", "ended", "failed", "stopped"] = "starting"
        self.failure: Exception | None = None
        self._config = config
        self._camera = camera
        self._mailbox = mailbox
        self._clock = clock
        self._jitter = jitter
        self._stopping = False
        self._failures_in_a_row = 0
        self._beat_s = clock.monotonic_s()
        self._waits_for_consumer = False
        # A daemon: a driver that never returns from read must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name=f"capture-{config.id}", daemon=True)

    def start(self) -> None:
        """Begin to capture."""
        self._beat_s = self._clock.monotonic_s()
        self._thread.start()

    def stop(self, timeout_s: float) -> bool:
        """End the thread; False when it still hangs in the camera after the timeout: call again to wait longer."""
        self._stopping = True
        self._clock.interrupt()
        self._mailbox.finish(self._config.id)
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    @property
    def heartbeat_s(self) -> float:
        """Monotonic time of the last sign of life; now, while only the consumer is waited for or after the end."""
        if self._waits_for_consumer or not self._thread.is_alive():
            return self._clock.monotonic_s()
        return self._beat_s

    @property
    def heartbeat_limit_s(self) -> float:
        """A heartbeat older than this means that the camera's driver hangs."""
        frame_s = 1.0 / self._config.fps if self._config.fps else 0.0
        longest_s = max(self._config.open_timeout_s, self._config.read_timeout_s, _LONGEST_BACK_OFF_S, frame_s)
        return longest_s + _HEARTBEAT_SLACK_S

    def _run(self) -> None:
        try:
            self._capture_until_the_end()
        except EdgeAgentError as err:
            self._fail(err)
        except Exception as err:  # noqa: BLE001 the thread's outermost frame: logged, and handed to the supervisor
            self._fail(err)
            _log.exception("camera %s: capture ends on a bug", self._config.id)
        finally:
            self._mailbox.finish(self._config.id)

    def _capture_until_the_end(self) -> None:
        while not self._stopping:
            self._beat()
            try:
                self._camera.open()
                self._read_until_the_end()
            except CameraError as err:
                self._go_down(err)
            else:
                return
            finally:
                self._camera.close()
            self._beat()
            self._clock.wait(self._back_off_s())
        self.state = "stopped"

    def _read_until_the_end(self) -> None:
        while not self._stopping:
            self._beat()
            frame = self._camera.read()
            if frame is None and self._stopping:
                break
            if frame is None:
                self.state = "ended"
                _log.info("camera %s: its source has ended after %d frames", self._config.id, self.frames)
                return
            if self.state != "up":
                self.state = "up"
                self.trouble = None
                height, width = frame.image_bgr.shape[:2]
                _log.info("camera %s: up, %dx%d", self._config.id, width, height)
            self._failures_in_a_row = 0
            self.frames += 1
            if self._config.pace == "lockstep":
                self._waits_for_consumer = True
                self._mailbox.put_wait(frame)
                self._waits_for_consumer = False
            else:
                self._mailbox.put(frame)
        self.state = "stopped"

    def _beat(self) -> None:
        self._beat_s = self._clock.monotonic_s()

    def _go_down(self, err: CameraError) -> None:
        self.errors += 1
        self.trouble = str(err)
        self._failures_in_a_row += 1
        if self.state != "down":
            self.state = "down"
            _log.warning("camera %s: down, trying again: %s", self._config.id, err)

    def _back_off_s(self) -> float:
        doubled_s = _FIRST_BACK_OFF_S * 2.0 ** min(self._failures_in_a_row - 1, 10)
        return min(doubled_s, _LONGEST_BACK_OFF_S) * self._jitter.uniform(0.5, 1.0)

    def _fail(self, err: Exception) -> None:
        self.failure = err
        self.state = "failed"


def _opencv(config: CameraConfig, clock: Clock) -> Camera:
    from agent.camera.opencv import OpencvCamera

    return OpencvCamera(config, clock)


def _synthetic(config: CameraConfig, clock: Clock) -> Camera:
    from agent.camera.synthetic import SyntheticCamera

    return SyntheticCamera(config, clock)


ENGINES: Mapping[str, Callable[[CameraConfig, Clock], Camera]] = {"opencv": _opencv, "synthetic": _synthetic}
