"""What a measure is: it looks at one picture at a time and keeps little, so that any number of pictures fits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from agent.model.manifest import Task
    from agent.vision.resize import Placement
    from build_models.data.sample import Truth

Outputs = Mapping[str, NDArray[Any]]
Observation = TypeVar("Observation")


class Measure(Protocol[Observation]):
    """How well outputs meet the truth; higher is better, 1 is perfect.

    First `observe` every picture, then ask for `value` or `values` of the observations, in the pictures' order.
    Without state of its own: one measure may observe several models.
    """

    @property
    def name(self) -> str:
        """Such as ``map50_95``."""
        ...

    @property
    def task(self) -> Task:
        """Whose outputs and truth it understands."""
        ...

    def observe(self, outputs: Outputs, truth: Truth, placement: Placement) -> Observation:
        """What one picture contributes; the outputs are only read and not kept."""
        ...

    def verdicts(self, observations: Sequence[Observation]) -> NDArray[np.float64] | None:
        """Where the measure is the mean of a yes (1) or no (0) per picture: these, NaN where one does not count."""
        ...

    def values(self, observations: Sequence[Observation], weights: NDArray[np.int64]) -> NDArray[np.float64]:
        """The measure ``[R]`` for each row of ``weights [R, P]``: how often each picture counts. NaN: undefined."""
        ...


def value(
    measure: Measure[Observation], observations: Sequence[Observation], weights: NDArray[np.int64] | None = None
) -> float:
    """The measure over all pictures, or with each counted ``weights [P]`` times; NaN where it is undefined."""
    row = np.ones(len(observations), np.int64) if weights is None else weights
    return float(measure.values(observations, row[None])[0])
