"""The service on a booted machine survives what ends or hangs it, and no event is lost over it."""

from __future__ import annotations

import json
import random
import re
import shutil
import sqlite3
import statistics
import threading
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.faults.oracle import judge
from tests.support.service import HUNG, NODE, TIMEOUT_S, UNIT, boot_of, copy_unit, is_event
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.support.booted import Machine
    from tests.support.service import Service

KILLS = 10
SEED = 20_260_504
RUNNING_AGAIN_S = 3.0
BUSY_HOST_S = 10.0  # a single slow moment of the machine that runs the tests is no fault of the service
HANG_FOUND_S = 45.0
STOP_S = 15.0

pytestmark = [pytest.mark.systemd, pytest.mark.mosquitto, pytest.mark.usefixtures("hung_since_s")]


def test_ten_kills_lose_nothing_and_it_runs_again_within_three_seconds(running: Service, tmp_path: Path) -> None:
    """The oracle: every event that the agent's journal tells of, since its first start, reached the subscriber.

    The agent logs an event once its outbox has stored it, and the journal keeps what a killed process had written. The
    numbers cover the events that were stored and not logged when a kill came: within each epoch none is missing. What
    this cannot see is one that was the last of its epoch, was never logged, and was lost from the disk.
    """
    rng = random.Random(SEED)  # noqa: S311 - repeatable moments
    restarts_before = int(running.machine.show(UNIT, "NRestarts"))
    boots = {boot_of(message) for message in running.subscriber.messages if is_event(message)}
    took_s = []
    for _ in range(KILLS):
        for _ in range(rng.randint(1, 10)):
            running.next_event(running.mark())
        threading.Event().wait(rng.uniform(0, 0.2))  # else the kill would always meet the moment of a delivery
        begin = running.mark()
        killed_s = running.kill()
        back = running.next_event(begin, not_of_boots=frozenset(boots))
        took_s.append(back.at_s - killed_s)
        boots.add(boot_of(back))
        assert running.machine.show(UNIT, "ActiveState") == "active"
    assert int(running.machine.show(UNIT, "NRestarts")) - restarts_before == KILLS
    running.stop()
    print(f"SIGKILL to the next event, s: {' '.join(f'{each:.2f}' for each in took_s)}; worst {max(took_s):.2f}")

    emitted = events_logged(running.machine, UNIT)
    wanted = {*emitted}
    running.subscriber.wait_for(lambda messages: wanted <= {*ids_of(each.payload for each in messages)}, TIMEOUT_S)
    payloads = [each.payload for each in running.subscriber.messages if each.topic.startswith(f"edge/{NODE}/")]
    verdict = judge(emitted, [payload for payload in payloads if ids_of([payload])])
    print(verdict)
    assert verdict.is_clean(), str(verdict)
    assert missing_numbers(ids_of(payloads)) == []
    assert verdict.received > 10 * KILLS
    database = running.machine.inside("/var/lib/private/edge-agent/outbox.sqlite")
    left = rows_in(Path(shutil.copy(database, tmp_path)))
    assert {"dead_letters", "losses", "rank_0"} <= left.keys()
    assert left == dict.fromkeys(left, 0)
    assert statistics.median(took_s) <= RUNNING_AGAIN_S, took_s
    assert max(took_s) <= BUSY_HOST_S, took_s


def test_a_missing_number_would_be_found() -> None:
    ids = ["door-1:aa:4", "door-1:aa:5", "door-1:bb:1", "door-1:bb:3"]
    assert missing_numbers(ids) == ["door-1:bb:2"]


def test_a_stop_is_clean_in_time_and_says_offline(running: Service) -> None:
    begin = running.mark()
    took_s = running.stop()
    topic = f"edge/{NODE}/status"
    assert running.subscriber.wait_for(
        lambda messages: any((each.topic, each.payload) == (topic, b"offline") for each in messages[begin:])
    )
    print(f"systemctl stop: {took_s:.2f} s")
    assert took_s < STOP_S
    assert (running.machine.show(UNIT, "Result"), running.machine.show(UNIT, "ExecMainStatus")) == ("success", "0")
    entries = running.machine.journal(UNIT)
    said = [entry["MESSAGE"] for entry in entries if entry.get("SYSLOG_IDENTIFIER") == "edge-agent"]
    assert said[-1] == "agent.app: agent stopped"


def test_a_hanging_service_is_found_by_the_watchdog_and_runs_again(service: Service, hung_since_s: float) -> None:
    """SIGSTOP keeps every thread from turning; the journal then tells where each of them was."""
    machine = service.machine

    def back_s() -> float | None:
        after = [each for each in machine.journal(HUNG) if monotonic_s(each) > hung_since_s]
        return next((monotonic_s(each) for each in after if ": event new " in each["MESSAGE"]), None)

    assert wait_until(lambda: back_s() is not None, HANG_FOUND_S), machine.journal_text(HUNG)[-3000:]
    took_s = (back_s() or 0.0) - hung_since_s
    text = machine.journal_text(HUNG)
    machine.run("systemctl", "stop", HUNG)
    print(f"SIGSTOP to the next event: {took_s:.1f} s")
    assert took_s <= HANG_FOUND_S
    assert "Watchdog timeout (limit 30s)" in text
    assert "Fatal Python error: Aborted" in text
    assert 'agent/app.py", line' in text


@pytest.mark.parametrize(("code", "is_started_again"), [(1, True), (4, True), (2, False), (3, False)])
def test_which_exit_codes_are_started_again(
    installation: object, machine: Machine, code: int, is_started_again: bool
) -> None:
    name = f"edge-agent-exits-{code}.service"
    copy_unit(machine, name, f"/bin/sh -c 'exit {code}'")
    machine.run("systemctl", "start", name, check=False)
    if is_started_again:
        assert wait_until(lambda: int(machine.show(name, "NRestarts")) >= 1)
    else:
        assert [machine.show(name, each) for each in ("ActiveState", "NRestarts")] == ["failed", "0"]
    machine.run("systemctl", "stop", name)


def events_logged(machine: Machine, unit: str) -> list[str]:
    """The ids of the events that the agent's journal tells of, in its order."""
    messages = [str(entry["MESSAGE"]) for entry in machine.journal(unit)]
    found = (re.match(r"agent\.pipeline: event .* id=(\S+) camera=", message) for message in messages)
    return [each[1] for each in found if each]


def ids_of(payloads: Iterable[bytes]) -> list[str]:
    """The ids in those payloads that are entries of an outbox: events, and reports of a gap."""
    objects = (json.loads(payload) for payload in payloads if payload.startswith(b'{"v":'))
    return [str(each["id"]) for each in objects if isinstance(each.get("id"), str)]


def missing_numbers(ids: Iterable[str]) -> list[str]:
    """The ids between the first and the last of each epoch that are not there."""
    numbers: dict[str, set[int]] = {}
    for each in ids:
        epoch, _, number = each.rpartition(":")
        numbers.setdefault(epoch, set()).add(int(number))
    return [f"{epoch}:{n}" for epoch, all_ in numbers.items() for n in range(min(all_), max(all_)) if n not in all_]


def rows_in(database: Path) -> dict[str, int]:
    """Rows by table."""
    with closing(sqlite3.connect(database)) as db:
        names = [str(row[0]) for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
        return {name: int(db.execute(f"SELECT count(*) FROM {name}").fetchone()[0]) for name in names}  # noqa: S608


def monotonic_s(entry: dict[str, Any]) -> float:
    return int(entry["__MONOTONIC_TIMESTAMP"]) / 1e6
