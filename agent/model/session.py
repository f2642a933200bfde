"""One model on one execution provider: a bound input buffer, bound outputs, and ``run``."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import psutil

from agent.errors import BundleError, FatalError, one_line
from agent.model.runtime import ORT_ERRORS, PROVIDERS, available_providers, ort

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from agent.model.manifest import Task, Variant


class _Output(NamedTuple):
    """A canonical output; a letter stands for one and the same size wherever the task's outputs have it."""

    shape: tuple[int | str, ...]
    dtype: str
    optional: bool = False


_CANONICAL: dict[Task, dict[str, _Output]] = {
    "classify": {"scores": _Output((1, "C"), "float32")},
    "detect": {
        "boxes": _Output((1, "K", 4), "float32"),
        "scores": _Output((1, "K"), "float32"),
        "labels": _Output((1, "K"), "int64"),
    },
    # Class ids, and how sure the model is of each, 255 for entirely. H and W may be smaller than the input's.
    "segment": {
        "mask": _Output((1, "H", "W"), "uint8"),
        "confidence": _Output((1, "H", "W"), "uint8", optional=True),
    },
}
# How TensorProto.external_data begins: weights that lie in another file. Older versions of ONNX Runtime read it from
# wherever the model says, and no signature covers it.
_EXTERNAL_DATA = re.compile(rb"\x6a(?:[\x00-\x7f]|[\x80-\xff][\x00-\x7f])\x0a\x08location")
_NUMPY_TYPES = {"tensor(float)": "float32", "tensor(int64)": "int64", "tensor(uint8)": "uint8"}


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """How a session runs: provider names preferred first, threads of one operator, and whether they busy-wait."""

    providers: tuple[str, ...] = ("cpu",)
    threads: int = 1
    spinning: bool = False


class Session:
    """A model ready to run. Not thread-safe: one thread writes ``input_image``, runs, and reads the outputs.

    Attributes:
        input_image: uint8 ``[H, W, 3]`` BGR, the model's input; write the picture here, then call ``run``.
        outputs: the canonical outputs by name, of the optional ones those that the model has; `run` writes into these
            arrays.
        provider: the execution provider in charge, such as "cpu".

    Raises:
        BundleError: the file is no model, or not one with the canonical input and outputs of its task.
        FatalError: a provider other than the CPU was chosen and ONNX Runtime did not take it.
    """

    def __init__(self, model: bytes, task: Task, variant: Variant, options: SessionOptions) -> None:
        chosen = [name for name in options.providers if name in variant.providers and name in available_providers()]
        self.provider = chosen[0] if chosen else "cpu"
        where = f"variant {variant.id}"
        if _EXTERNAL_DATA.search(model):
            raise BundleError(f"{where}: expected one file with all weights, it refers to another; build it again")
        try:
            ort_providers = [PROVIDERS[name] for name in dict.fromkeys([*chosen, "cpu"])]
            self._session = ort.InferenceSession(model, _ort_options(options), providers=ort_providers)
        except ORT_ERRORS as err:
            raise BundleError(f"{where}: onnxruntime {ort.__version__} cannot load it: {one_line(err)}") from err
        if self._session.get_providers()[0] != PROVIDERS[self.provider]:
            raise FatalError(
                f"{where}: asked for {self.provider}, onnxruntime fell back to {self._session.get_providers()[0]}; "
                "install what the provider needs or take it out of runtime.providers"
            )
        shape = [1, variant.input.height, variant.input.width, 3]
        _check_input(self._session.get_inputs(), shape, where)
        shapes = _check_outputs(self._session.get_outputs(), task, where)
        self._input = np.zeros(shape, np.uint8)
        self.input_image: NDArray[np.uint8] = self._input[0]
        self.outputs: Mapping[str, NDArray[Any]] = {
            name: np.zeros(dims, _CANONICAL[task][name].dtype) for name, dims in shapes.items()
        }
        self._binding = self._session.io_binding()
        # On the CPU the OrtValues are these very arrays. Other providers copy an input when it is bound.
        self._rebind = self.provider != "cpu"
        if not self._rebind:
            self._binding.bind_ortvalue_input("image", ort.OrtValue.ortvalue_from_numpy(self._input))
        for name, array in self.outputs.items():
            self._binding.bind_ortvalue_output(name, ort.OrtValue.ortvalue_from_numpy(array))

    def run(self) -> Mapping[str, NDArray[Any]]:
        """Run on what ``input_image`` holds.

        Returns:
            `outputs`: the arrays are the same at each call and hold until the next.

        Raises:
            FatalError: ONNX Runtime failed on a model that it had accepted.
        """
        try:
            if self._rebind:
                self._binding.bind_cpu_input("image", self._input)
            self._session.run_with_iobinding(self._binding)
        except ORT_ERRORS as err:
            raise FatalError(f"inference failed in onnxruntime {ort.__version__}: {one_line(err)}") from err
        return self.outputs


def physical_cores() -> int:
    """Physical cores that this process may use: hyper-threads and cores outside the affinity mask do not count."""
    allowed = len(os.sched_getaffinity(0))
    return max(1, min(psutil.cpu_count(logical=False) or allowed, allowed))


def _ort_options(options: SessionOptions) -> ort.SessionOptions:
    result = ort.SessionOptions()
    result.intra_op_num_threads = options.threads
    result.inter_op_num_threads = 1
    result.log_severity_level = 4  # errors come as exceptions; in its log they would be told twice
    result.add_session_config_entry("session.intra_op.allow_spinning", "1" if options.spinning else "0")
    return result


def _check_input(inputs: list[Any], shape: list[int], where: str) -> None:
    found = ", ".join(f"{arg.name} {arg.type} {arg.shape}" for arg in inputs)
    if [(arg.name, arg.type, arg.shape) for arg in inputs] != [("image", "tensor(uint8)", shape)]:
        raise BundleError(f"{where}: expected one input image tensor(uint8) {shape}, found {found}; build it again")


def _check_outputs(outputs: list[Any], task: Task, where: str) -> dict[str, list[int]]:
    shapes: dict[str, list[int]] = {}
    sizes: dict[str, int] = {}
    for name, (wanted, dtype, optional) in _CANONICAL[task].items():
        found = next((arg for arg in outputs if arg.name == name), None)
        if found is None and optional:
            continue
        if found is None or _NUMPY_TYPES.get(found.type) != dtype or not _fits(found.shape, wanted, sizes):
            told = ", ".join(f"{arg.name} {arg.type} {arg.shape}" for arg in outputs)
            shape = ", ".join(str(sizes.get(str(side), side)) for side in wanted)
            raise BundleError(
                f"{where}: task {task} needs an output {name} {dtype} [{shape}] of fixed sizes; found {told}"
            )
        shapes[name] = list(found.shape)
    return shapes


def _fits(shape: list[Any], wanted: tuple[int | str, ...], sizes: dict[str, int]) -> bool:
    """Whether a shape is the wanted one; sizes that its letters stand for are noted in ``sizes``."""
    if len(shape) != len(wanted) or not all(isinstance(side, int) and side > 0 for side in shape):
        return False
    return all(
        side == (sizes.setdefault(want, side) if isinstance(want, str) else want)
        for side, want in zip(shape, wanted, strict=True)
    )
