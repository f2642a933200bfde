"""``build-models compare A B``: where two models part, tensor by tensor."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from build_models.cli.input_options import declare_input, preparation_of

if TYPE_CHECKING:
    import argparse

    from build_models.look.compare import Comparison, TensorSignal

SAID = "compare two models tensor by tensor"
_NAME_WIDTH = 48


def declare(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    parser.description = (
        "Run two models on the same inputs and tell per tensor the signal over the difference in decibels, and where "
        "they part: the first tensor that is far worse than all it is made of. Tensors are found by name; a quantised "
        "one is read after it was dequantised."
    )
    parser.add_argument("first", type=Path, metavar="A", help="the reference, an .onnx file")
    parser.add_argument("second", type=Path, metavar="B", help="the other, such as its int8 form")
    declare_input(parser, required=True, pictures="what both models see")
    parser.add_argument(
        "--threshold", type=float, metavar="DB", help="below it a tensor counts as different (default: 80; int8: 20)"
    )
    parser.add_argument("--rows", type=int, default=20, metavar="N", help="rows, the weakest (default: 20)")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="decibels over the layers, as .svg, .png or .pdf")
    parser.add_argument("--json", action="store_true", help="every tensor, for programs")
    parser.add_argument("--check", action="store_true", help="exit 1 when a tensor is below the threshold")


def run(args: argparse.Namespace) -> int:
    """Compare, tell and draw."""
    from build_models.look.compare import compare_models
    from build_models.look.compare_plot import check_plot_path, plot_comparison
    from build_models.look.model_file import read_model
    from build_models.look.samples import samples_for
    from build_models.progress import Progress

    if args.plot:
        check_plot_path(args.plot)
    first, second = read_model(args.first), read_model(args.second)
    how = preparation_of(args)
    samples = samples_for(first, args.input, how), samples_for(second, args.input, how)
    comparison = compare_models(first, second, samples, Progress(1), args.threshold)
    if args.json:
        sys.stdout.write(json.dumps(_plain(comparison), indent=1) + "\n")
    else:
        sys.stdout.write(_table(comparison, max(0, args.rows)) + verdict(comparison) + "\n")
    if args.plot:
        plot_comparison(comparison, args.plot, f"{args.first.name} and {args.second.name}")
    return 1 if args.check and comparison.below else 0


def verdict(comparison: Comparison) -> str:
    """Where they part, in a sentence."""
    count, threshold = len(comparison.signals), comparison.threshold_db
    if comparison.equal:
        return f"equal: all numbers of {count} tensors are the same"
    if not comparison.below:
        weakest = min(comparison.signals, key=lambda each: (each.chosen, each.signal_db))
        behind = sum(each.chosen and each.signal_db < threshold for each in comparison.signals)
        choice = f"; {behind} behind a choice such as TopK are, where close values change places" if behind else ""
        return f"no tensor of {count} is below {threshold:g} dB; the weakest is {_said(weakest)}{choice}"
    if comparison.parts:
        first, *others = comparison.parts
        more = f"; noise is new at {len(others)} more further on, first at {_said(others[0])}" if others else ""
        return f"they part at {_said(first)}{more}"
    return (
        f"they part nowhere at once: noise grows from tensor to tensor and passes {threshold:g} dB at "
        f"{_said(comparison.below[0])}"
    )


def _said(each: TensorSignal) -> str:
    return f"{each.tensor} ({each.op_type}), {each.signal_db:.1f} dB, its inputs {each.inputs_db:.1f} dB"


def _table(comparison: Comparison, rows: int) -> str:
    chosen = sorted(comparison.signals, key=lambda each: each.signal_db)[:rows]
    shown = [each for each in comparison.signals if each in chosen or each in comparison.parts[:1]]
    lines = [f"  {'tensor':<{_NAME_WIDTH}} {'operator':<20} {'dB':>7} {'inputs':>7} {'largest':>10} {'off by':>10}\n"]
    for each in shown:
        mark = "*" if each in comparison.parts else " "
        name = each.tensor if len(each.tensor) <= _NAME_WIDTH else "…" + each.tensor[1 - _NAME_WIDTH :]
        output = "  output" if each.tensor in comparison.outputs else "  behind a choice" if each.chosen else ""
        lines.append(
            f"{mark} {name:<{_NAME_WIDTH}} {each.op_type:<20} {each.signal_db:>7.1f} {each.inputs_db:>7.1f} "
            f"{each.largest:>10.4g} {each.largest_difference:>10.4g}{output}\n"
        )
    left = len(comparison.signals) - len(shown)
    facts = [f"{left} stronger ones not shown (--rows)"] if left else []
    facts.append(f"{comparison.samples} inputs" if comparison.samples > 1 else "1 input")
    facts += [f"{comparison.only_first} tensors only in the first"] if comparison.only_first else []
    facts += [f"{comparison.only_second} only in the second"] if comparison.only_second else []
    facts += [f"{len(comparison.unlike)} of one name but another shape"] if comparison.unlike else []
    return "".join(lines) + "; ".join(facts) + "\n"


def _plain(comparison: Comparison) -> dict[str, object]:
    parts = comparison.parts
    return {
        "schema": 1,
        "equal": comparison.equal,
        "verdict": verdict(comparison),
        "parts_at": parts[0].tensor if parts else None,
        "parts": [each.tensor for each in parts],
        "threshold_db": comparison.threshold_db,
        "samples": comparison.samples,
        "outputs": sorted(comparison.outputs),
        "only_first": comparison.only_first,
        "only_second": comparison.only_second,
        "unlike": list(comparison.unlike),
        "tensors": [_finite(asdict(each)) for each in comparison.signals],
    }


def _finite(values: dict[str, object]) -> dict[str, object]:
    """JSON has no infinity."""
    return {key: None if value in (float("inf"), float("-inf")) else value for key, value in values.items()}
