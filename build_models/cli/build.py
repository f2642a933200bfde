"""``build-models build RECIPE``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

    from build_models.recipe import Recipe

SAID = "build a recipe"
BUDGET_MISSED = 3


def declare(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    parser.description = "Build the bundle that a recipe describes."
    parser.add_argument("recipe", type=Path, metavar="RECIPE", help="the recipe, a YAML file")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="put a value in place of the recipe's, such as budget.max_drop=0.02; paths are relative to where you are",
    )
    declare_target(parser)


def declare_target(parser: argparse.ArgumentParser) -> None:
    """What all commands that end in a bundle share."""
    parser.add_argument("--out", type=Path, metavar="DIR", help="the bundle's folder (default: out/NAME-VERSION)")
    parser.add_argument("--key", type=Path, metavar="PEM", help="the private key that signs the bundle")
    parser.add_argument(
        "--measured",
        type=Path,
        action="append",
        default=[],
        metavar="JSON",
        help="a device's figures, from `edge-agent bench --json` there; may be given for several devices",
    )
    parser.add_argument(
        "--work", type=Path, metavar="DIR", help="where a build that was stopped goes on (default: beside the bundle)"
    )


def run(args: argparse.Namespace) -> int:
    """Build it."""
    from build_models.recipe_file import load_recipe

    return build_recipe(load_recipe(args.recipe, args.set), args)


def build_recipe(recipe: Recipe, args: argparse.Namespace) -> int:
    """Build a recipe to where the arguments say, and tell what came of it."""
    from build_models.measured import load_measured
    from build_models.pipeline import STAGES, build
    from build_models.progress import Progress
    from build_models.sign import load_private_key

    key = load_private_key(args.key)
    target = args.out or Path("out") / f"{recipe.name}-{recipe.version}"
    work = args.work or target.parent / ".build-cache"
    measured = [load_measured(path) for path in args.measured]
    piece = build(recipe, key, target, Progress(len(STAGES) + 1), measured=measured, work=work)
    for candidate in piece.candidates:
        if candidate.refused is not None:
            sys.stdout.write(f"not packed: {candidate.variant.id}: {candidate.refused}\n")
    packed = {candidate.variant.id for candidate in piece.candidates if candidate.refused is None}
    for told in piece.reports["benchmark"]["speed"]:
        if told["refused"] is not None and told["variant"] in packed:
            sys.stdout.write(f"not packed for {told['arch']}: {told['variant']}: {told['refused']}\n")
    sys.stdout.write(f"bundle: {target}\nreport: {target / 'report' / 'report.html'}\n")
    missed = [candidate for candidate in piece.candidates if candidate.missed_budget]
    for text in dict.fromkeys(advice for candidate in missed for advice in candidate.advice):
        sys.stdout.write(f"to try: {text}\n")
    return BUDGET_MISSED if missed else 0
