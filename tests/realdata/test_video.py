"""A real video through the whole agent and a real broker: what subscribers get is what the source model sees.

The oracle is the source model in float with a decoding of its own, written here and sharing no code with the product.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest

from agent.model.runtime import ort
from tests.support.mosquitto import mosquitto  # noqa: F401 - a fixture
from tests.support.subscriber import Subscriber

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from tests.realdata.conftest import Built
    from tests.support.mosquitto import Mosquitto

pytestmark = [pytest.mark.realdata, pytest.mark.build, pytest.mark.mosquitto]

PERSON = 0
FPS = 10.0
SCORE = 0.35
LOST_AFTER_S = 2.0


@dataclass(frozen=True)
class Visit:
    """A person's stay in the picture, by frame number."""

    first: int
    last: int


def test_a_video_gives_persons_their_events_and_detections(
    realdata: Path,
    yolox_bundle: Built,
    mosquitto: Mosquitto,  # noqa: F811
    tmp_path: Path,
) -> None:
    """A new event when a person enters, an end event when it leaves, and a detection in 97 % of its frames."""
    video = realdata / "videos" / "one-by-one-person-detection.mp4"
    scores = person_scores(realdata / "det-yolox-nano" / "yolox_nano.onnx", video)
    seen = [number for number, score in enumerate(scores, start=1) if score > SCORE]
    visits = visits_of(seen)
    assert len(visits) >= 5, "the oracle must see something"

    subscriber = Subscriber(mosquitto.host, mosquitto.port)
    run_agent(yolox_bundle, video, mosquitto.port, tmp_path)
    assert subscriber.wait_for(lambda messages: any(m.payload == b"offline" for m in messages))
    events = [json.loads(payload) for payload in subscriber.payloads("edge/video/camera/door/events")]
    frames = [json.loads(payload) for payload in subscriber.payloads("edge/video/camera/door/detections")]
    subscriber.close()

    news, ends = ([e for e in events if e["type"] == kind and is_person(e["object"])] for kind in ("new", "end"))
    print(f"{len(visits)} visits by the oracle; {len(news)} new, {len(ends)} end events of persons")
    assert len(news) == len(ends) == len(visits)
    assert {event["object"]["id"] for event in news} == {event["object"]["id"] for event in ends}
    for visit, new, end in zip(visits, news, ends, strict=True):
        assert visit.first <= new["frame"]["id"] <= visit.first + FPS, "new when it enters"
        assert visit.last <= end["frame"]["id"] <= visit.last + (LOST_AFTER_S + 1) * FPS, "end when it leaves"

    reported = {m["frame"]["id"] for m in frames if any(is_person(thing) for thing in m["objects"])}
    recall = len(reported & set(seen)) / len(seen)
    print(f"persons in {len(seen)} of {len(scores)} frames by the oracle, reported in {recall:.4f} of them")
    assert len(frames) == len(scores), "lockstep drops no frame"
    assert recall >= 0.97
    # The control: what is compared is not simply everything.
    unlikely = {number for number, score in enumerate(scores, start=1) if score < SCORE / 2}
    assert len(unlikely) > 100
    assert len(reported & unlikely) <= 0.03 * len(unlikely)


def test_visits_need_three_frames_and_end_with_a_gap() -> None:
    """The oracle's own rule: flicker is no visit, a short gap does not end one, a long one does."""
    assert visits_of([5, 6, 7, 9, 30]) == [Visit(5, 9)]
    assert visits_of([5, 6, 7, 40, 41, 42]) == [Visit(5, 7), Visit(40, 42)]


def is_person(thing: dict[str, Any]) -> bool:
    return bool(thing["label"] == "person")


def run_agent(built: Built, video: Path, port: int, folder: Path) -> None:
    config = folder / "agent.yaml"
    config.write_text(
        f"""
node: video
state_dir: {folder / "state"}
model:
  bundle: {built.bundle}
  trusted_keys: [{built.public_key}]
cameras:
  - id: door
    source: {video}
    pace: lockstep
detect:
  score_threshold: {SCORE}
tracking:
  lost_after_s: {LOST_AFTER_S}
mqtt:
  port: {port}
  detections: {{enabled: true, max_rate_hz: 1000}}
"""
    )
    command = [sys.executable, "-m", "agent", "run", "--config", str(config)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr


def visits_of(frame_numbers: list[int]) -> list[Visit]:
    """Frames grouped where gaps are at most the time after which an object is lost, at least three frames long."""
    groups: list[list[int]] = []
    for number in frame_numbers:
        if groups and number - groups[-1][-1] <= LOST_AFTER_S * FPS:
            groups[-1].append(number)
        else:
            groups.append([number])
    return [Visit(group[0], group[-1]) for group in groups if len(group) >= 3]


def person_scores(model: Path, video: Path) -> list[float]:
    """The best person score of each frame, by the source model."""
    session = ort.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    capture = cv2.VideoCapture(str(video))
    scores: list[float] = []
    while True:
        success, frame = capture.read()
        if not success:
            return scores
        (raw,) = session.run(None, {"images": preprocess(frame)})
        rows = raw[0]
        scores.append(float((rows[:, 4] * rows[:, 5 + PERSON]).max()))


def preprocess(frame_bgr: NDArray[Any]) -> NDArray[np.float32]:
    """Letterbox to 416x416 in the top left corner, grey 114 around it, float BGR 0..255, NCHW."""
    height, width = frame_bgr.shape[:2]
    ratio = min(416 / width, 416 / height)
    small = cv2.resize(frame_bgr, (round(width * ratio), round(height * ratio)))
    canvas = np.full((416, 416, 3), 114, np.uint8)
    canvas[: small.shape[0], : small.shape[1]] = small
    return canvas.astype(np.float32).transpose(2, 0, 1)[None]
