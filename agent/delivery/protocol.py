"""What the per-frame loop sees of delivery."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.delivery.events import CameraState, Event, FrameRef, ObjectState


class Publisher(Protocol):
    """Called from the inference thread; no call waits for the network or raises for its sake."""

    def emit(self, event: Event) -> str:
        """Owe the event to the broker: durable when this returns its id, ``node:epoch:seq``."""

    def publish_detections(self, frame: FrameRef, objects: Sequence[ObjectState]) -> None:
        """Send one frame's objects if the broker is there and the rate allows; else they are counted and forgotten."""

    def set_camera_state(self, camera_id: str, state: CameraState) -> None:
        """Say what a camera sees now; calls that change nothing cost nothing."""
