from __future__ import annotations

import contextlib
import io
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import BundleError
from agent.model import golden
from agent.model.manifest import Manifest, Variant
from agent.model.session import Session, SessionOptions
from tests.support.bundles import GOLDEN_PATH, MODEL_PATH, golden_pair, golden_pictures, manifest_of
from tests.support.tiny_models import TinyModel, classify_model, detect_model, nan_model, segment_model

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Pairs = list[tuple[NDArray[np.uint8], dict[str, NDArray[Any]]]]


def variant_of(tiny: TinyModel) -> Variant:
    return Manifest.model_validate(manifest_of(tiny, {MODEL_PATH: b"", GOLDEN_PATH: b""})).variants[0]


def replay(tiny: TinyModel, content: bytes) -> None:
    variant = variant_of(tiny)
    golden.replay(Session(tiny.file, tiny.task, variant, SessionOptions()), content, tiny.task, variant)


def pairs_of(tiny: TinyModel) -> Pairs:
    return golden.load(golden_pair(tiny), variant_of(tiny))


@pytest.mark.parametrize(
    "tiny",
    [detect_model(), classify_model(), segment_model(), segment_model(confidence=True)],
    ids=["detect", "classify", "segment", "segment with confidence"],
)
def test_a_model_that_runs_as_it_should_passes(tiny: TinyModel) -> None:
    replay(tiny, golden_pair(tiny))


def swap_channels(pairs: Pairs) -> Pairs:
    return [(np.ascontiguousarray(picture[..., ::-1]), expected) for picture, expected in pairs]


def swap_pictures(pairs: Pairs) -> Pairs:
    return [(pairs[1][0], pairs[0][1]), (pairs[0][0], pairs[1][1])]


def change_one_expectation(pairs: Pairs) -> Pairs:
    expected = pairs[1][1]
    if "mask" in expected:
        expected["mask"].flat[0] += 1
    else:
        expected["scores"].flat[0] += 0.01
    return pairs


@pytest.mark.parametrize(
    "tiny", [detect_model(), classify_model(), segment_model()], ids=["detect", "classify", "segment"]
)
@pytest.mark.parametrize("change", [swap_channels, swap_pictures, change_one_expectation])
def test_a_replay_fails_when_somebody_would(tiny: TinyModel, change: Callable[[Pairs], Pairs]) -> None:
    with pytest.raises(BundleError, match=r"golden input [01] does not give its expected output on this device"):
        replay(tiny, golden.dump(change(pairs_of(tiny))))


def test_the_second_picture_counts_as_much_as_the_first() -> None:
    tiny = detect_model()
    first, _ = golden_pictures(tiny.width, tiny.height)
    frozen = {name: array.copy() for name, array in tiny.outputs_of(first).items()}
    pairs = [(picture, frozen) for picture, _ in pairs_of(tiny)]
    with pytest.raises(BundleError, match="golden input 1"):
        replay(tiny, golden.dump(pairs))


def test_a_tighter_tolerance_refuses_what_a_looser_accepts() -> None:
    tiny = detect_model()
    pairs = pairs_of(tiny)
    pairs[0][1]["boxes"][0, 0] += 1.0
    variant = variant_of(tiny)
    session = Session(tiny.file, tiny.task, variant, SessionOptions())
    with pytest.raises(BundleError, match=r"no partner within 0\.05 px"):
        golden.replay(session, golden.dump(pairs), tiny.task, variant)
    tolerances = variant.golden.tolerances.model_copy(update={"box_px": 1.5})
    loose = variant.model_copy(update={"golden": variant.golden.model_copy(update={"tolerances": tolerances})})
    golden.replay(session, golden.dump(pairs), tiny.task, loose)


def test_a_model_that_gives_no_numbers_is_refused() -> None:
    with pytest.raises(BundleError, match="the actual output scores has values that are not finite"):
        replay(nan_model(), golden_pair(nan_model()))


def test_expectations_of_no_numbers_are_refused() -> None:
    tiny = detect_model()
    pairs = pairs_of(tiny)
    pairs[0][1]["scores"].fill(np.nan)
    with pytest.raises(BundleError, match="the expected output scores has values that are not finite"):
        replay(tiny, golden.dump(pairs))


def test_an_expectation_that_leaves_an_output_out_is_refused() -> None:
    tiny = detect_model()
    pairs = pairs_of(tiny)
    del pairs[0][1]["boxes"]
    with pytest.raises(BundleError, match="expected outputs"):
        replay(tiny, golden.dump(pairs))


def test_the_bytes_of_a_golden_file_depend_on_its_arrays_alone() -> None:
    tiny = detect_model()
    assert golden_pair(tiny) == golden_pair(tiny)
    with zipfile.ZipFile(io.BytesIO(golden_pair(tiny))) as archive:
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_what_is_dumped_is_what_is_loaded_and_numpy_reads_it_too() -> None:
    tiny = detect_model()
    content = golden_pair(tiny)
    for (picture, expected), original in zip(pairs_of(tiny), golden_pictures(64, 48), strict=True):
        np.testing.assert_array_equal(picture, original)
        assert expected.keys() == {"boxes", "scores", "labels"}
        np.testing.assert_array_equal(expected["scores"], tiny.outputs_of(original)["scores"])
    with np.load(io.BytesIO(content)) as arrays:
        np.testing.assert_array_equal(arrays["input_1"], golden_pictures(64, 48)[1])


def npz(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def npy(array: NDArray[Any]) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def pickled() -> bytes:
    file = io.BytesIO()
    np.savez(file, input_0=np.array([{"an": "object"}], object))
    return file.getvalue()


def with_header(header: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("input_0.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    return file.getvalue()


PICTURE = np.zeros((48, 64, 3), np.uint8)
RESULT = np.zeros((1, 4), np.float32)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is no golden file"),
        (b"PK\x03\x04 and no more", "is no golden file"),
        (npy(PICTURE), "is no golden file"),
        (pickled(), "Object arrays cannot be loaded"),
        (with_header(b"{'shape': (48,"), "is no golden file"),
        (with_header(b"  {}\n {}"), "is no golden file"),
        (npz(), "found float64 [0] and 0 outputs"),
        (npz(input_0=PICTURE), "found uint8 [48, 64, 3] and 0 outputs"),
        (npz(input_0=PICTURE, expected_0_scores=RESULT), "expected input_1"),
        (npz(input_0=PICTURE[:-1], expected_0_scores=RESULT), "found uint8 [47, 64, 3]"),
        (npz(input_0=PICTURE.astype(np.float32), expected_0_scores=RESULT), "found float32 [48, 64, 3]"),
    ],
    ids=[
        "empty",
        "cut",
        "npy",
        "pickle",
        "open header",
        "two headers",
        "no arrays",
        "no outputs",
        "one input",
        "another size",
        "another type",
    ],
)
def test_a_file_that_is_none_is_refused(content: bytes, expected: str) -> None:
    with pytest.raises(BundleError, match=r"golden/cpu-fp32\.npz") as caught:
        golden.load(content, variant_of(detect_model()))
    assert expected in str(caught.value)
    assert str(caught.value).isprintable()


WHOLE = golden_pair(detect_model())


@given(st.data())
def test_damage_anywhere_ends_in_a_refusal_or_is_harmless(data: st.DataObject) -> None:
    damaged = bytearray(WHOLE)
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(WHOLE) - 1))] = data.draw(st.integers(0, 255))
    del damaged[data.draw(st.integers(len(WHOLE) // 2, len(WHOLE))) :]
    with contextlib.suppress(BundleError):
        golden.load(bytes(damaged), variant_of(detect_model()))
