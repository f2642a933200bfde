"""The image: built from Dockerfile.arm64 without a registry, and run as on a Pi under emulation.

Images lie in ``out/arm64/containers``; containers, mounts and processes end with the `Workshop`, however that ends.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.arm64.packages import UnavailableError, apt_settings, mirror
from tests.arm64.userland import CHECKOUT, FOLDER, SUITE, Userland, locked

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

IMAGE = "localhost/edge-agent"
STATE = "/var/lib/edge-agent"
# What .dockerignore lets through, and what decides how it is put together.
INPUTS = ("Dockerfile.arm64", ".dockerignore", "LICENSE", "README.md", "constraints.txt", "pyproject.toml", "agent")
_BASE = "localhost/edge-agent-base"
_PARTS = "localhost/edge-agent-parts"
_TOOLS = ("buildah", "podman", "crun", "mmdebstrap", "nsenter", "unshare")
_BUILD_LIMIT_S = 1200
_CPU = "cortex-a72"
_MMDEBSTRAP = [
    *("mmdebstrap", "--quiet", "--mode=root", "--variant=apt", "--dpkgopt=force-unsafe-io"),
    *(f"--dpkgopt=path-exclude=/usr/share/{folder}/*" for folder in ("doc", "man", "locale")),
    *("--dpkgopt=path-include=/usr/share/doc/*/copyright", '--customize-hook=rm -f "$1/etc/apt/sources.list"'),
]


@dataclass(frozen=True)
class Image:
    """What was built: its name, what podman says of it, and how long building took (0: it was there)."""

    name: str
    facts: dict[str, Any]
    build_s: float

    @property
    def megabytes(self) -> float:
        """Unpacked."""
        return float(self.facts["Size"]) / 1e6


class Workshop:
    """Runs buildah and podman where ARM64 programs can run; ``pid`` is whose namespaces that is."""

    def __init__(self, pid: int, scratch: Path) -> None:
        self.pid = pid
        self._enter = ["nsenter", f"--target={pid}", "--mount", "--pid", "--"]
        self._storage = ["--root", str(FOLDER / "containers"), "--runroot", str(scratch / "run")]
        self._storage += ["--storage-driver", "overlay"]
        self._tmp = str(scratch / "tmp")

    def podman(self, *arguments: str, check: bool = True, timeout_s: float = 300) -> subprocess.CompletedProcess[str]:
        """Run podman to its end; with ``check`` it must exit 0."""
        options = ["--tmpdir", self._tmp, "--cgroup-manager", "cgroupfs", "--events-backend", "none"]
        return self._call(["podman", *self._storage, *options, *arguments], check=check, timeout_s=timeout_s)

    def buildah(self, *arguments: str, check: bool = True) -> str:
        """Run buildah to its end; returns what it printed."""
        return self._call(["buildah", *self._storage, *arguments], check=check, timeout_s=_BUILD_LIMIT_S).stdout.strip()

    def forget_containers(self) -> None:
        """Those of a run that was killed: podman would expect them where that run had them."""
        shutil.rmtree(FOLDER / "containers" / "libpod", ignore_errors=True)
        self.podman("rm", "--all", "--force")
        self.buildah("rm", "--all")

    def run_options(self) -> list[str]:
        """For ``podman run``: as the image's documentation says, on a Pi 4's CPU and this machine's network."""
        limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096"]  # not more than we may have here
        platform = ["--platform", "linux/arm64", "--pull", "never", "--env", f"QEMU_CPU={_CPU}"]
        return [*platform, *limits, "--network", "host", "--cgroups", "disabled", "--read-only", "--tmpfs", "/tmp"]  # noqa: S108

    def shell(self, image: Image, script: str, *options: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """A shell script in a container of its own."""
        command = ["run", "--rm", *self.run_options(), *options, "--entrypoint", "sh", image.name, "-c", script]
        return self.podman(*command, check=check)

    def _call(self, command: Sequence[str], *, check: bool, timeout_s: float) -> subprocess.CompletedProcess[str]:
        # There is no systemd here that could call a health check from time to time.
        environment = {**os.environ, "DISABLE_HC_SYSTEMD": "true", "BUILDAH_ISOLATION": "chroot"}
        done = subprocess.run(
            [*self._enter, *command],
            env=environment,
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        if check:
            assert done.returncode == 0, f"{' '.join(command)}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done


@contextmanager
def workshop(userland: Userland) -> Iterator[Workshop]:
    """Where images are built and run.

    Raises:
        UnavailableError: not on this machine.
    """
    if os.geteuid() != 0:
        raise UnavailableError("needs root: it builds an image and runs it")
    missing = [tool for tool in _TOOLS if not shutil.which(tool)]
    if missing:
        raise UnavailableError(f"not installed: {', '.join(missing)}")
    command = ["sh", str(CHECKOUT / "tests/arm64/emulated.sh"), str(userland.emulator)]
    with (
        locked("containers.lock"),
        tempfile.TemporaryDirectory(prefix="edge-agent-image-") as scratch,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder,
    ):
        assert holder.stdin is not None
        assert holder.stdout is not None
        try:
            word, _, pid = holder.stdout.readline().partition(" ")
            if word != "ready":
                raise UnavailableError("the kernel takes no emulator (binfmt_misc), or makes no namespaces")
            shop = Workshop(int(pid), Path(scratch))
            shop.forget_containers()
            yield shop
        finally:
            holder.stdin.close()
            holder.wait(60)


def build(shop: Workshop, userland: Userland, context: Path = CHECKOUT) -> Image:
    """The image of a checkout; at once when nothing that goes into it has changed.

    Raises:
        UnavailableError: the base cannot be had, for lack of a network for example.
    """
    base = _base(shop)
    name = f"{IMAGE}:{_digest(context, base, userland.wheels.name)}"
    started_s = time.monotonic()
    is_known = _exists(shop, name)
    if not is_known:
        _build(shop, userland, context, base, name)
    facts = json.loads(shop.podman("image", "inspect", name).stdout)[0]
    return Image(name, facts, 0.0 if is_known else round(time.monotonic() - started_s, 1))


def _build(shop: Workshop, userland: Userland, context: Path, base: str, name: str) -> None:
    with tempfile.TemporaryDirectory() as settings:
        mounts = {
            "/etc/apt/sources.list": f"deb {mirror()} {SUITE} main\n",
            "/etc/apt/apt.conf.d/99host": apt_settings(),
            "/etc/pip.conf": "[global]\nno-index = true\nfind-links = /wheels\n",
        }
        volumes = [f"--volume={userland.wheels}:/wheels:ro"]
        for place, text in mounts.items():
            file = Path(settings, Path(place).name)
            file.write_text(text, encoding="utf-8")
            volumes.append(f"--volume={file}:{place}:ro")
        # Docker says by itself what the building machine is, this buildah does not.
        arguments = [f"--build-arg=BASE_IMAGE={base}", "--build-arg=BUILDPLATFORM=linux/amd64"]
        arguments += ["--platform=linux/arm64", "--format=docker", "--layers", "--pull-never", *volumes]
        arguments += ["--file", str(context / "Dockerfile.arm64")]
        former = [tag for tag in shop.buildah("images", "--format={{.Name}}:{{.Tag}}").split() if _is_former(tag, base)]
        # The parts have a name too, so that they are kept for the next build.
        shop.buildah("bud", *arguments, "--target=parts", f"--tag={_PARTS}:latest", str(context))
        shop.buildah("bud", *arguments, f"--tag={name}", str(context))
        if former:
            shop.buildah("rmi", "--force", *former)
        shop.buildah("rmi", "--prune")


def _base(shop: Workshop) -> str:
    """The name of a minimal Debian of this machine's kind, as Docker's ``debian:bookworm-slim`` is one."""
    name = f"{_BASE}:{hashlib.sha256(repr((_MMDEBSTRAP, SUITE)).encode()).hexdigest()[:12]}"
    if not _exists(shop, name):
        with tempfile.TemporaryDirectory() as folder:
            archive, settings = Path(folder, "base.tar"), Path(folder, "apt.conf")
            settings.write_text(apt_settings(), encoding="utf-8")
            source = f"deb {mirror()} {SUITE} main"
            command = [*_MMDEBSTRAP, f"--aptopt={settings}", SUITE, str(archive), source]
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_BUILD_LIMIT_S)
            if done.returncode:
                last = (done.stderr.strip().splitlines() or ["no message"])[-1]
                raise UnavailableError(f"a minimal Debian cannot be made: {last}")
            container = shop.buildah("from", "scratch")
            shop.buildah("add", "--quiet", container, str(archive), "/")
            path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
            shop.buildah("config", f"--env=PATH={path}", container)
            shop.buildah("commit", "--quiet", "--rm", container, name)
    return name


def _exists(shop: Workshop, name: str) -> bool:
    return bool(shop.buildah("images", "--quiet", "--filter", f"reference={name}", check=False))


def _is_former(tag: str, base: str) -> bool:
    return tag != base and tag.startswith((f"{IMAGE}:", f"{_BASE}:"))


def _digest(context: Path, *others: str) -> str:
    """Of everything that the image is made of."""
    digest = hashlib.sha256(repr(others).encode())
    for name in INPUTS:
        place = context / name
        for file in sorted(place.rglob("*")) if place.is_dir() else [place]:
            if file.is_file() and "__pycache__" not in file.parts:
                digest.update(f"{file.relative_to(context)}\0{file.stat().st_mode}\0".encode())
                digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:12]
