"""What the detector is taught: which cells answer for which object, and how wrong their answers are."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from build_models.demo.detector import STRIDES, cell_centres

# An object belongs to the levels whose range holds its longer side in pixels; the overlap spares it a hard edge.
LEVEL_RANGES_PX = ((0.0, 52.0), (36.0, float("inf")))
CENTRE_RADIUS = 1.5  # cells within so many strides of an object's centre answer for it
BOX_WEIGHT = 2.0


@dataclass(frozen=True, slots=True)
class Targets:
    """The objects of a batch, padded to the most in one picture.

    Attributes:
        boxes_xyxy: float32 ``[B, N, 4]`` in input pixels.
        labels: int64 ``[B, N]``.
        valid: bool ``[B, N]``; False is padding.
    """

    boxes_xyxy: Tensor
    labels: Tensor
    valid: Tensor


def detection_loss(logits: Tensor, boxes_xyxy: Tensor, targets: Targets, input_wh: tuple[int, int]) -> Tensor:
    """Class loss plus GIoU loss, a scalar, per object: each counts the same, however many cells answer for it.

    A cell that answers is taught its box's present IoU as the score of its class and 0 for the others; elsewhere all
    scores are taught 0, the more the surer they are (quality-aware scores: Zhang et al., "VarifocalNet", 2021; GIoU:
    Rezatofighi et al., 2019).

    Args:
        logits: ``[B, A, C]``.
        boxes_xyxy: ``[B, A, 4]``, decoded.
        targets: the truth.
        input_wh: size of the input in pixels.
    """
    owner = assign(targets, input_wh)
    batch, cell = torch.nonzero(owner >= 0, as_tuple=True)
    row = owner[batch, cell]
    share = (
        1
        / torch.zeros(targets.labels.shape).index_put_((batch, row), torch.ones(len(row)), accumulate=True)[batch, row]
    )
    iou, giou = _overlaps(boxes_xyxy[batch, cell], targets.boxes_xyxy[batch, row])
    quality = torch.zeros_like(logits)
    quality[batch, cell, targets.labels[batch, row]] = iou.detach()
    weight = logits.detach().sigmoid().square()
    weight[batch, cell] = share[:, None]
    class_loss = functional.binary_cross_entropy_with_logits(logits, quality, weight=weight, reduction="sum")
    total: Tensor = (class_loss + BOX_WEIGHT * (share * (1 - giou)).sum()) / targets.valid.sum().clamp(min=1)
    return total


def assign(targets: Targets, input_wh: tuple[int, int]) -> Tensor:
    """The object each cell answers for: int64 ``[B, A]``, a row of the targets or -1; of several, the smallest."""
    boxes = targets.boxes_xyxy
    sides = boxes[..., 2:] - boxes[..., :2]
    longer, area = sides.amax(dim=2), sides.prod(dim=2)
    middle = (boxes[..., :2] + boxes[..., 2:]) / 2
    answers = []
    for stride, (least_px, most_px) in zip(STRIDES, LEVEL_RANGES_PX, strict=True):
        centres = cell_centres((input_wh[0] // stride, input_wh[1] // stride), stride)
        offset = (centres[None, None] - middle[:, :, None]).abs().amax(dim=3)
        inside = torch.minimum(
            (centres[None, None] - boxes[:, :, None, :2]).amin(dim=3),
            (boxes[:, :, None, 2:] - centres[None, None]).amin(dim=3),
        )
        near = (offset < CENTRE_RADIUS * stride) & (inside > 0)
        # A sliver may hold no centre at all: the nearest cell answers for it.
        near |= offset == offset.amin(dim=2, keepdim=True)
        at_level = targets.valid & (longer >= least_px) & (longer < most_px)
        answers.append(near & at_level[:, :, None])
    candidates = torch.cat(answers, dim=2)
    smallest, owner = torch.where(candidates, area[:, :, None], torch.inf).min(dim=1)
    return torch.where(smallest.isfinite(), owner, -1)


def _overlaps(a_xyxy: Tensor, b_xyxy: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and generalised IoU of boxes ``[M, 4]`` pair by pair: ``[M]`` each."""
    intersection = _area(
        torch.cat((torch.maximum(a_xyxy[:, :2], b_xyxy[:, :2]), torch.minimum(a_xyxy[:, 2:], b_xyxy[:, 2:])), dim=1)
    )
    hull = _area(
        torch.cat((torch.minimum(a_xyxy[:, :2], b_xyxy[:, :2]), torch.maximum(a_xyxy[:, 2:], b_xyxy[:, 2:])), dim=1)
    )
    union = _area(a_xyxy) + _area(b_xyxy) - intersection
    iou = intersection / union
    return iou, iou - (hull - union) / hull


def _area(boxes_xyxy: Tensor) -> Tensor:
    return (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).clamp(min=0).prod(dim=1)
