"""Who may ask: with a token whoever knows it; without one only this machine, under a name of its own."""

from __future__ import annotations

import base64
import hmac
from http import HTTPStatus
from typing import TYPE_CHECKING

from starlette.datastructures import Headers, MutableHeaders

from agent.config import is_loopback
from agent.web.problem import Problem

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

OPEN_PATHS = frozenset({"/healthz", "/readyz"})  # probes have no secrets
_SHIELD = {"Cross-Origin-Resource-Policy": "same-origin", "X-Content-Type-Options": "nosniff"}


class Access:
    """ASGI middleware. The token comes as ``Authorization: Bearer TOKEN``, or as Basic's password, as browsers ask.

    Without a token the ``Host`` header must be a name of this machine: else any page on the web could let a name of
    its own point here (DNS rebinding) and see through the cameras.
    """

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self._app = app
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        problem = self._judge(scope)

        async def send_shielded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_SHIELD)
            await send(message)

        await (self._app if problem is None else problem.response())(scope, receive, send_shielded)

    def _judge(self, scope: Scope) -> Problem | None:
        headers = Headers(scope=scope)
        if scope["path"] in OPEN_PATHS:
            return None
        if self._token is None:
            host = _host_of(headers.get("host", ""))
            if headers.get("sec-fetch-site") == "cross-site" and headers.get("sec-fetch-mode") != "navigate":
                detail = "another site's page may not use this one; open it by itself, or set web.token"
                return Problem(HTTPStatus.FORBIDDEN, detail)
            if is_loopback(host):
                return None
            return Problem(
                HTTPStatus.MISDIRECTED_REQUEST,
                f"expected a request for localhost or 127.0.0.1, got one for {host!r}; set web.token for other names",
            )
        if any(hmac.compare_digest(given.encode(), self._token.encode()) for given in _secrets_in(headers)):
            return None
        challenge = 'Basic realm="edge-agent", charset="UTF-8"'
        return Problem(
            HTTPStatus.UNAUTHORIZED,
            "expected the token of web.token as `Authorization: Bearer TOKEN` (or as the password of Basic)",
            {"WWW-Authenticate": challenge},
        )


def _host_of(header: str) -> str:
    """The name in a Host header, without port and brackets."""
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return (header.rpartition(":")[0] if ":" in header else header).rstrip(".").lower()


def _secrets_in(headers: Headers) -> list[str]:
    scheme, _, value = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return [value.strip()]
    if scheme.lower() != "basic":
        return []
    try:
        return [base64.b64decode(value, validate=True).decode().partition(":")[2]]
    except ValueError:  # what binascii and the codecs raise is one, and what is no ASCII
        return []
