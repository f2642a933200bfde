"""The real models and pictures: beside the checkout, or where ``EDGE_AGENT_REALDATA`` says."""

from __future__ import annotations

import os
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Built:
    """A bundle made from a real model, and the key that devices need for it."""

    bundle: Path
    public_key: Path


@pytest.fixture(scope="session")
def yolox_bundle(realdata: Path, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """yolox-nano, imported with the command that a user would type; takes about half a minute."""
    from build_models.__main__ import main

    folder = tmp_path_factory.mktemp("yolox")
    assert main(["keygen", str(folder / "key")]) == 0
    pictures = realdata / "data-coco-mini" / "images" / "train2017"
    arguments = ["--family", "yolox", "--labels", "coco", "--pictures", str(pictures)]
    arguments += ["--key", str(folder / "key.private.pem"), "--out", str(folder / "bundle")]
    assert main(["import", str(realdata / "det-yolox-nano" / "yolox_nano.onnx"), *arguments]) == 0
    return Built(folder / "bundle", folder / "key.public.pem")
