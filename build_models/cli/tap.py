"""``build-models tap MODEL``: what tensors inside a model hold, as arrays and pictures."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from build_models.cli.input_options import declare_input, preparation_of

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from build_models.look.tap_folder import Written

SAID = "look at the tensors inside a model"
_ROWS = 40
_TENSOR_WIDTH = 44


def declare(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    parser.description = (
        "Run a model on a picture and write what tensors inside it hold: arrays, index.json and feature maps."
    )
    parser.add_argument("model", type=Path, metavar="MODEL", help="an .onnx file, float or quantised")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "--nodes",
        action="append",
        metavar="PATTERN",
        help="shell pattern over names of nodes, tensors and operators, such as 'Conv' or '*layer1*' (repeatable)",
    )
    which.add_argument("--all", action="store_true", help="every tensor that depends on the input")
    declare_input(parser, required=True, pictures="what the model sees")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder to write")
    parser.add_argument("--pictures", type=int, default=100, metavar="N", help="draw at most N tensors (default: 100)")
    parser.add_argument("--json", action="store_true", help="print the index instead of a table")


def run(args: argparse.Namespace) -> int:
    """Run the model and write the folder."""
    from build_models.errors import RecipeError
    from build_models.graph.tap import find_taps, tap_values
    from build_models.look.layouts import channel_axes
    from build_models.look.model_file import read_model
    from build_models.look.new_folder import new_folder
    from build_models.look.samples import samples_for
    from build_models.look.tap_folder import INDEX, write_taps
    from build_models.progress import Progress

    model = read_model(args.model)
    taps = find_taps(model, None if args.all else args.nodes)
    samples = samples_for(model, args.input, preparation_of(args))
    if len(samples) != 1:
        raise RecipeError(f"--input: a tap looks at one picture, {len(samples)} are given")
    (feeds,) = samples
    with new_folder(args.out, INDEX) as folder:
        values = Progress(1).track(tap_values(model, taps, feeds), len(taps), "tensor")
        about = {"model": args.model.name, "input": list(samples.names)}
        written = write_taps(folder, values, channel_axes(model), max(0, args.pictures), about)
    if args.json:
        sys.stdout.write(json.dumps({**about, "tensors": [asdict(each) for each in written]}, indent=1) + "\n")
    else:
        sys.stdout.write(_table(written))
        sys.stdout.write(_ending(written, args.out))
    return 0


def _table(written: Sequence[Written]) -> str:
    lines = [
        f"{'tensor':<{_TENSOR_WIDTH}} {'operator':<18} {'shape':<18} {'min':>10} {'max':>10} {'mean':>10}  zeros\n"
    ]
    for each in written[:_ROWS]:
        figures = " ".join(
            "         -" if value is None else f"{value:>10.4g}" for value in (each.min, each.max, each.mean)
        )
        name = each.tensor if len(each.tensor) <= _TENSOR_WIDTH else "…" + each.tensor[1 - _TENSOR_WIDTH :]
        count = math.prod(each.shape)
        zeros = f"{each.zeros / count:6.1%}" if count else "     -"
        broken = f"  {each.not_finite} NOT FINITE" if each.not_finite else ""
        shape = "x".join(map(str, each.shape)) or "number"
        lines.append(f"{name:<{_TENSOR_WIDTH}} {each.op_type:<18} {shape:<18} {figures} {zeros}{broken}\n")
    if len(written) > _ROWS:
        lines.append(f"... and {len(written) - _ROWS} more, all in index.json\n")
    return "".join(lines)


def _ending(written: Sequence[Written], out: Path) -> str:
    drawn = sum(each.picture is not None for each in written)
    said = f"{out}: {len(written)} arrays, {drawn} pictures"
    if drawn < len(written):
        said += f"; {len(written) - drawn} were not drawn: raise --pictures, or choose fewer with --nodes"
    return said + "\n"
