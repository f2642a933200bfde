"""A recipe's own measurement of the finished files, shown in the report; it judges nothing.

The recipe names a function ``evaluation: "module:function"``. It gets a runner per variant and returns an `Evaluation`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from agent.vision.resize import Placement, Resizer
from build_models.errors import RecipeError

if TYPE_CHECKING:
    from agent.model.manifest import InputSpec
    from agent.model.session import Session

# From a frame, uint8 [h, w, 3] BGR of any size, to the canonical outputs (valid until the next call) and where the
# frame lies in the model's input.
Runner = Callable[[NDArray[np.uint8]], tuple[Mapping[str, NDArray[Any]], Placement]]


@dataclass(frozen=True, slots=True)
class Table:
    """A table of text: its title, its columns' heads, its rows; the first column names the row."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Sheet:
    """A picture for people: its title, media type such as ``image/webp``, and the file's bytes."""

    title: str
    mime: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What was measured, for the report."""

    title: str
    tables: tuple[Table, ...]
    sheets: tuple[Sheet, ...] = ()


def runner(session: Session, spec: InputSpec) -> Runner:
    """A session behind the device's own resize."""
    resize = Resizer(spec, session.input_image)

    def run(image_bgr: NDArray[np.uint8]) -> tuple[Mapping[str, NDArray[Any]], Placement]:
        placement = resize(image_bgr)
        return session.run(), placement

    return run


def run_evaluation(callable_: str, runners: Mapping[str, Runner]) -> Evaluation:
    """Call the recipe's function with the runners by variant id.

    Args:
        callable_: ``module:function``, importable where the build runs.
        runners: of the variants that are to be packed.

    Raises:
        RecipeError: there is no such function, or it returns something else.
    """
    module_name, _, function_name = callable_.partition(":")
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError) as err:
        raise RecipeError(f"evaluation: {callable_}: {err}; it must be importable where the build runs") from err
    if not callable(function):
        raise RecipeError(f"evaluation: {callable_}: expected a function, got {type(function).__name__}")
    result = function(runners)
    if not isinstance(result, Evaluation):
        raise RecipeError(f"evaluation: {callable_}: expected an Evaluation, got {type(result).__name__}")
    return result
