"""``edge-agent serve``: the web API over one or several bundles, without cameras and MQTT."""

from __future__ import annotations

import os
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pydantic import ValidationError

from agent.config import DetectConfig, RuntimeConfig, Section, WebConfig
from agent.errors import ConfigError, FatalError
from agent.model.activate import activate
from agent.model.canary import Canary
from agent.ops.health import supervisor_for
from agent.ops.log import configure_logging
from agent.ops.watchdog import Heartbeat, Watchdog
from agent.parts import origin_of, session_options
from agent.predict import Predictor
from agent.run_command import end_at_once_on_signals, stop_event
from agent.turns import Turns
from agent.vision.opencv_setup import set_up_opencv
from agent.web.server import SILENCE_LIMIT_S, WebServer, require_web_extra
from agent.web.service import Served, Service

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

S = TypeVar("S", bound=Section)

_FLAGS = {"token": "--token-file", "providers": "--provider"}
_TURN_S = 0.5
_STOP_TIMEOUT_S = 5.0
_TRIAL_LIMIT_S = 60.0


def run(args: argparse.Namespace) -> int:
    """Verify and load the bundles, then serve until SIGTERM or SIGINT."""
    end_at_once_on_signals()
    configure_logging(args.log_level, "text", sys.stderr, os.environ)
    require_web_extra()
    set_up_opencv()
    config = _web_config(args)
    models = _models(args)
    server = WebServer(Service(models), config)
    supervisor = supervisor_for(os.environ)
    signs_s = {"web": lambda: server.heartbeat_s}
    signs_s |= {f"model {name}": partial(_last_sign_s, each.predictor) for name, each in models.items()}
    heartbeats = [Heartbeat(name, last_s, SILENCE_LIMIT_S) for name, last_s in signs_s.items()]
    watchdog = Watchdog(heartbeats, supervisor, time.monotonic)
    stop = stop_event()
    server.start()
    supervisor.ready(f"serving {', '.join(models)}")
    try:
        while not stop.wait(_TURN_S):
            watchdog.turn()
            if watchdog.silent():
                raise FatalError("; ".join(watchdog.silent().values()))
            if server.failure is not None:
                raise FatalError(f"the web server died: {server.failure}") from server.failure
    finally:
        supervisor.stopping()
        server.stop(_STOP_TIMEOUT_S)
    return 0


def _last_sign_s(predictor: Predictor) -> float:
    """When the inference under way began; now, while none is."""
    return predictor.began_s or time.monotonic()


def _web_config(args: argparse.Namespace) -> WebConfig:
    token = _token_in(Path(args.token_file)) if args.token_file else None
    return _checked(WebConfig, {"host": args.host, "port": args.port, "token": token})


def _checked(section: type[S], given: Mapping[str, object]) -> S:
    """A section of the configuration from flags; what is wrong is told by the flag's name."""
    try:
        return section.model_validate({key: value for key, value in given.items() if value is not None})
    except ValidationError as err:
        error = err.errors()[0]
        key = str(error.get("ctx", {}).get("key") or error["loc"][0])
        raise ConfigError(f"{_FLAGS.get(key, f'--{key}')}: {error['msg']}") from err


def _token_in(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as err:
        raise ConfigError(f"--token-file: {path}: expected a text file with the token, got: {err}") from err


def _models(args: argparse.Namespace) -> Mapping[str, Served]:
    """The bundles by name; all share one turn at inference."""
    runtime = _checked(RuntimeConfig, {"providers": args.provider, "threads": args.threads})
    options, turns = session_options(runtime), Turns(time.monotonic)
    canary = Canary(_state_dir(os.environ) / "canary.json", _TRIAL_LIMIT_S)
    keys = [Path(key) for key in args.trusted_key]
    models: dict[str, Served] = {}
    for bundle in args.bundle:
        model = activate(Path(bundle), keys, options, canary=canary)
        name = model.bundle.manifest.name
        if name in models:
            raise ConfigError(f"--bundle: {bundle}: expected different models, got {name} twice; leave one out")
        models[name] = Served(Predictor(model, DetectConfig(), turns), origin_of(model))
    return models


def _state_dir(environ: Mapping[str, str]) -> Path:
    """Where it is remembered which models were tried out."""
    chosen = environ.get("STATE_DIRECTORY") or environ.get("XDG_STATE_HOME")
    return Path(chosen, "edge-agent") if chosen else Path("~/.local/state/edge-agent").expanduser()
