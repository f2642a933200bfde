"""The typed configuration: what it accepts, and what does not fit together."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from agent.config import AgentConfig, CameraConfig, TlsConfig

SMALLEST = {"model": {"bundle": "b", "trusted_keys": ["k.pem"]}, "cameras": [{"id": "a", "source": "v.mp4"}]}


def test_model_and_a_camera_are_all_that_is_needed() -> None:
    config = AgentConfig.model_validate(SMALLEST)
    assert config.node == "auto"
    assert config.mqtt.port == 1883
    assert config.cameras[0].engine == "opencv"


def test_a_configuration_cannot_be_changed() -> None:
    config = AgentConfig.model_validate(SMALLEST)
    with pytest.raises(ValidationError, match="frozen"):
        config.mqtt.port = 1  # type: ignore[misc] # that is the point


def test_relative_paths_are_meant_from_the_folder_in_the_context() -> None:
    data = {**SMALLEST, "state_dir": "state", "mqtt": {"tls": {"ca_file": "ca.pem"}}}
    config = AgentConfig.model_validate(data, context={"folder": Path("/etc/edge")})
    assert config.model.bundle == Path("/etc/edge/b")
    assert config.model.trusted_keys == [Path("/etc/edge/k.pem")]
    assert config.state_dir == Path("/etc/edge/state")
    assert config.mqtt.tls is not None
    assert config.mqtt.tls.ca_file == Path("/etc/edge/ca.pem")
    assert config.cameras[0].source == "/etc/edge/v.mp4"


@pytest.mark.parametrize("source", ["/srv/v.mp4", "/dev/video0", "rtsp://cam/1", "https://cam/1"])
def test_what_is_no_relative_path_stays_as_it_is(source: str) -> None:
    data = {**SMALLEST, "cameras": [{"id": "a", "source": source}]}
    assert AgentConfig.model_validate(data, context={"folder": Path("/etc/edge")}).cameras[0].source == source


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, 'engine "opencv" needs one'),
        ({"engine": "synthetic", "source": "v.mp4"}, 'engine "synthetic" takes none'),
        ({"source": "ftp://cam/1"}, "got another address"),
        ({"source": "/dev/video0", "pace": "max"}, "a live camera sets its own pace"),
        ({"source": "rtsp://cam/1", "pace": "lockstep"}, "a live camera sets its own pace"),
        ({"source": "v.mp4", "fps": 0}, "greater than 0"),
        ({"source": "v.mp4", "fps": float("nan")}, "Input should be"),
        ({"source": "v.mp4", "read_timeout_s": float("inf")}, "less than or equal"),
        ({"source": "v.mp4", "width": 100_000}, "less than or equal"),
        ({"source": "v.mp4", "loop": "true"}, "valid boolean"),
        ({"source": "v.mp4", "width": True}, "valid integer"),
    ],
)
def test_a_camera_whose_keys_do_not_fit_is_refused(keys: dict[str, object], expected: str) -> None:
    with pytest.raises(ValidationError, match=expected):
        CameraConfig.model_validate({"id": "c", **keys})


@pytest.mark.parametrize("keys", [{"source": "v.mp4", "pace": "lockstep"}, {"engine": "synthetic", "pace": "max"}])
def test_files_and_scenes_have_any_pace(keys: dict[str, object]) -> None:
    CameraConfig.model_validate({"id": "c", **keys})


@pytest.mark.parametrize("name", ["a", "front-door_2", "0", "x" * 63])
def test_names_fit_into_topics(name: str) -> None:
    assert CameraConfig(id=name, source="v.mp4").id == name


@pytest.mark.parametrize("name", ["", "Front", "a b", "a/b", "a+", "#", "-a", "x" * 64, "a\n", "ä"])
def test_names_that_would_break_topics_are_refused(name: str) -> None:
    with pytest.raises(ValidationError):
        CameraConfig(id=name, source="v.mp4")


@pytest.mark.parametrize("prefix", ["a//b", "/a", "a/", "a+", "a/#", ""])
def test_a_prefix_that_is_no_topic_is_refused(prefix: str) -> None:
    with pytest.raises(ValidationError):
        AgentConfig.model_validate({**SMALLEST, "mqtt": {"prefix": prefix}})


def test_cameras_must_have_different_ids() -> None:
    cameras = [{"id": name, "source": "v.mp4"} for name in "abab"]
    with pytest.raises(ValidationError, match="got more than once: a, b"):
        AgentConfig.model_validate({**SMALLEST, "cameras": cameras})


def test_a_client_certificate_and_its_key_come_together() -> None:
    with pytest.raises(ValidationError, match="cert_file needs it"):
        TlsConfig.model_validate({"cert_file": "c.pem"})
    with pytest.raises(ValidationError, match="key_file needs it"):
        TlsConfig.model_validate({"key_file": "k.pem"})
    TlsConfig.model_validate({"cert_file": "c.pem", "key_file": "k.pem"})


def test_an_empty_path_is_refused() -> None:
    with pytest.raises(ValidationError, match="expected a path"):
        AgentConfig.model_validate({**SMALLEST, "state_dir": ""})


def test_secrets_show_neither_when_printed_nor_in_errors() -> None:
    data = {
        **SMALLEST,
        "cameras": [{"id": "a", "source": "rtsp://u:secret@cam/1"}],
        "mqtt": {"username": "u", "password": "secret"},
    }
    assert "secret" not in repr(AgentConfig.model_validate(data))
    with pytest.raises(ValidationError) as caught:
        AgentConfig.model_validate({**data, "cameras": [{"id": "a", "source": "ftp://u:secret@cam/1"}]})
    assert "secret" not in str(caught.value)
