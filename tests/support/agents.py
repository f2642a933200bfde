"""The agent as a device runs it: a tiny model that this machine has tried out, a configuration, a process."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
import yaml

from agent.config import AgentConfig
from agent.parts import activate_model
from tests.support.bundles import make_bundle

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.support.bundles import SignedBundle

CHECKOUT = Path(__file__).parents[2]
NODE = "node-1"
RATE_HZ = 10.0
SIZE_WH = (64, 48)
_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Kit:
    """A signed bundle, and what a device remembers once it has tried the bundle out."""

    bundle: SignedBundle
    canary: bytes

    def config(self, folder: Path, cameras: Sequence[dict[str, Any]], **sections: Any) -> Path:
        """Write ``folder/agent.yaml`` with this bundle and ``folder/state``; each section replaces the usual one."""
        state = folder / "state"
        state.mkdir(parents=True, exist_ok=True)
        (state / "canary.json").write_bytes(self.canary)
        values = {
            "node": NODE,
            "state_dir": "state",
            "model": {"bundle": str(self.bundle.root), "trusted_keys": [str(self.bundle.public_key)]},
            "runtime": {"threads": 1},
            "cameras": list(cameras),
            **sections,
        }
        path = folder / "agent.yaml"
        path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
        return path


def make_kit(folder: Path, **bundle: Any) -> Kit:
    """A bundle as ``tests.support.bundles.make_bundle`` makes it, and its trial run."""
    made = make_bundle(folder, **bundle)
    model = {"bundle": made.root, "trusted_keys": [made.public_key]}
    camera = {"id": "c", "engine": "synthetic"}
    values = {"state_dir": folder, "model": model, "runtime": {"threads": 1}, "cameras": [camera]}
    activate_model(AgentConfig.model_validate(values))
    return Kit(made, (folder / "canary.json").read_bytes())


@pytest.fixture(scope="session")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Kit:
    """A detector that sees nothing on black, and a cat, a dog and a faint cat on white."""
    return make_kit(tmp_path_factory.mktemp("kit"))


def write_video(path: Path, *stretches: tuple[int, int | tuple[int, int, int]]) -> Path:
    """A video of 10 frames a second; each stretch is a number of frames and their grey or BGR."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), RATE_HZ, SIZE_WH)
    for frames, colour in stretches:
        for _ in range(frames):
            writer.write(np.full((SIZE_WH[1], SIZE_WH[0], 3), colour, np.uint8))
    writer.release()
    return path


def file_camera(source: Path, camera_id: str = "door", **keys: Any) -> dict[str, Any]:
    """The configuration of a camera that plays a file."""
    return {"id": camera_id, "source": str(source), "pace": "lockstep", **keys}


def scene_camera(camera_id: str = "door", **keys: Any) -> dict[str, Any]:
    """The configuration of a small synthetic camera."""
    return {"id": camera_id, "engine": "synthetic", "width": SIZE_WH[0], "height": SIZE_WH[1], **keys}


def run_command(*arguments: str | Path, module: str = "agent") -> subprocess.CompletedProcess[str]:
    """``edge-agent`` (or another module's command) with these arguments, to its end."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=CHECKOUT)


def running_agent(config: Path, *arguments: str) -> AbstractContextManager[AgentProcess]:
    """``edge-agent run`` in a process, killed at the end of the with block if it still runs."""
    return running_process("run", "--config", str(config), *arguments)


@contextmanager
def running_process(*arguments: str) -> Iterator[AgentProcess]:
    """``edge-agent`` with these arguments in a process, killed at the end of the with block if it still runs."""
    agent = AgentProcess(*arguments)
    try:
        yield agent
    finally:
        agent.process.kill()
        agent.wait()


class AgentProcess:
    """``edge-agent`` in a process of its own.

    Attributes:
        lines: of its standard error, so far.
        process: the process.
    """

    def __init__(self, *arguments: str) -> None:
        self.lines: list[str] = []
        self._changed = threading.Condition()
        command = [sys.executable, "-m", "agent", *arguments]
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            cwd=CHECKOUT,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait_for_line(self, part: str, count: int = 1) -> None:
        """Return once so many lines contain the text; fail when they do not come."""

        def found() -> bool:
            return sum(part in line for line in self.lines) >= count

        with self._changed:
            assert self._changed.wait_for(found, _TIMEOUT_S), f"no {part!r} in:\n{self.text}"

    def web_port(self) -> int:
        """The port of its web API, once it has said so."""
        self.wait_for_line("web API and page: http://")
        found = re.search(r"web API and page: http://[^/]*:(\d+)/", self.text)
        assert found is not None
        return int(found[1])

    def wait(self) -> int:
        """Wait for the end; returns the exit code."""
        code = self.process.wait(_TIMEOUT_S)
        self._reader.join(_TIMEOUT_S)
        assert self.process.stderr is not None
        self.process.stderr.close()
        return code

    def signal_and_wait(self, number: signal.Signals) -> tuple[int, float]:
        """Send a signal, SIGINT to all of its group as a terminal does; returns exit code and seconds until the end."""
        signalled_s = time.monotonic()
        if number == signal.SIGINT:
            os.killpg(self.process.pid, number)
        else:
            self.process.send_signal(number)
        return self.wait(), time.monotonic() - signalled_s

    @property
    def text(self) -> str:
        """Its standard error so far."""
        return "".join(self.lines)

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._changed:
                self.lines.append(line)
                self._changed.notify_all()


def copy_bundle(source: SignedBundle, folder: Path) -> Path:
    """A copy of a bundle's directory, to be damaged."""
    return Path(shutil.copytree(source.root, folder / "bundle"))
