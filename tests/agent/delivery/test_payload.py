"""Payloads are JSON of schema 1, small, finite and clipped, whatever goes in."""

from __future__ import annotations

import io
import json
import math
from datetime import datetime, timezone

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.delivery.dry_run import DryRunPublisher
from agent.delivery.events import CameraState, ClassState, Event, FrameRef, Gap, ObjectState
from agent.delivery.payload import (
    MAX_PAYLOAD_BYTES,
    encode_camera_state,
    encode_detections,
    encode_event,
    encode_gap,
    encode_info,
    encode_telemetry,
)
from tests.support.delivery import NODE, ORIGIN, TOPICS, ManualClock, event, frame_ref, is_clock_synced, person

any_float = st.floats(allow_nan=True, allow_infinity=True, width=32)
any_text = st.text(st.characters(), max_size=400)  # lone surrogates included
objects = st.builds(
    ObjectState,
    id=st.none() | st.integers(0, 2**53),
    label=any_text,
    score=any_float,
    box_xyxy=st.tuples(any_float, any_float, any_float, any_float),
)


def strict(payload: bytes) -> dict[str, object]:
    """Parse, refusing NaN and Infinity, which Python would take."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    message = json.loads(payload, parse_constant=refuse)
    assert isinstance(message, dict)
    return message


def test_an_event_has_every_field_of_the_schema() -> None:
    frame = FrameRef("front", 12, 1280, 720, 1_760_000_000_007)
    state = ObjectState(5, "person", 0.87654321, (0.12345678, 0.0, 1.0, 0.5))
    message = strict(encode_event(Event("new", frame, state), "n:e:1", ORIGIN, clock_synced=True))
    assert message == {
        "v": 1,
        "id": "n:e:1",
        "type": "new",
        "ts": "2025-10-09T08:53:20.007Z",
        "ts_ms": 1_760_000_000_007,
        "clock_synced": True,
        "boot": ORIGIN.boot,
        "camera": "front",
        "model": {"name": "demo", "version": 3, "variant": "cpu-int8"},
        "frame": {"id": 12, "w": 1280, "h": 720},
        "object": {"id": 5, "label": "person", "score": 0.8765, "box": [0.1235, 0.0, 1.0, 0.5]},
    }


def test_a_change_of_class_carries_the_class() -> None:
    change = Event("changed", frame_ref(), class_=ClassState("open", 0.75))
    message = strict(encode_event(change, "n:e:1", ORIGIN, clock_synced=False))
    assert message["class"] == {"label": "open", "score": 0.75}
    assert message["clock_synced"] is False
    assert "object" not in message


def test_a_change_of_areas_carries_them_with_four_digits_largest_first() -> None:
    areas = {"road": 0.123456, "wall": 0.8765, "sign": 0.00004, "class 255": 0.00006}
    payload = encode_event(Event("changed", frame_ref(), areas=areas), "n:e:1", ORIGIN, clock_synced=True)
    assert payload.endswith(b',"areas":{"wall":0.8765,"road":0.1235,"class 255":0.0001}}')
    assert {"object", "class", "truncated"}.isdisjoint(strict(payload))


def test_a_state_has_its_areas_with_two_digits() -> None:
    payload = encode_camera_state(CameraState("up", areas={"wall": 0.345, "road": 0.65, "sign": 0.004}), 0)
    assert strict(payload) == {
        "v": 1,
        "ts": "1970-01-01T00:00:00.000Z",
        "ts_ms": 0,
        "health": "up",
        "areas": {"road": 0.65, "wall": 0.34},
        "counts": {},
    }


@settings(max_examples=25)
@given(st.integers(1, 256), st.sampled_from(["x", "tree", "ä" * 100, '"\\' * 100, "\ud800" * 300]))
def test_too_many_areas_leave_the_largest_and_the_count_of_the_rest(count: int, label: str) -> None:
    weights = [1 + number * 7919 % 1000 for number in range(count)]
    areas = {f"{number} {label}": weight / sum(weights) for number, weight in enumerate(weights)}
    event = Event("changed", frame_ref(), areas=areas)
    for payload, digits in (
        (encode_event(event, "n:e:1", ORIGIN, clock_synced=True), 4),
        (encode_camera_state(CameraState("up", areas=areas), 0), 2),
    ):
        assert len(payload) <= MAX_PAYLOAD_BYTES
        message = strict(payload)
        told = [share for share in sorted(areas.values(), reverse=True) if round(share, digits) > 0]
        kept = list(message["areas"].values()) if told else []  # type: ignore[attr-defined]
        assert kept == [round(share, digits) for share in told[: len(kept)]]
        assert len(kept) + message.get("truncated", 0) == len(told)  # type: ignore[operator]
        if "truncated" in message:
            assert len(payload) > MAX_PAYLOAD_BYTES - 1700, "no more is left out than needed"


@given(st.dictionaries(any_text, any_float, max_size=300), st.dictionaries(any_text, st.integers(0, 10**6), max_size=9))
def test_any_areas_are_clipped_json_under_the_limit(areas: dict[str, float], counts: dict[str, int]) -> None:
    event = Event("changed", frame_ref(), areas=areas)
    for payload in (
        encode_event(event, "n:e:1", ORIGIN, clock_synced=True),
        encode_camera_state(CameraState("up", counts, areas=areas), 0),
    ):
        assert len(payload) <= MAX_PAYLOAD_BYTES
        told = strict(payload).get("areas", {})
        assert all(0 < share <= 1 for share in told.values())  # type: ignore[attr-defined]


@given(st.integers(-(10**13), 10**14))
def test_the_time_is_the_same_in_both_forms(at_ms: int) -> None:
    message = strict(encode_camera_state(CameraState("up"), at_ms))
    assert message["ts_ms"] == at_ms
    text = str(message["ts"])
    assert text.endswith("Z")
    seconds, milliseconds = divmod(at_ms, 1000)
    moment = datetime.fromisoformat(text[:-1]).replace(tzinfo=timezone.utc)
    assert math.floor(moment.timestamp()) == seconds
    assert int(text[-4:-1]) == milliseconds


@given(st.lists(objects, max_size=8), any_text)
def test_any_detections_are_clipped_json_under_the_limit(states: list[ObjectState], camera: str) -> None:
    frame = FrameRef(camera, 1, 64, 48, 0)
    message = strict(encode_detections(frame, states, ORIGIN, clock_synced=True))
    listed = message["objects"]
    assert isinstance(listed, list)
    assert len(listed) + int(str(message.get("truncated", 0))) == len(states)
    for each in listed:
        assert all(0 <= value <= 1 for value in [each["score"], *each["box"]])


@settings(max_examples=25)
@given(st.integers(0, 1000), st.sampled_from(["x", "person", "ä" * 255, '"\\' * 200, "\ud800" * 300]))
def test_too_many_objects_leave_the_best_and_the_count_of_the_rest(count: int, label: str) -> None:
    states = [ObjectState(None, label, (number * 7919 % 1000) / 1000, (0, 0, 1, 1)) for number in range(count)]
    payload = encode_detections(frame_ref(), states, ORIGIN, clock_synced=True)
    assert len(payload) <= MAX_PAYLOAD_BYTES
    message = strict(payload)
    kept = [each["score"] for each in message["objects"]]  # type: ignore[attr-defined]
    left_out = message.get("truncated", 0)
    assert len(kept) + left_out == count  # type: ignore[operator]
    if left_out:
        best = sorted((state.score for state in states), reverse=True)[: len(kept)]
        assert kept == best
        assert len(payload) > MAX_PAYLOAD_BYTES - 3200, "no more is left out than needed"


@given(
    st.dictionaries(any_text, st.integers(0, 10**6), max_size=200),
    st.none() | st.builds(ClassState, any_text, any_float),
)
def test_any_camera_state_fits(counts: dict[str, int], class_: ClassState | None) -> None:
    payload = encode_camera_state(CameraState("up", counts, class_), 0)
    assert len(payload) <= MAX_PAYLOAD_BYTES
    message = strict(payload)
    assert message["health"] == "up"


def test_a_state_of_too_many_labels_keeps_the_most_frequent() -> None:
    counts = {f"label-{number:04}-{'x' * 50}": number for number in range(500)}
    message = strict(encode_camera_state(CameraState("up", counts), 0))
    kept = message["counts"]
    assert isinstance(kept, dict)
    assert sorted(kept.values(), reverse=True) == list(range(499, 499 - len(kept), -1))
    assert message["truncated"] == 500 - len(kept)


def test_info_over_the_limit_drops_its_longest_entries() -> None:
    message = strict(encode_info({"version": "1.2", "report": "x" * 20_000, "nodes": ["y"] * 4000}))
    assert message == {"v": 1, "version": "1.2", "truncated": 2}


def test_telemetry_is_flat_finite_and_bounded() -> None:
    assert strict(encode_telemetry({"fps": 12.5, "nan": math.nan, "inf": math.inf, "n": 3})) == {"fps": 12.5, "n": 3}
    assert len(encode_telemetry({f"value_{number}": number for number in range(5000)})) <= MAX_PAYLOAD_BYTES


def test_a_gap_says_why_and_how_many() -> None:
    message = strict(encode_gap(Gap("outbox_full", {"update": 3}, 1000), "n:e:9", ORIGIN, clock_synced=True))
    assert message["type"] == "gap"
    assert (message["id"], message["reason"], message["dropped"]) == ("n:e:9", "outbox_full", {"update": 3})
    assert message["ts"] == "1970-01-01T00:00:01.000Z"


def test_a_dry_run_prints_what_would_be_published() -> None:
    out = io.StringIO()
    publisher = DryRunPublisher(
        TOPICS, ORIGIN, node=NODE, is_clock_synced=is_clock_synced, clock=ManualClock(), out=out
    )
    assert publisher.emit(event(1)) == f"{NODE}:dry-run:1"
    publisher.publish_detections(frame_ref(), [person()])
    publisher.start()
    publisher.set_camera_state("front", CameraState("up", {"person": 1}))
    publisher.set_camera_state("front", CameraState("up", {"person": 1}))
    publisher.set_info({"version": "0.1"})
    publisher.publish_telemetry({"fps": 1.0})
    assert publisher.stop(1.0)
    assert publisher.counts() == {}
    lines = out.getvalue().splitlines()
    assert [line.split(" ", 1)[0] for line in lines] == [
        TOPICS.events("front"),
        TOPICS.detections("front"),
        TOPICS.camera_state("front"),
        TOPICS.info,
        TOPICS.telemetry,
    ]
    assert all(strict(line.split(" ", 1)[1].encode()) for line in lines)
