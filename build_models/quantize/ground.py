"""Where int8 files are made from: a float graph, how its values are distributed, and what may run in int8."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from build_models.quantize.memory import check_memory
from build_models.quantize.plan import Plan, make_plan
from build_models.quantize.range_cache import cached_histograms
from build_models.quantize.static import quantisable_tensors

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx

    from build_models.progress import Progress
    from build_models.quantize.attempts import Memory
    from build_models.quantize.histograms import Histograms
    from build_models.workpiece import PictureSets


@dataclass(frozen=True)
class Ground:
    """A float graph with what calibration knows of it.

    Attributes:
        model: canonical, portable.
        histograms: of its tensors.
        plan: what may run in int8.
    """

    model: onnx.ModelProto
    histograms: Histograms
    plan: Plan


def calibrate(
    model: onnx.ModelProto, raw_outputs: Sequence[str], pictures: PictureSets, memory: Memory, progress: Progress
) -> Ground:
    """Run the calibration pictures through a canonical float graph, or recall what came of it, and plan.

    Args:
        model: canonical, portable.
        raw_outputs: the tensors behind which it stays float.
        pictures: its calibration pictures are used.
        memory: of an earlier run.
        progress: shows how far it has come.

    Raises:
        RecipeError: this machine has too little memory for the model.
    """
    check_memory(model)
    calibration = pictures.calibration
    spec = calibration.spec.model_dump_json()
    digests = [f"{sample.sha256} {spec}" for sample in calibration.dataset.samples]
    told = progress.counter("picture", "calibrating")
    with tempfile.TemporaryDirectory(prefix="edge-agent-") as scratch:
        histograms = cached_histograms(
            memory.folder or Path(scratch),
            model,
            quantisable_tensors(model, raw_outputs),
            calibration.images,
            digests,
            progress=lambda done, passes: told(done, len(calibration) * passes),
        )
    ranges = {name: (each.low, each.high) for name, each in histograms.tensors.items()}
    return Ground(model, histograms, make_plan(model, raw_outputs, ranges))
