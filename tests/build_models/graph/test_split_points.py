"""Where to cut: work is shared out, and of the places that do so the one that least crosses is taken."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the build extra")

import onnx
from onnx import TensorProto, helper, numpy_helper

from build_models.errors import RecipeError
from build_models.graph.split import split_model
from build_models.graph.split_points import multiplications, split_points
from tests.support.branching_model import SIDE, branching_model

pytestmark = pytest.mark.build

FEEDS: dict[str, Any] = {"image": np.zeros((1, 3, SIDE, SIDE), np.float32)}
CHAIN = 8


def chain(last_channels: int = 4) -> onnx.ModelProto:
    """Eight equal pointwise convolutions ``c0`` to ``c7``, each between widenings of 4 to 16 channels."""
    rng = np.random.default_rng(0)
    nodes, tensors, before = [], [], "image"
    for index in range(CHAIN):
        channels = 3 if index == 0 else 4
        wide, narrow = rng.standard_normal((16, channels, 1, 1)), rng.standard_normal((4, 16, 1, 1))
        for name, value in ((f"w{index}", wide), (f"n{index}", narrow)):
            tensors.append(numpy_helper.from_array(value.astype(np.float32), name))
        nodes.append(helper.make_node("Conv", [before, f"w{index}"], [f"wide{index}"]))
        nodes.append(helper.make_node("Conv", [f"wide{index}", f"n{index}"], [f"c{index}"]))
        before = f"c{index}"
    ends = [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, SIDE, SIDE])]
    outputs = [helper.make_tensor_value_info(before, TensorProto.FLOAT, [1, 4, SIDE, SIDE])]
    graph = helper.make_graph(nodes, "chain", ends, outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_multiplications_are_those_of_the_formula() -> None:
    model = branching_model()
    counts = {model.graph.node[place].name: count for place, count in multiplications(model, FEEDS).items()}
    assert counts == {"conv[0]": 4 * 3 * 9 * SIDE**2, "conv[1]": 4 * 4 * SIDE**2}


@pytest.mark.parametrize("balance", ["macs", "bytes"])
@pytest.mark.parametrize(("parts", "expected"), [(2, [["c3"]]), (4, [["c1"], ["c3"], ["c5"]])])
def test_equal_layers_are_cut_in_equal_parts_where_they_are_narrow(
    balance: Any, parts: int, expected: list[list[str]]
) -> None:
    model = chain()
    cuts = split_points(model, parts, balance, FEEDS)
    assert cuts == expected
    assert split_model(model, cuts, carry=False).carried == ((),) * (parts - 1)


def test_what_crosses_is_part_of_the_cut() -> None:
    model = branching_model()
    (cut,) = split_points(model, 2, "macs", FEEDS)
    assert split_model(model, [cut], carry=False).cuts == (tuple(cut),)


def test_too_many_parts_or_nothing_to_share_out_is_told() -> None:
    with pytest.raises(RecipeError, match="--into 40: the model has no place for so many cuts"):
        split_points(chain(), 40, "macs", FEEDS)
    model = chain()
    del model.graph.node[:]
    model.graph.node.append(helper.make_node("Relu", ["image"], ["c7"]))
    with pytest.raises(RecipeError, match="--into 2: the model has no macs to balance"):
        split_points(model, 2, "macs", FEEDS)
