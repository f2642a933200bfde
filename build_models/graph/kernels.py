"""What ONNX Runtime makes of a model when it loads it on this machine: its own optimised graph, looked into."""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import onnx

from agent.model.runtime import ort
from build_models.errors import BuildError
from build_models.graph.model_io import first_line, runtime_errors

if TYPE_CHECKING:
    from collections.abc import Iterable

_QUANTISE, _DEQUANTISE = "QuantizeLinear", "DequantizeLinear"
_REORDERS = {"ReorderInput", "ReorderOutput"}
_INTEGER_OPS = {"ConvInteger", "MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "QGemm", "QAttention"}
_CONVOLUTIONS = {"Conv", "FusedConv", "NhwcFusedConv"}


@dataclass(frozen=True, slots=True)
class KernelReport:
    """The optimised graph in figures.

    Attributes:
        operators: count by operator, most frequent first; operators of the runtime's own carry no domain.
        nodes: all of them.
        fused_activations: convolutions and matrix products that apply their activation themselves.
        integer: operators that compute in int8 (QLinear and its kin).
        float_convolutions: convolutions that compute in float.
        quantise: QuantizeLinear left.
        dequantise: DequantizeLinear left.
        float_islands: what computes in float between a DequantizeLinear and a QuantizeLinear, island by island: each
            costs both conversions.
        transposes: Transpose left.
        reorders: conversions into and out of the CPU's own blocked layout.
    """

    operators: dict[str, int]
    nodes: int
    fused_activations: int
    integer: int
    float_convolutions: int
    quantise: int
    dequantise: int
    float_islands: tuple[tuple[str, ...], ...]
    transposes: int
    reorders: int


def kernel_report(model: onnx.ModelProto) -> KernelReport:
    """Load the model as a device does, with all optimisations, and look at what is left.

    Raises:
        BuildError: ONNX Runtime does not accept the model.
    """
    nodes = list(optimised_by_runtime(model).graph.node)
    kinds = Counter(node.op_type for node in nodes)
    return KernelReport(
        operators=dict(sorted(kinds.items(), key=lambda item: (-item[1], item[0]))),
        nodes=len(nodes),
        fused_activations=sum(_applies_activation(node) for node in nodes),
        integer=sum(_is_integer(node) for node in nodes),
        float_convolutions=sum(node.op_type in _CONVOLUTIONS for node in nodes),
        quantise=kinds[_QUANTISE],
        dequantise=kinds[_DEQUANTISE],
        float_islands=tuple(_float_islands(nodes)),
        transposes=kinds["Transpose"],
        reorders=sum(kinds[kind] for kind in _REORDERS),
    )


def optimised_by_runtime(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph that runs after loading: full of operators that hold on this CPU only; to look at, not to ship.

    Raises:
        BuildError: ONNX Runtime does not accept the model.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 4
    with tempfile.TemporaryDirectory(prefix="edge-agent-") as folder:
        path = Path(folder) / "optimised.onnx"
        options.optimized_model_filepath = str(path)
        try:
            ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        except runtime_errors() as err:
            raise BuildError(f"ONNX Runtime refuses the model: {first_line(err)}") from err
        return onnx.load(str(path))


def _applies_activation(node: onnx.NodeProto) -> bool:
    return any(attribute.name == "activation" and attribute.s for attribute in node.attribute)


def _is_integer(node: onnx.NodeProto) -> bool:
    return node.op_type.startswith("QLinear") or node.op_type in _INTEGER_OPS


def _float_islands(nodes: Iterable[onnx.NodeProto]) -> list[tuple[str, ...]]:
    """Connected float operators that follow a DequantizeLinear and lead to a QuantizeLinear, largest first."""
    nodes = list(nodes)
    dequantised = {name for node in nodes if node.op_type == _DEQUANTISE for name in node.output if name}
    quantised = {node.input[0] for node in nodes if node.op_type == _QUANTISE}
    computing = [node for node in nodes if node.op_type not in (_QUANTISE, _DEQUANTISE) and not _is_integer(node)]
    behind = set(dequantised)  # float tensors that come from integers
    for node in computing:
        if behind.intersection(node.input):
            behind.update(filter(None, node.output))
    before = set(quantised)  # and those that become integers again
    for node in reversed(computing):
        if before.intersection(node.output):
            before.update(filter(None, node.input))
    island_of: dict[str, list[str]] = {}
    for node in computing:
        if not (behind.intersection(node.input) and before.intersection(node.output)):
            continue
        joined = [node.op_type]
        for known in {id(each): each for name in node.input if (each := island_of.get(name))}.values():
            joined += known
            island_of = {name: joined if each is known else each for name, each in island_of.items()}
        island_of.update(dict.fromkeys(filter(None, node.output), joined))
    islands = {id(each): tuple(sorted(each)) for each in island_of.values()}
    return sorted(islands.values(), key=lambda ops: (-len(ops), ops))
