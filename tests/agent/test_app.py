"""The whole agent in this process: real files, a real model (a tiny one) and a real broker."""

from __future__ import annotations

import json
import logging
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from agent import __version__
from agent.app import App
from agent.config_file import load_config
from agent.delivery.publisher import MqttPublisher
from agent.errors import BundleError, CameraError, ConfigError, FatalError
from agent.ops.process import node_name
from tests.support.agents import NODE, file_camera, make_kit, scene_camera, write_video
from tests.support.mosquitto import Mosquitto, mosquitto_executable
from tests.support.ports import free_port
from tests.support.subscriber import Subscriber
from tests.support.tiny_models import classify_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.agents import Kit

LONG_S = 30.0
ROOT = f"edge/{NODE}"
# Three visits: a cat, a dog and another cat each time.
VISITS = ((5, 0), (10, 255), (30, 0), (10, 255), (30, 0), (5, 255))
FRAMES = sum(frames for frames, _ in VISITS)


@pytest.fixture
def subscriber(mosquitto: Mosquitto) -> Iterator[Subscriber]:
    """Sees everything that the broker is given."""
    client = Subscriber(mosquitto.host, mosquitto.port)
    yield client
    client.close()


def app_of(config: Path, *, dry_run: bool = False) -> App:
    return App(load_config(config, {}), dry_run=dry_run)


def run(app: App, each_turn: Callable[[threading.Event], None] = lambda stop: None) -> None:
    """Start, watch until the sources end or ``each_turn`` sets the stop, stop."""
    stop = threading.Event()
    give_up = threading.Timer(LONG_S, stop.set)
    give_up.start()
    try:
        app.start()
        app.watch(stop, lambda: each_turn(stop))
    finally:
        app.stop()
        give_up.cancel()
        give_up.join()


def topics(subscriber: Subscriber, topic: str) -> list[Any]:
    return [json.loads(payload) for payload in subscriber.payloads(f"{ROOT}/{topic}")]


def last_retained(broker: Mosquitto, topic: str) -> Any:
    """What a subscriber that comes later finds."""
    late = Subscriber(broker.host, broker.port, f"{ROOT}/{topic}", client_id="late")
    assert late.wait_for(lambda messages: len(messages) > 0)
    late.close()
    assert late.messages[0].retain
    return late.messages[0].payload


# --- a run to the end


@pytest.mark.mosquitto
def test_a_lockstep_file_loses_no_frame_and_its_events_arrive(
    kit: Kit,
    mosquitto: Mosquitto,
    subscriber: Subscriber,
    tmp_path: Path,
) -> None:
    video = write_video(tmp_path / "visits.avi", *VISITS)
    mqtt = {"port": mosquitto.port, "detections": {"enabled": True, "max_rate_hz": 1000}}
    app = app_of(kit.config(tmp_path, [file_camera(video)], mqtt=mqtt))
    run(app)

    assert app.captures["door"].frames == FRAMES
    assert app.pipeline.stats["door"].frames == FRAMES
    assert app.mailbox.dropped == {"door": 0}
    assert subscriber.wait_for(lambda messages: messages[-1].payload == b"offline")
    events = topics(subscriber, "camera/door/events")
    kinds = [event["type"] for event in events]
    assert kinds == (["new"] * 3 + ["end"] * 3) * 3, "three objects in each of three visits"
    assert {event["object"]["label"] for event in events} == {"cat", "dog"}
    assert events[0]["frame"]["id"] == 5 + 3, "three frames confirm an object"
    detections = [message["frame"]["id"] for message in topics(subscriber, "camera/door/detections")]
    assert detections == sorted(set(detections)), "in order; those of the time before the connection are worthless"
    counts = app.publisher.counts()
    assert counts["detections_sent"] == len(detections)
    assert sum(counts[f"detections_{fate}"] for fate in ("sent", "dropped", "rate_limited")) == FRAMES
    ids = [event["id"] for event in events]
    assert [each.rpartition(":")[2] for each in ids] == [str(number) for number in range(1, len(ids) + 1)]
    assert app.pipeline.stats["door"].events.total() == len(ids)


@pytest.mark.mosquitto
def test_status_is_online_first_and_offline_last_and_what_is_retained_stays(
    kit: Kit,
    mosquitto: Mosquitto,
    subscriber: Subscriber,
    tmp_path: Path,
) -> None:
    video = write_video(tmp_path / "visit.avi", (10, 255))
    app = app_of(kit.config(tmp_path, [file_camera(video)], mqtt={"port": mosquitto.port}))
    run(app)
    assert subscriber.wait_for(lambda messages: messages[-1].payload == b"offline")
    assert subscriber.payloads(f"{ROOT}/status") == [b"online", b"offline"]
    assert last_retained(mosquitto, "status") == b"offline"
    assert json.loads(last_retained(mosquitto, "info")) == {
        "v": 1,
        "agent": __version__,
        "model": {"name": "tiny", "version": 3, "variant": "cpu-fp32", "task": "detect"},
        "provider": "cpu",
        "cameras": ["door"],
    }
    state = json.loads(last_retained(mosquitto, "camera/door/state"))
    assert (state["health"], state["counts"]) == ("ended", {}), "not what was seen last, a moment before"


@pytest.mark.mosquitto
def test_a_classifier_tells_when_the_class_changes(
    mosquitto: Mosquitto,
    subscriber: Subscriber,
    tmp_path: Path,
) -> None:
    model = make_kit(tmp_path / "kit", tiny=classify_model())
    video = write_video(tmp_path / "video.avi", (10, (200, 0, 0)), (10, (0, 0, 200)))
    run(app_of(model.config(tmp_path, [file_camera(video)], mqtt={"port": mosquitto.port})))
    assert subscriber.wait_for(lambda messages: messages[-1].payload == b"offline")
    events = topics(subscriber, "camera/door/events")
    assert [(event["type"], event["class"]["label"]) for event in events] == [("changed", "blue"), ("changed", "red")]
    assert [event["frame"]["id"] for event in events] == [3, 13], "three frames confirm a class"


@pytest.mark.mosquitto
def test_telemetry_is_flat_numbers(
    kit: Kit,
    mosquitto: Mosquitto,
    subscriber: Subscriber,
    tmp_path: Path,
) -> None:
    mqtt = {"port": mosquitto.port, "telemetry_interval_s": 0.1}
    app = app_of(kit.config(tmp_path, [scene_camera(fps=100)], mqtt=mqtt))

    def stop_after_telemetry(stop: threading.Event) -> None:
        if subscriber.payloads(f"{ROOT}/telemetry") and app.pipeline.stats["door"].frames > 5:
            stop.set()

    run(app, stop_after_telemetry)
    assert topics(subscriber, "telemetry"), "it has come in time"
    values = app.telemetry()
    assert all(isinstance(value, int | float) for value in values.values())
    captured, inferred, dropped = (values[f"door_frames_{word}"] for word in ("captured", "inferred", "dropped"))
    assert captured == app.captures["door"].frames
    assert 0 <= captured - inferred - dropped <= 1, "a frame is inferred, or dropped, or waited at the end"
    assert {"uptime_s", "door_frame_age_ms", "door_inference_ms", "outbox_pending"} <= set(values)


# --- the broker is away


@pytest.mark.mosquitto
def test_an_unreachable_broker_stops_nothing_is_told_once_and_gets_all_events_later(
    kit: Kit,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    executable = mosquitto_executable()
    if executable is None:
        pytest.skip("mosquitto is not installed")
    (tmp_path / "mosquitto").mkdir()
    broker = Mosquitto(executable, tmp_path / "mosquitto")
    video = write_video(tmp_path / "visits.avi", *VISITS)
    camera = file_camera(video, pace="native", loop=True)
    app = app_of(kit.config(tmp_path, [camera], mqtt={"port": broker.port}))
    subscribers: list[Subscriber] = []

    def bring_the_broker_up_later(stop: threading.Event) -> None:
        if not subscribers and app.pipeline.stats["door"].events.total() >= 3:
            assert isinstance(app.publisher, MqttPublisher)
            assert app.publisher.counts()["outbox_pending"] >= 3
            assert not app.publisher.online
            broker.start()
            subscribers.append(Subscriber(broker.host, broker.port))
        if subscribers and len(topics(subscribers[0], "camera/door/events")) >= 3:
            stop.set()

    run(app, bring_the_broker_up_later)
    (subscriber,) = subscribers
    assert subscriber.wait_for(lambda messages: messages[-1].payload == b"offline")
    subscriber.close()
    broker.stop()
    events = topics(subscriber, "camera/door/events")
    assert len(events) == app.pipeline.stats["door"].events.total()
    assert [event["object"]["label"] for event in events[:3]] == ["cat", "dog", "cat"]
    complaints = [record.getMessage() for record in caplog.records if "trying again" in record.getMessage()]
    assert len(complaints) == 1
    assert f"127.0.0.1:{broker.port}" in complaints[0]


def test_what_the_broker_did_not_take_waits_for_the_next_start(
    kit: Kit,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    video = write_video(tmp_path / "visit.avi", (10, 255))
    config = kit.config(tmp_path, [file_camera(video)], mqtt={"port": free_port()})
    first = app_of(config)
    run(first)
    assert "the broker has not taken all events; the rest waits for the next start" in caplog.messages
    second = app_of(config)
    assert isinstance(second.publisher, MqttPublisher)
    assert second.publisher.counts()["outbox_pending"] == first.pipeline.stats["door"].events.total() == 6
    second.stop()


# --- cameras


@pytest.mark.mosquitto
def test_a_camera_that_is_away_is_told_and_the_others_go_on(
    kit: Kit,
    mosquitto: Mosquitto,
    subscriber: Subscriber,
    tmp_path: Path,
) -> None:
    away = {"id": "yard", "source": f"rtsp://127.0.0.1:{free_port()}/", "open_timeout_s": 1}
    app = app_of(kit.config(tmp_path, [away, scene_camera()], mqtt={"port": mosquitto.port}))

    def stop_when_told(stop: threading.Event) -> None:
        if topics(subscriber, "camera/yard/state") and app.pipeline.stats["door"].frames > 2:
            stop.set()

    run(app, stop_when_told)
    assert topics(subscriber, "camera/yard/state")[0]["health"] == "down"
    assert topics(subscriber, "camera/door/state")[0]["health"] == "up"
    assert app.pipeline.stats["yard"].frames == 0
    assert app.captures["yard"].errors > 0


def test_a_camera_whose_file_has_ended_does_not_end_the_others(kit: Kit, tmp_path: Path) -> None:
    short = write_video(tmp_path / "short.avi", (2, 0))
    cameras = [file_camera(short, "short"), scene_camera(fps=100)]
    app = app_of(kit.config(tmp_path, cameras, mqtt={"port": free_port()}))
    frames_after_the_end: list[int] = []

    def watch_the_other(stop: threading.Event) -> None:
        if app.captures["short"].state == "ended":
            frames_after_the_end.append(app.pipeline.stats["door"].frames)
        if frames_after_the_end and frames_after_the_end[-1] > frames_after_the_end[0]:
            stop.set()

    run(app, watch_the_other)
    assert app.pipeline.stats["short"].frames == 2
    assert frames_after_the_end[-1] > frames_after_the_end[0]


def test_a_source_that_is_no_video_is_told_with_its_place(kit: Kit, tmp_path: Path) -> None:
    (tmp_path / "notes.mp4").write_text("not a video")
    config = kit.config(tmp_path, [scene_camera(), file_camera(tmp_path / "notes.mp4", "text")])
    line = next(n for n, text in enumerate(config.read_text().splitlines(), 1) if "notes.mp4" in text)
    with pytest.raises(
        ConfigError, match=rf"agent\.yaml:{line}:11: cameras\.1\.source: .*notes\.mp4: expected a video"
    ):
        run(app_of(config))


class HangingCapture:
    """A capture whose driver does not come back."""

    state, failure, frames, errors = "up", None, 0, 0
    heartbeat_s, heartbeat_limit_s = float("-inf"), 10.0

    def __init__(self, log: list[tuple[str, float]], name: str) -> None:
        self._log, self._name = log, name

    def start(self) -> None:
        self._log.append((f"start {self._name}", 0.0))

    def stop(self, timeout_s: float) -> bool:
        self._log.append((f"stop {self._name}", timeout_s))
        return False


def test_cameras_that_hang_are_all_told_first_and_share_one_time_limit(
    kit: Kit,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = app_of(kit.config(tmp_path, [scene_camera("a"), scene_camera("b")], mqtt={"port": free_port()}))
    log: list[tuple[str, float]] = []
    app.captures = {name: HangingCapture(log, name) for name in ("a", "b")}  # type: ignore[misc]
    app.start()
    app.stop()
    assert [word for word, _ in log] == ["start a", "start b", "stop a", "stop b", "stop a", "stop b"]
    assert [timeout_s for _, timeout_s in log[2:4]] == [0.0, 0.0]
    assert all(timeout_s <= 3.0 for _, timeout_s in log[4:])
    assert "left behind, still busy after 3 s: a, b" in caplog.messages


# --- what goes wrong inside


def test_a_bug_in_the_loop_ends_the_agent_with_its_traceback_in_the_log(
    kit: Kit,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app = app_of(kit.config(tmp_path, [scene_camera()], mqtt={"port": free_port()}))

    def broken(frame: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(app.pipeline, "process", broken)
    with pytest.raises(FatalError, match="the inference thread died: a bug"):
        run(app)
    (record,) = (record for record in caplog.records if record.levelno >= logging.ERROR)
    assert record.exc_info is not None


def test_a_model_that_fails_ends_the_agent_with_its_own_error(
    kit: Kit,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app = app_of(kit.config(tmp_path, [scene_camera()], mqtt={"port": free_port()}))

    def failing() -> None:
        raise FatalError("inference failed")

    monkeypatch.setattr(app.model.session, "run", failing)
    with pytest.raises(FatalError, match=r"^inference failed$"):
        run(app)
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == [], "main tells it"


def test_a_bug_in_a_capture_ends_the_agent(
    kit: Kit,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app = app_of(kit.config(tmp_path, [scene_camera()], mqtt={"port": free_port()}))

    def broken() -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(app.captures["door"]._camera, "read", broken)
    with pytest.raises(FatalError, match="camera door: a bug"):
        run(app)


# --- composing


def test_a_label_that_the_bundle_lacks_is_told_with_its_place_before_the_outbox_opens(
    kit: Kit,
    tmp_path: Path,
) -> None:
    config = kit.config(tmp_path, [scene_camera()], detect={"labels": ["kat"]})
    with pytest.raises(ConfigError, match=r"agent\.yaml:\d+:\d+: detect\.labels: .*did you mean 'cat'\?"):
        app_of(config)
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["canary.json"]


def test_a_bundle_that_is_not_there_is_told_with_its_place(kit: Kit, tmp_path: Path) -> None:
    model = {"bundle": "missing", "trusted_keys": [str(kit.bundle.public_key)]}
    config = kit.config(tmp_path, [scene_camera()], model=model)
    with pytest.raises(ConfigError, match=r"agent\.yaml:\d+:\d+: model: .*missing: expected a bundle directory"):
        app_of(config)


def test_a_refused_bundle_keeps_its_own_error(kit: Kit, tmp_path: Path) -> None:
    other = make_kit(tmp_path / "other")
    model = {"bundle": str(kit.bundle.root), "trusted_keys": [str(other.bundle.public_key)]}
    with pytest.raises(BundleError, match="not trusted"):
        app_of(kit.config(tmp_path, [scene_camera()], model=model))


def test_two_agents_do_not_share_a_state_folder(kit: Kit, tmp_path: Path) -> None:
    config = kit.config(tmp_path, [scene_camera()])
    first = app_of(config)
    with pytest.raises(ConfigError, match=r"agent\.yaml:2:12: state_dir: .*another agent \(process \d+\)"):
        app_of(config)
    first.stop()
    app_of(config).stop()


def test_a_node_is_named_by_the_configuration_or_by_the_machine(kit: Kit, tmp_path: Path) -> None:
    names = []
    for node in ("gate", "auto", "auto"):
        app = app_of(kit.config(tmp_path, [scene_camera()], node=node))
        names.append(app.node)
        app.stop()
    assert names == ["gate", node_name(), node_name()]


def test_each_run_has_its_own_boot_so_that_objects_of_another_run_count_as_gone(
    kit: Kit,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    video = write_video(tmp_path / "visit.avi", (4, 255))
    config = kit.config(tmp_path, [file_camera(video)])
    for _ in range(2):
        run(app_of(config, dry_run=True))
    lines = [line.split(" ", 1) for line in capsys.readouterr().out.splitlines()]
    boots = [json.loads(payload)["boot"] for topic, payload in lines if topic.endswith("/events")]
    assert len(boots) == 12
    assert len(set(boots[:6])) == len(set(boots[6:])) == 1
    assert boots[0] != boots[-1]


def test_a_dry_run_prints_everything_and_touches_neither_broker_nor_outbox(
    kit: Kit,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    video = write_video(tmp_path / "visit.avi", (10, 255))
    run(app_of(kit.config(tmp_path, [file_camera(video)], mqtt={"host": "unused.invalid"}), dry_run=True))
    topics_printed = {line.split(" ")[0] for line in capsys.readouterr().out.splitlines()}
    assert topics_printed == {f"{ROOT}/{name}" for name in ("info", "camera/door/events", "camera/door/state")}
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["canary.json"]


def test_the_first_results_time_counts_from_the_start_of_the_process(kit: Kit, tmp_path: Path) -> None:
    video = write_video(tmp_path / "visit.avi", (4, 255))
    app = app_of(kit.config(tmp_path, [file_camera(video)], mqtt={"port": free_port()}))
    assert app.first_result_after_s is None
    began_s = time.monotonic()
    run(app)
    assert app.first_result_after_s is not None
    assert app.first_result_after_s > time.monotonic() - began_s, "this test's process is older than its agent"


def test_an_agent_that_was_never_started_stops_quietly(kit: Kit, tmp_path: Path) -> None:
    app = app_of(kit.config(tmp_path, [scene_camera()], mqtt={"port": free_port()}))
    app.stop()
    assert (tmp_path / "state" / "outbox.sqlite.clean").exists()


# --- one frame


def test_seeing_once_takes_one_frame_of_each_camera(
    kit: Kit,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    video = write_video(tmp_path / "visit.avi", (1, 255), (5, 0))
    app = app_of(kit.config(tmp_path, [file_camera(video), scene_camera("yard")]), dry_run=True)
    seen = app.see_once()
    assert [(frame.camera_id, frame.id) for frame, _ in seen] == [("door", 1), ("yard", 1)]
    assert [each.label for each in seen[0][1].objects] == ["cat", "dog", "cat"]
    assert "camera/yard/state" in capsys.readouterr().out


def test_a_camera_without_a_frame_cannot_be_seen(
    kit: Kit,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app = app_of(kit.config(tmp_path, [scene_camera()]), dry_run=True)
    monkeypatch.setattr("agent.camera.synthetic.SyntheticCamera.read", lambda self: None)
    with pytest.raises(CameraError, match="camera door: expected a frame"):
        app.see_once()


def test_a_driver_that_does_not_return_is_published(kit: Kit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = app_of(kit.config(tmp_path, [scene_camera("a")], mqtt={"port": free_port()}))
    app.captures = {"a": HangingCapture([], "a")}  # type: ignore[dict-item]
    published: list[str] = []
    monkeypatch.setattr(app.publisher, "set_camera_state", lambda camera_id, state: published.append(state.health))
    app._publish_camera_health()
    app._publish_camera_health()
    assert published == ["stalled", "stalled"]
    assert app.camera_health("a") == "stalled"
    app.stop()


def test_inference_that_hangs_ends_the_agent(kit: Kit, tmp_path: Path) -> None:
    app = app_of(kit.config(tmp_path, [scene_camera("a")], mqtt={"port": free_port()}))
    app._check_inference()
    app.pipeline.heartbeat_s -= 100
    with pytest.raises(FatalError, match="inference hangs"):
        app._check_inference()
    app.stop()
