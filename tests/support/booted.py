"""A minimal Debian with a real systemd as its first process, booted in a container that ends with the with block.

It lives in memory, and its mounts in a namespace of its own, so nothing is left of it, even if this process is killed.
Its network is this machine's, so a broker on the loopback here is its broker too.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_BOOT_TIMEOUT_S = 30.0
_POWER_OFF_TIMEOUT_S = 20.0
_SYSTEMD_HERE = Path("/run/systemd/system")
_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
# The programs, and the packages that bring them.
_PROGRAMS = {
    "systemd-nspawn": "systemd-container",
    "mmdebstrap": "mmdebstrap",
    "nsenter": "util-linux",
    "setpriv": "util-linux",
}


class CannotBootError(Exception):
    """This machine cannot make or boot such a container; the message says why."""


def why_not_here() -> str | None:
    """Why this machine cannot boot a container, as far as that shows without a try; None if nothing speaks against."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "needs root on Linux: it boots a container"
    missing = {package for program, package in _PROGRAMS.items() if not shutil.which(program)}
    return f"not installed: {', '.join(sorted(missing))} (as Debian calls it)" if missing else None


class Machine:
    """A booted container.

    Attributes:
        leader: its first process, by the number that this machine gives it.
        root: its root directory, as this machine sees it.
    """

    def __init__(self, leader: int) -> None:
        self.leader = leader
        self.root = Path(f"/proc/{leader}/root")

    def run(self, *command: str, check: bool = True, timeout_s: float = 120.0) -> subprocess.CompletedProcess[str]:
        """Run a command as the container's root, to its end; with ``check`` it must exit 0."""
        done = self._enter([*command], timeout_s)
        if check:
            assert done.returncode == 0, f"{' '.join(command)}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def inside(self, path: str) -> Path:
        """Where this machine sees a file of the container; no link on the way may be absolute."""
        return self.root / path.lstrip("/")

    def write(self, path: str, text: str) -> None:
        """Write a file, whose folder is made."""
        self.inside(path).parent.mkdir(parents=True, exist_ok=True)
        self.inside(path).write_text(text, encoding="utf-8")

    def show(self, unit: str, name: str) -> str:
        """A property of a unit, as systemd has it."""
        return self.run("systemctl", "show", f"--property={name}", "--value", unit).stdout.strip()

    def main_pid(self, unit: str) -> int:
        """The number that the container gives a service's main process; 0 while there is none."""
        return int(self.show(unit, "MainPID"))

    def journal(self, unit: str) -> list[dict[str, Any]]:
        """A unit's messages, all that were written before this call."""
        self.run("journalctl", "--sync")
        lines = self.run("journalctl", "--output=json", "--no-pager", f"--unit={unit}").stdout.splitlines()
        return [json.loads(line) for line in lines]

    def journal_text(self, unit: str) -> str:
        """The messages alone, for a test that failed."""
        return "\n".join(str(entry["MESSAGE"]) for entry in self.journal(unit))

    def host_pid(self, pid: int) -> int:
        """This machine's number for a process of the container."""
        for status in Path("/proc").glob("[0-9]*/status"):
            numbers = _namespace_pids(status)
            if numbers[-1:] == [pid] and len(numbers) > 1 and _same_pid_namespace(numbers[0], self.leader):
                return numbers[0]
        raise AssertionError(f"the container has no process {pid}")

    def _enter(self, command: list[str], timeout_s: float) -> subprocess.CompletedProcess[str]:
        namespaces = ["--mount", "--uts", "--ipc", "--pid", "--cgroup", "--root", "--wd"]
        return subprocess.run(
            ["nsenter", f"--target={self.leader}", *namespaces, *command],
            env=_ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )


@contextmanager
def booted(archive: Path, shared: Mapping[str, Path]) -> Iterator[Machine]:
    """Unpack the archive and boot it; ``shared`` maps places inside to folders that are seen there, read-only.

    Raises:
        CannotBootError: it did not come up.
    """
    groups = _groups_of_its_own()
    with tempfile.TemporaryDirectory(prefix="edge-agent-machine-") as name, Path(name, "console").open("wb") as console:
        root = Path(name, "root")
        root.mkdir()
        command = [*_joining(groups), *_in_memory(archive, root), *_nspawn(root, shared)]
        container = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=console, stderr=subprocess.STDOUT)
        try:
            yield _wait_for_boot(container, Path(name, "console"))
        finally:
            _power_off(container)
            for group in groups:
                _remove(group)


def _in_memory(archive: Path, root: Path) -> list[str]:
    """The beginning of a command that finds the archive's content at ``root``.

    It and all that it starts die with this process: it becomes the first of a process namespace, which ends with it.
    """
    script = 'mount -t tmpfs -o mode=755 tmpfs "$2" && tar -C "$2" -xf "$1" && shift 2 && exec "$@"'
    command = ["setpriv", "--pdeathsig=KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    return [*command, "sh", "-c", script, "sh", str(archive), str(root)]


def _nspawn(root: Path, shared: Mapping[str, Path]) -> list[str]:
    command = ["systemd-nspawn", "--quiet", "--boot", "--register=no", "--link-journal=no", "--console=read-only"]
    command += ["--resolv-conf=off", "--timezone=off", f"--machine=edge-agent-{os.getpid()}", f"--directory={root}"]
    command += [] if _SYSTEMD_HERE.is_dir() else ["--keep-unit"]  # nobody here who could give it one
    return [*command, *(f"--bind-ro={outside}:{inside}" for inside, outside in shared.items())]


def _groups_of_its_own() -> list[Path]:
    """Where to put a container's control groups, so that two at a time do not share them; a systemd here sees to it."""
    if _SYSTEMD_HERE.is_dir():
        return []
    mounts = {"name=systemd": Path("/sys/fs/cgroup/systemd"), "": Path("/sys/fs/cgroup/unified")}
    if not mounts[""].is_dir():
        mounts = {"": Path("/sys/fs/cgroup")}
    lines = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()]
    name = f"edge-agent-tests-{os.getpid()}"
    return [mounts[kind] / here.lstrip("/") / name for _, kind, here in lines if kind in mounts]


def _joining(groups: list[Path]) -> list[str]:
    """The beginning of a command that joins the groups, which it makes."""
    script = (
        'for group; do shift; [ "$group" != -- ] || exec "$@"; mkdir "$group"; echo $$ >"$group/cgroup.procs"; done'
    )
    return ["sh", "-c", script, "sh", *map(str, groups), "--"]


def _remove(group: Path) -> None:
    """Remove a control group and those in it, which may still be losing their last process."""

    def is_removed() -> bool:
        for folder, _, _ in os.walk(group, topdown=False):
            with suppress(OSError):
                Path(folder).rmdir()
        return not group.exists()

    wait_until(is_removed)


def _wait_for_boot(container: subprocess.Popen[bytes], console: Path) -> Machine:
    def is_over() -> bool:
        leader = _leader_of(container.pid)
        if leader is None:
            return container.poll() is not None
        state = Machine(leader).run("systemctl", "is-system-running", check=False).stdout.strip()
        return state in {"running", "degraded"}

    in_time = wait_until(is_over, _BOOT_TIMEOUT_S)
    leader = _leader_of(container.pid)
    if not in_time or leader is None:
        last = console.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-3:]
        raise CannotBootError(f"a container does not boot here: {' / '.join(last) or 'it says nothing'}")
    return Machine(leader)


def _power_off(container: subprocess.Popen[bytes]) -> None:
    for nspawn in _children_of(container.pid):
        os.kill(nspawn, signal.SIGTERM)  # which it passes on as a request to power off
    try:
        container.wait(_POWER_OFF_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        container.kill()
        container.wait()


def _leader_of(container_pid: int) -> int | None:
    """The container's first process once it runs systemd: then it sees the container's files, not this machine's."""
    for nspawn in _children_of(container_pid):
        for child in _children_of(nspawn):
            numbers = _namespace_pids(Path(f"/proc/{child}/status"))
            if len(numbers) > 2 and numbers[-1] == 1 and _name_of(child) == "systemd":
                return child
    return None


def _children_of(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]
    except OSError:
        return []


def _namespace_pids(status: Path) -> list[int]:
    """A process's numbers from its ``status``, this machine's first; empty when it has gone."""
    try:
        lines = status.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    return next(([int(number) for number in line.split()[1:]] for line in lines if line.startswith("NSpid:")), [])


def _name_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _same_pid_namespace(pid: int, other: int) -> bool:
    try:
        return Path(f"/proc/{pid}/ns/pid").readlink() == Path(f"/proc/{other}/ns/pid").readlink()
    except OSError:
        return False
