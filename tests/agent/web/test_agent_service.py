"""A running agent with ``web:`` in its configuration."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest

from agent.app import App
from agent.config_file import load_config
from agent.errors import ConfigError
from tests.agent.web.test_infer import INFER, picture
from tests.agent.web.test_probes import samples
from tests.support.agents import file_camera, running_agent, scene_camera, write_video
from tests.support.http import ask
from tests.support.ports import free_port
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.agents import Kit

WEB = {"port": 0}


@pytest.fixture
def config(kit: Kit, tmp_path: Path) -> Path:
    """Two cameras: a white scene that repeats, with a cat and a dog, and one that never opens."""
    video = write_video(tmp_path / "white.avi", (5, 255))
    cameras = [
        file_camera(video, pace="native", loop=True),
        {"id": "yard", "source": "rtsp://127.0.0.1:9/none", "open_timeout_s": 1.0},
    ]
    return kit.config(tmp_path, cameras, mqtt={"port": free_port()}, web=WEB)


def camera(port: int, camera_id: str = "door") -> dict[str, Any]:
    found: dict[str, Any] = next(
        each for each in ask(port, "/api/v1/cameras").json["cameras"] if each["id"] == camera_id
    )
    return found


def test_the_web_shows_what_the_cameras_see(config: Path) -> None:
    with running_agent(config) as agent:
        port = agent.web_port()
        assert wait_until(lambda: ask(port, "/readyz").status == 200)
        assert wait_until(lambda: camera(port).get("counts") == {"cat": 2, "dog": 1})
        seen = camera(port)
        assert seen["health"] == "up"
        assert seen["frame"]["w"] == 64
        assert seen["frames"] >= 3
        assert seen["trouble"] is None
        assert wait_until(lambda: camera(port, "yard")["health"] == "down")
        assert "check the address" in camera(port, "yard")["trouble"]
        assert ask(port, "/api/v1/cameras/yard/snapshot.jpg").status == 503

        snapshot = ask(port, "/api/v1/cameras/door/snapshot.jpg")
        image = cv2.imdecode(np.frombuffer(snapshot.body, np.uint8), cv2.IMREAD_COLOR)
        assert image is not None
        assert image.shape == (48, 64, 3)
        assert (image < 150).any(), "boxes are drawn on the white scene"

        answer = ask(port, INFER, picture()).json
        assert [each["label"] for each in answer["objects"]] == ["cat", "dog", "cat"]
        assert [each["name"] for each in ask(port, "/api/v1/models").json["models"]] == ["tiny"]

        found = samples(port)
        assert found["edge_frames_total[('camera', 'door')]"] >= 3
        assert found["edge_camera_up[('camera', 'door')]"] == 1
        assert found["edge_camera_up[('camera', 'yard')]"] == 0
        assert found["edge_inference_seconds_count[('camera', 'door')]"] >= 3
        assert found["edge_events_total[('camera', 'door'), ('type', 'new')]"] == 3
        assert found["edge_detections_total[('camera', 'door'), ('label', 'cat')]"] >= 6
        assert found["edge_outbox_messages"] >= 3, "the broker is away"
        assert found["edge_mqtt_online"] == 0
        assert ask(port, "/healthz").status == 200


def test_an_agent_without_frames_is_alive_but_not_ready(kit: Kit, tmp_path: Path) -> None:
    cameras = [{"id": "yard", "source": "rtsp://127.0.0.1:9/none", "open_timeout_s": 1.0}]
    with running_agent(kit.config(tmp_path, cameras, mqtt={"port": free_port()}, web=WEB)) as agent:
        port = agent.web_port()
        assert ask(port, "/healthz").status == 200
        answer = ask(port, "/readyz")
        assert answer.status == 503
        assert "no frame has gone through the model yet" in answer.problem


def test_a_taken_port_is_told_with_its_place_in_the_file(kit: Kit, tmp_path: Path) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as other:
        web = {"host": "127.0.0.1", "port": other.getsockname()[1]}
        path = kit.config(tmp_path, [scene_camera()], web=web)
        with pytest.raises(ConfigError, match=r"agent\.yaml:\d+:9: web\.port: expected to listen on 127\.0\.0\.1"):
            App(load_config(path, {}), dry_run=True)


def test_a_missing_extra_is_told_with_what_to_install(
    kit: Kit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "fastapi", None)
    path = kit.config(tmp_path, [scene_camera()], web=WEB)
    with pytest.raises(
        ConfigError, match=r"agent\.yaml:\d+:\d+: web: the web API needs the extra `web`, fastapi is missing; run .*"
    ):
        App(load_config(path, {}), dry_run=True)


def test_without_the_section_nothing_listens_and_nothing_of_the_web_is_imported(kit: Kit, tmp_path: Path) -> None:
    import subprocess

    path = kit.config(tmp_path, [scene_camera()])
    code = (
        "import sys; from pathlib import Path; from agent.app import App; from agent.config_file import load_config\n"
        f"app = App(load_config(Path({str(path)!r}), {{}}), dry_run=True)\n"
        "assert app.web is None\n"
        "print([name for name in sys.modules if name.startswith(('fastapi', 'uvicorn', 'starlette', 'prometheus'))])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
