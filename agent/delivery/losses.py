"""Events that had to be dropped: counted by reason and kind, reported once the pressure is over."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_QUIET_S = 5.0


class Losses:
    """``dropped`` counts since the start, by kind; ``unreported`` by reason and kind (no kinds: number unknown)."""

    def __init__(self, monotonic_s: Callable[[], float]) -> None:
        self.dropped: Counter[str] = Counter()
        self.unreported: dict[str, Counter[str]] = {}
        self._monotonic_s = monotonic_s
        self._last_s = float("-inf")

    def add(self, reason: str, dropped: Mapping[str, int]) -> None:
        """Count losses of now."""
        if dropped:
            self.dropped.update(dropped)
            self.unreported.setdefault(reason, Counter()).update(dropped)
            self._last_s = self._monotonic_s()

    def add_unknown(self, reason: str) -> None:
        """Nobody can say how many were lost."""
        self.unreported.setdefault(reason, Counter())

    def recall(self, remembered: Mapping[str, Counter[str]]) -> None:
        """Take in what the disk remembers; what is known already is the same losses, not more of them."""
        for reason, dropped in remembered.items():
            self.unreported[reason] = self.unreported.get(reason, Counter()) | dropped

    def to_report(self) -> dict[str, Counter[str]]:
        """What to report now: nothing while losses go on, because one report should cover them all."""
        return dict(self.unreported) if self._monotonic_s() - self._last_s >= _QUIET_S else {}

    def forget(self) -> None:
        """They have been reported."""
        self.unreported.clear()
