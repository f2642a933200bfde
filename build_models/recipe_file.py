"""A recipe from YAML or from arguments; everything wrong with it is told at once, each with its place."""

from __future__ import annotations

import difflib
import re
import typing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from agent.yaml_document import MAX_BYTES, Document, YamlProblem, parse
from build_models.errors import RecipeError
from build_models.recipe import Recipe
from build_models.recipe_types import FromCommandLine

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic_core import ErrorDetails

_SHOWN_LENGTH = 60


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe; paths in it are relative to its folder.

    Args:
        path: the YAML file.
        overrides: ``key=value`` each, such as ``budget.max_drop=0.02``; the value is YAML and takes the place of what
            the file says. Paths in them are relative to the working folder.

    Raises:
        RecipeError: one line a problem, ``file:line:col: key: what was expected, what came``.
    """
    try:
        document = parse(_read(path))
    except YamlProblem as err:
        position = err.problem.position
        raise RecipeError(f"{path}:{position.line}:{position.column}: {err.problem.message}") from err
    if not isinstance(document.data, dict):
        raise RecipeError(f"{path}:1:1: expected keys and values such as `name: my-model`, found something else")
    problems = [
        f"{path}:{problem.position.line}:{problem.position.column}: {_dotted(problem.key_path)}: {problem.message}"
        for problem in document.problems
    ]
    for text in overrides:
        _override(document.data, text)
    try:
        recipe = Recipe.model_validate(document.data, context={"base": path.parent})
    except ValidationError as err:
        problems += [f"{path}:{where}: {what}" for where, what in _located(err, document)]
        raise RecipeError("\n".join(problems)) from err
    if problems:
        raise RecipeError("\n".join(problems))
    return recipe


def make_recipe(values: Mapping[str, Any], base: Path = Path()) -> Recipe:
    """A recipe from plain values, such as those of ``build-models import``; paths are relative to ``base``.

    Raises:
        RecipeError: one line a problem, ``key: what was expected, what came``.
    """
    try:
        return Recipe.model_validate(dict(values), context={"base": base})
    except ValidationError as err:
        raise RecipeError("\n".join(_told(error, values) for error in _errors(err))) from err


def _override(data: dict[str, Any], text: str) -> None:
    """Put a value of the command line into the recipe's data."""
    key, found, value = text.partition("=")
    if not found or not all(key.strip().split(".")):
        raise RecipeError(f"--set {text}: expected KEY=VALUE such as budget.max_drop=0.02")
    try:
        parsed = parse(f"value: {value}").data
    except YamlProblem as err:
        raise RecipeError(f"--set {text}: {err.problem.message}") from err
    *parents, last = key.strip().split(".")
    section = data
    for name in parents:
        inner = section.setdefault(name, {})
        if not isinstance(inner, dict):
            raise RecipeError(f"--set {text}: {name} is no section of the recipe")
        section = inner
    section[last] = _typed(parsed["value"] if isinstance(parsed, dict) else None)


def _typed(value: object) -> object:
    """Texts of the command line know that they are."""
    if isinstance(value, str):
        return FromCommandLine(value)
    if isinstance(value, dict):
        return {name: _typed(inner) for name, inner in value.items()}
    return [_typed(inner) for inner in value] if isinstance(value, list) else value


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise RecipeError(f"{path}: expected at most {MAX_BYTES // 1024} KiB of recipe, found more")
        return content.decode("utf-8")
    except OSError as err:
        raise RecipeError(f"{path}: cannot read the recipe: {err.strerror}") from err
    except UnicodeDecodeError as err:
        raise RecipeError(f"{path}: expected UTF-8 text, found other bytes; save it as UTF-8") from err


def _errors(err: ValidationError) -> list[ErrorDetails]:
    return err.errors(include_url=False)


def _located(err: ValidationError, document: Document) -> list[tuple[str, str]]:
    """Every problem with ``line:col``, in the order of the file."""
    found = []
    for error in _errors(err):
        path = _path_of(error, document.data)
        position = document.keys.get(path) if error["type"] == "extra_forbidden" else None
        while position is None:
            position = document.values.get(path)
            path = path[:-1]
        found.append((position, _told(error, document.data)))
    return [(f"{position.line}:{position.column}", told) for position, told in sorted(found)]


def _told(error: ErrorDetails, data: object) -> str:
    path = _path_of(error, data)
    key = _dotted(path)
    if error["type"] == "extra_forbidden":
        return f"{key}: unknown key; {_instead(path, data)}"
    if error["type"] == "missing":
        return f"{key}: expected this key, it is missing"
    if error["type"] == "union_tag_invalid":
        return f"{key}: {_other_branch(error['ctx'])}"
    if error["type"] == "value_error":  # from a validator of ours, whose message is complete
        message = str(error["ctx"]["error"])
        return f"{key}: {message}" if key else message
    message = error["msg"]
    if isinstance(error["input"], dict | list):
        return f"{key}: {message}" if key else message
    shown = repr(error["input"])
    shown = shown if len(shown) <= _SHOWN_LENGTH else shown[: _SHOWN_LENGTH - 3] + "..."
    return f"{key}: {message}, got {shown}"


def _path_of(error: ErrorDetails, data: object) -> tuple[str | int, ...]:
    """The error's place in the data, without the names that pydantic gives to the branches of a union."""
    if not error["loc"]:
        return ()
    path: list[str | int] = []
    *parents, last = error["loc"]
    for part in parents:
        if (isinstance(data, dict) and part in data) or (isinstance(data, list) and isinstance(part, int)):
            data = data[part]  # type: ignore[index] # just looked up
            path.append(part)
    return (*path, last)


def _instead(path: tuple[str | int, ...], data: object) -> str:
    """The key that was meant, or all there are."""
    *parents, name = path
    known = sorted(_section(parents, data).model_fields)
    close = difflib.get_close_matches(str(name), known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"expected one of: {', '.join(known)}"


def _other_branch(context: Mapping[str, Any]) -> str:
    """What the key that chooses among kinds of a section (its discriminator) may say."""
    name, known = (re.findall(r"'([^']*)'", context[part]) for part in ("discriminator", "expected_tags"))
    close = difflib.get_close_matches(context["tag"], known, n=1)
    advice = f"; did you mean {close[0]!r}?" if close else ""
    return f"expected {name[0]} to be one of {context['expected_tags']}, got {context['tag']!r}{advice}"


def _section(parents: list[str | int], data: object) -> type[BaseModel]:
    """The model that checks the part of the data at ``parents``; of a union, the branch that the data choose."""
    model: type[BaseModel] = Recipe
    for part in parents:
        data = data[part] if isinstance(data, dict | list) else None  # type: ignore[index] # a path that exists
        branches = _models_in(model.model_fields[part].annotation) if isinstance(part, str) else [model]
        model = next((branch for branch in branches if _is_chosen(branch, data)), branches[0])
    return model


def _models_in(annotation: object) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in typing.get_args(annotation) for model in _models_in(part)]


def _is_chosen(model: type[BaseModel], data: object) -> bool:
    """Whether the data's ``kind``, ``family`` or ``format`` is the one this branch is for."""
    for key in {"kind", "family", "format"} & model.model_fields.keys():
        chosen = data.get(key) if isinstance(data, dict) else None
        if chosen not in typing.get_args(model.model_fields[key].annotation):
            return False
    return True


def _dotted(path: tuple[str | int, ...]) -> str:
    return ".".join(map(str, path))
