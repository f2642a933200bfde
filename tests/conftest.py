"""Lists and counts skips; with ``--skip-allowance=RUN`` a run that skips more than was agreed on fails.

``tests/skips.json`` holds, for each kind of run, the reasons that may occur (as beginnings of the reason's text) and
how often each may. A test that starts to skip is thereby a change that somebody makes on purpose, and reads in a diff.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from collections.abc import Mapping

ALLOWANCES = Path(__file__).with_name("skips.json")

# Tests share their machine: a slow moment is no failure.
settings.register_profile("no-deadline", parent=settings(), deadline=None)
settings.load_profile("no-deadline")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--skip-allowance", metavar="RUN", help=f"fail on more skips than {ALLOWANCES.name} allows RUN")


def pytest_configure(config: pytest.Config) -> None:
    run = config.getoption("--skip-allowance")
    allowances = json.loads(ALLOWANCES.read_text(encoding="utf-8")) if run else {}
    if run and run not in allowances:
        raise pytest.UsageError(f"--skip-allowance: expected one of {', '.join(allowances)}, got {run!r}")
    config.pluginmanager.register(SkipCount(allowances[run] if run else None), "skip-count")


class SkipCount:
    """Counts skips by reason; ``allowed`` maps the beginning of a reason to its greatest count, None allows all."""

    def __init__(self, allowed: Mapping[str, int] | None) -> None:
        self.allowed = allowed
        self.places_by_reason: dict[str, list[str]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped and not hasattr(report, "wasxfail"):
            self._count(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.skipped:
            self._count(report)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.excess() and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        count = sum(map(len, self.places_by_reason.values()))
        terminalreporter.section(f"skips: {count}")
        for reason, places in sorted(self.places_by_reason.items()):
            terminalreporter.line(f"{len(places):4}  {reason}")
            for place in places:
                terminalreporter.line(f"        {place}")
        for complaint in self.excess():
            terminalreporter.line(f"FAILED: {complaint}", red=True)

    def excess(self) -> list[str]:
        """What was skipped beyond the allowance, one line a reason; empty when nothing was."""
        if self.allowed is None:
            return []
        counts: Counter[str] = Counter()
        for reason, places in self.places_by_reason.items():
            counts[next((known for known in self.allowed if reason.startswith(known)), reason)] += len(places)
        return [
            f"{count} skips for {reason!r}, {self.allowed.get(reason, 0)} are allowed; "
            f"mend the tests, or allow them in tests/{ALLOWANCES.name}"
            for reason, count in counts.items()
            if count > self.allowed.get(reason, 0)
        ]

    def _count(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        self.places_by_reason.setdefault(reason.removeprefix("Skipped: "), []).append(report.nodeid)
