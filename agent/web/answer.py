"""What a picture shows, as JSON data in the shape of the event payload (schema 1)."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agent.delivery.payload import Origin
    from agent.predict import Prediction


def answer_of(prediction: Prediction, size_wh: tuple[int, int], origin: Origin, at_ms: int) -> dict[str, Any]:
    """The answer to one picture: ``objects`` of a detector, ``class`` of a classifier, ``areas`` of a segmenter.

    Args:
        prediction: what the model saw.
        size_wh: of the picture as it was judged, after any EXIF rotation.
        origin: the model.
        at_ms: Unix milliseconds.
    """
    seen, model = prediction.sighting, origin.model
    at = datetime.fromtimestamp(at_ms / 1e3, timezone.utc).replace(tzinfo=None)
    answer: dict[str, Any] = {
        "v": 1,
        "ts": f"{at.isoformat(timespec='milliseconds')}Z",
        "ts_ms": at_ms,
        "model": {"name": model.name, "version": model.version, "variant": model.variant},
        "frame": {"w": size_wh[0], "h": size_wh[1]},
        "inference_ms": round(prediction.inference_s * 1e3, 3),
    }
    if seen.detections is not None:
        answer["objects"] = [
            {"label": each.label, "score": _share(each.score), "box": [_share(side) for side in each.box_xyxy]}
            for each in seen.objects
        ]
    if seen.class_ is not None:
        answer["class"] = {"label": seen.class_.label, "score": _share(seen.class_.score)}
    if seen.mask is not None:
        answer["areas"] = {label: _share(share) for label, share in seen.areas.items()}
    return answer


def _share(value: float) -> float:
    return round(min(max(value, 0.0), 1.0), 4)
