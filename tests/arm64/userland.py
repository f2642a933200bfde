"""An ARM64 machine made of files: an emulator, Debian's Python, and the wheels that a device would install.

Everything lies below ``out/arm64`` and is made once for its inputs. Nothing is installed, mounted or registered, and no
rights are needed. Debian 12's own emulator, qemu 7.2, crashes when onnxruntime is imported, hence the backported one.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import requires
from pathlib import Path
from typing import TYPE_CHECKING

from tests.arm64 import packages
from tests.arm64.packages import Apt, UnavailableError, requirements_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CHECKOUT = Path(__file__).resolve().parents[2]
FOLDER = CHECKOUT / "out" / "arm64"
SUITE, PYTHON = "bookworm", "3.11"
EXTRAS = ("web",)
_CONSTRAINTS = CHECKOUT / "constraints.txt"
_BUILDERS = ["setuptools>=77"]  # what the image's build needs beyond what the image holds
_LEFT_OUT = ("./usr/share/doc", "./usr/share/man", "./usr/share/locale", "./usr/lib/aarch64-linux-gnu/gconv")


@dataclass(frozen=True)
class Userland:
    """Where the parts lie.

    Attributes:
        emulator: qemu's program for ARM64 processes.
        root: Debian's files for ARM64.
        wheels: the wheels as downloaded.
        site: the same, installed.
    """

    emulator: Path
    root: Path
    wheels: Path
    site: Path

    def command(self, *arguments: str) -> list[str]:
        """An ARM64 Python that finds no packages but those on PYTHONPATH."""
        return [str(self.emulator), "-L", str(self.root), f"{self.root}/usr/bin/python{PYTHON}", "-S", *arguments]

    def environment(self, cpu: str, home: Path) -> dict[str, str]:
        """Nothing of this process's own: an emulated CPU, a home, and where modules are found."""
        homes = ("HOME", "TMPDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME")
        return {
            "QEMU_CPU": cpu,
            "PYTHONPATH": os.pathsep.join(map(str, (self.site, CHECKOUT))),
            "PYTHONPYCACHEPREFIX": str(self.site / ".compiled"),  # compiling is what an emulator takes longest for
            "LANG": "C.UTF-8",
            **dict.fromkeys(homes, str(home)),
        }


def make_userland() -> Userland:
    """Make what is missing of it; at once when nothing is.

    Raises:
        UnavailableError: it cannot be made here.
    """
    _check_machine()
    with locked():
        wheels = made("wheels", _wheels, *device_requirements(), _CONSTRAINTS.read_text(encoding="utf-8"))
        return Userland(
            emulator=made("qemu", _qemu) / "usr/bin/qemu-aarch64",
            root=made("root", _root),
            wheels=wheels,
            site=made("site", lambda folder: _site(wheels, folder), wheels.name),
        )


def emulator_version(emulator: Path) -> str:
    """Such as ``10.0.2``."""
    told = subprocess.run([emulator, "--version"], capture_output=True, text=True, check=True, timeout=60).stdout
    found = re.search(r"version (\S+)", told)
    return found[1] if found else "unknown"


def device_requirements() -> list[str]:
    """What a device with the web API installs."""
    return requirements_for(requires("edge-agent") or [], EXTRAS)


@contextmanager
def locked(name: str = "lock") -> Iterator[None]:
    """One test run at a time makes something below `FOLDER`, or uses it; not to be nested."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / name).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def made(name: str, make: Callable[[Path], None], *inputs: str) -> Path:
    """The folder for these inputs; made beside its place and moved there when it is whole. An older one goes."""
    recipes = [Path(module).read_text(encoding="utf-8") for module in (__file__, packages.__file__)]
    digest = hashlib.sha256("\0".join([*recipes, *inputs]).encode()).hexdigest()[:12]
    folder = FOLDER / f"{name}-{digest}"
    if not folder.exists():
        for old in FOLDER.glob(f"{name}-*"):
            shutil.rmtree(old)
        partial = FOLDER / f"{name}-partial"
        partial.mkdir()
        make(partial)
        partial.rename(folder)
    return folder


def _check_machine() -> None:
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        raise UnavailableError(f"needs an x86-64 Linux machine to emulate ARM64 on, this is {platform.machine()}")
    missing = [tool for tool in ("apt-get", "dpkg-deb") if not shutil.which(tool)]
    missing += [] if packages.KEYRING.exists() else [str(packages.KEYRING)]
    if missing:
        raise UnavailableError(f"needs Debian's packages for ARM64; missing here: {', '.join(missing)}")


def _qemu(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        apt = Apt(Path(scratch), f"{SUITE}-backports", "amd64")
        (package,) = apt.download("qemu-user", dependencies=False)
        packages.unpack(package, folder, only="./usr/bin/qemu-aarch64")


def _root(folder: Path) -> None:
    for name in ("bin", "lib", "sbin"):
        (folder / "usr" / name).mkdir(parents=True)
        (folder / name).symlink_to(f"usr/{name}")
    with tempfile.TemporaryDirectory() as scratch:
        for package in Apt(Path(scratch), SUITE, "arm64").download("python3", "libstdc++6", dependencies=True):
            packages.unpack(package, folder, without=_LEFT_OUT)


def _wheels(folder: Path) -> None:
    packages.download_wheels(folder, PYTHON, [*device_requirements(), *_BUILDERS], _CONSTRAINTS)


def _site(wheels: Path, folder: Path) -> None:
    packages.install_wheels(wheels, folder, PYTHON, device_requirements())
