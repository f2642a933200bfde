"""Log lines for terminals, for journald and for programs."""

from __future__ import annotations

import io
import json
import logging
import os
from typing import TYPE_CHECKING, Literal, TextIO

import pytest

from agent.ops.log import configure_logging, journal_prefix

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def _root_logger_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def logged(
    line_format: Literal["text", "json"], level: Literal["debug", "info", "warning", "error"] = "debug"
) -> list[str]:
    stream = io.StringIO()
    configure_logging(level, line_format, stream, {})
    _log_one_of_each()
    return stream.getvalue().splitlines()


def _log_one_of_each() -> None:
    log = logging.getLogger("agent.test")
    log.debug("detail")
    log.info("up")
    log.warning("down")
    log.error("broken")


def test_text_lines_carry_time_level_and_logger() -> None:
    lines = logged("text")
    assert len(lines) == 4
    assert lines[1][8:] == " INFO    agent.test: up"


def test_records_below_the_level_are_left_out() -> None:
    assert [line.split(": ")[-1] for line in logged("text", "warning")] == ["down", "broken"]


def test_configuring_twice_does_not_write_twice() -> None:
    logged("text")
    assert len(logged("text")) == 4


def test_json_is_one_object_a_line() -> None:
    lines = [json.loads(line) for line in logged("json")]
    assert [(line["level"], line["message"]) for line in lines] == [
        ("debug", "detail"),
        ("info", "up"),
        ("warning", "down"),
        ("error", "broken"),
    ]
    assert all(line["logger"] == "agent.test" and line["ts"].endswith("+00:00") for line in lines)


def test_an_exception_stays_in_its_json_line() -> None:
    stream = io.StringIO()
    configure_logging("info", "json", stream, {})
    try:
        raise ValueError("because")
    except ValueError:
        logging.getLogger("agent.test").exception("failed")
    (line,) = stream.getvalue().splitlines()
    assert "ValueError: because" in json.loads(line)["exception"]


def journal_of(stream: TextIO) -> dict[str, str]:
    status = os.fstat(stream.fileno())
    return {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}


def test_under_journald_every_line_begins_with_its_priority(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with path.open("w") as stream:
        configure_logging("debug", "text", stream, journal_of(stream))
        _log_one_of_each()
        logging.getLogger("agent.test").critical("two\nlines")
    assert path.read_text().splitlines() == [
        "<7>agent.test: detail",
        "<6>agent.test: up",
        "<4>agent.test: down",
        "<3>agent.test: broken",
        "<2>agent.test: two",
        "<2>lines",
    ]


def test_lines_without_a_logger_carry_a_priority_only_for_the_journal(tmp_path: Path) -> None:
    with (tmp_path / "journal").open("w") as stream:
        assert journal_prefix(logging.ERROR, stream, journal_of(stream)) == "<3>"
        assert journal_prefix(logging.ERROR, stream, {}) == ""


def test_json_stays_json_under_journald(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with path.open("w") as stream:
        configure_logging("info", "json", stream, journal_of(stream))
        _log_one_of_each()
    assert json.loads(path.read_text().splitlines()[0])["message"] == "up"


def test_a_stream_that_is_not_the_journal_gets_plain_text(tmp_path: Path) -> None:
    path = tmp_path / "elsewhere"
    with path.open("w") as stream:
        configure_logging("info", "text", stream, {"JOURNAL_STREAM": "1:1"})
        _log_one_of_each()
    assert "<" not in path.read_text()


def test_a_stream_without_a_descriptor_gets_plain_text() -> None:
    stream = io.StringIO()
    configure_logging("info", "text", stream, {"JOURNAL_STREAM": "1:1"})
    _log_one_of_each()
    assert "<" not in stream.getvalue()
