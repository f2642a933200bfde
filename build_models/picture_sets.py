"""The recipe's pictures, divided: to calibrate, to search, to judge; the same recipe and pictures, the same parts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from build_models.data.dataset import load_dataset
from build_models.data.split import check_disjoint, split
from build_models.errors import RecipeError
from build_models.pictures import Pictures
from build_models.workpiece import PictureSets

if TYPE_CHECKING:
    from agent.model.manifest import InputSpec
    from build_models.data.dataset import Dataset
    from build_models.progress import Progress
    from build_models.recipe import Data, Recipe

_LEAST = {"calibration": 1, "search": 2, "val": 2}


def load_picture_sets(recipe: Recipe, spec: InputSpec, progress: Progress) -> tuple[PictureSets, dict[str, Any]]:
    """List the pictures of ``data`` and divide them; nothing is decoded yet.

    Args:
        recipe: its ``data``.
        spec: the model's input.
        progress: shows the files being read.

    Raises:
        RecipeError: ``data`` is missing, something is wrong with the files, or there are too few.
    """
    data = recipe.data
    if data is None:
        raise RecipeError(
            "data.train is missing: pictures like those the device will see are needed to verify, and to quantise"
        )
    train = load_dataset(data.train, recipe.labels, recipe.task, progress)
    if data.val is not None:
        val = load_dataset(data.val, recipe.labels, recipe.task, progress)
        check_disjoint(train, val)
        rest = train
    else:
        rest, val = _split(train, data.val_share, data.seed)
    calibration, search = _split(rest, data.search_share, data.seed)
    parts = {
        "calibration": _at_most(calibration, data.most_calibration, data.seed),
        "search": _at_most(search, data.most_search, data.seed),
        "val": val,
    }
    for name, part in parts.items():
        if len(part) < _LEAST[name]:
            raise RecipeError(_too_few(data, name, len(train), len(val)))
    sets = PictureSets(*(Pictures(part, spec) for part in parts.values()))
    labelled = " with labels" if val.task else ""
    said = f"{len(parts['calibration'])} to calibrate, {len(parts['search'])} to search, {len(val)}{labelled} to judge"
    facts = {
        name: {"pictures": len(part), "labelled": part.task is not None, "sha256": part.sha256}
        for name, part in parts.items()
    }
    return sets, {"said": said, **facts}


def _split(dataset: Dataset, share: float, seed: int) -> tuple[Dataset, Dataset]:
    """The larger rest and the share, which has two pictures at least."""
    share = max(share, min(2 / len(dataset), 0.5))
    rest, part = split(dataset, [1 - share, share], seed)
    return rest, part


def _at_most(dataset: Dataset, most: int, seed: int) -> Dataset:
    """A seeded part of a set that is too large."""
    if len(dataset) <= most:
        return dataset
    return split(dataset, [most / len(dataset)], seed)[0]


def _too_few(data: Data, name: str, train: int, val: int) -> str:
    have = f"train has {train}, val {val}" if data.val is not None else f"train has {train} for all three uses"
    return f"data: too few pictures left for {name}: {have}; 50 to 500 are usual to calibrate, more to judge"
