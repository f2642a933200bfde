"""Progress: plain lines into a file or a pipe; a bar only where somebody watches."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("tqdm", reason="needs the build extra")

from build_models.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.build


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def ticks() -> Iterator[float]:
    yield from (10.0, 11.5, 20.0, 20.25)


def run_two_stages(stream: io.StringIO) -> list[int]:
    times = ticks()
    progress = Progress(2, stream, clock=lambda: next(times))
    with progress.stage("source") as ended:
        ended("two inputs")
    with progress.stage("quantise") as ended:
        things = list(progress.track(range(3), total=3, unit="picture"))
        ended("all done")
    return things


def test_without_a_terminal_there_is_one_plain_line_a_stage() -> None:
    stream = io.StringIO()
    assert run_two_stages(stream) == [0, 1, 2]
    assert stream.getvalue() == "[1/2] source           two inputs (1.5 s)\n[2/2] quantise         all done (0.2 s)\n"


def test_a_terminal_also_shows_what_is_going_on() -> None:
    stream = Terminal()
    assert run_two_stages(stream) == [0, 1, 2]
    assert "[1/2] source           ...\r" in stream.getvalue()
    assert "picture" in stream.getvalue()


def test_a_stage_that_fails_is_named_and_its_error_goes_on() -> None:
    stream = io.StringIO()
    times = ticks()
    progress = Progress(2, stream, clock=lambda: next(times))
    with pytest.raises(ValueError, match="broken"), progress.stage("source"):
        raise ValueError("broken")
    assert stream.getvalue() == "[1/2] source           failed (1.5 s)\n"
