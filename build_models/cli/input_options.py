"""``--input`` and how pictures become inputs: what `tap`, `compare` and `split` share."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

    from build_models.look.samples import Preparation


def declare_input(parser: argparse.ArgumentParser, *, required: bool, pictures: str) -> None:
    """The arguments; ``pictures`` says what the pictures are for."""
    parser.add_argument(
        "--input",
        action="append",
        required=required,
        default=None if required else [],
        metavar="[NAME=]FILE",
        help=f"{pictures}; a picture, or a .npy taken exactly as it is (repeatable; NAME= if there are several inputs)",
    )
    declare_preparation(parser)


def declare_preparation(parser: argparse.ArgumentParser) -> None:
    """How pictures become inputs."""
    group = parser.add_argument_group(
        "pictures", "models of this tool need none of these: their input is the device's own, bytes in BGR"
    )
    group.add_argument("--resize", choices=["letterbox", "stretch", "center_crop"], default="letterbox")
    group.add_argument("--align", choices=["center", "top_left"], default="center", help="of a letterboxed picture")
    group.add_argument("--size", metavar="WxH", help="for a model that takes any size")
    group.add_argument("--layout", choices=["nchw", "nhwc"], help="default: where the model has 3 or 1 channels")
    group.add_argument("--color", choices=["rgb", "bgr", "gray"], help="default: rgb for float inputs, bgr for bytes")
    group.add_argument("--scale", default="1/255", metavar="X", help="factor for pixels 0..255 (default: 1/255)")
    group.add_argument("--mean", default="0", metavar="A[,B,C]", help="subtracted after the scale (default: 0)")
    group.add_argument("--std", default="1", metavar="A[,B,C]", help="divided by at last (default: 1)")


def preparation_of(args: argparse.Namespace) -> Preparation:
    """What the arguments say.

    Raises:
        RecipeError: one of them is no number, or no size.
    """
    from build_models.errors import RecipeError
    from build_models.look.samples import Preparation

    size_wh = None
    if args.size:
        size = re.fullmatch(r"(\d+)x(\d+)", args.size)
        if size is None:
            raise RecipeError(f"--size: expected WIDTHxHEIGHT such as 416x416, got {args.size!r}")
        size_wh = int(size[1]), int(size[2])
    (scale,) = _numbers("--scale", args.scale, (1,))
    return Preparation(
        layout=args.layout,
        color=args.color,
        scale=scale,
        mean=_numbers("--mean", args.mean, (1, 3)),
        std=_numbers("--std", args.std, (1, 3)),
        resize=args.resize,
        align=args.align,
        size_wh=size_wh,
    )


def _numbers(option: str, text: str, counts: tuple[int, ...]) -> tuple[float, ...]:
    """Numbers or fractions such as 1/255, with commas between."""
    from build_models.errors import RecipeError

    try:
        parts = [part.partition("/") for part in text.split(",")]
        values = tuple(float(above) / float(below or 1) for above, _, below in parts)
    except (ValueError, ZeroDivisionError):
        values = ()
    if len(values) not in counts:
        wanted = " or ".join(map(str, counts))
        raise RecipeError(f"{option}: expected {wanted} number(s) such as 0.5 or 1/255, got {text!r}")
    return values
