"""A camera frame, and the mailbox that keeps only the newest one per camera."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture as the camera gave it; immutable, passed by reference.

    Attributes:
        camera_id: the camera's id in the config.
        id: counts the frames that this camera captured, dropped ones included, from 1; goes on after a reopening.
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


class Mailbox:
    """One slot per camera; the newest frame wins and every frame that nobody took is counted as dropped.

    Any number of cameras put, one consumer takes, each from its own thread. The cameras take turns: a fast one cannot
    starve a slow one. At all times ``frames put == frames taken + frames dropped + frames waiting``.
    """

    def __init__(self, camera_ids: Iterable[str]) -> None:
        self._dropped = dict.fromkeys(camera_ids, 0)
        self._running = set(self._dropped)
        self._waiting: OrderedDict[str, Frame] = OrderedDict()  # in the order in which their cameras' turns come
        self._closed = False
        self._changed = threading.Condition()

    @property
    def dropped(self) -> dict[str, int]:
        """Frames dropped so far, by camera id."""
        with self._changed:
            return dict(self._dropped)

    @property
    def exhausted(self) -> bool:
        """Whether every camera has finished and no frame waits: nothing will ever come again."""
        with self._changed:
            return self._is_exhausted()

    def put(self, frame: Frame) -> None:
        """Leave a frame, replacing (and counting) one that still waits; never blocks."""
        with self._changed:
            if self._accepts(frame.camera_id):
                self._leave(frame)
            else:
                self._dropped[frame.camera_id] += 1

    def put_wait(self, frame: Frame) -> bool:
        """Leave a frame once its slot is empty; False, with the frame dropped, when its camera finished instead."""
        camera_id = frame.camera_id
        with self._changed:
            self._changed.wait_for(lambda: camera_id not in self._waiting or not self._accepts(camera_id))
            accepted = self._accepts(camera_id)
            if accepted:
                self._leave(frame)
            else:
                self._dropped[camera_id] += 1
            return accepted

    def take(self, timeout_s: float) -> Frame | None:
        """The frame whose camera's turn it is; None after the timeout, when exhausted, or when closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed or self._is_exhausted(), timeout_s)
            if self._closed or not self._waiting:
                return None
            _, frame = self._waiting.popitem(last=False)
            self._changed.notify_all()
            return frame

    def finish(self, camera_id: str) -> None:
        """Say that this camera gives no more frames; one that waits can still be taken, later ones are dropped."""
        with self._changed:
            self._running.discard(camera_id)
            self._changed.notify_all()

    def close(self) -> None:
        """Wake everybody, for good: takers get None, frames put from now on are dropped."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _accepts(self, camera_id: str) -> bool:
        return camera_id in self._running and not self._closed

    def _is_exhausted(self) -> bool:
        return not self._running and not self._waiting

    def _leave(self, frame: Frame) -> None:
        if frame.camera_id in self._waiting:
            self._dropped[frame.camera_id] += 1
        self._waiting[frame.camera_id] = frame  # a replaced frame keeps its camera's turn
        self._changed.notify_all()
