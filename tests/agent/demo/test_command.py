"""``edge-agent demo``: what it shows has gone all the way from the camera through a broker to a subscriber."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import agent.demo
from agent.__main__ import main
from agent.demo.command import _copied, _memory_dir
from tests.support.agents import CHECKOUT, run_command

if TYPE_CHECKING:
    from tests.support.agents import Kit

LONG_S = 30.0
SHIPPED = Path(agent.demo.__file__).parent
SUMMARY = re.compile(
    r"(\d+) frames in ([\d.]+) s \(([\d.]+) a second\), (\d+) dropped; "
    r"(\d+) events, (\d+) of them received by the subscriber\n"
    r"first result ([\d.]+) s after the process started\n"
)
needs_amqtt = pytest.mark.skipif(find_spec("amqtt") is None, reason="needs the demo extra (amqtt)")


@pytest.fixture
def demo_folder(kit: Kit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The demo's files with a tiny bundle that sees something in any picture, and a device that knows it."""
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "canary.json").write_bytes(kit.canary)
    monkeypatch.setenv("EDGE_AGENT_STATE", str(tmp_path / "state"))
    folder = tmp_path / "demo"
    shutil.copytree(kit.bundle.root, folder / "bundles" / "shapes")
    shutil.copy(kit.bundle.public_key, folder / "demo.public.pem")
    config = (SHIPPED / "demo.yaml").read_text(encoding="utf-8")
    (folder / "demo.yaml").write_text(f"{config}\ndetect: {{score_threshold: 0.01}}\nruntime: {{threads: 1}}\n")
    return folder


def assert_complete(out: str, at_least_s: float) -> None:
    """The summary of a run in which nothing was lost between the camera and the subscriber."""
    found = SUMMARY.search(out)
    assert found is not None, out
    frames, _dropped, events, received = (int(found[group]) for group in (1, 4, 5, 6))
    assert frames > 0
    assert events == received > 0
    assert float(found[2]) >= at_least_s
    assert len(re.findall(r"^[\d:.]{12}  [+~-] (?:new|update|end) ", out, re.MULTILINE)) == received
    assert "mosquitto_sub -h 127.0.0.1 -p " in out


@needs_amqtt
@pytest.mark.usefixtures("process_as_before")
def test_the_demo_ends_after_its_seconds_with_a_summary_of_events_that_all_arrived(
    demo_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("agent.demo.command.files", lambda package: demo_folder)
    assert main(["demo", "--seconds", "2"]) == 0
    assert_complete(capsys.readouterr().out, at_least_s=2.0)


@needs_amqtt
@pytest.mark.usefixtures("process_as_before")
def test_the_first_demo_says_why_it_was_slow_and_remembers_for_the_next(
    demo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("agent.demo.command.files", lambda package: demo_folder)
    monkeypatch.setenv("EDGE_AGENT_STATE", str(tmp_path / "fresh"))
    told = []
    for _ in range(2):
        assert main(["demo", "--seconds", "0.5"]) == 0
        told.append("with the trial run of a model" in capsys.readouterr().out)
    assert told == [True, False]
    assert [path.name for path in (tmp_path / "fresh").iterdir()] == ["canary.json"], "its outbox was its own"


def test_a_memory_that_cannot_be_written_costs_only_another_trial(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    assert not _copied(tmp_path / "file", tmp_path / "file" / "canary.json")
    assert not _copied(tmp_path / "missing", tmp_path / "copy")
    assert _copied(tmp_path / "file", tmp_path / "new" / "copy")


def test_the_memory_is_where_it_is_said_to_be_else_where_state_belongs() -> None:
    assert _memory_dir({"EDGE_AGENT_STATE": "/a", "XDG_STATE_HOME": "/b"}) == Path("/a")
    assert _memory_dir({"XDG_STATE_HOME": "/b"}) == Path("/b/edge-agent-demo")
    assert _memory_dir({}) == Path("~/.local/state/edge-agent-demo").expanduser()


DEMO_OF_A_FOLDER = """
import sys
from pathlib import Path
import agent.demo.command
from agent.__main__ import main

agent.demo.command.files = lambda package: Path(sys.argv[1])
sys.exit(main(["demo"]))
"""


@needs_amqtt
def test_ctrl_c_ends_the_demo_with_its_summary_too(demo_folder: Path) -> None:
    """All of the terminal's group gets the signal, and still the last events arrive."""
    with subprocess.Popen(
        [sys.executable, "-c", DEMO_OF_A_FOLDER, str(demo_folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=CHECKOUT,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        give_up = threading.Timer(LONG_S, process.kill)
        give_up.start()
        shown: list[str] = []
        for line in process.stdout:
            if "+ new" in line and not any("+ new" in former for former in shown):
                os.killpg(process.pid, signal.SIGINT)
            shown.append(line)
        errors = process.stderr.read()
        give_up.cancel()
        give_up.join()
    assert process.returncode == 0, errors
    assert_complete("".join(shown), at_least_s=0.0)
    assert any("  - end " in line for line in shown)
    assert errors == ""


@pytest.mark.usefixtures("process_as_before")
def test_a_port_that_is_taken_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["demo", "--port", str(port)]) == 2
    assert capsys.readouterr().err == (
        f"edge-agent: --port {port}: expected a free port, got: Address already in use; choose another\n"
    )


@needs_amqtt
def test_the_demo_that_ships_sees_its_drawn_objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_AGENT_STATE", str(tmp_path))  # not the user's own: a demo may be running
    ended = run_command("demo", "--seconds", "5")
    assert ended.returncode == 0, ended.stderr
    assert_complete(ended.stdout, at_least_s=5.0)
    assert "Traceback" not in ended.stderr
