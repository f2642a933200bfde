"""ONNX Runtime's wheel writes a device id and a database into the user's cache unless it is told not to."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from subprocess import CompletedProcess

# A model of one Relu, so that the test needs no onnx: IR version 8, opset 13, x float [1] -> y float [1].
RELU = (
    "08083a330a0c0a0178120179220452656c751201675a0f0a0178120a0a08080112040a02"
    "0801620f0a0179120a0a08080112040a02080142040a00100d"
)

INFER = f"""
import numpy as np
session = ort.InferenceSession(bytes.fromhex("{RELU}"), providers=["CPUExecutionProvider"])
assert session.run(None, {{"x": np.array([-1], np.float32)}})[0] == 0
"""


def files_left(fresh_python: Callable[..., CompletedProcess[str]], folder: Path, code: str) -> set[str]:
    """The names of the files that ``code`` leaves in a home, cache and temporary folder that were empty."""
    home = {name: str(folder) for name in ("HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "TMPDIR")}
    fresh_python("-c", code, **home)
    return {file.name for file in folder.rglob("*") if file.is_file()}


def test_inference_through_the_agent_leaves_no_file(
    fresh_python: Callable[..., CompletedProcess[str]], tmp_path: Path
) -> None:
    assert files_left(fresh_python, tmp_path, "from agent.model.runtime import ort" + INFER) == set()


@pytest.mark.skipif(sys.version_info < (3, 11), reason="the onnxruntime of Python 3.10 has no telemetry yet")
def test_inference_without_the_agents_switch_would_leave_one(
    fresh_python: Callable[..., CompletedProcess[str]], tmp_path: Path
) -> None:
    assert "deviceid" in files_left(fresh_python, tmp_path, "import onnxruntime as ort" + INFER)
