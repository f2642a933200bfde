"""Cameras: what each sees now, as JSON, as a picture, and as a stream of pictures."""

from __future__ import annotations

import asyncio
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Path, Query, Response
from fastapi.responses import JSONResponse, StreamingResponse

from agent.web.live import LivePictures
from agent.web.openapi_texts import CAMERAS, SNAPSHOT, STREAM
from agent.web.problem import Problem

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from agent.config import WebConfig
    from agent.web.service import Cameras
    from agent.web.workers import Workers

_MOST_STREAMS = 16
_BOUNDARY = "frame"
_STREAM_TYPE = f"multipart/x-mixed-replace; boundary={_BOUNDARY}"
_NO_STORE = {"Cache-Control": "no-store"}
_CameraId = Annotated[str, Path(description="the camera's name in the configuration", examples=["door"])]
_Boxes = Annotated[bool, Query(description="draw what was seen")]


def camera_routes(cameras: Cameras, config: WebConfig, workers: Workers) -> APIRouter:
    """``GET /api/v1/cameras`` and each camera's ``snapshot.jpg`` and ``stream.mjpg``."""
    router = APIRouter(prefix="/api/v1/cameras", tags=["cameras"])
    pictures = LivePictures(cameras, config.stream_width)
    watched: set[object] = set()

    @router.get("", summary="What the cameras see", operation_id="cameras", responses=CAMERAS)
    async def all_cameras() -> JSONResponse:
        """Each camera's health and what it sees."""
        return JSONResponse(
            {"cameras": [{"id": camera_id, **cameras.facts(camera_id)} for camera_id in cameras.ids]}, headers=_NO_STORE
        )

    @router.get(
        "/{camera_id}/snapshot.jpg",
        summary="A camera's last picture",
        operation_id="snapshot",
        responses=SNAPSHOT,
        response_class=Response,
    )
    async def snapshot(camera_id: _CameraId, *, boxes: _Boxes = True) -> Response:
        """The last frame that went through the model, in the camera's own size."""
        _known(cameras, camera_id)
        picture = await workers.picture(pictures.snapshot, camera_id, boxes=boxes)
        latest = cameras.latest(camera_id)
        if picture is None or latest is None:
            raise Problem(
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"camera {camera_id} has given no frame yet; /api/v1/cameras tells its health",
                {"Retry-After": "1"},
            )
        age_ms = (time.monotonic() - latest[0].captured_monotonic_s) * 1e3
        headers = {**_NO_STORE, "X-Frame-Id": str(picture[0]), "X-Frame-Age-Ms": f"{age_ms:.0f}"}
        return Response(picture[1], media_type="image/jpeg", headers=headers)

    @router.get(
        "/{camera_id}/stream.mjpg",
        summary="A camera's live pictures",
        operation_id="stream",
        responses=STREAM,
        response_class=StreamingResponse,
    )
    async def stream(camera_id: _CameraId, *, boxes: _Boxes = True) -> StreamingResponse:
        """Live pictures as multipart/x-mixed-replace, which browsers show in an `img`."""
        _known(cameras, camera_id)
        if len(watched) >= _MOST_STREAMS:
            raise Problem(
                HTTPStatus.SERVICE_UNAVAILABLE, f"{_MOST_STREAMS} streams are watched already; close one", _NO_STORE
            )
        return StreamingResponse(parts(camera_id, boxes=boxes), media_type=_STREAM_TYPE, headers=_NO_STORE)

    async def parts(camera_id: str, *, boxes: bool) -> AsyncIterator[bytes]:
        viewer = object()
        watched.add(viewer)
        shown_id = None
        try:
            while True:
                began_s = time.monotonic()
                picture = await workers.picture(pictures.streamed, camera_id, boxes=boxes)
                if picture is not None and picture[0] != shown_id:
                    shown_id, jpeg = picture
                    yield _part(jpeg)
                await asyncio.sleep(max(0.0, 1 / config.stream_fps - (time.monotonic() - began_s)))
        finally:
            watched.discard(viewer)

    return router


def _known(cameras: Cameras, camera_id: str) -> None:
    if camera_id not in cameras.ids:
        raise Problem(HTTPStatus.NOT_FOUND, f"no camera {camera_id!r}; there are: {', '.join(cameras.ids)}")


def _part(jpeg: bytes) -> bytes:
    head = f"--{_BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
    return b"%b%b\r\n" % (head.encode(), jpeg)
