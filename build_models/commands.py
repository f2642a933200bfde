"""What ``build-models`` does: build, import, keygen."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from build_models.errors import RecipeError
from build_models.pipeline import STAGES, build
from build_models.progress import Progress
from build_models.recipe_file import load_recipe, make_recipe
from build_models.sign import generate_keys, load_private_key

if TYPE_CHECKING:
    import argparse

    from build_models.recipe import Recipe


def build_command(args: argparse.Namespace) -> int:
    """``build-models build RECIPE``."""
    return _build(load_recipe(args.recipe), args)


def import_command(args: argparse.Namespace) -> int:
    """``build-models import MODEL``: the same as a recipe with the family's usual input."""
    values = _recipe_values(args)
    if args.print_recipe:
        sys.stdout.write(yaml.safe_dump(values, sort_keys=False))
        return 0
    return _build(make_recipe(values, Path.cwd()), args)


def keygen_command(args: argparse.Namespace) -> int:
    """``build-models keygen NAME``."""
    private_path, public_path, identity = generate_keys(args.name)
    sys.stdout.write(
        f"key {identity}\n"
        f"  {private_path}  signs bundles (--key); keep it off the devices and out of version control\n"
        f"  {public_path}  goes to the devices (model.trusted_keys)\n"
    )
    return 0


def _build(recipe: Recipe, args: argparse.Namespace) -> int:
    key = load_private_key(args.key)
    target = args.out or Path("out") / f"{recipe.name}-{recipe.version}"
    piece = build(recipe, key, target, Progress(len(STAGES) + 1))
    for candidate in piece.candidates:
        if candidate.refused is not None:
            sys.stdout.write(f"not packed: {candidate.variant.id}: {candidate.refused}\n")
    sys.stdout.write(f"bundle: {target}\nreport: {target / 'report' / 'report.html'}\n")
    return 0


def _recipe_values(args: argparse.Namespace) -> dict[str, Any]:
    values: dict[str, Any] = {
        "name": args.name or _slug(args.model.stem),
        "version": args.bundle_version,
        "source": {"kind": "onnx", "path": str(args.model)},
        "output": {"family": args.family},
        "labels": [name.strip() for name in args.labels.split(",")] if "," in args.labels else args.labels,
        "calibration": {"pictures": str(args.calibration)},
    }
    if args.size:
        size = re.fullmatch(r"(\d+)x(\d+)", args.size)
        if size is None:
            raise RecipeError(f"--size: expected WIDTHxHEIGHT such as 416x416, got {args.size!r}")
        values["input"] = {"width": int(size[1]), "height": int(size[2])}
    if args.licence:
        values["licence"] = args.licence
    return values


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower())[:63].strip("-") or "model"
