"""Disjoint parts of a dataset, and the proof that two datasets share no picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from build_models.data.dataset import Dataset


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
    raise NotImplementedError


def check_disjoint(one: Dataset, other: Dataset, names: tuple[str, str] = ("train", "val")) -> None:
    """Refuse datasets that share a picture (the same bytes), such as training pictures among those that judge.

    Raises:
        RecipeError: names some of them.
    """
    raise NotImplementedError
