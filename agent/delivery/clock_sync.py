"""Whether the wall clock can be believed: a Raspberry Pi has no battery for it and boots in the past."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_TIMESYNCD_MARK = Path("/run/systemd/timesync/synchronized")
_TIME_ERROR = 5  # <sys/timex.h>: the clock is not synchronised
_TIMEX_BYTES = 256  # struct timex is 208 bytes on 64-bit Linux
_REFRESH_S = 10.0


class ClockSync:
    """Asks the system at most every ten seconds; callable from any thread."""

    def __init__(self, monotonic_s: Callable[[], float], ask: Callable[[], bool] | None = None) -> None:
        self._ask = ask or _ask_system
        self._monotonic_s = monotonic_s
        self._asked_at_s = float("-inf")
        self._synced = False

    def __call__(self) -> bool:
        """True if a time source has set the wall clock."""
        now_s = self._monotonic_s()
        if now_s - self._asked_at_s >= _REFRESH_S:
            self._asked_at_s = now_s
            self._synced = self._ask()
        return self._synced


def _ask_system() -> bool:
    if _TIMESYNCD_MARK.exists():
        return True
    # A zeroed struct asks without setting anything; a sandbox may forbid even that (-1: unknown, so not believed).
    state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    return bool(0 <= state < _TIME_ERROR)
