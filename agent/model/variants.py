"""Which variant of a bundle this machine runs, and why the others do not."""

from __future__ import annotations

import platform
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from agent.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.model.manifest import Manifest, Variant

_CPUINFO = Path("/proc/cpuinfo")
_ARCHITECTURES = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}


@dataclass(frozen=True)
class Device:
    """What a machine offers: architecture, CPU features as the kernel names them, ONNX Runtime and its providers."""

    arch: str
    cpu_features: frozenset[str]
    cpu_name: str
    onnxruntime: str
    providers: tuple[str, ...]


def this_device(onnxruntime_version: str, providers: Sequence[str]) -> Device:
    """Describe this machine; ``providers``: those that are installed and allowed by the config, preferred first."""
    features, name = parse_cpuinfo(_cpuinfo())
    machine = platform.machine().lower()
    return Device(_ARCHITECTURES.get(machine, machine), features, name, onnxruntime_version, tuple(providers))


def choose_variant(manifest: Manifest, device: Device, wanted: str = "auto") -> Variant:
    """The variant for the device's most preferred provider; of several, the first in the manifest's order.

    Args:
        manifest: a verified manifest.
        device: what this machine offers.
        wanted: "auto", or the id of one variant, which must then be able to run.

    Raises:
        BundleError: none fits; the message gives each variant's reason.
    """
    candidates = [variant for variant in manifest.variants if wanted in ("auto", variant.id)]
    if not candidates:
        known = ", ".join(variant.id for variant in manifest.variants)
        raise BundleError(f"bundle {manifest.name}: there is no variant {wanted!r}; it has: {known}")
    reasons = {variant.id: why_not(variant, device) for variant in candidates}
    for provider in device.providers:
        for variant in candidates:
            if reasons[variant.id] is None and provider in variant.providers:
                return variant
    told = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
    raise BundleError(f"bundle {manifest.name}: no variant runs on this device ({told})")


def why_not(variant: Variant, device: Device) -> str | None:
    """The reason why a device cannot run a variant, or None when it can."""
    if not set(variant.providers) & set(device.providers):
        return f"made for {', '.join(variant.providers)}, available: {', '.join(device.providers) or 'none'}"
    if _version(device.onnxruntime) < _version(variant.requires.onnxruntime):
        return f"needs onnxruntime {variant.requires.onnxruntime} or newer, found {device.onnxruntime}"
    hosts = variant.requires.any_of
    if not hosts:
        return None
    same_arch = [host for host in hosts if host.arch == device.arch]
    if not same_arch:
        return f"made for {', '.join(sorted({host.arch for host in hosts}))}, this is {device.arch}"
    missing = [sorted(set(host.cpu_features) - device.cpu_features) for host in same_arch]
    if all(missing):
        return "the CPU lacks " + " or ".join(" and ".join(features) for features in missing)
    return None


def parse_cpuinfo(text: str) -> tuple[frozenset[str], str]:
    """CPU features and name from the text of ``/proc/cpuinfo`` (x86: ``flags``; ARM: ``Features``)."""
    features: frozenset[str] = frozenset()
    name = "unknown CPU"
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features") and not features:
            features = frozenset(value.split())
        elif key.strip() in ("model name", "Model") and value.strip():
            name = value.strip()
    return features, name


def _cpuinfo() -> str:
    try:
        return _CPUINFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""  # a system without procfs has no feature list; variants with needs are then not chosen


def _version(text: str) -> tuple[int, ...]:
    """Major, minor and patch; what follows, such as ``rc1``, ``.dev20`` or ``+cu12``, does not count."""
    found = re.match(r"(\d+)(?:\.(\d+))?(?:\.(\d+))?", text)
    return tuple(int(part or 0) for part in found.groups()) if found else (0, 0, 0)
