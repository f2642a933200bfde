"""The whole build of a tiny model: what is packed, what is refused, and that a failure changes nothing."""

from __future__ import annotations

import io
import json
import platform
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("onnx", reason="needs the build extra")
pytest.importorskip("matplotlib", reason="needs the build extra")

import onnx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.errors import BundleError
from agent.model import golden
from agent.model.activate import activate
from agent.model.bundle import load_bundle
from agent.model.session import Session, SessionOptions
from build_models import pipeline
from build_models.errors import BuildError, RecipeError
from build_models.graph.native_input import native_input
from build_models.pipeline import STAGES, build
from build_models.progress import Progress
from build_models.recipe_file import make_recipe
from build_models.verify import make_golden
from tests.support.bundles import write_public_key
from tests.support.fake_timing import fake_timing
from tests.support.float_models import spot_detector, spot_picture, spot_recipe, write_pictures

if TYPE_CHECKING:
    from build_models.recipe import InputRecipe
    from build_models.workpiece import Workpiece

pytestmark = pytest.mark.build

KEY = Ed25519PrivateKey.generate()
# One method that lets a loud channel drown the others, and no way out.
CLUMSY = {"methods": ["min_max"], "corrections": [], "most_float_share": 0.0}
PACKED_BOTH = [
    "golden/cpu-fp32.npz",
    "golden/cpu-int8.npz",
    "manifest.json",
    "manifest.sig",
    "models/cpu-fp32.onnx",
    "models/cpu-int8.onnx",
    "report/report.html",
    "report/report.json",
]


@dataclass(frozen=True)
class Built:
    piece: Workpiece
    target: Path
    public_key: Path
    said: str

    @property
    def files(self) -> list[str]:
        return sorted(path.relative_to(self.target).as_posix() for path in self.target.rglob("*") if path.is_file())

    @property
    def report(self) -> dict[str, Any]:
        told: dict[str, Any] = json.loads((self.target / "report" / "report.json").read_bytes())
        return told

    def variant(self, name: str) -> dict[str, Any]:
        (told,) = (each for each in self.report["variants"] if each["id"] == name)
        return dict(told)


def run_build(folder: Path, *, outlier: float = 1.0, pictures: int = 20, **changes: Any) -> Built:
    """Build the spot detector in ``folder``."""
    onnx.save(spot_detector(outlier=outlier), folder / "spots.onnx")
    write_pictures(folder / "pictures", pictures)
    recipe = make_recipe(spot_recipe(folder, **changes))
    said = io.StringIO()
    piece = build(recipe, KEY, folder / "out" / "spots", Progress(len(STAGES) + 1, said))
    return Built(piece, folder / "out" / "spots", write_public_key(folder / "key.pem", KEY), said.getvalue())


@pytest.fixture(scope="module")
def accepted(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """A build in which int8 is good enough and fast enough."""
    with pytest.MonkeyPatch.context() as patch:
        fake_timing(patch)
        return run_build(tmp_path_factory.mktemp("accepted"))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_timing(monkeypatch)


def test_both_variants_are_packed_int8_first(accepted: Built) -> None:
    manifest = load_bundle(accepted.target, [accepted.public_key]).manifest
    assert [variant.id for variant in manifest.variants] == ["cpu-int8", "cpu-fp32"]
    assert accepted.files == PACKED_BOTH
    assert (manifest.name, manifest.version, manifest.task) == ("spots", 3, "detect")


def test_the_bundle_goes_live_on_a_device(accepted: Built) -> None:
    active = activate(accepted.target, [accepted.public_key], SessionOptions())
    active.session.input_image[:] = spot_picture(3)
    assert (active.session.run()["scores"] > 0.9).any()


@pytest.mark.parametrize("name", ["cpu-int8", "cpu-fp32"])
def test_each_variant_replays_its_golden_pictures(accepted: Built, name: str) -> None:
    bundle = load_bundle(accepted.target, [accepted.public_key])
    (variant,) = (each for each in bundle.manifest.variants if each.id == name)
    session = Session(bundle.read(variant.file), "detect", variant, SessionOptions())
    golden.replay(session, bundle.read(variant.golden.file), "detect", variant)


@pytest.mark.parametrize("path", [path for path in PACKED_BOTH if not path.startswith("manifest")])
def test_one_changed_byte_in_any_file_is_refused(accepted: Built, path: str) -> None:
    file = accepted.target / path
    content = file.read_bytes()
    middle = len(content) // 2
    try:
        file.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
        with pytest.raises(BundleError, match=f"{path} was changed"):
            activate(accepted.target, [accepted.public_key], SessionOptions())
    finally:
        file.write_bytes(content)


def test_nothing_in_the_bundle_tells_where_it_was_built(accepted: Built) -> None:
    host = re.compile(rb"\b" + re.escape(platform.node().encode()) + rb"\b")
    for path in accepted.files:
        content = (accepted.target / path).read_bytes()
        assert str(accepted.target.parents[1]).encode() not in content
        assert str(Path(__file__).parents[2]).encode() not in content
        if path == "manifest.json":
            assert host.search(content) is None
            assert re.search(rb'"/', content) is None


def test_the_fp32_file_was_compared_with_the_source_and_int8_with_fp32(accepted: Built) -> None:
    told = accepted.report["stages"]["verify"]
    assert told["cpu-fp32"]["compared"] > 20
    assert set(told["cpu-fp32"]["controls"]) == {"another picture", "shuffled channels"}
    judged = accepted.report["stages"]["judge"]
    assert (judged["metric"], judged["labelled"], judged["limit"]) == ("agreement (map50)", False, 0.05)
    assert judged["cpu-int8"]["candidate"] >= 0.95
    assert judged["cpu-int8"]["pictures"] == accepted.report["stages"]["pictures"]["val"]["pictures"] == 8
    assert accepted.variant("cpu-int8")["refused"] is None


def test_figures_are_packed_with_the_processor_they_were_taken_on(accepted: Built) -> None:
    manifest = load_bundle(accepted.target, [accepted.public_key]).manifest
    (metric,) = next(variant.metrics for variant in manifest.variants if variant.id == "cpu-int8")
    assert metric.name == "agreement (map50)"
    assert metric.cpu
    assert metric.drop is not None
    assert metric.drop == pytest.approx(1 - metric.value)
    assert metric.interval is not None
    assert metric.interval[0] <= metric.drop <= metric.interval[1]
    assert metric.interval[0] < metric.interval[1], "eight pictures are never a proof"


def test_every_stage_says_one_plain_line(accepted: Built) -> None:
    lines = [line for line in accepted.said.splitlines() if line.startswith("[")]
    assert all(line.split("]")[1].strip().startswith(name) for line, (name, _) in zip(lines, STAGES, strict=False))
    assert len(lines) == len(STAGES) + 1
    assert "\r" not in accepted.said


def test_only_the_bundle_is_left(accepted: Built) -> None:
    assert [path.name for path in accepted.target.parent.iterdir()] == ["spots"]


@pytest.mark.usefixtures("quick")
def test_the_same_recipe_gives_the_same_model_and_golden_files(accepted: Built, tmp_path: Path) -> None:
    again = run_build(tmp_path)
    for path in PACKED_BOTH[:2] + PACKED_BOTH[4:6]:
        assert (again.target / path).read_bytes() == (accepted.target / path).read_bytes()


@pytest.mark.usefixtures("quick")
def test_an_int8_variant_that_disagrees_is_reported_and_not_packed(tmp_path: Path) -> None:
    built = run_build(tmp_path, outlier=1000.0, quantize=CLUMSY)
    assert built.files == [path for path in PACKED_BOTH if "int8" not in path]
    told = built.variant("cpu-int8")
    assert told["packed"] is False
    assert re.match(
        r"nothing keeps the budget on the search pictures: closest is min_max with a drop of 0\.\d+ of "
        r"agreement \(map50\), the most is 0\.05$",
        told["refused"],
    )
    assert built.variant("cpu-fp32")["packed"] is True
    assert built.piece.candidate("cpu-int8").missed_budget
    assert activate(built.target, [built.public_key], SessionOptions()).variant.id == "cpu-fp32"


@pytest.mark.usefixtures("quick")
def test_the_same_model_is_packed_when_the_search_may_look_further(tmp_path: Path) -> None:
    assert "models/cpu-int8.onnx" in run_build(tmp_path, outlier=1000.0).files


@pytest.mark.usefixtures("quick")
def test_the_recipe_may_allow_more_disagreement(tmp_path: Path) -> None:
    built = run_build(tmp_path, outlier=1000.0, quantize=CLUMSY, budget={"max_disagreement": 1.0})
    assert "models/cpu-int8.onnx" in built.files


@pytest.mark.usefixtures("quick")
def test_an_int8_variant_whose_replay_could_not_fail_is_not_packed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail_for_int8(*args: Any) -> bytes:
        if args[-1].score > 0.01:
            raise BuildError("no two pictures differ")
        return make_golden(*args)

    monkeypatch.setattr(pipeline, "make_golden", fail_for_int8)
    built = run_build(tmp_path)
    assert built.variant("cpu-int8")["refused"] == "no two pictures differ"
    assert "models/cpu-int8.onnx" not in built.files


def test_an_int8_variant_that_is_slower_is_not_packed_for_the_machine_it_was_timed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_timing(monkeypatch, int8_ms=3.0)
    built = run_build(tmp_path)
    (kept,) = [variant for variant in built.piece.candidates if variant.variant.id == "cpu-int8"]
    assert kept.refused is None, "nothing is known of ARM"
    assert [host.arch for host in kept.variant.requires.any_of] == ["aarch64"]
    assert not kept.missed_budget, "the recipe demands no speed"
    told = {each["arch"]: each for each in built.report["stages"]["benchmark"]["speed"]}
    assert told["x86_64"]["refused"].startswith("not faster than fp32: 3 ms against 2 of fp32 on this machine")
    assert (told["aarch64"]["refused"], told["aarch64"]["speedups"]) == (None, {})


@pytest.mark.usefixtures("quick")
def test_int8_can_be_left_out(tmp_path: Path) -> None:
    built = run_build(tmp_path, quantize={"targets": []})
    assert [each["id"] for each in built.report["variants"]] == ["cpu-fp32"]
    for stage in ("calibrate", "search"):
        assert built.report["stages"][stage]["said"] == "no targets beside fp32"


@pytest.mark.parametrize(
    "wrong",
    [{"mean": [0.4 + 1 / 255, 0.5, 0.6]}, {"color": "bgr"}, {"std": [0.25, 0.25, 0.2525]}],
    ids=["a mean off by a grey level", "swapped channels", "a scale off by one percent"],
)
@pytest.mark.usefixtures("quick")
def test_a_slightly_wrong_graph_stops_the_build_and_leaves_the_old_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: dict[str, Any]
) -> None:
    before = run_build(tmp_path, version=1)

    def compile_wrongly(model: onnx.ModelProto, recipe: InputRecipe) -> Any:
        return native_input(model, recipe.model_copy(update=wrong))

    monkeypatch.setattr(pipeline, "native_input", compile_wrongly)
    with pytest.raises(BuildError, match="does not match its source: the raw head is off"):
        run_build(tmp_path, version=2)
    assert load_bundle(before.target, [before.public_key]).manifest.version == 1
    assert [path.name for path in before.target.parent.iterdir()] == ["spots"]


@pytest.mark.usefixtures("quick")
def test_a_newer_build_replaces_the_bundle(tmp_path: Path) -> None:
    run_build(tmp_path, version=1)
    built = run_build(tmp_path, version=2, quantize={"targets": []})
    assert load_bundle(built.target, [built.public_key]).manifest.version == 2
    assert "models/cpu-int8.onnx" not in built.files


@pytest.mark.usefixtures("quick")
def test_a_link_to_a_bundle_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "spots").symlink_to(tmp_path / "elsewhere")
    built = run_build(tmp_path)
    assert built.target.is_symlink()
    assert load_bundle(tmp_path / "elsewhere", [built.public_key]).manifest.name == "spots"


def test_a_target_that_is_something_else_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "out" / "spots").mkdir(parents=True)
    (tmp_path / "out" / "spots" / "precious.txt").touch()
    with pytest.raises(RecipeError, match="something else than a bundle"):
        run_build(tmp_path)
    assert (tmp_path / "out" / "spots" / "precious.txt").exists()


def test_a_target_that_cannot_be_written_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(RecipeError, match=r"out: cannot write there: .*; choose another --out"):
        run_build(tmp_path)


def test_without_pictures_a_build_says_what_they_are_for(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"data\.train is missing: .* needed to verify, and to quantise"):
        run_build(tmp_path, data=None)
