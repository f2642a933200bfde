"""What a booted machine is made of: a minimal Debian, and the product's packages as wheels; both kept in a cache."""

from __future__ import annotations

import hashlib
import platform
import shutil
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.requirements import Requirement

from tests.support.booted import CannotBootError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SUITE, SUITE_PYTHON = "bookworm", "3.11"
# The last is what any Debian has that can install packages, and numpy's wheel asks for.
_PACKAGES = ["systemd", "systemd-sysv", "dbus", "python3", "python3-venv", "passwd", "libstdc++6"]
# Without it an essential package of Debian 12 would bring all of Perl, a quarter of everything.
_HOOKS = "/usr/share/mmdebstrap/hooks/merged-usr"
_UNNEEDED = [f"/usr/share/{folder}/*" for folder in ("doc", "info", "locale", "man", "zoneinfo")]
_NEWEST_GLIBC_MINOR = 36  # of that suite: glibc 2.36
_CHECKOUT = Path(__file__).parents[2]


def minimal_debian(cache: Path) -> Path:
    """An archive of a Debian with systemd and Python, and nothing else.

    Raises:
        CannotBootError: it cannot be made, for lack of a network for example.
    """
    command = ["mmdebstrap", "--quiet", "--mode=root", "--variant=essential", f"--include={','.join(_PACKAGES)}"]
    command += [f"--dpkgopt=path-exclude={pattern}" for pattern in _UNNEEDED]
    command += ['--aptopt=APT::Install-Recommends "false"', "--dpkgopt=force-unsafe-io", f"--hook-dir={_HOOKS}"]

    def make(target: Path) -> None:
        settings = target.with_suffix(".conf")
        settings.write_text(_settings_of_apt(), encoding="utf-8")
        _run([*command, f"--aptopt={settings}", "--format=tar", SUITE, str(target)])
        settings.unlink()

    return _cached(cache, "debian", [*command, SUITE, platform.machine()], make)


def wheels(cache: Path, extra: str) -> Path:
    """A folder with all that installing a checkout with ``extra`` needs there, by the versions of constraints.txt.

    Raises:
        CannotBootError: they cannot be had, for lack of a network for example.
    """
    constraints = _CHECKOUT / "constraints.txt"
    needed = [*_requirements(extra), "setuptools"]
    options = ["--only-binary=:all:", f"--python-version={SUITE_PYTHON}", "--implementation=cp"]
    options += [f"--abi={abi}" for abi in (f"cp{SUITE_PYTHON.replace('.', '')}", "abi3", "none")]
    machine = platform.machine()
    versions = [f"manylinux_2_{minor}" for minor in range(_NEWEST_GLIBC_MINOR, 4, -1)]
    options += [f"--platform={name}_{machine}" for name in [*versions, "manylinux2014", "manylinux2010"]]

    def make(target: Path) -> None:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check"]
        _run([*pip, f"--dest={target}", f"--constraint={constraints}", *options, *needed])

    return _cached(cache, "wheels", [constraints.read_text(encoding="utf-8"), *options, *needed], make)


def _requirements(extra: str) -> list[str]:
    """What the package as it is installed here asks for on such a machine."""
    requirements = map(Requirement, metadata.requires("edge-agent") or [])
    wanted = [each for each in requirements if each.marker is None or each.marker.evaluate({"extra": extra})]
    return sorted(f"{each.name}{each.specifier}" for each in wanted)


def _settings_of_apt() -> str:
    """How this machine reaches its archive, as tests/fresh_machine.sh passes it on too."""
    if not shutil.which("apt-config"):
        return ""
    dump = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=True).stdout
    return "".join(f"{line}\n" for line in dump.splitlines() if line.startswith(("Acquire::http", "Acquire::Check-")))


def _cached(cache: Path, name: str, inputs: Sequence[str], make: Callable[[Path], None]) -> Path:
    """``cache/name-DIGEST``, made unless these very inputs made it before; those of other inputs are removed."""
    place = cache / f"{name}-{hashlib.sha256(repr(inputs).encode()).hexdigest()[:16]}"
    if place.exists():
        return place
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="making-", dir=cache) as scratch:
        make(Path(scratch, "result"))
        for former in cache.glob(f"{name}-*"):
            shutil.rmtree(former) if former.is_dir() else former.unlink()
        Path(scratch, "result").rename(place)
    return place


def _run(command: list[str]) -> None:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = " / ".join(done.stderr.strip().splitlines()[-2:])
        raise CannotBootError(f"{Path(command[0]).name} cannot get what a machine is made of: {last}")
