"""The outbox keeps order, ids and events through ends clean and unclean, and says what it had to drop."""

from __future__ import annotations

import json
import shutil
import threading
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.errors import ConfigError
from tests.support.delivery import EVENTS_TOPIC, NODE, TOPICS, ManualClock, event, id_of, make_outbox, number_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from agent.delivery.outbox import Outbox
    from agent.delivery.rows import Row


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    box = make_outbox(tmp_path)
    yield box
    box.close()


def all_rows(outbox: Outbox) -> list[Row]:
    rows: list[Row] = []
    while batch := outbox.next_batch(rows[-1].seq if rows else 0, 100):
        rows += batch
    return rows


def numbers(outbox: Outbox) -> list[int]:
    return [number_of(row.payload) for row in all_rows(outbox) if row.kind != "gap"]


def snapshot(folder: Path, to: Path) -> Path:
    """What a killed process leaves behind: the files as they are, without the lock of a living one."""
    shutil.copytree(folder, to, dirs_exist_ok=True)
    (to / "outbox.db-shm").unlink(missing_ok=True)
    return to


def epoch_of(entry_id: str) -> str:
    return entry_id.split(":")[1]


def test_an_id_names_node_epoch_and_sequence(outbox: Outbox) -> None:
    first, second = outbox.append(event(1)), outbox.append(event(2))
    node, epoch, seq = first.split(":")
    assert (node, seq) == (NODE, "1")
    assert second == f"{NODE}:{epoch}:2"


def test_a_row_carries_its_id_topic_and_kind(outbox: Outbox) -> None:
    entry_id = outbox.append(event(7, "update"))
    [row] = outbox.next_batch(0, 10)
    assert (row.kind, row.topic, id_of(row.payload)) == ("update", EVENTS_TOPIC, entry_id)


def test_batches_come_oldest_first_across_kinds(outbox: Outbox) -> None:
    for number, kind in enumerate(["end", "update", "new", "changed", "update"], start=1):
        outbox.append(event(number, kind))  # type: ignore[arg-type]
    assert numbers(outbox) == [1, 2, 3, 4, 5]
    assert [row.seq for row in outbox.next_batch(2, 2)] == [3, 4]
    assert outbox.next_batch(5, 10) == []
    assert outbox.next_batch(0, 0) == []


def test_a_deleted_row_never_comes_again(outbox: Outbox) -> None:
    for number in (1, 2, 3):
        outbox.append(event(number))
    outbox.delete([2, 99])
    assert numbers(outbox) == [1, 3]
    assert outbox.pending() == 2


def test_a_clean_end_continues_epoch_and_numbers(tmp_path: Path) -> None:
    box = make_outbox(tmp_path)
    first = box.append(event(1))
    box.append(event(2))
    box.delete([1, 2])
    box.close()
    box = make_outbox(tmp_path)
    third = box.append(event(3))
    box.close()
    assert epoch_of(third) == epoch_of(first)
    assert third.endswith(":3")


def test_an_unclean_end_loses_nothing_and_begins_a_new_epoch(tmp_path: Path) -> None:
    box = make_outbox(tmp_path / "a")
    ids = [box.append(event(number)) for number in range(1, 6)]
    killed = make_outbox(snapshot(tmp_path / "a", tmp_path / "b"))
    box.close()
    assert [id_of(row.payload) for row in all_rows(killed)] == ids
    assert epoch_of(killed.append(event(6))) != epoch_of(ids[0])
    killed.maintain()
    assert [row.kind for row in all_rows(killed)] == ["new"] * 6, "a kill is no damage: no gap is reported"
    killed.close()


def test_a_clean_mark_is_not_believed_for_another_database(tmp_path: Path) -> None:
    box = make_outbox(tmp_path)
    first = box.append(event(1))
    box.close()
    (tmp_path / "outbox.db").unlink()
    box = make_outbox(tmp_path)
    again = box.append(event(1))
    box.close()
    assert epoch_of(again) != epoch_of(first)


@pytest.mark.parametrize("mark", ["", "nonsense", "a b c", "epoch NaN"])
def test_an_unreadable_clean_mark_begins_a_new_epoch(tmp_path: Path, mark: str) -> None:
    box = make_outbox(tmp_path)
    first = box.append(event(1))
    box.close()
    (tmp_path / "outbox.db.clean").write_text(mark)
    box = make_outbox(tmp_path)
    second = box.append(event(2))
    box.close()
    assert epoch_of(second) != epoch_of(first)
    assert second.endswith(":2")


Step = tuple[str, int]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("append"), st.integers(1, 5)),
            st.tuples(st.just("deliver"), st.integers(1, 7)),
            st.tuples(st.just("maintain"), st.just(0)),
            st.tuples(st.just("close"), st.just(0)),
            st.tuples(st.just("kill"), st.just(0)),
        ),
        max_size=25,
    )
)
def test_any_history_keeps_order_ids_and_events(tmp_path_factory: pytest.TempPathFactory, steps: list[Step]) -> None:
    """A model of what is owed, against appends, deliveries, clean ends and kills in any order."""
    root = tmp_path_factory.mktemp("history")
    folder, number, folders = root / "0", 0, 1
    box = make_outbox(folder)
    owed: list[str] = []
    ever: list[str] = []
    epochs: list[str] = []
    for action, count in steps:
        if action == "append":
            for _ in range(count):
                number += 1
                ever.append(box.append(event(number, "update" if number % 3 else "new")))
                owed.append(ever[-1])
        elif action == "deliver":
            rows = box.next_batch(0, count)
            assert [id_of(row.payload) for row in rows] == owed[:count]
            box.delete([row.seq for row in rows])
            owed = owed[count:]
        elif action == "maintain":
            box.maintain()
        else:
            before = epoch_of(box.append(event(0)))
            owed.append(f"{NODE}:{before}:{box.last_seq}")
            ever.append(owed[-1])
            if action == "kill":
                folder, folders = snapshot(folder, root / str(folders)), folders + 1
            box.close() if action == "close" else None
            killed, box = box, make_outbox(folder)
            if action == "kill":
                killed.close()
            after = epoch_of(box.append(event(0)))
            owed.append(f"{NODE}:{after}:{box.last_seq}")
            ever.append(owed[-1])
            assert (after == before) == (action == "close")
            assert action == "close" or after not in epochs
            epochs += [before, after]
    assert [id_of(row.payload) for row in all_rows(box)] == owed
    assert len(set(ever)) == len(ever), "an id names one event"
    box.close()


def fill(outbox: Outbox, count: int, kinds: tuple[str, ...]) -> Counter[str]:
    appended: Counter[str] = Counter()
    for number in range(count):
        kind = kinds[number % len(kinds)]
        outbox.append(event(number, kind))  # type: ignore[arg-type]
        appended[kind] += 1
    return appended


def test_a_full_outbox_drops_the_oldest_updates_first_and_counts_exactly(tmp_path: Path) -> None:
    box = make_outbox(tmp_path, max_size_mib=1)
    appended = fill(box, 3500, ("new", "update", "update", "end"))
    rows = all_rows(box)
    left = Counter(row.kind for row in rows)
    dropped = box.counts().dropped
    assert left["new"] == appended["new"]
    assert left["end"] == appended["end"]
    assert 0 < dropped["update"] == appended["update"] - left["update"]
    updates = [number_of(row.payload) for row in rows if row.kind == "update"]
    assert updates == [number for number in range(3500) if number % 4 in (1, 2)][-len(updates) :], "the oldest went"
    assert (tmp_path / "outbox.db").stat().st_size <= 1024 * 1024
    assert (tmp_path / "outbox.db-wal").stat().st_size <= 9 * 1024 * 1024
    box.close()


def test_a_full_outbox_of_changes_drops_its_oldest_and_refuses_updates(tmp_path: Path) -> None:
    box = make_outbox(tmp_path, max_size_mib=1)
    fill(box, 4000, ("new",))
    dropped = dict(box.counts().dropped)
    assert dropped["new"] > 0
    assert number_of(box.next_batch(0, 1)[0].payload) == dropped["new"]
    fill(box, 100, ("update",))
    after = box.counts()
    assert after.dropped["update"] + sum(row.kind == "update" for row in all_rows(box)) == 100
    assert after.dropped["new"] == dropped["new"], "an update pushes nothing of more worth out"
    box.close()


def test_a_disk_use_stays_bounded_through_a_long_outage(tmp_path: Path) -> None:
    box = make_outbox(tmp_path, max_size_mib=1)
    largest = 0
    for _ in range(20):
        fill(box, 500, ("new", "update", "end"))
        box.maintain()
        largest = max(largest, sum(file.stat().st_size for file in tmp_path.glob("outbox.db*")))
    assert largest <= (1 + 8 + 1) * 1024 * 1024 + 100_000  # database, log, ballast, index of the log
    box.close()


def test_rows_that_are_being_sent_are_not_dropped(tmp_path: Path) -> None:
    box = make_outbox(tmp_path, max_size_mib=1)
    fill(box, 100, ("update",))
    out = box.next_batch(0, 16)
    fill(box, 5000, ("update",))
    assert box.counts().dropped["update"] > 0
    assert all_rows(box)[:16] == out
    box.close()


def test_drops_are_reported_once_when_the_pressure_is_over(tmp_path: Path) -> None:
    clock = ManualClock()
    box = make_outbox(tmp_path, clock=clock, max_size_mib=1)
    fill(box, 5000, ("new", "update"))
    dropped = dict(box.counts().dropped)
    box.maintain()
    assert not [row for row in all_rows(box) if row.kind == "gap"], "losses may still go on"
    box.delete([row.seq for row in box.next_batch(0, 500)])
    clock.now_s += 10
    box.maintain()
    box.maintain()
    [gap] = [row for row in all_rows(box) if row.kind == "gap"]
    message = json.loads(gap.payload)
    assert (gap.topic, message["type"], message["reason"]) == (TOPICS.gaps, "gap", "outbox_full")
    assert message["dropped"] == dropped
    assert gap == all_rows(box)[-1]
    box.close()


def test_a_report_waits_while_there_is_no_room_for_it(tmp_path: Path) -> None:
    clock = ManualClock()
    box = make_outbox(tmp_path, clock=clock, max_size_mib=1)
    fill(box, 6000, ("new",))
    last_seq = box.last_seq
    clock.now_s += 10
    while not [row for row in all_rows(box) if row.kind == "gap"]:
        box.maintain()
        assert box.degraded is None
        box.delete([row.seq for row in box.next_batch(0, 8)])
    assert box.last_seq == last_seq + 1, "no number is used up by waiting"
    box.close()


def test_unreported_drops_survive_a_kill(tmp_path: Path) -> None:
    box = make_outbox(tmp_path / "a", max_size_mib=1)
    fill(box, 5000, ("new", "update"))
    dropped = dict(box.counts().dropped)
    killed = make_outbox(snapshot(tmp_path / "a", tmp_path / "b"), max_size_mib=1)
    box.close()
    killed.delete([row.seq for row in killed.next_batch(0, 500)])
    killed.maintain()
    [gap] = [row for row in all_rows(killed) if row.kind == "gap"]
    assert json.loads(gap.payload)["dropped"] == dropped
    killed.close()


def test_a_second_process_is_refused_by_name(outbox: Outbox, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"another agent \(process \d+\).*state_dir") as refusal:
        make_outbox(tmp_path)
    assert "\n" not in str(refusal.value)
    outbox.append(event(1))
    assert numbers(outbox) == [1]


def test_a_closed_outbox_can_be_opened_by_another(tmp_path: Path) -> None:
    make_outbox(tmp_path).close()
    make_outbox(tmp_path).close()


def test_a_closed_outbox_is_empty_and_harmless(tmp_path: Path) -> None:
    box = make_outbox(tmp_path)
    box.append(event(1))
    box.close()
    assert box.next_batch(0, 10) == []
    box.delete([1])
    assert box.pending() == 0


def test_a_buried_row_leaves_the_queue_and_is_kept_aside(tmp_path: Path) -> None:
    box = make_outbox(tmp_path)
    box.append(event(1))
    box.append(event(2))
    [row, _] = box.next_batch(0, 2)
    box.bury(row, "Not authorized")
    assert numbers(box) == [2]
    assert box.counts().dead == 1
    box.close()
    box = make_outbox(tmp_path)
    assert numbers(box) == [2]
    assert box.append(event(3)).endswith(":3")
    box.close()


def test_the_thread_makes_commits_durable_and_ends_with_close(tmp_path: Path) -> None:
    box = make_outbox(tmp_path)
    synced = threading.Event()
    assert box._file is not None
    sync = box._file.sync

    def record() -> None:
        sync()
        synced.set()

    box._file.sync = record  # type: ignore[method-assign]
    box.start()
    box.append(event(1))
    assert synced.wait(5)
    box.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "outbox"]
