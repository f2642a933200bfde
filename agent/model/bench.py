"""``edge-agent bench``: the latency of a bundle's variants on this very device, side by side.

Every variant that can run here is loaded in a process of its own, as a start of the agent loads it: verified, its
golden inputs replayed. Then they take turns. What ``--json`` prints, the build side takes as ``--measured``.
"""

from __future__ import annotations

import json
import statistics
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.errors import BundleError, ConfigError, EdgeAgentError
from agent.model.bundle import load_bundle
from agent.model.check import chosen_variants, device_facts, say
from agent.model.runtime import available_providers, ort
from agent.model.session import SessionOptions, physical_cores
from agent.model.timed_child import TimedChild, serve_rounds
from agent.model.variants import this_device, why_not

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

    from agent.model.bundle import Bundle
    from agent.model.manifest import Variant

SCHEMA = 1
_ROOT = Path(__file__).parents[2]


def run(args: argparse.Namespace) -> int:
    """Time the bundle at ``args.path``, or one variant of it, and print a line, or JSON, for each.

    Raises:
        ConfigError: an argument makes no sense, or a key cannot be read.
        BundleError: the bundle is refused, a variant fails here, or none can run here.
    """
    threads = physical_cores() if args.threads is None else args.threads
    for name, value in (("--threads", threads), ("--rounds", args.rounds), ("--seconds", args.seconds)):
        if value <= 0:
            raise ConfigError(f"{name}: expected more than 0, got {value:g}")
    keys = [Path(key) for key in args.trusted_key]
    bundle = load_bundle(Path(args.path), keys)
    device = this_device(ort.__version__, available_providers())
    not_run, wanted = [], []
    for variant in chosen_variants(bundle, args.variant):
        obstacle = why_not(variant, device)
        if obstacle is not None:
            not_run.append({"variant": variant.id, "reason": obstacle})
            continue
        wanted += [(variant, provider) for provider in device.providers if provider in variant.providers]
    results, failed = _measure(bundle, keys, wanted, threads, args.rounds, args.seconds)
    facts = device_facts(bundle, device)
    facts["device"].pop("threads")
    facts["device"]["features"] = sorted(device.cpu_features)
    told = {
        "schema": SCHEMA,
        **facts,
        "threads": threads,
        "rounds": args.rounds,
        "seconds": args.seconds,
        "results": results,
        "not_run": [*not_run, *failed],
    }
    say(json.dumps(told, indent=2) if args.json else _table(told))
    if failed or not results:
        names = ", ".join(each["variant"] for each in failed)
        raise BundleError(
            f"bundle {bundle.manifest.name}: "
            + (f"failed on this device: {names}" if failed else "none of what was to be timed can run on this device")
        )
    return 0


def summary(rounds: Sequence[Sequence[float]]) -> dict[str, float | int]:
    """Figures over all rounds' times in ms."""
    times = sorted(value for each in rounds for value in each)
    return {
        "median_ms": round(statistics.median(times), 3),
        "p90_ms": round(times[int(len(times) * 0.9)], 3),
        "min_ms": round(times[0], 3),
        "runs": len(times),
    }


def main(arguments: Sequence[str]) -> int:
    """A child: load one variant as the agent does, then a round per line of standard input."""
    from agent.model.activate import activate

    job = json.loads(arguments[0])
    options = SessionOptions((job["provider"],), job["threads"])
    try:
        active = activate(Path(job["bundle"]), [Path(key) for key in job["keys"]], options, job["variant"])
        serve_rounds(active.session.run, job["seconds"], {})
    except EdgeAgentError as err:
        sys.stderr.write(f"{err}\n")
        return err.exit_code
    return 0


def _measure(
    bundle: Bundle,
    keys: Sequence[Path],
    wanted: Sequence[tuple[Variant, str]],
    threads: int,
    rounds: int,
    seconds: float,
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """Results, and what failed with its reason: that one is left out, the others go on."""
    failed = []
    ready: list[tuple[Variant, str, TimedChild]] = []
    with ExitStack() as stack:
        for variant, provider in wanted:
            job = {
                "bundle": str(bundle.root.resolve()),
                "keys": [str(key.resolve()) for key in keys],
                "variant": variant.id,
                "provider": provider,
                "threads": threads,
                "seconds": seconds,
            }
            child = TimedChild(variant.id, ["agent.model.bench", json.dumps(job)], BundleError, _ROOT)
            stack.callback(child.close)
            try:
                child.wait_until_ready()
            except BundleError as err:
                failed.append({"variant": variant.id, "reason": str(err)})
            else:
                ready.append((variant, provider, child))
        measured: list[list[list[float]]] = [[] for _ in ready]
        for _ in range(rounds):
            for times, (_, _, child) in zip(measured, ready, strict=True):
                times.append(child.run_round())
        results = [
            {
                "variant": variant.id,
                "provider": provider,
                "precision": variant.precision,
                "sha256": bundle.entry(variant.file).sha256,
                **summary(times),
                "peak_mb": child.peak_mb(),
            }
            for times, (variant, provider, child) in zip(measured, ready, strict=True)
        ]
    return results, failed


def _table(told: Mapping[str, Any]) -> str:
    device = told["device"]
    head = (
        f"{told['name']} version {told['version']}; {device['arch']}, {device['cpu']}, onnxruntime "
        f"{device['onnxruntime']}, {told['threads']} threads, spinning off; {told['rounds']} rounds in turn"
    )
    lines = [head]
    lines += [
        f"  {each['variant']:<12} {each['provider']:<8} {each['precision']:<5} median {each['median_ms']:>8.2f} ms  "
        f"p90 {each['p90_ms']:>8.2f} ms  least {each['min_ms']:>8.2f} ms  {each['runs']:>5} runs  "
        f"memory {each['peak_mb']:.0f} MB"
        for each in told["results"]
    ]
    lines += [f"  {each['variant']:<12} not run: {each['reason']}" for each in told["not_run"]]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
