"""The per-frame loop: frames become detections, events and states, in this order."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from agent.delivery.events import CameraState, ClassState, Event, FrameRef, ObjectState
from agent.errors import FatalError
from agent.frame import Frame, Mailbox
from agent.model.manifest import Manifest
from agent.model.session import Session, SessionOptions
from agent.pipeline import Pipeline
from agent.tasks import ObjectWatcher, Sighting
from agent.turns import Turns
from agent.vision.decode import Thresholds
from agent.vision.detections import Detections
from agent.vision.resize import Placement, Resizer
from agent.vision.track import TrackRules
from tests.support.bundles import MODEL_PATH, manifest_of
from tests.support.delivery import ManualClock
from tests.support.tiny_models import detect_model

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

LONG_S = 30.0
INFERENCE_S = 0.25
CAT = ObjectState(7, "cat", 0.9, (0.1, 0.2, 0.3, 0.4))


class RecordingPublisher:
    """Remembers what it is given, in order: a word and the value."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []

    def emit(self, event: Event) -> str:
        self.calls.append(("event", event))
        return f"node:epoch:{self.words.count('event')}"

    def publish_detections(self, frame: FrameRef, objects: Sequence[ObjectState]) -> None:
        self.calls.append(("detections", (frame, objects)))

    def set_camera_state(self, camera_id: str, state: CameraState) -> None:
        self.calls.append(("state", (camera_id, state)))

    @property
    def words(self) -> list[str]:
        return [word for word, _ in self.calls]

    @property
    def events(self) -> list[Event]:
        return [value for word, value in self.calls if word == "event"]


class TimedSession:
    """A session that takes a quarter of a second of the test's clock, or fails."""

    def __init__(self, clock: ManualClock, failure: Exception | None = None) -> None:
        self._clock, self._failure = clock, failure

    def run(self) -> Mapping[str, NDArray[Any]]:
        self._clock.now_s += INFERENCE_S
        if self._failure is not None:
            raise self._failure
        return {}


class EventfulWatcher:
    """Sees a cat in each frame, tells an event of it, and ends it at last; knows which frames it saw."""

    def __init__(self) -> None:
        self.frames: list[int] = []

    def see(self, outputs: Mapping[str, NDArray[Any]], placement: Placement, frame: Frame) -> Sighting:
        self.frames.append(frame.id)
        return Sighting(
            objects=[CAT],
            present={"cat": 1},
            events=[event("new", frame.camera_id)],
            detections=Detections.empty(),
        )

    def finish(self) -> Sequence[Event]:
        return [event("end")]


def event(kind: Any, camera_id: str = "door") -> Event:
    return Event(kind, FrameRef(camera_id, 1, 64, 48, 0), object=CAT)


def frame(number: int, camera_id: str = "door", brightness: int = 0, captured_s: float = 999.0) -> Frame:
    image = np.full((48, 64, 3), brightness, np.uint8)
    return Frame(camera_id, number, image, captured_s, 1_700_000_000_000, number / 10)


def place(image_bgr: NDArray[np.uint8]) -> Placement:
    return Placement((1.0, 1.0), (0.0, 0.0), (64, 48), (64, 48))


class Bench:
    """A pipeline with everything around it made for the test."""

    def __init__(self, *cameras: str, detections_enabled: bool = True, failure: Exception | None = None) -> None:
        cameras = cameras or ("door",)
        self.clock = ManualClock()
        self.mailbox = Mailbox(cameras)
        self.publisher = RecordingPublisher()
        self.watchers = {camera: EventfulWatcher() for camera in cameras}
        self.pipeline = Pipeline(
            TimedSession(self.clock, failure),  # type: ignore[arg-type] # only run is used
            place,  # type: ignore[arg-type] # a resizer is called with the image
            Turns(self.clock.monotonic_s),
            self.mailbox,
            self.watchers,
            self.publisher,
            self.clock,
            detections_enabled=detections_enabled,
        )

    def run_to_the_end(self) -> None:
        for camera in self.watchers:
            self.mailbox.finish(camera)
        self.pipeline.run()


def test_a_frames_detections_go_before_its_events_and_those_before_the_state() -> None:
    bench = Bench()
    sighting = bench.pipeline.process(frame(1))
    assert bench.publisher.words == ["detections", "event", "state"]
    assert bench.publisher.calls[0][1] == (FrameRef("door", 1, 64, 48, 1_700_000_000_000), [CAT])
    assert bench.publisher.calls[2][1] == ("door", CameraState("up", {"cat": 1}, None))
    assert sighting.objects == [CAT]


def test_detections_are_published_only_when_wanted() -> None:
    bench = Bench(detections_enabled=False)
    bench.pipeline.process(frame(1))
    assert bench.publisher.words == ["event", "state"]


def test_the_end_of_all_sources_ends_the_loop_and_closes_what_is_open() -> None:
    bench = Bench()
    bench.mailbox.put(frame(1))
    bench.run_to_the_end()
    assert [each.type for each in bench.publisher.events] == ["new", "end"]


def test_a_stop_ends_the_loop_and_closes_what_is_open_but_takes_no_further_frame() -> None:
    bench = Bench()
    bench.mailbox.put(frame(1))
    bench.pipeline.stop()
    bench.pipeline.run()
    assert bench.watchers["door"].frames == []
    assert [each.type for each in bench.publisher.events] == ["end"]
    bench.mailbox.put(frame(2))
    assert bench.mailbox.dropped == {"door": 1}, "and a camera that goes on is not kept waiting"


def test_a_stop_wakes_a_loop_that_waits_for_frames() -> None:
    bench = Bench()
    thread = threading.Thread(target=bench.pipeline.run)
    thread.start()
    bench.pipeline.stop()
    thread.join(LONG_S)
    assert not thread.is_alive()


def test_each_camera_has_its_own_watcher_and_figures() -> None:
    bench = Bench("door", "yard")
    for each in (frame(1, "door"), frame(1, "yard"), frame(2, "door")):
        bench.pipeline.process(each)
    assert (bench.watchers["door"].frames, bench.watchers["yard"].frames) == ([1, 2], [1])
    assert {camera: stats.frames for camera, stats in bench.pipeline.stats.items()} == {"door": 2, "yard": 1}


def test_figures_tell_age_at_the_start_of_inference_and_its_duration() -> None:
    bench = Bench()
    bench.pipeline.process(frame(1, captured_s=bench.clock.now_s - 0.04))
    stats = bench.pipeline.stats["door"]
    assert stats.frame_age_s == pytest.approx(0.04)
    assert stats.inference_s == pytest.approx(INFERENCE_S)


def test_every_event_is_counted_and_logged_with_its_id_those_at_the_end_too(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "agent.pipeline")
    bench = Bench()
    bench.mailbox.put(frame(1))
    bench.run_to_the_end()
    assert bench.pipeline.stats["door"].events.total() == 2
    assert caplog.messages == [
        "event new cat #7 id=node:epoch:1 camera=door",
        "event end cat #7 id=node:epoch:2 camera=door",
    ]


def test_a_changed_class_is_logged_by_its_name(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "agent.pipeline")
    bench = Bench()
    changed = Event("changed", FrameRef("door", 1, 64, 48, 0), class_=ClassState("red", 0.5))
    bench.watchers["door"].see = lambda *_: Sighting(events=[changed])  # type: ignore[method-assign]
    bench.pipeline.process(frame(1))
    assert caplog.messages == ["event changed red id=node:epoch:1 camera=door"]
    assert bench.publisher.words == ["event", "state"], "a class is no detection"


def test_the_first_results_time_is_kept() -> None:
    bench = Bench()
    assert bench.pipeline.first_result_s is None
    bench.pipeline.process(frame(1))
    first_s = bench.pipeline.first_result_s
    assert first_s == bench.clock.now_s
    bench.pipeline.process(frame(2))
    assert bench.pipeline.first_result_s == first_s < bench.clock.now_s


def test_the_heart_beats_while_no_frame_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    beats: list[float] = []

    def take(timeout_s: float) -> None:
        assert timeout_s <= 1.0, "the loop must turn often enough for a watchdog"
        beats.append(bench.pipeline.heartbeat_s)
        bench.clock.now_s += timeout_s
        if len(beats) == 3:
            bench.pipeline.stop()

    monkeypatch.setattr(bench.mailbox, "take", take)
    bench.pipeline.run()
    assert len(beats) == 3
    assert beats == sorted(set(beats)), "each turn has its beat"


def test_a_failing_model_ends_the_loop_with_its_error() -> None:
    bench = Bench(failure=FatalError("inference failed"))
    bench.mailbox.put(frame(1))
    with pytest.raises(FatalError, match="inference failed"):
        bench.run_to_the_end()
    assert bench.publisher.calls == []


def test_a_real_model_sees_objects_come_and_go() -> None:
    """White frames show a cat, a dog and another cat (the tiny model's boxes), black ones nothing."""
    tiny = detect_model()
    manifest = Manifest.model_validate(manifest_of(tiny, {MODEL_PATH: tiny.file, "golden/cpu-fp32.npz": b""}))
    variant = manifest.variants[0]
    session = Session(tiny.file, "detect", variant, SessionOptions())
    bench = Bench()
    rules = TrackRules(least_iou=0.3, confirm_frames=2, lost_after_s=0.25, update_interval_s=60.0)
    pipeline = Pipeline(
        session,
        Resizer(variant.input, session.input_image),
        Turns(bench.clock.monotonic_s),
        bench.mailbox,
        {"door": ObjectWatcher(tiny.labels, Thresholds(0.5, 0.5, 10), rules)},
        bench.publisher,
        bench.clock,
        detections_enabled=False,
    )
    brightnesses = [0, 0, 255, 255, 255, 0, 0, 0, 0, 255, 255]
    for number, brightness in enumerate(brightnesses, start=1):
        pipeline.process(frame(number, brightness=brightness))
    told = [(each.type, each.frame.id, each.object.label) for each in bench.publisher.events if each.object is not None]
    assert told == [
        *(("new", 4, label) for label in ("cat", "dog", "cat")),
        *(("end", 8, label) for label in ("cat", "dog", "cat")),
        *(("new", 11, label) for label in ("cat", "dog", "cat")),
    ]
    states = [value[1].counts for word, value in bench.publisher.calls if word == "state"]
    assert states[3] == {"cat": 2, "dog": 1}
    assert states[7] == {}
