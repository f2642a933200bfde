"""What systemd wants to hear from a service of ``Type=notify``: ready, alive, stopping (sd_notify(3))."""

from __future__ import annotations

import logging
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_log = logging.getLogger(__name__)

_PING_SHARE = 0.4  # of the watchdog's time: a ping may be late by half as much without harm
_SEND_TIMEOUT_S = 1.0  # a service manager that does not read must not make us the one that hangs


class Supervisor:
    """The service manager behind ``NOTIFY_SOCKET``; without one every call does nothing.

    Attributes:
        ping_interval_s: how often `alive` is wanted, None where no watchdog waits for it.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        watchdog_us = environ.get("WATCHDOG_USEC", "")
        watched = bool(address) and watchdog_us.isdecimal() and int(watchdog_us) > 0
        self.ping_interval_s = int(watchdog_us) / 1e6 * _PING_SHARE if watched else None

    def ready(self, status: str) -> None:
        """The service has started; ``status`` is what ``systemctl status`` shows."""
        self._send(f"READY=1\nSTATUS={status}")

    def alive(self) -> None:
        """Every loop turns; after ``WatchdogSec`` without this the service is killed and started again."""
        self._send("WATCHDOG=1")

    def stopping(self) -> None:
        """The service has begun to stop."""
        self._send("STOPPING=1\nSTATUS=stopping")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.settimeout(_SEND_TIMEOUT_S)
                sender.sendto(message.encode(), self._address)
        except OSError as err:
            _log.warning("systemd cannot be told %r: %s", message.split("\n", maxsplit=1)[0], err.strerror or err)


NO_SUPERVISOR = Supervisor({})
