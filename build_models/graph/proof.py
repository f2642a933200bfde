"""Two forms of one model must say the same on random inputs; any number of inputs and outputs, of any size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from build_models.errors import BuildError
from build_models.graph.model_io import check_same, describe, inputs_of, run_model

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx
    from numpy.typing import NDArray

    from build_models.graph.model_io import TensorInfo

    Feed = dict[str, NDArray[Any]]

# What an open axis may be: 1 for the first, which is the batch, for the others the first of these that runs.
_OPEN_SIDES = (64, 224, 32, 8, 2, 1)
# Two classes that score the same but for the last bit may change places: one number of so many.
_TIES = 1000
_RANGES = 3


def prove_same(before: onnx.ModelProto, after: onnx.ModelProto) -> float:
    """Run both, node by node as written, on inputs of several ranges.

    Returns:
        The largest difference as a share of the largest value of its output.

    Raises:
        BuildError: they differ by more than float32 that adds in another order; or the first does not run, or gives
            no finite number, on any of the inputs, so that nothing can be compared.
    """
    worst, compared = 0.0, 0
    for feed in random_feeds(before, open_axes_of=after):
        expected = run_model(before, feed)
        if not all(_is_finite(name, value) for name, value in expected.items()):
            continue
        got = run_model(after, feed)
        worst = max(worst, _compare(expected, got))
        compared += 1
    if not compared:
        raise BuildError("the model gives no finite numbers on random inputs, so nothing can be compared")
    return worst


def random_feeds(model: onnx.ModelProto, *, open_axes_of: onnx.ModelProto | None = None) -> list[Feed]:
    """Inputs of three ranges (normal, 0 to 1, 0 to 255), the same at every call.

    Args:
        model: runs on them.
        open_axes_of: a form of the model that may have fewer open axes; its sizes are taken.

    Raises:
        BuildError: an input is no tensor of numbers, or the model runs with no size that was tried for its open axes.
    """
    infos = inputs_of(open_axes_of if open_axes_of is not None else model)
    if all(info.static_shape is not None for info in infos):
        return [_feed(infos, kind, 0) for kind in range(_RANGES)]
    refused = ""
    for side in _OPEN_SIDES:
        feeds = [_feed(infos, kind, side) for kind in range(_RANGES)]
        try:
            run_model(model, feeds[0])
        except BuildError as err:
            refused = refused or str(err)
            continue
        return feeds
    raise BuildError(
        f"the model does not run with any of {', '.join(map(str, _OPEN_SIDES))} for the open axes of "
        f"{describe(infos)} ({refused}); fix them with --shape"
    )


def _feed(infos: list[TensorInfo], kind: int, side: int) -> Feed:
    rng = np.random.default_rng(kind)
    return {info.name: _numbers(info, kind, side, rng) for info in infos}


def _numbers(info: TensorInfo, kind: int, side: int, rng: np.random.Generator) -> NDArray[Any]:
    shape = [size if isinstance(size, int) else side if axis else 1 for axis, size in enumerate(info.shape)]
    if info.dtype == "bool":
        return rng.random(shape) < 0.5
    if info.dtype in ("uint8", "int8"):
        limits = np.iinfo(info.dtype)
        return rng.integers(limits.min, limits.max + 1, shape).astype(info.dtype)
    if info.dtype.startswith(("int", "uint")):
        return rng.integers(0, 2, shape).astype(info.dtype)  # mostly indices: small ones exist everywhere
    if info.dtype in ("float32", "float64", "float16"):
        values = (rng.standard_normal(shape), rng.random(shape), rng.random(shape) * 255)[kind]
        return values.astype(info.dtype)
    raise BuildError(f"cannot make up numbers for the input {info}")


def _is_finite(name: str, value: object) -> bool:
    if not isinstance(value, np.ndarray) or value.dtype.hasobject:
        raise BuildError(f"output {name} is no tensor of numbers, so it cannot be compared")
    return bool(np.isfinite(value).all())


def _compare(expected: Mapping[str, NDArray[Any]], got: Mapping[str, NDArray[Any]]) -> float:
    complaint = "the optimised model differs"
    floats: dict[str, NDArray[Any]] = {}
    for name, want in expected.items():
        if want.dtype != got[name].dtype or want.shape != got[name].shape:
            raise BuildError(
                f"{complaint}: output {name} is {got[name].dtype}{list(got[name].shape)}, "
                f"expected {want.dtype}{list(want.shape)}"
            )
        if np.issubdtype(want.dtype, np.floating):
            if want.size:
                floats[name] = want
            continue
        changed = int((want != got[name]).sum())
        if changed > want.size // _TIES:
            raise BuildError(f"{complaint}: {changed} of {want.size} numbers of output {name} are others")
    return check_same(floats, got, complaint)
