"""Verification: the packed files, read back from disk, must say what the source model says.

Each check has a negative control: outputs of another picture, and of the same picture with its colour channels
shuffled, must not match; a check that they pass proves nothing and stops the build.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from agent.model import golden
from agent.model.matcher import compare_outputs, f1_of_matched_boxes
from agent.vision.decode import Thresholds, decode_class, decode_detections
from build_models.errors import BuildError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from agent.model.manifest import Defaults, Task, Tolerances
    from agent.model.session import Session
    from build_models.pictures import Picture

    Outputs = Mapping[str, NDArray[Any]]
    Reference = Callable[[NDArray[np.uint8]], Outputs]


@dataclass(frozen=True, slots=True)
class Agreement:
    """How well a variant agrees with fp32 on pictures kept out of calibration.

    Attributes:
        measure: ``f1`` of matched boxes (detect) or ``top1`` agreement (classify).
        value: 0..1, or None when the pictures show nothing to compare.
        compared: objects of the fp32 variant, or pictures.
    """

    measure: str
    value: float | None
    compared: int


def run_on(session: Session, image: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
    """The outputs for a uint8 input ``[H, W, 3]``, copied out of the session's buffers."""
    session.input_image[:] = image
    return {name: array.copy() for name, array in session.run().items()}


def verify_against_source(
    session: Session, reference: Reference, pictures: Sequence[Picture], task: Task, tolerances: Tolerances
) -> dict[str, Any]:
    """The canonical float file against the source model behind hand-written float preprocessing.

    Returns:
        A report: pictures and results compared, and what the controls said.

    Raises:
        BuildError: a picture does not match, nothing could be compared, or a control matches.
    """
    expected = [reference(picture.input_image) for picture in pictures]
    compared = 0
    for picture, wanted in zip(pictures, expected, strict=True):
        verdict = compare_outputs(task, wanted, run_on(session, picture.input_image), tolerances)
        compared += verdict.compared
        if not verdict.ok:
            raise BuildError(f"{picture.name}: the canonical graph does not match its source: {verdict.reason}")
    if not compared:
        raise BuildError(
            "the source model sees nothing in the verification pictures, so nothing can be compared; "
            "give calibration pictures that show what the model detects"
        )
    best = int(np.argmax([_strength(wanted) for wanted in expected]))
    controls = {
        "another picture": run_on(session, _most_different(pictures, best)),
        "shuffled channels": run_on(session, pictures[best].input_image[..., [1, 2, 0]]),
    }
    said = {}
    for name, outputs in controls.items():
        verdict = compare_outputs(task, expected[best], outputs, tolerances)
        said[name] = verdict.reason
        if verdict.ok:
            raise BuildError(f"the check cannot fail: {name} matches too ({verdict.reason}); use other pictures")
    return {"pictures": len(pictures), "compared": compared, "controls": said, "tolerances": tolerances.model_dump()}


def measure_agreement(
    task: Task, reference: Session, candidate: Session, pictures: Sequence[Picture], defaults: Defaults
) -> Agreement:
    """Compare a variant with fp32 as the device would see it: after threshold and suppression."""
    if task == "classify":
        same = sum(
            decode_class(run_on(reference, picture.input_image))[0]
            == decode_class(run_on(candidate, picture.input_image))[0]
            for picture in pictures
        )
        return Agreement("top1", same / len(pictures), len(pictures))
    thresholds = Thresholds(defaults.score_threshold, defaults.iou_threshold, defaults.max_detections)
    matched = extra = missed = 0
    for picture in pictures:
        exact, rough = (
            decode_detections(run_on(session, picture.input_image), picture.placement, thresholds)
            for session in (reference, candidate)
        )
        true_positives, false_positives, false_negatives = f1_of_matched_boxes(exact, rough)
        matched, extra, missed = matched + true_positives, extra + false_positives, missed + false_negatives
    f1 = 2 * matched / (2 * matched + extra + missed) if matched + missed else None
    return Agreement("f1", f1, matched + missed)


def make_golden(session: Session, pictures: Sequence[Picture], task: Task, tolerances: Tolerances) -> bytes:
    """A golden file of the two pictures that show most and differ; raises BuildError when none do."""
    outputs = [run_on(session, picture.input_image) for picture in pictures]
    ranked = np.argsort([-_strength(result) for result in outputs], kind="stable").tolist()
    first = ranked[0]
    for second in ranked[1:]:
        if not compare_outputs(task, outputs[first], outputs[second], tolerances).ok:
            return golden.dump([(pictures[index].input_image, outputs[index]) for index in (first, second)])
    raise BuildError("no two verification pictures give different outputs, so a golden replay could not fail")


def _strength(outputs: Outputs) -> float:
    """How much a picture shows: the sum of its confident scores."""
    scores = outputs["scores"]
    return float(scores[scores >= 0.3].sum())


def _most_different(pictures: Sequence[Picture], index: int) -> NDArray[np.uint8]:
    own = pictures[index].input_image.astype(np.int16)
    distances = [float(np.abs(picture.input_image - own).mean()) for picture in pictures]
    return pictures[int(np.argmax(distances))].input_image
