"""Memory that requests share: who needs more than is free waits for those before."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from agent.web.workers import busy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_MOST_WAITING = 32


class Budget:
    """So many bytes; used from one event loop."""

    def __init__(self, total_bytes: int) -> None:
        self._total_bytes = self._free_bytes = total_bytes
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    def take(self, count: int) -> None:
        """Take bytes at once; raises the `Problem` 503 when they are not free."""
        if count > self._free_bytes:
            raise busy()
        self._free_bytes -= count

    def give_back(self, count: int) -> None:
        """Give bytes back that were taken."""
        self._free_bytes += count
        while self._waiting and self._waiting[0][0] <= self._free_bytes:
            wanted, turn = self._waiting.popleft()
            if not turn.done():
                self._free_bytes -= wanted
                turn.set_result(None)

    @asynccontextmanager
    async def reserved(self, count: int) -> AsyncIterator[None]:
        """Have bytes for a block, in turn; one who wants more than there is at all gets all.

        Raises:
            Problem: 503, too many wait already.
        """
        count = min(count, self._total_bytes)
        if count <= self._free_bytes and not self._waiting:
            self._free_bytes -= count
        else:
            await self._wait_for(count)
        try:
            yield
        finally:
            self.give_back(count)

    async def _wait_for(self, count: int) -> None:
        if len(self._waiting) >= _MOST_WAITING:
            raise busy()
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((count, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give_back(count)  # the turn had come just before
            else:
                self._waiting.remove((count, turn))
                self.give_back(0)  # those behind may fit
            raise
