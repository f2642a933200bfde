"""Logging to standard error: text for a terminal, priorities for journald, or one JSON object a line."""

from __future__ import annotations

import json
import logging
import os
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Literal, TextIO

if TYPE_CHECKING:
    from collections.abc import Mapping

_JOURNAL_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
_DEBUG_PRIORITY = 7


def configure_logging(
    level: Literal["debug", "info", "warning", "error"],
    line_format: Literal["text", "json"],
    stream: TextIO,
    environ: Mapping[str, str],
) -> None:
    """Send all records of at least ``level`` to the stream; called once, by the composition root.

    ``environ`` tells whether systemd's journal reads the stream (``JOURNAL_STREAM``): then each line of a text carries
    its priority, and no time, which the journal adds.
    """
    handler = logging.StreamHandler(stream)
    if line_format == "json":
        handler.setFormatter(_JsonFormatter())
    elif _is_journal(stream, environ):
        handler.setFormatter(_JournalFormatter("%(name)s: %(message)s"))
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s", "%H:%M:%S"))
    root = logging.getLogger()
    for former in list(root.handlers):
        root.removeHandler(former)
    root.addHandler(handler)
    root.setLevel(level.upper())


def journal_prefix(level: int, stream: TextIO, environ: Mapping[str, str]) -> str:
    """The priority before a line that is written without a logger; empty where the journal does not read it."""
    return f"<{_priority_of(level)}>" if _is_journal(stream, environ) else ""


class _JournalFormatter(logging.Formatter):
    """Every line begins with ``<N>``, the syslog priority: a traceback's lines too."""

    def format(self, record: logging.LogRecord) -> str:
        prefix = f"<{_priority_of(record.levelno)}>"
        return "\n".join(prefix + line for line in super().format(record).split("\n"))


class _JsonFormatter(logging.Formatter):
    """One object: ``ts`` (UTC), ``level``, ``logger``, ``message``, and ``exception`` where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "ts": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def _priority_of(level: int) -> int:
    return next((priority for least, priority in _JOURNAL_PRIORITIES if level >= least), _DEBUG_PRIORITY)


def _is_journal(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether the stream is the one that ``JOURNAL_STREAM`` names: a child may inherit the variable alone."""
    if "JOURNAL_STREAM" not in environ:
        return False
    try:
        status = os.fstat(stream.fileno())
    except OSError:  # a stream without a file descriptor
        return False
    return environ["JOURNAL_STREAM"] == f"{status.st_dev}:{status.st_ino}"
