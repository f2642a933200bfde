"""The optimiser is this list of passes, run until none of them finds anything."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx
from onnx import inliner

from build_models.errors import BuildError
from build_models.graph.model_io import every_node, tensor_names
from build_models.graph.passes.common_subexpressions import common_subexpressions
from build_models.graph.passes.fold_batch_norm import fold_batch_norm
from build_models.graph.passes.fold_before import fold_before
from build_models.graph.passes.fold_behind import fold_bias, fold_scale
from build_models.graph.passes.fold_constants import fold_constants
from build_models.graph.passes.fold_pads import fold_pads
from build_models.graph.passes.fold_shapes import fold_shapes
from build_models.graph.passes.inline_branches import inline_branches
from build_models.graph.passes.matmul_to_gemm import matmul_to_gemm
from build_models.graph.passes.merge_affine import merge_affine
from build_models.graph.passes.merge_constants import merge_constants
from build_models.graph.passes.merge_reshapes import merge_reshapes
from build_models.graph.passes.merge_transposes import merge_transposes
from build_models.graph.passes.promote_constants import promote_constants
from build_models.graph.passes.remove_dead import remove_dead
from build_models.graph.passes.remove_identities import remove_identities

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    Pass = Callable[[onnx.ModelProto], tuple[onnx.ModelProto, int]]

# What makes shapes that the graph computes known; no number of the network itself changes.
SHAPE_PASSES: Sequence[Pass] = (
    promote_constants,
    inline_branches,
    fold_shapes,
    fold_constants,
    remove_dead,
)

# Duplicates first: what two readers share cannot be folded into either.
PASSES: Sequence[Pass] = (
    *SHAPE_PASSES,
    remove_identities,
    merge_constants,
    common_subexpressions,
    merge_transposes,
    merge_reshapes,
    fold_batch_norm,
    merge_affine,
    matmul_to_gemm,
    fold_scale,
    fold_bias,
    fold_before,
    fold_pads,
    remove_dead,
)

# Each round but the last makes the graph smaller or simpler; published networks settle in three to five.
_MOST_ROUNDS = 50


@dataclass(frozen=True, slots=True)
class PassReport:
    """One run of one pass; nodes inside nodes count too."""

    name: str
    round: int
    rewrites: int
    nodes_before: int
    nodes_after: int


@dataclass(frozen=True, slots=True)
class OptimiseReport:
    """What the passes did.

    Attributes:
        nodes_before: operators at first, those inside nodes included.
        nodes_after: operators at last.
        rounds: how often the list was run; in the last round nothing was found.
        passes: every run of every pass, in order.
    """

    nodes_before: int
    nodes_after: int
    rounds: int
    passes: tuple[PassReport, ...]

    @property
    def rewrites(self) -> dict[str, int]:
        """Rewrites by pass over all rounds, zeros included, in the order of the list."""
        totals: Counter[str] = Counter()
        for each in self.passes:
            totals[each.name] += each.rewrites
        return dict(totals)


def optimise(
    model: onnx.ModelProto, keep: Collection[str] = (), passes: Sequence[Pass] = PASSES
) -> tuple[onnx.ModelProto, OptimiseReport]:
    """Run the passes to their fixed point; the given model stays as it is.

    Args:
        model: any; what has known shapes is optimised further.
        keep: tensors that must survive under their names, such as a raw head.
        passes: the list; the whole of it by default.

    Returns:
        A model with the same inputs and outputs that computes the same up to float32 rounding, and the report.

    Raises:
        BuildError: a tensor of ``keep`` does not exist, or the passes do not come to an end.
    """
    missing = sorted(set(keep) - tensor_names(model))
    if missing:
        raise BuildError(f"expected to keep the tensors {', '.join(missing)}, but the graph has none of that name")
    result = inliner.inline_local_functions(model) if model.functions else _copy(model)
    outputs = _copy_of_outputs(result)
    # An output cannot be optimised away; these are outputs for as long as the passes run.
    result.graph.output.extend(onnx.ValueInfoProto(name=name) for name in sorted(set(keep) - set(outputs)))
    before = _count(result)
    result, reports = _to_fixed_point(result, passes)
    del result.graph.output[:]
    result.graph.output.extend(outputs.values())
    _forget_lost_values(result)
    return result, OptimiseReport(before, _count(result), reports[-1].round, tuple(reports))


def _to_fixed_point(model: onnx.ModelProto, passes: Sequence[Pass]) -> tuple[onnx.ModelProto, list[PassReport]]:
    reports: list[PassReport] = []
    for number in range(1, _MOST_ROUNDS + 1):
        found = 0
        for each in passes:
            before = _count(model)
            model, rewrites = each(model)
            reports.append(PassReport(each.__name__, number, rewrites, before, _count(model)))
            found += rewrites
        if not found:
            return model, reports
    busy = ", ".join(sorted({each.name for each in reports if each.round == _MOST_ROUNDS and each.rewrites}))
    raise BuildError(f"the graph passes do not come to an end: {busy} still rewrite after {_MOST_ROUNDS} rounds")


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def _copy_of_outputs(model: onnx.ModelProto) -> dict[str, onnx.ValueInfoProto]:
    copy = onnx.GraphProto()
    copy.output.extend(model.graph.output)
    return {value.name: value for value in copy.output}


def _count(model: onnx.ModelProto) -> int:
    return sum(1 for _ in every_node(model.graph))


def _forget_lost_values(model: onnx.ModelProto) -> None:
    names = tensor_names(model)
    kept = [value for value in model.graph.value_info if value.name in names]
    del model.graph.value_info[:]
    model.graph.value_info.extend(kept)
