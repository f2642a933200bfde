"""A publisher without a broker: prints each message as a line ``topic payload``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from agent.delivery.payload import (
    encode_camera_state,
    encode_detections,
    encode_event,
    encode_info,
    encode_telemetry,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import TextIO

    from agent.clock import Clock
    from agent.delivery.events import CameraState, Event, FrameRef, ObjectState
    from agent.delivery.payload import Origin
    from agent.delivery.topics import Topics


class DryRunPublisher:
    """Shows what would be published; ids carry the epoch ``dry-run``."""

    def __init__(
        self,
        topics: Topics,
        origin: Origin,
        *,
        node: str,
        is_clock_synced: Callable[[], bool],
        clock: Clock,
        out: TextIO | None = None,
    ) -> None:
        self._topics, self._origin, self._node = topics, origin, node
        self._is_clock_synced, self._clock = is_clock_synced, clock
        self._out = out
        self._seq = 0
        self._camera_states: dict[str, CameraState] = {}

    def emit(self, event: Event) -> str:
        """Print the event; returns its id."""
        self._seq += 1
        event_id = f"{self._node}:dry-run:{self._seq}"
        payload = encode_event(event, event_id, self._origin, clock_synced=self._is_clock_synced())
        self._print(self._topics.events(event.frame.camera_id), payload)
        return event_id

    def publish_detections(self, frame: FrameRef, objects: Sequence[ObjectState]) -> None:
        """Print one frame's objects."""
        payload = encode_detections(frame, objects, self._origin, clock_synced=self._is_clock_synced())
        self._print(self._topics.detections(frame.camera_id), payload)

    def set_camera_state(self, camera_id: str, state: CameraState) -> None:
        """Print a camera's state when it changes."""
        if self._camera_states.get(camera_id) == state:
            return
        self._camera_states[camera_id] = state
        self._print(self._topics.camera_state(camera_id), encode_camera_state(state, self._clock.unix_ms()))

    def set_info(self, info: Mapping[str, object]) -> None:
        """Print the facts about this agent."""
        self._print(self._topics.info, encode_info(info))

    def publish_telemetry(self, values: Mapping[str, float]) -> None:
        """Print flat numbers."""
        self._print(self._topics.telemetry, encode_telemetry(values))

    def counts(self) -> dict[str, int]:
        """Nothing is delivered, so nothing is counted."""
        return {}

    def start(self) -> None:
        """There is nothing to connect to."""

    def wait_until_online(self, timeout_s: float) -> bool:
        """There is nothing to wait for."""
        return True

    def stop(self, timeout_s: float) -> bool:
        """There is nothing to flush."""
        return True

    def _print(self, topic: str, payload: bytes) -> None:
        print(topic, payload.decode(), file=self._out or sys.stdout, flush=True)
