"""Models and inference: which there are, and what a picture shows.

upload -> header checked -> decoded -> a guest's turn at inference -> JSON, or the picture with what was seen
"""

from __future__ import annotations

import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse

from agent.annotate import annotated
from agent.errors import PictureError
from agent.vision.picture_file import TooManyPixelsError, UnknownFormatError, decode_picture
from agent.web.answer import answer_of
from agent.web.live import encode_jpeg
from agent.web.problem import MEDIA_TYPE, Problem
from agent.web.uploads import Uploads

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from agent.config import WebConfig
    from agent.web.service import Served, Service
    from agent.web.workers import Workers

_MIB = 1024 * 1024
_FORMATS = ("image/jpeg", "image/png", "image/webp")
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            **dict.fromkeys(_FORMATS, _BINARY),
            "multipart/form-data": {"schema": {"type": "object", "properties": {"file": _BINARY["schema"]}}},
        },
    }
}
_STATUS_OF = {
    UnknownFormatError: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    TooManyPixelsError: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
}
_REFUSALS: dict[int | str, dict[str, Any]] = {
    int(status): {"description": what, "content": {MEDIA_TYPE: {}}}
    for status, what in {
        HTTPStatus.NOT_FOUND: "no such model",
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "too many bytes or pixels; nothing was decoded",
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE: "neither JPEG nor PNG nor WebP",
        HTTPStatus.UNPROCESSABLE_ENTITY: "empty, cut off or damaged",
        HTTPStatus.SERVICE_UNAVAILABLE: "too many pictures at once; Retry-After says when to come again",
    }.items()
}
_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "what the picture shows; with `annotate=true` the picture itself, as JPEG",
        "content": {
            "image/jpeg": {},
            "application/json": {
                "example": {
                    "v": 1,
                    "ts": "2026-01-01T12:00:00.000Z",
                    "ts_ms": 1767268800000,
                    "model": {"name": "demo-shapes", "version": 1, "variant": "cpu-int8"},
                    "frame": {"w": 640, "h": 384},
                    "inference_ms": 3.1,
                    "objects": [{"label": "circle", "score": 0.91, "box": [0.1, 0.2, 0.3, 0.4]}],
                }
            },
        },
    },
    **_REFUSALS,
}


def infer_routes(service: Service, config: WebConfig, workers: Workers) -> APIRouter:
    """``POST /api/v1/infer`` and ``GET /api/v1/models``."""
    router = APIRouter(prefix="/api/v1", tags=["models"])
    uploads = Uploads(config.max_upload_mib * _MIB)
    max_pixels = round(config.max_megapixels * 1e6)

    @router.get("/models")
    async def models() -> JSONResponse:
        """The models that answer, the default one first."""
        described = [
            {**_describe(served), "default": index == 0} for index, served in enumerate(service.models.values())
        ]
        return JSONResponse({"models": described})

    @router.post("/infer", responses=_ANSWERS, openapi_extra=_BODY, response_class=Response)
    async def infer(
        request: Request,
        model: Annotated[str | None, Query(description="name of a model; without it the default one")] = None,
        annotate: Annotated[bool, Query(description="answer with the picture and what was seen, as JPEG")] = False,
        score_threshold: Annotated[float | None, Query(ge=0, le=1, description="instead of the configured one")] = None,
    ) -> Response:
        """What one picture shows: JPEG, PNG or WebP, as the body itself or as the file of a form."""
        served = _chosen(service, model)
        async with uploads.picture(request) as content:
            image_bgr = await workers.picture(_decoded, content, max_pixels)
        prediction = await workers.inference(served.predictor, image_bgr, score_threshold)
        if annotate:
            labels = served.predictor.model.bundle.manifest.labels
            jpeg = await workers.picture(lambda: encode_jpeg(annotated(image_bgr, prediction.sighting, labels)))
            return Response(jpeg, media_type="image/jpeg")
        height, width = image_bgr.shape[:2]
        return JSONResponse(answer_of(prediction, (width, height), served.origin, time.time_ns() // 1_000_000))

    return router


def _decoded(content: bytes, max_pixels: int) -> NDArray[np.uint8]:
    try:
        return decode_picture(content, max_pixels)
    except PictureError as err:
        raise Problem(_STATUS_OF.get(type(err), HTTPStatus.UNPROCESSABLE_ENTITY), str(err)) from err


def _chosen(service: Service, name: str | None) -> Served:
    if name is None:
        return next(iter(service.models.values()))
    if name not in service.models:
        raise Problem(HTTPStatus.NOT_FOUND, f"no model {name!r}; there are: {', '.join(service.models)}")
    return service.models[name]


def _describe(served: Served) -> dict[str, Any]:
    model = served.predictor.model
    manifest, variant = model.bundle.manifest, model.variant
    return {
        "name": manifest.name,
        "version": manifest.version,
        "task": manifest.task,
        "labels": manifest.labels,
        "variant": variant.id,
        "precision": variant.precision,
        "provider": model.session.provider,
        "input": {"width": variant.input.width, "height": variant.input.height, "resize": variant.input.resize},
        "defaults": manifest.defaults.model_dump(),
    }
