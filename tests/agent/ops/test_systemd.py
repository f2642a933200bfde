"""What the service manager hears, on a socket such as systemd's."""

from __future__ import annotations

import logging
import socket
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from agent.ops.systemd import NO_SUPERVISOR, Supervisor

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Manager:
    """The service manager's end: a datagram socket at ``address``, as ``NOTIFY_SOCKET`` names it."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self.socket.setblocking(False)

    def heard(self) -> list[str]:
        """The messages since the last call."""
        messages = []
        with suppress(BlockingIOError):
            while True:
                messages.append(self.socket.recv(4096).decode())
        return messages


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    made = Manager(str(tmp_path / "notify"))
    yield made
    made.socket.close()


def test_each_call_is_one_message_in_systemds_words(manager: Manager) -> None:
    supervisor = Supervisor({"NOTIFY_SOCKET": manager.address})
    supervisor.ready("2 cameras")
    supervisor.alive()
    supervisor.stopping()
    assert manager.heard() == [
        "READY=1\nSTATUS=2 cameras",
        "WATCHDOG=1",
        "STOPPING=1\nSTATUS=stopping",
    ]


def test_an_address_with_an_at_sign_is_an_abstract_socket(tmp_path: Path) -> None:
    manager = Manager(f"@edge-agent-test{tmp_path}")
    try:
        Supervisor({"NOTIFY_SOCKET": manager.address}).alive()
        assert manager.heard() == ["WATCHDOG=1"]
    finally:
        manager.socket.close()


def test_without_a_manager_nothing_happens(caplog: pytest.LogCaptureFixture) -> None:
    for supervisor in (NO_SUPERVISOR, Supervisor({"NOTIFY_SOCKET": ""})):
        supervisor.ready("up")
        supervisor.alive()
        supervisor.stopping()
        assert supervisor.ping_interval_s is None
    assert caplog.records == []


def test_a_manager_that_is_gone_is_a_warning_and_no_end(manager: Manager, caplog: pytest.LogCaptureFixture) -> None:
    manager.socket.close()
    with caplog.at_level(logging.WARNING):
        Supervisor({"NOTIFY_SOCKET": manager.address}).ready("up")
    assert [record.getMessage() for record in caplog.records] == [
        "systemd cannot be told 'READY=1': Connection refused"
    ]


def test_a_manager_that_does_not_read_does_not_hold_us_up(
    manager: Manager, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.ops.systemd._SEND_TIMEOUT_S", 0.01)
    supervisor = Supervisor({"NOTIFY_SOCKET": manager.address})
    with caplog.at_level(logging.WARNING):
        for _ in range(10_000):  # until the socket's buffer is full
            supervisor.alive()
            if caplog.records:
                break
    assert "systemd cannot be told 'WATCHDOG=1': timed out" in caplog.text


@pytest.mark.parametrize(
    ("watchdog_usec", "interval_s"),
    [
        ("30000000", 12.0),
        ("1", 4e-7),
        ("0", None),
        ("", None),
        (None, None),
        ("-5", None),
        ("soon", None),
        ("²", None),  # a digit to str.isdigit, no number to int
    ],
)
def test_it_wants_to_hear_from_us_well_within_the_watchdogs_time(
    manager: Manager, watchdog_usec: str | None, interval_s: float | None
) -> None:
    environ = {"NOTIFY_SOCKET": manager.address}
    if watchdog_usec is not None:
        environ["WATCHDOG_USEC"] = watchdog_usec
    assert Supervisor(environ).ping_interval_s == (pytest.approx(interval_s) if interval_s is not None else None)


def test_a_watchdog_without_a_socket_cannot_be_fed() -> None:
    assert Supervisor({"WATCHDOG_USEC": "30000000"}).ping_interval_s is None
