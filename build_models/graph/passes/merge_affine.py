"""Sums and products with constants in a row become one product and one sum.

Only where that leaves fewer nodes: ``(x - mean) * scale`` keeps more digits near the mean than its equal
``x * scale + offset`` and stays as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from onnx import helper

from build_models.graph.passes.affine import AFFINE_OPS, Affine
from build_models.graph.passes.editing import GraphEdit

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray


def merge_affine(model: onnx.ModelProto) -> tuple[onnx.ModelProto, int]:
    """The values between are read by nobody else."""
    edit = GraphEdit(model)
    count = 0
    used: set[str] = set()
    for node in reversed(list(edit.nodes(*AFFINE_OPS))):
        if node.output[0] in used:
            continue
        chain, total = _chain_ending_at(edit, node)
        used.update(link.output[0] for link in chain)
        if total is None or len(chain) <= total.scales + total.shifts or not _fits(total):
            continue
        _write(edit, chain, total)
        count += 1
    return edit.finish(), count


def _chain_ending_at(edit: GraphEdit, last: onnx.NodeProto) -> tuple[list[onnx.NodeProto], Affine | None]:
    """As many as possible, last first, and what they do together."""
    total = Affine.of(edit, last)
    chain = [last]
    while total is not None:
        node = edit.writer(total.source, *AFFINE_OPS)
        earlier = Affine.of(edit, node) if node is not None and edit.is_read_once(node.output[0]) else None
        both = earlier.then(total) if earlier is not None else None
        if node is None or both is None:
            break
        chain.append(node)
        total = both
    return chain, total


def _fits(total: Affine) -> bool:
    """Neither too large for float32, nor so small that it becomes zero."""
    for value in (total.scale, total.offset):
        with np.errstate(over="ignore"):
            stored = value.astype(np.float32)
        if not np.isfinite(stored).all() or np.any((np.abs(stored) < np.finfo(np.float32).tiny) & (value != 0)):
            return False
    return True


def _write(edit: GraphEdit, chain: list[onnx.NodeProto], total: Affine) -> None:
    last = chain[0]
    result = last.output[0]
    steps: list[tuple[str, NDArray[np.float64]]] = []
    if total.scales:
        steps.append(("Mul", total.scale))
    if total.shifts:
        steps.append(("Add", total.offset))
    for node in chain:
        edit.drop(node)
    tensor = total.source
    for index, (op_type, value) in enumerate(steps):
        output = result if index == len(steps) - 1 else edit.free_name(f"{result}/scaled")
        by = edit.add_constant(value.astype(np.float32), f"{result}/{op_type.lower()}")
        name = last.name or f"{op_type}/{result}"
        edit.insert_before(last, helper.make_node(op_type, [tensor, by], [output], name=f"{name}/{op_type.lower()}"))
        tensor = output
    if not steps:  # together they do nothing
        edit.insert_before(last, helper.make_node("Identity", [total.source], [result], name=last.name))
