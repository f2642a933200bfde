"""A Pad goes into what reads it, where the result is exactly the same."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the build extra")


from typing import TYPE_CHECKING, Any

from build_models.graph.passes.fold_pads import fold_pads
from build_models.graph.passes.remove_dead import remove_dead
from tests.support.onnx_graphs import graph_model, ints, node, numbers, ops, rewritten

if TYPE_CHECKING:
    from onnx import NodeProto

pytestmark = pytest.mark.build

SPATIAL = ints(0, 0, 1, 2, 0, 0, 0, 1)
PAD = node("Pad", ["x", "pads"], ["p"])
CONV = node("Conv", ["p", "w"], ["y"], pads=[1, 0, 1, 0])
W = numbers(4, 3, 3, 3)


@pytest.mark.parametrize(
    ("pad", "opset"),
    [
        (PAD, 17),
        (node("Pad", ["x", "pads", "zero"], ["p"], mode="constant"), 13),
        (node("Pad", ["x", "two", "zero", "axes"], ["p"]), 18),
        (node("Pad", ["x", "two", "", "negative_axes"], ["p"]), 21),
        (node("Pad", ["x"], ["p"], pads=SPATIAL.tolist()), 9),
    ],
    ids=["default value", "zero", "axes", "axes from behind", "attributes"],
)
def test_it_becomes_the_padding_of_a_convolution(pad: NodeProto, opset: int) -> None:
    model = graph_model(
        [pad, CONV],
        opset=opset,
        pads=SPATIAL,
        w=W,
        zero=np.zeros((), np.float32),
        two=ints(1, 2, 0, 1),
        axes=ints(2, 3),
        negative_axes=ints(-2, -1),
    )
    result, count = rewritten(fold_pads, model)
    assert count == 1
    assert list(result.graph.node[-1].attribute[0].ints) == [2, 2, 1, 1]
    assert ops(remove_dead(result)[0]) == ["Conv"]


def test_each_reader_takes_it_in_and_others_keep_it() -> None:
    nodes = [PAD, CONV, node("Conv", ["p", "w"], ["z"], auto_pad="VALID"), node("Relu", ["p"], ["r"])]
    result, count = rewritten(fold_pads, graph_model(nodes, outputs={"y": 1, "z": 1, "r": 1}, pads=SPATIAL, w=W))
    assert (ops(result), count) == (["Pad", "Conv", "Conv", "Relu"], 2)


@pytest.mark.parametrize(
    ("nodes", "pads", "value"),
    [
        ([node("Pad", ["x", "pads"], ["p"], mode="reflect"), CONV], SPATIAL, 0),
        ([node("Pad", ["x", "pads"], ["p"], mode="edge"), CONV], SPATIAL, 0),
        ([node("Pad", ["x", "pads", "value"], ["p"]), CONV], SPATIAL, 1),
        ([PAD, node("Conv", ["p", "w"], ["y"])], ints(0, 0, 2, 2, 0, 0, -1, 1), 0),
        ([PAD, node("Conv", ["p", "w5"], ["y"])], ints(0, 1, 1, 1, 0, 1, 1, 1), 0),
        ([PAD, node("Conv", ["p", "w"], ["y"], auto_pad="SAME_UPPER", strides=[2, 2])], SPATIAL, 0),
        ([PAD, node("Relu", ["p"], ["y"])], SPATIAL, 0),
    ],
    ids=["reflecting", "edge", "of ones", "cropping", "channels", "SAME", "nothing that pads"],
)
def test_any_other_stays(nodes: list[NodeProto], pads: np.ndarray[tuple[int], np.dtype[np.int64]], value: int) -> None:
    model = graph_model(nodes, pads=pads, w=W, w5=numbers(4, 5, 3, 3), value=np.array(value, np.float32))
    assert rewritten(fold_pads, model)[1] == 0


@pytest.mark.parametrize(
    ("attributes", "folds"),
    [
        ({}, True),
        ({"count_include_pad": 1, "pads": [0, 0, 1, 1]}, True),
        ({"pads": [0, 0, 1, 1]}, False),
        ({"ceil_mode": 1}, False),
        ({"kernel_shape": [2, 2]}, False),
    ],
    ids=["plain", "counts its own", "does not count its own", "rounds up", "smaller than the padding"],
)
def test_an_average_counts_the_padding(attributes: dict[str, Any], folds: bool) -> None:
    pool = node("AveragePool", ["p"], ["y"], **{"kernel_shape": [3, 3], "strides": [2, 2], **attributes})
    result, count = rewritten(fold_pads, graph_model([PAD, pool], pads=SPATIAL))
    assert count == int(folds)
    assert ops(remove_dead(result)[0]) == (["AveragePool"] if folds else ["Pad", "AveragePool"])


@pytest.mark.parametrize(
    ("source", "value", "folds"),
    [("x", 0, False), ("r", 0, True), ("x", -np.inf, True), ("r", 1, False)],
    ids=["zero beats negative numbers", "never negative", "minus infinity", "one beats small numbers"],
)
def test_a_maximum_is_the_same_only_where_the_padding_never_wins(source: str, value: float, folds: bool) -> None:
    nodes = [
        node("Relu", ["x"], ["r"]),
        node("Pad", [source, "pads", "value"], ["p"]),
        node("MaxPool", ["p"], ["y"], kernel_shape=[3, 3], strides=[2, 2]),
    ]
    model = graph_model(nodes, outputs={"y": 1, "r": 1}, pads=SPATIAL, value=np.array(value, np.float32))
    result, count = rewritten(fold_pads, model)
    assert count == int(folds)
    assert ops(remove_dead(result)[0]) == ["Relu", *([] if folds else ["Pad"]), "MaxPool"]


def test_a_maximum_whose_place_is_wanted_stays() -> None:
    nodes = [
        node("Relu", ["x"], ["r"]),
        node("Pad", ["r", "pads"], ["p"]),
        node("MaxPool", ["p"], ["y", "where"], kernel_shape=[3, 3]),
    ]
    model = graph_model(nodes, outputs={"y": 1, "where": 7}, pads=SPATIAL)
    assert rewritten(fold_pads, model)[1] == 0
