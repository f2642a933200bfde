"""What an SQLite write-ahead log claims to hold, to notice what recovery silently leaves out.

SQLite recovers a log up to the first frame whose checksum fails and says nothing of what follows. Frames of the
log's current generation carry the two salts of its header, so a commit frame with these salts beyond the recovered
end is a transaction that once was committed and is now lost.
Format: https://www.sqlite.org/fileformat2.html#the_write_ahead_log
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_HEADER = struct.Struct(">8I")  # magic, version, page size, checkpoint number, salt 1, salt 2, checksum 1 and 2
_FRAME = struct.Struct(">4I8x")  # page, database size after commit (0: no commit), salt 1, salt 2; checksums
_MAGIC_LITTLE, _MAGIC_BIG = 0x377F0682, 0x377F0683


def log_path(path: Path) -> Path:
    """The write-ahead log that belongs to a database file."""
    return path.with_name(path.name + "-wal")


def last_commit_frame(path: Path) -> int | None:
    """The number, from 1, of the log's last commit frame whatever its checksum; 0 without one, None: header damaged.

    Raises:
        OSError: the file exists and cannot be read.
    """
    try:
        log = path.open("rb")
    except FileNotFoundError:
        return 0
    with log:
        head = log.read(_HEADER.size)
        if len(head) < _HEADER.size:
            return 0
        _, _, page_bytes, _, salt_1, salt_2, *checksum = _HEADER.unpack(head)
        if checksum != _checksum(head[:24]):
            return None
        last, frame = 0, 0
        while len(raw := log.read(_FRAME.size + page_bytes)) == _FRAME.size + page_bytes:
            frame += 1
            _, size_after_commit, frame_salt_1, frame_salt_2 = _FRAME.unpack_from(raw)
            if size_after_commit and (frame_salt_1, frame_salt_2) == (salt_1, salt_2):
                last = frame
        return last


def _checksum(head: bytes) -> list[int]:
    order = {_MAGIC_LITTLE: "<", _MAGIC_BIG: ">"}.get(int.from_bytes(head[:4], "big"))
    if order is None:
        return []
    first = second = 0
    words = struct.unpack(f"{order}6I", head)
    for even, odd in zip(words[::2], words[1::2], strict=True):
        first = (first + even + second) & 0xFFFFFFFF
        second = (second + odd + first) & 0xFFFFFFFF
    return [first, second]
