"""Verification: the packed files, read back from disk, must say what the source model says.

Both what the network itself computes (the raw head) and what becomes of it (the canonical outputs) are compared. The
check has negative controls: the same comparison with another picture, and with the colour channels shuffled, must
fail; a check that they pass proves nothing and stops the build.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from agent.model import golden
from agent.model.matcher import Comparison, compare_outputs
from build_models.errors import BuildError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from agent.model.manifest import Task, Tolerances
    from agent.model.session import Session
    from build_models.pictures import Picture

    Outputs = Mapping[str, NDArray[Any]]
    Network = Callable[[NDArray[np.uint8]], Outputs]

# As a share of a raw tensor's largest value. Measured on five published networks: up to 6e-5 from another order of
# additions, 6e-3 and more on the worst of eight pictures when the mean is off by one grey level.
RAW_TOLERANCE = 5e-4


@dataclass(frozen=True)
class Source:
    """The source model behind hand-written preprocessing, decoded in numpy: shares no code with the graph.

    Attributes:
        run: the raw outputs of a uint8 BGR input ``[H, W, 3]``, by the source's names.
        decode: the canonical outputs from those.
    """

    run: Network
    decode: Callable[[Outputs], Outputs]


@dataclass(frozen=True)
class Packed:
    """A file as the device will have it: its session, and the raw head inside it by the source's names."""

    session: Session
    raw: Network


def run_on(session: Session, image: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
    """The outputs for a uint8 input ``[H, W, 3]``, copied out of the session's buffers."""
    session.input_image[:] = image
    return {name: array.copy() for name, array in session.run().items()}


def verify_against_source(
    packed: Packed, source: Source, pictures: Sequence[Picture], task: Task, tolerances: Tolerances
) -> dict[str, Any]:
    """The canonical float file against the source model behind hand-written float preprocessing.

    Returns:
        A report: pictures and results compared, the largest difference, and what the controls said.

    Raises:
        BuildError: a picture does not match, nothing could be compared, or a control matches.
    """
    names, images = [picture.name for picture in pictures], [picture.input_image for picture in pictures]
    # Pictures of an infrared camera are grey, and grey hides exchanged channels.
    brightest = max(pictures, key=lambda picture: float(picture.input_image.mean()))
    names.append(f"{brightest.name}, tinted")
    images.append((brightest.input_image * np.array([1, 0.75, 0.5])).astype(np.uint8))
    raw = [source.run(image) for image in images]
    expected = [source.decode(outputs) for outputs in raw]

    def compare(index: int, image: NDArray[np.uint8]) -> tuple[Comparison, float]:
        """What the packed file says of an image against what the source says of ``images[index]``."""
        difference = _largest_difference(raw[index], packed.raw(image))
        if not difference <= RAW_TOLERANCE:
            reason = f"the raw head is off by {difference:.2g} of its largest value (limit {RAW_TOLERANCE:g})"
            return Comparison(False, reason, 0), difference
        return compare_outputs(task, expected[index], run_on(packed.session, image), tolerances), difference

    compared, largest = 0, 0.0
    for index, image in enumerate(images):
        verdict, difference = compare(index, image)
        if not verdict.ok:
            raise BuildError(f"{names[index]}: the canonical graph does not match its source: {verdict.reason}")
        compared, largest = compared + verdict.compared, max(largest, difference)
    if not compared:
        raise BuildError(
            "the source model sees nothing in the verification pictures, so nothing can be compared; "
            "give calibration pictures that show what the model detects"
        )
    controls = {
        "another picture": [*images[1:], images[0]],
        "shuffled channels": [image[..., [1, 2, 0]] for image in images],
    }
    said = {control: _must_fail(control, compare, inputs) for control, inputs in controls.items()}
    return {
        "pictures": len(pictures),
        "compared": compared,
        "raw_difference": largest,
        "controls": said,
        "tolerances": {"raw": RAW_TOLERANCE, **tolerances.model_dump()},
    }


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
    """How much a picture shows: the sum of its confident scores, or how evenly a mask is shared by classes."""
    if "mask" in outputs:
        shares = np.bincount(outputs["mask"].reshape(-1)) / outputs["mask"].size
        return float(1 - np.square(shares).sum())
    scores = outputs["scores"]
    return float(scores[scores >= 0.3].sum())


def _must_fail(
    control: str,
    compare: Callable[[int, NDArray[np.uint8]], tuple[Comparison, float]],
    images: Sequence[NDArray[np.uint8]],
) -> str:
    """Why the check fails for the first of the images that it fails for."""
    for index, image in enumerate(images):
        verdict, _ = compare(index, image)
        if not verdict.ok:
            return verdict.reason
    raise BuildError(
        f"the check against the source cannot fail: with {control} all {len(images)} pictures match too; "
        "give calibration pictures that differ more"
    )


def _largest_difference(expected: Outputs, got: Outputs) -> float:
    """As a share of the largest value of each tensor; NaN when a value is."""
    shares = [
        float(np.abs(expected[name].astype(np.float64) - have).max()) / max(float(np.abs(expected[name]).max()), 1e-6)
        for name, have in got.items()
    ]
    return float(np.max(shares))
