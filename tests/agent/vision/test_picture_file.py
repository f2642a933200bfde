from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.vision.picture_file import (
    DamagedPictureError,
    TooManyPixelsError,
    UnknownFormatError,
    decode_picture,
    inspect_picture,
)
from tests.support.pictures import (
    CMYK_JPEG,
    CMYK_JPEG_BGR,
    HEIGHT,
    WIDTH,
    animated_webp,
    colourful,
    encoded,
    png_chunk,
    png_header,
    samples,
    webp,
    webp_canvas,
    with_orientation,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

MAX_PIXELS = 1_000_000
SAMPLES = samples()
JPEG, PNG = SAMPLES["JPEG"], SAMPLES["PNG"]
PICTURE = colourful()
GREY = np.repeat(cv2.cvtColor(PICTURE, cv2.COLOR_BGR2GRAY)[..., None], 3, axis=2)
PALETTE_BGR = np.array([(0, 0, 255), (0, 255, 0), (255, 0, 0), (7, 8, 9)], np.uint8)
COLUMN, ROW = np.arange(WIDTH)[None, :], np.arange(HEIGHT)[:, None]

LOSSLESS = {
    "PNG": PICTURE,
    "PNG with alpha": PICTURE,  # dropped: what was hidden is seen
    "PNG of 16 bits": PICTURE,
    "PNG with more behind it": PICTURE,
    "grey PNG": GREY,
    "grey PNG with alpha": GREY,
    "grey PNG of 16 bits": GREY,
    "palette PNG": PALETTE_BGR[(COLUMN + ROW) % 4],
    "palette PNG with alpha": PALETTE_BGR[(COLUMN + 0 * ROW) % 4],
    "PNG of 1 bit": np.where(
        np.unpackbits(np.array([(0xA5, y, 0x0F) for y in range(HEIGHT)], np.uint8), axis=1)[..., None], 255, 0
    ).repeat(3, axis=2),
    "lossless WebP": PICTURE,
}
LOSSY = {
    "JPEG": PICTURE,
    "progressive JPEG": PICTURE,
    "JPEG with restarts": PICTURE,
    "JPEG with more behind it": PICTURE,
    "grey JPEG": GREY,
    "lossy WebP": PICTURE,
    "extended WebP": PICTURE,
    "animated WebP": PICTURE,
}
# From the stored picture to the upright one; Exif 2.3, tag 0x0112.
EXIF_TURNS: dict[int, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]] = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.transpose(1, 0, 2),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored[::-1, ::-1].transpose(1, 0, 2),
    8: lambda stored: np.rot90(stored, 1),
}


def decode(content: bytes) -> NDArray[np.uint8]:
    image = decode_picture(content, MAX_PIXELS)
    assert image.dtype == np.uint8
    return image


@pytest.mark.parametrize("name", LOSSLESS)
def test_lossless_pictures_become_8_bit_bgr_exactly(name: str) -> None:
    np.testing.assert_array_equal(decode(SAMPLES[name]), LOSSLESS[name])


@pytest.mark.parametrize("name", LOSSY)
def test_lossy_pictures_become_8_bit_bgr_closely(name: str) -> None:
    image = decode(SAMPLES[name]).astype(np.int16)
    assert np.abs(image - LOSSY[name]).mean() < 6
    assert np.abs(image[:, ::-1] - LOSSY[name]).mean() > 20  # of a mirrored one the bound would not hold


@pytest.mark.parametrize("name", SAMPLES)
def test_the_pixels_are_those_of_a_camera_with_this_file_as_its_source(name: str, tmp_path: Path) -> None:
    (tmp_path / "picture").write_bytes(SAMPLES[name])
    expected = cv2.imread(str(tmp_path / "picture"), cv2.IMREAD_COLOR)  # as in agent/camera/opencv.py
    np.testing.assert_array_equal(decode(SAMPLES[name]), np.asarray(expected))


def test_cmyk_becomes_bgr() -> None:
    image = decode(CMYK_JPEG)
    assert image.shape == (8, 16, 3)
    left, right = CMYK_JPEG_BGR
    np.testing.assert_allclose(image[:, :8], np.broadcast_to(left, (8, 8, 3)), atol=3)
    np.testing.assert_allclose(image[:, 8:], np.broadcast_to(right, (8, 8, 3)), atol=3)


@pytest.mark.parametrize("byte_order", ["<", ">"])
@pytest.mark.parametrize("orientation", EXIF_TURNS)
def test_a_photo_is_turned_as_its_exif_block_asks(orientation: int, byte_order: str) -> None:
    photo = with_orientation(JPEG, orientation, byte_order)
    info = inspect_picture(photo, MAX_PIXELS)
    assert (info.width, info.height) == (WIDTH, HEIGHT)  # as stored
    np.testing.assert_array_equal(decode(photo), EXIF_TURNS[orientation](decode(JPEG)))


def test_a_thumbnail_in_the_exif_block_is_not_the_picture() -> None:
    photo = with_orientation(JPEG, 1, thumbnail=encoded(".jpg", colourful(8, 8)))
    np.testing.assert_array_equal(decode(photo), decode(JPEG))


def test_the_first_frame_of_an_animation_is_taken() -> None:
    np.testing.assert_array_equal(decode(SAMPLES["animated WebP"]), decode(SAMPLES["lossy WebP"]))


def test_a_cut_jpeg_is_refused_that_opencv_would_fill_with_grey(tmp_path: Path) -> None:
    """This is why the structure is walked: OpenCV reports nothing."""
    whole = encoded(".jpg", colourful(160, 240))
    cut = whole[: len(whole) // 2]
    (tmp_path / "cut.jpg").write_bytes(cut)
    filled = np.asarray(cv2.imread(str(tmp_path / "cut.jpg")))
    assert filled.shape == (160, 240, 3)
    assert (filled[-16:] == filled[-1, -1]).all()  # one colour where the data is missing
    assert not (decode(whole)[-16:] == decode(whole)[-1, -1]).all()
    with pytest.raises(DamagedPictureError, match="truncated JPEG"):
        decode(cut)


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", DamagedPictureError),
        (b"text", UnknownFormatError),
        (png_header(50_000, 50_000), TooManyPixelsError),
    ],
)
def test_what_is_refused_by_its_bytes_is_not_decoded(
    content: bytes, error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    with pytest.raises(error):
        decode(content)


@pytest.mark.parametrize(
    "content",
    [
        png_header(8, 8) + png_chunk(b"IDAT", b"no zlib stream") + png_chunk(b"IEND"),
        PNG[:-20] + bytes((PNG[-20] ^ 1,)) + PNG[-19:],  # one bit, in the data
        JPEG.replace(b"\xff\xdb", b"\xff\xfe"),  # no quantisation tables
        JPEG.replace(b"\xff\xc0", b"\xff\xc3"),  # lossless JPEG, but the tables are of another kind
        SAMPLES["lossy WebP"][:30] + b"\xff" * (len(SAMPLES["lossy WebP"]) - 30),
        webp(webp_canvas(WIDTH, HEIGHT, 2), b"ANMF" + bytes(4)),
        animated_webp(SAMPLES["lossless WebP"], WIDTH - 8, HEIGHT),  # its frames are larger than they claim
    ],
    ids=lambda content: f"{len(content)} bytes",
)
def test_what_the_decoder_refuses_is_damaged(content: bytes) -> None:
    inspect_picture(content, MAX_PIXELS)  # has nothing against it
    with pytest.raises(DamagedPictureError, match=r"^expected a \w+ picture of \d+ x \d+ pixels, .*: save it anew"):
        decode(content)


def test_an_exception_of_the_decoder_is_damage_too() -> None:
    """Here by OpenCV's own limit of 2^30 pixels."""
    content = png_header(60_000, 60_000) + png_chunk(b"IDAT", b"") + png_chunk(b"IEND")
    with pytest.raises(DamagedPictureError, match=r"OpenCV refuses it \(pixels <= CV_IO_MAX_IMAGE_PIXELS\)") as caught:
        decode_picture(content, 60_000 * 60_000)
    assert isinstance(caught.value.__cause__, cv2.error)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "decoded",
    [
        np.zeros((HEIGHT, WIDTH + 1, 3), np.uint8),
        np.zeros((HEIGHT, WIDTH), np.uint8),
        np.zeros((HEIGHT, WIDTH, 3), np.uint16),
    ],
)
def test_a_decoder_that_contradicts_the_header_is_not_believed(
    decoded: NDArray[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cv2, "imdecode", lambda *_: decoded)
    with pytest.raises(DamagedPictureError, match=rf"of {WIDTH} x {HEIGHT} pixels, it decodes to \("):
        decode(PNG)


edits = st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 3), st.binary(max_size=4)), max_size=4)


@given(st.sampled_from(sorted(SAMPLES)), edits)
def test_a_damaged_file_gives_a_picture_of_its_header_s_size_or_an_error(
    name: str, edits: list[tuple[int, int, bytes]]
) -> None:
    content = SAMPLES[name]
    for place, dropped, put in edits:
        at = place % (len(content) + 1)
        content = content[:at] + put + content[at + dropped :]
    try:
        image = decode(content)
    except (UnknownFormatError, TooManyPixelsError, DamagedPictureError):
        return
    info = inspect_picture(content, MAX_PIXELS)
    assert sorted(image.shape[:2]) == sorted((info.width, info.height))
    assert info.width * info.height <= MAX_PIXELS
