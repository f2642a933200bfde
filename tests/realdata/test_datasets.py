"""Real pictures, labels and models through datasets and measures: the figures that were found in other ways."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("onnx", reason="needs the build extra")

from agent.model.manifest import Defaults
from build_models.data.dataset import Dataset, load_dataset
from build_models.data.formats import ClassFolders, Masks, Pictures, Yolo
from build_models.data.split import check_disjoint, split
from build_models.errors import RecipeError
from build_models.labels import COCO
from build_models.metrics.agreement import truth_of
from build_models.metrics.base import value
from build_models.metrics.bootstrap import paired_bootstrap
from build_models.metrics.table import make_measure
from tests.realdata.compiling import Compiled, compile_model
from tests.realdata.test_families_classify import CIFAR, resnet
from tests.realdata.test_families_fastestdet import fastestdet
from tests.realdata.test_families_segment import VOC_BY_COCO, deeplab, road

if TYPE_CHECKING:
    from pathlib import Path

    from build_models.metrics.base import Measure

pytestmark = [pytest.mark.realdata, pytest.mark.build]

VOC = [str(index) for index in range(21)]
ROAD = ["background", "road", "curb", "marking"]


def coco(folder: Path, part: str) -> Dataset:
    data = folder / "data-coco-mini"
    labels = data / "object_detection" / "labels" / part
    return load_dataset(Yolo(format="yolo", images=data / "images" / part, labels=labels), COCO, "detect")


def cifar(folder: Path) -> Dataset:
    return load_dataset(ClassFolders(format="class_folders", path=folder / "data-cifar10-jpg"), CIFAR, "classify")


def observe(compiled: Compiled, dataset: Dataset, measure: Measure[Any]) -> list[Any]:
    seen = []
    for sample in dataset.samples:
        assert sample.truth is not None
        outputs, placement = compiled.see(sample.image_bgr())
        seen.append(measure.observe(outputs, sample.truth, placement))
    return seen


def figure(compiled: Compiled, dataset: Dataset, name: str, **choices: Any) -> float:
    assert dataset.task is not None
    measure = make_measure(name, dataset.task, Defaults(), compiled.recipe.labels, **choices)
    return value(measure, observe(compiled, dataset, measure))


def folder_of(dataset: Dataset, name: str) -> Dataset:
    return dataset.subset(sample for sample in dataset.samples if sample.name.startswith(f"{name}/"))


def yolox(folder: Path, **changes: Any) -> Compiled:
    source = {"kind": "onnx", "path": str(folder / "det-yolox-nano" / "yolox_nano.onnx")}
    return compile_model({"source": source, "input": changes, "output": {"family": "yolox"}, "labels": "coco"})


def test_detectors_have_pycocotools_figures(realdata: Path) -> None:
    """On these 48 pictures pycocotools 2.0.11 gave 0.35960 and 0.52537 (yolox-nano), 0.23067 and 0.39580 (FastestDet).

    It was fed with the same files' decoded detections; the allowance is for another CPU's rounding.
    """
    val = coco(realdata, "val2017")
    assert val.said == "48 pictures, 350 objects"
    one, other = yolox(realdata), fastestdet(realdata)
    assert figure(one, val, "map50_95") == pytest.approx(0.35960, abs=5e-4)
    assert figure(one, val, "map50") == pytest.approx(0.52537, abs=1e-3)
    assert figure(other, val, "map50_95") == pytest.approx(0.23067, abs=5e-4)
    assert figure(other, val, "map50") == pytest.approx(0.39580, abs=1e-3)
    assert figure(yolox(realdata, color="rgb"), val, "map50_95") < 0.33


def test_training_pictures_are_not_among_those_that_judge(realdata: Path) -> None:
    train, val = coco(realdata, "train2017"), coco(realdata, "val2017")
    assert len(train) == 80
    check_disjoint(train, val)
    everything = load_dataset(Pictures(format="pictures", path=realdata / "data-coco-mini" / "images"), COCO, "detect")
    assert len(everything) == 128
    with pytest.raises(RecipeError, match="48 are in both"):
        check_disjoint(everything, val)


def test_a_detector_agrees_with_itself_and_less_with_another(realdata: Path) -> None:
    """Without labels: the float model's answers are the truth."""
    one, other = fastestdet(realdata), fastestdet(realdata, color="rgb")
    measure = make_measure("map50_95", "detect", Defaults(), COCO)
    same, exchanged = [], []
    for sample in coco(realdata, "val2017").samples:
        outputs, placement = one.see(sample.image_bgr())
        truth = truth_of(outputs, placement, "detect", Defaults())
        same.append(measure.observe(outputs, truth, placement))
        outputs, placement = other.see(sample.image_bgr())
        exchanged.append(measure.observe(outputs, truth, placement))

    drop = paired_bootstrap(measure, same, exchanged)

    assert drop.reference == pytest.approx(1.0)
    assert 0.05 < drop.low < drop.value < drop.high < 0.8
    assert drop.method == "bootstrap"


def test_class_folders_give_the_classifiers_published_accuracy(realdata: Path) -> None:
    pictures = cifar(realdata)
    assert pictures.said == "1000 pictures, 10 of 10 classes"
    compiled = resnet(
        realdata, {"kind": "onnx", "path": str(realdata / "cls-resnet-cifar10" / "resnet20_cifar10.onnx")}
    )
    measure = make_measure("top1", "classify", Defaults(), CIFAR)
    seen = observe(compiled, pictures, measure)

    assert value(measure, seen) == pytest.approx(0.795, abs=1e-6)
    cats = make_measure("top1", "classify", Defaults(), CIFAR, classes=["cat"])
    assert value(cats, observe(compiled, folder_of(pictures, "cat"), cats)) < 0.7


def test_a_split_keeps_the_classes_in_balance(realdata: Path) -> None:
    parts = split(cifar(realdata), [0.2, 0.3, 0.5], seed=0)
    assert [len(part) for part in parts] == [200, 300, 500]
    for part, each in zip(parts, (20, 30, 50), strict=True):
        names = [sample.name.partition("/")[0] for sample in part.samples]
        assert all(abs(names.count(name) - each) <= 1 for name in CIFAR)


def test_masks_give_the_segmenters_published_figures(realdata: Path) -> None:
    """The road's IoU on CamVid, with markings counted as road; deeplab's pixels on COCO's masks in VOC's classes.

    ``cv2.resize`` with INTER_NEAREST, half a pixel of the mask aside, says 0.9757 and 0.8201; with INTER_NEAREST_EXACT,
    by the pixels' centres as the device, 0.9775 and 0.8198.
    """
    camvid = realdata / "data-camvid"
    data = load_dataset(
        Masks(
            format="masks",
            images=camvid / "val",
            masks=camvid / "valannot",
            class_map={3: "road", 11: "ignore"},
            rest="background",
            merge={"marking": "road"},
        ),
        ROAD,
        "segment",
    )
    assert len(data) == 21
    compiled = road(realdata)
    merged = figure(compiled, data, "miou", classes=["road"], merge={"marking": "road"})
    assert merged == pytest.approx(0.9776, abs=5e-4)
    assert figure(compiled, data, "miou", classes=["road"]) < 0.97

    mini = realdata / "data-coco-mini"
    data = load_dataset(
        Masks(
            format="masks",
            images=mini / "images" / "val2017",
            masks=mini / "semantic_segmentation" / "masks" / "val2017",
            class_map={value: str(label) for value, label in VOC_BY_COCO.items()},
            rest="0",
        ),
        VOC,
        "segment",
    )
    assert figure(deeplab(realdata), data, "pixel_accuracy") == pytest.approx(0.8198, abs=5e-4)
