"""``edge-agent config check`` and ``edge-agent config schema``."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from agent.camera.source import kind_of, redact
from agent.config_file import LoadedConfig, load_config
from agent.config_schema import json_schema

if TYPE_CHECKING:
    import argparse


def check(args: argparse.Namespace) -> int:
    """Print what ``args.path`` configures; ConfigError with every problem when it is wrong.

    Files that are missing here are only noted: a configuration is often checked on another machine.
    """
    loaded = load_config(Path(args.path), os.environ)
    _print(f"{args.path}: OK")
    for name, meaning in _summary(loaded):
        _print(f"  {name:8} {meaning}")
    for key_path, path in _files_of(loaded):
        if not path.exists():
            _print(f"note: {loaded.locate(key_path)}: {key_path}: {path} does not exist on this machine")
    return 0


def schema(_args: argparse.Namespace) -> int:
    """Print the JSON Schema of the configuration, for editors."""
    _print(json.dumps(json_schema(), indent=2))
    return 0


def _summary(loaded: LoadedConfig) -> list[tuple[str, str]]:
    config = loaded.config
    cameras = [f"{camera.id} ({redact(camera.source) or camera.engine})" for camera in config.cameras]
    tls = " with TLS" if config.mqtt.tls is not None else ""
    return [
        ("node", config.node),
        ("model", f"{config.model.bundle}, variant {config.model.variant}"),
        ("runtime", f"{', '.join(config.runtime.providers)}; threads: {config.runtime.threads}"),
        ("cameras", ", ".join(cameras)),
        ("mqtt", f"{config.mqtt.host}:{config.mqtt.port}{tls}, topics {config.mqtt.prefix}/..."),
    ]


def _files_of(loaded: LoadedConfig) -> list[tuple[str, Path]]:
    config = loaded.config
    files = [("model.bundle", config.model.bundle)]
    files += [(f"model.trusted_keys.{index}", path) for index, path in enumerate(config.model.trusted_keys)]
    if config.mqtt.tls is not None:
        tls = config.mqtt.tls
        named = (("ca_file", tls.ca_file), ("cert_file", tls.cert_file), ("key_file", tls.key_file))
        files += [(f"mqtt.tls.{key}", path) for key, path in named if path is not None]
    for index, camera in enumerate(config.cameras):
        if camera.engine == "opencv" and kind_of(camera.source) == "file":
            files.append((f"cameras.{index}.source", Path(camera.source)))
    return files


def _print(line: str) -> None:
    print(line)  # noqa: T201 a command's result
