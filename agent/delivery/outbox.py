"""The durable queue of events: what was appended survives this process and leaves only when it was delivered.

An entry's id is ``node:epoch:seq``. ``seq`` counts up; ``epoch`` is random and new for each database and after each
unclean end, because then the last numbers may not have reached the disk: an id never names two events.

While the disk cannot be used (full, read-only, failing), entries stay in memory, ``degraded`` says so, and
``maintain`` puts them on disk when it works again. Whatever had to be dropped is reported by a ``gap`` entry.
"""

from __future__ import annotations

import logging
import secrets
import sqlite3
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from agent.delivery.events import Event, Gap
from agent.delivery.losses import Losses
from agent.delivery.outbox_file import REASON_DAMAGED, REASON_FULL, OutboxFile
from agent.delivery.outbox_folder import OutboxFolder
from agent.delivery.rows import RamRows, Row
from agent.delivery.sqlite import is_full

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from pathlib import Path

    from agent.clock import Clock

T = TypeVar("T")

_log = logging.getLogger(__name__)

_REASON_UNAVAILABLE = "disk_unavailable"
_GATHER_S = 0.15  # with the disk's own time, a power cut loses about the last 200 ms
_IDLE_S = 2.0
_RETRY_S = 5.0
_CLOSE_TIMEOUT_S = 3.0
_RAM_BYTES = 4 * 1024 * 1024
_FLUSH_ROWS = 256  # a flush from memory holds the lock for as many rows at a time


@dataclass(frozen=True, slots=True)
class OutboxCounts:
    """``pending`` rows wait, of them ``in_memory`` not on disk; ``dropped`` (by kind) and ``dead`` since the start."""

    pending: int
    in_memory: int
    dropped: Mapping[str, int]
    dead: int


class Outbox:
    """Append from one thread, read and delete from another; ``start`` adds the thread that waits for the disk.

    Attributes:
        heartbeat_s: monotonic time of that thread's last turn.
    """

    def __init__(
        self,
        path: Path,
        *,
        node: str,
        max_size_mib: int,
        encode: Callable[[Event | Gap, str], tuple[str, bytes]],
        clock: Clock,
    ) -> None:
        """Open the database at ``path`` (its folder is made); on disk trouble run from memory and keep trying.

        Args:
            path: the database; its lock, ballast and marks lie beside it.
            node: first part of every id.
            max_size_mib: most disk for the database; its log comes on top, usually 4 MiB and at most 8.
            encode: gives topic and payload for an event or a gap and its id.
            clock: of retries and of gap reports.

        Raises:
            ConfigError: another process holds this outbox.
        """
        self.heartbeat_s = clock.monotonic_s()
        self._path, self._node, self._encode = path, node, encode
        self._clock = clock
        self._folder = OutboxFolder(path, max_size_mib * 1024 * 1024)
        self._lock = threading.Lock()
        self._work, self._closing = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        self._file: OutboxFile | None = None
        self._ram = RamRows(_RAM_BYTES)
        self._epoch, self._seq, self._handed_out = _new_epoch(), 0, 0
        self._undeleted: set[int] = set()  # delivered, but the disk did not forget them yet
        self._losses = Losses(clock.monotonic_s)
        self._dead = 0
        self._degraded: str | None = None
        self._must_reopen = False
        self._use_disk()
        if self._degraded is None:
            self._retry_at_s = float("-inf")  # the first trouble is looked into at once, later ones every few seconds
        else:
            # The file's numbers cannot be read: count from where none of them is, later than any if the clock is right.
            self._seq = (clock.unix_ms() << 20) + secrets.randbits(19)

    @property
    def degraded(self) -> str | None:
        """Why entries stay in memory; None while all is well."""
        return self._degraded

    @property
    def last_seq(self) -> int:
        """The number of the newest entry."""
        return self._seq

    def start(self) -> None:
        """Start the thread that calls ``maintain``."""
        self._thread = threading.Thread(target=self._maintain_until_closed, name="outbox", daemon=True)
        self._thread.start()

    def append(self, event: Event) -> str:
        """Commit the event and return its id; never raises for the disk's sake."""
        with self._lock:
            row, entry_id = self._row(event, event.type)
            self._store(row)
        self._work.set()
        return entry_id

    def next_batch(self, after_seq: int, limit: int) -> list[Row]:
        """The ``limit`` oldest undelivered rows after ``after_seq``; while they are out, they are not dropped."""
        if after_seq >= self._seq or limit <= 0:
            return []
        with self._lock:
            rows: list[Row] = []
            on_disk = self._try(lambda file: file.batch(after_seq, limit + len(self._undeleted)))
            if on_disk is not None:
                rows, damaged = on_disk
                self._losses.add(REASON_DAMAGED, damaged)
            rows += self._ram.batch(after_seq, limit)
            rows = [row for row in rows if row.seq not in self._undeleted][:limit]
            if rows:
                self._handed_out = rows[-1].seq
            return rows

    def delete(self, seqs: Collection[int]) -> None:
        """Forget delivered rows; they are not handed out again even while the disk refuses."""
        with self._lock:
            self._undeleted |= self._ram.delete(seqs)
            self._try(self._delete_from)
        self._work.set()

    def bury(self, row: Row, reason: str) -> None:
        """Take a row that the broker will not have out of the queue and keep it among the dead letters."""
        with self._lock:
            self._dead += 1
            self._try(lambda file: file.bury(row, reason))
        self.delete([row.seq])

    def counts(self) -> OutboxCounts:
        """What waits and what was lost."""
        with self._lock:
            return OutboxCounts(self._pending(), len(self._ram), dict(self._losses.dropped), self._dead)

    def pending(self) -> int:
        """How many rows wait."""
        with self._lock:
            return self._pending()

    def maintain(self) -> None:
        """Make commits durable, repair what failed, report losses: may wait for the disk; one thread only."""
        if self._degraded is not None and self._clock.monotonic_s() >= self._retry_at_s:
            self._use_disk()
        if self._file is not None:
            try:
                self._file.sync()
                if self._degraded is None:
                    self._folder.ballast.keep()
            except (OSError, sqlite3.Error) as err:
                with self._lock:
                    self._fail(err)
        with self._lock:
            self._report_losses()

    def close(self) -> None:
        """Stop the thread, put what is in memory on disk, mark the end as clean; later calls find nothing."""
        self._closing.set()
        self._work.set()
        if self._thread is not None:
            self._thread.join(_CLOSE_TIMEOUT_S)
            if self._thread.is_alive():
                _log.error(
                    "outbox %s: the disk does not answer; it is left without the mark of a clean end", self._path
                )
                return
        if self._degraded is not None:
            self._use_disk()
        with self._lock:
            left, self._ram = len(self._ram), RamRows(_RAM_BYTES)
            if left:
                _log.error("outbox %s: %d events in memory are lost (%s)", self._path, left, self._degraded)
            if self._file is not None:
                self._file.close()
                self._file = None
                if self._degraded is None:
                    self._folder.mark_clean(self._epoch, self._seq)
            self._folder.release()

    def _maintain_until_closed(self) -> None:
        while not self._closing.is_set():
            self.heartbeat_s = self._clock.monotonic_s()
            if self._work.wait(_IDLE_S):
                self._closing.wait(_GATHER_S)
                self._work.clear()
            self.maintain()

    def _row(self, entry: Event | Gap, kind: str) -> tuple[Row, str]:
        self._seq += 1
        entry_id = f"{self._node}:{self._epoch}:{self._seq}"
        topic, payload = self._encode(entry, entry_id)
        return Row(self._seq, kind, topic, payload), entry_id

    def _store(self, row: Row) -> None:
        if self._degraded is None:
            dropped = self._try(lambda file: file.insert(row, self._handed_out))
            if dropped is not None:
                self._losses.add(REASON_FULL, dropped)
                return
        self._losses.add(_REASON_UNAVAILABLE, self._ram.insert(row))

    def _try(self, action: Callable[[OutboxFile], T]) -> T | None:
        """What the action gives; None if there is no file to act on, or it failed, which is noted."""
        if self._file is None:
            return None
        try:
            return action(self._file)
        except sqlite3.Error as err:
            self._fail(err)
            return None

    def _delete_from(self, file: OutboxFile) -> None:
        if self._undeleted:
            file.delete(self._undeleted)
            self._undeleted.clear()

    def _pending(self) -> int:
        on_disk = len(self._file) - len(self._undeleted) if self._file is not None else 0
        return len(self._ram) + max(on_disk, 0)

    def _fail(self, err: Exception) -> None:
        """Note trouble with the disk; the maintaining thread sees to it."""
        if self._degraded is None:
            _log.error("outbox %s: %s; events are kept in memory until the disk works again", self._path, err)
        self._degraded = str(err)
        self._must_reopen = self._must_reopen or not is_full(err)
        self._work.set()

    def _use_disk(self) -> None:
        """Have a sound file open and move to it what is in memory; on trouble note why and try again later."""
        was = self._degraded
        self._retry_at_s = self._clock.monotonic_s() + _RETRY_S
        try:
            if was is not None:
                self._folder.ballast.give_back()
            file = self._file
            if file is None or self._must_reopen:
                file = self._reopen()
            else:
                file.checkpoint()  # a full disk can still be read, and its log used again from the start
            self._flush_ram(file)
        except (OSError, sqlite3.Error) as err:
            with self._lock:
                self._fail(err)
            return
        if was is not None:
            _log.warning("outbox %s: on disk again, after: %s", self._path, was)

    def _reopen(self) -> OutboxFile:
        with self._lock:
            file, self._file = self._file, None
        if file is not None:
            file.close()
        opened = self._folder.open()
        with self._lock:
            self._adopt(opened.file, opened.clean_end, damaged=opened.damaged)
        self._must_reopen = False
        return opened.file

    def _adopt(self, file: OutboxFile, clean_end: tuple[str, int] | None, *, damaged: bool) -> None:
        self._file = file
        self._seq = max(self._seq, file.max_seq())
        if clean_end is not None:
            self._epoch, self._seq = clean_end[0], max(self._seq, clean_end[1])
        elif damaged:
            self._epoch = _new_epoch()
        if damaged:
            self._losses.add_unknown(REASON_DAMAGED)
        self._losses.recall(file.losses())

    def _flush_ram(self, file: OutboxFile) -> None:
        while True:
            with self._lock:
                self._delete_from(file)
                rows = self._ram.batch(0, _FLUSH_ROWS)
                try:
                    file.insert_all(rows)
                except sqlite3.OperationalError as err:
                    if not file.is_at_cap(err):
                        raise
                    for row in rows:
                        self._losses.add(REASON_FULL, file.insert(row, self._handed_out))
                self._ram.delete([row.seq for row in rows])
                if not len(self._ram):
                    self._degraded = None
                    return

    def _report_losses(self) -> None:
        losses = self._losses.to_report()
        if not losses:
            return
        at_ms = self._clock.unix_ms()
        gaps = [self._row(Gap(reason, dropped, at_ms), "gap")[0] for reason, dropped in losses.items()]
        if self._file is not None and self._degraded is None:
            try:
                self._file.insert_all(gaps, forget_losses=True)
            except sqlite3.Error as err:
                self._seq -= len(gaps)
                if not self._file.is_at_cap(err):  # at the cap the report waits for room
                    self._fail(err)
                return
            self._losses.forget()
        else:
            self._losses.forget()
            for gap in gaps:
                self._losses.add(_REASON_UNAVAILABLE, self._ram.insert(gap))
        for reason, dropped in losses.items():
            _log.error("outbox %s: events are lost (%s): %s", self._path, reason, dict(dropped) or "number unknown")


def _new_epoch() -> str:
    return secrets.token_hex(4)
