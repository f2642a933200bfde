"""yolox-nano as published: from the file to the canonical graph, against the source on real pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the build extra")

from agent.errors import ConfigError
from agent.model.manifest import Tolerances
from agent.model.matcher import compare_outputs
from agent.vision.resize import Resizer
from build_models.graph.canonical_output import canonical_output
from build_models.graph.model_io import describe, inputs_of, outputs_of, run_model
from build_models.graph.native_input import native_input
from build_models.graph.portable import make_portable
from build_models.recipe_file import make_recipe
from build_models.source.load import load_source

if TYPE_CHECKING:
    from pathlib import Path

    import onnx
    from numpy.typing import NDArray

    from build_models.graph.canonical_output import CanonicalReport
    from build_models.graph.native_input import NativeInputReport
    from build_models.graph.portable import PortableReport
    from build_models.recipe import Recipe

pytestmark = [pytest.mark.realdata, pytest.mark.build]

PICTURES = 12


@dataclass(frozen=True)
class Compiled:
    recipe: Recipe
    source: onnx.ModelProto
    canonical: onnx.ModelProto
    native: NativeInputReport
    head: CanonicalReport
    portable: PortableReport


def compile_yolox(folder: Path, **output: Any) -> Compiled:
    recipe = make_recipe(
        {
            "name": "yolox-nano",
            "source": {"kind": "onnx", "path": str(folder / "det-yolox-nano" / "yolox_nano.onnx")},
            "output": {"family": "yolox", **output},
            "labels": "coco",
        }
    )
    source, _ = load_source(recipe)
    with_input, native = native_input(source, recipe.input)
    with_output, head = canonical_output(with_input, recipe.output, (native.height, native.width), recipe.labels)
    canonical, portable = make_portable(with_output, head.raw_tensors.values())
    return Compiled(recipe, source, canonical, native, head, portable)


@pytest.fixture(scope="module")
def compiled(realdata: Path) -> Compiled:
    return compile_yolox(realdata)


@pytest.fixture(scope="module")
def frames(realdata: Path) -> list[NDArray[np.uint8]]:
    """Pictures with persons, cars and the like, of many proportions."""
    paths = sorted((realdata / "data-coco-mini" / "images").rglob("*.jpg"))[:PICTURES]
    return [np.asarray(cv2.imread(str(path)), np.uint8) for path in paths]


def into_input(compiled: Compiled, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    image = np.zeros((1, 416, 416, 3), np.uint8)
    Resizer(compiled.recipe.input.spec(416, 416), image[0])(frame)
    return image


def source_detections(compiled: Compiled, image: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
    """The published way: float32 BGR 0..255 in NCHW, then a loop over the three grids (written for this test)."""
    rows = run_model(compiled.source, {"images": image.transpose(0, 3, 1, 2).astype(np.float32)})["output"][0]
    found, index = [], 0
    for stride in (8, 16, 32):
        for y in range(416 // stride):
            for x in range(416 // stride):
                row = rows[index]
                index += 1
                label = int(row[5:].argmax())
                centre_x, centre_y = (row[0] + x) * stride, (row[1] + y) * stride
                half_w, half_h = np.exp(row[2]) * stride / 2, np.exp(row[3]) * stride / 2
                box = [centre_x - half_w, centre_y - half_h, centre_x + half_w, centre_y + half_h]
                found.append((float(row[4] * row[5 + label]), label, box))
    found.sort(key=lambda entry: -entry[0])
    scores, labels, boxes = zip(*found[:300], strict=True)
    return {
        "boxes": np.array([boxes], np.float32),
        "scores": np.array([scores], np.float32),
        "labels": np.array([labels], np.int64),
    }


def test_the_graph_has_the_canonical_form(compiled: Compiled) -> None:
    assert describe(inputs_of(compiled.canonical)) == "image uint8[1,416,416,3]"
    assert (
        describe(outputs_of(compiled.canonical)) == "boxes float32[1,300,4], scores float32[1,300], labels int64[1,300]"
    )
    assert compiled.native.rule == "prologue"  # it begins with slices and a concatenation
    assert compiled.native.nodes == ("Cast", "Transpose")
    assert (compiled.head.classes, compiled.head.anchors) == (80, 3549)
    assert compiled.portable.operators["Conv"] == 113


def test_the_canonical_graph_sees_what_the_source_sees(compiled: Compiled, frames: list[NDArray[np.uint8]]) -> None:
    seen = 0
    for frame in frames:
        image = into_input(compiled, frame)
        expected = source_detections(compiled, image)

        got = run_model(compiled.canonical, {"image": image}, optimise=True)

        verdict = compare_outputs("detect", expected, got, Tolerances())
        assert verdict.ok, verdict.reason
        seen += int((expected["scores"] > 0.35).sum())
    assert seen > 2 * PICTURES  # the pictures show something


def test_another_picture_or_shuffled_channels_do_not_match(compiled: Compiled, frames: list[NDArray[np.uint8]]) -> None:
    image = into_input(compiled, frames[0])
    expected = source_detections(compiled, image)
    for wrong in (into_input(compiled, frames[1]), np.ascontiguousarray(image[..., ::-1])):
        got = run_model(compiled.canonical, {"image": wrong}, optimise=True)

        assert not compare_outputs("detect", expected, got, Tolerances()).ok


def test_the_families_reference_is_the_published_decoding(compiled: Compiled, frames: list[NDArray[np.uint8]]) -> None:
    image = into_input(compiled, frames[0])
    raw = run_model(compiled.source, {"images": image.transpose(0, 3, 1, 2).astype(np.float32)})

    reference = compiled.head.family.reference(raw, (416, 416))

    verdict = compare_outputs("detect", source_detections(compiled, image), reference, Tolerances())
    assert verdict.ok, verdict.reason


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("face-ultraface-rfb320", r"expected one output, one float32 output \[1,N,5\+classes\].*found 2: scores"),
        ("det-fastestdet", r"expected one float32 output \[1,N,5\+classes\].*found 758 float32\[1,85,22,22\]"),
        ("cls-mobilenetv1-025-imagenet", r"found logits float32\[1,1001\].*families known: logits"),
    ],
)
def test_a_real_model_of_another_family_is_refused(realdata: Path, model: str, message: str) -> None:
    path = next((realdata / model).glob("*.onnx"))
    recipe = make_recipe(
        {
            "name": "wrong",
            "source": {"kind": "onnx", "path": str(path)},
            "output": {"family": "yolox"},
            "labels": "coco",
        }
    )
    source, _ = load_source(recipe)
    with_input, native = native_input(source, recipe.input)

    with pytest.raises(ConfigError, match=message):
        canonical_output(with_input, recipe.output, (native.height, native.width), recipe.labels)
