"""A predictor gives what its picture shows, whatever the cameras had in the same buffer before."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import agent.predict
from agent.config import DetectConfig
from agent.errors import FatalError
from agent.model.activate import ActiveModel, activate
from agent.model.session import SessionOptions
from agent.predict import Predictor
from agent.tasks import look, thresholds_of
from agent.turns import Turns
from agent.vision.resize import Resizer
from tests.support.bundles import make_bundle
from tests.support.delivery import ManualClock
from tests.support.tiny_models import detect_model, segment_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from agent.tasks import Sighting
    from tests.support.tiny_models import TinyModel

WIDE, TALL, WHOLE = (30, 90), (90, 30), (48, 64)  # sizes of frames as height and width; the models take 48 x 64


def picture(seed: int, size: tuple[int, int]) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(120, 256, (*size, 3), np.uint8)


@pytest.fixture(params=[detect_model, segment_model], ids=["detector", "segmenter"])
def make_model(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], ActiveModel]:
    """Active models of one kind that share nothing; their score or mask changes with every pixel, also of a border."""
    tiny: TinyModel = request.param()
    made = make_bundle(tmp_path, tiny=tiny)
    return lambda: activate(made.root, [made.public_key], SessionOptions())


@pytest.fixture
def detector(tmp_path: Path) -> ActiveModel:
    made = make_bundle(tmp_path, tiny=detect_model())
    return activate(made.root, [made.public_key], SessionOptions())


def predictor_of(model: ActiveModel, turns: Turns | None = None) -> Predictor:
    return Predictor(model, DetectConfig(score_threshold=0.1), turns or Turns(ManualClock().monotonic_s))


def seen_by_a_camera(model: ActiveModel, image_bgr: NDArray[np.uint8]) -> Sighting:
    manifest = model.bundle.manifest
    placement = model.resizer(image_bgr)
    thresholds = thresholds_of(manifest, DetectConfig(score_threshold=0.1))
    return look(model.session.run(), placement, manifest, thresholds)


def told(sighting: Sighting) -> object:
    """Everything that a sighting says, to compare."""
    mask = None if sighting.mask is None else sighting.mask.ids.tolist()
    return sighting.objects, dict(sighting.areas), mask


SIZES = [(WIDE, TALL), (TALL, WIDE), (WIDE, WHOLE), (WHOLE, TALL), (WIDE, WIDE)]


@pytest.mark.parametrize(("camera_size", "guest_size"), SIZES)
def test_a_guest_and_a_camera_in_turns_see_what_each_sees_alone(
    make_model: Callable[[], ActiveModel], camera_size: tuple[int, int], guest_size: tuple[int, int]
) -> None:
    shared, cameras_own, guests_own = make_model(), make_model(), make_model()
    guest, guest_alone = predictor_of(shared), predictor_of(guests_own)
    for seed in range(4):
        frame, image = picture(seed, camera_size), picture(100 + seed, guest_size)
        assert told(seen_by_a_camera(shared, frame)) == told(seen_by_a_camera(cameras_own, frame))
        np.testing.assert_array_equal(shared.session.input_image, cameras_own.session.input_image)
        assert told(guest(image).sighting) == told(guest_alone(image).sighting)
        np.testing.assert_array_equal(shared.session.input_image, guests_own.session.input_image)


def test_a_camera_whose_resizer_is_not_told_sees_a_guests_borders(
    detector: ActiveModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the test above would find: the copy alone leaves the guest's picture where the camera's border belongs."""
    frame = picture(1, WIDE)
    alone = told(seen_by_a_camera(detector, frame))
    predictor_of(detector)(picture(2, TALL))
    assert told(seen_by_a_camera(detector, frame)) == alone
    monkeypatch.setattr(Resizer, "load", lambda resizer, prepared: np.copyto(detector.session.input_image, prepared))
    predictor_of(detector)(picture(2, TALL))
    assert told(seen_by_a_camera(detector, frame)) != alone


def test_a_picture_is_resized_before_its_turn_and_read_out_within_it(
    detector: ActiveModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    happened: list[str] = []

    class ToldTurns(Turns):
        @contextmanager
        def guest(self) -> Iterator[None]:
            happened.append("turn")
            with super().guest():
                yield
            happened.append("end of turn")

    class ToldResizer(Resizer):
        def __call__(self, image_bgr: NDArray[np.uint8]) -> Any:
            happened.append("resize")
            return super().__call__(image_bgr)

        def load(self, prepared: NDArray[np.uint8]) -> None:
            happened.append("load")
            super().load(prepared)

    def told_look(*args: Any) -> Sighting:
        happened.append("look")
        return look(*args)

    monkeypatch.setattr(agent.predict, "Resizer", ToldResizer)
    monkeypatch.setattr(agent.predict, "look", told_look)
    model = ActiveModel(
        detector.bundle,
        detector.variant,
        detector.session,
        ToldResizer(detector.variant.input, detector.session.input_image),
    )
    predictor_of(model, ToldTurns(ManualClock().monotonic_s))(picture(1, WIDE))
    assert happened == ["resize", "turn", "load", "look", "end of turn"]


def test_many_threads_at_once_get_each_what_its_own_picture_shows(detector: ActiveModel) -> None:
    predictor = predictor_of(detector)
    images = [picture(seed, size) for seed, size in enumerate([WIDE, TALL, WHOLE] * 2)]
    expected = [told(predictor(image).sighting) for image in images]
    assert len({str(each) for each in expected}) == len(images)
    wrong: list[int] = []
    runs_before = predictor.runs

    def ask(number: int) -> None:
        wrong.extend(number for _ in range(30) if told(predictor(images[number]).sighting) != expected[number])

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(images))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not wrong
    assert predictor.runs - runs_before == 30 * len(images)


# --- figures


class TimedSession:
    """Takes a quarter of a second, and notes what a watchdog would see meanwhile."""

    def __init__(self, model: ActiveModel, clock: ManualClock) -> None:
        self.input_image, self.outputs = model.session.input_image, model.session.outputs
        self.seen: Callable[[], float | None] = lambda: None
        self.began_s: list[float | None] = []
        self.failure: Exception | None = None
        self._clock = clock

    def run(self) -> Mapping[str, NDArray[Any]]:
        self._clock.now_s += 0.25
        self.began_s.append(self.seen())
        if self.failure is not None:
            raise self.failure
        return self.outputs


def test_inferences_are_counted_timed_and_visible_while_under_way(detector: ActiveModel) -> None:
    clock = ManualClock()
    session = TimedSession(detector, clock)
    model = ActiveModel(detector.bundle, detector.variant, session, detector.resizer)  # type: ignore[arg-type]
    predictor = predictor_of(model, Turns(clock.monotonic_s))
    session.seen = lambda: predictor.began_s
    assert (predictor.runs, predictor.inference_total_s, predictor.began_s) == (0, 0.0, None)
    assert predictor(picture(1, WIDE)).inference_s == 0.25
    assert predictor(picture(1, WIDE)).inference_s == 0.25
    assert session.began_s == [1000.0, 1000.25]
    assert (predictor.runs, predictor.inference_total_s, predictor.began_s) == (2, 0.5, None)


def test_a_failed_inference_is_not_counted_and_no_longer_under_way(detector: ActiveModel) -> None:
    clock = ManualClock()
    session = TimedSession(detector, clock)
    model = ActiveModel(detector.bundle, detector.variant, session, detector.resizer)  # type: ignore[arg-type]
    predictor = predictor_of(model, Turns(clock.monotonic_s))
    session.failure = FatalError("inference failed")
    with pytest.raises(FatalError):
        predictor(picture(1, WIDE))
    assert (predictor.runs, predictor.inference_total_s, predictor.began_s) == (0, 0.0, None)
    session.failure = None
    predictor(picture(1, WIDE))
    assert predictor.runs == 1, "the turn was given back"
