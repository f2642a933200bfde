"""Noise for any input that is made of numbers."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the build extra")

from build_models.errors import RecipeError
from build_models.graph.model_io import TensorInfo
from build_models.graph.random_feeds import random_feeds

pytestmark = pytest.mark.build


@pytest.mark.parametrize(
    ("dtype", "least", "largest"),
    [("float32", -6, 6), ("float16", -6, 6), ("uint8", 0, 255), ("int8", -128, 127), ("int64", 0, 1), ("bool", 0, 1)],
)
def test_each_type_has_its_own_noise(dtype: str, least: float, largest: float) -> None:
    feeds = random_feeds([TensorInfo("x", dtype, ("n", 40, 50))], seed=0)
    assert feeds["x"].shape == (1, 40, 50)
    assert feeds["x"].dtype == np.dtype(dtype)
    assert least <= feeds["x"].min() < feeds["x"].max() <= largest
    again = random_feeds([TensorInfo("x", dtype, ("n", 40, 50))], seed=0)
    np.testing.assert_array_equal(feeds["x"], again["x"])
    assert not np.array_equal(feeds["x"], random_feeds([TensorInfo("x", dtype, (1, 40, 50))], seed=1)["x"])


def test_a_free_size_and_a_foreign_type_are_told() -> None:
    with pytest.raises(RecipeError, match=r"any size \(x float32\[1,3,h,w\]\)"):
        random_feeds([TensorInfo("x", "float32", (1, 3, "h", "w"))], seed=0)
    with pytest.raises(RecipeError, match="no noise can be made for the input x object"):
        random_feeds([TensorInfo("x", "object", (1,))], seed=0)
