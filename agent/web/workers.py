"""The threads behind the API: sent pictures, live pictures and inference have one each, with a bounded queue.

Pictures are decoded, drawn and encoded at low priority. Inference keeps the usual one: whoever has the turn and waits
for the processor keeps the cameras waiting. So does the event loop, which may hold the interpreter's lock. The threads
are daemons: one that hangs in a model does not keep the process from ending.
"""

from __future__ import annotations

import asyncio
import os
import queue
import threading
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from agent.web.problem import Problem

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
T = TypeVar("T")

_NICENESS = 10  # about a tenth of a busy core's time against the cameras' threads
_MOST_WAITING = 64


class Workers:
    """Made by the server; ``close`` lets what waits and every stream end.

    Attributes:
        pictures: decodes, draws and encodes pictures that were sent.
        live: draws and encodes the cameras' pictures.
        inference: runs models.
        closing: whether the server is about to end.
    """

    def __init__(self) -> None:
        self.pictures = Worker("web-pictures", _NICENESS)
        self.live = Worker("web-live", _NICENESS)
        self.inference = Worker("web-inference", 0)
        self.closing = False

    def close(self) -> None:
        """Call from any thread."""
        self.closing = True
        for worker in (self.pictures, self.live, self.inference):
            worker.close()


class Worker:
    """One daemon thread that does jobs in their order; what nobody waits for any more is left out."""

    def __init__(self, name: str, niceness: int) -> None:
        self._jobs: queue.Queue[_Job | None] = queue.Queue(_MOST_WAITING)
        self._niceness = niceness
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    async def do(self, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Have it done; call from an event loop.

        Raises:
            Problem: 503, too much waits already.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        try:
            self._jobs.put_nowait(_Job(lambda: work(*args, **kwargs), future, loop))
        except queue.Full as err:
            raise busy() from err
        return await future

    def close(self) -> None:
        """Let the thread end after the job in hand."""
        with suppress(queue.Empty):
            while True:
                self._jobs.get_nowait()
        self._jobs.put(None)

    def _run(self) -> None:
        if self._niceness:
            with suppress(OSError):  # where that is forbidden, it stays as it is
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), self._niceness)
        while (job := self._jobs.get()) is not None:
            job.do()
            del job  # a picture would stay in memory until the next one comes


class _Job:
    """Work, and the future that waits for it on an event loop."""

    def __init__(self, work: Callable[[], Any], future: asyncio.Future[Any], loop: asyncio.AbstractEventLoop) -> None:
        self._work, self._future, self._loop = work, future, loop

    def do(self) -> None:
        if self._future.cancelled():
            return
        result, error = None, None
        try:
            result = self._work()
        except Exception as err:  # noqa: BLE001 the thread's outermost frame: whoever waits gets it
            error = err
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(_settle, self._future, result, error)


def busy() -> Problem:
    """Too much at once."""
    detail = "too many pictures at once; try again in a moment"
    return Problem(HTTPStatus.SERVICE_UNAVAILABLE, detail, {"Retry-After": "1"})


def _settle(future: asyncio.Future[Any], result: object, error: Exception | None) -> None:
    if future.cancelled():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
