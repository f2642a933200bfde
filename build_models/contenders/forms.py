"""The forms of one model that a benchmark compares: as it came, with free axes, optimised, in int8, in a bundle."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from agent.errors import EdgeAgentError
from agent.model.bundle import load_bundle
from agent.model.runtime import available_providers, ort
from agent.model.variants import this_device, why_not
from build_models.benchmark import Contender
from build_models.errors import RecipeError
from build_models.graph.model_io import inputs_of, outputs_of, run_model
from build_models.graph.native_input import native_input
from build_models.graph.portable import make_portable, strip
from build_models.quantize.dynamic import quantize_dynamic
from build_models.quantize.ranges import collect_ranges
from build_models.quantize.static import fusible_nodes, quantisable_tensors, quantize_static

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from build_models.graph.model_io import TensorInfo
    from build_models.recipe import InputRecipe, TorchSource

    # The source with the device's input becomes the canonical graph; and the tensors behind which it stays float.
    Canonical = Callable[[onnx.ModelProto, tuple[int, int]], tuple[onnx.ModelProto, Sequence[str]]]

AS_IT_CAME, FREE_AXES = "onnxruntime", "onnxruntime, free axes"
OPENVINO, EAGER = "openvino", "torch eager"
OURS, OURS_INT8, OURS_DYNAMIC = "ours fp32", "ours int8", "ours int8 dynamic"
_PICTURE_AXES = 4
_NOISE_PICTURES = 8


@dataclass
class Entrants:
    """Who competes, and who cannot with the reason."""

    contenders: list[Contender] = field(default_factory=list)
    left_out: list[dict[str, str]] = field(default_factory=list)

    def leave_out(self, name: str, reason: object) -> None:
        """Note why a contender is missing."""
        self.left_out.append({"name": name, "reason": str(reason)})


def fixed_shapes(infos: Iterable[TensorInfo], size_wh: tuple[int, int] | None, layout: str) -> dict[str, list[int]]:
    """Shapes to time at: a batch of one, and the wanted size where the model takes any.

    Raises:
        RecipeError: an axis is free and nothing says how long it is to be.
    """
    shapes = {}
    for info in infos:
        wanted: dict[int, int] = {0: 1}
        if len(info.shape) == _PICTURE_AXES and size_wh is not None:
            height_axis = 2 if layout == "nchw" else 1
            wanted |= {height_axis: size_wh[1], height_axis + 1: size_wh[0]}
            wanted[1 if layout == "nchw" else 3] = 3
        shape = [side if isinstance(side, int) else wanted.get(axis, 0) for axis, side in enumerate(info.shape)]
        if 0 in shape:
            raise RecipeError(f"the model takes any size ({info}); give --size WIDTHxHEIGHT")
        shapes[info.name] = shape
    return shapes


def add_plain_forms(
    entrants: Entrants, model: onnx.ModelProto, path: Path, shapes: Mapping[str, Sequence[int]], scratch: Path
) -> None:
    """The source file in ONNX Runtime with fixed and with free axes, and in OpenVINO where it is installed."""
    fixed = path
    if any(info.static_shape is None for info in inputs_of(model)):
        fixed = scratch / "fixed.onnx"
        onnx.save(_with_axes(model, shapes), fixed)
    entrants.contenders.append(Contender(AS_IT_CAME, fixed, "detect", note="defaults, fixed axes"))
    free = scratch / "free.onnx"
    opened = _with_axes(model, {name: _freed(shape) for name, shape in shapes.items()})
    onnx.save(opened, free)
    try:
        run_model(opened, {info.name: _noise(info, shapes[info.name]) for info in inputs_of(model)}, optimise=True)
    except EdgeAgentError as err:
        entrants.leave_out(FREE_AXES, err)
    else:
        note = "the same model, batch, height and width free"
        entrants.contenders.append(Contender(FREE_AXES, free, "detect", shapes=shapes, note=note))
    if importlib.util.find_spec("openvino") is None:
        entrants.leave_out(OPENVINO, "not installed (pip install openvino)")
    else:
        entrants.contenders.append(Contender(OPENVINO, fixed, "detect", runner="openvino", note="latency, one stream"))


def add_torch(
    entrants: Entrants,
    source: TorchSource,
    weights: Path | None,
    path: Path,
    shapes: Mapping[str, Sequence[int]],
) -> None:
    """The torch module itself; ``weights`` is a plain state dict, ``path`` the ONNX file that stands for it."""
    if importlib.util.find_spec("torch") is None:
        entrants.leave_out(EAGER, "torch is not installed (pip install 'edge-agent[torch]')")
        return
    options = {
        "callable": source.callable,
        "kwargs": source.kwargs,
        "python_path": str(source.python_path.resolve()),
        "weights": None if weights is None else str(weights.resolve()),
    }
    entrants.contenders.append(
        Contender(EAGER, path, "detect", runner="torch", options=options, shapes=shapes, note="inference_mode")
    )


def add_our_forms(
    entrants: Entrants,
    source: onnx.ModelProto,
    recipe: InputRecipe,
    images: Iterable[NDArray[np.uint8]] | None,
    scratch: Path,
    canonical: Canonical | None = None,
) -> None:
    """What a build makes of the source: native input, portable graph; that in static int8, and in dynamic.

    Args:
        entrants: get the contenders, or why there are none.
        source: float, static shapes.
        recipe: what the source wants of its input.
        images: uint8 ``[H, W, 3]`` to calibrate with; None: noise, which is enough for its speed.
        scratch: where the files go.
        canonical: appends the decoding; None: the outputs stay as they are.
    """
    try:
        model, told = native_input(source, recipe)
        raw: Sequence[str] = [info.name for info in outputs_of(model)]
        if canonical is not None:
            model, raw = canonical(model, (told.height, told.width))
        model, _ = make_portable(model, raw)
    except EdgeAgentError as err:
        for name in (OURS, OURS_INT8, OURS_DYNAMIC):
            entrants.leave_out(name, err)
        return
    _add_file(entrants, OURS, model, scratch, "bytes in")
    note = "bytes in, calibrated" if images is not None else "bytes in, ranges of noise: for its speed only"
    rng = np.random.default_rng(0)
    noise = (rng.integers(0, 256, (told.height, told.width, 3)).astype(np.uint8) for _ in range(_NOISE_PICTURES))
    try:
        ranges = collect_ranges(model, quantisable_tensors(model, raw), noise if images is None else images)
        int8, _ = quantize_static(model, fusible_nodes(model, raw), ranges)
        _add_file(entrants, OURS_INT8, strip(int8), scratch, note)
    except EdgeAgentError as err:
        entrants.leave_out(OURS_INT8, err)
    try:
        dynamic, facts = quantize_dynamic(model)
    except EdgeAgentError as err:
        entrants.leave_out(OURS_DYNAMIC, err)
        return
    if facts["advice"]:
        entrants.leave_out(OURS_DYNAMIC, facts["advice"])
    else:
        _add_file(entrants, OURS_DYNAMIC, dynamic, scratch, "bytes in, ranges found at run time")


def add_bundle(entrants: Entrants, root: Path, trusted_keys: Sequence[Path]) -> None:
    """A bundle's variants in the device's session."""
    bundle = load_bundle(root, trusted_keys)
    device = this_device(ort.__version__, available_providers())
    for variant in bundle.manifest.variants:
        obstacle = why_not(variant, device)
        if obstacle is not None:
            entrants.leave_out(f"bundle {variant.id}", obstacle)
            continue
        path = bundle.root / variant.file
        note = "the device's session, bytes in"
        entrants.contenders.append(Contender(f"bundle {variant.id}", path, bundle.manifest.task, variant, note=note))


def _add_file(entrants: Entrants, name: str, model: onnx.ModelProto, scratch: Path, note: str) -> None:
    path = scratch / f"{name.replace(' ', '-')}.onnx"
    path.write_bytes(model.SerializeToString(deterministic=True))
    entrants.contenders.append(Contender(name, path, "detect", note=note))


def _with_axes(model: onnx.ModelProto, axes: Mapping[str, Sequence[int | str]]) -> onnx.ModelProto:
    """A copy with these input shapes; what was known of all other shapes is forgotten, since it may not hold now."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    del result.graph.value_info[:]
    for value in result.graph.output:
        value.type.tensor_type.ClearField("shape")
    for value in result.graph.input:
        if value.name in axes:
            value.type.tensor_type.shape.CopyFrom(onnx.TensorShapeProto())
            for side in axes[value.name]:
                dim = value.type.tensor_type.shape.dim.add()
                if isinstance(side, int):
                    dim.dim_value = side
                else:
                    dim.dim_param = side
    return result


def _freed(shape: Sequence[int]) -> list[int | str]:
    """Batch, and of pictures height and width: the two longer of the last three axes."""
    sides: list[int | str] = list(shape)
    if sides:
        sides[0] = "batch"
    if len(shape) == _PICTURE_AXES:
        height_axis = 2 if shape[1] <= shape[3] else 1
        sides[height_axis], sides[height_axis + 1] = "height", "width"
    return sides


def _noise(info: TensorInfo, shape: Sequence[int]) -> NDArray[Any]:
    rng = np.random.default_rng(0)
    if info.dtype.startswith("float"):
        return rng.random(shape).astype(info.dtype)
    return rng.integers(0, 2, shape).astype(info.dtype)
