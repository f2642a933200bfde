"""Configuration files: every problem at once, each with its line, column and what to do."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.config_file import LoadedConfig, load_config
from agent.errors import ConfigError

HEAD = """model:
  bundle: bundle
  trusted_keys: [key.pem]
cameras:
  - id: front
    source: video.mp4
"""
TAIL_LINE = HEAD.count("\n") + 1  # the line of what a test adds


def load(folder: Path, text: str | bytes, environ: dict[str, str] | None = None) -> LoadedConfig:
    path = folder / "agent.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return load_config(path, environ or {})


def problems(folder: Path, text: str | bytes, environ: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(folder, text, environ)
    assert caught.value.exit_code == 2
    return [line.removeprefix(f"{folder}/") for line in str(caught.value).splitlines()]


def test_a_valid_file_gives_the_configuration_with_paths_in_its_folder(tmp_path: Path) -> None:
    loaded = load(tmp_path, HEAD)
    assert loaded.config.model.bundle == tmp_path / "bundle"
    assert loaded.config.cameras[0].source == str(tmp_path / "video.mp4")


def test_a_relative_name_of_the_file_gives_absolute_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "agent.yaml").write_text(HEAD)
    monkeypatch.chdir(tmp_path)
    assert load_config(Path("agent.yaml"), {}).config.model.bundle == tmp_path / "bundle"


def test_later_errors_can_name_the_place(tmp_path: Path) -> None:
    loaded = load(tmp_path, HEAD)
    path = tmp_path / "agent.yaml"
    assert loaded.locate("cameras.0.source") == f"{path}:6:13"
    assert loaded.locate("model.trusted_keys.0") == f"{path}:3:18"
    assert loaded.locate("cameras.0.pace") == f"{path}:5:5", "not in the file: its section"
    assert loaded.locate("mqtt.host") == f"{path}:1:1"


@pytest.mark.parametrize(
    ("added", "place", "expected"),
    [
        # unknown keys, at the key
        ("mqtt:\n  prot: 5\n", "2:3", 'mqtt.prot: unknown key; did you mean "protocol"?'),
        ("mqtt:\n  hots: x\n", "2:3", 'mqtt.hots: unknown key; did you mean "host"?'),
        ("host: x\n", "1:1", "host: unknown key here; it belongs into section mqtt"),
        ("mqtt:\n  node: x\n", "2:3", "mqtt.node: unknown key here; it belongs into the top level"),
        ("outbox:\n  zzz: x\n", "2:3", "outbox.zzz: unknown key; expected one of: max_size_mib"),
        ("logging: {1: x}\n", "1:11", "logging.1: unknown key; expected one of: level, format"),
        # wrong types, at the value
        ("mqtt:\n  port: x\n", "2:9", 'mqtt.port: expected a whole number, got the text "x"'),
        ("mqtt:\n  port: '1883'\n", "2:9", 'expected a whole number, got the text "1883"; remove the quotes'),
        ("mqtt:\n  port: 1.5\n", "2:9", "expected a whole number, got the number 1.5"),
        ("mqtt:\n  port: true\n", "2:9", "expected a whole number, got true"),
        ("mqtt:\n  port:\n", "2:8", "got nothing; write one, or remove the line to have the default"),
        ("mqtt:\n  username: 12\n", "2:13", "expected a text, got the number 12; put it in quotes"),
        ("mqtt:\n  host: [a]\n", "2:9", "expected a text, got a list of 1"),
        ("mqtt:\n  host: {a: b}\n", "2:9", "expected a text, got a section"),
        ("mqtt: 5\n", "1:7", "mqtt: expected a section of keys and values, got the number 5"),
        ("mqtt:\n", "1:6", "mqtt: expected a section of keys and values, got nothing"),
        ("runtime: {providers: cpu}\n", "1:22", 'runtime.providers: expected a list, got the text "cpu"'),
        ("state_dir: [a]\n", "1:12", "state_dir: expected a path, got a list of 1"),
        ("state_dir: ''\n", "1:12", "state_dir: expected a path, got an empty text"),
        ("tracking: {lost_after_s: soon}\n", "1:26", 'expected a number, got the text "soon"'),
        # YAML 1.1's other words for true and false
        ("runtime: {spinning: yes}\n", "1:21", 'expected true or false, got the text "yes"; write true'),
        ("runtime: {spinning: off}\n", "1:21", "write false"),
        ("runtime: {spinning: 1}\n", "1:21", "expected true or false, got the number 1"),
        ("runtime: {spinning: maybe}\n", "1:21", 'expected true or false, got the text "maybe"'),
        # ranges and choices
        ("mqtt: {port: 70000}\n", "1:14", "expected a number of at most 65535, got the number 70000"),
        ("mqtt: {port: 0}\n", "1:14", "expected a number of at least 1, got the number 0"),
        ("tracking: {lost_after_s: 0}\n", "1:26", "expected a number above 0, got the number 0"),
        ("mqtt: {host: ''}\n", "1:14", "expected a text of at least 1 characters"),
        ("runtime: {providers: []}\n", "1:22", "expected a list of at least 1 entries, got a list of 0"),
        ("logging: {level: warn}\n", "1:18", 'got the text "warn"; did you mean "warning"?'),
        ("runtime: {providers: [cpu, cudda]}\n", "1:28", 'runtime.providers.1: expected "cpu", "cuda" or "tensorrt"'),
        ("mqtt: {protocol: 5}\n", "1:18", 'expected "5" or "3.1.1", got the number 5; put it in quotes'),
        ("runtime: {threads: many}\n", "1:20", 'expected a whole number or "auto", got the text "many"'),
        ("runtime: {threads: 0}\n", "1:20", 'expected a number of at least 1 or "auto", got the number 0'),
        ("node: Front Door\n", "1:7", "expected a name of at most 63 characters: a-z, 0-9, - and _"),
        ("mqtt: {prefix: a/#}\n", "1:16", "expected an MQTT topic without +, # and empty levels"),
        (f"mqtt: {{prefix: {'x' * 200}}}\n", "1:16", "expected a text of at most 128 characters"),
        # keys that do not fit together
        ("mqtt: {tls: {cert_file: c.pem}}\n", "1:13", "mqtt.tls.key_file: cert_file needs it"),
        # keys that stand twice, and YAML that is none
        ("node: a\nnode: b\n", "2:1", f"node: expected each key once, it is already in line {TAIL_LINE}"),
        ("node: *x\n", "1:7", "anchors and aliases"),
        ("node: a: b\n", "1:8", "expected YAML"),
    ],
)
def test_every_problem_names_its_place_and_what_to_do(added: str, place: str, expected: str, tmp_path: Path) -> None:
    (line,) = problems(tmp_path, HEAD + added)
    row, column = place.split(":")
    assert line.startswith(f"agent.yaml:{TAIL_LINE + int(row) - 1}:{column}: ")
    assert expected in line


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (HEAD.replace("    source: video.mp4\n", ""), 'agent.yaml:5:5: cameras.0.source: engine "opencv" needs one'),
        (HEAD.replace("video.mp4", "rtsp://c/1\n    pace: max"), "agent.yaml:7:11: cameras.0.pace:"),
        (HEAD + "  - {id: front, engine: synthetic}\n", "agent.yaml:5:3: cameras: expected different ids"),
        (HEAD.replace("  bundle: bundle\n", ""), "agent.yaml:2:3: model.bundle: expected this key, it is missing"),
        (
            "node: a\n",
            "agent.yaml:1:1: cameras: expected this key, it is missing and has no default; add it (One source",
        ),
        (
            HEAD.replace("  - id: front\n    source: video.mp4", "  []"),
            "agent.yaml:5:3: cameras: expected a list of at",
        ),
    ],
)
def test_what_is_missing_is_told_at_its_section(text: str, expected: str, tmp_path: Path) -> None:
    assert problems(tmp_path, text)[0].startswith(expected)


def test_all_problems_are_told_at_once_in_their_order(tmp_path: Path) -> None:
    text = HEAD + "node: A\nmqtt:\n  prot: 1\n  port: 1\n  port: x\nruntime:\n  threads: ${NO}\n"
    assert [line.split(": ")[0] for line in problems(tmp_path, text)] == [
        "agent.yaml:7:7",
        "agent.yaml:9:3",
        "agent.yaml:11:3",
        "agent.yaml:11:9",
        "agent.yaml:13:12",
    ]


def test_of_very_many_problems_twenty_are_told_and_the_rest_counted(tmp_path: Path) -> None:
    lines = problems(tmp_path, HEAD + "".join(f"key{number}: 1\n" for number in range(50)))
    assert len(lines) == 21
    assert lines[-1] == "agent.yaml: and 30 more problems"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "agent.yaml:1:1: expected a configuration, the file is empty; start from configs/agent.yaml"),
        (b"# nothing\n", "agent.yaml:1:1: expected a configuration, the file is empty"),
        (b"- a\n", "agent.yaml:1:1: expected keys and values"),
        (b"word\n", "agent.yaml:1:1: expected keys and values"),
        (b"node: a\nx: \xff\n", "agent.yaml:2:4: expected UTF-8 text"),
        (b"a: 1\n" * 60_000, "agent.yaml: expected at most 256 KiB"),
    ],
)
def test_a_file_that_is_no_configuration_is_one_clear_line(content: bytes, expected: str, tmp_path: Path) -> None:
    (line,) = problems(tmp_path, content)
    assert line.startswith(expected)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("missing.yaml", "No such file or directory; correct the path"),
        (".", "got a directory or device; name the file in it"),
        ("x" * 300, "File name too long"),
    ],
)
def test_a_path_that_is_no_file_is_one_clear_line(name: str, expected: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=expected) as caught:
        load_config(tmp_path / name, {})
    assert "\n" not in str(caught.value)


def test_a_device_is_not_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="directory or device"):
        load_config(Path("/dev/zero"), {})
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="directory or device"):
        load_config(tmp_path / "pipe", {})


def test_a_file_of_ten_megabytes_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "agent.yaml").write_bytes(b"a: b\n" * 2_000_000)
    took_s = []
    for _ in range(3):  # one may have to collect another test's garbage
        started_s = time.thread_time()
        with pytest.raises(ConfigError):
            load_config(tmp_path / "agent.yaml", {})
        took_s.append(time.thread_time() - started_s)
    assert min(took_s) < 0.1


SUBSTITUTED = [
    ("mqtt: {username: '${WHO}'}", {"WHO": "joe"}, "joe"),
    ("mqtt:\n  username: ${WHO}", {"WHO": "joe"}, "joe"),
    ("mqtt:\n  username: ${WHO}", {"WHO": "123"}, "123"),  # a text stays a text
    ("mqtt:\n  username: ${WHO}", {"WHO": "true"}, "true"),
    ("mqtt:\n  username: ${WHO}", {"WHO": "${NOT} $$ again: [x"}, "${NOT} $$ again: [x"),
    ("mqtt:\n  username: ${WHO:-nobody}", {}, "nobody"),
    ("mqtt:\n  username: ${WHO:-nobody}", {"WHO": ""}, "nobody"),
    ("mqtt:\n  username: ${WHO:-}", {}, ""),
    ("mqtt:\n  username: ${WHO}", {"WHO": ""}, ""),
    ("mqtt:\n  username: ${A}-${B}", {"A": "x", "B": "y"}, "x-y"),
    ("mqtt:\n  username: $${A} costs 5$ or $$", {}, "${A} costs 5$ or $"),
]


@pytest.mark.parametrize(("added", "environ", "username"), SUBSTITUTED)
def test_texts_are_put_in_from_the_environment(
    added: str, environ: dict[str, str], username: str, tmp_path: Path
) -> None:
    assert load(tmp_path, HEAD + added + "\n", environ).config.mqtt.username == username


def test_numbers_and_switches_are_put_in_too(tmp_path: Path) -> None:
    text = (
        HEAD + "mqtt:\n  port: ${PORT}\n  keepalive_s: '${KEEP:-60}'\nruntime:\n  spinning: ${SPIN}\n  threads: ${T}\n"
    )
    text += "  providers:\n    - ${EP}\ndetect:\n  score_threshold: ${SCORE:-null}\n"
    config = load(tmp_path, text, {"PORT": "1884", "SPIN": "true", "T": "auto", "EP": "cuda"}).config
    assert (config.mqtt.port, config.mqtt.keepalive_s, config.runtime.spinning) == (1884, 60, True)
    assert (config.runtime.threads, config.runtime.providers, config.detect.score_threshold) == ("auto", ["cuda"], None)


def test_paths_are_put_in_before_they_are_resolved(tmp_path: Path) -> None:
    config = load(tmp_path, HEAD.replace("bundle: bundle", "bundle: ${DIR}/b"), {"DIR": "models"}).config
    assert config.model.bundle == tmp_path / "models/b"


def test_a_files_content_is_put_in_without_its_last_line_end(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("pass word\n")
    for name in ("secret", f"{tmp_path}/secret", "$CREDENTIALS_DIRECTORY/secret"):
        text = HEAD + f"mqtt:\n  password: ${{file:{name}}}\n"
        config = load(tmp_path, text, {"CREDENTIALS_DIRECTORY": str(tmp_path)}).config
        assert config.mqtt.password == "pass word"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("${NO}", "environment variable NO is not set; set it, or write ${NO:-default}"),
        ("${}", "expected ${NAME}, ${NAME:-default} or ${file:/path}, got ${}"),
        ("${a-b}", "expected ${NAME}"),
        ("${A", "got ${ without }"),
        ("${file:/nowhere/secret}", "expected a file /nowhere/secret, there is none"),
        ("${file:.}", "there is none"),
        ("${file:empty}", "it is empty"),
        ("${file:big}", "expected at most 64 KiB"),
        ("${file:binary}", "no UTF-8"),
        ("${file:nul}", "got a NUL character"),
        ("${file:$CREDENTIALS_DIRECTORY/x}", "it needs systemd's LoadCredential="),
    ],
)
def test_what_cannot_be_put_in_is_a_problem_at_its_place(value: str, expected: str, tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "big").write_bytes(b"x" * 70_000)
    (tmp_path / "binary").write_bytes(b"\xff")
    (tmp_path / "nul").write_bytes(b"\0")
    (line,) = problems(tmp_path, HEAD + f'mqtt:\n  port: "{value}"\n')
    assert line.startswith(f"agent.yaml:{TAIL_LINE + 1}:9: mqtt.port: ")
    assert expected in line


@pytest.mark.parametrize(
    ("added", "environ"),
    [
        ("mqtt:\n  port: ${SECRET}\n", {"SECRET": "hunter2"}),
        ("mqtt:\n  password: [hunter2]\n", {}),
        ("mqtt:\n  protocol: rtsp://u:hunter2@cam\n", {}),
        ("node: ${SECRET}\n", {"SECRET": "hunter2 !"}),
    ],
)
def test_secrets_are_not_shown(added: str, environ: dict[str, str], tmp_path: Path) -> None:
    assert "hunter2" not in "".join(problems(tmp_path, HEAD + added, environ))


def test_environment_is_only_what_is_handed_in(tmp_path: Path) -> None:
    assert "PATH" in os.environ
    assert "PATH is not set" in problems(tmp_path, HEAD + "node: ${PATH}\n")[0]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(text=st.text(max_size=80), at=st.integers(0, len(HEAD)))
def test_any_text_in_any_place_is_a_configuration_or_a_config_error(text: str, at: int, tmp_path: Path) -> None:
    try:
        load(tmp_path, (HEAD[:at] + text + HEAD[at:]).encode("utf-8", "surrogatepass"), {})
    except ConfigError as err:
        message = str(err)
    else:
        return
    assert message.startswith(f"{tmp_path}/agent.yaml:")


@pytest.mark.parametrize(
    "text",
    [
        "".join(f"loggin{number}: 1\n" for number in range(1900)),  # each is compared with all known keys
        HEAD + "".join(f"  - {{id: c{number}, sourc: x}}\n" for number in range(600)),
        HEAD + "node: " + "a" * 250_000 + "\n",
        HEAD + "node: " + "${B}$$" * 682 + "\n",
    ],
    ids=["unknown keys", "cameras", "one word", "references"],
)
def test_a_hostile_file_costs_no_more_than_its_size(text: str, tmp_path: Path) -> None:
    (tmp_path / "agent.yaml").write_text(text)
    took_s = []
    for _ in range(3):  # the first time also pays for what is imported and compiled
        started_s = time.thread_time()
        with pytest.raises(ConfigError) as caught:
            load_config(tmp_path / "agent.yaml", {"B": "b" * 100})
        took_s.append(time.thread_time() - started_s)
        assert len(str(caught.value)) < 10_000
    # A tenth of a second without coverage; what must not happen is a cost that grows with the square of the size.
    assert min(took_s) < 1.0
