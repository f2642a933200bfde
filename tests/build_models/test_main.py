"""The command line: help without the build extra, and every error one line with the right exit code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from agent import __version__
from build_models.__main__ import COMMANDS, main

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]
BLOCKED = "import sys; sys.modules.update(onnx=None, tqdm=None, matplotlib=None, torch=None)\n"


def run_without_build_extra(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = f"{BLOCKED}from build_models.__main__ import main; sys.exit(main({list(arguments)!r}))"
    return subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], *([name, "--help"] for name in COMMANDS)], ids=" ".join
)
def test_help_needs_no_build_extra(arguments: list[str]) -> None:
    told = run_without_build_extra(*arguments)
    assert (told.returncode, told.stderr) == (0, "")
    assert "build-models" in told.stdout


def test_without_the_build_extra_a_command_says_how_to_get_it() -> None:
    told = run_without_build_extra("build", "recipe.yaml")
    assert told.returncode == 2
    assert "is missing: pip install 'edge-agent[build]'" in told.stderr
    assert len(told.stderr.splitlines()) == 1


def test_the_version_is_the_products(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"build-models {__version__}\n"


def test_no_command_is_an_error_of_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([])
    assert "usage: build-models" in capsys.readouterr().err


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder in which `IMPORT` would succeed."""
    onnx = pytest.importorskip("onnx", reason="needs the build extra")
    from tests.support.float_models import spot_detector, write_pictures

    monkeypatch.chdir(tmp_path)
    onnx.save(spot_detector(normalised=False), "spots.onnx")
    write_pictures(Path("pictures"), 8)
    assert main(["keygen", "key"]) == 0
    return tmp_path


IMPORT = {
    "--family": "anchor_free",
    "--labels": "red,green,blue",
    "--pictures": "pictures",
    "--key": "key.private.pem",
    "--out": "bundle",
}


def import_with(model: str = "spots.onnx", **changes: str | None) -> list[str]:
    options = {**IMPORT, **{f"--{name}": value for name, value in changes.items()}}
    return ["import", model, *(text for name, value in options.items() if value is not None for text in (name, value))]


def garbage() -> None:
    Path("spots.onnx").write_bytes(b"this is no model")


def no_pictures() -> None:
    for path in Path("pictures").iterdir():
        path.unlink()


def a_file_in_the_way() -> None:
    Path("file").touch()


def nothing_to_see() -> None:
    import cv2

    for number, path in enumerate(sorted(Path("pictures").iterdir())):
        cv2.imwrite(str(path), np.full((64, 64, 3), number, np.uint8))


def nothing() -> None:
    pass


@pytest.mark.build
@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("prepare", "arguments", "code", "said"),
    [
        (nothing, import_with(model="none.onnx"), 2, "none.onnx: cannot read the model: No such file or directory"),
        (garbage, import_with(), 2, "spots.onnx: expected an ONNX model, found something else"),
        (nothing, import_with(family="yolox"), 2, "family yolox: expected one output"),
        (nothing, import_with(family="yolo9000"), 2, "anchor_free"),
        (nothing, import_with(labels="red,green"), 2, "labels: expected 3 names, one per class of the model, got 2"),
        (nothing, import_with(pictures="nowhere"), 2, "nowhere: expected a folder"),
        (no_pictures, import_with(), 2, "pictures: expected "),
        (nothing, import_with(key=None), 2, "make one with `build-models keygen NAME`"),
        (nothing, import_with(key="none.pem"), 2, "none.pem: cannot read the signing key"),
        (a_file_in_the_way, import_with(out="file"), 2, "file: expected a folder or nothing there"),
        (a_file_in_the_way, import_with(out="file/bundle"), 2, "cannot write there"),
        (nothing, import_with(out="pictures"), 2, "pictures: there is something else than a bundle already"),
        (nothing, ["build", "none.yaml", "--key", "key.private.pem"], 2, "none.yaml: cannot read the recipe"),
        (nothing, ["keygen", "key"], 2, "key.private.pem: there is a key already"),
        (nothing_to_see, import_with(), 1, "the source model sees nothing in the verification pictures"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_error_is_one_line_with_its_exit_code(
    prepare: Callable[[], None], arguments: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare()
    capsys.readouterr()
    assert main(arguments) == code
    told = capsys.readouterr()
    *stages, error = told.err.splitlines()
    assert error.startswith("build-models: ")
    assert said in error
    assert all(line.startswith("[") for line in stages)
    assert told.out == ""
    assert not Path("bundle").exists()


@pytest.mark.build
def test_every_problem_of_a_recipe_has_its_line_and_place(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("recipe.yaml").write_text(
        "name: Spots\nsource: {kind: onnx, path: spots.onnx}\noutput: {family: anchor_free}\nlabel: [a]\nlabels: [a]\n"
    )
    capsys.readouterr()
    assert main(["build", "recipe.yaml", "--key", "key.private.pem"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[1] for line in lines] == ["recipe.yaml:1:7", "recipe.yaml:4:1"]
    assert "did you mean 'labels'?" in lines[1]


@pytest.mark.build
def test_an_installed_command_ends_without_a_traceback(folder: Path) -> None:
    told = subprocess.run(
        [sys.executable, "-m", "build_models", *import_with(family="yolox")],
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 2
    assert "Traceback" not in told.stderr
    assert "\r" not in told.stderr
    assert [line.partition(" ")[0] for line in told.stderr.splitlines()] == [
        "[1/14]",
        "[2/14]",
        "[3/14]",
        "build-models:",
    ]


@pytest.mark.build
@pytest.mark.usefixtures("folder")
def test_an_interrupted_build_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    from build_models import pipeline

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "native_input", interrupt)
    before = sorted(Path().iterdir())
    assert main(import_with()) == 130
    assert sorted(Path().iterdir()) == before
