"""``build-models split MODEL``: stages that together equal the whole."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from build_models.cli.input_options import declare_input, preparation_of

if TYPE_CHECKING:
    import argparse

    import onnx
    from numpy.typing import NDArray

SAID = "cut a model into stages"
_NOISE_SAMPLES = 2


def declare(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    parser.description = (
        "Cut a model into stages, prove that they together give exactly what the whole gives, and write them with "
        "stages.json, which says what each takes and from where."
    )
    parser.add_argument("model", type=Path, metavar="MODEL", help="the .onnx file")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument(
        "--at",
        action="append",
        metavar="TENSOR[,TENSOR]",
        help="cut at this tensor, or at these together (repeatable: each is one more cut)",
    )
    where.add_argument("--into", type=int, metavar="N", help="choose N-1 cuts that few bytes cross")
    parser.add_argument("--balance", choices=["macs", "bytes"], default="macs", help="what --into shares out evenly")
    parser.add_argument(
        "--no-carry", action="store_true", help="refuse a cut that other tensors cross, such as a skip connection"
    )
    declare_input(parser, required=False, pictures="what the proof is run on, instead of noise")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder to write")
    parser.add_argument("--json", action="store_true", help="print stages.json instead of a table")


def run(args: argparse.Namespace) -> int:
    """Cut, prove, write."""
    from agent.model.runtime import ort
    from build_models.errors import RecipeError
    from build_models.graph.split import split_model
    from build_models.graph.split_points import split_points
    from build_models.graph.stages import INDEX, prove_equal, write_stages
    from build_models.look.model_file import read_model
    from build_models.look.new_folder import new_folder

    model = read_model(args.model)
    samples = _samples(model, args)
    if args.into is not None:
        if args.into < 2:
            raise RecipeError(f"--into: expected 2 or more stages, got {args.into}")
        cuts = split_points(model, args.into, args.balance, next(iter(samples)))
    else:
        cuts = [_names(model, text) for text in args.at]
    split = split_model(model, cuts, carry=not args.no_carry, feeds=next(iter(samples)))
    count = prove_equal(model, split, samples)
    about = {
        "model": args.model.name,
        "model_sha256": hashlib.sha256(args.model.read_bytes()).hexdigest(),
        "proof": {"samples": count, "of": "inputs" if args.input else "noise", "onnxruntime": ort.__version__},
    }
    with new_folder(args.out, INDEX) as folder:
        index = write_stages(folder, split, about)
    sys.stdout.write(json.dumps(index, indent=1) + "\n" if args.json else _table(index, args.out))
    return 0


def _samples(model: onnx.ModelProto, args: argparse.Namespace) -> Any:
    from build_models.graph.model_io import inputs_of
    from build_models.graph.random_feeds import random_feeds
    from build_models.look.samples import samples_for

    if args.input:
        return samples_for(model, args.input, preparation_of(args))
    noise: list[dict[str, NDArray[Any]]] = [random_feeds(inputs_of(model), seed) for seed in range(_NOISE_SAMPLES)]
    return noise


def _names(model: onnx.ModelProto, text: str) -> list[str]:
    """Names between commas; a name that has a comma itself is one."""
    from build_models.graph.flow import makers

    return [text] if text in makers(model) else [name.strip() for name in text.split(",") if name.strip()] or [text]


def _table(index: dict[str, Any], out: Path) -> str:
    lines = []
    for stage in index["stages"]:
        takes = ", ".join(f"{_said(each)} from {each['from']}" for each in stage["inputs"])
        gives = ", ".join(map(_said, stage["outputs"]))
        lines.append(
            f"{stage['name']:<9} {stage['nodes']:>5} nodes {stage['bytes'] / 1e6:>8.2f} MB\n"
            f"            takes {takes}\n            gives {gives}\n"
        )
    for cut, carried in zip(index["cuts"], index["carried"], strict=True):
        if carried:
            lines.append(f"carried past the cut at {', '.join(cut)}: {', '.join(carried)}\n")
    proof = index["proof"]
    lines.append(
        f"{out}: {len(index['stages'])} stages; on {proof['samples']} samples of {proof['of']} they give exactly what "
        "the whole gives\n"
    )
    return "".join(lines)


def _said(tensor: dict[str, Any]) -> str:
    return f"{tensor['name']} {tensor['dtype']}[{','.join(map(str, tensor['shape']))}]"
