"""Every family: the graph's canonical outputs are those of its numpy reference, and of numbers worked out by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the build extra")

import onnx
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from agent.model.manifest import Tolerances
from agent.model.matcher import compare_outputs
from build_models.errors import RecipeError
from build_models.graph.canonical_output import canonical_output
from build_models.graph.model_io import describe, nodes_after, outputs_of, run_model
from build_models.graph.portable import check_portable, make_portable
from build_models.source.families import FAMILIES
from build_models.source.families.anchor_free import AnchorFree
from build_models.source.families.boxes_scores import BoxesScores
from build_models.source.families.logits import Logits
from build_models.source.families.yolox import Yolox

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from build_models.source.families.base import DetectFamily, Family

pytestmark = pytest.mark.build

INPUT_HW = (64, 96)
YOLOX_CELLS = 8 * 12 + 4 * 6 + 2 * 3
TOLERANCES = Tolerances(score_floor=0.0)


def source_of(shapes: Mapping[str, tuple[int, ...]], opset: int = 17) -> onnx.ModelProto:
    """A model that passes its raw head through, so that a test sets the head's numbers: inputs ``<name>_in``."""
    nodes = [helper.make_node("Identity", [f"{name}_in"], [name], name=f"pass_{name}") for name in shapes]
    graph = helper.make_graph(
        nodes,
        "head",
        [helper.make_tensor_value_info(f"{name}_in", TensorProto.FLOAT, shape) for name, shape in shapes.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def run_head(model: onnx.ModelProto, raw: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    return run_model(model, {f"{name}_in": value.astype(np.float32) for name, value in raw.items()})


def shapes_of(raw: Mapping[str, NDArray[Any]]) -> dict[str, tuple[int, ...]]:
    return {name: value.shape for name, value in raw.items()}


def yolox_head(rng: np.random.Generator, classes: int) -> dict[str, NDArray[np.float32]]:
    head = rng.random((1, YOLOX_CELLS, 5 + classes), dtype=np.float32)
    head[..., :4] = rng.normal(0, 1, (1, YOLOX_CELLS, 4))
    return {"output": head}


def anchor_free_head(rng: np.random.Generator, classes: int) -> dict[str, NDArray[np.float32]]:
    head = {}
    for stride in (8, 16):
        sides = (INPUT_HW[0] // stride, INPUT_HW[1] // stride)
        head[f"cls_{stride}"] = rng.normal(-1, 2, (1, classes, *sides)).astype(np.float32)
        # Beyond the clip on both sides, now and then.
        head[f"ltrb_{stride}"] = rng.normal(0, 3, (1, 4, *sides)).astype(np.float32)
    return head


def boxes_scores_head(rng: np.random.Generator, classes: int) -> dict[str, NDArray[np.float32]]:
    # Output names that are canonical names: the source's own tensors must make room for them.
    anchors = 50
    return {
        "scores": rng.normal(0, 2, (1, anchors, classes)).astype(np.float32),
        "boxes": rng.random((1, anchors, 4), dtype=np.float32),
    }


DETECTORS = {
    "yolox": (Yolox(), yolox_head),
    "anchor_free": (AnchorFree(), anchor_free_head),
    "boxes_scores": (BoxesScores(box_units="normalized", score_activation="sigmoid"), boxes_scores_head),
}


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(sorted(DETECTORS)),
    classes=st.sampled_from([1, 2, 3, 5, 80]),
    candidates=st.sampled_from([1, 7, 40, 300]),
    multi_label=st.booleans(),
    opset=st.sampled_from([13, 17, 18, 21]),
    seed=st.integers(0, 2**31),
)
def test_the_graph_gives_what_the_reference_gives(
    name: str,
    classes: int,
    candidates: int,
    multi_label: bool,
    opset: int,
    seed: int,
) -> None:
    template, head_of = DETECTORS[name]
    family: DetectFamily = template.model_copy(update={"candidates": candidates, "multi_label": multi_label})
    raw = head_of(np.random.default_rng(seed), classes)
    source = source_of(shapes_of(raw), opset)

    canonical, report = canonical_output(source, family, INPUT_HW, ["label"] * classes)
    got, expected = run_head(canonical, raw), report.family.reference(raw, INPUT_HW)

    kept = family.kept(report.anchors, classes)
    assert describe(outputs_of(canonical)) == (
        f"boxes float32[1,{kept},4], scores float32[1,{kept}], labels int64[1,{kept}]"
    )
    assert [value.dtype.name for value in got.values()] == ["float32", "float32", "int64"]
    assert [value.shape for value in got.values()] == [(1, kept, 4), (1, kept), (1, kept)]
    assert (np.diff(got["scores"][0]) <= 0).all()
    np.testing.assert_allclose(got["scores"], expected["scores"], rtol=0, atol=1e-6)
    verdict = compare_outputs("detect", expected, got, TOLERANCES)
    assert verdict.ok, verdict.reason
    check_portable(canonical)


@pytest.mark.parametrize("name", sorted(DETECTORS))
def test_the_comparison_notices_a_decoding_that_is_a_little_wrong(name: str) -> None:
    """The negative control: one stride, or the input's proportions, of another model."""
    family, head_of = DETECTORS[name]
    raw = head_of(np.random.default_rng(1), 3)
    _, report = canonical_output(source_of(shapes_of(raw)), family, INPUT_HW, ["a", "b", "c"])
    expected = report.family.reference(raw, INPUT_HW)

    shifted = {**expected, "boxes": expected["boxes"] + np.float32(0.5)}

    assert not compare_outputs("detect", expected, shifted, TOLERANCES).ok


def test_one_yolox_cell_decodes_to_the_numbers_worked_out_by_hand() -> None:
    """Cell (row 1, column 2) of stride 16: centre (2.5, 1.25) * 16, size (2, 4) * 16, score 0.5 * 0.8."""
    raw = np.zeros((1, YOLOX_CELLS, 8), np.float32)
    raw[0, 8 * 12 + 1 * 6 + 2] = [0.5, 0.25, np.log(2), np.log(4), 0.5, 0.1, 0.8, 0.3]

    canonical, _ = canonical_output(source_of({"output": raw.shape}), Yolox(), INPUT_HW, ["a", "b", "c"])
    got = run_head(canonical, {"output": raw})

    np.testing.assert_allclose(got["boxes"][0, 0], [40 - 16, 20 - 32, 40 + 16, 20 + 32], rtol=1e-6)
    assert got["scores"][0, 0] == pytest.approx(0.4)
    assert got["labels"][0, 0] == 1


def test_one_anchor_free_cell_decodes_to_the_numbers_worked_out_by_hand() -> None:
    """Cell (row 3, column 5) of stride 8: centre (44, 28); distances e^0, e^1, the clip's e^4 and e^-4, times 8."""
    rng = np.random.default_rng(0)
    raw = {name: np.full_like(value, -10) for name, value in anchor_free_head(rng, 2).items()}
    raw["cls_8"][0, 1, 3, 5] = 0.0
    raw["ltrb_8"][0, :, 3, 5] = [0, 1, 9, -9]

    canonical, _ = canonical_output(source_of(shapes_of(raw)), AnchorFree(), INPUT_HW, ["a", "b"])
    got = run_head(canonical, raw)

    expected = [44 - 8, 28 - 8 * np.e, 44 + 8 * np.exp(4), 28 + 8 * np.exp(-4)]
    np.testing.assert_allclose(got["boxes"][0, 0], expected, rtol=1e-6)
    assert got["scores"][0, 0] == pytest.approx(0.5)
    assert got["labels"][0, 0] == 1


@pytest.mark.parametrize(
    ("options", "box", "expected"),
    [
        ({}, [10, 20, 30, 40], [10, 20, 30, 40]),
        ({"box_units": "normalized"}, [0.25, 0.5, 0.5, 1.0], [24, 32, 48, 64]),
        ({"box_format": "cxcywh"}, [20, 30, 10, 40], [15, 10, 25, 50]),
        ({"box_format": "cxcywh", "box_units": "normalized"}, [0.5, 0.5, 0.5, 0.25], [24, 24, 72, 40]),
    ],
)
def test_boxes_of_every_form_become_corners_in_pixels(
    options: dict[str, Any], box: list[float], expected: list[float]
) -> None:
    raw = {"boxes": np.array([[box, box]], np.float32), "scores": np.array([[[0.1], [0.9]]], np.float32)}

    canonical, report = canonical_output(source_of(shapes_of(raw)), BoxesScores(**options), INPUT_HW, ["a"])

    np.testing.assert_allclose(run_head(canonical, raw)["boxes"][0, 0], expected, rtol=1e-6)
    np.testing.assert_allclose(report.family.reference(raw, INPUT_HW)["boxes"][0, 0], expected, rtol=1e-6)


@pytest.mark.parametrize("background", [0, 1, 2])
@pytest.mark.parametrize("activation", ["none", "sigmoid", "softmax"])
def test_labels_skip_the_background(background: int, activation: str) -> None:
    """The best class is never the background, and softmax counts it in before it goes."""
    logits = np.array([[[3.0, 1.0, 2.0], [0.0, 4.0, 1.0]]], np.float32)
    raw = {"boxes": np.zeros((1, 2, 4), np.float32), "scores": logits}
    family = BoxesScores(background_index=background, score_activation=activation)  # type: ignore[arg-type]

    canonical, report = canonical_output(source_of(shapes_of(raw)), family, INPUT_HW, ["a", "b"])
    got, expected = run_head(canonical, raw), report.family.reference(raw, INPUT_HW)

    np.testing.assert_array_equal(got["labels"], expected["labels"])
    np.testing.assert_allclose(got["scores"], expected["scores"], rtol=1e-5)
    activated = {
        "none": logits[0],
        "sigmoid": 1 / (1 + np.exp(-logits[0])),
        "softmax": np.exp(logits[0]) / np.exp(logits[0]).sum(axis=1, keepdims=True),
    }[activation]
    assert got["scores"].max() == pytest.approx(np.delete(activated, background, axis=1).max(), rel=1e-5)


def test_boxes_and_scores_are_told_apart_by_shape_then_name_else_the_recipe_must() -> None:
    by_shape = source_of({"a": (1, 9, 2), "b": (1, 9, 4)})
    by_name = source_of({"classes": (1, 9, 4), "my_boxes": (1, 9, 4)})
    unclear = source_of({"a": (1, 9, 4), "b": (1, 9, 4)})
    labels = list("abcd")

    assert canonical_output(by_shape, BoxesScores(), INPUT_HW, labels[:2])[1].raw_tensors == {"b": "b", "a": "a"}
    assert next(iter(canonical_output(by_name, BoxesScores(), INPUT_HW, labels)[1].raw_tensors)) == "my_boxes"
    with pytest.raises(RecipeError, match=r"cannot tell boxes from scores in a .*output\.boxes"):
        canonical_output(unclear, BoxesScores(), INPUT_HW, labels)
    told = BoxesScores(boxes="b")
    assert list(canonical_output(unclear, told, INPUT_HW, labels)[1].raw_tensors) == ["b", "a"]


@pytest.mark.parametrize("shape", [(1, 4), (4,), (1, 4, 1, 1), (1, 1, 1, 4)])
def test_class_scores_of_every_shape_become_one_row_of_probabilities(shape: tuple[int, ...]) -> None:
    raw = {"out": np.array([1.0, 2.0, 3.0, -1.0], np.float32).reshape(shape)}
    model = classifier(shape, None)

    canonical, report = canonical_output(model, Logits(), INPUT_HW, list("abcd"))
    got = run_model(canonical, {"x": raw["out"]})["scores"]

    powers = np.exp([1.0, 2.0, 3.0, -1.0])
    np.testing.assert_allclose(got, [powers / powers.sum()], rtol=1e-5)
    np.testing.assert_allclose(report.family.reference(raw, INPUT_HW)["scores"], got, rtol=1e-5)


@pytest.mark.parametrize("shape", [(1, 4), (1, 4, 1, 1), (1, 1, 1, 4)])
@pytest.mark.parametrize("inside", ["LogSoftmax", "Softmax", None])
def test_probabilities_are_the_same_whatever_the_model_ends_in(inside: str | None, shape: tuple[int, ...]) -> None:
    model = classifier(shape, inside)
    if inside:
        model.graph.node[0].attribute.append(helper.make_attribute("axis", shape.index(4)))
    picture = np.array([1.0, 2.0, 3.0, -1.0], np.float32).reshape(shape)

    canonical, report = canonical_output(model, Logits(), INPUT_HW, list("abcd"))

    powers = np.exp([1.0, 2.0, 3.0, -1.0])
    np.testing.assert_allclose(run_model(canonical, {"x": picture})["scores"], [powers / powers.sum()], rtol=1e-5)
    raw = run_model(model, {"x": picture})
    np.testing.assert_allclose(report.family.reference(raw, INPUT_HW)["scores"], [powers / powers.sum()], rtol=1e-5)


def classifier(shape: tuple[int, ...], activation: str | None) -> onnx.ModelProto:
    """Input ``x`` of the output's shape, passed through an activation."""
    node = helper.make_node(activation or "Identity", ["x"], ["out"])
    graph = helper.make_graph(
        [node],
        "classifier",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, shape)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


@pytest.mark.parametrize(
    ("inside", "asked", "expected"),
    [
        (None, "auto", "softmax"),
        ("Softmax", "auto", "none"),  # rows sum to 1
        ("Softmax", "none", "none"),
        ("Sigmoid", "none", "none"),
        (None, "sigmoid", "sigmoid"),
        ("LogSoftmax", "auto", "exp"),  # the exponentials sum to 1
        ("LogSoftmax", "exp", "exp"),
        ("Sigmoid", "auto", "softmax"),  # several labels at once: only the recipe can say so
    ],
)
def test_probabilities_are_recognised_by_rows_that_sum_to_one(inside: str | None, asked: str, expected: str) -> None:
    family = Logits(activation=asked)  # type: ignore[arg-type] # one of the four

    _, report = canonical_output(classifier((1, 4), inside), family, INPUT_HW, list("abcd"))

    assert isinstance(report.family, Logits)
    assert report.family.activation == expected


@pytest.mark.parametrize(
    ("inside", "asked", "message"),
    [
        ("Softmax", "softmax", "softmax on top of probabilities"),
        (None, "none", "none needs probabilities"),
        (None, "exp", "exp needs logarithms of probabilities"),
        ("Softmax", "exp", "exp on top of probabilities"),
    ],
)
def test_an_activation_too_many_or_too_few_is_refused(inside: str | None, asked: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        canonical_output(classifier((1, 4), inside), Logits(activation=asked), INPUT_HW, list("abcd"))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("family", "shapes", "message"),
    [
        (Yolox(), {"output": (1, YOLOX_CELLS + 1, 8)}, r"output \[1,N,5\+classes\].*N=126 cells"),
        (Yolox(), {"output": (1, 8, YOLOX_CELLS)}, r"\[1,N,5\+classes\].*found output float32\[1,8,126\]"),
        (Yolox(), {"a": (1, 9, 8), "b": (1, 9, 8)}, "expected one output.*found 2"),
        (Yolox(tensor="c"), {"a": (1, 9, 8)}, "the model has no output 'c', it has a"),
        (BoxesScores(), {"output": (1, YOLOX_CELLS, 85)}, "two float32 outputs"),
        (BoxesScores(), {"boxes": (1, 9, 4), "scores": (1, 8, 2)}, "two float32 outputs"),
        (AnchorFree(), {"cls_8": (1, 3, 8, 12)}, "1 outputs are no pairs"),
        (AnchorFree(), {"cls_8": (1, 3, 8, 12), "ltrb_8": (1, 4, 8, 11)}, "no pair of stride 8"),
        (AnchorFree(), {"ltrb_8": (1, 4, 8, 12), "cls_8": (1, 3, 8, 12)}, "no pair of stride 8"),
        (Logits(), {"boxes": (1, 9, 4)}, r"one float32 output \[1,C\]"),
    ],
)
def test_a_model_of_another_family_is_refused_with_what_was_expected_and_found(
    family: Family, shapes: dict[str, tuple[int, ...]], message: str
) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        canonical_output(source_of(shapes), family, INPUT_HW, ["a"])

    assert str(caught.value).endswith(f"families known: {', '.join(FAMILIES)}")
    assert next(iter(shapes)) in str(caught.value)


THREE_CLASSES: list[tuple[Family, dict[str, tuple[int, ...]]]] = [
    (Yolox(), {"output": (1, YOLOX_CELLS, 8)}),
    (BoxesScores(), {"boxes": (1, 9, 4), "scores": (1, 9, 3)}),
    (BoxesScores(background_index=0), {"boxes": (1, 9, 4), "scores": (1, 9, 4)}),
    (AnchorFree(), {"cls_8": (1, 3, 8, 12), "ltrb_8": (1, 4, 8, 12)}),
]


@pytest.mark.parametrize(("family", "shapes"), THREE_CLASSES)
def test_the_number_of_labels_must_be_the_models(family: Family, shapes: dict[str, tuple[int, ...]]) -> None:
    with pytest.raises(RecipeError, match="labels: expected 3 names, one per class of the model, got 80"):
        canonical_output(source_of(shapes), family, INPUT_HW, ["label"] * 80)


def test_a_classifiers_labels_are_counted_too() -> None:
    with pytest.raises(RecipeError, match="labels: expected 4 names, one per class of the model, got 3"):
        canonical_output(classifier((1, 4), None), Logits(), INPUT_HW, ["label"] * 3)


@pytest.mark.parametrize(("family", "shapes"), [*THREE_CLASSES, (Logits(), {"output": (1, 3)})])
def test_outputs_of_another_type_are_refused(family: Family, shapes: dict[str, tuple[int, ...]]) -> None:
    model = source_of(shapes)
    for value in [*model.graph.input, *model.graph.output]:
        value.type.tensor_type.elem_type = TensorProto.FLOAT16

    with pytest.raises(RecipeError, match=r"expected float32 outputs of fixed shape, found \w+ float16"):
        canonical_output(model, family, INPUT_HW, ["label"] * 3)


def test_the_raw_head_stays_in_the_graph_and_splits_network_from_decoding() -> None:
    raw = boxes_scores_head(np.random.default_rng(0), 3)
    source = source_of(shapes_of(raw))

    canonical, report = canonical_output(source, BoxesScores(), INPUT_HW, list("abc"))
    portable, _ = make_portable(canonical, report.raw_tensors.values())

    assert report.raw_tensors == {"boxes": "source/boxes", "scores": "source/scores"}
    decoding = nodes_after(portable, list(report.raw_tensors.values()))
    assert all(name.startswith("canonical/") for name in decoding)
    assert {"canonical/best", "canonical/best_label"} <= set(decoding)


def test_boxes_are_decoded_for_the_best_anchors_only() -> None:
    """What makes the tail cheap: selection comes first, and Exp sees K rows."""
    canonical, _ = canonical_output(
        source_of({"output": (1, YOLOX_CELLS, 8)}), Yolox(candidates=10), INPUT_HW, ["a", "b", "c"]
    )

    assert [node.op_type for node in canonical.graph.node] == [
        "Identity", "Slice", "Slice", "ReduceMax", "Reshape", "Mul", "TopK", "Reshape", "Gather", "ArgMax",
        "Gather", "Gather", "Gather", "Slice", "Add", "Mul", "Slice", "Exp", "Mul", "Mul", "Sub", "Add", "Concat",
    ]  # fmt: skip


def test_an_output_that_is_no_part_of_the_head_goes() -> None:
    source = source_of({"output": (1, YOLOX_CELLS, 8), "features": (1, 7)})

    canonical, _ = canonical_output(source, Yolox(tensor="output"), INPUT_HW, ["a", "b", "c"])

    assert "pass_features" not in {node.name for node in canonical.graph.node}
