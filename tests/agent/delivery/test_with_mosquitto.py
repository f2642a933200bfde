"""The publisher with a real broker: what a subscriber sees over restarts, takeovers, refusals and TLS."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from agent.config import TlsConfig
from agent.delivery.events import CameraState
from tests.support.delivery import EVENTS_TOPIC, TOPICS, event, frame_ref, id_of, number_of, person
from tests.support.mosquitto import Mosquitto, mosquitto_executable
from tests.support.subscriber import Subscriber
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from agent.delivery.outbox import Outbox
    from agent.delivery.publisher import MqttPublisher

    Start = Callable[..., MqttPublisher]

pytestmark = pytest.mark.mosquitto


@pytest.fixture
def subscriber(mosquitto: Mosquitto) -> Iterator[Subscriber]:
    client = Subscriber(mosquitto.host, mosquitto.port)
    yield client
    client.close()


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_a_subscriber_sees_status_info_state_events_and_detections(
    mosquitto: Mosquitto, subscriber: Subscriber, publish_to: Start, protocol: str
) -> None:
    publisher = publish_to(mosquitto.port, protocol=protocol)
    assert wait_until(lambda: publisher.online)
    entry_id = publisher.emit(event(1))
    publisher.publish_detections(frame_ref(2), [person()])
    publisher.set_info({"version": "0.1"})
    publisher.set_camera_state("front", CameraState("up", {"person": 1}))
    assert subscriber.wait_for(lambda messages: len(messages) == 5)
    assert publisher.stop(5.0)
    assert subscriber.wait_for(lambda messages: len(messages) == 6)
    by_topic = {message.topic: message for message in subscriber.messages}
    assert subscriber.payloads(TOPICS.status) == [b"online", b"offline"]
    assert by_topic[TOPICS.status].retain
    assert by_topic[TOPICS.info].retain
    assert by_topic[TOPICS.camera_state("front")].retain
    assert id_of(by_topic[EVENTS_TOPIC].payload) == entry_id
    assert not by_topic[EVENTS_TOPIC].retain
    assert number_of(by_topic[TOPICS.detections("front")].payload) == 2


def test_events_of_an_outage_arrive_in_order_when_the_broker_is_back(
    mosquitto: Mosquitto, subscriber: Subscriber, publish_to: Start, live_outbox: Outbox
) -> None:
    publisher = publish_to(mosquitto.port)
    ids = [publisher.emit(event(number)) for number in range(20)]
    assert wait_until(lambda: live_outbox.pending() == 0)
    mosquitto.stop()
    ids += [publisher.emit(event(number)) for number in range(20, 200)]
    mosquitto.start()
    assert subscriber.wait_for(lambda _: set(ids) <= set(map(id_of, subscriber.payloads(EVENTS_TOPIC))))
    arrived = [id_of(payload) for payload in subscriber.payloads(EVENTS_TOPIC)]
    assert list(dict.fromkeys(arrived)) == ids
    assert wait_until(lambda: live_outbox.pending() == 0)


def test_a_vanished_agent_is_offline_by_its_will(
    mosquitto: Mosquitto, subscriber: Subscriber, publish_to: Start
) -> None:
    publisher = publish_to(mosquitto.port)
    assert subscriber.wait_for(lambda _: subscriber.payloads(TOPICS.status) == [b"online"])
    mosquitto.kill()
    mosquitto.start()
    assert wait_until(lambda: publisher.counts()["mqtt_connections"] == 2)
    late = Subscriber(mosquitto.host, mosquitto.port, TOPICS.status, client_id="late")
    assert late.wait_for(lambda _: late.payloads(TOPICS.status) == [b"online"])
    late.close()


def test_two_agents_of_one_name_are_told_so(
    mosquitto: Mosquitto, publish_to: Start, caplog: pytest.LogCaptureFixture
) -> None:
    publish_to(mosquitto.port)
    publish_to(mosquitto.port)
    assert wait_until(lambda: "give each its own node" in caplog.text)


def test_a_topic_that_the_broker_forbids_is_a_refusal_not_a_delivery(
    tmp_path: Path, live_outbox: Outbox, publish_to: Start
) -> None:
    folder = tmp_path / "broker"
    folder.mkdir()
    (folder / "acl").write_text(f"topic write {TOPICS.status}\n")
    broker = Mosquitto(_executable(), folder, extra=f"acl_file {folder}/acl")
    broker.start()
    try:
        publisher = publish_to(broker.port)
        publisher.emit(event(1))
        assert wait_until(lambda: publisher._network._drain._refusals.total() >= 2)
        assert live_outbox.pending() == 1
        assert publisher.counts()["events_delivered"] == 0
    finally:
        broker.stop()


def test_tls_works_and_a_stranger_is_refused(
    tmp_path: Path, live_outbox: Outbox, publish_to: Start, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "broker"
    folder.mkdir()
    cert, key = _self_signed(folder)
    broker = Mosquitto(_executable(), folder, extra=f"certfile {cert}\nkeyfile {key}")
    broker.start()
    try:
        good = publish_to(broker.port, host="localhost", tls=TlsConfig(ca_file=cert))
        good.emit(event(1))
        assert wait_until(lambda: live_outbox.pending() == 0)
        good.stop(2.0)
        stranger = publish_to(broker.port, host="localhost", tls=TlsConfig())
        assert wait_until(lambda: "certificate verify failed" in caplog.text)
        assert not stranger.online
    finally:
        broker.stop()


def test_unreadable_tls_files_are_named(
    mosquitto: Mosquitto, publish_to: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    publish_to(mosquitto.port, tls=TlsConfig(ca_file=tmp_path / "missing.pem"))
    assert wait_until(lambda: "mqtt.tls: expected readable PEM files" in caplog.text)


def _executable() -> str:
    executable = mosquitto_executable()
    if executable is None:
        pytest.skip("mosquitto is not installed")
    return executable


def _self_signed(folder: Path) -> tuple[Path, Path]:
    cert, key = folder / "cert.pem", folder / "key.pem"
    request = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    )
    subprocess.run([*request.split(), "-keyout", str(key), "-out", str(cert)], check=True, capture_output=True)
    return cert, key
