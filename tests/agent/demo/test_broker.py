"""The demo's broker: a child that serves, and is gone when it should be."""

from __future__ import annotations

import os
import queue
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING

import psutil
import pytest
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from agent.demo import broker
from agent.demo.broker import running_broker
from agent.errors import ConfigError, FatalError
from tests.support.agents import CHECKOUT
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

needs_amqtt = pytest.mark.skipif(find_spec("amqtt") is None, reason="needs the demo extra (amqtt)")


@pytest.fixture
def port() -> Iterator[int]:
    """The port of a running broker that takes connections."""
    with running_broker(0) as broker:
        broker.wait_until_ready()
        yield broker.port


def is_listening(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1.0):
        return True
    return False


def children() -> list[psutil.Process]:
    return [each for each in psutil.Process().children() if "agent.demo.broker" in each.cmdline()]


@needs_amqtt
def test_messages_go_through_it(port: int) -> None:
    received: queue.SimpleQueue[bytes | bytearray] = queue.SimpleQueue()
    client = Client(CallbackAPIVersion.VERSION2)
    client.on_connect = lambda client, *_: client.subscribe("a/#", qos=1)
    client.on_subscribe = lambda client, *_: client.publish("a/b", b"hello", qos=1)
    client.on_message = lambda _client, _data, message: received.put(message.payload)
    client.connect("127.0.0.1", port)
    client.loop_start()
    assert received.get(timeout=10.0) == b"hello"
    client.disconnect()
    client.loop_stop()


@needs_amqtt
def test_it_ends_with_its_block_and_its_port_can_be_had_again() -> None:
    with running_broker(0) as first:
        first.wait_until_ready()
        assert is_listening(first.port)
    assert not is_listening(first.port)
    assert children() == []
    with running_broker(first.port) as second:
        second.wait_until_ready()
        assert second.port == first.port


@needs_amqtt
def test_ctrl_c_does_not_reach_it(port: int) -> None:
    """A terminal signals the group of the agent; the broker must outlive the agent's flush."""
    (child,) = children()
    assert os.getpgid(child.pid) != os.getpgrp()


@needs_amqtt
def test_one_that_ended_at_once_is_not_waited_for() -> None:
    with running_broker(0) as broken:
        (child,) = children()
        child.kill()
        with pytest.raises(FatalError, match=f"did not start on port {broken.port}"):
            broken.wait_until_ready()


@needs_amqtt
def test_it_ends_when_its_parent_is_killed() -> None:
    code = "from agent.demo.broker import running_broker as r; b = r(0); print(b.__enter__().port, flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=CHECKOUT
    ) as parent:
        assert parent.stdout is not None
        port = int(parent.stdout.readline())
        assert wait_until(lambda: is_listening(port))
        parent.send_signal(signal.SIGKILL)
    assert wait_until(lambda: not is_listening(port))


@pytest.fixture
def _any_amqtt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())


@pytest.mark.usefixtures("_any_amqtt")
def test_one_that_does_not_end_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deaf = tmp_path / "python"
    deaf.write_text("#!/bin/sh\ntrap '' TERM\nprintf '!'\nexec sleep 1000\n")
    deaf.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(deaf))
    monkeypatch.setattr(broker, "_STOP_TIMEOUT_S", 0.1)
    with running_broker(0) as running:
        running.wait_until_ready()
    assert running._child.returncode == -signal.SIGKILL


@pytest.mark.usefixtures("_any_amqtt")
def test_a_port_that_is_taken_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(ConfigError, match=rf"^--port {port}: expected a free port, got: Address already in use"),
            running_broker(port),
        ):
            pytest.fail("it began")
    assert children() == []


@pytest.mark.usefixtures("_any_amqtt")
@pytest.mark.parametrize("port", [-1, 65_536])
def test_a_number_that_is_no_port_is_refused(port: int) -> None:
    with pytest.raises(ConfigError, match=rf"^--port {port}: .* no number from 0 to 65535"), running_broker(port):
        pytest.fail("it began")


def test_without_its_package_the_demo_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'edge-agent\[demo\]'"), running_broker(0):
        pytest.fail("it began")
