from __future__ import annotations

import numpy as np
import pytest

from agent.camera.synthetic import SyntheticCamera
from agent.config import CameraConfig
from agent.demo.scenes import Scene
from agent.errors import CameraError


class SteppedClock:
    """A clock that a wait moves on; rendering takes no time unless a test adds some."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.waits_s: list[float] = []
        self.interrupted = False

    def monotonic_s(self) -> float:
        return self.now_s

    def unix_ms(self) -> int:
        return 1_700_000_000_000 + round(self.now_s * 1000)

    def wait(self, duration_s: float) -> bool:
        if not self.interrupted:
            self.waits_s.append(duration_s)
            self.now_s += max(0.0, duration_s)
        return self.interrupted

    def interrupt(self) -> None:
        self.interrupted = True


def camera(clock: SteppedClock, pace: str, fps: float = 10.0) -> SyntheticCamera:
    config = CameraConfig.model_validate(
        {"id": "c", "engine": "synthetic", "pace": pace, "width": 64, "height": 48, "fps": fps, "seed": 3}
    )
    return SyntheticCamera(config, clock)


def test_a_native_camera_keeps_the_rate() -> None:
    clock = SteppedClock()
    source = camera(clock, "native")
    source.open()
    frames = [source.read() for _ in range(4)]
    times = [frame.captured_monotonic_s for frame in frames if frame]
    assert times == pytest.approx([100.0, 100.1, 100.2, 100.3])
    assert [frame.stream_time_s for frame in frames if frame] == pytest.approx([0.0, 0.1, 0.2, 0.3])
    assert [frame.captured_at_ms for frame in frames if frame] == [1_700_000_000_000 + round(t * 1000) for t in times]


@pytest.mark.parametrize("pace", ["max", "lockstep"])
def test_the_other_paces_give_every_frame_at_once_on_the_scene_clock(pace: str) -> None:
    clock = SteppedClock()
    source = camera(clock, pace)
    source.open()
    frames = [source.read() for _ in range(3)]
    assert clock.waits_s == []
    assert [frame.stream_time_s for frame in frames if frame] == pytest.approx([0.0, 0.1, 0.2])
    scene = Scene(64, 48, 3, fps=10.0)
    for index, frame in enumerate(frames):
        assert frame is not None
        assert (frame.camera_id, frame.id) == ("c", index + 1)
        np.testing.assert_array_equal(frame.image_bgr, scene.render(index)[0])


def test_a_frame_cannot_be_written_to_and_is_not_reused() -> None:
    source = camera(SteppedClock(), "max")
    source.open()
    first, second = source.read(), source.read()
    assert first is not None
    assert second is not None
    assert not np.shares_memory(first.image_bgr, second.image_bgr)
    with pytest.raises(ValueError, match="read-only"):
        first.image_bgr[0, 0, 0] = 1


def test_after_a_reopening_ids_and_stream_times_go_on() -> None:
    source = camera(SteppedClock(), "lockstep")
    source.open()
    source.read()
    source.close()
    source.open()
    frame = source.read()
    assert frame is not None
    assert frame.id == 2
    assert frame.stream_time_s == pytest.approx(0.1)


def test_an_interrupted_clock_ends_the_wait_for_a_frame() -> None:
    clock = SteppedClock()
    source = camera(clock, "native")
    source.open()
    source.read()
    clock.interrupt()
    source.read()
    assert clock.waits_s == []


def test_reading_a_closed_camera_is_refused() -> None:
    source = camera(SteppedClock(), "max")
    source.close()
    with pytest.raises(CameraError, match=r"'c'.*open"):
        source.read()


def test_the_default_picture_is_640_by_384() -> None:
    source = SyntheticCamera(CameraConfig(id="c", engine="synthetic", pace="max"), SteppedClock())
    source.open()
    frame = source.read()
    assert frame is not None
    assert frame.image_bgr.shape == (384, 640, 3)
