"""Disks fail: the outbox goes on from memory, comes back by itself, and reports what it could not keep."""

from __future__ import annotations

import json
import logging
import os
import resource
import shutil
import sqlite3
import subprocess
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.delivery import ballast, outbox_file
from agent.delivery.outbox_file import OutboxFile
from tests.support.delivery import ManualClock, event, id_of, make_outbox, number_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from agent.delivery.outbox import Outbox
    from agent.delivery.rows import Row


def all_rows(outbox: Outbox) -> list[Row]:
    rows: list[Row] = []
    while batch := outbox.next_batch(rows[-1].seq if rows else 0, 100):
        rows += batch
    return rows


def gap_reasons(outbox: Outbox) -> list[str]:
    return [json.loads(row.payload)["reason"] for row in all_rows(outbox) if row.kind == "gap"]


def numbers(outbox: Outbox) -> list[int]:
    return [number_of(row.payload) for row in all_rows(outbox) if row.kind != "gap"]


def killed_outbox(folder: Path, to: Path, *, events: int, checkpointed: bool) -> tuple[Path, str]:
    """The files a killed process with so many events leaves, in its log or in the database; and its epoch."""
    box = make_outbox(folder)
    for number in range(events):
        entry_id = box.append(event(number))
    if checkpointed:
        assert box._file is not None
        box._file._commits = 10_000
        box.maintain()
    shutil.copytree(folder, to)
    (to / "outbox.db-shm").unlink()
    if checkpointed:
        (to / "outbox.db-wal").unlink()
    box.close()
    return to / "outbox.db", entry_id.split(":")[1]


def overwrite(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


@pytest.mark.parametrize("checkpointed", [True, False], ids=["database", "log"])
def test_the_last_4_kib_overwritten_give_a_new_epoch_and_a_gap(
    tmp_path: Path, checkpointed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    path, old_epoch = killed_outbox(tmp_path / "a", tmp_path / "b", events=100, checkpointed=checkpointed)
    victim = path if checkpointed else path.with_name("outbox.db-wal")
    overwrite(victim, victim.stat().st_size - 4096, b"\xa5" * 4096)
    box = make_outbox(path.parent)
    assert box.degraded is None
    assert box.append(event(1000)).split(":")[1] != old_epoch
    box.maintain()
    assert gap_reasons(box) == ["outbox_damaged"]
    assert 1000 in numbers(box)
    assert any(record.levelno == logging.ERROR for record in caplog.records)
    box.close()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), in_log=st.booleans())
def test_one_flipped_bit_never_stops_delivery_nor_garbles_an_event(
    tmp_path_factory: pytest.TempPathFactory, share: float, bit: int, in_log: bool
) -> None:
    """Whatever bit it is, what is handed out is what was appended, in order, and new events follow."""
    folder = tmp_path_factory.mktemp("flip")
    path, old_epoch = killed_outbox(folder / "a", folder / "b", events=60, checkpointed=not in_log)
    victim = path.with_name("outbox.db-wal") if in_log else path
    whole = bytearray(victim.read_bytes())
    whole[int(share * len(whole))] ^= 1 << bit
    victim.write_bytes(whole)
    box = make_outbox(path.parent)
    new_id = box.append(event(1000))
    assert new_id.split(":")[1] != old_epoch
    got = [row for row in all_rows(box) if row.kind != "gap"]
    box.maintain()
    assert [number_of(row.payload) for row in got] == sorted(number_of(row.payload) for row in got)
    assert id_of(got[-1].payload) == new_id
    lost = 61 - len(got)
    # The header of the log's last frame is the one place where a loss of one event cannot be told from none.
    assert lost <= 1 or "outbox_damaged" in gap_reasons(box)
    assert box.degraded is None
    box.close()


@pytest.mark.parametrize("at", [0, 17, 18, 19, 28, 47, 63, 3841, 3853])
def test_one_flipped_bit_in_header_or_schema_is_survived(tmp_path: Path, at: int) -> None:
    """Places where SQLite alone would go on as if read-only, empty, or with another table's rows."""
    path, _ = killed_outbox(tmp_path / "a", tmp_path / "b", events=60, checkpointed=True)
    whole = path.read_bytes()
    for bit in range(8):
        for old in path.parent.iterdir():
            old.unlink()
        garbled = bytearray(whole)
        garbled[at] ^= 1 << bit
        path.write_bytes(garbled)
        box = make_outbox(path.parent)
        box.append(event(1000))
        box.maintain()
        assert numbers(box) in ([*range(60), 1000], [1000])
        assert len(numbers(box)) == 61 or gap_reasons(box) == ["outbox_damaged"]
        assert box.degraded is None
        box.close()


def test_a_garbled_row_is_dropped_counted_and_reported(tmp_path: Path) -> None:
    path, _ = killed_outbox(tmp_path / "a", tmp_path / "b", events=10, checkpointed=True)
    path.write_bytes(path.read_bytes().replace(b'"id":5,"w"', b'"id":6,"w"'))
    clock = ManualClock()
    box = make_outbox(path.parent, clock=clock)
    assert numbers(box) == [0, 1, 2, 3, 4, 6, 7, 8, 9]
    clock.now_s += 10
    box.maintain()
    assert gap_reasons(box) == ["outbox_damaged"]
    assert box.counts().dropped == {"unknown": 1}
    box.close()


@pytest.mark.parametrize("content", [b"not a database, but long enough to look at" * 200, b"\0" * 8192])
def test_a_file_that_is_no_database_is_moved_aside(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "outbox.db").write_bytes(content)
    box = make_outbox(tmp_path)
    box.append(event(1))
    assert numbers(box) == [1]
    assert (tmp_path / "outbox.db.damaged").read_bytes() == content
    box.maintain()
    assert gap_reasons(box) == ["outbox_damaged"]
    box.close()


def test_a_database_of_another_layout_is_moved_aside(tmp_path: Path) -> None:
    make_outbox(tmp_path).close()
    db = sqlite3.connect(tmp_path / "outbox.db")
    db.execute("PRAGMA user_version=99")
    db.close()
    box = make_outbox(tmp_path)
    box.append(event(1))
    assert numbers(box) == [1]
    box.close()


def test_a_sound_restart_reports_no_gap(tmp_path: Path) -> None:
    path, _ = killed_outbox(tmp_path / "a", tmp_path / "b", events=20, checkpointed=False)
    box = make_outbox(path.parent)
    box.maintain()
    assert gap_reasons(box) == []
    assert len(numbers(box)) == 20
    box.close()


@contextmanager
def failing(monkeypatch: pytest.MonkeyPatch, error: Exception, *methods: str) -> Iterator[None]:
    def fail(*_: object, **__: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        for method in methods:
            patch.setattr(OutboxFile, method, fail)
        yield


DISK_ERRORS = [
    sqlite3.OperationalError("disk I/O error"),
    sqlite3.OperationalError("attempt to write a readonly database"),
    sqlite3.OperationalError("database or disk is full"),
    sqlite3.DatabaseError("database disk image is malformed"),
]


@pytest.mark.parametrize("error", DISK_ERRORS, ids=str)
def test_a_failing_disk_degrades_to_memory_and_heals_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    clock = ManualClock()
    box = make_outbox(tmp_path, clock=clock)
    box.append(event(1))
    with failing(monkeypatch, error, "insert", "insert_all"):
        box.append(event(2))
        box.append(event(3))
        assert box.degraded == str(error)
        box.maintain()
        assert box.degraded is not None
        assert numbers(box) == [1, 2, 3], "what is in memory goes out all the same"
        assert box.counts().in_memory == 2
    box.append(event(4))
    assert box.counts().in_memory == 3, "order is kept: nothing passes what waits in memory"
    clock.now_s += 6
    box.maintain()
    assert box.degraded is None
    assert box.counts().in_memory == 0
    box.append(event(5))
    assert numbers(box) == [1, 2, 3, 4, 5]
    box.close()
    box = make_outbox(tmp_path)
    assert numbers(box) == [1, 2, 3, 4, 5]
    box.close()


def test_a_row_that_cannot_be_deleted_is_not_handed_out_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = ManualClock()
    box = make_outbox(tmp_path, clock=clock)
    for number in (1, 2, 3):
        box.append(event(number))
    with failing(monkeypatch, DISK_ERRORS[2], "delete"):
        box.delete([1, 2])
        assert numbers(box) == [3]
        assert box.pending() == 1
    clock.now_s += 6
    box.maintain()
    assert box.degraded is None
    assert box._undeleted == set()
    assert numbers(box) == [3]
    box.close()


@pytest.mark.parametrize("methods", [("batch",), ("sync",), ("bury", "delete"), ("insert_all",)], ids=str)
def test_no_method_raises_for_the_disks_sake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, methods: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    clock = ManualClock()
    box = make_outbox(tmp_path, clock=clock)
    box.append(event(1))
    box.append(event(2))
    [row, _] = box.next_batch(0, 2)
    box._losses.add_unknown("test")
    with failing(monkeypatch, DISK_ERRORS[0], *methods):
        box.next_batch(0, 1)
        box.bury(row, "test")
        box.maintain()
    assert "disk I/O error" in caplog.text
    clock.now_s += 6
    box.maintain()
    assert box.degraded is None
    box.maintain()
    assert numbers(box) == [2]
    assert gap_reasons(box) == ["test"]
    box.close()


def test_memory_is_bounded_and_drops_by_worth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = ManualClock()
    box = make_outbox(tmp_path, clock=clock, max_size_mib=16)
    with failing(monkeypatch, DISK_ERRORS[0], "insert", "insert_all"):
        for number in range(8000):
            box.append(event(number, "update" if number % 2 else "new"))
        counts = box.counts()
        assert 3000 < counts.in_memory < 7000
        assert counts.dropped == {"update": 8000 - counts.in_memory}
        clock.now_s += 6
        box.maintain()
        assert gap_reasons(box) == ["disk_unavailable"], "losses in memory are reported even from memory"
    clock.now_s += 6
    box.maintain()
    assert box.degraded is None
    rows = all_rows(box)
    assert sum(row.kind == "new" for row in rows) == 4000
    assert [row.seq for row in rows] == sorted(row.seq for row in rows)
    box.close()


def test_a_folder_that_cannot_be_made_means_memory_until_it_can(tmp_path: Path) -> None:
    clock = ManualClock()
    (tmp_path / "state").write_text("a file where the folder should be")
    box = make_outbox(tmp_path / "state", clock=clock)
    assert box.degraded is not None
    box.append(event(1))
    assert numbers(box) == [1]
    (tmp_path / "state").unlink()
    clock.now_s += 6
    box.maintain()
    assert box.degraded is None
    box.close()
    box = make_outbox(tmp_path / "state")
    assert numbers(box) == [1]
    box.close()


def test_events_left_in_memory_at_the_end_are_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "state").write_text("a file where the folder should be")
    box = make_outbox(tmp_path / "state")
    box.append(event(1))
    box.close()
    assert "1 events in memory are lost" in caplog.text


def test_rows_delivered_while_the_file_is_away_are_not_handed_out_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = ManualClock()
    box = make_outbox(tmp_path, clock=clock)
    box.append(event(1))
    box.append(event(2))
    with failing(monkeypatch, DISK_ERRORS[0], "insert", "_prepare"):
        box.append(event(3))
        box.maintain()
        assert box._file is None
        box.delete([1])
    clock.now_s += 6
    box.maintain()
    assert numbers(box) == [2, 3]
    box.close()


def test_no_free_descriptors_are_trouble_not_an_end(tmp_path: Path) -> None:
    clock = ManualClock()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    in_use = max(int(name) for name in os.listdir("/proc/self/fd"))  # noqa: PTH208 - numbers, not paths
    fillers = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (in_use + 1, hard))
        try:
            while True:
                fillers.append(os.open("/dev/null", os.O_RDONLY))
        except OSError:
            box = make_outbox(tmp_path, clock=clock)
        assert box.degraded is not None
        box.append(event(1))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for filler in fillers:
            os.close(filler)
    clock.now_s += 6
    box.maintain()
    assert box.degraded is None
    assert numbers(box) == [1]
    box.close()


@contextmanager
def small_disk(folder: Path, options: str) -> Iterator[Callable[[str], int]]:
    """A tmpfs of its own; gives a function that remounts it."""
    folder.mkdir()
    mount, umount = shutil.which("mount"), shutil.which("umount")
    if mount is None or umount is None:
        pytest.skip("needs mount")
    made = subprocess.run([mount, "-t", "tmpfs", "-o", options, "none", folder], check=False, capture_output=True)
    if made.returncode:
        pytest.skip("needs the right to mount a small disk")
    try:
        yield lambda how: subprocess.check_call([mount, "-o", f"remount,{how}", folder])
    finally:
        subprocess.run([umount, "-l", folder], check=True)


def fill_up(hog: Path) -> None:
    with hog.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(b"x" * 65536):
            pass


def test_a_disk_that_fills_up_and_is_relieved_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ballast, "_SPARE_BYTES", 1024 * 1024)
    clock = ManualClock()
    with small_disk(tmp_path / "disk", "size=6m"):
        folder = tmp_path / "disk" / "state"
        box = make_outbox(folder, clock=clock, max_size_mib=64)
        box.maintain()
        assert (folder / "outbox.db.ballast").exists()
        hog = tmp_path / "disk" / "hog"
        fill_up(hog)
        number = 0
        while box.degraded is None:
            box.append(event(number))
            number += 1
        box.maintain()
        assert not (folder / "outbox.db.ballast").exists()
        delivered = [row.seq for row in box.next_batch(0, 16)]
        box.delete(delivered)
        for number in range(number, number + 3000):  # noqa: B020 - counts on
            box.append(event(number))
        clock.now_s += 6
        box.maintain()
        assert numbers(box) == list(range(len(delivered), number + 1))
        hog.unlink()
        clock.now_s += 6
        box.maintain()
        assert box.degraded is None
        assert box.counts().in_memory == 0
        assert box.counts().dropped == {}
        assert numbers(box) == list(range(len(delivered), number + 1))
        box.close()


def test_a_read_only_disk_means_memory_until_it_is_writable(tmp_path: Path) -> None:
    clock = ManualClock()
    with small_disk(tmp_path / "disk", "size=8m") as remount:
        box = make_outbox(tmp_path / "disk", clock=clock)
        box.append(event(1))
        box.close()
        remount("ro")
        box = make_outbox(tmp_path / "disk", clock=clock)
        assert box.degraded is not None
        box.append(event(2))
        assert numbers(box) == [2]
        remount("rw")
        clock.now_s += 6
        box.maintain()
        assert box.degraded is None
        assert numbers(box) == [1, 2]
        box.close()


def test_quarantine_keeps_one_earlier_file_at_most(tmp_path: Path) -> None:
    for round_ in range(3):
        (tmp_path / "outbox.db").write_bytes(f"garbage {round_}".encode() * 100)
        make_outbox(tmp_path).close()
        (tmp_path / "outbox.db").unlink()
    assert len(list(tmp_path.glob("*.damaged*"))) == 1
    assert outbox_file.REASON_DAMAGED == "outbox_damaged"
