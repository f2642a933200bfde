"""The unit is sound and hardened, as systemd itself judges a file."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

UNIT = Path(__file__).parents[2] / "systemd" / "edge-agent.service"
MOST_EXPOSURE = 2.0

pytestmark = [
    pytest.mark.systemd,
    pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed: no systemd-analyze"),
]


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = ["systemd-analyze", "--no-pager", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def verify(folder: Path, text: str) -> str:
    """What ``systemd-analyze verify`` says of a unit whose program exists here."""
    program = re.sub(r"^ExecStart=\S+", "ExecStart=/bin/sh", text, flags=re.MULTILINE)
    path = folder / UNIT.name
    path.write_text(program, encoding="utf-8")
    result = analyze("verify", path)
    return f"{result.stdout}{result.stderr}".strip()


def exposure(path: Path) -> tuple[int, float]:
    """Exit code under the threshold, and the overall exposure: 0 is best, 10 worst."""
    result = analyze("security", "--offline=true", f"--threshold={MOST_EXPOSURE * 10:.0f}", path)
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", result.stdout)
    assert found, result.stderr
    return result.returncode, float(found[1])


def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    assert verify(tmp_path, UNIT.read_text(encoding="utf-8")) == ""


def test_a_wrong_key_would_be_found(tmp_path: Path) -> None:
    text = UNIT.read_text(encoding="utf-8")
    assert "NoNewPrivilege" in verify(tmp_path, text.replace("NoNewPrivileges=", "NoNewPrivilege="))


def test_its_exposure_is_at_most_two_with_camera_devices_allowed() -> None:
    text = UNIT.read_text(encoding="utf-8")
    assert {"char-video4linux", "char-media", "char-drm"} <= set(
        re.findall(r"^DeviceAllow=(\S+) rw", text, re.MULTILINE)
    )
    code, level = exposure(UNIT)
    print(f"exposure {level} of 10, at most {MOST_EXPOSURE} is allowed")
    assert (code, level <= MOST_EXPOSURE) == (0, True)


def test_a_unit_without_its_sandbox_would_not_pass(tmp_path: Path) -> None:
    lines = UNIT.read_text(encoding="utf-8").splitlines()
    open_unit = tmp_path / UNIT.name
    open_unit.write_text("\n".join(line for line in lines if not line.startswith(("Protect", "Restrict", "System"))))
    code, level = exposure(open_unit)
    assert (code, level > MOST_EXPOSURE) == (1, True)


def test_what_a_new_start_cannot_mend_is_not_started_again() -> None:
    """2 and 3 are the exit codes of ConfigError and BundleError."""
    from agent.errors import BundleError, ConfigError

    (codes,) = re.findall(r"^RestartPreventExitStatus=(.*)$", UNIT.read_text(encoding="utf-8"), re.MULTILINE)
    assert {int(code) for code in codes.split()} == {ConfigError.exit_code, BundleError.exit_code}
