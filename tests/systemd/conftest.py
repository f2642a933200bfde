"""One booted machine for all these tests, which follow each other on it as on a device: install, run, upgrade, remove.

The files' names give that order. A test alone still finds what it needs: the fixtures do the steps before it.
"""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.booted import CannotBootError, Machine, booted, why_not_here
from tests.support.debian import minimal_debian, wheels
from tests.support.mosquitto import Mosquitto, mosquitto_executable
from tests.support.service import PASSWORD, USER, Installation, Service, install, password_file

if TYPE_CHECKING:
    from collections.abc import Iterator

CHECKOUT = Path(__file__).parents[2]
CACHE = CHECKOUT / "out" / "systemd"
INSTALLED_FROM = ["pyproject.toml", "README.md", "LICENSE", "agent", "build_models", "systemd", "configs", "docs"]
NOT_INSTALLED = shutil.ignore_patterns("__pycache__", ".ruff_cache")


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this checkout, which stays as it is during the tests, or is changed by them."""
    copy = tmp_path_factory.mktemp("checkout")
    copy.chmod(0o755)  # the service reads a bundle in it
    for name in INSTALLED_FROM:
        source = CHECKOUT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=NOT_INSTALLED)
        else:
            shutil.copy(source, copy)
    return copy


@pytest.fixture(scope="session")
def machine(checkout: Path) -> Iterator[Machine]:
    """A bare machine that has the checkout and the wheels."""
    reason = why_not_here()
    if reason is not None:
        pytest.skip(reason)
    try:
        with ThreadPoolExecutor() as pool:
            archive, wheelhouse = pool.submit(minimal_debian, CACHE), pool.submit(wheels, CACHE, "web")
            shared = {"/srv/edge-agent": checkout, "/srv/wheels": wheelhouse.result()}
            with booted(archive.result(), shared) as up:
                yield up
    except CannotBootError as err:
        pytest.skip(str(err))


@pytest.fixture(scope="session")
def installation(machine: Machine) -> Installation:
    """What the installer did on the bare machine, tried out, for the first and for the second time."""
    return install(machine)


@pytest.fixture(scope="session")
def service(
    installation: Installation, machine: Machine, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """The installed service, configured, with a broker that knows its password."""
    executable = mosquitto_executable()
    if executable is None:
        pytest.skip("mosquitto is not installed")
    folder = tmp_path_factory.mktemp("mosquitto")
    passwords = password_file(folder / "passwords", USER, PASSWORD)
    broker = Mosquitto(executable, folder, extra=f"password_file {passwords}")
    broker.start()
    service = Service(machine, broker)
    yield service
    service.close()
    broker.stop()


@pytest.fixture(scope="session")
def hung_since_s(service: Service) -> float:
    """When a second service of the same unit was stopped with SIGSTOP; its watchdog has the other tests' time."""
    return service.hang_a_copy()


@pytest.fixture
def running(service: Service) -> Service:
    """The service, active and telling of events."""
    service.ensure_running()
    return service
