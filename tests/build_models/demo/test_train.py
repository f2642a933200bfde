from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the torch extra")

from build_models.demo.train import PEAK_LEARNING_RATE, learning_rate, train

pytestmark = pytest.mark.torch


def test_a_seed_gives_the_same_weights_again_and_another_seed_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("build_models.demo.train.BATCH", 2)
    first, again, other = (_first_weights(seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_the_learning_rate_rises_then_falls_to_nothing() -> None:
    rates = [learning_rate(step, 3000) for step in range(3000)]
    assert max(rates) == pytest.approx(PEAK_LEARNING_RATE)
    assert rates[0] < rates[100] < rates[199]
    assert rates[1000] > rates[2000] > rates[2999]
    assert rates[2999] < PEAK_LEARNING_RATE / 1000


def _first_weights(seed: int) -> np.ndarray:
    return np.asarray(next(iter(train(2, seed, pool_pictures=4).parameters())).detach().numpy())
