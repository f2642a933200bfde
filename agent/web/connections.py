"""Connections of clients, bounded in number, and in the time that they may take to say what they want."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    import asyncio

    from uvicorn.protocols.http.h11_impl import RequestResponseCycle

MOST_CONNECTIONS = 512
REQUEST_TIMEOUT_S = 10.0


class Connection(H11Protocol):
    """uvicorn's HTTP/1.1, which by itself takes any number of connections and waits for ever for their requests."""

    _impatience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """A client has come; one too many goes at once."""
        super().connection_made(transport)
        if len(self.connections) > MOST_CONNECTIONS:
            transport.abort()
        else:
            self._wait_for_request()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes of a request, or of the next one."""
        super().data_received(data)
        self._judge()

    def on_response_complete(self) -> None:
        """An answer is out; the next request may come."""
        super().on_response_complete()
        self._judge()

    def _judge(self) -> None:
        request: RequestResponseCycle | None = self.cycle  # None before the first, whatever uvicorn's types say
        if request is not None and not request.response_complete:
            self._stop_waiting()
        elif self._impatience is None:
            self._wait_for_request()

    def _wait_for_request(self) -> None:
        self._impatience = self.loop.call_later(REQUEST_TIMEOUT_S, self.transport.abort)

    def _stop_waiting(self) -> None:
        if self._impatience is not None:
            self._impatience.cancel()
            self._impatience = None
