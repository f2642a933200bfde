"""What a process knows of itself and of its machine."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agent.ops.process import node_name, seconds_since_process_start

MACHINE_ID = "0123456789abcdef0123456789abcdef"
TICK_S = 0.01
CHECKOUT = Path(__file__).parents[3]


def name_of(folder: Path, machine_id: bytes, host_name: str = "pi") -> str:
    path = folder / "machine-id"
    path.write_bytes(machine_id)
    return node_name(path, host_name)


def test_a_machine_has_one_name_whatever_its_host_name(tmp_path: Path) -> None:
    name = name_of(tmp_path, f"{MACHINE_ID}\n".encode())
    assert re.fullmatch(r"edge-[0-9a-f]{10}", name)
    assert name == name_of(tmp_path, MACHINE_ID.encode(), host_name="renamed")
    assert name != name_of(tmp_path, MACHINE_ID[::-1].encode())


def test_the_machine_id_is_not_given_away(tmp_path: Path) -> None:
    name = name_of(tmp_path, MACHINE_ID.encode()).removeprefix("edge-")
    assert name not in MACHINE_ID
    assert MACHINE_ID[:8] not in name


@pytest.mark.parametrize("machine_id", [b"", b"\n", b"uninitialized\n", b"\xff\xfe", b"0123"])
def test_a_machine_without_an_id_is_named_after_its_host(machine_id: bytes, tmp_path: Path) -> None:
    by_host = node_name(tmp_path / "missing", "pi")
    assert name_of(tmp_path, machine_id) == by_host
    assert name_of(tmp_path, machine_id, host_name="other") != by_host


def test_this_machine_has_a_name_that_stays() -> None:
    assert node_name() == node_name()


def test_the_age_of_a_process_counts_from_its_start_not_from_its_interpreters() -> None:
    code = "from agent.ops.process import seconds_since_process_start as s; import time; print(s(), time.monotonic())"
    before_s = time.monotonic()
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=CHECKOUT) as child:
        after_s = time.monotonic()
        told, _ = child.communicate()
    age_s, asked_at_s = map(float, told.split())
    assert asked_at_s - after_s - TICK_S <= age_s <= asked_at_s - before_s + TICK_S


def test_the_age_of_a_process_grows_with_the_clock() -> None:
    begin_s, age_s = time.monotonic(), seconds_since_process_start()
    grown_s, end_s = seconds_since_process_start() - age_s, time.monotonic()
    assert 0 <= grown_s <= end_s - begin_s + TICK_S
