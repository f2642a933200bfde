"""The threads behind the API: pictures are decoded, drawn and encoded at low priority, inference runs at the usual one.

A thread with a turn at inference must not wait for the processor: it would keep the cameras waiting. Nor must one
that runs Python for long, such as the event loop, since it may hold the interpreter's lock meanwhile.
"""

from __future__ import annotations

import asyncio
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
T = TypeVar("T")

_NICENESS = 10  # about a tenth of a busy core's time against the cameras' threads


def lower_priority() -> None:
    """Let the calling thread yield to all others that are busy; where that is forbidden, it stays as it is."""
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)


class Workers:
    """One thread for pictures, one for inference; await their results from the event loop."""

    def __init__(self) -> None:
        self._pictures = ThreadPoolExecutor(1, "web-pictures", initializer=lower_priority)
        self._inference = ThreadPoolExecutor(1, "web-inference")

    async def picture(self, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Decode, draw or encode."""
        return await _run(self._pictures, lambda: work(*args, **kwargs))

    async def inference(self, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a model."""
        return await _run(self._inference, lambda: work(*args, **kwargs))

    def close(self) -> None:
        """Forget what has not begun."""
        for pool in (self._pictures, self._inference):
            pool.shutdown(wait=False, cancel_futures=True)


async def _run(pool: ThreadPoolExecutor, work: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(pool, work)
