"""What the stages of a build hand on, and its files as they lie in the staging folder."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import onnx

from agent import __version__
from agent.model.manifest import Golden, Host, Requires, Tolerances, Variant
from agent.model.runtime import available_providers, ort
from agent.model.session import Session, SessionOptions, physical_cores
from agent.model.variants import this_device
from build_models.graph.model_io import open_session, with_outputs
from build_models.graph.native_input import source_input
from build_models.recipe import digest_of
from build_models.verify import Packed, Source

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from agent.model.manifest import InputSpec
    from build_models.evaluation import Evaluation
    from build_models.graph.canonical_output import CanonicalReport
    from build_models.pictures import PictureSet
    from build_models.recipe import Recipe
    from build_models.verify import Outputs

FP32, INT8 = "cpu-fp32", "cpu-int8"
FLOAT_TOLERANCES = Tolerances(score_floor=0.05, score=1e-3, box_px=0.05)
# x86 and ARM round int8 differently, by up to 3 steps of an output in a larger net.
INT8_TOLERANCES = Tolerances(score_floor=0.25, score=0.1, box_px=4.0)
# Without VNNI, x86 saturates when it multiplies uint8 by int8: there the float file runs.
INT8_HOSTS = [
    Host(arch="aarch64"),
    Host(arch="x86_64", cpu_features=["avx512_vnni"]),
    Host(arch="x86_64", cpu_features=["avx_vnni"]),
]


@dataclass(frozen=True)
class Candidate:
    """A variant on its way, its file in the staging folder, and why it is refused, if it is."""

    variant: Variant
    refused: str | None = None


@dataclass(frozen=True)
class Workpiece:
    """What the stages hand on; each field is filled by the stage named in its comment."""

    recipe: Recipe
    folder: Path  # staging folder of the bundle
    scratch: Path  # for files that do not go into the bundle
    source: onnx.ModelProto = dataclasses.field(default_factory=onnx.ModelProto)  # source
    source_sha256: str = ""  # source
    model: onnx.ModelProto = dataclasses.field(default_factory=onnx.ModelProto)  # native input to optimise
    spec: InputSpec | None = None  # native input
    head: CanonicalReport | None = None  # canonical output
    pictures: PictureSet | None = None  # pictures
    candidates: tuple[Candidate, ...] = ()  # quantise; verify and benchmark may refuse them
    evaluation: Evaluation | None = None  # evaluate
    reports: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)  # every stage

    @property
    def input_spec(self) -> InputSpec:
        """The manifest's input section."""
        assert self.spec is not None, "filled by the stage native input"
        return self.spec

    @property
    def canonical(self) -> CanonicalReport:
        """How the source's outputs were understood."""
        assert self.head is not None, "filled by the stage canonical output"
        return self.head

    @property
    def picture_set(self) -> PictureSet:
        """The pictures to calibrate and to judge with."""
        assert self.pictures is not None, "filled by the stage pictures"
        return self.pictures


def new_candidate(piece: Workpiece, name: str, model: onnx.ModelProto) -> Candidate:
    """Write a variant's file and describe it."""
    is_int8 = name == INT8
    variant = Variant(
        id=name,
        file=f"models/{name}.onnx",
        precision="int8" if is_int8 else "fp32",
        providers=["cpu"] if is_int8 else ["cpu", "cuda", "tensorrt"],
        requires=Requires(any_of=INT8_HOSTS if is_int8 else []),
        input=piece.input_spec,
        golden=Golden(file=f"golden/{name}.npz", tolerances=INT8_TOLERANCES if is_int8 else FLOAT_TOLERANCES),
    )
    (piece.folder / variant.file).write_bytes(model.SerializeToString(deterministic=True))
    return Candidate(variant)


def session_of(piece: Workpiece, candidate: Candidate) -> Session:
    """A session of a candidate's file as it lies on the disk."""
    data = (piece.folder / candidate.variant.file).read_bytes()
    return Session(data, piece.recipe.task, candidate.variant, SessionOptions(threads=physical_cores()))


def packed(piece: Workpiece, session: Session) -> Packed:
    """The fp32 file as it lies on the disk, opened so that its raw head can be seen too."""
    tensors = piece.canonical.raw_tensors
    (fp32,) = (each for each in piece.candidates if each.variant.id == FP32)
    model = with_outputs(onnx.load(piece.folder / fp32.variant.file), list(tensors.values()))
    network = open_session(model, optimise=True)

    def raw(image_bgr: NDArray[np.uint8]) -> Outputs:
        values = network.run(list(tensors.values()), {"image": image_bgr[None]})
        return dict(zip(tensors, values, strict=True))

    return Packed(session, raw)


def source_of(piece: Workpiece) -> Source:
    """The source model as the recipe gives it."""
    session = open_session(piece.source)
    names = list(piece.canonical.raw_tensors)
    feed_name = session.get_inputs()[0].name
    size_hw = (piece.input_spec.height, piece.input_spec.width)
    family = piece.canonical.family

    def run(image_bgr: NDArray[np.uint8]) -> Outputs:
        values = session.run(names, {feed_name: source_input(image_bgr[None], piece.recipe.input)})
        return dict(zip(names, values, strict=True))

    return Source(run, lambda raw: family.reference(raw, size_hw))


def provenance(piece: Workpiece) -> dict[str, Any]:
    """The manifest's section of that name: no build path and no host name is in it."""
    source = piece.recipe.source
    pictures = piece.picture_set
    versions = {"edge-agent": __version__, "onnx": onnx.__version__, "onnxruntime": ort.__version__}
    torch_version = piece.reports["source"].get("torch_version")
    return {
        "source": source.callable if source.kind == "torch" else source.path.name,
        "source_sha256": piece.source_sha256,
        "source_licence": piece.recipe.licence,
        "recipe_sha256": digest_of(piece.recipe),
        "calibration_sha256": pictures.sha256,
        "calibration_pictures": len(pictures.calibration),
        "versions": {**versions, "torch": torch_version} if torch_version else versions,
    }


def cpu_name() -> str:
    """The processor on which figures of this build are taken."""
    return this_device(ort.__version__, available_providers()).cpu_name
