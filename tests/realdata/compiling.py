"""From a recipe to the canonical float file, as a build makes it, and a session of it as a device has it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agent.model.manifest import Golden, Requires, Tolerances, Variant
from agent.model.session import Session, SessionOptions, physical_cores
from agent.vision.resize import Placement, Resizer
from build_models.graph.canonical_output import canonical_output
from build_models.graph.native_input import native_input
from build_models.graph.portable import make_portable
from build_models.recipe_file import make_recipe
from build_models.source.load import load_source

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import onnx
    from numpy.typing import NDArray

    from build_models.graph.canonical_output import CanonicalReport
    from build_models.graph.native_input import NativeInputReport
    from build_models.recipe import Recipe


@dataclass(frozen=True)
class Compiled:
    """The source and what became of it; ``see`` is the device's way from a frame to the outputs."""

    recipe: Recipe
    source: onnx.ModelProto
    model: onnx.ModelProto
    native: NativeInputReport
    head: CanonicalReport
    session: Session
    resize: Resizer

    def see(self, frame: NDArray[np.uint8]) -> tuple[dict[str, NDArray[Any]], Placement]:
        """Outputs, copied, for a frame of any size, uint8 BGR, and where it lies in the input."""
        placement = self.resize(frame)
        return {name: array.copy() for name, array in self.session.run().items()}, placement


def compile_model(values: Mapping[str, Any]) -> Compiled:
    """The stages of a build from the source to the portable float file."""
    recipe = make_recipe({"name": "real", **values})
    source, _ = load_source(recipe)
    with_input, native = native_input(source, recipe.input)
    with_output, head = canonical_output(with_input, recipe.output, (native.height, native.width), recipe.labels)
    model, _ = make_portable(with_output, head.raw_tensors.values())
    variant = Variant(
        id="cpu-fp32",
        file="models/cpu-fp32.onnx",
        precision="fp32",
        providers=["cpu"],
        requires=Requires(any_of=[]),
        input=recipe.input.spec(native.height, native.width),
        golden=Golden(file="golden/cpu-fp32.npz", tolerances=Tolerances()),
    )
    session = Session(model.SerializeToString(), recipe.task, variant, SessionOptions(threads=physical_cores()))
    return Compiled(recipe, source, model, native, head, session, Resizer(variant.input, session.input_image))
