"""What the tests on emulated ARM64 share; they end with a table of what was measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.arm64.packages import UnavailableError
from tests.arm64.sides import Side, run_sides
from tests.arm64.userland import CHECKOUT, Userland, make_userland
from tests.support.mosquitto import mosquitto

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["mosquitto"]

BUNDLES = sorted(path.parent for path in (CHECKOUT / "agent/demo/bundles").glob("*/manifest.json"))
_MEASURED = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_MEASURED] = []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    lines = terminalreporter.config.stash[_MEASURED]
    if lines:
        terminalreporter.section("arm64")
        for line in lines:
            terminalreporter.line(line)


@pytest.fixture(scope="session")
def tell(pytestconfig: pytest.Config) -> Callable[[Sequence[str]], None]:
    """Puts lines at the end of the test run."""
    return pytestconfig.stash[_MEASURED].extend


@pytest.fixture(scope="session")
def userland() -> Userland:
    """The emulator and what runs in it."""
    try:
        return make_userland()
    except UnavailableError as err:
        pytest.skip(str(err))


@pytest.fixture(scope="session")
def sides(userland: Userland, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Side]:
    """The subject's results by CPU."""
    return run_sides(userland, tmp_path_factory.mktemp("sides"), BUNDLES)
