"""Models and inference: which there are, and what a picture shows.

upload -> header checked -> room for its pixels -> decoded -> a guest's turn at inference
-> JSON, or the picture with what was seen in it
"""

from __future__ import annotations

import difflib
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse

from agent.annotate import annotated
from agent.errors import PictureError
from agent.vision.picture_file import TooManyPixelsError, UnknownFormatError, decode_picture, inspect_picture
from agent.web.answer import answer_of
from agent.web.budget import Budget
from agent.web.live import encode_jpeg
from agent.web.openapi_texts import INFER, MODELS
from agent.web.problem import Problem
from agent.web.uploads import Uploads

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from agent.config import WebConfig
    from agent.tasks import Sighting
    from agent.vision.picture_file import PictureInfo
    from agent.web.service import Served, Service
    from agent.web.workers import Workers

_MIB = 1024 * 1024
_CHANNELS = 3
_DECODED_PICTURES = 2  # of the largest size, in memory at once; more wait their turn
_ARGUMENTS = ("model", "annotate", "score_threshold")
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


def infer_routes(service: Service, config: WebConfig, workers: Workers) -> APIRouter:
    """``POST /api/v1/infer`` and ``GET /api/v1/models``."""
    router = APIRouter(prefix="/api/v1", tags=["models"])
    uploads = Uploads(config.max_upload_mib * _MIB)
    max_pixels = round(config.max_megapixels * 1e6)
    decoded = Budget(_DECODED_PICTURES * _CHANNELS * max_pixels)

    @router.get("/models", summary="Which models there are", operation_id="models", responses=MODELS)
    async def models() -> JSONResponse:
        """The models that answer, the default one first."""
        described = [
            {**_describe(served), "default": index == 0} for index, served in enumerate(service.models.values())
        ]
        cameras = service.cameras
        return JSONResponse(
            {
                "node": service.node,
                "cameras": None if cameras is None else cameras.ids,
                "limits": {"max_bytes": uploads.max_bytes, "max_pixels": max_pixels},
                "models": described,
            }
        )

    @router.post(
        "/infer",
        summary="What a picture shows",
        operation_id="infer",
        responses=INFER,
        openapi_extra=_BODY,
        response_class=Response,
    )
    async def infer(
        request: Request,
        model: Annotated[str | None, Query(description="name of a model; without it the default one")] = None,
        annotate: Annotated[bool, Query(description="answer with the picture and what was seen, as JPEG")] = False,
        score_threshold: Annotated[float | None, Query(ge=0, le=1, description="instead of the configured one")] = None,
    ) -> Response:
        """What one picture shows: JPEG, PNG or WebP, as the body itself or as the file of a form."""
        _refuse_unknown(request)
        served = _chosen(service, model)
        async with uploads.taken(request) as upload:
            content = await workers.pictures.do(upload.picture)
            info = await workers.pictures.do(_inspected, content, max_pixels)
            copies = 2 if annotate else 1
            async with decoded.reserved(copies * _CHANNELS * info.width * info.height):
                image_bgr = await workers.pictures.do(_decoded, content, max_pixels)
                prediction = await workers.inference.do(served.predictor, image_bgr, score_threshold)
                if annotate:
                    labels = served.predictor.model.bundle.manifest.labels
                    jpeg = await workers.pictures.do(_drawn, image_bgr, prediction.sighting, labels)
                    return Response(jpeg, media_type="image/jpeg")
                height, width = image_bgr.shape[:2]
                return JSONResponse(answer_of(prediction, (width, height), served.origin, time.time_ns() // 1_000_000))

    return router


def _refuse_unknown(request: Request) -> None:
    """A misspelt argument would be left out in silence."""
    for name in request.query_params:
        if name not in _ARGUMENTS:
            close = difflib.get_close_matches(name, _ARGUMENTS, n=1)
            advice = f"did you mean {close[0]}?" if close else f"there are: {', '.join(_ARGUMENTS)}"
            raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, f"no argument {name!r}; {advice}")


def _inspected(content: bytes, max_pixels: int) -> PictureInfo:
    try:
        return inspect_picture(content, max_pixels)
    except PictureError as err:
        raise _refusal(err) from err


def _decoded(content: bytes, max_pixels: int) -> NDArray[np.uint8]:
    try:
        return decode_picture(content, max_pixels)
    except PictureError as err:
        raise _refusal(err) from err


def _refusal(err: PictureError) -> Problem:
    return Problem(_STATUS_OF.get(type(err), HTTPStatus.UNPROCESSABLE_ENTITY), str(err))


def _drawn(image_bgr: NDArray[np.uint8], sighting: Sighting, labels: Sequence[str]) -> bytes:
    return encode_jpeg(annotated(image_bgr, sighting, labels))


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
