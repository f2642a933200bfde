"""The one door to ONNX Runtime: its wheel phones home unless telemetry is switched off before the import."""

from __future__ import annotations

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime as ort

__all__ = ["ort"]
