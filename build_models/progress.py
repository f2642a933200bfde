"""Progress for people: a line per finished stage, a bar while one works on many things."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, TextIO, TypeVar

from tqdm import tqdm

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

T = TypeVar("T")


class Progress:
    """Writes to standard error; bars only on a terminal."""

    def __init__(self, total_stages: int, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._total = total_stages
        self._number = 0
        self._name = ""
        self._began_s = 0.0

    def begin(self, name: str) -> None:
        """A stage begins."""
        self._number += 1
        self._name = name
        self._began_s = time.monotonic()
        if self._stream.isatty():
            self._stream.write(f"{self._head()} ...\r")
            self._stream.flush()

    def done(self, said: str) -> None:
        """The stage has ended; ``said`` is its result in a few words."""
        self._stream.write(f"{self._head()} {said} ({time.monotonic() - self._began_s:.1f} s)\n")
        self._stream.flush()

    def track(self, things: Iterable[T], total: int, unit: str) -> Iterator[T]:
        """The same things, with a bar while they are worked on."""
        bar = tqdm(
            things,
            desc=self._head(),
            total=total,
            unit=unit,
            file=self._stream,
            leave=False,
            disable=not self._stream.isatty(),
        )
        return iter(bar)

    def _head(self) -> str:
        return f"[{self._number}/{self._total}] {self._name:<16}"
