"""Progress for people: a line per stage that has ended, a bar while one works on many things."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO, TypeVar

from tqdm import tqdm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

T = TypeVar("T")


class Progress:
    """Writes plain lines; a bar, and the stage that works, only on a terminal.

    Args:
        total_stages: how many will begin.
        stream: by default standard error.
        clock: seconds, monotonic.
    """

    def __init__(
        self, total_stages: int, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream = stream or sys.stderr
        self._total = total_stages
        self._clock = clock
        self._number = 0
        self._name = ""

    @contextmanager
    def stage(self, name: str) -> Iterator[Callable[[str], None]]:
        """While a stage works; call what this gives with the result in a few words. An error is left to be told."""
        self._number += 1
        self._name = name
        began_s = self._clock()
        if self._stream.isatty():
            self._write(f"{self._head()} ...\r")

        def end(said: str) -> None:
            self._write(f"{self._head()} {said} ({self._clock() - began_s:.1f} s)\n")

        try:
            yield end
        except BaseException:
            end("failed")
            raise

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

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()

    def _head(self) -> str:
        return f"[{self._number}/{self._total}] {self._name:<16}"
