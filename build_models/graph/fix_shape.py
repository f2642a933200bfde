"""A batch of one and a fixed size: every tensor gets a shape known before it runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import onnx
from onnx import shape_inference

from build_models.errors import BuildError, RecipeError
from build_models.graph.model_io import describe, inputs_of, outputs_of
from build_models.graph.optimise import SHAPE_PASSES, optimise

if TYPE_CHECKING:
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
    result = _infer(result)
    folded = not _all_static(result)
    if folded:
        # Shapes that the graph computes (Shape, Gather, Concat, Reshape) are constants now.
        result = _infer(optimise(result, passes=SHAPE_PASSES)[0])
    if not _all_static(result):
        raise BuildError(
            f"expected outputs of fixed shape, found {describe(outputs_of(result))}: the model selects boxes itself; "
            "export it without non-maximum suppression"
        )
    return result, FixShapeReport(str(source), str(inputs_of(result)[0]), folded)


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


def _infer(model: onnx.ModelProto) -> onnx.ModelProto:
    """Infer all shapes anew: old ones, with symbols or of another size, are forgotten first."""
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
