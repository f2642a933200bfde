"""The gate: what a variant may lose, what it must gain, and what is said of it."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from build_models.advice import after_timing
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
        more_pictures: about how many more it takes to be sure; 0: it is, or a limit of 0 cannot be proved.
    """

    outcome: Outcome
    said: str
    more_pictures: int = 0


@dataclass(frozen=True)
class Timing:
    """What a file takes somewhere, beside fp32.

    Attributes:
        own: of the file.
        fp32: of the fp32 file, in turns with it.
        where: the machine.
        unit: of both.
        by_rounds: the speed against fp32 as the median over rounds in turns, which a busy moment disturbs less than
            the two times; None: it is their quotient.
    """

    own: float
    fp32: float
    where: str
    unit: str = "ms"
    by_rounds: float | None = None

    @property
    def speedup(self) -> float:
        """How many times as fast as fp32 it is."""
        return self.fp32 / self.own if self.by_rounds is None else self.by_rounds

    def __str__(self) -> str:
        return (
            f"{self.own:.4g} {self.unit} against {self.fp32:.4g} of fp32 on {self.where}, {self.speedup:.2f}x its speed"
        )


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
    more = _more_pictures(drop, limit) if drop.high > limit > 0 else 0
    if not drop.value <= limit:  # NaN is beyond
        if not (wide and drop.low <= limit):
            return Accuracy("beyond", figures)
        return Accuracy("beyond", f"{figures}; {_unsure(more)}", more)
    if drop.high <= limit:
        return Accuracy("within", figures)
    return Accuracy("inconclusive", f"{figures}; {_unsure(more)}", more)


def _unsure(more_pictures: int) -> str:
    if more_pictures:
        return f"inconclusive: needs about {more_pictures} more pictures to be sure"
    return "inconclusive: no number of pictures proves that nothing is lost"


def _more_pictures(drop: Drop, limit: float) -> int:
    """About how many more it takes until a drop like this one is within the limit with all of its interval.

    A drop that is beyond it will not be: then, until its interval is no wider than the limit.
    """
    room = limit - max(drop.value, 0.0)
    return max(needed_pictures(drop, drop.pictures, room if room > 0 else limit) - drop.pictures, 1)


def refuse_for_accuracy(accuracy: Accuracy, budget: Budget) -> str | None:
    """Why a variant does not ship, or None."""
    if accuracy.outcome == "beyond":
        return f"beyond the budget: {accuracy.said}"
    if accuracy.outcome == "inconclusive" and budget.inconclusive == "refuse":
        return f"not proved within the budget: {accuracy.said}"
    return None


def judge_speed(
    piece: Workpiece, results: Mapping[str, Mapping[str, Any]]
) -> tuple[list[Candidate], list[dict[str, Any]]]:
    """Take from every int8 variant the machines on which it is too slow; without any left it is refused.

    A time counts for the kind of machine it was taken on: here, or on a device whose figures were given. A machine
    without a figure keeps the variant, and the report says that its speed is not known.

    Args:
        piece: its candidates.
        results: of `compare_latency` on this machine, by variant.

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
        kept, reasons, advice = [], [], list(each.advice)
        for arch in dict.fromkeys(host.arch for host in hosts):
            mine = [host for host in hosts if host.arch == arch]
            timings = []
            if each.variant.id == _chosen_here(piece) and runs_here(mine) and each.variant.id in results:
                timings.append(_timed_here(results[each.variant.id], results[FP32]))
            for device in piece.measured:
                times = device.times(digests[each.variant.id], digests[FP32])
                if device.device.arch == arch and times is not None:
                    timings.append(Timing(*times, device.said, device.unit))
            slow = [(why, timing) for timing in timings if (why := refuse_for_speed(timing, budget))]
            told.append(
                {
                    "variant": each.variant.id,
                    "arch": arch,
                    "speedups": {timing.where: round(timing.speedup, 3) for timing in timings},
                    "refused": slow[0][0] if slow else None,
                }
            )
            if slow:
                why, timing = slow[0]
                reasons.append(why)
                if budget.min_speedup is not None:
                    advice += after_timing(timing.speedup, each.variant.id, timing.where)
            else:
                kept += mine
        refused = each.refused or ("; ".join(reasons) if not kept else None)
        missed = each.missed_budget or (bool(reasons) and budget.min_speedup is not None)
        requires = each.variant.requires.model_copy(update={"any_of": kept or hosts})
        variant = each.variant.model_copy(update={"requires": requires})
        judged.append(
            dataclasses.replace(each, variant=variant, refused=refused, missed_budget=missed, advice=tuple(advice))
        )
    return judged, told


def refuse_for_speed(timing: Timing, budget: Budget) -> str | None:
    """Why a variant does not ship for a kind of machine, or None.

    Args:
        timing: measured in turns with fp32.
        budget: its ``min_speedup``; without one, the variant must be faster at all.
    """
    least = budget.min_speedup
    if least is None and timing.speedup <= 1:
        return f"not faster than fp32: {timing}; fp32 serves there"
    if least is not None and timing.speedup < least:
        return f"not fast enough: {timing}, the least is {least:g}x"
    return None


def unused_figures(piece: Workpiece) -> list[str]:
    """What devices measured that says nothing of this bundle's files; one sentence each."""
    digests = {_sha256(piece.folder / each.variant.file): each.variant.id for each in piece.candidates}
    said = []
    for device in piece.measured:
        unknown = [each.variant for each in device.results if each.sha256 not in digests]
        if unknown:
            said.append(
                f"--measured, {device.said}: {', '.join(unknown)} there is another file than this bundle's, so its "
                "figures do not count; run `edge-agent bench` there with this bundle and give what that prints"
            )
        elif FP32 not in {digests[each.sha256] for each in device.results}:
            said.append(
                f"--measured, {device.said}: {FP32} was not measured there, so nothing can be compared with it; "
                "run `edge-agent bench` there without --variant"
            )
    return said


def _chosen_here(piece: Workpiece) -> str | None:
    """The variant that this machine would take: a time on it says nothing of one made for machines that lack more."""
    for each in piece.candidates:
        hosts = each.variant.requires.any_of
        if hosts and "cpu" in each.variant.providers and runs_here(hosts):
            return each.variant.id
    return None


def _timed_here(own: Mapping[str, Any], fp32: Mapping[str, Any]) -> Timing:
    by_rounds = float(fp32["ratio"]) / float(own["ratio"])
    return Timing(own["median_ms"], fp32["median_ms"], "this machine", by_rounds=by_rounds)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
