"""``edge-agent health``, for those who ask instead of being told, such as a container's health check.

Where ``EDGE_AGENT_HEALTH_FILE`` names a file, the agent renews it while every one of its loops turns, as it pings
systemd. The file belongs on a tmpfs: it is written every few seconds. Its time is monotonic, so a clock that is set
while the agent runs makes nobody ill; a container and its health check have that clock in common.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from agent.errors import ConfigError, FatalError
from agent.ops.systemd import Supervisor

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Mapping

_log = logging.getLogger(__name__)

VARIABLE = "EDGE_AGENT_HEALTH_FILE"
INTERVAL_S = 5.0
LIMIT_S = 20.0


def run(_args: argparse.Namespace) -> int:
    """Say whether the agent of this machine or container is well; raises FatalError when it is not."""
    chosen = os.environ.get(VARIABLE)
    if not chosen:
        raise ConfigError(f"{VARIABLE}: expected the file that the agent renews, it is not set; set it for both")
    sys.stdout.write(f"every loop turned {silence_s(Path(chosen), time.monotonic()):.0f} s ago\n")
    return 0


def silence_s(path: Path, now_s: float) -> float:
    """Seconds since the agent said that all is well.

    Raises:
        FatalError: there is no agent, or it has been silent for too long.
    """
    try:
        silent_s = now_s - float(json.loads(path.read_bytes())["alive_s"])
    except FileNotFoundError as err:
        raise FatalError(f"unhealthy: {path} is missing: the agent has not started yet, or has ended") from err
    except (OSError, ValueError, KeyError, TypeError) as err:
        raise FatalError(f"unhealthy: {path} is no health file: {err}") from err
    if not 0 <= silent_s <= LIMIT_S:
        raise FatalError(f"unhealthy: the agent last said {silent_s:.0f} s ago that all its loops turn")
    return silent_s


def supervisor_for(environ: Mapping[str, str]) -> Supervisor:
    """The one that this environment wants: systemd, a health file, both, or none."""
    chosen = environ.get(VARIABLE)
    return HealthFile(environ, Path(chosen), time.monotonic) if chosen else Supervisor(environ)


class HealthFile(Supervisor):
    """Tells systemd what it wants to hear, and whoever reads the file."""

    def __init__(self, environ: Mapping[str, str], path: Path, monotonic_s: Callable[[], float]) -> None:
        super().__init__(environ)
        self.ping_interval_s = min(INTERVAL_S, self.ping_interval_s or INTERVAL_S)
        self._path = path
        self._monotonic_s = monotonic_s
        self._failing = False

    def ready(self, status: str) -> None:
        super().ready(status)
        self._renew()

    def alive(self) -> None:
        super().alive()
        self._renew()

    def stopping(self) -> None:
        super().stopping()
        self._try(lambda: self._path.unlink(missing_ok=True))

    def _renew(self) -> None:
        def write() -> None:
            fresh = self._path.with_name(f"{self._path.name}.new")  # a reader never sees half of it
            fresh.write_text(json.dumps({"alive_s": self._monotonic_s()}), encoding="utf-8")
            fresh.replace(self._path)

        self._try(write)

    def _try(self, action: Callable[[], object]) -> None:
        try:
            action()
        except OSError as err:
            if not self._failing:
                _log.warning("%s=%s cannot be written: %s; the agent goes on", VARIABLE, self._path, err.strerror)
            self._failing = True
        else:
            self._failing = False
