"""Turns: a camera's frame goes first, guests get the gaps, and nobody starves."""

from __future__ import annotations

import threading
import time

import pytest

from agent.turns import Turns
from tests.support.delivery import ManualClock
from tests.support.waiting import wait_until


def guest_waits_s(turns: Turns) -> float:
    return turns._guest_waits_s()


def with_rhythm(clock: ManualClock, period_s: float, *, frames: int = 20, guest_s: float = 0.02) -> Turns:
    """Turns that have seen a guest once and a camera's steady frames, the last one just now."""
    turns = Turns(clock.monotonic_s)
    with turns.guest():
        clock.now_s += guest_s
    for _ in range(frames):
        clock.now_s += period_s
        with turns.camera("door", clock.now_s):
            pass
    return turns


def test_without_cameras_a_guest_begins_at_once() -> None:
    assert guest_waits_s(Turns(ManualClock().monotonic_s)) == 0.0


@pytest.mark.parametrize(
    ("elapsed_s", "may_begin"),
    [(0.0, True), (0.07, True), (0.08, False), (0.1, False), (0.15, False), (0.25, True)],
    ids=["after a frame", "just fits", "would not end in time", "frame is due", "frame is late", "frames have stopped"],
)
def test_a_guest_begins_only_when_it_ends_before_the_next_frame(elapsed_s: float, may_begin: bool) -> None:
    clock = ManualClock()
    turns = with_rhythm(clock, 0.1)
    turns._share_due_s = float("inf")
    clock.now_s += elapsed_s
    assert (guest_waits_s(turns) == 0.0) == may_begin


def test_where_frames_leave_no_gap_a_guest_gets_a_tenth_of_the_time() -> None:
    clock = ManualClock()
    turns = with_rhythm(clock, 0.01)
    with turns.guest():
        clock.now_s += 0.02
    with turns.camera("door", clock.now_s):
        pass
    assert guest_waits_s(turns) == pytest.approx(0.02 * 9)
    for _ in range(18):
        clock.now_s += 0.01
        with turns.camera("door", clock.now_s):
            pass
    assert guest_waits_s(turns) == 0.0


def test_of_several_cameras_the_next_frame_counts() -> None:
    clock = ManualClock()
    turns = with_rhythm(clock, 0.1)
    turns._share_due_s = float("inf")
    for _ in range(10):
        clock.now_s += 0.1
        with turns.camera("door", clock.now_s):
            pass
        with turns.camera("yard", clock.now_s - 0.04):
            pass
    clock.now_s += 0.045  # the yard's next frame comes in 15 ms, the door's in 55
    assert guest_waits_s(turns) > 0.0


def test_a_waiting_frame_goes_before_guests_that_came_earlier() -> None:
    turns = Turns(time.monotonic)
    order: list[str] = []
    release = threading.Event()

    def guest(name: str) -> None:
        with turns.guest():
            order.append(name)
            release.wait(5)

    def camera() -> None:
        with turns.camera("door", time.monotonic()):
            order.append("frame")

    threads = [threading.Thread(target=guest, args=("first",))]
    threads[0].start()
    assert wait_until(lambda: order == ["first"])
    threads += [threading.Thread(target=guest, args=("second",)), threading.Thread(target=camera)]
    threads[1].start()
    threads[2].start()
    assert wait_until(lambda: turns._cameras_waiting == 1)
    release.set()
    for thread in threads:
        thread.join(5)
    assert order == ["first", "frame", "second"]


def test_a_turn_is_given_back_when_its_owner_fails() -> None:
    turns = Turns(time.monotonic)
    with pytest.raises(ZeroDivisionError), turns.camera("door", 0.0):
        raise ZeroDivisionError
    with pytest.raises(ZeroDivisionError), turns.guest():
        raise ZeroDivisionError
    assert not turns._taken
