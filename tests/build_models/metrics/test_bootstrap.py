"""The interval of a drop: it covers the truth as often as it says, and is not too sure of few pictures."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest

from build_models.errors import RecipeError
from build_models.metrics import bootstrap
from build_models.metrics.bootstrap import Drop, needed_pictures, paired_bootstrap, score_interval
from build_models.metrics.iou import MeanIou
from build_models.metrics.top_k import TopK

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

TRIALS = 300
TOP1 = TopK(1)


def drop_of(low: float, high: float, pictures: int = 100) -> Drop:
    return Drop((low + high) / 2, low, high, 0.9, 0.9 - (low + high) / 2, pictures, "bootstrap")


def pairs(lost: int, gained: int, pictures: int) -> tuple[list[float], list[float]]:
    reference = [1.0] * lost + [0.0] * gained + [1.0] * (pictures - lost - gained)
    candidate = [0.0] * lost + [1.0] * gained + [1.0] * (pictures - lost - gained)
    return reference, candidate


def covered(drops: Sequence[Drop], truth: float) -> float:
    return sum(drop.low <= truth <= drop.high for drop in drops) / len(drops)


@pytest.mark.parametrize(("lost", "gained", "pictures"), [(0.06, 0.03, 200), (0.02, 0.01, 100), (0.1, 0.0, 60)])
def test_the_interval_of_top_1_covers_the_true_drop(lost: float, gained: float, pictures: int) -> None:
    rng = np.random.default_rng(7)
    drops = []
    for seed in range(TRIALS):
        counts = rng.multinomial(pictures, [lost, gained, 1 - lost - gained])
        drops.append(paired_bootstrap(TOP1, *pairs(counts[0], counts[1], pictures), seed=seed, resamples=400))
    assert 0.90 <= covered(drops, lost - gained) <= 0.99


def test_the_interval_of_iou_covers_the_true_drop() -> None:
    """Pictures of different difficulty, two classes, both models wrong in much the same places."""
    rng = np.random.default_rng(8)
    measure = MeanIou(2)

    def observe(count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        size = rng.integers(500, 1500, (count, 2))
        error = rng.beta(2, 18, (count, 1)) * np.array([[1.0, 1.6]])
        extra = rng.gamma(1.0, 0.02, (count, 1))

        def counted(share: NDArray[np.float64]) -> NDArray[np.int64]:
            right = (size * (1 - np.minimum(share, 1))).astype(np.int64)
            said = right + (size - right)[:, ::-1]  # what one class loses the other gets
            return np.stack([right, said, size], axis=1)

        return counted(error), counted(error + extra)

    def true_drop() -> float:
        one, other = observe(200_000)
        everything = np.ones((1, 200_000), np.int64)
        return float((measure.values(list(one), everything) - measure.values(list(other), everything))[0])

    drops = []
    for seed in range(TRIALS):
        reference, candidate = observe(60)
        drops.append(paired_bootstrap(measure, list(reference), list(candidate), seed=seed, resamples=400))
    assert 0.90 <= covered(drops, true_drop()) <= 0.99
    assert covered(drops, true_drop() + 0.05) < 0.2  # the control: it does not cover everything


def test_the_pictures_are_drawn_in_pairs() -> None:
    """Two models that fail on the same pictures differ little, however hard the pictures are."""
    rng = np.random.default_rng(3)
    reference = (rng.random(200) < 0.5).astype(float).tolist()
    candidate = [0.0, *reference[1:]] if reference[0] else reference
    candidate[1] = 1 - candidate[1]
    alike = paired_bootstrap(TOP1, reference, candidate)
    unlike = paired_bootstrap(TOP1, reference, rng.permutation(candidate).tolist())
    assert alike.half_width * 3 < unlike.half_width


def test_the_same_seed_gives_the_same_interval_and_pieces_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    both = pairs(9, 3, 150)
    first = paired_bootstrap(TOP1, *both, seed=5)
    assert paired_bootstrap(TOP1, *both, seed=5) == first
    monkeypatch.setattr(bootstrap, "_WEIGHTS_AT_ONCE", 150 * 100)
    in_pieces = paired_bootstrap(TOP1, *both, seed=5)
    assert (in_pieces.low, in_pieces.high) == pytest.approx((first.low, first.high), abs=0.01)
    assert first.value == pytest.approx(6 / 150)
    assert (first.reference, first.candidate) == pytest.approx((147 / 150, 141 / 150))
    assert first.pictures == 150


@pytest.mark.parametrize("pictures", [5, 50, 5000])
def test_no_difference_on_few_pictures_is_no_certainty(pictures: int) -> None:
    drop = paired_bootstrap(TOP1, *pairs(0, 0, pictures))
    assert drop.value == 0
    assert drop.method == "score"
    assert drop.high == pytest.approx(3.8415 / (pictures + 3.8415), rel=1e-3)
    assert drop.low == pytest.approx(-drop.high, rel=1e-6)


def test_a_measure_without_verdicts_is_not_sure_of_few_pictures_either() -> None:
    same = [np.array([[5, 4], [6, 5], [6, 5]])] * 10
    drop = paired_bootstrap(MeanIou(2), same, same)
    assert (drop.value, drop.method) == (0, "score")
    assert drop.high == pytest.approx(3.8415 / 13.8415, rel=1e-3)
    assert drop.low == -drop.high


def test_one_differing_picture_widens_the_interval_beyond_the_bootstraps() -> None:
    drop = paired_bootstrap(TOP1, *pairs(1, 0, 100))
    assert drop.method == "score"
    assert drop.low < 0
    assert 0.03 < drop.high < 0.06


@pytest.mark.parametrize(("lost", "gained", "pictures"), [(12, 2, 50), (0, 0, 9), (3, 0, 40), (1, 7, 30), (40, 0, 40)])
def test_the_score_interval_is_tangos(lost: int, gained: int, pictures: int) -> None:
    """At its ends the score statistic is 1.96, with the unknown share found by maximising the likelihood."""

    def statistic(drop: float) -> float:
        share = np.linspace(max(0.0, -drop), (1 - drop) / 2, 400_001)[1:-1]  # gained only; lost only is share + drop
        likelihood = lost * np.log(share + drop) + gained * np.log(share)
        likelihood += (pictures - lost - gained) * np.log(np.maximum(1 - 2 * share - drop, 1e-300))
        best = share[int(np.argmax(likelihood))]
        return float((lost - gained - pictures * drop) / math.sqrt(pictures * (2 * best + drop - drop * drop)))

    low, high = score_interval(lost, gained, pictures)

    assert low <= (lost - gained) / pictures <= high
    assert statistic(low) == pytest.approx(1.96, abs=0.02)
    if high < 1:
        assert statistic(high) == pytest.approx(-1.96, abs=0.02)


def test_the_number_of_pictures_that_are_needed() -> None:
    assert needed_pictures(drop_of(-0.02, 0.04), 100, 0.01) == 900
    assert needed_pictures(drop_of(-0.004, 0.006), 100, 0.01) == 100
    nothing_seen = paired_bootstrap(TOP1, *pairs(0, 0, 50))
    needed = needed_pictures(nothing_seen, 50, 0.005)
    assert needed == 765
    assert paired_bootstrap(TOP1, *pairs(0, 0, needed)).half_width <= 0.005
    assert paired_bootstrap(TOP1, *pairs(0, 0, needed - 5)).half_width > 0.005
    with pytest.raises(ValueError, match="a budget above 0"):
        needed_pictures(nothing_seen, 50, 0)


def test_pictures_that_say_nothing_are_refused() -> None:
    with pytest.raises(RecipeError, match="whose labels top1 can judge, got 0 without any"):
        paired_bootstrap(TOP1, [], [])
    with pytest.raises(RecipeError, match="got 2 without any"):
        paired_bootstrap(TOP1, [math.nan] * 2, [math.nan] * 2)
    with pytest.raises(ValueError, match="the same pictures, got 2 of the reference, 1"):
        paired_bootstrap(TOP1, [1.0, 1.0], [1.0])


def test_pictures_that_do_not_count_change_nothing() -> None:
    reference, candidate = pairs(3, 1, 50)
    alone = paired_bootstrap(TOP1, reference, candidate)
    among = paired_bootstrap(TOP1, reference + [math.nan] * 50, candidate + [math.nan] * 50)
    assert among.value == pytest.approx(alone.value)
    assert (among.low, among.high) == pytest.approx((alone.low, alone.high), abs=0.03)
