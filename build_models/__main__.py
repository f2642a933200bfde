"""The command ``build-models``: its subcommands are listed here and live in ``cli/``, one file each."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from agent import __version__
from agent.errors import EdgeAgentError
from build_models.cli import benchmark, build, compare, import_onnx, keygen, optimize, split, tap

if TYPE_CHECKING:
    from types import ModuleType

COMMANDS: dict[str, ModuleType] = {
    "benchmark": benchmark,
    "build": build,
    "compare": compare,
    "import": import_onnx,
    "keygen": keygen,
    "optimize": optimize,
    "split": split,
    "tap": tap,
}

_EXAMPLES = """examples:
  build-models keygen mine                            mine.private.pem signs, mine.public.pem goes to the devices
  build-models build recipe.yaml --key mine.private.pem
  build-models import yolox_nano.onnx --family yolox --labels coco --pictures pictures/ --key mine.private.pem
  build-models optimize in.onnx out.onnx --shape image=1x3x320x320

  build-models tap model.onnx --nodes 'Conv*' --input x.jpg --out maps/
  build-models compare fp32.onnx int8.onnx --input x.jpg
  build-models benchmark recipe.yaml --plot speed.png

exit codes: 0 done, 1 a stage's check failed, 2 correct the recipe, the arguments or the files they name, 3 a variant
missed the recipe's budget (what kept it is packed)
"""


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit code; an error of ours is one line (a recipe's: one a problem)."""
    args = _parser().parse_args(argv)
    try:
        code: int = COMMANDS[args.command].run(args)
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
    for name, command in COMMANDS.items():
        command.declare(commands.add_parser(name, help=command.SAID))
    return parser


if __name__ == "__main__":
    sys.exit(main())
