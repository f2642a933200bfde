"""The watchdog: the service manager hears that the agent is alive only while every one of its loops turns."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from agent.ops.systemd import Supervisor

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """One loop, watched from another thread.

    Attributes:
        name: the loop, as logs and probes call it.
        last_s: gives the monotonic time of its last sign of life.
        limit_s: silent for longer than this, it hangs.
    """

    name: str
    last_s: Callable[[], float]
    limit_s: float


class Watchdog:
    """Call ``turn`` often from the supervising thread; ``silent`` from any."""

    def __init__(
        self, heartbeats: Sequence[Heartbeat], supervisor: Supervisor, monotonic_s: Callable[[], float]
    ) -> None:
        self._heartbeats = heartbeats
        self._supervisor = supervisor
        self._monotonic_s = monotonic_s
        self._ping_due_s = float("-inf")
        self._told: set[str] = set()

    def silent(self) -> dict[str, str]:
        """The loops that hang by name, each with a sentence about it; empty while all is well."""
        now_s = self._monotonic_s()
        silences_s = {each: now_s - each.last_s() for each in self._heartbeats}
        return {
            each.name: f"{each.name} has been silent for {silence_s:.0f} s, its limit is {each.limit_s:g} s"
            for each, silence_s in silences_s.items()
            if silence_s > each.limit_s
        }

    def turn(self) -> None:
        """Ping when it is time and every loop turns; without pings the service manager starts us again."""
        silent = self.silent()
        for name in silent.keys() - self._told:
            _log.error("%s", silent[name])
        for name in self._told - silent.keys():
            _log.warning("%s turns again", name)
        self._told = set(silent)
        interval_s, now_s = self._supervisor.ping_interval_s, self._monotonic_s()
        if interval_s is not None and not silent and now_s >= self._ping_due_s:
            self._supervisor.alive()
            self._ping_due_s = now_s + interval_s
