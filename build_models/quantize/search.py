"""The search for an int8 file that keeps the accuracy budget with the least arithmetic in float.

In this order, until a file is good: the calibration methods; corrections of the best; then exceptions, tensors that
stay in float, by their worth, twice as many each time and then back to as few as are enough. Rankings come from the
simulator, which costs no files; what is decided is decided by files, run on pictures that calibration has not seen.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from itertools import islice
from typing import TYPE_CHECKING

from agent.model.manifest import Golden, Tolerances, Variant
from agent.model.runtime import ort
from agent.model.session import Session, SessionOptions, physical_cores
from build_models.graph.portable import check_portable, strip
from build_models.judge import Look
from build_models.metrics.bootstrap import Drop
from build_models.quantize.attempts import Attempt, Choice, Memory
from build_models.quantize.bias_correction import correct_biases
from build_models.quantize.costs import arithmetic_of
from build_models.quantize.forms import PLAIN, form_named
from build_models.quantize.found import Found, by_agreement, by_float_share
from build_models.quantize.islands import WEIGHTED
from build_models.quantize.methods import ranges_of
from build_models.quantize.sensitivity import Sensitivity, exceptions_by_worth, measure_sensitivities
from build_models.quantize.simulate import Simulator, find_sites, noise_shares
from build_models.quantize.static import quantize_static

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    import onnx
    from numpy.typing import NDArray

    from build_models.judge import Judge
    from build_models.progress import Progress
    from build_models.quantize.forms import Form
    from build_models.quantize.ground import Ground
    from build_models.recipe import Recipe

_TRIED_METHODS = 3  # the quietest in the simulator are made into files
_RANKING_PICTURES = 8
_SENSITIVITY_PICTURES = 2
_CORRECTION_PICTURES = 64
_Z95 = 1.96  # half a 95 % interval, in standard errors


class Search:
    """Makes files and looks at them.

    Args:
        recipe: its limits and methods.
        ground: the float graph.
        equalized: gives the ground of the equalised graph, or None where there was nothing to equalise.
        images: gives the calibration pictures, uint8 ``[H, W, 3]``, each time.
        judge: of the search pictures.
        limit: the most that may be lost on them.
        folder: where files are written.
        memory: of an earlier run.
        progress: is told of every step.
        reduce_range: 7-bit weights, for CPUs whose int8 products saturate.
    """

    def __init__(
        self,
        recipe: Recipe,
        ground: Ground,
        equalized: Callable[[], Ground | None],
        images: Callable[[], Iterable[NDArray[np.uint8]]],
        judge: Judge,
        limit: float,
        folder: Path,
        memory: Memory,
        progress: Progress,
        *,
        reduce_range: bool = False,
    ) -> None:
        self._recipe = recipe
        self._ground = ground
        self._equalized = equalized
        self._images = images
        self._judge = judge
        self._limit = limit
        # Labels of few pictures are a rough scale: what is chosen by them has to be better than it must.
        self._aim = limit / 2 if judge.labelled else limit
        self._folder = folder
        self._memory = memory
        self._progress = progress
        self._reduce_range = reduce_range
        self._scale = _scale_of(recipe, ground.model)
        self._attempts: list[Attempt] = []
        self._sensitivities: tuple[Sensitivity, ...] = ()

    def run(self, form: Form = PLAIN, like: Attempt | None = None) -> Found:
        """Search among files of one form.

        Args:
            form: of all of them.
            like: what was found for another form: where the same is good in this one, nothing else is tried.
        """
        if like is not None and self._try(dataclasses.replace(like.choice, form=form.name)).good:
            return self._found(form)
        best = self._best_method(form)
        if not best.good:
            best = self._corrected(best)
        if not best.good:
            self._with_exceptions(best)
        return self._found(form)

    def mirror(self, found: Found, form: Form) -> Found:
        """The shortlist of another search in a form that computes the same numbers."""
        for each in found.shortlist or [found.closest]:
            self._try(dataclasses.replace(each.choice, form=form.name))
        return self._found(form)

    def _found(self, form: Form) -> Found:
        mine = [each for each in self._attempts if each.choice.form == form.name]
        closest = min(mine, key=by_agreement)
        within = [each for each in mine if each.drop.value <= self._limit]
        good = [each for each in within if each.good]
        chosen = min(good, key=by_float_share) if good else min(within, key=by_agreement, default=None)
        return Found(tuple(mine), chosen, closest, self._limit, self._aim, self._sensitivities, self._reasons(chosen))

    def compare(self, makers: Mapping[str, Callable[[], onnx.ModelProto]]) -> Found:
        """Files that something else makes, by what they are called; the first good one ends it.

        Raises:
            BuildError: one of them cannot be made.
        """
        for name, make in makers.items():
            if self._look(Choice(name), _finished(make()), 0.0).good:
                break
        return self._found(PLAIN)

    def model_of(self, choice: Choice) -> onnx.ModelProto:
        """The file that a choice makes."""
        ground = self._ground_of(choice)
        ranges = ranges_of(ground.histograms, choice.method)
        form = form_named(choice.form)
        left = self._in_float(choice)
        nodes = [name for name in ground.plan.nodes if name not in left]
        model, _ = quantize_static(
            ground.model, nodes, ranges, reduce_range=self._reduce_range, packed_stem=form.packed_stem
        )
        if choice.bias:
            model, _ = correct_biases(ground.model, model, lambda: islice(self._images(), _CORRECTION_PICTURES))
        return _finished(model)

    def file_of(self, choice: Choice) -> bytes:
        """The same as it lies on a disk."""
        return _serialised(self.model_of(choice))

    def _best_method(self, form: Form) -> Attempt:
        """The calibration methods, ranked in the simulator; the quietest become files, until one is good."""
        noises = self._noise_by_method(form)
        ranked = sorted(noises, key=lambda method: (noises[method], method))
        attempts = []
        for method in ranked[:_TRIED_METHODS]:
            attempts.append(self._try(Choice(method, form=form.name)))
            if attempts[-1].good:
                return attempts[-1]
        return min(attempts, key=by_agreement)

    def _noise_by_method(self, form: Form) -> dict[str, float]:
        simulator = self._simulator(form, self._ground)
        images = self._first_images(_RANKING_PICTURES)
        exact = [simulator.run(image, {}) for image in images]
        noises: dict[str, float] = {}
        for method in self._recipe.quantize.methods:
            ranges = ranges_of(self._ground.histograms, method)
            rough = (simulator.run(image, ranges, simulator.sites) for image in images)
            noises[method] = float(noise_shares(exact, rough).mean())
        return noises

    def _corrected(self, best: Attempt) -> Attempt:
        """What the recipe allows to be corrected, one thing after the other; kept where it helps."""
        for name in self._recipe.quantize.corrections:
            if name == "equalize":
                if self._equalized() is None:
                    continue
                choice = dataclasses.replace(best.choice, equalized=True)
            else:
                choice = dataclasses.replace(best.choice, bias=True)
            best = min(best, self._try(choice), key=by_agreement)
            if best.good:
                break
        return best

    def _with_exceptions(self, best: Attempt) -> None:
        """Leave ever more in float until it is good, then take back what was not needed."""
        groups = self._affordable(best.choice, arithmetic_of(self._ground_of(best.choice).model))

        def attempt(count: int) -> Attempt:
            left = frozenset(name for group in groups[:count] for name in group)
            return self._try(dataclasses.replace(best.choice, float_nodes=left))

        low, high = 0, min(1, len(groups))
        while high > low and not attempt(high).good:
            low, high = high, min(2 * high, len(groups))
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if attempt(middle).good else (middle, high)

    def _affordable(self, choice: Choice, costs: Mapping[str, float]) -> list[frozenset[str]]:
        """The groups by worth; what would make too much of the arithmetic float, or all of it, is left out."""
        ground = self._ground_of(choice)
        weighted = {node.name for node in ground.model.graph.node if node.op_type in WEIGHTED}
        in_float = form_named(choice.form).in_float(ground.model)
        groups = []
        for group in exceptions_by_worth(self._sense(choice), {name: costs[name] for name in ground.plan.nodes}):
            more = in_float | group
            share = _share(ground, more, costs)
            if share <= self._recipe.quantize.most_float_share and weighted.intersection(ground.plan.nodes) - more:
                groups.append(group)
                in_float = more
        return groups

    def _sense(self, choice: Choice) -> Sequence[Sensitivity]:
        ground = self._ground_of(choice)
        simulator = self._simulator(form_named(choice.form), ground)
        ranges = ranges_of(ground.histograms, choice.method)
        images = self._first_images(_SENSITIVITY_PICTURES)
        self._progress.say(f"how loud each of {len(simulator.sites)} roundings is alone")
        self._sensitivities = tuple(measure_sensitivities(simulator, ranges, images, self._progress))
        return self._sensitivities

    def _simulator(self, form: Form, ground: Ground) -> Simulator:
        left = form.in_float(ground.model)
        sites = find_sites(ground.model, [name for name in ground.plan.nodes if name not in left])
        return Simulator(ground.model, sites, ground.plan.heads, reduce_range=self._reduce_range)

    def _first_images(self, count: int) -> list[NDArray[np.uint8]]:
        return list(islice(self._images(), count))

    def _ground_of(self, choice: Choice) -> Ground:
        if not choice.equalized:
            return self._ground
        ground = self._equalized()
        assert ground is not None, "only tried where there is one"
        return ground

    def _try(self, choice: Choice) -> Attempt:
        """Make the file and look at it, or remember what was seen."""
        for known in self._attempts:
            if known.choice == choice:
                return known
        ground = self._ground_of(choice)
        share = _share(ground, self._in_float(choice), arithmetic_of(ground.model))
        return self._look(choice, self.model_of(choice), share)

    def _in_float(self, choice: Choice) -> frozenset[str]:
        return choice.float_nodes | form_named(choice.form).in_float(self._ground_of(choice).model)

    def _look(self, choice: Choice, model: onnx.ModelProto, share: float) -> Attempt:
        data = _serialised(model)
        sha256 = hashlib.sha256(data).hexdigest()
        path = self._folder / f"{sha256[:16]}.onnx"
        path.write_bytes(data)
        look = self._look_at(sha256, data)
        drop, agreement = look.drop, look.agreement
        good = self._keeps(drop, agreement)
        attempt = Attempt(choice, sha256, len(data), drop, agreement, share, good, path)
        self._attempts.append(attempt)
        both = f", {100 * agreement.value:.1f} % of fp32's answers lost" if self._judge.labelled else ""
        self._progress.say(f"{choice}: {self._judge.name} drop {drop.value:+.4f}{both}")
        return attempt

    def _look_at(self, sha256: str, data: bytes) -> Look:
        for known in self._attempts:
            if known.sha256 == sha256:
                return Look(known.drop, known.agreement)
        facts = ("look", sha256, self._judge.pictures.dataset.sha256, self._judge.name, self._scale)
        noted = self._memory.recall(*facts)
        if noted is not None:
            return Look(*(Drop(**each) for each in noted.values()))
        look = self._judge.look(self._session(data))
        self._memory.note(dataclasses.asdict(look), *facts)
        return look

    def _session(self, data: bytes) -> Session:
        variant = Variant(
            id="candidate",
            file="candidate.onnx",
            precision="int8",
            providers=["cpu"],
            input=self._judge.pictures.spec,
            golden=Golden(file="candidate.npz", tolerances=Tolerances()),
        )
        return Session(data, self._recipe.task, variant, SessionOptions(threads=physical_cores()))

    def _keeps(self, drop: Drop, agreement: Drop) -> bool:
        """The drop keeps the aim, and with a standard error of it the limit, or fp32's answers are kept."""
        sure = drop.value + drop.half_width / _Z95 <= self._limit
        agrees = agreement.value <= self._recipe.budget.max_disagreement
        return drop.value <= self._aim and (sure or agrees)

    def _reasons(self, chosen: Attempt | None) -> dict[str, str]:
        """Why each excepted node is in float: the loudest rounding that goes away with it."""
        reasons: dict[str, str] = {}
        for each in self._sensitivities if chosen else ():
            assert chosen is not None
            for node in sorted(each.nodes) if each.nodes <= chosen.choice.float_nodes else ():
                text = f"rounding the {each.kind} {each.site} alone leaves {each.sqnr_db:.1f} dB at the heads"
                reasons.setdefault(node, text)
        return reasons


def _serialised(model: onnx.ModelProto) -> bytes:
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _finished(model: onnx.ModelProto) -> onnx.ModelProto:
    stripped = strip(model)
    check_portable(stripped)
    return stripped


def _scale_of(recipe: Recipe, model: onnx.ModelProto) -> str:
    """A digest of what a look depends on besides the file and the pictures: fp32, and how answers are judged."""
    judged = recipe.model_dump_json(include={"input", "output", "labels", "defaults", "data"})
    facts = [ort.__version__, judged, recipe.budget.metric, recipe.budget.model_dump(mode="json")["classes"]]
    digest = hashlib.sha256(json.dumps(facts).encode())
    digest.update(model.SerializeToString(deterministic=True))
    return digest.hexdigest()


def _share(ground: Ground, in_float: frozenset[str], costs: Mapping[str, float]) -> float:
    """Of the arithmetic that the plan has in int8, the part that some nodes do."""
    total = sum(costs[name] for name in ground.plan.nodes)
    return sum(costs[name] for name in ground.plan.nodes if name in in_float) / max(total, 1.0)
