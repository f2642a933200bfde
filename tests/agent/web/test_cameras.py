"""Cameras on the web: facts, snapshots and streams of what went through the model."""

from __future__ import annotations

import http.client
import time
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest

from agent.frame import Frame
from agent.tasks import Sighting
from agent.vision.detections import Detections
from agent.web.service import Service
from tests.agent.web.conftest import running
from tests.support.http import Answer, ask
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

CAMERAS = "/api/v1/cameras"
SIZE_WH = (160, 120)
BOX_XYXY = (20, 30, 90, 100)


class FakeCameras:
    """Two cameras: ``door`` shows what the test puts there, ``yard`` never gives a frame."""

    ids = ["door", "yard"]  # noqa: RUF012 - read only
    labels = ["cat"]  # noqa: RUF012

    def __init__(self) -> None:
        self.shown: tuple[Frame, Sighting] | None = None

    def show(self, number: int, grey: int, size_wh: tuple[int, int] = SIZE_WH) -> None:
        image_bgr = np.full((size_wh[1], size_wh[0], 3), grey, np.uint8)
        boxes = np.array([BOX_XYXY], np.float32)
        seen = Sighting(detections=Detections(boxes, np.array([0.9], np.float32), np.array([0], np.int64)))
        self.shown = (Frame("door", number, image_bgr, time.monotonic(), 0, 0.0), seen)

    def latest(self, camera_id: str) -> tuple[Frame, Sighting] | None:
        return self.shown if camera_id == "door" else None

    def facts(self, camera_id: str) -> dict[str, Any]:
        return {"health": "up" if camera_id == "door" else "down"}


@pytest.fixture
def cameras() -> FakeCameras:
    return FakeCameras()


@pytest.fixture
def port(service: Service, cameras: FakeCameras) -> Iterator[int]:
    with running(Service(service.models, cameras), stream_fps=50, stream_width=80) as port:
        yield port


def image_of(answer: Answer) -> NDArray[np.uint8]:
    assert answer.headers["content-type"] == "image/jpeg"
    image = cv2.imdecode(np.frombuffer(answer.body, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return image  # type: ignore[return-value]


def test_each_camera_tells_its_facts(port: int) -> None:
    expected = [{"id": "door", "health": "up"}, {"id": "yard", "health": "down"}]
    assert ask(port, CAMERAS).json == {"cameras": expected}


def test_a_snapshot_is_the_last_frame_in_its_own_size(port: int, cameras: FakeCameras) -> None:
    cameras.show(7, grey=40)
    answer = ask(port, f"{CAMERAS}/door/snapshot.jpg?boxes=false")
    image = image_of(answer)
    assert image.shape == (120, 160, 3)
    assert np.abs(image.astype(int) - 40).max() <= 2, "and nothing is drawn on it"
    assert answer.headers["x-frame-id"] == "7"
    assert 0 <= int(answer.headers["x-frame-age-ms"]) < 30_000
    assert answer.headers["cache-control"] == "no-store"
    cameras.show(8, grey=200)
    assert image_of(ask(port, f"{CAMERAS}/door/snapshot.jpg?boxes=false")).min() > 190


def test_boxes_are_drawn_where_something_was_seen(port: int, cameras: FakeCameras) -> None:
    cameras.show(1, grey=40)
    image = image_of(ask(port, f"{CAMERAS}/door/snapshot.jpg")).astype(int)
    left, top, right, bottom = BOX_XYXY
    drawn = np.abs(image - 40).max(axis=2) > 40
    assert drawn[top + 20 : bottom - 2, left].all(), "the box's left side"
    assert not drawn[top + 20 : bottom - 5, left + 5 : right - 5].any(), "its middle"
    assert not drawn[:, right + 5 :].any()


@pytest.mark.parametrize("path", ["snapshot.jpg", "stream.mjpg"])
def test_an_unknown_camera_is_told_with_those_there_are(port: int, path: str) -> None:
    answer = ask(port, f"{CAMERAS}/attic/{path}")
    assert answer.status == 404
    assert "no camera 'attic'; there are: door, yard" in answer.problem


def test_a_camera_without_a_frame_says_so(port: int) -> None:
    answer = ask(port, f"{CAMERAS}/yard/snapshot.jpg")
    assert answer.status == 503
    assert answer.headers["retry-after"] == "1"
    assert "no frame yet" in answer.problem


@contextmanager
def streaming(port: int, camera_id: str = "door") -> Iterator[http.client.HTTPResponse]:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        connection.request("GET", f"{CAMERAS}/{camera_id}/stream.mjpg")
        answer = connection.getresponse()
        assert answer.status == 200
        assert answer.headers["content-type"] == "multipart/x-mixed-replace; boundary=frame"
        yield answer
        connection.close()
        answer.close()


def next_picture(stream: http.client.HTTPResponse) -> NDArray[np.uint8]:
    assert stream.readline() == b"--frame\r\n"
    assert stream.readline() == b"Content-Type: image/jpeg\r\n"
    length = int(stream.readline().removeprefix(b"Content-Length: "))
    assert stream.readline() == b"\r\n"
    image = cv2.imdecode(np.frombuffer(stream.read(length), np.uint8), cv2.IMREAD_COLOR)
    assert stream.readline() == b"\r\n"
    assert image is not None
    return image  # type: ignore[return-value]


def test_a_stream_gives_each_new_frame_once_scaled_to_its_width(port: int, cameras: FakeCameras) -> None:
    cameras.show(1, grey=40)
    with streaming(port) as stream:
        first = next_picture(stream)
        assert first.shape == (60, 80, 3)
        cameras.show(2, grey=200)
        second = next_picture(stream)
        assert int(second[-5, -5, 0]) - int(first[-5, -5, 0]) > 140, (
            "the next part is the next frame, not the same again"
        )


def test_a_stream_waits_for_the_first_frame(port: int, cameras: FakeCameras) -> None:
    with streaming(port) as stream:
        cameras.show(1, grey=40)
        assert next_picture(stream).shape == (60, 80, 3)


def test_streams_are_bounded_and_those_that_end_make_room(port: int, cameras: FakeCameras) -> None:
    cameras.show(1, grey=40)
    watched = [streaming(port) for _ in range(16)]
    opened = [each.__enter__() for each in watched]
    for stream in opened:
        next_picture(stream)
    answer = ask(port, f"{CAMERAS}/door/stream.mjpg")
    assert answer.status == 503
    assert "16 streams are watched already" in answer.problem
    for each in watched:
        each.__exit__(None, None, None)

    def there_is_room() -> bool:
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
            connection.request("GET", f"{CAMERAS}/door/stream.mjpg")
            return connection.getresponse().status == 200

    assert wait_until(there_is_room)


def test_the_server_stops_while_somebody_watches(service: Service, cameras: FakeCameras) -> None:
    cameras.show(1, grey=40)
    with running(Service(service.models, cameras)) as port:
        watching = streaming(port)
        next_picture(watching.__enter__())
    watching.__exit__(None, None, None)
