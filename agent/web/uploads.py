"""The bytes of a request's body: counted while they come, refused before they are too many."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple

from python_multipart.multipart import parse_options_header
from starlette.requests import ClientDisconnect

from agent.web.budget import Budget
from agent.web.forms import picture_in
from agent.web.problem import Problem

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fastapi import Request

_UPLOAD_TIMEOUT_S = 30.0
_DRAIN_TIMEOUT_S = 3.0  # a client that is still sending would miss an answer if the connection were just closed
_ENVELOPE_BYTES = 64 * 1024  # boundaries, headers and small fields around a picture
_BUDGET_UPLOADS = 8  # as many of the largest size may be in memory at once


class Upload(NamedTuple):
    """A body as it came; ``boundary`` is None unless it is a form, ``max_bytes`` the most for the picture in it."""

    body: bytes
    boundary: bytes | None
    max_bytes: int

    def picture(self) -> bytes:
        """The picture's bytes; taking a form apart takes time and, for that long, three times its memory.

        Raises:
            Problem: 422, there is no picture; 413, it has too many bytes.
        """
        content = self.body if self.boundary is None else picture_in(self.body, self.boundary)
        if not content:
            detail = "expected a JPEG, PNG or WebP picture, got an empty body; send one"
            raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail)
        if len(content) > self.max_bytes:
            raise _too_large(self.max_bytes)
        return content


class Uploads:
    """Takes bodies; all that are in memory together hold a bounded number of bytes.

    Attributes:
        max_bytes: the largest picture.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._budget = Budget(_BUDGET_UPLOADS * (max_bytes + _ENVELOPE_BYTES))

    @asynccontextmanager
    async def taken(self, request: Request) -> AsyncIterator[Upload]:
        """The body; its bytes count as held until the block ends.

        Raises:
            Problem: 413 too many bytes, 408 too slow, 503 too many at once.
        """
        body = bytearray()
        try:
            yield await self._read(request, body)
        finally:
            self._budget.give_back(len(body))

    async def _read(self, request: Request, body: bytearray) -> Upload:
        content_type, options = parse_options_header(request.headers.get("content-type"))
        is_form = content_type == b"multipart/form-data"
        limit_bytes = self.max_bytes + (_ENVELOPE_BYTES if is_form else 0)
        if _declared_bytes(request) > limit_bytes:
            if "expect" not in request.headers:  # else the client waits for our word before it sends
                await _drain(request.stream())
            raise _too_large(self.max_bytes)
        try:
            await asyncio.wait_for(self._collect(request, limit_bytes, body), _UPLOAD_TIMEOUT_S)
        except asyncio.TimeoutError as err:
            detail = f"expected the picture within {_UPLOAD_TIMEOUT_S:g} s; send a smaller one, or faster"
            raise Problem(HTTPStatus.REQUEST_TIMEOUT, detail, {"Connection": "close"}) from err
        return Upload(bytes(body), options.get(b"boundary", b"") if is_form else None, self.max_bytes)

    async def _collect(self, request: Request, limit_bytes: int, body: bytearray) -> None:
        stream = request.stream()
        try:
            async for chunk in stream:
                if len(body) + len(chunk) > limit_bytes:
                    await _drain(stream)
                    raise _too_large(self.max_bytes)
                self._budget.take(len(chunk))
                body += chunk
        except ClientDisconnect as err:
            raise Problem(HTTPStatus.BAD_REQUEST, "the connection ended within the picture; send it again") from err


def _too_large(max_bytes: int) -> Problem:
    return Problem(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        f"expected a picture of at most {max_bytes} bytes; send a smaller one, or raise web.max_upload_mib",
        {"Connection": "close"},
    )


def _declared_bytes(request: Request) -> int:
    declared = request.headers.get("content-length", "")
    return int(declared) if declared.isdigit() else 0


async def _drain(stream: AsyncIterator[bytes]) -> None:
    """Take what a client is still sending and forget it, for a moment: then it reads the answer."""
    until_s = time.monotonic() + _DRAIN_TIMEOUT_S

    async def forget() -> None:
        async for _ in stream:
            if time.monotonic() > until_s:
                return

    try:
        await asyncio.wait_for(forget(), _DRAIN_TIMEOUT_S)
    except (asyncio.TimeoutError, ClientDisconnect):
        return
