"""Programs that torch.export saved: what they compute is kept, and code that they bring along is not run."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the torch extra")

import torch
from torch import nn

from build_models.errors import BuildError, RecipeError
from build_models.graph.model_io import run_model
from build_models.recipe import InputRecipe, Pt2Source
from build_models.recipe_file import make_recipe
from build_models.source import torch_export
from build_models.source.load import load_source
from build_models.source.pt2_import import import_program

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.torch

GRAPH = "models/model.json"


class Net(nn.Module):
    """Two outputs by name, as torchvision's segmenters have them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        features = self.norm(self.conv(x)).relu().mean((2, 3))
        return {"out": self.head(features), "aux": features}


def save(path: Path, batch: int = 1, dynamic: dict[int, Any] | None = None) -> Net:
    net = Net().eval()
    shapes = {"x": dynamic} if dynamic else None
    torch.export.save(torch.export.export(net, (torch.zeros(batch, 3, 16, 24),), dynamic_shapes=shapes), path)
    return net


def load(path: Path, recipe: InputRecipe | None = None, outputs: list[str] | None = None) -> Any:
    return import_program(Pt2Source(kind="pt2", path=path, outputs=outputs), recipe or InputRecipe())


def rewrite(path: Path, change: Callable[[str, bytes], bytes | None], **more: bytes) -> None:
    """The same archive with its members changed, left out (None) or added."""
    with zipfile.ZipFile(path) as archive:
        members = {entry: archive.read(entry) for entry in archive.namelist()}
    folder = next(iter(members)).partition("/")[0]
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            changed = change(name.partition("/")[2], content)
            if changed is not None:
                archive.writestr(name, changed)
        for name, content in more.items():
            archive.writestr(f"{folder}/{name}", content)


def kept(_: str, content: bytes) -> bytes:
    return content


@pytest.mark.parametrize("by_recipe", [False, True])
def test_a_program_becomes_a_model_that_computes_the_same(tmp_path: Path, by_recipe: bool) -> None:
    """Its size is the program's own, or the recipe's when it takes any."""
    path = tmp_path / "net.pt2"
    batch, height = torch.export.Dim("batch", min=1, max=8), torch.export.Dim("height", min=8, max=64)
    net = save(path, 2, {0: batch, 2: height}) if by_recipe else save(path)
    rows = 20 if by_recipe else 16
    recipe = InputRecipe(height=rows, width=24) if by_recipe else InputRecipe()

    model, report = load(path, recipe, ["scores", "features"])

    picture = np.random.default_rng(3).random((1, 3, rows, 24), dtype=np.float32)
    with torch.inference_mode():
        expected = net(torch.from_numpy(picture))
    got = run_model(model, {"input": picture})
    np.testing.assert_allclose(got["scores"], expected["out"], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(got["features"], expected["aux"], rtol=1e-4, atol=1e-6)
    assert report.inputs == [f"input float32[1,3,{rows},24]"]
    assert report.outputs == ["scores float32[1,3]", "features float32[1,4]"]
    assert report.largest_difference < 1e-5
    assert report.parameters == sum(parameter.numel() for parameter in net.parameters())


def test_a_recipe_names_a_program(tmp_path: Path) -> None:
    save(tmp_path / "net.pt2")
    recipe = make_recipe(
        {
            "name": "net",
            "source": {"kind": "pt2", "path": "net.pt2", "outputs": ["scores", "features"]},
            "output": {"family": "logits", "tensor": "scores"},
            "labels": ["a", "b", "c"],
        },
        tmp_path,
    )

    model, report = load_source(recipe)

    assert [value.name for value in model.graph.output] == ["scores", "features"]
    assert len(report.sha256) == 64


def test_a_model_that_computes_something_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control of the comparison."""
    path = tmp_path / "net.pt2"
    save(path)
    monkeypatch.setattr(torch_export, "_flat", lambda result: [value.numpy() + 0.5 for value in result.values()])

    with pytest.raises(BuildError, match=r"does not compute what torch does: output .* is off by"):
        load(path)


def test_names_that_are_too_few_are_counted(tmp_path: Path) -> None:
    save(tmp_path / "net.pt2")

    with pytest.raises(RecipeError, match=r"source\.outputs: expected a name for each of the 2 outputs, got scores"):
        load(tmp_path / "net.pt2", outputs=["scores"])


def test_a_program_for_other_batches_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "net.pt2", batch=4)

    with pytest.raises(RecipeError, match=r"expected an input of 1x3x.*found input float32\[4,3,16,24\]"):
        load(tmp_path / "net.pt2")


def test_a_program_that_checks_for_several_pictures_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "net.pt2", 4, {0: torch.export.Dim("batch", min=3, max=8)})

    with pytest.raises(BuildError, match="the program does not run with one picture: "):
        load(tmp_path / "net.pt2")


def test_a_program_of_two_inputs_is_refused(tmp_path: Path) -> None:
    class Two(nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return x + y

    example = torch.zeros(1, 3, 8, 8)
    torch.export.save(torch.export.export(Two(), (example, example)), tmp_path / "two.pt2")

    with pytest.raises(RecipeError, match="expected a program with one input, a picture, found 2"):
        load(tmp_path / "two.pt2")


def a_state_dict() -> bytes:
    buffer = io.BytesIO()
    torch.save(Net().state_dict(), buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read the program: No such file"),
        (b"", "expected a program.*found no archive"),
        (b"a line of text", "expected a program.*found no archive"),
        (a_state_dict(), r"found another archive; a file of weights goes into source\.weights"),
    ],
)
def test_a_file_that_is_no_program_is_refused(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "net.pt2"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(RecipeError, match=message):
        load(path)


def test_a_damaged_program_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.pt2"
    save(path)
    rewrite(path, lambda name, content: content[:-9] if name == GRAPH else content)

    with pytest.raises(RecipeError, match="found a damaged one"):
        load(path)


def test_a_program_with_a_weight_missing_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.pt2"
    save(path)
    rewrite(path, lambda name, content: None if name == "data/weights/weight_0" else content)

    with pytest.raises(RecipeError, match=r"cannot load the program: .*save it again with this version"):
        load(path)


class Tattler:
    """Unpickled, it leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.path), "w"))


def test_code_in_a_program_is_told_and_not_run(tmp_path: Path) -> None:
    """Sample inputs, weights and expressions are what torch unpickles or evaluates."""
    path, trace = tmp_path / "net.pt2", tmp_path / "trace"
    evil = pickle.dumps((Tattler(trace),))

    def in_the_weights(name: str, content: bytes) -> bytes:
        if name == "data/weights/model_weights_config.json":
            config = json.loads(content)
            next(iter(config["config"].values()))["use_pickle"] = True
            return json.dumps(config).encode()
        return evil if name == "data/weights/weight_0" else content

    def in_an_expression(name: str, content: bytes) -> bytes:
        text = f"open({str(trace)!r}, 'w')"
        return (
            content.replace(b"Symbol('s77', positive=True, integer=True)", text.encode()) if name == GRAPH else content
        )

    dynamic = {0: torch.export.Dim("batch", min=1, max=8)}
    for change in (lambda name, content: evil if "sample" in name else content, in_the_weights, in_an_expression):
        save(path, 2, dynamic)
        assert load(path)
        before = path.read_bytes()
        rewrite(path, change)
        assert path.read_bytes() != before

        with pytest.raises(RecipeError, match=r"the program holds code \(.*, which is not loaded"):
            load(path)
        assert not trace.exists()


def test_a_compiled_library_in_a_program_is_not_loaded(tmp_path: Path) -> None:
    path = tmp_path / "net.pt2"
    save(path)
    rewrite(path, kept, **{"data/aotinductor/model/model.so": b"\x7fELF"})

    with pytest.raises(RecipeError, match=r"holds code \(data/aotinductor/model/model\.so\)"):
        load(path)
