"""Class names: a list in the recipe, a well-known set, or a text file with one name a line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationInfo

COCO = (
    "person",
    "bicycle",
    "car",
    "motorcycle",
    "airplane",
    "bus",
    "train",
    "truck",
    "boat",
    "traffic light",
    "fire hydrant",
    "stop sign",
    "parking meter",
    "bench",
    "bird",
    "cat",
    "dog",
    "horse",
    "sheep",
    "cow",
    "elephant",
    "bear",
    "zebra",
    "giraffe",
    "backpack",
    "umbrella",
    "handbag",
    "tie",
    "suitcase",
    "frisbee",
    "skis",
    "snowboard",
    "sports ball",
    "kite",
    "baseball bat",
    "baseball glove",
    "skateboard",
    "surfboard",
    "tennis racket",
    "bottle",
    "wine glass",
    "cup",
    "fork",
    "knife",
    "spoon",
    "bowl",
    "banana",
    "apple",
    "sandwich",
    "orange",
    "broccoli",
    "carrot",
    "hot dog",
    "pizza",
    "donut",
    "cake",
    "chair",
    "couch",
    "potted plant",
    "bed",
    "dining table",
    "toilet",
    "tv",
    "laptop",
    "mouse",
    "remote",
    "keyboard",
    "cell phone",
    "microwave",
    "oven",
    "toaster",
    "sink",
    "refrigerator",
    "book",
    "clock",
    "vase",
    "scissors",
    "teddy bear",
    "hair drier",
    "toothbrush",
)
NAMED_SETS = {"coco": COCO}


def resolve_labels(value: object, info: ValidationInfo) -> object:
    """The recipe's ``labels`` as a list; anything that is no string is left to the field's own check.

    Args:
        value: what the recipe says.
        info: its context may hold ``base``, the folder that a file's path is relative to.

    Raises:
        ValueError: the string is neither a known set nor a readable file of names.
    """
    if not isinstance(value, str):
        return value
    if value in NAMED_SETS:
        return list(NAMED_SETS[value])
    path = Path((info.context or {}).get("base") or ".") / Path(value).expanduser()
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as err:
        known = ", ".join(NAMED_SETS)
        raise ValueError(f"expected a list of names, one of {known}, or a text file; cannot read {value}") from err
    return [line.strip() for line in lines if line.strip()]
