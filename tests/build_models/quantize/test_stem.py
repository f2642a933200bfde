"""The first convolution on groups of pixels computes exactly the sums of the plain one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the build extra")

import onnx
from onnx import TensorProto, helper, numpy_helper

from build_models.graph.model_io import run_model
from build_models.graph.native_input import native_input
from build_models.graph.portable import check_portable, make_portable, strip
from build_models.quantize.ranges import collect_ranges
from build_models.quantize.static import fusible_nodes, quantisable_tensors, quantize_static
from build_models.quantize.stem import pack_stem
from build_models.recipe import InputRecipe

pytestmark = pytest.mark.build

WEIGHTS = np.random.default_rng(2).standard_normal((5, 3, 7, 7)).astype(np.float32)


def stem(
    width: int = 24,
    kernel: int = 3,
    stride: int = 2,
    pads: tuple[int, ...] = (1, 1, 1, 1),
    act: str = "Relu",
    recipe: InputRecipe | None = None,
    **attributes: int,
) -> onnx.ModelProto:
    constants = {"w": WEIGHTS[:, :, :kernel, :kernel], "b": np.arange(5, dtype=np.float32)}
    shape: dict[str, Any] = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": list(pads), **attributes}
    nodes = [helper.make_node("Conv", ["x", "w", "b"], ["c"], name="conv", **shape)]
    nodes.append(helper.make_node(act, ["c"], ["y"], name="act"))
    graph = helper.make_graph(
        nodes,
        "stem",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 12, width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    native, _ = native_input(onnx.shape_inference.infer_shapes(model), recipe or InputRecipe())
    result, _ = make_portable(native, ["y"])
    for node in result.graph.node:  # as the int8 writer has it
        if node.op_type == "Sub":
            node.op_type = "Add"
    return result


def pictures(model: onnx.ModelProto) -> list[np.ndarray[tuple[int, ...], np.dtype[np.uint8]]]:
    shape = [side.dim_value for side in model.graph.input[0].type.tensor_type.shape.dim[1:]]
    return [np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8) for seed in range(3)]


def packed(model: onnx.ModelProto) -> onnx.ModelProto | None:
    ranges = collect_ranges(model, quantisable_tensors(model, ["y"]), pictures(model))
    result = pack_stem(model, ranges, [node.name for node in model.graph.node])
    if result is None:
        return None
    made = {name for node in result.model.graph.node for name in node.output if node.op_type != "Cast"}
    assert made <= result.ranges.keys()
    check_portable(strip(result.model))
    return result.model


@pytest.mark.parametrize(
    "sizes",
    [
        {},
        {"stride": 1},
        {"kernel": 7, "pads": (3, 3, 3, 3)},
        {"kernel": 5, "pads": (2, 2, 2, 2), "stride": 1},
        {"kernel": 2, "pads": (0, 0, 0, 0)},
        {"kernel": 4, "stride": 4, "pads": (0, 0, 0, 0)},
        {"kernel": 6, "pads": (2, 2, 2, 2)},
        {"kernel": 3, "pads": (0, 0, 1, 1)},
        {"act": "Sigmoid"},
        {"recipe": InputRecipe(mean=[0.4, 0.5, 0.6], std=[0.2] * 3)},
        {"recipe": InputRecipe(mean=[0.5] * 3, color="bgr")},
    ],
)
def test_the_sums_are_the_same(sizes: dict[str, object]) -> None:
    model = stem(**sizes)  # type: ignore[arg-type]
    result = packed(model)
    assert result is not None
    assert [node.op_type for node in result.graph.node].count("Conv") == 1
    for picture in pictures(model):
        exact, got = (run_model(each, {"image": picture[None]})["y"] for each in (model, result))
        assert np.abs(exact - got).max() <= 1e-5 * np.abs(exact).max()


@pytest.mark.parametrize(
    ("sizes", "why"),
    [
        ({"width": 26}, "the row is no number of groups"),
        ({"stride": 3}, "a group is no number of strides"),
        ({"kernel": 1, "pads": (0, 0, 0, 0)}, "one pixel is copied once already"),
        ({"pads": (0, 0, 0, 0), "stride": 1}, "the output is narrower than the input"),
    ],
)
def test_other_sizes_are_left_alone(sizes: dict[str, object], why: str) -> None:
    assert packed(stem(**sizes)) is None, why  # type: ignore[arg-type]


def test_a_dilated_convolution_is_left_alone() -> None:
    model = stem(pads=(2, 2, 2, 2))
    model.graph.node[2].attribute.append(helper.make_attribute("dilations", [2, 2]))
    assert pack_stem(model, {}, [node.name for node in model.graph.node]) is None


def test_a_float_stem_is_left_alone() -> None:
    assert pack_stem(stem(), {}, ["act"]) is None


def test_the_int8_file_computes_the_same_bytes() -> None:
    model = stem()
    ranges = collect_ranges(model, quantisable_tensors(model, ["y"]), pictures(model))
    plain, told = quantize_static(model, fusible_nodes(model, ["y"]), ranges)
    fast, told_fast = quantize_static(model, fusible_nodes(model, ["y"]), ranges, packed_stem=True)
    assert (told["packed_stem"], told_fast["packed_stem"]) == (False, True)
    for picture in pictures(model):
        one, other = (run_model(each, {"image": picture[None]})["y"] for each in (plain, fast))
        assert np.array_equal(one, other)
