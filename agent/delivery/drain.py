"""Which rows of the outbox go out next, and what an answer of the broker means for them; no input or output itself.

Rows go oldest first, at most a window of them unanswered. A row leaves the outbox only when the broker has accepted it.
A refused row stops the queue: after a pause everything unaccepted is sent again, oldest first. After some refusals the
row becomes a dead letter, except when the broker only says that a quota is used up: that heals by itself.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from typing import TYPE_CHECKING, Protocol

from agent.delivery.backoff import Backoff

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from agent.delivery.mqtt import Ack
    from agent.delivery.rows import Row

_log = logging.getLogger(__name__)

_MOST_TRIES = 5
_PAUSE_FIRST_S, _PAUSE_MOST_S = 0.5, 60.0
_QUOTA_EXCEEDED = 0x97


class Queue(Protocol):
    """What is drained; ``agent.delivery.outbox.Outbox`` is one."""

    @property
    def last_seq(self) -> int: ...
    def next_batch(self, after_seq: int, limit: int) -> list[Row]: ...
    def delete(self, seqs: Collection[int]) -> None: ...
    def bury(self, row: Row, reason: str) -> None: ...
    def pending(self) -> int: ...


class Drain:
    """The state of sending a queue over one connection after another; used by one thread."""

    def __init__(
        self, queue: Queue, monotonic_s: Callable[[], float] = time.monotonic, backoff: Backoff | None = None
    ) -> None:
        self.delivered = 0
        self._queue, self._monotonic_s = queue, monotonic_s
        self._backoff = backoff or Backoff(_PAUSE_FIRST_S, _PAUSE_MOST_S)
        self._after_seq = 0
        self._in_flight: dict[int, tuple[Row, float]] = {}  # by message id; the time it was sent
        self._refusals: Counter[int] = Counter()  # by seq
        self._resume_at_s: float | None = None

    def restart(self) -> None:
        """A new connection: nothing is in flight, and the oldest row is the next one."""
        self._in_flight.clear()
        self._after_seq = 0

    def take(self, credit: int) -> list[Row]:
        """The rows to send now, at most ``credit``; tell of each with ``sent``."""
        if self._resume_at_s is not None:
            if self._in_flight or self._monotonic_s() < self._resume_at_s:
                return []
            self._resume_at_s = None
            self._after_seq = 0
        if not self._in_flight and self._after_seq >= self._queue.last_seq and self._queue.pending():
            self._after_seq = 0  # rows came back from a disk that could not be read for a while
        rows = self._queue.next_batch(self._after_seq, credit)
        if rows:
            self._after_seq = rows[-1].seq
        return rows

    def sent(self, mid: int, row: Row) -> None:
        """The row went out under this message id."""
        self._in_flight[mid] = (row, self._monotonic_s())

    def settle(self, acks: Iterable[Ack]) -> None:
        """Take the broker's answers; those to other messages are ignored."""
        accepted = []
        for ack in acks:
            row, _ = self._in_flight.pop(ack.mid, (None, 0.0))
            if row is None:
                continue
            if ack.failure:
                self._refused(row, ack)
            else:
                accepted.append(row.seq)
                self._refusals.pop(row.seq, None)
        if accepted:
            self.delivered += len(accepted)
            self._queue.delete(accepted)

    def give_up(self, row: Row, reason: str) -> None:
        """Make the row a dead letter."""
        _log.error("event given up (%s): %s %s", reason, row.topic, row.payload[:256].decode(errors="replace"))
        self._refusals.pop(row.seq, None)
        self._queue.bury(row, reason)

    def is_idle(self) -> bool:
        """True if nothing waits and nothing is unanswered."""
        return not self._in_flight and not self._queue.pending()

    def oldest_wait_s(self) -> float:
        """For how long the oldest row in flight has been waiting for its answer; 0 if none is."""
        if not self._in_flight:
            return 0.0
        return self._monotonic_s() - next(iter(self._in_flight.values()))[1]

    def _refused(self, row: Row, ack: Ack) -> None:
        self._refusals[row.seq] += 1
        refusals = self._refusals[row.seq]
        if refusals >= _MOST_TRIES and ack.failure != _QUOTA_EXCEEDED:
            self.give_up(row, ack.reason)
            return
        if refusals == 1:
            _log.warning("the broker refuses an event on %s: %s; it will be sent again", row.topic, ack.reason)
        self._resume_at_s = self._monotonic_s() + self._backoff.after(refusals - 1)
