"""Another opset gives the same bits, or is refused."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the build extra")

from build_models.errors import BuildError
from build_models.graph.model_io import opset_of, run_model
from build_models.graph.passes import convert_opset as module
from build_models.graph.passes.convert_opset import convert_opset
from tests.support.onnx_graphs import feed_of, graph_model, node, numbers, rewritten

pytestmark = pytest.mark.build

SCALES = np.array([1, 1, 2, 2], np.float32)


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize(("before", "target"), [(9, 13), (9, 21), (10, 17)])
def test_an_old_resize_samples_where_it_did(mode: str, before: int, target: int) -> None:
    op_type = "Upsample" if before == 9 else "Resize"
    model = graph_model([node(op_type, ["x", "scales"], ["y"], mode=mode)], opset=before, scales=SCALES)
    result, count = rewritten(lambda each: convert_opset(each, target), model)
    assert (opset_of(result), count) == (target, 1)
    feed = feed_of(model, 3)
    np.testing.assert_array_equal(run_model(result, feed)["y"], run_model(model, feed)["y"])


def test_without_the_repair_the_proof_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: the converter forgets where old versions sampled."""
    monkeypatch.setattr(module, "_restore_corner_aligned_resize", lambda model: None)
    model = graph_model([node("Upsample", ["x", "scales"], ["y"], mode="linear")], opset=9, scales=SCALES)
    with pytest.raises(BuildError, match=r"from opset 9 to 13 changed its results \(y\); export it with opset 17"):
        convert_opset(model, 13)


def test_the_opset_it_has_needs_nothing() -> None:
    model = graph_model([node("Conv", ["x", "w"], ["y"])], w=numbers(4, 3, 3, 3))
    result, count = convert_opset(model, 17)
    assert count == 0
    assert result is model


def test_what_has_no_conversion_says_what_to_do() -> None:
    model = graph_model([node("Shape", ["x"], ["s"]), node("Cast", ["s"], ["y"], to=1)], opset=17)
    with pytest.raises(BuildError, match=r"cannot convert the model from opset 17 to 13: .*; export it with opset 17"):
        convert_opset(model, 13)
