"""Clients that mean harm, or are broken: bounded in number, time and memory, each with a plain answer or none."""

from __future__ import annotations

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING

import cv2
import numpy as np
import psutil
import pytest

from agent.config import WebConfig
from agent.web import connections
from agent.web.server import WebServer
from tests.agent.web.conftest import running
from tests.agent.web.test_infer import INFER, picture
from tests.support.http import ask, form
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from agent.web.service import Service

GET = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"


def connect(port: int, stack: ExitStack) -> socket.socket:
    client = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
    client.settimeout(10)
    return client


def is_closed(client: socket.socket) -> bool:
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True


def test_one_connection_too_many_goes_at_once_and_the_others_stay(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(service) as port, ExitStack() as stack:
        monkeypatch.setattr(connections, "MOST_CONNECTIONS", 5)
        clients = [connect(port, stack) for _ in range(5)]
        for client in clients:
            client.sendall(GET)
            assert client.recv(12) == b"HTTP/1.1 200"
        assert is_closed(connect(port, stack))
        clients[0].sendall(GET)
        assert client.recv(1)


@pytest.mark.parametrize("said", [b"", b"GET / HT", GET + b"GET /he"], ids=["nothing", "half a line", "a second half"])
def test_who_does_not_say_what_he_wants_is_not_waited_for(
    service: Service, monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    monkeypatch.setattr(connections, "REQUEST_TIMEOUT_S", 0.2)
    with running(service) as port, ExitStack() as stack:
        client = connect(port, stack)
        client.sendall(said)
        while client.recv(4096):
            pass


def test_who_has_asked_is_not_hurried(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "REQUEST_TIMEOUT_S", 0.1)
    content = picture()
    with running(service) as port, ExitStack() as stack:
        client = connect(port, stack)
        client.sendall(
            b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % (INFER.encode(), len(content))
        )
        began_s = time.monotonic()
        assert wait_until(lambda: time.monotonic() - began_s > 0.4)
        client.sendall(content)
        assert client.recv(12) == b"HTTP/1.1 200"


def test_a_form_of_many_parts_is_refused_quickly(port: int) -> None:
    body, headers = form(*(("x", b"") for _ in range(15_000)))
    began_s = time.monotonic()
    answer = ask(port, INFER, body[: 1024 * 1024], headers=headers)
    assert answer.status == 422
    assert "at most 16 parts" in answer.problem
    assert time.monotonic() - began_s < 5


@pytest.mark.parametrize("boundary", ["x" * 300, "", "a\tb"])
def test_a_strange_boundary_is_no_bug_of_ours(port: int, boundary: str) -> None:
    body, headers = form(("a.png", picture()), boundary=boundary)
    assert ask(port, INFER, body, headers=headers).status in (200, 422)


def test_large_pictures_wait_for_room_instead_of_filling_the_memory(service: Service) -> None:
    """Sixteen at once of 16 megapixels, 48 MB each: one after another they would need no more than the room for two."""
    content = cv2.imencode(".png", np.zeros((4000, 4000, 3), np.uint8))[1].tobytes()
    process, peak, done = psutil.Process(), [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            peak[0] = max(peak[0], process.memory_info().rss)

    with running(service, max_megapixels=16.0) as port:
        assert ask(port, INFER, content).status == 200
        before = process.memory_info().rss
        watcher = threading.Thread(target=watch)
        watcher.start()
        with ThreadPoolExecutor(16) as clients:
            statuses = list(clients.map(lambda _: ask(port, f"{INFER}?annotate=true", content).status, range(16)))
        done.set()
        watcher.join()
    assert statuses == [200] * 16
    assert peak[0] - before < 250e6, "all at once would be 16 times 96 MB"


def test_streams_are_counted_when_they_are_asked_for(service: Service) -> None:
    from tests.agent.web.test_cameras import CAMERAS, FakeCameras

    cameras = FakeCameras()
    request = f"GET {CAMERAS}/door/stream.mjpg HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    from dataclasses import replace

    with running(replace(service, cameras=cameras)) as port, ExitStack() as stack:
        clients = [connect(port, stack) for _ in range(40)]
        for client in clients:
            client.sendall(request)
        lines = [client.recv(12) for client in clients]
        assert lines.count(b"HTTP/1.1 200") == 16
        assert lines.count(b"HTTP/1.1 503") == 24


def test_a_viewer_who_has_gone_makes_room_though_the_camera_gives_nothing(service: Service) -> None:
    from dataclasses import replace

    from tests.agent.web.test_cameras import CAMERAS, FakeCameras

    request = f"GET {CAMERAS}/yard/stream.mjpg HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    with running(replace(service, cameras=FakeCameras())) as port:
        for _ in range(3):
            with ExitStack() as stack:
                for _ in range(16):
                    client = connect(port, stack)
                    client.sendall(request)
                    assert wait_until(lambda client=client: client.recv(12) == b"HTTP/1.1 200")  # type: ignore[misc]


def test_a_clock_that_is_set_back_stops_no_heartbeat(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    server = WebServer(service, WebConfig(port=0))
    server.start()
    try:
        assert wait_until(lambda: ask(server.port, "/healthz").status == 200)
        real_s = time.time
        monkeypatch.setattr(time, "time", lambda: real_s() - 3600)
        for _ in range(2):
            last_s = server.heartbeat_s
            assert wait_until(lambda last_s=last_s: server.heartbeat_s > last_s)  # type: ignore[misc]
    finally:
        assert server.stop(10.0)


def test_a_server_that_cannot_begin_says_so(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ImportError("no module named anything")

    monkeypatch.setattr("agent.web.api.make_api", broken)
    server = WebServer(service, WebConfig(port=0))
    server.start()
    assert wait_until(lambda: server.failure is not None)
    assert "no module named anything" in str(server.failure)
    assert server.stop(5.0)


@pytest.mark.parametrize("path", ["/", "/docs", "/healthz", "/readyz", "/metrics"])
def test_head_is_get_without_a_body(port: int, path: str) -> None:
    answer = ask(port, path, method="HEAD")
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["content-type"] == ask(port, path).headers["content-type"]
