"""Two models side by side: per tensor the signal over the difference, in decibels, and the place where they part."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto

from build_models.errors import RecipeError
from build_models.graph.flow import makers, nearest_before, reads
from build_models.graph.model_io import describe, outputs_of
from build_models.graph.tap import GROUP_BYTES, Tap, find_taps, open_taps, tap_groups
from build_models.quantize.signal import LIMIT_DB, decibels

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import onnx
    from numpy.typing import NDArray

    from build_models.look.samples import Samples
    from build_models.progress import Progress

# What two files that mean the same keep: float32 that adds in another order 80 dB (1e-4), float16 40, int8 20.
SAME_DB, FLOAT16_DB, INT8_DB = 80.0, 40.0, 20.0
NEW_NOISE_DB = 6.0  # so far below its inputs, three quarters of a tensor's noise power is its own
# What chooses elements by their values: behind it, close values may have changed places.
_CHOOSING = {"TopK", "ArgMax", "ArgMin", "NonMaxSuppression", "NonZero", "Unique"}
_QUANTISED = ("Quantize", "QLinear", "Integer")


@dataclass(frozen=True, slots=True)
class TensorSignal:
    """A tensor that both models have.

    Attributes:
        tensor: its name in the first model; for a quantised one that of the float tensor it stands for.
        node: name of the node that computes it there.
        op_type: of that node.
        first: the tensor that was read in the first model.
        second: the tensor that was read in the second.
        signal_db: power of the first over that of the difference, over all samples; 200 for no difference.
        inputs_db: the least ``signal_db`` of what it is made of; 200 when it is made of the inputs alone.
        largest: of the first's numbers, absolute.
        largest_difference: absolute.
        chosen: it lies behind an operator such as TopK, which may have chosen other elements: low decibels there are
            no fault.
    """

    tensor: str
    node: str
    op_type: str
    first: str
    second: str
    signal_db: float
    inputs_db: float
    largest: float
    largest_difference: float
    chosen: bool


@dataclass(frozen=True)
class Comparison:
    """What came of it.

    Attributes:
        signals: every tensor compared, in the first model's order.
        outputs: the tensors of ``signals`` that are outputs.
        threshold_db: below it a tensor counts as different.
        unlike: tensors of the same name whose shapes differ; they are not compared.
        only_first: how many tensors the second does not have.
        only_second: how many the first does not have.
        samples: how many inputs were run.
    """

    signals: tuple[TensorSignal, ...]
    outputs: frozenset[str]
    threshold_db: float
    unlike: tuple[str, ...]
    only_first: int
    only_second: int
    samples: int

    @property
    def equal(self) -> bool:
        """Every number compared is the same."""
        return all(each.signal_db == LIMIT_DB for each in self.signals)

    @property
    def below(self) -> list[TensorSignal]:
        """The tensors below the threshold, in graph order; those behind a choice do not count."""
        return [each for each in self.signals if each.signal_db < self.threshold_db and not each.chosen]

    @property
    def parts(self) -> list[TensorSignal]:
        """Where noise is new, in graph order: below the threshold, and `NEW_NOISE_DB` below all that it is made of.

        The first is where the models part; others may be faults of their own, or the first one's noise made louder.
        """
        return [each for each in self.below if each.inputs_db - each.signal_db >= NEW_NOISE_DB]


def compare_models(
    first: onnx.ModelProto,
    second: onnx.ModelProto,
    samples: tuple[Samples, Samples],
    progress: Progress,
    threshold_db: float | None = None,
    group_bytes: int = GROUP_BYTES,
) -> Comparison:
    """Run both as written and compare the tensors of the same name, and the outputs in any case.

    A tensor ``t`` of a quantised model is read after it was dequantised: what the next layer sees.

    Args:
        first: the reference.
        second: the other.
        samples: the same inputs, prepared for each.
        progress: is told of every group of tensors and sample.
        threshold_db: None: by the models' precision.
        group_bytes: how much of each model's tensors is held at once.

    Raises:
        RecipeError: the models have nothing in common.
        BuildError: one does not run.
    """
    if len(samples[0]) != len(samples[1]):
        raise RecipeError(f"--input: expected as many inputs for both models, got {len(samples[0])}, {len(samples[1])}")
    pairs, outputs, only_first, only_second = _pairs(first, second)
    sums = _measure(first, second, pairs, samples, progress, group_bytes)
    compared = {name: pairs[name] for name in pairs if name in sums}
    if not compared:
        raise RecipeError(
            f"the models have nothing to compare: the first gives {describe(outputs_of(first))}, "
            f"the second {describe(outputs_of(second))}, and no tensors of one name have one shape"
        )
    signals = _signals(first, compared, sums)
    return Comparison(
        signals=signals,
        outputs=frozenset(outputs) & frozenset(compared),
        threshold_db=_threshold(first, second) if threshold_db is None else threshold_db,
        unlike=tuple(name for name in pairs if name not in sums),
        only_first=only_first,
        only_second=only_second,
        samples=len(samples[0]),
    )


@dataclass(slots=True)
class _Sums:
    power: float = 0.0
    noise: float = 0.0
    largest: float = 0.0
    largest_difference: float = 0.0

    def add(self, one: NDArray[Any], other: NDArray[Any]) -> None:
        x, y = one.astype(np.float64), other.astype(np.float64)
        with np.errstate(invalid="ignore", over="ignore"):
            difference = np.where((x == y) | (np.isnan(x) & np.isnan(y)), 0.0, np.abs(x - y))
            # A number against none, or against infinity, is no small difference.
            difference[~np.isfinite(difference)] = np.inf
            known = x[np.isfinite(x)]
            self.power += float(np.square(known).sum())
            self.noise += float(np.square(difference).sum())
        self.largest = max(self.largest, float(np.abs(known).max(initial=0.0)))
        self.largest_difference = max(self.largest_difference, float(difference.max(initial=0.0)))


def _pairs(first: onnx.ModelProto, second: onnx.ModelProto) -> tuple[dict[str, tuple[Tap, Tap]], list[str], int, int]:
    """Tensors by the name that both know them by, the names of the outputs among them, and how many are left over."""
    ours, theirs = _readable(first), _readable(second)
    pairs = {name: (ours[name], theirs[name]) for name in ours if name in theirs}
    first_outputs, second_outputs = ([info.name for info in outputs_of(model)] for model in (first, second))
    outputs = [name for name in first_outputs if name in second_outputs]
    if not outputs and len(first_outputs) == len(second_outputs):  # by their order then; the shapes must fit
        for name, other in zip(first_outputs, second_outputs, strict=True):
            if name in ours and other in theirs:
                pairs[name] = (ours[name], theirs[other])
                outputs.append(name)
    place = makers(first)
    ordered = dict(sorted(pairs.items(), key=lambda pair: place[pair[1][0].tensor]))
    left = [
        len({tap.tensor for tap in known.values()} - {pair[side].tensor for pair in pairs.values()})
        for side, known in enumerate((ours, theirs))
    ]
    return ordered, outputs, left[0], left[1]


def _readable(model: onnx.ModelProto) -> dict[str, Tap]:
    """Each live tensor by its name, or by that of the float tensor it stands for: the dequantised one is read then."""
    found: dict[str, Tap] = {}
    for tap in find_taps(model):
        found.setdefault(tap.tensor, tap)
        plain = found.get(tap.stands_for)
        if plain is None or plain.tensor == tap.stands_for:
            found[tap.stands_for] = tap
    return found


def _measure(
    first: onnx.ModelProto,
    second: onnx.ModelProto,
    pairs: Mapping[str, tuple[Tap, Tap]],
    samples: tuple[Samples, Samples],
    progress: Progress,
    group_bytes: int,
) -> dict[str, _Sums]:
    """Sums over all samples; of tensors whose shapes differ there are none."""
    sums = {name: _Sums() for name in pairs}
    names_of: dict[Tap, list[str]] = {}
    for name, (tap, _) in pairs.items():
        names_of.setdefault(tap, []).append(name)
    groups = tap_groups(first, list(names_of), next(iter(samples[0])), group_bytes)
    steps = _steps(
        first, second, [[name for tap in group for name in names_of[tap]] for group in groups], pairs, samples
    )
    for name, one, other in progress.track(steps, len(pairs) * len(samples[0]), "tensor"):
        if name not in sums:
            continue
        if one.shape != other.shape:
            del sums[name]
        else:
            sums[name].add(one, other)
    return sums


def _steps(
    first: onnx.ModelProto,
    second: onnx.ModelProto,
    groups: Sequence[Sequence[str]],
    pairs: Mapping[str, tuple[Tap, Tap]],
    samples: tuple[Samples, Samples],
) -> Iterator[tuple[str, NDArray[Any], NDArray[Any]]]:
    for names in groups:
        tensors = [list(dict.fromkeys(pairs[name][side].tensor for name in names)) for side in (0, 1)]
        run_first, run_second = open_taps(first, tensors[0]), open_taps(second, tensors[1])
        for ours, theirs in zip(*samples, strict=True):
            values = dict(zip(tensors[0], run_first(ours), strict=True))
            others = dict(zip(tensors[1], run_second(theirs), strict=True))
            for name in names:
                one, other = pairs[name]
                yield name, values[one.tensor], others[other.tensor]


def _signals(
    model: onnx.ModelProto, pairs: Mapping[str, tuple[Tap, Tap]], sums: Mapping[str, _Sums]
) -> tuple[TensorSignal, ...]:
    names = list(pairs)
    ratios = decibels(np.array([sums[name].power for name in names]), np.array([sums[name].noise for name in names]))
    of_tensor = {pairs[name][0].tensor: float(value) for name, value in zip(names, ratios, strict=True)}
    before = nearest_before(model, of_tensor.keys())
    made_by, chosen = makers(model), _behind_choices(model)
    result = []
    for name, value in zip(names, ratios, strict=True):
        one, other = pairs[name]
        node = model.graph.node[made_by.get(name, made_by[one.tensor])]
        result.append(
            TensorSignal(
                tensor=name,
                node=node.name,
                op_type=node.op_type,
                first=one.tensor,
                second=other.tensor,
                signal_db=round(float(value), 2),
                inputs_db=round(min((of_tensor[each] for each in before[one.tensor]), default=LIMIT_DB), 2),
                largest=sums[name].largest,
                largest_difference=sums[name].largest_difference,
                chosen=one.tensor in chosen,
            )
        )
    return tuple(result)


def _behind_choices(model: onnx.ModelProto) -> set[str]:
    found: set[str] = set()
    for node in model.graph.node:
        if node.op_type in _CHOOSING or found & reads(node):
            found.update(node.output)
    return found


def _threshold(first: onnx.ModelProto, second: onnx.ModelProto) -> float:
    kinds = [_precision(model) for model in (first, second)]
    if kinds[0] == kinds[1]:
        return SAME_DB
    return INT8_DB if "int8" in kinds else FLOAT16_DB


def _precision(model: onnx.ModelProto) -> str:
    if any(kind in node.op_type for node in model.graph.node for kind in _QUANTISED):
        return "int8"
    kinds = {tensor.data_type for tensor in model.graph.initializer}
    return "float16" if TensorProto.FLOAT16 in kinds else "float32"
