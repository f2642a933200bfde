"""Models small enough to work out by hand: what each must give is written beside it in numpy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tests.support.tiny_onnx import model, node, tensor, value

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from agent.model.manifest import Task

CHANNEL_WEIGHTS = np.array([0.2, 0.3, 0.5], np.float32)  # different, so that swapped channels are noticed


@dataclass(frozen=True)
class TinyModel:
    """An ONNX file and the contract it fulfils; ``outputs_of`` gives its outputs for a uint8 ``[H, W, 3]`` input."""

    file: bytes
    task: Task
    labels: list[str]
    width: int
    height: int
    outputs_of: Callable[[NDArray[np.uint8]], dict[str, NDArray[Any]]]


def detect_model(
    width: int = 64,
    height: int = 48,
    boxes_xyxy: Sequence[Sequence[float]] = ((4, 4, 24, 24), (30, 10, 60, 40), (5, 25, 20, 45), (0, 0, 64, 48)),
    scores: Sequence[float] = (0.9, 0.8, 0.6, 0.0),
    class_ids: Sequence[int] = (0, 1, 0, 1),
    labels: Sequence[str] = ("cat", "dog"),
) -> TinyModel:
    """Detections at fixed places whose scores follow the picture's brightness: all 0 on black, ``scores`` on white."""
    boxes = np.array([boxes_xyxy], np.float32)
    classes = np.array([class_ids], np.int64)
    weights = np.outer(CHANNEL_WEIGHTS, np.array(scores, np.float32)) / np.float32(255)
    count = len(scores)
    file = model(
        [
            *_channel_means(),
            node("MatMul", ["means", "weights"], ["scores"]),
            node("Identity", ["fixed_boxes"], ["boxes"]),
            node("Identity", ["fixed_labels"], ["labels"]),
        ],
        [value("image", "uint8", [1, height, width, 3])],
        [
            value("boxes", "float32", [1, count, 4]),
            value("scores", "float32", [1, count]),
            value("labels", "int64", [1, count]),
        ],
        [tensor("weights", weights), tensor("fixed_boxes", boxes), tensor("fixed_labels", classes)],
    )

    def outputs_of(image: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        return {"boxes": boxes, "scores": _means_of(image) @ weights, "labels": classes}

    return TinyModel(file, "detect", list(labels), width, height, outputs_of)


def classify_model(
    width: int = 64, height: int = 48, labels: Sequence[str] = ("blue", "green", "red"), contrast: float = 10.0
) -> TinyModel:
    """The class of a picture is its strongest channel."""
    weights = np.eye(3, len(labels), dtype=np.float32) * np.float32(contrast / 255)
    file = model(
        [
            *_channel_means(),
            node("MatMul", ["means", "weights"], ["strengths"]),
            node("Softmax", ["strengths"], ["scores"], axis=1),
        ],
        [value("image", "uint8", [1, height, width, 3])],
        [value("scores", "float32", [1, len(labels)])],
        [tensor("weights", weights)],
    )

    def outputs_of(image: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        powers = np.exp(_means_of(image) @ weights)
        return {"scores": powers / powers.sum()}

    return TinyModel(file, "classify", list(labels), width, height, outputs_of)


def segment_model(
    width: int = 64,
    height: int = 48,
    stride: int = 8,
    labels: Sequence[str] = ("blue", "green", "red"),
    *,
    confidence: bool = False,
) -> TinyModel:
    """The class of each square of ``stride`` pixels is its strongest channel, and that channel's mean its confidence.

    Args:
        width: of the input, a multiple of ``stride``.
        height: of the input, a multiple of ``stride``.
        stride: a power of two, so that means of bytes are exact.
        labels: blue, green and red come first, whatever they are called.
        confidence: whether there is such an output.
    """
    nodes = [
        node("Cast", ["image"], ["pixels"], to=1),
        node("Transpose", ["pixels"], ["planes"], perm=[0, 3, 1, 2]),
        node("AveragePool", ["planes"], ["means"], kernel_shape=[stride, stride], strides=[stride, stride]),
        node("ArgMax", ["means"], ["classes"], axis=1, keepdims=0),
        node("Cast", ["classes"], ["mask"], to=2),
    ]
    size = [1, height // stride, width // stride]
    outputs = [value("mask", "uint8", size)]
    if confidence:
        nodes.append(node("ReduceMax", ["means"], ["strongest"], axes=[1], keepdims=0))
        nodes.append(node("Cast", ["strongest"], ["confidence"], to=2))
        outputs.append(value("confidence", "uint8", size))
    file = model(nodes, [value("image", "uint8", [1, height, width, 3])], outputs)

    def outputs_of(image: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        squares = image.reshape(size[1], stride, size[2], stride, 3)
        means = squares.mean(axis=(1, 3), dtype=np.float64)[None]
        mask = {"mask": means.argmax(axis=3).astype(np.uint8)}
        return mask | {"confidence": means.max(axis=3).astype(np.uint8)} if confidence else mask

    return TinyModel(file, "segment", list(labels), width, height, outputs_of)


def nan_model(width: int = 64, height: int = 48) -> TinyModel:
    """A detector whose scores are not numbers, though its author says otherwise."""
    broken = detect_model(width, height, scores=(float("nan"),) * 4)
    return TinyModel(broken.file, "detect", broken.labels, width, height, detect_model(width, height).outputs_of)


def _channel_means() -> list[bytes]:
    return [
        node("Cast", ["image"], ["pixels"], to=1),
        node("ReduceMean", ["pixels"], ["means"], axes=[1, 2], keepdims=0),
    ]


def _means_of(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    means: NDArray[np.float32] = image.reshape(1, -1, 3).mean(axis=1, dtype=np.float64).astype(np.float32)
    return means
