"""A row of the outbox, which rows are given up first, and the bounded store that holds rows in memory."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

# The lowest rank is given up first when there is no room, the oldest row of it before the others.
# What must survive longest (alarms, once there are some) belongs to the last rank.
_RANKS = {"update": 0, "new": 1, "end": 1, "changed": 1, "gap": 2}
RANKS = range(3)
KINDS = tuple(_RANKS)
_ROW_OVERHEAD_BYTES = 400  # what CPython keeps for a row beside its payload, rounded up


def rank_of(kind: str) -> int:
    """The rank of an event type: 0 is given up first."""
    return _RANKS[kind]


@dataclass(frozen=True, slots=True)
class Row:
    """One message that is owed: ``seq`` orders it, ``kind`` is its event type, the payload carries its id."""

    seq: int
    kind: str
    topic: str
    payload: bytes


class RamRows:
    """Rows while the disk is unavailable: bounded in bytes; when full the oldest row of the lowest rank is dropped."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._by_rank: tuple[dict[int, Row], ...] = tuple({} for _ in RANKS)  # insertion order is seq order

    def __len__(self) -> int:
        return sum(len(rows) for rows in self._by_rank)

    def insert(self, row: Row) -> Counter[str]:
        """Keep the row; returns what was dropped for it, by kind (possibly the row itself)."""
        dropped: Counter[str] = Counter()
        self._by_rank[rank_of(row.kind)][row.seq] = row
        self._bytes += _size(row)
        for rows in self._by_rank:
            while rows and self._bytes > self._max_bytes:
                oldest = rows.pop(next(iter(rows)))
                self._bytes -= _size(oldest)
                dropped[oldest.kind] += 1
        return dropped

    def batch(self, after_seq: int, limit: int) -> list[Row]:
        """The ``limit`` oldest rows after ``after_seq``."""
        rows = [row for rows in self._by_rank for row in rows.values() if row.seq > after_seq]
        return sorted(rows, key=lambda row: row.seq)[:limit]

    def delete(self, seqs: Collection[int]) -> set[int]:
        """Forget these rows; returns those that are not here."""
        unknown = set(seqs)
        for rows in self._by_rank:
            for seq in seqs if rows else ():
                if (row := rows.pop(seq, None)) is not None:
                    self._bytes -= _size(row)
                    unknown.discard(seq)
        return unknown


def _size(row: Row) -> int:
    return len(row.payload) + len(row.topic) + _ROW_OVERHEAD_BYTES
