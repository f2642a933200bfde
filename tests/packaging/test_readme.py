"""The README says what is true: its layout names every module once, its links lead somewhere, its commands exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def layout_entries(text: str) -> dict[str, str]:
    """Path to description, from the code block of the layout: ``agent/app.py   what it is``."""
    block = text.split("<!-- layout -->", 1)[1].split("```", 2)[1]
    entries = {}
    for line in block.splitlines():
        found = re.fullmatch(r"(\S+)\s{2,}(\S.*)", line)
        if found:
            entries[found[1]] = found[2]
    return entries


def modules() -> set[str]:
    """Every Python module with code in it; a package's ``__init__`` only names the package."""
    files = {path for package in ("agent", "build_models", "benchmarks") for path in (ROOT / package).rglob("*.py")}
    return {path.relative_to(ROOT).as_posix() for path in files if path.name != "__init__.py"}


def test_the_layout_gives_every_module_one_line() -> None:
    """A file that is new, moved or deleted changes the README in the same commit."""
    listed = {path for path in layout_entries(README) if path.endswith(".py")}
    assert modules() - listed == set(), "missing in the README"
    assert listed - modules() == set(), "in the README but gone"


def test_the_layout_check_can_fail() -> None:
    """The control: an entry that is taken out is missed."""
    without = "\n".join(line for line in README.splitlines() if not line.startswith("agent/pipeline.py "))
    assert "agent/pipeline.py" not in layout_entries(without)
    assert "agent/pipeline.py" in layout_entries(README)


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([^)#:]+)\)", README))))
def test_links_lead_to_files(target: str) -> None:
    """Every relative link and picture is in the checkout."""
    assert (ROOT / target).exists()


@pytest.mark.parametrize("command", sorted(set(re.findall(r"^(edge-agent (?:\w+ )?\w+)", README, re.MULTILINE))))
def test_commands_exist(command: str) -> None:
    """Every edge-agent command in the README is one that the parser knows."""
    words = [word for word in command.split()[1:] if word in ("run", "demo", "model", "inspect", "config", "check")]
    called = [sys.executable, "-m", "agent", *words, "--help"]
    assert subprocess.run(called, capture_output=True, check=False, cwd=ROOT).returncode == 0
