"""A camera frame, and the mailbox that keeps only the newest one per camera."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture as the camera gave it; immutable, passed by reference.

    Attributes:
        camera_id: the camera's id in the config.
        id: counts the frames that this camera captured since it was opened, dropped ones included, from 1.
        image_bgr: uint8 ``[height, width, 3]``, BGR, not to be written to.
        captured_monotonic_s: ``time.monotonic()`` when the frame was complete; ages are measured from it.
        captured_at_ms: wall clock at the same moment, Unix milliseconds; only for people and payloads.
        stream_time_s: the source's own clock: a file's position, the monotonic clock of a live camera.
            Tracking uses it, so a video gives the same events at any replay speed.
    """

    camera_id: str
    id: int
    image_bgr: NDArray[np.uint8]
    captured_monotonic_s: float
    captured_at_ms: int
    stream_time_s: float
