"""A minimal Debian with a real systemd as its first process, booted in a container that ends with the with block.

Nothing is left mounted: the container's mounts live in a namespace of its own. Its network is the host's, so a broker
on the host's loopback is its broker too.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_BOOT_TIMEOUT_S = 30.0
_POWER_OFF_TIMEOUT_S = 20.0
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
        root: its root directory, as this machine sees it.
        leader: its first process, by the number that this machine gives it.
    """

    def __init__(self, root: Path, leader: int) -> None:
        self.root = root
        self.leader = leader

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
        """Write a file, also one in a file system of the container's own such as /run."""
        self.run("mkdir", "-p", str(Path(path).parent))
        self.run("sh", "-c", 'printf %s "$1" >"$2"', "sh", text, path)

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
def booted(archive: Path, folder: Path, shared: Mapping[str, Path]) -> Iterator[Machine]:
    """Unpack the archive below ``folder`` and boot it; ``shared`` maps places inside to folders seen there, read-only.

    Raises:
        CannotBootError: it did not come up.
    """
    with tempfile.TemporaryDirectory(prefix="machine-", dir=folder) as name:
        root = Path(name, "root")
        root.mkdir()
        subprocess.run(["tar", "-C", str(root), "-xf", str(archive)], check=True)
        with Path(name, "console").open("wb") as console:
            nspawn = subprocess.Popen(
                _nspawn(root, shared), stdin=subprocess.DEVNULL, stdout=console, stderr=subprocess.STDOUT
            )
        try:
            yield _wait_for_boot(root, nspawn, Path(name, "console"))
        finally:
            _power_off(nspawn)


def _nspawn(root: Path, shared: Mapping[str, Path]) -> list[str]:
    # The container ends with this process, however that ends; and so do the mounts that a killed nspawn leaves.
    command = ["setpriv", "--pdeathsig=KILL", "unshare", "--mount", "--propagation=private", "systemd-nspawn"]
    command += ["--quiet", "--boot", "--register=no", "--keep-unit", "--link-journal=no", "--console=read-only"]
    command += ["--resolv-conf=off", "--timezone=off", f"--machine=edge-agent-{os.getpid()}", f"--directory={root}"]
    return [*command, *(f"--bind-ro={outside}:{inside}" for inside, outside in shared.items())]


def _wait_for_boot(root: Path, nspawn: subprocess.Popen[bytes], console: Path) -> Machine:
    def is_up() -> bool:
        leader = _leader_of(nspawn.pid)
        if nspawn.poll() is not None:
            return True
        if leader is None:
            return False
        state = Machine(root, leader).run("systemctl", "is-system-running", check=False).stdout.strip()
        return state in {"running", "degraded"}

    is_done = wait_until(is_up, _BOOT_TIMEOUT_S)
    leader = _leader_of(nspawn.pid)
    if not is_done or leader is None:
        last = console.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-3:]
        raise CannotBootError(f"a container does not boot here: {' / '.join(last) or 'it says nothing'}")
    return Machine(root, leader)


def _power_off(nspawn: subprocess.Popen[bytes]) -> None:
    nspawn.send_signal(signal.SIGTERM)  # which nspawn passes on as a request to power off
    try:
        nspawn.wait(_POWER_OFF_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        nspawn.kill()
        nspawn.wait()


def _leader_of(nspawn_pid: int) -> int | None:
    """The container's first process: the child of nspawn that is number 1 in a namespace of its own."""
    try:
        children = Path(f"/proc/{nspawn_pid}/task/{nspawn_pid}/children").read_text(encoding="ascii").split()
    except OSError:
        return None
    for child in children:
        numbers = _namespace_pids(Path(f"/proc/{child}/status"))
        if len(numbers) > 1 and numbers[-1] == 1:
            return int(child)
    return None


def _namespace_pids(status: Path) -> list[int]:
    """A process's numbers from its ``status``, this machine's first; empty when it has gone."""
    try:
        lines = status.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    return next(([int(number) for number in line.split()[1:]] for line in lines if line.startswith("NSpid:")), [])


def _same_pid_namespace(pid: int, other: int) -> bool:
    try:
        return Path(f"/proc/{pid}/ns/pid").readlink() == Path(f"/proc/{other}/ns/pid").readlink()
    except OSError:
        return False
