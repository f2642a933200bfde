"""Where images are built and run leaves nothing behind in the machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.arm64.image import workshop
from tests.arm64.packages import UnavailableError
from tests.arm64.userland import FOLDER
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from tests.arm64.userland import Userland

pytestmark = pytest.mark.arm64


def registrations() -> set[str]:
    return {path.name for path in Path("/proc/sys/fs/binfmt_misc").glob("edge-agent-arm64-*")}


def test_neither_the_emulator_nor_mounts_nor_processes_stay(userland: Userland) -> None:
    before = registrations()
    try:
        with workshop(userland) as shop:
            own = registrations() - before
            assert len(own) == 1
            shop.podman("info")
            pid = shop.pid
            assert Path(f"/proc/{pid}").exists()
    except UnavailableError as err:
        pytest.skip(str(err))
    assert not own & registrations()
    assert str(FOLDER) not in Path("/proc/self/mountinfo").read_text(encoding="utf-8")
    assert wait_until(lambda: not Path(f"/proc/{pid}").exists())
