"""``edge-agent run``: the service, or one frame of each camera with ``--once``."""

from __future__ import annotations

import _thread
import logging
import os
import signal
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import cv2

from agent.annotate import annotated
from agent.app import App
from agent.config import DetectionsConfig
from agent.config_file import LoadedConfig, load_config
from agent.errors import ConfigError
from agent.ops.health import supervisor_for
from agent.ops.log import configure_logging

if TYPE_CHECKING:
    import argparse

    import numpy as np
    from numpy.typing import NDArray


log = logging.getLogger(__name__)

_ONLINE_TIMEOUT_S = 3.0


def run(args: argparse.Namespace) -> int:
    """Load the config, set logging up, run; SIGTERM and SIGINT end it with exit code 0."""
    if args.save and not args.once:
        raise ConfigError("--save: expected together with --once, which takes the frame that is saved; add --once")
    if args.save and not cv2.haveImageWriter(args.save):
        raise ConfigError(f"--save: {args.save}: expected a name that ends in .jpg or .png; choose another")
    loaded = load_config(Path(args.config), os.environ)
    logging_config = loaded.config.logging
    configure_logging(logging_config.level, args.log_format or logging_config.format, sys.stderr, os.environ)
    if args.once:
        return run_once(loaded, Path(args.save) if args.save else None, dry_run=args.dry_run_mqtt)
    return run_service(loaded, dry_run=args.dry_run_mqtt)


def run_service(loaded: LoadedConfig, *, dry_run: bool) -> int:
    """Run until a signal or until every source has ended."""
    end_at_once_on_signals()
    app = App(loaded, dry_run=dry_run, supervisor=supervisor_for(os.environ))
    stop = stop_event()
    try:
        app.start()
        app.watch(stop)
    finally:
        app.stop()
    return 0


def run_once(loaded: LoadedConfig, save: Path | None, *, dry_run: bool) -> int:
    """One frame of each camera: publish (or print) what it shows, and save it with boxes."""
    # There is no second frame that could confirm what the first one shows.
    tracking = loaded.config.tracking.model_copy(update={"confirm_frames": 1})
    mqtt = loaded.config.mqtt.model_copy(update={"detections": DetectionsConfig(enabled=True)})
    config = loaded.config.model_copy(update={"tracking": tracking, "mqtt": mqtt})
    app = App(replace(loaded, config=config), dry_run=dry_run)
    try:
        app.publisher.start()
        app.publisher.wait_until_online(_ONLINE_TIMEOUT_S)  # detections that nobody takes are forgotten
        for frame, sighting in app.see_once():
            if save is not None:
                path = save if len(config.cameras) == 1 else save.with_stem(f"{save.stem}-{frame.camera_id}")
                _save(path, annotated(frame.image_bgr, sighting, app.model.bundle.manifest.labels))
    finally:
        app.stop()
    return 0


def _save(path: Path, image_bgr: NDArray[np.uint8]) -> None:
    _, encoded = cv2.imencode(path.suffix, image_bgr)
    try:
        path.write_bytes(encoded.tobytes())
    except OSError as err:
        raise ConfigError(f"--save: {path}: expected a place to write to, got: {err.strerror}; choose another") from err
    log.info("saved %s", path)


def end_at_once_on_signals() -> None:
    """Before anything runs there is nothing to flush: SIGTERM and SIGINT end the process with exit code 0."""

    def handle(*_: object) -> None:
        raise SystemExit(0)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handle)


def stop_event() -> threading.Event:
    """An event that SIGTERM and SIGINT set."""
    stop = threading.Event()

    def handle(*_: object) -> None:
        # Not here: the handler may interrupt `stop.wait` just when that holds the lock which `stop.set` needs.
        _thread.start_new_thread(stop.set, ())

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handle)
    return stop
