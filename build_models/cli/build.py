"""``build-models build RECIPE``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

    from build_models.recipe import Recipe

SAID = "build a recipe"


def declare(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    parser.description = "Build the bundle that a recipe describes."
    parser.add_argument("recipe", type=Path, metavar="RECIPE", help="the recipe, a YAML file")
    declare_target(parser)


def declare_target(parser: argparse.ArgumentParser) -> None:
    """What all commands that end in a bundle share."""
    parser.add_argument("--out", type=Path, metavar="DIR", help="the bundle's folder (default: out/NAME-VERSION)")
    parser.add_argument("--key", type=Path, metavar="PEM", help="the private key that signs the bundle")


def run(args: argparse.Namespace) -> int:
    """Build it."""
    from build_models.recipe_file import load_recipe

    return build_recipe(load_recipe(args.recipe), args)


def build_recipe(recipe: Recipe, args: argparse.Namespace) -> int:
    """Build a recipe to where the arguments say, and tell what came of it."""
    from build_models.pipeline import STAGES, build
    from build_models.progress import Progress
    from build_models.sign import load_private_key

    key = load_private_key(args.key)
    target = args.out or Path("out") / f"{recipe.name}-{recipe.version}"
    piece = build(recipe, key, target, Progress(len(STAGES) + 1))
    for candidate in piece.candidates:
        if candidate.refused is not None:
            sys.stdout.write(f"not packed: {candidate.variant.id}: {candidate.refused}\n")
    sys.stdout.write(f"bundle: {target}\nreport: {target / 'report' / 'report.html'}\n")
    return 0
