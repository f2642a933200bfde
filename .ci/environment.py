"""Make or repair a virtual environment of this checkout; the standard library alone, so it runs on a bare machine.

    python3 .ci/environment.py demo                                    .venv with what the demo needs
    python3 .ci/environment.py full                                    .venv with everything; mosquitto
    python3 .ci/environment.py device --python P --folder .venv-py3.10 what the device side's tests need
    python3 .ci/environment.py find 3.10                               print that interpreter's path, or exit 1

A stamp in the environment says for which checkout, interpreter and inputs it was completed, and with which extras.
It is removed before pip starts and written when pip has ended well. Without a stamp, or with another checkout's or
interpreter's, the environment is made anew: half-written packages look installed to pip. With older inputs or
fewer extras, pip brings it up to date in place. A lock, which pip inherits, makes a second caller wait even for
a pip whose own caller was killed.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple, TextIO

CHECKOUT = Path(__file__).resolve().parent.parent
LOG = CHECKOUT / "out" / "install.log"
STAMP_NAME = "environment.json"
PROGRESS_INTERVAL_S = 20


class Purpose(NamedTuple):
    """What an environment is for: the project's extras, the distribution's programs, and a word for people."""

    extras: tuple[str, ...]
    programs: tuple[str, ...]
    content: str


PURPOSES = {
    "demo": Purpose(("demo",), (), "the agent and the demo's broker"),
    "full": Purpose(("demo", "dev", "torch"), ("mosquitto",), "the agent, the build side with torch, and the tests"),
    "device": Purpose(("test", "web"), (), "the agent and its tests"),
}


class Stamp(NamedTuple):
    """What a completed environment was made for; ``extras`` are sorted."""

    checkout: str
    interpreter: str
    inputs: str
    extras: list[str]


class SetUpError(Exception):
    """The environment cannot be made; the message tells a person what to do."""


def main() -> int:
    """Parse the arguments, do the one thing asked for, and give the exit code."""
    parser = argparse.ArgumentParser(description="make or repair a virtual environment of this checkout")
    parser.add_argument("purpose", choices=[*PURPOSES, "find"])
    parser.add_argument("version", nargs="?", help="for find: the version, such as 3.10")
    parser.add_argument("--folder", type=Path, default=CHECKOUT / ".venv")
    parser.add_argument("--python", type=Path, default=_base_interpreter())
    arguments = parser.parse_args()
    if arguments.purpose == "find":
        found = find_interpreter(arguments.version or "")
        print(found or "", end="")
        return 0 if found else 1
    try:
        make_environment(PURPOSES[arguments.purpose], CHECKOUT / arguments.folder, arguments.python)
    except SetUpError as err:
        print(f"\nedge-agent: {err}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nedge-agent: interrupted; the same command starts again where it can", file=sys.stderr)
        return 130
    return 0


def make_environment(purpose: Purpose, folder: Path, interpreter: Path) -> None:
    """Bring ``folder`` to what ``purpose`` needs; quick and silent when it already is.

    Raises:
        SetUpError: something is missing that only the user can install, or a step failed; its log is kept.
    """
    _install_programs(purpose, interpreter)
    LOG.parent.mkdir(exist_ok=True)
    with LOG.with_suffix(".lock").open("w") as lock:
        _wait_for(lock)
        wanted = Stamp(str(CHECKOUT), _identity(interpreter), _inputs_digest(), sorted(purpose.extras))
        found = _read_stamp(folder)
        usable = found is not None and found[:2] == wanted[:2] and _works(folder)
        if found and usable:
            if found.inputs == wanted.inputs and set(wanted.extras) <= set(found.extras):
                return
            wanted = wanted._replace(extras=sorted({*wanted.extras, *found.extras}))
        _say(f"preparing {folder.name}: {purpose.content} (details in {LOG.relative_to(CHECKOUT)})")
        if not usable:
            _make_anew(folder, interpreter)
        (folder / STAMP_NAME).unlink(missing_ok=True)
        _run_logged("installing packages", _pip_install(folder, wanted.extras), keep_open=lock)
        (folder / STAMP_NAME).write_text(json.dumps(wanted._asdict(), indent=1) + "\n", encoding="utf-8")
        _say(f"{folder.name} is ready")


def find_interpreter(version: str) -> Path | None:
    """A working interpreter of ``version`` ("3.10") on PATH or among pyenv's, or None."""
    on_path = shutil.which(f"python{version}")
    of_pyenv = sorted((Path.home() / ".pyenv" / "versions").glob(f"{version}.*/bin/python{version}"))
    for candidate in [*([Path(on_path)] if on_path else []), *of_pyenv]:
        if _output([str(candidate), "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]) == version:
            return candidate
    return None


def _install_programs(purpose: Purpose, interpreter: Path) -> None:
    """Install what only the distribution can give, or say which command does."""
    missing = [program for program in purpose.programs if not shutil.which(program)]
    if not _can_make_environments(interpreter):
        missing.insert(0, "python3-venv")
    if not missing:
        return
    if not shutil.which("apt-get"):
        raise SetUpError(f"missing: {', '.join(missing)} (as Debian calls it). Install it, then say the same again.")
    if os.geteuid() == 0:
        rights = []
    elif shutil.which("sudo") and _succeeds(["sudo", "-n", "true"]):
        rights = ["sudo", "-n"]
    else:
        raise SetUpError(
            f"missing: {', '.join(missing)}, and this user may not install it without a password. Run once\n\n"
            f"    sudo apt-get update && sudo apt-get install -y {' '.join(missing)}\n\nthen say the same again."
        )
    apt = [*rights, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-o", "DPkg::Lock::Timeout=120"]
    _run_logged("reading the distribution's package lists", [*apt, "update"])
    _run_logged(
        f"installing {', '.join(missing)} from the distribution",
        [*apt, "install", "-y", "--no-install-recommends", *missing],
    )
    if not _can_make_environments(interpreter):
        raise SetUpError(f"{interpreter} has no venv and ensurepip modules; say `make ... PYTHON=/usr/bin/python3`.")


def _can_make_environments(interpreter: Path) -> bool:
    # A fresh process: this one may have cached that the modules were missing before apt brought them.
    return _output([str(interpreter), "-c", "import ensurepip, venv; print('yes')"]) == "yes"


def _base_interpreter() -> Path:
    """This interpreter, outside any activated environment: that one may be about to be replaced."""
    base = Path(sys.base_prefix, "bin", f"python{sys.version_info.major}.{sys.version_info.minor}")
    return base if base.exists() else Path(sys.executable)


def _identity(interpreter: Path) -> str:
    """What must stay the same for compiled packages to stay usable: version, ABI, place and machine."""
    code = "import sys; print(sys.implementation.cache_tag, sys.base_prefix)"
    return f"{_output([str(interpreter), '-c', code])} {platform.machine()}"


def _inputs_digest() -> str:
    digest = hashlib.sha256()
    for name in ("pyproject.toml", "constraints.txt"):
        digest.update((CHECKOUT / name).read_bytes())
    return digest.hexdigest()


def _read_stamp(folder: Path) -> Stamp | None:
    try:
        return Stamp(**json.loads((folder / STAMP_NAME).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _works(folder: Path) -> bool:
    return _output([str(folder / "bin" / "python"), "-c", "import agent, pip; print('yes')"]) == "yes"


def _make_anew(folder: Path, interpreter: Path) -> None:
    if folder.exists():
        _say(f"{folder.name} is incomplete or belongs to another Python or folder; making it anew")
        (folder / STAMP_NAME).unlink(missing_ok=True)
        shutil.rmtree(folder)
    _run_logged("making an empty environment", _make_venv(folder, interpreter))


def _make_venv(folder: Path, interpreter: Path) -> list[str]:
    return [str(interpreter), "-m", "venv", str(folder)]


def _pip_install(folder: Path, extras: list[str]) -> list[str]:
    options = ["--no-input", "--disable-pip-version-check", "--progress-bar", "off"]
    constraints = ["--constraint", str(CHECKOUT / "constraints.txt")]
    project = ["--editable", f"{CHECKOUT}[{','.join(extras)}]"]
    return [str(folder / "bin" / "python"), "-m", "pip", "install", *options, *constraints, *project]


def _run_logged(what: str, command: list[str], keep_open: TextIO | None = None) -> None:
    """Run ``command`` with its output in the log; say from time to time that it lives.

    Raises:
        SetUpError: it failed; the message holds the log's last lines.
    """
    LOG.parent.mkdir(exist_ok=True)
    _say(what)
    started_s = time.monotonic()
    with LOG.open("w", encoding="utf-8") as log:
        log.write(f"$ {shlex.join(command)}\n")
        log.flush()
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=CHECKOUT,
            pass_fds=[keep_open.fileno()] if keep_open else [],
        )
    while True:
        try:
            exit_code = process.wait(PROGRESS_INTERVAL_S)
            break
        except subprocess.TimeoutExpired:
            _say(f"  still {what}, {time.monotonic() - started_s:.0f} s; now: {_tail(1)[:60]}")
    if exit_code:
        raise SetUpError(
            f"{what} failed with exit code {exit_code}. The last lines of {LOG}:\n\n{_tail(15)}\n\n"
            "When the cause is gone, say the same again; nothing needs to be cleaned up."
        )


def _tail(lines: int) -> str:
    text = LOG.read_text(encoding="utf-8", errors="replace")
    return "\n".join([line for line in text.splitlines() if line.strip()][-lines:])


def _wait_for(lock: TextIO) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        _say("another set-up is at work in this checkout; waiting for it")
        fcntl.flock(lock, fcntl.LOCK_EX)


def _succeeds(command: list[str]) -> bool:
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


def _output(command: list[str]) -> str:
    """What ``command`` prints, stripped; empty when it cannot run or fails."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, cwd="/").stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def _say(text: str) -> None:
    print(f"[{time.monotonic() - _STARTED_S:5.1f} s] {text}", flush=True)


_STARTED_S = time.monotonic()

if __name__ == "__main__":
    sys.exit(main())
