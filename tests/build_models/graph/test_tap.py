"""Taps: found by any of their names, true values, and never more than a group of them at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the build extra")

import onnx
from onnx import TensorProto, helper, numpy_helper

from build_models.errors import BuildError, RecipeError
from build_models.graph import tap as tap_module
from build_models.graph.tap import find_taps, tap_bytes, tap_groups, tap_values
from tests.support.branching_model import SIDE, branching_model

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

pytestmark = pytest.mark.build


def image() -> dict[str, NDArray[Any]]:
    return {"image": np.random.default_rng(2).standard_normal((1, 3, SIDE, SIDE)).astype(np.float32)}


def tensors(patterns: Sequence[str] | None, model: onnx.ModelProto | None = None) -> list[str]:
    return [tap.tensor for tap in find_taps(model or branching_model(), patterns)]


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["Conv"], ["a", "b"]),
        (["relu"], ["r"]),
        (["s"], ["s"]),
        (["conv[1]"], ["b"]),  # brackets in a name are brackets
        (["conv*"], ["a", "b"]),
        (["me?n", "Add"], ["s", "mean"]),
        (None, ["a", "r", "b", "s", "chosen", "mean", "scores"]),
    ],
)
def test_nodes_are_found_by_node_tensor_and_operator(patterns: list[str] | None, expected: list[str]) -> None:
    assert tensors(patterns) == expected


def test_a_pattern_that_matches_nothing_says_what_is_near() -> None:
    with pytest.raises(RecipeError, match=r"--nodes skp: no node.*did you mean 'skip'"):
        find_taps(branching_model(), ["Conv", "skp"])
    with pytest.raises(RecipeError, match=r"it has the operators Conv \(2\), Constant \(1\)"):
        find_taps(branching_model(), ["???????????????"])


def test_taps_have_the_values_of_an_independent_computation() -> None:
    model = branching_model()
    weights = {tensor.name: numpy_helper.to_array(tensor).astype(np.float64) for tensor in model.graph.initializer}
    padded = np.pad(image()["image"][0].astype(np.float64), ((0, 0), (1, 1), (1, 1)))
    a = np.zeros((4, SIDE, SIDE))
    for y in range(SIDE):
        for x in range(SIDE):
            a[:, y, x] = (weights["w_a"] * padded[None, :, y : y + 3, x : x + 3]).sum((1, 2, 3))
    r = np.maximum(a, 0)
    s = r + np.einsum("oi,iyx->oyx", weights["w_b"][:, :, 0, 0], r)

    got = {tap.tensor: value for tap, value in tap_values(model, find_taps(model), image())}

    for name, want in {"a": a, "r": r, "s": s, "chosen": 2 * s}.items():
        np.testing.assert_allclose(got[name][0], want, atol=1e-5)
    np.testing.assert_allclose(got["scores"][0], (2 * s).mean((1, 2)), atol=1e-5)


def test_another_picture_gives_other_values() -> None:
    model = branching_model()
    taps = find_taps(model, ["Conv"])
    ours = [value for _, value in tap_values(model, taps, image())]
    others = [value for _, value in tap_values(model, taps, {"image": image()["image"] + 1})]
    assert not any(np.allclose(one, other) for one, other in zip(ours, others, strict=True))


def test_sizes_are_measured_without_holding_the_values() -> None:
    model = branching_model()
    map_bytes = 4 * SIDE * SIDE * 4
    assert tap_bytes(model, find_taps(model), image()) == [map_bytes] * 5 + [16, 16]
    assert tap_bytes(model, [], image()) == []


def test_groups_hold_at_most_what_was_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    model, map_bytes = branching_model(), 4 * SIDE * SIDE * 4
    groups = tap_groups(model, find_taps(model), image(), group_bytes=2 * map_bytes)
    assert [[tap.tensor for tap in group] for group in groups] == [
        ["a", "r"],
        ["b", "s"],
        ["chosen", "mean", "scores"],
    ]
    asked: list[list[str]] = []
    opened = tap_module.open_taps

    def record(model: onnx.ModelProto, names: Sequence[str]) -> Callable[[Mapping[str, NDArray[Any]]], list[Any]]:
        asked.append(list(names))
        return opened(model, names)

    monkeypatch.setattr(tap_module, "open_taps", record)
    one_by_one = list(tap_values(model, find_taps(model), image(), group_bytes=1))
    assert asked == [["a"], ["r"], ["b"], ["s"], ["chosen"], ["mean"], ["scores"]]
    at_once = list(tap_values(model, find_taps(model), image()))
    assert len(asked) == 8
    for (_, one), (_, other) in zip(one_by_one, at_once, strict=True):
        np.testing.assert_array_equal(one, other)


def test_feeds_that_do_not_fit_are_an_error_of_one_line() -> None:
    model = branching_model()
    for feeds in ({}, {"image": np.zeros((1, 3, 2), np.float32)}):
        with pytest.raises(BuildError, match="does not run on this input") as caught:
            list(tap_values(model, find_taps(model), feeds))
        assert "\n" not in str(caught.value)


def quantised() -> onnx.ModelProto:
    """``x -> Q -> DQ -> Relu r``, with a weight that is dequantised too and a sequence."""
    constants = {"s": np.float32(0.5), "z": np.uint8(3), "w": np.zeros(4, np.uint8)}
    nodes = [
        helper.make_node("Neg", ["image"], ["x"], name="neg"),
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["x_q"]),
        helper.make_node("DequantizeLinear", ["x_q", "s", "z"], ["x_dq"]),
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["w_dq"]),
        helper.make_node("Add", ["x_dq", "w_dq"], ["r"]),
        helper.make_node("SplitToSequence", ["r"], ["pieces"]),
        helper.make_node("SequenceLength", ["pieces"], ["count"]),
    ]
    graph = helper.make_graph(
        nodes,
        "quantised",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [4])],
        [helper.make_tensor_value_info("r", TensorProto.FLOAT, [4])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_of_a_quantised_model_the_dequantised_tensors_are_seen_and_no_weights() -> None:
    assert tensors(None, quantised()) == ["x", "x_dq", "r", "count"]
    assert tensors(["x"], quantised()) == ["x", "x_dq"]  # by the name of the float tensor that it stands for
    assert tensors(["QuantizeLinear", "w_*"], quantised()) == ["x_q", "w_dq"]  # when asked for
    values = {tap.tensor: value for tap, value in tap_values(quantised(), find_taps(quantised()), one_to_four())}
    np.testing.assert_array_equal(values["x_dq"], [-1, -1.5, -1.5, -1.5])


def one_to_four() -> dict[str, NDArray[Any]]:
    return {"image": np.arange(1, 5).astype(np.float32)}
