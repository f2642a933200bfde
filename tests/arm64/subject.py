"""What runs on every CPU that is compared: the agent's modules, each variant's golden replay, frames to payloads.

    python -m tests.arm64.subject OUT_FOLDER BUNDLE_FOLDER...

Writes ``facts.json`` and ``outputs.npz`` into the folder. It needs nothing but what a device has installed, and what it
writes depends on neither the time of day nor on chance, times apart.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from agent.camera.base import Camera
    from agent.delivery.events import CameraState, Event, FrameRef, ObjectState
    from agent.delivery.payload import Origin
    from agent.delivery.protocol import Publisher
    from agent.frame import Mailbox
    from agent.model.activate import ActiveModel
    from agent.model.session import Session

    Arrays = dict[str, NDArray[Any]]

CAMERA = "front"
NODE = "node-1"
FPS = 10.0
FIRST_FRAME_MS = 1_760_000_000_000
FRAMES = 20  # of the variant that this CPU would choose
FRAMES_OF = {"areas": 5}  # an emulated A72 takes nine seconds for each
FEW_FRAMES = 2  # of the others: a float model takes seconds a frame under an emulator


def main() -> int:
    """Run all of it."""
    out, *bundles = map(Path, sys.argv[1:])
    started_s = time.monotonic()
    facts: dict[str, Any] = {"missing": import_all("agent"), "import_s": round(time.monotonic() - started_s, 1)}
    facts["modules"] = {name: getattr(module, "__file__", None) for name, module in sorted(sys.modules.items())}
    facts["machine"] = os.uname().machine
    facts["bundles"] = {}
    arrays: Arrays = {}
    for folder in bundles:
        facts["bundles"][folder.name] = run_bundle(folder, arrays)
    _write(out, facts, arrays)
    return 0


def import_all(package: str) -> dict[str, str]:
    """Import a package and every module below it; returns those that could not be, each with what was missing."""
    missing, names = {}, [package]
    while names:
        name = names.pop()
        try:
            module = importlib.import_module(name)
        except ImportError as err:
            missing[name] = str(err)
        else:
            names += [found.name for found in pkgutil.iter_modules(getattr(module, "__path__", []), f"{name}.")]
    return missing


def run_bundle(folder: Path, arrays: Arrays) -> dict[str, Any]:
    """Every variant that this CPU may run; its arrays are added under ``<bundle>/<variant>/``."""
    from agent.model.bundle import load_bundle
    from agent.model.runtime import available_providers, ort
    from agent.model.variants import choose_variant, this_device, why_not

    keys = trusted_keys(folder)
    device = this_device(ort.__version__, available_providers())
    manifest = load_bundle(folder, keys).manifest
    chosen = choose_variant(manifest, device)
    facts: dict[str, Any] = {"chosen": chosen.id, "features": sorted(device.cpu_features), "variants": {}}
    for variant in manifest.variants:
        obstacle = why_not(variant, device)
        facts["variants"][variant.id] = result = {"obstacle": obstacle}
        if obstacle is None:
            found = run_variant(
                folder,
                keys,
                variant.id,
                FRAMES_OF.get(folder.name, FRAMES) if variant == chosen else FEW_FRAMES,
                result,
            )
            arrays.update({f"{folder.name}/{variant.id}/{key}": array for key, array in found.items()})
    return facts


def trusted_keys(folder: Path) -> list[Path]:
    """The demo's keys lie beside its folder of bundles."""
    return sorted(folder.resolve().parents[1].glob("*.public.pem"))


def run_variant(folder: Path, keys: Sequence[Path], variant: str, frames: int, result: dict[str, Any]) -> Arrays:
    """Golden replay, then frames through the whole path.

    Returns:
        ``golden<i>/<output>`` and ``frame<i>/<output>``, and with each ``image``, the bytes that the model was given.
        ``result`` gets ``refusal`` when the replay fails, else ``payloads`` and ``seconds_per_run``.
    """
    from agent.errors import BundleError
    from agent.model import activate
    from agent.model.session import SessionOptions

    record = Record()
    activate.Session = recording_session(record)  # type: ignore[attr-defined] # so the replay is recorded too
    try:
        # Without a canary: it starts a process, which an emulator that the kernel does not know of cannot.
        model = activate.activate(folder, keys, SessionOptions(), variant, warm_up_runs=0)
    except BundleError as err:
        result["refusal"] = str(err)
        return {}
    goldens = len(record.runs)
    result["payloads"] = run_frames(model, frames)
    result["seconds_per_run"] = round(sorted(record.seconds)[len(record.seconds) // 2], 3)
    names = [f"golden{index}" for index in range(goldens)] + [f"frame{index}" for index in range(frames)]
    return {f"{name}/{key}": array for name, run in zip(names, record.runs, strict=True) for key, array in run.items()}


def run_frames(model: ActiveModel, frames: int) -> list[str]:
    """Synthetic frames through mailbox, pipeline, watcher and tracker; returns what would be published, in order."""
    import cv2

    from agent.camera.capture import make_camera
    from agent.config import AgentConfig
    from agent.delivery.events import ModelRef
    from agent.delivery.payload import Origin
    from agent.frame import Mailbox
    from agent.parts import make_pipeline
    from agent.tasks import make_watcher
    from agent.turns import Turns

    cv2.setNumThreads(1)  # as the agent does
    camera = {"id": CAMERA, "engine": "synthetic", "width": 640, "height": 384, "fps": FPS, "seed": 7}
    values = {
        "model": {"bundle": model.bundle.root, "trusted_keys": [model.bundle.root]},  # it is loaded already
        "cameras": [{**camera, "pace": "lockstep"}],
        "mqtt": {"detections": {"enabled": True}},
    }
    config = AgentConfig.model_validate(values)
    manifest = model.bundle.manifest
    recording = RecordingPublisher(Origin("boot-1", ModelRef(manifest.name, manifest.version, model.variant.id)))
    publisher: Publisher = recording
    mailbox, turns = Mailbox([CAMERA]), Turns(time.monotonic)
    watchers = {CAMERA: make_watcher(manifest, config)}
    pipeline = make_pipeline(config, model, turns, watchers, mailbox, publisher)
    source = make_camera(config.cameras[0], FrameClock())
    feeder = threading.Thread(target=_feed, args=(source, mailbox, frames))
    feeder.start()
    pipeline.run()
    feeder.join()
    return recording.payloads


class FrameClock:
    """Each frame is captured a tenth of a second after the one before, however long that takes here."""

    def __init__(self) -> None:
        self._frames = 0

    def monotonic_s(self) -> float:
        return self._frames / FPS

    def unix_ms(self) -> int:
        self._frames += 1
        return FIRST_FRAME_MS + round(self._frames * 1000 / FPS)

    def wait(self, duration_s: float) -> bool:
        return False

    def interrupt(self) -> None:
        """Nothing waits."""


class Record:
    """What went into and came out of a session, run by run, and how long each took."""

    def __init__(self) -> None:
        self.runs: list[Arrays] = []
        self.seconds: list[float] = []


def recording_session(record: Record) -> type[Session]:
    """A kind of session that keeps a record."""
    from agent.model.session import Session

    class RecordingSession(Session):
        def run(self) -> Mapping[str, NDArray[Any]]:
            started_s = time.monotonic()
            outputs = super().run()
            record.seconds.append(time.monotonic() - started_s)
            copies = {name: array.copy() for name, array in outputs.items()}
            record.runs.append({"image": self.input_image.copy(), **copies})
            return outputs

    return RecordingSession


class RecordingPublisher:
    """Keeps the payloads that a broker would get, as lines of kind and JSON."""

    def __init__(self, origin: Origin) -> None:
        self.payloads: list[str] = []
        self._origin = origin
        self._events = 0
        self._states: dict[str, CameraState] = {}

    def emit(self, event: Event) -> str:
        from agent.delivery.payload import encode_event

        self._events += 1
        event_id = f"{NODE}:epoch-1:{self._events}"
        self._keep("event", encode_event(event, event_id, self._origin, clock_synced=True))
        return event_id

    def publish_detections(self, frame: FrameRef, objects: Sequence[ObjectState]) -> None:
        from agent.delivery.payload import encode_detections

        self._keep("detections", encode_detections(frame, objects, self._origin, clock_synced=True))

    def set_camera_state(self, camera_id: str, state: CameraState) -> None:
        from agent.delivery.payload import encode_camera_state

        if self._states.get(camera_id) != state:
            self._states[camera_id] = state
            self._keep("state", encode_camera_state(state, FIRST_FRAME_MS))

    def _keep(self, kind: str, payload: bytes) -> None:
        self.payloads.append(f"{kind} {payload.decode()}")


def _feed(camera: Camera, mailbox: Mailbox, frames: int) -> None:
    camera.open()
    for _ in range(frames):
        frame = camera.read()
        assert frame is not None
        mailbox.put_wait(frame)
    camera.close()
    mailbox.finish(CAMERA)


def _write(out: Path, facts: Mapping[str, Any], arrays: Arrays) -> None:
    import numpy as np

    np.savez(out / "outputs.npz", **cast("dict[str, Any]", arrays))
    (out / "facts.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
