"""The per-frame loop: a frame becomes detections and events. Read it from top to bottom.

mailbox -> a turn -> resize into the bound input -> session -> watcher (decode, track) -> detections, events, state
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agent.tasks import frame_ref

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agent.clock import Clock
    from agent.delivery.events import Event
    from agent.delivery.protocol import Publisher
    from agent.frame import Frame, Mailbox
    from agent.model.session import Session
    from agent.tasks import Sighting, Watcher
    from agent.turns import Turns
    from agent.vision.resize import Resizer

log = logging.getLogger(__name__)

_TAKE_TIMEOUT_S = 0.5  # the loop's heartbeat while no frame comes


@dataclass(slots=True)
class FrameStats:
    """Running figures of one camera; written by the inference thread, read by anyone.

    Attributes:
        frames: frames that went through the model.
        frame_age_s: from capture to the start of inference, last frame.
        inference_s: ``session.run`` alone, last frame.
        inference_total_s: the same, of all frames.
        events: events emitted, by type.
        detections: objects seen in frames, by label.
    """

    frames: int = 0
    frame_age_s: float = 0.0
    inference_s: float = 0.0
    inference_total_s: float = 0.0
    events: Counter[str] = field(default_factory=Counter)
    detections: Counter[str] = field(default_factory=Counter)


class Pipeline:
    """Takes frames from the mailbox and gives what they show to the publisher, on one thread.

    Args:
        session: the active model.
        resizer: writes into the session's input buffer.
        turns: who else uses the session waits for the cameras.
        mailbox: where the cameras leave their frames.
        watchers: one for each camera id.
        publisher: takes events, detections and states.
        detections_enabled: whether every frame's detections are published (a classifier has none).
        clock: measures ages.

    Attributes:
        stats: figures by camera id.
        latest: the last frame of each camera and what it shows, by camera id.
        heartbeat_s: monotonic time of the last turn of the loop.
        first_result_s: monotonic time of the first result, None before.
    """

    def __init__(
        self,
        session: Session,
        resizer: Resizer,
        turns: Turns,
        mailbox: Mailbox,
        watchers: Mapping[str, Watcher],
        publisher: Publisher,
        clock: Clock,
        *,
        detections_enabled: bool,
    ) -> None:
        self.stats = {camera_id: FrameStats() for camera_id in watchers}
        self.latest: dict[str, tuple[Frame, Sighting]] = {}
        self.heartbeat_s = clock.monotonic_s()
        self.first_result_s: float | None = None
        self._session = session
        self._resizer = resizer
        self._turns = turns
        self._mailbox = mailbox
        self._watchers = watchers
        self._publisher = publisher
        self._detections_enabled = detections_enabled
        self._clock = clock
        self._stopping = False

    def run(self) -> None:
        """Process frames until every camera has finished or `stop` was called, then close what is open."""
        while not self._stopping and not self._mailbox.exhausted:
            self.heartbeat_s = self._clock.monotonic_s()
            frame = self._mailbox.take(_TAKE_TIMEOUT_S)
            if frame is not None:
                self.process(frame)
        for watcher in self._watchers.values():
            self._emit(watcher.finish())

    def stop(self) -> None:
        """Let `run` end after the frame in hand; call from any thread."""
        self._stopping = True
        self._mailbox.close()

    def process(self, frame: Frame) -> Sighting:
        """One frame through the model and out; returns what it shows."""
        with self._turns.camera(frame.camera_id, frame.captured_monotonic_s):
            placement = self._resizer(frame.image_bgr)
            started_s = self._clock.monotonic_s()
            outputs = self._session.run()
            finished_s = self._clock.monotonic_s()
            sighting = self._watchers[frame.camera_id].see(outputs, placement, frame)
        if self._detections_enabled and sighting.detections is not None:
            self._publisher.publish_detections(frame_ref(frame), sighting.objects)
        self._emit(sighting.events)
        self._publisher.set_camera_state(frame.camera_id, sighting.camera_state)
        self._count(frame, sighting, started_s, finished_s)
        self.latest[frame.camera_id] = (frame, sighting)
        return sighting

    def _emit(self, events: Sequence[Event]) -> None:
        for event in events:
            event_id = self._publisher.emit(event)
            self.stats[event.frame.camera_id].events[event.type] += 1
            log.info("event %s %s id=%s camera=%s", event.type, _subject(event), event_id, event.frame.camera_id)

    def _count(self, frame: Frame, sighting: Sighting, started_s: float, finished_s: float) -> None:
        if self.first_result_s is None:
            self.first_result_s = self._clock.monotonic_s()
        stats = self.stats[frame.camera_id]
        stats.frames += 1
        stats.frame_age_s = started_s - frame.captured_monotonic_s
        stats.inference_s = finished_s - started_s
        stats.inference_total_s += finished_s - started_s
        for each in sighting.objects:
            stats.detections[each.label] += 1


def _subject(event: Event) -> str:
    if event.object is not None:
        return f"{event.object.label} #{event.object.id}"
    if event.class_ is not None:
        return event.class_.label
    return next(iter(event.areas), "")
