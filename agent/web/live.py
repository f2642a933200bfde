"""Live pictures of the cameras: the last frame with what was seen in it, as JPEG, once for all who watch."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import cv2

from agent.annotate import annotated

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from agent.web.service import Cameras

_QUALITY = 80


class LivePicture(NamedTuple):
    """A frame as JPEG: its id, the monotonic time of its capture, and the file."""

    frame_id: int
    captured_s: float
    jpeg: bytes


class LivePictures:
    """Used by one thread; the newest picture of each camera and kind is kept for others who want the same."""

    def __init__(self, cameras: Cameras, stream_width: int) -> None:
        self._cameras = cameras
        self._stream_width = stream_width
        self._newest: dict[tuple[str, bool, bool], LivePicture] = {}

    def snapshot(self, camera_id: str, *, boxes: bool) -> LivePicture | None:
        """The last frame in the camera's own size; None while there is none."""
        return self._picture(camera_id, boxes=boxes, scaled=False)

    def streamed(self, camera_id: str, *, boxes: bool) -> LivePicture | None:
        """The same, scaled down to the width of streams."""
        return self._picture(camera_id, boxes=boxes, scaled=True)

    def _picture(self, camera_id: str, *, boxes: bool, scaled: bool) -> LivePicture | None:
        latest = self._cameras.latest(camera_id)
        if latest is None:
            return None
        frame, sighting = latest
        key = (camera_id, boxes, scaled)
        newest = self._newest.get(key)
        if newest is None or newest.captured_s != frame.captured_monotonic_s:
            image = annotated(frame.image_bgr, sighting, self._cameras.labels) if boxes else frame.image_bgr
            jpeg = encode_jpeg(self._fitted(image) if scaled else image)
            newest = self._newest[key] = LivePicture(frame.id, frame.captured_monotonic_s, jpeg)
        return newest

    def _fitted(self, image_bgr: NDArray[np.uint8]) -> NDArray[np.uint8]:
        height, width = image_bgr.shape[:2]
        if width <= self._stream_width:
            return image_bgr
        size_wh = (self._stream_width, max(1, round(height * self._stream_width / width)))
        return cv2.resize(image_bgr, size_wh, interpolation=cv2.INTER_AREA)  # type: ignore[return-value]


def encode_jpeg(image_bgr: NDArray[np.uint8]) -> bytes:
    """A uint8 BGR picture ``[H, W, 3]`` as JPEG."""
    _, encoded = cv2.imencode(".jpg", image_bgr, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return encoded.tobytes()
