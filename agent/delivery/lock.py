"""One process per outbox: a lock that the kernel frees when its holder dies."""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

from agent.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


class ProcessLock:
    """Holds ``path`` until released; the file names the holder's process id."""

    def __init__(self, path: Path) -> None:
        """Take the lock.

        Raises:
            ConfigError: another process holds it.
            OSError: the file cannot be written.
        """
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as err:
            holder = os.read(self._fd, 32).decode(errors="replace").strip() or "unknown"
            os.close(self._fd)
            raise ConfigError(
                f"{path.parent}: another agent (process {holder}) uses this outbox; "
                "stop it or give each agent its own state_dir"
            ) from err
        except OSError:
            os.close(self._fd)
            raise
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Let another process have it; the file stays, because removing it would race with the next holder."""
        os.close(self._fd)
