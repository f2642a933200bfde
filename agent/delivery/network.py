"""The network thread: owns the one connection through which all MQTT goes.

It connects and reconnects for ever, publishes what is retained and drains the outbox; ``wake`` tells it of work.
What is only worth sending now, other threads send themselves, without waiting: a second thread would cost each frame
more than the sending does.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from agent.delivery.backoff import Backoff
from agent.delivery.drain import Drain
from agent.delivery.mqtt import Connection, Message, VersionRefusedError
from agent.delivery.payload import STATUS_OFFLINE, STATUS_ONLINE
from agent.delivery.waker import Waker
from agent.errors import BrokerError

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.config import MqttConfig
    from agent.delivery.drain import Queue
    from agent.delivery.retained import RetainedTopics

_log = logging.getLogger(__name__)

_RECONNECT_FIRST_S, _RECONNECT_MOST_S = 0.5, 60.0
_CONNACK_TIMEOUT_S = {"5": 5.0, "3.1.1": 10.0}  # some brokers of 3.1.1 never answer an MQTT 5 CONNECT
_IDLE_S = 1.0
_BRIEF_S, _BRIEF_IN_A_ROW = 3.0, 5  # signs of two clients with one name that take the session from each other
_PACKET_OVERHEAD_BYTES = 16  # of a PUBLISH beside topic and payload
_FLUSH_SHARE, _FAREWELL_SHARE = 0.75, 0.9  # of the time to stop: until then flush; until then say offline


class Network:
    """``start`` once, ``wake`` after leaving work, ``stop`` once.

    Attributes:
        connections: how often a broker has taken us.
        heartbeat_s: monotonic time of the loop's last turn.
    """

    def __init__(
        self,
        config: MqttConfig,
        client_id: str,
        status_topic: str,
        *,
        queue: Queue,
        retained: RetainedTopics,
        monotonic_s: Callable[[], float] = time.monotonic,
        reconnect: Backoff | None = None,
    ) -> None:
        """Nothing happens before ``start``.

        Args:
            config: the broker and how to talk to it.
            client_id: fixed per device; a broker allows one connection of a name.
            status_topic: holds ``online`` or ``offline``, retained; also the last will.
            queue: what is owed, sent at QoS 1.
            retained: sent at QoS 0, and all again after a reconnect, which makes up for any loss.
            monotonic_s: clock in seconds.
            reconnect: delays between attempts.
        """
        self._config, self._client_id, self._status_topic = config, client_id, status_topic
        self._retained = retained
        self._monotonic_s = monotonic_s
        self._reconnect = reconnect or Backoff(_RECONNECT_FIRST_S, _RECONNECT_MOST_S)
        self._drain = Drain(queue, monotonic_s)
        self._waker = Waker()
        self._thread = threading.Thread(target=self._run, name="mqtt", daemon=True)
        self._stop_began_s: float | None = None
        self._stop_timeout_s = 0.0
        self._online_since_s: float | None = None
        self._live: Connection | None = None
        self._trouble: str | None = None
        self._brief_connections = 0
        self.connections = 0
        self.heartbeat_s = monotonic_s()

    @property
    def online(self) -> bool:
        """True while the broker has us connected."""
        return self._live is not None

    @property
    def delivered(self) -> int:
        """How many rows of the queue the broker has accepted."""
        return self._drain.delivered

    def start(self) -> None:
        """Start connecting; returns at once and never raises for an unreachable broker."""
        self._thread.start()

    def wake(self) -> None:
        """There is work."""
        self._waker.wake()

    def send_now(self, message: Message) -> bool:
        """Send a message of QoS 0 from any thread, at once or not at all; never waits."""
        connection = self._live
        return connection is not None and connection.send_now(message)

    def stop(self, timeout_s: float) -> None:
        """Send what can be sent, say offline, disconnect; always returns in time."""
        self._stop_timeout_s = timeout_s
        self._stop_began_s = self._monotonic_s()
        self._retained.hurry()
        self._waker.wake()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        if self._thread.is_alive():  # in name resolution or a TLS handshake; the thread ends with the process
            _log.warning("mqtt: still blocked in connecting after %g s, left behind", timeout_s)
        else:
            self._waker.close()

    def _run(self) -> None:
        delay_s = 0.0
        while self._stop_began_s is None:
            self.heartbeat_s = self._monotonic_s()
            lasted_s = 0.0
            try:
                connection = self._connect()
                try:
                    self._serve(connection)
                finally:
                    lasted_s = self._went_offline(connection)
            except BrokerError as err:
                self._note_trouble(str(err))
            except Exception:  # noqa: BLE001 - the thread's outermost frame: whatever it was, events must flow again
                _log.exception("mqtt: unexpected error; connecting again")
            if lasted_s > delay_s:
                self._reconnect.reset()
            delay_s = self._reconnect.next_s()
            self._pause(delay_s)

    def _pause(self, delay_s: float) -> None:
        until_s = self._monotonic_s() + delay_s
        while self._stop_began_s is None and (remaining_s := until_s - self._monotonic_s()) > 0:
            self.heartbeat_s = self._monotonic_s()
            self._waker.wait(min(remaining_s, _IDLE_S))

    def _connect(self) -> Connection:
        """An established connection; a broker that will not speak MQTT 5 is asked again in 3.1.1."""
        if self._config.protocol == "5":
            try:
                return self._connect_with("5")
            except VersionRefusedError as err:
                _log.debug("mqtt: %s; trying 3.1.1", err)
        return self._connect_with("3.1.1")

    def _connect_with(self, version: str) -> Connection:
        will = Message(self._status_topic, STATUS_OFFLINE, qos=1, retain=True)
        connection = Connection(self._config, self._client_id, will, version, self._waker, self._monotonic_s)
        timeout_s = min(_CONNACK_TIMEOUT_S[version], self._config.keepalive_s)
        try:
            connection.await_established(timeout_s, give_up=lambda: self._stop_began_s is not None)
        except BrokerError:
            connection.close(politely=False)
            raise
        return connection

    def _serve(self, connection: Connection) -> None:
        """Publish until told to stop and all is sent or the time for it is over."""
        _log.info("mqtt: connected to %s:%d, MQTT %s", self._config.host, self._config.port, connection.version)
        self._trouble = None
        self.connections += 1
        connection.publish(Message(self._status_topic, STATUS_ONLINE, qos=1, retain=True))
        self._retained.all_again()
        self._drain.restart()
        self._online_since_s = self._monotonic_s()
        self._live = connection
        stuck_after_s = 2.0 * self._config.keepalive_s
        while not self._has_flushed():
            self.heartbeat_s = self._monotonic_s()
            self._send(connection)
            self._drain.settle(connection.step(self._retained.wait_s(most_s=_IDLE_S)))
            if self._drain.oldest_wait_s() > stuck_after_s:
                raise BrokerError(f"expected PUBACK within {stuck_after_s:g} s, got none")
        self._say_offline(connection)

    def _send(self, connection: Connection) -> None:
        for topic, payload in self._retained.due():
            connection.publish(Message(topic, payload, retain=True))
        for row in self._drain.take(connection.credit):
            size_bytes = len(row.topic.encode()) + len(row.payload) + _PACKET_OVERHEAD_BYTES
            if size_bytes > connection.max_packet_bytes:
                self._drain.give_up(row, f"{size_bytes} bytes, the broker takes {connection.max_packet_bytes}")
            else:
                self._drain.sent(connection.publish(Message(row.topic, row.payload, qos=1)), row)

    def _has_flushed(self) -> bool:
        if self._stop_began_s is None:
            return False
        is_late = self._monotonic_s() >= self._stop_began_s + _FLUSH_SHARE * self._stop_timeout_s
        has_more = self._retained.is_due() or not self._drain.is_idle()
        return is_late or not has_more

    def _say_offline(self, connection: Connection) -> None:
        """Publish offline and disconnect; without the broker's answer just leave: then it publishes the will."""
        assert self._stop_began_s is not None
        until_s = self._stop_began_s + _FAREWELL_SHARE * self._stop_timeout_s
        offline: int | None = None
        while (remaining_s := until_s - self._monotonic_s()) > 0:
            if offline is None and connection.credit > 0:
                offline = connection.publish(Message(self._status_topic, STATUS_OFFLINE, qos=1, retain=True))
            acks = connection.step(remaining_s)
            self._drain.settle(acks)
            if any(ack.mid == offline for ack in acks):
                connection.close(politely=True)
                return

    def _went_offline(self, connection: Connection) -> float:
        """Close; returns for how many seconds the connection was of use."""
        self._live = None
        connection.close(politely=False)
        since_s, self._online_since_s = self._online_since_s, None
        lasted_s = 0.0 if since_s is None else self._monotonic_s() - since_s
        self._brief_connections = self._brief_connections + 1 if lasted_s < _BRIEF_S else 0
        if self._brief_connections == _BRIEF_IN_A_ROW:
            _log.warning(
                "mqtt: %d connections ended within seconds; if another client is named %s, give each its own node",
                self._brief_connections,
                self._client_id,
            )
        return lasted_s

    def _note_trouble(self, trouble: str) -> None:
        level = logging.DEBUG if trouble == self._trouble or self._stop_began_s is not None else logging.WARNING
        _log.log(level, "mqtt: %s:%d: %s; trying again", self._config.host, self._config.port, trouble)
        self._trouble = trouble
