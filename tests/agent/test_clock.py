"""The system's clock, and how a stop ends its waits."""

from __future__ import annotations

import threading
import time

from agent.clock import SystemClock


def test_the_clocks_are_the_systems() -> None:
    clock = SystemClock()
    assert abs(clock.monotonic_s() - time.monotonic()) < 5
    assert abs(clock.unix_ms() - time.time() * 1000) < 5000


def test_an_interrupt_ends_present_and_future_waits() -> None:
    clock = SystemClock()
    assert not clock.wait(0)
    assert not clock.wait(-1)
    later = threading.Timer(0.01, clock.interrupt)
    later.start()
    assert clock.wait(60)
    assert clock.wait(60)
    later.join()
