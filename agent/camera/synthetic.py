"""A camera without hardware: it plays a procedural scene."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.camera.pace import Pacer
from agent.demo.scenes import FPS, Scene
from agent.errors import CameraError
from agent.frame import Frame

if TYPE_CHECKING:
    from agent.clock import Clock
    from agent.config import CameraConfig

DEFAULT_SIZE_WH = (640, 384)


class SyntheticCamera:
    """Plays the scene of ``config.seed``, which has no end; a reopened camera goes on where it was.

    Its clock is the scene's, so the events are the same at any pace.
    """

    def __init__(self, config: CameraConfig, clock: Clock) -> None:
        self._config = config
        self._clock = clock
        self._pacer = Pacer(clock) if config.pace == "native" else None
        self._fps = config.fps or FPS
        self._scene: Scene | None = None
        self._captured = 0

    def open(self) -> None:
        """Draw what stands still in the scene."""
        width, height = self._config.width or DEFAULT_SIZE_WH[0], self._config.height or DEFAULT_SIZE_WH[1]
        self._scene = Scene(width, height, self._config.seed, self._fps)

    def read(self) -> Frame | None:
        """The next frame, when it is due.

        Raises:
            CameraError: the camera is not open.
        """
        if self._scene is None:
            raise CameraError(f"camera {self._config.id!r}: expected an open scene, found none; open before reading")
        stream_time_s = self._captured / self._fps
        image_bgr, _ = self._scene.render(self._captured)
        image_bgr.setflags(write=False)
        if self._pacer is not None:
            self._pacer.wait_until_due(stream_time_s)
        self._captured += 1
        return Frame(
            camera_id=self._config.id,
            id=self._captured,
            image_bgr=image_bgr,
            captured_monotonic_s=self._clock.monotonic_s(),
            captured_at_ms=self._clock.unix_ms(),
            stream_time_s=stream_time_s,
        )

    def close(self) -> None:
        """Let the scene go; harmless when it is not open."""
        self._scene = None
