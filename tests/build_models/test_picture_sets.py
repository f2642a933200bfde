"""The division of the pictures: no picture serves twice, and the same recipe and pictures give the same parts."""

from __future__ import annotations

import io
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the build extra")

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.model.manifest import InputSpec
from build_models.errors import RecipeError
from build_models.picture_sets import load_picture_sets
from build_models.progress import Progress
from build_models.recipe_file import make_recipe

if TYPE_CHECKING:
    from collections.abc import Iterator

    from build_models.workpiece import PictureSets

pytestmark = pytest.mark.build

SPEC = InputSpec(height=16, width=16)
NAMES = ("calibration", "search", "val")


@pytest.fixture(scope="module")
def many() -> Iterator[Path]:
    """A folder with 60 pictures, of which parts are linked into others."""
    with tempfile.TemporaryDirectory() as name:
        yield write_pictures(Path(name), range(60))


def write_pictures(folder: Path, seeds: range) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        picture = np.random.default_rng(seed).integers(0, 256, (16, 16, 3)).astype(np.uint8)
        cv2.imwrite(str(folder / f"{seed}.png"), picture)
    return folder


def load(train: Path, val: Path | None = None, **data: Any) -> tuple[PictureSets, dict[str, Any]]:
    values: dict[str, Any] = {"train": {"format": "pictures", "path": str(train), "limit": data.pop("limit", None)}}
    if val is not None:
        values["val"] = {"format": "pictures", "path": str(val)}
    recipe = make_recipe(
        {
            "name": "sets",
            "source": {"kind": "onnx", "path": "none.onnx"},
            "output": {"family": "yolox"},
            "labels": ["a"],
            "data": {**values, **data},
        }
    )
    return load_picture_sets(recipe, SPEC, Progress(1, io.StringIO()))


def digests(sets: PictureSets) -> dict[str, list[str]]:
    return {name: [each.sha256 for each in getattr(sets, name).dataset.samples] for name in NAMES}


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(5, 60),
    val_share=st.floats(0.01, 0.99),
    search_share=st.floats(0.01, 0.99),
    most=st.integers(2, 20),
    seed=st.integers(0, 1000),
)
def test_no_picture_is_in_two_parts_whatever_the_shares(
    many: Path, count: int, val_share: float, search_share: float, most: int, seed: int
) -> None:
    data: dict[str, Any] = {"val_share": val_share, "search_share": search_share, "seed": seed}
    try:
        sets, told = load(many, limit=count, most_calibration=most, most_search=most, **data)
    except RecipeError as err:
        assert "too few pictures" in str(err) or "add pictures" in str(err)  # noqa: PT017 - either of two outcomes
        return
    parts = digests(sets)
    everything = [sha256 for part in parts.values() for sha256 in part]
    assert len(set(everything)) == len(everything) <= count
    assert 1 <= len(parts["calibration"]) <= most
    assert 2 <= len(parts["search"]) <= most
    assert len(parts["val"]) >= 2
    assert {name: told[name]["pictures"] for name in NAMES} == {name: len(part) for name, part in parts.items()}


def test_the_parts_depend_on_contents_and_seed_not_on_names(many: Path, tmp_path: Path) -> None:
    for number, path in enumerate(sorted(many.iterdir(), reverse=True)):
        shutil.copy(path, tmp_path / f"renamed-{number}.png")
    parts = digests(load(many, search_share=0.4)[0])
    assert digests(load(tmp_path, search_share=0.4)[0]) == parts
    assert digests(load(many, search_share=0.4, seed=1)[0]) != parts
    assert {name: len(part) for name, part in parts.items()} == {"calibration": 22, "search": 14, "val": 24}


def test_pictures_of_their_own_judge_whole_and_alone(many: Path, tmp_path: Path) -> None:
    val = write_pictures(tmp_path / "val", range(100, 109))
    sets, told = load(many, val, search_share=0.4)
    assert (len(sets.calibration), len(sets.search), len(sets.val)) == (36, 24, 9)
    assert told["said"] == "36 to calibrate, 24 to search, 9 to judge"


def test_a_training_picture_among_those_that_judge_is_refused(many: Path, tmp_path: Path) -> None:
    val = write_pictures(tmp_path / "val", range(58, 70))  # two of them are in train
    with pytest.raises(RecipeError, match=r"2 are in both: .*(58|59)\.png.*the figures say more than is true"):
        load(many, val)


def test_also_a_renamed_one(many: Path, tmp_path: Path) -> None:
    val = write_pictures(tmp_path / "val", range(100, 109))
    shutil.copy(many / "3.png", val / "innocent.png")
    with pytest.raises(RecipeError, match=r"1 are in both: .*3\.png = innocent\.png|1 are in both: .*innocent"):
        load(many, val)


def test_a_picture_that_calibration_leaves_out_is_not_judged_either(many: Path, tmp_path: Path) -> None:
    """``most_calibration`` drops pictures of train; they may not come back through val."""
    val = write_pictures(tmp_path / "val", range(5))
    with pytest.raises(RecipeError, match="5 are in both"):
        load(many, val, most_calibration=2, most_search=2)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4])
def test_too_few_pictures_are_told(tmp_path: Path, count: int) -> None:
    write_pictures(tmp_path, range(count))
    with pytest.raises(RecipeError) as caught:
        load(tmp_path)
    assert len(str(caught.value).splitlines()) == 1
    assert "pictures" in str(caught.value)


def test_five_are_enough_to_divide(tmp_path: Path) -> None:
    sets, _ = load(write_pictures(tmp_path, range(5)))
    assert min(len(sets.calibration), len(sets.search), len(sets.val)) >= 1


def test_without_data_it_is_said_what_pictures_are_for() -> None:
    recipe = make_recipe(
        {
            "name": "sets",
            "source": {"kind": "onnx", "path": "none.onnx"},
            "output": {"family": "yolox"},
            "labels": ["a"],
        }
    )
    with pytest.raises(RecipeError, match=r"data\.train is missing: pictures like those the device will see"):
        load_picture_sets(recipe, SPEC, Progress(1, io.StringIO()))
