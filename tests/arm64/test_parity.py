"""The agent on ARM64, on emulated CPUs of a Raspberry Pi 4 and 5: it imports, replays its models, and says the same."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest

from agent.model.activate import ActiveModel, activate
from agent.model.bundle import load_manifest_unsigned
from agent.model.check import largest_differences
from agent.model.manifest import Tolerances
from agent.model.matcher import compare_outputs
from agent.model.runtime import available_providers, ort
from agent.model.session import SessionOptions
from agent.model.variants import this_device, why_not
from tests.arm64 import subject
from tests.arm64.conftest import BUNDLES
from tests.arm64.sides import ARM_CPUS, HOST, Side, files_below, run_python
from tests.arm64.table import parity_table
from tests.arm64.userland import CHECKOUT, Userland

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from agent.model.manifest import Variant
    from agent.model.session import Session

    Sides = Mapping[str, Side]
    Outputs = dict[str, NDArray[Any]]

pytestmark = pytest.mark.arm64

BUILD_SIDE = {"build_models", "onnx", "torch"}
VARIANTS = [(folder.name, each) for folder in BUNDLES for each in load_manifest_unsigned(folder).variants]
each_cpu = pytest.mark.parametrize("cpu", ARM_CPUS)
each_variant = pytest.mark.parametrize(
    ("bundle", "variant"), VARIANTS, ids=[f"{bundle}-{variant.id}" for bundle, variant in VARIANTS]
)

# What every bundle promises of float variants. On ARM and on x86 the int8 ones keep it too, given the same bytes.
CLOSE = Tolerances()


@pytest.fixture(scope="module", autouse=True)
def _table(sides: Sides, userland: Userland, tell: Callable[[Sequence[str]], None]) -> Iterator[None]:
    yield
    tell(parity_table(sides, userland, {(bundle, each.id): apart(sides, bundle, each) for bundle, each in VARIANTS}))


class HostModel:
    """A variant on this machine's CPU."""

    def __init__(self, bundle: str, variant: Variant) -> None:
        folder = CHECKOUT / "agent/demo/bundles" / bundle
        self.active: ActiveModel = activate(folder, subject.trusted_keys(folder), SessionOptions(), variant.id)

    def outputs_for(self, image: NDArray[np.uint8]) -> Outputs:
        """What it gives for the very bytes that the other side's model was given."""
        self.active.session.input_image[:] = image
        return {name: array.copy() for name, array in self.active.session.run().items()}


def obstacle_on_host(variant: Variant) -> str | None:
    return why_not(variant, this_device(ort.__version__, available_providers()))


@pytest.fixture
def host(bundle: str, variant: Variant) -> HostModel:
    obstacle = obstacle_on_host(variant)
    if obstacle is not None:
        pytest.skip(f"{variant.id} has nothing to be compared with on this machine: {obstacle}")
    return HostModel(bundle, variant)


class PlaybackSession:
    """Gives recorded outputs, run by run."""

    def __init__(self, runs: Sequence[Outputs]) -> None:
        self._runs = iter(runs)

    def run(self) -> Outputs:
        return next(self._runs)


def outputs_of(run: Mapping[str, NDArray[Any]]) -> Outputs:
    return {name: array for name, array in run.items() if name != "image"}


def frames_of(side: Side, bundle: str, variant: Variant) -> list[Outputs]:
    runs = side.runs[bundle, variant.id]
    return [outputs_of(runs[f"frame{index}"]) for index in range(sum(name.startswith("frame") for name in runs))]


def is_same(first: Outputs, second: Outputs) -> bool:
    """Whether two runs gave the same bits."""
    return first.keys() == second.keys() and all(
        first[name].dtype == second[name].dtype and first[name].tobytes() == second[name].tobytes() for name in first
    )


def apart(sides: Sides, bundle: str, variant: Variant) -> dict[str, float] | None:
    """The largest differences between this CPU and an ARM one that was given the same bytes; None if it cannot run."""
    if obstacle_on_host(variant) is not None:
        return None
    host, largest = HostModel(bundle, variant), dict[str, float]()
    for run in sides[ARM_CPUS[-1]].runs[bundle, variant.id].values():
        found = largest_differences(host.outputs_for(run["image"]), outputs_of(run), CLOSE)
        largest |= {name: max(value, largest.get(name, 0.0)) for name, value in found.items()}
    return largest


def _areas(event: dict[str, Any]) -> dict[str, Any]:
    """The labels that have a share of the frame."""
    return {"label": ", ".join(sorted(event["areas"]))}


def events_of(side: Side, bundle: str, variant: Variant) -> list[tuple[Any, ...]]:
    """Type, frame, object and label of each event."""
    lines = (line.partition(" ") for line in side.result(bundle, variant.id)["payloads"])
    events = [json.loads(payload) for kind, _, payload in lines if kind == "event"]
    seen = [{"id": None, **(event.get("object") or event.get("class") or _areas(event))} for event in events]
    return [
        (event["type"], event["frame"]["id"], each["id"], each["label"])
        for event, each in zip(events, seen, strict=True)
    ]


# --- what is there


@each_cpu
def test_every_module_of_the_agent_imports(sides: Sides, cpu: str) -> None:
    facts = sides[cpu].facts
    assert facts["machine"] == "aarch64"
    assert facts["missing"] == {}
    files = {path.relative_to(CHECKOUT).as_posix() for path in (CHECKOUT / "agent").rglob("*.py")}
    imported = {Path(file) for file in facts["modules"].values() if file}
    assert {name for name in files if CHECKOUT / name not in imported} == set()


def test_a_module_that_cannot_be_imported_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "crippled" / "deep").mkdir(parents=True)
    for name, text in {"__init__": "", "good": "", "deep/__init__": "", "deep/bad": "import no_such_thing"}.items():
        (tmp_path / "crippled" / f"{name}.py").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    assert subject.import_all("crippled") == {"crippled.deep.bad": "No module named 'no_such_thing'"}


@each_cpu
def test_nothing_is_loaded_but_the_agent_and_what_a_device_has(sides: Sides, userland: Userland, cpu: str) -> None:
    modules = sides[cpu].facts["modules"]
    assert not BUILD_SIDE & {name.partition(".")[0] for name in modules}
    homes = (userland.site, userland.root, CHECKOUT / "agent", CHECKOUT / "tests/arm64")
    strangers = {name for name, file in modules.items() if file and not any(map(Path(file).is_relative_to, homes))}
    assert strangers == set()
    assert Path(modules["onnxruntime"]).is_relative_to(userland.site)


def test_the_cpus_differ_as_the_real_ones_do(sides: Sides) -> None:
    older, newer = (set(sides[cpu].facts["bundles"][BUNDLES[0].name]["features"]) for cpu in ARM_CPUS)
    assert newer - older >= {"asimddp", "atomics"}
    assert "asimd" in older
    assert "sve" not in newer


@each_cpu
def test_inference_leaves_no_file_behind(sides: Sides, cpu: str) -> None:
    assert sides[cpu].left_behind == []


def test_without_the_agents_switch_onnxruntime_would_leave_one(userland: Userland, tmp_path: Path) -> None:
    run_python(userland, "import onnxruntime", tmp_path / "home")
    assert "deviceid" in {Path(name).name for name in files_below(tmp_path / "home")}


# --- the models


@each_cpu
@each_variant
def test_the_golden_replay_passes(sides: Sides, cpu: str, bundle: str, variant: Variant) -> None:
    result = sides[cpu].result(bundle, variant.id)
    assert result["obstacle"] is None
    assert "refusal" not in result
    assert {"golden0", "golden1"} <= sides[cpu].runs[bundle, variant.id].keys()


@each_cpu
@pytest.mark.parametrize("bundle", [folder.name for folder in BUNDLES])
def test_the_variant_that_is_chosen_ran_many_frames_and_they_cause_events(sides: Sides, cpu: str, bundle: str) -> None:
    chosen = sides[cpu].facts["bundles"][bundle]["chosen"]
    variant = next(each for name, each in VARIANTS if (name, each.id) == (bundle, chosen))
    assert variant.precision == "int8"
    assert len(frames_of(sides[cpu], bundle, variant)) == subject.FRAMES_OF.get(bundle, subject.FRAMES) >= 5
    assert events_of(sides[cpu], bundle, variant)


@each_variant
def test_both_arm_cpus_give_the_same_bits(sides: Sides, bundle: str, variant: Variant) -> None:
    first, second = (sides[cpu].runs[bundle, variant.id] for cpu in ARM_CPUS)
    assert first.keys() == second.keys()
    assert [name for name in first if not is_same(dict(first[name]), dict(second[name]))] == []
    payloads = [sides[cpu].result(bundle, variant.id)["payloads"] for cpu in ARM_CPUS]
    assert payloads[0] == payloads[1]


@each_variant
def test_a_single_other_bit_would_be_seen(sides: Sides, bundle: str, variant: Variant) -> None:
    outputs = outputs_of(sides[ARM_CPUS[0]].runs[bundle, variant.id]["golden0"])
    for name, array in outputs.items():
        changed = array.copy()
        changed.view(np.uint8).reshape(-1)[0] ^= 1
        assert not is_same(outputs, {**outputs, name: changed})


@each_variant
def test_x86_gives_the_same_results_for_the_same_bytes(
    sides: Sides, host: HostModel, bundle: str, variant: Variant
) -> None:
    task = host.active.bundle.manifest.task
    for name, run in sides[ARM_CPUS[-1]].runs[bundle, variant.id].items():
        comparison = compare_outputs(task, host.outputs_for(run["image"]), outputs_of(run), CLOSE)
        assert comparison.ok, f"{name}: {comparison.reason}"


@each_variant
def test_another_picture_does_not_give_the_same_results(
    sides: Sides, host: HostModel, bundle: str, variant: Variant
) -> None:
    runs = sides[ARM_CPUS[-1]].runs[bundle, variant.id]
    other = host.outputs_for(runs["golden1"]["image"])
    assert not compare_outputs(host.active.bundle.manifest.task, other, outputs_of(runs["golden0"]), CLOSE).ok


@each_variant
def test_x86_makes_the_same_messages_of_arms_outputs(
    sides: Sides, host: HostModel, bundle: str, variant: Variant
) -> None:
    """Decoding, tracking and JSON, byte for byte."""
    side = sides[ARM_CPUS[-1]]
    frames = frames_of(side, bundle, variant)
    model = replace(host.active, session=cast("Session", PlaybackSession(frames)))
    assert subject.run_frames(model, len(frames)) == side.result(bundle, variant.id)["payloads"]
    backwards = replace(model, session=cast("Session", PlaybackSession(frames[::-1])))
    assert subject.run_frames(backwards, len(frames)) != side.result(bundle, variant.id)["payloads"]


@each_variant
def test_x86_sees_the_same_events_in_its_own_frames(
    sides: Sides, host: HostModel, bundle: str, variant: Variant
) -> None:
    """Here even the frames are drawn and resized by each CPU for itself, which OpenCV rounds differently."""
    assert events_of(sides[ARM_CPUS[-1]], bundle, variant) == events_of(sides[HOST], bundle, variant)
