"""A new version comes in one step or not at all; removal leaves what is the user's, and with --purge nothing.

The new versions here are copies of the environment that is there: how one is made, the first installation has shown.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.support.service import INSTALL, INSTALL_HERE, UNIT, difference, files_of
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.booted import Machine
    from tests.support.service import Installation, Service

VENVS = "/opt/edge-agent/venvs"

pytestmark = [pytest.mark.systemd, pytest.mark.mosquitto]


def change(checkout: Path, text: str) -> None:
    """Another version of the product."""
    with (checkout / "agent" / "__init__.py").open("a", encoding="utf-8") as file:
        file.write(f"# {text}\n")


def active_venv(machine: Machine) -> str:
    return machine.run("readlink", "-f", "/opt/edge-agent/venv").stdout.strip()


def venvs(machine: Machine) -> set[str]:
    return set(machine.run("ls", VENVS).stdout.split())


def make_next_venv(machine: Machine) -> str:
    """What the installer would make for the checkout as it is now, copied from the active environment."""
    found = re.search(rf"^would make ({VENVS}/\w+)", machine.run(*INSTALL_HERE, "--dry-run").stdout, re.MULTILINE)
    assert found
    former = active_venv(machine)
    machine.run("cp", "-al", former, found[1])
    machine.run("sed", "-i", f"s|{former}|{found[1]}|", f"{found[1]}/bin/edge-agent")
    return found[1]


def test_an_upgrade_that_breaks_off_leaves_the_running_version_alone(
    service: Service, machine: Machine, checkout: Path
) -> None:
    service.ensure_running()
    change(checkout, "cannot be installed")
    before = machine.main_pid(UNIT), active_venv(machine), venvs(machine)
    result = machine.run(*INSTALL, "--wheels", "/srv/edge-agent/docs", check=False)
    assert (result.returncode, "installing the packages failed" in result.stderr) == (1, True)
    assert (machine.main_pid(UNIT), active_venv(machine), venvs(machine)) == before
    service.next_event(service.mark())


def test_a_version_that_does_not_start_is_put_back(service: Service, machine: Machine, checkout: Path) -> None:
    service.ensure_running()
    change(checkout, "does not start")
    with (checkout / "systemd" / "edge-agent.service").open("a", encoding="utf-8") as unit:
        unit.write("# another unit\n")
    former, former_unit = active_venv(machine), machine.inside(f"/etc/systemd/system/{UNIT}").read_bytes()
    broken = make_next_venv(machine)
    machine.run("rm", f"{broken}/bin/edge-agent")
    machine.write(f"{broken}/bin/edge-agent", "#!/bin/sh\nexit 1\n")
    machine.run("chmod", "+x", f"{broken}/bin/edge-agent")
    begin = service.mark()
    result = machine.run(*INSTALL_HERE, check=False)
    assert (result.returncode, "the former one is back" in result.stderr) == (1, True)
    assert active_venv(machine) == former
    assert machine.inside(f"/etc/systemd/system/{UNIT}").read_bytes() == former_unit
    service.next_event(begin)
    assert machine.show(UNIT, "ActiveState") == "active"


def test_an_upgrade_changes_over_in_one_restart(service: Service, machine: Machine, checkout: Path) -> None:
    service.ensure_running()
    change(checkout, "starts")
    new = make_next_venv(machine)
    pid, begin = machine.main_pid(UNIT), service.mark()
    result = machine.run(*INSTALL_HERE)
    service.next_event(begin)
    assert "restart the service" in result.stdout
    assert active_venv(machine) == new
    assert venvs(machine) == {new.rpartition("/")[2]}, "those before are removed"
    now = machine.main_pid(UNIT)
    assert now not in (0, pid)
    assert machine.inside(f"/etc/systemd/system/{UNIT}").read_bytes().endswith(b"# another unit\n")
    again = machine.run(*INSTALL_HERE)
    assert "nothing to do" in again.stdout
    assert machine.main_pid(UNIT) == now, "the second time nothing is restarted"


def test_an_interrupted_change_over_is_completed(service: Service, machine: Machine, checkout: Path) -> None:
    """As if the installer had been killed right before the restart: all is in place, the old version runs."""
    service.ensure_running()
    change(checkout, "is in place")
    new = make_next_venv(machine)
    first = machine.run(*INSTALL_HERE, "--no-start")
    pid = machine.main_pid(UNIT)
    assert "restart" not in first.stdout
    assert len(venvs(machine)) == 2, "what still runs is not removed"
    result = machine.run(*INSTALL_HERE)
    assert "restart the service" in result.stdout
    assert machine.main_pid(UNIT) not in (0, pid)
    assert venvs(machine) == {new.rpartition("/")[2]}


def test_removal_keeps_configuration_and_state_and_purging_leaves_nothing(
    service: Service, installation: Installation, machine: Machine
) -> None:
    service.ensure_running()
    pid = service.host_pid()
    before = files_of(machine.root)
    would = machine.run(*INSTALL, "--uninstall", "--dry-run").stdout
    assert "would remove /opt/edge-agent" in would
    assert not [path for path in difference(before, files_of(machine.root)) if not path.startswith("var/lib/private")]

    removed = machine.run(*INSTALL, "--uninstall").stdout
    assert "/etc/edge-agent and /var/lib/edge-agent are kept" in removed
    assert not machine.inside("/opt/edge-agent").exists()
    assert machine.run("systemctl", "cat", UNIT, check=False).returncode != 0
    assert wait_until(lambda: not is_alive(pid))
    assert machine.inside("/etc/edge-agent/agent.yaml").exists()
    assert machine.inside("/var/lib/private/edge-agent/outbox.sqlite").exists()

    machine.run("sh", "-c", "rm -rf /var/lib/private/edge-agent-* /var/lib/edge-agent-*")  # of the tests' other units
    machine.run(*INSTALL, "--uninstall", "--purge")
    came = {path for path in files_of(machine.root) if path not in installation.bare}
    # The system's own: the group render is usual on a machine with graphics; systemd keeps the folder.
    assert came <= {"etc/.pwd.lock", "etc/group-", "etc/gshadow-", "var/lib/private"}
    assert machine.run("getent", "group", "edge-agent-config", check=False).returncode != 0
    assert "nothing to do" in machine.run(*INSTALL, "--uninstall", "--purge").stdout


def is_alive(host_pid: int) -> bool:
    import psutil

    return bool(psutil.pid_exists(host_pid))
