"""Histograms kept between runs, under the digest of everything that they depend on.

A cached file is believed only if it says its own digest; what is damaged is collected anew and replaced.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from agent.model.runtime import ort
from build_models.errors import RecipeError
from build_models.quantize.histograms import Histograms, TensorHistogram, collect_histograms

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    import onnx
    from numpy.typing import NDArray

_FORMAT = 1  # of the file, and of how histograms are counted: raise it when either changes
# What numpy and zipfile raise for bytes that are no such file; BadZipFile and zlib.error are no ValueErrors.
_DAMAGED = (
    *(OSError, ValueError, KeyError, IndexError, TypeError, EOFError, NotImplementedError),
    *(zipfile.BadZipFile, zlib.error),
)
_NUMBERS = ("low", "high", "moving_low", "moving_high", "width")


def cached_histograms(
    folder: Path,
    model: onnx.ModelProto,
    tensors: Collection[str],
    images: Callable[[], Iterable[NDArray[np.uint8]]],
    picture_digests: Sequence[str],
    *,
    bins: int = 2048,
    memory_mb: int = 512,
    progress: Callable[[int, int], None] | None = None,
) -> Histograms:
    """`collect_histograms`, or what it gave the last time for the same model, tensors and pictures.

    Args:
        folder: of the cache; made when it is not there.
        model: see `collect_histograms`, as are the others that are not named here.
        tensors: names.
        images: not called when the cache knows the result.
        picture_digests: of the pictures as they enter the model, in order: of the file and of how it is resized.
        bins: per tensor.
        memory_mb: does not change the result.
        progress: not called when the cache knows the result.

    Raises:
        RecipeError: the folder cannot be written.
    """
    path = folder / f"{_key(model, tensors, picture_digests, bins)}.npz"
    found = read_histograms(path)
    if found is None:
        found = collect_histograms(model, tensors, images, bins=bins, memory_mb=memory_mb, progress=progress)
        write_histograms(path, found)
    return found


def write_histograms(path: Path, histograms: Histograms) -> None:
    """Write to a temporary file beside ``path``, then rename: who reads sees all of it or nothing.

    Raises:
        RecipeError: it cannot be written.
    """
    entries = sorted(histograms.tensors.items())
    arrays: dict[str, Any] = {name: np.array([getattr(each, name) for _, each in entries]) for name in _NUMBERS}
    arrays["zero_bin"] = np.array([each.zero_bin for _, each in entries], np.int64)
    arrays["counts"] = np.array([each.counts for _, each in entries], np.int64)
    arrays["names"] = np.array([name for name, _ in entries], np.str_)
    arrays["pictures"] = np.array(histograms.pictures, np.int64)
    arrays["digest"] = np.array(histograms.digest)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.stem[:16]}-", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                np.savez_compressed(file, **arrays)
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as err:
        raise RecipeError(
            f"{path.parent}: cannot write the calibration cache: {err.strerror}; choose another --work"
        ) from err


def read_histograms(path: Path) -> Histograms | None:
    """What `write_histograms` wrote; None when there is no such file, or it is damaged."""
    try:
        # From memory: numpy leaves a file open that it cannot read.
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        columns = {name: arrays[name].tolist() for name in (*_NUMBERS, "zero_bin", "names")}
        tensors = {
            name: TensorHistogram(
                **{key: columns[key][index] for key in (*_NUMBERS, "zero_bin")}, counts=arrays["counts"][index]
            )
            for index, name in enumerate(columns["names"])
        }
        histograms = Histograms(tensors, int(arrays["pictures"]))
        sound = histograms.digest == str(arrays["digest"])
    except _DAMAGED:
        return None
    return histograms if sound else None


def _key(model: onnx.ModelProto, tensors: Collection[str], picture_digests: Sequence[str], bins: int) -> str:
    model_sha256 = hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest()
    facts = [_FORMAT, ort.__version__, bins, model_sha256, sorted(tensors), list(picture_digests)]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()
