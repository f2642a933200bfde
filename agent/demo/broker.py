"""The demo's broker: amqtt in a child process on a free loopback port, so nothing has to be installed or set up.

It speaks MQTT 3.1.1 and forgets queued messages; a real installation uses mosquitto.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import logging
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from agent.errors import ConfigError, FatalError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_READY_TIMEOUT_S = 20.0
_STOP_TIMEOUT_S = 3.0


class DemoBroker:
    """A broker on its way; ``port`` is where it will listen."""

    def __init__(self, port: int, child: subprocess.Popen[bytes]) -> None:
        self.port = port
        self._child = child

    def wait_until_ready(self) -> None:
        """Return once it takes connections.

        Raises:
            FatalError: it ended, or took too long.
        """
        assert self._child.stdout is not None, "made with a pipe"
        told, _, _ = select.select([self._child.stdout], [], [], _READY_TIMEOUT_S)
        if not told or not self._child.stdout.read(1):
            raise FatalError(f"the demo's broker did not start on port {self.port}; try again, or choose a --port")


@contextlib.contextmanager
def running_broker(port: int) -> Iterator[DemoBroker]:
    """Run the broker in a child process for the length of a with block; it may still be starting when this begins.

    Args:
        port: the port to listen on; 0 picks a free one.

    Raises:
        ConfigError: amqtt is not installed, or the port cannot be had.
    """
    if importlib.util.find_spec("amqtt") is None:
        raise ConfigError("the demo needs the package amqtt: pip install 'edge-agent[demo]'")
    chosen = _free_port(port)
    with subprocess.Popen(
        [sys.executable, "-m", "agent.demo.broker", str(chosen)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for the agent, which still has events to hand over
        cwd=Path(__file__).parents[2],  # so that -m finds this very package, wherever the demo was started
    ) as child:
        try:
            yield DemoBroker(chosen, child)
        finally:
            child.terminate()
            try:
                child.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                child.kill()


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
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    # Standard input ends with the parent, however it dies.
    loop.add_reader(sys.stdin, stop.set)
    sys.stdout.write("!")  # any sign will do
    sys.stdout.flush()
    await stop.wait()
    await broker.shutdown()


def _free_port(wanted: int) -> int:
    """The wanted loopback port if it can be had, any free one for 0."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the broker will: one that just ended is free
        try:
            probe.bind(("127.0.0.1", wanted))
        except (OSError, OverflowError) as err:
            reason = err.strerror if isinstance(err, OSError) else "no number from 0 to 65535"
            raise ConfigError(f"--port {wanted}: expected a free port, got: {reason}; choose another") from err
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
