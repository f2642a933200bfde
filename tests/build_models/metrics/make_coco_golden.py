"""Makes ``coco_golden.json``: random scenes and what pycocotools says about them.

Run it in an environment of its own, as pycocotools is no dependency here (the file says which version it was):
``python -m venv v && v/bin/pip install pycocotools==2.0.11 && v/bin/python make_coco_golden.py``.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

# Whole pixels and few different scores: overlaps of exactly 0.5 and 0.75 and equal scores are frequent.
SCENES: dict[str, dict[str, Any]] = {
    "few classes": {"pictures": 12, "classes": 3, "objects": 6, "levels": 200, "crowds": 0.0},
    "equal scores": {"pictures": 12, "classes": 2, "objects": 6, "levels": 5, "crowds": 0.0},
    "crowds": {"pictures": 14, "classes": 3, "objects": 6, "levels": 40, "crowds": 0.3},
    "many classes": {"pictures": 20, "classes": 60, "objects": 5, "levels": 100, "crowds": 0.1},
    "more than a hundred of a class": {"pictures": 2, "classes": 1, "objects": 70, "levels": 64, "crowds": 0.02},
    "repeated pictures": {"pictures": 12, "classes": 3, "objects": 5, "levels": 4000, "crowds": 0.2, "repeat": 4},
    "one object, one step of recall": {"pictures": 1, "classes": 1, "objects": 20, "levels": 30, "crowds": 0.0},
}


def main() -> None:
    rng = np.random.default_rng(20)
    scenes = []
    for name, scene in SCENES.items():
        pictures = [random_picture(rng, scene) for _ in range(scene["pictures"])]
        weights = [int(rng.integers(scene["repeat"])) if "repeat" in scene else 1 for _ in pictures]
        scenes.append({"name": name, "weights": weights, "pictures": pictures, **judge(pictures, weights)})
    content = {"pycocotools": version("pycocotools"), "scenes": scenes}
    text = json.dumps(content, separators=(",", ":")).replace('{"name"', '\n{"name"').replace('{"truth"', '\n{"truth"')
    Path(__file__).with_name("coco_golden.json").write_text(text + "\n", encoding="utf-8")


def random_picture(rng: np.random.Generator, scene: dict[str, Any]) -> dict[str, list[list[float]]]:
    """Rows of the truth: class, x1, y1, x2, y2, crowd; rows of detections: class, x1, y1, x2, y2, score."""
    truth, detections = [], []
    for _ in range(int(rng.integers(0, 2 * scene["objects"] + 1)) if scene["pictures"] > 2 else scene["objects"]):
        label = int(rng.integers(scene["classes"]))
        x, y, w, h = (int(value) for value in (*rng.integers(0, 80, 2), *(4 * rng.integers(2, 9, 2))))
        truth.append([label, x, y, x + w, y + h, int(rng.random() < scene["crowds"])])
        for _ in range(int(rng.integers(0, 4))):
            dx, dy, dw, dh = (int(value) for value in rng.integers(-3, 4, 4) * rng.integers(0, 2))
            right = label if rng.random() < 0.9 else int(rng.integers(scene["classes"] + 1))
            corners = [x + dx, y + dy, x + dx + max(1, w + dw), y + dy + max(1, h + dh)]
            detections.append([right, *corners, score(rng, scene)])
    for _ in range(int(rng.integers(0, 5))):
        x, y, w, h = (int(value) for value in rng.integers(1, 60, 4))
        detections.append([int(rng.integers(scene["classes"] + 1)), x, y, x + w, y + h, score(rng, scene)])
    order = rng.permutation(len(detections))
    return {"truth": truth, "detections": [detections[index] for index in order]}


def score(rng: np.random.Generator, scene: dict[str, Any]) -> float:
    return float(np.float32(rng.integers(1, scene["levels"]) / scene["levels"]))


def judge(pictures: list[dict[str, list[list[float]]]], weights: list[int]) -> dict[str, float]:
    coco, cocoeval = (importlib.import_module(f"pycocotools.{name}") for name in ("coco", "cocoeval"))
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    results, classes = [], set()
    for picture, weight in zip(pictures, weights, strict=True):
        for _ in range(weight):
            image = len(images) + 1
            images.append({"id": image, "width": 200, "height": 200})
            for label, x1, y1, x2, y2, crowd in picture["truth"]:
                box = [x1, y1, x2 - x1, y2 - y1]
                entry = {"id": len(annotations) + 1, "image_id": image, "category_id": label, "bbox": box}
                annotations.append({**entry, "area": box[2] * box[3], "iscrowd": crowd})
                classes.add(label)
            for label, x1, y1, x2, y2, sure in picture["detections"]:
                box = [x1, y1, x2 - x1, y2 - y1]
                results.append({"image_id": image, "category_id": label, "bbox": box, "score": sure})
                classes.add(label)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = coco.COCO()
        truth.dataset = {"images": images, "annotations": annotations, "categories": [{"id": each} for each in classes]}
        truth.createIndex()
        evaluation = cocoeval.COCOeval(truth, truth.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return {"map50_95": float(evaluation.stats[0]), "map50": float(evaluation.stats[1])}


if __name__ == "__main__":
    main()
