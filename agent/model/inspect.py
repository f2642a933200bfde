"""``edge-agent model inspect``: what a bundle is, whether it can be trusted, and what this device would run."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.errors import BundleError
from agent.model.bundle import load_bundle, load_manifest_unsigned
from agent.model.runtime import available_providers, ort
from agent.model.variants import Device, choose_variant, this_device, why_not

if TYPE_CHECKING:
    import argparse

    from agent.model.manifest import Manifest, Variant


def run(args: argparse.Namespace) -> int:
    """Print the bundle at ``args.path``; with ``args.trusted_key`` its signature must be by one of them."""
    path = Path(args.path)
    if args.trusted_key:
        bundle = load_bundle(path, map(Path, args.trusted_key))
        manifest, signature = bundle.manifest, f"valid, by trusted key {bundle.key_id}"
    else:
        manifest, signature = load_manifest_unsigned(path), "not checked: name the key with --trusted-key"
    facts = describe(manifest, this_device(ort.__version__, available_providers()), signature)
    text = json.dumps(facts, indent=2) if args.json else "\n".join(_lines(facts))
    sys.stdout.write(text + "\n")
    return 0


def describe(manifest: Manifest, device: Device, signature: str) -> dict[str, Any]:
    """The facts as plain JSON data: the manifest's own keys, plus signature, device and the plan for it."""
    try:
        plan: str | None = choose_variant(manifest, device).id
    except BundleError:
        plan = None
    sizes = {entry.path: entry.bytes for entry in manifest.files}
    return {
        "name": manifest.name,
        "version": manifest.version,
        "task": manifest.task,
        "signature": signature,
        "labels": manifest.labels,
        "defaults": manifest.defaults.model_dump(),
        "variants": [_describe_variant(variant, device, sizes) for variant in manifest.variants],
        "device": {
            "arch": device.arch,
            "cpu": device.cpu_name,
            "onnxruntime": device.onnxruntime,
            "providers": list(device.providers),
            "would_run": plan,
        },
        "bytes": sum(sizes.values()),
        "expires": manifest.expires.isoformat() if manifest.expires else None,
        "provenance": manifest.provenance.model_dump(),
        "annotations": manifest.annotations,
    }


def _describe_variant(variant: Variant, device: Device, sizes: dict[str, int]) -> dict[str, Any]:
    return {
        "id": variant.id,
        "precision": variant.precision,
        "providers": variant.providers,
        "bytes": sizes[variant.file],
        "input": variant.input.model_dump(),
        "metrics": [metric.model_dump() for metric in variant.metrics],
        "runs_here": why_not(variant, device) or "yes",
    }


def _lines(facts: dict[str, Any]) -> list[str]:
    labels = facts["labels"]
    shown = ", ".join(labels[:8]) + (f", ... ({len(labels)} in all)" if len(labels) > 8 else "")
    defaults = ", ".join(f"{name} {value:g}" for name, value in facts["defaults"].items())
    device, provenance = facts["device"], facts["provenance"]
    lines = [
        f"{facts['name']} version {facts['version']}: {facts['task']}, {len(labels)} labels, {_size(facts['bytes'])}",
        f"  signature   {facts['signature']}",
        f"  labels      {shown}",
        f"  defaults    {defaults}",
        f"  expires     {facts['expires'] or 'never'}",
        f"  source      {provenance['source']} (licence: {provenance['source_licence'] or 'not stated'})",
        "  variants, preferred first",
    ]
    for variant in facts["variants"]:
        size = variant["input"]
        lines.append(
            f"    {variant['id']:<12} {variant['precision']:<5} {_size(variant['bytes']):>9}  "
            f"input {size['width']}x{size['height']} {size['resize']}  providers {', '.join(variant['providers'])}  "
            f"runs here: {variant['runs_here']}"
        )
        lines += [_metric_line(metric) for metric in variant["metrics"]]
    lines.append(f"  this device {device['arch']}, {device['cpu']}, onnxruntime {device['onnxruntime']}")
    lines.append(f"  would run   {device['would_run'] or 'none of the variants'}")
    return lines


def _metric_line(metric: dict[str, Any]) -> str:
    drop = "" if metric["drop"] is None else f" (drop against fp32: {metric['drop']:.4g})"
    return f"      {metric['name']} {metric['value']:.4g}{drop}, on {metric['cpu']}"


def _size(count: int) -> str:
    return f"{count / 1e6:.2f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"
