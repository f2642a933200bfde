"""The one door to ONNX Runtime: its wheel phones home unless telemetry is switched off before the import."""

from __future__ import annotations

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as _state

# ONNX Runtime's own errors share no base class but Exception, and some calls raise a plain RuntimeError instead.
ORT_ERRORS: tuple[type[Exception], ...] = (
    RuntimeError,
    *(value for value in vars(_state).values() if isinstance(value, type) and issubclass(value, Exception)),
)

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}

__all__ = ["ORT_ERRORS", "PROVIDERS", "available_providers", "ort"]


def available_providers() -> list[str]:
    """Our names of the execution providers in the installed ONNX Runtime."""
    installed = set(ort.get_available_providers())
    return [name for name, ort_name in PROVIDERS.items() if ort_name in installed]
