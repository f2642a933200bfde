"""How the values of every activation are distributed over the calibration pictures, in bounded memory.

Pass 1 finds each tensor's least and greatest value (`ranges.py`). Pass 2 counts its values in equal bins: the graph
itself divides by the bin's width and rounds, with ONNX Runtime's QuantizeLinear to uint16 (0.25 ns a value, measured),
so only bin numbers leave it, at half the size; OpenCV counts them (0.5 ns a value; numpy.histogram takes 5).

Bins lie about zero: bin ``zero_bin + i`` holds the values that are nearest to ``i * width``, and the bins reach zero
even when the values do not, as the range of a quantised tensor must. So the exact zeros behind a Relu fill one bin
whose centre they are, and zero is no edge that rounding could put on either side.

Memory: ``bins * 8`` bytes per tensor for the counts, and ``memory_mb`` for the bin numbers of one picture: the tensors
are counted in groups of which one picture's fit, each group in a pass of its own over the pictures and in a session
that ends at its last tensor. On top come the model, the pictures that the caller's iterator holds, and ONNX Runtime's
working set for one picture. Nothing grows with the number of pictures.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from build_models.errors import BuildError
from build_models.quantize.ranges import collect_extremes
from build_models.quantize.taps import open_tapped

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from numpy.typing import NDArray

    from agent.model.runtime import ort

_BYTES_EACH = 2  # of a bin number
_COUNTED_AT_ONCE = 1 << 23  # OpenCV counts in float32, which is exact up to 2^24
_FEW = 1 << 14  # below it numpy is faster: OpenCV first makes a table of 65,536 entries
_LEAST_BINS, _MOST_BINS = 16, 1 << 15
_OFFSET = 1 << 14  # of a bin number as the graph writes it: room below, so that a value out of range is seen there too
_SMALLEST_WIDTH = float(np.finfo(np.float32).tiny)
_DOMAIN = "com.microsoft"  # its QuantizeLinear writes uint16 in every opset


@dataclass(frozen=True)
class TensorHistogram:
    """The values of one tensor over all pictures.

    Attributes:
        low: least value, raw.
        high: greatest value, raw.
        moving_low: exponential moving average of the pictures' least values.
        moving_high: the same of the greatest.
        width: of a bin.
        zero_bin: the bin whose centre is zero.
        counts: int64 ``[bins]``; exact.
    """

    low: float
    high: float
    moving_low: float
    moving_high: float
    width: float
    zero_bin: int
    counts: NDArray[np.int64]

    @property
    def centres(self) -> NDArray[np.float64]:
        """The value that each bin stands for, ``[bins]``."""
        return np.arange(-self.zero_bin, len(self.counts) - self.zero_bin, dtype=np.float64) * self.width

    @property
    def low_with_zero(self) -> float:
        """Where the range begins that min-max would take."""
        return min(self.low, 0.0)

    @property
    def high_with_zero(self) -> float:
        """Where the range ends that min-max would take."""
        return max(self.high, 0.0)


@dataclass(frozen=True)
class Histograms:
    """The histograms of all tensors by name, and the number of pictures behind them."""

    tensors: Mapping[str, TensorHistogram]
    pictures: int

    @property
    def digest(self) -> str:
        """SHA-256 in hex of all that is in them."""
        digest = hashlib.sha256(str(self.pictures).encode())
        for name, each in sorted(self.tensors.items()):
            facts = [name, each.low, each.high, each.moving_low, each.moving_high, each.width, each.zero_bin]
            digest.update(json.dumps(facts).encode())
            digest.update(each.counts.astype("<i8").tobytes())
        return digest.hexdigest()


def collect_histograms(
    model: onnx.ModelProto,
    tensors: Collection[str],
    images: Callable[[], Iterable[NDArray[np.uint8]]],
    *,
    bins: int = 2048,
    memory_mb: int = 512,
    progress: Callable[[int, int], None] | None = None,
) -> Histograms:
    """Run the canonical float graph on pictures and count the values of its tensors.

    Args:
        model: canonical graph of static shapes, input ``image`` uint8 ``[1, H, W, 3]``.
        tensors: names of float tensors in it.
        images: gives the same pictures, uint8 ``[H, W, 3]``, each time; called once per pass.
        bins: per tensor, 16 to 32,768.
        memory_mb: for the bin numbers of one picture; a tensor that is larger alone is counted alone.
        progress: called after every picture with the number of pictures run so far, over all passes, and the number
            of passes.

    Raises:
        BuildError: a tensor holds values that are not finite, or the pictures differed from pass to pass.
        ValueError: there was no picture, or ``bins`` is out of bounds.
    """
    if not _LEAST_BINS <= bins <= _MOST_BINS:
        raise ValueError(f"expected {_LEAST_BINS} to {_MOST_BINS} bins, got {bins}")
    groups = _groups(model, tensors, memory_mb << 20)
    done = 0

    def after_each() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, 1 + len(groups))

    found = collect_extremes(model, tensors, images(), after_each)
    empty = {}
    columns = (found.low.tolist(), found.high.tolist(), found.moving_low.tolist(), found.moving_high.tolist())
    for name, low, high, moving_low, moving_high in zip(found.names, *columns, strict=True):
        empty[name] = _empty(low, high, moving_low, moving_high, bins)
    for group in groups:
        _count(model, {name: empty[name] for name in group}, images(), found.pictures, after_each)
    return Histograms(empty, found.pictures)


def _empty(low: float, high: float, moving_low: float, moving_high: float, bins: int) -> TensorHistogram:
    start, end = min(low, 0.0), max(high, 0.0)
    # Two less than there are, as both ends are rounded to a bin; in the precision in which the graph divides.
    width = float(np.float32(max((end - start) / (bins - 2), _SMALLEST_WIDTH)))
    counts = np.zeros(bins, np.int64)
    return TensorHistogram(low, high, moving_low, moving_high, width, round(-start / width), counts)


def _groups(model: onnx.ModelProto, tensors: Collection[str], most_bytes: int) -> list[list[str]]:
    """The tensors in graph order, cut where the bin numbers of one picture would be more than ``most_bytes``."""
    sizes = {value.name: _size(value) for value in onnx.shape_inference.infer_shapes(model).graph.value_info}
    sizes |= {value.name: _size(value) for value in [*model.graph.input, *model.graph.output]}
    order = [value.name for value in model.graph.input] + [name for node in model.graph.node for name in node.output]
    place = {name: index for index, name in enumerate(order)}
    missing = sorted(set(tensors) - place.keys())
    if missing:
        raise BuildError(f"the graph has no tensor {', '.join(missing[:3])} ({len(missing)} missing)")
    groups: list[list[str]] = []
    room = 0
    for name in sorted(set(tensors), key=place.__getitem__):
        need = sizes.get(name, most_bytes // _BYTES_EACH) * _BYTES_EACH  # of unknown size: alone
        if not groups or need > room:
            groups.append([])
            room = most_bytes
        groups[-1].append(name)
        room -= need
    return groups


def _size(value: onnx.ValueInfoProto) -> int:
    return math.prod(side.dim_value for side in value.type.tensor_type.shape.dim)


def _count(
    model: onnx.ModelProto,
    histograms: Mapping[str, TensorHistogram],
    images: Iterable[NDArray[np.uint8]],
    pictures: int,
    after_each: Callable[[], None],
) -> None:
    """Add what the pictures show to the counts."""
    session = _binned(model, histograms)
    seen = 0
    for image in images:
        for (name, histogram), numbers in zip(
            histograms.items(), session.run(None, {"image": image[None]}), strict=True
        ):
            counted = _counts(numbers.reshape(-1), len(histogram.counts))
            if counted.sum() != numbers.size:
                raise BuildError(
                    f"tensor {name} left the range {histogram.low:g} to {histogram.high:g} that it had a moment ago; "
                    "calibration needs the same pictures in every pass"
                )
            np.add(histogram.counts, counted, out=histogram.counts)
        seen += 1
        after_each()
    if seen != pictures:
        raise BuildError(f"expected the same {pictures} pictures in every pass of the calibration, got {seen}")


def _counts(numbers: NDArray[np.uint16], bins: int) -> NDArray[np.int64]:
    """How often each bin's number occurs; those of no bin are left out."""
    if numbers.size < _FEW:
        return np.bincount(numbers, minlength=_OFFSET + bins)[_OFFSET : _OFFSET + bins]
    total = np.zeros(bins, np.int64)
    for start in range(0, numbers.size, _COUNTED_AT_ONCE):
        chunk = numbers[start : start + _COUNTED_AT_ONCE].reshape(1, -1)
        total += cv2.calcHist([chunk], [0], None, [bins], [_OFFSET, _OFFSET + bins]).reshape(-1).astype(np.int64)
    return total


def _binned(model: onnx.ModelProto, histograms: Mapping[str, TensorHistogram]) -> ort.InferenceSession:
    """A session of the graph up to the last of these tensors; its outputs are their bin numbers."""
    binned = onnx.ModelProto()
    binned.CopyFrom(model)
    if all(entry.domain != _DOMAIN for entry in binned.opset_import):
        binned.opset_import.append(helper.make_opsetid(_DOMAIN, 1))
    constants = binned.graph.initializer
    taps, outputs = [], []
    for index, (name, histogram) in enumerate(histograms.items()):
        width, zero, output = f"bins/width/{index}", f"bins/zero/{index}", f"bins/{index}"
        constants.append(numpy_helper.from_array(np.array(histogram.width, np.float32), width))
        constants.append(numpy_helper.from_array(np.array(_OFFSET + histogram.zero_bin, np.uint16), zero))
        taps.append(helper.make_node("QuantizeLinear", [name, width, zero], [output], domain=_DOMAIN))
        outputs.append(onnx.ValueInfoProto(name=output, type=_bin_numbers()))
    return open_tapped(binned, taps, outputs)


def _bin_numbers() -> onnx.TypeProto:
    kind = onnx.TypeProto()
    kind.tensor_type.elem_type = TensorProto.UINT16
    return kind
