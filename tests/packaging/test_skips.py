"""Skips are listed and counted, and more of them than agreed on fail the run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

PLUGIN = Path(__file__).parent.parent / "conftest.py"

TESTS = """
    import pytest

    @pytest.mark.skip(reason="no camera: plug one in")
    def test_one(): ...

    @pytest.mark.parametrize("n", [1, 2])
    def test_two(n): pytest.skip(f"no colour {n}")

    @pytest.mark.xfail(reason="known")
    def test_expected_to_fail(): assert False

    def test_passes(): ...
"""


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makeconftest(PLUGIN.read_text(encoding="utf-8"))
    pytester.makepyfile(TESTS)
    return pytester


def allow(project: pytest.Pytester, reasons: dict[str, int]) -> None:
    (project.path / "skips.json").write_text(json.dumps({"ci": reasons}), encoding="utf-8")


def test_every_skip_is_listed_under_its_reason_and_expected_failures_are_none(project: pytest.Pytester) -> None:
    result = project.runpytest()
    result.stdout.fnmatch_lines(
        ["*skips: 3*", "   1  no camera: plug one in", "   1  no colour 1", "   1  no colour 2"]
    )
    assert result.ret == pytest.ExitCode.OK


def test_agreed_skips_pass(project: pytest.Pytester) -> None:
    allow(project, {"no camera": 1, "no colour": 2})
    assert project.runpytest("--skip-allowance=ci").ret == pytest.ExitCode.OK


@pytest.mark.parametrize("reasons", [{"no camera": 1, "no colour": 1}, {"no colour": 2}, {}])
def test_one_skip_more_than_agreed_fails_the_run(project: pytest.Pytester, reasons: dict[str, int]) -> None:
    allow(project, reasons)
    result = project.runpytest("--skip-allowance=ci")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["FAILED: * skips for *are allowed*"])


def test_a_module_that_skips_itself_counts(project: pytest.Pytester) -> None:
    allow(project, {"no camera": 1, "no colour": 2})
    project.makepyfile(test_whole="import pytest\npytest.importorskip('no_such_module')")
    result = project.runpytest("--skip-allowance=ci")
    result.stdout.fnmatch_lines(["FAILED: 1 skips for*no_such_module*"])
    assert result.ret == pytest.ExitCode.TESTS_FAILED


def test_a_run_without_an_allowance_is_named(project: pytest.Pytester) -> None:
    allow(project, {})
    result = project.runpytest("--skip-allowance=nightly")
    result.stderr.fnmatch_lines(["*expected one of ci, got 'nightly'*"])
    assert result.ret == pytest.ExitCode.USAGE_ERROR
