"""Published classifiers through the canonical float file: top-1 on their own test pictures is the published figure."""

from __future__ import annotations

import gzip
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the build extra")

from build_models.graph.model_io import describe, inputs_of, outputs_of, run_model, with_outputs
from tests.realdata.compiling import Compiled, compile_model

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray

pytestmark = [pytest.mark.realdata, pytest.mark.build]

IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
CIFAR = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def top_1(compiled: Compiled, examples: Iterable[tuple[NDArray[np.uint8], int]]) -> float:
    return float(np.mean([compiled.see(frame)[0]["scores"].argmax() == label for frame, label in examples]))


@lru_cache(maxsize=1)
def cifar(folder: Path) -> list[tuple[NDArray[np.uint8], int]]:
    """The 1,000 JPEG pictures, as OpenCV reads them."""
    return [
        (np.asarray(cv2.imread(str(path)), np.uint8), label)
        for label, name in enumerate(CIFAR)
        for path in sorted((folder / "data-cifar10-jpg" / name).glob("*.jpg"))
    ]


@lru_cache(maxsize=1)
def digits(folder: Path) -> list[tuple[NDArray[np.uint8], int]]:
    """The 10,000 test digits as a grey camera's frames, uint8 BGR."""
    files = [
        gzip.decompress(next((folder / "data-mnist-test").glob(f"*{kind}*.gz")).read_bytes()) for kind in ["im", "lab"]
    ]
    images = np.frombuffer(files[0], np.uint8, offset=16).reshape(-1, 28, 28)
    labels = np.frombuffer(files[1], np.uint8, offset=8)
    return [(np.repeat(image[..., None], 3, axis=2), int(label)) for image, label in zip(images, labels, strict=True)]


def mnist(folder: Path, **changes: Any) -> Compiled:
    return compile_model(
        {
            "source": {"kind": "onnx", "path": str(folder / "cls-mnist" / "mnist.onnx")},
            "input": {"color": "gray", "scale": 1, "resize": "stretch", **changes},
            "output": {"family": "logits"},
            "labels": [str(digit) for digit in range(10)],
        }
    )


def resnet(folder: Path, source: dict[str, Any], **changes: Any) -> Compiled:
    return compile_model(
        {
            "source": source,
            "input": {"height": 32, "width": 32, "resize": "stretch", **IMAGENET, **changes},
            "output": {"family": "logits"},
            "labels": CIFAR,
        }
    )


def test_mnist_reads_the_digits_of_a_grey_camera(realdata: Path) -> None:
    """One channel, opset 8: 0.9891 of 10,000, as published; another range of pixels reads far fewer."""
    compiled = mnist(realdata)

    assert compiled.native.rule == "folded"
    assert describe(inputs_of(compiled.model)) == "image uint8[1,28,28,3]"
    assert top_1(compiled, digits(realdata)) == pytest.approx(0.9891, abs=1e-4)
    assert top_1(mnist(realdata, scale="1/255", mean=1.0), digits(realdata)[:1000]) < 0.7


def test_the_colours_of_a_grey_source_count_by_their_luma(realdata: Path) -> None:
    """A blue digit is a dark grey one, not one as bright as its blue."""
    compiled = mnist(realdata)
    (source,), (raw,) = inputs_of(compiled.source), compiled.head.raw_tensors.values()
    network = with_outputs(compiled.model, [raw])
    digit = digits(realdata)[0][0][..., 0]
    blue, bright = np.zeros((1, 28, 28, 3), np.uint8), np.repeat(digit[None, ..., None], 3, axis=3)
    blue[..., 0] = digit

    (expected,) = run_model(compiled.source, {source.name: digit[None, None] * np.float32(0.114)}).values()

    scale = float(np.abs(expected).max())
    assert np.abs(run_model(network, {"image": blue})[raw] - expected).max() < 1e-5 * scale
    assert np.abs(run_model(network, {"image": bright})[raw] - expected).max() > 0.5 * scale


def test_resnet_20_from_onnx_has_its_published_accuracy(realdata: Path) -> None:
    """A dynamic batch becomes one; red for blue costs."""
    path = realdata / "cls-resnet-cifar10" / "resnet20_cifar10.onnx"
    source = {"kind": "onnx", "path": str(path)}
    compiled = resnet(realdata, source)

    assert describe(outputs_of(compiled.source)) == "logits float32[1,10]"
    assert top_1(compiled, cifar(realdata)) == pytest.approx(0.795, abs=1e-6)
    assert top_1(resnet(realdata, source, color="bgr"), cifar(realdata)) < 0.75


@pytest.mark.torch
def test_resnet_20_from_its_checkpoint_says_what_the_onnx_file_says(realdata: Path) -> None:
    """The weights as they were saved: under a key, with the prefix of DataParallel."""
    pytest.importorskip("torch", reason="needs the torch extra")
    folder = realdata / "cls-resnet-cifar10"
    source = {
        "kind": "torch",
        "callable": "tests.support.resnet_cifar:ResNet20",
        "weights": str(folder / "resnet20-12fca82f.th"),
        "outputs": ["logits"],
    }
    compiled = resnet(realdata, source)
    other = resnet(realdata, {"kind": "onnx", "path": str(folder / "resnet20_cifar10.onnx")})

    assert top_1(compiled, cifar(realdata)) == pytest.approx(0.795, abs=1e-6)
    frame = cifar(realdata)[0][0]
    np.testing.assert_allclose(compiled.see(frame)[0]["scores"], other.see(frame)[0]["scores"], atol=1e-5)


def test_an_imagenet_classifier_with_a_background_class_imports(realdata: Path) -> None:
    path = realdata / "cls-mobilenetv1-025-imagenet" / "mobilenet_v1_025_128_fp32.onnx"
    compiled = compile_model(
        {
            "source": {"kind": "onnx", "path": str(path)},
            "input": {"scale": "1/127.5", "mean": 1, "resize": "center_crop"},
            "output": {"family": "logits"},
            "labels": [str(index) for index in range(1001)],
        }
    )

    scores = compiled.see(cifar(realdata)[0][0])[0]["scores"]

    assert scores.shape == (1, 1001)
    assert scores.sum() == pytest.approx(1, abs=1e-4)
