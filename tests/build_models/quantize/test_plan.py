"""The plan leaves joins of different ranges in float, found by ranges, and knows where the answers are complete."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the build extra")

from onnx import helper

from build_models.quantize.plan import WIDEST, Plan, make_plan
from tests.support.onnx_graphs import graph_model, ints, numbers

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx

pytestmark = pytest.mark.build

WEIGHTS: dict[str, Any] = {
    "w4": numbers(4, 3, 1, 1),
    "w2": numbers(2, 4, 1, 1),
    "w": numbers(4, 4, 1, 1),
    "w6": numbers(4, 6, 1, 1),
}
TRUNK = ["trunk", "trunk_r"]


def node(op_type: str, inputs: Sequence[str], made: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op_type, list(inputs), [made], name=made, **attributes)


def network(nodes: Sequence[onnx.NodeProto], *outputs: str, **constants: Any) -> onnx.ModelProto:
    """From "image" over "trunk_r", four channels, to some outputs."""
    trunk = [node("Conv", ["image", "w4"], "trunk"), node("Relu", ["trunk"], "trunk_r")]
    return graph_model(
        [*trunk, *nodes],
        inputs={"image": (1, 3, 8, 8)},
        outputs=dict.fromkeys(outputs, 1),
        **WEIGHTS,
        **constants,
    )


def yolox_like() -> onnx.ModelProto:
    """Boxes, objectness and classes of two scales side by side, then scale behind scale."""
    nodes = []
    for scale in "ab":
        nodes += [
            node("Conv", ["trunk_r", "w"], f"box_{scale}"),
            node("Conv", ["trunk_r", "w2"], f"obj_{scale}"),
            node("Sigmoid", [f"obj_{scale}"], f"obj_s_{scale}"),
            node("Conv", ["trunk_r", "w2"], f"cls_{scale}"),
            node("Sigmoid", [f"cls_{scale}"], f"cls_s_{scale}"),
            node("Concat", [f"box_{scale}", f"obj_s_{scale}", f"cls_s_{scale}"], f"cat_{scale}", axis=1),
            node("Reshape", [f"cat_{scale}", "flat"], f"flat_{scale}"),
        ]
    nodes += [node("Concat", ["flat_a", "flat_b"], "all", axis=2), node("Transpose", ["all"], "y", perm=[0, 2, 1])]
    return network(nodes, "y", flat=ints(1, 8, 64))


def plan_of(model: onnx.ModelProto, raw: Sequence[str], /, **ranges: tuple[float, float]) -> Plan:
    names = [name for each in model.graph.node for name in each.output]
    return make_plan(model, raw, dict.fromkeys(names, (0.0, 1.0)) | ranges)


def test_boxes_beside_scores_are_joined_in_float() -> None:
    plan = plan_of(yolox_like(), ["y"], box_a=(-3.0, 5.0), box_b=(-3.0, 5.0))
    assert [(join.node, join.ratio) for join in plan.joins] == [("cat_a", 8.0), ("cat_b", 8.0)]
    assert plan.joins[0].tensors == ("box_a", "obj_s_a", "cls_s_a")
    left = {"cat_a", "flat_a", "cat_b", "flat_b", "all", "y"}
    assert left.isdisjoint(plan.nodes)
    assert {*TRUNK, "box_a", "obj_s_a", "cls_s_b"} <= set(plan.nodes)


def test_the_same_join_of_equal_ranges_is_quantised() -> None:
    plan = plan_of(yolox_like(), ["y"])
    assert plan.joins == ()
    assert plan.nodes == tuple(each.name for each in yolox_like().graph.node)


def test_only_the_scale_whose_ranges_differ_is_left_with_what_follows_it() -> None:
    plan = plan_of(yolox_like(), ["y"], box_b=(0.0, 640.0))
    assert [join.node for join in plan.joins] == ["cat_b"]
    assert {"cat_b", "flat_b", "all", "y"}.isdisjoint(plan.nodes)
    assert {"cat_a", "flat_a"} <= set(plan.nodes)


@pytest.mark.parametrize(
    ("first", "second", "ratio"),
    [
        ((0, 2), (0, 1), None),  # one bit
        ((0, 2.1), (0, 1), 2.1),
        ((100, 101), (0, 1), 101.0),  # both are 1 wide, but int8 has to hold 0 too
        ((-2, 0), (0, 2), None),  # together 4 wide
        ((-3, 0), (0, 2), 2.5),
        ((0, 0), (0, 5), None),  # zeros lose nothing
    ],
)
def test_a_tensor_may_lose_one_bit_of_the_range_that_int8_gives_it(
    first: tuple[float, float], second: tuple[float, float], ratio: float | None
) -> None:
    model = network(
        [
            node("Conv", ["trunk_r", "w"], "one"),
            node("Conv", ["trunk_r", "w"], "two"),
            node("Concat", ["one", "two"], "y", axis=1),
        ],
        "y",
    )
    plan = plan_of(model, ["y"], one=first, two=second)
    assert [join.ratio for join in plan.joins] == ([] if ratio is None else [pytest.approx(ratio)])
    assert ("y" in plan.nodes) == (ratio is None)
    assert WIDEST == 2.0


def test_a_join_in_front_of_a_convolution_is_untouched_whatever_its_ranges() -> None:
    nodes = [
        node("Conv", ["trunk_r", "w2"], "side"),
        node("Concat", ["side", "trunk_r"], "cat", axis=1),
        node("Conv", ["cat", "w6"], "y"),
    ]
    plan = plan_of(network(nodes, "y"), ["y"], side=(0.0, 900.0))
    assert plan.joins == ()
    assert plan.nodes == (*TRUNK, "side", "cat", "y")


def test_a_join_that_is_an_answer_and_read_on_is_no_tail() -> None:
    nodes = [
        node("Conv", ["trunk_r", "w2"], "side"),
        node("Concat", ["side", "trunk_r"], "cat", axis=1),
        node("Conv", ["cat", "w6"], "y"),
    ]
    plan = plan_of(network(nodes, "cat", "y"), ["cat", "y"], side=(0.0, 900.0))
    assert plan.joins == ()
    assert plan.heads == ("side", "trunk_r", "y")


def test_names_decide_nothing() -> None:
    renamed = yolox_like()
    for each in renamed.graph.node:
        each.name = f"node_{each.name[::-1]}"
    ranges = {"box_a": (-3.0, 5.0), "box_b": (-3.0, 5.0)}
    plan = plan_of(yolox_like(), ["y"], **ranges)
    assert list(plan_of(renamed, ["y"], **ranges).nodes) == [f"node_{name[::-1]}" for name in plan.nodes]


def test_heads_are_what_is_joined_at_the_end() -> None:
    expected = [f"{name}_{scale}" for scale in "ab" for name in ("box", "obj_s", "cls_s")]
    assert plan_of(yolox_like(), ["y"]).heads == tuple(expected)


def test_heads_of_one_joined_map() -> None:
    """As FastestDet has it: three heads of one scale."""
    nodes = [
        node("Conv", ["trunk_r", "w2"], "obj"),
        node("Sigmoid", ["obj"], "obj_s"),
        node("Conv", ["trunk_r", "w"], "reg"),
        node("Conv", ["trunk_r", "w2"], "cls"),
        node("Softmax", ["cls"], "cls_s", axis=1),
        node("Concat", ["obj_s", "reg", "cls_s"], "y", axis=1),
    ]
    plan = plan_of(network(nodes, "y"), ["y"], reg=(-4.0, 4.0))
    assert plan.heads == ("obj_s", "reg", "cls_s")
    assert [join.node for join in plan.joins] == ["y"]
    assert "cls_s" not in plan.nodes  # the provider does not run a Softmax in int8


def test_the_head_of_a_classifier_is_its_logits() -> None:
    nodes = [
        node("GlobalAveragePool", ["trunk_r"], "pooled"),
        node("Flatten", ["pooled"], "flat"),
        node("Gemm", ["flat", "classes"], "y"),
    ]
    plan = plan_of(network(nodes, "y", classes=numbers(4, 3)), ["y"])
    assert plan.heads == ("y",)
    assert plan.nodes[-1] == "y"


def test_the_head_of_a_segmenter_is_the_enlarged_map() -> None:
    nodes = [
        node("Conv", ["trunk_r", "w2"], "small"),
        node("Resize", ["small", "", "scales"], "large", mode="linear"),
        node("Transpose", ["large"], "y", perm=[0, 2, 3, 1]),
    ]
    plan = plan_of(network(nodes, "y", scales=np.array([1, 1, 2, 2], np.float32)), ["y"])
    assert plan.heads == ("large",)


def test_several_raw_outputs_have_their_heads_each_once() -> None:
    nodes = [
        node("Conv", ["trunk_r", "w2"], "one"),
        node("Conv", ["trunk_r", "w2"], "two"),
        node("Concat", ["one", "two"], "a", axis=1),
        node("Transpose", ["one"], "b", perm=[0, 2, 3, 1]),
        node("Sigmoid", ["a"], "decoded"),
    ]
    model = network(nodes, "decoded", "b")
    plan = plan_of(model, ["a", "b"], two=(0.0, 9.0))
    assert plan.heads == ("one", "two")
    assert [join.node for join in plan.joins] == ["a"]
    assert "decoded" not in plan.nodes  # behind the raw outputs
    assert "b" in plan.nodes


def test_a_constant_beside_the_answers_is_no_head() -> None:
    nodes = [
        node("Conv", ["trunk_r", "w2"], "one"),
        node("Concat", ["one", "grid"], "y", axis=1),
    ]
    plan = plan_of(network(nodes, "y", grid=numbers(1, 2, 8, 8)), ["y"])
    assert plan.heads == ("one",)
