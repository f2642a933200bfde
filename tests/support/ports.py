"""Free loopback ports for tests that need a server to come back at the same address."""

from __future__ import annotations

import socket


def free_port() -> int:
    """A loopback port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
