"""A segmenter in the whole agent: from a signed bundle and a video to payloads, whatever the resize does to frames."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest

from agent.app import App
from agent.config_file import load_config
from agent.errors import BundleError
from tests.support.agents import NODE, RATE_HZ, file_camera, make_kit
from tests.support.tiny_models import segment_model

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

LONG_S = 30.0
BLUE, RED = (200, 0, 0), (0, 0, 200)
WIDTH, HEIGHT = 128, 64


def half_red(red_px: int) -> NDArray[np.uint8]:
    """A blue frame, red from the left up to there."""
    frame = np.full((HEIGHT, WIDTH, 3), BLUE, np.uint8)
    frame[:, :red_px] = RED
    return frame


def write_frames(path: Path, *frames: NDArray[np.uint8]) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), RATE_HZ, (WIDTH, HEIGHT))
    for frame in frames:
        writer.write(frame)
    writer.release()
    return path


def app_of(folder: Path, *frames: NDArray[np.uint8], **input_keys: Any) -> App:
    """An agent that prints what it would publish; the model's input is 64 x 48 and its mask an eighth of that."""

    def change(manifest: dict[str, Any]) -> None:
        manifest["variants"][0]["input"].update(input_keys)

    kit = make_kit(folder / "kit", tiny=segment_model(confidence=True), change=change)
    video = write_frames(folder / "video.avi", *frames)
    return App(load_config(kit.config(folder, [file_camera(video)]), {}), dry_run=True)


def run(app: App) -> None:
    stop = threading.Event()
    give_up = threading.Timer(LONG_S, stop.set)
    give_up.start()
    try:
        app.start()
        app.watch(stop)
    finally:
        app.stop()
        give_up.cancel()
        give_up.join()


def printed(capsys: pytest.CaptureFixture[str], topic: str) -> list[Any]:
    lines = [line.split(" ", 1) for line in capsys.readouterr().out.splitlines()]
    return [json.loads(payload) for name, payload in lines if name == f"edge/{NODE}/camera/door/{topic}"]


@pytest.mark.parametrize(
    ("resize", "areas"),
    [
        ({"resize": "letterbox"}, {"red": 0.75, "blue": 0.25}),
        ({"resize": "letterbox", "align": "top_left"}, {"red": 0.75, "blue": 0.25}),
        ({"resize": "stretch"}, {"red": 0.75, "blue": 0.25}),
        # Of the frame's columns 21 to 106 seven eighths are red, as near as eight columns of the mask can tell.
        ({"resize": "center_crop"}, {"red": 0.875, "blue": 0.125}),
    ],
    ids=["letterbox", "letterbox top left", "stretch", "center crop"],
)
def test_the_areas_of_the_frame_arrive_when_another_class_covers_most(
    resize: dict[str, str], areas: dict[str, float], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    app = app_of(tmp_path, *[half_red(0)] * 10, *[half_red(96)] * 10, **resize)
    run(app)
    first, second = printed(capsys, "events")
    assert [event["type"] for event in (first, second)] == ["changed", "changed"]
    assert [event["frame"] for event in (first, second)] == [
        {"id": 3, "w": WIDTH, "h": HEIGHT},
        {"id": 13, "w": WIDTH, "h": HEIGHT},
    ], "three frames confirm it"
    assert (first["areas"], second["areas"]) == ({"blue": 1.0}, areas)
    assert second["model"] == {"name": "tiny", "version": 3, "variant": "cpu-fp32"}
    assert app.pipeline.stats["door"].events == {"changed": 2}


def test_the_cameras_state_has_the_areas_of_now(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(app_of(tmp_path, *[half_red(0)] * 5, *[half_red(96)] * 5))
    states = [state for state in printed(capsys, "state") if state["health"] == "up"]
    assert [state["areas"] for state in states] == [{"blue": 1.0}, {"red": 0.75, "blue": 0.25}]


def test_without_cutting_the_border_off_the_areas_would_be_others(tmp_path: Path) -> None:
    app = app_of(tmp_path, half_red(96))
    app.model.resizer(half_red(96))
    mask = app.model.session.run()["mask"]
    assert (mask == 2).mean() == 0.5, "a third of the input is border, and this model calls it blue"
    app.stop()


def test_what_was_seen_last_can_be_drawn(tmp_path: Path) -> None:
    app = app_of(tmp_path, *[half_red(96)] * 3)
    run(app)
    frame, sighting = app.pipeline.latest["door"]
    assert sighting.mask is not None
    ids, seen = sighting.mask.on_frame()
    assert ids.shape == frame.image_bgr[seen].shape[:2] == (HEIGHT, WIDTH)
    assert (ids[:, :96] == 2).all()
    assert (ids[:, 96:] == 0).all()


def test_a_segmenter_whose_mask_is_not_the_expected_one_does_not_go_live(tmp_path: Path) -> None:
    honest = segment_model()
    make_kit(tmp_path / "good", tiny=honest)
    wrong = replace(honest, outputs_of=lambda image: {"mask": honest.outputs_of(image)["mask"] + 1})
    with pytest.raises(BundleError, match=r"golden input 0 .* 100 % of the mask has another class"):
        make_kit(tmp_path / "bad", tiny=wrong)
