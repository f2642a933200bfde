"""What people type: import, build and keygen, and what they are told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("onnx", reason="needs the build extra")
pytest.importorskip("matplotlib", reason="needs the build extra")

import onnx
import yaml

from agent.model.activate import activate
from agent.model.bundle import load_bundle
from agent.model.session import SessionOptions
from build_models import pipeline
from build_models.__main__ import main
from build_models.cli.import_onnx import FAMILY_NAMES
from build_models.recipe_file import make_recipe
from build_models.source.families import FAMILIES
from tests.support.float_models import LABELS, spot_detector, spot_recipe, write_pictures

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from build_models.benchmark import Contender

pytestmark = pytest.mark.build


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a plain RGB model, pictures and a key; int8 takes half of the time of fp32."""

    def measured(contenders: Sequence[Contender], threads: int) -> Iterator[dict[str, object]]:
        results = [
            {"name": each.name, "median_ms": 1.0 if "int8" in each.name else 2.0, "p90_ms": 2.0, "ratio": 1.0}
            for each in contenders
        ]
        yield {"threads": threads, "rounds": 1, "onnxruntime": "1", "results": results}

    monkeypatch.setattr(pipeline, "compare_latency", measured)
    monkeypatch.chdir(tmp_path)
    save_model()
    write_pictures(Path("pictures"), 12)
    assert main(["keygen", "key"]) == 0
    return tmp_path


def save_model(outlier: float = 1.0, name: str = "spots.onnx") -> None:
    onnx.save(spot_detector(outlier=outlier, normalised=False), name)


def import_arguments(*more: str, labels: str = ",".join(LABELS), model: str = "spots.onnx") -> list[str]:
    known = ["--family", "anchor_free", "--labels", labels, "--calibration", "pictures", "--key", "key.private.pem"]
    return ["import", model, *known, *more]


def test_an_import_says_where_bundle_and_report_are(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(import_arguments("--out", "bundle")) == 0
    assert capsys.readouterr().out == "bundle: bundle\nreport: bundle/report/report.html\n"
    active = activate(folder / "bundle", [folder / "key.public.pem"], SessionOptions())
    assert [variant.id for variant in active.bundle.manifest.variants] == ["cpu-int8", "cpu-fp32"]


def test_a_refused_variant_is_told_before_the_bundle(capsys: pytest.CaptureFixture[str]) -> None:
    save_model(outlier=1000.0)
    capsys.readouterr()
    assert main(import_arguments("--out", "bundle")) == 0
    first, *rest = capsys.readouterr().out.splitlines()
    assert first.startswith("not packed: cpu-int8: f1 against fp32 is 0.")
    assert rest == ["bundle: bundle", "report: bundle/report/report.html"]
    assert not Path("bundle/models/cpu-int8.onnx").exists()
    report = json.loads(Path("bundle/report/report.json").read_text())
    assert f"not packed: cpu-int8: {report['variants'][0]['refused']}" == first


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
