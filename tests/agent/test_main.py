"""The command line: quick help, lazy subcommands, errors of one line with their exit code."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

from agent import __version__
from agent.__main__ import main
from agent.errors import BundleError, ConfigError, EdgeAgentError, FatalError, RetryableError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

CONFIG = """model:
  bundle: bundle
  trusted_keys: [key.pem]
cameras:
  - {id: front, source: "rtsp://viewer:secret@cam/1"}
  - {id: file, source: video.mp4}
  - {id: drawn, engine: synthetic}
mqtt:
  tls: {ca_file: ca.pem}
"""


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Callable[[argparse.Namespace], int]], None]:
    """Puts a function in a subcommand's place."""

    def put(module: str, function: Callable[[argparse.Namespace], int]) -> None:
        stand_in = ModuleType(module)
        stand_in.run = function  # type: ignore[attr-defined] # what the real module has
        monkeypatch.setitem(sys.modules, module, stand_in)

    return put


@pytest.mark.parametrize(
    ("argv", "module", "expected"),
    [
        (
            ["run", "--config", "a.yaml"],
            "agent.run_command",
            {"config": "a.yaml", "once": False, "save": None, "dry_run_mqtt": False, "log_format": None},
        ),
        (
            ["run", "--config", "a", "--once", "--save", "o.jpg", "--dry-run-mqtt", "--log-format", "json"],
            "agent.run_command",
            {"config": "a", "once": True, "save": "o.jpg", "dry_run_mqtt": True, "log_format": "json"},
        ),
        (["demo"], "agent.demo.command", {"seconds": None, "port": 0}),
        (["demo", "--seconds", "2.5", "--port", "1884"], "agent.demo.command", {"seconds": 2.5, "port": 1884}),
        (["model", "inspect", "b"], "agent.model.inspect", {"path": "b", "json": False, "trusted_key": []}),
        (
            ["model", "inspect", "b", "--json", "--trusted-key", "k", "--trusted-key", "l"],
            "agent.model.inspect",
            {"path": "b", "json": True, "trusted_key": ["k", "l"]},
        ),
    ],
)
def test_each_subcommand_gets_its_arguments_and_gives_the_exit_code(
    argv: list[str], module: str, expected: dict[str, object], command: Callable[..., None]
) -> None:
    seen: dict[str, object] = {}

    def run(args: argparse.Namespace) -> int:
        seen.update(vars(args))
        return 7

    command(module, run)
    assert main(argv) == 7
    assert {key: seen[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("error", "code"),
    [(ConfigError, 2), (BundleError, 3), (RetryableError, 4), (FatalError, 1), (EdgeAgentError, 1)],
)
def test_an_error_of_ours_is_one_line_with_its_exit_code(
    error: type[EdgeAgentError], code: int, command: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    def run(_: argparse.Namespace) -> int:
        raise error("what was wrong")

    command("agent.demo.command", run)
    assert main(["demo"]) == code
    assert capsys.readouterr().err == "edge-agent: what was wrong\n"


def test_an_interrupt_is_130_without_a_traceback(
    command: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    def run(_: argparse.Namespace) -> int:
        raise KeyboardInterrupt

    command("agent.demo.command", run)
    assert main(["demo"]) == 130
    assert capsys.readouterr().err == ""


def test_a_bug_is_not_hidden(command: Callable[..., None]) -> None:
    def run(_: argparse.Namespace) -> int:
        raise RuntimeError("a bug")

    command("agent.demo.command", run)
    with pytest.raises(RuntimeError, match="a bug"):
        main(["demo"])


@pytest.mark.parametrize("argv", [[], ["model"], ["config"], ["run"], ["run", "--nonsense"], ["nonsense"]])
def test_wrong_arguments_end_with_2_and_usage(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("usage: edge-agent")


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"edge-agent {__version__}\n"


def test_help_has_examples_and_imports_nothing_heavy() -> None:
    program = """
import sys
before = set(sys.modules)
from agent.__main__ import main
try:
    main(["--help"])
except SystemExit:
    pass
print(*sorted({name.split(".")[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)))
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    *help_lines, imported = result.stdout.splitlines()
    assert "  edge-agent config check agent.yaml            what is wrong, with line and column" in help_lines
    assert imported == "agent"


def test_a_reader_that_goes_away_is_no_error() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "agent", "config", "schema"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.wait(60) == 141
        assert process.stderr.read() == b""


def test_config_check_prints_a_summary_without_secrets(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "agent.yaml"
    path.write_text(CONFIG)
    (tmp_path / "video.mp4").write_bytes(b"")
    assert main(["config", "check", str(path)]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{path}: OK\n")
    assert "front (rtsp://viewer:***@cam/1), file (" in out
    assert "drawn (synthetic)" in out
    assert "127.0.0.1:1883 with TLS" in out
    assert "secret" not in out
    notes = [line for line in out.splitlines() if line.startswith("note: ")]
    assert [note.split(": ")[1:3] for note in notes] == [
        [f"{path}:2:11", "model.bundle"],
        [f"{path}:3:18", "model.trusted_keys.0"],
        [f"{path}:9:18", "mqtt.tls.ca_file"],
    ]


def test_config_check_prints_every_problem_and_ends_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "agent.yaml"
    path.write_text(CONFIG + "  prot: 5\nnode: A\n")
    assert main(["config", "check", str(path)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert [line.split(": ")[:3] for line in lines] == [
        ["edge-agent", f"{path}:10:3", "mqtt.prot"],
        ["edge-agent", f"{path}:11:7", "node"],
    ]


def test_config_schema_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "schema"]) == 0
    assert json.loads(capsys.readouterr().out)["$schema"] == "http://json-schema.org/draft-07/schema#"
