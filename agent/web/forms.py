"""The picture in a form of multipart/form-data."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from agent.web.problem import Problem

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

_MOST_PARTS = 16


def picture_in(body: bytes, boundary: bytes) -> bytes:
    """The content of the form's one file, or of its one field if it has no file.

    Raises:
        Problem: 422, it is no such form, or does not hold one picture.
    """
    parts: list[_Part] = []
    name, value = bytearray(), bytearray()

    def on_part_begin() -> None:
        if len(parts) == _MOST_PARTS:
            raise _refusal(f"expected a form of at most {_MOST_PARTS} parts, got more; send the picture alone")
        parts.append(_Part())

    def on_part_data(data: bytes, start: int, end: int) -> None:
        parts[-1].content += memoryview(data)[start:end]

    def on_header_field(data: bytes, start: int, end: int) -> None:
        name.extend(data[start:end])

    def on_header_value(data: bytes, start: int, end: int) -> None:
        value.extend(data[start:end])

    def on_header_end() -> None:
        if name.lower() == b"content-disposition":
            parts[-1].is_file = b"filename" in parse_options_header(bytes(value))[1]
        name.clear()
        value.clear()

    callbacks: MultipartCallbacks = {
        "on_part_begin": on_part_begin,
        "on_part_data": on_part_data,
        "on_header_field": on_header_field,
        "on_header_value": on_header_value,
        "on_header_end": on_header_end,
    }
    try:
        parser = MultipartParser(boundary, callbacks)
        parser.write(body)
        parser.finalize()
    except FormParserError as err:
        raise _refusal(f"expected a form of multipart/form-data with a picture: {err}") from err
    files = [part for part in parts if part.is_file] or parts
    if len(files) != 1:
        raise _refusal(f"expected a form with one file, got {len(files)}; send one picture a request")
    return bytes(files[0].content)


class _Part:
    """A part of a form."""

    __slots__ = ("content", "is_file")

    def __init__(self) -> None:
        self.content = bytearray()
        self.is_file = False


def _refusal(detail: str) -> Problem:
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail)
