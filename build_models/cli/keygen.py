"""``build-models keygen NAME``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

SAID = "make a pair of signing keys"


def declare(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    parser.description = "Write NAME.private.pem, which signs bundles, and NAME.public.pem, which devices trust."
    parser.add_argument("name", type=Path, metavar="NAME", help="first part of the two files' names")


def run(args: argparse.Namespace) -> int:
    """Make them."""
    from build_models.sign import generate_keys

    private_path, public_path, identity = generate_keys(args.name)
    sys.stdout.write(
        f"key {identity}\n"
        f"  {private_path}  signs bundles (--key); keep it off the devices and out of version control\n"
        f"  {public_path}  goes to the devices (model.trusted_keys)\n"
    )
    return 0
