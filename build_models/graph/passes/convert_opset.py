"""Another version of the operator set, with the proof that not one bit of the results changes."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, version_converter

from build_models.errors import BuildError
from build_models.graph.model_io import first_line, opset_of, run_model
from build_models.graph.proof import random_feeds


def convert_opset(model: onnx.ModelProto, target: int) -> tuple[onnx.ModelProto, int]:
    """The model in opset ``target``, and 1; the model itself, and 0, when it has it already.

    Raises:
        BuildError: there is no conversion, or the converted model gives other results on random inputs.
    """
    before = opset_of(model)
    if target == before:
        return model, 0
    advice = "export it with opset 17"
    try:
        converted = version_converter.convert_version(model, target)
    except (RuntimeError, ValueError) as err:
        raise BuildError(
            f"cannot convert the model from opset {before} to {target}: {first_line(err)}; {advice}"
        ) from err
    converted.ir_version = model.ir_version
    if before < 11 <= target:
        _restore_corner_aligned_resize(converted)
    for feed in random_feeds(model):
        expected, got = run_model(model, feed), run_model(converted, feed)
        changed = sorted(name for name in expected if not _equal(expected[name], got[name]))
        if changed:
            raise BuildError(
                f"converting the model from opset {before} to {target} changed its results ({', '.join(changed)}); "
                f"{advice}"
            )
    return converted, 1


def _equal(expected: np.ndarray[tuple[int, ...], np.dtype[np.generic]], got: object) -> bool:
    may_be_nan = np.issubdtype(expected.dtype, np.inexact)
    return isinstance(got, np.ndarray) and np.array_equal(expected, got, equal_nan=bool(may_be_nan))


def _restore_corner_aligned_resize(model: onnx.ModelProto) -> None:
    """Before opset 11 sampling was ``x / scale``, rounded down; the converter leaves the newer, centred default."""
    for node in model.graph.node:
        if node.op_type == "Resize" and not any(entry.name.startswith("coord") for entry in node.attribute):
            node.attribute.append(helper.make_attribute("coordinate_transformation_mode", "asymmetric"))
            node.attribute.append(helper.make_attribute("nearest_mode", "floor"))
