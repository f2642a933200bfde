"""An answer that goes on for as long as somebody watches: pictures, each replacing the one before."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from starlette.responses import Response

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.types import Receive, Scope, Send

BOUNDARY = "frame"
MEDIA_TYPE = f"multipart/x-mixed-replace; boundary={BOUNDARY}"
_SEND_TIMEOUT_S = 15.0  # a viewer who takes nothing for so long has gone, or is of no use
_REPEAT_S = 10.0  # without a new frame the last one is sent again: a connection that is dead shows


class LiveStream(Response):
    """Multipart of JPEGs.

    Args:
        next_picture: gives the id of the newest frame and its JPEG, None while there is none.
        interval_s: least time between two pictures.
        is_over: looked at before each picture.
        when_done: called once when the stream has ended, however it did.
        headers: of the answer.
    """

    def __init__(
        self,
        next_picture: Callable[[], Awaitable[tuple[int, bytes] | None]],
        interval_s: float,
        is_over: Callable[[], bool],
        when_done: Callable[[], None],
        headers: dict[str, str],
    ) -> None:
        super().__init__(headers=headers, media_type=MEDIA_TYPE)
        del self.headers["content-length"]
        self._next_picture = next_picture
        self._interval_s = interval_s
        self._is_over = is_over
        self._when_done = when_done

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the viewer goes, takes nothing any more, or it is over."""
        gone = asyncio.ensure_future(_disconnected(receive))
        sending = asyncio.ensure_future(self._send(send))
        try:
            await asyncio.wait({gone, sending}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
        finally:
            for task in (gone, sending):
                task.cancel()
            self._when_done()

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        shown: int | None = None
        sent_s = time.monotonic()
        while not self._is_over():
            began_s = time.monotonic()
            picture = await self._next_picture()
            if picture is not None and (picture[0] != shown or began_s > sent_s + _REPEAT_S):
                body = {"type": "http.response.body", "body": _part(picture[1]), "more_body": True}
                await asyncio.wait_for(send(body), _SEND_TIMEOUT_S)
                shown, sent_s = picture[0], time.monotonic()
            await asyncio.sleep(max(0.0, self._interval_s - (time.monotonic() - began_s)))
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(send({"type": "http.response.body", "body": b""}), 1.0)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _part(jpeg: bytes) -> bytes:
    head = f"--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
    return b"%b%b\r\n" % (head.encode(), jpeg)
