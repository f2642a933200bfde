"""``build-models optimize IN OUT``: the graph passes alone, on any ONNX model."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Sequence

    import onnx

    from build_models.graph.kernels import KernelReport
    from build_models.graph.optimise import OptimiseReport

SAID = "optimise the graph of an ONNX file"


def declare(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    parser.description = (
        "Optimise the graph of any ONNX model, prove on random inputs that it computes the same, and tell what ONNX "
        "Runtime will make of it on this machine."
    )
    parser.add_argument("model", type=Path, metavar="IN", help="the .onnx file")
    parser.add_argument("out", type=Path, metavar="OUT", help="where to write the result; replaced when it exists")
    parser.add_argument(
        "--shape",
        action="append",
        default=[],
        metavar="NAME=1x3x320x320",
        help="fix the shape of an input; can be given for several",
    )
    parser.add_argument("--opset", type=int, metavar="N", help="convert to this operator set, 13 to 21")
    parser.add_argument("--json", action="store_true", help="print what was done as JSON")


def run(args: argparse.Namespace) -> int:
    """Load, fix, convert, optimise, prove, write, tell."""
    import json
    from dataclasses import asdict

    from build_models.errors import RecipeError
    from build_models.graph.fix_shape import fix_axes, infer_anew
    from build_models.graph.kernels import kernel_report
    from build_models.graph.model_io import describe, freeze_initialisers, inputs_of, opset_of, outputs_of
    from build_models.graph.optimise import optimise
    from build_models.graph.passes.convert_opset import convert_opset
    from build_models.graph.portable import OPSETS
    from build_models.progress import Progress
    from build_models.source.onnx_import import load_onnx

    shapes = _shapes(args.shape)
    if args.opset is not None and not OPSETS[0] <= args.opset <= OPSETS[1]:
        raise RecipeError(f"--opset: expected {OPSETS[0]} to {OPSETS[1]}, which every device runs, got {args.opset}")
    if not args.out.resolve().parent.is_dir():
        raise RecipeError(f"{args.out}: there is no folder {args.out.resolve().parent}; make it first")
    progress = Progress(3)
    with progress.stage("load") as ended:
        source, _ = load_onnx(args.model)
        model = _copy(source)
        frozen = freeze_initialisers(model)
        if shapes:
            model = fix_axes(model, shapes)
        if args.opset is not None:
            model, _ = convert_opset(model, args.opset)
        ended(f"{describe(inputs_of(model))} -> {describe(outputs_of(model))}, opset {opset_of(model)}")
    with progress.stage("optimise") as ended:
        result, report = optimise(model)
        if shapes:
            result = infer_anew(result)
        ended(f"{report.nodes_before} -> {report.nodes_after} nodes")
    with progress.stage("prove") as ended:
        difference = _prove(source, model, result, shaped=bool(shapes))
        kernels = kernel_report(result)
        ended(f"equal on random inputs, the largest difference {difference:.1e} of an output's largest value")
    data = result.SerializeToString(deterministic=True)
    _write(args.out, data)
    if args.json:
        told = {
            "frozen_initialisers": frozen,
            **asdict(report),
            "rewrites": report.rewrites,
            "largest_difference": difference,
            "bytes_before": args.model.stat().st_size,
            "bytes_after": len(data),
            "kernels": asdict(kernels),
        }
        sys.stdout.write(json.dumps(told, indent=2) + "\n")
        return 0
    if frozen:
        sys.stdout.write(f"{frozen} initialisers were inputs too; they are constants now\n")
    sys.stdout.write(_passes_table(report))
    sys.stdout.write(f"{args.out}: {len(data)} bytes\n\n")
    sys.stdout.write(_kernels_table(kernels))
    return 0


def _shapes(given: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """``["image=1x3x320x320"]``; a name may hold any sign but the last ``=``."""
    from build_models.errors import RecipeError

    shapes: dict[str, tuple[int, ...]] = {}
    for text in given:
        found = re.fullmatch(r"(.+)=([1-9]\d*(?:x[1-9]\d*)*)", text)
        if found is None:
            raise RecipeError(f"--shape: expected NAME=SIDExSIDE... such as image=1x3x320x320, got {text!r}")
        if found[1] in shapes:
            raise RecipeError(f"--shape: {found[1]} is given twice")
        shapes[found[1]] = tuple(int(side) for side in found[2].split("x"))
    return shapes


def _prove(source: onnx.ModelProto, model: onnx.ModelProto, result: onnx.ModelProto, *, shaped: bool) -> float:
    """The largest difference of result and source; a shape given to ``model`` that something inside blocks is told."""
    from build_models.errors import BuildError, RecipeError
    from build_models.graph.fix_shape import reshape_that_blocks
    from build_models.graph.proof import prove_same

    try:
        return prove_same(source, result)
    except BuildError as err:
        blocks = reshape_that_blocks(model) if shaped else None
        if blocks is None:
            raise
        raise RecipeError(f"--shape: {blocks}; take its size, or export the model with these axes free") from err


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def _write(path: Path, data: bytes) -> None:
    """All of it or nothing: a reader never sees half a file."""
    import os
    import tempfile

    from build_models.errors import RecipeError

    target = path.resolve()  # a link stays one
    try:
        with tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}-", delete=False) as file:
            temporary = Path(file.name)
            try:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
                temporary.chmod(0o644)
                temporary.replace(target)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
    except OSError as err:
        raise RecipeError(f"{path}: cannot write there: {err.strerror}") from err


def _passes_table(report: OptimiseReport) -> str:
    """Every run that found something; what never did is named below."""
    rows = [
        (each.name, each.round, each.rewrites, each.nodes_before, each.nodes_after)
        for each in report.passes
        if each.rewrites
    ]
    idle = [name for name, count in report.rewrites.items() if not count]
    table = _table(("pass", "round", "rewrites", "nodes before", "nodes after"), rows)
    total = ("all", report.rounds, sum(report.rewrites.values()), report.nodes_before, report.nodes_after)
    return f"{table}{_table(total, [])}nothing to do for: {', '.join(idle) or 'none'}\n"


def _kernels_table(kernels: KernelReport) -> str:
    islands = ", ".join("+".join(island) for island in kernels.float_islands) or "none"
    rows: list[tuple[Any, ...]] = [
        ("operators", kernels.nodes),
        ("activations fused into them", kernels.fused_activations),
        ("computing in int8", kernels.integer),
        ("convolutions in float", kernels.float_convolutions),
        ("QuantizeLinear and DequantizeLinear left", kernels.quantise + kernels.dequantise),
        ("float islands between them", islands),
        ("transposes", kernels.transposes),
        ("layout conversions", kernels.reorders),
        *((f"  {name}", count) for name, count in kernels.operators.items()),
    ]
    return _table(("what ONNX Runtime runs on this machine", ""), rows)


def _table(head: Iterable[Any], rows: Iterable[Iterable[Any]]) -> str:
    """The first column to the left, the others to the right, in fixed widths: tables below each other align."""
    lines = []
    for first, *others in [head, *rows]:
        lines.append(f"{first!s:<42}" + "".join(f"{other!s:>14}" for other in others))
    return "\n".join(line.rstrip() for line in lines) + "\n"
