"""The demo's view on a terminal and in a file."""

from __future__ import annotations

import io
import os

import pytest

from agent.demo.view import LiveView, Status

CLEAR = "\r\x1b[2K"


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def event(kind: str = "new") -> dict[str, object]:
    thing = {"id": 3, "label": "circle", "score": 0.876, "box": [0.1, 0.2, 0.3, 0.6]}
    return {"type": kind, "ts": "2025-01-02T03:04:05.678Z", "object": thing}


def status(elapsed_s: float, frames: int = 0) -> Status:
    return Status(elapsed_s, frames, dropped=1, events=2, waiting=3, frame_age_ms=4.25, inference_ms=5.75)


@pytest.mark.parametrize(("kind", "sign"), [("new", "+"), ("update", "~"), ("end", "-"), ("later", "*")])
def test_an_event_is_a_line_with_time_object_and_place(kind: str, sign: str) -> None:
    stream = io.StringIO()
    LiveView(stream).event(event(kind))
    assert stream.getvalue() == f"03:04:05.678  {sign} {kind:<6} circle    #3    score 0.88  at 0.20, 0.40\n"


def test_a_terminal_shows_events_in_colour_and_a_file_does_not() -> None:
    terminal, file = Terminal(), io.StringIO()
    LiveView(terminal).event(event())
    LiveView(file).event(event())
    assert "\x1b[32m" in terminal.getvalue()
    assert "\x1b" not in file.getvalue()


def test_an_event_without_an_object_is_still_a_line() -> None:
    stream = io.StringIO()
    LiveView(stream).event({"type": "changed", "ts": "2025-01-02T03:04:05.678Z", "class": {"label": "red"}})
    assert stream.getvalue().startswith("03:04:05.678  * changed")


def test_on_a_terminal_the_status_stays_on_one_line_that_events_push_down() -> None:
    terminal = Terminal()
    view = LiveView(terminal)
    view.status(status(0.2))
    view.status(status(0.4))
    view.say("text")
    shown = terminal.getvalue()
    assert shown.count(CLEAR) == 3
    assert shown.endswith(f"{CLEAR}text\n")
    assert shown.count("\n") == 1


def test_the_status_never_wraps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((40, 24)))
    terminal = Terminal()
    LiveView(terminal).status(status(0.2))
    assert len(terminal.getvalue().removeprefix(CLEAR)) == 39


def test_without_a_terminal_the_status_is_a_line_every_five_seconds() -> None:
    stream = io.StringIO()
    view = LiveView(stream)
    for tenths in range(121):
        view.status(status(tenths / 10, frames=tenths * 3))
    lines = stream.getvalue().splitlines()
    assert [line.split(" s ")[0].strip() for line in lines] == ["5.0", "10.0"]
    assert lines[1] == " 10.0 s  30.0 fps  inference 5.8 ms  frame age 4.2 ms  dropped 1  events 2  waiting 3"


def test_the_rate_is_that_of_the_last_moments_not_of_all_time() -> None:
    terminal = Terminal()
    view = LiveView(terminal)
    for elapsed_s, frames in ((0.5, 0), (1.0, 0), (1.5, 15), (2.0, 30)):
        view.status(status(elapsed_s, frames))
    assert terminal.getvalue().rpartition(CLEAR)[2].startswith("  2.0 s  30.0 fps")
