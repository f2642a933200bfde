"""What is worthless when old: a bounded queue that drops its oldest message, and a rate limit."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent.delivery.mqtt import Message


class NewestMessages:
    """At most ``capacity`` messages; when full the oldest is dropped and counted. Safe between threads."""

    def __init__(self, capacity: int) -> None:
        self.sent = self.dropped = 0
        self._capacity = capacity
        self._messages: deque[Message] = deque()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._messages)

    def put(self, message: Message) -> None:
        """Queue a message to be sent."""
        with self._lock:
            if len(self._messages) >= self._capacity:
                self._messages.popleft()
                self.dropped += 1
            self._messages.append(message)

    def pop(self) -> Message:
        """Take the oldest message, counted as sent; there must be one, so only one thread takes."""
        with self._lock:
            self.sent += 1
            return self._messages.popleft()

    def drop(self, count: int = 0) -> None:
        """Forget what is queued and count it, with ``count`` more that were not even queued."""
        with self._lock:
            self.dropped += len(self._messages) + count
            self._messages.clear()


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
