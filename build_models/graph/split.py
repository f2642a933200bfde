"""A model cut into stages that together equal the whole.

A cut is a tensor, or several that belong together. What they are made of comes before it, everything else after. What
else crosses the cut, such as a skip connection, is carried: handed on as one more output and input.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import onnx
from onnx import TensorProto, helper

from build_models.errors import BuildError, RecipeError
from build_models.graph.flow import ancestors, close_names, live_nodes, makers, reads
from build_models.graph.model_io import (
    first_line,
    freeze_initialisers,
    inputs_of,
    open_session,
    outputs_of,
    tensor_names,
    with_outputs,
)
from build_models.graph.tap import tensor_shapes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

INPUT = "input"  # where a tensor comes from that no stage makes
_TYPES = {
    "float": "FLOAT",
    "double": "DOUBLE",
    "float16": "FLOAT16",
    "bfloat16": "BFLOAT16",
    "bool": "BOOL",
    **{f"{sign}int{bits}": f"{sign}int{bits}".upper() for sign in ("", "u") for bits in (8, 16, 32, 64)},
}


@dataclass(frozen=True)
class Stage:
    """A part of a model, complete by itself.

    Attributes:
        name: such as ``stage-0``.
        model: its graph.
        sources: for each of its inputs the name of the stage that makes it, or "input".
    """

    name: str
    model: onnx.ModelProto
    sources: Mapping[str, str]


@dataclass(frozen=True)
class Split:
    """The stages in order.

    Attributes:
        stages: at least two.
        cuts: the tensors of each cut, in the stages' order.
        carried: for each cut the tensors that cross it besides.
        outputs: of the whole, each with the stage that makes it.
    """

    stages: tuple[Stage, ...]
    cuts: tuple[tuple[str, ...], ...]
    carried: tuple[tuple[str, ...], ...]
    outputs: Mapping[str, str]


def split_model(
    model: onnx.ModelProto,
    cuts: Sequence[Sequence[str]],
    *,
    carry: bool = True,
    feeds: Mapping[str, NDArray[Any]] | None = None,
) -> Split:
    """Cut a model.

    Args:
        model: any model; it stays as it is.
        cuts: the tensors of each cut, in any order of the cuts.
        carry: whether tensors may cross a cut that are not part of it.
        feeds: an input to run the model on where its graph does not tell how many axes a tensor has.

    Raises:
        RecipeError: there is no such tensor, a cut separates nothing, or others cross it and may not.
        BuildError: a stage is no valid model.
    """
    whole, model = model, onnx.ModelProto()
    model.CopyFrom(whole)
    freeze_initialisers(model)
    live = set(live_nodes(model))
    for cut in cuts:
        for name in cut:
            _check_tensor(model, name, live)
    ordered = sorted(cuts, key=lambda cut: len(ancestors(model, cut) & live))
    parts = _parts(model, ordered, live)
    stage_of = {name: part for part, places in enumerate(parts) for place in places for name in _made(model, place)}
    read_in = [{name for place in places for name in reads(model.graph.node[place])} for places in parts]
    carried = []
    for index, cut in enumerate(ordered):
        unread = [name for name in cut if not any(name in names for names in read_in[index + 1 :])]
        if unread:
            raise RecipeError(
                f"--at {','.join(cut)}: nothing behind the cut reads {', '.join(unread)}, so it separates nothing; "
                "cut at a tensor further up"
            )
        carried.append(_crossing(model, cut, index, stage_of, read_in))
        if carried[-1] and not carry:
            raise RecipeError(
                f"--at {','.join(cut)}: {', '.join(carried[-1])} cross the cut too; name them with it, separated by "
                "commas, cut elsewhere, or let them be carried"
            )
    stages = _build(model, parts, stage_of, read_in, ordered, feeds)
    last = len(parts) - 1
    outputs = {info.name: f"stage-{stage_of.get(info.name, last)}" for info in outputs_of(model)}
    outputs.update({info.name: INPUT for info in inputs_of(model) if info.name in outputs})
    return Split(stages, tuple(map(tuple, ordered)), tuple(carried), outputs)


def _check_tensor(model: onnx.ModelProto, name: str, live: set[int]) -> None:
    made_by = makers(model)
    if name in made_by and made_by[name] in live:
        return
    if name in {info.name for info in inputs_of(model)}:
        what = "it is an input: nothing lies before it"
    elif name in tensor_names(model):
        what = "it is a constant, or lies in the branch of an If or Loop"
    else:
        known = [output for place in live for output in model.graph.node[place].output]
        what = f"the model has no such tensor; {close_names(name, known) or 'list them with build-models tap --all'}"
    raise RecipeError(f"--at {name}: {what}")


def _parts(model: onnx.ModelProto, cuts: Sequence[Sequence[str]], live: set[int]) -> list[list[int]]:
    """Places of each stage's live nodes."""
    everything = ancestors(model, [info.name for info in outputs_of(model)]) & live
    done: set[int] = set()
    parts = []
    for cut in cuts:
        before = (ancestors(model, cut) & live) | done
        if before == done:
            raise RecipeError(f"--at {','.join(cut)}: nothing is left to compute before it; another cut is as far down")
        parts.append(sorted(before - done))
        done = before
    if not everything - done:
        raise RecipeError(f"--at {','.join(cuts[-1])}: nothing comes after it, so it separates nothing")
    return [*parts, sorted(everything - done)]


def _made(model: onnx.ModelProto, place: int) -> list[str]:
    return [name for name in model.graph.node[place].output if name]


def _crossing(
    model: onnx.ModelProto, cut: Sequence[str], index: int, stage_of: Mapping[str, int], read_in: Sequence[set[str]]
) -> tuple[str, ...]:
    """What is read behind a cut and made before it, or given from outside, and is not the cut itself."""
    later = set().union(*read_in[index + 1 :])
    inputs = [info.name for info in inputs_of(model)]
    made = [name for name in stage_of if stage_of[name] <= index]
    return tuple(name for name in [*inputs, *made] if name in later and name not in cut)


def _build(
    model: onnx.ModelProto,
    parts: Sequence[Sequence[int]],
    stage_of: Mapping[str, int],
    read_in: Sequence[set[str]],
    cuts: Sequence[Sequence[str]],
    feeds: Mapping[str, NDArray[Any]] | None,
) -> tuple[Stage, ...]:
    given = {info.name for info in inputs_of(model)}
    wanted = [info.name for info in outputs_of(model)]
    last = len(parts) - 1
    takes = [
        [name for name in _sorted(names, given, stage_of) if stage_of.get(name, -1) < part]
        for part, names in enumerate(read_in)
    ]
    gives: list[list[str]] = []
    for part in range(len(parts)):
        later = set().union(*takes[part + 1 :]) if part < last else set()
        own = [name for name in stage_of if stage_of[name] == part and (name in later or name in wanted)]
        own += [name for name in wanted if part == last and name not in stage_of and name not in given]
        first = [name for name in (cuts[part] if part < last else wanted) if name in own]
        gives.append([*first, *(name for name in own if name not in first)])
    values = _values(model, {name for names in [*takes, *gives] for name in names}, feeds)
    stages = []
    for part, places in enumerate(parts):
        stage = _stage(model, places, [values[name] for name in takes[part]], [values[name] for name in gives[part]])
        sources = {name: f"stage-{stage_of[name]}" if name in stage_of else INPUT for name in takes[part]}
        stages.append(Stage(f"stage-{part}", stage, sources))
    return tuple(stages)


def _sorted(names: set[str], given: set[str], stage_of: Mapping[str, int]) -> list[str]:
    """Inputs and computed tensors, in graph order; constants are each stage's own."""
    return [*sorted(names & given), *(name for name in stage_of if name in names)]


def _values(
    model: onnx.ModelProto, names: set[str], feeds: Mapping[str, NDArray[Any]] | None
) -> dict[str, onnx.ValueInfoProto]:
    """Name, type and shape: of inputs and outputs as the model declares them, of others as ONNX Runtime infers them."""
    found = {value.name: value for value in [*model.graph.input, *model.graph.output] if value.name in names}
    inner = sorted(names - found.keys())
    for value in open_session(with_outputs(model, inner)).get_outputs() if inner else []:
        kind = _TYPES.get(value.type.removeprefix("tensor(").removesuffix(")"))
        if kind is None:
            raise RecipeError(f"{value.name} crosses a cut and is a {value.type}; only tensors of numbers can")
        shape: list[int | str | None] = [side if isinstance(side, int | str) else None for side in value.shape]
        if not shape:  # a single number, or a tensor of which ONNX Runtime does not know the axes
            if feeds is None:
                raise RecipeError(f"{value.name} crosses a cut and its axes are not known; give an input")
            shape = [None] * len(tensor_shapes(model, [value.name], feeds)[value.name])
        found[value.name] = helper.make_tensor_value_info(value.name, TensorProto.DataType.Value(kind), shape)
    return found


def _stage(
    model: onnx.ModelProto,
    places: Iterable[int],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
) -> onnx.ModelProto:
    """The nodes at some places with the constants that they read."""
    live = set(live_nodes(model))
    read = {name for place in places for name in reads(model.graph.node[place])} | {value.name for value in outputs}
    constant = {place for place in ancestors(model, read - {value.name for value in inputs}) if place not in live}
    result = onnx.ModelProto()
    result.CopyFrom(model)
    result.ClearField("metadata_props")
    graph = result.graph
    for field in ("node", "input", "output", "initializer", "sparse_initializer", "value_info"):
        graph.ClearField(field)
    graph.ClearField("quantization_annotation")
    graph.node.extend(model.graph.node[place] for place in sorted({*places, *constant}))
    names = {name for node in graph.node for name in [*reads(node), *node.output]} | read
    graph.initializer.extend(tensor for tensor in model.graph.initializer if tensor.name in names)
    graph.sparse_initializer.extend(each for each in model.graph.sparse_initializer if each.values.name in names)
    graph.input.extend(inputs)
    graph.output.extend(outputs)
    ends = {value.name for value in [*graph.input, *graph.output]}
    graph.value_info.extend(value for value in model.graph.value_info if value.name in names and value.name not in ends)
    try:
        onnx.checker.check_model(result)
    except onnx.checker.ValidationError as err:
        raise BuildError(f"a stage is no valid model: {first_line(err)}") from err
    return result
