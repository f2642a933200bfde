"""An ONNX file becomes a model the graph stages can rely on: checked, one opset, constants as initialisers."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped] # comes with onnx
from onnx import external_data_helper, inliner

from build_models.errors import BuildError, RecipeError
from build_models.graph.fix_shape import fix_shape
from build_models.graph.model_io import (
    check_same,
    first_line,
    freeze_initialisers,
    inputs_of,
    opset_of,
    outputs_of,
    random_feed,
    remove_unused_initialisers,
    run_model,
)
from build_models.graph.passes.convert_opset import convert_opset
from build_models.graph.passes.promote_constants import promote_constants
from build_models.graph.portable import IR_VERSION, OPSETS

if TYPE_CHECKING:
    from pathlib import Path

    from build_models.graph.fix_shape import FixShapeReport
    from build_models.recipe import InputRecipe

_OFFICIAL = {"", "ai.onnx"}
_COMPARED_INPUTS = 2


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What the file held and what was changed.

    Attributes:
        sha256: of the file, in hex; of its external data too, when it has some.
        producer: the tool that wrote it.
        opset_before: as the file had it.
        opset_after: as all later stages have it.
        shape: what became of the input's shape.
        largest_difference: between the file and the result, as a share of the largest output.
        inputs: the source's input in words.
        outputs: the source's outputs in words.
    """

    sha256: str
    producer: str
    opset_before: int
    opset_after: int
    shape: FixShapeReport
    largest_difference: float
    inputs: list[str]
    outputs: list[str]


def import_onnx(path: Path, recipe: InputRecipe) -> tuple[onnx.ModelProto, ImportReport]:
    """Load, check and normalise an ONNX file.

    Returns:
        The model with batch 1, static shapes, opset 13 to 21 and IR 10, its inputs and outputs named and typed as
        in the file.

    Raises:
        RecipeError: there is no such file, it is no ONNX model, or its input is not what the recipe says.
        BuildError: the model is one that cannot be built, or its conversion changed its results.
    """
    model, sha256 = load_onnx(path)
    before = opset_of(model)
    result, shape = normalise(model, recipe)
    worst = 0.0
    for seed in range(_COMPARED_INPUTS):
        feed = random_feed(result, seed)
        worst = max(worst, check_same(run_model(model, feed), run_model(result, feed), f"{path}: preparation failed"))
    producer = f"{model.producer_name} {model.producer_version}".strip()
    inputs, outputs = ([str(info) for info in infos] for infos in (inputs_of(result), outputs_of(result)))
    return result, ImportReport(sha256, producer, before, opset_of(result), shape, worst, inputs, outputs)


def normalise(model: onnx.ModelProto, recipe: InputRecipe) -> tuple[onnx.ModelProto, FixShapeReport]:
    """Every source's last step: official operators, constants as initialisers, static shapes, opset 13 to 21.

    Raises:
        RecipeError: the input is not what the recipe says.
        BuildError: foreign operators, shapes that stay unknown, or a conversion that changed the results.
    """
    result = inliner.inline_local_functions(model) if model.functions else _copy(model)
    foreign = sorted({f"{node.domain}.{node.op_type}" for node in result.graph.node if node.domain not in _OFFICIAL})
    if foreign:
        raise BuildError(
            f"expected official ONNX operators only, found {', '.join(foreign)}; export the float model before any "
            "optimiser or quantiser"
        )
    _forget_initialiser_inputs(result)
    _fix_imports(result)
    size = None if recipe.height is None or recipe.width is None else (recipe.height, recipe.width)
    result, shape = fix_shape(result, recipe.layout, size, recipe.channels)
    result = _to_supported_opset(result)
    return promote_constants(result)[0], shape  # the converter makes some of its own


def load_onnx(path: Path) -> tuple[onnx.ModelProto, str]:
    """The checked model with its external data, and one digest over all files.

    Raises:
        RecipeError: there is no such file, or it is no well-formed ONNX model.
    """
    try:
        data = path.read_bytes()
    except OSError as err:
        raise RecipeError(f"{path}: cannot read the model: {err.strerror}") from err
    digest = hashlib.sha256(data)
    try:
        model = onnx.load_model_from_string(data)
    except DecodeError as err:
        raise RecipeError(f"{path}: expected an ONNX model, found something else ({len(data)} bytes)") from err
    if not model.graph.node or not model.opset_import:
        raise RecipeError(f"{path}: expected an ONNX model, found {len(data)} bytes without a graph")
    newest = onnx.defs.onnx_opset_version()
    if opset_of(model) > newest:
        raise RecipeError(
            f"{path}: its opset is {opset_of(model)}, the newest that this onnx {onnx.__version__} knows is {newest}: "
            "export it with opset 17, or install a newer onnx"
        )
    for name in _external_files(model, path):
        digest.update((path.parent / name).read_bytes())
    try:
        external_data_helper.load_external_data_for_model(model, str(path.parent))
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError, OSError) as err:
        raise RecipeError(f"{path}: the ONNX checker refuses the model: {first_line(err)}") from err
    return model, digest.hexdigest()


def _external_files(model: onnx.ModelProto, path: Path) -> list[str]:
    """Names of the files with external data; each must lie beside the model."""
    names: set[str] = set()
    for tensor in model.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            names.update(entry.value for entry in tensor.external_data if entry.key == "location")
    for name in sorted(names):
        file = path.parent / name
        if "/" in name or "\\" in name or name in {"", ".", ".."} or file.is_symlink() or not file.is_file():
            raise RecipeError(
                f"{path}: its weights are in another file, {name!r}; expected a regular file of that name beside it"
            )
    return sorted(names)


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def _forget_initialiser_inputs(model: onnx.ModelProto) -> None:
    """Before IR 4 every initialiser was listed as an input, where it counts as changeable."""
    remove_unused_initialisers(model)
    freeze_initialisers(model)
    kept = list(model.graph.input)
    used = {name for node in model.graph.node for name in node.input}
    real = [value for value in kept if value.name in used] or kept
    del model.graph.input[:]
    model.graph.input.extend(real)


def _fix_imports(model: onnx.ModelProto) -> None:
    """One operator set import, IR 10: newer ones are refused by the oldest runtime that devices have."""
    opset = opset_of(model)
    del model.opset_import[:]
    model.opset_import.add(domain="", version=opset)
    model.ir_version = IR_VERSION


def _to_supported_opset(model: onnx.ModelProto) -> onnx.ModelProto:
    """Convert only what must be."""
    low, high = OPSETS
    return convert_opset(model, min(max(opset_of(model), low), high))[0]
