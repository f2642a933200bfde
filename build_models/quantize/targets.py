"""The variants that a bundle can hold, in the order in which devices are to prefer them: the table behind the manifest.

A device takes the first variant of its most preferred provider whose hosts fit. A host can ask for a CPU feature but
not for its absence, so the stricter variant stands first: x86 with VNNI takes a file made for it before it comes to
the one with 7-bit weights, which every x86 with AVX2 could run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from agent.model.manifest import Host, Requires, Tolerances

Provider = Literal["cpu", "cuda", "tensorrt"]
Precision = Literal["fp32", "fp16", "int8"]
# Who turns the float graph into the file: none (it is the file), static.py, tensorrt.py, float16.py, dynamic.py.
Writer = Literal["float", "static", "tensorrt", "float16", "dynamic"]

FLOAT_TOLERANCES = Tolerances(score_floor=0.05, score=1e-3, box_px=0.05)
# 11 bits: boxes come from a raw head that is off by up to 2^-11 of its largest value.
HALF_TOLERANCES = Tolerances(score_floor=0.1, score=0.02, box_px=1.0, mask=0.01)
# x86 and ARM round int8 differently, by up to 3 steps of an output in a larger net.
INT8_TOLERANCES = Tolerances(score_floor=0.25, score=0.1, box_px=4.0, mask=0.02)

_ARM = Host(arch="aarch64")
# The kernel's names: AVX512 machines have the first, hybrid client machines the second.
_X86_VNNI = [Host(arch="x86_64", cpu_features=["avx512_vnni"]), Host(arch="x86_64", cpu_features=["avx_vnni"])]
_X86 = Host(arch="x86_64", cpu_features=["avx2"])


@dataclass(frozen=True)
class Target:
    """One row of the table.

    Attributes:
        id: of the variant, and the name of its file.
        precision: as the manifest says it.
        providers: that the file is made for.
        requires: hosts that may run it.
        tolerances: of its golden results.
        writer: what makes it.
        options: keyword arguments of the writer.
        needs_pictures: whether it takes ranges from calibration.
        why: one line for people.
    """

    id: str
    precision: Precision
    providers: tuple[Provider, ...]
    requires: Requires
    tolerances: Tolerances
    writer: Writer
    options: tuple[tuple[str, bool], ...] = ()
    needs_pictures: bool = True
    why: str = ""


TARGETS = (
    Target(
        id="trt-int8",
        precision="int8",
        providers=("tensorrt",),
        requires=Requires(),
        tolerances=INT8_TOLERANCES,
        writer="tensorrt",
        why="TensorRT: symmetric int8, all zero points 0",
    ),
    Target(
        id="gpu-fp16",
        precision="fp16",
        providers=("tensorrt", "cuda"),
        requires=Requires(),
        tolerances=HALF_TOLERANCES,
        writer="float16",
        why="CUDA and TensorRT: float16 inside, overflow-prone nodes float32",
    ),
    Target(
        id="cpu-int8-vnni",
        precision="int8",
        providers=("cpu",),
        requires=Requires(any_of=_X86_VNNI),
        tolerances=INT8_TOLERANCES,
        writer="static",
        options=(("packed_stem", True),),
        why="x86 with VNNI: as cpu-int8, the first convolution on groups of pixels",
    ),
    Target(
        id="cpu-int8",
        precision="int8",
        providers=("cpu",),
        requires=Requires(any_of=[_ARM, *_X86_VNNI]),
        tolerances=INT8_TOLERANCES,
        writer="static",
        why="ARM64 and x86 with VNNI: uint8 activations, int8 weights per channel",
    ),
    Target(
        id="cpu-int8-nonvnni",
        precision="int8",
        providers=("cpu",),
        requires=Requires(any_of=[_X86]),
        tolerances=INT8_TOLERANCES,
        writer="static",
        options=(("reduce_range", True),),
        why="x86 without VNNI: weights of 7 bits, so that sums of two products stay in 16 bits",
    ),
    Target(
        id="cpu-int8-dynamic",
        precision="int8",
        providers=("cpu",),
        requires=Requires(any_of=[_ARM, *_X86_VNNI]),
        tolerances=INT8_TOLERANCES,
        writer="dynamic",
        needs_pictures=False,
        why="matrix products only, without calibration pictures",
    ),
    Target(
        id="cpu-fp32",
        precision="fp32",
        providers=("cpu", "cuda", "tensorrt"),
        requires=Requires(),
        tolerances=FLOAT_TOLERANCES,
        writer="float",
        needs_pictures=False,
        why="any machine, the reference",
    ),
)


def target(name: str) -> Target:
    """The target of an id.

    Raises:
        KeyError: there is none of that name.
    """
    return next((each for each in TARGETS if each.id == name), None) or _unknown(name)


def _unknown(name: str) -> Target:
    raise KeyError(f"expected one of {', '.join(each.id for each in TARGETS)}, got {name!r}")
