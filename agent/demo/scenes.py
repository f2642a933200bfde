"""Procedural scenes: five kinds of shapes over a cluttered, unevenly lit, noisy background, with their truth.

The synthetic camera plays a `Scene` as a video; the demo model is trained on `random_picture`. Both draw the same way.
Sizes and speeds are relative: a picture of 640x384 shows what one of 320x192 shows, in finer pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import cv2
import numpy as np

from agent.demo.backdrop import NOISE_MARGIN, Backdrop

if TYPE_CHECKING:
    from numpy.typing import NDArray

LABELS = ("circle", "square", "triangle", "star", "cross")
HIDDEN = 255  # in a mask: a piece of an object too hidden or too far outside to count
MIN_VISIBLE_SHARE = 0.5
FPS = 30.0  # the rate at which a scene moves naturally
SIZE_RANGE_PX = (12.5, 80.0)  # an object's extent in a picture 320 wide; log-uniform: three in ten are under 24
MAX_TILT = 0.4  # radians; what is wholly turned over is another shape to a small model
LANES = 7  # a scene's objects follow one another in so many lanes


@dataclass(frozen=True, slots=True)
class Truth:
    """What is to be seen in a picture, one row an object, nearest last.

    Attributes:
        boxes_xyxy: float32 ``[N, 4]``, the visible extent in pixels, clipped to the picture.
        labels: int64 ``[N]``, indices into `LABELS`.
        ids: int64 ``[N]``, the same for one object in all frames of a scene.
        mask: uint8 ``[H, W]``; 0 background, ``row + 1`` an object, `HIDDEN` an object that has no row because less
            than `MIN_VISIBLE_SHARE` of it is visible.
    """

    boxes_xyxy: NDArray[np.float32]
    labels: NDArray[np.int64]
    ids: NDArray[np.int64]
    mask: NDArray[np.uint8]


class Scene:
    """A video without end: objects enter, move along curves for some seconds, turn, and leave.

    ``render`` gives the same bytes for the same constructor arguments and index, whatever was rendered before.
    Not for several threads at once.
    """

    def __init__(self, width: int, height: int, seed: int, fps: float = FPS) -> None:
        self._size_wh = (width, height)
        self._seed = seed
        self._fps = fps
        rng = np.random.default_rng((seed, _STREAM_SCENE))
        self._lane_period_s = rng.uniform(7.0, 13.0, LANES)
        self._lane_offset_s = rng.uniform(0.0, 13.0, LANES)
        self._backdrop = Backdrop.random(rng, width, height)
        self._journeys: dict[int, tuple[int, _Journey]] = {}  # each lane's latest turn and journey

    def render(self, index: int) -> tuple[NDArray[np.uint8], Truth]:
        """The frame ``index`` (from 0): uint8 ``[H, W, 3]`` BGR, and its truth."""
        things, ids = [], []
        for lane in range(LANES):
            turns = (index / self._fps + self._lane_offset_s[lane]) / self._lane_period_s[lane]
            turn = int(turns)
            things.append(self._journey(lane, turn).at(turns - turn))
            ids.append(1 + turn * LANES + lane)
        return _draw(self._backdrop, things, ids, frame_index=index)

    def _journey(self, lane: int, turn: int) -> _Journey:
        latest = self._journeys.get(lane)
        if latest is None or latest[0] != turn:
            rng = np.random.default_rng((self._seed, _STREAM_JOURNEY, lane, turn))
            latest = self._journeys[lane] = (turn, _Journey.random(rng, self._backdrop, self._size_wh))
        return latest[1]


def random_picture(
    seed: int, width: int = 320, height: int = 192, most_objects: int = 9
) -> tuple[NDArray[np.uint8], Truth]:
    """A picture on its own: uint8 ``[H, W, 3]`` BGR, and its truth (nothing is `HIDDEN`)."""
    rng = np.random.default_rng((seed, _STREAM_PICTURE))
    backdrop = Backdrop.random(rng, width, height)
    things = [_Thing.random(rng, backdrop, (width, height)) for _ in range(rng.integers(0, most_objects + 1))]
    things = _without_hidden(things, (width, height))
    image, truth = _draw(backdrop, things, list(range(1, len(things) + 1)), frame_index=0)
    blur_px = rng.uniform(-0.7, 0.7) * width / 320
    if blur_px > 0:  # half of the lenses are sharp
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), blur_px), np.uint8)
    return image, truth


_STREAM_SCENE, _STREAM_JOURNEY, _STREAM_PICTURE = range(3)  # keep the random streams of one seed apart
_SUBPIXEL_BITS = 4


@dataclass(frozen=True, slots=True)
class _Thing:
    """An object at a moment: position and diameter in pixels, rotation in radians, colour without light."""

    label: int
    centre_xy: tuple[float, float]
    diameter_px: float
    rotation: float
    colour_bgr: NDArray[np.float32]
    texture_share: float

    @classmethod
    def random(cls, rng: np.random.Generator, backdrop: Backdrop, size_wh: tuple[int, int]) -> _Thing:
        width, height = size_wh
        smallest_px, largest_px = SIZE_RANGE_PX
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        return cls(
            label=int(rng.integers(len(LABELS))),
            centre_xy=(x, y),
            diameter_px=smallest_px * (largest_px / smallest_px) ** rng.uniform() * width / 320,
            rotation=rng.uniform(-MAX_TILT, MAX_TILT),
            colour_bgr=_contrasting_colour(rng, backdrop.surface[int(y), int(x)]),
            texture_share=rng.uniform(0, 1),
        )


@dataclass(frozen=True, slots=True)
class _Journey:
    """One object's way through a scene: a quadratic Bezier curve from outside to outside."""

    thing: _Thing
    path_xy: NDArray[np.float64]  # [3, 2]: from, control point, to
    turns: float
    size_swing: float

    @classmethod
    def random(cls, rng: np.random.Generator, backdrop: Backdrop, size_wh: tuple[int, int]) -> _Journey:
        thing = _Thing.random(rng, backdrop, size_wh)
        angles = rng.uniform(0, 2 * np.pi) + np.array((0.0, rng.uniform(0.6, 1.4) * np.pi))
        start, end = (_outside(angle, thing.diameter_px, size_wh) for angle in angles)
        path_xy = np.stack((start, np.array(thing.centre_xy), end))
        return cls(thing, path_xy, turns=rng.uniform(-0.03, 0.03), size_swing=rng.uniform(0, 0.15))

    def at(self, progress: float) -> _Thing:
        """The object after a share of its way, 0..1."""
        weights = np.array(((1 - progress) ** 2, 2 * progress * (1 - progress), progress**2))
        x, y = weights @ self.path_xy
        return replace(
            self.thing,
            centre_xy=(float(x), float(y)),
            diameter_px=self.thing.diameter_px * (1 + self.size_swing * float(np.sin(2 * np.pi * progress))),
            rotation=self.thing.rotation + 2 * np.pi * self.turns * progress,
        )


@dataclass(frozen=True, slots=True)
class _Stamp:
    """A thing's shape on the pixel grid, cut to the picture: alpha uint8 ``[h, w]`` at rows and columns of it."""

    alpha: NDArray[np.uint8]
    rows: slice
    columns: slice
    area_px: int  # of the whole shape, what is outside included

    @classmethod
    def of(cls, thing: _Thing, size_wh: tuple[int, int]) -> _Stamp:
        cos, sin = np.cos(thing.rotation), np.sin(thing.rotation)
        outline = _OUTLINES[thing.label] @ np.array(((cos, sin), (-sin, cos))) * (thing.diameter_px / 2)
        corners_xy = outline + thing.centre_xy
        left, top = np.floor(corners_xy.min(axis=0)).astype(int) - 1
        right, bottom = np.ceil(corners_xy.max(axis=0)).astype(int) + 2
        # Pixel centres lie at integers for OpenCV, at halves for boxes.
        points = np.rint((corners_xy - (left + 0.5, top + 0.5)) * 2**_SUBPIXEL_BITS).astype(np.int32)
        alpha = np.zeros((bottom - top, right - left), np.uint8)
        cv2.fillPoly(alpha, [points], 255.0, cv2.LINE_AA, _SUBPIXEL_BITS)
        area_px = int(np.count_nonzero(alpha >= 128))
        width, height = size_wh
        inside_x, inside_y = np.clip((left, right), 0, width), np.clip((top, bottom), 0, height)
        cut = alpha[inside_y[0] - top : inside_y[1] - top, inside_x[0] - left : inside_x[1] - left]
        return cls(cut, slice(*inside_y.tolist()), slice(*inside_x.tolist()), area_px)


def _draw(
    backdrop: Backdrop, things: list[_Thing], ids: list[int], frame_index: int
) -> tuple[NDArray[np.uint8], Truth]:
    """Paint the things over the backdrop, the nearest last, and the noise over all."""
    height, width = backdrop.lit.shape[:2]
    image, mask = backdrop.lit.copy(), np.zeros((height, width), np.uint8)
    stamps = [_Stamp.of(thing, (width, height)) for thing in things]
    for number, (thing, stamp) in enumerate(zip(things, stamps, strict=True), start=1):
        if stamp.alpha.size:
            _paint(image, backdrop, thing, stamp)
            mask[stamp.rows, stamp.columns][stamp.alpha >= 128] = number
    # Any two neighbouring frames see other noise, and so do all within a second.
    x, y = frame_index * 7 % NOISE_MARGIN, frame_index * 11 // 3 % NOISE_MARGIN
    cv2.add(image, backdrop.noise[y : y + height, x : x + width], dst=image)
    return image, _truth(mask, stamps, np.array([thing.label for thing in things], np.int64), np.array(ids, np.int64))


def _paint(image: NDArray[np.uint8], backdrop: Backdrop, thing: _Thing, stamp: _Stamp) -> None:
    region = (stamp.rows, stamp.columns)
    colour = thing.colour_bgr + backdrop.texture[region] * thing.texture_share
    lit = np.clip(colour * backdrop.light[region] - backdrop.noise_offset, 0, 255)
    under = image[region]
    under[:] = under + (lit - under) * (stamp.alpha[:, :, None] * np.float32(1 / 255)) + np.float32(0.5)


def _truth(mask: NDArray[np.uint8], stamps: list[_Stamp], labels: NDArray[np.int64], ids: NDArray[np.int64]) -> Truth:
    rows: list[int] = []
    boxes: list[tuple[int, int, int, int]] = []
    row_of = np.full(256, HIDDEN, np.uint8)
    row_of[0] = 0
    for index, stamp in enumerate(stamps):
        seen = (mask[stamp.rows, stamp.columns] == index + 1).view(np.uint8)
        seen_px = int(np.count_nonzero(seen))
        if seen_px and seen_px >= MIN_VISIBLE_SHARE * stamp.area_px:
            x, y, width, height = cv2.boundingRect(seen)
            left, top = x + stamp.columns.start, y + stamp.rows.start
            rows.append(index)
            boxes.append((left, top, left + width, top + height))
            row_of[index + 1] = len(rows)
    if len(rows) < len(stamps):
        mask = np.asarray(cv2.LUT(mask, row_of), np.uint8)
    return Truth(np.array(boxes, np.float32).reshape(-1, 4), labels[rows], ids[rows], mask)


def _without_hidden(things: list[_Thing], size_wh: tuple[int, int]) -> list[_Thing]:
    """The things of which enough would be visible if only they were drawn."""
    taken = np.zeros(size_wh[::-1], bool)
    kept = []
    for thing in reversed(things):
        stamp = _Stamp.of(thing, size_wh)
        there = taken[stamp.rows, stamp.columns]
        solid = stamp.alpha >= 128
        if np.count_nonzero(solid & ~there) >= MIN_VISIBLE_SHARE * stamp.area_px:
            there |= solid
            kept.append(thing)
    return kept[::-1]


def _contrasting_colour(rng: np.random.Generator, under_bgr: NDArray[np.float32]) -> NDArray[np.float32]:
    """A colour at a log-uniform distance from the one beneath it."""
    distance = 34.0 * (160 / 34) ** rng.uniform()
    direction = rng.standard_normal(3) + rng.uniform(-1.5, 1.5)  # more often lighter or darker than another hue
    step = distance * direction / np.linalg.norm(direction)
    candidates = [np.clip(under_bgr + sign * step, 5, 250) for sign in (1, -1)]
    return np.asarray(max(candidates, key=lambda colour: float(np.linalg.norm(colour - under_bgr))), np.float32)


def _outside(angle: float, diameter_px: float, size_wh: tuple[int, int]) -> NDArray[np.float64]:
    """A point just outside the picture in a direction from its middle."""
    half_wh = np.array(size_wh) / 2
    direction = np.array((np.cos(angle), np.sin(angle)))
    reach = np.min((half_wh + diameter_px * 0.8) / np.maximum(np.abs(direction), 1e-9))
    return np.asarray(half_wh + direction * reach, np.float64)


def _ring(radii: tuple[float, ...], corners: int) -> NDArray[np.float64]:
    """Corners around the origin at radii that repeat: float64 ``[corners, 2]``."""
    angles = np.arange(corners) * (2 * np.pi / corners)
    corners_xy = np.stack((np.cos(angles), np.sin(angles)), axis=1)
    return np.asarray(corners_xy * np.resize(radii, corners)[:, None], np.float64)


_CROSS_ARMS = ((3, 1), (1, 1), (1, 3), (1, 3), (1, 1), (3, 1)) * 2  # of a bar a third as wide as it is long

# Outlines of about equal extent, in the order of LABELS, for a diameter of 2.
_OUTLINES = (
    _ring((0.95,), 48),
    _ring((1.1,), 4),
    _ring((1.15,), 3),
    _ring((1.05, 0.46), 10),
    np.repeat(((1, 1), (-1, 1), (-1, -1), (1, -1)), 3, axis=0) * (np.array(_CROSS_ARMS) * 0.32),
)
