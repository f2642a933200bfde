"""What to try when a variant missed the budget: one to four sentences, the likeliest first."""

from __future__ import annotations

import math
import typing
from typing import TYPE_CHECKING

from build_models.recipe import MethodName

if TYPE_CHECKING:
    from build_models.metrics.bootstrap import Drop
    from build_models.quantize.found import Found
    from build_models.recipe import Recipe

_FEW_PICTURES = 100


def after_search(found: Found, recipe: Recipe, *, labelled: bool, calibration: int) -> tuple[str, ...]:
    """Nothing kept the budget on the search pictures.

    Args:
        found: every file that was tried.
        recipe: its limits.
        labelled: whether the search pictures are.
        calibration: how many pictures calibrated.
    """
    few = f"only {calibration} calibrated" if calibration < _FEW_PICTURES else f"{calibration} calibrated"
    tried = [f"data.train with more pictures like those that the device will see: {few}"]
    quantize = recipe.quantize
    left_out = [name for name in typing.get_args(MethodName) if name not in quantize.methods]
    left_out += [name for name in ("equalize", "bias") if name not in quantize.corrections]
    if left_out:
        tried.append(
            f"quantize.methods and quantize.corrections with all there are; {', '.join(left_out)} are left out"
        )
    share = max(attempt.float_share for attempt in found.attempts)
    if quantize.most_float_share < 1 and found.sensitivities:
        tried.append(
            f"quantize.most_float_share above {quantize.most_float_share:g}: up to {share:.0%} of the arithmetic was "
            "tried in float"
        )
    return (*tried, *_larger(found.closest.drop.value, "the search pictures", labelled=labelled))


def after_judgement(
    drop: Drop, more_pictures: int, on_search: float | None, recipe: Recipe, *, labelled: bool, limit: float
) -> tuple[str, ...]:
    """The judge refused what the search took.

    Args:
        drop: on the pictures that judge.
        more_pictures: about how many more it would take to be sure; 0: it is sure.
        on_search: the same file's drop on the search pictures.
        recipe: its budget.
        labelled: whether the pictures are.
        limit: the most that may be lost.
    """
    tried = []
    if more_pictures:
        source = "data.val" if recipe.data and recipe.data.val else "data.train, or a data.val of its own,"
        tried.append(f"{source} with about {more_pictures} more pictures: {drop.pictures} are too few to tell")
    if drop.value <= limit:
        tried.append("budget.inconclusive: ship, if the figures as they are will do")
        return tuple(tried)
    if on_search is not None and on_search <= limit:
        tried.append(
            f"data.train with pictures like those of val: on its own the file lost {on_search:.4f}, "
            f"on val {drop.value:.4f}"
        )
    return (*tried, *_larger(drop.value, "val", labelled=labelled))


def after_timing(speedup: float, target: str, where: str) -> tuple[str, ...]:
    """A variant is slower than ``budget.min_speedup`` demands.

    Args:
        speedup: of the variant.
        target: its id.
        where: the machine.
    """
    reached = math.floor(speedup * 100) / 100
    slower = f"budget.min_speedup of at most {reached:g} for {target} on {where}, or none"
    return (
        f"{slower}: fp32 then serves where int8 is not faster",
        "a smaller quantize.targets, if no device of yours needs that file",
    )


def _larger(drop: float, where: str, *, labelled: bool) -> tuple[str, ...]:
    """The budget that the closest file would keep; nothing where there is no such number."""
    key = "budget.max_drop" if labelled else "budget.max_disagreement"
    if not math.isfinite(drop) or drop > 1:
        return ()
    kept = max(math.ceil(drop * 1000), 1) / 1000
    return (f"{key} of {kept:g}, if that loss is acceptable: so much was lost on {where}",)
