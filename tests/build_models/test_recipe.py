from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("onnx", reason="needs the build extra")

from hypothesis import given
from hypothesis import strategies as st

from build_models.errors import RecipeError
from build_models.labels import COCO
from build_models.recipe import Budget, Data, InputRecipe, Quantize, digest_of
from build_models.recipe_file import load_recipe, make_recipe
from build_models.source.families import FAMILIES
from build_models.source.families.yolox import Yolox

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.build

COMPLETE = """\
name: shapes
version: 3
source:
  kind: torch
  callable: my_models:detector
  kwargs: {classes: 2}
  weights: weights/best.pt
  outputs: [cls_8, ltrb_8]
input:
  height: 192
  width: 320
  color: bgr
  layout: nchw
  scale: 1/255
  mean: [0.5, 0.5, 0.5]
  std: [0.25, 1/4, 1]
  resize: letterbox
  align: top_left
  interpolation: area
  pad_bgr: [0, 0, 0]
output:
  family: anchor_free
  candidates: 100
  multi_label: true
labels: [circle, square]
defaults: {score_threshold: 0.4, iou_threshold: 0.6, max_detections: 50}
data:
  train: {format: pictures, path: pictures, limit: 200}
  val: {format: yolo, images: val/images, labels: val/labels}
  search_share: 0.25
budget:
  max_drop: 0.02
quantize:
  targets: [cpu, cpu-nonvnni]
  most_float_share: 0.3
licence: Apache-2.0
annotations: {trained_by: somebody}
"""
SHORT: dict[str, Any] = {
    "name": "nano",
    "source": {"kind": "onnx", "path": "nano.onnx"},
    "output": {"family": "yolox"},
    "labels": "coco",
}


def written(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_complete_recipe_is_read_with_paths_relative_to_its_folder(tmp_path: Path) -> None:
    recipe = load_recipe(written(tmp_path, COMPLETE))

    assert recipe.task == "detect"
    assert recipe.source.kind == "torch"
    assert recipe.source.weights == tmp_path / "weights/best.pt"
    assert recipe.source.python_path == tmp_path
    assert recipe.data is not None
    assert recipe.data.train.folder == tmp_path / "pictures"
    assert recipe.data.val is not None
    assert recipe.data.val.folder == tmp_path / "val/images"
    assert (recipe.budget.max_drop, recipe.budget.min_speedup, recipe.budget.inconclusive) == (0.02, None, "ship")
    assert recipe.input.scale == 1 / 255
    assert recipe.input.std == [0.25, 0.25, 1.0]
    spec = recipe.input.spec(192, 320)
    assert (spec.height, spec.width, spec.align, spec.interpolation, spec.pad_bgr) == (
        192, 320, "top_left", "area", [0, 0, 0]
    )  # fmt: skip


def test_a_family_knows_its_usual_input_and_the_recipe_overrides_it() -> None:
    usual = make_recipe(SHORT).input
    changed = make_recipe({**SHORT, "input": {"color": "rgb", "height": 416, "width": 416}}).input

    assert (usual.color, usual.scale, usual.align, usual.pad_bgr) == ("bgr", 1.0, "top_left", [114, 114, 114])
    assert (changed.color, changed.scale, changed.height) == ("rgb", 1.0, 416)


def test_one_number_may_stand_for_all_channels_and_grey_has_no_more() -> None:
    given = {"color": "gray", "mean": "1/2", "std": [0.25]}
    grey = make_recipe({**SHORT, "input": given}).input

    assert (grey.channels, grey.mean, grey.std) == (1, [0.5], [0.25])
    assert make_recipe(SHORT).input.channels == 3
    with pytest.raises(RecipeError, match=r"input\.mean: expected 1 number for color gray, got 3"):
        make_recipe({**SHORT, "input": {**given, "mean": [0.1, 0.2, 0.3]}})


def test_yaml_and_arguments_make_the_same_recipe(tmp_path: Path) -> None:
    text = "{name: nano, source: {kind: onnx, path: nano.onnx}, output: {family: yolox}, labels: coco}"

    assert load_recipe(written(tmp_path, text)) == make_recipe(SHORT, tmp_path)


def test_labels_come_from_a_list_a_known_set_or_a_file(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("cat\n\n dog \n", encoding="utf-8")

    assert make_recipe({**SHORT, "labels": ["a", "b"]}).labels == ["a", "b"]
    assert make_recipe(SHORT).labels == list(COCO)
    assert len(set(COCO)) == 80
    assert make_recipe({**SHORT, "labels": "names.txt"}, tmp_path).labels == ["cat", "dog"]


@pytest.mark.parametrize(
    ("old", "new", "place", "message"),
    [
        ("version: 3", "version: three", "2:10", "version: .*integer.*'three'"),
        ("version: 3", "verison: 3", "2:1", "verison: unknown key; did you mean 'version'"),
        ("  color: bgr", "  color: grb", "12:10", "input.color: .*'rgb', 'bgr' or 'gray'.*'grb'"),
        ("  color: bgr", "  colour: bgr", "12:3", "input.colour: unknown key; did you mean 'color'"),
        ("  scale: 1/255", "  scale: 1/zero", "14:10", "input.scale: expected a number or a fraction such as 1/255"),
        ("  scale: 1/255", "  scale: 0", "14:10", "input.scale: .*greater than 0"),
        (
            "  mean: [0.5, 0.5, 0.5]",
            "  mean: [0.5, 0.5]",
            "15:9",
            "input.mean: expected 1 or 3 numbers for color bgr, got 2",
        ),
        ("1/4, 1]", "1/4, 0]", "16:20", "input.std.2: .*greater than 0"),
        ("  height: 192\n", "", "1:1", "a torch source needs input.height and input.width"),
        ("family: anchor_free", "family: yolov9", "22:3", "output: .*'logits', 'boxes_scores', 'anchor_free', 'yolox'"),
        ("  candidates: 100", "  candidats: 100", "23:3", "output.candidats: unknown key; did you mean 'candidates'"),
        ("kind: torch", "kind: tensorflow", "4:3", "source: .*'torch', 'pt2', 'onnx'"),
        ("my_models:detector", "my_models.detector", "5:13", "source.callable: "),
        ("  weights: weights", "  wights: weights", "7:3", "source.wights: unknown key; did you mean 'weights'"),
        ("[circle, square]", "no-such-file.txt", "25:9", "labels: .*one of coco, or a text file; cannot read no-such"),
        ("name: shapes", "name: My Shapes", "1:7", "name: "),
        ("name: shapes\n", "", "1:1", "name: expected this key, it is missing"),
        ("max_drop: 0.02", "max_drop: 2", "32:13", "budget.max_drop: .*less than or equal to 1"),
        ("max_drop: 0.02", "'': 0.02", "32:3", "budget.: unknown key; expected one of: classes, inconclusive"),
        ("max_drop: 0.02", "max_dorp: 0.02", "32:3", "budget.max_dorp: unknown key; did you mean 'max_drop'"),
        ("  search_share", "  val: null\n  search_share", "30:3", "data.val: expected each key once"),
        ("path: pictures, limit: 200", "path: pictures, limits: 200", "28:45", "data.train.limits: .*'limit'"),
        ("format: yolo, images", "format: yolov5, images", "29:8", "data.val: expected format .*'yolov5'.*'yolo'"),
        ("[cpu, cpu-nonvnni]", "[cpu, cpu]", "34:12", "quantize.targets: expected each once, got cpu twice"),
        ("[cpu, cpu-nonvnni]", "[cpu, gpu]", "34:18", "quantize.targets.1: .*'tensorrt' or 'cuda'.*'gpu'"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(tmp_path: Path, old: str, new: str, place: str, message: str) -> None:
    assert old in COMPLETE
    path = written(tmp_path, COMPLETE.replace(old, new))

    with pytest.raises(RecipeError, match=message) as caught:
        load_recipe(path)

    assert f"{path}:{place}: " in str(caught.value)
    assert caught.value.exit_code == 2


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    text = COMPLETE.replace("version: 3", "version: 0").replace("max_drop: 0.02", "max_drop: high")

    with pytest.raises(RecipeError) as caught:
        load_recipe(written(tmp_path, text))

    assert [line.split(": ")[1] for line in str(caught.value).splitlines()] == ["version", "budget.max_drop"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "1:1: expected keys and values"),
        ("- a\n- b\n", "1:1: expected keys and values"),
        ("name: [unclosed", "expected YAML"),
        ("name: &anchor x", "anchors and aliases"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe(written(tmp_path, text))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"nowhere\.yaml: cannot read the recipe: No such file"):
        load_recipe(tmp_path / "nowhere.yaml")


def test_wrong_arguments_are_told_by_key() -> None:
    with pytest.raises(
        RecipeError, match=r"^output: expected family to be one of .*, got 'yolov9'; did you mean 'yolox'\?$"
    ):
        make_recipe({**SHORT, "output": {"family": "yolov9"}})
    with pytest.raises(RecipeError, match=r"input\.height and input.width go together"):
        make_recipe({**SHORT, "input": {"height": 416}})


def test_the_digest_is_of_what_the_recipe_says_not_of_where_it_lies(tmp_path: Path) -> None:
    text = written(tmp_path, COMPLETE).read_text(encoding="utf-8")
    (tmp_path / "elsewhere").mkdir()
    here, there = load_recipe(tmp_path / "recipe.yaml"), load_recipe(written(tmp_path / "elsewhere", text))
    other = load_recipe(written(tmp_path, COMPLETE.replace("max_drop: 0.02", "max_drop: 0.01")))

    assert digest_of(here) == digest_of(there) != digest_of(other)


OVERRIDES: dict[str, Callable[[Any], bool]] = {
    "budget.max_drop=0.05": lambda recipe: recipe.budget.max_drop == 0.05,
    "version=7": lambda recipe: recipe.version == 7,
    "input.scale=1/128": lambda recipe: recipe.input.scale == 1 / 128,
    "quantize.targets=[]": lambda recipe: recipe.quantize.targets == [],
    "data.val=null": lambda recipe: recipe.data.val is None,
    "data.train.limit=5": lambda recipe: recipe.data.train.limit == 5,
    "budget.min_speedup=1.2": lambda recipe: recipe.budget.min_speedup == 1.2,
    "annotations.note=a = b": lambda recipe: recipe.annotations.get("note") == "a = b",
}


@pytest.mark.parametrize("text", OVERRIDES)
def test_the_command_line_replaces_a_key_at_any_depth(tmp_path: Path, text: str) -> None:
    path = written(tmp_path, COMPLETE)

    assert OVERRIDES[text](load_recipe(path, [text]))
    assert not OVERRIDES[text](load_recipe(path)), "the control: the file says something else"


def test_the_last_of_two_replacements_counts_and_sections_may_be_new(tmp_path: Path) -> None:
    path = written(tmp_path, "{name: nano, source: {kind: onnx, path: n.onnx}, output: {family: yolox}, labels: coco}")
    recipe = load_recipe(path, ["budget.max_drop=0.5", "budget.max_drop=0.25", "data.train.format=pictures",
                                "data.train.path=seen"])  # fmt: skip

    assert recipe.budget.max_drop == 0.25
    assert recipe.data is not None


def test_a_path_of_the_command_line_is_relative_to_where_it_is_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path, COMPLETE)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    recipe = load_recipe(path, ["data.train.path=mine", "data.val={format: pictures, path: other}"])

    assert recipe.data is not None
    assert recipe.data.val is not None
    assert recipe.data.train.folder == tmp_path / "here" / "mine"
    assert recipe.data.val.folder == tmp_path / "here" / "other"
    assert recipe.source.kind == "torch"
    assert recipe.source.weights == tmp_path / "weights/best.pt", "what the file says stays beside the file"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("budget.max_drop", r"--set budget\.max_drop: expected KEY=VALUE such as budget\.max_drop=0\.02"),
        ("=3", r"--set =3: expected KEY=VALUE"),
        ("version.major=3", r"--set version\.major=3: version is no section of the recipe"),
        ("budget.max_drop=[", r"--set budget\.max_drop=\[: expected YAML"),
        ("budget.max_dorp=0.1", r"budget\.max_dorp: unknown key; did you mean 'max_drop'\?"),
        ("data.val.lables=here", r"data\.val\.lables: unknown key; did you mean 'labels'\?"),
        (
            "budget.metric=miou",
            r"budget\.metric: expected a measure to detect, one of map50_95, map50, or auto, got 'miou'",
        ),
        ("budget.classes=[dog]", r"budget\.classes: expected some of the labels, got dog"),
        ("budgte.max_drop=0.1", r"budgte: unknown key; did you mean 'budget'\?"),
        ("budget.max_drop=much", r"budget\.max_drop: .*'much'"),
        ("budget.=1", r"--set budget\.=1: expected KEY=VALUE"),
    ],
)
def test_a_replacement_that_makes_no_sense_is_told(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        load_recipe(written(tmp_path, COMPLETE), [text])

    assert len(str(caught.value).splitlines()) == 1


def test_a_replacement_counts_in_the_digest(tmp_path: Path) -> None:
    path = written(tmp_path, COMPLETE)

    assert digest_of(load_recipe(path, ["budget.max_drop=0.02"])) == digest_of(load_recipe(path))
    assert digest_of(load_recipe(path, ["budget.max_drop=0.03"])) != digest_of(load_recipe(path))


def test_every_family_has_a_row_and_knows_itself() -> None:
    assert [family.model_fields["family"].default for family in FAMILIES.values()] == list(FAMILIES)
    assert all(family.input_defaults.keys() <= InputRecipe.model_fields.keys() for family in FAMILIES.values())


@pytest.mark.parametrize("model", [InputRecipe, Data, Budget, Quantize, *FAMILIES.values()])
def test_every_option_says_what_it_means(model: type[Any]) -> None:
    undocumented = {name for name, field in model.model_fields.items() if not field.description} - {"family"}

    assert not undocumented


@given(
    candidates=st.integers(1, 3840), multi_label=st.booleans(), anchors=st.integers(1, 9000), classes=st.integers(1, 90)
)
def test_never_more_boxes_are_kept_than_there_are(
    candidates: int,
    multi_label: bool,
    anchors: int,
    classes: int,
) -> None:
    kept = Yolox(candidates=candidates, multi_label=multi_label).kept(anchors, classes)

    assert 1 <= kept <= min(candidates, anchors * classes)
    assert multi_label or kept <= anchors
