"""A scriptable MQTT broker: it says what each test wants it to say, and records what arrived before it answers."""

from __future__ import annotations

import socket
import struct
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

CONNECT, CONNACK, PUBLISH, PUBACK, PINGREQ, PINGRESP, DISCONNECT = 1, 2, 3, 4, 12, 13, 14


@dataclass(frozen=True)
class Published:
    """A PUBLISH as it arrived."""

    connection: int
    topic: str
    payload: bytes
    qos: int
    retain: bool
    dup: bool
    mid: int


@dataclass(frozen=True)
class Connect:
    """A CONNECT as it arrived."""

    level: int
    client_id: str
    will: tuple[str, bytes, int, bool] | None
    username: str | None
    password: bytes | None
    clean_start: bool


@dataclass
class Script:
    """How the broker behaves; may be changed while it runs.

    Attributes:
        connack: reason code, or None: never answers.
        closes_on_level: MQTT levels (4, 5) whose CONNECT makes it close the connection.
        silent_on_level: MQTT levels whose CONNECT it does not answer.
        refuses_level_5: answers a CONNECT of MQTT 5 with "unsupported protocol version".
        properties: raw CONNACK properties (MQTT 5).
        puback: gives the reason code for a message, or None: no answer.
        pings: answers PINGREQ.
        reads: goes on reading after CONNACK.
        garbage: sent right after CONNACK.
    """

    connack: int | None = 0
    closes_on_level: frozenset[int] = frozenset()
    silent_on_level: frozenset[int] = frozenset()
    refuses_level_5: bool = False
    properties: bytes = b""
    puback: Callable[[Published], int | None] = lambda _: 0
    pings: bool = True
    reads: bool = True
    garbage: bytes = b""


@dataclass
class FakeBroker:
    """Listens on a loopback port until closed."""

    script: Script = field(default_factory=Script)

    def __post_init__(self) -> None:
        self.connects: list[Connect] = []
        self.published: list[Published] = []
        self.disconnects = 0
        self.closed_connections = 0
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._held: list[tuple[socket.socket, int, Published]] = []
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def wait_for(self, condition: Callable[[FakeBroker], bool], timeout_s: float = 10.0) -> bool:
        """True as soon as the broker's records satisfy the condition; False after the timeout."""
        deadline_s = time.monotonic() + timeout_s
        with self._changed:
            while not condition(self):
                remaining_s = deadline_s - time.monotonic()
                if remaining_s <= 0:
                    return False
                self._changed.wait(remaining_s)
            return True

    def events(self) -> list[Published]:
        """What arrived at QoS 1 on topics of events."""
        with self._changed:
            return [each for each in self.published if each.topic.endswith("/events")]

    @property
    def topics(self) -> list[str]:
        """Topics of the messages received so far, in their order."""
        with self._changed:
            return [each.topic for each in self.published]

    def answer_held(self, reason: int = 0) -> None:
        """Send the PUBACKs that the script withheld."""
        with self._changed:
            held, self._held = self._held, []
        for connection, level, message in held:
            with suppress(OSError):
                connection.sendall(_puback(level, message.mid, reason))

    def send(self, raw: bytes) -> None:
        """Send raw bytes on every open connection."""
        with self._changed:
            connections = list(self._open)
        for connection in connections:
            with suppress(OSError):
                connection.sendall(raw)

    def drop_connections(self) -> None:
        """Cut every open connection."""
        with self._changed:
            connections = list(self._open)
        for connection in connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Stop listening and cut everything."""
        self._closing.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.drop_connections()
        for thread in self._threads:
            thread.join(5)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with self._changed:
                self._open.add(connection)
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        level = 4
        number = len(self.connects)
        with connection, suppress(OSError, EOFError):
            while True:
                kind, flags, body = _read_packet(connection)
                if not self.script.reads and kind != CONNECT:
                    self._closing.wait()
                if kind == CONNECT:
                    connect = _parse_connect(body)
                    level = connect.level
                    with self._changed:
                        number = len(self.connects)
                        self.connects.append(connect)
                        self._changed.notify_all()
                    if level in self.script.closes_on_level:
                        break
                    if level == 5 and self.script.refuses_level_5:
                        connection.sendall(bytes([CONNACK << 4, 3, 0, 0x84, 0]))
                        break
                    if self.script.connack is not None and level not in self.script.silent_on_level:
                        connection.sendall(_connack(level, self.script) + self.script.garbage)
                elif kind == PUBLISH:
                    self._on_publish(connection, number, level, _parse_publish(number, level, flags, body))
                elif kind == PINGREQ and self.script.pings:
                    connection.sendall(bytes([PINGRESP << 4, 0]))
                elif kind == DISCONNECT:
                    with self._changed:
                        self.disconnects += 1
                        self._changed.notify_all()
                    break
        with self._changed:
            self._open.discard(connection)
            self.closed_connections += 1
            self._changed.notify_all()

    def _on_publish(self, connection: socket.socket, number: int, level: int, message: Published) -> None:
        with self._changed:
            self.published.append(message)
            self._changed.notify_all()
        if message.qos == 0:
            return
        reason = self.script.puback(message)
        if reason is not None:
            connection.sendall(_puback(level, message.mid, reason))
        else:
            with self._changed:
                self._held.append((connection, level, message))


def _read_packet(connection: socket.socket) -> tuple[int, int, bytes]:
    first = _read(connection, 1)[0]
    length = shift = 0
    while True:
        byte = _read(connection, 1)[0]
        length |= (byte & 127) << shift
        shift += 7
        if not byte & 128:
            return first >> 4, first & 15, _read(connection, length)


def _read(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = connection.recv(count - len(data))
        if not more:
            raise EOFError
        data += more
    return data


class _Reader:
    def __init__(self, body: bytes) -> None:
        self.body, self.at = body, 0

    def take(self, count: int) -> bytes:
        self.at += count
        return self.body[self.at - count : self.at]

    def u8(self) -> int:
        return self.take(1)[0]

    def u16(self) -> int:
        value: int = struct.unpack(">H", self.take(2))[0]
        return value

    def text(self) -> bytes:
        return self.take(self.u16())

    def skip_properties(self) -> None:
        self.take(self.u8())  # one length byte is enough for what a client sends here


def _parse_connect(body: bytes) -> Connect:
    reader = _Reader(body)
    reader.text()
    level, flags, _keepalive = reader.u8(), reader.u8(), reader.u16()
    if level == 5:
        reader.skip_properties()
    client_id = reader.text().decode()
    will = None
    if flags & 0x04:
        if level == 5:
            reader.skip_properties()
        will = (reader.text().decode(), reader.text(), flags >> 3 & 3, bool(flags & 0x20))
    username = reader.text().decode() if flags & 0x80 else None
    password = reader.text() if flags & 0x40 else None
    return Connect(level, client_id, will, username, password, bool(flags & 0x02))


def _parse_publish(connection: int, level: int, flags: int, body: bytes) -> Published:
    reader = _Reader(body)
    topic = reader.text().decode()
    qos = flags >> 1 & 3
    mid = reader.u16() if qos else 0
    if level == 5:
        reader.skip_properties()
    return Published(connection, topic, body[reader.at :], qos, bool(flags & 1), bool(flags & 8), mid)


def _connack(level: int, script: Script) -> bytes:
    assert script.connack is not None
    body = bytes([0, script.connack])
    if level == 5:
        body += bytes([len(script.properties)]) + script.properties
    return bytes([CONNACK << 4, len(body)]) + body


def _puback(level: int, mid: int, reason: int) -> bytes:
    body = struct.pack(">H", mid) + (bytes([reason]) if level == 5 and reason else b"")
    return bytes([PUBACK << 4, len(body)]) + body
