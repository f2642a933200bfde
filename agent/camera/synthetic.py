"""A camera without hardware: it plays a procedural scene."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.demo.scenes import FPS, Scene
from agent.errors import CameraError
from agent.frame import Frame

if TYPE_CHECKING:
    from agent.clock import Clock
    from agent.config import CameraConfig

DEFAULT_SIZE_WH = (640, 384)


class SyntheticCamera:
    """Plays the scene of ``config.seed``; it has no end, and goes on where it was after a reopening.

    At pace ``native`` a frame is due every ``1 / fps`` seconds; frames whose time has passed while nobody read are
    skipped, as a real sensor's are. The other paces give every frame of the scene at once.
    """

    def __init__(self, config: CameraConfig, clock: Clock) -> None:
        self._config = config
        self._clock = clock
        self._fps = config.fps or FPS
        self._scene: Scene | None = None
        self._frames_read = 0
        self._next_index = 0
        self._due_s = 0.0

    def open(self) -> None:
        """Draw what stands still in the scene; its first frame is due at once."""
        width, height = self._config.width or DEFAULT_SIZE_WH[0], self._config.height or DEFAULT_SIZE_WH[1]
        self._scene = Scene(width, height, self._config.seed, self._fps)
        self._due_s = self._clock.monotonic_s()

    def read(self) -> Frame | None:
        """The next frame when it is due; None once the clock was interrupted.

        Raises:
            CameraError: the camera is not open.
        """
        if self._scene is None:
            raise CameraError(f"camera {self._config.id!r}: read before open; open the synthetic camera first")
        if self._config.pace == "native" and not self._wait_until_due():
            return None
        image_bgr, _ = self._scene.render(self._next_index)
        image_bgr.setflags(write=False)
        self._frames_read += 1
        now_s = self._clock.monotonic_s()
        frame = Frame(
            camera_id=self._config.id,
            id=self._frames_read,
            image_bgr=image_bgr,
            captured_monotonic_s=now_s,
            captured_at_ms=self._clock.unix_ms(),
            stream_time_s=now_s if self._config.pace == "native" else self._next_index / self._fps,
        )
        self._next_index += 1
        return frame

    def close(self) -> None:
        """Let the scene go; harmless when it is not open."""
        self._scene = None

    def _wait_until_due(self) -> bool:
        """Wait for the next frame's moment, skipping those that have passed; False: interrupted."""
        interval_s = 1 / self._fps
        late_s = self._clock.monotonic_s() - self._due_s
        skipped = max(0, int(late_s / interval_s))
        self._next_index += skipped
        self._due_s += skipped * interval_s
        if self._clock.wait(self._due_s - self._clock.monotonic_s()):
            return False
        self._due_s += interval_s
        return True
