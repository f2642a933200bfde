"""Model files: a wrong one is one sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the build extra")

import onnx

from build_models.errors import RecipeError
from build_models.graph.model_io import run_model
from build_models.look.model_file import read_model
from tests.support.branching_model import branching_model

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.build


def test_external_data_is_read(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(branching_model(), path, save_as_external_data=True, location="weights", size_threshold=0)
    feeds = {"image": np.ones((1, 3, 8, 8), np.float32)}
    expected = run_model(branching_model(), feeds)["scores"]
    np.testing.assert_array_equal(run_model(read_model(path), feeds)["scores"], expected)
    (tmp_path / "weights").unlink()
    with pytest.raises(RecipeError, match=r"model.onnx: "):
        read_model(path)


@pytest.mark.parametrize(("content", "said"), [(b"\xff\xff no model", "found something else"), (b"", "without nodes")])
def test_what_is_no_model_is_told(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(RecipeError, match=said):
        read_model(path)
    with pytest.raises(RecipeError, match=r"none\.onnx: cannot read the model: No such file"):
        read_model(tmp_path / "none.onnx")
