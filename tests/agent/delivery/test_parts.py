"""The small parts of delivery: back-off, rate limit, clock check, and the drain against a queue in memory."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.delivery import clock_sync
from agent.delivery.backoff import Backoff
from agent.delivery.clock_sync import ClockSync
from agent.delivery.drain import Drain
from agent.delivery.mqtt import Ack
from agent.delivery.rate import RateLimit
from agent.delivery.rows import Row
from agent.delivery.wal import last_commit_frame
from tests.support.delivery import ManualClock

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path


def test_delays_double_to_the_most_and_are_spread() -> None:
    backoff = Backoff(0.5, 60.0, random.Random(1))  # noqa: S311
    delays = [backoff.next_s() for _ in range(12)]
    for step, delay_s in enumerate(delays):
        full_s = min(60.0, 0.5 * 2**step)
        assert full_s / 2 <= delay_s <= full_s
    backoff.reset()
    assert backoff.next_s() <= 0.5
    assert len({round(Backoff(1, 1).next_s(), 6) for _ in range(20)}) > 10
    assert Backoff(1, 60).after(10**6) <= 60


@given(st.floats(0.5, 100), st.floats(0.5, 60), st.randoms(use_true_random=False))
def test_a_rate_is_kept_on_average(max_rate_hz: float, source_hz: float, rng: random.Random) -> None:
    limit, now_s, passed = RateLimit(max_rate_hz), 0.0, 0
    for _ in range(100):
        now_s += rng.uniform(0.5, 1.5) / source_hz
        passed += limit.allows(now_s)
    assert passed <= now_s * max_rate_hz + 2


def test_a_steady_stream_at_the_limit_passes_with_its_jitter() -> None:
    limit, rng = RateLimit(10.0), random.Random(3)  # noqa: S311
    passed = sum(limit.allows(number * 0.1 + rng.uniform(0, 0.04)) for number in range(200))
    assert passed >= 198


def test_the_clock_is_asked_every_ten_seconds() -> None:
    clock, answers = ManualClock(), iter([False, True])
    synced = ClockSync(clock.monotonic_s, lambda: next(answers))
    assert [synced(), synced()] == [False, False]
    clock.now_s += 10
    assert synced()


def test_the_system_is_asked_by_mark_and_by_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock_sync, "_TIMESYNCD_MARK", tmp_path / "synchronized")
    assert ClockSync(ManualClock().monotonic_s)() in (True, False)
    (tmp_path / "synchronized").touch()
    assert ClockSync(ManualClock().monotonic_s)() is True


@pytest.mark.parametrize("content", [None, b"", b"short", b"\0" * 32])
def test_no_log_claims_no_frames(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "log"
    if content is not None:
        path.write_bytes(content)
    assert last_commit_frame(path) == (None if content == b"\0" * 32 else 0)


class MemoryQueue:
    """A queue in memory that records what was deleted and buried."""

    def __init__(self, count: int) -> None:
        self.rows = [Row(seq, "new", "t", b"") for seq in range(1, count + 1)]
        self.buried: list[tuple[int, str]] = []

    @property
    def last_seq(self) -> int:
        return self.rows[-1].seq if self.rows else 0

    def next_batch(self, after_seq: int, limit: int) -> list[Row]:
        return [row for row in self.rows if row.seq > after_seq][:limit]

    def delete(self, seqs: Collection[int]) -> None:
        self.rows = [row for row in self.rows if row.seq not in seqs]

    def bury(self, row: Row, reason: str) -> None:
        self.buried.append((row.seq, reason))
        self.delete([row.seq])

    def pending(self) -> int:
        return len(self.rows)


def exchange(drain: Drain, failures: dict[int, int], mids: dict[int, int], window: int = 4) -> list[int]:
    """Send what may be sent and answer it; returns the numbers sent."""
    rows = drain.take(window)
    for row in rows:
        mids[len(mids) + 1] = row.seq
        drain.sent(len(mids), row)
    sent = [row.seq for row in rows]
    first = len(mids) - len(rows)
    drain.settle(Ack(first + n, failures.get(seq, 0), "refused") for n, seq in enumerate(sent, start=1))
    return sent


def test_a_row_refused_for_good_is_given_up_after_five_tries() -> None:
    clock, queue = ManualClock(), MemoryQueue(6)
    drain = Drain(queue, clock.monotonic_s)
    mids: dict[int, int] = {}
    sent = []
    for _ in range(300):
        sent += exchange(drain, {2: 0x87}, mids)
        clock.now_s += 0.25
    assert sent.count(2) == 5
    assert queue.buried == [(2, "refused")]
    assert queue.rows == []
    assert drain.delivered == 5
    assert drain.is_idle()
    assert [seq for seq in dict.fromkeys(sent)] == [1, 2, 3, 4, 5, 6]  # noqa: C416


def test_a_row_over_quota_is_never_given_up_and_never_hot() -> None:
    clock, queue = ManualClock(), MemoryQueue(1)
    drain = Drain(queue, clock.monotonic_s)
    mids: dict[int, int] = {}
    for _ in range(3600):
        exchange(drain, {1: 0x97}, mids)
        clock.now_s += 1.0
    assert queue.buried == []
    assert 3600 / 60 <= len(mids) <= 3600 / 30 + 10
    exchange(drain, {}, mids)
    clock.now_s += 60.0
    exchange(drain, {}, mids)
    assert queue.rows == []


def test_rows_that_appear_behind_the_cursor_are_found_when_idle() -> None:
    clock, queue = ManualClock(), MemoryQueue(3)
    drain = Drain(queue, clock.monotonic_s)
    back, queue.rows = queue.rows[:2], queue.rows[2:]
    mids: dict[int, int] = {}
    assert exchange(drain, {}, mids) == [3]
    queue.rows = back
    assert exchange(drain, {}, mids) == [1, 2]


def test_answers_to_other_messages_are_ignored_and_waiting_is_measured() -> None:
    clock, queue = ManualClock(), MemoryQueue(1)
    drain = Drain(queue, clock.monotonic_s)
    assert drain.oldest_wait_s() == 0.0
    [row] = drain.take(1)
    drain.sent(7, row)
    clock.now_s += 3.0
    drain.settle([Ack(8, 0, "")])
    assert drain.oldest_wait_s() == 3.0
    assert not drain.is_idle()
    drain.restart()
    assert drain.take(1) == [row]
