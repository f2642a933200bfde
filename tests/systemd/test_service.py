"""The service on a booted machine: ready, sandboxed, killed, hung and stopped, and no event lost over it."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import sqlite3
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from tests.faults.oracle import judge
from tests.support.service import (
    CONFIG,
    NODE,
    PASSWORD,
    PASSWORD_FILE,
    TIMEOUT_S,
    UNIT,
    UNIT_PATH,
    boot_of,
    is_event,
)
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.support.booted import Machine
    from tests.support.service import Service

KILLS = 10
SEED = 20_260_504
READY_S = RUNNING_AGAIN_S = 3.0
HANG_FOUND_S = 45.0
STOP_S = 15.0
HUNG = "edge-agent-hung.service"

pytestmark = [pytest.mark.systemd, pytest.mark.mosquitto, pytest.mark.usefixtures("hung_since_s")]


@pytest.fixture(scope="session")
def hung_since_s(service: Service) -> float:
    """When a second service of the same unit was stopped with SIGSTOP: its watchdog has time during the other tests."""
    machine = service.machine
    folder = "/etc/edge-agent"
    machine.run("cp", "-p", CONFIG, f"{folder}/hung.yaml")
    model = {"bundle": "/srv/edge-agent/agent/demo/bundles/shapes", "trusted_keys": ["trusted.pem"]}
    service.configure(f"{folder}/hung.yaml", node="hung", state_dir="/var/lib/edge-agent-hung", model=model)
    copy_unit(machine, HUNG, f"/opt/edge-agent/venv/bin/edge-agent run --config {folder}/hung.yaml")
    begin = service.mark()
    machine.run("systemctl", "start", HUNG)
    service.next_event(begin, node="hung")
    pid = service.host_pid(HUNG)
    since_s = time.monotonic()
    os.kill(pid, signal.SIGSTOP)
    return since_s


def copy_unit(machine: Machine, name: str, program: str) -> None:
    """A unit that differs from the product's in its program and in the folder of its state."""
    machine.run("mkdir", "-p", "/run/systemd/system")
    machine.run("cp", UNIT_PATH, f"/run/systemd/system/{name}")
    state = f"StateDirectory=\nStateDirectory={name.removesuffix('.service')}\n"
    machine.write(f"/run/systemd/system/{name}.d/copy.conf", f"[Service]\nExecStart=\nExecStart={program}\n{state}")
    machine.run("systemctl", "daemon-reload")


@pytest.fixture
def running(service: Service) -> Service:
    """The service, active and telling of events."""
    service.ensure_running()
    return service


def test_it_is_ready_within_three_seconds(running: Service) -> None:
    """Ready: the model has passed its checks, for the first time by a trial run, and the camera's thread runs."""
    running.stop()
    again_s = running.start()
    print(f"systemctl start: {running.first_start_s:.2f} s with the trial of the model, {again_s:.2f} s without")
    assert running.first_start_s <= READY_S
    assert again_s <= READY_S
    assert running.machine.show(UNIT, "ActiveState") == "active"
    assert f"node {NODE}, model demo-shapes, 1 cameras" in running.machine.show(UNIT, "StatusText")


def test_it_runs_in_its_sandbox(running: Service) -> None:
    facts = status_of(running.host_pid())
    uid = int(facts["Uid"].split()[0])
    assert 61184 <= uid <= 65519, "a dynamic user"
    assert (facts["NoNewPrivs"], facts["Seccomp"]) == ("1", "2")
    assert {int(facts[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}


def test_it_sees_its_state_writable_and_all_else_not(running: Service) -> None:
    """With the rights of root, so that only the service's own view of the file system can refuse."""
    view = ["nsenter", f"--target={running.machine.main_pid(UNIT)}", "--mount"]
    written = {}
    for place in ("/etc", "/etc/edge-agent", "/opt/edge-agent", "/usr", "/var/lib", "/var/lib/edge-agent"):
        result = running.machine.run(*view, "touch", f"{place}/probe", check=False)
        written[place] = result.returncode == 0
        assert written[place] or "Read-only file system" in result.stderr
    running.machine.run("rm", "/var/lib/private/edge-agent/probe")
    assert written == dict.fromkeys(written, False) | {"/var/lib/edge-agent": True}
    assert running.machine.run(*view, "ls", "-A", "/root", "/home").stdout.split() == ["/home:", "/root:"]


def test_only_root_can_read_the_password_that_the_service_gets(running: Service) -> None:
    """The service itself cannot read the file: systemd hands it over, and the broker takes it."""
    status = running.machine.inside(PASSWORD_FILE).stat()
    assert (status.st_uid, status.st_mode & 0o777) == (0, 0o600)
    pid = running.machine.main_pid(UNIT)
    handed_over = running.machine.run("cat", f"/proc/{pid}/root/run/credentials/{UNIT}/mqtt-password").stdout
    assert handed_over.strip() == PASSWORD


def test_all_it_writes_is_its_state(running: Service) -> None:
    """ONNX Runtime's wheel would leave a device id and a database in a cache folder, or try to."""
    uid = status_of(running.host_pid())["Uid"].split()[0]
    everywhere = ["find", "/", "(", "-path", "/proc", "-o", "-path", "/sys", ")", "-prune", "-o", "-uid", uid, "-print"]
    owned = set(running.machine.run(*everywhere, check=False).stdout.split())
    beneath = "/var/lib/private/edge-agent"
    outside = {path for path in owned if path != beneath and not path.startswith((f"{beneath}/", "/run/credentials/"))}
    assert outside == set()
    top = {path.removeprefix(f"{beneath}/").split("/")[0] for path in owned if path.startswith(f"{beneath}/")}
    outbox = {"outbox.sqlite", "outbox.sqlite-shm", "outbox.sqlite-wal", "outbox.sqlite.ballast", "outbox.sqlite.lock"}
    assert top == {"bundle", "canary.json", *outbox}
    # Whoever owns it: the names that the wheel is known to use.
    named = ["find", "/", "-xdev", "(", "-iname", "*deviceid*", "-o", "-ipath", "*/.cache/*microsoft*", ")"]
    assert running.machine.run(*named).stdout == ""


def test_its_only_socket_is_the_brokers(running: Service) -> None:
    process = psutil.Process(running.host_pid())
    seen = set()
    for _ in range(20):  # looked at whenever an event arrives
        running.next_event(running.mark())
        sockets = process.net_connections(kind="inet")
        seen |= {(each.type.name, each.status, tuple(each.raddr)) for each in sockets}
    assert seen == {("SOCK_STREAM", "ESTABLISHED", (running.broker.host, running.broker.port))}


def test_ten_kills_lose_nothing_and_each_time_it_runs_again_within_three_seconds(running: Service) -> None:
    """The oracle: every event that the agent's journal tells of reached a subscriber on another machine's side.

    The agent logs an event after its outbox has it, and the journal keeps what a killed process wrote. An event that
    was stored but not logged when the kill came is covered by the numbers: within each epoch none is missing. What
    neither sees is the last event of an epoch stored, never logged, and lost; so the outbox must be empty in the end.
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
    running.stop()
    print(f"SIGKILL to the next event, s: {' '.join(f'{each:.2f}' for each in took_s)}; worst {max(took_s):.2f}")
    assert int(running.machine.show(UNIT, "NRestarts")) - restarts_before in (KILLS, -restarts_before)

    emitted = events_logged(running.machine, UNIT)
    wanted = {*emitted}
    running.subscriber.wait_for(lambda messages: wanted <= {*ids_of(each.payload for each in messages)}, TIMEOUT_S)
    payloads = [each.payload for each in running.subscriber.messages if each.topic.startswith(f"edge/{NODE}/")]
    verdict = judge(emitted, [payload for payload in payloads if ids_of([payload])])
    print(verdict)
    assert verdict.is_clean(), str(verdict)
    assert missing_numbers(ids_of(payloads)) == []
    assert verdict.received > 10 * KILLS
    left = left_in_outbox(running.machine)
    assert {"dead_letters", "losses", "rank_0"} <= left.keys()
    assert left == dict.fromkeys(left, 0)
    assert max(took_s) <= RUNNING_AGAIN_S


def test_a_missing_number_would_be_found() -> None:
    ids = ["door-1:aa:4", "door-1:aa:5", "door-1:bb:1", "door-1:bb:3"]
    assert missing_numbers(ids) == ["door-1:bb:2"]


def test_a_stop_is_clean_in_time_and_says_offline(running: Service) -> None:
    begin = running.mark()
    took_s = running.stop()
    topic = f"edge/{NODE}/status"
    assert running.subscriber.wait_for(lambda messages: any(each.topic == topic for each in messages[begin:]))
    assert running.subscriber.payloads(topic)[-1] == b"offline"
    print(f"systemctl stop: {took_s:.2f} s")
    assert took_s < STOP_S
    assert (running.machine.show(UNIT, "Result"), running.machine.show(UNIT, "ExecMainStatus")) == ("success", "0")
    said = [
        entry["MESSAGE"] for entry in running.machine.journal(UNIT) if entry.get("SYSLOG_IDENTIFIER") == "edge-agent"
    ]
    assert said[-1] == "agent.app: agent stopped"


def test_the_journal_reads_well(running: Service) -> None:
    """Priorities instead of words and times, which the journal shows in its own way."""
    entries = [each for each in running.machine.journal(UNIT) if each.get("SYSLOG_IDENTIFIER") == "edge-agent"]
    messages = [entry["MESSAGE"] for entry in entries]
    assert all(re.match(r"agent\.[a-z_.]+: \S", message) for message in messages), messages[:20]
    assert {entry["PRIORITY"] for entry in entries if ": event " in entry["MESSAGE"]} == {"6"}
    assert any(f"runs as node {NODE}: 1 cameras" in message for message in messages)


def test_a_refused_password_is_a_warning_in_the_journal(service: Service) -> None:
    """The control of the password: another one is not taken. The agent runs on, its outbox keeps the events."""
    service.set_password("wrong")
    service.machine.run("systemctl", "restart", UNIT)

    def told() -> bool:
        entries = service.machine.journal(UNIT)
        return any("refuses the connection" in each["MESSAGE"] and each["PRIORITY"] == "4" for each in entries)

    assert wait_until(told), service.machine.journal_text(UNIT)[-2000:]
    assert service.machine.show(UNIT, "ActiveState") == "active"
    service.set_password(PASSWORD)
    service.machine.run("systemctl", "restart", UNIT)


def test_without_a_password_file_the_service_starts_all_the_same(service: Service) -> None:
    """A configuration that asks for none must not need one: systemd stands in for the missing file."""
    place = service.machine.inside(PASSWORD_FILE)
    aside = place.rename(place.with_suffix(".aside"))
    service.configure(mqtt={"port": service.broker.port})
    begin = service.mark()
    service.machine.run("systemctl", "restart", UNIT)
    service.next_event(begin)
    aside.rename(place)
    service.configure()
    service.machine.run("systemctl", "restart", UNIT)


def test_a_bad_configuration_fails_once_with_its_reason(service: Service) -> None:
    machine = service.machine
    machine.run("systemctl", "stop", UNIT)
    service.configure(nodes="door-1")
    result = machine.run("systemctl", "start", UNIT, check=False)
    facts = [machine.show(UNIT, name) for name in ("ActiveState", "ExecMainStatus", "NRestarts")]
    service.configure()
    assert result.returncode != 0
    assert facts == ["failed", "2", "0"]
    (told,) = [each["MESSAGE"] for each in machine.journal(UNIT) if "nodes" in each["MESSAGE"]]
    assert re.match(rf"edge-agent: {CONFIG}:\d+:\d+: nodes: ", told)
    machine.run("systemctl", "start", UNIT)


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


def status_of(host_pid: int) -> dict[str, str]:
    """The facts of /proc/PID/status."""
    with open(f"/proc/{host_pid}/status", encoding="utf-8") as lines:  # noqa: PTH123 - no file but the kernel's words
        return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def monotonic_s(entry: dict[str, Any]) -> float:
    return int(entry["__MONOTONIC_TIMESTAMP"]) / 1e6


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


def left_in_outbox(machine: Machine) -> dict[str, int]:
    """Rows by table in the database of the service, which must have ended."""
    path = machine.inside("/var/lib/private/edge-agent/outbox.sqlite")
    with closing(sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)) as db:
        names = [str(row[0]) for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
        return {name: int(db.execute(f"SELECT count(*) FROM {name}").fetchone()[0]) for name in names}  # noqa: S608
