"""The demo's live view: events as lines, and one status line that stays at the bottom of a terminal."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from collections.abc import Mapping

_SIGNS = {"new": "+", "update": "~", "end": "-"}
_COLORS = {"new": "\x1b[32m", "update": "\x1b[36m", "end": "\x1b[33m"}
_PLAIN_INTERVAL_S = 5.0


@dataclass(frozen=True, slots=True)
class Status:
    """Figures at a moment: frames and events are counts since the start, the other ones those of the last frame."""

    elapsed_s: float
    frames: int
    dropped: int
    events: int
    waiting: int
    frame_age_ms: float
    inference_ms: float


class LiveView:
    """Writes to a stream; without a terminal the status comes as a line every five seconds."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._is_terminal = stream.isatty()
        self._last = Status(0, 0, 0, 0, 0, 0, 0)
        self._last_plain_s = 0.0
        self._fps = 0.0

    def say(self, text: str) -> None:
        """A line of its own."""
        self._clear()
        self._stream.write(text + "\n")
        self._stream.flush()

    def event(self, payload: Mapping[str, Any]) -> None:
        """An event as a subscriber got it (payload schema 1)."""
        kind, thing, clock = payload["type"], payload.get("object", {}), payload["ts"][11:23]
        x1, y1, x2, y2 = thing.get("box", (0, 0, 0, 0))
        sign = _SIGNS.get(kind, "*")
        line = (
            f"{clock}  {sign} {kind:<6} {thing.get('label', ''):<9} #{thing.get('id', 0):<4} "
            f"score {thing.get('score', 0):.2f}  at {(x1 + x2) / 2:.2f}, {(y1 + y2) / 2:.2f}"
        )
        if self._is_terminal:
            line = f"{_COLORS.get(kind, '')}{line}\x1b[0m"
        self.say(line)

    def status(self, status: Status) -> None:
        """The figures now."""
        elapsed_s = status.elapsed_s - self._last.elapsed_s
        if elapsed_s > 0:
            self._fps = (status.frames - self._last.frames) / elapsed_s
        line = (
            f"{status.elapsed_s:5.1f} s  {self._fps:4.1f} fps  inference {status.inference_ms:.1f} ms  "
            f"frame age {status.frame_age_ms:.1f} ms  dropped {status.dropped}  "
            f"events {status.events}  waiting {status.waiting}"
        )
        if self._is_terminal:
            self._clear()
            self._stream.write(line[: shutil.get_terminal_size().columns - 1])  # a wrapped line could not be cleared
            self._stream.flush()
            if elapsed_s >= 1.0:
                self._last = status
        elif status.elapsed_s - self._last_plain_s >= _PLAIN_INTERVAL_S:
            self._last_plain_s = status.elapsed_s
            self._last = status
            self.say(line)

    def _clear(self) -> None:
        if self._is_terminal:
            self._stream.write("\r\x1b[2K")
