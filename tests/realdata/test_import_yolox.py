"""The command imports yolox-nano: what is packed, what is refused and why, and that the packed file is the source."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the build extra")

from agent.errors import BundleError
from agent.model.activate import ActiveModel, activate
from agent.model.manifest import Tolerances
from agent.model.matcher import compare_outputs
from agent.model.runtime import ort
from agent.model.session import SessionOptions, physical_cores
from agent.vision.decode import Thresholds, decode_detections
from agent.vision.resize import Placement, Resizer

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from tests.realdata.conftest import Built

pytestmark = [pytest.mark.realdata, pytest.mark.build]

SIDE = 416
PICTURES = 24
TOLERANCES = Tolerances(score_floor=0.05, score=1e-3, box_px=0.05)  # the design's, for float


@dataclass(frozen=True)
class Seen:
    """A picture as the source and the packed file see it."""

    name: str
    placement: Placement
    source: dict[str, NDArray[Any]]
    packed: dict[str, NDArray[Any]]
    shuffled: dict[str, NDArray[Any]]


@pytest.fixture(scope="module")
def active(yolox_bundle: Built) -> ActiveModel:
    """The fp32 variant; which one a device takes by itself depends on the device."""
    options = SessionOptions(threads=physical_cores())
    return activate(yolox_bundle.bundle, [yolox_bundle.public_key], options, "cpu-fp32")


@pytest.fixture(scope="module")
def seen(realdata: Path, active: ActiveModel) -> list[Seen]:
    """Pictures that were not used for the import, of many proportions."""
    source = ort.InferenceSession(
        str(realdata / "det-yolox-nano" / "yolox_nano.onnx"), providers=["CPUExecutionProvider"]
    )
    session = active.session
    resize = Resizer(active.variant.input, session.input_image)
    result = []
    for path in sorted((realdata / "data-coco-mini" / "images" / "val2017").glob("*.jpg"))[:PICTURES]:
        placement = resize(np.asarray(cv2.imread(str(path)), np.uint8))
        image = session.input_image.copy()
        packed = {name: array.copy() for name, array in session.run().items()}
        session.input_image[:] = image[..., [1, 2, 0]]
        shuffled = {name: array.copy() for name, array in session.run().items()}
        resize = Resizer(active.variant.input, session.input_image)  # the borders were overwritten
        result.append(Seen(path.name, placement, source_detections(source, image), packed, shuffled))
    return result


def source_detections(source: ort.InferenceSession, image: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
    """The published way, written for this test: float BGR 0..255 in NCHW, grids of 8, 16 and 32 pixels, 300 best."""
    (rows,) = source.run(None, {"images": image.astype(np.float32).transpose(2, 0, 1)[None]})[0]
    strides = np.concatenate([np.full((SIDE // stride) ** 2, stride) for stride in (8, 16, 32)])
    cells = np.concatenate(
        [np.stack(np.meshgrid(*[np.arange(SIDE // stride)] * 2), axis=-1).reshape(-1, 2) for stride in (8, 16, 32)]
    )
    centres = (rows[:, :2] + cells) * strides[:, None]
    halves = np.exp(rows[:, 2:4]) * strides[:, None] / 2
    scores = rows[:, 4] * rows[:, 5:].max(axis=1)
    best = np.argsort(-scores, kind="stable")[:300]
    boxes = np.concatenate([centres - halves, centres + halves], axis=1)
    return {
        "boxes": boxes[best][None].astype(np.float32),
        "scores": scores[best][None].astype(np.float32),
        "labels": rows[:, 5:].argmax(axis=1)[best][None],
    }


def test_what_is_packed_is_listed_and_fp32_is_last(active: ActiveModel) -> None:
    ids = [variant.id for variant in active.bundle.manifest.variants]
    assert ids[-1] == "cpu-fp32"
    files = {entry.path for entry in active.bundle.manifest.files}
    made = {path for name in ids for path in (f"models/{name}.onnx", f"golden/{name}.npz")}
    assert files == {*made, "report/report.json", "report/report.html"}


def test_int8_is_packed_within_its_budget_or_refused_with_figures(yolox_bundle: Built, active: ActiveModel) -> None:
    """Without labels: how many of fp32's own boxes it keeps. Stock static quantisation keeps hardly any."""
    report = json.loads((yolox_bundle.bundle / "report" / "report.json").read_bytes())
    told = {each["id"]: each for each in report["variants"]}
    assert told["cpu-fp32"]["refused"] is None
    int8 = {name: each for name, each in told.items() if each["precision"] == "int8"}
    assert int8
    packed = {variant.id: variant for variant in active.bundle.manifest.variants if variant.precision == "int8"}
    assert {name for name, each in int8.items() if each["refused"] is None} == packed.keys()
    for name, each in int8.items():
        if name not in packed:
            assert re.search(r"the most is 0\.05|x its speed", each["refused"]), each["refused"]
            continue
        (metric,) = packed[name].metrics
        assert metric.name == "agreement (map50)"
        assert metric.drop is not None
        assert metric.drop <= 0.05
        assert metric.interval is not None
        assert metric.interval[0] <= metric.drop <= metric.interval[1]


def test_the_manifest_has_the_models_own_input_and_labels(active: ActiveModel) -> None:
    spec = active.variant.input
    assert (spec.width, spec.height, spec.resize, spec.align, spec.pad_bgr) == (
        416,
        416,
        "letterbox",
        "top_left",
        [114] * 3,
    )
    assert (active.bundle.manifest.labels[0], len(active.bundle.manifest.labels)) == ("person", 80)


def test_the_packed_file_says_what_the_source_says(seen: list[Seen]) -> None:
    compared = 0
    for each in seen:
        verdict = compare_outputs("detect", each.source, each.packed, TOLERANCES)
        assert verdict.ok, f"{each.name}: {verdict.reason}"
        compared += verdict.compared
    assert compared > 10 * len(seen)


def test_with_shuffled_channels_it_says_something_else(seen: list[Seen]) -> None:
    alike = [each for each in seen if compare_outputs("detect", each.source, each.shuffled, TOLERANCES).ok]
    assert len(alike) <= 2  # a black-and-white photograph may be among them


def test_the_same_objects_are_found_after_thresholds_and_suppression(seen: list[Seen]) -> None:
    thresholds = Thresholds(score=0.35, iou=0.5, max_detections=100)
    found = 0
    for each in seen:
        expected, got = (
            decode_detections(outputs, each.placement, thresholds) for outputs in (each.source, each.packed)
        )
        assert expected.labels.tolist() == got.labels.tolist(), each.name
        assert np.abs(expected.boxes_xyxy - got.boxes_xyxy).max(initial=0) < 0.5
        found += len(got)
    assert found > len(seen)


def test_one_changed_byte_is_refused(yolox_bundle: Built) -> None:
    path = yolox_bundle.bundle / "models" / "cpu-fp32.onnx"
    content = path.read_bytes()
    try:
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(BundleError, match=r"models/cpu-fp32\.onnx was changed"):
            activate(yolox_bundle.bundle, [yolox_bundle.public_key], SessionOptions())
    finally:
        path.write_bytes(content)
