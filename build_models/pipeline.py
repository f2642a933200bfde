"""A model becomes a bundle: the visible list of stages. Read it from top to bottom.

Each stage takes the workpiece and returns it with more of it filled in, and a report of plain data whose ``said``
is its result in a few words. The checks stand inside the stages; a stage that fails stops the build, and nothing is
left at the target. A variant that keeps no budget does not stop it: it is refused, and what is good is packed.
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
from agent.model.session import physical_cores
from build_models import report
from build_models.advice import after_judgement
from build_models.benchmark import Contender, compare_latency
from build_models.errors import BuildError, RecipeError
from build_models.evaluation import run_evaluation, runner
from build_models.gate import judge_drop, judge_speed, refuse_for_accuracy, unused_figures
from build_models.graph.canonical_output import canonical_output
from build_models.graph.native_input import native_input
from build_models.graph.portable import make_portable
from build_models.judge import Judge
from build_models.pack import check_target, put_in_place, seal
from build_models.picture_sets import load_picture_sets
from build_models.quantize.attempts import Memory
from build_models.quantize.ground import calibrate
from build_models.quantize.targets import target as target_named
from build_models.source.load import load_source
from build_models.variants import make_variants
from build_models.verify import make_golden, verify_against_source
from build_models.workpiece import FP32, Workpiece, cpu_name, new_candidate, packed, provenance, session_of, source_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from build_models.gate import Accuracy
    from build_models.measured import Measured
    from build_models.metrics.bootstrap import Drop
    from build_models.progress import Progress
    from build_models.recipe import Recipe
    from build_models.workpiece import Candidate

    Stage = Callable[[Workpiece, Progress], tuple[Workpiece, dict[str, Any]]]

_VERIFIED_PICTURES = 16
_GOLDEN_PICTURES = 32


def build(
    recipe: Recipe,
    key: Ed25519PrivateKey,
    target: Path,
    progress: Progress,
    *,
    measured: Sequence[Measured] = (),
    work: Path | None = None,
) -> Workpiece:
    """Run all stages and put the signed bundle at ``target``.

    Args:
        recipe: what to build.
        key: signs the manifest.
        target: the bundle's directory; an older bundle there is replaced.
        progress: is told of every stage.
        measured: figures from devices.
        work: folder where calibration and search remember what they found; None: a later build begins anew.

    Returns:
        The finished workpiece with the reports of its stages.

    Raises:
        RecipeError: the user must change the recipe, the pictures or the model.
        BuildError: a stage's check failed.
    """
    place = target.resolve()  # a link to a bundle stays one
    check_target(place)
    with _staging(place.parent) as staging:
        piece = Workpiece(recipe, staging / "bundle", staging / "scratch", Memory(work), tuple(measured))
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
    model, told = make_portable(piece.model, piece.raw_outputs)
    said = f"{told.nodes_before} -> {told.nodes_after} nodes, opset {told.opset}"
    return dataclasses.replace(piece, model=model), _plain(told, said)


def _pictures(piece: Workpiece, progress: Progress) -> tuple[Workpiece, dict[str, Any]]:
    """Pictures to calibrate with, to search with, and to judge with once: none serves twice."""
    sets, told = load_picture_sets(piece.recipe, piece.input_spec, progress)
    return dataclasses.replace(piece, sets=sets), told


def _verify(piece: Workpiece, _: Progress) -> tuple[Workpiece, dict[str, Any]]:
    """The fp32 file, read back from disk, against the source."""
    candidate = new_candidate(piece, target_named(FP32), piece.model.SerializeToString(deterministic=True))
    piece = dataclasses.replace(piece, candidates=(candidate,))
    pictures = piece.pictures.search.first(_VERIFIED_PICTURES)
    told = verify_against_source(
        packed(piece, session_of(piece, candidate)),
        source_of(piece),
        pictures,
        piece.recipe.task,
        candidate.variant.golden.tolerances,
    )
    said = f"fp32 matches the source on {told['pictures']} pictures ({told['compared']} results)"
    return piece, {"said": said, FP32: told}


def _calibrate(piece: Workpiece, progress: Progress) -> tuple[Workpiece, dict[str, Any]]:
    """How the values of every tensor are distributed, and what may run in int8."""
    if not piece.recipe.quantize.targets:
        return piece, {"said": "no targets beside fp32"}
    ground = calibrate(piece.model, piece.raw_outputs, piece.pictures, piece.memory, progress)
    histograms, plan = ground.histograms, ground.plan
    said = f"{len(histograms.tensors)} tensors over {histograms.pictures} pictures"
    said += f"; {len(plan.nodes)} nodes may run in int8"
    if plan.joins:
        said += f", {len(plan.joins)} joins of different ranges stay in float"
    told: dict[str, Any] = {"said": said, "joins": [dataclasses.asdict(join) for join in plan.joins]}
    told["ranges"] = {name: [each.low, each.high] for name, each in sorted(histograms.tensors.items())}
    return dataclasses.replace(piece, ground=ground), told


def _search(piece: Workpiece, progress: Progress) -> tuple[Workpiece, dict[str, Any]]:
    """A file for every target of the recipe: the cheapest that keeps the budget on the search pictures."""
    if not piece.recipe.quantize.targets:
        return piece, {"said": "no targets beside fp32"}
    candidates, found, told = make_variants(piece, progress)
    return dataclasses.replace(piece, candidates=(*candidates, *piece.candidates), found=found), told


def _judge(piece: Workpiece, progress: Progress) -> tuple[Workpiece, dict[str, Any]]:
    """Every file once on pictures that nothing else has seen, against fp32 and the budget."""
    fp32, budget = piece.candidate(FP32), piece.recipe.budget
    data = piece.recipe.data
    merge = getattr(data and (data.val or data.train), "merge", None)
    judge = Judge(piece.recipe, piece.pictures.val, session_of(piece, fp32), progress, merge)
    if judge.reference_value == 0:
        raise RecipeError(
            f"fp32 itself reaches a {judge.name} of 0 on val, so no drop could be seen: check the recipe's input, "
            "output and labels, and those of data.val"
        )
    limit = budget.max_drop if judge.labelled else budget.max_disagreement
    told: dict[str, Any] = {"metric": judge.name, "labelled": judge.labelled, "limit": limit}
    judged, said = [], []
    for each in piece.candidates:
        if each.variant.id == FP32 or each.refused is not None:
            judged.append(each)
            continue
        drop = judge.drop(session_of(piece, each))
        accuracy = judge_drop(drop, judge.name, limit)
        refused = refuse_for_accuracy(accuracy, budget)
        metric = Metric(
            name=judge.name, value=drop.candidate, drop=drop.value, interval=[drop.low, drop.high], cpu=cpu_name()
        )
        variant = each.variant.model_copy(update={"metrics": [metric]})
        advice = _advice(piece, each, drop, accuracy, judge) if refused is not None else ()
        judged.append(
            dataclasses.replace(
                each, variant=variant, refused=refused, missed_budget=refused is not None, advice=advice
            )
        )
        told[each.variant.id] = {**dataclasses.asdict(accuracy), **dataclasses.asdict(drop)}
        said.append(f"{each.variant.id} {accuracy.said}")
    told["said"] = "; ".join(said) or "nothing beside fp32 to judge"
    value = judge.reference_value
    if value is not None:
        metric = Metric(name=judge.name, value=value, cpu=cpu_name())
        judged = [
            dataclasses.replace(each, variant=each.variant.model_copy(update={"metrics": [metric]}))
            if each.variant.id == FP32
            else each
            for each in judged
        ]
    return dataclasses.replace(piece, candidates=tuple(judged)), told


def _advice(piece: Workpiece, candidate: Candidate, drop: Drop, accuracy: Accuracy, judge: Judge) -> tuple[str, ...]:
    budget = piece.recipe.budget
    found = piece.found.get(candidate.variant.id)
    return after_judgement(
        drop,
        accuracy.more_pictures,
        found.chosen.drop.value if found and found.chosen else None,
        piece.recipe,
        labelled=judge.labelled,
        limit=budget.max_drop if judge.labelled else budget.max_disagreement,
    )


def _benchmark(piece: Workpiece, progress: Progress) -> tuple[Workpiece, dict[str, Any]]:
    """Latency of source and variants side by side; a file that is too slow for a kind of machine is not for it."""
    source_path = piece.scratch / "source.onnx"
    onnx.save(piece.source, source_path)
    task = piece.recipe.task
    contenders = [Contender("source", source_path, task)]
    contenders += [
        Contender(each.variant.id, piece.folder / each.variant.file, task, each.variant)
        for each in piece.candidates
        if "cpu" in each.variant.providers
    ]
    rounds = list(progress.track(compare_latency(contenders, physical_cores()), 6, "round", "timing"))
    told = {**rounds[-1], "cpu": cpu_name()}
    results = {result["name"]: result for result in told["results"]}
    said = ", ".join(f"{name} {result['median_ms']:.2f} ms" for name, result in results.items())
    judged, speeds = judge_speed(piece, results)
    unused = unused_figures(piece)
    for text in unused:
        progress.say(text)
    return dataclasses.replace(piece, candidates=tuple(judged)), {
        "said": f"{said} ({told['threads']} threads)",
        **told,
        "speed": speeds,
        "unused_figures": unused,
    }


def _golden(piece: Workpiece, _: Progress) -> tuple[Workpiece, dict[str, Any]]:
    """Inputs with the outputs of every file that will be packed, for the device to replay."""
    pictures = piece.pictures.search.first(_GOLDEN_PICTURES)
    checked = []
    for each in piece.candidates:
        refused = each.refused
        if refused is None:
            tolerances = each.variant.golden.tolerances
            try:
                data = make_golden(session_of(piece, each), pictures, piece.recipe.task, tolerances)
            except BuildError as err:
                if each.variant.id == FP32:
                    raise
                refused = str(err)
            else:
                (piece.folder / each.variant.golden.file).write_bytes(data)
        checked.append(dataclasses.replace(each, refused=refused))
    count = sum(each.refused is None for each in checked)
    return dataclasses.replace(piece, candidates=tuple(checked)), {"said": f"for {count} files"}


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
    ("verify", _verify),
    ("calibrate", _calibrate),
    ("search", _search),
    ("judge", _judge),
    ("benchmark", _benchmark),
    ("golden", _golden),
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
