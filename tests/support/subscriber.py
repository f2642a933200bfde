"""A persistent MQTT subscriber that remembers every message, in order."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Received:
    """One message as it arrived."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    at_s: float


class Subscriber:
    """Keeps its session over broker restarts, so a stored message reaches it even if it was away."""

    def __init__(self, host: str, port: int, topic: str = "#", client_id: str = "test-subscriber") -> None:
        self.messages: list[Received] = []
        self._changed = threading.Condition()
        self._subscribed = threading.Event()
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id=client_id, protocol=MQTTProtocolVersion.MQTTv5
        )
        self._client.reconnect_delay_set(min_delay=1, max_delay=1)
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = self._on_message
        self._topic = topic
        expiry = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        expiry.SessionExpiryInterval = 3600
        self._client.connect(host, port, clean_start=False, properties=expiry)
        self._client.loop_start()
        if not self._subscribed.wait(10):
            raise RuntimeError("the subscription was not acknowledged")

    def wait_for(self, condition: Callable[[list[Received]], bool], timeout_s: float = 10.0) -> bool:
        """True as soon as the messages so far satisfy the condition; False after the timeout."""
        deadline_s = time.monotonic() + timeout_s
        with self._changed:
            while not condition(self.messages):
                remaining_s = deadline_s - time.monotonic()
                if remaining_s <= 0:
                    return False
                self._changed.wait(remaining_s)
            return True

    def payloads(self, topic: str) -> list[bytes]:
        """What arrived on a topic."""
        with self._changed:
            return [message.payload for message in self.messages if message.topic == topic]

    def close(self) -> None:
        """Disconnect and stop the thread."""
        self._client.disconnect()
        self._client.loop_stop()

    def _on_connect(self, client: paho.Client, *_: Any) -> None:
        client.subscribe(self._topic, options=SubscribeOptions(qos=1, retainAsPublished=True))

    def _on_message(self, _client: Any, _userdata: Any, message: paho.MQTTMessage) -> None:
        with self._changed:
            received = Received(message.topic, bytes(message.payload), message.qos, message.retain, time.monotonic())
            self.messages.append(received)
            self._changed.notify_all()
