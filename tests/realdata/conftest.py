"""The real models and pictures: beside the checkout, or where ``EDGE_AGENT_REALDATA`` says."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

BESIDE_THE_CHECKOUT = Path(__file__).parents[3] / "shared" / "realdata"


@pytest.fixture(scope="session")
def realdata() -> Path:
    """The folder with the real data; a test that asks for it is skipped where there is none."""
    folder = Path(os.environ.get("EDGE_AGENT_REALDATA") or BESIDE_THE_CHECKOUT)
    if not folder.is_dir():
        pytest.skip("needs the real models and pictures (EDGE_AGENT_REALDATA)")
    return folder
