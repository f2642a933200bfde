"""The publisher: turns events, detections and states into messages; events go through the outbox, all else is latest.

``start`` before the cameras, ``stop`` after them.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from agent.delivery.events import Event
from agent.delivery.mqtt import Message
from agent.delivery.network import Network
from agent.delivery.payload import (
    encode_camera_state,
    encode_detections,
    encode_event,
    encode_gap,
    encode_info,
    encode_telemetry,
)
from agent.delivery.rate import RateLimit
from agent.delivery.retained import RetainedTopics

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from agent.clock import Clock
    from agent.config import MqttConfig
    from agent.delivery.backoff import Backoff
    from agent.delivery.events import CameraState, FrameRef, Gap, ObjectState
    from agent.delivery.outbox import Outbox
    from agent.delivery.payload import Origin
    from agent.delivery.topics import Topics

_ONLINE_POLL_S = 0.02


def entry_encoder(
    topics: Topics, origin: Origin, is_clock_synced: Callable[[], bool]
) -> Callable[[Event | Gap, str], tuple[str, bytes]]:
    """The ``encode`` of an ``Outbox``: topic and payload of an event or a gap, given its id."""

    def encode(entry: Event | Gap, entry_id: str) -> tuple[str, bytes]:
        synced = is_clock_synced()
        if isinstance(entry, Event):
            return topics.events(entry.frame.camera_id), encode_event(entry, entry_id, origin, clock_synced=synced)
        return topics.gaps, encode_gap(entry, entry_id, origin, clock_synced=synced)

    return encode


class MqttPublisher:
    """Implements ``agent.delivery.protocol.Publisher``: ``start``, any calls from other threads, ``stop``."""

    def __init__(
        self,
        config: MqttConfig,
        outbox: Outbox,
        topics: Topics,
        origin: Origin,
        *,
        node: str,
        is_clock_synced: Callable[[], bool],
        clock: Clock,
        reconnect: Backoff | None = None,
    ) -> None:
        self._outbox, self._topics, self._origin = outbox, topics, origin
        self._is_clock_synced, self._clock = is_clock_synced, clock
        self._max_rate_hz = config.detections.max_rate_hz
        self._retained = RetainedTopics(clock.monotonic_s)
        self._camera_states: dict[str, CameraState] = {}
        # Two threads tell of a camera, inference and supervision: what is remembered must be what was sent last.
        self._states_lock = threading.Lock()
        self._rates: dict[str, RateLimit] = {}
        self._sent = self._dropped = self._rate_limited = 0
        self._network = Network(
            config,
            f"edge-agent-{node}",
            topics.status,
            queue=outbox,
            retained=self._retained,
            monotonic_s=clock.monotonic_s,
            reconnect=reconnect,
        )

    @property
    def online(self) -> bool:
        """True while the broker has us connected."""
        return self._network.online

    @property
    def heartbeat_s(self) -> float:
        """Monotonic time of the network loop's last turn."""
        return self._network.heartbeat_s

    def start(self) -> None:
        """Start connecting; returns at once and never raises for an unreachable broker."""
        self._network.start()

    def wait_until_online(self, timeout_s: float) -> bool:
        """Wait for the broker, at most so long; True if it has us connected."""
        until_s = self._clock.monotonic_s() + timeout_s
        while not self.online and self._clock.monotonic_s() < until_s:
            self._clock.wait(_ONLINE_POLL_S)
        return self.online

    def stop(self, timeout_s: float) -> bool:
        """Send what can be sent, say offline, disconnect; always returns in time. True if no event is left unsent."""
        self._network.stop(timeout_s)
        return self._outbox.pending() == 0

    def emit(self, event: Event) -> str:
        """Owe the event to the broker: durable when this returns its id."""
        event_id = self._outbox.append(event)
        self._network.wake()
        return event_id

    def publish_detections(self, frame: FrameRef, objects: Sequence[ObjectState]) -> None:
        """Send one frame's objects at QoS 0 if the broker is there and the rate allows; else count and forget them."""
        rate = self._rates.get(frame.camera_id)
        if rate is None:
            rate = self._rates[frame.camera_id] = RateLimit(self._max_rate_hz)
        if not rate.allows(self._clock.monotonic_s()):
            self._rate_limited += 1
        elif self._network.online and self._network.send_now(
            Message(
                self._topics.detections(frame.camera_id),
                encode_detections(frame, objects, self._origin, clock_synced=self._is_clock_synced()),
            )
        ):
            self._sent += 1
        else:
            self._dropped += 1

    def set_camera_state(self, camera_id: str, state: CameraState) -> None:
        """Keep the camera's retained topic at this state: sent when it changes, once a second at most."""
        with self._states_lock:
            if self._camera_states.get(camera_id) == state:
                return
            self._camera_states[camera_id] = state
            payload = encode_camera_state(state, self._clock.unix_ms())
            self._retained.put(self._topics.camera_state(camera_id), payload)
        self._network.wake()

    def set_info(self, info: Mapping[str, object]) -> None:
        """Keep the retained info topic at these facts."""
        self._retained.put(self._topics.info, encode_info(info))
        self._network.wake()

    def publish_telemetry(self, values: Mapping[str, float]) -> None:
        """Send flat numbers at QoS 0; they are forgotten while the broker is away."""
        if self._network.online:
            self._network.send_now(Message(self._topics.telemetry, encode_telemetry(values)))

    def counts(self) -> dict[str, int]:
        """Delivery in numbers, for telemetry and metrics."""
        outbox = self._outbox.counts()
        return {
            "outbox_pending": outbox.pending,
            "outbox_in_memory": outbox.in_memory,
            "outbox_degraded": int(self._outbox.degraded is not None),
            "events_delivered": self._network.delivered,
            "events_dead": outbox.dead,
            "events_dropped": sum(outbox.dropped.values()),
            **{f"events_dropped_{kind}": count for kind, count in sorted(outbox.dropped.items())},
            "detections_sent": self._sent,
            "detections_dropped": self._dropped,
            "detections_rate_limited": self._rate_limited,
            "mqtt_connections": self._network.connections,
            "mqtt_online": int(self._network.online),
        }
