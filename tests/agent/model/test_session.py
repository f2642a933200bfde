from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import BundleError, FatalError
from agent.model import session as session_module
from agent.model.manifest import Manifest, Variant
from agent.model.runtime import available_providers
from agent.model.session import Session, SessionOptions, physical_cores
from tests.support.bundles import GOLDEN_PATH, MODEL_PATH, golden_pictures, manifest_of
from tests.support.tiny_models import TinyModel, classify_model, detect_model, segment_model
from tests.support.tiny_onnx import external_tensor, model, node, tensor, value

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from agent.model.manifest import Task

IMAGE = value("image", "uint8", [1, 48, 64, 3])


def variant_of(tiny: TinyModel, **keys: Any) -> Variant:
    plain = manifest_of(tiny, {MODEL_PATH: b"", GOLDEN_PATH: b""})
    plain["variants"][0].update(keys)
    return Manifest.model_validate(plain).variants[0]


def open_session(tiny: TinyModel, options: SessionOptions | None = None) -> Session:
    return Session(tiny.file, tiny.task, variant_of(tiny), options or SessionOptions())


def run(session: Session, picture: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
    session.input_image[:] = picture
    return {name: array.copy() for name, array in session.run().items()}


TINY_MODELS = {
    "detect": detect_model(),
    "classify": classify_model(),
    "segment": segment_model(),
    "segment with confidence": segment_model(stride=1, confidence=True),
}


@pytest.mark.parametrize("tiny", TINY_MODELS.values(), ids=TINY_MODELS.keys())
@pytest.mark.parametrize("rebind", [False, True], ids=["bound once", "bound per frame"])
def test_what_is_in_the_bound_buffer_is_what_the_model_sees(tiny: TinyModel, rebind: bool) -> None:
    session = open_session(tiny)
    session._rebind = rebind  # as on providers that copy the input when it is bound
    bright, dark = golden_pictures(tiny.width, tiny.height)
    for picture in (bright, dark, bright):
        found, expected = run(session, picture), tiny.outputs_of(picture)
        assert found.keys() == expected.keys()
        for name, array in expected.items():
            np.testing.assert_allclose(found[name], array, rtol=1e-4, atol=1e-6)
            assert found[name].dtype == array.dtype
    first, other = run(session, bright), run(session, dark)
    assert not any(np.allclose(first[name], other[name]) for name in first.keys() & {"scores", "mask", "confidence"})


def test_the_outputs_are_the_same_arrays_at_each_run() -> None:
    session = open_session(detect_model())
    first = session.run()
    kept = dict(first)
    session.input_image[:] = 255
    second = session.run()
    assert second is session.outputs
    assert all(second[name] is array for name, array in kept.items())
    assert kept["scores"][0, 0] == pytest.approx(0.9)


@pytest.mark.parametrize(
    "options", [SessionOptions(threads=1), SessionOptions(threads=2, spinning=True), SessionOptions(("cpu",), 4, False)]
)
def test_threads_and_spinning_change_no_result(options: SessionOptions) -> None:
    tiny = detect_model()
    picture = golden_pictures(tiny.width, tiny.height)[0]
    session = open_session(tiny, options)
    assert session.provider == "cpu"
    np.testing.assert_allclose(run(session, picture)["scores"], tiny.outputs_of(picture)["scores"], rtol=1e-4)


def test_a_provider_that_is_not_installed_is_passed_over() -> None:
    tiny = detect_model()
    missing = next(name for name in ("tensorrt", "cuda") if name not in available_providers())
    variant = variant_of(tiny, providers=[missing, "cpu"])
    assert Session(tiny.file, tiny.task, variant, SessionOptions((missing, "cpu"))).provider == "cpu"


def test_a_provider_that_onnxruntime_does_not_take_is_fatal(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = detect_model()
    missing = next(name for name in ("tensorrt", "cuda") if name not in available_providers())
    monkeypatch.setattr(session_module, "available_providers", lambda: [missing, "cpu"])
    variant = variant_of(tiny, providers=[missing])
    with (
        pytest.warns(UserWarning, match="not in available provider names"),
        pytest.raises(FatalError, match=f"asked for {missing}, onnxruntime fell back to CPUExecutionProvider"),
    ):
        Session(tiny.file, tiny.task, variant, SessionOptions((missing,)))


# --- contracts


def one_output(name: str, dtype: str, shape: list[int], *more_inputs: bytes) -> bytes:
    """A model with one output of a given type and shape."""
    constant = tensor("constant", np.zeros(shape, dtype))
    output = value(name, dtype, shape)
    return model([node("Identity", ["constant"], [name])], [IMAGE, *more_inputs], [output], [constant])


def dynamic_output(shape: list[int]) -> bytes:
    """A model whose scores have a size, written as -1, that depends on the picture."""
    nodes = [
        node("Cast", ["image"], ["pixels"], to=1),
        node("NonZero", ["pixels"], ["places"]),
        node("Cast", ["places"], ["numbers"], to=1),
        node("Reshape", ["numbers", "shape"], ["scores"]),
    ]
    output = value("scores", "float32", [f"size_{side}" if side < 0 else side for side in shape])
    return model(nodes, [IMAGE], [output], [tensor("shape", np.array(shape, np.int64))])


def refusal(file: bytes, task: Task = "detect") -> str:
    with pytest.raises(BundleError) as caught:
        Session(file, task, variant_of(detect_model()), SessionOptions())
    message = str(caught.value)
    assert message.startswith("variant cpu-fp32: ")
    assert message.isprintable()
    return message


def with_outputs(**shapes: list[int]) -> bytes:
    """A detector of constants with these output shapes."""
    dtypes = {"labels": "int64"}
    nodes, outputs, constants = [], [], []
    for name, shape in shapes.items():
        dtype = dtypes.get(name, "float32")
        nodes.append(node("Identity", [f"fixed_{name}"], [name]))
        outputs.append(value(name, dtype, shape))
        constants.append(tensor(f"fixed_{name}", np.zeros(shape, dtype)))
    return model(nodes, [IMAGE], outputs, constants)


@pytest.mark.parametrize(
    ("image", "why"),
    [
        (value("image", "float32", [1, 48, 64, 3]), "a float input"),
        (value("image", "uint8", [1, 3, 48, 64]), "channels first"),
        (value("image", "uint8", [1, 48, 65, 3]), "another width"),
        (value("image", "uint8", ["n", 48, 64, 3]), "a dynamic batch"),
        (value("image", "uint8", [1, "h", "w", 3]), "a dynamic size"),
        (value("picture", "uint8", [1, 48, 64, 3]), "another name"),
    ],
)
def test_an_input_is_refused_that_is(image: bytes, why: str) -> None:
    file = model([node("Identity", ["x"], ["scores"])], [image], [value("scores", "float32", [1, 2])],
                 [tensor("x", np.zeros((1, 2), np.float32))])  # fmt: skip
    assert "expected one input image tensor(uint8) [1, 48, 64, 3], found " in refusal(file, "classify"), why


def test_a_second_input_is_refused() -> None:
    assert "more tensor(float) [1]" in refusal(
        one_output("scores", "float32", [1, 2], value("more", "float32", [1])), "classify"
    )


@pytest.mark.parametrize(
    ("file", "needed"),
    [
        (with_outputs(scores=[1, 4], labels=[1, 4]), "boxes float32 [1, K, 4]"),
        (with_outputs(boxes=[1, 4, 4], labels=[1, 4]), "scores float32 [1, 4]"),
        (with_outputs(boxes=[1, 4, 4], scores=[1, 4]), "labels int64 [1, 4]"),
        (with_outputs(boxes=[1, 4, 5], scores=[1, 4], labels=[1, 4]), "boxes float32 [1, 4, 4]"),
        (with_outputs(boxes=[2, 4, 4], scores=[2, 4], labels=[2, 4]), "boxes float32 [1, "),
        (with_outputs(boxes=[4, 4], scores=[1, 4], labels=[1, 4]), "boxes float32 [1, K, 4]"),
        (with_outputs(boxes=[1, 4, 4], scores=[1, 3], labels=[1, 4]), "scores float32 [1, 4]"),
        (with_outputs(boxes=[1, 4, 4], scores=[1, 4], labels=[1, 5]), "labels int64 [1, 4]"),
    ],
    ids=["no boxes", "no scores", "no labels", "five sides", "two pictures", "rank", "fewer scores", "more labels"],
)
def test_a_detector_is_refused_without_its_canonical_outputs(file: bytes, needed: str) -> None:
    message = refusal(file)
    assert f"task detect needs an output {needed}" in message
    assert "found " in message


@pytest.mark.parametrize(
    ("file", "why"),
    [
        (one_output("scores", "int64", [1, 2]), "another type"),
        (one_output("scores", "float32", [2]), "another rank"),
        (one_output("scores", "float32", [3, 2]), "three pictures at once"),
        (one_output("logits", "float32", [1, 2]), "another name"),
        (dynamic_output([-1, 2]), "a dynamic batch"),
        (dynamic_output([1, -1]), "a dynamic number of classes"),
    ],
)
def test_a_classifier_is_refused_for(file: bytes, why: str) -> None:
    assert "task classify needs an output scores float32 [1, C] of fixed sizes; found " in refusal(file, "classify")


def test_a_mask_may_be_coarser_than_the_input_and_its_confidence_may_be_missing() -> None:
    assert {name: array.shape for name, array in open_session(segment_model()).outputs.items()} == {"mask": (1, 6, 8)}
    both = open_session(segment_model(stride=2, confidence=True)).outputs
    assert {name: array.shape for name, array in both.items()} == {"mask": (1, 24, 32), "confidence": (1, 24, 32)}


def segmenter(**outputs: tuple[str, list[int]]) -> bytes:
    """A segmenter of constants: type and shape of each output."""
    nodes = [node("Identity", [f"fixed_{name}"], [name]) for name in outputs]
    values = [value(name, dtype, shape) for name, (dtype, shape) in outputs.items()]
    constants = [tensor(f"fixed_{name}", np.zeros(shape, dtype)) for name, (dtype, shape) in outputs.items()]
    return model(nodes, [IMAGE], values, constants)


MASK = ("uint8", [1, 6, 8])


@pytest.mark.parametrize(
    ("file", "needed"),
    [
        (segmenter(classes=MASK), "mask uint8 [1, H, W]"),
        (segmenter(mask=("int64", [1, 6, 8])), "mask uint8 [1, H, W]"),
        (segmenter(mask=("float32", [1, 3, 6, 8])), "mask uint8 [1, H, W]"),
        (segmenter(mask=("uint8", [1, 1, 6, 8])), "mask uint8 [1, H, W]"),
        (segmenter(mask=("uint8", [2, 6, 8])), "mask uint8 [1, H, W]"),
        (segmenter(mask=MASK, confidence=("float32", [1, 6, 8])), "confidence uint8 [1, 6, 8]"),
        (segmenter(mask=MASK, confidence=("uint8", [1, 8, 6])), "confidence uint8 [1, 6, 8]"),
    ],
    ids=["no mask", "type", "logits", "rank", "two pictures", "confidence as floats", "confidence of another size"],
)
def test_a_segmenter_is_refused_without_its_canonical_outputs(file: bytes, needed: str) -> None:
    message = refusal(file, "segment")
    assert f"task segment needs an output {needed} of fixed sizes; found " in message


def test_a_segmenter_may_have_outputs_that_nobody_asks_for() -> None:
    file = segmenter(mask=MASK, logits=("float32", [1, 3, 6, 8]))
    session = Session(file, "segment", variant_of(detect_model()), SessionOptions())
    assert session.run().keys() == {"mask"}


@pytest.mark.parametrize(
    "file", [b"", b"\x00", b"no model at all", bytes(1000)], ids=["empty", "zero", "text", "zeros"]
)
def test_bytes_that_are_no_model_are_refused(file: bytes) -> None:
    assert "cannot load it" in refusal(file)


WHOLE = detect_model().file


@given(st.integers(0, len(WHOLE) - 1))
def test_a_model_cut_anywhere_is_refused(length: int) -> None:
    refusal(WHOLE[:length])


@pytest.mark.parametrize("place", ["weights.bin", "../weights.bin", "absolute", "link.bin", "a/" * 100 + "weights.bin"])
def test_weights_in_another_file_are_never_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    monkeypatch.chdir(inside)
    for path in (tmp_path / "weights.bin", inside / "weights.bin"):
        path.write_bytes(np.zeros(2, np.float32).tobytes())
    (inside / "link.bin").symlink_to(tmp_path / "weights.bin")
    location = str(tmp_path / "weights.bin") if place == "absolute" else place
    scores = value("scores", "float32", [1, 2])
    outside = [external_tensor("x", [1, 2], "float32", location)]
    file = model([node("Identity", ["x"], ["scores"])], [IMAGE], [scores], outside)
    assert "refers to another" in refusal(file, "classify")


def test_a_tensor_may_be_called_location() -> None:
    weights = [tensor("location", np.zeros((1, 2), np.float32))]
    file = model([node("Identity", ["location"], ["scores"])], [IMAGE], [value("scores", "float32", [1, 2])], weights)
    Session(file, "classify", variant_of(detect_model()), SessionOptions())


def test_a_model_that_fails_while_it_runs_is_fatal() -> None:
    # An index that only the picture decides: black is within the table, white is not.
    nodes = [
        node("Cast", ["image"], ["pixels"], to=7),
        node("ReduceMax", ["pixels"], ["brightest"], axes=[1, 2, 3], keepdims=0),
        node("Gather", ["table", "brightest"], ["scores"], axis=0),
    ]
    table = tensor("table", np.zeros((1, 2), np.float32))
    file = model(nodes, [IMAGE], [value("scores", "float32", [1, 2])], [table])
    session = Session(file, "classify", variant_of(detect_model()), SessionOptions())
    session.run()
    session.input_image[:] = 255
    with pytest.raises(FatalError, match="inference failed in onnxruntime") as caught:
        session.run()
    assert str(caught.value).isprintable()


# --- cores


@pytest.mark.parametrize(
    ("physical", "allowed", "cores"),
    [(4, {0, 1, 2, 3, 4, 5, 6, 7}, 4), (4, {0, 1}, 2), (None, {0, 1, 2}, 3), (0, {0}, 1)],
)
def test_threads_are_the_physical_cores_that_may_be_used(
    monkeypatch: pytest.MonkeyPatch, physical: int | None, allowed: set[int], cores: int
) -> None:
    monkeypatch.setattr(psutil, "cpu_count", lambda logical: physical)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: allowed)
    assert physical_cores() == cores
