"""FastestDet's map: decoded as its authors do, whatever activations the export left inside."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the build extra")

import onnx
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from agent.model.manifest import Tolerances
from agent.model.matcher import compare_outputs
from build_models.errors import RecipeError
from build_models.graph.canonical_output import canonical_output
from build_models.graph.model_io import run_model
from build_models.graph.portable import check_portable
from build_models.source.families.fastestdet import FastestDet

pytestmark = pytest.mark.build

INPUT_HW = (64, 96)
MAP_HW = (4, 6)
TOLERANCES = Tolerances(score_floor=0.0)


def network(classes: int, activated: tuple[str, ...] = ("object", "classes"), opset: int = 17) -> onnx.ModelProto:
    """A picture ``x`` ``[1, 3, 64, 96]``, 0..255, to a map of stride 16; the parts named went through theirs."""
    rng = np.random.default_rng(classes)
    sizes = {"object": 1, "offset": 2, "size": 2, "classes": classes}
    weights = rng.standard_normal((sum(sizes.values()), 3, 16, 16)) / 700
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["all"], strides=[16, 16]),
        helper.make_node("Split", ["all", "sizes"], list(sizes), axis=1),
    ]
    activations: dict[str, dict[str, Any]] = {
        "object": {"op_type": "Sigmoid"},
        "offset": {"op_type": "Tanh"},
        "size": {"op_type": "Sigmoid"},
        "classes": {"op_type": "Softmax", "axis": 1},
    }
    nodes += [helper.make_node(inputs=[part], outputs=[f"{part}_done"], **activations[part]) for part in activated]
    joined = [f"{part}_done" if part in activated else part for part in sizes]
    nodes.append(helper.make_node("Concat", joined, ["out"], axis=1))
    graph = helper.make_graph(
        nodes,
        "fastestdet",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, *INPUT_HW])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, sum(sizes.values()), *MAP_HW])],
        [
            numpy_helper.from_array(weights.astype(np.float32), "w"),
            numpy_helper.from_array(np.array(list(sizes.values()), np.int64), "sizes"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def decoded_by_hand(raw: np.ndarray[Any, Any], activated: bool) -> dict[str, np.ndarray[Any, Any]]:
    """A loop over the cells, as FastestDet's ``handle_preds`` does it: shares of the input, best first."""
    found = []
    _, _, height, width = raw.shape
    for y in range(height):
        for x in range(width):
            cell = raw[0, :, y, x].astype(np.float64)
            offset, size = cell[1:3], cell[3:5]
            if not activated:
                offset, size = np.tanh(offset), 1 / (1 + np.exp(-size))
            label = int(cell[5:].argmax())
            score = cell[0] ** 0.6 * cell[5 + label] ** 0.4
            centre_x, centre_y = (x + offset[0]) / width, (y + offset[1]) / height
            box = [centre_x - size[0] / 2, centre_y - size[1] / 2, centre_x + size[0] / 2, centre_y + size[1] / 2]
            found.append((score, label, np.array(box) * [INPUT_HW[1], INPUT_HW[0], INPUT_HW[1], INPUT_HW[0]]))
    found.sort(key=lambda entry: -entry[0])
    scores, labels, boxes = zip(*found, strict=True)
    return {
        "boxes": np.array([boxes], np.float32),
        "scores": np.array([scores], np.float32),
        "labels": np.array([labels], np.int64),
    }


@settings(max_examples=40, deadline=None)
@given(
    classes=st.sampled_from([1, 2, 5, 80]),
    boxes_done=st.booleans(),
    candidates=st.sampled_from([1, 7, 300]),
    multi_label=st.booleans(),
    opset=st.sampled_from([13, 18, 21]),
    seed=st.integers(0, 2**31),
)
def test_the_graph_decodes_as_the_reference(
    classes: int, boxes_done: bool, candidates: int, multi_label: bool, opset: int, seed: int
) -> None:
    model = network(classes, ("object", "classes", *(("offset", "size") if boxes_done else ())), opset)
    feed = {"x": np.random.default_rng(seed).integers(0, 256, (1, 3, *INPUT_HW)).astype(np.float32)}
    raw = run_model(model, feed)

    family = FastestDet(candidates=candidates, multi_label=multi_label)
    canonical, report = canonical_output(model, family, INPUT_HW, ["label"] * classes)
    got, expected = run_model(canonical, feed), report.family.reference(raw, INPUT_HW)

    verdict = compare_outputs("detect", expected, got, TOLERANCES)
    assert verdict.ok, verdict.reason
    assert isinstance(report.family, FastestDet)
    assert report.family.box_activation == ("none" if boxes_done else "tanh_sigmoid")
    if not multi_label and candidates == 300:
        by_hand = compare_outputs("detect", decoded_by_hand(raw["out"], boxes_done), got, TOLERANCES)
        assert by_hand.ok, by_hand.reason
    check_portable(canonical)


def test_the_other_activation_gives_other_boxes() -> None:
    """The control: boxes decoded as if they were in range already do not match."""
    model = network(3)
    feed = {"x": np.random.default_rng(0).integers(0, 256, (1, 3, *INPUT_HW)).astype(np.float32)}
    canonical, _ = canonical_output(model, FastestDet(), INPUT_HW, ["a", "b", "c"])
    wrong = decoded_by_hand(run_model(model, feed)["out"], activated=True)

    assert not compare_outputs("detect", wrong, run_model(canonical, feed), TOLERANCES).ok


def test_scores_below_zero_from_a_quantised_network_stay_numbers() -> None:
    model = network(3)
    canonical, report = canonical_output(model, FastestDet(), INPUT_HW, ["a", "b", "c"])
    (raw_name,) = report.raw_tensors.values()
    tail = onnx.ModelProto()
    tail.CopyFrom(canonical)
    del tail.graph.node[:]
    tail.graph.node.extend(node for node in canonical.graph.node if node.name.startswith("canonical/"))
    del tail.graph.input[:]
    tail.graph.input.append(helper.make_tensor_value_info(raw_name, TensorProto.FLOAT, [1, 8, *MAP_HW]))

    got = run_model(tail, {raw_name: np.full((1, 8, *MAP_HW), -0.01, np.float32)})

    assert np.isfinite(got["scores"]).all()
    assert (got["scores"] == 0).all()


@pytest.mark.parametrize(
    ("model", "options", "labels", "message"),
    [
        (network(3, ("classes",)), {}, 3, "objectness must be probabilities, but "),
        (network(3, ("object",)), {}, 3, "classes must be probabilities, but "),
        (network(3), {"box_activation": "none"}, 3, "none needs offsets -1..1 and sizes 0..1.*use tanh_sigmoid"),
        (network(3), {}, 80, "labels: expected 3 names, one per class of the model, got 80"),
        (network(3), {"tensor": "nowhere"}, 3, "the model has no output 'nowhere', it has out"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_was_seen(
    model: onnx.ModelProto, options: dict[str, Any], labels: int, message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        canonical_output(model, FastestDet(**options), INPUT_HW, ["label"] * labels)


@pytest.mark.parametrize(
    ("shape", "dtype", "message"),
    [
        ((1, 8, 6, 4), TensorProto.FLOAT, r"expected one float32 output \[1,5\+classes,h,w\].*proportions of a 96x64"),
        ((1, 5, 4, 6), TensorProto.FLOAT, r"expected one float32 output \[1,5\+classes,h,w\]"),
        ((1, 24, 8), TensorProto.FLOAT, r"expected one float32 output \[1,5\+classes,h,w\]"),
        ((1, 8, 4, 6), TensorProto.FLOAT16, "expected float32 outputs of fixed shape, found out float16"),
    ],
)
def test_another_shape_or_type_is_refused(shape: tuple[int, ...], dtype: int, message: str) -> None:
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["out"])],
        "other",
        [helper.make_tensor_value_info("x", dtype, shape)],
        [helper.make_tensor_value_info("out", dtype, shape)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)

    with pytest.raises(RecipeError, match=message):
        canonical_output(model, FastestDet(), INPUT_HW, ["a", "b", "c"])


def test_several_outputs_need_a_name() -> None:
    model = network(3)
    model.graph.output.append(helper.make_tensor_value_info("all", TensorProto.FLOAT, [1, 8, *MAP_HW]))

    with pytest.raises(RecipeError, match=r"expected one output.*found 2: out .*, all .*name the right one"):
        canonical_output(model, FastestDet(), INPUT_HW, ["a", "b", "c"])
