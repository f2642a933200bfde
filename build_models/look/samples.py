"""What a model is looked at with: pictures prepared as it wants them, or arrays taken exactly as they are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import ValidationError

from agent.vision.picture_file import decode_picture
from agent.vision.resize import Resizer
from build_models.errors import RecipeError
from build_models.graph.model_io import describe, inputs_of
from build_models.graph.native_input import source_input
from build_models.pictures import SUFFIXES
from build_models.recipe import InputRecipe

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import onnx
    from numpy.typing import NDArray

    from build_models.graph.model_io import TensorInfo

_MAX_PIXELS = 100_000_000
_CHANNELS = (3, 1)


@dataclass(frozen=True, slots=True)
class Preparation:
    """How a picture becomes an input; None: by the model. ``x = (pixel * scale - mean) / std`` for float inputs.

    Attributes:
        layout: "nchw" or "nhwc"; by default where a side of 3 or 1 is.
        color: by default "bgr" for bytes, as the device gives them, "rgb" for floats, "gray" for one channel.
        scale: factor for pixels 0..255.
        mean: per channel, or one for all.
        std: per channel, or one for all.
        resize: how the picture is fitted.
        align: where a letterboxed one lies.
        size_wh: for models that take any size.
    """

    layout: Literal["nchw", "nhwc"] | None = None
    color: Literal["rgb", "bgr", "gray"] | None = None
    scale: float = 1 / 255
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    resize: Literal["letterbox", "stretch", "center_crop"] = "letterbox"
    align: Literal["center", "top_left"] = "center"
    size_wh: tuple[int, int] | None = None


@dataclass(frozen=True)
class Samples:
    """Feeds for a model, read anew each time they are iterated over: only one is held at a time.

    Attributes:
        names: of the samples, for people.
        files: input name to the file of each sample.
    """

    names: tuple[str, ...]
    files: Mapping[str, tuple[Path, ...]]
    infos: Mapping[str, TensorInfo]
    preparation: Preparation

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[dict[str, NDArray[Any]]]:
        for index in range(len(self)):
            yield {name: _feed(paths[index], self.infos[name], self.preparation) for name, paths in self.files.items()}


def samples_for(model: onnx.ModelProto, given: Sequence[str], preparation: Preparation) -> Samples:
    """Understand ``--input FILE`` and ``--input NAME=FILE``, each once or more; a folder stands for its pictures.

    Raises:
        RecipeError: an input is missing, unknown, or has another number of files than the others; no such file.
    """
    infos = {info.name: info for info in inputs_of(model)}
    files: dict[str, list[Path]] = {}
    for text in given:
        name, path = _split(text, infos)
        files.setdefault(name, []).extend(_expand(path))
    missing = [str(info) for name, info in infos.items() if name not in files]
    if missing:
        raise RecipeError(f"--input: nothing is given for {', '.join(missing)}; give --input NAME=FILE for each")
    counts = {name: len(paths) for name, paths in files.items()}
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise RecipeError(f"--input: expected as many files for each input, got {told}")
    first = next(iter(files.values()))
    return Samples(
        tuple(path.name for path in first), {name: tuple(paths) for name, paths in files.items()}, infos, preparation
    )


def _split(text: str, infos: Mapping[str, TensorInfo]) -> tuple[str, Path]:
    name, equals, path = text.partition("=")
    if equals and name in infos:
        return name, Path(path)
    if equals and not Path(text).exists():
        raise RecipeError(f"--input {text}: the model has no input {name!r}, it takes {describe(infos.values())}")
    if len(infos) != 1:
        raise RecipeError(f"--input {text}: say for which input, NAME=FILE: the model takes {describe(infos.values())}")
    return next(iter(infos)), Path(text)


def _expand(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = sorted(each for each in path.rglob("*") if each.suffix.lower() in SUFFIXES and each.is_file())
    if not found:
        raise RecipeError(f"--input {path}: expected pictures in the folder ({', '.join(SUFFIXES)}), found none")
    return found


def _feed(path: Path, info: TensorInfo, preparation: Preparation) -> NDArray[Any]:
    try:
        data = path.read_bytes()
    except OSError as err:
        raise RecipeError(f"{path}: cannot read the input: {err.strerror}") from err
    if path.suffix.lower() == ".npy":
        return _array(path, info)
    return _picture(data, info, preparation)


def _array(path: Path, info: TensorInfo) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as err:
        raise RecipeError(f"{path}: expected an array as numpy.save writes it, found something else") from err
    fits = len(array.shape) == len(info.shape) and all(
        not isinstance(want, int) or want == have for want, have in zip(info.shape, array.shape, strict=True)
    )
    if not fits or array.dtype.name != info.dtype:
        raise RecipeError(f"{path}: expected {info}, found {array.dtype.name}{list(array.shape)}; save it so")
    return array


def input_recipe(info: TensorInfo, preparation: Preparation) -> InputRecipe:
    """What an input wants of a picture, with its size.

    Raises:
        RecipeError: it is no input for pictures, or its size, batch or colour do not fit what was said.
    """
    layout, channels = _layout(info, preparation)
    height_axis = 2 if layout == "nchw" else 1
    sides: list[int] = []
    for side, wanted in zip(info.shape[height_axis : height_axis + 2], _hw(preparation), strict=True):
        if isinstance(side, int) and wanted not in (None, side):
            raise RecipeError(f"--size: the model has a size of its own, {info}; leave --size out")
        known = side if isinstance(side, int) else wanted
        if known is None:
            raise RecipeError(f"the model takes any size ({info}); give --size WIDTHxHEIGHT")
        sides.append(known)
    if info.shape[0] != 1 and isinstance(info.shape[0], int):
        raise RecipeError(f"a picture is a batch of one, the model takes {info}; give an array (.npy)")
    bytes_in = info.dtype == "uint8"
    color = preparation.color or ("gray" if channels == 1 else "bgr" if bytes_in else "rgb")
    if (color == "gray") != (channels == 1):
        raise RecipeError(f"--color {color} does not fit the input {info}")
    try:
        return InputRecipe(
            height=sides[0],
            width=sides[1],
            color=color,
            layout=layout,
            scale=1.0 if bytes_in else preparation.scale,
            mean=[0.0] if bytes_in else list(preparation.mean),
            std=[1.0] if bytes_in else list(preparation.std),
            resize=preparation.resize,
            align=preparation.align,
        )
    except ValidationError as err:
        first = err.errors()[0]
        raise RecipeError(f"input {info}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from err


def _picture(data: bytes, info: TensorInfo, preparation: Preparation) -> NDArray[Any]:
    recipe = input_recipe(info, preparation)
    assert recipe.height is not None, "just given"
    assert recipe.width is not None
    image = np.zeros((recipe.height, recipe.width, 3), np.uint8)
    Resizer(recipe.spec(recipe.height, recipe.width), image)(decode_picture(data, _MAX_PIXELS))
    prepared = source_input(image[None], recipe)
    return (np.round(prepared) if info.dtype == "uint8" else prepared).astype(info.dtype)


def _layout(info: TensorInfo, preparation: Preparation) -> tuple[Literal["nchw", "nhwc"], int]:
    """Where the channels are, and how many."""
    if len(info.shape) == 4 and info.dtype in ("uint8", "float32", "float16", "float64"):
        # Bytes with the channels last are the device's own form, so that place is looked at first for them.
        both: tuple[Literal["nchw", "nhwc"], ...] = ("nhwc", "nchw") if info.dtype == "uint8" else ("nchw", "nhwc")
        for channels in _CHANNELS:
            for layout in both:
                if info.shape[1 if layout == "nchw" else 3] == channels and preparation.layout in (None, layout):
                    return layout, channels
        if preparation.layout and not isinstance(info.shape[1 if preparation.layout == "nchw" else 3], int):
            return preparation.layout, 1 if preparation.color == "gray" else 3
    raise RecipeError(
        f"expected an input of four axes with 3 or 1 channels to show a picture to, the model takes {info}; "
        "give an array (.npy), or --layout where the channels are not known"
    )


def _hw(preparation: Preparation) -> tuple[int | None, int | None]:
    return (None, None) if preparation.size_wh is None else (preparation.size_wh[1], preparation.size_wh[0])
