"""A process that is killed at any moment, with its broker up or down, loses no event that it had taken."""

from __future__ import annotations

import json
import random
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.faults.killing import Subject
from tests.faults.oracle import judge
from tests.support.delivery import EVENTS_TOPIC
from tests.support.mosquitto import mosquitto  # noqa: F401 - a fixture
from tests.support.subscriber import Subscriber

if TYPE_CHECKING:
    from tests.support.mosquitto import Mosquitto

KILLS = 20
SEED = 20_240_607
SUBJECT = Path(__file__).with_name("subject.py")
REPOSITORY = Path(__file__).parents[2]


@pytest.mark.mosquitto
def test_twenty_kills_lose_nothing(tmp_path: Path, mosquitto: Mosquitto, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    rng = random.Random(SEED)  # noqa: S311 - repeatable moments
    subscriber = Subscriber(mosquitto.host, mosquitto.port, EVENTS_TOPIC)
    emitted: list[str] = []
    broker_is_up = True
    starts_without_broker = 0
    for _ in range(KILLS):
        starts_without_broker += not broker_is_up
        rate_hz = rng.uniform(50, 200)
        subject = Subject([sys.executable, str(SUBJECT), str(tmp_path), str(mosquitto.port), str(rate_hz)], emitted)
        if broker_is_up and rng.random() < 0.35:
            subject.wait_for_ids(rng.randint(1, 20))
            mosquitto.stop()
            broker_is_up = False
        elif not broker_is_up and rng.random() < 0.6:
            subject.wait_for_ids(rng.randint(1, 20))
            mosquitto.start()
            broker_is_up = True
        subject.wait_for_ids(rng.randint(5, 60))
        # A line is read right after its append: without this the kill would always meet the same moment.
        threading.Event().wait(rng.uniform(0, 2 / rate_hz))
        subject.kill()
    if not broker_is_up:
        mosquitto.start()
    last = Subject([sys.executable, str(SUBJECT), str(tmp_path), str(mosquitto.port), "0"], [])
    wanted = set(emitted)
    arrived = subscriber.wait_for(
        lambda _: len(subscriber.messages) >= len(wanted) and wanted <= ids_of(subscriber), timeout_s=15
    )
    last.kill()
    subscriber.close()
    verdict = judge(emitted, [message.payload for message in subscriber.messages])
    print(f"{KILLS} kills, {starts_without_broker} restarts without broker: {verdict}")
    assert arrived, str(verdict)
    assert verdict.is_clean(), str(verdict)
    assert starts_without_broker >= 2
    assert len(emitted) > KILLS * 5


def ids_of(subscriber: Subscriber) -> set[str]:

    return {json.loads(message.payload)["id"] for message in subscriber.messages}
