from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the torch extra")

import torch

from agent.demo.scenes import LABELS, Truth, random_picture
from agent.vision.decode import Thresholds
from build_models.demo.average_precision import mean_precision, precision_table
from build_models.demo.detector import (
    INPUT_WH,
    OUTPUT_NAMES,
    STRIDES,
    Detector,
    build,
    detect_with,
    flatten,
    to_input,
)
from build_models.demo.evaluate import CURVE
from build_models.demo.loss import Targets, assign, detection_loss

pytestmark = pytest.mark.torch


def test_the_outputs_are_one_pair_of_maps_a_stride() -> None:
    outputs = build(num_classes=5).eval()(torch.zeros(1, 3, INPUT_WH[1], INPUT_WH[0]))
    assert len(outputs) == len(OUTPUT_NAMES)
    for stride, cls, ltrb in zip(STRIDES, outputs[0::2], outputs[1::2], strict=True):
        grid = (INPUT_WH[1] // stride, INPUT_WH[0] // stride)
        assert cls.shape == (1, 5, *grid)
        assert ltrb.shape == (1, 4, *grid)


def test_the_network_fits_its_budget() -> None:
    model, macs = build(), 0

    def count(layer: torch.nn.Conv2d, _: object, output: torch.Tensor) -> None:
        nonlocal macs
        macs += output.numel() * layer.weight[0].numel()

    for layer in model.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.register_forward_hook(count)
    model(torch.zeros(1, 3, INPUT_WH[1], INPUT_WH[0]))
    assert macs <= 250e6
    assert sum(parameter.numel() for parameter in model.parameters()) * 4 <= 1.5e6


def test_raw_distances_are_exponents_in_strides_from_the_cells_centre() -> None:
    cls, raw = torch.zeros(1, 2, 3, 4), torch.zeros(1, 4, 3, 4)
    raw[0, :, 1, 2] = torch.log(torch.tensor([1.0, 2.0, 3.0, 0.5]))
    empty_cls, empty_raw = torch.zeros(1, 2, 1, 2), torch.full((1, 4, 1, 2), 100.0)
    logits, boxes = flatten([cls, raw, empty_cls, empty_raw])
    assert logits.shape == (1, 14, 2)
    centre_x, centre_y = 2.5 * 8, 1.5 * 8
    expected = [centre_x - 8, centre_y - 16, centre_x + 24, centre_y + 4]
    np.testing.assert_allclose(boxes[0, 1 * 4 + 2].numpy(), expected, rtol=1e-6)
    assert torch.isfinite(boxes).all(), "a wild raw value is clipped"


def test_input_is_bgr_over_255_channels_first() -> None:
    picture = np.zeros((1, 2, 3, 3), np.uint8)
    picture[0, 1, 2] = (255, 51, 0)
    tensor = to_input(picture)
    assert tensor.shape == (1, 3, 2, 3)
    assert tensor[0, :, 1, 2].tolist() == pytest.approx([1.0, 0.2, 0.0])


def test_every_object_of_the_training_pictures_has_a_cell_that_answers_for_it() -> None:
    for seed in range(40):
        _, truth = random_picture(seed)
        if len(truth.labels):
            targets = _targets(truth.boxes_xyxy, truth.labels)
            owners = set(assign(targets, INPUT_WH)[0].tolist()) - {-1}
            missing = set(range(len(truth.labels))) - owners
            assert len(missing) <= 1, "only an object in the same cells as smaller ones may go without"


def test_a_small_object_belongs_to_the_fine_level_and_a_large_one_to_the_coarse() -> None:
    boxes = np.array([[20, 20, 32, 32], [100, 60, 180, 140]], np.float32)
    owner = assign(_targets(boxes, np.array([0, 1])), INPUT_WH)[0]
    fine = (INPUT_WH[0] // 8) * (INPUT_WH[1] // 8)
    assert set(owner[:fine].tolist()) == {-1, 0}
    assert set(owner[fine:].tolist()) == {-1, 1}


def test_of_two_objects_in_one_cell_the_smaller_gets_it() -> None:
    boxes = np.array([[0, 0, 40, 40], [16, 16, 24, 24]], np.float32)
    owner = assign(_targets(boxes, np.array([0, 1])), INPUT_WH)[0]
    cell_of_both = 2 * (INPUT_WH[0] // 8) + 2
    assert owner[cell_of_both] == 1


def test_padding_is_no_object() -> None:
    targets = Targets(torch.zeros(1, 2, 4), torch.zeros(1, 2, dtype=torch.int64), torch.zeros(1, 2, dtype=torch.bool))
    assert (assign(targets, INPUT_WH) == -1).all()


def test_the_loss_is_small_for_the_truth_and_large_for_another_class_or_place() -> None:
    boxes = np.array([[20, 20, 44, 40]], np.float32)
    targets = _targets(boxes, np.array([1]))
    owner = assign(targets, INPUT_WH)
    right_boxes = torch.from_numpy(boxes)[None].expand(1, owner.shape[1], 4).clone()

    def loss(label: int, shift_px: float) -> float:
        logits = torch.full((1, owner.shape[1], len(LABELS)), -12.0)
        logits[0, owner[0] >= 0, label] = 12.0
        return float(detection_loss(logits, right_boxes + shift_px, targets, INPUT_WH))

    assert loss(label=1, shift_px=0) < 0.01
    assert loss(label=2, shift_px=0) > 5
    assert loss(label=1, shift_px=6) > 0.5


def test_one_picture_can_be_learnt_by_heart() -> None:
    torch.manual_seed(0)
    image, truth = random_picture(8)
    targets = _targets(truth.boxes_xyxy, truth.labels)
    model = build(width=16).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=5e-3)
    before = _precision(model, image, truth)
    model.train()
    for _ in range(80):
        loss = detection_loss(*flatten(model(to_input(image[None]))), targets, INPUT_WH)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
    assert before < 0.1
    assert _precision(model, image, truth) > 0.9


def test_detections_come_sorted_and_inside_the_picture() -> None:
    torch.manual_seed(0)
    image, _ = random_picture(8)
    detections = detect_with(build(width=8), Thresholds(score=0.0, iou=0.5, max_detections=50))(image)
    assert 0 < len(detections) <= 50
    assert (np.diff(detections.scores) <= 0).all()
    assert detections.boxes_xyxy.min() >= 0
    assert (detections.boxes_xyxy.max(axis=0) <= [*INPUT_WH, *INPUT_WH]).all()


def _targets(boxes_xyxy: np.ndarray, labels: np.ndarray) -> Targets:
    count = len(labels)
    return Targets(
        torch.from_numpy(boxes_xyxy)[None], torch.from_numpy(labels)[None], torch.ones(1, count, dtype=torch.bool)
    )


def _precision(model: Detector, image: np.ndarray, truth: Truth) -> float:
    return mean_precision(precision_table([detect_with(model, CURVE)(image)], [truth], LABELS))
