"""What the packaging tests share: the checkout, its files, and interpreters that have imported nothing yet."""

from __future__ import annotations

import os
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import Protocol

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]


class FreshPython(Protocol):
    """Runs a new interpreter in ``cwd`` with ``arguments``; it must exit 0."""

    def __call__(self, *arguments: str, cwd: Path = ..., **environment: str) -> subprocess.CompletedProcess[str]: ...


@pytest.fixture(scope="session")
def checkout() -> Path:
    return CHECKOUT


@pytest.fixture(scope="session")
def project_files() -> list[Path]:
    """Every file of the checkout that ``.gitignore`` does not name; a bare machine has no git to ask."""
    lines = (CHECKOUT / ".gitignore").read_text(encoding="utf-8").split()
    ignored = [".git", *(line.strip("/") for line in lines)]
    files = []
    for folder, subfolders, names in os.walk(CHECKOUT):
        subfolders[:] = [name for name in subfolders if not any(fnmatch(name, pattern) for pattern in ignored)]
        files += [Path(folder, name) for name in names if not any(fnmatch(name, pattern) for pattern in ignored)]
    return files


@pytest.fixture(scope="session")
def fresh_python() -> FreshPython:
    def run(*arguments: str, cwd: Path = CHECKOUT, **environment: str) -> subprocess.CompletedProcess[str]:
        # Without what a coverage run, a shell or a service manager may have put there.
        # CI: onnxruntime keeps quiet where it is set, and the control has to see it talk.
        env = {key: value for key, value in os.environ.items() if not key.startswith(("COV", "PYTHON", "ORT_", "CI"))}
        result = subprocess.run(
            [sys.executable, *arguments],
            cwd=cwd,
            env=env | environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert result.returncode == 0, result.stderr
        return result

    return run
