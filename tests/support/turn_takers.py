"""A site where cameras and guests take turns, on simulated time: who waited how long for whom."""

from __future__ import annotations

import random
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from tests.support.simulated_threads import SimulatedThreads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from contextlib import AbstractContextManager


class TakesTurns(Protocol):
    """What `agent.turns.Turns` does for its users."""

    def camera(self, camera_id: str, captured_s: float) -> AbstractContextManager[None]: ...

    def guest(self) -> AbstractContextManager[None]: ...


class MakesTurns(Protocol):
    """Makes them on a clock, with conditions of its own kind."""

    def __call__(
        self, monotonic_s: Callable[[], float], condition: Callable[[threading.Lock], threading.Condition]
    ) -> TakesTurns: ...


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn; times are seconds since the site opened.

    Attributes:
        who: the camera or guest.
        came_s: it asked for the turn.
        began_s: it had it.
        ended_s: it gave it back.
    """

    who: str
    came_s: float
    began_s: float
    ended_s: float

    @property
    def waited_s(self) -> float:
        """From when it asked until it had it."""
        return self.began_s - self.came_s


class Site:
    """Cameras whose frames go through one model, newest first of each, as in the agent; and guests."""

    def __init__(self, make_turns: MakesTurns) -> None:
        self.threads = SimulatedThreads()
        self.opened_s = self.threads.clock.now_s
        self.turns = make_turns(self.threads.clock.monotonic_s, self.threads.condition)
        self.captured_s: list[float] = []  # of every frame, also of those that were overtaken
        self.frames: list[Turn] = []
        self.guests: list[Turn] = []
        self._frame_came = self.threads.condition(threading.Lock())
        self._waiting: dict[str, float] = {}
        self._open_cameras = 0

    @property
    def now_s(self) -> float:
        return self.threads.clock.now_s - self.opened_s

    def camera(self, camera_id: str, times_s: Iterable[float]) -> None:
        """A camera that captures frames at these times."""
        self._open_cameras += 1  # a frame that overtakes another keeps its place in the line

        def capture() -> None:
            for time_s in times_s:
                self.threads.sleep_until(self.opened_s + time_s)
                with self._frame_came:
                    self.captured_s.append(self.now_s)
                    self._waiting[camera_id] = self.now_s
                    self._frame_came.notify()
            with self._frame_came:
                self._open_cameras -= 1
                self._frame_came.notify()

        self.threads.start(capture)

    def pipeline(self, frame_s: float) -> None:
        """Takes the cameras' frames, which take this long each."""

        def work() -> None:
            while True:
                with self._frame_came:
                    while not self._waiting and self._open_cameras:
                        self._frame_came.wait()
                    if not self._waiting:
                        return
                    camera_id = next(iter(self._waiting))
                    captured_s = self._waiting.pop(camera_id)
                self._take(camera_id, self.turns.camera(camera_id, self.opened_s + captured_s), frame_s, self.frames)

        self.threads.start(work)

    def lockstep(self, camera_id: str, frame_s: float, until_s: float) -> None:
        """A camera that has the next frame as soon as the last one is through."""

        def work() -> None:
            while self.now_s < until_s:
                self.captured_s.append(self.now_s)
                self._take(camera_id, self.turns.camera(camera_id, self.opened_s + self.now_s), frame_s, self.frames)

        self.threads.start(work)

    def guest(self, who: str, comes_s: float, guest_s: float) -> None:
        """A guest that comes once."""

        def work() -> None:
            self.threads.sleep_until(self.opened_s + comes_s)
            self._take(who, self.turns.guest(), guest_s, self.guests)

        self.threads.start(work)

    def client(self, who: str, guest_s: float, pause_s: Callable[[], float], until_s: float) -> None:
        """A guest that comes again and again, after pauses."""

        def work() -> None:
            while self.now_s < until_s:
                self.threads.sleep(pause_s())
                self._take(who, self.turns.guest(), guest_s, self.guests)

        self.threads.start(work)

    def run(self) -> Site:
        """Until all is over."""
        self.threads.run()
        return self

    def _take(self, who: str, turn: AbstractContextManager[None], duration_s: float, taken: list[Turn]) -> None:
        came_s = self.now_s
        with turn:
            began_s = self.now_s
            self.threads.sleep(duration_s)
        taken.append(Turn(who, came_s, began_s, self.now_s))


class PlainLock:
    """What `agent.turns.Turns` would be without its rules."""

    def __init__(
        self, monotonic_s: Callable[[], float], condition: Callable[[threading.Lock], threading.Condition]
    ) -> None:
        self._changed = condition(threading.Lock())
        self._taken = False

    def camera(self, camera_id: str, captured_s: float) -> AbstractContextManager[None]:
        return self.guest()

    @contextmanager
    def guest(self) -> Iterator[None]:
        with self._changed:
            while self._taken:
                self._changed.wait()
            self._taken = True
        try:
            yield
        finally:
            with self._changed:
                self._taken = False
                self._changed.notify()


def steady(period_s: float, until_s: float, *, from_s: float = 0.0) -> list[float]:
    """Times of frames without jitter."""
    return [from_s + number * period_s for number in range(int((until_s - from_s) / period_s + 1e-9))]


def jittery(period_s: float, until_s: float, jitter_s: float, seed: int) -> list[float]:
    """Times of frames that come up to this much earlier or later than they should, from a time in the second second."""
    rng = random.Random(seed)  # noqa: S311 - not for secrets
    phase_s = rng.uniform(1.0 + jitter_s, 2.0)
    return [time_s + rng.uniform(-jitter_s, jitter_s) for time_s in steady(period_s, until_s, from_s=phase_s)]
