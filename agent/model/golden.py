"""Golden replay: two known inputs must give their known outputs before a model goes live.

File: npz without pickles: ``input_0``, ``input_1`` uint8 ``[H, W, 3]``, and ``expected_<input>_<output>`` for each.
"""

from __future__ import annotations

import io
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np

from agent.errors import BundleError
from agent.model.matcher import compare_outputs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from agent.model.manifest import Task, Variant
    from agent.model.session import Session

INPUTS = 2


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
    try:
        with np.load(io.BytesIO(golden), allow_pickle=False) as arrays:
            for index in range(INPUTS):
                prefix = f"expected_{index}_"
                image_bgr = arrays[f"input_{index}"]
                expected = {name[len(prefix) :]: arrays[name] for name in arrays.files if name.startswith(prefix)}
                if image_bgr.shape != shape or image_bgr.dtype != np.uint8 or not expected:
                    raise ValueError(f"input_{index} is {image_bgr.dtype} {image_bgr.shape}, expected uint8 {shape}")
                pairs.append((image_bgr, expected))
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as err:
        raise BundleError(f"variant {variant.id}: {variant.golden.file} is no golden file: {err}") from err
    return pairs


def dump(pairs: list[tuple[NDArray[np.uint8], Mapping[str, NDArray[Any]]]]) -> bytes:
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
