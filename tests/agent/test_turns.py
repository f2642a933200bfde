"""Turns: a camera's frame goes first, guests get the gaps, and nobody starves."""

from __future__ import annotations

import random
import threading
import time
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from agent.turns import Turns
from tests.support.delivery import ManualClock
from tests.support.turn_takers import MakesTurns, PlainLock, Site, jittery, steady

if TYPE_CHECKING:
    from collections.abc import Callable

FRAME_S, GUEST_S = 0.01, 0.02
EXACT = pytest.approx


def site_with_a_rhythm(*times_s: float, period_s: float = 0.1, guest_s: float = GUEST_S) -> Site:
    """A camera's steady frames from second 1 to 3, the last one at 2.9 s; a guest before them; then frames at times."""
    site = Site(Turns)
    site.guest("before", 0.0, guest_s)
    site.camera("door", [*steady(period_s, 3.0, from_s=1.0), *times_s])
    site.pipeline(FRAME_S)
    return site


def last_guest_began_s(site: Site, comes_s: float, guest_s: float = GUEST_S) -> float:
    site.guest("last", comes_s, guest_s)
    return next(turn.began_s for turn in site.run().guests if turn.who == "last")


# --- gaps


def test_without_cameras_guests_follow_each_other_at_once() -> None:
    site = Site(Turns)
    for who in ("first", "second", "third"):
        site.guest(who, 0.0, GUEST_S)
    assert [turn.began_s for turn in site.run().guests] == EXACT([0.0, GUEST_S, 2 * GUEST_S])


@pytest.mark.parametrize(
    ("elapsed_s", "begins_s"),
    [(0.0, FRAME_S), (0.07, 0.07), (0.08, 0.11), (0.0999, 0.11), (0.1, 0.11), (0.15, 0.15)],
    ids=["with a frame", "just fits", "would not end in time", "frame is near", "frame is due", "next gap"],
)
def test_a_guest_begins_only_when_it_ends_before_the_next_frame(elapsed_s: float, begins_s: float) -> None:
    site = site_with_a_rhythm(*steady(0.1, 5.0, from_s=3.0))
    assert last_guest_began_s(site, 2.9 + elapsed_s + 1e-6) == EXACT(2.9 + begins_s, abs=1e-5)


@pytest.mark.parametrize(
    ("elapsed_s", "begins_s"),
    [(0.08, 0.25), (0.15, 0.25), (0.25, 0.25), (9.0, 9.0)],
    ids=["due", "late", "gone", "long"],
)
def test_frames_that_do_not_come_are_not_waited_for_long(elapsed_s: float, begins_s: float) -> None:
    assert last_guest_began_s(site_with_a_rhythm(), 2.9 + elapsed_s) == EXACT(2.9 + begins_s)


@pytest.mark.parametrize("pause_s", [1.0, 3600.0])
@pytest.mark.parametrize("frames_since", [1, 2, 10])
def test_a_pause_changes_nothing_about_the_rhythm(pause_s: float, frames_since: int) -> None:
    back_s = 2.9 + pause_s
    site = site_with_a_rhythm(*steady(0.1, back_s + 5.0, from_s=back_s))
    next_frame_s = back_s + frames_since * 0.1
    assert last_guest_began_s(site, next_frame_s - 0.001) == EXACT(next_frame_s + FRAME_S)


def test_a_camera_that_paused_before_its_second_frame_is_known_at_its_third() -> None:
    site = Site(Turns)
    site.guest("before", 0.0, GUEST_S)
    site.camera("door", [1.0, 3601.0, 3601.1, 3601.2])
    site.pipeline(FRAME_S)
    assert last_guest_began_s(site, 3601.199) == EXACT(3601.2 + FRAME_S)


@pytest.mark.parametrize("frames_since", [1, 2, 5, 20])
def test_a_camera_that_became_faster_is_known_at_its_next_frame(frames_since: int) -> None:
    site = site_with_a_rhythm(*steady(0.05, 9.0, from_s=2.95))
    next_frame_s = 2.95 + frames_since * 0.05
    began_s = last_guest_began_s(site, next_frame_s - 0.001)
    assert began_s >= next_frame_s + FRAME_S - 1e-9
    if frames_since == 20:
        assert began_s == EXACT(next_frame_s + FRAME_S), "and then its gaps are"


def test_a_camera_that_became_slower_is_known_when_its_old_frames_are_forgotten() -> None:
    site = site_with_a_rhythm(*steady(0.4, 20.0, from_s=3.3))
    assert last_guest_began_s(site, 10.499) == EXACT(10.5 + FRAME_S)


def test_of_several_cameras_the_next_frame_counts() -> None:
    site = site_with_a_rhythm(*steady(0.1, 5.0, from_s=3.0))
    site.camera("yard", steady(0.1, 5.0, from_s=1.06))
    # The yard's next frame comes in 15 ms, the door's in 55, and after both there is time.
    assert last_guest_began_s(site, 3.945) == EXACT(3.96 + FRAME_S)


def test_a_slow_first_guest_is_judged_by_how_long_frames_take() -> None:
    """Nothing is known about guests yet, but they run the same model."""
    site = Site(Turns)
    site.camera("door", steady(0.1, 5.0))
    site.pipeline(FRAME_S)
    assert last_guest_began_s(site, 2.999) == EXACT(3.0 + FRAME_S)


# --- the share


def test_a_guest_that_comes_after_long_waits_for_a_gap_like_any_other() -> None:
    site = site_with_a_rhythm(*steady(0.1, 99.0, from_s=3.0))
    assert last_guest_began_s(site, 90.999) == EXACT(91.0 + FRAME_S)


def test_where_no_gap_comes_a_guest_waits_nine_times_its_own_time() -> None:
    site = site_with_a_rhythm(*steady(0.02, 9.0, from_s=2.92), period_s=0.02)
    assert last_guest_began_s(site, 5.0) == EXACT(5.0 + 9 * GUEST_S, abs=FRAME_S)


def test_a_guest_waits_as_long_again_after_another_one() -> None:
    site = site_with_a_rhythm(*steady(0.02, 9.0, from_s=2.92), period_s=0.02)
    site.guest("first", 4.99, GUEST_S)
    began_s = last_guest_began_s(site, 5.0)
    first = next(turn for turn in site.guests if turn.who == "first")
    assert began_s == EXACT(first.ended_s + 9 * GUEST_S, abs=FRAME_S)


@pytest.mark.parametrize("guest_s", [0.0012, 0.02, 0.3])
def test_frames_without_a_pause_let_guests_have_a_tenth_of_the_time(guest_s: float) -> None:
    site = Site(Turns)
    site.lockstep("door", FRAME_S, 20.0)
    for who in ("a", "b", "c"):
        site.client(who, guest_s, lambda: 0.0, 20.0)
    site.run()
    guests = [turn for turn in site.guests if 1.0 < turn.began_s < 20.0]
    # A guest begins only when a frame has ended, so short guests come a little late.
    assert len(guests) * guest_s / 19.0 == EXACT(guest_s / (10 * guest_s + FRAME_S / 2), rel=0.35)
    assert max(turn.waited_s for turn in guests) <= 3 * (10 * guest_s + FRAME_S)
    waits = [turn.waited_s for turn in site.frames]
    assert max(waits) <= guest_s + 1e-9, "a frame waits for one guest"
    assert sum(waits) <= 0.1 * 20 + guest_s


def test_a_plain_lock_would_starve_them() -> None:
    site = Site(PlainLock)
    site.lockstep("door", FRAME_S, 20.0)
    site.client("a", GUEST_S, lambda: 0.0, 20.0)
    site.run()
    assert not [turn for turn in site.guests if 1.0 < turn.began_s < 20.0]


def test_a_very_slow_guest_makes_the_next_one_wait_five_seconds_at_most() -> None:
    site = Site(Turns)
    site.lockstep("door", FRAME_S, 60.0)
    site.guest("slow", 1.0, 5.0)
    began_s = last_guest_began_s(site, 2.0)
    slow = next(turn for turn in site.guests if turn.who == "slow")
    assert began_s == EXACT(slow.ended_s + 5.0, abs=FRAME_S)


def test_one_slow_guest_among_many_does_not_change_what_is_expected_of_guests() -> None:
    site = site_with_a_rhythm(*steady(0.1, 40.0, from_s=3.0))
    for number in range(20):
        site.guest("usual", 3.0 + number, GUEST_S)
    site.guest("slow", 24.0, 1.0)
    assert last_guest_began_s(site, 35.05) == EXACT(35.05), "the gap is found to be long enough"


# --- who goes first


def test_a_waiting_frame_goes_before_guests_that_came_earlier_and_those_go_in_their_order() -> None:
    site = Site(Turns)
    for number, who in enumerate(["first", "second", "third", "fourth"]):
        site.guest(who, number * 0.001, GUEST_S)
    site.camera("door", [0.005])
    site.pipeline(FRAME_S)
    site.run()
    assert site.frames[0].began_s == EXACT(GUEST_S), "after the guest that had begun"
    assert [turn.who for turn in site.guests] == ["first", "second", "third", "fourth"]
    assert site.guests[1].began_s == EXACT(GUEST_S + FRAME_S)


def test_a_turn_is_given_back_when_its_owner_fails() -> None:
    turns = Turns(ManualClock().monotonic_s)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), turns.camera("door", 0.0):
            raise ZeroDivisionError
        with pytest.raises(ZeroDivisionError), turns.guest():
            raise ZeroDivisionError


def test_a_guest_that_is_interrupted_while_it_waits_leaves_the_line() -> None:
    class Interrupted(threading.Condition):
        def wait(self, timeout: float | None = None) -> bool:
            raise KeyboardInterrupt

    turns = Turns(ManualClock().monotonic_s, Interrupted)
    with turns.guest(), pytest.raises(KeyboardInterrupt), turns.guest():
        pass
    with turns.guest():
        pass  # would wait, and so be interrupted, behind one that is still in the line
    with turns.camera("door", 0.0):
        pass


def test_a_frame_goes_on_when_the_guest_that_it_let_go_first_is_interrupted() -> None:
    made: list[threading.Condition] = []

    def make_turns(
        monotonic_s: Callable[[], float], condition: Callable[[threading.Lock], threading.Condition]
    ) -> Turns:
        def interrupted(lock: threading.Lock) -> threading.Condition:
            made.append(condition(lock))
            if len(made) == 2:  # the first is the camera's
                wait = made[1].wait
                made[1].wait = lambda timeout=None: (wait(timeout) and site.now_s < due_s) or interrupt()  # type: ignore[method-assign]
            return made[-1]

        return Turns(monotonic_s, interrupted)

    def interrupt() -> bool:
        raise KeyboardInterrupt

    def guest() -> None:
        site.threads.sleep(due_s - 9 * FRAME_S)
        with pytest.raises(KeyboardInterrupt), site.turns.guest():
            pass

    due_s = 1.095
    site = Site(make_turns)
    site.threads.start(guest)
    site.lockstep("door", FRAME_S, 3.0)
    assert site.run().frames[-1].ended_s == EXACT(3.0, abs=FRAME_S)
    assert len(made) == 2


def test_real_threads_have_the_turn_one_at_a_time_and_all_get_it() -> None:
    turns = Turns(time.monotonic)
    inside: list[str] = []
    most_inside, done = [0], []

    def work(who: str) -> None:
        for _ in range(50):
            with turns.camera(who, time.monotonic()) if who == "door" else turns.guest():
                inside.append(who)
                most_inside.append(len(inside))
                inside.remove(who)
        done.append(who)

    threads = [threading.Thread(target=work, args=(who,), daemon=True) for who in ["door", *"abcdefgh"]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(done) == sorted(["door", *"abcdefgh"])
    assert max(most_inside) == 1


# --- a minute of it all


@dataclass(frozen=True)
class Minute:
    """Cameras whose frames jitter by a share of their period, and guests that come at any time."""

    rates_hz: tuple[float, ...]
    frame_s: float
    guest_s: float
    clients: int = 2
    jitter: float = 0.05
    first_stops_s: float = 60.0
    has_gaps: bool = True

    def run(self, make_turns: MakesTurns, seed: int) -> Site:
        site = Site(make_turns)
        site.guest("before", 0.0, self.guest_s)  # how long guests take is known
        for number, rate_hz in enumerate(self.rates_hz):
            until_s = 60.0 if number else self.first_stops_s
            site.camera(f"c{number}", jittery(1 / rate_hz, until_s, self.jitter / rate_hz, seed * 10 + number))
        site.pipeline(self.frame_s)
        rng = random.Random(seed)  # noqa: S311 - not for secrets
        for number in range(self.clients):
            # They come once the rhythms are known: eight frames of the slowest camera.
            first_s = iter([8.5])
            site.client(f"g{number}", self.guest_s, lambda it=first_s: next(it, rng.uniform(0, 0.2)), 60.0)  # type: ignore[misc]
        return site.run()

    def met_a_frame(self, site: Site) -> list[float]:
        """How long each guest had waited during whose turn a frame came."""
        came = sorted(site.captured_s)
        return [
            turn.waited_s
            for turn in site.guests
            if bisect_left(came, turn.ended_s - 1e-6) > bisect_right(came, turn.began_s)
        ]


MINUTES = {
    "one camera": Minute((15,), 0.01, 0.02),
    "a camera that jitters": Minute((15,), 0.01, 0.02, jitter=0.1),
    "three rates": Minute((15, 10, 1), 0.008, 0.012, jitter=0.02),
    "a camera that stops": Minute((15, 10), 0.01, 0.02, first_stops_s=20.0),
    "no gap that is long enough": Minute((30,), 0.015, 0.04, has_gaps=False),
    "four busy cameras": Minute((15, 15, 15, 15), 0.01, 0.02, clients=3, has_gaps=False),
    "more frames than can be taken": Minute((15, 15, 15, 15), 0.02, 0.02, clients=8, has_gaps=False),
}


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("name", MINUTES)
def test_in_a_minute_guests_meet_frames_only_in_their_share_and_all_are_served(name: str, seed: int) -> None:
    minute = MINUTES[name]
    site = minute.run(Turns, seed)
    met = minute.met_a_frame(site)
    assert all(waited_s >= 9 * minute.guest_s - 1e-6 for waited_s in met), "no gap came for so long"
    assert len(met) * minute.guest_s <= 0.1 * 60
    assert len(site.guests) > 100, "guests that never come prove nothing"
    assert max(turn.waited_s for turn in site.guests) <= minute.clients * (10 * minute.guest_s + minute.frame_s)
    waits = [turn.waited_s for turn in site.frames]
    assert max(waits) <= minute.guest_s + 1e-9, "a frame waits for one guest"
    assert sum(waits) <= 0.1 * 60, "a tenth of the time between two, on average"
    if minute.has_gaps:
        assert sum(waits) / len(waits) <= 0.01 * minute.guest_s


@pytest.mark.parametrize("name", MINUTES)
def test_a_plain_lock_keeps_none_of_it(name: str) -> None:
    minute = MINUTES[name]
    site = minute.run(PlainLock, 1)
    met_too_early = [waited_s for waited_s in minute.met_a_frame(site) if waited_s < 9 * minute.guest_s]
    starved = len(site.guests) < 100
    assert len(met_too_early) > 100 or starved
    waits = [turn.waited_s for turn in site.frames]
    assert starved or sum(waits) / len(waits) > 0.05 * minute.guest_s
