"""What a camera is; the table of engines is in ``agent/camera/capture.py``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from agent.frame import Frame


class Camera(Protocol):
    """A source of frames, built as ``Engine(config: CameraConfig, clock: Clock)``; building it touches nothing.

    One thread calls ``open``, then ``read`` until it returns None or raises, then ``close``; and may begin again with
    ``open``, whose frame ids and stream times then go on from the last ones. No two calls overlap.
    """

    def open(self) -> None:
        """Acquire the source; CameraError when it may heal, ConfigError when it cannot (missing, undecodable)."""
        ...

    def read(self) -> Frame | None:
        """Block until the next frame is due by the config's pace; None: ended or interrupted; CameraError: reopen.

        Waiting is done with ``clock.wait`` so that a stop ends it early; ``image_bgr`` is read-only and never reused.
        """
        ...

    def close(self) -> None:
        """Release the source; harmless when it is not open."""
        ...
