"""The image: small, for ARM64, without rights, and really running, on a file system that nobody can write."""

from __future__ import annotations

import fnmatch
import json
import shutil
from typing import TYPE_CHECKING

import pytest

from tests.arm64.image import STATE, Image, Workshop, build, workshop
from tests.arm64.packages import UnavailableError
from tests.arm64.userland import CHECKOUT, Userland
from tests.support.subscriber import Subscriber
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from tests.support.mosquitto import Mosquitto

pytestmark = pytest.mark.arm64

MOST_MB = 250.0
INSTALLED = ("kinds", "shapes")  # the demo's bundles that come with an installation
SITE = "/opt/edge-agent/lib/python3.11/site-packages"
DEMO = f"{SITE}/agent/demo"
SLOW_S = 240.0  # a start with a model's trial takes 20 s where nobody else computes
LIMIT_S = 20  # of the agent's silence, as agent/ops/health.py has it

CONFIG = """
node: node-1
model:
  bundle: {demo}/bundles/shapes
  trusted_keys: [{demo}/demo.public.pem]
cameras:
  - {{id: front, engine: synthetic, width: 320, height: 192, fps: 2, seed: 7}}
mqtt: {{host: 127.0.0.1, port: {port}}}
"""

# Modules of the agent and what they load, without a compiled file that is up to date whatever the clock says.
NOT_COMPILED = """
import sys
from importlib.util import cache_from_source
from pathlib import Path
from subject import import_all
import uvicorn.lifespan.on, uvicorn.loops.asyncio, uvicorn.protocols.http.h11_impl, anyio._backends._asyncio
assert import_all("agent") == {}
for name, module in sorted(sys.modules.items()):
    file = getattr(module, "__file__", None) or ""
    if file.endswith(".py") and name != "subject":
        compiled = Path(cache_from_source(file))
        if not compiled.exists() or compiled.read_bytes()[4] != 1:  # 1: by digest, and not to be checked (PEP 552)
            print(name)
"""


@pytest.fixture(scope="module")
def shop(userland: Userland) -> Iterator[Workshop]:
    try:
        with workshop(userland) as opened:
            yield opened
    except UnavailableError as err:
        pytest.skip(str(err))


@pytest.fixture(scope="module")
def image(shop: Workshop, userland: Userland, tell: Callable[[Sequence[str]], None]) -> Image:
    try:
        built = build(shop, userland)
    except UnavailableError as err:
        pytest.skip(str(err))
    effort = f"built in {built.build_s:.0f} s" if built.build_s else "nothing in it has changed"
    tell(["", f"image: {built.megabytes:.1f} MB of at most {MOST_MB:.0f}, {effort}"])
    return built


@pytest.fixture(scope="module")
def paths(shop: Workshop, image: Image) -> list[str]:
    """Every file and folder of the image."""
    return shop.shell(image, "find / -xdev", "--user=0", "--tmpfs=/var/lib/edge-agent").stdout.splitlines()


def test_it_is_small(image: Image) -> None:
    assert image.megabytes <= MOST_MB


def test_it_is_made_for_arm64_and_says_what_it_is(image: Image) -> None:
    config = image.facts["Config"]
    assert image.facts["Architecture"] == "arm64"
    assert config["User"] == "10001"
    assert config["Entrypoint"] == ["edge-agent"]
    assert config["Cmd"] == ["run", "--config", "/etc/edge-agent/agent.yaml"]
    assert list(config["Volumes"]) == [STATE]
    assert image.facts["Healthcheck"]["Test"] == ["CMD", "edge-agent", "health"]
    assert "ORT_DISABLE_TELEMETRY=1" in config["Env"]
    assert config["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"


def test_it_runs_as_an_ordinary_user_of_an_arm64_machine_and_can_write_its_state_alone(
    shop: Workshop, image: Image
) -> None:
    script = f"uname -m; id -u; id -G; touch {STATE}/file && echo state; touch /file /etc/file {SITE}/file"
    done = shop.shell(image, script, check=False)
    machine, user, groups, *rest = done.stdout.splitlines()
    assert (machine, user, set(groups.split()), rest) == ("aarch64", "10001", {"10001", "44"}, ["state"])
    assert done.stderr.count("Read-only file system") == 3


def test_the_read_only_file_system_is_what_keeps_even_root_from_writing(shop: Workshop, image: Image) -> None:
    """The control: where it may be written, root can."""
    assert shop.shell(image, "touch /file", "--user=0", check=False).returncode != 0
    assert shop.shell(image, "touch /file", "--user=0", "--read-only=false", check=False).returncode == 0


@pytest.mark.parametrize(
    "pattern",
    [
        *("*/pip", "*/setuptools", "*/apt*", "/usr/bin/dpkg*", "*/sources.list*", "/src", "/wheels", "/etc/pip.conf"),
        *("*/libonnxruntime.so*", "*/onnxruntime/transformers", "*/numpy/*/tests", "*/build_models", "*/build-models"),
        *("/usr/share/man/*", "/usr/share/doc/*/changelog*", "/root/?*"),
    ],
)
def test_nothing_of_the_building_is_left(paths: list[str], pattern: str) -> None:
    assert fnmatch.filter(paths, pattern) == []


def test_what_belongs_there_is_found(paths: list[str]) -> None:
    """The control of the patterns above, and what licences and scanners ask for."""
    assert len(fnmatch.filter(paths, "/var/lib/dpkg/status.d/?*")) == 20
    assert len(fnmatch.filter(paths, "/usr/share/doc/*/copyright")) >= 15
    assert len(fnmatch.filter(paths, "*/onnxruntime_pybind11_state.*")) == 1


def test_every_module_that_the_agent_loads_is_compiled(shop: Workshop, image: Image) -> None:
    script = f"{CHECKOUT}/tests/arm64/subject.py"
    arguments = ["--volume", f"{script}:/subject/subject.py:ro", "--env", "PYTHONPATH=/subject"]
    command = ["run", "--rm", *shop.run_options(), *arguments, "--entrypoint", "python", image.name, "-c", NOT_COMPILED]
    assert shop.podman(*command).stdout.split() == []


@pytest.mark.parametrize("bundle", INSTALLED)
def test_its_models_run_rightly(
    shop: Workshop, image: Image, bundle: str, tell: Callable[[Sequence[str]], None]
) -> None:
    arguments = [f"{DEMO}/bundles/{bundle}", "--trusted-key", f"{DEMO}/demo.public.pem", "--json"]
    done = shop.podman("run", "--rm", *shop.run_options(), image.name, "model", "check", *arguments)
    facts = json.loads(done.stdout)
    assert facts["device"]["arch"] == "aarch64"
    assert [trial["variant"] for trial in facts["trials"]] == ["cpu-int8", "cpu-fp32"]
    assert {trial["result"] for trial in facts["trials"]} == {"ok"}
    told = ", ".join(f"{trial['variant']} {json.dumps(trial['differences'])}" for trial in facts["trials"])
    tell([f"image: edge-agent model check {bundle}: ok, differs from the golden outputs by {told}"])


def test_the_service_publishes_tells_its_health_and_ends_in_order(
    shop: Workshop, image: Image, mosquitto: Mosquitto, tmp_path: Path
) -> None:
    config = tmp_path / "agent.yaml"
    config.write_text(CONFIG.format(demo=DEMO, port=mosquitto.port), encoding="utf-8")
    config.chmod(0o644)
    state = tmp_path / "state"
    state.mkdir()
    shutil.chown(state, 10001, 10001)
    subscriber = Subscriber(mosquitto.host, mosquitto.port, "edge/#")
    mounts = [f"--volume={config}:/etc/edge-agent/agent.yaml:ro", f"--volume={state}:{STATE}"]
    name = f"service-{tmp_path.parent.name}"
    shop.podman("run", "--detach", f"--name={name}", *shop.run_options(), *mounts, image.name)

    def health() -> tuple[int, str]:
        asked = shop.podman("exec", name, "edge-agent", "health", check=False)
        return asked.returncode, asked.stdout + asked.stderr

    try:
        code, told = health()
        assert code == 1
        assert "the agent has not started yet" in told
        topic = "edge/node-1/camera/front/events"
        assert subscriber.wait_for(lambda got: any(each.topic == topic for each in got), SLOW_S), logs(shop, name)
        assert wait_until(lambda: health()[0] == 0, SLOW_S), health()[1]
        assert shop.podman("healthcheck", "run", name, check=False).returncode == 0
        shop.podman("kill", "--signal=STOP", name)
        assert wait_until(lambda: health()[0] == 1, LIMIT_S + SLOW_S)
        assert "that all its loops turn" in health()[1]
        shop.podman("kill", "--signal=CONT", name)
        assert wait_until(lambda: health()[0] == 0, SLOW_S)
        shop.podman("stop", "--time=60", name)
        assert shop.podman("inspect", "--format={{.State.ExitCode}}", name).stdout.strip() == "0", logs(shop, name)
        assert subscriber.payloads("edge/node-1/status")[-1] == b"offline"
        left = {path.relative_to(state).as_posix() for path in state.rglob("*") if path.is_file()}
        assert {file for file in left if not file.startswith("outbox.sqlite")} == {"canary.json"}
    finally:
        subscriber.close()
        shop.podman("rm", "--force", "--time=5", name, check=False)


def logs(shop: Workshop, name: str) -> str:
    done = shop.podman("logs", name, check=False)
    return done.stdout + done.stderr
