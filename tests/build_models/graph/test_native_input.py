"""The native input: uint8 BGR bytes give what hand-written float preprocessing gives.

Tolerance: a convolution sums 27 products here, so float32 results differ by a few 1e-7 of the largest output
(measured over 2,000 random cases: at most 8e-7); 1e-5 leaves room for another order of additions. A mean that is
wrong by one grey level, 1/255 of the pixel range, moves them by at least 1e-3, swapped channels by 0.08.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the build extra")

import onnx
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from build_models.errors import RecipeError
from build_models.graph.model_io import describe, inputs_of, run_model
from build_models.graph.native_input import native_input, source_input
from build_models.recipe import InputRecipe

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Color = Literal["rgb", "bgr", "gray"]

pytestmark = pytest.mark.build

TOLERANCE = 1e-5
FIRST_OPS = ["conv", "padded conv", "biased conv", "padded biased conv", "same_upper", "valid", "slices", "two readers"]


@dataclass(frozen=True)
class Normalisation:
    scale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


CONV_ATTRIBUTES: dict[str, dict[str, Any]] = {
    "padded conv": {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [2, 2]},
    "padded biased conv": {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [2, 2]},
    "same_upper": {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
    "valid": {"auto_pad": "VALID"},
    "absent pads": {},
}


def make_model(
    first: str, layout: Literal["nchw", "nhwc"], height: int, width: int, seed: int, channels: int = 3
) -> onnx.ModelProto:
    """A source model whose first operation is the one named; an NHWC model transposes first, unless it slices."""
    rng = np.random.default_rng(seed)
    shape = [1, channels, height, width] if layout == "nchw" else [1, height, width, channels]
    nodes, constants = [], []

    def constant(name: str, array: NDArray[np.generic]) -> str:
        constants.append(numpy_helper.from_array(array, name))
        return name

    tensor = "x"
    if first == "slices":  # the beginning of YOLOX: every second pixel, in both directions
        axis = 2 if layout == "nchw" else 1
        for name, start in (("even", 0), ("odd", 1)):
            bounds = [constant(f"{name}_{i}", np.array([v], np.int64)) for i, v in enumerate((start, height, axis, 2))]
            nodes.append(helper.make_node("Slice", ["x", *bounds], [name]))
        nodes.append(helper.make_node("Concat", ["even", "odd"], ["focus"], axis=axis))
        tensor = "focus"
    if layout == "nhwc":
        nodes.append(helper.make_node("Transpose", [tensor], ["planes"], perm=[0, 3, 1, 2]))
        tensor = "planes"
    inputs = [tensor, constant("w", rng.standard_normal((6, channels, 3, 3), dtype=np.float32))]
    if "biased" in first:
        inputs.append(constant("b", rng.standard_normal(6, dtype=np.float32)))
    nodes.append(
        helper.make_node("Conv", inputs, ["y"], name="conv", **CONV_ATTRIBUTES.get(first, {"pads": [0, 0, 0, 0]}))
    )
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    if first == "two readers":
        nodes.append(helper.make_node("Neg", ["x"], ["z"]))
        outputs.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, None))
    graph = helper.make_graph(
        nodes, "source", [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)], outputs, constants
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    return onnx.shape_inference.infer_shapes(model)


def letterboxed(height: int, width: int, seed: int) -> NDArray[np.uint8]:
    """Noise between grey borders, ``[1, H, W, 3]``: the borders meet the convolution's padding."""
    frame = np.full((1, height, width, 3), 114, np.uint8)
    rng = np.random.default_rng(seed)
    frame[:, 2:-2] = rng.integers(0, 256, (1, height - 4, width, 3))
    return frame


def float_preprocessing(frame: NDArray[np.uint8], norm: Normalisation, color: str, layout: str) -> NDArray[np.float32]:
    """What the author of a source model writes: one float32 operation after another, channel by channel."""
    picture = frame[0].astype(np.float32)
    blue, green, red = picture[..., 0], picture[..., 1], picture[..., 2]
    luma = np.float32(0.299) * red + np.float32(0.587) * green + np.float32(0.114) * blue
    channels = {"rgb": [red, green, blue], "bgr": [blue, green, red], "gray": [luma]}[color]
    normalised = [
        (channel * np.float32(norm.scale) - np.float32(mean)) / np.float32(std)
        for channel, mean, std in zip(channels, norm.mean, norm.std, strict=False)
    ]
    return np.stack(normalised, axis=0 if layout == "nchw" else -1)[None]


def error(expected: dict[str, NDArray[np.float32]], got: dict[str, NDArray[np.float32]]) -> float:
    """Largest difference as a share of the largest expected value."""
    return max(float(np.abs(expected[name] - got[name]).max() / np.abs(expected[name]).max()) for name in expected)


def recipe_of(norm: Normalisation, color: Color, layout: Literal["nchw", "nhwc"]) -> InputRecipe:
    count = 1 if color == "gray" else 3
    mean, std = list(norm.mean[:count]), list(norm.std[:count])
    return InputRecipe(color=color, layout=layout, scale=norm.scale, mean=mean, std=std)


@st.composite
def normalisations(draw: st.DrawFn) -> Normalisation:
    """Means within the pixels' range and deviations of a twentieth to twice of it, in units of the scale."""
    scale = draw(st.sampled_from([1.0, 1 / 255, 1 / 127.5, 1 / 128]))
    full = 255 * scale
    share = st.floats(0.05, 1.0)
    kind = draw(st.sampled_from(["none", "same", "different"]))
    if kind == "none":
        return Normalisation(scale, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    if kind == "same":
        mean, std = draw(share) * full, draw(share) * full
        return Normalisation(scale, (mean, mean, mean), (std, std, std))
    mean_3 = tuple(draw(share) * full for _ in range(3))
    std_3 = tuple(draw(share) * full for _ in range(3))
    return Normalisation(scale, mean_3, std_3)  # type: ignore[arg-type] # three each


@settings(max_examples=150, deadline=None)
@given(
    norm=normalisations(),
    color=st.sampled_from(["rgb", "bgr"]),
    layout=st.sampled_from(["nchw", "nhwc"]),
    first=st.sampled_from(FIRST_OPS),
    seed=st.integers(0, 2**31),
    half_hw=st.tuples(st.integers(4, 12), st.integers(4, 12)),
)
def test_the_native_input_gives_what_float_preprocessing_gives(
    norm: Normalisation,
    color: Literal["rgb", "bgr"],
    layout: Literal["nchw", "nhwc"],
    first: str,
    seed: int,
    half_hw: tuple[int, int],
) -> None:
    """And a mean that is wrong by one grey level, or swapped channels, do not."""
    height, width = 2 * half_hw[0], 2 * half_hw[1]
    model = make_model(first, layout, height, width, seed)
    frame = letterboxed(height, width, seed)
    feed = float_preprocessing(frame, norm, color, layout)
    expected = run_model(model, {"x": feed})

    native, _ = native_input(model, recipe_of(norm, color, layout))

    assert describe(inputs_of(native)) == f"image uint8[1,{height},{width},3]"
    assert error(expected, run_model(native, {"image": frame})) < TOLERANCE
    wrong_mean = Normalisation(norm.scale, tuple(m + norm.scale for m in norm.mean), norm.std)  # type: ignore[arg-type]
    off, _ = native_input(model, recipe_of(wrong_mean, color, layout))
    assert error(expected, run_model(off, {"image": frame})) > 30 * TOLERANCE
    swapped, _ = native_input(model, recipe_of(norm, "bgr" if color == "rgb" else "rgb", layout))
    assert error(expected, run_model(swapped, {"image": frame})) > 1000 * TOLERANCE


@settings(max_examples=100, deadline=None)
@given(
    norm=normalisations(),
    layout=st.sampled_from(["nchw", "nhwc"]),
    first=st.sampled_from(FIRST_OPS),
    seed=st.integers(0, 2**31),
    half_hw=st.tuples(st.integers(4, 12), st.integers(4, 12)),
)
def test_a_grey_source_sees_the_luma_of_the_cameras_colours(
    norm: Normalisation, layout: Literal["nchw", "nhwc"], first: str, seed: int, half_hw: tuple[int, int]
) -> None:
    """And not their mean, nor the luma of exchanged channels, nor one that is a grey level off."""
    height, width = 2 * half_hw[0], 2 * half_hw[1]
    model = make_model(first, layout, height, width, seed, channels=1)
    frame = letterboxed(height, width, seed)
    expected = run_model(model, {"x": float_preprocessing(frame, norm, "gray", layout)})

    native, _ = native_input(model, recipe_of(norm, "gray", layout))

    assert describe(inputs_of(native)) == f"image uint8[1,{height},{width},3]"
    assert error(expected, run_model(native, {"image": frame})) < TOLERANCE
    exchanged = np.ascontiguousarray(frame[..., ::-1])
    assert error(expected, run_model(native, {"image": exchanged})) > 100 * TOLERANCE
    averaged = np.repeat(frame.mean(axis=3, keepdims=True).astype(np.uint8), 3, axis=3)
    assert error(expected, run_model(native, {"image": averaged})) > 100 * TOLERANCE
    wrong_mean = Normalisation(norm.scale, tuple(m + norm.scale for m in norm.mean), norm.std)  # type: ignore[arg-type]
    off, _ = native_input(model, recipe_of(wrong_mean, "gray", layout))
    assert error(expected, run_model(off, {"image": frame})) > 30 * TOLERANCE


@pytest.mark.parametrize("color", ["rgb", "bgr", "gray"])
def test_one_number_stands_for_all_channels(color: Color) -> None:
    channels = 1 if color == "gray" else 3
    model = make_model("padded conv", "nchw", 8, 8, 0, channels)
    frame = letterboxed(8, 8, 0)
    single = InputRecipe(color=color, mean=[0.5], std=[0.25])
    each = InputRecipe(color=color, mean=[0.5] * channels, std=[0.25] * channels)

    native, _ = native_input(model, single)

    assert native == native_input(model, each)[0]
    feed = float_preprocessing(frame, Normalisation(1 / 255, (0.5,) * 3, (0.25,) * 3), color, "nchw")
    assert error(run_model(model, {"x": feed}), run_model(native, {"image": frame})) < TOLERANCE


IMAGENET = Normalisation(1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
GREY = Normalisation(1.0, (127.5, 127.5, 127.5), (127.5, 127.5, 127.5))
PLAIN = Normalisation(1 / 255, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
NOTHING = Normalisation(1.0, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


@pytest.mark.parametrize(
    ("first", "layout", "color", "norm", "rule", "operators"),
    [
        # no mean: nothing but the bytes' way in is left, padding or not
        ("padded conv", "nchw", "rgb", PLAIN, "folded", ["Cast", "Transpose", "Conv"]),
        ("padded conv", "nhwc", "bgr", PLAIN, "folded", ["Cast", "Transpose", "Conv"]),
        # a mean goes into the bias of a convolution that pads nothing
        ("conv", "nchw", "rgb", IMAGENET, "folded", ["Cast", "Transpose", "Conv"]),
        ("valid", "nchw", "bgr", IMAGENET, "folded", ["Cast", "Transpose", "Conv"]),
        # zeros that pad are pixels of value mean: the mean must be gone before
        ("padded conv", "nchw", "rgb", IMAGENET, "folded_but_offset", ["Cast", "Transpose", "Sub", "Conv"]),
        ("padded biased conv", "nhwc", "rgb", GREY, "folded_but_offset", ["Cast", "Transpose", "Sub", "Conv"]),
        ("same_upper", "nchw", "bgr", GREY, "folded_but_offset", ["Cast", "Transpose", "Sub", "Conv"]),
        # no single convolution first: nodes, but only those that do something
        ("slices", "nchw", "bgr", NOTHING, "prologue", ["Cast", "Transpose", "Slice", "Slice", "Concat", "Conv"]),
        (
            "slices", "nchw", "rgb", IMAGENET, "prologue",
            ["Cast", "Transpose", "Gather", "Sub", "Mul", "Slice", "Slice", "Concat", "Conv"],
        ),
        ("slices", "nhwc", "bgr", PLAIN, "prologue", ["Cast", "Mul", "Slice", "Slice", "Concat", "Transpose", "Conv"]),
        ("two readers", "nchw", "bgr", PLAIN, "prologue", ["Cast", "Transpose", "Mul", "Conv", "Neg"]),
        # grey: a linear mix of the channels, and one mean for all of them
        ("padded conv", "nchw", "gray", PLAIN, "folded", ["Cast", "Transpose", "Conv"]),
        ("padded conv", "nhwc", "gray", GREY, "folded_but_offset", ["Cast", "Transpose", "Sub", "Conv"]),
        ("two readers", "nchw", "gray", PLAIN, "prologue", ["Cast", "Transpose", "Conv", "Mul", "Conv", "Neg"]),
        (
            "slices", "nhwc", "gray", NOTHING, "prologue",
            ["Cast", "MatMul", "Slice", "Slice", "Concat", "Transpose", "Conv"],
        ),
    ],
)  # fmt: skip
def test_only_what_cannot_be_folded_stays_as_nodes(
    first: str,
    layout: Literal["nchw", "nhwc"],
    color: Color,
    norm: Normalisation,
    rule: str,
    operators: list[str],
) -> None:
    model = make_model(first, layout, 16, 12, 0, channels=1 if color == "gray" else 3)

    native, report = native_input(model, recipe_of(norm, color, layout))

    assert report.rule == rule
    assert [node.op_type for node in native.graph.node] == operators
    assert (report.height, report.width) == (16, 12)
    onnx.checker.check_model(native, full_check=True)


def test_same_padding_that_pads_nothing_lets_the_mean_fold() -> None:
    """A 3x3 kernel with stride 2 on an odd side needs padding, a stride of 3 on a multiple of 3 does not."""
    model = make_model("same_upper", "nchw", 12, 12, 0)
    conv = next(node for node in model.graph.node if node.op_type == "Conv")
    next(entry for entry in conv.attribute if entry.name == "strides").ints[:] = [3, 3]

    _, report = native_input(model, recipe_of(IMAGENET, "rgb", "nchw"))

    assert report.rule == "folded"


def test_absent_pads_mean_no_padding() -> None:
    _, report = native_input(make_model("absent pads", "nchw", 8, 8, 0), recipe_of(IMAGENET, "rgb", "nchw"))

    assert report.rule == "folded"


def test_weights_that_another_node_shares_stay_as_they_are_for_it() -> None:
    model = make_model("conv", "nchw", 8, 8, 0)
    model.graph.node.append(helper.make_node("ReduceSum", ["w"], ["sum"], keepdims=0))
    model.graph.output.append(helper.make_tensor_value_info("sum", TensorProto.FLOAT, []))
    frame = letterboxed(8, 8, 0)
    expected = run_model(model, {"x": float_preprocessing(frame, PLAIN, "rgb", "nchw")})

    native, _ = native_input(model, recipe_of(PLAIN, "rgb", "nchw"))

    assert error(expected, run_model(native, {"image": frame})) < TOLERANCE


def test_a_source_that_calls_its_own_input_image_is_no_problem() -> None:
    model = make_model("slices", "nchw", 8, 8, 0)
    model.graph.input[0].name = "image"
    for node in model.graph.node:
        node.input[:] = ["image" if name == "x" else name for name in node.input]
    frame = letterboxed(8, 8, 0)
    expected = run_model(model, {"image": float_preprocessing(frame, IMAGENET, "rgb", "nchw")})

    native, _ = native_input(model, recipe_of(IMAGENET, "rgb", "nchw"))

    assert error(expected, run_model(native, {"image": frame})) < TOLERANCE


def test_the_given_model_is_not_changed() -> None:
    model = make_model("padded conv", "nchw", 8, 8, 0)
    before = model.SerializeToString(deterministic=True)

    native_input(model, recipe_of(IMAGENET, "rgb", "nchw"))

    assert model.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("color", ["rgb", "bgr", "gray"])
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_the_numpy_form_of_the_preprocessing_is_the_hand_written_one(
    color: Color, layout: Literal["nchw", "nhwc"]
) -> None:
    frame = letterboxed(8, 10, 3)

    got = source_input(frame, recipe_of(IMAGENET, color, layout))

    np.testing.assert_allclose(got, float_preprocessing(frame, IMAGENET, color, layout), rtol=0, atol=1e-6)
    assert got.dtype == np.float32


@pytest.mark.parametrize(
    ("layout", "shape", "dtype"),
    [
        ("nhwc", [1, 3, 8, 8], TensorProto.FLOAT),  # the other layout
        ("nchw", [1, 1, 8, 8], TensorProto.FLOAT),  # grey pictures, and the recipe does not say so
        ("nchw", [1, 3, 8, 8], TensorProto.FLOAT16),
    ],
)
def test_an_input_that_is_not_what_the_recipe_says_is_refused(
    layout: Literal["nchw", "nhwc"], shape: list[int], dtype: int
) -> None:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "source",
        [helper.make_tensor_value_info("x", dtype, shape)],
        [helper.make_tensor_value_info("y", dtype, shape)],
    )

    with pytest.raises(RecipeError, match=r"expected one float32 input \[1,.*found x float"):
        native_input(helper.make_model(graph), recipe_of(PLAIN, "rgb", layout))
