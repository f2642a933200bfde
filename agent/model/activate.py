"""From a bundle on disk to a session that may go live.

verify the bundle -> choose a variant -> first time seen: canary (a child process with a time limit)
-> session -> golden replay -> warm-up
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.errors import BundleError
from agent.model import golden
from agent.model.bundle import Bundle, load_bundle
from agent.model.runtime import available_providers, ort
from agent.model.session import Session, SessionOptions
from agent.model.variants import choose_variant, this_device
from agent.vision.resize import Resizer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from agent.model.canary import Canary
    from agent.model.manifest import Variant

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ActiveModel:
    """A verified bundle, the variant that runs, its session, and the resize into the session's input."""

    bundle: Bundle
    variant: Variant
    session: Session
    resizer: Resizer


def activate(
    bundle_path: Path,
    trusted_keys: Sequence[Path],
    options: SessionOptions,
    wanted: str = "auto",
    canary: Canary | None = None,
    warm_up_runs: int = 2,
) -> ActiveModel:
    """Verify, choose, try out, replay and warm up.

    Args:
        bundle_path: the bundle's directory.
        trusted_keys: PEM files of the keys that may have signed it.
        options: how the session runs.
        wanted: a variant id or "auto".
        canary: tries out files that this device has not seen; None leaves that out (the canary itself does so).
        warm_up_runs: inferences after the replay.

    Raises:
        ConfigError, BundleError, FatalError: as the steps raise them; nothing is changed then.
    """
    bundle = load_bundle(bundle_path, trusted_keys)
    allowed = [name for name in options.providers if name in available_providers()]
    device = this_device(ort.__version__, allowed)
    variant = choose_variant(bundle.manifest, device, wanted)
    if canary is not None:
        canary.check(bundle, variant, device, trusted_keys, options)
    task = bundle.manifest.task
    session = Session(bundle.read(variant.file), task, variant, options)
    if task == "classify":
        _check_classes(session, len(bundle.manifest.labels), variant)
    golden.replay(session, bundle.read(variant.golden.file), task, variant)
    for _ in range(warm_up_runs):
        session.run()
    name, version = bundle.manifest.name, bundle.manifest.version
    log.info(
        "model %s version %d: variant %s on %s, %d threads, golden replay passed",
        *(name, version, variant.id, session.provider, options.threads),
    )
    return ActiveModel(bundle, variant, session, Resizer(variant.input, session.input_image))


def _check_classes(session: Session, labels: int, variant: Variant) -> None:
    """A classifier has one score for each label; what classes other models may name, their outputs do not tell."""
    classes = session.outputs["scores"].shape[1]
    if classes != labels:
        raise BundleError(f"variant {variant.id}: expected {labels} classes as there are labels, found {classes}")
