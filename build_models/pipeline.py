"""A model becomes a bundle: the visible list of stages. Read it from top to bottom.

Each stage takes the workpiece and returns it with more of it filled in, and a report of plain data whose ``said``
is its result in a few words. The checks stand inside the stages; a stage that fails stops the build, and nothing is
left at the target.
"""

from __future__ import annotations

import dataclasses
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx

from agent.model.bundle import key_id
from agent.model.manifest import Metric
from agent.model.runtime import available_providers, ort
from agent.model.session import physical_cores
from agent.model.variants import this_device, why_not
from build_models import report
from build_models.benchmark import Contender, compare_latency
from build_models.errors import BuildError, RecipeError
from build_models.evaluation import run_evaluation, runner
from build_models.graph.canonical_output import canonical_output
from build_models.graph.native_input import native_input
from build_models.graph.portable import check_portable, make_portable, strip
from build_models.pack import check_target, put_in_place, seal
from build_models.pictures import load_pictures
from build_models.quantize.ranges import collect_ranges
from build_models.quantize.signal import layer_signals
from build_models.quantize.static import count_kernels, fusible_nodes, quantisable_tensors, quantize_static
from build_models.source.load import load_source
from build_models.verify import make_golden, measure_agreement, verify_against_source
from build_models.workpiece import (
    FLOAT_TOLERANCES,
    FP32,
    INT8,
    Workpiece,
    cpu_name,
    new_candidate,
    packed,
    provenance,
    session_of,
    source_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from build_models.progress import Progress
    from build_models.recipe import Recipe

    Stage = Callable[[Workpiece, Progress], tuple[Workpiece, dict[str, Any]]]

_VERIFIED_PICTURES = 16
_SIGNAL_PICTURES = 8


def build(recipe: Recipe, key: Ed25519PrivateKey, target: Path, progress: Progress) -> Workpiece:
    """Run all stages and put the signed bundle at ``target``.

    Args:
        recipe: what to build.
        key: signs the manifest.
        target: the bundle's directory; an older bundle there is replaced.
        progress: is told of every stage.

    Returns:
        The finished workpiece with the reports of its stages.

    Raises:
        RecipeError: the user must change the recipe, the pictures or the model.
        BuildError: a stage's check failed.
    """
    place = target.resolve()  # a link to a bundle stays one
    check_target(place)
    with _staging(place.parent) as work:
        piece = Workpiece(recipe, work / "bundle", work / "scratch")
        for folder in (piece.folder / "models", piece.folder / "golden", piece.folder / "report", piece.scratch):
            folder.mkdir(parents=True)
        for name, stage in STAGES:
            with progress.stage(name) as ended:
                piece, told = stage(piece, progress)
                piece = dataclasses.replace(piece, reports={**piece.reports, name: told})
                ended(str(told["said"]))
        with progress.stage("pack and sign") as ended:
            ended(_pack_and_sign(piece, key, place))
    return piece


@contextmanager
def _staging(parent: Path) -> Iterator[Path]:
    """A temporary folder on the file system of the target, so that the bundle can be renamed into place."""
    try:
        parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(prefix=".build-", dir=parent)
    except OSError as err:
        raise RecipeError(f"{parent}: cannot write there: {err.strerror}; choose another --out") from err
    with folder as name:
        yield Path(name)


def _source(piece: Workpiece, _: Progress) -> tuple[Workpiece, dict[str, Any]]:
    """The source model from torch or ONNX: one opset, batch 1, fixed shapes."""
    model, told = load_source(piece.recipe)
    said = f"{', '.join(told.inputs)} -> {', '.join(told.outputs)}"
    return dataclasses.replace(piece, source=model, source_sha256=told.sha256), _plain(told, said)


def _native_input(piece: Workpiece, _: Progress) -> tuple[Workpiece, dict[str, Any]]:
    """The input becomes the camera's bytes: uint8 NHWC BGR, normalisation folded in where that is exact."""
    model, told = native_input(piece.source, piece.recipe.input)
    spec = piece.recipe.input.spec(told.height, told.width)
    return dataclasses.replace(piece, model=model, spec=spec), _plain(told, f"{told.rule}: {told.why}")


def _canonical_output(piece: Workpiece, _: Progress) -> tuple[Workpiece, dict[str, Any]]:
    """The family's decoding goes into the graph."""
    size_hw = (piece.input_spec.height, piece.input_spec.width)
    model, told = canonical_output(piece.model, piece.recipe.output, size_hw, piece.recipe.labels)
    facts = {"family": told.family.model_dump(), "rule": told.rule, "classes": told.classes, "anchors": told.anchors}
    said = f"family {told.family.family} by {told.rule}, {told.classes} classes"
    return dataclasses.replace(piece, model=model, head=told), {"said": said, **facts}


def _optimise(piece: Workpiece, _: Progress) -> tuple[Workpiece, dict[str, Any]]:
    """Constant folding and fusions that hold on any CPU; this is the fp32 file."""
    model, told = make_portable(piece.model, list(piece.canonical.raw_tensors.values()))
    said = f"{told.nodes_before} -> {told.nodes_after} nodes, opset {told.opset}"
    return dataclasses.replace(piece, model=model), _plain(told, said)


def _pictures(piece: Workpiece, _: Progress) -> tuple[Workpiece, dict[str, Any]]:
    """Calibration pictures, and others kept out of it to judge the result."""
    wanted = piece.recipe.calibration
    if wanted is None:
        raise RecipeError(
            "calibration.pictures is missing: a folder of pictures like those the device will see is needed to "
            "verify, and to quantise"
        )
    pictures = load_pictures(wanted.pictures, piece.input_spec, wanted.held_out_share, wanted.limit)
    said = f"{len(pictures.calibration)} to calibrate, {len(pictures.held_out)} kept out"
    if pictures.unreadable:
        said += f", {len(pictures.unreadable)} unreadable and left out: {', '.join(pictures.unreadable[:3])}"
    told = {
        "said": said,
        "calibration": len(pictures.calibration),
        "held_out": len(pictures.held_out),
        "unreadable": list(pictures.unreadable),
        "sha256": pictures.sha256,
    }
    return dataclasses.replace(piece, pictures=pictures), told


def _quantise(piece: Workpiece, progress: Progress) -> tuple[Workpiece, dict[str, Any]]:
    """The int8 file; both files are written to the staging folder."""
    pictures, raw = piece.picture_set, list(piece.canonical.raw_tensors.values())
    candidates = [new_candidate(piece, FP32, piece.model)]
    told: dict[str, Any] = {"said": "left out by the recipe"}
    if piece.recipe.quantize.int8:
        images = (picture.input_image for picture in pictures.calibration)
        tensors = quantisable_tensors(piece.model, raw)
        ranges = collect_ranges(piece.model, tensors, progress.track(images, len(pictures.calibration), unit="picture"))
        quantised, facts = quantize_static(piece.model, fusible_nodes(piece.model, raw), ranges)
        quantised = strip(quantised)
        check_portable(quantised)
        candidates.insert(0, new_candidate(piece, INT8, quantised))
        shown = [picture.input_image for picture in pictures.held_out[:_SIGNAL_PICTURES]]
        signals = layer_signals(piece.model, quantised, shown)
        worst = min(signals, key=lambda signal: signal.sqnr_db, default=None)
        weakest = f", weakest layer {worst.node[:60]} at {worst.sqnr_db:.1f} dB" if worst else ""
        told = {
            "said": f"{facts['quantised_nodes']} nodes in int8{weakest}",
            **facts,
            "kernels_on_this_cpu": count_kernels(quantised, str(piece.scratch / "optimised.onnx")),
            "layers": [dataclasses.asdict(signal) for signal in signals],
            "ranges": {name: list(ranges[name]) for name in sorted(ranges)},
        }
    return dataclasses.replace(piece, candidates=tuple(candidates)), told


def _verify(piece: Workpiece, _: Progress) -> tuple[Workpiece, dict[str, Any]]:
    """The files, read back from disk: fp32 against the source, int8 against fp32; then the golden files."""
    pictures, task = piece.picture_set.held_out, piece.recipe.task
    sessions = {each.variant.id: session_of(piece, each) for each in piece.candidates}
    told: dict[str, Any] = {
        FP32: verify_against_source(
            packed(piece, sessions[FP32]), source_of(piece), pictures[:_VERIFIED_PICTURES], task, FLOAT_TOLERANCES
        )
    }
    judged = []
    said = [f"fp32 matches the source on {told[FP32]['pictures']} pictures ({told[FP32]['compared']} results)"]
    for each in piece.candidates:
        name = each.variant.id
        metrics, refused = [], None
        if name != FP32:
            agreement = measure_agreement(task, sessions[FP32], sessions[name], pictures, piece.recipe.defaults)
            least = piece.recipe.quantize.min_f1
            value = agreement.value
            if value is None:
                refused = "fp32 sees nothing in the pictures kept out, so int8 cannot be judged"
            else:
                metrics = [Metric(name=f"{agreement.measure}_vs_fp32", value=value, drop=1 - value, cpu=cpu_name())]
                if value < least:
                    refused = f"{agreement.measure} against fp32 is {value:.3f}, the least is {least:g}"
            told[name] = {**dataclasses.asdict(agreement), "least": least, "refused": refused}
            outcome = "reported, not packed" if refused else "accepted"
            shown = "not measurable" if value is None else f"{value:.3f}"
            said.append(f"int8 {agreement.measure} {shown}: {outcome}")
        if refused is None:
            try:
                data = make_golden(sessions[name], pictures, task, each.variant.golden.tolerances)
            except BuildError as err:
                if name == FP32:
                    raise
                refused = str(err)
            else:
                (piece.folder / each.variant.golden.file).write_bytes(data)
        judged.append(
            dataclasses.replace(each, variant=each.variant.model_copy(update={"metrics": metrics}), refused=refused)
        )
    return dataclasses.replace(piece, candidates=tuple(judged)), {"said": "; ".join(said), **told}


def _benchmark(piece: Workpiece, progress: Progress) -> tuple[Workpiece, dict[str, Any]]:
    """Latency of source, fp32 and int8 side by side; an int8 file that is slower here than fp32 is refused."""
    source_path = piece.scratch / "source.onnx"
    onnx.save(piece.source, source_path)
    task = piece.recipe.task
    contenders = [Contender("source", source_path, task)]
    contenders += [
        Contender(each.variant.id, piece.folder / each.variant.file, task, each.variant) for each in piece.candidates
    ]
    rounds = list(progress.track(compare_latency(contenders, physical_cores()), total=6, unit="round"))
    told = {**rounds[-1], "cpu": cpu_name()}
    median_ms = {result["name"]: result["median_ms"] for result in told["results"]}
    said = ", ".join(f"{name} {value:.2f} ms" for name, value in median_ms.items())
    judged = []
    for each in piece.candidates:
        ratio = median_ms[each.variant.id] / median_ms[FP32]
        made_for_this = why_not(each.variant, this_device(ort.__version__, available_providers())) is None
        limit = piece.recipe.quantize.max_latency_ratio
        slow = made_for_this and limit is not None and each.variant.id != FP32 and ratio > limit
        latency = Metric(name="latency_ms", value=median_ms[each.variant.id], cpu=cpu_name())
        variant = each.variant.model_copy(update={"metrics": [*each.variant.metrics, latency]})
        refused = each.refused or (f"it takes {ratio:.2f}x the time of fp32, the most is {limit:g}" if slow else None)
        judged.append(dataclasses.replace(each, variant=variant, refused=refused))
    return dataclasses.replace(piece, candidates=tuple(judged)), {"said": f"{said} ({told['threads']} threads)", **told}


def _evaluate(piece: Workpiece, _: Progress) -> tuple[Workpiece, dict[str, Any]]:
    """The recipe's own measurement of the files that will be packed."""
    if piece.recipe.evaluation is None:
        return piece, {"said": "none in the recipe"}
    runners = {
        each.variant.id: runner(session_of(piece, each), each.variant.input)
        for each in piece.candidates
        if each.refused is None
    }
    evaluation = run_evaluation(piece.recipe.evaluation, runners)
    return dataclasses.replace(piece, evaluation=evaluation), {
        "said": "; ".join(table.title for table in evaluation.tables)
    }


def _report(piece: Workpiece, _: Progress) -> tuple[Workpiece, dict[str, Any]]:
    """What happened, for programs and for people."""
    sizes = {each.variant.id: (piece.folder / each.variant.file).stat().st_size for each in piece.candidates}
    content = report.collect(
        piece.recipe, provenance(piece), cpu_name(), piece.candidates, sizes, piece.reports, piece.evaluation
    )
    report.write(content, piece.folder / "report")
    return piece, {"said": "report.html, report.json"}


# What happens to a model, in order; `build` packs and signs what comes out.
STAGES: Sequence[tuple[str, Stage]] = (
    ("source", _source),
    ("native input", _native_input),
    ("canonical output", _canonical_output),
    ("optimise", _optimise),
    ("pictures", _pictures),
    ("quantise", _quantise),
    ("verify", _verify),
    ("benchmark", _benchmark),
    ("evaluate", _evaluate),
    ("report", _report),
)


def _pack_and_sign(piece: Workpiece, key: Ed25519PrivateKey, target: Path) -> str:
    """Leave out what was refused, write manifest and signature, verify as an agent would, put in place."""
    recipe = piece.recipe
    for each in piece.candidates:
        if each.refused is not None:
            (piece.folder / each.variant.file).unlink()
            (piece.folder / each.variant.golden.file).unlink(missing_ok=True)
    variants = [each.variant for each in piece.candidates if each.refused is None]
    content = {
        "schema": 1,
        "name": recipe.name,
        "version": recipe.version,
        "task": recipe.task,
        "labels": recipe.labels,
        "defaults": recipe.defaults.model_dump(),
        "variants": [variant.model_dump(mode="json") for variant in variants],
        "annotations": recipe.annotations,
        "provenance": provenance(piece),
    }
    manifest = seal(piece.folder, content, key)
    put_in_place(piece.folder, target, key.public_key())
    total = sum(entry.bytes for entry in manifest.files)
    ids = ", ".join(variant.id for variant in manifest.variants)
    return f"{ids}, {total / 1e6:.2f} MB, signed by {key_id(key.public_key())}"


def _plain(told: Any, said: str) -> dict[str, Any]:
    return {"said": said, **dataclasses.asdict(told)}
