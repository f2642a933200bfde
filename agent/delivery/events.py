"""What the agent tells the world: one event per change of an object or of a camera's class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

EventType = Literal["new", "update", "end", "changed", "gap"]


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
    """A tracked object: ``box_xyxy`` in shares of the frame, 0..1, clipped; ``score`` 0..1."""

    id: int
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
    """One change. Exactly one of ``object`` (detect) and ``class_`` (classify) is set."""

    type: EventType
    frame: FrameRef
    object: ObjectState | None = None
    class_: ClassState | None = None


@dataclass(frozen=True, slots=True)
class ModelRef:
    """The model that saw it, as named in the bundle's manifest."""

    name: str
    version: int
    variant: str
