"""``build-models import MODEL``: the same as a recipe with the family's usual input."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from build_models.cli.build import build_recipe, declare_target

if TYPE_CHECKING:
    import argparse

SAID = "build an ONNX file without a recipe"
# Said again here so that help needs no build extra; a test compares it with the table of the families.
FAMILY_NAMES = ("yolox", "fastestdet", "boxes_scores", "anchor_free", "logits", "segmentation")


def declare(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    parser.description = (
        "Build a bundle from an ONNX file; the recipe that says the same is printed with --print-recipe."
    )
    parser.add_argument("model", type=Path, metavar="MODEL", help="the .onnx file")
    parser.add_argument("--family", required=True, help=f"what its outputs are: {', '.join(FAMILY_NAMES)}")
    parser.add_argument("--labels", required=True, help='"coco", a text file with one name a line, or a,b,c')
    parser.add_argument(
        "--pictures",
        required=True,
        type=Path,
        metavar="DIR",
        help="pictures like the device's: some calibrate, others judge; labelled ones take a recipe",
    )
    parser.add_argument("--name", help="name of the bundle (default: from the file's name)")
    parser.add_argument("--bundle-version", type=int, default=1, metavar="N", help="version of the bundle (default: 1)")
    parser.add_argument("--size", metavar="WxH", help="input size, for a model that takes any")
    parser.add_argument("--licence", help="licence of the model, for the manifest")
    parser.add_argument("--print-recipe", action="store_true", help="print the recipe as YAML and stop")
    declare_target(parser)


def run(args: argparse.Namespace) -> int:
    """Make the recipe; print it or build it."""
    import yaml

    from build_models.recipe_file import make_recipe

    values = _recipe_values(args)
    if args.print_recipe:
        sys.stdout.write(yaml.safe_dump(values, sort_keys=False))
        return 0
    return build_recipe(make_recipe(values, Path.cwd()), args)


def _recipe_values(args: argparse.Namespace) -> dict[str, Any]:
    values: dict[str, Any] = {
        "name": args.name or _slug(args.model.stem),
        "version": args.bundle_version,
        "source": {"kind": "onnx", "path": str(args.model)},
        "output": {"family": args.family},
        "labels": [name.strip() for name in args.labels.split(",")] if "," in args.labels else args.labels,
        "data": {"train": {"format": "pictures", "path": str(args.pictures)}},
    }
    if args.size:
        from build_models.errors import RecipeError

        size = re.fullmatch(r"(\d+)x(\d+)", args.size)
        if size is None:
            raise RecipeError(f"--size: expected WIDTHxHEIGHT such as 416x416, got {args.size!r}")
        values["input"] = {"width": int(size[1]), "height": int(size[2])}
    if args.licence:
        values["licence"] = args.licence
    return values


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower())[:63].strip("-") or "model"
