"""Pacing: a recorded or drawn frame is released when its own clock says so."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent.clock import Clock

_CATCH_UP_S = 1.0  # a source later than this (a suspended process) goes on from now instead of racing


class Pacer:
    """Holds frames back to real time; one thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._zero_s: float | None = None  # the monotonic time at which the stream's time was 0

    def wait_until_due(self, stream_time_s: float) -> None:
        """Wait until as much time has passed since the first call as passed in the stream, or the clock interrupts."""
        now_s = self._clock.monotonic_s()
        if self._zero_s is None or now_s - (self._zero_s + stream_time_s) > _CATCH_UP_S:
            self._zero_s = now_s - stream_time_s
        delay_s = self._zero_s + stream_time_s - now_s
        if delay_s > 0:
            self._clock.wait(delay_s)
