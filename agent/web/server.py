"""The web server's thread: uvicorn on a socket that was bound before, so a taken port is told at the start."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from importlib.util import find_spec
from typing import TYPE_CHECKING

from agent.errors import ConfigError, FatalError

if TYPE_CHECKING:
    import uvicorn

    from agent.config import WebConfig
    from agent.web.service import Service
    from agent.web.workers import Workers

log = logging.getLogger(__name__)

SILENCE_LIMIT_S = 60.0  # of the event loop
_BACKLOG = 256
_BEAT_S = 1
_GRACE_S = 1  # for answers under way when the server stops; streams never end by themselves


class WebServer:
    """``start`` once, then ``stop``; the rest is for any thread.

    Attributes:
        port: where it listens.
        url: its address for people on this machine.
        heartbeat_s: monotonic time of the event loop's last turn.
        failure: what ended it, None while all is well.
    """

    def __init__(self, service: Service, config: WebConfig) -> None:
        """Bind the port.

        Raises:
            ConfigError: host and port cannot be listened on.
        """
        self._service, self._config = service, config
        self._listener = _listen(config.host, config.port)
        self.port: int = self._listener.getsockname()[1]
        here = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(config.host, config.host)  # noqa: S104 - compared
        self.url = f"http://{f'[{here}]' if ':' in here else here}:{self.port}/"
        self.heartbeat_s = time.monotonic()
        self.failure: Exception | None = None
        self._server: uvicorn.Server | None = None
        self._workers: Workers | None = None
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="web", daemon=True)

    @property
    def started(self) -> bool:
        """Whether it was told to serve."""
        return self._thread.ident is not None

    def start(self) -> None:
        """Serve."""
        self._thread.start()
        log.info("web API and page: %s%s", self.url, "" if self._config.token is None else " (asks for the token)")

    def stop(self, timeout_s: float) -> bool:
        """End the server; False when it is still at work after the timeout: call again to wait longer."""
        self._stopping = True
        if self._workers is not None:
            self._workers.closing = True  # streams end
        if self._server is not None:
            self._server.should_exit = True
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        if self._thread.is_alive():
            return False
        self._listener.close()
        return True

    def _run(self) -> None:
        noise = logging.getLogger("uvicorn.error")
        try:
            noise.addFilter(self._is_worth_a_line)
            asyncio.run(self._serve())
            if not self._stopping:
                raise FatalError("it ended by itself")
        except Exception as err:
            log.exception("the web server died")
            self.failure = err
        finally:
            noise.removeFilter(self._is_worth_a_line)

    async def _serve(self) -> None:
        # Imported here: it takes as long as the rest of the start, and the first frame need not wait for it.
        import uvicorn

        from agent.web.api import make_api
        from agent.web.connections import Connection
        from agent.web.workers import Workers

        workers = self._workers = Workers()
        try:
            options = uvicorn.Config(
                make_api(self._service, self._config, workers),
                http=Connection,
                ws="none",
                log_config=None,
                log_level=logging.ERROR,  # what strangers send is not worth a line each
                access_log=False,
                lifespan="off",
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=_GRACE_S,
            )
            server = self._server = uvicorn.Server(options)
            server.should_exit = self._stopping
            beating = asyncio.create_task(self._beat())
            await server.serve(sockets=[self._listener])
            beating.cancel()
        finally:
            workers.close()

    async def _beat(self) -> None:
        while True:
            self.heartbeat_s = time.monotonic()
            await asyncio.sleep(_BEAT_S)

    def _is_worth_a_line(self, _: logging.LogRecord) -> bool:
        """Requests that are cut off because the server stops are no errors."""
        return not self._stopping


def require_web_extra() -> None:
    """Raise ConfigError unless what the web API needs is installed."""
    for name in ("fastapi", "uvicorn", "python_multipart", "prometheus_client"):
        if find_spec(name) is None:
            raise ConfigError(
                f"the web API needs the extra `web`, {name} is missing; run pip install 'edge-agent[web]'"
            )


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        both = family == socket.AF_INET6 and host == "::"
        return socket.create_server((host, port), family=family, backlog=_BACKLOG, dualstack_ipv6=both)
    except (OSError, UnicodeError) as err:
        reason = err.strerror if isinstance(err, OSError) else "no such name"
        advice = "choose another port, or an address of this machine"
        raise ConfigError(f"expected to listen on {host} port {port}, got: {reason}; {advice}") from err
