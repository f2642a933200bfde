from __future__ import annotations

import os
from typing import TYPE_CHECKING

from agent.model import runtime

if TYPE_CHECKING:
    import pytest


def test_telemetry_is_off() -> None:
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"


def test_providers_have_our_names(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "cpu" in runtime.available_providers()
    installed = ["TensorrtExecutionProvider", "AzureExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(runtime.ort, "get_available_providers", lambda: installed)
    assert runtime.available_providers() == ["cpu", "tensorrt"]
