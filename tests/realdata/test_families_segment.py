"""Published segmenters through the canonical float file: their mask is the source's, and as good as published."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the build extra")

from build_models.graph.model_io import describe, outputs_of, run_model
from build_models.graph.native_input import source_input
from tests.realdata.compiling import Compiled, compile_model

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

pytestmark = [pytest.mark.realdata, pytest.mark.build]

# COCO panoptic ids of what VOC has a class for; all else is VOC's background.
VOC_BY_COCO = {
    1: 15, 2: 2, 3: 7, 4: 14, 5: 1, 6: 6, 7: 19, 9: 4, 16: 3, 17: 8, 18: 12, 19: 13, 20: 17, 21: 10, 44: 5, 62: 9,
    63: 18, 64: 16, 67: 11, 72: 20,
}  # fmt: skip
ROAD_OF_CAMVID, UNLABELLED_IN_CAMVID = 3, 11
ROAD_AND_MARKING = (1, 3)


def deeplab(folder: Path, output: dict[str, Any] | None = None, **changes: Any) -> Compiled:
    return compile_model(
        {
            "source": {"kind": "onnx", "path": str(folder / "seg-deeplabv3-voc" / "deeplab_v3_1_default_1.onnx")},
            "input": {"layout": "nhwc", "scale": "1/127.5", "mean": 1, **changes},
            "output": {"family": "segmentation", **(output or {})},
            "labels": [str(index) for index in range(21)],
        }
    )


def road(folder: Path, output: dict[str, Any] | None = None, **changes: Any) -> Compiled:
    return compile_model(
        {
            "source": {"kind": "onnx", "path": str(folder / "seg-road-adas0001" / "model_float32.onnx")},
            "input": {"layout": "nhwc", "color": "bgr", "scale": 1, **changes},
            "output": {"family": "segmentation", **(output or {})},
            "labels": ["background", "road", "curb", "marking"],
        }
    )


def on_frame(compiled: Compiled, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The mask in the frame's own size, each pixel that of the nearest place."""
    mask = compiled.see(frame)[0]["mask"][0]
    return np.asarray(cv2.resize(mask, frame.shape[1::-1], interpolation=cv2.INTER_NEAREST), np.uint8)


def coco(folder: Path) -> list[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    """Validation pictures with masks, in VOC's classes."""
    table = np.zeros(256, np.uint8)
    table[list(VOC_BY_COCO)] = list(VOC_BY_COCO.values())
    data = folder / "data-coco-mini"
    return [
        (_read(data / "images" / "val2017" / f"{path.stem}.jpg"), table[_read(path, cv2.IMREAD_UNCHANGED)])
        for path in sorted((data / "semantic_segmentation" / "masks" / "val2017").glob("*.png"))
    ]


def camvid(folder: Path) -> list[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    data = folder / "data-camvid"
    return [
        (_read(data / "val" / path.name), _read(path, cv2.IMREAD_UNCHANGED))
        for path in sorted((data / "valannot").glob("*.png"))
    ]


def _read(path: Path, flags: int = cv2.IMREAD_COLOR) -> NDArray[np.uint8]:
    return np.asarray(cv2.imread(str(path), flags), np.uint8)


def pixel_accuracy(compiled: Compiled, pictures: list[tuple[NDArray[np.uint8], NDArray[np.uint8]]]) -> float:
    same = [on_frame(compiled, frame) == wanted for frame, wanted in pictures]
    return float(sum(each.sum() for each in same) / sum(each.size for each in same))


def road_iou(compiled: Compiled, pictures: list[tuple[NDArray[np.uint8], NDArray[np.uint8]]]) -> float:
    both = either = 0
    for frame, wanted in pictures:
        known = wanted != UNLABELLED_IN_CAMVID
        seen, there = np.isin(on_frame(compiled, frame), ROAD_AND_MARKING), wanted == ROAD_OF_CAMVID
        both += int((seen & there & known).sum())
        either += int(((seen | there) & known).sum())
    return both / either


def differing(compiled: Compiled, frame: NDArray[np.uint8]) -> float:
    """Share of the mask that is not what the published file says behind float preprocessing."""
    mask = compiled.see(frame)[0]["mask"]
    picture = source_input(compiled.session.input_image[None], compiled.recipe.input)
    (scores,) = run_model(compiled.source, {compiled.source.graph.input[0].name: picture}).values()
    return float((scores.argmax(axis=3) != mask).mean())


def test_deeplabs_mask_is_its_sources(realdata: Path) -> None:
    """What was left out in front of ArgMax changes no class; exchanged colours do."""
    compiled, exchanged = deeplab(realdata), deeplab(realdata, color="bgr")
    assert describe(outputs_of(compiled.model)) == "mask uint8[1,257,257]"
    assert compiled.head.raw_tensors.keys() == {"logits/semantic/BiasAdd"}
    frames = [frame for frame, _ in coco(realdata)[:6]]
    assert max(differing(compiled, frame) for frame in frames) <= 1e-4
    assert max((on_frame(compiled, frame) != on_frame(exchanged, frame)).mean() for frame in frames) > 0.01


def test_deeplab_has_its_accuracy_on_coco(realdata: Path) -> None:
    """0.820 of all pixels of these 48 pictures (0.827 of 100 published); exchanged colours cost two points."""
    pictures = coco(realdata)
    assert len(pictures) == 48
    assert pixel_accuracy(deeplab(realdata), pictures) == pytest.approx(0.8201, abs=5e-4)
    assert pixel_accuracy(deeplab(realdata, color="bgr"), pictures) < 0.805


def test_a_coarse_mask_of_deeplab_is_as_good(realdata: Path) -> None:
    coarse = deeplab(realdata, {"coarse": True})

    assert describe(outputs_of(coarse.model)) == "mask uint8[1,33,33]"
    assert pixel_accuracy(coarse, coco(realdata)) == pytest.approx(0.8205, abs=5e-4)


def test_the_road_is_found_as_published(realdata: Path) -> None:
    """IoU 0.976 on CamVid; pixels of another range see no road."""
    compiled = road(realdata)
    frames = camvid(realdata)

    assert describe(outputs_of(compiled.model)) == "mask uint8[1,512,896]"
    assert max(differing(compiled, frame) for frame, _ in frames[:2]) <= 1e-4
    assert road_iou(compiled, frames) == pytest.approx(0.9757, abs=5e-4)
    assert road_iou(road(realdata, scale="1/255"), frames[:4]) < 0.5


def test_confidence_is_the_softmax_that_the_source_has(realdata: Path) -> None:
    compiled = road(realdata, {"confidence": True})
    frame, _ = camvid(realdata)[0]
    outputs, _ = compiled.see(frame)
    picture = source_input(compiled.session.input_image[None], compiled.recipe.input)
    (scores,) = run_model(compiled.source, {compiled.source.graph.input[0].name: picture}).values()

    assert np.abs(outputs["confidence"] - np.rint(scores.max(axis=3) * 255)).max() <= 1
    assert 0 < (outputs["confidence"] < 200).mean() < 0.2


def test_a_missing_label_is_told(realdata: Path) -> None:
    from build_models.errors import RecipeError

    with pytest.raises(RecipeError, match="labels: expected 4 names, one per class of the model, got 21"):
        compile_model(
            {
                "source": {"kind": "onnx", "path": str(realdata / "seg-road-adas0001" / "model_float32.onnx")},
                "input": {"layout": "nhwc"},
                "output": {"family": "segmentation"},
                "labels": [str(index) for index in range(21)],
            }
        )
