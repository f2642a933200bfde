"""The families of model outputs, one file each; a new one is a file and a row here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from build_models.source.families.anchor_free import AnchorFree
from build_models.source.families.boxes_scores import BoxesScores
from build_models.source.families.fastestdet import FastestDet
from build_models.source.families.logits import Logits
from build_models.source.families.segmentation import Segmentation
from build_models.source.families.yolox import Yolox

if TYPE_CHECKING:
    from build_models.source.families.base import Family

FAMILIES: dict[str, type[Family]] = {
    "logits": Logits,
    "boxes_scores": BoxesScores,
    "anchor_free": AnchorFree,
    "yolox": Yolox,
    "fastestdet": FastestDet,
    "segmentation": Segmentation,
}

AnyFamily = Annotated[
    Logits | BoxesScores | AnchorFree | Yolox | FastestDet | Segmentation, Field(discriminator="family")
]
