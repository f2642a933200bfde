"""What the web API serves: models always, cameras where an agent runs them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from prometheus_client.core import Metric

    from agent.delivery.payload import Origin
    from agent.frame import Frame
    from agent.predict import Predictor
    from agent.tasks import Sighting


class Cameras(Protocol):
    """An agent's cameras, read from the web's threads while they run."""

    @property
    def ids(self) -> list[str]:
        """Their ids, in the configuration's order."""
        ...

    @property
    def labels(self) -> list[str]:
        """The labels of the model that watches them."""
        ...

    def latest(self, camera_id: str) -> tuple[Frame, Sighting] | None:
        """The last frame that went through the model and what it shows; None before the first."""
        ...

    def facts(self, camera_id: str) -> dict[str, Any]:
        """Health and counts, as JSON data."""
        ...


@dataclass(frozen=True)
class Served:
    """One model behind the API, and what its answers say of where they come from."""

    predictor: Predictor
    origin: Origin


@dataclass(frozen=True)
class Service:
    """Everything behind the API.

    Attributes:
        models: by name; the first answers when a request names none.
        cameras: None without an agent.
        silent: loops that hang, with a sentence each.
        not_ready: why the service cannot be used yet, None when it can.
        metrics: more figures for Prometheus.
        node: the device's name in topics, None without an agent.
    """

    models: Mapping[str, Served]
    cameras: Cameras | None = None
    silent: Callable[[], Mapping[str, str]] = dict
    not_ready: Callable[[], str | None] = lambda: None
    metrics: Callable[[], Iterable[Metric]] = field(default=tuple)
    node: str | None = None
