"""A program saved by ``torch.export.save`` becomes an ONNX model and is compared with it.

``torch.export.load`` may run code that a file brings along: it unpickles what is no plain tensor, evaluates the
expressions of dynamic shapes, and loads compiled libraries. So the file is looked through first, and one that has more
than tensors and plain arithmetic is refused. That closes the doors known in torch 2.13; it is no reason to load a file
from a stranger.
"""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import re
import zipfile
from typing import TYPE_CHECKING, Any

from build_models.errors import BuildError, RecipeError
from build_models.graph.model_io import first_line
from build_models.source.torch_export import TorchReport, finish, import_torch, silenced, to_onnx

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import onnx

    from build_models.recipe import InputRecipe, Pt2Source

_CONFIGS = re.compile(r"data/(weights|constants)/[^/]+\.json$")
_SAMPLES = re.compile(r"data/sample_inputs/[^/]+\.pt$")
_GRAPHS = re.compile(r"models/[^/]+\.json$")
_QUOTED = re.compile(r"'\w*'")
# What torch writes into the expressions of dynamic shapes (sympy's srepr): numbers, symbols, arithmetic.
_ARITHMETIC = re.compile(
    r"(?:[\s(),=+*/-]|\b\d+\b|\b(?:Symbol|Integer|Rational|Add|Mul|Pow|Max|Min|Mod|FloorDiv|CeilDiv|CleanDiv|PythonMod|"
    r"ToFloat|TruncToInt|positive|nonnegative|nonzero|integer|real|commutative|True|False)\b)*"
)


def import_program(source: Pt2Source, recipe: InputRecipe) -> tuple[onnx.ModelProto, TorchReport]:
    """Load a program, export it with batch 1 and compare the two.

    Returns:
        The model with static shapes and opset 18, in one piece, without traces of this machine.

    Raises:
        RecipeError: torch is not installed; the file is no such program or holds code; its input is another.
        BuildError: the program cannot be exported, or the exported model computes something else.
    """
    torch = import_torch()
    path = source.path
    try:
        data = path.read_bytes()
    except OSError as err:
        raise RecipeError(f"{path}: cannot read the program: {err.strerror}") from err
    _refuse_code(_members(data, path), path)
    try:
        with silenced():
            program = torch.export.load(io.BytesIO(data))
    except (RuntimeError, ValueError, TypeError, KeyError, AssertionError) as err:
        raise RecipeError(
            f"{path}: torch {torch.__version__} cannot load the program: {first_line(err)}; save it again with this "
            "version"
        ) from err
    inputs = program.graph_signature.user_inputs
    if len(inputs) != 1:
        raise RecipeError(f"{path}: expected a program with one input, a picture, found {len(inputs)}")
    exported = to_onnx(program, (), source.outputs)
    try:
        return finish(exported, recipe, program.module(), hashlib.sha256(data).hexdigest(), [])
    except (RuntimeError, AssertionError) as err:
        # The module checks its argument: it may have been exported for other batches than 1.
        raise BuildError(f"{path}: the program does not run with one picture: {first_line(err)}") from err


def _members(data: bytes, path: Path) -> dict[str, bytes]:
    """The archive's files, without the folder that torch puts them in."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            # Torch stores without compression: what unpacks to more than it weighs is not its own.
            fits = sum(entry.file_size for entry in archive.infolist()) <= len(data)
            members = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()} if fits else {}
    except (zipfile.BadZipFile, NotImplementedError, EOFError) as err:
        raise RecipeError(f"{path}: expected a program, as torch.export.save writes it, found no archive") from err
    if members.get("archive_format") != b"pt2" or not any(map(_GRAPHS.match, members)):
        raise RecipeError(
            f"{path}: expected a program, as torch.export.save of torch 2.8 or newer writes it, found another archive; "
            "a file of weights goes into source.weights of a torch source"
        )
    return members


def _refuse_code(members: dict[str, bytes], path: Path) -> None:
    """Raise RecipeError unless there are tensors, a graph and plain arithmetic alone."""
    try:
        configs = [(name, json.loads(members[name])["config"]) for name in filter(_CONFIGS.match, members)]
        pickled = list(filter(_SAMPLES.match, members)) + [
            f"{name.rpartition('/')[0]}/{entry['path_name']}"
            for name, config in configs
            for entry in config.values()
            if entry["use_pickle"]
        ]
        graphs = [json.loads(members[name]) for name in filter(_GRAPHS.match, members)]
    except (ValueError, KeyError, TypeError, AttributeError) as err:
        raise RecipeError(f"{path}: expected a program, as torch.export.save writes it, found a damaged one") from err
    code = [name for name in members if name.startswith("data/aotinductor/")]
    code += [name for name in pickled if not _holds_tensors(members.get(name, b""))]
    code += [
        repr(text)
        for graph in graphs
        for text in _expressions(graph)
        if not _ARITHMETIC.fullmatch(_QUOTED.sub("", text))
    ]
    if code:
        raise RecipeError(f"{path}: the program holds code ({code[0][:60]}), which is not loaded; save one of tensors")


def _holds_tensors(data: bytes) -> bool:
    torch = import_torch()
    try:
        with silenced():
            torch.load(io.BytesIO(data), weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError):
        return False
    return True


def _expressions(value: Any) -> Iterator[str]:
    """Every string that the loader evaluates."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "expr_str":
                yield str(inner)
            else:
                yield from _expressions(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _expressions(inner)
