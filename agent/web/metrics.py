"""Figures for Prometheus, read when they are asked for: nothing is counted twice and no frame pays for them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import psutil
from prometheus_client.core import GaugeMetricFamily, SummaryMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client.core import Metric

    from agent.web.service import Service


class ServiceCollector(Collector):
    """The models, the temperatures, and whatever figures the service adds."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def collect(self) -> Iterable[Metric]:
        """The figures of this moment."""
        yield self._models()
        yield self._requests()
        yield _temperatures()
        yield from self._service.metrics()

    def _models(self) -> Metric:
        names = ["name", "version", "variant", "precision", "provider"]
        info = GaugeMetricFamily("edge_model_info", "A model that runs; the value is always 1.", labels=names)
        for served in self._service.models.values():
            model = served.predictor.model
            manifest, variant = model.bundle.manifest, model.variant
            values = [manifest.name, str(manifest.version), variant.id, variant.precision, model.session.provider]
            info.add_metric(values, 1)
        return info

    def _requests(self) -> Metric:
        family = SummaryMetricFamily("edge_web_inference_seconds", "Inferences for the web API.", labels=["model"])
        for name, served in self._service.models.items():
            family.add_metric([name], served.predictor.runs, served.predictor.inference_total_s)
        return family


def _temperatures() -> Metric:
    family = GaugeMetricFamily(
        "edge_device_temperature_celsius", "Temperatures that the device measures.", labels=["zone"]
    )
    told: Counter[str] = Counter()
    for chip, readings in psutil.sensors_temperatures().items():
        for reading in readings:
            zone = f"{chip}_{reading.label}" if reading.label else chip
            told[zone] += 1
            family.add_metric([zone if told[zone] == 1 else f"{zone}_{told[zone]}"], reading.current)
    return family
