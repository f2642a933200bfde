"""The installer: first it says, then it does, then there is nothing left to do."""

from __future__ import annotations

import re
import shutil
import stat
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.service import CONFIG, INSTALL, UNIT, difference, files_of

if TYPE_CHECKING:
    from tests.support.booted import Machine
    from tests.support.service import Installation

SCRIPT = Path(__file__).parents[2] / "systemd" / "install.sh"
STUBS = "/run/stubs"

pytestmark = pytest.mark.systemd


def call(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The script on this machine, with arguments with which it does nothing."""
    return subprocess.run(["sh", str(SCRIPT), *arguments], capture_output=True, text=True, check=False)


def test_help_names_every_option() -> None:
    result = call("--help")
    named = set(re.findall(r"^  +(--[a-z-]+)", result.stdout, re.MULTILINE)) | {"--help"}
    parser = SCRIPT.read_text(encoding="utf-8").split("main() {")[1].split("*) misused")[0]
    known = set(re.findall(r"(--[a-z-]+)(?=\)| \|)", parser))
    assert (result.returncode, named) == (0, known)


@pytest.mark.parametrize("arguments", [["--unknown"], ["--wheels"], ["--purge"]])
def test_misuse_shows_the_usage(arguments: list[str]) -> None:
    result = call(*arguments)
    assert (result.returncode, "usage: install.sh" in result.stderr) == (2, True)


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="shellcheck is not installed")
def test_shellcheck_finds_nothing() -> None:
    result = subprocess.run(["shellcheck", str(SCRIPT)], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, "")


def test_a_dry_run_says_what_it_would_do_and_changes_nothing(installation: Installation) -> None:
    said = installation.dry_run.stdout
    for change in ("/opt/edge-agent/venvs/", "/etc/edge-agent/agent.yaml", UNIT, "enable the service"):
        assert re.search(rf"^would .*{re.escape(change)}", said, re.MULTILINE), said
    assert installation.changed_by_dry_run == set()


def test_what_the_dry_run_said_is_what_is_done(installation: Installation) -> None:
    would = re.findall(r"^would (?!check)(.*)$", installation.dry_run.stdout, re.MULTILINE)
    assert [line for line in installation.first.stdout.splitlines() if line in would] == would


def test_the_second_time_nothing_changes(installation: Installation) -> None:
    assert "nothing to do" in installation.again.stdout
    assert installation.changed_by_again == set()


def test_a_change_would_be_noticed(installation: Installation, machine: Machine) -> None:
    before = files_of(machine.root)
    machine.run("touch", "/opt/edge-agent/install.md")
    assert difference(before, files_of(machine.root)) == {"opt/edge-agent/install.md"}


def test_an_incomplete_configuration_is_not_started(installation: Installation, machine: Machine) -> None:
    """The example that is put in place names a bundle and a key, which a new device does not have."""
    print(f"installed in {installation.first_s:.1f} s")
    assert "model.bundle: /var/lib/edge-agent/bundle does not exist" in installation.first.stdout
    assert f"not started yet. Edit {CONFIG}, then: systemctl start edge-agent" in installation.first.stdout
    assert machine.run("systemctl", "is-enabled", UNIT).stdout.strip() == "enabled"
    assert machine.show(UNIT, "NRestarts") == "0"


def test_the_configuration_is_for_root_and_the_service_only(installation: Installation, machine: Machine) -> None:
    group = int(machine.run("getent", "group", "edge-agent-config").stdout.split(":")[2])
    modes = {}
    for place in ("/etc/edge-agent", CONFIG):
        status = machine.inside(place).stat()
        assert (status.st_uid, status.st_gid) == (0, group)
        modes[place] = stat.S_IMODE(status.st_mode)
    assert modes == {"/etc/edge-agent": 0o2750, CONFIG: 0o640}


def test_the_environment_holds_no_pip_and_can_be_used_by_all(installation: Installation, machine: Machine) -> None:
    (venv,) = machine.inside("/opt/edge-agent/venvs").iterdir()
    names = {path.name.partition("-")[0] for path in venv.glob("lib/python3*/site-packages/*")}
    assert names & {"pip", "setuptools"} == set()
    assert {"agent", "onnxruntime", "fastapi"} <= names
    anybody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    assert "usage: edge-agent" in machine.run(*anybody, "edge-agent", "--help").stdout


PYTHON_STUB = """#!/bin/sh
case "$*" in {pattern}) printf %s "{says}"; exit {code} ;; esac
exec /usr/bin/python3 "$@"
"""


@pytest.mark.parametrize(
    ("name", "stub", "told"),
    [
        ("uname", "#!/bin/sh\necho 5.15.148-tegra\n", "this is a Jetson"),
        ("python3", PYTHON_STUB.format(pattern="*version_info*", says="", code=1), "needs Python 3.10 or newer"),
        ("python3", PYTHON_STUB.format(pattern="*maxsize*", says="", code=1), "needs a 64-bit system"),
        ("python3", PYTHON_STUB.format(pattern="*ensurepip*", says="", code=1), "apt-get install python3-venv"),
        ("python3", PYTHON_STUB.format(pattern="*realpath*", says="/home/pi/python", code=0), "in a home folder"),
    ],
    ids=["a Jetson", "an old Python", "32 bits", "no venv", "a Python of a user's own"],
)
def test_a_machine_that_will_not_do_is_refused(machine: Machine, name: str, stub: str, told: str) -> None:
    machine.write(f"{STUBS}/{name}", stub)
    machine.run("chmod", "+x", f"{STUBS}/{name}")
    result = machine.run("env", f"PATH={STUBS}:/usr/sbin:/usr/bin:/sbin:/bin", *INSTALL, "--dry-run", check=False)
    machine.run("rm", "-r", STUBS)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("install.sh: ")
    assert told in result.stderr


def test_a_jetson_with_its_own_onnx_runtime_is_taken(machine: Machine) -> None:
    machine.write(f"{STUBS}/uname", "#!/bin/sh\necho 5.15.148-tegra\n")
    machine.run("chmod", "+x", f"{STUBS}/uname")
    paths = f"PATH={STUBS}:/usr/sbin:/usr/bin:/sbin:/bin"
    result = machine.run("env", paths, *INSTALL, "--dry-run", "--with", "onnxruntime_gpu-1.23.0.whl")
    machine.run("rm", "-r", STUBS)
    assert "edge-agent[web] and onnxruntime_gpu-1.23.0.whl" in result.stdout


def test_without_roots_rights_it_says_so(machine: Machine) -> None:
    somebody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    result = machine.run(*somebody, *INSTALL, check=False)
    assert (result.returncode, "needs root's rights" in result.stderr) == (1, True)


def test_without_systemd_it_says_so(machine: Machine) -> None:
    """In a view of the machine in which nothing is in /run."""
    hidden = "mount -t tmpfs tmpfs /run && exec sh /srv/edge-agent/systemd/install.sh --dry-run"
    result = machine.run("unshare", "--mount", "sh", "-c", hidden, check=False)
    assert (result.returncode, "systemd does not run here" in result.stderr) == (1, True)


def test_a_folder_of_wheels_that_is_not_there_is_named(machine: Machine) -> None:
    result = machine.run(*INSTALL, "--wheels", "/nowhere", "--dry-run", check=False)
    assert (result.returncode, "/nowhere" in result.stderr) == (1, True)
