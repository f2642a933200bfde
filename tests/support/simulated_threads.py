"""Threads on simulated time: one runs at a time until it waits, so every run gives the same to the last digit."""

from __future__ import annotations

import heapq
import threading
from itertools import count
from typing import TYPE_CHECKING

from tests.support.delivery import ManualClock

if TYPE_CHECKING:
    from collections.abc import Callable

_LIMIT_S = 30.0  # of real time between two waits


class SimulatedThreads:
    """Starts threads, lets them sleep on its clock and wait for its conditions.

    A thread that is woken runs once the one that woke it waits: who comes back for a lock at once always gets it.
    """

    def __init__(self) -> None:
        self.clock = ManualClock()
        self._alarms: list[tuple[float, int, _Thread, int]] = []
        self._numbers = count()
        self._threads: list[_Thread] = []
        self._current: _Thread | None = None

    def start(self, target: Callable[[], None]) -> None:
        """A thread that begins when `run` comes to it."""
        thread = _Thread(target)
        self._threads.append(thread)
        self.set_alarm(thread, 0.0)

    def run(self) -> None:
        """Until every thread has ended.

        Raises:
            AssertionError: threads wait that nobody will ever wake.
            Exception: what a thread raised.
        """
        while self._alarms:
            due_s, _, thread, wait = heapq.heappop(self._alarms)
            if thread.ended or wait != thread.wait:
                continue  # it was woken otherwise
            self.clock.now_s = max(self.clock.now_s, due_s)
            self._current = thread
            thread.resume()
            if thread.failure is not None:
                raise thread.failure
        assert all(thread.ended for thread in self._threads), "threads wait that nobody will wake"

    def sleep(self, duration_s: float) -> None:
        """Called by one of the threads."""
        self.set_alarm(self.current, duration_s)
        self.current.pause()

    def sleep_until(self, time_s: float) -> None:
        """Called by one of the threads."""
        self.sleep(max(0.0, time_s - self.clock.now_s))

    def condition(self, lock: threading.Lock) -> threading.Condition:
        """Stands in for ``threading.Condition``."""
        return _Condition(lock, self)

    @property
    def current(self) -> _Thread:
        """The thread that runs."""
        assert self._current is not None
        return self._current

    def set_alarm(self, thread: _Thread, duration_s: float) -> None:
        """Let the thread's present wait end after this time."""
        heapq.heappush(self._alarms, (self.clock.now_s + duration_s, next(self._numbers), thread, thread.wait))


class _Thread:
    def __init__(self, target: Callable[[], None]) -> None:
        self.wait = 0  # the number of its present wait, so that an alarm of an earlier one is known
        self.ended = False
        self.failure: BaseException | None = None
        self._target = target
        self._may_run, self._has_paused = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, daemon=True)

    def resume(self) -> None:
        """Run until its next wait or its end."""
        self.wait += 1
        if self._thread.ident is None:
            self._thread.start()
        self._may_run.release()
        assert self._has_paused.acquire(timeout=_LIMIT_S), "a thread waits for something that is not simulated"

    def pause(self) -> None:
        self._has_paused.release()
        self._may_run.acquire()

    def _run(self) -> None:
        self._may_run.acquire()
        try:
            self._target()
        except BaseException as err:  # noqa: BLE001 - raised again by run
            self.failure = err
        self.ended = True
        self._has_paused.release()


class _Condition(threading.Condition):
    def __init__(self, lock: threading.Lock, threads: SimulatedThreads) -> None:
        super().__init__(lock)
        self._simulated_lock = lock
        self._threads = threads
        self._waiting: list[_Thread] = []

    def wait(self, timeout: float | None = None) -> bool:
        thread = self._threads.current
        self._waiting.append(thread)
        if timeout is not None:
            self._threads.set_alarm(thread, timeout)
        self._simulated_lock.release()
        thread.pause()
        assert self._simulated_lock.acquire(blocking=False), "only one thread runs at a time"
        if thread in self._waiting:
            self._waiting.remove(thread)
            return False
        return True

    def notify(self, n: int = 1) -> None:
        for thread in self._waiting[:n]:
            self._waiting.remove(thread)
            self._threads.set_alarm(thread, 0.0)
