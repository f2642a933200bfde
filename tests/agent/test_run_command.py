"""``edge-agent run``: one frame for a look, or the service until its sources end or a signal comes."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from agent.__main__ import main
from agent.delivery.rows import RANKS
from agent.vision.draw import color_of
from tests.support.agents import CHECKOUT, NODE, file_camera, make_kit, run_command, scene_camera, write_video
from tests.support.ports import free_port
from tests.support.subscriber import Subscriber
from tests.support.tiny_models import classify_model, segment_model

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from tests.support.agents import Kit
    from tests.support.mosquitto import Mosquitto

pytestmark = pytest.mark.usefixtures("process_as_before")

ROOT = f"edge/{NODE}"


def once(config: Path, *arguments: str | Path) -> int:
    return main(["run", "--config", str(config), "--once", "--dry-run-mqtt", *map(str, arguments)])


def picture(path: Path) -> NDArray[np.uint8]:
    image = cv2.imread(str(path))
    assert image is not None, f"{path} is no picture"
    return image.astype(np.uint8)


# --- one frame


def test_one_frame_is_saved_with_its_boxes_and_its_payloads_are_printed(
    kit: Kit, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video = write_video(tmp_path / "visit.avi", (3, 255))
    assert once(kit.config(tmp_path, [file_camera(video)]), "--save", tmp_path / "out.png") == 0
    printed = [line.split(" ", 1) for line in capsys.readouterr().out.splitlines()]
    payloads = [(topic.removeprefix(ROOT), json.loads(payload)) for topic, payload in printed]
    names = [topic.removeprefix("/camera/door/") for topic, _ in payloads]
    assert names == ["detections", "events", "events", "events", "state"]
    assert [each["label"] for each in payloads[0][1]["objects"]] == ["cat", "dog", "cat"]
    assert {payload["type"] for _, payload in payloads[1:4]} == {"new"}, "no second frame could confirm them"
    saved = picture(tmp_path / "out.png")
    assert saved.shape == (48, 64, 3)
    assert int(saved.min()) < 128, "boxes are drawn on what was white"


def test_a_picture_without_objects_is_saved_as_it_came(kit: Kit, tmp_path: Path) -> None:
    black = write_video(tmp_path / "black.avi", (3, 0))
    assert once(kit.config(tmp_path, [file_camera(black)]), "--save", tmp_path / "out.png") == 0
    assert picture(tmp_path / "out.png").max() <= 4


def test_each_of_several_cameras_has_its_own_picture(kit: Kit, tmp_path: Path) -> None:
    video = write_video(tmp_path / "visit.avi", (3, 255))
    config = kit.config(tmp_path, [file_camera(video), scene_camera("yard", width=96)])
    assert once(config, "--save", tmp_path / "out.jpg") == 0
    assert picture(tmp_path / "out-door.jpg").shape == (48, 64, 3)
    assert picture(tmp_path / "out-yard.jpg").shape == (48, 96, 3)
    assert not (tmp_path / "out.jpg").exists()


def test_a_class_is_written_into_the_picture(tmp_path: Path) -> None:
    model = make_kit(tmp_path / "kit", tiny=classify_model())
    blue = write_video(tmp_path / "blue.avi", (3, (200, 0, 0)))
    assert once(model.config(tmp_path, [file_camera(blue)]), "--save", tmp_path / "out.png") == 0
    saved = picture(tmp_path / "out.png")
    green = saved[:, :, 1]
    assert int(green[:20].max()) >= 40 > int(green[30:].max()), "a caption in the upper part"


def test_a_mask_is_drawn_over_the_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = make_kit(tmp_path / "kit", tiny=segment_model())
    blue = write_video(tmp_path / "blue.avi", (3, (200, 0, 0)))
    assert once(model.config(tmp_path, [file_camera(blue)]), "--save", tmp_path / "out.png") == 0
    printed = [line.split(" ", 1) for line in capsys.readouterr().out.splitlines()]
    assert [topic.removeprefix(f"{ROOT}/camera/door/") for topic, _ in printed] == ["events", "state"]
    event = json.loads(printed[0][1])
    assert (event["type"], event["areas"]) == ("changed", {"blue": 1.0})
    pixel = picture(tmp_path / "out.png")[40, 60].astype(float)
    np.testing.assert_allclose(pixel, 0.55 * np.array([200, 0, 0]) + 0.45 * np.array(color_of(0)), atol=8)


def test_a_picture_is_not_needed(kit: Kit, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert once(kit.config(tmp_path, [scene_camera()])) == 0
    assert f"{ROOT}/camera/door/detections " in capsys.readouterr().out


def test_once_without_a_dry_run_leaves_its_events_in_the_outbox(kit: Kit, tmp_path: Path) -> None:
    video = write_video(tmp_path / "visit.avi", (3, 255))
    config = kit.config(tmp_path, [file_camera(video)], mqtt={"port": free_port()})
    assert main(["run", "--config", str(config), "--once"]) == 0
    with closing(sqlite3.connect(tmp_path / "state" / "outbox.sqlite")) as database:
        counts = [database.execute(f"SELECT count(*) FROM rank_{rank}").fetchone()[0] for rank in RANKS]  # noqa: S608
    assert sum(counts) == 3


@pytest.mark.mosquitto
def test_once_publishes_what_it_sees_when_the_broker_is_there(kit: Kit, mosquitto: Mosquitto, tmp_path: Path) -> None:
    video = write_video(tmp_path / "visit.avi", (3, 255))
    config = kit.config(tmp_path, [file_camera(video)], mqtt={"port": mosquitto.port})
    subscriber = Subscriber(mosquitto.host, mosquitto.port)
    assert main(["run", "--config", str(config), "--once"]) == 0
    assert subscriber.wait_for(lambda messages: messages[-1].payload == b"offline" if messages else False)
    subscriber.close()
    assert len(subscriber.payloads(f"{ROOT}/camera/door/detections")) == 1
    assert len(subscriber.payloads(f"{ROOT}/camera/door/events")) == 3


@pytest.mark.parametrize("name", ["out.xyz", "out", "out.mp4"])
def test_a_name_that_is_no_pictures_is_refused_before_anything_else(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert once(tmp_path / "missing.yaml", "--save", tmp_path / name) == 2
    told = capsys.readouterr().err
    assert told == f"edge-agent: --save: {tmp_path / name}: expected a name that ends in .jpg or .png; choose another\n"


def test_a_picture_that_cannot_be_written_is_told(kit: Kit, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = tmp_path / "missing" / "out.jpg"
    config = kit.config(tmp_path, [scene_camera()], logging={"level": "error"})
    assert once(config, "--save", place) == 2
    assert capsys.readouterr().err == (
        f"edge-agent: --save: {place}: expected a place to write to, got: No such file or directory; choose another\n"
    )


def test_saving_needs_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--config", str(tmp_path / "a.yaml"), "--save", "out.jpg"]) == 2
    assert "add --once" in capsys.readouterr().err


# --- the service


def test_the_end_of_all_sources_ends_the_service_with_0(
    kit: Kit, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video = write_video(tmp_path / "visit.avi", (10, 255), (5, 0))
    config = kit.config(tmp_path, [file_camera(video)])
    assert main(["run", "--config", str(config), "--dry-run-mqtt"]) == 0
    captured = capsys.readouterr()
    assert captured.out.count(f"{ROOT}/camera/door/events ") == 6
    assert "its source has ended after 15 frames" in captured.err
    assert "agent stopped" in captured.err.splitlines()[-1]


def test_a_json_log_is_one_object_a_line(kit: Kit, tmp_path: Path) -> None:
    video = write_video(tmp_path / "visit.avi", (10, 255))
    config = kit.config(tmp_path, [file_camera(video)], mqtt={"port": free_port()})
    ended = run_command("run", "--config", config, "--log-format", "json")
    assert ended.returncode == 0
    lines = [json.loads(line) for line in ended.stderr.splitlines()]
    assert all({"ts", "level", "logger", "message"} <= set(line) for line in lines)
    events = [line["message"] for line in lines if line["logger"] == "agent.pipeline"]
    assert len(events) == 6
    assert events[0].startswith("event new cat #1 id=node-1:")
    assert "warning" in {line["level"] for line in lines}, "the broker is away"


def test_the_readers_end_ends_a_dry_run_quietly(kit: Kit, tmp_path: Path) -> None:
    config = kit.config(
        tmp_path, [scene_camera(fps=100)], logging={"level": "error"}, mqtt={"detections": {"enabled": True}}
    )
    command = [sys.executable, "-m", "agent", "run", "--config", str(config), "--dry-run-mqtt"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=CHECKOUT) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline()
        process.stdout.close()
        assert process.wait(30) == 141
        assert process.stderr.read() == b""


STOPPED_WHILE_THE_LOCK_IS_HELD = """
import signal
from agent.run_command import stop_event

stop = stop_event()
with stop._cond:  # where the main thread is now and then, as it waits
    signal.raise_signal(signal.SIGTERM)
print(stop.wait(20))
"""


def test_a_signal_during_a_wait_cannot_deadlock() -> None:
    command = [sys.executable, "-c", STOPPED_WHILE_THE_LOCK_IS_HELD]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True, cwd=CHECKOUT)
    assert ended.stdout == "True\n"
