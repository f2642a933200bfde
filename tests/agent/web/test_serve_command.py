"""``edge-agent serve`` as a user starts it."""

from __future__ import annotations

import signal
import socket
from typing import TYPE_CHECKING

import pytest

from tests.agent.web.test_infer import INFER, picture
from tests.support.agents import run_command, running_process
from tests.support.bundles import make_bundle
from tests.support.http import ask
from tests.support.tiny_models import classify_model

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.agents import Kit

TOKEN = "a-token-of-many-characters"


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))


def flags(kit: Kit) -> list[str]:
    return ["--bundle", str(kit.bundle.root), "--trusted-key", str(kit.bundle.public_key)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_until_a_signal_ends_it(kit: Kit, number: signal.Signals) -> None:
    with running_process("serve", *flags(kit), "--port", "0") as server:
        port = server.web_port()
        assert len(ask(port, INFER, picture()).json["objects"]) == 3
        assert ask(port, "/api/v1/cameras").status == 404, "there are no cameras"
        assert ask(port, "/readyz").status == 200
        code, elapsed_s = server.signal_and_wait(number)
    assert code == 0
    assert elapsed_s < 5


def test_several_bundles_answer_by_their_names(kit: Kit, tmp_path: Path) -> None:
    colours = make_bundle(tmp_path / "colours", tiny=classify_model(), change=lambda each: each.update(name="colours"))
    more = ["--bundle", str(colours.root), "--trusted-key", str(colours.public_key)]
    with running_process("serve", *flags(kit), *more, "--port", "0") as server:
        port = server.web_port()
        assert [each["name"] for each in ask(port, "/api/v1/models").json["models"]] == ["tiny", "colours"]
        assert "class" in ask(port, f"{INFER}?model=colours", picture()).json
        assert "objects" in ask(port, INFER, picture()).json


def test_with_a_token_file_only_who_knows_it_gets_in(kit: Kit, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    options = ["--host", "0.0.0.0", "--port", "0", "--token-file", str(tmp_path / "token")]  # noqa: S104
    with running_process("serve", *flags(kit), *options) as server:
        port = server.web_port()
        assert ask(port, INFER, picture()).status == 401
        assert ask(port, INFER, picture(), headers={"Authorization": f"Bearer {TOKEN}"}).status == 200
        assert TOKEN not in server.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--host", "0.0.0.0"], "--token-file: host '0.0.0.0' lets other machines in, which needs a token"),  # noqa: S104
        (["--port", "70000"], "--port: Input should be less than or equal to 65535"),
        (["--token-file", "/nowhere/token"], "--token-file: /nowhere/token: expected a text file with the token"),
        (["--threads", "0"], "--threads: "),
        (["--bundle", "SAME"], "expected different models, got tiny twice"),
    ],
)
def test_what_cannot_be_served_is_told_in_a_line(kit: Kit, options: list[str], message: str) -> None:
    options = [str(kit.bundle.root) if each == "SAME" else each for each in options]
    ended = run_command("serve", *flags(kit), *options)
    assert ended.returncode == 2, ended.stderr
    assert message in ended.stderr.splitlines()[-1]


def test_a_short_token_is_refused(kit: Kit, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("short")
    ended = run_command("serve", *flags(kit), "--token-file", tmp_path / "token")
    assert ended.returncode == 2
    assert "--token-file: String should have at least 16 characters" in ended.stderr
    assert "short" not in ended.stderr.replace("String should", "")


def test_a_taken_port_is_told(kit: Kit) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        ended = run_command("serve", *flags(kit), "--port", str(other.getsockname()[1]))
    assert ended.returncode == 2
    assert "expected to listen on 127.0.0.1" in ended.stderr


def test_a_bundle_that_is_not_trusted_is_refused(kit: Kit, tmp_path: Path) -> None:
    other = make_bundle(tmp_path / "other")
    ended = run_command("serve", "--bundle", kit.bundle.root, "--trusted-key", other.public_key)
    assert ended.returncode == 3
