"""The FastAPI application: one for ``edge-agent serve`` and for an agent with ``web:`` in its configuration."""

from __future__ import annotations

import logging
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from agent import __version__
from agent.web.access import OPEN_PATHS, Access
from agent.web.camera_routes import camera_routes
from agent.web.infer_routes import infer_routes
from agent.web.openapi_texts import NO_TOKEN, NOT_FROM_HERE
from agent.web.probe_routes import probe_routes
from agent.web.problem import Problem

if TYPE_CHECKING:
    from starlette.requests import Request

    from agent.config import WebConfig
    from agent.web.service import Service
    from agent.web.workers import Workers

STATIC = Path(__file__).with_name("static")
_DESCRIPTION = "Inference on pictures, live pictures of cameras, health and metrics of an edge-agent."
# Everything a page needs comes from here: a device may have no way to the internet, and no page tells others of it.
_POLICY = "default-src 'self'; img-src 'self' blob: data:; frame-ancestors 'none'"
_PAGE_HEADERS = {"Content-Security-Policy": _POLICY, "Cache-Control": "no-cache"}

log = logging.getLogger(__name__)


def make_api(service: Service, config: WebConfig, workers: Workers) -> FastAPI:
    """The application with all of its routes; ``workers`` are closed by whoever made them."""
    api = FastAPI(
        title="edge-agent",
        version=__version__,
        description=_DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    _describe_access(api, has_token=config.token is not None)
    api.add_middleware(Access, token=config.token)
    for exception, handler in _HANDLERS.items():
        api.add_exception_handler(exception, handler)
    api.include_router(infer_routes(service, config, workers))
    api.include_router(probe_routes(service))
    if service.cameras is not None:
        api.include_router(camera_routes(service.cameras, config, workers))
    api.mount("/static", _Static(directory=STATIC), name="static")

    @api.head("/", include_in_schema=False)
    @api.get("/", include_in_schema=False)
    async def index() -> Response:
        return _page("index.html")

    @api.head("/docs", include_in_schema=False)
    @api.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return _page("docs.html")

    return api


class _Static(StaticFiles):
    """Files that a browser asks about each time: after an update no page mixes old and new modules."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers.update(_PAGE_HEADERS)
        return response


def _page(name: str) -> Response:
    return FileResponse(STATIC / name, headers=_PAGE_HEADERS)


def _describe_access(api: FastAPI, *, has_token: bool) -> None:
    """Say in the OpenAPI description that every route but the probes wants the token, or a request from here."""
    described = api.openapi
    schemes = {"token": {"type": "http", "scheme": "bearer"}, "password": {"type": "http", "scheme": "basic"}}

    def with_access() -> dict[str, Any]:
        document = described()
        if has_token:
            document.setdefault("components", {})["securitySchemes"] = schemes
            document["security"] = [{name: []} for name in schemes]
        for path, operations in document["paths"].items():
            for operation in operations.values():
                if path not in OPEN_PATHS:
                    operation["responses"].update(NO_TOKEN if has_token else NOT_FROM_HERE)
                elif has_token:
                    operation["security"] = []
        return document

    api.openapi = with_access  # type: ignore[method-assign]


async def _on_problem(_: Request, problem: Exception) -> Response:
    assert isinstance(problem, Problem)
    return problem.response()


async def _on_http_exception(_: Request, err: Exception) -> Response:
    assert isinstance(err, HTTPException)
    status = HTTPStatus(err.status_code)
    advice = "GET /docs lists what there is"
    return Problem(status, f"{err.detail}; {advice}", err.headers).response()


async def _on_bad_arguments(_: Request, err: Exception) -> Response:
    assert isinstance(err, RequestValidationError)
    complaints = [f"{'.'.join(map(str, each['loc'][1:])) or each['loc'][0]}: {each['msg']}" for each in err.errors()]
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "; ".join(complaints)).response()


async def _on_bug(_: Request, err: Exception) -> Response:
    # The server logs the traceback itself.
    detail = f"the request failed inside the agent ({type(err).__name__}); its log says more"
    return Problem(HTTPStatus.INTERNAL_SERVER_ERROR, detail).response()


_HANDLERS = {
    Problem: _on_problem,
    HTTPException: _on_http_exception,
    RequestValidationError: _on_bad_arguments,
    Exception: _on_bug,
}
