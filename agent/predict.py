"""One picture through an active model, for whoever asks: the frame path without cameras, tracks and events."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from agent.tasks import look, thresholds_of

if TYPE_CHECKING:
    import numpy as np
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

    Args:
        model: the active model; its session and resize are the ones that the cameras use.
        detect: thresholds of the configuration.
        turns: shared by all who run models in this process.

    Raises:
        ConfigError: ``detect.labels`` names a label that the bundle does not have.
    """

    def __init__(self, model: ActiveModel, detect: DetectConfig, turns: Turns) -> None:
        self.model = model
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
        with self._turns.guest():
            placement = model.resizer(image_bgr)
            began_s = time.perf_counter()
            outputs = model.session.run()
            inference_s = time.perf_counter() - began_s
            return Prediction(look(outputs, placement, model.bundle.manifest, thresholds), inference_s)
