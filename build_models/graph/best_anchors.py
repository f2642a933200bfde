"""The common tail of detectors: the K best anchors, so that only K boxes need decoding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from build_models.graph.writer import GraphWriter


@dataclass(frozen=True, slots=True)
class Best:
    """Tensors: ``scores`` float32 ``[1, K]`` descending, ``labels`` int64 ``[1, K]``, ``anchors`` int64 ``[K]``."""

    scores: str
    labels: str
    anchors: str


def best_anchors(
    writer: GraphWriter,
    class_scores: str,
    shape_nc: tuple[int, int],
    count: int,
    *,
    multi_label: bool,
    weight: str | None = None,
    scores_output: str | None = None,
    labels_output: str | None = None,
) -> Best:
    """Rank anchors by their best class, or all anchor-class pairs.

    Args:
        writer: where the nodes go.
        class_scores: tensor ``[1, N, C]``; anything that grows with the score, such as logits.
        shape_nc: N and C.
        count: K.
        multi_label: rank pairs.
        weight: tensor ``[1, N, 1]`` of factors >= 0 that all classes of an anchor share.
        scores_output: name of the scores tensor; None: any.
        labels_output: name of the labels tensor; None: any.
    """
    anchors, classes = shape_nc
    k = writer.constant([count], np.int64, "k")
    if multi_label:
        pairs = writer.op("Mul", class_scores, weight, name="pair_scores") if weight else class_scores
        ranked = writer.reshape(pairs, (1, anchors * classes), "all_pairs")
        scores, pair_ids = writer.ops("TopK", ranked, k, name="best", outputs=[scores_output, None], axis=1)
        per_anchor = writer.constant(classes, np.int64, "classes")
        anchor_ids = writer.op("Div", pair_ids, per_anchor, name="best_anchor")
        labels = writer.op("Mod", pair_ids, per_anchor, name="best_label", output=labels_output)
        return Best(scores, labels, writer.reshape(anchor_ids, (count,), "best_anchors"))
    best_class = writer.reduce_max(class_scores, 2, "best_class")
    if weight:
        flat_weight = writer.reshape(weight, (1, anchors), "weight")
        best_class = writer.op("Mul", best_class, flat_weight, name="best_score")
    scores, anchor_ids = writer.ops("TopK", best_class, k, name="best", outputs=[scores_output, None], axis=1)
    flat_ids = writer.reshape(anchor_ids, (count,), "best_anchors")
    rows = writer.op("Gather", class_scores, flat_ids, name="best_classes", axis=1)
    labels = writer.op("ArgMax", rows, name="best_label", output=labels_output, axis=2, keepdims=0)
    return Best(scores, labels, flat_ids)
