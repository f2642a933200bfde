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
_TOLD_EVERY_S = 20.0
_REDRAWN_EVERY_S = 0.5


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

    def say(self, text: str) -> None:
        """A line about what the stage has found so far."""
        self._write(f"{' ' * len(self._head())} {text}\n")

    def track(self, things: Iterable[T], total: int, unit: str, what: str = "") -> Iterator[T]:
        """The same things, with a bar while they are worked on; in a log, now and then a line with the time left."""
        if self._stream.isatty():
            desc = f"{self._head()} {what}".rstrip()
            yield from tqdm(things, desc=desc, total=total, unit=unit, file=self._stream, leave=False)
            return
        began_s = told_s = self._clock()
        for number, thing in enumerate(things):
            now_s = self._clock()
            if number and now_s - told_s >= _TOLD_EVERY_S:
                left_s = (now_s - began_s) / number * (total - number)
                self.say(f"{what or unit} {number} of {total}, about {left_s:.0f} s left")
                told_s = now_s
            yield thing

    def counter(self, unit: str, what: str) -> Callable[[int, int], None]:
        """For work that counts by itself: call what this gives with how much is done, and of how much."""
        began_s = told_s = self._clock()

        def tell(done: int, total: int) -> None:
            nonlocal told_s
            now_s = self._clock()
            if now_s - told_s >= (_REDRAWN_EVERY_S if self._stream.isatty() else _TOLD_EVERY_S):
                left_s = (now_s - began_s) / done * (total - done)
                text = f"{what} {done} of {total} {unit}s, about {left_s:.0f} s left"
                if self._stream.isatty():
                    self._write(f"{self._head()} {text} \r")
                else:
                    self.say(text)
                told_s = now_s

        return tell

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()

    def _head(self) -> str:
        return f"[{self._number}/{self._total}] {self._name:<16}"
