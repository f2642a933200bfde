"""What is imported when: a device never pays for the build side, and help does not pay for inference."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from subprocess import CompletedProcess

BUILD_SIDE = {"build_models", "onnx", "torch"}
HEAVY = {"amqtt", "cryptography", "cv2", "numpy", "onnxruntime", "paho", "psutil", "pydantic", "yaml"}

# Imports every module below the package argv[1]; prints how many those are and which top-level modules are loaded.
IMPORT_ALL = """
import importlib, json, pkgutil, sys
package = importlib.import_module(sys.argv[1])
names = [module.name for module in pkgutil.walk_packages(package.__path__, package.__name__ + ".")]
for name in names:
    importlib.import_module(name)
print(json.dumps([len(names), sorted({name.partition(".")[0] for name in sys.modules})]))
"""


def test_no_module_of_the_agent_loads_the_build_side(fresh_python: Callable[..., CompletedProcess[str]]) -> None:
    count, loaded = json.loads(fresh_python("-c", IMPORT_ALL, "agent").stdout)
    assert count > 10
    assert not BUILD_SIDE & set(loaded)


def test_a_module_that_does_load_it_would_be_seen(
    fresh_python: Callable[..., CompletedProcess[str]], tmp_path: Path
) -> None:
    (tmp_path / "leaky" / "deep").mkdir(parents=True)
    (tmp_path / "leaky" / "__init__.py").touch()
    (tmp_path / "leaky" / "deep" / "__init__.py").touch()
    (tmp_path / "leaky" / "deep" / "leak.py").write_text("import build_models", encoding="utf-8")
    count, loaded = json.loads(fresh_python("-c", IMPORT_ALL, "leaky", cwd=tmp_path).stdout)
    assert count == 2
    assert BUILD_SIDE & set(loaded) == {"build_models"}


def test_help_imports_nothing_heavy(fresh_python: Callable[..., CompletedProcess[str]]) -> None:
    result = fresh_python("-X", "importtime", "-m", "agent", "--help")
    assert "usage: edge-agent" in result.stdout
    assert not HEAVY & imported(result.stderr)


def test_a_heavy_import_would_be_seen(fresh_python: Callable[..., CompletedProcess[str]]) -> None:
    assert HEAVY & imported(fresh_python("-X", "importtime", "-c", "import yaml").stderr) == {"yaml"}


def imported(importtime: str) -> set[str]:
    """The top-level modules in the output of ``-X importtime``."""
    return {name.partition(".")[0] for name in re.findall(r"^import time:.*\|\s*([\w.]+)$", importtime, re.MULTILINE)}
