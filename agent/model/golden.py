"""Golden replay: two known inputs must give their known outputs before a model goes live.

File: npz without pickles: ``input_0``, ``input_1`` uint8 ``[H, W, 3]``, and ``expected_<input>_<output>`` for each.
"""

from __future__ import annotations

import io
import tokenize
import zipfile
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from agent.errors import BundleError, one_line
from agent.model.matcher import compare_outputs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from agent.model.manifest import Task, Variant
    from agent.model.session import Session

INPUTS = 2
# What numpy and zipfile raise for damaged files; numpy parses an array's header as Python.
_DAMAGE = (
    *(ValueError, OSError, EOFError, RuntimeError, SyntaxError),
    *(tokenize.TokenError, zipfile.BadZipFile, zlib.error),
)


def replay(session: Session, golden: bytes, task: Task, variant: Variant) -> None:
    """Run the golden inputs through a session; raises BundleError when an output does not match."""
    for index, (image_bgr, expected) in enumerate(load(golden, variant)):
        session.input_image[:] = image_bgr
        comparison = compare_outputs(task, expected, session.run(), variant.golden.tolerances)
        if not comparison.ok:
            raise BundleError(
                f"variant {variant.id}: golden input {index} does not give its expected output on this device: "
                f"{comparison.reason}; the variant does not run rightly here, choose another or build it again"
            )


def load(golden: bytes, variant: Variant) -> list[tuple[NDArray[np.uint8], dict[str, NDArray[Any]]]]:
    """The golden inputs uint8 ``[H, W, 3]`` with their expected outputs; raises BundleError for a bad file."""
    shape = (variant.input.height, variant.input.width, 3)
    pairs = []
    where = f"variant {variant.id}: {variant.golden.file}"
    try:
        arrays = _read_arrays(golden)
    except _DAMAGE as err:
        raise BundleError(f"{where} is no golden file: {one_line(err)}; pack the bundle again") from err
    for index in range(INPUTS):
        prefix = f"expected_{index}_"
        image_bgr = arrays.get(f"input_{index}", np.zeros(0))
        expected = {name[len(prefix) :]: array for name, array in arrays.items() if name.startswith(prefix)}
        if image_bgr.shape != shape or image_bgr.dtype != np.uint8 or not expected:
            raise BundleError(
                f"{where}: expected input_{index} uint8 {list(shape)} and its outputs, found {image_bgr.dtype} "
                f"{list(image_bgr.shape)} and {len(expected)} outputs; pack the bundle again"
            )
        pairs.append((image_bgr, expected))
    return pairs


def dump(pairs: Sequence[tuple[NDArray[np.uint8], Mapping[str, NDArray[Any]]]]) -> bytes:
    """The bytes of a golden file, the same for the same arrays."""
    arrays: dict[str, NDArray[Any]] = {}
    for index, (image_bgr, expected) in enumerate(pairs):
        arrays[f"input_{index}"] = image_bgr
        arrays.update({f"expected_{index}_{name}": array for name, array in expected.items()})
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:  # numpy's own writer stamps the time of day
        for name, array in arrays.items():
            content = io.BytesIO()
            np.lib.format.write_array(content, np.ascontiguousarray(array), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), content.getvalue(), zipfile.ZIP_DEFLATED)
    return file.getvalue()


def _read_arrays(golden: bytes) -> dict[str, NDArray[Any]]:
    """Every array of an npz file; unlike ``numpy.load``, this takes nothing but that."""
    with zipfile.ZipFile(io.BytesIO(golden)) as archive:
        arrays: dict[str, NDArray[Any]] = {}
        for name in archive.namelist():
            with archive.open(name) as file:
                arrays[name.removesuffix(".npy")] = np.lib.format.read_array(file, allow_pickle=False)
    return arrays
