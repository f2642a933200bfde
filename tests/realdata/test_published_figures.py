"""Models of other families, compiled and run as the device would: their published figures come out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the build extra")

from agent.vision.decode import Thresholds, decode_detections
from agent.vision.resize import Resizer
from build_models.graph.canonical_output import canonical_output
from build_models.graph.model_io import open_session
from build_models.graph.native_input import native_input
from build_models.graph.portable import make_portable
from build_models.recipe_file import make_recipe
from build_models.source.load import load_source

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

pytestmark = [pytest.mark.realdata, pytest.mark.build]

CIFAR10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def runner_of(values: dict[str, Any]) -> Callable[[NDArray[np.uint8]], tuple[dict[str, NDArray[Any]], Any]]:
    """Compile; returns what a frame gives: canonical outputs and where the frame lies in the input."""
    recipe = make_recipe({"name": "published", **values})
    source, _ = load_source(recipe)
    native, seen = native_input(source, recipe.input)
    canonical, head = canonical_output(native, recipe.output, (seen.height, seen.width), recipe.labels)
    portable, _ = make_portable(canonical, head.raw_tensors.values())
    session = open_session(portable, optimise=True)
    names = [output.name for output in session.get_outputs()]
    image = np.zeros((1, seen.height, seen.width, 3), np.uint8)
    resize = Resizer(recipe.input.spec(seen.height, seen.width), image[0])

    def run(frame: NDArray[np.uint8]) -> tuple[dict[str, NDArray[Any]], Any]:
        placement = resize(frame)
        return dict(zip(names, session.run(names, {"image": image}), strict=True)), placement

    return run


def picture(path: Path) -> NDArray[np.uint8]:
    return np.asarray(cv2.imread(str(path)), np.uint8)


def test_the_face_detector_finds_as_many_faces_as_published(realdata: Path) -> None:
    """Boxes and softmaxed scores with a background column; a padded first convolution with a mean."""
    run = runner_of(
        {
            "source": {"kind": "onnx", "path": str(next((realdata / "face-ultraface-rfb320").glob("*.onnx")))},
            "input": {"scale": "1/128", "mean": ["127/128"] * 3, "resize": "stretch"},
            "output": {"family": "boxes_scores", "box_units": "normalized", "background_index": 0},
            "labels": ["face"],
        }
    )
    counts = {}
    for path in sorted((realdata / "samples" / "faces").glob("*.jpg")):
        outputs, placement = run(picture(path))
        counts[path.stem.rpartition("_")[2]] = len(decode_detections(outputs, placement, Thresholds(0.7, 0.3, 300)))

    assert counts == {"11": 25, "15": 16, "16": 9, "24": 8}


def test_the_classifier_is_as_accurate_as_published(realdata: Path) -> None:
    """Logits, a dynamic batch, ImageNet's mean and deviation; swapped channels cost accuracy."""
    values: dict[str, Any] = {
        "source": {"kind": "onnx", "path": str(realdata / "cls-resnet-cifar10" / "resnet20_cifar10.onnx")},
        "input": {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "resize": "stretch"},
        "output": {"family": "logits"},
        "labels": CIFAR10,
    }
    run = runner_of(values)
    shuffled = runner_of({**values, "input": {**values["input"], "color": "bgr"}})
    pictures = [
        (index, picture(path))
        for index, name in enumerate(CIFAR10)
        for path in sorted((realdata / "data-cifar10-jpg" / name).glob("*.jpg"))
    ]

    def top_1(run_one: Callable[[NDArray[np.uint8]], tuple[dict[str, NDArray[Any]], Any]]) -> float:
        hits = sum(int(run_one(frame)[0]["scores"].argmax()) == label for label, frame in pictures)
        return hits / len(pictures)

    assert len(pictures) == 1000
    assert top_1(run) == pytest.approx(0.795, abs=0.002)
    assert top_1(shuffled) < 0.75
