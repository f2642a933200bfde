"""Runs a process that logs emitted ids on its standard output, and kills it."""

from __future__ import annotations

import subprocess
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class Subject:
    """A running process; ``ids`` grows by every line that it writes."""

    def __init__(self, command: Sequence[str], ids: list[str]) -> None:
        self._ids = ids
        self._began_with = len(ids)
        self._changed = threading.Condition()
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def wait_for_ids(self, count: int, timeout_s: float = 20.0) -> None:
        """Return once it has logged so many ids.

        Raises:
            RuntimeError: it did not in time, or ended.
        """
        deadline_s = time.monotonic() + timeout_s
        with self._changed:
            while len(self._ids) - self._began_with < count:
                remaining_s = deadline_s - time.monotonic()
                if remaining_s <= 0 or self._process.poll() is not None:
                    raise RuntimeError(f"expected {count} ids, got {len(self._ids) - self._began_with}")
                self._changed.wait(min(remaining_s, 0.5))

    def kill(self) -> None:
        """SIGKILL; returns when every line it wrote has been read."""
        self._process.kill()
        self._process.wait()
        self._reader.join()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                if line.endswith("\n"):
                    with self._changed:
                        self._ids.append(line.strip())
                        self._changed.notify_all()
