"""The outbox's SQLite file: rows in one table per rank, bounded, checked when opened and again row by row.

A table per rank keeps rows of one rank together, so that giving up the oldest ones frees whole pages at once.
Every insert is its own transaction in the write-ahead log: a killed process loses nothing that was inserted.
``sync`` makes the log durable against a power cut and belongs to a thread that may wait for the disk.
"""

# ruff: noqa: S608 - what is put into SQL here are the names of our own tables

from __future__ import annotations

import os
import sqlite3
import zlib
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING

from agent.delivery.rows import KINDS, RANKS, Row, rank_of
from agent.delivery.sqlite import Transaction, connect, is_full
from agent.delivery.wal import last_commit_frame, log_path

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

REASON_FULL, REASON_DAMAGED = "outbox_full", "outbox_damaged"
UNKNOWN_KIND = "unknown"
_PAGE_BYTES = 4096
_LAYOUT = 1  # user_version
_COMMITS_PER_CHECKPOINT = 500
_ROOM_ROWS = 64  # rows given up at a time: about 25 KB
_DEAD_LETTERS = 1000
_SLACK_PAGES = 8  # an insert that needs several pages fails some pages before the last
_INSERTS = [f"INSERT INTO rank_{rank} VALUES (?, ?, ?, ?, ?)" for rank in RANKS]


class DamagedFileError(Exception):
    """The file is not a sound outbox; quarantine it."""


class OutboxFile:
    """An open outbox file; its owner serialises all calls except ``sync``, which may run beside the others.

    Every method may raise ``sqlite3.Error``: ``sqlite3.DatabaseError`` itself means damage, its subclass
    ``sqlite3.OperationalError`` that the disk is full, read-only or failing.
    """

    def __init__(self, path: Path, max_bytes: int) -> None:
        """Open or create the file.

        Raises:
            DamagedFileError: the file fails SQLite's check or has another layout.
            sqlite3.Error: the file cannot be used.
            OSError: the folder cannot be used.
        """
        self._path = path
        _check_header(path)
        claimed_frame = last_commit_frame(log_path(path))
        self._db = connect(path)
        try:
            self._prepare(max_bytes)
            recovered_frame = int(self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()[1])
            self.lost_rows_in_log = claimed_frame is None or claimed_frame > recovered_frame
            self._counts = [int(self._one(f"SELECT count(*) FROM rank_{rank}")) for rank in RANKS]
            self._log_fd = os.open(log_path(path), os.O_RDONLY)
            self._syncer = connect(path)
        except BaseException:
            self._db.close()
            raise
        self._commits = 0

    def __len__(self) -> int:
        return sum(self._counts)

    def max_seq(self) -> int:
        """The highest row number ever given to a row that is still here, dead letters included; 0 without any."""
        tables = [f"rank_{rank}" for rank in RANKS] + ["dead_letters"]
        return max(int(self._one(f"SELECT coalesce(max(seq), 0) FROM {table}")) for table in tables)

    def insert(self, row: Row, keep_through: int) -> Counter[str]:
        """Commit one row; returns what was dropped for it, by kind (possibly the row itself).

        At the cap the oldest rows of the lowest rank go, never one of a higher rank than the new row's
        and none up to ``keep_through``: those are being sent.
        """
        try:
            self._insert(row)
        except sqlite3.OperationalError as err:
            if not self.is_at_cap(err):
                raise
            return self._insert_making_room(row, keep_through)
        self._counts[rank_of(row.kind)] += 1
        self._commits += 1
        return Counter()

    def insert_all(self, rows: Collection[Row], *, forget_losses: bool = False) -> None:
        """Commit rows at once, at the cap none; with the reports of all losses, forget the losses."""
        with Transaction(self._db):
            for row in rows:
                self._insert(row)
            if forget_losses:
                self._db.execute("DELETE FROM losses")
        for row in rows:
            self._counts[rank_of(row.kind)] += 1
        self._commits += 1

    def batch(self, after_seq: int, limit: int) -> tuple[list[Row], Counter[str]]:
        """The ``limit`` oldest rows after ``after_seq``, and how many, by kind, were found damaged and deleted."""
        rows: list[Row] = []
        damaged: list[tuple[int, int]] = []
        for rank in RANKS:
            if not self._counts[rank]:
                continue
            found = self._db.execute(
                f"SELECT seq, kind, topic, payload, crc FROM rank_{rank} WHERE seq > ? ORDER BY seq LIMIT ?",
                (after_seq, limit),
            )
            for seq, kind, topic, payload, crc in found:
                if crc == _crc(seq, kind, topic, payload):
                    rows.append(Row(seq, kind, topic, payload))
                else:
                    damaged.append((rank, seq))
        lost: Counter[str] = Counter()
        if damaged:
            lost[UNKNOWN_KIND] = len(damaged)
            with Transaction(self._db):
                for rank, seq in damaged:
                    self._db.execute(f"DELETE FROM rank_{rank} WHERE seq = ?", (seq,))
                    self._counts[rank] -= 1
                self._add_losses(REASON_DAMAGED, lost)
        return sorted(rows, key=lambda row: row.seq)[:limit], lost

    def delete(self, seqs: Collection[int]) -> None:
        """Delete delivered rows in one transaction; unknown ones are ignored."""
        deleted = [0 for _ in RANKS]
        with Transaction(self._db):
            for rank in RANKS:
                for seq in seqs if self._counts[rank] else ():
                    deleted[rank] += self._db.execute(f"DELETE FROM rank_{rank} WHERE seq = ?", (seq,)).rowcount
        self._counts = [count - gone for count, gone in zip(self._counts, deleted, strict=True)]
        self._commits += 1

    def bury(self, row: Row, reason: str) -> None:
        """Copy a row that the broker will not take to the dead letters, of which the newest thousand are kept."""
        with Transaction(self._db):
            self._db.execute(
                "INSERT OR REPLACE INTO dead_letters VALUES (?, ?, ?, ?, ?)",
                (row.seq, row.kind, row.topic, row.payload, reason),
            )
            self._db.execute(
                "DELETE FROM dead_letters WHERE seq <="
                " (SELECT seq FROM dead_letters ORDER BY seq DESC LIMIT 1 OFFSET ?)",
                (_DEAD_LETTERS,),
            )

    def losses(self) -> dict[str, Counter[str]]:
        """Losses not yet reported: by reason, by kind."""
        losses: dict[str, Counter[str]] = {}
        for reason, kind, dropped in self._db.execute("SELECT reason, kind, dropped FROM losses"):
            losses.setdefault(reason, Counter())[kind] += dropped
        return losses

    def is_at_cap(self, err: sqlite3.Error) -> bool:
        """True if our own bound refused the write; a full disk gives the same message."""
        if not is_full(err):
            return False
        return int(self._one("PRAGMA page_count")) + _SLACK_PAGES >= int(self._one("PRAGMA max_page_count"))

    def sync(self) -> None:
        """Make what was committed durable, and fold the log into the file now and then; waits for the disk.

        Raises:
            OSError: the disk fails.
        """
        os.fsync(self._log_fd)
        if self._commits >= _COMMITS_PER_CHECKPOINT:
            self.checkpoint()

    def checkpoint(self) -> None:
        """Fold the log into the database, so that the log is used again from its start; waits for the disk."""
        self._commits = 0
        self._syncer.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()

    def close(self) -> None:
        """Close the file; the last connection folds the log in and removes it."""
        os.close(self._log_fd)
        self._syncer.close()
        with suppress(sqlite3.Error):  # a failing disk has been reported; the descriptors are freed all the same
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        self._db.close()

    def _prepare(self, max_bytes: int) -> None:
        self._db.execute(f"PRAGMA page_size={_PAGE_BYTES}")
        self._db.execute("PRAGMA journal_mode=WAL").fetchone()
        self._db.execute(f"PRAGMA max_page_count={max_bytes // _PAGE_BYTES}").fetchone()
        if (verdict := self._one("PRAGMA quick_check(1)")) != "ok":
            raise DamagedFileError(str(verdict))
        if self._one("SELECT count(*) FROM sqlite_master") == 0:
            _create_tables(self._db)
        if _layout_of(self._db) != _expected_layout():
            raise DamagedFileError("its tables are not those of this version")

    def _insert(self, row: Row) -> None:
        self._db.execute(
            _INSERTS[rank_of(row.kind)],
            (row.seq, row.kind, row.topic, row.payload, _crc(row.seq, row.kind, row.topic, row.payload)),
        )

    def _insert_making_room(self, row: Row, keep_through: int) -> Counter[str]:
        limit = _ROOM_ROWS
        while limit <= len(self) + _DEAD_LETTERS:
            with suppress(sqlite3.OperationalError):  # still too little room; a failing disk shows below
                return self._insert_dropping(row, keep_through, limit)
            limit *= 2
        return self._insert_dropping(row, keep_through, limit)

    def _insert_dropping(self, row: Row, keep_through: int, limit: int) -> Counter[str]:
        dropped: Counter[str] = Counter()
        counts = self._counts.copy()
        with Transaction(self._db):
            oldest = "seq IN (SELECT seq FROM {0} WHERE seq > ? ORDER BY seq LIMIT ?)"
            buried = self._db.execute(f"DELETE FROM dead_letters WHERE {oldest.format('dead_letters')}", (0, limit))
            room = buried.rowcount
            for rank in range(rank_of(row.kind) + 1):
                if room >= limit:
                    break
                victims = oldest.format(f"rank_{rank}")
                span = (keep_through, limit - room)
                kinds = self._db.execute(f"SELECT kind FROM rank_{rank} WHERE {victims}", span).fetchall()
                self._db.execute(f"DELETE FROM rank_{rank} WHERE {victims}", span)
                dropped.update(kind if kind in KINDS else UNKNOWN_KIND for (kind,) in kinds)
                counts[rank] -= len(kinds)
                room += len(kinds)
            if room:
                self._insert(row)
                counts[rank_of(row.kind)] += 1
            else:
                dropped[row.kind] += 1
            self._add_losses(REASON_FULL, dropped)
        self._counts = counts
        self._commits += 1
        return dropped

    def _add_losses(self, reason: str, dropped: Mapping[str, int]) -> None:
        self._db.executemany(
            "INSERT INTO losses VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET dropped = dropped + excluded.dropped",
            [(reason, kind, count) for kind, count in dropped.items()],
        )

    def _one(self, sql: str) -> int | str:
        value: int | str = self._db.execute(sql).fetchone()[0]
        return value


def _check_header(path: Path) -> None:
    """Refuse format numbers for which SQLite would open the file read-only, or as an empty one.

    Offsets: https://www.sqlite.org/fileformat2.html#the_database_header
    """
    with suppress(FileNotFoundError), path.open("rb") as file:
        head = file.read(100)
        if len(head) == 100 and (
            head[18:20] not in {b"\1\1", b"\2\2"} or head[44:48] not in {b"\0\0\0\0", b"\0\0\0\4"}
        ):
            raise DamagedFileError("its header is damaged")


def _create_tables(db: sqlite3.Connection) -> None:
    columns = "seq INTEGER PRIMARY KEY, kind TEXT NOT NULL, topic TEXT NOT NULL, payload BLOB NOT NULL"
    with Transaction(db):
        for rank in RANKS:
            db.execute(f"CREATE TABLE rank_{rank} ({columns}, crc INTEGER NOT NULL)")
        db.execute(f"CREATE TABLE dead_letters ({columns}, reason TEXT NOT NULL)")
        db.execute("CREATE TABLE losses (reason TEXT, kind TEXT, dropped INTEGER, PRIMARY KEY (reason, kind))")
        db.execute(f"PRAGMA user_version={_LAYOUT}")


def _layout_of(db: sqlite3.Connection) -> list[tuple[object, ...]]:
    """Tables, their columns and root pages: SQLite's own check would follow a root page into another table."""
    return [*db.execute("PRAGMA user_version"), *db.execute("SELECT * FROM sqlite_master ORDER BY name")]


def _expected_layout() -> list[tuple[object, ...]]:
    db = sqlite3.connect(":memory:", isolation_level=None)
    try:
        _create_tables(db)
        return _layout_of(db)
    finally:
        db.close()


def _crc(seq: int, kind: str, topic: str, payload: bytes) -> int:
    return zlib.crc32(payload, zlib.crc32(f"{seq}\n{kind}\n{topic}\n".encode()))
