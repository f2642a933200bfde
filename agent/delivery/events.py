"""What the agent tells the world: an event per change of an object or of what a camera shows, and a camera's state."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

EventType = Literal["new", "update", "end", "changed"]


@dataclass(frozen=True, slots=True)
class FrameRef:
    """The frame an event was seen in: the camera's frame number and its size in pixels."""

    camera_id: str
    id: int
    width: int
    height: int
    captured_at_ms: int


@dataclass(frozen=True, slots=True)
class ObjectState:
    """An object: ``box_xyxy`` in shares of the frame, 0..1, clipped; ``score`` 0..1; ``id`` None while untracked."""

    id: int | None
    label: str
    score: float
    box_xyxy: tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class ClassState:
    """The class of a whole picture; ``score`` 0..1."""

    label: str
    score: float


@dataclass(frozen=True, slots=True)
class Event:
    """One change. Exactly one of ``object`` (detect), ``class_`` (classify) and ``areas`` (segment) is set.

    ``areas`` are shares of the frame, 0..1, by label.
    """

    type: EventType
    frame: FrameRef
    object: ObjectState | None = None
    class_: ClassState | None = None
    areas: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Gap:
    """Events that will never arrive: why, and how many of each type where that is known (empty: unknown)."""

    reason: str
    dropped: Mapping[str, int]
    noticed_at_ms: int


@dataclass(frozen=True, slots=True)
class CameraState:
    """What a camera sees now: its health, objects counted per label, the picture's class, or shares of it by label."""

    health: str
    counts: Mapping[str, int] = field(default_factory=dict)
    class_: ClassState | None = None
    areas: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ModelRef:
    """The model that saw it, as named in the bundle's manifest."""

    name: str
    version: int
    variant: str
