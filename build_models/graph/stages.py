"""A split model on the disk: written with a proof, read back, and run stage after stage.

``stages.json`` says for each stage which tensors it takes and from where, so that stages can run in processes, or on
machines, of their own: a tensor comes from the caller (``input``) or from an earlier stage.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from build_models.errors import BuildError, RecipeError
from build_models.graph.model_io import first_line, inputs_of, open_session, outputs_of, run_model, runtime_errors

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from agent.model.runtime import ort
    from build_models.graph.model_io import TensorInfo
    from build_models.graph.split import Split

INDEX = "stages.json"
SCHEMA = 1


class StagedModel:
    """The stages of a folder, ready to run in order.

    Args:
        folder: as `write_stages` wrote it.
        optimise: whether ONNX Runtime may optimise each stage; without it the outputs are exactly the whole model's.

    Raises:
        RecipeError: the folder holds no stages, or a file is not the one that was written.
        BuildError: ONNX Runtime does not accept a stage.
    """

    def __init__(self, folder: Path, *, optimise: bool = True) -> None:
        self._index = _read_index(folder)
        self._sessions = [
            open_session(onnx.load_model_from_string(_read_stage(folder, each)), optimise=optimise)
            for each in self._index["stages"]
        ]

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """The whole model's outputs.

        Raises:
            BuildError: the feeds do not fit.
        """
        return _run(self._sessions, self._index["outputs"], feeds)


def run_stages(folder: Path, feeds: Mapping[str, NDArray[Any]], *, optimise: bool = True) -> dict[str, NDArray[Any]]:
    """Run a folder of stages once; see `StagedModel`, which keeps them loaded."""
    return StagedModel(folder, optimise=optimise).run(feeds)


def prove_equal(model: onnx.ModelProto, split: Split, samples: Iterable[Mapping[str, NDArray[Any]]]) -> int:
    """Run the whole and the stages on each sample, without ONNX Runtime's optimisations.

    Returns:
        How many samples were run.

    Raises:
        BuildError: a number differs.
    """
    sessions = [open_session(stage.model) for stage in split.stages]
    count = 0
    for feeds in samples:
        got = _run(sessions, list(split.outputs), feeds)
        for name, want in run_model(model, feeds).items():
            have = got[name]
            if want.dtype != have.dtype or not np.array_equal(want, have, equal_nan=want.dtype.kind == "f"):
                raise BuildError(f"the stages do not equal the whole: output {name} differs on sample {count}")
        count += 1
    return count


def write_stages(folder: Path, split: Split, about: Mapping[str, Any]) -> dict[str, Any]:
    """Write the stages and their index, which is returned.

    Args:
        folder: exists and is empty.
        split: what to write.
        about: what else stands in the index, such as the proof.
    """
    entries = []
    for stage in split.stages:
        data = stage.model.SerializeToString(deterministic=True)
        (folder / f"{stage.name}.onnx").write_bytes(data)
        inputs = [{**_plain(info), "from": stage.sources[info.name]} for info in inputs_of(stage.model)]
        entries.append(
            {
                "name": stage.name,
                "file": f"{stage.name}.onnx",
                "sha256": hashlib.sha256(data).hexdigest(),
                "bytes": len(data),
                "nodes": len(stage.model.graph.node),
                "inputs": inputs,
                "outputs": [_plain(info) for info in outputs_of(stage.model)],
            }
        )
    index = {
        "schema": SCHEMA,
        **about,
        "cuts": [list(cut) for cut in split.cuts],
        "carried": [list(names) for names in split.carried],
        "outputs": dict(split.outputs),
        "stages": entries,
    }
    (folder / INDEX).write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
    return index


def _run(
    sessions: Sequence[ort.InferenceSession], outputs: Iterable[str], feeds: Mapping[str, NDArray[Any]]
) -> dict[str, NDArray[Any]]:
    """Run in order; a tensor is let go when no later stage reads it."""
    takes = [[value.name for value in session.get_inputs()] for session in sessions]
    wanted = list(outputs)
    known = dict(feeds)
    for index, session in enumerate(sessions):
        missing = [name for name in takes[index] if name not in known]
        if missing:
            raise BuildError(f"stage {index} does not run: nothing is given for its input {', '.join(missing)}")
        names = [value.name for value in session.get_outputs()]
        try:
            known.update(zip(names, session.run(names, {name: known[name] for name in takes[index]}), strict=True))
        except runtime_errors() as err:
            raise BuildError(f"stage {index} does not run: {first_line(err)}") from err
        still = set(wanted).union(*takes[index + 1 :])
        known = {name: value for name, value in known.items() if name in still}
    return {name: known[name] for name in wanted}


def _read_index(folder: Path) -> dict[str, Any]:
    try:
        index = json.loads((folder / INDEX).read_bytes())
    except OSError as err:
        raise RecipeError(
            f"{folder / INDEX}: cannot read it: {err.strerror}; make stages with build-models split"
        ) from err
    except ValueError as err:
        raise RecipeError(f"{folder / INDEX}: expected what build-models split writes, found no JSON") from err
    if not isinstance(index, dict) or index.get("schema") != SCHEMA:
        raise RecipeError(f"{folder / INDEX}: expected schema {SCHEMA}; split the model again")
    return index


def _read_stage(folder: Path, entry: Mapping[str, Any]) -> bytes:
    path = folder / Path(entry["file"]).name
    try:
        data = path.read_bytes()
    except OSError as err:
        raise RecipeError(f"{path}: cannot read the stage: {err.strerror}; split the model again") from err
    if hashlib.sha256(data).hexdigest() != entry["sha256"]:
        raise RecipeError(f"{path}: expected the file that {INDEX} lists, its SHA-256 differs; split the model again")
    return data


def _plain(info: TensorInfo) -> dict[str, Any]:
    return {"name": info.name, "dtype": info.dtype, "shape": list(info.shape)}
