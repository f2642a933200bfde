"""The server's thread: it binds before it starts, ends in time, and bounds what it holds."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import psutil
import pytest

from agent.config import WebConfig
from agent.errors import ConfigError
from agent.web.server import WebServer
from tests.agent.web.conftest import running
from tests.agent.web.test_infer import INFER, picture
from tests.support.http import ask
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.web.service import Service


def test_a_port_that_is_taken_is_told_before_anything_starts(service: Service) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(
            ConfigError, match=rf"expected to listen on 127\.0\.0\.1 port {port}, got: .*choose another"
        ):
            WebServer(service, WebConfig(port=port))


def test_it_beats_while_it_serves_and_can_be_stopped_before_it_has_begun(service: Service) -> None:
    server = WebServer(service, WebConfig(port=0))
    born_s = server.heartbeat_s
    server.start()
    assert wait_until(lambda: server.heartbeat_s > born_s)
    assert server.stop(10.0)
    unborn = WebServer(service, WebConfig(port=0))
    assert unborn.stop(1.0)


def test_a_server_that_is_stopped_at_once_ends(service: Service) -> None:
    server = WebServer(service, WebConfig(port=0))
    server.start()
    assert server.stop(20.0)


def test_many_slow_connections_do_not_keep_others_waiting(port: int) -> None:
    with ExitStack() as stack:
        for _ in range(200):
            slow = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            slow.sendall(b"POST /api/v1/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nabc")
        began_s = time.monotonic()
        assert ask(port, "/healthz").status == 200
        assert ask(port, INFER, picture()).status == 200
        assert time.monotonic() - began_s < 1.0


def test_a_huge_body_costs_no_memory(port: int) -> None:
    process = psutil.Process()
    piece = bytes(1024 * 1024)
    ask(port, INFER, picture())
    before = process.memory_info().rss
    peak = [before]
    watching = threading.Event()

    def watch() -> None:
        while not watching.wait(0.005):
            peak[0] = max(peak[0], process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    declared = ask(port, INFER, body_of(piece, 100), headers={"Content-Length": str(100 * len(piece))})
    chunked = ask(port, INFER, body_of(piece, 100))
    watching.set()
    watcher.join()
    assert (declared.status, chunked.status) == (413, 413)
    assert peak[0] - before < 10e6


def body_of(piece: bytes, count: int) -> Iterator[bytes]:
    for _ in range(count):
        yield piece


def test_an_upload_that_takes_too_long_is_ended(monkeypatch: pytest.MonkeyPatch, service: Service) -> None:
    monkeypatch.setattr("agent.web.uploads._UPLOAD_TIMEOUT_S", 0.1)
    with running(service) as port, socket.create_connection(("127.0.0.1", port)) as slow:
        slow.sendall(b"POST /api/v1/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nabc")
        slow.settimeout(10)
        assert slow.recv(4096).startswith(b"HTTP/1.1 408 ")


def test_what_a_request_held_is_free_again_after_it(service: Service) -> None:
    with running(service, max_upload_mib=1) as port:
        for _ in range(30):
            assert ask(port, INFER, bytes(900_000)).status == 415
