"""The first stage of a build: the recipe's source becomes a float ONNX model of static shape."""

from __future__ import annotations

from typing import TYPE_CHECKING

from build_models.source.onnx_import import ImportReport, import_onnx
from build_models.source.pt2_import import import_program
from build_models.source.torch_export import TorchReport, export_torch

if TYPE_CHECKING:
    import onnx

    from build_models.recipe import Recipe

SourceReport = ImportReport | TorchReport


def load_source(recipe: Recipe) -> tuple[onnx.ModelProto, SourceReport]:
    """The source model as the recipe names it: its own float input and outputs, batch 1, opset 13 to 21.

    Raises:
        RecipeError: the source is not what the recipe says.
        BuildError: the source cannot be built.
    """
    if recipe.source.kind == "torch":
        return export_torch(recipe.source, recipe.input)
    if recipe.source.kind == "pt2":
        return import_program(recipe.source, recipe.input)
    return import_onnx(recipe.source.path, recipe.input)
