"""The command ``edge-agent``: arguments are declared here, a subcommand's module is imported when it is called."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from importlib import import_module

from agent import __version__
from agent.errors import EdgeAgentError
from agent.ops.log import journal_prefix

_EXAMPLES = """examples:
  edge-agent demo --seconds 20                  everything at once, nothing to prepare
  edge-agent config check agent.yaml            what is wrong, with line and column
  edge-agent model inspect bundle/              what a bundle holds and who signed it
  edge-agent model check b/ --trusted-key k.pem whether it runs rightly on this device
  edge-agent run --config agent.yaml --once --save out.jpg --dry-run-mqtt
  edge-agent run --config agent.yaml            what the service does
  edge-agent serve --bundle bundle/ --trusted-key key.public.pem

exit codes: 0 done, 1 failed, 2 correct the configuration or the arguments, 3 bundle refused, 4 try again later
"""


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit code; an error of ours is one line (a configuration's: one a problem)."""
    args = _parser().parse_args(argv)
    module, function = args.handler
    try:
        code = int(getattr(import_module(module), function)(args))
        sys.stdout.flush()
    except EdgeAgentError as err:
        priority = journal_prefix(logging.ERROR, sys.stderr, os.environ)
        for line in str(err).splitlines():
            print(f"{priority}edge-agent: {line}", file=sys.stderr)
        return err.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output, such as head, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="edge-agent",
        description="Run a signed vision model on a camera and never lose an event.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"edge-agent {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_run(commands)
    _add_serve(commands)
    _add_demo(commands)
    _add_model(commands)
    _add_bench(commands)
    _add_config(commands)
    _add_health(commands)
    return parser


def _add_run(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    run = commands.add_parser("run", help="run the agent", description="Run cameras, model and MQTT until stopped.")
    run.add_argument("--config", required=True, metavar="PATH", help="the configuration, such as agent.yaml")
    run.add_argument("--once", action="store_true", help="process one frame of each camera, then end")
    run.add_argument("--save", metavar="PATH", help="with --once: write the annotated frame as a JPEG or PNG")
    run.add_argument("--dry-run-mqtt", action="store_true", help="print the payloads instead of publishing them")
    run.add_argument("--log-format", choices=["text", "json"], help="instead of the configuration's logging.format")
    run.set_defaults(handler=("agent.run_command", "run"))


def _add_serve(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    serve = commands.add_parser(
        "serve",
        help="answer pictures over HTTP",
        description="Serve the web API over bundles, without cameras and MQTT: POST /api/v1/infer, see /docs.",
    )
    serve.add_argument("--bundle", action="append", required=True, metavar="PATH", help="a bundle (repeatable)")
    serve.add_argument(
        "--trusted-key",
        action="append",
        required=True,
        metavar="PEM",
        help="public key whose bundles are accepted (repeatable)",
    )
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on; another than this needs a token")
    serve.add_argument("--port", type=int, default=8080, metavar="N", help="its port; 0: a free one")
    serve.add_argument("--token-file", metavar="PATH", help="file with the token that requests must bring")
    serve.add_argument("--threads", type=int, metavar="N", help="inference threads; without it one per physical core")
    serve.add_argument(
        "--provider",
        action="append",
        choices=["cpu", "cuda", "tensorrt"],
        help="execution provider, preferred first (repeatable)",
    )
    serve.add_argument("--log-level", default="info", choices=["debug", "info", "warning", "error"])
    serve.set_defaults(handler=("agent.web.serve_command", "run"))


def _add_demo(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    demo = commands.add_parser(
        "demo",
        help="show everything with a drawn camera",
        description="Start a broker, a drawn camera and the demo bundle; show events, rates and frame ages live.",
    )
    demo.add_argument("--seconds", type=float, metavar="N", help="end after N seconds with a summary")
    demo.add_argument("--port", type=int, default=0, metavar="N", help="port of the broker; 0: a free one")
    demo.add_argument("--web-port", type=int, default=0, metavar="N", help="port of the web page; 0: a free one")
    demo.set_defaults(handler=("agent.demo.command", "run"))


def _add_model(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    model = commands.add_parser("model", help="look at bundles").add_subparsers(metavar="COMMAND", required=True)
    inspect = model.add_parser(
        "inspect",
        help="show what a bundle holds",
        description="Print task, labels, variants and signature of a bundle.",
    )
    inspect.add_argument("path", metavar="PATH", help="the bundle's folder")
    inspect.add_argument("--json", action="store_true", help="for programs")
    inspect.add_argument(
        "--trusted-key", action="append", default=[], metavar="PEM", help="verify against this public key (repeatable)"
    )
    inspect.set_defaults(handler=("agent.model.inspect", "run"))
    check = model.add_parser(
        "check",
        help="try whether a bundle runs rightly here",
        description="Verify a bundle and replay the golden inputs of every variant that this device can run.",
    )
    check.add_argument("path", metavar="PATH", help="the bundle's folder")
    check.add_argument("--variant", metavar="ID", help="only this one")
    check.add_argument("--json", action="store_true", help="for programs")
    check.add_argument(
        "--trusted-key",
        action="append",
        required=True,
        metavar="PEM",
        help="public key that may have signed it (repeatable)",
    )
    check.set_defaults(handler=("agent.model.check", "run"))


def _add_bench(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    bench = commands.add_parser(
        "bench",
        help="time a bundle's variants on this device",
        description="Time every variant that this device can run, in turn, each in a process of its own.",
    )
    bench.add_argument("path", metavar="BUNDLE", help="the bundle's folder")
    bench.add_argument("--variant", metavar="ID", help="only this one")
    bench.add_argument("--json", action="store_true", help="for build-models (--measured) and other programs")
    bench.add_argument("--threads", type=int, metavar="N", help="inference threads; without it one per physical core")
    bench.add_argument("--rounds", type=int, default=10, metavar="N", help="turns of each variant (default: 10)")
    bench.add_argument("--seconds", type=float, default=0.5, metavar="S", help="length of a turn (default: 0.5)")
    bench.add_argument(
        "--trusted-key",
        action="append",
        required=True,
        metavar="PEM",
        help="public key that may have signed it (repeatable)",
    )
    bench.set_defaults(handler=("agent.model.bench", "run"))


def _add_config(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    config = commands.add_parser("config", help="check a configuration")
    commands = config.add_subparsers(metavar="COMMAND", required=True)
    check = commands.add_parser(
        "check",
        help="tell what is wrong with a configuration",
        description="Print OK with a summary, or every problem.",
    )
    check.add_argument("path", metavar="PATH", help="the configuration, such as agent.yaml")
    check.set_defaults(handler=("agent.config_command", "check"))
    schema = commands.add_parser(
        "schema", help="print the JSON Schema, for editors", description="Print the JSON Schema of agent.yaml."
    )
    schema.set_defaults(handler=("agent.config_command", "schema"))


def _add_health(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    health = commands.add_parser(
        "health",
        help="for a container's health check",
        description="Say whether every loop of the running agent turns; exit 1 when not.",
    )
    health.set_defaults(handler=("agent.ops.health", "run"))


if __name__ == "__main__":
    sys.exit(main())
