"""What people type: import, build and keygen, and what they are told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("onnx", reason="needs the build extra")
pytest.importorskip("matplotlib", reason="needs the build extra")

import onnx
import yaml

from agent.model.activate import activate
from agent.model.bundle import load_bundle
from agent.model.session import SessionOptions
from build_models.__main__ import main
from build_models.cli.import_onnx import FAMILY_NAMES
from build_models.recipe_file import make_recipe
from build_models.source.families import FAMILIES
from tests.support.fake_timing import fake_timing
from tests.support.float_models import LABELS, spot_detector, spot_recipe, write_pictures

if TYPE_CHECKING:
    from collections.abc import Mapping

pytestmark = pytest.mark.build


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a plain RGB model, pictures and a key; int8 takes half of the time of fp32."""
    fake_timing(monkeypatch)
    monkeypatch.chdir(tmp_path)
    save_model()
    write_pictures(Path("pictures"), 20)
    assert main(["keygen", "key"]) == 0
    return tmp_path


def save_model(outlier: float = 1.0, name: str = "spots.onnx") -> None:
    onnx.save(spot_detector(outlier=outlier, normalised=False), name)


def import_arguments(*more: str, labels: str = ",".join(LABELS), model: str = "spots.onnx") -> list[str]:
    known = ["--family", "anchor_free", "--labels", labels, "--pictures", "pictures", "--key", "key.private.pem"]
    return ["import", model, *known, *more]


def test_an_import_says_where_bundle_and_report_are(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(import_arguments("--out", "bundle")) == 0
    assert capsys.readouterr().out == "bundle: bundle\nreport: bundle/report/report.html\n"
    active = activate(folder / "bundle", [folder / "key.public.pem"], SessionOptions())
    assert [variant.id for variant in active.bundle.manifest.variants] == ["cpu-int8", "cpu-fp32"]


def build_arguments(*more: str, **changes: Any) -> list[str]:
    Path("recipe.yaml").write_text(yaml.safe_dump({**spot_recipe(Path()), "input": {}, **changes}))
    return ["build", "recipe.yaml", "--key", "key.private.pem", "--out", "bundle", *more]


def packed() -> list[str]:
    return sorted(path.stem for path in Path("bundle/models").iterdir())


CLUMSY: Mapping[str, Any] = {"methods": ["min_max"], "corrections": [], "most_float_share": 0.0}


def test_a_variant_beyond_the_budget_is_told_with_what_to_try_and_exit_code_3(
    capsys: pytest.CaptureFixture[str],
) -> None:
    save_model(outlier=1000.0)
    capsys.readouterr()
    assert main(build_arguments(quantize=CLUMSY)) == 3
    first, bundle, report, *advice = capsys.readouterr().out.splitlines()
    assert first.startswith("not packed: cpu-int8: nothing keeps the budget on the search pictures: closest is min_max")
    assert (bundle, report) == ("bundle: bundle", "report: bundle/report/report.html")
    assert 1 <= len(advice) <= 4
    assert all(line.startswith("to try: ") for line in advice)
    assert any("moving_average" in line for line in advice)
    assert packed() == ["cpu-fp32"]
    told = json.loads(Path("bundle/report/report.json").read_text())
    assert f"not packed: cpu-int8: {told['variants'][0]['refused']}" == first


def test_what_is_advised_helps(capsys: pytest.CaptureFixture[str]) -> None:
    save_model(outlier=1000.0)
    arguments = build_arguments("--set", "quantize.most_float_share=1.0", quantize=CLUMSY)
    capsys.readouterr()
    assert main(arguments) == 0
    assert "to try" not in capsys.readouterr().out
    assert packed() == ["cpu-fp32", "cpu-int8"]


def test_int8_that_is_merely_not_faster_is_no_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_timing(monkeypatch, int8_ms=3.0)
    capsys.readouterr()
    assert main(build_arguments()) == 0
    first, *rest = capsys.readouterr().out.splitlines()
    assert first == (
        "not packed for x86_64: cpu-int8: not faster than fp32: 3 ms against 2 of fp32 on this machine, 0.67x its "
        "speed; fp32 serves there"
    )
    assert rest == ["bundle: bundle", "report: bundle/report/report.html"]


def test_a_speed_that_the_recipe_demands_and_int8_misses_is_exit_code_3(capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(build_arguments("--set", "budget.min_speedup=100")) == 3
    first, _, _, *advice = capsys.readouterr().out.splitlines()
    assert "1 ms against 2 of fp32 on this machine, 2.00x its speed, the least is 100x" in first
    assert advice[0].startswith("to try: budget.min_speedup of at most 2 for cpu-int8 on this machine")
    assert main(build_arguments("--set", "budget.min_speedup=2")) == 0


def measured_file(arch: str, files: Mapping[str, tuple[str, float]]) -> str:
    """What a device prints of files, by variant: digest and milliseconds."""
    results = [
        {"variant": name, "provider": "cpu", "precision": "int8", "sha256": sha256, "median_ms": ms, "p90_ms": ms,
         "min_ms": ms, "runs": 9, "peak_mb": 1.0}
        for name, (sha256, ms) in files.items()
    ]  # fmt: skip
    device = {"arch": arch, "cpu": "Cortex-A76", "onnxruntime": "1.23.2", "features": [], "providers": ["cpu"]}
    Path("device.json").write_text(json.dumps({"schema": 1, "device": device, "threads": 4, "results": results}))
    return "device.json"


def digests() -> dict[str, str]:
    manifest = json.loads(Path("bundle/manifest.json").read_text())
    files = {entry["path"]: entry["sha256"] for entry in manifest["files"]}
    return {variant["id"]: files[variant["file"]] for variant in manifest["variants"]}


def archs() -> set[str]:
    manifest = json.loads(Path("bundle/manifest.json").read_text())
    (int8,) = (variant for variant in manifest["variants"] if variant["id"] == "cpu-int8")
    return {host["arch"] for host in int8["requires"]["any_of"]}


@pytest.mark.parametrize(("int8_ms", "kept"), [(9.0, {"x86_64"}), (3.0, {"x86_64", "aarch64"})])
def test_a_devices_figures_decide_for_machines_of_its_kind(
    int8_ms: float, kept: set[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(build_arguments()) == 0
    found = digests()
    path = measured_file("aarch64", {"cpu-int8": (found["cpu-int8"], int8_ms), "cpu-fp32": (found["cpu-fp32"], 6.0)})
    capsys.readouterr()
    assert main(build_arguments("--measured", path)) == 0
    said = capsys.readouterr().out
    assert archs() == kept
    assert digests() == found
    told = "not packed for aarch64: cpu-int8: not faster than fp32: 9 ms against 6 of fp32 on Cortex-A76 (aarch64)"
    assert (told in said) == (kept == {"x86_64"})


def test_a_figure_of_another_file_is_told_and_does_not_count(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(build_arguments()) == 0
    path = measured_file("aarch64", {"cpu-int8": ("0" * 64, 9.0), "cpu-fp32": (digests()["cpu-fp32"], 6.0)})
    capsys.readouterr()
    assert main(build_arguments("--measured", path)) == 0
    told = capsys.readouterr().err
    assert "--measured, Cortex-A76 (aarch64): cpu-int8 there is another file than this bundle's" in told
    assert archs() == {"x86_64", "aarch64"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "--measured device.json: cannot read it: No such file or directory"),
        ("{", "--measured device.json: expected what `edge-agent bench --json` prints, but it: Invalid JSON"),
        ("{}", "--measured device.json: expected what `edge-agent bench --json` prints, but schema: Field required"),
    ],
)
def test_figures_that_are_none_stop_the_build_before_it_begins(
    text: str | None, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if text is not None:
        Path("device.json").write_text(text)
    capsys.readouterr()
    assert main(build_arguments("--measured", "device.json")) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"build-models: {said}")
    assert not Path("bundle").exists()


def test_a_bundle_is_named_after_its_file_unless_told(folder: Path) -> None:
    save_model(name="My Spots_2.onnx")
    assert main(import_arguments(model="My Spots_2.onnx")) == 0
    assert main(import_arguments("--name", "other", "--bundle-version", "4")) == 0
    for path, name, version in (("out/my-spots-2-1", "my-spots-2", 1), ("out/other-4", "other", 4)):
        manifest = load_bundle(Path(path), [folder / "key.public.pem"]).manifest
        assert (manifest.name, manifest.version) == (name, version)


def test_a_very_long_file_name_gives_a_name_that_bundles_may_have() -> None:
    save_model(name=f"{'long ' * 20}.onnx")
    assert main(import_arguments("--print-recipe", model=f"{'long ' * 20}.onnx")) == 0


@pytest.mark.parametrize("given", ["red,green,blue", "red, green ,blue", "names.txt"])
def test_labels_come_from_the_command_line_or_a_file(given: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("names.txt").write_text("red\ngreen\nblue\n")
    capsys.readouterr()
    assert main(import_arguments("--print-recipe", labels=given)) == 0
    assert make_recipe(yaml.safe_load(capsys.readouterr().out)).labels == LABELS


def test_the_printed_recipe_builds_the_same(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(import_arguments("--licence", "MIT", "--size", "64x64", "--print-recipe")) == 0
    Path("recipe.yaml").write_text(capsys.readouterr().out)
    assert main(import_arguments("--licence", "MIT", "--size", "64x64", "--out", "imported")) == 0
    assert main(["build", "recipe.yaml", "--key", "key.private.pem", "--out", "built"]) == 0
    imported, built = (load_bundle(Path(name), [folder / "key.public.pem"]).manifest for name in ("imported", "built"))
    assert imported.provenance == built.provenance
    assert imported.provenance.source_licence == "MIT"
    assert imported.variants == built.variants


def test_a_recipe_is_built_from_its_own_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {**spot_recipe(Path()), "input": {}, "name": "relative"}
    Path("recipe.yaml").write_text(yaml.safe_dump(values))
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    assert main(["build", "../recipe.yaml", "--key", "../key.private.pem"]) == 0
    assert load_bundle(Path("out/relative-3"), [folder / "key.public.pem"]).manifest.version == 3


def test_the_help_names_every_family(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["import", "--help"])
    told = capsys.readouterr().out
    assert sorted(FAMILY_NAMES) == sorted(FAMILIES)
    assert not [name for name in FAMILIES if name not in told]


@pytest.mark.parametrize("size", ["64", "64x", "0x0x0", "big"])
def test_a_size_that_is_none_is_told(size: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(import_arguments("--size", size)) == 2
    assert f"--size: expected WIDTHxHEIGHT such as 416x416, got '{size}'" in capsys.readouterr().err


def test_keygen_says_what_each_file_is_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keygen", "deep/other"]) == 0
    said = capsys.readouterr().out
    assert "deep/other.private.pem  signs bundles" in said
    assert "deep/other.public.pem  goes to the devices" in said
