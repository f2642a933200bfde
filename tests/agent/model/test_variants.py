from __future__ import annotations

import platform
from typing import Any

import pytest

from agent.errors import BundleError
from agent.model import variants
from agent.model.manifest import Manifest, Variant
from agent.model.variants import Device, choose_variant, parse_cpuinfo, this_device, why_not
from tests.support.bundles import manifest_of
from tests.support.tiny_models import detect_model

PI_5 = """\
processor\t: 0
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU part\t: 0xd0b

processor\t: 1
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp

Revision\t: d04170
Model\t\t: Raspberry Pi 5 Model B Rev 1.0
"""
PI_4 = """\
processor\t: 0
Features\t: fp asimd evtstrm crc32 cpuid
Model\t\t: Raspberry Pi 4 Model B Rev 1.4
"""
XEON = """\
processor\t: 0
vendor_id\t: GenuineIntel
model\t\t: 143
model name\t: Intel(R) Xeon(R) Platinum 8488C
flags\t\t: fpu sse4_2 avx2 avx512f avx512_vnni amx_int8
bugs\t\t: spectre_v1

processor\t: 1
model name\t: Intel(R) Xeon(R) Platinum 8488C
flags\t\t: fpu sse4_2 avx2 avx512f avx512_vnni amx_int8
"""


def variant(**keys: Any) -> dict[str, Any]:
    plain: dict[str, Any] = manifest_of(detect_model(), {})["variants"][0]
    return {**plain, **keys}


def manifest(*variants_: dict[str, Any]) -> Manifest:
    plain = manifest_of(detect_model(), {"models/cpu-fp32.onnx": b"", "golden/cpu-fp32.npz": b""})
    return Manifest.model_validate({**plain, "variants": list(variants_)})


def device(
    cpuinfo: str = XEON, arch: str = "x86_64", ort: str = "1.23.2", providers: tuple[str, ...] = ("cpu",)
) -> Device:
    features, name = parse_cpuinfo(cpuinfo)
    return Device(arch, features, name, ort, providers)


VNNI = {"arch": "x86_64", "cpu_features": ["avx512_vnni"]}
DOT = {"arch": "aarch64", "cpu_features": ["asimddp"]}
NEWER = {"onnxruntime": "1.24"}

# what the variant asks for, the device, and the words of the refusal (None: it runs)
TABLE = [
    ({}, device(), None, "nothing is asked for"),
    ({}, device("", "riscv64"), None, "nothing is asked for, and any machine may try"),
    ({"providers": ["cuda"]}, device(), "made for cuda, available: cpu", "there is no such provider"),
    ({"providers": ["cuda"]}, device(providers=()), "available: none", "the config allows none that is installed"),
    ({"providers": ["cuda", "cpu"]}, device(), None, "one provider of several is enough"),
    ({"providers": ["tensorrt"]}, device(providers=("tensorrt", "cuda", "cpu")), None, "a Jetson has all three"),
    ({"requires": {"any_of": [VNNI]}}, device(), None, "the CPU has the feature"),
    ({"requires": {"any_of": [VNNI]}}, device(""), "the CPU lacks avx512_vnni", "a CPU of unknown features has none"),
    ({"requires": {"any_of": [VNNI]}}, device(PI_5, "aarch64"), "made for x86_64, this is aarch64", "another family"),
    ({"requires": {"any_of": [VNNI, DOT]}}, device(PI_5, "aarch64"), None, "a Pi 5 has dot products"),
    ({"requires": {"any_of": [VNNI, DOT]}}, device(PI_4, "aarch64"), "lacks asimddp", "a Pi 4 has none"),
    ({"requires": {"any_of": [{"arch": "aarch64"}]}}, device(PI_4, "aarch64"), None, "the family alone is asked for"),
    (
        {"requires": {"any_of": [{"arch": "x86_64", "cpu_features": ["avx2", "amx_fp16", "x"]}, VNNI]}},
        device("flags: avx2"),
        "lacks amx_fp16 and x or avx512_vnni",
        "every way of fitting is told",
    ),
    ({"requires": {"any_of": [DOT, VNNI]}}, device("", "riscv64"), "made for aarch64, x86_64", "families are sorted"),
    ({"requires": NEWER}, device(), "needs onnxruntime 1.24 or newer, found 1.23.2", "the runtime is too old"),
    ({"requires": NEWER}, device(ort="1.24.0"), None, "the same version is enough"),
    ({"requires": NEWER}, device(ort="1.24.0rc1"), None, "a candidate counts as its release"),
    ({"requires": NEWER}, device(ort="1.24.dev20260101"), None, "so does a nightly build"),
    ({"requires": NEWER}, device(ort="1.23.9+cu126"), "found 1.23.9+cu126", "a build's label does not count"),
    ({"requires": NEWER}, device(ort="1.100"), None, "versions are numbers, not text"),
    ({"requires": {"onnxruntime": "1.23.3"}}, device(), "needs onnxruntime 1.23.3", "the patch level counts"),
    ({"requires": NEWER}, device(ort="custom"), "found custom", "a version that cannot be read is old"),
]


@pytest.mark.parametrize(("keys", "machine", "told", "why"), TABLE, ids=[row[3] for row in TABLE])
def test_why_a_variant_runs_or_not(keys: dict[str, Any], machine: Device, told: str | None, why: str) -> None:
    reason = why_not(Variant.model_validate(variant(**keys)), machine)
    if told is None:
        assert reason is None, why
    else:
        assert reason is not None, why
        assert told in reason


def test_the_first_variant_that_fits_is_chosen() -> None:
    content = manifest(
        variant(id="trt", providers=["tensorrt"]),
        variant(id="vnni", requires={"any_of": [VNNI]}),
        variant(id="any"),
    )
    assert choose_variant(content, device()).id == "vnni"
    assert choose_variant(content, device(PI_4, "aarch64")).id == "any"
    assert choose_variant(content, device(providers=("tensorrt", "cpu"))).id == "trt"


def test_a_variant_may_be_named_but_must_be_able_to_run() -> None:
    content = manifest(variant(id="trt", providers=["tensorrt"]), variant(id="any"))
    assert choose_variant(content, device(), "any").id == "any"
    with pytest.raises(BundleError, match=r"bundle tiny: no variant runs on this device \(trt: made for tensorrt"):
        choose_variant(content, device(), "trt")
    with pytest.raises(BundleError, match="there is no variant 'int8'; it has: trt, any"):
        choose_variant(content, device(), "int8")


def test_when_nothing_fits_each_variant_has_its_reason() -> None:
    content = manifest(variant(id="trt", providers=["tensorrt"]), variant(id="new", requires=NEWER))
    with pytest.raises(BundleError) as caught:
        choose_variant(content, device())
    message = str(caught.value)
    assert "trt: made for tensorrt, available: cpu; new: needs onnxruntime 1.24" in message
    assert message.isprintable()


def test_features_and_names_of_arm_and_x86_are_read() -> None:
    assert parse_cpuinfo(PI_5)[1] == "Raspberry Pi 5 Model B Rev 1.0"
    assert "asimddp" in parse_cpuinfo(PI_5)[0]
    assert "asimddp" not in parse_cpuinfo(PI_4)[0]
    features, name = parse_cpuinfo(XEON)
    assert name == "Intel(R) Xeon(R) Platinum 8488C", "the line `model : 143` is not the name"
    assert features == {"fpu", "sse4_2", "avx2", "avx512f", "avx512_vnni", "amx_int8"}
    assert parse_cpuinfo("") == (frozenset(), "unknown CPU")


@pytest.mark.parametrize(
    ("machine", "arch"),
    [("x86_64", "x86_64"), ("AMD64", "x86_64"), ("arm64", "aarch64"), ("aarch64", "aarch64"), ("riscv64", "riscv64")],
)
def test_this_device_names_its_architecture_in_one_way(
    monkeypatch: pytest.MonkeyPatch, machine: str, arch: str
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    assert this_device("1.23", ["cpu"]).arch == arch


def test_a_system_without_procfs_has_no_features(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(variants, "_CPUINFO", variants._CPUINFO.with_name("no-such-file"))
    found = this_device("1.23", ["cpu"])
    assert (found.cpu_features, found.cpu_name, found.providers) == (frozenset(), "unknown CPU", ("cpu",))
