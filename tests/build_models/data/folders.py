"""Small folders of pictures and labels for these tests, and datasets as a recipe asks for them."""

from __future__ import annotations

import json
import struct
import zlib
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
from pydantic import TypeAdapter

from build_models.data.dataset import Dataset, load_dataset
from build_models.data.formats import AnyData
from build_models.errors import RecipeError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from agent.model.manifest import Task

LABELS = ["person", "car", "dog"]
TASKS: dict[str, Task] = {"class_folders": "classify", "masks": "segment"}


def config(**values: Any) -> Any:
    """As from a recipe: plain values."""
    return TypeAdapter[Any](AnyData).validate_python(
        {k: str(v) if hasattr(v, "parts") else v for k, v in values.items()}
    )


def load(**values: Any) -> Dataset:
    return load_dataset(config(**values), LABELS, TASKS.get(values["format"], "detect"))


def problems(**values: Any) -> str:
    with pytest.raises(RecipeError) as caught:
        load(**values)
    return str(caught.value)


def by_name(dataset: Dataset) -> dict[str, Any]:
    return {sample.name: sample.truth for sample in dataset.samples}


def write_picture(path: Path, seed: int = 0, width: int = 40, height: int = 30) -> Path:
    """A small picture, another one for another seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)
    assert cv2.imwrite(str(path), pixels)
    return path


def write_text(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def voc_xml(objects: Sequence[tuple[str, Sequence[float], bool]], size: tuple[int, int] | None = (40, 30)) -> str:
    shown = f"<size><width>{size[0]}</width><height>{size[1]}</height></size>" if size else ""
    for name, corners, difficult in objects:
        box = "".join(
            f"<{tag}>{value}</{tag}>" for tag, value in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
        )
        shown += f"<object><name>{name}</name><difficult>{int(difficult)}</difficult><bndbox>{box}</bndbox></object>"
    return f"<annotation>{shown}</annotation>"


def coco_json(path: Path, **changes: Any) -> Path:
    """Two pictures, three categories whose ids are not the labels' order; changes replace whole lists."""
    document: dict[str, Any] = {
        "images": [
            {"id": 7, "file_name": "a.png", "width": 40, "height": 30},
            {"id": 9, "file_name": "b.png", "width": 40, "height": 30},
        ],
        "categories": [{"id": 18, "name": "dog"}, {"id": 1, "name": "person"}, {"id": 3, "name": "car"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 18, "bbox": [2, 3, 10, 5.5], "iscrowd": 0},
            {"id": 2, "image_id": 7, "category_id": 1, "bbox": [0, 0, 40, 30], "iscrowd": 1},
        ],
        **changes,
    }
    return write_text(path, json.dumps(document))


def write_mask(path: Path, rows: Any, bits: int = 8, palette: bool = False) -> Path:
    """A PNG written by hand: grey or with a palette, of 1 to 16 bits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ids = np.asarray(rows, np.int64)
    if bits == 16:
        packed = [row.astype(">u2").tobytes() for row in ids]
    else:
        places = ((ids[..., None] >> np.arange(bits)[::-1]) & 1).astype(np.uint8)
        packed = [np.packbits(row.ravel()).tobytes() for row in places]
    header = struct.pack(">IIBBBBB", ids.shape[1], ids.shape[0], bits, 3 if palette else 0, 0, 0, 0)
    chunks: Mapping[bytes, bytes] = {
        b"IHDR": header,
        **(
            {b"PLTE": np.random.default_rng(0).integers(0, 256, 3 << bits).astype(np.uint8).tobytes()}
            if palette
            else {}
        ),
        b"IDAT": zlib.compress(b"".join(b"\0" + row for row in packed)),
        b"IEND": b"",
    }
    framed = [
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks.items()
    ]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(framed))
    return path
