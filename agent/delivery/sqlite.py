"""SQLite as the outbox uses it: write-ahead log, bounded, one explicit transaction at a time."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_LOG_MAX_PAGES = 2000  # 8 MiB: beyond it the inserting thread checkpoints itself
_LOG_KEPT_BYTES = 4 * 1024 * 1024
_PRAGMAS = (
    "synchronous=NORMAL",
    f"wal_autocheckpoint={_LOG_MAX_PAGES}",
    f"journal_size_limit={_LOG_KEPT_BYTES}",
    "secure_delete=OFF",  # Debian builds SQLite with it on; it doubles what a delete writes
    "temp_store=MEMORY",
)


def connect(path: Path) -> sqlite3.Connection:
    """A connection in autocommit, for any thread, with the log bounded; the caller closes it.

    Raises:
        sqlite3.Error: the file cannot be used.
    """
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=1.0)
    db.text_factory = _to_text
    try:
        for pragma in _PRAGMAS:
            db.execute(f"PRAGMA {pragma}").fetchone()
    except BaseException:
        db.close()
        raise
    return db


class Transaction:
    """``BEGIN IMMEDIATE`` ... ``COMMIT``, or ``ROLLBACK`` and the error."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def __exit__(self, error_type: type[BaseException] | None, *_: object) -> None:
        try:
            if error_type is None:
                self._db.execute("COMMIT")
        finally:
            if self._db.in_transaction:  # after an error, unless SQLite itself has rolled back
                self._db.execute("ROLLBACK")


def is_full(err: Exception) -> bool:
    """True for SQLITE_FULL, of the disk or of the file's own bound (Python 3.10 has no error codes)."""
    return "database or disk is full" in str(err)


def _to_text(raw: bytes) -> str:
    """Damaged text is found by its row's checksum, so it must not stop the reading."""
    return raw.decode(errors="replace")
