"""Set-up repairs what it finds half made, keeps what is whole, and says what it cannot do."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

SCRIPT = Path(__file__).parents[2] / ".ci" / "environment.py"
PYTHON = Path(sys.executable)


class Setup:
    """The set-up script, working on a small checkout of its own; pip is replaced and its calls are counted."""

    def __init__(self, checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        spec = importlib.util.spec_from_file_location("environment", SCRIPT)
        assert spec
        assert spec.loader
        self.script: Any = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.script)
        self.patch = monkeypatch
        self.folder = checkout / ".venv"
        self.pip_code = "pass"
        self.pip_extras: list[list[str]] = []
        (checkout / "pyproject.toml").write_text("one", encoding="utf-8")
        (checkout / "constraints.txt").touch()
        monkeypatch.setattr(self.script, "CHECKOUT", checkout)
        monkeypatch.setattr(self.script, "LOG", checkout / "out" / "install.log")
        monkeypatch.setattr(self.script, "_works", lambda folder: (folder / "bin" / "python").exists())
        monkeypatch.setattr(self.script, "_can_make_environments", lambda _: True)
        monkeypatch.setattr(self.script, "_pip_install", self._pip)
        make_venv = self.script._make_venv
        monkeypatch.setattr(self.script, "_make_venv", lambda *arguments: [*make_venv(*arguments), "--without-pip"])

    def make(self, purpose: str = "demo") -> None:
        self.script.make_environment(self.script.PURPOSES[purpose], self.folder, PYTHON)

    def _pip(self, folder: Path, extras: list[str]) -> list[str]:
        self.pip_extras.append(extras)
        return [str(folder / "bin" / "python"), "-c", self.pip_code]


@pytest.fixture
def setup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Setup:
    made = Setup(tmp_path, monkeypatch)
    made.patch.setattr(made.script.shutil, "which", lambda name: f"/usr/sbin/{name}")
    return made


def test_a_second_call_does_nothing_and_says_nothing(setup: Setup, capsys: pytest.CaptureFixture[str]) -> None:
    setup.make()
    capsys.readouterr()
    setup.make()
    assert len(setup.pip_extras) == 1
    assert capsys.readouterr().out == ""


def interrupt(setup: Setup) -> None:
    (setup.folder / setup.script.STAMP_NAME).unlink()


def garble_the_stamp(setup: Setup) -> None:
    (setup.folder / setup.script.STAMP_NAME).write_text("[1, ", encoding="utf-8")


def move_the_checkout(setup: Setup) -> None:
    stamp = setup.folder / setup.script.STAMP_NAME
    stamp.write_text(json.dumps(json.loads(stamp.read_text(encoding="utf-8")) | {"checkout": "/elsewhere"}), "utf-8")


def remove_python(setup: Setup) -> None:
    (setup.folder / "bin" / "python").unlink()


def change_python(setup: Setup) -> None:
    setup.patch.setattr(setup.script, "_identity", lambda _: "cpython-399 /usr")


@pytest.mark.parametrize("damage", [interrupt, garble_the_stamp, move_the_checkout, remove_python, change_python])
def test_a_damaged_environment_is_made_anew(setup: Setup, damage: Callable[[Setup], None]) -> None:
    setup.make()
    (setup.folder / "half-written").touch()
    damage(setup)
    setup.make()
    assert not (setup.folder / "half-written").exists()
    assert len(setup.pip_extras) == 2


def test_changed_inputs_and_more_extras_are_installed_in_place(setup: Setup) -> None:
    setup.make()
    (setup.folder / "kept").touch()
    setup.make("full")
    (setup.folder.parent / "pyproject.toml").write_text("two", encoding="utf-8")
    setup.make()
    setup.make("full")
    assert (setup.folder / "kept").exists()
    assert setup.pip_extras == [["demo"], ["demo", "dev", "torch"], ["demo", "dev", "torch"]]


def test_a_failed_pip_shows_its_last_lines_and_leaves_no_stamp(setup: Setup) -> None:
    setup.pip_code = "print('first'); print('no space left'); raise SystemExit(3)"
    with pytest.raises(setup.script.SetUpError, match=r"(?s)exit code 3.*install\.log.*no space left"):
        setup.make()
    assert not (setup.folder / setup.script.STAMP_NAME).exists()
    setup.pip_code = "pass"
    setup.make()
    assert len(setup.pip_extras) == 2


def test_a_user_without_rights_gets_one_command_for_all_that_is_missing(setup: Setup) -> None:
    setup.patch.setattr(setup.script, "_can_make_environments", lambda _: False)
    setup.patch.setattr(setup.script.shutil, "which", lambda name: "/usr/bin/apt-get" if name == "apt-get" else None)
    setup.patch.setattr(setup.script.os, "geteuid", lambda: 1000)
    with pytest.raises(
        setup.script.SetUpError, match="\n    sudo apt-get update && sudo apt-get install -y python3-venv mosquitto\n"
    ):
        setup.make("full")


def test_a_machine_without_apt_is_told_what_is_missing(setup: Setup) -> None:
    setup.patch.setattr(setup.script.shutil, "which", lambda name: None)
    with pytest.raises(setup.script.SetUpError, match=r"^missing: mosquitto \(as Debian calls it\)"):
        setup.make("full")


def test_an_interpreter_is_found_on_path_only_when_it_is_that_version(setup: Setup, tmp_path: Path) -> None:
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    setup.patch.setattr(setup.script.shutil, "which", lambda name: sys.executable)
    setup.patch.setenv("HOME", str(tmp_path))
    assert setup.script.find_interpreter(here) == PYTHON
    assert setup.script.find_interpreter("2.1") is None
