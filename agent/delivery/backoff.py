"""Exponential back-off with jitter, so that a fleet does not return to a broker in one instant."""

from __future__ import annotations

import random


class Backoff:
    """Delays that double from ``first_s`` to ``most_s``, each shortened at random by up to a half."""

    def __init__(self, first_s: float, most_s: float, rng: random.Random | None = None) -> None:
        self._first_s, self._most_s = first_s, most_s
        self._rng = rng or random.Random()  # noqa: S311 - spreads load, guards nothing
        self._step = 0

    def next_s(self) -> float:
        """The next delay, in seconds."""
        delay_s = self.after(self._step)
        self._step += 1
        return delay_s

    def after(self, failures: int) -> float:
        """The delay after so many failures before this one."""
        full_s = min(self._most_s, self._first_s * 2.0 ** min(failures, 30))
        return full_s * self._rng.uniform(0.5, 1.0)

    def reset(self) -> None:
        """Start from the first delay again."""
        self._step = 0
