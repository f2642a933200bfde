"""Events, detections and states as JSON bytes (payload schema 1): pure functions, always under 10 KiB.

Every number is finite and every box clipped to 0..1, whatever a model computed: NaN becomes 0.
What is written per frame is put together from JSON fragments: a third of the time of ``json.dumps``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agent.delivery.events import CameraState, ClassState, Event, FrameRef, Gap, ModelRef, ObjectState

MAX_PAYLOAD_BYTES = 10 * 1024 - 1
STATUS_ONLINE, STATUS_OFFLINE = b"online", b"offline"
_MAX_LABEL_CHARACTERS = 255  # what Home Assistant takes as a state
_TRUNCATED_BYTES = 32  # room for the count of what was left out
_EVENT_DIGITS, _STATE_DIGITS = 4, 2  # of areas
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where messages come from: this run of the agent (object ids begin anew with each) and the model that runs."""

    boot: str
    model: ModelRef


def encode_event(event: Event, event_id: str, origin: Origin, *, clock_synced: bool) -> bytes:
    """One event; ``event_id`` is ``node:epoch:seq``, the key by which subscribers drop duplicates.

    Of too many areas the smallest are left out, and ``truncated`` says how many.
    """
    seen = ""
    if event.object is not None:
        seen += f',"object":{_object_json(event.object)}'
    if event.class_ is not None:
        seen += f',"class":{_class_json(event.class_)}'
    context = _context_json(event.frame, origin, clock_synced)
    head = f'{{"v":1,"id":{_encode(event_id)},"type":{_quoted(event.type)},{context}{seen}'
    if not event.areas:
        return f"{head}}}".encode()
    head += ',"areas":{'
    fragments = _area_fragments(event.areas, _EVENT_DIGITS)
    kept = _first_that_fit(fragments, len(head.encode()))
    return f"{head}{','.join(kept)}}}{_truncated_json(len(fragments) - len(kept))}}}".encode()


def encode_gap(gap: Gap, event_id: str, origin: Origin, *, clock_synced: bool) -> bytes:
    """A report of lost events; ``dropped`` counts them by type and is empty when nobody can know."""
    head = f'{{"v":1,"id":{_encode(event_id)},"type":"gap",{_time_json(gap.noticed_at_ms)}'
    boot = f'"clock_synced":{_bool(clock_synced)},"boot":{_quoted(origin.boot)}'
    return f'{head},{boot},"reason":{_encode(gap.reason)},"dropped":{_encode(dict(gap.dropped))}}}'.encode()


def encode_detections(frame: FrameRef, objects: Sequence[ObjectState], origin: Origin, *, clock_synced: bool) -> bytes:
    """All objects of one frame; of too many the worst are left out, and ``truncated`` says how many."""
    head = f'{{"v":1,{_context_json(frame, origin, clock_synced)},"objects":['
    fragments = [_object_json(each) for each in objects]
    payload = f"{head}{','.join(fragments)}]}}".encode()
    if len(payload) <= MAX_PAYLOAD_BYTES:
        return payload
    best_first = sorted(range(len(objects)), key=lambda index: _share(objects[index].score), reverse=True)
    kept = _first_that_fit([fragments[index] for index in best_first], len(head.encode()))
    return f'{head}{",".join(kept)}],"truncated":{len(objects) - len(kept)}}}'.encode()


def encode_camera_state(state: CameraState, at_ms: int) -> bytes:
    """A camera's health and what it sees; of too many labels the rarest are left out, ``truncated`` says how many.

    Areas are rounded to two digits, and those that round to nothing are not told.
    """
    head = f'{{"v":1,{_time_json(at_ms)},"health":{_quoted(state.health)}'
    if state.class_ is not None:
        head += f',"class":{_class_json(state.class_)}'
    left_out = 0
    if state.areas:
        fragments = _area_fragments(state.areas, _STATE_DIGITS)
        kept = _first_that_fit(fragments, len((head + ',"areas":{},"counts":{').encode()))
        left_out = len(fragments) - len(kept)
        head += f',"areas":{{{",".join(kept)}}}'
    head += ',"counts":{'
    most_first = sorted(state.counts.items(), key=lambda each: (-each[1], each[0]))
    kept = _first_that_fit([f"{_quoted(label)}:{count:d}" for label, count in most_first], len(head.encode()))
    left_out += len(most_first) - len(kept)
    return f"{head}{','.join(kept)}}}{_truncated_json(left_out)}}}".encode()


def encode_info(info: Mapping[str, object]) -> bytes:
    """Versions, models and the provider report; over 10 KiB the longest entries give way, ``truncated`` counts them.

    Raises:
        TypeError: a value is not JSON.
    """
    shortest_first = sorted((f"{_encode(str(name))}:{_encode(value)}" for name, value in info.items()), key=len)
    kept = ['"v":1', *_first_that_fit(shortest_first, len('{"v":1,}'))]
    if len(kept) <= len(shortest_first):
        kept.append(f'"truncated":{len(shortest_first) + 1 - len(kept)}')
    return f"{{{','.join(kept)}}}".encode()


def encode_telemetry(values: Mapping[str, float]) -> bytes:
    """Flat numbers, as Telegraf and Home Assistant read them; a value that is not finite is left out."""
    finite = [f"{_quoted(name)}:{_encode(value)}" for name, value in values.items() if abs(value) < float("inf")]
    return f"{{{','.join(_first_that_fit(finite, 2))}}}".encode()


def _context_json(frame: FrameRef, origin: Origin, clock_synced: bool) -> str:
    return (
        f'{_time_json(frame.captured_at_ms)},"clock_synced":{_bool(clock_synced)},{_origin_json(origin)},'
        f'"camera":{_quoted(frame.camera_id)},"frame":{{"id":{frame.id},"w":{frame.width},"h":{frame.height}}}'
    )


@lru_cache(maxsize=8)
def _origin_json(origin: Origin) -> str:
    model = {"name": origin.model.name, "version": origin.model.version, "variant": origin.model.variant}
    return f'"boot":{_encode(origin.boot)},"model":{_encode(model)}'


def _time_json(at_ms: int) -> str:
    # From whole milliseconds: a float of seconds rounds, and the system's calls refuse a clock that is far off.
    at = _EPOCH + timedelta(milliseconds=at_ms)
    return f'"ts":"{at.replace(tzinfo=None).isoformat(timespec="milliseconds")}Z","ts_ms":{at_ms}'


def _object_json(state: ObjectState) -> str:
    x1, y1, x2, y2 = state.box_xyxy
    score = state.score
    if not (0.0 <= x1 <= 1.0 and 0.0 <= y1 <= 1.0 and 0.0 <= x2 <= 1.0 and 0.0 <= y2 <= 1.0 and 0.0 <= score <= 1.0):
        x1, y1, x2, y2, score = _share(x1), _share(y1), _share(x2), _share(y2), _share(score)
    identity = "" if state.id is None else f'"id":{state.id},'
    return '{%s"label":%s,"score":%.4f,"box":[%.4f,%.4f,%.4f,%.4f]}' % (  # noqa: UP031 - half the time of an f-string
        (identity, _quoted(state.label), score, x1, y1, x2, y2)
    )


def _class_json(state: ClassState) -> str:
    return f'{{"label":{_quoted(state.label)},"score":{_share(state.score):.4f}}}'


def _area_fragments(areas: Mapping[str, float], digits: int) -> list[str]:
    """Labels with their shares, largest first; a share that rounds to nothing is not told."""
    shares = sorted(((_share(share), label) for label, share in areas.items()), key=lambda each: (-each[0], each[1]))
    return [f"{_quoted(label)}:{share:.{digits}f}" for share, label in shares if round(share, digits) > 0]


def _truncated_json(left_out: int) -> str:
    return f',"truncated":{left_out}' if left_out else ""


def _share(value: float) -> float:
    return min(value, 1.0) if value > 0.0 else 0.0  # NaN is not above 0


def _bool(value: bool) -> str:
    return "true" if value else "false"


@lru_cache(maxsize=4096)
def _quoted(text: str) -> str:
    """A name as a JSON string; names repeat, so each is encoded once."""
    return _encode(text[:_MAX_LABEL_CHARACTERS].encode("utf-8", "replace").decode())  # a lone surrogate is no UTF-8


def _first_that_fit(fragments: list[str], head_bytes: int) -> list[str]:
    """As many of the first fragments as fit into a payload whose other bytes are ``head_bytes`` and a few."""
    room_bytes = MAX_PAYLOAD_BYTES - head_bytes - _TRUNCATED_BYTES
    for count, fragment in enumerate(fragments):
        room_bytes -= len(fragment.encode()) + 1
        if room_bytes < 0:
            return fragments[:count]
    return fragments


_ENCODER = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False)
_encode = _ENCODER.encode
