"""Probes and metrics: alive, ready, and figures that Prometheus can read."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from prometheus_client.core import CounterMetricFamily
from prometheus_client.parser import text_string_to_metric_families

from tests.agent.web.conftest import running
from tests.support.http import ask

if TYPE_CHECKING:
    from agent.model.activate import ActiveModel
    from agent.web.service import Service


def samples(port: int) -> dict[str, float]:
    """Every sample by its name with labels."""
    answer = ask(port, "/metrics")
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return {
        f"{sample.name}{sorted(sample.labels.items()) or ''}": sample.value
        for family in text_string_to_metric_families(answer.body.decode())
        for sample in family.samples
    }


def test_a_service_without_trouble_is_alive_and_ready(port: int) -> None:
    assert ask(port, "/healthz").json == {"status": "ok"}
    assert ask(port, "/readyz").json == {"status": "ready"}


def test_a_loop_that_hangs_is_told(service: Service) -> None:
    with running(replace(service, silent=lambda: {"mqtt": "mqtt has been silent for 200 s"})) as port:
        answer = ask(port, "/healthz")
        assert answer.status == 503
        assert answer.problem == "mqtt has been silent for 200 s"
        assert ask(port, "/readyz").status == 200


def test_what_is_not_ready_says_what_is_missing(service: Service) -> None:
    with running(replace(service, not_ready=lambda: "no camera gives frames")) as port:
        answer = ask(port, "/readyz")
        assert answer.status == 503
        assert answer.problem == "no camera gives frames"
        assert ask(port, "/healthz").status == 200


def test_the_metrics_name_the_models_and_the_process(port: int, detector: ActiveModel) -> None:
    found = samples(port)
    manifest = detector.bundle.manifest
    (info,) = [name for name in found if name.startswith("edge_model_info") and manifest.name in name]
    assert detector.variant.id in info
    assert found[info] == 1
    assert found["process_resident_memory_bytes"] > 1e6


def test_a_services_own_figures_are_added_when_they_are_asked_for(service: Service) -> None:
    count = [3]
    figures = replace(service, metrics=lambda: [CounterMetricFamily("edge_frames", "Frames.", value=count[0])])
    with running(figures) as port:
        assert samples(port)["edge_frames_total"] == 3
        count[0] = 5
        assert samples(port)["edge_frames_total"] == 5


def test_files_are_asked_about_each_time_so_that_an_update_is_seen(port: int) -> None:
    answer = ask(port, "/static/index.js")
    assert answer.headers["cache-control"] == "no-cache"
    again = ask(port, "/static/index.js", headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status, again.body) == (304, b"")


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_pages_bring_all_they_need(port: int, path: str) -> None:
    answer = ask(port, path)
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/html")
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    assert b"http://" not in answer.body.replace(b"http://www.w3.org/", b"")
    assert b"https://" not in answer.body


def test_the_openapi_document_describes_the_routes(port: int) -> None:
    document = ask(port, "/openapi.json").json
    assert document["openapi"].startswith("3.1")
    assert set(document["paths"]["/api/v1/infer"]["post"]["requestBody"]["content"]) == {
        *("image/jpeg", "image/png", "image/webp", "multipart/form-data"),
    }
    assert "/healthz" in document["paths"]
