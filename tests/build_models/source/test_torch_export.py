from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the torch extra")

import torch

from build_models.errors import BuildError, RecipeError
from build_models.graph.canonical_output import canonical_output
from build_models.graph.model_io import run_model
from build_models.recipe import InputRecipe, TorchSource
from build_models.source import torch_export
from build_models.source.families.segmentation import Segmentation
from build_models.source.torch_export import export_torch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.torch

RECIPE = InputRecipe(height=16, width=24)
MODULE = "models_of_a_user"
CODE = """
from collections import OrderedDict
from dataclasses import dataclass, fields

import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(4, classes)

    def forward(self, x):
        return self.head(self.dropout(self.norm(self.conv(x)).relu().mean((2, 3))))

def build(classes=3):
    torch.manual_seed(0)
    return Net(classes)

def a_number():
    return 7

class Undecided(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x

# As torchvision's segmenters: an OrderedDict.
class ByName(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.auxiliary = nn.Conv2d(3, 5, 3, padding=1), nn.Conv2d(3, 5, 1)

    def forward(self, x):
        return OrderedDict(out=self.conv(x), aux=self.auxiliary(x))

# As transformers' outputs: a dataclass that is a dictionary of those of its fields that are not None.
@dataclass
class ModelOutput(OrderedDict):
    loss: torch.Tensor = None
    logits: torch.Tensor = None
    hidden_states: tuple = None

    def __post_init__(self):
        for field in fields(self):
            if getattr(self, field.name) is not None:
                self[field.name] = getattr(self, field.name)

torch.utils._pytree.register_pytree_node(
    ModelOutput,
    lambda output: (list(output.values()), list(output.keys())),
    lambda values, keys: ModelOutput(**dict(zip(keys, values))),
    serialized_type_name="models_of_a_user.ModelOutput",
)

@dataclass
class Plain:
    logits: torch.Tensor
    spare: torch.Tensor = None

torch.export.register_dataclass(Plain)

class Wrapped(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.conv, self.kind = nn.Conv2d(3, 5, 3), kind

    def forward(self, x):
        return self.kind(logits=self.conv(x).mean((2, 3)))

def as_transformers():
    return Wrapped(ModelOutput)

def as_dataclass():
    return Wrapped(Plain)
"""


@pytest.fixture
def user_folder(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / f"{MODULE}.py").write_text(CODE)
    yield tmp_path
    sys.modules.pop(MODULE, None)


def source(folder: Path, function: str = "build", **values: Any) -> TorchSource:
    return TorchSource(kind="torch", callable=f"{MODULE}:{function}", python_path=folder, **values)


def user_module(folder: Path) -> torch.nn.Module:
    return torch_export.load_module(source(folder))[0]


def test_a_module_and_its_weights_become_one_file_that_computes_the_same(
    user_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Weights as training scripts save them: under a key, with the prefix of DataParallel."""
    trained = user_module(user_folder)
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.mul_(0.5).add_(0.1)
    weights = user_folder / "weights.pt"
    torch.save({"state_dict": {f"module.{key}": value for key, value in trained.state_dict().items()}}, weights)

    model, report = export_torch(source(user_folder, weights=weights, outputs=["logits"]), RECIPE)

    picture = np.random.default_rng(3).random((1, 3, 16, 24), dtype=np.float32)
    with torch.inference_mode():
        expected = trained(torch.from_numpy(picture)).numpy()
    np.testing.assert_allclose(run_model(model, {"input": picture})["logits"], expected, rtol=1e-4, atol=1e-6)
    assert report.inputs == ["input float32[1,3,16,24]"]
    assert report.outputs == ["logits float32[1,3]"]
    assert report.unwrapped == ["state_dict", "module."]
    assert report.largest_difference < 1e-5
    assert "head" in report.modules.values()
    assert not any(tensor.external_data for tensor in model.graph.initializer)
    assert capfd.readouterr() == ("", "")


def test_a_module_whose_path_depends_on_the_picture_is_refused(user_folder: Path) -> None:
    with pytest.raises(BuildError, match="torch cannot export the module") as caught:
        export_torch(source(user_folder, "Undecided"), RECIPE)
    assert "\n" not in str(caught.value)


def test_outputs_by_name_are_named_by_the_recipe(user_folder: Path) -> None:
    """What ``module:function`` of torchvision gives: a dictionary, of which the family takes one."""
    by_name = source(user_folder, "ByName", outputs=["out", "aux"])
    net = torch_export.load_module(by_name)[0]
    torch.manual_seed(1)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter)
    weights = user_folder / "weights.pt"
    torch.save(net.state_dict(), weights)

    model, report = export_torch(source(user_folder, "ByName", outputs=["out", "aux"], weights=weights), RECIPE)
    canonical, head = canonical_output(model, Segmentation(tensor="out"), (16, 24), list("abcde"))

    picture = np.random.default_rng(3).random((1, 3, 16, 24), dtype=np.float32)
    with torch.inference_mode():
        expected = net(torch.from_numpy(picture))
    assert report.outputs == ["out float32[1,5,16,24]", "aux float32[1,5,16,24]"]
    assert head.outputs == ("out",)
    mask = run_model(canonical, {"input": picture})["mask"]
    np.testing.assert_array_equal(mask, expected["out"].numpy().argmax(axis=1))
    assert (mask != expected["aux"].numpy().argmax(axis=1)).any()


@pytest.mark.parametrize("function", ["as_transformers", "as_dataclass"])
def test_outputs_of_classes_of_their_own_are_opened(user_folder: Path, function: str) -> None:
    """Transformers' ModelOutput, and any dataclass that torch was told of; fields that are None are no outputs."""
    model, report = export_torch(source(user_folder, function, outputs=["logits"]), RECIPE)

    assert report.outputs == ["logits float32[1,5]"]
    assert report.largest_difference < 1e-5
    assert [value.name for value in model.graph.output] == ["logits"]


def test_a_name_for_each_output_is_asked_for(user_folder: Path) -> None:
    with pytest.raises(RecipeError, match=r"source\.outputs: expected a name for each of the 2 outputs, got out"):
        export_torch(source(user_folder, "ByName", outputs=["out"]), RECIPE)


def test_an_export_that_computes_something_else_is_refused(user_folder: Path) -> None:
    """The control of the comparison: another module's ONNX."""
    module = user_module(user_folder)
    with torch.no_grad():
        module.get_submodule("head").bias.add_(0.5)  # type: ignore[operator] # a Linear
    exported = torch_export._export(user_module(user_folder), (1, 3, 16, 24), None)

    with pytest.raises(BuildError, match=r"does not compute what torch does: output .* is off by"):
        torch_export._compare(module, exported, (1, 3, 16, 24))


def test_weights_that_do_not_fit_are_named(user_folder: Path) -> None:
    state = user_module(user_folder).state_dict()
    state["spare"] = state.pop("conv.weight")
    weights = user_folder / "weights.pt"
    torch.save(state, weights)

    with pytest.raises(RecipeError, match=r"do not fit the module: missing conv\.weight; unexpected spare"):
        export_torch(source(user_folder, weights=weights), RECIPE)


def test_weights_of_another_shape_are_refused(user_folder: Path) -> None:
    weights = user_folder / "weights.pt"
    torch.save(user_module(user_folder).state_dict(), weights)

    with pytest.raises(RecipeError, match=r"do not fit the module: .*size mismatch for head\.weight"):
        export_torch(source(user_folder, weights=weights, kwargs={"classes": 9}), RECIPE)


def test_a_weights_file_that_holds_code_is_not_loaded(user_folder: Path) -> None:
    weights = user_folder / "weights.pt"
    torch.save(user_module(user_folder), weights)

    with pytest.raises(RecipeError, match="expected a file of weights alone"):
        export_torch(source(user_folder, weights=weights), RECIPE)


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "cannot read the weights: No such file"), (b"no weights", "expected a file of weights alone")],
)
def test_a_weights_file_that_is_none_is_refused(user_folder: Path, content: bytes | None, message: str) -> None:
    weights = user_folder / "weights.pt"
    if content is not None:
        weights.write_bytes(content)

    with pytest.raises(RecipeError, match=message):
        export_torch(source(user_folder, weights=weights), RECIPE)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"callable": "no_such_module:build"}, "No module named 'no_such_module'.*looked in"),
        ({"callable": f"{MODULE}:nothing"}, "has no attribute 'nothing'"),
        ({"callable": f"{MODULE}:a_number"}, "expected a torch.nn.Module, got int"),
        ({"callable": f"{MODULE}:build", "kwargs": {"colours": 3}}, "refuses its arguments.*colours"),
    ],
)
def test_a_callable_that_gives_no_module_is_refused(user_folder: Path, values: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        export_torch(TorchSource(kind="torch", python_path=user_folder, **values), RECIPE)


def test_without_torch_the_user_learns_what_to_install(user_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)

    with pytest.raises(RecipeError, match=r"pip install 'edge-agent\[torch\]'"):
        export_torch(source(user_folder), RECIPE)
