"""The command ``build-models``: arguments are declared here, what works is imported when it is called."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from agent import __version__
from agent.errors import EdgeAgentError

_EXAMPLES = """examples:
  build-models keygen mine                            mine.private.pem signs, mine.public.pem goes to the devices
  build-models build recipe.yaml --key mine.private.pem
  build-models import yolox_nano.onnx --family yolox --labels coco --calibration pictures/ --key mine.private.pem

exit codes: 0 done, 1 a stage's check failed, 2 correct the recipe, the arguments or the files they name
"""


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit code; an error of ours is one line (a recipe's: one a problem)."""
    args = _parser().parse_args(argv)
    try:
        from build_models import commands

        code: int = getattr(commands, f"{args.command}_command")(args)
    except EdgeAgentError as err:
        for line in str(err).splitlines():
            print(f"build-models: {line}", file=sys.stderr)
        return err.exit_code
    except ModuleNotFoundError as err:
        if (err.name or "").partition(".")[0] not in ("onnx", "tqdm", "matplotlib"):
            raise
        print(f"build-models: {err.name} is missing: pip install 'edge-agent[build]'", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="build-models",
        description="Turn a vision model into a verified, quantised, signed bundle.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"build-models {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, dest="command")
    build = commands.add_parser("build", help="build a recipe", description="Build the bundle that a recipe describes.")
    build.add_argument("recipe", type=Path, metavar="RECIPE", help="the recipe, a YAML file")
    _add_target(build)
    _add_import(commands)
    keygen = commands.add_parser(
        "keygen",
        help="make a pair of signing keys",
        description="Write NAME.private.pem, which signs bundles, and NAME.public.pem, which devices trust.",
    )
    keygen.add_argument("name", type=Path, metavar="NAME", help="first part of the two files' names")
    return parser


def _add_import(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "import",
        help="build an ONNX file without a recipe",
        description="Build a bundle from an ONNX file; the recipe that says the same is printed with --print-recipe.",
    )
    command.add_argument("model", type=Path, metavar="MODEL", help="the .onnx file")
    command.add_argument(
        "--family", required=True, help="what its outputs are: yolox, boxes_scores, logits, anchor_free"
    )
    command.add_argument("--labels", required=True, help='"coco", a text file with one name a line, or a,b,c')
    command.add_argument("--calibration", required=True, type=Path, metavar="DIR", help="pictures like the device's")
    command.add_argument("--name", help="name of the bundle (default: from the file's name)")
    command.add_argument(
        "--bundle-version", type=int, default=1, metavar="N", help="version of the bundle (default: 1)"
    )
    command.add_argument("--size", metavar="WxH", help="input size, for a model that takes any")
    command.add_argument("--licence", help="licence of the model, for the manifest")
    command.add_argument("--print-recipe", action="store_true", help="print the recipe as YAML and stop")
    _add_target(command)


def _add_target(command: argparse.ArgumentParser) -> None:
    command.add_argument("--out", type=Path, metavar="DIR", help="the bundle's folder (default: out/NAME-VERSION)")
    command.add_argument("--key", type=Path, metavar="PEM", help="the private key that signs the bundle")


if __name__ == "__main__":
    sys.exit(main())
