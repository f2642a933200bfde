"""The demo's broker: amqtt in a child process on a free loopback port, so nothing has to be installed or set up.

It speaks MQTT 3.1.1 and forgets queued messages; a real installation uses mosquitto.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import logging
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

from agent.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@contextlib.contextmanager
def running_broker(port: int) -> Iterator[int]:
    """Run the broker in a child process for the length of a with block.

    Args:
        port: the port to listen on; 0 picks a free one.

    Yields:
        The port; connections may be refused for the first second.

    Raises:
        ConfigError: amqtt is not installed.
    """
    if importlib.util.find_spec("amqtt") is None:
        raise ConfigError("the demo needs the package amqtt: pip install 'edge-agent[demo]'")
    chosen = port or _free_port()
    child = subprocess.Popen([sys.executable, "-m", "agent.demo.broker", str(chosen)], stdin=subprocess.PIPE)
    try:
        yield chosen
    finally:
        child.terminate()
        child.wait()


def main(arguments: Sequence[str]) -> int:
    """The child: serve until it is terminated or its parent is gone."""
    logging.disable(logging.CRITICAL)
    asyncio.run(_serve(int(arguments[0])))
    return 0


async def _serve(port: int) -> None:
    from amqtt.broker import Broker

    config = {
        "listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{port}"}},
        "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
    }
    broker = Broker(config)
    await broker.start()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    # Standard input ends with the parent, however it dies.
    loop.add_reader(sys.stdin, stop.set)
    await stop.wait()
    await broker.shutdown()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
