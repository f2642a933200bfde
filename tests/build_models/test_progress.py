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
    yield from (10.0, 11.5, 20.0, 20.0, 20.0, 20.0, 20.0, 20.25)


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


def tracked(seconds_each: float, stream: io.StringIO) -> list[str]:
    """Lines said while ten things are worked on, each for so long."""
    now = [0.0]
    progress = Progress(1, stream, clock=lambda: now[0])
    with progress.stage("search") as ended:
        for _ in progress.track(range(10), 10, "picture", "judging"):
            now[0] += seconds_each
        ended("done")
    return [" ".join(line.split()) for line in stream.getvalue().splitlines()]


def test_a_log_tells_now_and_then_how_long_it_will_take() -> None:
    assert tracked(11.0, io.StringIO()) == [
        "judging 2 of 10, about 88 s left",
        "judging 4 of 10, about 66 s left",
        "judging 6 of 10, about 44 s left",
        "judging 8 of 10, about 22 s left",
        "[1/1] search done (110.0 s)",
    ]


def test_what_is_soon_done_is_not_told_of() -> None:
    assert tracked(1.0, io.StringIO()) == ["[1/1] search done (10.0 s)"]


@pytest.mark.parametrize(("stream", "lines"), [(io.StringIO(), 1), (Terminal(), 4)], ids=["log", "terminal"])
def test_work_that_counts_by_itself_is_told_too(stream: io.StringIO, lines: int) -> None:
    now = [0.0]
    progress = Progress(1, stream, clock=lambda: now[0])
    with progress.stage("calibrate"):
        tell = progress.counter("picture", "calibrating")
        for done in range(1, 5):
            now[0] += 6.0
            tell(done, 8)
    assert stream.getvalue().count("about") == lines
    assert "calibrating 4 of 8 pictures, about 24 s left" in stream.getvalue()


def test_what_a_stage_found_stands_below_its_head() -> None:
    stream = io.StringIO()
    progress = Progress(1, stream)
    with progress.stage("search"):
        progress.say("min_max: drop 0")
    assert stream.getvalue().endswith(" min_max: drop 0\n")
    assert "\r" not in stream.getvalue()
