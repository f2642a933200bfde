"""Probes and metrics: is it alive, is it ready, what are its figures."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from agent.web.metrics import ServiceCollector
from agent.web.openapi_texts import ALIVE, METRICS, READY
from agent.web.problem import Problem

if TYPE_CHECKING:
    from agent.web.service import Service


def probe_routes(service: Service) -> APIRouter:
    """``/healthz``, ``/readyz`` and ``/metrics``."""
    router = APIRouter(tags=["operation"])
    registry = CollectorRegistry()
    registry.register(ServiceCollector(service))
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)

    @router.head("/healthz", include_in_schema=False)
    @router.get("/healthz", summary="Is it alive", operation_id="alive", responses=ALIVE)
    async def alive() -> JSONResponse:
        """200 while every loop turns; else 503 with the ones that hang."""
        silent = service.silent()
        if silent:
            raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, "; ".join(silent.values()))
        return JSONResponse({"status": "ok"})

    @router.head("/readyz", include_in_schema=False)
    @router.get("/readyz", summary="Is it ready", operation_id="ready", responses=READY)
    async def ready() -> JSONResponse:
        """200 once results come; else 503 with what is missing."""
        missing = service.not_ready()
        if missing is not None:
            raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, missing, {"Retry-After": "1"})
        return JSONResponse({"status": "ready"})

    @router.head("/metrics", include_in_schema=False)
    @router.get("/metrics", summary="Its figures", operation_id="metrics", response_class=Response, responses=METRICS)
    def metrics() -> Response:
        """Figures for Prometheus."""
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return router
