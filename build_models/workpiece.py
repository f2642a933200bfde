"""What the stages of a build hand on, and its files as they lie in the staging folder."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import onnx

from agent import __version__
from agent.model.manifest import Golden, Variant
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
    from build_models.measured import Measured
    from build_models.pictures import Pictures
    from build_models.quantize.attempts import Memory
    from build_models.quantize.found import Found
    from build_models.quantize.ground import Ground
    from build_models.quantize.targets import Target
    from build_models.recipe import Recipe
    from build_models.verify import Outputs


FP32 = "cpu-fp32"


@dataclass(frozen=True)
class Candidate:
    """A variant on its way: its file lies in the staging folder.

    Attributes:
        variant: as the manifest will have it.
        refused: why it is not packed; None: it is.
        missed_budget: it was refused for what the recipe demands, so the build has not reached its goal.
        advice: what to try then.
    """

    variant: Variant
    refused: str | None = None
    missed_budget: bool = False
    advice: tuple[str, ...] = ()


@dataclass(frozen=True)
class PictureSets:
    """The pictures of a build, by use; no picture is in two of them."""

    calibration: Pictures
    search: Pictures
    val: Pictures


@dataclass(frozen=True)
class Workpiece:
    """What the stages hand on; each field is filled by the stage named in its comment."""

    recipe: Recipe
    folder: Path  # staging folder of the bundle
    scratch: Path  # for files that do not go into the bundle
    memory: Memory  # what earlier runs found out
    measured: tuple[Measured, ...] = ()  # figures from devices
    source: onnx.ModelProto = dataclasses.field(default_factory=onnx.ModelProto)  # source
    source_sha256: str = ""  # source
    model: onnx.ModelProto = dataclasses.field(default_factory=onnx.ModelProto)  # native input to optimise
    spec: InputSpec | None = None  # native input
    head: CanonicalReport | None = None  # canonical output
    sets: PictureSets | None = None  # pictures
    ground: Ground | None = None  # calibrate
    found: Mapping[str, Found] = dataclasses.field(default_factory=dict)  # search, by target
    candidates: tuple[Candidate, ...] = ()  # verify, search, targets; judge and benchmark may refuse them
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
    def raw_outputs(self) -> list[str]:
        """The tensors that hold the raw head in the graph."""
        return list(self.canonical.raw_tensors.values())

    @property
    def pictures(self) -> PictureSets:
        """The pictures to calibrate, to search and to judge with."""
        assert self.sets is not None, "filled by the stage pictures"
        return self.sets

    @property
    def calibrated(self) -> Ground:
        """The float graph and what calibration knows of it."""
        assert self.ground is not None, "filled by the stage calibrate"
        return self.ground

    def candidate(self, name: str) -> Candidate:
        """The candidate of that id."""
        (found,) = (each for each in self.candidates if each.variant.id == name)
        return found


def new_candidate(piece: Workpiece, target: Target, data: bytes) -> Candidate:
    """Write a variant's file and describe it."""
    variant = Variant(
        id=target.id,
        file=f"models/{target.id}.onnx",
        precision=target.precision,
        providers=list(target.providers),
        requires=target.requires,
        input=piece.input_spec,
        golden=Golden(file=f"golden/{target.id}.npz", tolerances=target.tolerances),
    )
    (piece.folder / variant.file).write_bytes(data)
    return Candidate(variant)


def session_of(piece: Workpiece, candidate: Candidate) -> Session:
    """A session of a candidate's file as it lies on the disk."""
    data = (piece.folder / candidate.variant.file).read_bytes()
    return Session(data, piece.recipe.task, candidate.variant, SessionOptions(threads=physical_cores()))


def packed(piece: Workpiece, session: Session) -> Packed:
    """The fp32 file as it lies on the disk, opened so that its raw head can be seen too."""
    tensors = piece.canonical.raw_tensors
    file = piece.folder / piece.candidate(FP32).variant.file
    network = open_session(with_outputs(onnx.load(file), list(tensors.values())), optimise=True)

    def raw(image_bgr: NDArray[np.uint8]) -> Outputs:
        values = network.run(list(tensors.values()), {"image": image_bgr[None]})
        return dict(zip(tensors, values, strict=True))

    return Packed(session, raw)


def source_of(piece: Workpiece) -> Source:
    """The source model as the recipe gives it."""
    names = list(dict.fromkeys([*piece.canonical.raw_tensors, *piece.canonical.outputs]))
    session = open_session(with_outputs(piece.source, names))
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
    pictures = piece.pictures
    versions = {"edge-agent": __version__, "onnx": onnx.__version__, "onnxruntime": ort.__version__}
    torch_version = piece.reports["source"].get("torch_version")
    return {
        "source": source.callable if source.kind == "torch" else source.path.name,
        "source_sha256": piece.source_sha256,
        "source_licence": piece.recipe.licence,
        "recipe_sha256": digest_of(piece.recipe),
        "calibration_sha256": pictures.calibration.dataset.sha256,
        "calibration_pictures": len(pictures.calibration),
        "search_sha256": pictures.search.dataset.sha256,
        "search_pictures": len(pictures.search),
        "val_sha256": pictures.val.dataset.sha256,
        "val_pictures": len(pictures.val),
        "versions": {**versions, "torch": torch_version} if torch_version else versions,
    }


def cpu_name() -> str:
    """The processor on which figures of this build are taken."""
    return this_device(ort.__version__, available_providers()).cpu_name
