"""A float model small enough to know what it must find, with pictures that show it: what builds are tested with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

SIDE = 64
CELL = 8
MEAN, STD = [0.4, 0.5, 0.6], [0.25, 0.25, 0.25]
LABELS = ["red", "green", "blue"]
_FEATURES = 16


def spot_detector(opset: int = 17, outlier: float = 1.0, *, normalised: bool = True) -> ModelProto:
    """Finds cells of strong colour: an ``anchor_free`` head of stride 8 behind three padded convolutions.

    Args:
        opset: of the file.
        outlier: how far one channel exceeds the others; the float result stays, one int8 scale for all drowns them.
        normalised: whether the input is; else it is plain RGB 0..1.
    """
    rng = np.random.default_rng(3)
    own = np.eye(3) * 1.5 - 0.5  # a colour minus half of the two others
    first = _averaging(own, 3, rng)
    threshold = np.full(3, 1.0)
    if not normalised:
        threshold += own @ (np.array(MEAN) / STD)
        first /= np.array(STD)[:, None, None]
    first[-1] *= outlier
    second = _averaging(np.eye(3), _FEATURES, rng)
    second[:, -1] /= outlier
    constants = {
        "w1": first,
        "b1": np.r_[-threshold, np.zeros(_FEATURES - 3)],
        "w2": second,
        "w3": _averaging(np.eye(3), _FEATURES, rng),
        "w_logits": np.eye(3, _FEATURES)[:, :, None, None] * 4,
        "b_logits": np.full(3, -7.0),
        "w_ltrb": rng.standard_normal((4, _FEATURES, 1, 1)) / 20,
    }
    nodes = []
    tensor = "x"
    for name, inputs in (("1", ["w1", "b1"]), ("2", ["w2"]), ("3", ["w3"])):
        nodes.append(helper.make_node("Conv", [tensor, *inputs], [f"conv{name}"], pads=[1] * 4, strides=[2, 2]))
        nodes.append(helper.make_node("Relu", [f"conv{name}"], [f"relu{name}"]))
        tensor = f"relu{name}"
    nodes.append(helper.make_node("Conv", [tensor, "w_logits", "b_logits"], ["logits"]))
    nodes.append(helper.make_node("Conv", [tensor, "w_ltrb"], ["ltrb"]))
    cells = SIDE // CELL
    graph = helper.make_graph(
        nodes,
        "spots",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, SIDE, SIDE])],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 3, cells, cells]),
            helper.make_tensor_value_info("ltrb", TensorProto.FLOAT, [1, 4, cells, cells]),
        ],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def spot_picture(seed: int) -> NDArray[np.uint8]:
    """One to three coloured squares of 16 pixels on dark noise, uint8 ``[64, 64, 3]`` BGR."""
    rng = np.random.default_rng(seed)
    picture = rng.integers(0, 30, (SIDE, SIDE, 3)).astype(np.uint8)
    for corner in rng.permutation(9)[: rng.integers(1, 4)]:
        y, x = (CELL * (2 * place + 1) for place in divmod(int(corner), 3))
        picture[y : y + 16, x : x + 16, rng.integers(3)] = rng.integers(200, 256, (16, 16))
    return picture


def write_pictures(folder: Path, count: int) -> Path:
    """A folder with ``count`` different `spot_picture` files; returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(count):
        cv2.imwrite(str(folder / f"{seed}.png"), spot_picture(seed))
    return folder


def write_noise(folder: Path, count: int) -> Path:
    """A folder with ``count`` pictures of the noise of a covered camera, no good to calibrate with; returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(count):
        rng = np.random.default_rng(1000 + seed)
        highest = rng.permutation([15, 30, 45])
        noise = rng.integers(0, highest, (SIDE, SIDE, 3)).astype(np.uint8)
        cv2.imwrite(str(folder / f"noise-{seed}.png"), noise)
    return folder


def spot_recipe(folder: Path, **changes: Any) -> dict[str, Any]:
    """Recipe values for ``folder/spots.onnx`` and ``folder/pictures``."""
    return {
        "name": "spots",
        "version": 3,
        "source": {"kind": "onnx", "path": str(folder / "spots.onnx")},
        "input": {"mean": MEAN, "std": STD},
        "output": {"family": "anchor_free"},
        "labels": LABELS,
        "data": {"train": {"format": "pictures", "path": str(folder / "pictures")}},
        **changes,
    }


def colour_classifier(outlier: float = 1.0) -> ModelProto:
    """Says which of red, green and blue is strongest on average, also where they differ by a grey level only.

    Args:
        outlier: as of `spot_detector`.
    """
    rng = np.random.default_rng(5)
    first = _averaging(np.eye(3), 3, rng)
    first[-1] *= outlier
    second = _averaging(np.eye(3), _FEATURES, rng)[:3]
    second[:, -1] /= outlier
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["conv1"], pads=[1] * 4, strides=[2, 2]),
        helper.make_node("Relu", ["conv1"], ["relu1"]),
        helper.make_node("Conv", ["relu1", "w2"], ["conv2"], pads=[1] * 4, strides=[2, 2]),
        helper.make_node("GlobalAveragePool", ["conv2"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w3"], ["logits"]),
    ]
    constants = {"w1": first, "w2": second, "w3": np.eye(3) * 20}
    graph = helper.make_graph(
        nodes,
        "colours",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 3])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def write_colours(folder: Path, count: int, *, margin: float = 3.0, clear: int = 0, seed: int = 0) -> Path:
    """Class folders with noisy pictures of each colour, which is ahead of the others; returns the folder.

    Args:
        folder: made if need be.
        count: of each colour.
        margin: most grey levels by which it is ahead.
        clear: so many of each are ahead by 30 or more instead.
        seed: other pictures.
    """
    rng = np.random.default_rng(seed)
    for label, name in enumerate(LABELS):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            means = rng.uniform(60, 190) - rng.uniform(0.2, margin, 3)
            means[label] = means.max() + (rng.uniform(30, 50) if number < clear else rng.uniform(0.2, margin))
            noise = rng.integers(-8, 9, (SIDE, SIDE, 1))  # the same of all channels, so that the means stay
            rounded = np.floor(means + rng.random((SIDE, SIDE, 1)))
            picture = (rounded + noise).clip(0, 255).astype(np.uint8)
            cv2.imwrite(str(folder / name / f"{number}.png"), picture[..., ::-1])
    return folder


def colour_recipe(folder: Path, **changes: Any) -> dict[str, Any]:
    """Recipe values for ``folder/colours.onnx`` and the class folders ``folder/train`` and ``folder/val``."""
    return {
        "name": "colours",
        "source": {"kind": "onnx", "path": str(folder / "colours.onnx")},
        "output": {"family": "logits"},
        "labels": LABELS,
        "data": {name: {"format": "class_folders", "path": str(folder / name)} for name in ("train", "val")},
        **changes,
    }


def _averaging(mixing: NDArray[np.float64], inputs: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Weights 3x3: three channels average 2x2 pixels of the first three channels, mixed; the others are noise."""
    weights: NDArray[np.float64] = rng.standard_normal((_FEATURES, inputs, 3, 3)) / np.sqrt(9 * inputs)
    weights[:3] = 0
    weights[:3, :3, 1:, 1:] = mixing[:, :, None, None] / 4
    return weights
