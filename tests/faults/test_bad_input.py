"""Bad input, given to the commands as a user would: one clear line a problem, the right exit code, no traceback."""

from __future__ import annotations

import json
import re
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.support.agents import (
    NODE,
    copy_bundle,
    file_camera,
    make_kit,
    run_command,
    running_agent,
    scene_camera,
    write_video,
)
from tests.support.bundles import MODEL_PATH
from tests.support.ports import free_port
from tests.support.subscriber import Subscriber
from tests.support.tiny_onnx import model, node, tensor, value

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.agents import Kit
    from tests.support.mosquitto import Mosquitto

QUIET = {"level": "error"}  # so that standard error holds what is wrong and nothing else


def run_agent(config: Path) -> tuple[int, list[str]]:
    """Exit code and lines of standard error of ``edge-agent run``."""
    ended = run_command("run", "--config", config)
    assert "Traceback" not in ended.stderr
    return ended.returncode, ended.stderr.splitlines()


def assert_told(told: tuple[int, list[str]], code: int, *patterns: str) -> None:
    """The exit code, and for each pattern one line that fits it as a whole; no other line."""
    assert told[0] == code, told[1]
    assert len(told[1]) == len(patterns), told[1]
    for line, pattern in zip(told[1], patterns, strict=True):
        assert re.fullmatch(f"edge-agent: {pattern}", line), line


# --- the configuration


def test_a_missing_configuration(tmp_path: Path) -> None:
    expected = r"\S+/agent\.yaml: expected a readable configuration file, got: No such file or directory; .*"
    assert_told(run_agent(tmp_path / "agent.yaml"), 2, expected)


def test_an_unknown_key_is_told_with_its_place_and_what_was_meant(kit: Kit, tmp_path: Path) -> None:
    config = kit.config(tmp_path, [scene_camera()], mqtt={"prt": 1884})
    line = len(config.read_text().splitlines())
    expected = rf'\S+/agent\.yaml:{line}:3: mqtt\.prt: unknown key; did you mean "port"\?'
    assert_told(run_agent(config), 2, expected)


def test_a_wrong_type_is_told_with_its_place(kit: Kit, tmp_path: Path) -> None:
    config = kit.config(tmp_path, [scene_camera()], mqtt={"port": "many"})
    line = len(config.read_text().splitlines())
    expected = rf'\S+/agent\.yaml:{line}:9: mqtt\.port: expected a whole number, got the text "many"'
    assert_told(run_agent(config), 2, expected)


def test_all_problems_are_told_at_once_a_line_each(kit: Kit, tmp_path: Path) -> None:
    config = kit.config(tmp_path, [scene_camera(fps=0)], node="No Name", mqtt={"hots": "a"})
    patterns = [rf"\S+/agent\.yaml:\d+:\d+: {key}: .*" for key in ("node", r"cameras\.0\.fps", r"mqtt\.hots")]
    assert_told(run_agent(config), 2, *patterns)


def test_a_label_that_the_bundle_does_not_have(kit: Kit, tmp_path: Path) -> None:
    config = kit.config(tmp_path, [scene_camera()], detect={"labels": ["dgo"]}, logging=QUIET)
    expected = r"\S+/agent\.yaml:\d+:\d+: detect\.labels: bundle tiny has no label 'dgo'; did you mean 'dog'\?"
    assert_told(run_agent(config), 2, expected)


# --- cameras


def test_a_text_file_that_is_called_a_video_is_told_with_its_place(kit: Kit, tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_text("not a video")
    config = kit.config(tmp_path, [file_camera(tmp_path / "clip.mp4")], mqtt={"port": free_port()}, logging=QUIET)
    line = next(number for number, text in enumerate(config.read_text().splitlines(), 1) if "source:" in text)
    expected = rf"\S+/agent\.yaml:{line}:11: cameras\.0\.source: \S+/clip\.mp4: expected a video or a picture, .*"
    assert_told(run_agent(config), 2, expected)


def test_a_missing_video_is_told_with_its_place(kit: Kit, tmp_path: Path) -> None:
    config = kit.config(tmp_path, [file_camera(tmp_path / "gone.mp4")], mqtt={"port": free_port()}, logging=QUIET)
    expected = r"\S+/agent\.yaml:\d+:11: cameras\.0\.source: \S+/gone\.mp4: .* got: No such file or directory; .*"
    assert_told(run_agent(config), 2, expected)


def test_at_the_usual_level_the_log_does_not_tell_it_twice(kit: Kit, tmp_path: Path) -> None:
    config = kit.config(tmp_path, [file_camera(tmp_path / "gone.mp4")], mqtt={"port": free_port()})
    code, lines = run_agent(config)
    assert code == 2
    assert sum("gone.mp4" in line for line in lines) == 1
    assert lines[-1].startswith("edge-agent: ")


# --- bundles


@dataclass(frozen=True)
class Damage:
    """What is done to a good bundle, and the line that tells it."""

    path: str
    content: bytes | None  # None: removed; else its last byte is turned
    told: str


@pytest.mark.parametrize(
    "damage",
    [
        Damage(MODEL_PATH, b"", r"\S+/bundle: models/cpu-fp32\.onnx was changed: sha256 .*"),
        Damage("golden/cpu-fp32.npz", b"", r"\S+/bundle: golden/cpu-fp32\.npz was changed: sha256 .*"),
        Damage("manifest.json", b"", r"\S+/bundle: the signature does not fit manifest\.json; .*"),
        Damage("manifest.sig", None, r"\S+/bundle: the bundle is not signed \(manifest\.sig is missing\); .*"),
        Damage(MODEL_PATH, None, r"\S+/bundle: cannot read models/cpu-fp32\.onnx: No such file or directory; .*"),
    ],
    ids=["a model byte", "a golden byte", "a manifest byte", "no signature", "no model"],
)
def test_a_damaged_bundle_is_refused(damage: Damage, kit: Kit, tmp_path: Path) -> None:
    root = copy_bundle(kit.bundle, tmp_path)
    damaged = root / damage.path
    if damage.content is None:
        damaged.unlink()
    else:
        content = bytearray(damaged.read_bytes())
        content[-1] ^= 1
        damaged.write_bytes(content)
    model_keys = {"bundle": str(root), "trusted_keys": [str(kit.bundle.public_key)]}
    assert_told(run_agent(kit.config(tmp_path, [scene_camera()], model=model_keys)), 3, damage.told)


def test_the_same_copy_undamaged_is_accepted(kit: Kit, tmp_path: Path) -> None:
    """The control of the damages."""
    root = copy_bundle(kit.bundle, tmp_path)
    video = write_video(tmp_path / "short.avi", (2, 0))
    model_keys = {"bundle": str(root), "trusted_keys": [str(kit.bundle.public_key)]}
    config = kit.config(tmp_path, [file_camera(video)], model=model_keys, mqtt={"port": free_port()}, logging=QUIET)
    assert_told(run_agent(config), 0)


def test_a_bundle_signed_by_somebody_else_is_refused(kit: Kit, tmp_path: Path) -> None:
    other = make_kit(tmp_path / "other")
    model_keys = {"bundle": str(kit.bundle.root), "trusted_keys": [str(other.bundle.public_key)]}
    expected = r"\S+/bundle: signed by key [0-9a-f]{16}, which is not trusted \(trusted: [0-9a-f]{16}\); .*"
    assert_told(run_agent(kit.config(tmp_path, [scene_camera()], model=model_keys)), 3, expected)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"bundle": "none"}, r"\S+/none: expected a bundle directory with manifest\.json, found none; .*"),
        ({"trusted_keys": ["none.pem"]}, r"\S+/none\.pem: cannot read the trusted key: No such file or directory"),
    ],
    ids=["bundle", "key"],
)
def test_a_file_of_the_model_that_is_not_there_is_told_with_its_place(
    changed: dict[str, object], told: str, kit: Kit, tmp_path: Path
) -> None:
    usual = {"bundle": str(kit.bundle.root), "trusted_keys": [str(kit.bundle.public_key)]}
    config = kit.config(tmp_path, [scene_camera()], model={**usual, **changed})
    assert_told(run_agent(config), 2, rf"\S+/agent\.yaml:\d+:\d+: model: {told}")


# --- the state folder


def test_a_second_agent_on_one_state_folder_is_refused_and_the_first_goes_on(kit: Kit, tmp_path: Path) -> None:
    config = kit.config(tmp_path, [scene_camera()], mqtt={"port": free_port()}, logging=QUIET)
    loud = config.with_name("first.yaml")
    loud.write_text(config.read_text().replace("level: error", "level: info"))
    with running_agent(loud) as first:
        first.wait_for_line("runs as node")
        expected = rf"\S+/agent\.yaml:2:12: state_dir: \S+/state: another agent \(process {first.process.pid}\) uses .*"
        assert_told(run_agent(config), 2, expected)
        assert first.signal_and_wait(signal.SIGTERM)[0] == 0


@pytest.mark.mosquitto
def test_without_a_state_folder_the_agent_says_so_and_still_delivers(
    kit: Kit, mosquitto: Mosquitto, tmp_path: Path
) -> None:
    """Even root cannot make a folder below a file."""
    (tmp_path / "file").write_text("in the way")
    white = write_video(tmp_path / "white.avi", (10, 255))
    mqtt = {"port": mosquitto.port, "telemetry_interval_s": 0.2}
    subscriber = Subscriber(mosquitto.host, mosquitto.port)
    camera = file_camera(white, pace="native", loop=True)
    with running_agent(kit.config(tmp_path, [camera], state_dir=str(tmp_path / "file" / "state"), mqtt=mqtt)) as agent:
        agent.wait_for_line("events are kept in memory until the disk works again")
        agent.wait_for_line("event new", count=3)
        assert subscriber.wait_for(lambda _: bool(subscriber.payloads(f"edge/{NODE}/telemetry")))
        assert agent.signal_and_wait(signal.SIGTERM)[0] == 0
    assert subscriber.wait_for(lambda messages: messages[-1].payload == b"offline")
    subscriber.close()
    events = [json.loads(payload)["type"] for payload in subscriber.payloads(f"edge/{NODE}/camera/door/events")]
    assert (events.count("new"), events.count("end")) == (3, 3)
    telemetry = json.loads(subscriber.payloads(f"edge/{NODE}/telemetry")[0])
    assert telemetry["outbox_degraded"] == 1
    assert "Traceback" not in agent.text


# --- the broker


@pytest.mark.parametrize("host", ["127.0.0.1", "nowhere.invalid"])
def test_an_unreachable_broker_does_not_stop_the_agent(host: str, kit: Kit, tmp_path: Path) -> None:
    video = write_video(tmp_path / "visits.avi", (5, 255), (5, 0))
    mqtt = {"host": host, "port": free_port()}
    camera = file_camera(video, pace="native", loop=True)
    with running_agent(kit.config(tmp_path, [camera], mqtt=mqtt, tracking={"lost_after_s": 0.2})) as agent:
        agent.wait_for_line("trying again")
        agent.wait_for_line("event end", count=3)
        assert agent.process.poll() is None
    assert sum("trying again" in line for line in agent.lines) == 1
    assert f"mqtt: {host}:" in agent.text


# --- the build side


def built(folder: Path, *arguments: str) -> tuple[int, list[str]]:
    """Exit code and the lines of ``build-models import`` of a small classifier that tell an error."""
    pytest.importorskip("onnx", reason="needs the build extra")
    graph = [node("ReduceMean", ["x"], ["means"], axes=[2, 3], keepdims=0), node("MatMul", ["means", "w"], ["y"])]
    weights = tensor("w", np.eye(3, dtype=np.float32))
    shapes = value("x", "float32", [1, 3, 48, 64]), value("y", "float32", [1, 3])
    (folder / "tiny.onnx").write_bytes(model(graph, [shapes[0]], [shapes[1]], [weights]))
    (folder / "pictures").mkdir()
    command: list[str | Path] = ["import", folder / "tiny.onnx", "--labels", "a,b,c", "--out", folder / "bundle"]
    ended = run_command(*command, "--pictures", folder / "pictures", *arguments, module="build_models")
    assert "Traceback" not in ended.stderr
    assert not (folder / "bundle").exists(), "nothing half-made is left"
    return ended.returncode, [line for line in ended.stderr.splitlines() if not line.startswith("[")]


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A private key, made as a user would."""
    name = tmp_path_factory.mktemp("keys") / "mine"
    pytest.importorskip("onnx", reason="needs the build extra")
    assert run_command("keygen", name, module="build_models").returncode == 0
    return f"{name}.private.pem"


@pytest.mark.build
def test_a_family_that_there_is_not_is_told_with_those_that_there_are(key: str, tmp_path: Path) -> None:
    code, lines = built(tmp_path, "--family", "logit", "--key", key)
    assert code == 2
    (line,) = lines
    assert re.fullmatch(r"build-models: .*family to be one of 'logits', .*, got 'logit'; did you mean 'logits'\?", line)


@pytest.mark.build
def test_a_family_that_the_model_does_not_fit_is_told(key: str, tmp_path: Path) -> None:
    code, lines = built(tmp_path, "--family", "yolox", "--key", key)
    assert code == 2
    (line,) = lines
    assert line.startswith("build-models: family yolox: expected ")


@pytest.mark.build
def test_calibration_without_pictures_is_told(key: str, tmp_path: Path) -> None:
    code, lines = built(tmp_path, "--family", "logits", "--key", key)
    assert code == 2
    (line,) = lines
    assert re.match(r"build-models: \S+/pictures: expected pictures \(.*\) in this folder, found none$", line)


@pytest.mark.build
def test_a_build_without_a_key_names_the_command_that_makes_one(tmp_path: Path) -> None:
    code, lines = built(tmp_path, "--family", "logits")
    assert code == 2
    (line,) = lines
    assert "build-models keygen" in line
