"""``edge-agent model check``: does a bundle run rightly on this very device? Every variant that can run here is tried.

Each trial begins in a child process, as a start of the agent does with a model it has not seen: a segfault or a hang
there becomes a sentence. What passed is replayed once more in this process, to measure differences and time.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from agent.errors import BundleError, FatalError
from agent.model import golden
from agent.model.activate import activate
from agent.model.bundle import load_bundle
from agent.model.canary import Canary
from agent.model.runtime import available_providers, ort
from agent.model.session import SessionOptions, physical_cores
from agent.model.variants import this_device, why_not
from agent.vision.boxes import match_one_to_one

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from agent.model.bundle import Bundle
    from agent.model.manifest import Tolerances, Variant
    from agent.model.session import Session
    from agent.model.variants import Device

_TRIAL_LIMIT_S = 60.0  # what model.golden_timeout_s is unless a configuration says otherwise
_TIMED_S = 0.2


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of a variant on one provider.

    Attributes:
        variant: its id.
        provider: what it ran on; None when it cannot run here.
        result: "ok", "failed", or "not run".
        reason: why it failed or was not run.
        differences: the largest from the expected outputs, see `largest_differences`.
        ms_per_run: median of some inferences.
    """

    variant: str
    provider: str | None
    result: str
    reason: str | None = None
    differences: Mapping[str, float] | None = None
    ms_per_run: float | None = None


def run(args: argparse.Namespace) -> int:
    """Try the bundle at ``args.path``, or one variant of it, and print a line for each trial.

    Raises:
        ConfigError, FatalError: as `load_bundle` and the canary raise them.
        BundleError: the bundle is refused, a variant fails here, or none can run here.
    """
    keys = [Path(key) for key in args.trusted_key]
    bundle = load_bundle(Path(args.path), keys)
    device = this_device(ort.__version__, available_providers())
    facts = device_facts(bundle, device)
    trials = []
    if not args.json:
        say(_head_line(facts))
    for trial in _trials(bundle, keys, device, chosen_variants(bundle, args.variant)):
        trials.append(trial)
        if not args.json:
            say(_line(trial))
    if args.json:
        say(json.dumps({**facts, "trials": [asdict(trial) for trial in trials]}, indent=2))
    _judge(bundle, trials)
    return 0


def largest_differences(
    expected: Mapping[str, NDArray[Any]], actual: Mapping[str, NDArray[Any]], tolerances: Tolerances
) -> dict[str, float]:
    """How far two runs are apart, in the matcher's terms: ``score``, ``box_px``, ``mask`` (a share of its pixels).

    Of detections, those count that the matcher is sure of, each with the nearest of its class on the other side.
    """
    if "mask" in expected:
        return {"mask": float((expected["mask"] != actual["mask"]).mean())}
    if "boxes" not in expected:
        return {"score": float(np.abs(expected["scores"] - actual["scores"]).max())}
    sure = expected["scores"][0] >= tolerances.score_floor + tolerances.score
    box_px = np.abs(expected["boxes"][0][sure, None, :] - actual["boxes"][0][None, :, :]).max(axis=2)
    score = np.abs(expected["scores"][0][sure, None] - actual["scores"][0][None, :])
    same_class = expected["labels"][0][sure, None] == actual["labels"][0][None, :]
    nearness = same_class / (1 + np.maximum(box_px / tolerances.box_px, score / tolerances.score))
    pairs = match_one_to_one(nearness.astype(np.float32), float(np.finfo(np.float32).tiny))
    return {
        "score": max((float(score[pair]) for pair in pairs), default=0.0),
        "box_px": max((float(box_px[pair]) for pair in pairs), default=0.0),
    }


def chosen_variants(bundle: Bundle, wanted: str | None) -> Sequence[Variant]:
    """All variants, or the wanted one; BundleError when there is none of that name."""
    variants = bundle.manifest.variants
    chosen = [variant for variant in variants if wanted in (None, variant.id)]
    if not chosen:
        known = ", ".join(variant.id for variant in variants)
        raise BundleError(f"bundle {bundle.manifest.name}: there is no variant {wanted!r}; it has: {known}")
    return chosen


def _trials(bundle: Bundle, keys: Sequence[Path], device: Device, variants: Sequence[Variant]) -> Iterator[Trial]:
    """Each variant on each provider that it is made for and that is here."""
    with _temporary_folder() as folder:  # a canary remembers what passed; this one is asked to try all again
        canary = Canary(folder / "canary.json", _TRIAL_LIMIT_S)
        for variant in variants:
            obstacle = why_not(variant, device)
            if obstacle is not None:
                yield Trial(variant.id, None, "not run", obstacle)
                continue
            for provider in device.providers:
                if provider in variant.providers:
                    options = SessionOptions((provider,), physical_cores())
                    yield _try_out(bundle, keys, device, variant, options, canary)


def _try_out(
    bundle: Bundle,
    keys: Sequence[Path],
    device: Device,
    variant: Variant,
    options: SessionOptions,
    canary: Canary,
) -> Trial:
    (provider,) = options.providers
    try:
        canary.check(bundle, variant, device, keys, options)
        session = activate(bundle.root, keys, options, variant.id, warm_up_runs=0).session
    except BundleError as err:
        return Trial(variant.id, provider, "failed", str(err).removeprefix(f"variant {variant.id}: "))
    differences: dict[str, float] = {}
    times_s = []
    for image_bgr, expected in golden.load(bundle.read(variant.golden.file), variant):
        session.input_image[:] = image_bgr
        times_s.append(_timed_run_s(session))
        found = largest_differences(expected, session.outputs, variant.golden.tolerances)
        differences |= {name: max(value, differences.get(name, 0.0)) for name, value in found.items()}
    while sum(times_s) < _TIMED_S:
        times_s.append(_timed_run_s(session))
    return Trial(variant.id, provider, "ok", None, differences, round(statistics.median(times_s) * 1e3, 3))


def _timed_run_s(session: Session) -> float:
    started_s = time.perf_counter()
    session.run()
    return time.perf_counter() - started_s


def _judge(bundle: Bundle, trials: Sequence[Trial]) -> None:
    failed = [trial for trial in trials if trial.result == "failed"]
    if failed:
        told = ", ".join(f"{trial.variant} on {trial.provider}" for trial in failed)
        raise BundleError(
            f"bundle {bundle.manifest.name}: {len(failed)} of {len(trials)} trials failed on this device: {told}; "
            "run another variant (model.variant) or build the bundle again"
        )
    if all(trial.result == "not run" for trial in trials):
        raise BundleError(f"bundle {bundle.manifest.name}: none of what was to be tried can run on this device")


def device_facts(bundle: Bundle, device: Device) -> dict[str, Any]:
    """Which bundle, on which machine: what every command that runs it here tells."""
    return {
        "name": bundle.manifest.name,
        "version": bundle.manifest.version,
        "task": bundle.manifest.task,
        "key_id": bundle.key_id,
        "device": {
            "arch": device.arch,
            "cpu": device.cpu_name,
            "onnxruntime": device.onnxruntime,
            "providers": list(device.providers),
            "threads": physical_cores(),
        },
    }


def _head_line(facts: dict[str, Any]) -> str:
    device = facts["device"]
    return (
        f"{facts['name']} version {facts['version']}: {facts['task']}, signed by trusted key {facts['key_id']}; "
        f"{device['arch']}, {device['cpu']}, onnxruntime {device['onnxruntime']}, {device['threads']} threads"
    )


def _line(trial: Trial) -> str:
    line = f"  {trial.variant:<12} {trial.provider or '-':<8} {trial.result:<7} "
    if trial.differences is None:
        return line + (trial.reason or "")
    told = ", ".join(f"{name} {value:.2g}" for name, value in trial.differences.items() if value)
    return f"{line}{trial.ms_per_run:.2f} ms a run; {f'differs at most by {told}' if told else 'no difference'}"


def say(text: str) -> None:
    """Print a line at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()  # a trial may take a minute


@contextmanager
def _temporary_folder() -> Iterator[Path]:
    try:
        folder = tempfile.TemporaryDirectory(prefix="edge-agent-check-")
    except OSError as err:
        raise FatalError(f"a trial needs a temporary folder, there is none: {err}; set TMPDIR to one") from err
    with folder as path:
        yield Path(path)
