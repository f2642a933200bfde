"""Greedy IoU tracking: detections of many frames become objects that appear, move and leave."""

from __future__ import annotations

import statistics
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from agent.vision.boxes import iou_matrix, match_one_to_one

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from agent.vision.detections import Detections

_SCORES_KEPT = 10


@dataclass(frozen=True, slots=True)
class TrackRules:
    """When detections become an object, when it is told of again, and when it has gone."""

    least_iou: float
    confirm_frames: int
    lost_after_s: float
    update_interval_s: float


@dataclass(frozen=True, slots=True)
class TrackChange:
    """What happened to an object: ``score`` is the median of its last ten, ``box_xyxy`` ``[4]`` the last it had."""

    type: Literal["new", "update", "end"]
    track_id: int
    label: int
    score: float
    box_xyxy: NDArray[np.float32]


class Tracker:
    """Tracks the objects of one camera; a label never changes, so an object of two labels is two objects.

    Boxes may be in pixels or in shares of the frame, always in the same.

    Attributes:
        track_ids: for each detection of the last update the id of its object, from 1; None while unconfirmed.
    """

    def __init__(self, rules: TrackRules) -> None:
        self._rules = rules
        self._tracks: list[_Track] = []
        self._next_id = 1
        self.track_ids: list[int | None] = []

    def update(self, detections: Detections, now_s: float) -> list[TrackChange]:
        """Match a frame's detections with the objects known.

        Args:
            detections: of one frame.
            now_s: the frame's ``stream_time_s``.

        Returns:
            The changes, ends first.
        """
        for track in self._tracks:
            track.seen_now = False
        self.track_ids = [None] * len(detections)
        for track, index in self._match(detections, now_s):
            track.see(detections.boxes_xyxy[index], float(detections.scores[index]), now_s)
            track.detection = index
        changes = self._drop_lost(now_s)
        for track in self._tracks:
            if track.seen_now:
                changes += self._told(track, now_s)
        return changes

    def present(self) -> list[int]:
        """The labels of the confirmed objects that have not ended, one per object, seen in this frame or not."""
        return [track.label for track in self._tracks if track.id]

    def finish(self) -> list[TrackChange]:
        """End all objects: the camera has stopped."""
        changes = [track.change("end") for track in self._tracks if track.id]
        self._tracks, self.track_ids = [], []
        return changes

    def _match(self, detections: Detections, now_s: float) -> list[tuple[_Track, int]]:
        """Pairs of object and detection; a detection without an object begins a new one."""
        matched: list[tuple[_Track, int]] = []
        if self._tracks and len(detections):
            predicted = np.stack([track.predict(now_s) for track in self._tracks])
            affinity = iou_matrix(predicted, detections.boxes_xyxy)
            labels = np.array([track.label for track in self._tracks])
            affinity[labels[:, None] != detections.labels[None, :]] = -1
            pairs = match_one_to_one(affinity, self._rules.least_iou)
            matched = [(self._tracks[row], column) for row, column in pairs]
        taken = {index for _, index in matched}
        for index in range(len(detections)):
            if index not in taken:
                track = _Track(int(detections.labels[index]), detections.boxes_xyxy[index], now_s)
                self._tracks.append(track)
                matched.append((track, index))
        return matched

    def _drop_lost(self, now_s: float) -> list[TrackChange]:
        """Remove objects unseen for too long, and those that were missed before they were confirmed."""
        kept, ended = [], []
        for track in self._tracks:
            if track.seen_now or (track.id and now_s - track.last_seen_s < self._rules.lost_after_s):
                kept.append(track)
            elif track.id:
                ended.append(track.change("end"))
        self._tracks = kept
        return ended

    def _told(self, track: _Track, now_s: float) -> list[TrackChange]:
        """The change to report of an object that was seen in this frame, if any."""
        changes: list[TrackChange] = []
        if not track.id and track.times_seen >= self._rules.confirm_frames:
            track.id, self._next_id = self._next_id, self._next_id + 1
            track.told_s = now_s
            changes.append(track.change("new"))
        elif track.id and now_s - track.told_s >= self._rules.update_interval_s:
            track.told_s = now_s
            changes.append(track.change("update"))
        self.track_ids[track.detection] = track.id or None
        return changes


@dataclass(slots=True, eq=False)
class _Track:
    """One object; ``id`` is 0 until it is confirmed."""

    label: int
    box_xyxy: NDArray[np.float32]
    last_seen_s: float
    id: int = 0
    times_seen: int = 0
    seen_now: bool = False
    detection: int = -1
    told_s: float = 0.0
    velocity_xy: NDArray[np.float32] = field(default_factory=lambda: np.zeros(2, np.float32))
    scores: deque[float] = field(default_factory=lambda: deque(maxlen=_SCORES_KEPT))

    def predict(self, now_s: float) -> NDArray[np.float32]:
        """The box where it would be if the centre moved on as it did; sizes are kept."""
        shift = self.velocity_xy * np.float32(now_s - self.last_seen_s)
        moved: NDArray[np.float32] = self.box_xyxy + np.concatenate([shift, shift])
        return moved

    def see(self, box_xyxy: NDArray[np.float32], score: float, now_s: float) -> None:
        elapsed_s = now_s - self.last_seen_s
        if elapsed_s > 0:
            moved = (box_xyxy[:2] + box_xyxy[2:] - self.box_xyxy[:2] - self.box_xyxy[2:]) / 2
            # Half old, half new: one shaky box must not throw the prediction off.
            self.velocity_xy = ((self.velocity_xy + moved / elapsed_s) / 2).astype(np.float32)
        self.box_xyxy, self.last_seen_s = box_xyxy, now_s
        self.times_seen += 1
        self.seen_now = True
        self.scores.append(score)

    def change(self, kind: Literal["new", "update", "end"]) -> TrackChange:
        return TrackChange(kind, self.id, self.label, statistics.median(self.scores), self.box_xyxy)
