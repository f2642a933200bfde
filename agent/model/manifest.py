"""The manifest of a bundle, schema 1: everything that the device knows about a model.

Unknown keys and unknown schema versions are refused; only ``annotations`` may hold anything.
"""

from __future__ import annotations

from datetime import date  # noqa: TC003 - pydantic resolves it at run time
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Slug = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,62}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
# Every part starts with a letter, digit or underscore: no absolute path, no "..", no hidden file, no empty part.
FilePath = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*$", max_length=200)
]
# One line without control characters: it is shown in terminals before anybody has checked a signature.
Text = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]*$", max_length=500)]
Label = Annotated[Text, Field(min_length=1, max_length=100)]
Byte = Annotated[int, Field(ge=0, le=255)]
Share = Annotated[float, Field(ge=0, le=1)]
Side = Annotated[int, Field(ge=1, le=16_384)]
Task = Literal["classify", "detect", "segment"]


class Record(BaseModel):
    """What all parts of the manifest share: frozen, unknown keys refused, no type conversions."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class InputSpec(Record):
    """How a frame becomes the model's input: uint8 NHWC BGR, batch 1, tensor ``image``; no other processing.

    ``letterbox`` scales by one ratio and fills the rest with ``pad_bgr``; ``center_crop`` scales the short side to
    ``side / crop_ratio`` and cuts the middle out; ``stretch`` scales both sides independently.
    """

    height: Side
    width: Side
    resize: Literal["letterbox", "stretch", "center_crop"] = "letterbox"
    align: Literal["center", "top_left"] = "center"
    interpolation: Literal["linear", "area", "nearest", "cubic"] = "linear"
    crop_ratio: Annotated[float, Field(gt=0, le=1)] = 1.0
    pad_bgr: Annotated[list[Byte], Field(min_length=3, max_length=3)] = [114, 114, 114]


class Defaults(Record):
    """Thresholds used unless the device's config says otherwise."""

    score_threshold: Share = 0.35
    iou_threshold: Share = 0.5
    max_detections: Annotated[int, Field(ge=1, le=1000)] = 100


class Host(Record):
    """One kind of machine that a variant is made for: architecture and features that its CPU must have."""

    arch: Literal["x86_64", "aarch64"]
    cpu_features: list[Text] = []


class Requires(Record):
    """What a device must offer; an empty ``any_of`` means any machine."""

    any_of: list[Host] = []
    onnxruntime: Annotated[str, Field(pattern=r"^\d+(\.\d+){0,2}$")] = "1.22"


class Tolerances(Record):
    """How far two runs may differ; see ``agent/model/matcher.py``.

    ``mask`` is the share of a mask's pixels that may have another class: for float, where pixels between two classes
    may fall to either side; a bundle states a looser one for int8.
    """

    score_floor: Share = 0.05
    score: Annotated[float, Field(gt=0, le=1)] = 1e-3
    box_px: Annotated[float, Field(gt=0, le=64)] = 0.05
    mask: Annotated[float, Field(gt=0, le=1)] = 0.005


class Golden(Record):
    """The file with two inputs and their expected outputs, and how closely they must be met."""

    file: FilePath
    tolerances: Tolerances


class Metric(Record):
    """A figure measured at build time.

    ``drop`` is against fp32, ``interval`` the 95 % interval of the drop over pictures, ``cpu`` where it was taken.
    """

    name: Text
    value: float
    drop: float | None = None
    interval: Annotated[list[float], Field(min_length=2, max_length=2)] | None = None
    cpu: Text


class Variant(Record):
    """One file of the model and what it is made for."""

    id: Slug
    file: FilePath
    precision: Literal["fp32", "fp16", "int8"]
    providers: Annotated[list[Literal["cpu", "cuda", "tensorrt"]], Field(min_length=1)]
    requires: Requires = Requires()
    metrics: list[Metric] = []
    input: InputSpec
    golden: Golden


class FileEntry(Record):
    """A file of the bundle; one that is not listed is refused."""

    path: FilePath
    bytes: Annotated[int, Field(ge=0, le=4 * 2**30)]
    sha256: Sha256


class Provenance(Record):
    """Where the model came from; no build paths, no host names."""

    source: Text
    source_sha256: Sha256
    source_licence: Text | None = None
    recipe_sha256: Sha256
    calibration_sha256: Sha256 | None = None
    calibration_pictures: Annotated[int, Field(ge=0)] = 0
    search_sha256: Sha256 | None = None
    search_pictures: Annotated[int, Field(ge=0)] = 0
    val_sha256: Sha256 | None = None
    val_pictures: Annotated[int, Field(ge=0)] = 0
    versions: dict[Text, Text]


class Manifest(Record):
    """The whole manifest; ``variants`` stand in order of preference."""

    # "schema" would shadow a pydantic method, so the attribute has another name than the key.
    schema_version: Literal[1] = Field(alias="schema")
    name: Slug
    version: Annotated[int, Field(ge=1)]
    task: Task
    labels: Annotated[list[Label], Field(min_length=1, max_length=65_536)]
    defaults: Defaults = Defaults()
    variants: Annotated[list[Variant], Field(min_length=1, max_length=32)]
    files: Annotated[list[FileEntry], Field(min_length=1, max_length=1000)]
    annotations: dict[str, Any] = {}
    provenance: Provenance
    expires: date | None = None

    @model_validator(mode="after")
    def _names_are_unique_and_files_are_listed(self) -> Manifest:
        ids = [variant.id for variant in self.variants]
        if len(set(ids)) < len(ids):
            raise ValueError(f"variants must have different ids, got {ids}")
        paths = [entry.path for entry in self.files]
        if len({path.casefold() for path in paths}) < len(paths):
            raise ValueError("files must have different paths, also on file systems that ignore case")
        used = {path for variant in self.variants for path in (variant.file, variant.golden.file)}
        missing = sorted(used - set(paths))
        if missing:
            raise ValueError(f"files must list what the variants use; not listed: {', '.join(missing)}")
        return self


class Signature(Record):
    """What ``manifest.sig`` holds: the signature over the exact bytes of ``manifest.json``, and whose it is."""

    algorithm: Literal["ed25519"]
    key_id: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    # 64 bytes in base64, one spelling only: the last sign before the padding carries two bits.
    signature: Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]{85}[AQgw]==$")]
