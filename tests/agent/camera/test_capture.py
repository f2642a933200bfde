"""The capture thread: reopens what may heal, hands over what cannot, and always says when it has ended."""

from __future__ import annotations

import logging
import random
import threading
from typing import TYPE_CHECKING

import numpy as np
import pytest

from agent.camera.capture import ENGINES, Capture, make_camera
from agent.camera.opencv import OpencvCamera
from agent.camera.synthetic import SyntheticCamera
from agent.clock import SystemClock
from agent.config import CameraConfig
from agent.errors import CameraError, ConfigError
from agent.frame import Frame, Mailbox

if TYPE_CHECKING:
    from collections.abc import Sequence

LONG = 10.0  # a limit that only a broken capture reaches
JITTER = random.Random(1)  # noqa: S311 spreads reconnections, no secret
IMAGE = np.zeros((48, 64, 3), np.uint8)


class EndlessWaitsAreShort:
    """A clock on which every wait is noted and over at once, until it is interrupted."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.waits_s: list[float] = []
        self.interrupted = threading.Event()

    def monotonic_s(self) -> float:
        return self.now_s

    def unix_ms(self) -> int:
        return round(self.now_s * 1000)

    def wait(self, duration_s: float) -> bool:
        self.waits_s.append(duration_s)
        self.now_s += duration_s
        return self.interrupted.is_set()

    def interrupt(self) -> None:
        self.interrupted.set()


class ScriptedCamera:
    """Does as its script says: a number is so many frames, an exception is raised, ``open`` errors come first.

    After the script it ends, or (``then_blocks``) its read hangs until it is let go.
    """

    def __init__(
        self, script: Sequence[int | Exception], opening: Sequence[Exception | None] = (), *, then_blocks: bool = False
    ) -> None:
        self.opened = 0
        self.closed = 0
        self.blocking = threading.Event()
        self.let_go = threading.Event()
        self._steps: list[Exception | None] = []
        for step in script:
            self._steps += [None] * step if isinstance(step, int) else [step]
        self._opening = list(opening)
        self._then_blocks = then_blocks
        self._captured = 0

    def open(self) -> None:
        self.opened += 1
        if self._opening and (err := self._opening.pop(0)) is not None:
            raise err

    def read(self) -> Frame | None:
        if not self._steps:
            if self._then_blocks:
                self.blocking.set()
                self.let_go.wait(LONG)
            return None
        step = self._steps.pop(0)
        if step is not None:
            raise step
        self._captured += 1
        return Frame("c", self._captured, IMAGE, 0.0, 0, 0.0)

    def close(self) -> None:
        self.closed += 1


def capture_of(
    camera: ScriptedCamera, mailbox: Mailbox | None = None, **keys: object
) -> tuple[Capture, Mailbox, EndlessWaitsAreShort]:
    config = CameraConfig.model_validate({"id": "c", "source": "v.mp4", **keys})
    clock = EndlessWaitsAreShort()
    mailbox = mailbox or Mailbox(["c"])
    return Capture(config, camera, mailbox, clock, JITTER), mailbox, clock


def run_to_the_end(capture: Capture) -> None:
    capture.start()
    capture._thread.join(LONG)
    assert not capture._thread.is_alive()


def test_all_frames_reach_the_mailbox_and_the_end_is_told() -> None:
    camera = ScriptedCamera([5])
    capture, mailbox, _ = capture_of(camera)
    run_to_the_end(capture)
    assert (capture.state, capture.frames, capture.errors, capture.failure) == ("ended", 5, 0, None)
    newest = mailbox.take(0)
    assert newest is not None
    assert newest.id == 5
    assert mailbox.dropped == {"c": 4}
    assert mailbox.exhausted
    assert (camera.opened, camera.closed) == (1, 1)


def test_in_lockstep_no_frame_is_dropped() -> None:
    capture, mailbox, _ = capture_of(ScriptedCamera([50]), pace="lockstep")
    capture.start()
    taken = []
    while (frame := mailbox.take(LONG)) is not None:
        taken.append(frame.id)
    assert taken == list(range(1, 51))
    assert mailbox.dropped == {"c": 0}
    assert capture.stop(LONG)


def test_a_camera_that_fails_is_reopened_until_it_works() -> None:
    camera = ScriptedCamera([2, CameraError("gone"), 3], opening=[CameraError("no"), CameraError("no"), None])
    capture, _, _ = capture_of(camera)
    run_to_the_end(capture)
    assert (capture.state, capture.frames, capture.errors) == ("ended", 5, 3)
    assert camera.opened == camera.closed == 4


def test_the_back_off_doubles_up_to_five_seconds_with_jitter() -> None:
    capture, _, clock = capture_of(ScriptedCamera([1], opening=[CameraError("no")] * 7))
    run_to_the_end(capture)
    limits_s = [0.5, 1.0, 2.0, 4.0, 5.0, 5.0, 5.0]
    assert len(clock.waits_s) == 7
    assert all(limit / 2 <= waited <= limit for waited, limit in zip(clock.waits_s, limits_s, strict=True))
    assert len(set(clock.waits_s)) == 7


def test_a_frame_resets_the_back_off() -> None:
    gone = CameraError("gone")
    script: list[int | Exception] = [gone, gone, gone, 1, gone]
    capture, _, clock = capture_of(ScriptedCamera(script))
    run_to_the_end(capture)
    assert clock.waits_s[-1] <= 0.5 < clock.waits_s[-2]


def test_only_changes_of_state_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    script: list[int | Exception] = [20, CameraError("gone"), CameraError("gone"), CameraError("gone"), 20]
    run_to_the_end(capture_of(ScriptedCamera(script))[0])
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("INFO", "camera c: up, 64x48"),
        ("WARNING", "camera c: down, trying again: gone"),
        ("INFO", "camera c: up, 64x48"),
        ("INFO", "camera c: its source has ended after 40 frames"),
    ]


@pytest.mark.parametrize(
    ("failure", "is_a_bug"), [(ConfigError("v.mp4: no video"), False), (RuntimeError("a bug"), True)]
)
def test_what_cannot_heal_is_handed_to_the_supervisor(
    failure: Exception, is_a_bug: bool, caplog: pytest.LogCaptureFixture
) -> None:
    camera = ScriptedCamera([1], opening=[failure])
    capture, mailbox, clock = capture_of(camera)
    run_to_the_end(capture)
    assert capture.failure is failure
    assert capture.state == "failed"
    assert mailbox.exhausted
    assert camera.opened == camera.closed == 1
    assert clock.waits_s == []
    # An error of ours the supervisor tells; of a bug it could only tell the last line.
    assert [bool(record.exc_info) for record in caplog.records if record.levelno == logging.ERROR] == [True] * is_a_bug


def test_a_stop_ends_a_back_off_at_once() -> None:
    camera = ScriptedCamera([1], opening=[CameraError("no")] * 1000)
    config = CameraConfig.model_validate({"id": "c", "source": "v.mp4"})
    mailbox = Mailbox(["c"])
    capture = Capture(config, camera, mailbox, SystemClock(), JITTER)
    capture.start()
    assert capture.stop(LONG)
    assert capture.state == "stopped"
    assert mailbox.exhausted


def test_a_stop_wakes_a_capture_in_lockstep_whose_consumer_has_gone() -> None:
    mailbox = Mailbox(["c"])
    capture, _, _ = capture_of(ScriptedCamera([1_000_000]), mailbox, pace="lockstep")
    capture.start()
    assert mailbox.take(LONG) is not None
    assert capture.stop(LONG)
    assert capture.state == "stopped"


def test_a_camera_that_ends_because_of_the_stop_counts_as_stopped() -> None:
    camera = ScriptedCamera([1], then_blocks=True)
    capture, _, _ = capture_of(camera)
    capture.start()
    assert camera.blocking.wait(LONG)
    assert not capture.stop(0.01), "it hangs in the driver"
    camera.let_go.set()
    assert capture.stop(LONG)
    assert capture.state == "stopped"


def test_the_heartbeat_stands_still_only_while_the_driver_hangs() -> None:
    camera = ScriptedCamera([3], then_blocks=True)
    capture, _, clock = capture_of(camera)
    assert capture.heartbeat_s == clock.now_s, "not yet started"
    capture.start()
    assert camera.blocking.wait(LONG)
    clock.now_s += 60.0
    assert clock.now_s - capture.heartbeat_s == 60.0 > capture.heartbeat_limit_s
    camera.let_go.set()
    assert capture.stop(LONG)
    assert capture.heartbeat_s == clock.now_s


def test_waiting_for_the_consumer_is_no_hang() -> None:
    third_frame_came = threading.Event()

    class TellingMailbox(Mailbox):
        def put_wait(self, frame: Frame) -> bool:
            if frame.id == 3:
                third_frame_came.set()
            return super().put_wait(frame)

    mailbox = TellingMailbox(["c"])
    capture, _, clock = capture_of(ScriptedCamera([3]), mailbox, pace="lockstep")
    capture.start()
    assert mailbox.take(LONG) is not None  # the second frame takes its place, the third waits
    assert third_frame_came.wait(LONG)
    clock.now_s += 60.0
    assert capture.heartbeat_s == clock.now_s
    assert capture.stop(LONG)


@pytest.mark.parametrize(
    ("keys", "limit_s"),
    [
        ({}, 15.0),  # opening may take 10 s
        ({"read_timeout_s": 30.0}, 35.0),
        ({"open_timeout_s": 1.0, "read_timeout_s": 1.0}, 10.0),  # the longest back-off
        ({"fps": 0.02}, 55.0),  # a frame every 50 s
    ],
)
def test_the_heartbeats_limit_follows_the_cameras_own_limits(keys: dict[str, object], limit_s: float) -> None:
    assert capture_of(ScriptedCamera([]), None, **keys)[0].heartbeat_limit_s == limit_s


def test_the_table_of_engines_is_that_of_the_configuration() -> None:
    engine = CameraConfig.model_fields["engine"].annotation
    assert set(ENGINES) == set(engine.__args__)  # type: ignore[union-attr] # a Literal


@pytest.mark.parametrize(
    ("keys", "made"), [({"source": "v.mp4"}, OpencvCamera), ({"engine": "synthetic"}, SyntheticCamera)]
)
def test_a_camera_is_made_by_its_engine_without_touching_the_source(keys: dict[str, object], made: type) -> None:
    assert isinstance(make_camera(CameraConfig.model_validate({"id": "c", **keys}), SystemClock()), made)
