"""Parts of a dataset: disjoint, seeded, with every class in each; and the proof that two share no picture."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from build_models.data.dataset import Dataset, make_dataset
from build_models.data.sample import ClassTruth, Sample
from build_models.data.split import check_disjoint, split
from build_models.errors import RecipeError


def dataset_of(counts: list[int], prefix: str = "") -> Dataset:
    """As many pictures of each class; names and digests say which."""
    samples = [
        Sample(
            f"{prefix}{label}/{number}.png", Path("x"), f"{number * 7919 % 997:03}{label}", (4, 4), ClassTruth(label)
        )
        for label, count in enumerate(counts)
        for number in range(count)
    ]
    return make_dataset(samples, "classify")


def names(dataset: Dataset) -> list[str]:
    return [sample.name for sample in dataset.samples]


def test_parts_are_disjoint_and_together_the_whole() -> None:
    whole = dataset_of([40, 30, 30])
    parts = split(whole, [0.6, 0.3, 0.1], seed=1)
    assert [len(part) for part in parts] == [60, 30, 10]
    assert sorted(name for part in parts for name in names(part)) == sorted(names(whole))
    assert len({whole.sha256, *(part.sha256 for part in parts)}) == 4
    for one, other in ((0, 1), (1, 2), (0, 2)):
        check_disjoint(parts[one], parts[other])


def test_what_is_left_over_is_in_no_part() -> None:
    assert [len(part) for part in split(dataset_of([50]), [0.2, 0.2], seed=1)] == [10, 10]


def test_every_part_has_its_share_of_each_class() -> None:
    for part, share in zip(split(dataset_of([200, 40, 10]), [0.7, 0.3], seed=3), (0.7, 0.3), strict=True):
        found = Counter(sample.truth.label for sample in part.samples if isinstance(sample.truth, ClassTruth))
        for label, count in enumerate([200, 40, 10]):
            assert abs(found[label] - share * count) <= 1


def test_the_seed_decides() -> None:
    whole = dataset_of([40, 30])
    first, again, other = (names(split(whole, [0.5], seed=seed)[0]) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_names_and_order_do_not_matter() -> None:
    one, other = dataset_of([20, 20]), dataset_of([20, 20], "z/")
    other = make_dataset(reversed(other.samples), "classify")
    assert [names(part) for part in split(one, [0.5, 0.5], 1)] == [
        [name.removeprefix("z/") for name in names(part)] for part in split(other, [0.5, 0.5], 1)
    ]


def test_an_empty_part_is_refused() -> None:
    with pytest.raises(RecipeError, match="enough pictures for parts of 98%, 2%, found 10; add pictures"):
        split(dataset_of([10]), [0.98, 0.02], 1)


@pytest.mark.parametrize("shares", [[], [0.0, 1.0], [0.7, 0.4], [-0.1]])
def test_shares_that_cannot_be_meant_are_refused(shares: list[float]) -> None:
    with pytest.raises(ValueError, match="expected shares above 0"):
        split(dataset_of([10]), shares, 1)


def test_a_picture_in_both_is_told() -> None:
    train, val = dataset_of([12]), dataset_of([8], "val/")
    with pytest.raises(RecipeError, match="different pictures in train and val, 8 are in both") as caught:
        check_disjoint(train, val)
    assert "0/0.png = val/0/0.png" in str(caught.value)
    assert "and 3 more; remove them from one" in str(caught.value)
