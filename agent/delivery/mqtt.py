"""One MQTT connection: paho as a transport, driven by the single thread that made it.

A connection is made new each time and forgets everything when it ends, so nothing of paho's own queueing, resending
or reconnecting is ever used: what is owed lives in the outbox. Each connection starts a clean session, which is right
for a client whose session would hold only that.
"""

from __future__ import annotations

import select
import socket
import ssl
import threading
import time
from collections import deque
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, NoReturn, cast

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion

from agent.errors import BrokerError

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.config import MqttConfig, TlsConfig
    from agent.delivery.waker import Waker

IN_FLIGHT_WINDOW = 16
_CONNECT_TIMEOUT_S = 10.0
_MISC_INTERVAL_S = 0.5  # how often paho looks at the keep-alive
_READABLE = select.POLLIN | select.POLLERR | select.POLLHUP
_SESSION_TAKEN_OVER = 0x8E
_UNSUPPORTED_VERSION = 0x84
_BAD_CREDENTIALS = (0x86, 0x87)


class VersionRefusedError(BrokerError):
    """The broker does not speak this MQTT version, or closed the connection or kept silent as some do that do not."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message to publish."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False


@dataclass(frozen=True, slots=True)
class Ack:
    """The broker's answer to a QoS-1 message: ``failure`` is the MQTT 5 reason code, 0 when it accepted."""

    mid: int
    failure: int
    reason: str


class Connection:
    """A connection being made or established. Any method may raise ``BrokerError``: the connection is over."""

    def __init__(
        self,
        config: MqttConfig,
        client_id: str,
        will: Message,
        version: str,
        waker: Waker,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Connect to the broker's port and send CONNECT; blocks for ten seconds at most, plus name resolution.

        Args:
            config: address, credentials, TLS and keep-alive.
            client_id: the session's name; a broker allows one connection of a name.
            will: what the broker publishes when it loses us.
            version: "5" or "3.1.1".
            waker: ends a ``step`` early.
            monotonic_s: clock in seconds.

        Raises:
            BrokerError: the port cannot be reached, or TLS fails.
        """
        self.version = version
        self.receive_maximum = 65_535
        self.max_packet_bytes = 268_435_455
        self.established = False
        # Held for paho's calls, which do not wait; its callbacks take no lock, so it cannot deadlock.
        self._lock = threading.Lock()
        self._unacknowledged: deque[int] = deque()
        self._callbacks: SimpleQueue[tuple[str, Any]] = SimpleQueue()
        self._acks: list[Ack] = []
        self._over: str | None = None
        self._waker, self._monotonic_s = waker, monotonic_s
        self._misc_at_s = 0.0
        self._client = self._make_client(config, client_id, will)
        try:
            clean_start: Any = {"clean_start": True} if version == "5" else {}
            self._client.connect(config.host, config.port, config.keepalive_s, **clean_start)
        except (OSError, ValueError) as err:  # ValueError: a certificate for another host
            raise BrokerError(f"expected a broker, got: {err}; check mqtt.host and mqtt.port") from err
        self._socket = cast("Any", self._client.socket())  # paho's protocol class lacks what sockets have
        # Small messages must not wait for the acknowledgement of the one before.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._poller = select.poll()
        self._poller.register(waker.fd, select.POLLIN)
        self._mask = 0

    @property
    def credit(self) -> int:
        """How many QoS-1 messages may be sent now."""
        return min(IN_FLIGHT_WINDOW, self.receive_maximum) - len(self._unacknowledged)

    def await_established(self, timeout_s: float, give_up: Callable[[], bool]) -> None:
        """Drive the connection until the broker has accepted it.

        Raises:
            VersionRefusedError: try an older version.
            BrokerError: refused, or no answer in time, or ``give_up`` said so.
        """
        deadline_s = self._monotonic_s() + timeout_s
        while not self.established:
            remaining_s = deadline_s - self._monotonic_s()
            if remaining_s <= 0:
                self._fail(f"expected CONNACK within {timeout_s:g} s of CONNECT, got none")
            if give_up():
                raise BrokerError("stopped while connecting")
            self.step(remaining_s)

    def publish(self, message: Message) -> int:
        """Send a message, queueing what the network does not take; returns the id that the ``Ack`` of QoS 1 carries."""
        with self._lock:
            info = self._publish(message)
        if message.qos > 0:
            self._unacknowledged.append(info.mid)
        self._check(info.rc)
        return info.mid

    def send_now(self, message: Message) -> bool:
        """Send a message of QoS 0 from any thread, at once or not at all; never waits and never raises."""
        with self._lock:
            client = self._client
            if client.socket() is None or client.want_write():
                return False
            sent = self._publish(message).rc == MQTTErrorCode.MQTT_ERR_SUCCESS
            if client.socket() is None or client.want_write():
                self._waker.wake()  # the connection's thread must see that it is over, or send the rest
            return sent

    def step(self, timeout_s: float) -> list[Ack]:
        """Wait for the network or the waker, at most so long; read, write and keep alive; returns what was answered."""
        mask = select.POLLIN | (select.POLLOUT if self._client.want_write() else 0)
        if mask != self._mask:
            self._poller.register(self._socket, mask)
            self._mask = mask
        for fd, events in self._poller.poll(max(0.0, min(timeout_s, _MISC_INTERVAL_S)) * 1000):
            if fd == self._waker.fd:
                self._waker.clear()
                continue
            if events & _READABLE:
                self._read()
            if events & select.POLLOUT:
                self._drive(self._client.loop_write)
        now_s = self._monotonic_s()
        if now_s >= self._misc_at_s:
            self._misc_at_s = now_s + _MISC_INTERVAL_S
            self._drive(self._client.loop_misc)
        self._take_callbacks()
        acks, self._acks = self._acks, []
        return acks

    def close(self, *, politely: bool) -> None:
        """End the connection; politely: with DISCONNECT, so that the broker keeps the will to itself."""
        with self._lock:
            if politely:
                self._client.disconnect()
            if (sock := self._client.socket()) is not None:
                sock.close()

    def _make_client(self, config: MqttConfig, client_id: str, will: Message) -> paho.Client:
        five = self.version == "5"
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            clean_session=None if five else True,
            protocol=MQTTProtocolVersion.MQTTv5 if five else MQTTProtocolVersion.MQTTv311,
            reconnect_on_failure=False,
        )
        client.connect_timeout = _CONNECT_TIMEOUT_S
        client.will_set(will.topic, will.payload, will.qos, will.retain)
        if config.username is not None or config.password is not None:
            client.username_pw_set(config.username, config.password)
        if config.tls is not None:
            client.tls_set_context(_tls_context(config.tls))
        # Callbacks only queue: an exception in one would end paho's loop, a lock taken in one could deadlock.
        client.on_connect = lambda _client, _userdata, _flags, reason, properties: self._callbacks.put(
            ("connect", (reason, properties))
        )
        client.on_disconnect = lambda _client, _userdata, flags, reason, _properties: self._callbacks.put(
            ("disconnect", (flags.is_disconnect_packet_from_server, reason))
        )
        client.on_publish = self._on_publish
        return client

    def _on_publish(self, _client: Any, _userdata: Any, mid: int, reason: Any, _properties: Any) -> None:
        self._callbacks.put(("publish", (mid, reason)))

    def _read(self) -> None:
        self._drive(self._client.loop_read)
        # What TLS has already decrypted does not show on the socket again.
        while isinstance(self._socket, ssl.SSLSocket) and self._socket.pending():
            self._drive(self._client.loop_read)

    def _drive(self, loop: Callable[[], MQTTErrorCode]) -> None:
        with self._lock:
            rc = loop()
        self._check(rc)

    def _publish(self, message: Message) -> paho.MQTTMessageInfo:
        client = self._client
        if message.qos:
            return client.publish(message.topic, message.payload, message.qos, message.retain)
        client.on_publish = None  # else paho builds property objects per message: 30 us, three times the sending
        try:
            return client.publish(message.topic, message.payload, 0, message.retain)
        finally:
            client.on_publish = self._on_publish

    def _check(self, rc: MQTTErrorCode) -> None:
        """Raise if the connection is over, with the best reason known."""
        if rc == MQTTErrorCode.MQTT_ERR_SUCCESS and self._client.socket() is not None:
            return
        self._take_callbacks()
        self._fail(paho.error_string(rc).rstrip("."))

    def _fail(self, reason: str) -> NoReturn:
        reason = self._over or reason
        if not self.established and self.version == "5" and self._over is None:
            raise VersionRefusedError(f"the broker gave no answer to a CONNECT of MQTT 5: {reason}")
        raise BrokerError(reason)

    def _take_callbacks(self) -> None:
        while True:
            try:
                what, values = self._callbacks.get_nowait()
            except Empty:
                return
            if what == "publish":
                mid, reason = values
                if mid in self._unacknowledged:
                    self._unacknowledged.remove(mid)
                    self._acks.append(Ack(mid, reason.value if reason.is_failure else 0, str(reason)))
            elif what == "connect":
                self._on_connack(*values)
            else:
                self._on_disconnected(*values)

    def _on_connack(self, reason: Any, properties: Any) -> None:
        if reason.value == _UNSUPPORTED_VERSION:
            raise VersionRefusedError(f"the broker refuses MQTT {self.version}: {reason}")
        if reason.is_failure:
            hint = "; check mqtt.username and mqtt.password" if reason.value in _BAD_CREDENTIALS else ""
            self._over = f"the broker refuses the connection: {reason}{hint}"
            raise BrokerError(self._over)
        self.established = True
        self.receive_maximum = getattr(properties, "ReceiveMaximum", self.receive_maximum)
        self.max_packet_bytes = getattr(properties, "MaximumPacketSize", self.max_packet_bytes)

    def _on_disconnected(self, by_broker: bool, reason: Any) -> None:
        if not by_broker:
            return
        self._over = f"the broker disconnects: {reason}"
        if reason.value == _SESSION_TAKEN_OVER:
            self._over += "; another client uses this node's name: give each device its own node"


class _TlsSocket(ssl.SSLSocket):
    """Closes itself when the handshake fails, which paho leaves to chance."""

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except BaseException:
            self.close()
            raise


def _tls_context(config: TlsConfig) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=config.ca_file)
        context.sslsocket_class = _TlsSocket
        if config.cert_file is not None:
            context.load_cert_chain(config.cert_file, config.key_file)
    except (OSError, ssl.SSLError) as err:
        raise BrokerError(f"mqtt.tls: expected readable PEM files, got: {err}") from err
    return context
