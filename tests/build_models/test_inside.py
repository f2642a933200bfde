from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the build extra")

import onnx
from onnx import TensorProto, helper, numpy_helper

from build_models.inside import look_inside

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

pytestmark = pytest.mark.build

SIDE = 4


def one_layer(step: float | None = None) -> onnx.ModelProto:
    """A convolution that passes its input on; with ``step`` its result is rounded to multiples of it."""
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], name="cast", to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["pixels"], ["planes"], name="transpose", perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "w"], ["c"], name="copy"),
    ]
    constants: dict[str, NDArray[np.generic]] = {"w": np.eye(3, dtype=np.float32)[:, :, None, None]}
    if step is not None:
        constants |= {"step": np.array(step, np.float32), "zero": np.array(0, np.uint8)}
        back = ["c_DequantizeLinear_Output"]
        nodes.append(helper.make_node("QuantizeLinear", ["c", "step", "zero"], ["q"], name="quantise"))
        nodes.append(helper.make_node("DequantizeLinear", ["q", "step", "zero"], back, name="back"))
    out = nodes[-1].output[0]
    graph = helper.make_graph(
        nodes,
        "layer",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [1, SIDE, SIDE, 3])],
        [helper.make_tensor_value_info(out, TensorProto.FLOAT, [1, 3, SIDE, SIDE])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def pictures(taken: list[int]) -> Iterator[NDArray[np.uint8]]:
    """More than enough; notes how many were asked for."""
    for seed in range(100):
        taken.append(seed)
        yield np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8)


def test_layers_and_kernels_are_told_as_json_gives_them_back() -> None:
    told = look_inside(one_layer(), one_layer(step=4.0), pictures([]), runs_on_cpu=True)
    assert json.loads(json.dumps(told)) == told
    assert [(each["node"], each["op_type"]) for each in told["layers"]] == [("copy", "Conv")]
    assert 30 < told["layers"][0]["sqnr_db"] < 60
    assert told["kernels"]["float_convolutions"] == 1
    assert (told["kernels"]["quantise"], told["kernels"]["dequantise"]) == (1, 1)


def test_a_few_pictures_are_enough() -> None:
    taken: list[int] = []
    told = look_inside(one_layer(), one_layer(step=4.0), pictures(taken), runs_on_cpu=False)
    assert told["pictures"] == len(taken) == 8


def test_the_cpus_kernels_say_nothing_of_a_file_for_another_provider() -> None:
    assert "kernels" not in look_inside(one_layer(), one_layer(step=4.0), pictures([]), runs_on_cpu=False)


def test_a_file_without_rounding_has_no_layers() -> None:
    assert look_inside(one_layer(), one_layer(), pictures([]), runs_on_cpu=False)["layers"] == []
