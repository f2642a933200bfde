"""A product of two matrices and a sum become one Gemm."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnx import TensorProto, helper

from build_models.graph.passes.editing import GraphEdit

if TYPE_CHECKING:
    import onnx

    from build_models.graph.passes.editing import Dims


def matmul_to_gemm(model: onnx.ModelProto) -> tuple[onnx.ModelProto, int]:
    """Of exactly two axes, float32, and a summand that broadcasts to the product without widening it."""
    edit = GraphEdit(model)
    count = 0
    for node in edit.nodes("Add"):
        if edit.opset < 7:  # broadcasting was an attribute
            break
        for index in (0, 1):
            product = edit.writer(node.input[index], "MatMul")
            summand = node.input[1 - index]
            if product is None or not edit.is_read_once(node.input[index]) or not _fits(edit, product, summand):
                continue
            gemm = helper.make_node("Gemm", [*product.input, summand], [node.output[0]], name=product.name)
            edit.drop(node)
            edit.drop(product)
            edit.insert_before(node, gemm)
            count += 1
            break
    return edit.finish(), count


def _fits(edit: GraphEdit, product: onnx.NodeProto, summand: str) -> bool:
    left, right, added = (edit.dims(name) for name in (*product.input, summand))
    if left is None or right is None or added is None or (len(left), len(right)) != (2, 2):
        return False
    if any(edit.element_type(name) != TensorProto.FLOAT for name in (*product.input, summand)):
        return False
    return _broadcasts_to((left[0], right[1]), added)


def _broadcasts_to(target: Dims, dims: Dims) -> bool:
    """Surely: a side that is not known may be anything."""
    sides = zip(target[::-1], dims[::-1], strict=False)
    return len(dims) <= len(target) and all(side == 1 or (side is not None and side == own) for own, side in sides)
