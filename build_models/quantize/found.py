"""What a search found: every file that was made, and the one to take."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from build_models.quantize.attempts import Attempt
    from build_models.quantize.sensitivity import Sensitivity

_LISTED = 3
_AS_FAST = 1.03  # timings differ by so much from run to run


@dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes:
        attempts: all files that were made, in order.
        chosen: the good one, or the best of those within the limit; None: none is.
        closest: of all, the one that keeps most of fp32's answers.
        limit: the most that may be lost on the search pictures.
        aim: what a file may lose to be called good.
        sensitivities: measured when exceptions were needed.
        reasons: why each node of ``chosen`` is in float, by name.
    """

    attempts: tuple[Attempt, ...]
    chosen: Attempt | None
    closest: Attempt
    limit: float
    aim: float
    sensitivities: tuple[Sensitivity, ...]
    reasons: dict[str, str]

    @property
    def shortlist(self) -> list[Attempt]:
        """The attempts that something speaks for: within the limit, those that keep most and those least in float."""
        within = [each for each in self.attempts if each.drop.value <= self.limit]
        best = [*sorted(within, key=by_agreement)[:_LISTED], *sorted(within, key=by_float_share)[:_LISTED]]
        chosen = [self.chosen] if self.chosen else []
        return list({each.sha256: each for each in [*chosen, *best]}.values())

    def with_times(self, times: Mapping[str, dict[str, float]], least_speedup: float) -> Found:
        """The same with latencies by digest, and chosen by them.

        Of those that are fast enough a good one goes before one that is within the limit only; then the fastest wins,
        and of those that are as fast, the one that keeps most of fp32's answers. Is none fast enough, the choice stays.
        """
        attempts = tuple(
            dataclasses.replace(each, latency={"here": times[each.sha256]}) if each.sha256 in times else each
            for each in self.attempts
        )
        timed = [each for each in attempts if each.latency and each.drop.value <= self.limit]
        fast = [each for each in timed if each.latency["here"]["speedup"] > least_speedup]
        pool = [each for each in fast if each.good] or fast
        if self.chosen is None or not pool:
            chosen = next((each for each in attempts if self.chosen and each.sha256 == self.chosen.sha256), None)
        else:
            fastest_ms = min(each.latency["here"]["median_ms"] for each in pool)
            as_fast = [each for each in pool if each.latency["here"]["median_ms"] <= fastest_ms * _AS_FAST]
            chosen = min(as_fast, key=by_agreement)
        return dataclasses.replace(self, attempts=attempts, chosen=chosen)


def by_agreement(attempt: Attempt) -> tuple[float, float, str]:
    """Those that keep most of fp32's answers first."""
    value = attempt.agreement.value
    return (value if np.isfinite(value) else np.inf, attempt.float_share, attempt.sha256)


def by_float_share(attempt: Attempt) -> tuple[float, float, str]:
    """Those with least arithmetic in float first."""
    return (attempt.float_share, attempt.drop.value, attempt.sha256)


def plain(found: Found) -> dict[str, Any]:
    """For the report."""
    return {
        "attempts": [each.plain() for each in found.attempts],
        "chosen": found.chosen.sha256 if found.chosen else None,
        "closest": found.closest.sha256,
        "sensitivities": [
            {"site": each.site, "kind": each.kind, "sqnr_db": round(each.sqnr_db, 2)} for each in found.sensitivities
        ],
        "reasons": found.reasons,
    }
