"""Turns at inference: a camera's frame goes first; guests, such as the web API, get the gaps between frames.

A guest begins when it can be expected to be through before the next frame comes, judged by when each camera's last
frames came. A guest for which no such gap comes may make a frame wait for it, once it has itself waited nine times as
long as guests take. So guests get up to a tenth of the time of cameras that leave no gap: frames that follow each
other without a pause become a tenth fewer, and frames wait, on average, at most a tenth of the time between two.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_WAITS = 9.0  # times its own duration a guest waits for a gap, and after a guest the next one too
_LONGEST_WAIT_S = 5.0  # that wait at most: guests that take longer than a ninth of this get more than a tenth
_MARGIN = 1.25  # a guest may take so much longer than the last ones
_MISSED = 2.5  # a frame that is overdue by as many periods is not waited for; one that was dropped makes two
_SPREAD = 1.5  # the next interval may be so much further below the middle one than the shortest of the last ones was
_FRAMES = 16  # intervals that a rhythm remembers
_DURATIONS = 9  # turns that say how long the next one takes


@dataclass(slots=True)
class _Rhythm:
    """When a camera's frames come.

    The shortest of the last intervals says from when the next frame may come, so jitter is allowed for and a camera
    that became faster is known at its next frame. The middle one says when to give up on it: a pause changes nothing.
    """

    last_s: float
    intervals_s: deque[float] = field(default_factory=lambda: deque(maxlen=_FRAMES))

    def note(self, captured_s: float) -> None:
        self.intervals_s.append(captured_s - self.last_s)
        self.last_s = captured_s

    def expected_s(self) -> tuple[float, float]:
        """From when until when the next frame is waited for; until is before from where nothing is known yet."""
        if not self.intervals_s:
            return math.inf, -math.inf
        usual_s = _middle(self.intervals_s)
        soonest_s = usual_s - _SPREAD * (usual_s - min(self.intervals_s))
        return self.last_s + soonest_s, self.last_s + _MISSED * usual_s


@dataclass(slots=True, eq=False)
class _Guest:
    """One that waits."""

    came_s: float
    may_have_changed: threading.Condition


class Turns:
    """Gives the turn to one thread at a time; one thread asks for cameras, any number for guests.

    Args:
        monotonic_s: the clock, also that of the frames' capture times.
        condition: makes the conditions that threads wait for.
    """

    def __init__(
        self,
        monotonic_s: Callable[[], float],
        condition: Callable[[threading.Lock], threading.Condition] = threading.Condition,
    ) -> None:
        self.monotonic_s = monotonic_s
        self._condition = condition
        self._lock = threading.Lock()
        self._taken = False
        self._camera_may_begin = condition(self._lock)
        self._camera_waits = False
        self._guest_first = False  # the frame that waits lets one guest go before it
        self._guests: deque[_Guest] = deque()
        self._rhythms: dict[str, _Rhythm] = {}
        self._frames_s: deque[float] = deque(maxlen=_DURATIONS)
        self._guests_s: deque[float] = deque(maxlen=_DURATIONS)
        self._share_due_s = -math.inf

    @contextmanager
    def camera(self, camera_id: str, captured_s: float) -> Iterator[None]:
        """The turn for a frame that was captured at this monotonic time; waits for one guest at most."""
        with self._lock:
            self._note(camera_id, captured_s)
            self._guest_first = not self._taken and self._is_share_due()
            if self._taken or self._guest_first:
                self._wait_as_camera()
            self._taken = True
        began_s = self.monotonic_s()
        try:
            yield
        finally:
            self._give_back(self._frames_s, began_s)

    @contextmanager
    def guest(self) -> Iterator[None]:
        """The turn for somebody who can wait; guests go in the order in which they came.

        The first in line waits for a frame that has begun and, for a gap, at most nine times as long as guests usually
        take, or the one before it took, and never longer than 5 s.
        """
        with self._lock:
            guest = _Guest(self.monotonic_s(), self._condition(self._lock))
            self._guests.append(guest)
            try:
                while (wait_s := self._guest_waits_s(guest)) > 0:
                    guest.may_have_changed.wait(None if wait_s == math.inf else wait_s)
                self._taken = True
            finally:
                self._guests.remove(guest)
                self._guest_first = False
                self._wake()  # one who was interrupted may have been the one that the others wait for
        began_s = self.monotonic_s()
        try:
            yield
        finally:
            self._give_back(self._guests_s, began_s, is_guest=True)

    def _note(self, camera_id: str, captured_s: float) -> None:
        rhythm = self._rhythms.get(camera_id)
        if rhythm is None:
            self._rhythms[camera_id] = _Rhythm(captured_s)
        else:
            rhythm.note(captured_s)

    def _wait_as_camera(self) -> None:
        self._camera_waits = True
        try:
            self._wake()
            while self._taken or self._guest_first:
                self._camera_may_begin.wait()
        finally:
            self._camera_waits = False

    def _give_back(self, durations_s: deque[float], began_s: float, *, is_guest: bool = False) -> None:
        with self._lock:
            ended_s = self.monotonic_s()
            durations_s.append(ended_s - began_s)
            if is_guest:
                self._share_due_s = ended_s + _wait_after(ended_s - began_s)
            self._taken = False
            self._wake()

    def _wake(self) -> None:
        """Let the one look again who may be next."""
        if self._taken:
            return
        if self._camera_waits and not self._guest_first:
            self._camera_may_begin.notify()
        elif self._guests:
            self._guests[0].may_have_changed.notify()

    def _is_share_due(self) -> bool:
        return bool(self._guests) and self.monotonic_s() >= self._due_s(self._guests[0])

    def _due_s(self, guest: _Guest) -> float:
        """When a guest need not wait for a gap any longer."""
        return max(self._share_due_s, guest.came_s + _wait_after(self._guest_s()))

    def _guest_s(self) -> float:
        """How long a guest takes, as far as is known; before the first one, as long as a frame."""
        return _middle(self._guests_s or self._frames_s or (0.0,))

    def _guest_waits_s(self, guest: _Guest) -> float:
        """How long a guest has to wait before it may ask again; 0: it may begin, infinity: until it is woken."""
        if self._taken or guest is not self._guests[0]:
            return math.inf
        if self._camera_waits:
            return 0.0 if self._guest_first else math.inf
        now_s = self.monotonic_s()
        begins_s = min(self._gap_s(now_s), self._due_s(guest))
        return max(0.0, begins_s - now_s)

    def _gap_s(self, now_s: float) -> float:
        """When a guest may begin without making a frame wait, if none comes before."""
        ends_s = now_s + _MARGIN * self._guest_s()
        expected = [rhythm.expected_s() for rhythm in self._rhythms.values()]
        return max((until_s for from_s, until_s in expected if from_s < ends_s and now_s < until_s), default=now_s)


def _middle(values: Iterable[float]) -> float:
    ordered = sorted(values)
    return ordered[(len(ordered) - 1) // 2]


def _wait_after(guest_s: float) -> float:
    return min(_WAITS * guest_s, _LONGEST_WAIT_S)
