"""A rate limit that lets a steady stream at exactly the limit through, jitter included."""

from __future__ import annotations


class RateLimit:
    """At most ``max_rate_hz`` on average; half an interval early is allowed, so jitter does not thin out a stream."""

    def __init__(self, max_rate_hz: float) -> None:
        self._interval_s = 1.0 / max_rate_hz
        self._due_s = float("-inf")

    def allows(self, now_s: float) -> bool:
        """True if a message may go at this moment; it then counts as sent."""
        if now_s < self._due_s - self._interval_s / 2:
            return False
        self._due_s = max(now_s, self._due_s) + self._interval_s
        return True
