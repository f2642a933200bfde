"""Events, clocks and outboxes for tests of delivery."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from agent.clock import SystemClock
from agent.config import DetectionsConfig, MqttConfig
from agent.delivery.events import Event, EventType, FrameRef, ModelRef, ObjectState
from agent.delivery.outbox import Outbox
from agent.delivery.payload import Origin
from agent.delivery.publisher import MqttPublisher, entry_encoder
from agent.delivery.topics import Topics

if TYPE_CHECKING:
    from pathlib import Path

    from agent.clock import Clock
    from agent.delivery.backoff import Backoff

NODE = "node-1"
TOPICS = Topics("edge", NODE)
ORIGIN = Origin(boot="6c1c1dbb-0000-4000-8000-000000000001", model=ModelRef("demo", 3, "cpu-int8"))
EVENTS_TOPIC = TOPICS.events("front")


class ManualClock(SystemClock):
    """A clock that only the test moves."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 1000.0

    def monotonic_s(self) -> float:
        return self.now_s

    def unix_ms(self) -> int:
        return int(self.now_s * 1000)


def frame_ref(number: int = 1) -> FrameRef:
    return FrameRef("front", number, 640, 480, 1_760_000_000_123)


def person(number: int = 1, label: str = "person") -> ObjectState:
    return ObjectState(number, label, 0.875, (0.1, 0.2, 0.3, 0.4))


def event(number: int = 1, kind: EventType = "new", label: str = "person") -> Event:
    """An event whose frame and object have this number."""
    return Event(kind, frame_ref(number), person(number, label))


def is_clock_synced() -> bool:
    return True


def make_outbox(folder: Path, *, clock: Clock | None = None, max_size_mib: int = 4) -> Outbox:
    """An outbox in a folder, without its thread."""
    encode = entry_encoder(TOPICS, ORIGIN, is_clock_synced)
    return Outbox(
        folder / "outbox.db", node=NODE, max_size_mib=max_size_mib, encode=encode, clock=clock or ManualClock()
    )


def make_publisher(
    outbox: Outbox,
    port: int,
    *,
    clock: Clock | None = None,
    reconnect: Backoff | None = None,
    keepalive_s: int = 30,
    max_rate_hz: float = 1000.0,
    **config: Any,
) -> MqttPublisher:
    """A publisher towards a loopback port; a keep-alive below what a config allows makes tests of silence short."""
    mqtt = MqttConfig(port=port, detections=DetectionsConfig(enabled=True, max_rate_hz=max_rate_hz), **config)
    mqtt = mqtt.model_copy(update={"keepalive_s": keepalive_s})
    return MqttPublisher(
        mqtt,
        outbox,
        TOPICS,
        ORIGIN,
        node=NODE,
        is_clock_synced=is_clock_synced,
        clock=clock or SystemClock(),
        reconnect=reconnect,
    )


def number_of(payload: bytes) -> int:
    """The number an event was made with."""
    number: int = json.loads(payload)["frame"]["id"]
    return number


def id_of(payload: bytes) -> str:
    """The id of an event or gap."""
    entry_id: str = json.loads(payload)["id"]
    return entry_id
