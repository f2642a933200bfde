"""What stands still in a demo scene: a textured background, uneven light and the sensor's noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

NOISE_MARGIN = 32  # the noise tile is larger than the picture by this many pixels; each frame cuts it elsewhere


@dataclass(frozen=True, slots=True)
class Backdrop:
    """The still part of a picture; lights are multiplied, so an object dims where the background does.

    Attributes:
        surface: float32 ``[H, W, 3]``, BGR without light, about 30..220.
        texture: float32 ``[H, W, 1]``, the surface's fine structure around 0; objects carry a share of it.
        light: float32 ``[H, W, 1]``, factors around 1.
        lit: uint8 ``[H, W, 3]``, surface times light, lowered by ``noise_offset``.
        noise: uint8 ``[H + NOISE_MARGIN, W + NOISE_MARGIN, 3]``, the sensor's noise raised by ``noise_offset``.
        noise_offset: keeps the noise unsigned, so that one saturating add puts it over a frame.
    """

    surface: NDArray[np.float32]
    texture: NDArray[np.float32]
    light: NDArray[np.float32]
    lit: NDArray[np.uint8]
    noise: NDArray[np.uint8]
    noise_offset: int

    @classmethod
    def random(cls, rng: np.random.Generator, width: int, height: int) -> Backdrop:
        """Draw a backdrop; its structure keeps its size relative to a picture of 320x192."""
        scale = width / 320
        colour_bgr = (rng.uniform(60, 190) + rng.uniform(-20, 20, 3)).astype(np.float32)
        tint = _smooth_noise(rng, width, height, cell_px=rng.uniform(40, 120) * scale, channels=3)
        tint *= rng.uniform(1, 6)
        texture = _texture(rng, width, height, scale)
        surface = tint + (colour_bgr + texture)
        _draw_clutter(rng, surface, scale)
        light = _light(rng, width, height)
        sigma = rng.uniform(1.0, 8.0)
        offset = int(np.ceil(3 * sigma))
        return cls(
            surface=surface,
            texture=texture,
            light=light,
            lit=np.clip(surface * light - offset, 0, 255).astype(np.uint8),
            noise=_sensor_noise(rng, width, height, sigma, offset),
            noise_offset=offset,
        )


def _smooth_noise(
    rng: np.random.Generator, width: int, height: int, cell_px: float, channels: int = 1
) -> NDArray[np.float32]:
    """Noise of unit deviation at the nodes of a grid, interpolated: float32 ``[H, W, channels]``."""
    nodes_wh = (max(2, round(width / cell_px) + 1), max(2, round(height / cell_px) + 1))
    nodes = rng.standard_normal((nodes_wh[1], nodes_wh[0], channels), dtype=np.float32)
    return _enlarge(nodes, width, height).reshape(height, width, channels)


def _enlarge(coarse: NDArray[np.float32], width: int, height: int) -> NDArray[np.float32]:
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)


def _texture(rng: np.random.Generator, width: int, height: int, scale: float) -> NDArray[np.float32]:
    """Plaster, cloth, planks or tiles: float32 ``[H, W, 1]`` around 0."""
    texture = np.zeros((height, width, 1), np.float32)
    strength = rng.uniform(2.0, 9.0)
    for cell_px in (3, 7, 16):
        texture += _smooth_noise(rng, width, height, cell_px * scale) * (strength * rng.uniform(0.2, 1.0))
    pattern = rng.choice(("none", "stripes", "tiles"), p=(0.4, 0.3, 0.3))
    if pattern == "stripes":
        wave = np.sin(_ramp(rng, width, height, period_px=rng.uniform(6, 40) * scale))
        texture += wave * rng.uniform(2, 10)
    elif pattern == "tiles":
        angle = rng.uniform(0, np.pi)
        period_px = rng.uniform(16, 60) * scale
        for turn in (0.0, np.pi / 2):
            wave = np.cos(_ramp(rng, width, height, period_px, angle + turn))
            texture -= np.maximum(0, wave - 0.9) * 10 * rng.uniform(4, 16)  # thin dark joints
    return texture


def _ramp(
    rng: np.random.Generator, width: int, height: int, period_px: float, angle: float | None = None
) -> NDArray[np.float32]:
    """A phase in radians that grows by 2 pi every ``period_px`` along a direction: float32 ``[H, W, 1]``."""
    angle = rng.uniform(0, np.pi) if angle is None else angle
    step = 2 * np.pi / period_px
    x = np.arange(width, dtype=np.float32)[None, :, None] * np.float32(step * np.cos(angle))
    y = np.arange(height, dtype=np.float32)[:, None, None] * np.float32(step * np.sin(angle))
    return x + y + np.float32(rng.uniform(0, 2 * np.pi))


def _draw_clutter(rng: np.random.Generator, surface: NDArray[np.float32], scale: float) -> None:
    """Cables, cracks and stains, which are no objects: thin lines, and blots without an edge; changes ``surface``."""
    height, width = surface.shape[:2]
    for _ in range(rng.integers(0, 5)):
        corners = (rng.uniform(-0.1, 1.1, (rng.integers(2, 5), 2)) * (width, height)).astype(np.int32)
        colour_bgr = surface[height // 2, width // 2] + rng.uniform(-45, 45)
        thickness_px = max(1, round(rng.uniform(0.5, 2.5) * scale))
        cv2.polylines(surface, [corners], False, [float(c) for c in colour_bgr], thickness_px)
    blots = np.zeros((24, 40), np.float32)
    for _ in range(rng.integers(0, 6)):
        centre_xy = (int(rng.integers(0, 40)), int(rng.integers(0, 24)))
        cv2.circle(blots, centre_xy, int(rng.integers(1, 4)), rng.uniform(-40, 40), -1)
    blots = np.asarray(cv2.GaussianBlur(blots, (5, 5), 1.2), np.float32)
    surface += _enlarge(blots, width, height)[:, :, None]


def _light(rng: np.random.Generator, width: int, height: int) -> NDArray[np.float32]:
    """A slope, a lamp and soft shadows: float32 ``[H, W, 1]``, 0.4..1.4."""
    coarse_wh = (40, 24)
    x, y = np.meshgrid(np.linspace(-1, 1, coarse_wh[0]), np.linspace(-0.6, 0.6, coarse_wh[1]))
    angle, slope = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.3)
    lamp_x, lamp_y, lamp_size = rng.uniform(-1, 1), rng.uniform(-0.6, 0.6), rng.uniform(0.3, 1.0)
    lamp = np.exp(-((x - lamp_x) ** 2 + (y - lamp_y) ** 2) / (2 * lamp_size**2))
    light = rng.uniform(0.7, 1.0) + slope * (x * np.cos(angle) + y * np.sin(angle)) + rng.uniform(0, 0.4) * lamp
    light = light + _smooth_noise(rng, *coarse_wh, cell_px=rng.uniform(6, 14))[:, :, 0] * rng.uniform(0, 0.08)
    return np.clip(_enlarge(light.astype(np.float32), width, height), 0.4, 1.4)[:, :, None]


def _sensor_noise(rng: np.random.Generator, width: int, height: int, sigma: float, offset: int) -> NDArray[np.uint8]:
    shape = (height + NOISE_MARGIN, width + NOISE_MARGIN, 3)
    noise = rng.standard_normal(shape, dtype=np.float32)
    noise *= sigma
    noise += offset + 0.5  # 0.5: the cast truncates
    return np.clip(noise, 0, 2 * offset + 0.5, out=noise).astype(np.uint8)
