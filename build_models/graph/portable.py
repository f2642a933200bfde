"""The last word on a float graph: optimised as far as any machine may use it, checked, and free of build traces.

The graph passes (`build_models.graph.optimise`) come first, then ONNX Runtime's BASIC level, which keeps to official
operators and is good at moving transposes; then the passes again, on what that brought together. Higher levels would
bake this machine's layouts in. Constants are folded by the passes alone: the runtime would also write out what only
grows the file. The same model gives the same bytes, on every run.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import onnx

from agent.model.runtime import ort
from build_models.errors import BuildError
from build_models.graph.model_io import (
    OFFICIAL_DOMAINS,
    first_line,
    opset_of,
    remove_dead_nodes,
    runtime_errors,
    tensor_names,
)
from build_models.graph.optimise import optimise

if TYPE_CHECKING:
    from collections.abc import Collection

IR_VERSION = 10
OPSETS = (13, 21)


@dataclass(frozen=True, slots=True)
class PortableReport:
    """Operator counts before and after, and the rewrites of each graph pass."""

    nodes_before: int
    nodes_after: int
    operators: dict[str, int]
    opset: int
    rewrites: dict[str, int]


def make_portable(model: onnx.ModelProto, keep: Collection[str] = ()) -> tuple[onnx.ModelProto, PortableReport]:
    """Optimise, check and strip; the given model stays as it is.

    Args:
        model: a float model of static shape.
        keep: tensors that must survive under their names, such as the raw head.

    Raises:
        BuildError: the result would not run on every device, or lost a tensor of ``keep``.
    """
    own, first = optimise(model, keep)
    own, second = optimise(_optimised_by_runtime(own, keep), keep)
    result = strip(own)
    check_portable(result)
    lost = sorted(set(keep) - tensor_names(result))
    if lost:
        raise BuildError(f"optimisation lost the tensors {', '.join(lost)}")
    counts = Counter(node.op_type for node in result.graph.node)
    rewrites = {name: count + second.rewrites[name] for name, count in first.rewrites.items()}
    return result, PortableReport(
        nodes_before=len(model.graph.node),
        nodes_after=len(result.graph.node),
        operators=dict(counts.most_common()),
        opset=opset_of(result),
        rewrites={name: count for name, count in rewrites.items() if count},
    )


def check_portable(model: onnx.ModelProto) -> None:
    """Raises BuildError unless the model keeps to official operators, IR 10 and opset 13 to 21, and is well formed."""
    foreign = {f"{node.domain}.{node.op_type}" for node in model.graph.node if node.domain not in OFFICIAL_DOMAINS}
    if foreign:
        raise BuildError(f"expected official ONNX operators only, found {', '.join(sorted(foreign))}")
    low, high = OPSETS
    if model.ir_version > IR_VERSION or not low <= opset_of(model) <= high:
        raise BuildError(
            f"expected IR version <= {IR_VERSION} and opset {low} to {high}, "
            f"found IR {model.ir_version} and opset {opset_of(model)}"
        )
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as err:
        raise BuildError(f"the ONNX checker refuses the graph: {first_line(err)}") from err


def strip(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy without traces of the build (documentation, metadata, unused imports), in one fixed order."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    opset = opset_of(result)
    result.ir_version = IR_VERSION
    result.producer_name, result.producer_version = "edge-agent", ""
    for field in ("domain", "model_version", "doc_string", "metadata_props", "opset_import", "training_info"):
        result.ClearField(field)
    result.opset_import.add(domain="", version=opset)
    _strip_graph(result.graph)
    result.graph.name = "main"
    _name_nodes(result.graph)
    initialisers = sorted(result.graph.initializer, key=lambda tensor: tensor.name)
    del result.graph.initializer[:]
    result.graph.initializer.extend(initialisers)
    values = sorted(result.graph.value_info, key=lambda value: value.name)
    del result.graph.value_info[:]
    result.graph.value_info.extend(values)
    return result


def _optimised_by_runtime(model: onnx.ModelProto, keep: Collection[str]) -> onnx.ModelProto:
    """ONNX Runtime writes its optimised graph to a file only."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    outputs = {value.name for value in probe.graph.output}
    # An output cannot be optimised away; these are outputs for as long as the optimiser runs.
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in sorted(set(keep) - outputs))
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    with tempfile.TemporaryDirectory(prefix="edge-agent-") as folder:
        path = Path(folder) / "optimised.onnx"
        options.optimized_model_filepath = str(path)
        try:
            ort.InferenceSession(
                probe.SerializeToString(),
                options,
                providers=["CPUExecutionProvider"],
                disabled_optimizers=["ConstantFolding"],
            )
        except runtime_errors() as err:
            raise BuildError(f"ONNX Runtime refuses the model: {first_line(err)}") from err
        optimised = onnx.load(str(path))
    kept = [value for value in optimised.graph.output if value.name in outputs]
    del optimised.graph.output[:]
    optimised.graph.output.extend(kept)
    remove_dead_nodes(optimised)
    return optimised


def _strip_graph(graph: onnx.GraphProto) -> None:
    for owner in [graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer]:
        owner.doc_string = ""
        owner.ClearField("metadata_props")
    for node in graph.node:
        node.ClearField("overload")
        if node.domain in OFFICIAL_DOMAINS:
            node.domain = ""
        for attribute in node.attribute:
            for inner in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                _strip_graph(inner)


def _name_nodes(graph: onnx.GraphProto) -> None:
    """Every node gets a name of its own: quantisation addresses nodes by name."""
    taken: set[str] = set()
    for node in graph.node:
        base = node.name or f"{node.op_type}/{node.output[0]}"
        name, count = base, 1
        while name in taken:
            count += 1
            name = f"{base}_{count}"
        taken.add(name)
        node.name = name
