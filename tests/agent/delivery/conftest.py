"""An outbox that runs, publishers that end, brokers real and scripted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from agent.clock import SystemClock
from agent.delivery.backoff import Backoff
from tests.support.delivery import make_outbox, make_publisher
from tests.support.fake_broker import FakeBroker
from tests.support.mosquitto import mosquitto  # noqa: F401 - a fixture

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from agent.delivery.outbox import Outbox
    from agent.delivery.publisher import MqttPublisher


@pytest.fixture
def live_outbox(tmp_path: Path) -> Iterator[Outbox]:
    """An outbox with its thread, on the real clock."""
    box = make_outbox(tmp_path / "state", clock=SystemClock())
    box.start()
    yield box
    box.close()


@pytest.fixture
def fake_broker() -> Iterator[FakeBroker]:
    """A broker that accepts everything until its script says otherwise."""
    broker = FakeBroker()
    yield broker
    broker.close()


@pytest.fixture
def publish_to(live_outbox: Outbox) -> Iterator[Callable[..., MqttPublisher]]:
    """Starts a publisher of the live outbox towards a port, quick to reconnect; it is stopped at the end."""
    started: list[MqttPublisher] = []

    def start(port: int, **options: object) -> MqttPublisher:
        publisher = make_publisher(live_outbox, port, reconnect=Backoff(0.05, 0.2), **options)  # type: ignore[arg-type]
        publisher.start()
        started.append(publisher)
        return publisher

    yield start
    for publisher in started:
        publisher.stop(0.5)
