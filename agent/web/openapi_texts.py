"""What the OpenAPI description says beyond signatures: answers with examples, refusals with their shape."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from agent.web.problem import MEDIA_TYPE

if TYPE_CHECKING:
    from collections.abc import Mapping

Responses = dict["int | str", "dict[str, Any]"]

_PROBLEM_SCHEMA = {
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string", "description": "always about:blank"},
        "title": {"type": "string", "description": "the status in words"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "what was expected, what came, and what to do"},
    },
}
_MODEL = {
    "name": "demo-shapes",
    "version": 1,
    "task": "detect",
    "labels": ["circle", "square", "triangle", "star", "cross"],
    "variant": "cpu-int8",
    "precision": "int8",
    "provider": "cpu",
    "input": {"width": 320, "height": 192, "resize": "letterbox"},
    "defaults": {"score_threshold": 0.4, "iou_threshold": 0.5, "max_detections": 50},
    "default": True,
}
_CAMERA = {
    "id": "door",
    "health": "up",
    "trouble": None,
    "frames": 18042,
    "dropped": 3,
    "events": 97,
    "frame_age_ms": 0.52,
    "inference_ms": 1.36,
    "frame": {"id": 18042, "w": 640, "h": 384},
    "seconds_since_frame": 0.04,
    "counts": {"star": 4, "circle": 1},
}
_ORIGIN = {
    "v": 1,
    "ts": "2026-01-01T12:00:00.000Z",
    "ts_ms": 1767268800000,
    "model": {"name": "demo-shapes", "version": 1, "variant": "cpu-int8"},
    "frame": {"w": 640, "h": 384},
    "inference_ms": 3.1,
}


def json_answer(description: str, example: Any) -> Responses:
    """A 200 with JSON."""
    return {200: {"description": description, "content": {"application/json": {"example": example}}}}


def refusals(whats: Mapping[HTTPStatus, str]) -> Responses:
    """Refusals as problem+json, each with what it means."""
    return {int(status): _refusal(status, what) for status, what in whats.items()}


def _refusal(status: HTTPStatus, what: str) -> dict[str, Any]:
    example = {"type": "about:blank", "title": status.phrase, "status": int(status), "detail": f"{what}; ..."}
    return {"description": what, "content": {MEDIA_TYPE: {"schema": _PROBLEM_SCHEMA, "example": example}}}


_BAD_ARGUMENT = {HTTPStatus.UNPROCESSABLE_ENTITY: "an argument of the wrong kind"}
_BINARY = {"schema": {"type": "string", "format": "binary"}}

MODELS = json_answer(
    "the models; `cameras` are the ids of the agent's cameras, null where none runs; `limits` hold for pictures sent",
    {
        "node": "edge-2f1c",
        "cameras": ["door"],
        "limits": {"max_bytes": 8388608, "max_pixels": 25000000},
        "models": [_MODEL],
    },
)

INFER: Responses = {
    200: {
        "description": (
            "what the picture shows: `objects` of a detector, `class` of a classifier, `areas` (label to share of the "
            "picture) of a segmenter; boxes are left, top, right, bottom as shares of the picture. "
            "With `annotate=true` the picture itself with all that drawn, as JPEG"
        ),
        "content": {
            "application/json": {
                "examples": {
                    "detect": {
                        "value": {
                            **_ORIGIN,
                            "objects": [{"label": "circle", "score": 0.91, "box": [0.1, 0.2, 0.3, 0.4]}],
                        }
                    },
                    "classify": {"value": {**_ORIGIN, "class": {"label": "circle", "score": 0.97}}},
                    "segment": {"value": {**_ORIGIN, "areas": {"road": 0.612, "car": 0.301, "sky": 0.087}}},
                }
            },
            "image/jpeg": _BINARY,
        },
    },
    **refusals(
        {
            HTTPStatus.BAD_REQUEST: "the connection ended within the picture",
            HTTPStatus.NOT_FOUND: "no such model",
            HTTPStatus.REQUEST_TIMEOUT: "the picture took too long to come",
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "too many bytes or pixels; nothing was decoded",
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE: "neither JPEG nor PNG nor WebP",
            HTTPStatus.UNPROCESSABLE_ENTITY: "empty, cut off or damaged, or an argument of the wrong kind",
            HTTPStatus.SERVICE_UNAVAILABLE: "too many pictures at once; Retry-After says when to come again",
        }
    ),
}

CAMERAS = json_answer(
    "the cameras in the configuration's order; `health` is starting, up, down, stalled, ended, failed or stopped; "
    "`frame`, `seconds_since_frame` and what was seen (`counts`, `class` or `areas`) are there once a frame has come; "
    "`frame_age_ms` is from capture to inference",
    {"cameras": [_CAMERA, {"id": "yard", "health": "down", "frames": 0, "dropped": 0, "events": 0}]},
)

SNAPSHOT: Responses = {
    200: {
        "description": "the picture; the headers `X-Frame-Id` and `X-Frame-Age-Ms` tell which frame it is and how old",
        "content": {"image/jpeg": _BINARY},
    },
    **refusals(
        {
            HTTPStatus.NOT_FOUND: "no such camera",
            **_BAD_ARGUMENT,
            HTTPStatus.SERVICE_UNAVAILABLE: "the camera has given no frame yet",
        }
    ),
}

STREAM: Responses = {
    200: {
        "description": "JPEG pictures without end, each when it is new",
        "content": {"multipart/x-mixed-replace; boundary=frame": _BINARY},
    },
    **refusals(
        {
            HTTPStatus.NOT_FOUND: "no such camera",
            **_BAD_ARGUMENT,
            HTTPStatus.SERVICE_UNAVAILABLE: "too many streams are watched already",
        }
    ),
}

ALIVE: Responses = {
    **json_answer("every loop turns", {"status": "ok"}),
    **refusals({HTTPStatus.SERVICE_UNAVAILABLE: "a loop hangs"}),
}

READY: Responses = {
    **json_answer("results come", {"status": "ready"}),
    **refusals({HTTPStatus.SERVICE_UNAVAILABLE: "no results yet; the detail says what is missing"}),
}

METRICS: Responses = {
    200: {
        "description": "the figures in Prometheus' text format",
        "content": {
            "text/plain": {
                "schema": {"type": "string"},
                "example": '# TYPE edge_frames_total counter\nedge_frames_total{camera="door"} 18042.0\n',
            }
        },
    }
}

NO_TOKEN = {"401": _refusal(HTTPStatus.UNAUTHORIZED, "expected the token")}
NOT_FROM_HERE = {
    "403": _refusal(HTTPStatus.FORBIDDEN, "another site's page may not use this one"),
    "421": _refusal(HTTPStatus.MISDIRECTED_REQUEST, "expected a request for localhost or 127.0.0.1"),
}
