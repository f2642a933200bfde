"""Every device takes the variant that was made for it: the table's order and hosts, as the agent reads them."""

from __future__ import annotations

import pytest

pytest.importorskip("onnx", reason="needs the build extra")

from agent.model.manifest import Golden, InputSpec, Manifest, Variant
from agent.model.variants import Device, choose_variant, why_not
from build_models.quantize.targets import TARGETS, target

pytestmark = pytest.mark.build

DEVICES = {
    "Raspberry Pi 4": ("aarch64", {"fp", "asimd"}, ["cpu"]),
    "Raspberry Pi 5": ("aarch64", {"fp", "asimd", "asimddp"}, ["cpu"]),
    "Jetson": ("aarch64", {"fp", "asimd", "asimddp"}, ["tensorrt", "cuda", "cpu"]),
    "Jetson without TensorRT": ("aarch64", {"fp", "asimd", "asimddp"}, ["cuda", "cpu"]),
    "server": ("x86_64", {"avx2", "avx512f", "avx512_vnni"}, ["cpu"]),
    "hybrid laptop": ("x86_64", {"avx2", "avx_vnni"}, ["cpu"]),
    "older laptop": ("x86_64", {"avx2"}, ["cpu"]),
    "old server": ("x86_64", {"avx2", "avx512f"}, ["cpu"]),
    "very old": ("x86_64", {"sse4_2"}, ["cpu"]),
}


def device(name: str) -> Device:
    arch, features, providers = DEVICES[name]
    return Device(arch, frozenset(features), name, "1.23.2", tuple(providers))


def variants(without: set[str]) -> list[Variant]:
    return [
        Variant(
            id=each.id,
            file=f"models/{each.id}.onnx",
            precision=each.precision,
            providers=list(each.providers),
            requires=each.requires,
            input=InputSpec(height=64, width=64),
            golden=Golden(file=f"golden/{each.id}.npz", tolerances=each.tolerances),
        )
        for each in TARGETS
        if each.id not in without
    ]


def chosen(name: str, *without: str) -> str:
    offered = variants(set(without))
    digest = "0" * 64
    manifest = Manifest.model_validate(
        {
            "schema": 1,
            "name": "all",
            "version": 1,
            "task": "detect",
            "labels": ["thing"],
            "variants": [each.model_dump() for each in offered],
            "files": [
                {"path": path, "bytes": 1, "sha256": digest}
                for each in offered
                for path in (each.file, each.golden.file)
            ],
            "provenance": {"source": "m", "source_sha256": digest, "recipe_sha256": digest, "versions": {}},
        }
    )
    return choose_variant(manifest, device(name)).id


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Raspberry Pi 4", "cpu-int8"),
        ("Raspberry Pi 5", "cpu-int8"),
        ("Jetson", "trt-int8"),
        ("Jetson without TensorRT", "gpu-fp16"),
        ("server", "cpu-int8-vnni"),
        ("hybrid laptop", "cpu-int8-vnni"),
        ("older laptop", "cpu-int8-nonvnni"),
        ("old server", "cpu-int8-nonvnni"),
        ("very old", "cpu-fp32"),
    ],
)
def test_each_device_takes_the_variant_made_for_it(name: str, expected: str) -> None:
    assert chosen(name) == expected


@pytest.mark.parametrize(
    ("name", "without", "expected"),
    [
        ("Jetson", ["trt-int8"], "gpu-fp16"),
        ("Jetson", ["trt-int8", "gpu-fp16"], "cpu-fp32"),
        ("server", ["cpu-int8-vnni"], "cpu-int8"),
        ("older laptop", ["cpu-int8-nonvnni"], "cpu-fp32"),
        ("Raspberry Pi 4", ["cpu-int8", "cpu-int8-dynamic"], "cpu-fp32"),
    ],
)
def test_without_it_the_next_best(name: str, without: list[str], expected: str) -> None:
    """A Jetson takes float32 on TensorRT before int8 on its CPU: the provider comes first."""
    assert chosen(name, *without) == expected


def test_saturating_weights_never_reach_a_cpu_that_saturates() -> None:
    for each in variants(set()):
        reduced = ("reduce_range", True) in target(each.id).options
        if each.precision == "int8" and "cpu" in each.providers and not reduced:
            for name in ("older laptop", "old server", "very old"):
                assert why_not(each, device(name)) is not None, (each.id, name)


def test_the_packed_stem_never_reaches_arm() -> None:
    packed = {each.id for each in TARGETS if ("packed_stem", True) in each.options}
    assert packed == {"cpu-int8-vnni"}
    for each in variants(set()):
        if each.id in packed:
            assert why_not(each, device("Raspberry Pi 5")) == "made for x86_64, this is aarch64"


def test_ids_are_unique_and_the_reference_is_last_and_needs_nothing() -> None:
    ids = [each.id for each in TARGETS]
    assert len(set(ids)) == len(ids)
    assert ids[-1] == "cpu-fp32"
    assert not TARGETS[-1].requires.any_of
    assert not TARGETS[-1].needs_pictures


def test_an_unknown_target_is_told_the_known_ones() -> None:
    assert target("trt-int8").writer == "tensorrt"
    with pytest.raises(KeyError, match=r"expected one of trt-int8, .*, got 'npu'"):
        target("npu")
