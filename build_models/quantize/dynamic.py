"""Dynamic int8: weights quantised now, activations on the device by each picture's range, so no pictures are needed.

For models of matrix products. A convolution is left in float: its dynamic form (ConvInteger) has no fast kernel and is
several times slower than the float one.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx

from build_models.errors import BuildError
from build_models.graph.portable import check_portable, strip
from build_models.quantize.costs import arithmetic_of, shapes_of

if TYPE_CHECKING:
    from collections.abc import Collection

PRODUCTS = ("Gemm", "MatMul")
_ENOUGH = 0.5  # share of the products below which static quantisation is the better way


def quantize_dynamic(
    model: onnx.ModelProto, nodes: Collection[str] | None = None, *, reduce_range: bool = False
) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """Quantise the matrix products with constant weights.

    Args:
        model: float graph, portable ops only; not changed.
        nodes: names of the nodes to quantise; None: all that can be.
        reduce_range: weights of 7 bits, for x86 without VNNI.

    Returns:
        The graph with the same input and outputs, official operators only, and a report: nodes quantised, nodes left
        with the reason, the share of multiplications that became int8, and the advice that follows from it.

    Raises:
        BuildError: there is no matrix product with constant weights.
    """
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization import quantize_dynamic as write
    from onnxruntime.quantization.quant_utils import add_pre_process_metadata

    counts = multiplications(model)
    constants = {tensor.name for tensor in model.graph.initializer}
    chosen, left = [], []
    for node in model.graph.node:
        if node.name not in counts:
            continue
        if node.op_type not in PRODUCTS:
            left.append({"node": node.name, "op_type": node.op_type, "reason": "no fast kernel for a dynamic range"})
        elif node.input[1] not in constants:
            left.append({"node": node.name, "op_type": node.op_type, "reason": "both factors are computed"})
        elif node.op_type == "Gemm" and not _is_plain(node):
            left.append({"node": node.name, "op_type": node.op_type, "reason": "it scales or transposes its input"})
        elif nodes is not None and node.name not in nodes:
            left.append({"node": node.name, "op_type": node.op_type, "reason": "not wanted"})
        else:
            chosen.append(node.name)
    if not chosen:
        raise BuildError(
            "expected a matrix product with constant weights, found none: dynamic quantisation has nothing to do; "
            "use static quantisation, which needs calibration pictures"
        )
    source = onnx.ModelProto()
    source.CopyFrom(model)
    add_pre_process_metadata(source)  # else the writer advises on standard error to simplify the graph first
    with tempfile.TemporaryDirectory(prefix="edge-agent-") as folder:
        path = Path(folder) / "dynamic.onnx"
        write(
            source,
            path,
            op_types_to_quantize=list(PRODUCTS),
            per_channel=True,
            reduce_range=reduce_range,
            weight_type=QuantType.QInt8,
            nodes_to_quantize=[*chosen, *(f"{name}_MatMul" for name in chosen)],  # what a Gemm becomes
            extra_options={"MatMulConstBOnly": True, "WeightSymmetric": True},
        )
        result = strip(onnx.load(path))
    check_portable(result)
    made = sum(node.op_type == "MatMulInteger" for node in result.graph.node)
    if made != len(chosen):
        raise BuildError(f"expected {len(chosen)} matrix products in int8, the writer made {made}")
    share = sum(counts[name] for name in chosen) / max(sum(counts.values()), 1)
    advice = None
    if share < _ENOUGH:
        advice = (
            f"only {share:.0%} of the multiplications are in matrix products with constant weights: static "
            "quantisation does more, it needs calibration pictures"
        )
    return result, {
        "quantised_nodes": len(chosen),
        "nodes": chosen,
        "left": left,
        "multiplications_share": round(share, 4),
        "advice": advice,
    }


def _is_plain(node: onnx.NodeProto) -> bool:
    """A Gemm that is a matrix product and a sum."""
    given = {entry.name: entry.f if entry.name in ("alpha", "beta") else entry.i for entry in node.attribute}
    return given.get("alpha", 1.0) == given.get("beta", 1.0) == 1.0 and not given.get("transA", 0)


def multiplications(model: onnx.ModelProto) -> dict[str, int]:
    """Multiplications of one run in each convolution and matrix product, by the node's name.

    Raises:
        BuildError: a shape is unknown.
    """
    shapes, arithmetic = shapes_of(model), arithmetic_of(model)
    counts = {}
    for node in model.graph.node:
        if node.op_type not in ("Conv", "ConvTranspose", *PRODUCTS):
            continue
        around = [shapes.get(name, ()) for name in (*node.input[:2], node.output[0])]
        if any(not shape or 0 in shape for shape in around):
            raise BuildError(f"expected static shapes around {node.name} ({node.op_type}), found {around}")
        counts[node.name] = int(arithmetic[node.name])
    return counts
