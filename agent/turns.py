"""Turns at inference: a camera's frame goes first; guests, such as the web API, get the gaps between frames.

A guest begins when it can be expected to be through before the next frame comes, judged by when each camera's last
frames came. Where frames leave no such gap, guests still get a small share of the time, so that nobody starves.
"""

from __future__ import annotations

import math
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_GUEST_SHARE = 0.1  # of the time, where frames leave no gaps: a frame then waits 5 % of an inference longer on average
_MARGIN = 1.25  # a guest may take so much longer than the last ones
_NEW = 0.3  # weight of the newest value in a running mean
_MISSED = 2.0  # a frame that is overdue by as many periods is not waited for


@dataclass(slots=True)
class _Rhythm:
    """When a camera's frames come: the last one, and the running mean of the time between two."""

    last_s: float
    period_s: float

    def next_s(self, now_s: float) -> float:
        """When the next frame is due; infinity when none is expected."""
        return math.inf if now_s > self.last_s + _MISSED * self.period_s else self.last_s + self.period_s


class Turns:
    """Gives the turn to one thread at a time; one thread asks for cameras, any number for guests."""

    def __init__(self, monotonic_s: Callable[[], float]) -> None:
        self._monotonic_s = monotonic_s
        self._changed = threading.Condition()
        self._taken = False
        self._cameras_waiting = 0
        self._rhythms: dict[str, _Rhythm] = {}
        self._guest_s = 0.0
        self._share_due_s = -math.inf

    @contextmanager
    def camera(self, camera_id: str, captured_s: float) -> Iterator[None]:
        """The turn for a frame that was captured at this monotonic time; waits for one guest at most."""
        with self._changed:
            self._note(camera_id, captured_s)
            self._cameras_waiting += 1
            self._changed.wait_for(lambda: not self._taken)
            self._cameras_waiting -= 1
            self._taken = True
        try:
            yield
        finally:
            self._give_back()

    @contextmanager
    def guest(self) -> Iterator[None]:
        """The turn for somebody who can wait."""
        with self._changed:
            while (wait_s := self._guest_waits_s()) > 0:
                self._changed.wait(None if wait_s == math.inf else wait_s)
            self._taken = True
        began_s = self._monotonic_s()
        try:
            yield
        finally:
            ended_s = self._monotonic_s()
            held_s = ended_s - began_s
            self._guest_s = held_s if not self._guest_s else self._guest_s + _NEW * (held_s - self._guest_s)
            self._share_due_s = ended_s + held_s * (1 / _GUEST_SHARE - 1)
            self._give_back()

    def _give_back(self) -> None:
        with self._changed:
            self._taken = False
            self._changed.notify_all()

    def _note(self, camera_id: str, captured_s: float) -> None:
        rhythm = self._rhythms.get(camera_id)
        if rhythm is None:
            self._rhythms[camera_id] = _Rhythm(captured_s, 0.0)
            return
        passed_s = captured_s - rhythm.last_s
        fresh = not rhythm.period_s or passed_s > _MISSED * rhythm.period_s  # a pause says nothing about the rhythm
        rhythm.period_s = passed_s if fresh else rhythm.period_s + _NEW * (passed_s - rhythm.period_s)
        rhythm.last_s = captured_s

    def _guest_waits_s(self) -> float:
        """How long a guest has to wait before it may ask again; 0: it may begin, infinity: until something changes."""
        if self._taken or self._cameras_waiting:
            return math.inf
        now_s = self._monotonic_s()
        next_s = min((rhythm.next_s(now_s) for rhythm in self._rhythms.values()), default=math.inf)
        if now_s + _MARGIN * self._guest_s <= next_s or now_s >= self._share_due_s:
            return 0.0
        return self._share_due_s - now_s
