"""The files beside fp32: for each target of the recipe a search, and a variant of what it found.

Two int8 files serve CPUs: one for x86, whose form is the one that is fastest there, and the plain one, for ARM. They
hold the same choices where that keeps the budget. Which form is fastest on x86 is measured when the build runs on
such a machine, and is the packed stem otherwise; times on x86 never decide for ARM.
"""

from __future__ import annotations

import dataclasses
import hashlib
from functools import partial
from typing import TYPE_CHECKING, Any

import onnx

from agent.model.manifest import Requires
from agent.model.runtime import ort
from agent.model.session import physical_cores
from build_models.advice import after_search
from build_models.errors import BuildError
from build_models.inside import look_inside
from build_models.judge import Judge
from build_models.machines import runs_here, time_files
from build_models.quantize.attempts import Choice
from build_models.quantize.dynamic import quantize_dynamic
from build_models.quantize.equalize import equalize
from build_models.quantize.float16 import convert_float16
from build_models.quantize.forms import FORMS, PACKED, PLAIN, form_named
from build_models.quantize.found import plain
from build_models.quantize.ground import calibrate
from build_models.quantize.islands import WEIGHTED
from build_models.quantize.methods import ranges_of
from build_models.quantize.search import Search
from build_models.quantize.targets import TARGETS, target
from build_models.quantize.tensorrt import quantize_tensorrt
from build_models.workpiece import FP32, Candidate, cpu_name, new_candidate, session_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from build_models.progress import Progress
    from build_models.quantize.found import Found
    from build_models.quantize.ground import Ground
    from build_models.quantize.targets import Target
    from build_models.workpiece import Workpiece

_STATIC = ("cpu", "cpu-nonvnni", "tensorrt")
X86, PLAIN_INT8 = "cpu-int8-vnni", "cpu-int8"
_HOPELESS = 0.9  # of fp32's speed: no choice of exceptions makes that up
_WORTH_A_FORM = 1.05  # another form must gain this factor over the plain one


def make_variants(piece: Workpiece, progress: Progress) -> tuple[list[Candidate], dict[str, Found], dict[str, Any]]:
    """Search for every target of the recipe.

    Returns:
        The candidates without fp32, in the order of the table of targets; what each search found, by variant; and
        the report.
    """
    merge = getattr(piece.recipe.data and piece.recipe.data.train, "merge", None)
    judge = Judge(piece.recipe, piece.pictures.search, session_of(piece, piece.candidate(FP32)), progress, merge)
    work = _Work(piece, judge, progress)
    candidates: list[Candidate] = []
    for name in piece.recipe.quantize.targets:
        if name in _STATIC and not _has_weights(piece.calibrated):
            work.told[name] = "no convolution or matrix product that int8 could make faster: fp32 serves there"
            progress.say(f"{name}: {work.told[name]}")
            continue
        candidates += _MAKERS[name](work)
    order = {each.variant.id: index for index, each in enumerate(candidates)}
    assert len(order) == len(candidates), "a target is made once"
    said = [f"{each.variant.id}: {each.refused or _said(work.found.get(each.variant.id))}" for each in candidates]
    told = {"variants": {name: work.plain(name, result) for name, result in work.found.items()}, **work.told}
    return _in_order(candidates), work.found, {"said": "; ".join(said), "metric": judge.name, **told}


def _has_weights(ground: Ground) -> bool:
    planned = set(ground.plan.nodes)
    return any(node.name in planned and node.op_type in WEIGHTED for node in ground.model.graph.node)


class _Work:
    """What the targets of one build share: the equalised ground is made once, and only when it is asked for."""

    def __init__(self, piece: Workpiece, judge: Judge, progress: Progress) -> None:
        self.piece = piece
        self.judge = judge
        self.progress = progress
        self.found: dict[str, Found] = {}
        self.told: dict[str, Any] = {}
        self._equalized: list[Ground | None] = []

    def search(self, *, reduce_range: bool = False) -> Search:
        piece, budget = self.piece, self.piece.recipe.budget
        folder = piece.scratch / "candidates"
        folder.mkdir(exist_ok=True)
        return Search(
            piece.recipe,
            piece.calibrated,
            self.equalized,
            piece.pictures.calibration.images,
            self.judge,
            budget.max_drop if self.judge.labelled else budget.max_disagreement,
            folder,
            piece.memory,
            self.progress,
            reduce_range=reduce_range,
        )

    def equalized(self) -> Ground | None:
        """The ground of the equalised graph; None where there was nothing to equalise."""
        if not self._equalized:
            piece = self.piece
            self.progress.say("equalising channels")
            model, changes = equalize(piece.model, piece.pictures.calibration.images())
            self.told["equalised"] = [dataclasses.asdict(change) for change in changes]
            ground = (
                calibrate(model, piece.raw_outputs, piece.pictures, piece.memory, self.progress) if changes else None
            )
            self._equalized.append(ground)
        return self._equalized[0]

    def plain(self, name: str, found: Found) -> dict[str, Any]:
        """What a search found, for the report, with a look inside the file that is taken."""
        taken = found.chosen or found.closest
        told = {**plain(found), "limit": found.limit, "aim": found.aim}
        for each, rounding in zip(told["sensitivities"], found.sensitivities, strict=True):
            each["gone"] = rounding.nodes <= taken.choice.float_nodes
        if target(name).writer in ("static", "tensorrt"):
            ground = self.equalized() if taken.choice.equalized else self.piece.calibrated
            assert ground is not None, "only chosen where there is one"
            images = self.piece.pictures.search.images()
            on_cpu = "cpu" in target(name).providers
            told["inside"] = look_inside(ground.model, onnx.load(taken.path), images, runs_on_cpu=on_cpu)
        return told

    def time(self, files: dict[str, bytes], what: str) -> dict[str, dict[str, float]]:
        """Time files on this machine, or recall it: another timing might choose another file for the same recipe."""
        piece = self.piece
        fp32 = piece.candidate(FP32).variant
        digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
        float_digest = hashlib.sha256((piece.folder / fp32.file).read_bytes()).hexdigest()
        machine = f"{cpu_name()}, {physical_cores()} threads, onnxruntime {ort.__version__}"
        facts = ("times", machine, float_digest, *(f"{name} {digest}" for name, digest in digests.items()))
        noted = piece.memory.recall(*facts)
        if noted is not None:
            return noted
        paths = []
        for index, (name, data) in enumerate(files.items()):
            path = piece.scratch / f"timed-{index}.onnx"
            path.write_bytes(data)
            paths.append((name, path))
        times = time_files(paths, (piece.folder / fp32.file, fp32), piece.recipe.task, self.progress, what)
        piece.memory.note(times, *facts)
        return times


def _cpu(work: _Work) -> list[Candidate]:
    """The int8 files for CPUs; one, where the plain form is the best on x86 too."""
    search = work.search()
    forms = [each for each in FORMS if each.name in work.piece.recipe.quantize.forms]
    form = PACKED if PACKED in forms else PLAIN
    here = runs_here(target(X86).requires.any_of)
    if here and forms != [PLAIN]:
        methods = work.piece.recipe.quantize.methods
        made = {each.name: search.file_of(Choice(methods[0], form=each.name)) for each in forms}
        distinct = {data: name for name, data in reversed(made.items())}  # of equal files the first form
        times = work.time({name: made[name] for name in reversed(distinct.values())}, "forms")
        work.told["forms"] = times
        form = form_named(_fastest({name: each for name, each in times.items() if name in made}))
        shown = ", ".join(f"{name} {each['speedup']:.2f}x" for name, each in times.items() if name in made)
        work.progress.say(f"forms of the file against fp32 on this machine: {shown}")
    plain_found = search.run(PLAIN)
    found = {PLAIN_INT8: plain_found}
    if form != PLAIN and plain_found.chosen is not None:
        same = not form.in_float(work.piece.model)
        other = search.mirror(plain_found, form) if same else search.run(form, like=plain_found.chosen)
        if other.chosen is not None and other.chosen.sha256 != plain_found.chosen.sha256:
            found[X86] = other
    if here:
        mine = X86 if X86 in found else PLAIN_INT8
        found[mine] = _with_times(work, found[mine])
    work.found |= found
    arm = [host for host in target(PLAIN_INT8).requires.any_of if host.arch == "aarch64"]
    return [
        _candidate(
            work,
            dataclasses.replace(target(name), requires=Requires(any_of=arm))
            if name == PLAIN_INT8 and X86 in found
            else target(name),
            each,
        )
        for name, each in found.items()
    ]


def _with_times(work: _Work, found: Found) -> Found:
    """Time the attempts that something speaks for, and choose by that."""
    files = {each.sha256: each.path.read_bytes() for each in found.shortlist}
    if not files:
        return found
    return found.with_times(work.time(files, "candidates"), work.piece.recipe.budget.min_speedup or 1.0)


def _cpu_nonvnni(work: _Work) -> list[Candidate]:
    """7-bit weights, a search of its own: their noise is twice that of 8 bits."""
    name = "cpu-int8-nonvnni"
    work.found[name] = work.search(reduce_range=True).run(PLAIN)
    return [_candidate(work, target(name), work.found[name])]


def _tensorrt(work: _Work) -> list[Candidate]:
    """Symmetric int8 by the best of the recipe's methods."""
    ground = work.piece.calibrated

    def make(method: str) -> onnx.ModelProto:
        return quantize_tensorrt(ground.model, ground.plan.nodes, ranges_of(ground.histograms, method))[0]

    makers: dict[str, Callable[[], onnx.ModelProto]] = {
        method: partial(make, method) for method in work.piece.recipe.quantize.methods
    }
    return _best_of(work, "trt-int8", makers)


def _cuda(work: _Work) -> list[Candidate]:
    """float16, with what overflows left in float32."""
    ground = work.piece.calibrated
    ranges = {name: (each.low, each.high) for name, each in ground.histograms.tensors.items()}

    def make() -> onnx.ModelProto:
        model, told = convert_float16(ground.model, work.piece.raw_outputs, ranges)
        work.told["float16"] = told
        return model

    return _best_of(work, "gpu-fp16", {"float16": make})


def _cpu_dynamic(work: _Work) -> list[Candidate]:
    """Matrix products quantised while they run; for models that have few convolutions."""

    def make() -> onnx.ModelProto:
        model, told = quantize_dynamic(work.piece.calibrated.model)
        work.told["dynamic"] = told
        return model

    return _best_of(work, "cpu-int8-dynamic", {"dynamic": make})


_MAKERS: dict[str, Callable[[_Work], list[Candidate]]] = {
    "cpu": _cpu,
    "cpu-nonvnni": _cpu_nonvnni,
    "cpu-dynamic": _cpu_dynamic,
    "tensorrt": _tensorrt,
    "cuda": _cuda,
}


def _best_of(work: _Work, name: str, makers: dict[str, Callable[[], onnx.ModelProto]]) -> list[Candidate]:
    """Make files until one is good on the search pictures, measured on the CPU; else the closest."""
    search = work.search()
    try:
        found = search.compare(makers)
    except BuildError as err:
        work.told[name] = str(err)
        work.progress.say(f"{name}: {err}")
        return []
    work.found[name] = found
    return [_candidate(work, target(name), found)]


def _candidate(work: _Work, wanted: Target, found: Found) -> Candidate:
    """The chosen file as a variant; the closest one, refused, where nothing was within the limit."""
    chosen = found.chosen or found.closest
    candidate = new_candidate(work.piece, wanted, chosen.path.read_bytes())
    if found.chosen is not None:
        return candidate
    refused = (
        f"nothing keeps the budget on the search pictures: closest is {chosen.choice} with a drop of "
        f"{chosen.drop.value:.4f} of {work.judge.name}, the most is {found.limit:g}"
    )
    calibration = len(work.piece.pictures.calibration)
    advice = after_search(found, work.piece.recipe, labelled=work.judge.labelled, calibration=calibration)
    return dataclasses.replace(candidate, refused=refused, missed_budget=True, advice=advice)


def _fastest(times: dict[str, dict[str, float]]) -> str:
    """The plain form unless another is clearly faster than it, and not hopelessly slower than fp32."""
    best = max(times, key=lambda name: times[name]["speedup"])
    plain_speed = times.get(PLAIN.name, {"speedup": 0.0})["speedup"]
    worth_it = times[best]["speedup"] > max(plain_speed * _WORTH_A_FORM, _HOPELESS)
    return best if worth_it else PLAIN.name


def _in_order(candidates: list[Candidate]) -> list[Candidate]:
    """As the table of targets says: what is stricter in its hosts stands first."""
    order = [each.id for each in TARGETS]
    return sorted(candidates, key=lambda each: order.index(each.variant.id))


def _said(found: Found | None) -> str:
    return str(found.chosen.choice) if found and found.chosen else "made"
