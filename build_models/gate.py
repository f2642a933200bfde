"""The gate: what a variant may lose, what it must gain, and what is said of it."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from build_models.machines import runs_here
from build_models.metrics.bootstrap import needed_pictures
from build_models.workpiece import FP32

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from build_models.metrics.bootstrap import Drop
    from build_models.recipe import Budget
    from build_models.workpiece import Candidate, Workpiece

Outcome = Literal["within", "inconclusive", "beyond"]


@dataclass(frozen=True, slots=True)
class Accuracy:
    """How a drop stands to the budget.

    Attributes:
        outcome: ``within``: all of the interval is; ``inconclusive``: the drop is, its interval is not; ``beyond``.
        said: one sentence with the figures.
    """

    outcome: Outcome
    said: str


def judge_drop(drop: Drop, metric: str, limit: float) -> Accuracy:
    """Whether a drop keeps the limit, and how sure that is.

    Args:
        drop: with its 95 % interval.
        metric: its name, for the sentence.
        limit: the most that may be lost.
    """
    figures = (
        f"{metric} {drop.reference:.4f} -> {drop.candidate:.4f}, drop {drop.value:+.4f} "
        f"(95 % interval {drop.low:+.4f} to {drop.high:+.4f}, {drop.pictures} pictures), the most is {limit:g}"
    )
    wide = drop.half_width > limit
    more = max(needed_pictures(drop, drop.pictures, limit) - drop.pictures, 1) if drop.high > limit > 0 else 0
    if not drop.value <= limit:  # NaN is beyond
        unsure = f"; inconclusive: needs about {more} more pictures" if wide and drop.low <= limit else ""
        return Accuracy("beyond", figures + unsure)
    if drop.high <= limit:
        return Accuracy("within", figures)
    return Accuracy("inconclusive", f"{figures}; inconclusive: needs about {more} more pictures to be sure")


def refuse_for_accuracy(accuracy: Accuracy, budget: Budget) -> str | None:
    """Why a variant does not ship, or None."""
    if accuracy.outcome == "beyond":
        return f"beyond the budget: {accuracy.said}"
    if accuracy.outcome == "inconclusive" and budget.inconclusive == "refuse":
        return f"not proved within the budget: {accuracy.said}"
    return None


def judge_speed(piece: Workpiece, times_ms: Mapping[str, float]) -> tuple[list[Candidate], list[dict[str, Any]]]:
    """Take from every int8 variant the machines on which it is too slow; without any left it is refused.

    A time counts for the kind of machine it was taken on: here, or on a device whose figures were given. A machine
    without a figure keeps the variant, and the report says that its speed is not known.

    Args:
        piece: its candidates.
        times_ms: median latency on this machine by variant.

    Returns:
        The candidates, and what was found of each variant and machine.
    """
    budget = piece.recipe.budget
    digests = {each.variant.id: _sha256(piece.folder / each.variant.file) for each in piece.candidates}
    judged, told = [], []
    for each in piece.candidates:
        hosts = each.variant.requires.any_of
        if each.variant.id == FP32 or not hosts:
            judged.append(each)
            continue
        kept, reasons = [], []
        for arch in dict.fromkeys(host.arch for host in hosts):
            mine = [host for host in hosts if host.arch == arch]
            figures = []
            if runs_here(mine) and each.variant.id in times_ms:
                figures.append((times_ms[FP32] / times_ms[each.variant.id], "this machine"))
            for device in piece.measured:
                speedup = device.speedup(digests[each.variant.id], digests[FP32])
                if device.device.arch == arch and speedup is not None:
                    figures.append((speedup, device.said))
            slow = [why for speedup, where in figures if (why := refuse_for_speed(speedup, budget, where))]
            told.append(
                {
                    "variant": each.variant.id,
                    "arch": arch,
                    "speedups": {where: round(speedup, 3) for speedup, where in figures},
                    "refused": slow[0] if slow else None,
                }
            )
            if slow:
                reasons += slow[:1]
            else:
                kept += mine
        refused = each.refused or ("; ".join(reasons) if not kept else None)
        missed = each.missed_budget or (bool(reasons) and budget.min_speedup is not None)
        requires = each.variant.requires.model_copy(update={"any_of": kept or hosts})
        variant = each.variant.model_copy(update={"requires": requires})
        judged.append(dataclasses.replace(each, variant=variant, refused=refused, missed_budget=missed))
    return judged, told


def refuse_for_speed(speedup: float, budget: Budget, where: str) -> str | None:
    """Why a variant does not ship for a kind of machine, or None.

    Args:
        speedup: time of fp32 over its time, both measured in turns.
        budget: its ``min_speedup``; without one, the variant must be faster at all.
        where: the machine, for the sentence.
    """
    least = budget.min_speedup
    if least is None and speedup <= 1:
        return f"not faster than fp32 on {where}: {speedup:.2f}x its speed; fp32 serves there"
    if least is not None and speedup < least:
        return f"{speedup:.2f}x as fast as fp32 on {where}, the least is {least:g}x"
    return None


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
