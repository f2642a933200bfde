"""A real mosquitto broker on a free loopback port, restartable on the same port."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from tests.support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_READY_TIMEOUT_S = 10.0


class Mosquitto:
    """A broker process; its sessions and queued messages survive a polite ``stop`` when ``persistent``."""

    def __init__(self, executable: str, folder: Path, *, extra: str = "", persistent: bool = True) -> None:
        self.port = free_port()
        self.host = "127.0.0.1"
        self._command = [executable, "-c", str(folder / "mosquitto.conf")]
        self._log_path = folder / "mosquitto.log"
        self._process: subprocess.Popen[bytes] | None = None
        store = f"persistence true\npersistence_location {folder}/\n" if persistent else ""
        (folder / "mosquitto.conf").write_text(
            f"listener {self.port} {self.host}\nallow_anonymous true\nmax_queued_messages 0\n"
            # Started as root it would become another user and could not write its folder.
            f"user root\n{store}{extra}\n"
        )

    def start(self) -> None:
        """Start it and return once it takes connections."""
        with self._log_path.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        deadline_s = time.monotonic() + _READY_TIMEOUT_S
        while not self._is_listening():
            if self._process.poll() is not None or time.monotonic() > deadline_s:
                raise RuntimeError(f"mosquitto did not start: {self._log_path.read_text()[-2000:]}")

    def stop(self) -> None:
        """End it politely: it writes its store."""
        self._end(kill=False)

    def kill(self) -> None:
        """End it as a power cut would."""
        self._end(kill=True)

    def _end(self, *, kill: bool) -> None:
        if self._process is not None:
            self._process.kill() if kill else self._process.terminate()
            self._process.wait(timeout=10)
            self._process = None

    def _is_listening(self) -> bool:
        with suppress(OSError), socket.create_connection((self.host, self.port), timeout=1.0):
            return True
        return False


def mosquitto_executable() -> str | None:
    """Where mosquitto is; Debian installs it outside an ordinary user's PATH."""
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    """A running broker."""
    executable = mosquitto_executable()
    if executable is None:
        pytest.skip("mosquitto is not installed")
    folder = tmp_path / "mosquitto"
    folder.mkdir()
    broker = Mosquitto(executable, folder)
    broker.start()
    yield broker
    broker.stop()
