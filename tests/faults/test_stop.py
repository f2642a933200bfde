"""A signal ends the agent with exit code 0, whatever the broker does: cameras first, a flush, offline at last."""

from __future__ import annotations

import json
import signal
import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.support.agents import NODE, file_camera, running_agent, scene_camera, write_video
from tests.support.fake_broker import FakeBroker, Script
from tests.support.ports import free_port
from tests.support.subscriber import Subscriber

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.agents import Kit
    from tests.support.mosquitto import Mosquitto

FLUSH_S = 5.0
SLACK_S = 2.5  # the end of an interpreter with all its libraries, on a busy machine
VISITS = ((10, 255), (5, 0))


@pytest.fixture
def stubborn_broker() -> Iterator[FakeBroker]:
    """A broker whose script each test writes."""
    broker = FakeBroker()
    yield broker
    broker.close()


@pytest.mark.mosquitto
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_open_objects_flushes_and_says_offline(
    number: signal.Signals,
    kit: Kit,
    mosquitto: Mosquitto,
    tmp_path: Path,
) -> None:
    white = write_video(tmp_path / "white.avi", (10, 255))
    camera = file_camera(white, pace="native", loop=True)
    subscriber = Subscriber(mosquitto.host, mosquitto.port)
    with running_agent(kit.config(tmp_path, [camera], mqtt={"port": mosquitto.port})) as agent:
        agent.wait_for_line("event new", count=3)
        code, took_s = agent.signal_and_wait(number)
        assert code == 0, agent.text
        assert took_s < FLUSH_S
    assert subscriber.wait_for(lambda messages: messages[-1].payload == b"offline")
    subscriber.close()
    events = [json.loads(payload) for payload in subscriber.payloads(f"edge/{NODE}/camera/door/events")]
    kinds = [event["type"] for event in events]
    assert (kinds.count("new"), kinds.count("end")) == (3, 3)
    assert agent.text.count("id=") == len(events)
    assert "Traceback" not in agent.text
    state = json.loads(subscriber.payloads(f"edge/{NODE}/camera/door/state")[-1])
    assert (state["health"], state["counts"]) == ("stopped", {})


def test_with_the_broker_down_the_agent_still_stops_with_0_and_keeps_its_events(kit: Kit, tmp_path: Path) -> None:
    video = write_video(tmp_path / "visits.avi", *VISITS)
    config = kit.config(tmp_path, [file_camera(video, pace="native", loop=True)], mqtt={"port": free_port()})
    with running_agent(config) as agent:
        agent.wait_for_line("event new")
        code, took_s = agent.signal_and_wait(signal.SIGTERM)
    assert code == 0, agent.text
    assert took_s < SLACK_S, "there is nobody to wait for"
    assert agent.lines[-1].endswith("agent stopped\n")
    assert sum("trying again" in line for line in agent.lines) == 1
    assert "the rest waits for the next start" in agent.text


@pytest.mark.parametrize(
    ("script", "longest_s"),
    [
        (Script(connack=None), SLACK_S),
        (Script(puback=lambda _: None), FLUSH_S + SLACK_S),
    ],
    ids=["never-accepts", "never-acknowledges"],
)
def test_a_silent_broker_cannot_hold_the_agent(
    script: Script,
    longest_s: float,
    kit: Kit,
    stubborn_broker: FakeBroker,
    tmp_path: Path,
) -> None:
    stubborn_broker.script = script
    video = write_video(tmp_path / "visits.avi", *VISITS)
    camera = file_camera(video, pace="native", loop=True)
    with running_agent(kit.config(tmp_path, [camera], mqtt={"port": stubborn_broker.port})) as agent:
        agent.wait_for_line("event new")
        assert stubborn_broker.wait_for(lambda broker: len(broker.connects) > 0)
        code, took_s = agent.signal_and_wait(signal.SIGTERM)
    assert code == 0, agent.text
    assert took_s < longest_s
    assert "the rest waits for the next start" in agent.text


def test_a_broker_that_cannot_even_be_connected_to_cannot_hold_the_agent(kit: Kit, tmp_path: Path) -> None:
    """A full queue of connections drops what comes, as a firewall does: connecting takes ten seconds to fail."""
    video = write_video(tmp_path / "visits.avi", *VISITS)
    with ExitStack() as sockets:
        full = sockets.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(3):
            filler = sockets.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        camera = file_camera(video, pace="native", loop=True)
        with running_agent(kit.config(tmp_path, [camera], mqtt={"port": full.getsockname()[1]})) as agent:
            agent.wait_for_line("event new")
            code, took_s = agent.signal_and_wait(signal.SIGTERM)
    assert code == 0, agent.text
    assert took_s < FLUSH_S + SLACK_S
    assert "still blocked in connecting" in agent.text, "else this tests something else"


def test_a_camera_that_hangs_in_its_driver_cannot_hold_the_agent(kit: Kit, tmp_path: Path) -> None:
    """An address that takes connections and says nothing blocks OpenCV for as long as open_timeout_s."""
    silent = FakeBroker(Script(connack=None))
    camera = {"id": "door", "source": f"rtsp://127.0.0.1:{silent.port}/", "open_timeout_s": 60}
    with running_agent(kit.config(tmp_path, [camera], mqtt={"port": free_port()})) as agent:
        agent.wait_for_line("runs as node")
        code, took_s = agent.signal_and_wait(signal.SIGTERM)
    silent.close()
    assert code == 0, agent.text
    assert took_s < 3.0 + SLACK_S
    assert "left behind, still busy after 3 s: door" in agent.text


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_the_model_is_tried_out_ends_the_agent_at_once_and_blames_no_model(
    number: signal.Signals, kit: Kit, tmp_path: Path
) -> None:
    """There is nothing to flush yet."""
    config = kit.config(tmp_path, [scene_camera()], mqtt={"port": free_port()})
    (tmp_path / "state" / "canary.json").unlink()
    with running_agent(config) as agent:
        agent.wait_for_line("trying it out in a child process")
        code, took_s = agent.signal_and_wait(number)
    assert code == 0, agent.text
    assert took_s < SLACK_S
    assert len(agent.lines) == 1, agent.text
