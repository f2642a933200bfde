"""Disjoint parts of a dataset, and the proof that two datasets share no picture."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from build_models.data.sample import ClassTruth
from build_models.errors import RecipeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from build_models.data.dataset import Dataset
    from build_models.data.sample import Sample

_ROUNDING = 1e-9
_NAMED = 5


def split(dataset: Dataset, shares: Sequence[float], seed: int) -> list[Dataset]:
    """Cut a dataset into disjoint parts; classes are spread evenly over them.

    The parts depend on the pictures' contents, their classes and the seed alone.

    Args:
        dataset: what to cut.
        shares: of each part, above 0, together at most 1; what is left over is in no part.
        seed: another seed, other parts.

    Raises:
        RecipeError: a part would be empty.
    """
    if not shares or min(shares) <= 0 or sum(shares) > 1 + _ROUNDING:
        raise ValueError(f"expected shares above 0 that are together at most 1, got {list(shares)}")
    ordered = _spread(dataset.samples, np.random.default_rng(seed))
    cuts = [round(len(ordered) * min(1.0, sum(shares[:index]))) for index in range(len(shares) + 1)]
    if any(first == last for first, last in pairwise(cuts)):
        parts = ", ".join(f"{share:.0%}" for share in shares)
        raise RecipeError(f"expected enough pictures for parts of {parts}, found {len(ordered)}; add pictures")
    return [dataset.subset(ordered[first:last]) for first, last in pairwise(cuts)]


def check_disjoint(one: Dataset, other: Dataset, names: tuple[str, str] = ("train", "val")) -> None:
    """Refuse datasets that share a picture (the same bytes), such as training pictures among those that judge.

    Raises:
        RecipeError: names some of them.
    """
    names_of_one = {sample.sha256: sample.name for sample in one.samples}
    shared = [(names_of_one[each.sha256], each.name) for each in other.samples if each.sha256 in names_of_one]
    if shared:
        some = ", ".join(name if name == its else f"{name} = {its}" for name, its in shared[:_NAMED])
        more = f" and {len(shared) - _NAMED} more" if len(shared) > _NAMED else ""
        raise RecipeError(
            f"expected different pictures in {names[0]} and {names[1]}, {len(shared)} are in both: {some}{more}; "
            "remove them from one, or the figures say more than is true"
        )


def _spread(samples: Sequence[Sample], rng: np.random.Generator) -> list[Sample]:
    """In random order, but so that every stretch has of each class what is its due, within one picture.

    The n pictures of a class are put at random at 1/n from each other (systematic sampling), and the classes merged.
    """
    by_class: dict[int, list[Sample]] = {}
    for sample in samples:  # by digest, so the files' names do not matter
        label = sample.truth.label if isinstance(sample.truth, ClassTruth) else 0
        by_class.setdefault(label, []).append(sample)
    placed = []
    for label in sorted(by_class):
        group = by_class[label]
        places = (rng.permutation(len(group)) + rng.random()) / len(group)
        placed += [(place, sample.sha256, sample) for place, sample in zip(places.tolist(), group, strict=True)]
    return [sample for _, _, sample in sorted(placed, key=lambda entry: entry[:2])]
