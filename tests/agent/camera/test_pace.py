"""Frames are held back to real time."""

from __future__ import annotations

from agent.camera.pace import Pacer


class ManualClock:
    """A clock whose waits take no time but are counted."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def monotonic_s(self) -> float:
        return self.now_s

    def unix_ms(self) -> int:
        return int(self.now_s * 1000)

    def wait(self, duration_s: float) -> bool:
        self.now_s += duration_s
        return False

    def interrupt(self) -> None:
        """Nobody waits."""


def test_the_first_frame_is_due_at_once_and_the_others_by_their_own_times() -> None:
    clock = ManualClock()
    pacer = Pacer(clock)
    due = []
    for stream_time_s in (5.0, 5.1, 5.5):
        pacer.wait_until_due(stream_time_s)
        due.append(round(clock.now_s - 100.0, 6))
    assert due == [0.0, 0.1, 0.5]


def test_a_short_delay_is_caught_up() -> None:
    clock = ManualClock()
    pacer = Pacer(clock)
    pacer.wait_until_due(0.0)
    clock.now_s += 0.25
    for stream_time_s in (0.1, 0.2, 0.3):
        pacer.wait_until_due(stream_time_s)
    assert clock.now_s == 100.0 + 0.3


def test_after_a_long_delay_the_pace_goes_on_from_now() -> None:
    clock = ManualClock()
    pacer = Pacer(clock)
    pacer.wait_until_due(0.0)
    clock.now_s += 60.0
    pacer.wait_until_due(0.1)
    assert clock.now_s == 160.0
    pacer.wait_until_due(0.2)
    assert abs(clock.now_s - 160.1) < 1e-9
