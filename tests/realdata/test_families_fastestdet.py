"""FastestDet as published: its detections from the canonical float file, on real pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the build extra")

from agent.model.manifest import Tolerances
from agent.model.matcher import compare_outputs
from build_models.graph.model_io import describe, outputs_of, run_model
from tests.realdata.compiling import Compiled, compile_model

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

pytestmark = [pytest.mark.realdata, pytest.mark.build]

SIDE, PICTURES = 352, 12
TOLERANCES = Tolerances(score_floor=0.05, score=1e-3, box_px=0.05)  # the design's, for float


def fastestdet(folder: Path, **changes: Any) -> Compiled:
    return compile_model(
        {
            "source": {"kind": "onnx", "path": str(folder / "det-fastestdet" / "FastestDet.onnx")},
            "input": changes,
            "output": {"family": "fastestdet"},
            "labels": "coco",
        }
    )


@pytest.fixture(scope="module")
def compiled(realdata: Path) -> Compiled:
    return fastestdet(realdata)


@pytest.fixture(scope="module")
def frames(realdata: Path) -> list[NDArray[np.uint8]]:
    paths = sorted((realdata / "data-coco-mini" / "images" / "val2017").glob("*.jpg"))[:PICTURES]
    return [np.asarray(cv2.imread(str(path)), np.uint8) for path in paths]


def published(compiled: Compiled, frame: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
    """The authors' way, written for this test: cv2.resize, BGR / 255, a loop over the cells, 300 best."""
    picture = cv2.resize(frame, (SIDE, SIDE)).astype(np.float32) / 255
    (raw,) = run_model(compiled.source, {"input.1": picture.transpose(2, 0, 1)[None]}).values()
    found = []
    _, _, height, width = raw.shape
    for y in range(height):
        for x in range(width):
            cell = raw[0, :, y, x].astype(np.float64)
            label = int(cell[5:].argmax())
            centre_x, centre_y = (x + np.tanh(cell[1])) / width, (y + np.tanh(cell[2])) / height
            half_w, half_h = (0.5 / (1 + np.exp(-side)) for side in cell[3:5])
            box = [centre_x - half_w, centre_y - half_h, centre_x + half_w, centre_y + half_h]
            found.append((cell[0] ** 0.6 * cell[5 + label] ** 0.4, label, [side * SIDE for side in box]))
    found.sort(key=lambda entry: -entry[0])
    scores, labels, boxes = zip(*found[:300], strict=True)
    return {
        "boxes": np.array([boxes], np.float32),
        "scores": np.array([scores], np.float32),
        "labels": np.array([labels], np.int64),
    }


def test_what_the_export_left_to_do_is_found(compiled: Compiled) -> None:
    assert describe(outputs_of(compiled.model)) == "boxes float32[1,300,4], scores float32[1,300], labels int64[1,300]"
    assert compiled.native.rule == "folded"
    assert (compiled.head.classes, compiled.head.anchors) == (80, 22 * 22)
    assert "box activation tanh_sigmoid" in compiled.head.rule


def test_the_canonical_graph_sees_what_the_authors_code_sees(
    compiled: Compiled, frames: list[NDArray[np.uint8]]
) -> None:
    seen = 0
    for frame in frames:
        expected = published(compiled, frame)
        verdict = compare_outputs("detect", expected, compiled.see(frame)[0], TOLERANCES)
        assert verdict.ok, verdict.reason
        seen += int((expected["scores"] > 0.6).sum())
    assert seen > PICTURES  # the pictures show something


def test_exchanged_colours_another_picture_or_another_activation_do_not_match(
    realdata: Path, compiled: Compiled, frames: list[NDArray[np.uint8]]
) -> None:
    expected = published(compiled, frames[0])
    exchanged, _ = fastestdet(realdata, color="rgb").see(frames[0])
    assert not compare_outputs("detect", expected, exchanged, TOLERANCES).ok
    assert not compare_outputs("detect", expected, compiled.see(frames[1])[0], TOLERANCES).ok
    raw = run_model(
        compiled.source, {"input.1": compiled.session.input_image.transpose(2, 0, 1)[None].astype(np.float32) / 255}
    )
    done = compiled.head.family.model_copy(update={"box_activation": "none"})
    wrong = done.reference(raw, (SIDE, SIDE))
    assert not compare_outputs("detect", wrong, compiled.see(frames[1])[0], TOLERANCES).ok
