"""Every tensor gets a shape known before it runs: a batch of one and a picture's size, or what is asked for by name."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Literal

import onnx
from onnx import shape_inference

from build_models.errors import BuildError, RecipeError
from build_models.graph.model_io import constant_of, describe, inputs_of, outputs_of
from build_models.graph.optimise import SHAPE_PASSES, optimise

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from build_models.graph.model_io import TensorInfo

_AXES = {"nchw": {"channels": 1, "height": 2, "width": 3}, "nhwc": {"channels": 3, "height": 1, "width": 2}}


@dataclass(frozen=True, slots=True)
class FixShapeReport:
    """The input before and after, and whether constant folding was needed to know all output shapes."""

    before: str
    after: str
    folded: bool


def fix_shape(
    model: onnx.ModelProto, layout: Literal["nchw", "nhwc"], size_hw: tuple[int, int] | None, channels: int = 3
) -> tuple[onnx.ModelProto, FixShapeReport]:
    """Give the only input its static shape and infer all others; the given model stays as it is.

    Args:
        model: one input of four axes, some of them perhaps dynamic.
        layout: where its channels are.
        size_hw: height and width in pixels; None: the model's own.
        channels: how many the input has.

    Raises:
        RecipeError: the model has another number of inputs or axes, or another fixed size; or none and none was given.
        BuildError: an output's shape depends on what the picture shows, or the shapes contradict each other.
    """
    source = _only_input(model)
    shape = _static_shape(source, layout, size_hw, channels)
    result = onnx.ModelProto()
    result.CopyFrom(model)
    for value in result.graph.input:
        if value.name == source.name:
            value.type.tensor_type.shape.CopyFrom(onnx.TensorShapeProto())
            for side in shape:
                value.type.tensor_type.shape.dim.add().dim_value = side
    result = infer_anew(result)
    folded = not _all_static(result)
    if folded:
        # Shapes that the graph computes (Shape, Gather, Concat, Reshape) are constants now.
        result = infer_anew(optimise(result, passes=SHAPE_PASSES)[0])
    if not _all_static(result):
        raise BuildError(
            f"expected outputs of fixed shape, found {describe(outputs_of(result))}: the model selects boxes itself; "
            "export it without non-maximum suppression"
        )
    return result, FixShapeReport(str(source), str(inputs_of(result)[0]), folded)


def fix_axes(model: onnx.ModelProto, shapes: Mapping[str, Sequence[int]]) -> onnx.ModelProto:
    """Give inputs their shapes by name; the given model stays as it is.

    Axes of the same symbol are the same size, so one input's shape may fix another's. Where the graph computes shapes,
    those of outputs are known after the graph passes (`infer_anew` again); one that depends on what is seen stays open.

    Args:
        model: any number of inputs.
        shapes: input name to its shape.

    Raises:
        RecipeError: no input has that name or that number of axes, a side contradicts one that is fixed already, or
            an axis of an input is still open: they are listed.
        BuildError: the model cannot work with these shapes.
    """
    sizes = _sizes_by_symbol(inputs_of(model), shapes)
    result = onnx.ModelProto()
    result.CopyFrom(model)
    for value in result.graph.input:
        for axis, side in enumerate(value.type.tensor_type.shape.dim):
            if value.name in shapes:
                side.dim_value = shapes[value.name][axis]
            elif side.dim_param in sizes:
                side.dim_value = sizes[side.dim_param]
    still_open = [
        f"input {info.name} axis {axis} ({side})"
        for info in inputs_of(result)
        for axis, side in enumerate(info.shape)
        if not isinstance(side, int)
    ]
    if still_open:
        raise RecipeError(f"--shape leaves axes open: {', '.join(still_open)}; give their inputs a shape too")
    return infer_anew(result)


def _sizes_by_symbol(infos: Sequence[TensorInfo], shapes: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """What the shapes say of each symbol."""
    known = {info.name: info for info in infos}
    sizes: dict[str, tuple[int, str]] = {}
    for name, shape in shapes.items():
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise RecipeError(f"--shape {name}: the model has no such input, it has {describe(infos)}{hint}")
        info = known[name]
        asked = "x".join(map(str, shape))
        if len(shape) != len(info.shape):
            raise RecipeError(
                f"--shape {name}={asked}: expected {len(info.shape)} sides, one per axis of {info}, got {len(shape)}"
            )
        for axis, (own, side) in enumerate(zip(info.shape, shape, strict=True)):
            place = f"input {name} axis {axis}"
            if isinstance(own, int) and own != side:
                raise RecipeError(f"--shape {name}={asked}: axis {axis} is fixed to {own} in the model ({info})")
            if isinstance(own, str) and own != "?":
                size, said_by = sizes.setdefault(own, (side, place))
                if size != side:
                    raise RecipeError(
                        f"--shape {name}={asked}: axis {axis} is {own!r}, which {said_by} sets to {size}, not {side}"
                    )
    return {symbol: size for symbol, (size, _) in sizes.items()}


def reshape_that_blocks(model: onnx.ModelProto) -> str | None:
    """The first Reshape whose constant sides cannot hold what it now gets, in words; None where there is none."""
    inferred = shape_inference.infer_shapes(model).graph
    values = [*inferred.value_info, *inferred.input, *inferred.output]
    sides = {value.name: [side.dim_value for side in value.type.tensor_type.shape.dim] for value in values}
    for node in model.graph.node:
        wanted = constant_of(model, node.input[1]) if node.op_type == "Reshape" else None
        given = sides.get(node.input[0], [])
        if wanted is None or not given or 0 in given:
            continue
        known = prod(side or given[index] for index, side in enumerate(wanted.tolist()) if side != -1)
        if known and (prod(given) % known or (-1 not in wanted and prod(given) != known)):
            name = node.name or node.output[0]
            return f"the Reshape {name} makes {wanted.tolist()} of {given} there, which has another number of values"
    return None


def _only_input(model: onnx.ModelProto) -> TensorInfo:
    infos = inputs_of(model)
    if len(infos) != 1:
        raise RecipeError(f"expected a model with one input, a picture, found {len(infos)}: {describe(infos)}")
    if len(infos[0].shape) != 4:
        raise RecipeError(f"expected an input of four axes, a batch of pictures, found {infos[0]}")
    return infos[0]


def _static_shape(
    source: TensorInfo, layout: Literal["nchw", "nhwc"], size_hw: tuple[int, int] | None, channels: int
) -> list[int]:
    axes = _AXES[layout]
    wanted = {0: 1, axes["channels"]: channels}
    if size_hw is not None:
        wanted |= {axes["height"]: size_hw[0], axes["width"]: size_hw[1]}
    shape = []
    for axis, side in enumerate(source.shape):
        if isinstance(side, int):
            if wanted.get(axis, side) != side:
                raise RecipeError(
                    f"expected an input of {'x'.join(str(wanted.get(index, '?')) for index in range(4))} ({layout}), "
                    f"found {source}; set input.layout, input.color, input.height and input.width to what the model has"
                )
            shape.append(side)
        elif axis in wanted:
            shape.append(wanted[axis])
        else:
            raise RecipeError(f"the model takes any size ({source}); set input.height and input.width")
    return shape


def infer_anew(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with all shapes inferred: old ones, with symbols or of another size, are forgotten first.

    Raises:
        BuildError: the shapes contradict each other.
    """
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    del bare.graph.value_info[:]
    for value in bare.graph.output:
        value.type.tensor_type.ClearField("shape")
    try:
        return shape_inference.infer_shapes(bare, strict_mode=True, data_prop=True)
    except shape_inference.InferenceError as err:
        reason = " ".join(str(err).split())
        raise BuildError(f"the model's shapes contradict each other at this input size: {reason}") from err


def _all_static(model: onnx.ModelProto) -> bool:
    # An output without any axis was not inferred: no family has scalars.
    return all(info.static_shape for info in outputs_of(model))
