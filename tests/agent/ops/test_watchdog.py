"""The watchdog is fed while every loop turns, and only then."""

from __future__ import annotations

import logging
import socket
from contextlib import suppress
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from agent.ops.systemd import NO_SUPERVISOR, Supervisor
from agent.ops.watchdog import Heartbeat, Watchdog

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WATCHDOG_S = 30.0
LIMITS_S = {"inference": 60.0, "camera front": 20.0, "outbox": 120.0, "mqtt": 180.0}
TURN_S = 0.5


class Loops:
    """Loops that beat at each turn of the clock, except those that hang; and the manager that hears of them."""

    def __init__(self, folder: Path) -> None:
        self.now_s = 1000.0
        self.hanging: set[str] = set()
        self.beats_s = dict.fromkeys(LIMITS_S, self.now_s)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(folder / "notify"))
        self.socket.setblocking(False)
        environ = {"NOTIFY_SOCKET": str(folder / "notify"), "WATCHDOG_USEC": str(int(WATCHDOG_S * 1e6))}
        self.watchdog = self.watched_by(Supervisor(environ))

    def watched_by(self, supervisor: Supervisor) -> Watchdog:
        heartbeats = [
            Heartbeat(name, lambda name=name: self.beats_s[name], limit_s)  # type: ignore[misc]
            for name, limit_s in LIMITS_S.items()
        ]
        return Watchdog(heartbeats, supervisor, lambda: self.now_s)

    def turn_for(self, seconds: float) -> list[float]:
        """Let time pass; returns the moments of the pings, in seconds from now."""
        began_s, pings_s = self.now_s, []
        while self.now_s < began_s + seconds:
            self.now_s += TURN_S
            self.beats_s |= dict.fromkeys(LIMITS_S.keys() - self.hanging, self.now_s)
            self.watchdog.turn()
            pings_s += [self.now_s - began_s] * self._pings()
        return pings_s

    def _pings(self) -> int:
        count = 0
        with suppress(BlockingIOError):
            while True:
                assert self.socket.recv(64) == b"WATCHDOG=1"
                count += 1
        return count


@pytest.fixture
def loops(tmp_path: Path) -> Iterator[Loops]:
    made = Loops(tmp_path)
    yield made
    made.socket.close()


def test_while_all_turn_the_pings_leave_room_for_one_that_is_late(loops: Loops) -> None:
    pings_s = loops.turn_for(300.0)
    assert pings_s[0] <= TURN_S, "the first at once: the watchdog's time runs from the moment we are ready"
    pauses_s = [later - earlier for earlier, later in pairwise(pings_s)]
    assert max(pauses_s) <= WATCHDOG_S / 2
    assert len(pings_s) <= 300.0 / (WATCHDOG_S / 4), "and not many more than are needed"
    assert loops.watchdog.silent() == {}


@pytest.mark.parametrize("name", LIMITS_S)
def test_one_loop_that_hangs_ends_the_pings(loops: Loops, name: str) -> None:
    """All the others turn, the supervising thread too."""
    loops.turn_for(10.0)
    loops.hanging.add(name)
    pings_s = loops.turn_for(LIMITS_S[name] + 10 * WATCHDOG_S)
    assert pings_s[-1] <= LIMITS_S[name]
    assert list(loops.watchdog.silent()) == [name]


def test_within_its_limit_a_loop_may_be_silent(loops: Loops) -> None:
    """The control: an inference that takes long is no reason for a new start."""
    loops.hanging.add("inference")
    loops.turn_for(LIMITS_S["inference"])
    assert loops.watchdog.silent() == {}
    loops.turn_for(TURN_S)
    assert loops.watchdog.silent() == {"inference": "inference has been silent for 60 s, its limit is 60 s"}


def test_a_loop_that_turns_again_brings_the_pings_back(loops: Loops, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        loops.hanging.add("camera front")
        loops.turn_for(40.0)
        loops.hanging.clear()
        assert loops.turn_for(1.0) != []
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("ERROR", "camera front has been silent for 20 s, its limit is 20 s"),
        ("WARNING", "camera front turns again"),
    ]


def test_a_supervising_thread_that_hangs_does_not_ping(loops: Loops) -> None:
    """Pings come from its turns alone: no thread sends them blindly."""
    loops.turn_for(10.0)
    loops.now_s += 10 * WATCHDOG_S
    assert loops._pings() == 0


def test_without_a_service_manager_hanging_loops_are_told_of_all_the_same(
    loops: Loops, caplog: pytest.LogCaptureFixture
) -> None:
    watchdog = loops.watched_by(NO_SUPERVISOR)
    loops.now_s += 500.0
    with caplog.at_level(logging.INFO):
        watchdog.turn()
        watchdog.turn()
    assert len(caplog.records) == len(LIMITS_S)
    assert set(watchdog.silent()) == set(LIMITS_S)
