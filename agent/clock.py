"""Time as the agent sees it: injected, so that tests own it and a stop ends every wait at once."""

from __future__ import annotations

import threading
import time
from typing import Protocol


class Clock(Protocol):
    """Both clocks and a wait; each capture thread has its own, safe to call from any thread."""

    def monotonic_s(self) -> float:
        """Seconds that never jump; ages, paces and limits are measured with it."""
        ...

    def unix_ms(self) -> int:
        """Wall clock in Unix milliseconds; only for people and payloads, it may jump."""
        ...

    def wait(self, duration_s: float) -> bool:
        """Wait; return True, early, once `interrupt` was called, and at once from then on."""
        ...

    def interrupt(self) -> None:
        """End every present and future wait."""
        ...


class SystemClock:
    """The clock of a real run."""

    def __init__(self) -> None:
        self._interrupted = threading.Event()

    def monotonic_s(self) -> float:
        """``time.monotonic()``."""
        return time.monotonic()

    def unix_ms(self) -> int:
        """The system's wall clock."""
        return time.time_ns() // 1_000_000

    def wait(self, duration_s: float) -> bool:
        """Sleep unless interrupted."""
        return self._interrupted.wait(max(0.0, duration_s))

    def interrupt(self) -> None:
        """Wake all waits, for good."""
        self._interrupted.set()
