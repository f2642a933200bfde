"""Errors of the web API as problem+json (RFC 9457): a status, a title, and a sentence that says what to do."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from fastapi import Response

if TYPE_CHECKING:
    from collections.abc import Mapping
    from http import HTTPStatus

MEDIA_TYPE = "application/problem+json"


class Problem(Exception):  # noqa: N818 - the RFC's word; it is an answer, not an error of ours
    """An answer that ends a request."""

    def __init__(self, status: HTTPStatus, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers

    def response(self) -> Response:
        """The answer."""
        content = {
            "type": "about:blank",
            "title": self.status.phrase,
            "status": int(self.status),
            "detail": self.detail,
        }
        body = json.dumps(content, ensure_ascii=False)
        return Response(body, int(self.status), headers=self.headers, media_type=MEDIA_TYPE)
