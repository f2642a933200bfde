"""Inputs: pictures arrive as the model wants them, arrays untouched, and a wrong one is told."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the build extra")

import onnx
from onnx import TensorProto, helper

from agent.errors import PictureError
from build_models.errors import RecipeError
from build_models.look.samples import Preparation, samples_for

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

pytestmark = pytest.mark.build

Side = int | str
FLOAT, BYTES = TensorProto.FLOAT, TensorProto.UINT8


def model(*inputs: tuple[str, int, Sequence[Side]]) -> onnx.ModelProto:
    values = [helper.make_tensor_value_info(name, kind, list(shape)) for name, kind, shape in inputs]
    node = helper.make_node("Identity", [inputs[0][0]], ["out"])
    out = helper.make_tensor_value_info("out", inputs[0][1], None)
    return helper.make_model(helper.make_graph([node], "g", values, [out]))


@pytest.fixture(autouse=True)
def picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NDArray[np.uint8]:
    """``picture.png`` of 16 x 8 pixels, noise, in the working folder."""
    monkeypatch.chdir(tmp_path)
    image = np.random.default_rng(0).integers(0, 256, (8, 16, 3)).astype(np.uint8)
    cv2.imwrite("picture.png", image)
    return image


def only(given: onnx.ModelProto, *inputs: str, preparation: Preparation | None = None) -> dict[str, NDArray[Any]]:
    (feeds,) = samples_for(given, inputs or ["picture.png"], preparation or Preparation())
    return feeds


def test_the_devices_own_form_takes_the_bytes(picture: NDArray[np.uint8]) -> None:
    feeds = only(model(("image", BYTES, [1, 8, 16, 3])))
    np.testing.assert_array_equal(feeds["image"], picture[None])
    assert feeds["image"].dtype == np.uint8


def test_a_float_model_gets_normalised_rgb_with_the_channels_where_it_has_them(picture: NDArray[np.uint8]) -> None:
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    wanted = (picture[..., ::-1] / 255 - mean) / std
    how = Preparation(mean=mean, std=std)
    first = only(model(("x", FLOAT, [1, 3, 8, 16])), preparation=how)["x"]
    np.testing.assert_allclose(first[0], wanted.transpose(2, 0, 1), atol=1e-6)
    last = only(model(("x", FLOAT, ["batch", 8, 16, 3])), preparation=how)["x"]
    np.testing.assert_allclose(last[0], wanted, atol=1e-6)
    bgr = only(model(("x", FLOAT, [1, 8, 16, 3])), preparation=Preparation(color="bgr", scale=1.0))["x"]
    np.testing.assert_array_equal(bgr[0], picture.astype(np.float32))


def test_one_channel_is_grey(picture: NDArray[np.uint8]) -> None:
    got = only(model(("x", FLOAT, [1, 1, 8, 16])), preparation=Preparation(scale=1.0))["x"]
    np.testing.assert_allclose(got[0, 0], picture @ [0.114, 0.587, 0.299], atol=1e-3)


def test_a_picture_of_another_size_is_fitted_as_the_device_does(picture: NDArray[np.uint8]) -> None:
    boxed = only(model(("image", BYTES, [1, 16, 16, 3])))["image"][0]
    np.testing.assert_array_equal(boxed[4:12], picture)
    assert (boxed[:4] == 114).all()
    stretched = only(model(("image", BYTES, [1, 16, 16, 3])), preparation=Preparation(resize="stretch"))["image"][0]
    assert not (stretched[:4] == 114).all()


def test_any_size_needs_one() -> None:
    free = model(("x", FLOAT, ["n", 3, "h", "w"]))
    assert only(free, preparation=Preparation(size_wh=(24, 8)))["x"].shape == (1, 3, 8, 24)
    with pytest.raises(RecipeError, match=r"takes any size .*--size"):
        only(free)
    with pytest.raises(RecipeError, match="a size of its own"):
        only(model(("x", FLOAT, [1, 3, 8, 16])), preparation=Preparation(size_wh=(24, 8)))


def test_an_array_is_taken_as_it_is() -> None:
    wanted = np.arange(6, dtype=np.float32).reshape(1, 6)
    np.save("x.npy", wanted)
    np.testing.assert_array_equal(only(model(("x", FLOAT, ["n", 6])), "x.npy")["x"], wanted)
    for shape in ([1, 5], [6]):
        with pytest.raises(RecipeError, match=r"x.npy: expected x float32.*found float32\[1, 6\]"):
            only(model(("x", FLOAT, shape)), "x.npy")
    np.save("x.npy", wanted.astype(np.float64))
    with pytest.raises(RecipeError, match=r"found float64\[1, 6\]"):
        only(model(("x", FLOAT, ["n", 6])), "x.npy")
    Path("x.npy").write_bytes(b"nothing")
    with pytest.raises(RecipeError, match=r"expected an array as numpy\.save writes it"):
        only(model(("x", FLOAT, ["n", 6])), "x.npy")


def test_several_inputs_are_named() -> None:
    np.save("sizes.npy", np.array([[8, 16]], np.int64))
    both = model(("image", BYTES, [1, 8, 16, 3]), ("sizes", TensorProto.INT64, [1, 2]))
    feeds = only(both, "image=picture.png", "sizes=sizes.npy")
    assert sorted(feeds) == ["image", "sizes"]
    for given, said in [
        (["picture.png"], "say for which input, NAME=FILE: the model takes image uint8"),
        (["image=picture.png"], r"nothing is given for sizes int64\[1,2\]"),
        (["imag=picture.png"], "the model has no input 'imag'"),
        (["image=picture.png", "image=picture.png", "sizes=sizes.npy"], "as many files for each input, got image 2"),
    ]:
        with pytest.raises(RecipeError, match=said):
            samples_for(both, given, Preparation())


def test_a_folder_stands_for_its_pictures() -> None:
    samples = samples_for(model(("image", BYTES, [1, 8, 16, 3])), ["."], Preparation())
    assert samples.names == ("picture.png",)
    Path("empty").mkdir()
    with pytest.raises(RecipeError, match="expected pictures in the folder"):
        samples_for(model(("image", BYTES, [1, 8, 16, 3])), ["empty"], Preparation())


def test_what_is_no_picture_or_cannot_be_one_is_told() -> None:
    plain = model(("x", FLOAT, [1, 3, 8, 16]))
    with pytest.raises(RecipeError, match="cannot read the input"):
        only(plain, "none.png")
    Path("bad.png").write_bytes(b"nothing")
    with pytest.raises(PictureError):
        only(plain, "bad.png")
    for shape in ([1, 6], [1, 7, 8, 16]):
        with pytest.raises(RecipeError, match="four axes with 3 or 1 channels"):
            only(model(("x", FLOAT, shape)))
    with pytest.raises(RecipeError, match="a picture is a batch of one"):
        only(model(("x", FLOAT, [2, 3, 8, 16])))
    with pytest.raises(RecipeError, match="--color gray does not fit"):
        only(plain, preparation=Preparation(color="gray"))
    with pytest.raises(RecipeError, match="std"):
        only(plain, preparation=Preparation(std=(0.0,)))
