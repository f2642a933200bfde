"""A torch module becomes an ONNX model, and the model is run against the module before anyone believes it."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import logging
import pickle
import sys
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from build_models.errors import BuildError, RecipeError
from build_models.graph.model_io import check_same, inputs_of, outputs_of, run_model
from build_models.source.onnx_import import normalise

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import nn
    from torch.export import ExportedProgram

    from build_models.graph.fix_shape import FixShapeReport
    from build_models.recipe import InputRecipe, TorchSource

OPSET = 18
_COMPARED_INPUTS = 2
_MODULE_SCOPES = "pkg.torch.onnx.name_scopes"
_SHOWN_KEYS = 5


@dataclass(frozen=True, slots=True)
class TorchReport:
    """What was exported.

    Attributes:
        sha256: of the state dict, names and values, in hex.
        torch_version: the exporter.
        parameters: number of weights.
        unwrapped: what was taken off the weights file: an outer key, a prefix of all names.
        modules: graph node to the path of the torch module it came from.
        largest_difference: between torch and the exported model, as a share of the largest output.
        shape: what became of the input's shape.
        inputs: the source's input in words.
        outputs: the source's outputs in words.
    """

    sha256: str
    torch_version: str
    parameters: int
    unwrapped: list[str]
    modules: dict[str, str]
    largest_difference: float
    shape: FixShapeReport
    inputs: list[str]
    outputs: list[str]


def export_torch(source: TorchSource, recipe: InputRecipe) -> tuple[onnx.ModelProto, TorchReport]:
    """Make the module, load its weights, export it with batch 1 and compare the two.

    Returns:
        The model with static shapes and opset 18, in one piece, without traces of this machine.

    Raises:
        RecipeError: torch is not installed; the callable, its arguments or the weights are not what they should be.
        BuildError: the module cannot be exported, or the exported model computes something else.
    """
    import_torch()
    module, unwrapped = load_module(source)
    assert recipe.height is not None, "the recipe checks it"
    assert recipe.width is not None
    size = (recipe.height, recipe.width)
    shape = (1, recipe.channels, *size) if recipe.layout == "nchw" else (1, *size, recipe.channels)
    exported = _export(module, shape, source.outputs)
    return finish(exported, recipe, module, _digest(module.state_dict()), unwrapped)


def finish(
    exported: onnx.ModelProto, recipe: InputRecipe, module: nn.Module, sha256: str, unwrapped: list[str]
) -> tuple[onnx.ModelProto, TorchReport]:
    """What the exporter wrote, fixed in shape and compared with the module that it came from.

    Raises:
        RecipeError: its input is not what the recipe says.
        BuildError: it computes something else.
    """
    modules = _modules(exported)
    model, shape_report = normalise(exported, recipe)
    (source,) = inputs_of(model)
    assert source.static_shape is not None, "normalise() made it static"
    difference = _compare(module, model, source.static_shape)
    report = TorchReport(
        sha256=sha256,
        torch_version=str(import_torch().__version__).partition("+")[0],
        parameters=sum(parameter.numel() for parameter in module.parameters()),
        unwrapped=unwrapped,
        modules=modules,
        largest_difference=difference,
        shape=shape_report,
        inputs=[str(source)],
        outputs=[str(info) for info in outputs_of(model)],
    )
    return model, report


def import_torch() -> Any:
    """Torch with its exporter; raises RecipeError when either is missing."""
    try:
        import onnxscript  # noqa: F401 - only the torch extra has it; the exporter needs it
        import torch
    except ImportError as err:
        raise RecipeError(f"a torch source needs {err.name}: pip install 'edge-agent[torch]'") from err
    return torch


def load_module(source: TorchSource) -> tuple[nn.Module, list[str]]:
    """The module with its weights, ready to run, and what its file of weights was wrapped in."""
    torch = import_torch()
    where = f"source.callable {source.callable}"
    module_name, _, function_name = source.callable.partition(":")
    with _on_sys_path(source.python_path):
        try:
            function = getattr(importlib.import_module(module_name), function_name)
        except (ImportError, AttributeError, SyntaxError) as err:
            raise RecipeError(f"{where}: {err}; looked in {source.python_path} too (source.python_path)") from err
        try:
            module = function(**source.kwargs)
        except (TypeError, ValueError) as err:
            raise RecipeError(f"{where}: refuses its arguments {source.kwargs}: {err}") from err
    if not isinstance(module, torch.nn.Module):
        raise RecipeError(f"{where}: expected a torch.nn.Module, got {type(module).__name__}")
    unwrapped = _load_weights(module, source.weights) if source.weights is not None else []
    return module.eval().cpu().float(), unwrapped


def _load_weights(module: nn.Module, path: Path) -> list[str]:
    """Load a state dict, which may be wrapped the usual ways; returns what was unwrapped."""
    torch = import_torch()
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as err:
        raise RecipeError(f"{path}: cannot read the weights: {err.strerror}") from err
    except (pickle.UnpicklingError, RuntimeError, EOFError) as err:
        raise RecipeError(
            f"{path}: expected a file of weights alone, as torch.save(module.state_dict(), path) writes it; files "
            "that hold code are not loaded"
        ) from err
    unwrapped = []
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
            unwrapped.append(key)
    if not isinstance(state, dict) or not state:
        raise RecipeError(f"{path}: expected a state dict, found {type(state).__name__}")
    if all(str(name).startswith("module.") for name in state):
        state = {name.removeprefix("module."): value for name, value in state.items()}
        unwrapped.append("module.")
    try:
        missing, unexpected = module.load_state_dict(state, strict=False)
    except RuntimeError as err:
        reason = " ".join(str(err).split())
        raise RecipeError(f"{path}: the weights do not fit the module: {reason}") from err
    if missing or unexpected:
        raise RecipeError(
            f"{path}: the weights do not fit the module: missing {_some(missing)}; unexpected {_some(unexpected)}"
        )
    return unwrapped


def _export(module: nn.Module, shape: tuple[int, ...], outputs: list[str] | None) -> onnx.ModelProto:
    return to_onnx(module, (import_torch().zeros(shape),), outputs)


def to_onnx(
    model: nn.Module | ExportedProgram, arguments: tuple[Any, ...], outputs: list[str] | None
) -> onnx.ModelProto:
    """Run torch's exporter on a module and example arguments, or on a program.

    Raises:
        BuildError: it cannot.
        RecipeError: there are more or fewer outputs than names.
    """
    torch = import_torch()
    with silenced():
        try:
            program = torch.onnx.export(
                model,
                arguments,
                dynamo=True,
                external_data=False,
                opset_version=OPSET,
                input_names=["input"],
                output_names=outputs,
                optimize=True,
                verbose=False,
            )
        except (torch.onnx.errors.OnnxExporterError, RuntimeError, ValueError, TypeError) as err:
            raise BuildError(f"torch cannot export the module: {_cause(err)}") from err
    proto = onnx.ModelProto()
    proto.CopyFrom(program.model_proto)
    found = [value.name for value in proto.graph.output]
    if outputs is not None and found != outputs:
        raise RecipeError(
            f"source.outputs: expected a name for each of the {len(found)} outputs, got {', '.join(outputs) or 'none'}"
        )
    return proto


def _compare(module: nn.Module, model: onnx.ModelProto, shape: tuple[int, ...]) -> float:
    """Largest difference between torch and ONNX on random inputs, as a share of the largest output."""
    torch = import_torch()
    rng = np.random.default_rng(0)
    (source,) = inputs_of(model)
    worst = 0.0
    for _ in range(_COMPARED_INPUTS):
        pictures = rng.standard_normal(shape, dtype=np.float32)
        got = run_model(model, {source.name: pictures})
        with torch.inference_mode():
            expected = _flat(module(torch.from_numpy(pictures)))
        named = dict(zip(got, expected, strict=True))
        worst = max(worst, check_same(named, got, "the exported model does not compute what torch does"))
    return worst


def _flat(result: object) -> list[NDArray[Any]]:
    """Outputs in the exporter's order: tuples, lists, dictionaries and dataclasses opened, None left out."""
    if result is None:
        return []
    if isinstance(result, dict):
        return [array for value in result.values() for array in _flat(value)]
    if dataclasses.is_dataclass(result):
        return [array for field in dataclasses.fields(result) for array in _flat(getattr(result, field.name))]
    if isinstance(result, tuple | list):
        return [array for value in result for array in _flat(value)]
    return [result.numpy()]  # type: ignore[attr-defined] # a tensor


def _modules(model: onnx.ModelProto) -> dict[str, str]:
    """Node name to module path, from what the exporter notes."""
    found = {}
    for node in model.graph.node:
        for entry in node.metadata_props:
            if entry.key == _MODULE_SCOPES:
                scopes = [part.strip(" '\"[]") for part in entry.value.split(",")]
                # The last scope is the operation itself.
                found[node.name] = scopes[-2] if len(scopes) > 1 else ""
    return found


def _digest(state: dict[str, Any]) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(state.items()):
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}\n".encode())
        digest.update(np.ascontiguousarray(value.numpy()).tobytes())
    return digest.hexdigest()


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN_KEYS} more" if len(names) > _SHOWN_KEYS else ""
    return (", ".join(names[:_SHOWN_KEYS]) or "none") + more


def _cause(err: BaseException) -> str:
    """The innermost error's first line: the exporter wraps it in pages of advice."""
    while err.__cause__ is not None:
        err = err.__cause__
    return (str(err).strip().splitlines() or [type(err).__name__])[0]


@contextmanager
def _on_sys_path(folder: Path) -> Iterator[None]:
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


@contextmanager
def silenced() -> Iterator[None]:
    """Keep the exporter's remarks about itself from the user; what matters is compared afterwards."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
