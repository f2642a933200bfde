"""All uploads together hold a bounded number of bytes: what would be too much is asked to come again."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import pytest

from agent.web.problem import Problem
from agent.web.uploads import Uploads

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

MAX_BYTES = 1_000_000
FIT_AT_ONCE = 8


class FakeRequest:
    """A request whose body comes in these chunks."""

    def __init__(self, *chunks: bytes) -> None:
        self.headers: dict[str, str] = {}
        self._chunks = chunks

    async def stream(self) -> AsyncIterator[bytes]:
        for chunk in self._chunks:
            yield chunk


def whole() -> Any:
    return FakeRequest(bytes(MAX_BYTES // 2), bytes(MAX_BYTES // 2))


async def refusal(uploads: Uploads) -> Problem:
    with pytest.raises(Problem) as refused:
        async with uploads.taken(whole()):
            pytest.fail("it was taken")
    return refused.value


def test_more_than_fits_at_once_is_asked_to_come_again() -> None:
    async def scenario() -> None:
        uploads = Uploads(MAX_BYTES)
        async with AsyncExitStack() as stack:
            for _ in range(FIT_AT_ONCE):
                upload = await stack.enter_async_context(uploads.taken(whole()))
                assert len(upload.picture()) == MAX_BYTES
            for _ in range(3):  # a refusal holds nothing back
                problem = await refusal(uploads)
                assert problem.status == HTTPStatus.SERVICE_UNAVAILABLE
                assert problem.headers == {"Retry-After": "1"}
                assert "too many pictures" in problem.detail
            async with uploads.taken(FakeRequest(b"small")):  # type: ignore[arg-type]
                pass
        async with AsyncExitStack() as stack:
            for _ in range(FIT_AT_ONCE):
                await stack.enter_async_context(uploads.taken(whole()))

    asyncio.run(scenario())


def test_a_picture_is_held_until_its_block_ends_however_it_ends() -> None:
    async def scenario() -> None:
        uploads = Uploads(MAX_BYTES)
        for _ in range(3 * FIT_AT_ONCE):
            with pytest.raises(ZeroDivisionError):
                async with uploads.taken(whole()):
                    raise ZeroDivisionError
        async with AsyncExitStack() as stack:
            for _ in range(FIT_AT_ONCE):
                await stack.enter_async_context(uploads.taken(whole()))
            assert (await refusal(uploads)).status == HTTPStatus.SERVICE_UNAVAILABLE

    asyncio.run(scenario())
