"""The publisher against scripted brokers: what it promises when a broker is slow, silent, refusing or wrong."""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest

from agent.delivery.events import CameraState
from tests.support.delivery import (
    EVENTS_TOPIC,
    NODE,
    TOPICS,
    event,
    frame_ref,
    id_of,
    make_publisher,
    number_of,
    person,
)
from tests.support.ports import free_port
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.delivery.drain import Drain
    from agent.delivery.outbox import Outbox
    from agent.delivery.protocol import Publisher
    from agent.delivery.publisher import MqttPublisher
    from tests.support.fake_broker import FakeBroker, Published

    Start = Callable[..., MqttPublisher]

RECEIVE_MAXIMUM, MAXIMUM_PACKET_SIZE = 0x21, 0x27


def event_numbers(broker: FakeBroker) -> list[int]:
    return [number_of(each.payload) for each in broker.events()]


def test_it_is_what_the_pipeline_expects(live_outbox: Outbox, publish_to: Start, fake_broker: FakeBroker) -> None:
    publisher: Publisher = publish_to(fake_broker.port)
    assert publisher.emit(event(1)).startswith(f"{NODE}:")


def test_connecting_announces_online_and_leaves_a_will(publish_to: Start, fake_broker: FakeBroker) -> None:
    publish_to(fake_broker.port, username="me", password="secret")
    assert fake_broker.wait_for(lambda broker: bool(broker.published))
    [connect] = fake_broker.connects
    assert (connect.level, connect.client_id, connect.clean_start) == (5, f"edge-agent-{NODE}", True)
    assert connect.will == (TOPICS.status, b"offline", 1, True)
    assert (connect.username, connect.password) == ("me", b"secret")
    first = fake_broker.published[0]
    assert (first.topic, first.payload, first.qos, first.retain) == (TOPICS.status, b"online", 1, True)


def test_events_go_at_qos_1_oldest_first_and_leave_when_accepted(
    live_outbox: Outbox, publish_to: Start, fake_broker: FakeBroker
) -> None:
    ids = [live_outbox.append(event(number)) for number in range(100)]
    publisher = publish_to(fake_broker.port)
    ids.append(publisher.emit(event(100)))
    assert fake_broker.wait_for(lambda broker: len(broker.events()) == 101)
    assert [id_of(each.payload) for each in fake_broker.events()] == ids
    assert {(each.topic, each.qos, each.retain) for each in fake_broker.events()} == {(EVENTS_TOPIC, 1, False)}
    assert wait_until(lambda: live_outbox.pending() == 0)
    assert publisher.counts()["events_delivered"] == 101


@pytest.mark.parametrize(("receive_maximum", "expected"), [(None, 16), (2, 2), (100, 16)])
def test_no_more_is_in_flight_than_the_window_and_the_broker_allow(
    live_outbox: Outbox, publish_to: Start, fake_broker: FakeBroker, receive_maximum: int | None, expected: int
) -> None:
    if receive_maximum is not None:
        fake_broker.script.properties = bytes([RECEIVE_MAXIMUM]) + receive_maximum.to_bytes(2, "big")
    fake_broker.script.puback = lambda message: 0 if message.topic == TOPICS.status else None
    for number in range(50):
        live_outbox.append(event(number))
    publisher = publish_to(fake_broker.port)
    assert fake_broker.wait_for(lambda broker: len(broker.events()) == expected)
    publisher.set_camera_state("front", CameraState("up"))
    assert fake_broker.wait_for(lambda broker: broker.topics[-1:] == [TOPICS.camera_state("front")])
    assert len(fake_broker.events()) == expected, "later traffic came, no further event"
    fake_broker.script.puback = lambda _: 0
    fake_broker.answer_held()
    assert fake_broker.wait_for(lambda broker: event_numbers(broker) == list(range(50)))


def test_a_lost_answer_resends_the_same_id_and_payload(
    live_outbox: Outbox, publish_to: Start, fake_broker: FakeBroker
) -> None:
    fake_broker.script.puback = lambda message: None if message.topic == EVENTS_TOPIC else 0
    publisher = publish_to(fake_broker.port)
    ids = [publisher.emit(event(number)) for number in range(5)]
    assert fake_broker.wait_for(lambda broker: len(broker.events()) == 5)
    fake_broker.script.puback = lambda _: 0
    fake_broker.drop_connections()
    assert fake_broker.wait_for(lambda broker: len(broker.events()) == 10)
    first, second = fake_broker.events()[:5], fake_broker.events()[5:]
    assert [id_of(each.payload) for each in first] == ids
    assert [each.payload for each in first] == [each.payload for each in second]
    assert wait_until(lambda: live_outbox.pending() == 0)
    assert len(fake_broker.events()) == 10


def test_a_refused_event_is_not_deleted_but_sent_again_with_patience(
    live_outbox: Outbox, publish_to: Start, fake_broker: FakeBroker
) -> None:
    answers = iter([0x97, 0x97, 0x97])
    fake_broker.script.puback = lambda message: next(answers, 0) if number_or_none(message) == 1 else 0
    for number in range(4):
        live_outbox.append(event(number))
    publisher = publish_to(fake_broker.port)
    assert wait_until(lambda: live_outbox.pending() == 0)
    seen = event_numbers(fake_broker)
    assert seen == [0, 1, 2, 3, 1, 1, 1], "the accepted ones are not repeated"
    assert publisher.counts()["events_dead"] == 0


def number_or_none(message: Published) -> int | None:
    return number_of(message.payload) if message.topic == EVENTS_TOPIC else None


def test_an_event_too_big_for_the_broker_becomes_a_dead_letter_and_blocks_nothing(
    live_outbox: Outbox, publish_to: Start, fake_broker: FakeBroker, caplog: pytest.LogCaptureFixture
) -> None:
    live_outbox.append(event(1))
    size_bytes = len(live_outbox.next_batch(0, 1)[0].payload) + len(EVENTS_TOPIC) + 20
    fake_broker.script.properties = bytes([MAXIMUM_PACKET_SIZE]) + size_bytes.to_bytes(4, "big")
    live_outbox.append(event(2, label="x" * 200))
    live_outbox.append(event(3))
    publisher = publish_to(fake_broker.port)
    assert wait_until(lambda: live_outbox.pending() == 0)
    assert event_numbers(fake_broker) == [1, 3]
    assert publisher.counts()["events_dead"] == 1
    assert "given up" in caplog.text


@pytest.mark.parametrize("refuses", ["closes", "keeps silent", "says so"])
def test_a_broker_that_refuses_mqtt_5_is_asked_in_3_1_1(
    live_outbox: Outbox, publish_to: Start, fake_broker: FakeBroker, refuses: str
) -> None:
    if refuses == "closes":
        fake_broker.script.closes_on_level = frozenset({5})
    elif refuses == "keeps silent":
        fake_broker.script.silent_on_level = frozenset({5})
    else:
        fake_broker.script.refuses_level_5 = True
    publisher = publish_to(fake_broker.port, keepalive_s=2)
    publisher.emit(event(1))
    assert fake_broker.wait_for(lambda broker: event_numbers(broker) == [1])
    assert [connect.level for connect in fake_broker.connects] == [5, 4]
    assert fake_broker.connects[1].will == (TOPICS.status, b"offline", 1, True)
    assert wait_until(lambda: live_outbox.pending() == 0)


def test_3_1_1_by_config_never_tries_5(publish_to: Start, fake_broker: FakeBroker) -> None:
    publish_to(fake_broker.port, protocol="3.1.1")
    assert fake_broker.wait_for(lambda broker: bool(broker.published))
    assert [connect.level for connect in fake_broker.connects] == [4]


def test_refused_credentials_are_said_once_and_tried_again(
    publish_to: Start, fake_broker: FakeBroker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    fake_broker.script.connack = 0x86
    publisher = publish_to(fake_broker.port)
    assert fake_broker.wait_for(lambda broker: len(broker.connects) >= 3)
    warnings = [record for record in caplog.records if "mqtt" in record.message]
    assert len(warnings) == 1
    assert "check mqtt.username and mqtt.password" in warnings[0].message
    fake_broker.script.connack = 0
    assert wait_until(lambda: publisher.online)


def test_an_unreachable_broker_is_said_once_and_found_when_it_comes(
    live_outbox: Outbox, publish_to: Start, caplog: pytest.LogCaptureFixture
) -> None:
    publisher = publish_to(free_port())
    publisher.emit(event(1))
    assert wait_until(lambda: "expected a broker" in caplog.text)
    assert not publisher.online
    assert live_outbox.pending() == 1
    assert sum("expected a broker" in record.message for record in caplog.records) == 1


@pytest.mark.parametrize("silent_after", ["connect", "connack"])
def test_a_silent_broker_is_left_after_twice_the_keep_alive(
    publish_to: Start, fake_broker: FakeBroker, silent_after: str
) -> None:
    fake_broker.script.pings = False
    if silent_after == "connect":
        fake_broker.script.connack = None
    began_s = time.monotonic()
    publish_to(fake_broker.port, keepalive_s=1)
    assert fake_broker.wait_for(lambda broker: len(broker.connects) == 2, timeout_s=6)
    assert time.monotonic() - began_s < 2 * 1 + 1.5


def test_a_broker_that_never_acknowledges_is_left_after_twice_the_keep_alive(
    live_outbox: Outbox, publish_to: Start, fake_broker: FakeBroker
) -> None:
    fake_broker.script.puback = lambda message: 0 if message.topic == TOPICS.status else None
    publisher = publish_to(fake_broker.port, keepalive_s=1)
    publisher.emit(event(1))
    assert fake_broker.wait_for(lambda broker: len(broker.connects) == 2, timeout_s=6)
    assert live_outbox.pending() == 1


@pytest.mark.parametrize(
    "garbage", [b"\xff" * 8, b"\x40\x00", b"\x40\x03\x00\x01\xfe", b"\xe0\x02\x8e\x00", b"\x30\x05\x00\xff\xff\xff\xff"]
)
def test_a_broker_that_talks_nonsense_is_left_and_tried_again(
    live_outbox: Outbox, publish_to: Start, fake_broker: FakeBroker, garbage: bytes
) -> None:
    fake_broker.script.garbage = garbage
    publisher = publish_to(fake_broker.port)
    publisher.emit(event(1))
    assert fake_broker.wait_for(lambda broker: len(broker.connects) >= 2)
    fake_broker.script.garbage = b""
    assert wait_until(lambda: live_outbox.pending() == 0)


def test_a_takeover_is_named_when_the_broker_names_it(
    publish_to: Start, fake_broker: FakeBroker, caplog: pytest.LogCaptureFixture
) -> None:
    publisher = publish_to(fake_broker.port)
    assert wait_until(lambda: publisher.online)
    fake_broker.send(b"\xe0\x02\x8e\x00")
    assert wait_until(lambda: "give each device its own node" in caplog.text)
    assert "Session taken over" in caplog.text


def test_retained_topics_are_sent_again_after_a_reconnect_latest_only(
    publish_to: Start, fake_broker: FakeBroker
) -> None:
    publisher = publish_to(fake_broker.port)
    publisher.set_info({"version": "1"})
    publisher.set_camera_state("front", CameraState("up", {"person": 1}))
    assert fake_broker.wait_for(lambda broker: len(broker.published) == 3)
    publisher.set_camera_state("front", CameraState("up", {"person": 2}))
    publisher.set_camera_state("front", CameraState("up", {"person": 3}))
    fake_broker.drop_connections()
    assert fake_broker.wait_for(lambda broker: len(broker.published) >= 6)
    again = {each.topic: each for each in fake_broker.published if each.connection == 1}
    assert again.keys() == {TOPICS.status, TOPICS.info, TOPICS.camera_state("front")}
    assert all(each.retain for each in again.values())
    assert json.loads(again[TOPICS.camera_state("front")].payload)["counts"] == {"person": 3}


def test_a_state_that_does_not_change_is_not_sent_again_and_changes_wait_a_second(
    publish_to: Start, fake_broker: FakeBroker
) -> None:
    publisher = publish_to(fake_broker.port)
    topic = TOPICS.camera_state("front")
    for _ in range(3):
        publisher.set_camera_state("front", CameraState("up", {"person": 1}))
    assert fake_broker.wait_for(lambda broker: broker.topics[-1:] == [topic])
    first_s = time.monotonic()
    for count in (2, 3, 4):
        publisher.set_camera_state("front", CameraState("up", {"person": count}))
    assert fake_broker.wait_for(lambda broker: sum(each.topic == topic for each in broker.published) == 2)
    assert time.monotonic() - first_s > 0.8
    assert json.loads(fake_broker.published[-1].payload)["counts"] == {"person": 4}


def test_detections_go_at_qos_0_and_are_counted_when_the_broker_is_away(
    publish_to: Start, fake_broker: FakeBroker
) -> None:
    publisher = publish_to(fake_broker.port)
    assert wait_until(lambda: publisher.online)
    publisher.publish_detections(frame_ref(7), [person()])
    publisher.publish_telemetry({"fps": 12.5})
    assert fake_broker.wait_for(lambda broker: len(broker.published) == 3)
    by_topic = {each.topic: each for each in fake_broker.published}
    detections = by_topic[TOPICS.detections("front")]
    assert (detections.qos, detections.retain, number_of(detections.payload)) == (0, False, 7)
    assert json.loads(by_topic[TOPICS.telemetry].payload) == {"fps": 12.5}
    fake_broker.script.connack = None
    fake_broker.drop_connections()
    assert wait_until(lambda: not publisher.online)
    publisher.publish_detections(frame_ref(8), [person()])
    publisher.publish_telemetry({"fps": 1})
    counts = publisher.counts()
    assert (counts["detections_sent"], counts["detections_dropped"]) == (1, 1)


def test_detections_are_dropped_while_the_broker_does_not_read(
    live_outbox: Outbox, publish_to: Start, fake_broker: FakeBroker
) -> None:
    fake_broker.script.reads = False
    publisher = publish_to(fake_broker.port)
    assert wait_until(lambda: publisher.online)
    objects = [person(number) for number in range(120)]
    for number in range(20_000):
        publisher._rates.clear()
        publisher.publish_detections(frame_ref(number), objects)
        if publisher.counts()["detections_dropped"] >= 3:
            break
    assert publisher.counts()["detections_dropped"] == 3, "what the network does not take is not kept in memory"
    publisher.emit(event(1))
    began_s = time.monotonic()
    publisher.stop(1.0)
    assert time.monotonic() - began_s < 1.5
    assert live_outbox.pending() == 1


def test_detections_are_limited_per_camera(publish_to: Start, fake_broker: FakeBroker) -> None:
    publisher = publish_to(fake_broker.port, max_rate_hz=0.001)
    assert wait_until(lambda: publisher.online)
    for number in range(5):
        publisher.publish_detections(frame_ref(number), [person()])
    counts = publisher.counts()
    assert counts["detections_rate_limited"] == 4
    assert fake_broker.wait_for(lambda broker: TOPICS.detections("front") in broker.topics)


def test_stop_flushes_says_offline_and_disconnects(
    live_outbox: Outbox, publish_to: Start, fake_broker: FakeBroker
) -> None:
    publisher = publish_to(fake_broker.port)
    assert wait_until(lambda: publisher.online)
    for number in range(200):
        publisher.emit(event(number))
    assert publisher.stop(5.0)
    assert event_numbers(fake_broker) == list(range(200))
    last = fake_broker.published[-1]
    assert (last.topic, last.payload, last.qos, last.retain) == (TOPICS.status, b"offline", 1, True)
    assert fake_broker.wait_for(lambda broker: broker.disconnects == 1)
    assert not publisher.online


@pytest.mark.parametrize("silent", ["from the start", "later"])
def test_stop_returns_in_time_on_a_silent_broker_and_leaves_it_the_will(
    live_outbox: Outbox, publish_to: Start, fake_broker: FakeBroker, silent: str
) -> None:
    if silent == "from the start":
        fake_broker.script.connack = None
    fake_broker.script.puback = lambda _: None
    publisher = publish_to(fake_broker.port)
    assert fake_broker.wait_for(lambda broker: len(broker.connects) == 1)
    assert silent == "from the start" or wait_until(lambda: publisher.online)
    publisher.emit(event(1))
    began_s = time.monotonic()
    assert not publisher.stop(1.0)
    assert time.monotonic() - began_s < 1.5
    assert fake_broker.wait_for(lambda broker: broker.closed_connections == 1)
    assert fake_broker.disconnects == 0, "no DISCONNECT: the broker publishes the will"
    assert live_outbox.pending() == 1


def test_stop_returns_in_time_while_connecting_hangs(
    live_outbox: Outbox, publish_to: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hanging, release = threading.Event(), threading.Event()

    def hang(*_: object, **__: object) -> None:
        hanging.set()
        release.wait(10)
        raise OSError("released")

    monkeypatch.setattr(socket, "create_connection", hang)
    publisher = publish_to(free_port())
    assert hanging.wait(5)
    began_s = time.monotonic()
    publisher.stop(0.3)
    assert time.monotonic() - began_s < 1.0
    assert "left behind" in caplog.text
    release.set()
    assert wait_until(lambda: not publisher._network._thread.is_alive())


def test_stop_before_start_is_harmless(live_outbox: Outbox) -> None:

    assert make_publisher(live_outbox, free_port()).stop(1.0)


def test_an_unexpected_error_does_not_end_the_thread(
    live_outbox: Outbox, publish_to: Start, fake_broker: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    from agent.delivery.drain import Drain

    settle, calls = Drain.settle, []

    def fail_once(self: Drain, acks: object) -> None:
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("a bug")
        settle(self, acks)  # type: ignore[arg-type]

    monkeypatch.setattr(Drain, "settle", fail_once)
    publisher = publish_to(fake_broker.port)
    publisher.emit(event(1))
    assert wait_until(lambda: live_outbox.pending() == 0)
    assert len(fake_broker.connects) == 2
