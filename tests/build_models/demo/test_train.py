from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the torch extra")

from build_models.demo.train import train

pytestmark = pytest.mark.torch


def test_a_seed_gives_the_same_weights_again_and_another_seed_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("build_models.demo.train.BATCH", 2)
    first, again, other = (_first_weights(seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def _first_weights(seed: int) -> np.ndarray:
    return np.asarray(next(iter(train(2, seed, pool_pictures=4).parameters())).detach().numpy())
