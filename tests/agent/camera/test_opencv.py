"""The opencv engine on real files, real sockets, and a stand-in for V4L2."""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest

from agent.camera.opencv import OpencvCamera
from agent.clock import SystemClock
from agent.config import CameraConfig
from agent.errors import CameraError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.frame import Frame

RATE_HZ = 10.0
FRAMES = 5
STEP = 40  # each frame of the test video is brighter by so much


class SteppedClock:
    """A clock that only a wait moves on."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.interrupted = False

    def monotonic_s(self) -> float:
        return self.now_s

    def unix_ms(self) -> int:
        return round(self.now_s * 1000)

    def wait(self, duration_s: float) -> bool:
        if not self.interrupted:
            self.now_s += duration_s
        return self.interrupted

    def interrupt(self) -> None:
        self.interrupted = True


def camera(source: Path | str, clock: SteppedClock | SystemClock | None = None, **keys: object) -> OpencvCamera:
    return OpencvCamera(
        CameraConfig.model_validate({"id": "c", "source": str(source), **keys}), clock or SteppedClock()
    )


def read_all(source: OpencvCamera, at_most: int = 100) -> list[Frame]:
    source.open()
    frames = list(itertools.islice(iter(source.read, None), at_most))
    source.close()
    return frames


@pytest.fixture(params=[("mp4v", "mp4"), ("MJPG", "avi")], ids=["mp4", "avi"])
def video(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    codec, suffix = request.param
    return write_video(tmp_path / f"video.{suffix}", codec)


def write_video(path: Path, codec: str = "mp4v", size_wh: tuple[int, int] = (64, 48)) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), RATE_HZ, size_wh)
    for number in range(FRAMES):
        writer.write(np.full((size_wh[1], size_wh[0], 3), number * STEP, np.uint8))
    writer.release()
    return path


def test_every_frame_of_a_video_is_given_in_order(video: Path) -> None:
    frames = read_all(camera(video, pace="max"))
    assert [frame.id for frame in frames] == [1, 2, 3, 4, 5]
    assert all(frame.camera_id == "c" for frame in frames)
    assert all(frame.image_bgr.shape == (48, 64, 3) and frame.image_bgr.dtype == np.uint8 for frame in frames)
    brightness = [float(frame.image_bgr.mean()) for frame in frames]
    assert np.allclose(brightness, np.arange(FRAMES) * STEP, atol=4)
    assert np.allclose([frame.stream_time_s for frame in frames], np.arange(FRAMES) / RATE_HZ, atol=1e-3)


def test_frames_cannot_be_written_to_and_are_never_reused(video: Path) -> None:
    first, second, *_ = read_all(camera(video, pace="max"))
    with pytest.raises(ValueError, match="read-only"):
        first.image_bgr[0, 0] = 0
    assert not np.shares_memory(first.image_bgr, second.image_bgr)


@pytest.mark.parametrize(("pace", "took_s"), [("native", 0.4), ("max", 0.0), ("lockstep", 0.0)])
def test_only_the_native_pace_holds_a_video_to_real_time(pace: str, took_s: float, tmp_path: Path) -> None:
    clock = SteppedClock()
    frames = read_all(camera(write_video(tmp_path / "v.mp4"), clock, pace=pace))
    assert len(frames) == FRAMES
    assert frames[-1].captured_monotonic_s - frames[0].captured_monotonic_s == pytest.approx(took_s, abs=1e-3)


def test_the_capture_times_are_those_after_the_wait(tmp_path: Path) -> None:
    clock = SteppedClock()
    frames = read_all(camera(write_video(tmp_path / "v.mp4"), clock))
    assert frames[1].captured_monotonic_s == pytest.approx(100.1, abs=1e-3)
    assert frames[1].captured_at_ms == pytest.approx(100_100, abs=1)


def test_a_stop_ends_the_wait_for_the_next_frame(tmp_path: Path) -> None:
    clock = SystemClock()
    source = camera(write_video(tmp_path / "v.mp4"), clock)
    source.open()
    clock.interrupt()
    started_s = time.monotonic()
    while source.read() is not None:
        pass
    assert time.monotonic() - started_s < 0.3  # 0.4 s at its pace
    source.close()


def test_a_looped_video_goes_on_in_id_and_stream_time(video: Path) -> None:
    frames = read_all(camera(video, pace="max", loop=True), at_most=3 * FRAMES)
    assert [frame.id for frame in frames] == list(range(1, 3 * FRAMES + 1))
    times_s = np.array([frame.stream_time_s for frame in frames])
    assert np.allclose(np.diff(times_s), 1 / RATE_HZ, atol=1e-3)
    assert np.array_equal(frames[0].image_bgr, frames[FRAMES].image_bgr)


def test_ids_and_stream_times_go_on_after_a_reopening(video: Path) -> None:
    source = camera(video, pace="max")
    first, second = read_all(source), read_all(source)
    assert second[0].id == first[-1].id + 1
    assert second[0].stream_time_s > first[-1].stream_time_s


def test_frames_without_times_of_their_own_are_a_period_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = cv2.VideoCapture

    class Timeless:
        def __init__(self, *arguments: Any) -> None:
            self._real = real(*arguments)

        def get(self, setting: int) -> float:
            return 0.0 if setting in {cv2.CAP_PROP_POS_MSEC, cv2.CAP_PROP_FPS} else self._real.get(setting)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._real, name)

    path = write_video(tmp_path / "v.mp4")
    monkeypatch.setattr(cv2, "VideoCapture", Timeless)
    times_s = [frame.stream_time_s for frame in read_all(camera(path, pace="max"))]
    assert np.allclose(times_s, np.arange(FRAMES) / 25.0)


@pytest.mark.parametrize("name", ["picture.png", "picture.jpg", "grey.png", "alpha.png"])
def test_a_picture_is_one_frame(name: str, tmp_path: Path) -> None:
    shape = {"grey.png": (20, 30), "alpha.png": (20, 30, 4)}.get(name, (20, 30, 3))
    cv2.imwrite(str(tmp_path / name), np.full(shape, 99, np.uint8))
    (frame,) = read_all(camera(tmp_path / name))
    assert frame.image_bgr.shape == (20, 30, 3)
    assert abs(float(frame.image_bgr.mean()) - 99) < 2
    assert not frame.image_bgr.flags.writeable


def test_a_looped_picture_is_shown_ten_times_a_second(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "p.png"), np.zeros((20, 30, 3), np.uint8))
    frames = read_all(camera(tmp_path / "p.png", loop=True), at_most=4)
    assert np.allclose([frame.stream_time_s for frame in frames], [0.0, 0.1, 0.2, 0.3])
    assert np.allclose(np.diff([frame.captured_monotonic_s for frame in frames]), 0.1)


def test_jpegs_end_to_end_are_a_video(tmp_path: Path) -> None:
    jpeg = cv2.imencode(".jpg", np.full((48, 64, 3), 50, np.uint8))[1].tobytes()
    (tmp_path / "v.mjpeg").write_bytes(jpeg * 3)
    assert len(read_all(camera(tmp_path / "v.mjpeg", pace="max"))) == 3


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("missing.mp4", None, "No such file or directory"),
        ("folder", "folder", "Is a directory"),
        ("empty.mp4", b"", "no frame in it"),
        ("text.mp4", b"not a video\n" * 100, "no frame in it"),
        ("notes.txt", b"not a video\n" * 100, "no frame in it"),  # FFmpeg would scroll it over a terminal
        ("noise.avi", bytes(range(256)) * 20, "no frame in it"),
        ("cut.mp4", "cut", "no frame in it"),  # its index stood at the end
        ("cut.png", b"\x89PNG\r\n\x1a\n" + b"\0" * 50, "cannot be decoded"),
        ("bomb.png", "bomb", "picture"),
    ],
)
def test_a_file_that_cannot_be_played_is_a_config_error_with_its_path(
    name: str, content: bytes | str | None, expected: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    if content == "folder":
        path.mkdir()
    elif content == "cut":
        path.write_bytes(write_video(tmp_path / "whole.mp4").read_bytes()[:400])
    elif content == "bomb":  # the header of a picture of 60,000 x 60,000
        cv2.imwrite(str(path), np.zeros((4, 4, 3), np.uint8))
        header = bytearray(path.read_bytes())
        header[16:24] = (60_000).to_bytes(4, "big") * 2
        path.write_bytes(header)
    elif isinstance(content, bytes):
        path.write_bytes(content)
    source = camera(path)
    with pytest.raises(ConfigError, match=expected) as caught:
        source.open()
    source.close()
    assert str(caught.value).startswith(f"{path}: expected ")
    assert "\n" not in str(caught.value)


def test_nothing_is_read_before_opening_or_after_closing(tmp_path: Path) -> None:
    for source in (
        camera(write_video(tmp_path / "v.mp4"), pace="max"),
        camera(write_video(tmp_path / "p.avi", "MJPG"), pace="max"),
    ):
        assert source.read() is None
        source.open()
        source.close()
        source.close()
        assert source.read() is None
    with pytest.raises(CameraError, match="closed"):
        camera("rtsp://cam/1").read()


class HttpCamera:
    """Serves MJPEG to one client after the other: so many frames, then nothing more until it is closed."""

    def __init__(self, frames: int | None, *, hang_up: bool = False) -> None:
        self._frames = frames  # None: not even the response's head
        self._hang_up = hang_up
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    @property
    def address(self) -> str:
        return f"http://viewer:secret@127.0.0.1:{self._listener.getsockname()[1]}/video"

    def close(self) -> None:
        self._closing.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # closed
                return
            with client:
                client.recv(65_536)
                if self._frames is not None:
                    self._send(client, self._frames)
                if not self._hang_up:
                    self._closing.wait(30)

    def _send(self, client: socket.socket, frames: int) -> None:
        client.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=part\r\n\r\n")
        for number in range(frames):
            jpeg = cv2.imencode(".jpg", np.full((48, 64, 3), number * 10, np.uint8))[1].tobytes()
            client.sendall(b"--part\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(jpeg))
            client.sendall(jpeg + b"\r\n")


@pytest.fixture
def serve() -> Iterator[Any]:
    servers: list[HttpCamera] = []

    def start(frames: int | None, *, hang_up: bool = False) -> HttpCamera:
        servers.append(HttpCamera(frames, hang_up=hang_up))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def read_until_error(source: OpencvCamera) -> tuple[list[Frame], CameraError]:
    frames: list[Frame] = []
    try:
        while True:
            frame = source.read()
            assert frame is not None, "a live source has no end"
            frames.append(frame)
    except CameraError as err:
        return frames, err
    finally:
        source.close()


def test_a_stream_that_stalls_is_noticed_within_its_read_timeout(serve: Any) -> None:
    source = camera(serve(20).address, SystemClock(), read_timeout_s=0.4, open_timeout_s=5.0)
    source.open()
    frames, err = read_until_error(source)
    stalled_s = time.monotonic() - frames[-1].captured_monotonic_s
    assert len(frames) == 20
    assert 0.3 < stalled_s < 2.0
    assert "expected a frame within 0.4 s" in str(err)
    assert "secret" not in str(err)


def test_a_live_streams_time_is_the_time_of_capture(serve: Any) -> None:
    source = camera(serve(5).address, SystemClock(), read_timeout_s=0.3)
    source.open()
    frames, _ = read_until_error(source)
    assert frames
    assert all(frame.stream_time_s == frame.captured_monotonic_s for frame in frames)


def test_a_stream_whose_server_hangs_up_is_a_camera_error(serve: Any) -> None:
    source = camera(serve(10, hang_up=True).address, SystemClock(), read_timeout_s=2.0)
    source.open()
    frames, err = read_until_error(source)
    assert len(frames) == 10
    assert "the stream ended" in str(err)


@pytest.mark.parametrize("scheme", ["http", "rtsp"])
def test_a_server_that_never_answers_is_given_up_after_the_open_timeout(scheme: str, serve: Any) -> None:
    address = serve(None).address.replace("http:", f"{scheme}:")
    source = camera(address, SystemClock(), open_timeout_s=0.4)
    started_s = time.monotonic()
    with pytest.raises(CameraError, match=r"within 0\.4 s") as caught:
        source.open()
    assert time.monotonic() - started_s < 3.0
    assert "secret" not in str(caught.value)
    assert "viewer:***@127.0.0.1" in str(caught.value)


def test_a_refused_connection_is_a_camera_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(CameraError, match="expected a video stream"):
        camera(f"rtsp://127.0.0.1:{port}/1", SystemClock(), open_timeout_s=2.0).open()


class V4l2:
    """Stands in for cv2.VideoCapture on a device: notes what is set, gives grey frames, one of them late."""

    made: list[V4l2]

    def __init__(self, clock: SteppedClock, read_takes_s: list[float], *, works: bool = True) -> None:
        self.arguments: tuple[object, ...] = ()
        self.settings: list[tuple[int, float]] = []
        self.released = False
        self._clock = clock
        self._read_takes_s = iter(read_takes_s)
        self._works = works

    def __call__(self, *arguments: object) -> V4l2:
        self.arguments = arguments
        return self

    def isOpened(self) -> bool:  # noqa: N802 OpenCV's name
        return self._works

    def set(self, setting: int, value: float) -> bool:
        self.settings.append((setting, value))
        return True

    def read(self) -> tuple[bool, np.ndarray[Any, Any] | None]:
        takes_s = next(self._read_takes_s, None)
        if takes_s is None:
            return False, None
        self._clock.now_s += takes_s
        return True, np.zeros((48, 64, 3), np.uint8)

    def release(self) -> None:
        self.released = True


def test_a_v4l2_camera_is_asked_for_mjpg_its_size_and_a_buffer_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    device = V4l2(clock := SteppedClock(), [0.03, 0.03])
    monkeypatch.setattr(cv2, "VideoCapture", device)
    source = camera("/dev/video7", clock, width=1280, height=720, fps=30.0)
    source.open()
    assert device.arguments == ("/dev/video7", cv2.CAP_V4L2)
    assert device.settings == [
        (cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG")),  # before the size: it decides which sizes exist
        (cv2.CAP_PROP_FRAME_WIDTH, 1280),
        (cv2.CAP_PROP_FRAME_HEIGHT, 720),
        (cv2.CAP_PROP_FPS, 30.0),
        (cv2.CAP_PROP_BUFFERSIZE, 1),
    ]
    frames, err = read_until_error(source)
    assert [frame.captured_monotonic_s for frame in frames] == [100.03, 100.06]
    assert "/dev/video7: expected a frame, the stream ended" in str(err)
    assert device.released


def test_a_read_that_took_too_long_is_a_stall_even_when_it_says_true(monkeypatch: pytest.MonkeyPatch) -> None:
    device = V4l2(clock := SteppedClock(), [0.03, 5.0, 0.03])
    monkeypatch.setattr(cv2, "VideoCapture", device)
    source = camera("/dev/video7", clock, read_timeout_s=5.0)
    source.open()
    frames, err = read_until_error(source)
    assert len(frames) == 1
    assert "waited 5.0 s" in str(err)


@pytest.mark.parametrize(
    ("exists", "allowed", "expected"),
    [
        (False, True, "there is no such device; plug it in"),
        (True, False, 'add the user to the group "video"'),
        (True, True, "it gives no pictures or is in use"),
    ],
)
def test_a_device_that_does_not_open_says_why_and_may_heal(
    exists: bool, allowed: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = V4l2(clock := SteppedClock(), [], works=False)
    monkeypatch.setattr(cv2, "VideoCapture", device)
    monkeypatch.setattr(Path, "exists", lambda _: exists)
    monkeypatch.setattr(os, "access", lambda *_: allowed)
    with pytest.raises(CameraError, match=expected):
        camera("/dev/video7", clock).open()
    assert device.released


def test_opencv_and_ffmpeg_write_nothing_to_standard_error(tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_bytes(write_video(tmp_path / "whole.mp4").read_bytes()[:400])
    plain = f"import cv2; cv2.VideoCapture({str(tmp_path / 'broken.mp4')!r}, cv2.CAP_FFMPEG)"
    ours = f"""
from agent.camera.opencv import OpencvCamera
from agent.clock import SystemClock
from agent.config import CameraConfig
from agent.errors import EdgeAgentError
for source in ({str(tmp_path / "broken.mp4")!r}, "rtsp://u:secret@127.0.0.1:9/1", "/dev/video77"):
    try:
        OpencvCamera(CameraConfig(id="c", source=source), SystemClock()).open()
    except EdgeAgentError as err:
        print(type(err).__name__)
"""
    control = subprocess.run([sys.executable, "-c", plain], capture_output=True, text=True, check=True)
    assert control.stderr, "without the adapter they do write"
    result = subprocess.run([sys.executable, "-c", ours], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["ConfigError", "CameraError", "CameraError"]
    assert result.stderr == ""
