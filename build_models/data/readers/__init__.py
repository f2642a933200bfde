"""The readers, one file per format; a new one is a file, a section in ``formats.py`` and a row here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from build_models.data.readers.class_folders import read_class_folders
from build_models.data.readers.coco import read_coco
from build_models.data.readers.masks import read_masks
from build_models.data.readers.pictures import read_pictures
from build_models.data.readers.voc import read_voc
from build_models.data.readers.yolo import read_yolo

if TYPE_CHECKING:
    from agent.model.manifest import Task
    from build_models.data.readers.base import Reader

# By format: the reader, and the task that its labels are for.
READERS: dict[str, tuple[Reader[Any], Task | None]] = {
    "pictures": (read_pictures, None),
    "class_folders": (read_class_folders, "classify"),
    "yolo": (read_yolo, "detect"),
    "voc": (read_voc, "detect"),
    "coco": (read_coco, "detect"),
    "masks": (read_masks, "segment"),
}
