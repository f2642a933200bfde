"""A file that only takes up space: given back when the disk is full, because SQLite needs room even to delete."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_SIZE_BYTES = 1024 * 1024
_SPARE_BYTES = 8 * 1024 * 1024  # rebuilt only with this much room beside it, or a full disk would flicker


class Ballast:
    """One file of 1 MiB."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def keep(self) -> None:
        """Have it, if the disk has room to spare.

        Raises:
            OSError: the folder cannot be written.
        """
        if self._path.exists() or _free_bytes(self._path.parent) < _SIZE_BYTES + _SPARE_BYTES:
            return
        with self._path.open("wb") as file:
            try:
                os.posix_fallocate(file.fileno(), 0, _SIZE_BYTES)
            except OSError:
                self.give_back()
                raise

    def give_back(self) -> None:
        """Free its space.

        Raises:
            OSError: the folder cannot be written.
        """
        self._path.unlink(missing_ok=True)


def _free_bytes(folder: Path) -> int:
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize
