"""What the emulated machine is made of is found, made once, and missed with a reason."""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.arm64 import packages, userland
from tests.arm64.packages import UnavailableError, requirements_for

if TYPE_CHECKING:
    from pathlib import Path


def test_a_device_has_what_it_needs_with_its_extras_and_no_others() -> None:
    requires = ["numpy>=1.26", "runtime>=1; 'tegra' not in platform_release", "fastapi>=0.1; extra == 'web'"]
    requires += ["pytest; extra == 'test'", "numpy>=1.26; extra == 'web'"]
    assert requirements_for(requires, ("web",)) == ["fastapi>=0.1", "numpy>=1.26", "runtime>=1"]
    assert requirements_for(requires, ()) == ["numpy>=1.26", "runtime>=1"]


@pytest.mark.parametrize(
    "text",
    [
        "Types: deb\n# http://snapshot/\nURIs: http://mirror/debian\nSuites: bookworm\n",
        "# deb http://old/debian bookworm main\ndeb http://mirror/debian bookworm main\n",
        "deb [arch=amd64 signed-by=/key] http://mirror/debian bookworm main\ndeb http://other/ bookworm main\n",
    ],
)
def test_the_mirror_is_this_machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    (tmp_path / "sources").write_text(text, encoding="utf-8")
    monkeypatch.setattr(packages, "_SOURCES", (tmp_path / "missing", tmp_path / "sources"))
    assert packages.mirror() == "http://mirror/debian"
    monkeypatch.setattr(packages, "_SOURCES", (tmp_path / "missing",))
    with pytest.raises(UnavailableError, match="no Debian mirror is named in"):
        packages.mirror()


def test_a_command_that_fails_is_a_reason_with_its_last_words() -> None:
    code = "import sys; print('first'); sys.exit('no network')"
    with pytest.raises(UnavailableError, match=r"^fetching failed: no network$"):
        packages.run([sys.executable, "-c", code], "fetching")


def test_a_package_is_unpacked_as_it_is_or_in_part(tmp_path: Path) -> None:
    if not shutil.which("dpkg-deb"):
        pytest.skip("needs dpkg-deb")
    source = tmp_path / "source"
    for name in ("usr/bin/tool", "usr/bin/tool2", "usr/share/doc/tool/manual"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(name, encoding="utf-8")
    (source / "usr/bin/tool").chmod(0o755)
    (source / "usr/bin/link").symlink_to("tool")
    (source / "DEBIAN").mkdir()
    (source / "DEBIAN/control").write_text(
        "Package: tool\nVersion: 1\nArchitecture: all\nMaintainer: m <m@m>\nDescription: d\n", encoding="utf-8"
    )
    subprocess.run(["dpkg-deb", "--build", source, tmp_path / "tool.deb"], check=True, capture_output=True, timeout=60)
    packages.unpack(tmp_path / "tool.deb", tmp_path / "most", without=["./usr/share/doc"])
    assert files(tmp_path / "most") == ["usr/bin/link", "usr/bin/tool", "usr/bin/tool2"]
    assert (tmp_path / "most/usr/bin/link").read_text(encoding="utf-8") == "usr/bin/tool"
    assert (tmp_path / "most/usr/bin/tool").stat().st_mode & 0o777 == 0o755
    packages.unpack(tmp_path / "tool.deb", tmp_path / "one", only="./usr/bin/tool")
    assert files(tmp_path / "one") == ["usr/bin/tool"]


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())


def test_what_was_made_is_kept_until_its_inputs_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(userland, "FOLDER", tmp_path)
    made: list[str] = []

    def make(folder: Path) -> None:
        made.append(folder.name)
        (folder / "file").touch()

    first = userland.made("part", make, "input")
    assert userland.made("part", make, "input") == first
    second = userland.made("part", make, "another input")
    assert len(made) == 2
    assert [path.name for path in tmp_path.iterdir()] == [second.name]


def test_what_could_not_be_made_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(userland, "FOLDER", tmp_path)

    def fail(folder: Path) -> None:
        (folder / "half").touch()
        raise UnavailableError("no network")

    with pytest.raises(UnavailableError):
        userland.made("part", fail)
    assert files(userland.made("part", lambda folder: (folder / "whole").touch())) == ["whole"]


def test_a_machine_without_debians_tools_is_told_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(UnavailableError, match=r"missing here: apt-get, dpkg-deb"):
        userland.make_userland()


def test_another_kind_of_machine_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    with pytest.raises(UnavailableError, match="needs an x86-64 Linux machine to emulate ARM64 on, this is aarch64"):
        userland.make_userland()
