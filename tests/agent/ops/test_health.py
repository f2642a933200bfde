"""The health check: well while the agent says so, ill with a reason as soon as it does not."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from agent.__main__ import main
from agent.ops.health import INTERVAL_S, LIMIT_S, VARIABLE, HealthFile, silence_s, supervisor_for
from agent.ops.systemd import Supervisor
from agent.ops.watchdog import Heartbeat, Watchdog

if TYPE_CHECKING:
    from pathlib import Path


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def health_file(path: Path, clock: Clock, **environ: str) -> HealthFile:
    return HealthFile(environ, path, clock)


def health(path: Path | str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Exit code and message of the command."""
    monkeypatch.setenv(VARIABLE, str(path))
    code = main(["health"])
    out, err = capsys.readouterr()
    return code, out + err


def test_the_agent_is_well_from_ready_until_it_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "health"
    supervisor = supervisor_for({VARIABLE: str(path)})
    assert health(path, monkeypatch, capsys) == (
        1,
        f"edge-agent: unhealthy: {path} is missing: the agent has not started yet, or has ended\n",
    )
    supervisor.ready("node")
    assert health(path, monkeypatch, capsys) == (0, "every loop turned 0 s ago\n")
    supervisor.stopping()
    assert health(path, monkeypatch, capsys)[0] == 1
    assert list(tmp_path.iterdir()) == []


def test_a_loop_that_hangs_makes_it_ill_and_one_that_turns_again_makes_it_well(tmp_path: Path) -> None:
    path, clock = tmp_path / "health", Clock()
    beat_s = clock.now_s
    watchdog = Watchdog([Heartbeat("inference", lambda: beat_s, 3.0)], health_file(path, clock), clock)
    watchdog.turn()
    clock.now_s += LIMIT_S + 1
    watchdog.turn()
    with pytest.raises(Exception, match="last said 21 s ago that all its loops turn"):
        silence_s(path, clock.now_s)
    beat_s = clock.now_s
    watchdog.turn()
    assert silence_s(path, clock.now_s) == 0


def test_the_file_is_renewed_well_within_the_limit(tmp_path: Path) -> None:
    path, clock = tmp_path / "health", Clock()
    watchdog = Watchdog([Heartbeat("loop", clock, 3.0)], health_file(path, clock), clock)
    for _ in range(100):
        watchdog.turn()
        assert silence_s(path, clock.now_s) <= INTERVAL_S + 1 < LIMIT_S
        clock.now_s += 1.0


def test_a_file_from_before_the_machine_started_anew_does_not_count(tmp_path: Path) -> None:
    path, clock = tmp_path / "health", Clock()
    health_file(path, clock).ready("node")
    with pytest.raises(Exception, match="unhealthy"):
        silence_s(path, 5.0)


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"null", b'{"alive_s": []}', b'{"alive_s": NaN}', b"\xff"])
def test_a_damaged_file_is_ill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    (tmp_path / "health").write_bytes(content)
    code, told = health(tmp_path / "health", monkeypatch, capsys)
    assert code == 1
    assert "unhealthy: " in told


def test_a_file_that_cannot_be_written_is_told_once_and_the_agent_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    supervisor = health_file(tmp_path / "missing" / "health", Clock())
    for _ in range(3):
        supervisor.alive()
    assert len(caplog.messages) == 1
    assert "cannot be written: No such file or directory; the agent goes on" in caplog.messages[0]
    (tmp_path / "missing").mkdir()
    supervisor.alive()
    assert silence_s(tmp_path / "missing" / "health", Clock().now_s) == 0


def test_systemd_is_told_as_often_as_it_wants(tmp_path: Path) -> None:
    systemd = {"NOTIFY_SOCKET": "@edge-agent-test", "WATCHDOG_USEC": "4000000"}
    assert health_file(tmp_path / "health", Clock(), **systemd).ping_interval_s == 1.6
    assert health_file(tmp_path / "health", Clock()).ping_interval_s == INTERVAL_S


def test_without_the_variable_there_is_no_file_and_the_command_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert type(supervisor_for({})) is Supervisor
    code, told = health("", monkeypatch, capsys)
    assert code == 2
    assert f"{VARIABLE}: expected the file that the agent renews, it is not set" in told


def test_asking_is_cheap(tmp_path: Path) -> None:
    """A health check runs twice a minute for years: it imports neither numpy nor pydantic."""
    health_file(tmp_path / "health", Clock()).ready("node")
    code = "import sys; from agent.__main__ import main; main(['health']); print(*sys.modules)"
    asked = subprocess.run(
        [sys.executable, "-c", code],
        env={VARIABLE: str(tmp_path / "health")},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert not {"cv2", "numpy", "onnxruntime", "pydantic", "yaml"} & set(asked.stdout.split())
