"""One picture through an active model, for whoever asks: the frame path without cameras, tracks and events."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from agent.tasks import look, thresholds_of
from agent.vision.resize import Resizer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from agent.config import DetectConfig
    from agent.model.activate import ActiveModel
    from agent.tasks import Sighting
    from agent.turns import Turns


@dataclass(frozen=True, slots=True)
class Prediction:
    """What one picture shows, and how long ``session.run`` took."""

    sighting: Sighting
    inference_s: float


class Predictor:
    """Callable from any thread; inference takes turns with the cameras', who go first.

    A picture is resized before its turn, into a buffer of its own: large ones take longer for that than the model does.

    Args:
        model: the active model; its session and resize are the ones that the cameras use.
        detect: thresholds of the configuration.
        turns: shared by all who run models in this process.

    Attributes:
        model: the active model.
        runs: inferences that succeeded.
        inference_total_s: how long they took together, ``session.run`` alone.
        began_s: monotonic time at which the inference under way began, None while none is.

    Raises:
        ConfigError: ``detect.labels`` names a label that the bundle does not have.
    """

    def __init__(self, model: ActiveModel, detect: DetectConfig, turns: Turns) -> None:
        self.model = model
        self.runs = 0
        self.inference_total_s = 0.0
        self.began_s: float | None = None
        self._thresholds = thresholds_of(model.bundle.manifest, detect)
        self._turns = turns

    def __call__(self, image_bgr: NDArray[np.uint8], score_threshold: float | None = None) -> Prediction:
        """Run on a uint8 BGR picture ``[H, W, 3]``; ``score_threshold`` replaces the configured one.

        Raises:
            FatalError: ONNX Runtime failed on a model that it had accepted.
        """
        thresholds = self._thresholds
        if score_threshold is not None:
            thresholds = replace(thresholds, score=score_threshold)
        model = self.model
        prepared = np.empty_like(model.session.input_image)
        placement = Resizer(model.variant.input, prepared)(image_bgr)
        with self._turns.guest():
            model.resizer.load(prepared)
            inference_s = self._infer()
            # The outputs hold only until the next inference.
            sighting = look(model.session.outputs, placement, model.bundle.manifest, thresholds)
        return Prediction(sighting, inference_s)

    def _infer(self) -> float:
        """Run on what is loaded; returns how long it took."""
        self.began_s = began_s = self._turns.monotonic_s()
        try:
            self.model.session.run()
            inference_s = self._turns.monotonic_s() - began_s
        finally:
            self.began_s = None
        self.runs += 1
        self.inference_total_s += inference_s
        return inference_s
