"""Retained topics: the latest payload of each wins, at most one message a second and topic, all again on reconnect."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_INTERVAL_S = 1.0


class RetainedTopics:
    """``put`` from any thread; the connection's thread takes what is due."""

    def __init__(self, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._monotonic_s = monotonic_s
        self._lock = threading.Lock()
        self._latest: dict[str, bytes] = {}
        self._due_at_s: dict[str, float] = {}  # topics whose latest payload has not been sent
        self._allowed_at_s: dict[str, float] = {}

    def put(self, topic: str, payload: bytes) -> None:
        """Replace what the topic holds."""
        with self._lock:
            self._latest[topic] = payload
            self._due_at_s.setdefault(topic, self._allowed_at_s.get(topic, 0.0))

    def all_again(self) -> None:
        """A new connection: every topic is due."""
        with self._lock:
            self._due_at_s = dict.fromkeys(self._latest, 0.0)

    def hurry(self) -> None:
        """The end is near: what waits for its turn is due now."""
        with self._lock:
            self._due_at_s = dict.fromkeys(self._due_at_s, 0.0)

    def due(self) -> list[tuple[str, bytes]]:
        """Topics and payloads to publish now."""
        if not self._due_at_s:
            return []
        now_s = self._monotonic_s()
        with self._lock:
            topics = [topic for topic, at_s in self._due_at_s.items() if at_s <= now_s]
            for topic in topics:
                del self._due_at_s[topic]
                self._allowed_at_s[topic] = now_s + _INTERVAL_S
            return [(topic, self._latest[topic]) for topic in topics]

    def is_due(self) -> bool:
        """True if some topic is to be published now."""
        return bool(self._due_at_s) and self.wait_s(most_s=1.0) == 0.0

    def wait_s(self, most_s: float) -> float:
        """Seconds until the next topic is due, at most ``most_s``."""
        with self._lock:
            if not self._due_at_s:
                return most_s
            return min(most_s, max(0.0, min(self._due_at_s.values()) - self._monotonic_s()))
