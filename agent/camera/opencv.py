"""The ``opencv`` engine: video files, pictures, V4L2 devices, RTSP and HTTP streams."""

from __future__ import annotations

import errno
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

import cv2

from agent.camera.pace import Pacer
from agent.camera.source import kind_of, redact
from agent.errors import CameraError, ConfigError
from agent.frame import Frame

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from agent.clock import Clock
    from agent.config import CameraConfig

    Image = NDArray[np.uint8]

_PASSING_ERRORS = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO, errno.ESTALE}  # not the configuration's fault
_PICTURE_RATE_HZ = 10.0  # a repeated picture
_FALLBACK_RATE_HZ = 25.0  # a video that does not know its own
_STREAMS_THAT_LOOK_LIKE_PICTURES = {".mjpg", ".mjpeg"}  # JPEGs end to end
_TELETYPE = int.from_bytes(b"ansi", "little")  # FFmpeg plays any *.txt as a video of scrolling text


class OpencvCamera:
    """A file, device or address; see `agent.camera.base.Camera`.

    A source that cannot heal by itself (a missing file, one that is no video) raises ConfigError; a device or an
    address that does not answer raises CameraError, without the address's password.
    """

    def __init__(self, config: CameraConfig, clock: Clock) -> None:
        self._config = config
        self._clock = clock
        self._pacer = Pacer(clock) if config.pace == "native" else None
        self._captured = 0
        self._reader: _Reader = _reader_of(config, clock)

    def open(self) -> None:
        """Acquire the source: at most ``open_timeout_s`` for an address; a file's first frame is decoded as a check."""
        _silence_opencv(self._config.read_timeout_s)
        self._reader.open()

    def read(self) -> Frame | None:
        """The next frame, its image read-only, stamped after decoding and pacing; None at the end of a file."""
        taken = self._reader.read()
        if taken is None:
            return None
        image_bgr, stream_time_s = taken
        if stream_time_s is not None and self._pacer is not None:
            self._pacer.wait_until_due(stream_time_s)
        image_bgr.setflags(write=False)
        now_s = self._clock.monotonic_s()
        self._captured += 1
        return Frame(
            camera_id=self._config.id,
            id=self._captured,
            image_bgr=image_bgr,
            captured_monotonic_s=now_s,
            captured_at_ms=self._clock.unix_ms(),
            stream_time_s=now_s if stream_time_s is None else stream_time_s,
        )

    def close(self) -> None:
        """Release the device, connection or file."""
        self._reader.close()


class _Reader(Protocol):
    """Gives images with their time in the stream: None for live sources, whose clock is ours."""

    def open(self) -> None: ...
    def read(self) -> tuple[Image, float | None] | None: ...
    def close(self) -> None: ...


class _Picture:
    """A picture file: one frame, or the same one ten times a second with ``loop``."""

    def __init__(self, path: Path, *, loop: bool) -> None:
        self._path = path
        self._loop = loop
        self._image: Image | None = None
        self._shown = 0

    def open(self) -> None:
        try:
            image = cv2.imread(str(self._path), cv2.IMREAD_COLOR)
        except cv2.error as err:  # a picture beyond OpenCV's size limits
            raise ConfigError(f"{self._path}: expected a picture, OpenCV refuses it ({err.err}); save it anew") from err
        if image is None:
            raise ConfigError(f"{self._path}: expected a picture, it cannot be decoded; save it anew as PNG or JPEG")
        self._image = cast("Image", image)

    def read(self) -> tuple[Image, float | None] | None:
        if self._image is None or (self._shown and not self._loop):
            return None
        self._shown += 1
        return self._image, (self._shown - 1) / _PICTURE_RATE_HZ

    def close(self) -> None:
        self._image = None


class _Video:
    """A video file; with ``loop`` its stream time goes on across the ends."""

    def __init__(self, path: Path, *, loop: bool) -> None:
        self._path = path
        self._loop = loop
        self._capture: cv2.VideoCapture | None = None
        self._first: Image | None = None
        self._start_s = 0.0  # stream time at which this pass through the file began
        self._last_s: float | None = None  # stream time of the last frame
        self._period_s = 0.0

    def open(self) -> None:
        capture = cv2.VideoCapture(str(self._path), cv2.CAP_FFMPEG)
        ok, image = capture.read() if capture.isOpened() else (False, None)
        if not ok or image is None or int(capture.get(cv2.CAP_PROP_FOURCC)) == _TELETYPE:
            capture.release()
            raise ConfigError(
                f"{self._path}: expected a video or a picture, FFmpeg finds no frame in it; "
                "check it with ffprobe or name another file"
            )
        rate_hz = capture.get(cv2.CAP_PROP_FPS)
        self._period_s = 1.0 / rate_hz if 0.01 <= rate_hz <= 1000.0 else 1.0 / _FALLBACK_RATE_HZ
        self._start_s = self._last_s + self._period_s if self._last_s is not None else 0.0
        self._capture, self._first = capture, cast("Image", image)

    def read(self) -> tuple[Image, float | None] | None:
        image = self._next_image()
        if image is None and self._loop and self._capture is not None:
            self.close()
            self.open()
            image = self._next_image()
        if image is None or self._capture is None:
            return None
        # Containers give each frame its time; where one does not, or jumps back, frames are a period apart.
        stream_time_s = self._start_s + self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000.0
        if self._last_s is not None and stream_time_s <= self._last_s:
            stream_time_s = self._last_s + self._period_s
        self._last_s = stream_time_s
        return image, stream_time_s

    def close(self) -> None:
        if self._capture is not None:
            self._capture.release()
        self._capture = self._first = None

    def _next_image(self) -> Image | None:
        if self._first is not None:
            image, self._first = self._first, None
            return image
        ok, image_or_none = self._capture.read() if self._capture is not None else (False, None)
        return cast("Image", image_or_none) if ok else None


class _File:
    """A file that is looked at when it is opened: a picture or a video."""

    def __init__(self, path: Path, *, loop: bool) -> None:
        self._path = path
        self._loop = loop
        self._reader: _Reader | None = None

    def open(self) -> None:
        try:
            with self._path.open("rb"):
                pass
        except OSError as err:
            if err.errno in _PASSING_ERRORS:
                raise CameraError(f"{self._path}: cannot be opened for now: {err.strerror}") from err
            raise ConfigError(
                f"{self._path}: expected a readable video or picture file, got: {err.strerror}; correct the path"
            ) from err
        if self._reader is None:
            is_picture = (
                cv2.haveImageReader(str(self._path))
                and self._path.suffix.lower() not in _STREAMS_THAT_LOOK_LIKE_PICTURES
            )
            self._reader = (_Picture if is_picture else _Video)(self._path, loop=self._loop)
        self._reader.open()

    def read(self) -> tuple[Image, float | None] | None:
        return self._reader.read() if self._reader is not None else None

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()


class _Live:
    """A device or an address: no end, only frames or a CameraError."""

    def __init__(self, config: CameraConfig, clock: Clock) -> None:
        self._config = config
        self._clock = clock
        self._name = redact(config.source)
        self._capture: cv2.VideoCapture | None = None

    def open(self) -> None:
        is_device = kind_of(self._config.source) == "device"
        capture = self._open_device() if is_device else self._open_address()
        if not capture.isOpened():
            capture.release()
            raise CameraError(self._why_device() if is_device else self._why_address())
        self._capture = capture

    def read(self) -> tuple[Image, float | None] | None:
        if self._capture is None:
            raise CameraError(f"{self._name}: expected an open camera, it is closed; open it first")
        started_s = self._clock.monotonic_s()
        ok, image = self._capture.read()
        took_s = self._clock.monotonic_s() - started_s
        # A read that timed out may still say True, with an old frame from FFmpeg's buffer: only its duration tells.
        if took_s >= self._config.read_timeout_s:
            raise CameraError(
                f"{self._name}: expected a frame within {self._config.read_timeout_s:g} s, waited {took_s:.1f} s; "
                "check the camera and its network, or raise read_timeout_s"
            )
        if not ok or image is None:
            raise CameraError(f"{self._name}: expected a frame, the stream ended; check that the camera still runs")
        return cast("Image", image), None

    def close(self) -> None:
        if self._capture is not None:
            self._capture.release()
            self._capture = None

    def _open_device(self) -> cv2.VideoCapture:
        capture = cv2.VideoCapture(self._config.source, cv2.CAP_V4L2)
        # MJPG first: uncompressed 720p does not fit USB 2 at 30 Hz. A driver that lacks a setting keeps its own.
        capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG"))
        settings = (
            (cv2.CAP_PROP_FRAME_WIDTH, self._config.width),
            (cv2.CAP_PROP_FRAME_HEIGHT, self._config.height),
            (cv2.CAP_PROP_FPS, self._config.fps),
            (cv2.CAP_PROP_BUFFERSIZE, 1),  # a queue in the driver would only make frames older
        )
        for setting, value in settings:
            if value is not None:
                capture.set(setting, value)
        return capture

    def _open_address(self) -> cv2.VideoCapture:
        limits_ms = [
            cv2.CAP_PROP_OPEN_TIMEOUT_MSEC,
            math.ceil(self._config.open_timeout_s * 1000),
            cv2.CAP_PROP_READ_TIMEOUT_MSEC,
            math.ceil(self._config.read_timeout_s * 1000),
        ]
        return cv2.VideoCapture(self._config.source, cv2.CAP_FFMPEG, limits_ms)

    def _why_device(self) -> str:
        device = Path(self._config.source)
        if not device.exists():
            return f"{device}: expected a V4L2 camera, there is no such device; plug it in or correct the source"
        if not os.access(device, os.R_OK | os.W_OK):
            return f'{device}: expected a V4L2 camera, access is denied; add the user to the group "video"'
        return f"{device}: expected a V4L2 camera, it gives no pictures or is in use; v4l2-ctl --list-devices shows all"

    def _why_address(self) -> str:
        return (
            f"{self._name}: expected a video stream within {self._config.open_timeout_s:g} s, none came; "
            "check the address, user and password, and that the camera runs"
        )


def _reader_of(config: CameraConfig, clock: Clock) -> _Reader:
    if kind_of(config.source) == "file":
        return _File(Path(config.source), loop=config.loop)
    return _Live(config, clock)


def _silence_opencv(read_timeout_s: float) -> None:
    """Keep OpenCV and FFmpeg from writing to standard error, passwords included; what matters is raised.

    Both, and V4L2's own limit for one frame (10 s otherwise), are process-wide and read at the first capture.
    """
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    os.environ.setdefault("OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT", str(math.ceil(read_timeout_s)))
