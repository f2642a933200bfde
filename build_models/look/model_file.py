"""A model from a file that a user names."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped] # comes with onnx

from build_models.errors import RecipeError
from build_models.graph.model_io import first_line, freeze_initialisers

if TYPE_CHECKING:
    from pathlib import Path

_MOST_BYTES = 2**31 - 1  # a protobuf message, which is how ONNX Runtime gets an edited model


def read_model(path: Path) -> onnx.ModelProto:
    """The model with its external data; initialisers that an old file lists as inputs are no inputs.

    Raises:
        RecipeError: there is no such file, it is no ONNX model, its data is missing, or it is larger than 2 GB.
    """
    try:
        model = onnx.load(path, load_external_data=False)
        onnx.load_external_data_for_model(model, str(path.parent))
    except OSError as err:
        raise RecipeError(f"{path}: cannot read the model: {err.strerror or err}") from err
    except DecodeError as err:
        raise RecipeError(f"{path}: expected an ONNX model, found something else") from err
    except (onnx.checker.ValidationError, ValueError) as err:
        raise RecipeError(f"{path}: its external data cannot be read: {first_line(err)}") from err
    if not model.graph.node:
        raise RecipeError(f"{path}: expected an ONNX model, found one without nodes")
    if model.ByteSize() > _MOST_BYTES:
        raise RecipeError(f"{path}: models of more than 2 GB cannot be taken apart; export it with smaller weights")
    freeze_initialisers(model)
    return model
