"""Histograms: the counts are those of an independent recomputation, and memory does not grow with the pictures."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the build extra")

import onnx
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from build_models.errors import BuildError
from build_models.graph.model_io import run_model, with_outputs
from build_models.quantize.histograms import Histograms, TensorHistogram, collect_histograms
from build_models.quantize.ranges import MOMENTUM, collect_ranges

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

pytestmark = pytest.mark.build

SIDE = 24
TENSORS = ("pixels", "signed", "rectified", "far", "few")


def model(opset: int = 17, side: int = SIDE) -> onnx.ModelProto:
    """Of the image: "pixels", "signed" (p * 0.37 - 40), "rectified" (of it), "far" (100..101), "few" (one number)."""
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["pixels", "factor"], ["product"]),
        helper.make_node("Sub", ["product", "forty"], ["signed"]),
        helper.make_node("Relu", ["signed"], ["rectified"]),
        helper.make_node("Div", ["pixels", "most"], ["share"]),
        helper.make_node("Add", ["share", "hundred"], ["far"]),
        helper.make_node("ReduceMax", ["signed"], ["few"], keepdims=1),
    ]
    constants = {"factor": 0.37, "forty": 40, "most": 255, "hundred": 100}
    shape = [1, side, side, 3]
    graph = helper.make_graph(
        nodes,
        "histograms",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("rectified", "far")]
        + [helper.make_tensor_value_info("few", TensorProto.FLOAT, [1, 1, 1, 1])],
        [numpy_helper.from_array(np.array(value, np.float32), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def pictures(count: int = 3, side: int = SIDE) -> list[NDArray[np.uint8]]:
    rng = np.random.default_rng(7)
    return [rng.integers(0, 200 + 20 * (index % 3), (side, side, 3)).astype(np.uint8) for index in range(count)]


def values_of(name: str, images: list[NDArray[np.uint8]]) -> list[NDArray[np.float32]]:
    graph = with_outputs(model(side=images[0].shape[0]), [name])
    return [run_model(graph, {"image": image[None]})[name].reshape(-1) for image in images]


def slow_counts(histogram: TensorHistogram, values: NDArray[np.float32]) -> NDArray[np.int64]:
    """Each value to the nearest centre, by distance."""
    counts = np.zeros(len(histogram.counts), np.int64)
    for value, times in zip(*np.unique(values, return_counts=True), strict=True):
        counts[np.argmin(np.abs(histogram.centres - value))] += times
    return counts


@pytest.mark.parametrize("opset", [13, 17, 18, 21])
@pytest.mark.parametrize("side", [SIDE, 96])  # few numbers are counted by numpy, many by OpenCV
def test_counts_are_those_of_a_slow_recomputation(opset: int, side: int) -> None:
    images = pictures(3, side)
    found = collect_histograms(model(opset, side), TENSORS, lambda: images)
    assert found.pictures == 3
    for name in TENSORS:
        values = np.concatenate(values_of(name, images))
        histogram = found.tensors[name]
        assert histogram.counts.sum() == values.size
        # A value on the edge of two bins may be rounded to either: cumulated counts differ by those alone.
        off = np.abs(np.cumsum(histogram.counts) - np.cumsum(slow_counts(histogram, values)))
        on_an_edge = np.isclose(np.abs(values / histogram.width) % 1, 0.5, atol=1e-3).sum()
        assert off.max() <= on_an_edge
        assert on_an_edge < values.size / 20


def test_the_recomputation_sees_one_value_in_another_bin() -> None:
    images = pictures()
    histogram = collect_histograms(model(), ["rectified"], lambda: images).tensors["rectified"]
    values = np.concatenate(values_of("rectified", images))
    moved = histogram.counts.copy()
    moved[histogram.zero_bin] -= 1000
    moved[-5] += 1000
    assert np.abs(np.cumsum(moved) - np.cumsum(slow_counts(histogram, values))).max() >= 1000


def test_the_extremes_are_those_of_the_ranges() -> None:
    images = pictures()
    found = collect_histograms(model(), TENSORS, lambda: images)
    assert {name: (each.low, each.high) for name, each in found.tensors.items()} == collect_ranges(
        model(), TENSORS, images
    )


def test_the_moving_average_is_that_of_its_definition() -> None:
    images = pictures(7)
    histogram = collect_histograms(model(), ["signed"], lambda: images).tensors["signed"]
    low = high = None
    for values in values_of("signed", images):
        least, most = float(values.min()), float(values.max())
        low = least if low is None else (1 - MOMENTUM) * low + MOMENTUM * least
        high = most if high is None else (1 - MOMENTUM) * high + MOMENTUM * most
    assert (histogram.moving_low, histogram.moving_high) == pytest.approx((low, high), rel=1e-9)
    assert histogram.moving_high != histogram.high


def test_exact_zeros_fill_the_bin_whose_centre_is_zero_and_nothing_lies_below() -> None:
    images = pictures()
    histogram = collect_histograms(model(), ["rectified"], lambda: images).tensors["rectified"]
    zeros = sum(int((values == 0).sum()) for values in values_of("rectified", images))
    assert histogram.zero_bin == 0
    assert histogram.centres[0] == 0
    assert histogram.counts[0] >= zeros > sum(map(len, values_of("rectified", images))) / 3


def test_bins_reach_zero_where_the_values_do_not() -> None:
    histogram = collect_histograms(model(), ["far"], pictures).tensors["far"]
    assert histogram.zero_bin == 0
    assert histogram.counts[: len(histogram.counts) * 9 // 10].sum() == 0
    assert histogram.centres[-1] == pytest.approx(histogram.high, rel=0.01)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.integers(0, 255), max_size=6), min_size=1, max_size=3), st.integers(16, 300))
def test_every_value_is_in_a_bin_within_half_a_width(pictures_of: list[list[int]], bins: int) -> None:
    images = []
    for pixels in pictures_of:
        image = np.full((SIDE, SIDE, 3), 60, np.uint8)
        image.reshape(-1)[: len(pixels)] = pixels
        images.append(image)
    found = collect_histograms(model(), ["signed", "rectified"], lambda: images, bins=bins)
    for name, each in found.tensors.items():
        values = np.concatenate(values_of(name, images)).astype(np.float64)
        assert each.counts.sum() == values.size
        filled = each.centres[each.counts > 0]
        for number in np.unique(values):
            assert np.abs(filled - number).min() <= each.width * 0.501


@pytest.mark.parametrize("memory_mb", [0, 512])
def test_groups_do_not_change_the_result(memory_mb: int) -> None:
    images = pictures()
    passes = []

    def stream() -> Iterator[NDArray[np.uint8]]:
        passes.append(1)
        yield from images

    told: list[tuple[int, int]] = []
    found = collect_histograms(
        model(), TENSORS, stream, memory_mb=memory_mb, progress=lambda done, of: told.append((done, of))
    )
    assert found.digest == collect_histograms(model(), TENSORS, lambda: images).digest
    assert len(passes) == (1 + len(TENSORS) if memory_mb == 0 else 2)
    assert told[-1] == (3 * len(passes), len(passes))


def test_the_digest_is_of_all_that_is_in_them() -> None:
    images = pictures()
    found = collect_histograms(model(), ["signed"], lambda: images)
    counts = found.tensors["signed"].counts.copy()
    counts[5] += 1
    each = found.tensors["signed"]
    numbers = (each.low, each.high, each.moving_low, each.moving_high, each.width, each.zero_bin)
    changed = [
        Histograms({"signed": TensorHistogram(*numbers, counts)}, found.pictures),
        Histograms({"signed": TensorHistogram(numbers[0] - 1, *numbers[1:], each.counts)}, found.pictures),
        Histograms({"other": each}, found.pictures),
        Histograms(found.tensors, 4),
    ]
    assert len({found.digest, *(other.digest for other in changed)}) == 5


@pytest.mark.parametrize("brightness", [0, 255])
def test_pictures_that_change_between_the_passes_are_noticed(brightness: int) -> None:
    grey = np.full((SIDE, SIDE, 3), 100, np.uint8)
    passes = iter([[grey], [np.full_like(grey, brightness)]])
    with pytest.raises(BuildError, match=r"tensor signed left the range .* same pictures in every pass"):
        collect_histograms(model(), ["signed"], lambda: next(passes))


@pytest.mark.parametrize("count", [0, 2, 4])
def test_another_number_of_pictures_in_the_second_pass_is_noticed(count: int) -> None:
    passes = iter([pictures(3), (pictures(3) * 2)[:count]])
    with pytest.raises(BuildError, match=rf"same 3 pictures in every pass of the calibration, got {count}"):
        collect_histograms(model(), ["signed"], lambda: next(passes))


def test_what_cannot_be_counted_is_refused() -> None:
    with pytest.raises(BuildError, match="no tensor nowhere"):
        collect_histograms(model(), ["nowhere"], pictures)
    with pytest.raises(ValueError, match="16 to 32768 bins, got 8"):
        collect_histograms(model(), ["signed"], pictures, bins=8)
    with pytest.raises(ValueError, match="at least one picture"):
        collect_histograms(model(), ["signed"], list)


MEASURE = """
import json, sys
from pathlib import Path
import numpy as np, onnx
from onnx import TensorProto, helper, numpy_helper
sys.path.insert(0, ".")
from build_models.quantize.histograms import collect_histograms
from build_models.quantize.methods import ranges_of
def most_resident_mb():  # of this program: what getrusage tells also counts the parent, of which a child is a copy
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024
side, layers, wide, count, memory_mb = map(int, sys.argv[1:])
rng = np.random.default_rng(0)
nodes = [
    helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
    helper.make_node("Transpose", ["pixels"], ["t0"], perm=[0, 3, 1, 2]),
]
constants, channels = {}, 3
for i in range(layers):
    group = channels if i else 1
    constants[f"w{i}"] = (rng.standard_normal((wide, channels // group, 1, 1)) * 0.9).astype(np.float32)
    nodes.append(helper.make_node("Conv", [f"t{i}", f"w{i}"], [f"c{i}"], group=group))
    nodes.append(helper.make_node("Relu" if i % 2 else "LeakyRelu", [f"c{i}"], [f"t{i + 1}"]))
    channels = wide
graph = helper.make_graph(
    nodes, "wide",
    [helper.make_tensor_value_info("image", TensorProto.UINT8, [1, side, side, 3])],
    [helper.make_tensor_value_info(f"t{layers}", TensorProto.FLOAT, [1, wide, side, side])],
    [numpy_helper.from_array(value, name) for name, value in constants.items()],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
tensors = [name for node in nodes[1:] for name in node.output]
activations_mb = len(tensors) * wide * side * side * 4 / 2**20
few = rng.integers(0, 256, (4, side, side, 3)).astype(np.uint8)
before_mb = most_resident_mb()
found = collect_histograms(
    model, tensors, lambda: (few[i % 4] // np.uint8(1 + i % 3) for i in range(count)), memory_mb=memory_mb
)
ranges_of(found, "mse")
peak_mb = most_resident_mb()
print(json.dumps({"peak": peak_mb, "before": before_mb, "activations": activations_mb, "pictures": found.pictures}))
"""


def peak(side: int, layers: int, wide: int, count: int, memory_mb: int) -> dict[str, float]:
    """Memory in MB of a process that calibrates."""
    arguments = map(str, (side, layers, wide, count, memory_mb))
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *arguments],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=True,
    )
    measured: dict[str, float] = json.loads(done.stdout)
    print(measured)
    return measured


def test_memory_does_not_grow_with_the_number_of_pictures() -> None:
    few, many = (peak(320, 24, 16, count, 64) for count in (5, 60))
    assert many["pictures"] == 60
    assert many["peak"] < few["peak"] + 25
    assert 55 * few["activations"] / 100 > 25  # keeping a hundredth of what the 55 more activate would be seen


def test_memory_is_what_the_caller_allows_and_a_few_activations() -> None:
    tight, generous = (peak(320, 24, 16, 3, memory_mb) for memory_mb in (16, 4096))
    assert tight["peak"] < tight["before"] + 16 + tight["activations"] / 4
    assert generous["peak"] > tight["peak"] + tight["activations"] / 4  # the control: all bin numbers at once
