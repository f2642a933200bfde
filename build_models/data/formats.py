"""The formats of a dataset, as the recipe's ``data.train`` and ``data.val`` say them.

Pictures are found in subfolders too; a label or mask file lies at the same place in its own folder, with the picture's
name and another suffix.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from agent.model.manifest import Label, Record
from build_models.recipe_types import RecipePath  # noqa: TC001 - pydantic resolves it at run time

if TYPE_CHECKING:
    from pathlib import Path

Limit = Annotated[int, Field(ge=1)]
_LIMIT = "most pictures taken, the first by digest; null: all"
_UNKNOWN = "an object whose class is no label of the recipe: refuse the dataset, or leave the object out"


def _whole_number_keys(value: object) -> object:
    """YAML's keys are text; a key that is no whole number is left to the field's own check."""
    if not isinstance(value, dict):
        return value
    return {_whole_number(key): inner for key, inner in value.items()}


def _whole_number(key: Any) -> Any:
    return int(key) if isinstance(key, str) and key.strip().isdecimal() else key


Id = Annotated[int, Field(ge=0, le=65_535)]
ClassMap = Annotated[dict[Id, Label], Field(min_length=1), BeforeValidator(_whole_number_keys)]


class Pictures(Record):
    """Pictures without labels: for calibration, and to compare a variant with the float model's own answers."""

    format: Literal["pictures"]
    path: RecipePath = Field(description="folder of pictures")
    limit: Limit | None = Field(None, description=_LIMIT)

    @property
    def folder(self) -> Path:
        """Of the pictures."""
        return self.path


class ClassFolders(Record):
    """A folder per class."""

    format: Literal["class_folders"]
    path: RecipePath = Field(description="folder with one folder per class, named like its label")
    class_map: dict[str, Label] | None = Field(None, description="folder: label, for folders with other names")
    limit: Limit | None = Field(None, description=_LIMIT)

    @property
    def folder(self) -> Path:
        """Of the pictures."""
        return self.path


class Yolo(Record):
    """A text file per picture: ``class cx cy w h`` in 0..1, or a polygon ``class x1 y1 x2 y2 x3 y3 ...``."""

    format: Literal["yolo"]
    images: RecipePath = Field(description="folder of pictures")
    labels: RecipePath = Field(description="folder of .txt files; a picture without one shows no objects")
    class_map: ClassMap | None = Field(None, description="class in the files: label; null: the labels' order")
    unknown: Literal["refuse", "skip"] = Field("refuse", description=_UNKNOWN)
    limit: Limit | None = Field(None, description=_LIMIT)

    @property
    def folder(self) -> Path:
        """Of the pictures."""
        return self.images


class Voc(Record):
    """An XML file per picture; objects marked difficult are not counted, whether found or not."""

    format: Literal["voc"]
    images: RecipePath = Field(description="folder of pictures")
    annotations: RecipePath = Field(description="folder of .xml files, one per picture")
    class_map: dict[str, Label] | None = Field(None, description="name in the files: label, for other names")
    unknown: Literal["refuse", "skip"] = Field("refuse", description=_UNKNOWN)
    limit: Limit | None = Field(None, description=_LIMIT)

    @property
    def folder(self) -> Path:
        """Of the pictures."""
        return self.images


class Coco(Record):
    """One JSON file for all pictures; categories are matched by name, crowds are not counted."""

    format: Literal["coco"]
    images: RecipePath = Field(description="folder that the file names are relative to")
    annotations: RecipePath = Field(description="the .json file")
    class_map: dict[str, Label] | None = Field(None, description="category: label, for other names")
    unknown: Literal["refuse", "skip"] = Field("refuse", description=_UNKNOWN)
    limit: Limit | None = Field(None, description=_LIMIT)

    @property
    def folder(self) -> Path:
        """Of the pictures."""
        return self.images


class Masks(Record):
    """A PNG per picture, of the same size, whose pixels are class ids; of a palette, its indices."""

    format: Literal["masks"]
    images: RecipePath = Field(description="folder of pictures")
    masks: RecipePath = Field(description="folder of .png masks, one per picture")
    class_map: ClassMap | None = Field(
        None, description='value in the masks: label, or "ignore"; null: the labels\' order, and 255 is ignored'
    )
    rest: Label | None = Field(
        None, description='what values mean that class_map does not list: a label, or "ignore"; null: refuse them'
    )
    merge: dict[Label, Label] = Field({}, description="predicted label: the label that it counts as")
    limit: Limit | None = Field(None, description=_LIMIT)

    @property
    def folder(self) -> Path:
        """Of the pictures."""
        return self.images


AnyData = Annotated[
    Pictures | ClassFolders | Yolo | Voc | Coco | Masks,
    Field(discriminator="format"),
]
