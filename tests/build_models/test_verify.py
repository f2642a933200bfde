"""Verification: right passes, slightly wrong fails, and a check that cannot fail is no check."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest

from agent.model import golden
from agent.model.manifest import Golden, InputSpec, Tolerances, Variant
from agent.vision.resize import Placement
from build_models.errors import BuildError
from build_models.pictures import Picture
from build_models.verify import (
    RAW_TOLERANCE,
    Packed,
    Source,
    make_golden,
    run_on,
    verify_against_source,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from agent.model.session import Session

    Outputs = Mapping[str, NDArray[Any]]

SIDE = 8
TOLERANCES = Tolerances()


class FakeSession:
    """Stands for a session: its outputs are a function of what lies in its input."""

    def __init__(self, outputs_of: Callable[[NDArray[np.uint8]], Outputs]) -> None:
        self.input_image = np.zeros((SIDE, SIDE, 3), np.uint8)
        self._outputs_of = outputs_of

    def run(self) -> Outputs:
        return self._outputs_of(self.input_image)


def session(outputs_of: Callable[[NDArray[np.uint8]], Outputs]) -> Session:
    return cast("Session", FakeSession(outputs_of))


def by_number(outputs: Sequence[Outputs]) -> Session:
    """Says the n-th of ``outputs`` of a `numbered` picture n."""
    return session(lambda image: outputs[int(image[0, 0, 0])])


def picture(image: NDArray[np.uint8], name: str = "picture.png") -> Picture:
    return Picture(name, None, image, Placement((1.0, 1.0), (0.0, 0.0), (640, 480), (640, 480)))


def numbered(count: int) -> list[Picture]:
    return [picture(np.full((SIDE, SIDE, 3), number, np.uint8)) for number in range(count)]


def coloured(count: int) -> list[Picture]:
    noise = np.random.default_rng(1).integers(0, 256, (count, 1, 1, 3))
    return [
        picture(np.broadcast_to(each, (SIDE, SIDE, 3)).astype(np.uint8), f"{n}.png") for n, each in enumerate(noise)
    ]


def grey(count: int) -> list[Picture]:
    return [picture(np.full((SIDE, SIDE, 3), 60 * number, np.uint8), f"{number}.png") for number in range(count)]


def detections(*found: tuple[int, float, float], size: int = 4) -> Outputs:
    """Objects as (class, score, left edge), each 40 pixels wide and high; padded with zeros to ``size``."""
    boxes, scores, labels = np.zeros((1, size, 4)), np.zeros((1, size)), np.zeros((1, size), np.int64)
    for index, (label, score, left) in enumerate(found):
        boxes[0, index] = [left, 0, left + 40, 40]
        scores[0, index], labels[0, index] = score, label
    return {"boxes": boxes.astype(np.float32), "scores": scores.astype(np.float32), "labels": labels}


def network(mean: float = 0.4, order: Sequence[int] = (0, 1, 2), gain: float = 2.0) -> Callable[..., Outputs]:
    """A classifier of three classes: its raw head is each channel's normalised mean."""

    def raw(image: NDArray[np.uint8]) -> Outputs:
        means = image[..., list(order)].reshape(-1, 3).mean(axis=0) / 255
        return {"logits": (gain * (means - mean)).astype(np.float32)[None]}

    return raw


def softmax(raw: Outputs) -> Outputs:
    powers = np.exp(raw["logits"] - raw["logits"].max())
    return {"scores": powers / powers.sum()}


def packed(raw: Callable[..., Outputs], decode: Callable[[Outputs], Outputs] = softmax) -> Packed:
    return Packed(session(lambda image: decode(raw(image))), raw)


def verify(file: Packed, source: Source | None = None, pictures: list[Picture] | None = None) -> dict[str, Any]:
    source = source or Source(network(), softmax)
    return verify_against_source(file, source, pictures or coloured(4), "classify", TOLERANCES)


def test_the_same_network_passes_and_the_controls_say_why_they_do_not() -> None:
    told = verify(packed(network()))
    assert told["pictures"] == 4
    assert told["compared"] == 5  # one more is tinted
    assert told["raw_difference"] == 0.0
    assert set(told["controls"]) == {"another picture", "shuffled channels"}
    assert all("the raw head is off by" in reason for reason in told["controls"].values())


@pytest.mark.parametrize(
    "wrong",
    [network(mean=0.4 + 1 / 255), network(order=(2, 1, 0)), network(gain=2.01)],
    ids=["a mean off by a grey level", "swapped channels", "a scale off by half a percent"],
)
@pytest.mark.parametrize("pictures", [coloured(4), grey(4)], ids=["coloured", "grey"])
def test_a_slightly_wrong_graph_fails(wrong: Callable[..., Outputs], pictures: list[Picture]) -> None:
    with pytest.raises(
        BuildError, match=r"\.png.*: the canonical graph does not match its source: the raw head is off"
    ):
        verify(packed(wrong), pictures=pictures)


def test_a_wrong_graph_fails_even_where_the_scores_do_not_show_it() -> None:
    sure = Source(network(gain=2000), softmax)  # one class has all of the probability
    with pytest.raises(BuildError, match="the raw head is off"):
        verify(packed(network(gain=2000, mean=0.4 + 1 / 255)), sure)


def test_pictures_of_one_name_in_several_folders_are_all_compared() -> None:
    pictures = [picture(each.input_image, "same.png") for each in coloured(4)]
    assert verify(packed(network()), pictures=pictures)["compared"] == 5


def test_a_very_sure_network_passes() -> None:
    verify(packed(network(gain=2000)), Source(network(gain=2000), softmax))


def test_a_wrong_decoding_of_the_right_head_fails() -> None:
    def cooler(raw: Outputs) -> Outputs:
        return softmax({"logits": raw["logits"] * np.float32(0.9)})

    with pytest.raises(BuildError, match="the canonical graph does not match its source: scores differ by up to"):
        verify(packed(network(), cooler))


def test_a_difference_within_the_tolerance_passes() -> None:
    told = verify(packed(network(gain=2.0 * (1 + RAW_TOLERANCE / 2))))
    assert 0 < told["raw_difference"] < RAW_TOLERANCE


def test_values_that_are_no_numbers_fail() -> None:
    def broken(image: NDArray[np.uint8]) -> Outputs:
        return {"logits": np.full((1, 3), np.nan, np.float32)}

    with pytest.raises(BuildError, match="the raw head is off by nan"):
        verify(packed(broken))


def test_a_network_that_ignores_its_picture_is_no_proof() -> None:
    def same(image: NDArray[np.uint8]) -> Outputs:
        return {"logits": np.ones((1, 3), np.float32)}

    with pytest.raises(BuildError, match="cannot fail: with another picture all 5 pictures match too"):
        verify(packed(same), Source(same, softmax))


def test_a_network_that_ignores_colour_is_no_proof_of_the_channel_order() -> None:
    def brightness(image: NDArray[np.uint8]) -> Outputs:
        return {"logits": np.array([[image.mean() / 255, 0.5, 0.1]], np.float32)}

    with pytest.raises(BuildError, match="cannot fail: with shuffled channels all 5 pictures match too"):
        verify(packed(brightness), Source(brightness, softmax))


def test_pictures_in_which_nothing_is_seen_prove_nothing() -> None:
    def raw(image: NDArray[np.uint8]) -> Outputs:
        return {"head": image.mean(axis=(0, 1), dtype=np.float32)}

    def decode(_: Outputs) -> Outputs:
        return detections()

    file = Packed(session(lambda image: detections()), raw)
    with pytest.raises(BuildError, match="the source model sees nothing"):
        verify_against_source(file, Source(raw, decode), coloured(4), "detect", TOLERANCES)


def test_outputs_are_copied_out_of_the_session() -> None:
    buffer = np.zeros(1)

    def refill(image: NDArray[np.uint8]) -> Outputs:
        buffer[:] = image[0, 0, 0]
        return {"scores": buffer}

    fake = session(refill)
    first = run_on(fake, numbered(2)[1].input_image)
    run_on(fake, numbered(2)[0].input_image)
    assert first["scores"][0] == 1


def variant() -> Variant:
    return Variant(
        id="cpu-fp32",
        file="models/cpu-fp32.onnx",
        precision="fp32",
        providers=["cpu"],
        input=InputSpec(height=SIDE, width=SIDE),
        golden=Golden(file="golden/cpu-fp32.npz", tolerances=TOLERANCES),
    )


def test_a_golden_file_holds_the_picture_that_shows_most_and_the_next_that_differs() -> None:
    outputs = [
        detections((0, 0.5, 0)),
        detections((0, 0.9, 0), (1, 0.9, 100)),
        detections((0, 0.9, 0), (1, 0.9, 100)),
        detections((0, 0.9, 50)),
    ]
    data = make_golden(by_number(outputs), numbered(4), "detect", TOLERANCES)
    (first, of_first), (second, of_second) = golden.load(data, variant())
    assert [int(image[0, 0, 0]) for image in (first, second)] == [1, 3]
    for got, index in ((of_first, 1), (of_second, 3)):
        assert all(np.array_equal(got[name], outputs[index][name]) for name in outputs[index])


def test_without_two_different_outputs_there_is_no_golden_file() -> None:
    outputs = [detections((0, 0.9, 0))] * 3
    with pytest.raises(BuildError, match="no two verification pictures give different outputs"):
        make_golden(by_number(outputs), numbered(3), "detect", TOLERANCES)
