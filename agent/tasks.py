"""One watcher per task: canonical outputs of one frame become what is seen in it and the events it causes."""

from __future__ import annotations

import difflib
import math
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from agent.delivery.events import CameraState, ClassState, Event, FrameRef, ObjectState
from agent.errors import ConfigError
from agent.vision.decode import Thresholds, decode_class, decode_detections, decode_mask
from agent.vision.detections import name_of
from agent.vision.track import TrackChange, Tracker, TrackRules

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from agent.config import AgentConfig, DetectConfig, TrackingConfig
    from agent.frame import Frame
    from agent.model.manifest import Manifest
    from agent.vision.detections import Detections
    from agent.vision.mask import FrameMask
    from agent.vision.resize import Placement

_AREA_STEP = 0.02  # a camera's state tells its areas anew when one of them is off by as much


@dataclass(frozen=True, slots=True)
class Sighting:
    """What one frame shows, and the events that it causes.

    Attributes:
        objects: detections of this very frame.
        present: objects that the camera has in view, by label; one that is hidden for a moment still counts.
        class_: the picture's class, of a classifier.
        detections: the objects in columns, pixels of the frame, for drawing.
        areas: share of the frame by label, largest first, together 1, of a segmenter. A class id without a label is
            called by its number; many models say ``class 255`` where they do not want to tell.
        steady_areas: the areas as the camera's state tells them: rounded, and the same until one of them has moved.
        mask: which part of the frame is which class, for drawing.
    """

    objects: Sequence[ObjectState] = ()
    present: Mapping[str, int] = field(default_factory=dict)
    class_: ClassState | None = None
    events: Sequence[Event] = ()
    detections: Detections | None = None
    areas: Mapping[str, float] = field(default_factory=dict)
    steady_areas: Mapping[str, float] = field(default_factory=dict)
    mask: FrameMask | None = None

    @property
    def camera_state(self) -> CameraState:
        """What the state of the camera that gave the frame says."""
        return CameraState("up", self.present, self.class_, self.steady_areas)


class Watcher(Protocol):
    """Watches one camera; called by the inference thread only, frame by frame, then once to finish."""

    def see(self, outputs: Mapping[str, NDArray[Any]], placement: Placement, frame: Frame) -> Sighting:
        """Interpret a frame's outputs; they hold only until the next inference."""
        ...

    def finish(self) -> Sequence[Event]:
        """The camera has stopped: the events that close what is open."""
        ...


def look(
    outputs: Mapping[str, NDArray[Any]], placement: Placement, manifest: Manifest, thresholds: Thresholds
) -> Sighting:
    """What one picture shows by itself: no memory of others, so no ids and no events."""
    if manifest.task == "detect":
        detections = decode_detections(outputs, placement, thresholds)
        shares = _in_shares(detections, *placement.frame_wh)
        objects = _object_states(shares, manifest.labels, [None] * len(shares))
        return Sighting(objects, Counter(each.label for each in objects), detections=detections)
    if manifest.task == "segment":
        mask = decode_mask(outputs, placement)
        return Sighting(areas=_areas_of(mask, manifest.labels), mask=mask)
    return Sighting(class_=_class_state(outputs, manifest.labels))


def make_watcher(manifest: Manifest, config: AgentConfig) -> Watcher:
    """The watcher of a bundle's task for one camera.

    Raises:
        ConfigError: the config's detect.labels names a label that the bundle does not have.
    """
    if manifest.task == "detect":
        return ObjectWatcher(manifest.labels, thresholds_of(manifest, config.detect), _track_rules(config.tracking))
    if manifest.task == "segment":
        return AreaWatcher(manifest.labels, config.tracking.confirm_frames)
    return ClassWatcher(manifest.labels, config.tracking.confirm_frames)


class ObjectWatcher:
    """Detection: threshold and suppression, tracking, and new/update/end events."""

    def __init__(self, labels: Sequence[str], thresholds: Thresholds, rules: TrackRules) -> None:
        self._labels = labels
        self._thresholds = thresholds
        self._tracker = Tracker(rules)
        self._last: FrameRef | None = None

    def see(self, outputs: Mapping[str, NDArray[Any]], placement: Placement, frame: Frame) -> Sighting:
        detections = decode_detections(outputs, placement, self._thresholds)
        self._last = ref = frame_ref(frame)
        # Tracked in shares of the frame, so a camera that comes back with another resolution changes nothing.
        shares = _in_shares(detections, ref.width, ref.height)
        changes = self._tracker.update(shares, frame.stream_time_s)
        objects = _object_states(shares, self._labels, self._tracker.track_ids)
        events = [self._event(change, ref) for change in changes]
        present = Counter(name_of(self._labels, label) for label in self._tracker.present())
        return Sighting(objects=objects, present=present, events=events, detections=detections)

    def finish(self) -> Sequence[Event]:
        ref = self._last
        return [] if ref is None else [self._event(change, ref) for change in self._tracker.finish()]

    def _event(self, change: TrackChange, ref: FrameRef) -> Event:
        left, top, right, bottom = change.box_xyxy.tolist()
        name = name_of(self._labels, change.label)
        state = ObjectState(change.track_id, name, change.score, (left, top, right, bottom))
        return Event(change.type, ref, object=state)


class ClassWatcher:
    """Classification: a changed event once another class has been the best for some frames in a row."""

    def __init__(self, labels: Sequence[str], confirm_frames: int) -> None:
        self._labels = labels
        self._confirmation = _Confirmation(confirm_frames)

    def see(self, outputs: Mapping[str, NDArray[Any]], placement: Placement, frame: Frame) -> Sighting:
        state = _class_state(outputs, self._labels)
        if state is None:
            return Sighting()
        if not self._confirmation.is_news(state.label):
            return Sighting(class_=state)
        return Sighting(class_=state, events=[Event("changed", frame_ref(frame), class_=state)])

    def finish(self) -> Sequence[Event]:
        return []


class AreaWatcher:
    """Segmentation: a changed event once another class has had the largest area for some frames in a row."""

    def __init__(self, labels: Sequence[str], confirm_frames: int) -> None:
        self._labels = labels
        self._confirmation = _Confirmation(confirm_frames)
        self._steady: Mapping[str, float] = {}

    def see(self, outputs: Mapping[str, NDArray[Any]], placement: Placement, frame: Frame) -> Sighting:
        mask = decode_mask(outputs, placement)
        areas = _areas_of(mask, self._labels)
        self._steady = _steady_areas(self._steady, areas)
        events = []
        if self._confirmation.is_news(next(iter(areas))):
            events.append(Event("changed", frame_ref(frame), areas=areas))
        return Sighting(events=events, areas=areas, steady_areas=self._steady, mask=mask)

    def finish(self) -> Sequence[Event]:
        return []


class _Confirmation:
    """Takes what each frame shows most; news is what came some times in a row and was not the news before."""

    def __init__(self, times: int) -> None:
        self._needed = times
        self._told: str | None = None
        self._candidate: str | None = None
        self._times = 0

    def is_news(self, label: str) -> bool:
        self._times = self._times + 1 if label == self._candidate else 1
        self._candidate = label
        if label == self._told or self._times < self._needed:
            return False
        self._told = label
        return True


def _in_shares(detections: Detections, width: int, height: int) -> Detections:
    return replace(detections, boxes_xyxy=detections.boxes_xyxy / _size_columns(width, height))


def _object_states(shares: Detections, labels: Sequence[str], ids: Sequence[int | None]) -> list[ObjectState]:
    return [
        ObjectState(track_id, name_of(labels, label), score, (left, top, right, bottom))
        for track_id, label, score, (left, top, right, bottom) in zip(
            ids, shares.labels.tolist(), shares.scores.tolist(), shares.boxes_xyxy.tolist(), strict=True
        )
    ]


def _class_state(outputs: Mapping[str, NDArray[Any]], labels: Sequence[str]) -> ClassState | None:
    """The picture's class; None when the model computed no number."""
    best, score = decode_class(outputs)
    return ClassState(labels[best], score) if math.isfinite(score) else None


def _areas_of(mask: FrameMask, labels: Sequence[str]) -> dict[str, float]:
    """Shares by label, largest first; two classes may have one label, and it gets both their shares."""
    shares: dict[str, float] = {}
    for class_id, share in mask.areas().items():
        name = name_of(labels, class_id)
        shares[name] = shares.get(name, 0.0) + share
    return dict(sorted(shares.items(), key=lambda each: -each[1]))


def _steady_areas(told: Mapping[str, float], areas: Mapping[str, float]) -> Mapping[str, float]:
    """``told`` while no area is far from it, so that noise is no news; else the areas of now, rounded.

    Rounding moves a value by up to 0.005, so a still scene may flicker by 0.015 and a subscriber is never off by more
    than ``_AREA_STEP``.
    """
    labels = told.keys() | areas.keys()
    if told and all(abs(told.get(label, 0.0) - areas.get(label, 0.0)) < _AREA_STEP for label in labels):
        return told
    rounded = {label: round(share, 2) for label, share in areas.items()}
    return {label: share for label, share in rounded.items() if share > 0}


@lru_cache(maxsize=64)
def _size_columns(width: int, height: int) -> NDArray[np.float32]:
    return np.array([width, height] * 2, np.float32)


def frame_ref(frame: Frame) -> FrameRef:
    """What payloads say of a frame."""
    height, width = frame.image_bgr.shape[:2]
    return FrameRef(frame.camera_id, frame.id, width, height, frame.captured_at_ms)


def thresholds_of(manifest: Manifest, chosen: DetectConfig) -> Thresholds:
    """The config's thresholds, and the bundle's where it has none.

    Raises:
        ConfigError: the config names a label that the bundle does not have.
    """
    defaults = manifest.defaults
    return Thresholds(
        defaults.score_threshold if chosen.score_threshold is None else chosen.score_threshold,
        defaults.iou_threshold if chosen.iou_threshold is None else chosen.iou_threshold,
        chosen.max_detections or defaults.max_detections,
        None if chosen.labels is None else _class_ids(manifest, chosen.labels),
    )


def _class_ids(manifest: Manifest, chosen: Sequence[str]) -> frozenset[int]:
    """The class ids with the chosen labels; two classes may have one label, a crane is a bird or a machine."""
    for label in chosen:
        if label not in manifest.labels:
            close = difflib.get_close_matches(label, manifest.labels, n=1)
            advice = f"did you mean {close[0]!r}?" if close else "`edge-agent model inspect` lists its labels"
            raise ConfigError(f"bundle {manifest.name} has no label {label!r}; {advice}")
    return frozenset(class_id for class_id, label in enumerate(manifest.labels) if label in chosen)


def _track_rules(config: TrackingConfig) -> TrackRules:
    return TrackRules(config.iou_threshold, config.confirm_frames, config.lost_after_s, config.update_interval_s)
