"""The search makes as few files as it must, leaves as little in float as it can, and says so when nothing helps."""

from __future__ import annotations

import functools
import io
from itertools import pairwise
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the build extra")

import onnx
from onnx import helper

from build_models.graph.canonical_output import canonical_output
from build_models.graph.model_io import run_model
from build_models.graph.native_input import native_input
from build_models.graph.portable import make_portable
from build_models.judge import Look
from build_models.metrics.bootstrap import Drop
from build_models.progress import Progress
from build_models.quantize.attempts import Choice, Memory
from build_models.quantize.forms import form_named
from build_models.quantize.ground import Ground
from build_models.quantize.histograms import collect_histograms
from build_models.quantize.plan import make_plan
from build_models.quantize.search import Search
from build_models.quantize.static import quantisable_tensors
from build_models.recipe_file import make_recipe
from tests.support.onnx_graphs import graph_model

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from agent.model.session import Session
    from build_models.quantize.found import Found
    from build_models.recipe import Recipe

pytestmark = pytest.mark.build

SIDE, CHANNELS, DEPTH = 16, 8, 6
LOUD = 3  # the layer one of whose channels exceeds the others
LABELS = ["a", "b", "c"]
PICTURES = [np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8) for seed in range(6)]
SEARCHED = PICTURES[4:]
CLOSE = 0.05  # distance of the scores; measured: 0.01 in int8, 0.95 with a loud channel, 0.02 with that in float


def recipe(**quantize: Any) -> Recipe:
    values = {"methods": ["min_max"], "corrections": [], "most_float_share": 0.5, **quantize}
    return make_recipe(
        {
            "name": "chain",
            "source": {"kind": "onnx", "path": "chain.onnx"},
            "output": {"family": "logits"},
            "labels": LABELS,
            "quantize": values,
        }
    )


@functools.cache
def ground(outlier: float = 1.0, depth: int = DEPTH) -> Ground:
    """A chain of convolutions; one channel of the third exceeds the others, and the fourth makes it good."""
    rng = np.random.default_rng(2)
    nodes, constants, tensor = [], {}, "x"
    for layer in range(1, depth + 1):
        inputs = 3 if layer == 1 else CHANNELS
        weights = rng.standard_normal((CHANNELS, inputs, 3, 3)) * np.sqrt(2 / (9 * inputs))
        if layer == LOUD:
            weights[-1] *= outlier
        if layer == LOUD + 1:
            weights[:, -1] /= outlier
        constants[f"w{layer}"] = weights.astype(np.float32)
        nodes.append(helper.make_node("Conv", [tensor, f"w{layer}"], [f"c{layer}"], name=f"conv{layer}", pads=[1] * 4))
        nodes.append(helper.make_node("Relu", [f"c{layer}"], [f"r{layer}"], name=f"relu{layer}"))
        tensor = f"r{layer}"
    constants["classes"] = rng.standard_normal((CHANNELS, len(LABELS))).astype(np.float32) * 20
    nodes += [
        helper.make_node("GlobalAveragePool", [tensor], ["mean"], name="mean"),
        helper.make_node("Flatten", ["mean"], ["flat"], name="flat"),
        helper.make_node("Gemm", ["flat", "classes"], ["logits"], name="classify"),
    ]
    shaped: dict[str, Any] = constants
    source = graph_model(nodes, inputs={"x": (1, 3, SIDE, SIDE)}, outputs={"logits": 1}, **shaped)
    native, _ = native_input(source, recipe().input)
    canonical, head = canonical_output(native, recipe().output, (SIDE, SIDE), LABELS)
    raw = list(head.raw_tensors.values())
    model, _ = make_portable(canonical, raw)
    histograms = collect_histograms(model, quantisable_tensors(model, raw), lambda: PICTURES[:4])
    ranges = {name: (each.low, each.high) for name, each in histograms.tensors.items()}
    return Ground(model, histograms, make_plan(model, raw, ranges))


class FakeJudge:
    """The drop is the mean distance of the scores from fp32's, or what a function makes of it."""

    def __init__(
        self,
        model: onnx.ModelProto,
        *,
        labelled: bool = False,
        judged: Callable[[float], float] = lambda distance: distance,
    ) -> None:
        self.labelled = labelled
        self.name = "top1" if labelled else "agreement (top1)"
        self.pictures = SimpleNamespace(
            spec=recipe().input.spec(SIDE, SIDE), dataset=SimpleNamespace(sha256="of the pictures")
        )
        self.looks = 0
        self.judged = judged
        self._exact = [run_model(model, {"image": picture[None]})["scores"] for picture in SEARCHED]

    def look(self, session: Session) -> Look:
        self.looks += 1
        distances = []
        for picture, exact in zip(SEARCHED, self._exact, strict=True):
            session.input_image[:] = picture
            distances.append(np.abs(session.run()["scores"] - exact).sum())
        value = self.judged(float(np.mean(distances)))
        drop = Drop(value, value, value, 1.0, 1.0 - value, len(SEARCHED), "bootstrap")
        return Look(drop, drop)


def searching(
    folder: Path,
    of: Ground,
    judge: FakeJudge,
    limit: float = CLOSE,
    memory: Memory | None = None,
    equalized: Callable[[], Ground | None] = lambda: None,
    **quantize: Any,
) -> Search:
    given: Any = judge
    progress = Progress(1, io.StringIO())
    return Search(
        recipe(**quantize), of, equalized, lambda: PICTURES[:4], given, limit, folder, memory or Memory(None), progress
    )


def facts(found: Found) -> list[tuple[str, str, float, bool]]:
    return [(str(each.choice), each.sha256, each.drop.value, each.good) for each in found.attempts]


def float_shares(found: Found) -> list[float]:
    """Of the attempts with exceptions, by their number."""
    with_exceptions = [each for each in found.attempts if each.choice.float_nodes]
    return [each.float_share for each in sorted(with_exceptions, key=lambda each: len(each.choice.float_nodes))]


def files(folder: Path) -> Sequence[Path]:
    return sorted(folder.glob("*.onnx"))


def test_a_good_first_method_is_the_only_file(tmp_path: Path) -> None:
    judge = FakeJudge(ground().model)
    found = searching(tmp_path, ground(), judge, methods=["min_max", "mse", "entropy"]).run()
    assert len(found.attempts) == judge.looks == len(files(tmp_path)) == 1
    assert found.chosen == found.attempts[0]
    assert found.chosen.good
    assert found.chosen.float_share == 0
    assert found.reasons == {}
    assert found.sensitivities == ()
    onnx.checker.check_model(onnx.load(found.chosen.path))


def test_the_methods_are_tried_by_their_noise_three_at_most(tmp_path: Path) -> None:
    judge = FakeJudge(ground().model, judged=lambda _: 1.0)
    methods = ["min_max", "moving_average", "percentile_99.99", "entropy", "mse"]
    found = searching(tmp_path, ground(), judge, methods=methods, most_float_share=0.0).run()
    assert len(found.attempts) <= 3
    assert {each.choice.method for each in found.attempts} < set(methods)


def test_one_loud_tensor_is_excepted_and_little_else(tmp_path: Path) -> None:
    loud = ground(1000.0)
    found = searching(tmp_path, loud, FakeJudge(loud.model)).run()
    assert not found.attempts[0].good  # the trap works
    assert found.chosen is not None
    assert found.chosen.good
    assert {"conv3", "relu3", "conv4"} <= found.chosen.choice.float_nodes
    assert {"conv1", "conv2", "conv5", "conv6", "classify"}.isdisjoint(found.chosen.choice.float_nodes)
    assert 0.2 < found.chosen.float_share < 0.5


def test_the_reasons_name_every_exception_and_the_loud_tensor(tmp_path: Path) -> None:
    loud = ground(1000.0)
    found = searching(tmp_path, loud, FakeJudge(loud.model)).run()
    assert found.chosen is not None
    assert found.reasons.keys() == found.chosen.choice.float_nodes
    assert "activation r3 alone leaves" in found.reasons["relu3"]


def test_when_nothing_helps_nothing_is_chosen_and_the_closest_is_told(tmp_path: Path) -> None:
    loud = ground(1000.0)
    found = searching(tmp_path, loud, FakeJudge(loud.model), limit=-1.0).run()
    assert found.chosen is None
    assert found.reasons == {}
    assert found.closest.drop.value == min(each.drop.value for each in found.attempts)
    assert len(found.attempts) > 2


@pytest.mark.parametrize("most", [0.0, 0.1, 0.3, 0.6, 1.0])
def test_never_more_is_left_in_float_than_the_recipe_allows(tmp_path: Path, most: float) -> None:
    """And never everything: a file without int8 is none."""
    loud = ground(1000.0)
    found = searching(tmp_path, loud, FakeJudge(loud.model), limit=-1.0, most_float_share=most).run()
    shares = [each.float_share for each in found.attempts]
    assert max(shares) <= most
    assert max(shares) < 1.0
    assert (max(shares) > 0.2) == (most > 0.2)


def test_doubling_and_halving_leave_ever_more_in_float(tmp_path: Path) -> None:
    loud = ground(1000.0)
    searched = searching(tmp_path, loud, FakeJudge(loud.model, judged=lambda _: 1.0), most_float_share=1.0)
    shares = float_shares(searched.run())
    assert len(shares) > 2
    assert all(before <= after for before, after in pairwise(shares))


@pytest.mark.parametrize("good_from", [2, 3, 4, 5])
def test_what_was_good_is_chosen_with_as_few_exceptions_as_any(tmp_path: Path, good_from: int) -> None:
    loud = ground(1000.0)
    judge = FakeJudge(loud.model)
    search: Any = searching(tmp_path, loud, judge, most_float_share=1.0)
    make = search.model_of

    def noticing(choice: Choice) -> onnx.ModelProto:
        judge.judged = lambda _: 0.0 if len(choice.float_nodes) >= good_from else 1.0
        model: onnx.ModelProto = make(choice)
        return model

    search.model_of = noticing
    found = search.run()
    good = [each for each in found.attempts if each.good]
    assert good
    fewest = min(len(each.choice.float_nodes) for each in good)
    assert len(found.chosen.choice.float_nodes) == fewest
    below = [each for each in found.attempts if len(each.choice.float_nodes) < fewest]
    assert below
    assert not any(each.good for each in below)


def test_corrections_are_tried_before_exceptions_and_kept_where_they_help(tmp_path: Path) -> None:
    loud = ground(1000.0)
    search = searching(
        tmp_path, loud, FakeJudge(loud.model), equalized=ground, corrections=["equalize", "bias"], methods=["min_max"]
    )
    found = search.run()  # the "equalised" graph has no loud channel and computes nearly the same
    assert [str(each.choice) for each in found.attempts] == ["min_max", "min_max, equalised"]
    assert found.chosen is not None
    assert found.chosen.choice.equalized
    assert found.chosen.float_share == 0


def test_where_there_is_nothing_to_equalise_the_biases_are_corrected(tmp_path: Path) -> None:
    judge = FakeJudge(ground().model, judged=lambda _: 1.0)
    found = searching(tmp_path, ground(), judge, corrections=["equalize", "bias"], most_float_share=0.0).run()
    assert [str(each.choice) for each in found.attempts] == ["min_max", "min_max, biases corrected"]


def test_labels_make_the_aim_half_the_limit(tmp_path: Path) -> None:
    for labelled, aim in ((True, CLOSE / 2), (False, CLOSE)):
        judge = FakeJudge(ground().model, labelled=labelled, judged=lambda _: 0.75 * CLOSE)
        found = searching(tmp_path, ground(), judge, most_float_share=0.0).run()
        assert (found.limit, found.aim) == (CLOSE, aim)
        assert found.attempts[0].good != labelled
        assert found.chosen is not None  # within the limit, though not good
        assert found.chosen.good != labelled


def test_a_second_run_looks_at_no_file(tmp_path: Path) -> None:
    loud = ground(1000.0)
    memory = Memory(tmp_path / "memory")
    first, second = (FakeJudge(loud.model) for _ in range(2))
    before = searching(tmp_path, loud, first, memory=memory).run()
    after = searching(tmp_path, loud, second, memory=memory).run()
    assert first.looks == len({each.sha256 for each in before.attempts})
    assert second.looks == 0
    assert facts(after) == facts(before)
    assert after.chosen == before.chosen


def test_what_is_remembered_of_other_pictures_or_another_fp32_does_not_count(tmp_path: Path) -> None:
    memory = Memory(tmp_path / "memory")
    searching(tmp_path, ground(), FakeJudge(ground().model), memory=memory).run()
    other = FakeJudge(ground().model)
    other.pictures.dataset.sha256 = "of others"
    searching(tmp_path, ground(), other, memory=memory).run()
    assert other.looks == 1
    changed = onnx.ModelProto()
    changed.CopyFrom(ground().model)
    changed.doc_string = "another"
    elsewhere = FakeJudge(changed)
    searching(tmp_path, Ground(changed, ground().histograms, ground().plan), elsewhere, memory=memory).run()
    assert elsewhere.looks == 1


@pytest.mark.parametrize("damage", ["cut", "changed", "empty", "other"])
def test_a_damaged_note_is_found_out_again(tmp_path: Path, damage: str) -> None:
    memory = Memory(tmp_path / "memory")
    before = searching(tmp_path, ground(), FakeJudge(ground().model), memory=memory).run()
    (path,) = (tmp_path / "memory").iterdir()
    text = path.read_text()
    path.write_text({"cut": text[:-20], "changed": text.replace("0.9", "0.8"), "empty": "", "other": "[1]"}[damage])
    judge = FakeJudge(ground().model)
    after = searching(tmp_path, ground(), judge, memory=memory).run()
    assert judge.looks == 1
    assert facts(after) == facts(before)
    assert path.read_text() == text


def test_the_same_search_twice_makes_the_same_files(tmp_path: Path) -> None:
    loud = ground(1000.0)
    runs = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        runs.append(searching(tmp_path / name, loud, FakeJudge(loud.model), methods=["min_max", "mse"]).run())
    assert facts(runs[0]) == facts(runs[1])
    assert runs[0].reasons == runs[1].reasons
    assert [each.name for each in files(tmp_path / "one")] == [each.name for each in files(tmp_path / "two")]


def test_another_form_takes_over_what_was_found(tmp_path: Path) -> None:
    loud = ground(1000.0)
    search = searching(tmp_path, loud, FakeJudge(loud.model))
    plain = search.run()
    assert plain.chosen is not None
    packed = search.run(form_named("packed stem"), like=plain.chosen)
    assert len(packed.attempts) == 1
    assert packed.chosen is not None
    assert packed.chosen.choice.float_nodes == plain.chosen.choice.float_nodes
    assert packed.chosen.choice.form == "packed stem"
    assert packed.chosen.sha256 != plain.chosen.sha256
    assert packed.reasons == plain.reasons


def test_another_form_is_searched_anew_where_that_is_not_good(tmp_path: Path) -> None:
    loud = ground(1000.0)
    search = searching(tmp_path, loud, FakeJudge(loud.model), most_float_share=0.6)
    bad = search.run().attempts[0]
    assert not bad.good
    found = search.run(form_named("stem in float"), like=bad)
    assert found.chosen is not None
    assert found.chosen.good
    assert {each.choice.form for each in found.attempts} == {"stem in float"}


def test_equal_files_are_looked_at_once(tmp_path: Path) -> None:
    """Of a single picture, the moving average is its extremes."""
    one_picture = collect_histograms(ground().model, list(ground().histograms.tensors), lambda: PICTURES[:1])
    once = Ground(ground().model, one_picture, ground().plan)
    judge = FakeJudge(ground().model, judged=lambda _: 1.0)
    found = searching(tmp_path, once, judge, methods=["min_max", "moving_average"], most_float_share=0.0).run()
    assert [each.choice.method for each in found.attempts] == ["min_max", "moving_average"]
    assert found.attempts[0].sha256 == found.attempts[1].sha256
    assert judge.looks == 1


def test_files_that_something_else_makes_are_compared_until_one_is_good(tmp_path: Path) -> None:
    made = []

    def maker(name: str) -> Callable[[], onnx.ModelProto]:
        def make() -> onnx.ModelProto:
            made.append(name)
            model = onnx.ModelProto()
            model.CopyFrom(ground().model)
            model.graph.node[0].name = name
            return model

        return make

    drops = iter([1.0, 0.0])
    judge = FakeJudge(ground().model, judged=lambda _: next(drops))
    found = searching(tmp_path, ground(), judge).compare({name: maker(name) for name in ("bad", "good", "never")})
    assert made == ["bad", "good"]
    assert found.chosen is not None
    assert found.chosen.choice.method == "good"
    assert found.closest == found.chosen
