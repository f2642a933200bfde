"""A benchmark's child process: one contender in the runtime it is made for, a round whenever it is asked for one.

It imports that runtime alone, so that its memory is what this contender costs. Threads are as many as told; nobody
busy-waits between two runs.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from agent.errors import EdgeAgentError
from agent.model.timed_child import serve_rounds

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    Job = Mapping[str, Any]
    Runner = tuple[Callable[[], object], dict[str, Any]]

_NUMPY = {"float": "float32", "double": "float64"}


def main(arguments: Sequence[str]) -> int:
    """Load, warm up, then a round per line of standard input."""
    job = json.loads(arguments[0])
    try:
        run, facts = RUNNERS[job["runner"]](job)
    except EdgeAgentError as err:
        sys.stderr.write(f"{err}\n")
        return err.exit_code
    serve_rounds(run, job["round_s"], facts)
    return 0


def _session(job: Job) -> Runner:
    """A bundle's variant in the device's own session: input and outputs bound."""
    from agent.model.manifest import Variant
    from agent.model.runtime import ort
    from agent.model.session import Session, SessionOptions

    variant = Variant.model_validate_json(json.dumps(job["variant"]))
    session = Session(Path(job["model"]).read_bytes(), job["task"], variant, SessionOptions(threads=job["threads"]))
    session.input_image[:] = _noise("uint8", session.input_image.shape)
    height, width = session.input_image.shape[:2]
    return session.run, {"input": f"image uint8[1,{height},{width},3]", "versions": {"onnxruntime": ort.__version__}}


def _onnxruntime(job: Job) -> Runner:
    """Any ONNX file as most programs run it: defaults, but as many threads as told and no spinning."""
    from agent.model.runtime import ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = job["threads"]
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = ort.InferenceSession(job["model"], options, providers=["CPUExecutionProvider"])
    feed = {}
    for value in session.get_inputs():
        kind = value.type.removeprefix("tensor(").removesuffix(")")
        feed[value.name] = _noise(_NUMPY.get(kind, kind), job["shapes"].get(value.name, value.shape))
    return lambda: session.run(None, feed), {"input": _said(feed), "versions": {"onnxruntime": ort.__version__}}


def _torch(job: Job) -> Runner:
    """The module itself, eagerly."""
    import importlib

    import torch

    torch.set_num_threads(job["threads"])
    torch.set_num_interop_threads(1)
    sys.path.insert(0, job["python_path"])
    module_name, _, function_name = job["callable"].partition(":")
    module = getattr(importlib.import_module(module_name), function_name)(**job["kwargs"])
    if job["weights"]:
        module.load_state_dict(torch.load(job["weights"], map_location="cpu", weights_only=True))
    module = module.eval().cpu().float()
    ((name, shape),) = job["shapes"].items()
    array = _noise("float32", shape)
    picture = torch.from_numpy(array)

    def run() -> None:
        with torch.inference_mode():
            module(picture)

    return run, {"input": _said({name: array}), "versions": {"torch": str(torch.__version__)}}


def _openvino(job: Job) -> Runner:
    """The ONNX file as OpenVINO compiles it for one stream."""
    import importlib

    openvino = importlib.import_module("openvino")  # optional, and in no extra of ours
    core = openvino.Core()
    model = core.read_model(job["model"])
    if job["shapes"]:
        model.reshape({name: list(shape) for name, shape in job["shapes"].items()})
    settings = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": "1", "INFERENCE_NUM_THREADS": str(job["threads"])}
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    feed = {
        port.any_name: _noise(np.dtype(port.element_type.to_dtype()).name, list(port.shape)) for port in model.inputs
    }
    version = str(openvino.__version__).partition("-")[0]
    return lambda: request.infer(feed), {"input": _said(feed), "versions": {"openvino": version}}


RUNNERS: Mapping[str, Callable[[Job], Runner]] = {
    "session": _session,
    "onnxruntime": _onnxruntime,
    "torch": _torch,
    "openvino": _openvino,
}


def _noise(dtype: str, shape: Sequence[int]) -> NDArray[Any]:
    """Bytes 0..255, floats 0..1, other integers 0 and 1."""
    rng = np.random.default_rng(0)
    if dtype.startswith("float"):
        return rng.random(shape).astype(dtype)
    return rng.integers(0, 256 if dtype == "uint8" else 2, shape).astype(dtype)


def _said(feed: Mapping[str, NDArray[Any]]) -> str:
    return ", ".join(f"{name} {array.dtype.name}[{','.join(map(str, array.shape))}]" for name, array in feed.items())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
