"""Cameras: what each sees now, as JSON, as a picture, and as a stream of pictures."""

from __future__ import annotations

import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Path, Query, Response
from fastapi.responses import JSONResponse

from agent.web.live import LivePictures
from agent.web.live_stream import LiveStream
from agent.web.openapi_texts import CAMERAS, SNAPSHOT, STREAM
from agent.web.problem import Problem

if TYPE_CHECKING:
    from agent.config import WebConfig
    from agent.web.service import Cameras
    from agent.web.workers import Workers

_MOST_STREAMS = 16
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
        picture = await workers.live.do(pictures.snapshot, camera_id, boxes=boxes)
        if picture is None:
            detail = f"camera {camera_id} has given no frame yet; /api/v1/cameras tells its health"
            raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, detail, {"Retry-After": "1"})
        age_ms = (time.monotonic() - picture.captured_s) * 1e3
        headers = {**_NO_STORE, "X-Frame-Id": str(picture.frame_id), "X-Frame-Age-Ms": f"{age_ms:.0f}"}
        return Response(picture.jpeg, media_type="image/jpeg", headers=headers)

    @router.get(
        "/{camera_id}/stream.mjpg",
        summary="A camera's live pictures",
        operation_id="stream",
        responses=STREAM,
        response_class=Response,
    )
    async def stream(camera_id: _CameraId, *, boxes: _Boxes = True) -> LiveStream:
        """Live pictures as multipart/x-mixed-replace, which browsers show in an `img`."""
        _known(cameras, camera_id)
        if len(watched) >= _MOST_STREAMS:
            detail = f"{_MOST_STREAMS} streams are watched already; close one"
            raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, detail, {"Retry-After": "5"})
        viewer = object()
        watched.add(viewer)

        async def next_picture() -> tuple[int, bytes] | None:
            picture = await workers.live.do(pictures.streamed, camera_id, boxes=boxes)
            return None if picture is None else (picture.frame_id, picture.jpeg)

        return LiveStream(
            next_picture, 1 / config.stream_fps, lambda: workers.closing, lambda: watched.discard(viewer), _NO_STORE
        )

    return router


def _known(cameras: Cameras, camera_id: str) -> None:
    if camera_id not in cameras.ids:
        raise Problem(HTTPStatus.NOT_FOUND, f"no camera {camera_id!r}; there are: {', '.join(cameras.ids)}")
