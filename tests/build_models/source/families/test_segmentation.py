"""Masks: whatever a segmenter gives, the graph's mask is the one that its own output says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the build extra")

import onnx
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper, shape_inference

from build_models.errors import RecipeError
from build_models.graph.canonical_output import canonical_output
from build_models.graph.model_io import describe, outputs_of, run_model, with_outputs
from build_models.graph.portable import check_portable, make_portable
from build_models.source.families.segmentation import Segmentation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from build_models.graph.canonical_output import CanonicalReport

pytestmark = pytest.mark.build

INPUT_HW = (24, 36)
SMALL_HW = (6, 9)
DTYPES = {
    "float32": TensorProto.FLOAT,
    "int64": TensorProto.INT64,
    "int32": TensorProto.INT32,
    "bool": TensorProto.BOOL,
}
RESIZES: dict[str, dict[str, Any]] = {
    "half pixels": {"mode": "linear", "coordinate_transformation_mode": "half_pixel"},
    "as torch": {"mode": "linear", "coordinate_transformation_mode": "pytorch_half_pixel"},
    "corners": {"mode": "linear", "coordinate_transformation_mode": "align_corners"},
    "as old TensorFlow": {"mode": "linear", "coordinate_transformation_mode": "asymmetric"},
    "nearest": {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
    "cubic": {"mode": "cubic", "coordinate_transformation_mode": "half_pixel"},
}


def segmenter(
    channels: int,
    steps: Sequence[str] = (),
    *,
    opset: int = 17,
    by: Literal["sizes", "scales"] = "sizes",
    gain: float = 1.0,
    dtype: str = "float32",
    shape: Sequence[int] | None = None,
) -> onnx.ModelProto:
    """A picture ``x`` ``[1, 3, 24, 36]``, 0..255, to a 4x4 convolution of stride 4, then the steps, in this order."""
    rng = np.random.default_rng(channels)
    constants = {
        "w": rng.standard_normal((channels, 3, 4, 4)) * gain / 500,
        "b": rng.standard_normal(channels) * gain,
        "sizes": np.array([1, channels, *INPUT_HW], np.int64),
        "scales": np.array([1.0, 1, 4, 4]),
        "steps": np.array(3.0),
    }
    nodes = [helper.make_node("Conv", ["x", "w", "b"], ["t0"], strides=[4, 4])]
    layout = "nchw"

    def add(operator: str, *more: str, **attributes: Any) -> None:
        nodes.append(helper.make_node(operator, [f"t{len(nodes) - 1}", *more], [f"t{len(nodes)}"], **attributes))

    for step in steps:
        if step in RESIZES:
            add("Resize", "", *(["", "sizes"] if by == "sizes" else ["scales"]), **RESIZES[step])
        elif step == "channels last":
            add("Transpose", perm=[0, 2, 3, 1])
            layout = "nhwc"
        elif step == "channels first":
            add("Transpose", perm=[0, 3, 1, 2])
            layout = "nchw"
        elif step in {"Softmax", "LogSoftmax", "ArgMax"}:
            add(step, axis=1 if layout == "nchw" else -1)
        elif step == "squeezed":
            constants["shape"] = np.array(shape, np.int64)
            add("Reshape", "shape")
        elif step == "whole":
            add("Round")
        elif step == "cast":
            add("Cast", to=DTYPES[dtype])
        else:
            add(step)
    nodes[-1].output[0] = "out"
    graph = helper.make_graph(
        nodes,
        "segmenter",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, *INPUT_HW])],
        [helper.make_tensor_value_info("out", DTYPES["int64" if steps and steps[-1] == "ArgMax" else dtype], None)],
        [
            numpy_helper.from_array(value if value.dtype == np.int64 else value.astype(np.float32), name)
            for name, value in constants.items()
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    return shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)


def picture(seed: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).integers(0, 256, (1, 3, *INPUT_HW)).astype(np.float32)


def names(count: int) -> list[str]:
    return [f"class {index}" for index in range(count)]


def compiled(
    model: onnx.ModelProto, labels: int, family: Segmentation | None = None
) -> tuple[onnx.ModelProto, CanonicalReport]:
    return canonical_output(model, family or Segmentation(), INPUT_HW, names(labels))


def best_of(output: NDArray[Any], layout: str) -> NDArray[np.uint8]:
    """The mask as the author of a segmenter reads it off."""
    best: NDArray[np.uint8] = output.argmax(axis=1 if layout == "nchw" else 3).astype(np.uint8)
    return best


SCORES = [
    ([], "nchw"),
    (["Softmax"], "nchw"),
    (["LogSoftmax"], "nchw"),
    (["Sigmoid"], "nchw"),
    (["half pixels"], "nchw"),
    (["as torch", "Softmax"], "nchw"),
    (["corners", "Sigmoid"], "nchw"),
    (["nearest"], "nchw"),
    (["cubic", "Softmax"], "nchw"),
    (["channels last"], "nhwc"),
    (["as old TensorFlow", "channels last"], "nhwc"),
    (["half pixels", "channels last", "Softmax"], "nhwc"),
    (["Softmax", "half pixels", "channels last"], "nhwc"),
    (["channels last", "channels first", "Softmax"], "nchw"),
    (["channels last", "Tanh", "channels first"], "nchw"),
]


@settings(max_examples=150, deadline=None)
@given(
    form=st.sampled_from(SCORES),
    channels=st.sampled_from([2, 3, 4, 5, 21]),
    opset=st.sampled_from([13, 17, 18, 21]),
    by=st.sampled_from(["sizes", "scales"]),
    confidence=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_the_mask_is_the_best_class_of_the_models_own_output(
    form: tuple[list[str], str], channels: int, opset: int, by: Any, confidence: bool, seed: int
) -> None:
    """Whatever was left out on the way, the class of every place stays, and the reference says the same."""
    steps, layout = form
    model = segmenter(channels, steps, opset=opset, by=by)
    feed = {"x": picture(seed)}
    source = run_model(model, feed)

    canonical, report = compiled(model, channels, Segmentation(confidence=confidence))
    got, reference = run_model(canonical, feed), report.family.reference(source, INPUT_HW)

    np.testing.assert_array_equal(got["mask"], best_of(source["out"], layout))
    np.testing.assert_array_equal(got["mask"], reference["mask"])
    assert got.keys() == reference.keys() == ({"mask", "confidence"} if confidence else {"mask"})
    if confidence:
        assert np.abs(got["confidence"].astype(int) - reference["confidence"]).max() <= 1
    assert all(value.dtype == np.uint8 for value in got.values())
    assert report.outputs == ("out",)
    check_portable(canonical)


def test_another_picture_has_another_mask() -> None:
    """The control of the comparison above."""
    model = segmenter(5, ["half pixels", "channels last"])
    canonical, _ = compiled(model, 5)

    first, second = (run_model(canonical, {"x": picture(seed)})["mask"] for seed in (0, 1))

    assert (first != second).mean() > 0.1


@pytest.mark.parametrize(
    ("steps", "channels", "operators"),
    [
        ([], 5, ["Conv", "ArgMax", "Cast"]),
        ([], 2, ["Conv", "Gather", "Gather", "Greater", "Cast"]),
        (["channels last", "Softmax"], 5, ["Conv", "ArgMax", "Cast"]),
        # fewer numbers to move, and channels last is the faster form
        (["half pixels", "channels last", "Softmax"], 5, ["Conv", "Transpose", "Resize", "ArgMax", "Cast"]),
        (["half pixels", "Softmax"], 5, ["Conv", "Transpose", "Resize", "ArgMax", "Cast"]),
        # what is not worth it, or not the same: few classes, kernels that only know channels first
        (["half pixels", "channels last"], 3, ["Conv", "Resize", "ArgMax", "Cast"]),
        (["cubic"], 5, ["Conv", "Resize", "ArgMax", "Cast"]),
        # another step between: it stays
        (["Tanh", "channels last"], 5, ["Conv", "Tanh", "ArgMax", "Cast"]),
    ],
)
def test_what_no_class_depends_on_is_left_out(steps: list[str], channels: int, operators: list[str]) -> None:
    canonical, _ = compiled(segmenter(channels, steps), channels)

    assert [node.op_type for node in canonical.graph.node] == operators


def test_a_softmax_over_another_axis_changes_the_mask_and_stays() -> None:
    model = segmenter(5, ["Softmax"])
    model.graph.node[-1].attribute[0].i = 3
    canonical, _ = compiled(model, 5)
    feed = {"x": picture(3)}

    assert "Softmax" in [node.op_type for node in canonical.graph.node]
    np.testing.assert_array_equal(run_model(canonical, feed)["mask"], best_of(run_model(model, feed)["out"], "nchw"))


def test_the_raw_scores_can_be_compared_with_the_sources() -> None:
    """The decoding starts inside the source, and both sides have a tensor of that name to look at."""
    model = segmenter(5, ["half pixels", "channels last", "Softmax"])
    canonical, report = compiled(model, 5)
    portable, _ = make_portable(canonical, report.raw_tensors.values())
    feed = {"x": picture(0)}

    ((source_name, name),) = report.raw_tensors.items()

    assert describe(outputs_of(with_outputs(portable, [name]))).endswith("[1,5,6,9]")
    expected, got = run_model(with_outputs(model, [source_name]), feed), run_model(with_outputs(portable, [name]), feed)
    np.testing.assert_allclose(got[name], expected[source_name], rtol=1e-4, atol=1e-5)


def test_a_coarse_mask_is_the_networks_own() -> None:
    model = segmenter(5, ["half pixels", "channels last", "Softmax"])
    feed = {"x": picture(0)}
    canonical, report = compiled(model, 5, Segmentation(coarse=True))
    ((inner, _),) = report.raw_tensors.items()
    scores = run_model(with_outputs(model, [inner]), feed)

    got = run_model(canonical, feed)["mask"]

    assert got.shape == (1, *SMALL_HW)
    np.testing.assert_array_equal(got, scores[inner].argmax(axis=1))
    np.testing.assert_array_equal(got, report.family.reference(scores, INPUT_HW)["mask"])
    assert report.outputs == (inner,)


@pytest.mark.parametrize(
    ("steps", "dtype", "shape"),
    [
        (["ArgMax"], "int64", None),
        (["ArgMax", "cast"], "int32", None),
        (["ArgMax", "cast"], "float32", None),
        (["ArgMax", "squeezed"], "int64", [1, *SMALL_HW]),
        (["channels last", "ArgMax", "cast"], "float32", None),
        (["ArgMax", "cast", "squeezed"], "float32", [1, *SMALL_HW]),
    ],
)
def test_class_ids_of_every_form_become_the_mask(steps: list[str], dtype: str, shape: list[int] | None) -> None:
    model = segmenter(4, steps, dtype=dtype, shape=shape)
    feed = {"x": picture(5)}
    source = run_model(model, feed)

    canonical, report = compiled(model, 4)
    got = run_model(canonical, feed)

    expected = run_model(segmenter(4), feed)["out"].argmax(axis=1)
    np.testing.assert_array_equal(got["mask"], expected)
    np.testing.assert_array_equal(report.family.reference(source, INPUT_HW)["mask"], expected)
    assert report.classes == 4
    assert report.rule.startswith("ids")


@pytest.mark.parametrize("confidence", [False, True])
@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8])
@pytest.mark.parametrize(
    ("steps", "shape", "activation"),
    [
        ([], None, "sigmoid"),
        (["Sigmoid"], None, "none"),
        (["channels last"], None, "sigmoid"),
        (["Sigmoid", "squeezed"], [1, *SMALL_HW], "none"),
    ],
)
def test_one_channel_tells_a_thing_from_the_rest(
    steps: list[str], shape: list[int] | None, activation: str, threshold: float, confidence: bool
) -> None:
    model = segmenter(1, steps, shape=shape)
    feed = {"x": picture(2)}
    source = run_model(model, feed)
    logits = run_model(segmenter(1), feed)["out"][:, 0].astype(np.float64)
    probability = 1 / (1 + np.exp(-logits))

    canonical, report = compiled(model, 2, Segmentation(threshold=threshold, confidence=confidence))
    got, reference = run_model(canonical, feed), report.family.reference(source, INPUT_HW)

    expected = probability > threshold
    assert 0 < expected.mean() < 1
    np.testing.assert_array_equal(got["mask"], expected)
    np.testing.assert_array_equal(reference["mask"], expected)
    assert isinstance(report.family, Segmentation)
    assert report.family.activation == activation
    if confidence:
        sure = np.rint(255 * np.where(expected, probability, 1 - probability))
        for outputs in (got, reference):
            assert np.abs(outputs["confidence"] - sure).max() <= 1


@pytest.mark.parametrize(
    ("shape", "labels", "layout", "rule"),
    [
        ((1, 5, 24, 36), 5, "nchw", "number of labels"),
        ((1, 24, 36, 5), 5, "nhwc", "number of labels"),
        ((1, 36, 24, 36), 36, "nchw", "proportions"),  # 36 columns, 36 classes
        ((1, 24, 36, 24), 24, "nhwc", "proportions"),
    ],
)
def test_the_layout_follows_from_the_shape_the_labels_and_the_proportions(
    shape: tuple[int, ...], labels: int, layout: str, rule: str
) -> None:
    _, report = compiled(passing(shape), labels)

    assert isinstance(report.family, Segmentation)
    assert (report.family.layout, report.classes) == (layout, labels)
    assert rule in report.rule


def passing(shape: Sequence[int], dtype: int = TensorProto.FLOAT) -> onnx.ModelProto:
    """A model whose output is its input, with values 0..255."""
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["out"])],
        "passing",
        [helper.make_tensor_value_info("x", dtype, shape)],
        [helper.make_tensor_value_info("out", dtype, shape)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


def test_two_outputs_need_a_name() -> None:
    model = passing((1, 5, 24, 36))
    model.graph.node.append(helper.make_node("Neg", ["x"], ["auxiliary"]))
    model.graph.output.append(helper.make_tensor_value_info("auxiliary", TensorProto.FLOAT, (1, 5, 24, 36)))

    with pytest.raises(RecipeError, match=r"expected one output.*found 2: out .*, auxiliary .*name the right one"):
        compiled(model, 5)
    _, report = compiled(model, 5, Segmentation(tensor="auxiliary"))
    assert report.outputs == ("auxiliary",)


@pytest.mark.parametrize(
    ("model", "labels", "options", "message"),
    [
        (passing((1, 5, 24, 36)), 4, {}, "labels: expected 5 names, one per class of the model, got 4"),
        (passing((1, 1, 24, 36)), 21, {}, "expected a name for each class id.*got 21, but.*255"),
        (segmenter(1), 21, {}, "labels: expected 2 names"),
        (passing((1, 300, 24, 36)), 300, {}, "at most 256 classes.*found 300"),
        (passing((1, 1, 24, 36)), 300, {}, "at most 256 classes.*found 300"),
        (passing((1, 7, 7, 7)), 7, {}, r"cannot tell classes from rows and columns.*36x24; set output\.layout"),
        (passing((1, 5, 24, 36)), 5, {"layout": "nhwc"}, "labels: expected 36 names"),
        (passing((1, 5)), 5, {}, r"expected one output of scores \[1,C,h,w\].*found out float32\[1,5\]"),
        (passing((2, 5, 24, 36)), 5, {}, "expected one output of scores"),
        (passing((1, 5, 24, 36), TensorProto.INT64), 5, {}, "expected class ids of one channel.*output.content"),
        (passing((1, 5, 24, 36), TensorProto.DOUBLE), 5, {}, "float32 or whole numbers, found out float64"),
        (passing((1, 5, 24, 36)), 5, {"content": "ids"}, "expected class ids of one channel"),
        (segmenter(1), 2, {"content": "ids"}, "expected class ids of one channel"),
        (segmenter(1), 2, {"activation": "none"}, "activation: none needs probabilities, but over 4 random"),
        (segmenter(1), 2, {"activation": "softmax"}, "softmax needs several classes"),
        (segmenter(5), 5, {"activation": "none", "confidence": True}, "activation: none needs probabilities"),
        (segmenter(5, ["Softmax"]), 5, {"activation": "softmax", "confidence": True}, "on top of probabilities"),
        (segmenter(5), 5, {"coarse": True}, "does not end in a Resize"),
        (segmenter(1), 2, {"coarse": True}, "needs scores of several classes"),
        (segmenter(5, ["nearest"]), 5, {"coarse": True, "confidence": True}, "exclude each other"),
        (segmenter(4, ["ArgMax"]), 4, {"confidence": True}, "confidence needs scores"),
        (segmenter(4, ["ArgMax", "cast"]), 4, {"confidence": True}, "confidence needs scores"),
        (segmenter(4, ["ArgMax"]), 4, {"tensor": "mask"}, "the model has no output 'mask', it has out"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_to_do(
    model: onnx.ModelProto, labels: int, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        compiled(model, labels, Segmentation(**options))
