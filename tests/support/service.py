"""The product installed on a booted machine by its own installer, and run there as the service it is."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import signal
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from tests.support.subscriber import Subscriber

if TYPE_CHECKING:
    import subprocess

    from tests.support.booted import Machine
    from tests.support.mosquitto import Mosquitto
    from tests.support.subscriber import Received

UNIT = "edge-agent.service"
UNIT_PATH = f"/etc/systemd/system/{UNIT}"
HUNG = "edge-agent-hung.service"
NODE = "door-1"
USER, PASSWORD = "door", "swordfish"
INSTALL = ["sh", "/srv/edge-agent/systemd/install.sh"]
INSTALL_HERE = [*INSTALL, "--wheels", "/srv/wheels"]
CONFIG = "/etc/edge-agent/agent.yaml"
PASSWORD_FILE = "/etc/edge-agent/mqtt-password"
TIMEOUT_S = 30.0
# Each change of each object is an event: some dozens a second.
BUSY = {"confirm_frames": 1, "update_interval_s": 0.05, "lost_after_s": 0.5}
_NOT_COMPARED = {"dev", "proc", "run", "srv", "sys", "tmp", "var/lib/systemd", "var/log", "var/tmp"}


@dataclass(frozen=True)
class Installation:
    """What the installer said, and which files it changed: tried out on a bare machine, for the first time, again."""

    bare: dict[str, object]
    dry_run: subprocess.CompletedProcess[str]
    changed_by_dry_run: set[str]
    first: subprocess.CompletedProcess[str]
    first_s: float
    again: subprocess.CompletedProcess[str]
    changed_by_again: set[str]


def install(machine: Machine) -> Installation:
    """Run the installer on a bare machine three times, the first of them dry."""
    bare = files_of(machine.root)
    dry_run = machine.run(*INSTALL_HERE, "--dry-run")
    changed_by_dry_run = difference(bare, files_of(machine.root))
    started_s = time.monotonic()
    first = machine.run(*INSTALL_HERE, timeout_s=300.0)
    first_s = time.monotonic() - started_s
    installed = files_of(machine.root)
    again = machine.run(*INSTALL_HERE)
    changed_by_again = difference(installed, files_of(machine.root))
    return Installation(bare, dry_run, changed_by_dry_run, first, first_s, again, changed_by_again)


class Service:
    """The installed service with its broker, and a subscriber that hears all it says.

    Attributes:
        machine: where it runs.
        broker: on this machine's loopback, which is the other's too.
        subscriber: to every topic.
        first_start_s: what ``systemctl start`` took for the first time, the trial of the model included.
    """

    def __init__(self, machine: Machine, broker: Mosquitto) -> None:
        self.machine, self.broker = machine, broker
        self.subscriber = Subscriber(broker.host, broker.port)
        # As docs/install.md says.
        machine.run("mkdir", "-p", "/var/lib/edge-agent")
        machine.run("cp", "-r", "/srv/edge-agent/agent/demo/bundles/shapes", "/var/lib/edge-agent/bundle")
        machine.run("cp", "/srv/edge-agent/agent/demo/demo.public.pem", "/etc/edge-agent/trusted.pem")
        machine.run("install", "-m", "600", "/dev/null", PASSWORD_FILE)
        self.set_password(PASSWORD)
        self.configure()
        self.first_start_s = self.start()

    def configure(self, path: str = CONFIG, **sections: Any) -> None:
        """Write a configuration in which each section replaces the usual one."""
        camera = {"id": "front", "engine": "synthetic", "width": 640, "height": 384, "fps": 10, "seed": 7}
        password = "${file:$CREDENTIALS_DIRECTORY/mqtt-password}"
        values = {
            "node": NODE,
            "model": {"bundle": "/var/lib/edge-agent/bundle", "trusted_keys": ["trusted.pem"]},
            "cameras": [camera],
            "tracking": BUSY,
            "mqtt": {"port": self.broker.port, "username": USER, "password": password},
            **sections,
        }
        # In place, so that owner and rights stay those of the file that is there.
        self.machine.inside(path).write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")

    def set_password(self, password: str) -> None:
        """What the service knows as the broker's password from its next start on."""
        self.machine.inside(PASSWORD_FILE).write_text(f"{password}\n", encoding="utf-8")

    def start(self) -> float:
        """``systemctl start``: returns the seconds until it was ready."""
        started_s = time.monotonic()
        self.machine.run("systemctl", "start", UNIT)
        return time.monotonic() - started_s

    def stop(self) -> float:
        """``systemctl stop``: returns the seconds that it took."""
        started_s = time.monotonic()
        self.machine.run("systemctl", "stop", UNIT)
        return time.monotonic() - started_s

    def ensure_running(self) -> None:
        """Start it, unless it runs, and wait for an event."""
        begin = self.mark()
        self.machine.run("systemctl", "start", UNIT)
        self.next_event(begin)

    def mark(self) -> int:
        """How many messages have arrived; what comes later is new."""
        return len(self.subscriber.messages)

    def next_event(self, since: int, *, node: str = NODE, not_of_boots: frozenset[str] = frozenset()) -> Received:
        """Wait for an event of a node that arrived after a mark, from a start of the agent that is not among these."""
        found: list[Received] = []
        seen = since

        def arrived(messages: list[Received]) -> bool:
            nonlocal seen
            new, seen = messages[seen:], len(messages)
            found.extend(each for each in new if is_event(each, node) and boot_of(each) not in not_of_boots)
            return bool(found)

        assert self.subscriber.wait_for(arrived, TIMEOUT_S), f"no event came\n{self.machine.journal_text(UNIT)[-3000:]}"
        return found[0]

    def host_pid(self, unit: str = UNIT) -> int:
        """This machine's number for the service's main process."""
        return self.machine.host_pid(self.machine.main_pid(unit))

    def kill(self) -> float:
        """SIGKILL to the main process; returns the moment."""
        pid = self.host_pid()
        killed_s = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        return killed_s

    def hang_a_copy(self) -> float:
        """Start a second service of this unit and stop its process with SIGSTOP; returns the moment."""
        folder = "/etc/edge-agent"
        self.machine.run("cp", "-p", CONFIG, f"{folder}/hung.yaml")
        model = {"bundle": "/srv/edge-agent/agent/demo/bundles/shapes", "trusted_keys": ["trusted.pem"]}
        self.configure(f"{folder}/hung.yaml", node="hung", state_dir="/var/lib/edge-agent-hung", model=model)
        copy_unit(self.machine, HUNG, f"/opt/edge-agent/venv/bin/edge-agent run --config {folder}/hung.yaml")
        begin = self.mark()
        self.machine.run("systemctl", "start", HUNG)
        self.next_event(begin, node="hung")
        pid = self.host_pid(HUNG)
        since_s = time.monotonic()
        os.kill(pid, signal.SIGSTOP)
        return since_s

    def close(self) -> None:
        """Let go of the broker."""
        self.subscriber.close()


def copy_unit(machine: Machine, name: str, program: str) -> None:
    """A unit that differs from the product's in its program and in the folder of its state."""
    machine.run("mkdir", "-p", "/run/systemd/system")
    machine.run("cp", UNIT_PATH, f"/run/systemd/system/{name}")
    state = f"StateDirectory=\nStateDirectory={name.removesuffix('.service')}\n"
    machine.write(f"/run/systemd/system/{name}.d/copy.conf", f"[Service]\nExecStart=\nExecStart={program}\n{state}")
    machine.run("systemctl", "daemon-reload")


def is_event(message: Received, node: str = NODE) -> bool:
    """Whether a message is an event of that node's cameras."""
    return message.topic.startswith(f"edge/{node}/camera/") and message.topic.endswith("/events")


def boot_of(event: Received) -> str:
    """Which start of the agent saw it."""
    return str(json.loads(event.payload)["boot"])


def password_file(path: Path, user: str, password: str) -> Path:
    """A password file of mosquitto: PBKDF2 with SHA-512, 101 rounds."""
    salt, rounds = bytes(range(12)), 101
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, rounds)
    encoded = "$".join(base64.b64encode(each).decode() for each in (salt, digest))
    path.write_text(f"{user}:$7${rounds}${encoded}\n", encoding="ascii")
    path.chmod(0o600)
    return path


def files_of(root: Path) -> dict[str, object]:
    """Every file, folder and link with what would tell of a change, except where a running system writes by itself."""
    found: dict[str, object] = {}
    for folder, subfolders, names in os.walk(root):
        at = Path(folder).relative_to(root)
        subfolders[:] = [name for name in subfolders if str(at / name) not in _NOT_COMPARED]
        for name in [*subfolders, *names]:
            path = Path(folder, name)
            status = path.lstat()
            target = str(path.readlink()) if stat.S_ISLNK(status.st_mode) else ""
            facts = (status.st_mode, status.st_uid, status.st_gid, status.st_size, status.st_mtime_ns, target)
            found[str(at / name)] = facts
    return found


def difference(before: dict[str, object], after: dict[str, object]) -> set[str]:
    """The paths that came, went or changed."""
    return {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
