"""The whole agent, killed in the middle of its traffic with the broker up or down, loses no event that it logged."""

from __future__ import annotations

import json
import random
import re
import signal
import threading
from typing import TYPE_CHECKING

import pytest

from tests.faults.oracle import judge
from tests.support.agents import NODE, running_agent, scene_camera
from tests.support.subscriber import Subscriber

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.agents import AgentProcess, Kit
    from tests.support.mosquitto import Mosquitto
    from tests.support.subscriber import Received

KILLS = 20
SEED = 20_251_122
FPS = 30.0
IN_FLIGHT_WINDOW = 16
LOGGED = "agent.pipeline: event "
# An object in each of the model's boxes, told of in each frame: about a hundred events a second.
BUSY = {
    "detect": {"score_threshold": 0.01},
    "tracking": {"confirm_frames": 1, "update_interval_s": 0.001, "lost_after_s": 0.05},
}
BLIND = {"detect": {"score_threshold": 1.0}}


@pytest.mark.mosquitto
def test_twenty_kills_of_the_agent_lose_nothing(kit: Kit, mosquitto: Mosquitto, tmp_path: Path) -> None:
    rng = random.Random(SEED)  # noqa: S311 - repeatable moments
    mqtt = {"port": mosquitto.port}
    config = kit.config(tmp_path, [scene_camera(fps=FPS)], mqtt=mqtt, **BUSY)
    subscriber = Subscriber(mosquitto.host, mosquitto.port, f"edge/{NODE}/camera/door/events")
    emitted: list[str] = []
    broker_is_up, broker_changes, starts_without_broker = True, 0, 0
    for _ in range(KILLS):
        starts_without_broker += not broker_is_up
        with running_agent(config) as agent:
            if rng.random() < 0.4:
                agent.wait_for_line(LOGGED, count=rng.randint(1, 20))
                mosquitto.stop() if broker_is_up else mosquitto.start()
                broker_is_up, broker_changes = not broker_is_up, broker_changes + 1
            agent.wait_for_line(LOGGED, count=rng.randint(5, 60))
            # A line is read right after its event was stored: without this the kill would always meet one moment.
            threading.Event().wait(rng.uniform(0, 2 / FPS))
        assert agent.process.returncode == -signal.SIGKILL
        emitted += ids_logged_by(agent)
    if not broker_is_up:
        mosquitto.start()
    with running_agent(kit.config(tmp_path, [scene_camera(fps=1)], mqtt=mqtt, **BLIND)) as last:
        last.wait_for_line("runs as node")
        arrived = subscriber.wait_for(lambda messages: len(messages) >= len(emitted) and ids_in(messages) >= {*emitted})
        code, _ = last.signal_and_wait(signal.SIGTERM)
    subscriber.close()
    verdict = judge(emitted, [message.payload for message in subscriber.messages])
    print(f"{KILLS} kills, {broker_changes} broker changes, {starts_without_broker} starts without broker: {verdict}")
    assert arrived, str(verdict)
    assert verdict.is_clean(), str(verdict)
    assert verdict.duplicates <= IN_FLIGHT_WINDOW * (KILLS + broker_changes)
    assert (code, ids_logged_by(last)) == (0, []), last.text
    assert "has not taken all events" not in last.text, "nothing is left over"
    assert starts_without_broker >= 3
    assert len(emitted) > KILLS * 5


def ids_logged_by(agent: AgentProcess) -> list[str]:
    """The ids of the events in an agent's log; a line that the kill cut short does not count."""
    lines = (line for line in agent.lines if line.endswith("\n"))
    return [found[1] for line in lines if (found := re.search(rf"{LOGGED}.* id=(\S+) camera=", line))]


def ids_in(messages: list[Received]) -> set[str]:
    return {json.loads(message.payload)["id"] for message in messages}
