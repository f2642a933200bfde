"""The wheel that a device installs: the product and its demo, nothing of the tests."""

from __future__ import annotations

import shutil
import zipfile
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from subprocess import CompletedProcess

# Settings of a linter, and what only the training of the demo model reads.
ONLY_IN_A_CHECKOUT = {
    "agent/ruff.toml",
    *(f"build_models/demo/{name}" for name in ("weights.pt", "training.json", "classifier.pt", "classifier.json")),
    *(f"build_models/demo/{name}" for name in ("segmenter.pt", "segmenter.json")),
}
BUILD = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"


@pytest.fixture(scope="module")
def wheel_names(
    checkout: Path,
    project_files: list[Path],
    fresh_python: Callable[..., CompletedProcess[str]],
    tmp_path_factory: pytest.TempPathFactory,
) -> set[str]:
    """What is in a wheel built from a copy of the project's files: a ``build/`` of the checkout may hold stale ones."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for file in project_files:
        copy = source / file.relative_to(checkout)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, copy)
    fresh_python("-c", BUILD, str(target), cwd=source)
    (wheel,) = target.glob("edge_agent-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_every_file_of_the_product_is_in_the_wheel(
    wheel_names: set[str], checkout: Path, project_files: list[Path]
) -> None:
    names = {file.relative_to(checkout).as_posix() for file in project_files}
    product = {name for name in names if name.startswith(("agent/", "build_models/"))} - ONLY_IN_A_CHECKOUT
    product = {name for name in product if not name.startswith("agent/demo/bundles/areas/")}
    assert product - wheel_names == set()


def test_the_demo_is_in_the_wheel(wheel_names: set[str]) -> None:
    assert "agent/demo/bundles/shapes/manifest.json" in wheel_names
    assert "agent/demo/bundles/shapes/manifest.sig" in wheel_names
    assert "agent/demo/bundles/kinds/manifest.json" in wheel_names
    assert not [name for name in wheel_names if "/areas/" in name], "too large for every device; a checkout has it"
    assert "agent/web/static/index.html" in wheel_names
    suffixes = {name.rpartition(".")[2] for name in wheel_names if name.startswith("agent/demo/")}
    assert {"yaml", "pem", "onnx", "npz"} <= suffixes


def test_nothing_else_is_in_the_wheel(wheel_names: set[str]) -> None:
    tops = {name.partition("/")[0] for name in wheel_names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"agent", "build_models"}


def test_the_licence_is_in_the_wheel(wheel_names: set[str]) -> None:
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in wheel_names)
