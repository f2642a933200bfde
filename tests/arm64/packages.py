"""Files for ARM64 from the places that this machine gets its own from: Debian's packages by apt, Python's by pip.

Neither is installed here: apt works with lists of its own in a folder, and without rights.
"""

from __future__ import annotations

import getpass
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.requirements import Requirement

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_SOURCES = (Path("/etc/apt/sources.list.d/debian.sources"), Path("/etc/apt/sources.list"))
_MIRROR = re.compile(r"^(?:URIs:|deb(?:\s+\[[^]]*\])?)\s+(\S+)", re.MULTILINE)
_GLIBC = ("2_28", "2_27", "2_17")  # what a wheel may ask for; bookworm has 2.36
_LIMIT_S = 600


class UnavailableError(Exception):
    """This machine cannot have what is wanted; the message says what is missing."""


class Apt:
    """One suite for one architecture, with lists of its own in a folder."""

    def __init__(self, folder: Path, suite: str, architecture: str) -> None:
        self._folder = folder
        for part in ("lists/partial", "archives/partial", "etc"):
            (folder / part).mkdir(parents=True)
        source = f"deb [arch={architecture} signed-by={KEYRING}] {mirror()} {suite} main\n"
        (folder / "etc/sources.list").write_text(source, encoding="utf-8")
        (folder / "status").touch()
        settings = {
            "APT::Architecture": architecture,
            "APT::Architectures::": architecture,
            "APT::Sandbox::User": getpass.getuser(),
            "APT::Install-Recommends": "false",
            "Debug::NoLocking": "true",
            "Dir::Etc::sourcelist": folder / "etc/sources.list",
            "Dir::Etc::sourceparts": "-",
            "Dir::State": folder,
            "Dir::State::status": folder / "status",
            "Dir::State::lists": folder / "lists",
            "Dir::Cache": folder,
        }
        options = [f"-o{name}={value}" for name, value in settings.items()]
        self._apt = ["apt-get", "-qq", *options]
        run([*self._apt, "update"], f"reading the package lists of {suite} for {architecture}")

    def download(self, *packages: str, dependencies: bool) -> list[Path]:
        """The packages' files, with all that they depend on or alone."""
        if dependencies:
            run([*self._apt, "-y", "install", "--download-only", *packages], f"downloading {', '.join(packages)}")
        else:
            command = [*self._apt, "download", *packages]
            run(command, f"downloading {', '.join(packages)}", folder=self._folder / "archives")
        return sorted((self._folder / "archives").glob("*.deb"))


def unpack(package: Path, folder: Path, *, only: str = "", without: Iterable[str] = ()) -> None:
    """The files of a package, as they are: no maintainer script runs.

    Args:
        package: a ``.deb`` file.
        folder: where to; links to folders there are followed, as in Debian's merged /usr.
        only: nothing but this file, such as ``./usr/bin/env``.
        without: beginnings of names to leave out.
    """
    skipped = tuple(without)
    with tempfile.TemporaryFile() as file:
        subprocess.run(["dpkg-deb", "--fsys-tarfile", package], stdout=file, check=True, timeout=_LIMIT_S)
        file.seek(0)
        with tarfile.open(fileobj=file) as archive:
            for member in archive:
                if only in ("", member.name) and not member.name.startswith(skipped) and not member.isdev():
                    _put(archive, member, folder)


def _put(archive: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> None:
    place = folder / member.name
    if member.isdir():
        place.mkdir(parents=True, exist_ok=True)
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    if member.issym():
        place.unlink(missing_ok=True)
        place.symlink_to(member.linkname)
    elif member.islnk():
        place.unlink(missing_ok=True)
        place.hardlink_to(folder / member.linkname)
    else:
        content = archive.extractfile(member)
        assert content is not None
        with place.open("wb") as file:
            shutil.copyfileobj(content, file)
        place.chmod(member.mode)


def download_wheels(folder: Path, python: str, requirements: Sequence[str], constraints: Path) -> None:
    """The wheels for ARM64 Linux and a Python such as ``3.11``, with all that they depend on."""
    run([*_pip("download", python), "--dest", folder, "--constraint", constraints, *requirements], "downloading wheels")


def install_wheels(wheels: Path, folder: Path, python: str, requirements: Sequence[str]) -> None:
    """Unpack downloaded wheels as an installation would have them."""
    places = ["--no-index", "--no-compile", f"--find-links={wheels}", f"--target={folder}"]
    run([*_pip("install", python), *places, *requirements], "unpacking wheels")


def requirements_for(requires: Iterable[str], extras: Iterable[str]) -> list[str]:
    """A distribution's requirements with these extras, without their conditions: all that hold for a Pi."""
    kept = []
    for each in map(Requirement, requires):
        wanted = each.marker is None or any(each.marker.evaluate({"extra": extra}) for extra in ("", *extras))
        kept += [f"{each.name}{each.specifier}"] if wanted else []
    return sorted(set(kept))


def mirror() -> str:
    """Where this machine gets Debian's packages from."""
    for file in _SOURCES:
        found = _MIRROR.search(file.read_text(encoding="utf-8")) if file.exists() else None
        if found:
            return found[1]
    raise UnavailableError(f"no Debian mirror is named in {' or '.join(map(str, _SOURCES))}")


def apt_settings() -> str:
    """How this machine reaches its mirror, for an apt elsewhere."""
    told = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=True, timeout=_LIMIT_S).stdout
    kept = ("Acquire::http", "Acquire::Check-")
    return "".join(f"{line}\n" for line in told.splitlines() if line.startswith(kept))


def run(command: Sequence[str | Path], what: str, folder: Path | None = None) -> None:
    """Run a command that may need the network.

    Raises:
        UnavailableError: it failed; the message has the last line that it said.
    """
    try:
        done = subprocess.run(
            [str(each) for each in command], cwd=folder, capture_output=True, text=True, check=False, timeout=_LIMIT_S
        )
    except subprocess.TimeoutExpired as err:
        raise UnavailableError(f"{what} did not end within {_LIMIT_S} s") from err
    if done.returncode:
        last = ((done.stdout + done.stderr).strip().splitlines() or ["no message"])[-1]
        raise UnavailableError(f"{what} failed: {last[:500]}")


def _pip(command: str, python: str) -> list[str]:
    platforms = [f"--platform=manylinux_{version}_aarch64" for version in _GLIBC] + ["--platform=manylinux2014_aarch64"]
    abis = [f"--abi={abi}" for abi in (f"cp{python.replace('.', '')}", "abi3", "none")]
    target = ["--implementation=cp", f"--python-version={python}", *platforms, *abis, "--only-binary=:all:"]
    return [sys.executable, "-m", "pip", command, "--quiet", "--no-input", "--disable-pip-version-check", *target]
