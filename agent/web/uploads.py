"""The picture in a request's body: raw or multipart, counted while it comes, refused before it is too much."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect

from agent.web.problem import Problem

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fastapi import Request
    from python_multipart.multipart import MultipartCallbacks

_UPLOAD_TIMEOUT_S = 30.0
_DRAIN_TIMEOUT_S = 3.0  # a client that is still sending would miss an answer if the connection were just closed
_ENVELOPE_BYTES = 64 * 1024  # boundaries, headers and small fields around a picture
_BUDGET_UPLOADS = 8  # as many of the largest size may be in memory at once
_RETRY_AFTER_S = 1


class Uploads:
    """Takes pictures from bodies; all that are in memory together hold a bounded number of bytes.

    Attributes:
        max_bytes: the largest picture.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._free_bytes = _BUDGET_UPLOADS * (max_bytes + _ENVELOPE_BYTES)

    @asynccontextmanager
    async def picture(self, request: Request) -> AsyncIterator[bytes]:
        """The picture's bytes; they count as held until the block ends.

        Raises:
            Problem: 413 too many bytes, 408 too slow, 422 nothing there, 415 no such media type, 503 too many at once.
        """
        held = _Held()
        try:
            yield await self._read(request, held)
        finally:
            self._free_bytes += held.bytes

    async def _read(self, request: Request, held: _Held) -> bytes:
        content_type, options = parse_options_header(request.headers.get("content-type"))
        is_form = content_type == b"multipart/form-data"
        limit_bytes = self.max_bytes + (_ENVELOPE_BYTES if is_form else 0)
        if _declared_bytes(request) > limit_bytes:
            await _drain(request.stream())
            raise self._too_large()
        try:
            body = await asyncio.wait_for(self._collect(request, limit_bytes, held), _UPLOAD_TIMEOUT_S)
        except asyncio.TimeoutError as err:
            detail = f"expected the picture within {_UPLOAD_TIMEOUT_S:g} s; send a smaller one, or faster"
            raise Problem(HTTPStatus.REQUEST_TIMEOUT, detail, {"Connection": "close"}) from err
        content = _picture_in_form(body, options.get(b"boundary", b"")) if is_form else body
        if not content:
            raise Problem(
                HTTPStatus.UNPROCESSABLE_ENTITY, "expected a JPEG, PNG or WebP picture, got an empty body; send one"
            )
        if len(content) > self.max_bytes:
            raise self._too_large()
        return content

    async def _collect(self, request: Request, limit_bytes: int, held: _Held) -> bytes:
        chunks: list[bytes] = []
        stream = request.stream()
        try:
            async for chunk in stream:
                if held.bytes + len(chunk) > limit_bytes:
                    chunks.clear()
                    await _drain(stream)
                    raise self._too_large()
                if len(chunk) > self._free_bytes:
                    raise _busy()
                held.bytes += len(chunk)
                self._free_bytes -= len(chunk)
                chunks.append(chunk)
        except ClientDisconnect as err:
            raise Problem(HTTPStatus.BAD_REQUEST, "the connection ended within the picture; send it again") from err
        return b"".join(chunks)

    def _too_large(self) -> Problem:
        return Problem(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"expected a picture of at most {self.max_bytes} bytes; send a smaller one, or raise web.max_upload_mib",
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


def _busy() -> Problem:
    return Problem(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "too many pictures are being sent at once; try again in a moment",
        {"Retry-After": str(_RETRY_AFTER_S)},
    )


def _picture_in_form(body: bytes, boundary: bytes) -> bytes:
    """The content of the form's one file, or of its one field if it has no file."""
    parts: list[_Part] = []
    header = [b"", b""]

    def on_data(data: bytes, start: int, end: int) -> None:
        parts[-1].content += data[start:end]

    def on_name(data: bytes, start: int, end: int) -> None:
        header[0] += data[start:end]

    def on_value(data: bytes, start: int, end: int) -> None:
        header[1] += data[start:end]

    def on_header_end() -> None:
        if header[0].lower() == b"content-disposition":
            parts[-1].is_file = b"filename" in parse_options_header(header[1])[1]
        header[:] = [b"", b""]

    callbacks: MultipartCallbacks = {
        "on_part_begin": lambda: parts.append(_Part()),
        "on_part_data": on_data,
        "on_header_field": on_name,
        "on_header_value": on_value,
        "on_header_end": on_header_end,
    }
    try:
        parser = MultipartParser(boundary, callbacks)
        parser.write(body)
        parser.finalize()
    except MultipartParseError as err:
        raise Problem(
            HTTPStatus.UNPROCESSABLE_ENTITY, f"expected a form of multipart/form-data with a picture: {err}"
        ) from err
    files = [part for part in parts if part.is_file] or parts
    if len(files) != 1:
        raise Problem(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            f"expected a form with one file, got {len(files)}; send one picture a request",
        )
    return bytes(files[0].content)


class _Held:
    """Bytes of one request's body."""

    __slots__ = ("bytes",)

    def __init__(self) -> None:
        self.bytes = 0


class _Part:
    """A part of a form."""

    __slots__ = ("content", "is_file")

    def __init__(self) -> None:
        self.content = bytearray()
        self.is_file = False
