"""Builds that the gate must stop, builds that it must let through, and that it looks at val once, and goes on."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("onnx", reason="needs the build extra")
pytest.importorskip("matplotlib", reason="needs the build extra")

import numpy as np
import onnx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from onnx import helper, numpy_helper

from build_models import judge as judge_module
from build_models import pipeline
from build_models.benchmark import compare_latency
from build_models.errors import RecipeError
from build_models.judge import Judge
from build_models.pictures import Pictures
from build_models.pipeline import STAGES, build
from build_models.progress import Progress
from build_models.quantize.search import Search
from build_models.recipe_file import make_recipe
from tests.support.fake_timing import fake_timing
from tests.support.float_models import colour_classifier, colour_recipe, write_colours, write_noise

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from build_models.workpiece import Candidate, Workpiece

pytestmark = pytest.mark.build

KEY = Ed25519PrivateKey.generate()
ALL_IN_INT8 = {"methods": ["min_max"], "corrections": [], "most_float_share": 0.0}
CLEAR = 30.0  # grey levels by which a colour is ahead: int8 says the same
CLOSE = 1.0  # some are so close that int8 says something else


@dataclass(frozen=True)
class Place:
    """A folder with the model and its pictures."""

    folder: Path

    def build(self, out: str = "out", work: str | None = None, **changes: Any) -> Workpiece:
        self.said.seek(0)
        self.said.truncate()
        recipe = make_recipe(colour_recipe(self.folder, **changes))
        place = self.folder / work if work else None
        return build(recipe, KEY, self.folder / out, Progress(len(STAGES) + 1, self.said), work=place)

    def bytes_of(self, name: str, out: str = "out") -> bytes:
        return (self.folder / out / name).read_bytes()

    @property
    def said(self) -> io.StringIO:
        return _SAID


_SAID = io.StringIO()


@pytest.fixture(scope="module")
def clear(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Pictures that are easy to tell apart, and noise."""
    return place(tmp_path_factory.mktemp("clear"), CLEAR)


@pytest.fixture(scope="module")
def close(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Pictures that are hard to tell apart."""
    return place(tmp_path_factory.mktemp("close"), CLOSE)


def place(folder: Path, margin: float) -> Place:
    onnx.save(colour_classifier(), folder / "colours.onnx")
    write_colours(folder / "train", 12, margin=margin, clear=4, seed=2)
    write_colours(folder / "val", 40, margin=margin, seed=1)
    write_noise(folder / "noise", 24)
    return Place(folder)


@pytest.fixture(autouse=True)
def timing(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Int8 takes half of the time of fp32; the names of all that is timed."""
    return fake_timing(monkeypatch)


def int8(piece: Workpiece) -> Candidate:
    return piece.candidate("cpu-int8")


def data_of(place: Place, train: str) -> dict[str, Any]:
    return {
        "train": {"format": "pictures", "path": str(place.folder / train)},
        "val": {"format": "class_folders", "path": str(place.folder / "val")},
    }


def test_a_calibration_with_noise_is_refused(clear: Place) -> None:
    refused = int8(clear.build(data=data_of(clear, "noise")))
    assert refused.missed_budget
    assert str(refused.refused).startswith("beyond the budget: top1 1.0000 -> 0.")
    assert not (clear.folder / "out" / "models" / "cpu-int8.onnx").exists()
    assert any("data.train with pictures like those of val" in text for text in refused.advice)


def test_the_same_model_calibrated_with_real_pictures_is_not(clear: Place) -> None:
    piece = clear.build(data=data_of(clear, "train"))
    assert int8(piece).refused is None
    assert (clear.folder / "out" / "models" / "cpu-int8.onnx").exists()


def test_a_budget_of_nothing_refuses_a_file_that_differs(close: Place) -> None:
    refused = int8(close.build(budget={"max_drop": 0.0}, quantize=ALL_IN_INT8))
    assert refused.missed_budget
    assert "the most is 0" in str(refused.refused)
    assert any(text.startswith("budget.max_drop of 0.") for text in refused.advice)


def test_a_budget_that_is_wide_enough_lets_it_through(close: Place) -> None:
    piece = close.build(budget={"max_drop": 0.2})
    assert int8(piece).refused is None
    (metric,) = int8(piece).variant.metrics
    assert (metric.name, metric.cpu != "") == ("top1", True)
    assert metric.drop is not None
    assert metric.interval is not None
    assert 0 < metric.drop < 0.2
    assert metric.interval[0] < metric.drop < metric.interval[1]
    (fp32,) = piece.candidate("cpu-fp32").variant.metrics
    assert fp32.value == pytest.approx(metric.value + metric.drop)
    assert fp32.drop is None


def test_a_speed_that_int8_does_not_reach_is_refused(clear: Place) -> None:
    piece = clear.build(budget={"min_speedup": 100})
    told = {each["arch"]: each["refused"] for each in piece.reports["benchmark"]["speed"]}
    assert str(told["x86_64"]).endswith("2.00x its speed, the least is 100x")
    assert int8(piece).missed_budget
    assert not int8(clear.build(budget={"min_speedup": 2.0})).missed_budget


@pytest.mark.parametrize(("demanded", "missed"), [(None, False), (1.0, True)])
def test_a_slower_int8_file_is_not_for_this_machine(
    clear: Place, monkeypatch: pytest.MonkeyPatch, demanded: float | None, *, missed: bool
) -> None:
    fake_timing(monkeypatch, int8_ms=3.0)
    budget = {} if demanded is None else {"min_speedup": demanded}
    piece = clear.build(budget=budget)
    assert {host.arch for host in int8(piece).variant.requires.any_of} == {"aarch64"}
    assert int8(piece).missed_budget is missed


def slowed(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same results, after some milliseconds of work that nothing can fold away."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    result.graph.initializer.extend(
        [
            numpy_helper.from_array(np.array([1, 4, 4, 1], np.int64), "slow/tiles"),
            numpy_helper.from_array(np.zeros(1, np.float32), "slow/zero"),
        ]
    )
    last = next(node for node in result.graph.node if "scores" in node.output)
    last.output[:] = ["slow/scores" if name == "scores" else name for name in last.output]
    nodes = [
        helper.make_node("Cast", ["image"], ["slow/cast"], "slow/cast", to=onnx.TensorProto.FLOAT),
        helper.make_node("Tile", ["slow/cast", "slow/tiles"], ["slow/0"], "slow/tile"),
        *(helper.make_node("Erf", [f"slow/{n}"], [f"slow/{n + 1}"], f"slow/erf{n}") for n in range(4)),
        helper.make_node("ReduceMax", ["slow/4"], ["slow/max"], "slow/max", keepdims=0),
        helper.make_node("Mul", ["slow/max", "slow/zero"], ["slow/nothing"], "slow/mul"),
        helper.make_node("Add", ["slow/scores", "slow/nothing"], ["scores"], "slow/add"),
    ]
    result.graph.node.extend(nodes)
    onnx.checker.check_model(result)
    return result


@pytest.mark.parametrize("slow", [True, False])
def test_an_int8_file_that_was_made_slower_is_caught_by_the_clock(
    clear: Place, monkeypatch: pytest.MonkeyPatch, *, slow: bool
) -> None:
    """Timed for real, in a short benchmark."""
    monkeypatch.setattr(pipeline, "compare_latency", partial(compare_latency, rounds=2, round_s=0.03))
    if slow:
        model_of = Search.model_of
        monkeypatch.setattr(Search, "model_of", lambda self, choice: slowed(model_of(self, choice)))
    piece = clear.build(quantize={"forms": ["plain"], "methods": ["min_max"]}, budget={"min_speedup": 0.2})
    told = {each["arch"]: each["refused"] for each in piece.reports["benchmark"]["speed"]}
    assert (told["x86_64"] is not None) is slow
    assert int8(piece).missed_budget is slow
    assert ("x86_64" in {host.arch for host in int8(piece).variant.requires.any_of}) is not slow


@pytest.mark.parametrize(("inconclusive", "packed"), [("ship", True), ("refuse", False)])
def test_too_few_pictures_are_told_and_the_recipe_decides(clear: Place, inconclusive: str, *, packed: bool) -> None:
    piece = clear.build(budget={"inconclusive": inconclusive})
    told = piece.reports["judge"]["cpu-int8"]
    assert told["outcome"] == "inconclusive"
    assert "inconclusive: needs about 261 more pictures to be sure" in told["said"]
    assert (int8(piece).refused is None) is packed
    assert int8(piece).missed_budget is not packed
    if not packed:
        assert int8(piece).advice[0].startswith("data.val with about 261 more pictures: 120 are too few")


def test_pictures_of_val_among_those_of_train_stop_the_build(clear: Place) -> None:
    both = {name: {"format": "class_folders", "path": str(clear.folder / "val")} for name in ("train", "val")}
    with pytest.raises(RecipeError, match="120 are in both"):
        clear.build(out="leaked", data=both)
    assert not (clear.folder / "leaked").exists()


def test_a_float_model_that_is_always_wrong_stops_the_build(clear: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing could be lost, so the gate could not fail."""
    monkeypatch.setattr(Judge, "reference_value", 0.0)
    with pytest.raises(RecipeError, match="reaches a top1 of 0 on val"):
        clear.build()


def test_val_is_looked_at_once_a_file_and_only_by_the_judge(close: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[tuple[str, str]] = []
    stage = [""]
    iterate, say = Pictures.__iter__, Progress.stage

    def counted(self: Pictures) -> Iterator[Any]:
        looks.append((stage[0], self.dataset.sha256))
        return iterate(self)

    def named(self: Progress, name: str) -> Any:
        stage[0] = name
        return say(self, name)

    monkeypatch.setattr(Pictures, "__iter__", counted)
    monkeypatch.setattr(Progress, "stage", named)
    piece = close.build(budget={"max_drop": 0.2})
    val = piece.pictures.val.dataset.sha256
    assert [name for name, sha256 in looks if sha256 == val] == ["judge", "judge"], "fp32, and the one int8 file"
    assert len(looks) > 5, "the control: other pictures were looked at in other stages"
    calibration, search = piece.pictures.calibration.dataset.sha256, piece.pictures.search.dataset.sha256
    assert "calibrate" not in {name for name, sha256 in looks if sha256 == search}
    assert {name for name, sha256 in looks if sha256 == calibration} <= {"calibrate", "search"}


def test_two_builds_of_a_seed_are_equal_byte_by_byte(close: Place) -> None:
    for out in ("one", "other"):
        close.build(out=out, budget={"max_drop": 0.2})
    models = [f"models/cpu-{name}.onnx" for name in ("int8", "fp32")]
    for name in (*models, "golden/cpu-int8.npz", "golden/cpu-fp32.npz"):
        assert close.bytes_of(name, "one") == close.bytes_of(name, "other")
    one, other = (json.loads(close.bytes_of("manifest.json", out)) for out in ("one", "other"))
    for manifest in (one, other):
        manifest["files"] = [entry for entry in manifest["files"] if not entry["path"].startswith("report/")]
    assert one == other


def test_another_seed_takes_other_pictures(close: Place) -> None:
    budget = {"max_drop": 0.2}
    first = close.build(budget=budget)
    data = {**colour_recipe(close.folder)["data"], "seed": 1}
    second = close.build(budget=budget, data=data)
    assert first.pictures.search.dataset.sha256 != second.pictures.search.dataset.sha256
    assert first.pictures.val.dataset.sha256 == second.pictures.val.dataset.sha256


class Looks:
    """Counts the looks at search pictures, and may end the build at one of them."""

    def __init__(self, patch: pytest.MonkeyPatch, killed_at: int = 0) -> None:
        self.count = 0
        look = Judge.look

        def counted(judge: Judge, session: Any) -> Any:
            self.count += 1
            if self.count == killed_at:
                raise KeyboardInterrupt
            return look(judge, session)

        patch.setattr(judge_module.Judge, "look", counted)


HARD: dict[str, Any] = {"budget": {"max_drop": 0.0, "max_disagreement": 0.0}}  # every method and correction is tried


def test_a_second_build_recalls_what_the_first_found(clear: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    budget = {"max_drop": 0.2}
    first = Looks(monkeypatch)
    clear.build(out="first", work="work", budget=budget)
    assert first.count > 0
    timed = fake_timing(monkeypatch, int8_ms=1.5)
    second = Looks(monkeypatch)
    clear.build(out="second", work="work", budget=budget)
    assert second.count == 0
    assert set(timed) == {"source", "cpu-fp32", "cpu-int8"}, "no candidate was timed again, what is packed was"
    assert clear.bytes_of("models/cpu-int8.onnx", "first") == clear.bytes_of("models/cpu-int8.onnx", "second")


def test_without_the_folder_all_is_found_again(clear: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(2):
        looks = Looks(monkeypatch)
        clear.build()
        assert looks.count > 0


def test_a_build_that_was_killed_in_its_search_goes_on(close: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        whole = Looks(patch)
        close.build(out="whole", **HARD)
    assert whole.count > 4
    with monkeypatch.context() as patch:
        Looks(patch, killed_at=4)
        with pytest.raises(KeyboardInterrupt):
            close.build(out="killed", work="killed-work", **HARD)
    assert not (close.folder / "killed").exists()
    with monkeypatch.context() as patch:
        rest = Looks(patch)
        close.build(out="killed", work="killed-work", **HARD)
    assert rest.count == whole.count - 3
    for name in ("models/cpu-fp32.onnx", "golden/cpu-fp32.npz"):
        assert close.bytes_of(name, "killed") == close.bytes_of(name, "whole")


def test_another_budget_of_classes_is_another_question(close: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was seen of all labels is not the answer for some of them."""
    close.build(work="classes-work", budget={"max_drop": 0.2})
    looks = Looks(monkeypatch)
    close.build(work="classes-work", budget={"max_drop": 0.2, "classes": ["red"]})
    assert looks.count > 0
