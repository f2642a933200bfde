"""Cross-layer equalisation: channels of one activation get like ranges, so that one int8 scale serves them all.

Between two convolutions a channel may be divided by s and the next weights multiplied by it, as long as what lies
between passes a positive factor through (Nagel et al. 2019, section 4.1, https://arxiv.org/abs/1906.04721). Their s
equalises the ranges of *weights*, for weights with one scale per tensor. Here a weight has a scale per output channel,
and what suffers is the *activation*, whose one scale is set by its largest channel: so s balances the channels'
measured largest magnitudes against the next weights, as SmoothQuant does (Xiao et al. 2022,
https://arxiv.org/abs/2211.10438): ``s = largest^alpha / weight^(1 - alpha)``. In front of a depthwise convolution, each
of whose channels has its own weight scale, alpha is 1; else the alpha is taken whose predicted noise is least, or
none, again until that gains nothing more. The prediction is of noise against signal for every output channel of the
next layer, which no scaling of that output changes: so one pass over the graph is enough.

What may lie between:

- nothing, Relu, LeakyRelu, PRelu with one slope, pooling: pass any positive factor through.
- Clip(0, b): a channel that reaches b stays as it is; one that never does is raised up to b at most.
- SiLU, ``x * Sigmoid(x)``: the convolution writes x / s, an added Mul undoes that in front of the Sigmoid alone, and
  the product is y / s. A Clip keeps the Sigmoid's input to where it is not yet 0 or 1, so that its int8 steps are
  fine. The Mul costs a pass over the tensor; it is put only where the prediction gains `SILU_GAIN_DB`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import numpy_helper

from build_models.graph.model_io import constant_of
from build_models.graph.writer import GraphWriter
from build_models.quantize.channels import Channels, collect_channels
from build_models.quantize.taps import put_behind

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

SILU_GAIN_DB = 20.0
_HOMOGENEOUS = ("Relu", "LeakyRelu", "PRelu", "MaxPool", "AveragePool", "GlobalAveragePool")
_NOT_MERGED = ("LeakyRelu", "PRelu")
_ALPHAS = (0.25, 0.5, 0.75, 1.0)
_MOST_RAISED = 64.0  # a channel that hardly ever speaks keeps some room to do so
_LEAST_GAIN_DB = 0.1
_MOST_ROUNDS = 8
_REACHES = 0.999  # of a Clip's bound
_WEIGHT_LEVELS, _LEVELS = 127, 255
_SATURATED = 10.0  # Sigmoid is 1 but for 5e-5 there, a hundredth of an int8 step
_TINY = 1e-12


@dataclass(frozen=True, slots=True)
class Equalised:
    """What was done at one activation.

    Attributes:
        tensor: its name.
        kind: the activation function: ``linear``, ``homogeneous``, ``clip`` or ``silu``.
        channels: how many it has.
        spread_before: largest channel's magnitude over the median channel's.
        spread_after: the same as it is now.
        gain_db: predicted gain in signal-to-noise of the layers that read it.
    """

    tensor: str
    kind: str
    channels: int
    spread_before: float
    spread_after: float
    gain_db: float


@dataclass(frozen=True)
class _Joint:
    """A convolution, what follows it, and the convolutions that alone read the result ``tensor``.

    ``seen`` are the tensors between that int8 gives a scale: the result, and what goes into an activation function
    that does not merge with the convolution as Relu and Clip do. What goes into a SiLU is left out: far below zero,
    where its range may be long, SiLU is zero whatever int8 makes of it.
    """

    source: onnx.NodeProto
    kind: str
    tensor: str
    seen: tuple[str, ...]
    readers: tuple[onnx.NodeProto, ...]
    bound: float = np.inf
    sigmoid: onnx.NodeProto | None = None


def equalize(
    model: onnx.ModelProto, images: Iterable[NDArray[np.uint8]], *, silu_gain_db: float = SILU_GAIN_DB
) -> tuple[onnx.ModelProto, list[Equalised]]:
    """Equalise a canonical float graph; the given model stays as it is.

    Args:
        model: canonical graph, weights as initialisers.
        images: calibration pictures, uint8 ``[H, W, 3]``; consumed one by one. What the graph computes for them stays
            the same but for float rounding; for others too, unless a raised channel in front of a Clip reaches more
            than it did here: it is clipped then, as int8 would.
        silu_gain_db: least predicted gain for which a SiLU is equalised; infinite: never.

    Returns:
        The graph, to be calibrated anew, and what was done, in graph order.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    joints = _joints(result)
    if not joints:
        return result, []
    channels = collect_channels(result, {name: 4 for joint in joints for name in joint.seen}, images)
    done = []
    writer = GraphWriter(result, "equalised")
    for joint in joints:
        found = channels[joint.tensor]
        found = replace(found, largest=np.max([channels[name].largest for name in joint.seen], axis=0))
        factors, gain_db = _factors(joint, found, [_weights(result, reader) for reader in joint.readers])
        if gain_db <= (silu_gain_db if joint.sigmoid is not None else _LEAST_GAIN_DB):
            continue
        _scale(result, joint, factors, writer)
        before, after = _spread(found.largest), _spread(found.largest / factors)
        done.append(Equalised(joint.tensor, joint.kind, len(factors), before, after, round(gain_db, 2)))
    put_behind(result, writer.nodes)
    return result, done


def _joints(model: onnx.ModelProto) -> list[_Joint]:
    """Every place where channels may be scaled."""
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    outputs = {value.name for value in model.graph.output}
    owned = {
        tensor.name
        for tensor in model.graph.initializer
        if len(readers.get(tensor.name, ())) == 1 and tensor.name not in outputs
    }
    found = []
    for node in model.graph.node:
        if node.op_type == "Conv" and owned.issuperset(filter(None, node.input[1:])):
            joint = _follow(model, node, readers, outputs)
            if joint is not None and all(reader.input[1] in owned for reader in joint.readers):
                found.append(joint)
    return found


def _follow(
    model: onnx.ModelProto, source: onnx.NodeProto, readers: Mapping[str, list[onnx.NodeProto]], outputs: set[str]
) -> _Joint | None:
    """From a convolution to those that read it, if all between passes a factor through."""
    tensor, kind, bound = source.output[0], "linear", np.inf
    sigmoid, separate = None, False
    while tensor not in outputs:
        after = readers.get(tensor, [])
        if after and all(node.op_type == "Conv" and tensor not in node.input[1:] for node in after):
            seen = (source.output[0], tensor) if separate else (tensor,)
            return _Joint(source, kind, tensor, seen, tuple(after), bound, sigmoid)
        if len(after) == 1 and after[0].op_type in _HOMOGENEOUS and _is_homogeneous(model, after[0]):
            kind = "homogeneous" if kind == "linear" else kind
            separate = separate or after[0].op_type in _NOT_MERGED
        elif len(after) == 1 and after[0].op_type == "Clip" and kind == "linear":
            kind, bound = "clip", _clip_bound(model, after[0])
            if not bound > 0:
                return None
        elif kind == "linear" and (sigmoid := _silu(after, readers)) is not None:
            kind = "silu"
            after = [node for node in after if node.op_type == "Mul"]
        else:
            return None
        tensor = after[0].output[0]
    return None


def _is_homogeneous(model: onnx.ModelProto, node: onnx.NodeProto) -> bool:
    if node.op_type == "PRelu":
        slope = constant_of(model, node.input[1])
        return slope is not None and slope.size == 1
    return len(node.output) == 1


def _clip_bound(model: onnx.ModelProto, node: onnx.NodeProto) -> float:
    """The upper bound of ``Clip(0, b)``; 0 for another Clip."""
    low, high = (constant_of(model, name) if name else None for name in (*node.input[1:3], "", "")[:2])
    if low is None or float(low) != 0:
        return 0.0
    return np.inf if high is None and len(node.input) < 3 else float(high) if high is not None else 0.0


def _silu(after: Sequence[onnx.NodeProto], readers: Mapping[str, list[onnx.NodeProto]]) -> onnx.NodeProto | None:
    """The Sigmoid, if the two readers of a tensor make it ``x * Sigmoid(x)``."""
    by_type = {node.op_type: node for node in after}
    if len(after) != 2 or set(by_type) != {"Sigmoid", "Mul"}:
        return None
    gate = by_type["Sigmoid"].output[0]
    alone = len(readers.get(gate, ())) == 1 and gate in by_type["Mul"].input
    return by_type["Sigmoid"] if alone else None


def _weights(model: onnx.ModelProto, node: onnx.NodeProto) -> NDArray[np.float64]:
    """A convolution's weights as ``[groups, outputs per group, inputs per group, kernel]``."""
    value = constant_of(model, node.input[1])
    assert value is not None, "_joints() looked"
    groups = next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
    return value.astype(np.float64).reshape(groups, value.shape[0] // groups, value.shape[1], -1)


def _factors(
    joint: _Joint, found: Channels, weights: Sequence[NDArray[np.float64]]
) -> tuple[NDArray[np.float64], float]:
    """What to divide each channel by, and the predicted gain in dB; improved until a round gains next to nothing."""
    total, total_db = np.ones_like(found.largest), 0.0
    for _ in range(_MOST_ROUNDS):
        now = Channels(found.mean / total, found.power / total**2, found.largest / total)
        scaled = [each * total.reshape(each.shape[0], 1, each.shape[2], 1) for each in weights]
        factors, gain_db = _improved(joint, now, scaled, 1 / (_MOST_RAISED * total))
        if gain_db < _LEAST_GAIN_DB / 2:
            break
        total, total_db = total * factors, total_db + gain_db
    return total, total_db


def _improved(
    joint: _Joint, found: Channels, weights: Sequence[NDArray[np.float64]], least_factors: NDArray[np.float64]
) -> tuple[NDArray[np.float64], float]:
    """The best of a few factors, and its gain; ones and 0 where nothing helps."""
    best = np.ones_like(found.largest)
    before = least = _noise(best, found, weights)
    most = float(found.largest.max())
    if before <= 0 or most <= 0:
        return best, 0.0
    importance = np.max([_importance(each) for each in weights], axis=0)
    for alpha in _ALPHAS:
        factors = np.maximum(found.largest, _TINY) ** alpha / np.maximum(importance, _TINY) ** (1 - alpha)
        factors *= np.max(found.largest / factors) / most
        factors = np.maximum(factors, least_factors)
        if np.isfinite(joint.bound):
            factors = np.maximum(factors, found.largest / joint.bound)
            factors[found.largest >= _REACHES * joint.bound] = 1
        factors[found.largest <= _TINY * most] = 1  # it never speaks
        noise = _noise(factors, found, weights)
        if noise < least:
            best, least = factors, noise
    return best, float(10 * np.log10(before / least))


def _importance(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """How much of the range of an output channel's weights an input channel takes at most, ``[C]``."""
    magnitude = np.abs(weights).max(axis=3)
    share = magnitude / np.maximum(magnitude.max(axis=2, keepdims=True), _TINY)
    importance: NDArray[np.float64] = share.max(axis=1).reshape(-1)
    return importance


def _noise(factors: NDArray[np.float64], found: Channels, weights: Sequence[NDArray[np.float64]]) -> float:
    """Predicted noise over signal, averaged over the output channels of all layers that read the tensor.

    Both roundings are taken as even noise of a twelfth of a squared step: of the activation, one step for all
    channels, and of the weights, a step per output channel.
    """
    step = np.max(found.largest / factors) / _LEVELS
    shares = []
    for each in weights:
        groups, _, inputs, kernel = each.shape
        scale = factors.reshape(groups, 1, inputs)
        power = found.power.reshape(groups, 1, inputs)
        square = np.square(each).sum(axis=3)
        signal = (square * power).sum(axis=2)
        rounded = step**2 * (square * scale**2).sum(axis=2)
        weight_step = (np.abs(each).max(axis=3) * scale).max(axis=2) / _WEIGHT_LEVELS
        rounded_weights = weight_step**2 * kernel * (power / scale**2).sum(axis=2)
        alive = signal > _TINY * max(signal.max(), _TINY)
        shares.append(((rounded + rounded_weights)[alive] / signal[alive] / 12).ravel())
    everything = np.concatenate(shares)
    return float(everything.mean()) if len(everything) else 0.0


def _scale(model: onnx.ModelProto, joint: _Joint, factors: NDArray[np.float64], writer: GraphWriter) -> None:
    """Divide what the source writes, multiply what the readers weigh it with."""
    for name in filter(None, joint.source.input[1:]):
        _multiply(model, name, 1 / factors)
    for reader in joint.readers:
        weights = _weights(model, reader)
        groups, outputs, inputs, _ = weights.shape
        _multiply(model, reader.input[1], np.repeat(factors.reshape(groups, inputs), outputs, axis=0))
    if joint.sigmoid is not None:
        name = joint.sigmoid.name
        undo = writer.constant(factors.reshape(1, -1, 1, 1), np.float32, f"{name}/factors")
        bounds = [writer.constant(bound, np.float32, f"{name}/bound") for bound in (-_SATURATED, _SATURATED)]
        undone = writer.op("Mul", joint.source.output[0], undo, name=f"{name}/undo")
        joint.sigmoid.input[0] = writer.op("Clip", undone, *bounds, name=f"{name}/saturate")


def _multiply(model: onnx.ModelProto, name: str, factors: NDArray[np.float64]) -> None:
    """Multiply an initialiser by factors along its first axes."""
    for tensor in model.graph.initializer:
        if tensor.name == name:
            value = numpy_helper.to_array(tensor)
            shape = factors.shape + (1,) * (value.ndim - factors.ndim)
            tensor.CopyFrom(numpy_helper.from_array((value * factors.reshape(shape)).astype(value.dtype), name))


def _spread(largest: NDArray[np.float64]) -> float:
    return float(largest.max() / max(float(np.median(largest)), _TINY))
