"""A plain HTTP client for a server on this machine: one connection a request, no redirects, no proxies."""

from __future__ import annotations

import http.client
import json
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Answer:
    """What came back; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON data."""
        return json.loads(self.body)

    @property
    def problem(self) -> str:
        """The sentence of a problem+json answer, which says the same status as the answer itself."""
        assert self.headers["content-type"] == "application/problem+json", self.body[:300]
        problem = self.json
        assert problem["status"] == self.status
        assert problem["title"]
        return str(problem["detail"])


def ask(
    port: int,
    path: str,
    body: bytes | Iterable[bytes] | None = None,
    *,
    method: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """GET, or POST what there is of a body; an iterable goes out in chunks of unknown total length."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT_S)) as connection:
        connection.request(method or ("GET" if body is None else "POST"), path, body, headers or {})
        answer = connection.getresponse()
        return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())


def form(*files: tuple[str, bytes], boundary: str = "edge") -> tuple[bytes, dict[str, str]]:
    """Body and headers of a multipart form with these files; a name without a dot is a plain field."""
    parts = b""
    for name, content in files:
        disposition = f'name="file"; filename="{name}"' if "." in name else f'name="{name}"'
        parts += f"--{boundary}\r\nContent-Disposition: form-data; {disposition}\r\n\r\n".encode() + content + b"\r\n"
    return parts + f"--{boundary}--\r\n".encode(), {"Content-Type": f"multipart/form-data; boundary={boundary}"}
