"""The recipe: everything that decides how a model becomes a bundle, typed, every key with its default and meaning.

``recipe_file.py`` makes it from YAML or from the arguments of ``build-models import``. Paths are relative to the
recipe's folder; what a family knows about its usual input is filled in underneath.
"""

from __future__ import annotations

import hashlib
import json
import typing
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from agent.model.manifest import Defaults, InputSpec, Label, Record, Slug, Text
from build_models.data.formats import AnyData  # noqa: TC001 - pydantic resolves it at run time
from build_models.labels import resolve_labels
from build_models.metrics.table import OF_TASK
from build_models.recipe_types import RecipePath  # noqa: TC001 - pydantic resolves it at run time
from build_models.source.families import FAMILIES, AnyFamily


def _listed(value: object) -> object:
    """A single number stands for all channels."""
    return value if isinstance(value, list | tuple) else [value]


def _number(value: object) -> object:
    """``1/255`` in YAML is a string; everything else is left to the field's own check."""
    if isinstance(value, str):
        try:
            numerator, _, denominator = value.partition("/")
            return float(numerator) / float(denominator or 1)
        except (ValueError, ZeroDivisionError) as err:
            raise ValueError(f"expected a number or a fraction such as 1/255, got {value!r}") from err
    return value


FormName = Literal["plain", "packed stem", "stem in float", "high resolution in float"]
MethodName = Literal["min_max", "moving_average", "percentile_99.999", "percentile_99.99", "entropy", "mse"]
CALLABLE = r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$"
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False), BeforeValidator(_number)]
Finite = Annotated[float, Field(allow_inf_nan=False), BeforeValidator(_number)]
Labels = Annotated[list[Label], Field(min_length=1), BeforeValidator(resolve_labels)]
Side = Annotated[int, Field(ge=8, le=8192)]


class TorchSource(Record):
    """A torch module, made by a callable."""

    kind: Literal["torch"]
    callable: Annotated[str, Field(pattern=CALLABLE)] = Field(
        description='"module:function" that returns the torch.nn.Module'
    )
    kwargs: dict[str, Any] = Field({}, description="arguments of the callable")
    weights: RecipePath | None = Field(None, description="state dict file; null: the callable loads them itself")
    python_path: RecipePath = Field(Path(), validate_default=True, description="folder where the module is looked for")
    outputs: list[str] | None = Field(None, description="names for the outputs, in the module's order")


class OnnxSource(Record):
    """An ONNX file."""

    kind: Literal["onnx"]
    path: RecipePath = Field(description="the .onnx file")


class Pt2Source(Record):
    """A program that ``torch.export.save`` wrote."""

    kind: Literal["pt2"]
    path: RecipePath = Field(description="the .pt2 file")
    outputs: list[str] | None = Field(None, description="names for the outputs, in the program's order")


class InputRecipe(Record):
    """What the source model wants: ``x = (pixel * scale - mean) / std`` per channel, and how a frame gets there."""

    height: Side | None = Field(None, description="input height in pixels; null: the ONNX file's own")
    width: Side | None = Field(None, description="input width in pixels; null: the ONNX file's own")
    color: Literal["rgb", "bgr", "gray"] = Field(
        "rgb", description="channel order of the source model; gray: one channel, 0.299 R + 0.587 G + 0.114 B"
    )
    layout: Literal["nchw", "nhwc"] = Field("nchw", description="axis order of the source model")
    scale: Positive = Field(1 / 255, description="factor for pixels 0..255, such as 1/255 or 1")
    mean: Annotated[list[Finite], Field(min_length=1, max_length=3), BeforeValidator(_listed)] = Field(
        [0.0], description="subtracted after the scale: one number, or one a channel in the source's order"
    )
    std: Annotated[list[Positive], Field(min_length=1, max_length=3), BeforeValidator(_listed)] = Field(
        [1.0], description="divided by at last: one number, or one a channel in the source's order"
    )
    resize: Literal["letterbox", "stretch", "center_crop"] = Field("letterbox", description="how a frame is fitted")
    align: Literal["center", "top_left"] = Field("center", description="where a letterboxed frame lies")
    interpolation: Literal["linear", "area", "nearest", "cubic"] = Field("linear", description="of the resize")
    crop_ratio: Annotated[float, Field(gt=0, le=1)] = Field(1.0, description="center_crop: share of the side kept")
    pad_bgr: Annotated[list[Annotated[int, Field(ge=0, le=255)]], Field(min_length=3, max_length=3)] = Field(
        [114, 114, 114], description="letterbox: colour of the borders"
    )

    @property
    def channels(self) -> int:
        """How many the source model takes."""
        return 1 if self.color == "gray" else 3

    @field_validator("mean", "std")
    @classmethod
    def _fits_the_channels(cls, values: list[float], info: ValidationInfo) -> list[float]:
        color = info.data.get("color", "rgb")
        if len(values) not in ((1,) if color == "gray" else (1, 3)):
            wanted = "1 number" if color == "gray" else "1 or 3 numbers"
            raise ValueError(f"expected {wanted} for color {color}, got {len(values)}")
        return values

    def spec(self, height: int, width: int) -> InputSpec:
        """The manifest's input section for the model's size in pixels."""
        shared = self.model_dump(include={"resize", "align", "interpolation", "crop_ratio", "pad_bgr"})
        return InputSpec(height=height, width=width, **shared)


class Data(Record):
    """Pictures: to calibrate and search with, and to judge with; no picture serves twice."""

    train: AnyData = Field(description="calibration and search are drawn from it; labels help the search")
    val: AnyData | None = Field(None, description="judged once, at the end; null: a share of train is kept for it")
    val_share: Annotated[float, Field(gt=0, lt=1)] = Field(0.4, description="without val: share of train kept for it")
    search_share: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.6, description="of what train has left: share that compares candidates, the others calibrate"
    )
    most_calibration: Annotated[int, Field(ge=1)] = Field(500, description="most pictures to calibrate with")
    most_search: Annotated[int, Field(ge=1)] = Field(500, description="most pictures to compare candidates with")
    seed: Annotated[int, Field(ge=0)] = Field(0, description="another seed, another split")


class Budget(Record):
    """What a variant may lose and what it must gain, against fp32."""

    metric: Literal["auto", "top1", "top5", "map50_95", "map50", "miou", "pixel_accuracy"] = Field(
        "auto", description='judged with the labels of val; "auto": top1, map50_95 or miou, as the task is'
    )
    classes: Annotated[list[Label], Field(min_length=1)] | None = Field(
        None, description="judge these labels alone; null: all"
    )
    max_drop: Annotated[float, Field(ge=0, le=1)] = Field(
        0.01, description="most of the metric that a variant may lose (0.01 is one point)"
    )
    max_disagreement: Annotated[float, Field(ge=0, le=1)] = Field(
        0.05, description="without labels: the greatest share of fp32's own answers that a variant may change"
    )
    min_speedup: Annotated[float, Field(gt=0)] | None = Field(
        None,
        description="least factor by which a variant must be faster, else the build ends with exit code 3; null: "
        "faster at all, else fp32 alone serves that target",
    )
    inconclusive: Literal["ship", "refuse"] = Field(
        "ship", description="a drop within the budget whose 95 % interval is not: too few pictures to be sure"
    )


class Quantize(Record):
    """The variants beside fp32, and how hard to try."""

    targets: list[Literal["cpu", "cpu-nonvnni", "cpu-dynamic", "tensorrt", "cuda"]] = Field(
        ["cpu"],
        description="cpu: int8 for ARM and x86 with VNNI; cpu-nonvnni: int8 for other x86; cpu-dynamic: matrix "
        "products only; tensorrt: int8; cuda: float16; empty: fp32 alone",
    )
    forms: Annotated[list[FormName], Field(min_length=1)] = Field(
        list(typing.get_args(FormName)),
        description="cpu: what may be tried to be fast on x86; [plain]: one file for all, where size counts more",
    )
    methods: Annotated[list[MethodName], Field(min_length=1)] = Field(
        list(typing.get_args(MethodName)), description="calibration methods to choose from"
    )
    corrections: list[Literal["equalize", "bias"]] = Field(
        ["equalize", "bias"], description="what may be tried before layers are left in float"
    )
    most_float_share: Annotated[float, Field(ge=0, le=1)] = Field(
        0.25, description="give up when more than this share of the arithmetic would have to stay in float"
    )

    @field_validator("targets", "forms", "methods", "corrections")
    @classmethod
    def _each_once(cls, names: list[str]) -> list[str]:
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"expected each once, got {', '.join(twice)} twice or more; remove the others")
        return names


class Recipe(Record):
    """The whole recipe."""

    name: Slug = Field(description="name of the bundle")
    version: Annotated[int, Field(ge=1)] = Field(1, description="devices refuse an older version than they have")
    source: Annotated[TorchSource | Pt2Source | OnnxSource, Field(discriminator="kind")]
    input: InputRecipe = InputRecipe()
    output: AnyFamily
    labels: Labels = Field(description='names of the classes: a list, "coco", or a text file with one name a line')
    defaults: Defaults = Defaults()
    data: Data | None = None
    budget: Budget = Budget()
    quantize: Quantize = Quantize()
    evaluation: Annotated[str, Field(pattern=CALLABLE)] | None = Field(
        None, description='"module:function" that measures the packed files for the report; see evaluation.py'
    )
    licence: Text | None = Field(None, description="licence of the source model, for the manifest")
    annotations: dict[str, Any] = Field({}, description="free map for the manifest")

    @property
    def task(self) -> Literal["classify", "detect", "segment"]:
        """What the family of the outputs is for."""
        return self.output.task

    @model_validator(mode="before")
    @classmethod
    def _family_knows_its_input(cls, data: object) -> object:
        if not isinstance(data, dict):
            return data
        output, given = data.get("output"), data.get("input", {})
        family = FAMILIES.get(output["family"]) if isinstance(output, dict) and _is_name(output) else None
        if family is None or not isinstance(given, dict):
            return data
        return {**data, "input": {**family.input_defaults, **given}}

    @model_validator(mode="after")
    def _torch_needs_a_size(self) -> Recipe:
        if self.source.kind == "torch" and (self.input.height is None or self.input.width is None):
            raise ValueError("a torch source needs input.height and input.width")
        if (self.input.height is None) != (self.input.width is None):
            raise ValueError("input.height and input.width go together: give both or neither")
        return self

    @model_validator(mode="after")
    def _budget_is_of_the_task(self) -> Recipe:
        measures = OF_TASK[self.task]
        if self.budget.metric not in ("auto", *measures):
            raise ValueError(
                f"budget.metric: expected a measure to {self.task}, one of {', '.join(measures)}, or auto, "
                f"got {self.budget.metric!r}"
            )
        unknown = [name for name in self.budget.classes or () if name not in self.labels]
        if unknown:
            raise ValueError(f"budget.classes: expected some of the labels, got {', '.join(unknown)}")
        return self


def digest_of(recipe: Recipe) -> str:
    """SHA-256 in hex of what the recipe says; of paths only the last part counts, so no build path leaks into it."""
    values = _without_folders(recipe.model_dump(exclude={"source": {"python_path"}}))
    return hashlib.sha256(json.dumps(values, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def _is_name(output: dict[str, Any]) -> bool:
    return isinstance(output.get("family"), str)


def _without_folders(value: object) -> object:
    if isinstance(value, Path):
        return value.name
    if isinstance(value, dict):
        return {str(key): _without_folders(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_folders(inner) for inner in value]
    return value
