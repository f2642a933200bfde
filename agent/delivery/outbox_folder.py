"""What lies in the outbox's folder: database, process lock, ballast, and the mark of a clean end."""

from __future__ import annotations

import logging
import os
import sqlite3
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.delivery.ballast import Ballast
from agent.delivery.lock import ProcessLock
from agent.delivery.outbox_file import DamagedFileError, OutboxFile

if TYPE_CHECKING:
    from pathlib import Path

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Opened:
    """An open file; ``clean_end`` is (epoch, last number) if it was closed properly, ``damaged`` if rows are lost."""

    file: OutboxFile
    clean_end: tuple[str, int] | None
    damaged: bool


class OutboxFolder:
    """Opens, replaces and closes the database at ``path``, at most ``max_bytes`` large."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        self.ballast = Ballast(path.with_name(path.name + ".ballast"))
        self._path, self._max_bytes = path, max_bytes
        self._clean_mark = path.with_name(path.name + ".clean")
        self._lock: ProcessLock | None = None

    def open(self) -> Opened:
        """Lock the folder and open the database; a damaged one is moved aside and a fresh one begun.

        Raises:
            ConfigError: another process holds the lock.
            OSError: the folder cannot be used.
            sqlite3.OperationalError: the disk is full, read-only or failing.
        """
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._lock is None:
            self._lock = ProcessLock(self._path.with_name(self._path.name + ".lock"))
        clean_end = self._take_clean_mark()
        try:
            file = OutboxFile(self._path, self._max_bytes)
            _sync_folder(self._path.parent)
        except sqlite3.OperationalError:
            raise  # the disk's fault, not the file's
        except (DamagedFileError, sqlite3.DatabaseError, UnicodeDecodeError) as err:  # the last: of a damaged schema
            aside = _quarantine(self._path)
            reason = " ".join(str(err).split())  # SQLite's verdict has several lines
            _log.error("outbox %s is damaged (%s): moved to %s, a fresh one begins", self._path, reason, aside)
            return Opened(OutboxFile(self._path, self._max_bytes), clean_end=None, damaged=True)
        if file.lost_rows_in_log:
            _log.error("outbox %s: the end of its log is damaged, events in it are lost", self._path)
            clean_end = None
        return Opened(file, clean_end, damaged=file.lost_rows_in_log)

    def mark_clean(self, epoch: str, last_seq: int) -> None:
        """Note that the database was closed properly; without the note the next start begins a new epoch."""
        try:
            with self._clean_mark.open("w") as mark:
                mark.write(f"{epoch} {last_seq}\n")
                mark.flush()
                os.fsync(mark.fileno())
            _sync_folder(self._path.parent)
        except OSError as err:
            _log.warning("outbox %s: its clean end cannot be noted: %s", self._path, err)

    def release(self) -> None:
        """Let another process open the folder."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _take_clean_mark(self) -> tuple[str, int] | None:
        """Read the mark and remove it for good before the database changes, so that it never outlives its truth."""
        try:
            words = self._clean_mark.read_text().split()
        except FileNotFoundError:
            return None
        self._clean_mark.unlink()
        _sync_folder(self._path.parent)
        with suppress(ValueError):
            epoch, last_seq = words
            return (epoch, int(last_seq)) if self._path.exists() else None
        return None


def _quarantine(path: Path) -> Path:
    """Move a damaged file and its log aside, over those of an earlier time; returns where it is now.

    Raises:
        OSError: the folder cannot be written.
    """
    aside = path.with_name(path.name + ".damaged")
    for suffix in ("", "-wal"):
        source = path.with_name(path.name + suffix)
        target = aside.with_name(aside.name + suffix)
        target.unlink(missing_ok=True)
        if source.exists():
            source.rename(target)
    path.with_name(path.name + "-shm").unlink(missing_ok=True)
    _sync_folder(path.parent)
    return aside


def _sync_folder(folder: Path) -> None:
    """Make created, renamed and removed names durable.

    Raises:
        OSError: the folder cannot be synced.
    """
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
