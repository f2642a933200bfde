"""The service on a booted machine: how soon it is ready, what its sandbox lets it do, what it leaves and says."""

from __future__ import annotations

import json
import re
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import psutil
import pytest

from tests.support.ports import free_port
from tests.support.service import CONFIG, NODE, PASSWORD, PASSWORD_FILE, UNIT
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tests.support.service import Service

READY_S = 3.0
LOW_PRIORITY = 10
TOKEN = "a-token-for-the-web"

pytestmark = [pytest.mark.systemd, pytest.mark.mosquitto, pytest.mark.usefixtures("hung_since_s")]


def test_it_is_ready_within_three_seconds(running: Service) -> None:
    """Ready: the model has passed its checks, for the first time by a trial run, and the camera's thread runs."""
    running.stop()
    again_s = running.start()
    print(f"systemctl start: {running.first_start_s:.2f} s with the trial of the model, {again_s:.2f} s without")
    assert running.first_start_s <= READY_S
    assert again_s <= READY_S
    assert running.machine.show(UNIT, "ActiveState") == "active"
    assert f"node {NODE}, model demo-shapes, 1 camera" in running.machine.show(UNIT, "StatusText")


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
    assert sockets_seen(running) == {("SOCK_STREAM", "ESTABLISHED", running.broker.port)}


def test_the_web_api_adds_the_socket_that_it_listens_on_and_works(service: Service, running: Service) -> None:
    """Its token comes as the broker's password does; its threads may lower their own priority."""
    port = free_port()
    machine = service.machine
    machine.write("/etc/edge-agent/web-token", TOKEN)
    service.configure(web={"port": port, "token": "${file:$CREDENTIALS_DIRECTORY/web-token}"})
    begin = service.mark()
    machine.run("systemctl", "restart", UNIT)
    service.next_event(begin)
    answer = infer(port, np.full((96, 160, 3), 128, np.uint8))
    niceness = niceness_of_threads(service.host_pid())
    seen = sockets_seen(service)
    service.configure()
    machine.run("rm", "/etc/edge-agent/web-token")
    machine.run("systemctl", "restart", UNIT)
    assert answer["model"]["name"] == "demo-shapes"
    assert niceness == {0, LOW_PRIORITY}
    assert seen == {("SOCK_STREAM", "ESTABLISHED", service.broker.port), ("SOCK_STREAM", "LISTEN", port)}


def test_the_journal_reads_well(running: Service) -> None:
    """Priorities instead of words and times, which the journal shows in its own way."""
    entries = [each for each in running.machine.journal(UNIT) if each.get("SYSLOG_IDENTIFIER") == "edge-agent"]
    messages = [entry["MESSAGE"] for entry in entries]
    odd = [message for message in messages if not re.match(r"(agent\.[a-z_.]+|edge-agent): \S", message)]
    assert odd == []
    assert {entry["PRIORITY"] for entry in entries if ": event " in entry["MESSAGE"]} == {"6"}
    assert any(f"runs as node {NODE}: 1 camera" in message for message in messages)


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


def status_of(host_pid: int) -> dict[str, str]:
    """The facts of /proc/PID/status."""
    lines = Path(f"/proc/{host_pid}/status").read_text(encoding="utf-8").splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def niceness_of_threads(host_pid: int) -> set[int]:
    """From /proc/PID/task/TID/stat: its 19th field, where the second, the name, ends with the last bracket."""
    stats = [path.read_text(encoding="utf-8") for path in Path(f"/proc/{host_pid}/task").glob("*/stat")]
    return {int(stat.rpartition(")")[2].split()[16]) for stat in stats}


def sockets_seen(service: Service) -> set[tuple[str, str, int]]:
    """Type, state and port (the other's, or its own where it listens) of each; looked at whenever an event arrives."""
    process = psutil.Process(service.host_pid())
    seen = set()
    for _ in range(20):
        service.next_event(service.mark())
        for each in process.net_connections(kind="inet"):
            seen.add((each.type.name, each.status, (each.raddr or each.laddr).port))
    return seen


def infer(port: int, image_bgr: NDArray[np.uint8]) -> dict[str, Any]:
    """What the web API sees in a picture."""
    encoded = cv2.imencode(".jpg", image_bgr)[1].tobytes()
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "image/jpeg"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}/api/v1/infer", encoded, headers)
    with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310 - the same
        answer: dict[str, Any] = json.load(response)
        return answer
