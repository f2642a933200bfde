"""What a running agent gives to its web API: its model, its cameras, its health and its figures."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, SummaryMetricFamily

from agent.predict import Predictor
from agent.web.service import Served, Service

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client.core import Metric

    from agent.app import App
    from agent.frame import Frame
    from agent.tasks import Sighting


def service_of(app: App) -> Service:
    """The service behind an agent's web API."""
    name = app.model.bundle.manifest.name
    served = Served(Predictor(app.model, app.config.detect, app.turns), app.origin)
    return Service(
        {name: served},
        cameras=AgentCameras(app),
        silent=lambda: app.watchdog.silent(),  # noqa: PLW0108 - it is made after this service
        not_ready=lambda: _not_ready(app),
        metrics=lambda: _metrics(app),
        node=app.node,
    )


class AgentCameras:
    """An agent's cameras as the web sees them (`agent.web.service.Cameras`)."""

    def __init__(self, app: App) -> None:
        self._app = app

    @property
    def ids(self) -> list[str]:
        return list(self._app.captures)

    @property
    def labels(self) -> list[str]:
        return self._app.model.bundle.manifest.labels

    def latest(self, camera_id: str) -> tuple[Frame, Sighting] | None:
        return self._app.pipeline.latest.get(camera_id)

    def facts(self, camera_id: str) -> dict[str, Any]:
        app = self._app
        stats = app.pipeline.stats[camera_id]
        facts: dict[str, Any] = {
            "health": app.camera_health(camera_id),
            "trouble": app.captures[camera_id].trouble,
            "frames": stats.frames,
            "dropped": app.mailbox.dropped[camera_id],
            "events": stats.events.total(),
            "frame_age_ms": round(stats.frame_age_s * 1e3, 2),
            "inference_ms": round(stats.inference_s * 1e3, 2),
        }
        latest = self.latest(camera_id)
        if latest is not None:
            frame, sighting = latest
            height, width = frame.image_bgr.shape[:2]
            facts["frame"] = {"id": frame.id, "w": width, "h": height}
            facts["seconds_since_frame"] = round(time.monotonic() - frame.captured_monotonic_s, 2)
            facts["counts"] = dict(sighting.present)
            if sighting.areas:
                facts["areas"] = dict(sighting.steady_areas)
            if sighting.class_ is not None:
                facts["class"] = {"label": sighting.class_.label, "score": round(sighting.class_.score, 4)}
        return facts


def _not_ready(app: App) -> str | None:
    if app.pipeline.first_result_s is None:
        return "no frame has gone through the model yet; /api/v1/cameras tells the cameras' health"
    if not any(app.camera_health(camera_id) == "up" for camera_id in app.captures):
        return "no camera gives frames; /api/v1/cameras tells their health"
    return None


def _metrics(app: App) -> Iterable[Metric]:
    frames = CounterMetricFamily("edge_frames", "Frames that went through the model.", labels=["camera"])
    dropped = CounterMetricFamily("edge_frames_dropped", "Frames that nobody took.", labels=["camera", "reason"])
    errors = CounterMetricFamily("edge_camera_errors", "Failures of a camera.", labels=["camera"])
    up = GaugeMetricFamily("edge_camera_up", "1 while the camera gives frames.", labels=["camera"])
    inference = SummaryMetricFamily("edge_inference_seconds", "Time of one inference.", labels=["camera"])
    age = GaugeMetricFamily("edge_frame_age_seconds", "From capture to inference, last frame.", labels=["camera"])
    events = CounterMetricFamily("edge_events", "Events emitted.", labels=["camera", "type"])
    seen = CounterMetricFamily("edge_detections", "Objects seen, each in each frame.", labels=["camera", "label"])
    overtaken = app.mailbox.dropped
    for camera_id, capture in app.captures.items():
        stats = app.pipeline.stats[camera_id]
        frames.add_metric([camera_id], stats.frames)
        dropped.add_metric([camera_id, "overtaken"], overtaken[camera_id])
        errors.add_metric([camera_id], capture.errors)
        up.add_metric([camera_id], app.camera_health(camera_id) == "up")
        inference.add_metric([camera_id], stats.frames, stats.inference_total_s)
        age.add_metric([camera_id], stats.frame_age_s)
        for type_, count in list(stats.events.items()):
            events.add_metric([camera_id, type_], count)
        for label, count in list(stats.detections.items()):
            seen.add_metric([camera_id, label], count)
    yield from (frames, dropped, errors, up, inference, age, events, seen)
    counts = app.publisher.counts()
    if not counts:  # nothing is delivered in a dry run
        return
    yield GaugeMetricFamily("edge_outbox_messages", "Events that wait for the broker.", counts["outbox_pending"])
    yield GaugeMetricFamily("edge_mqtt_online", "1 while the broker has us connected.", counts["mqtt_online"])
    yield CounterMetricFamily("edge_events_delivered", "Events that the broker has taken.", counts["events_delivered"])
    yield CounterMetricFamily("edge_events_lost", "Events dropped for want of space.", counts["events_dropped"])
