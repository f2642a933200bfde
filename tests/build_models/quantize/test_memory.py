"""What a model needs is known before it runs."""

from __future__ import annotations

import numpy as np
import psutil
import pytest

pytest.importorskip("onnx", reason="needs the build extra")

import itertools

import onnx
from onnx import TensorProto, helper, numpy_helper

from build_models.errors import RecipeError
from build_models.quantize.memory import check_memory, peak_bytes

pytestmark = pytest.mark.build


def chain(side: int, length: int) -> onnx.ModelProto:
    """Relus one after the other on one channel of ``side`` by ``side``, and a weight that nothing reads."""
    names = [f"t{index}" for index in range(length + 1)]
    nodes = [helper.make_node("Relu", [a], [b], b) for a, b in itertools.pairwise(names)]
    shape = [1, 1, side, side]
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info(names[0], TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(names[-1], TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(np.zeros(4, np.float32), "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


@pytest.mark.parametrize("length", [2, 10])
def test_two_tensors_of_a_chain_are_alive_at_once(length: int) -> None:
    assert peak_bytes(chain(8, length)) == 2 * 64 * 4


def test_a_tensor_that_is_read_later_stays_alive() -> None:
    model = chain(8, 3)
    model.graph.node.append(helper.make_node("Add", ["t0", "t3"], ["sum"], "sum"))
    model.graph.output[0].name = "sum"
    assert peak_bytes(model) == 3 * 64 * 4


def test_a_model_larger_than_memory_is_refused_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    check_memory(chain(8, 2))
    monkeypatch.setattr(psutil, "virtual_memory", type("Memory", (), {"available": 1000}))
    with pytest.raises(RecipeError, match=r"needs about .* GiB .* smaller input.width"):
        check_memory(chain(8, 2))
