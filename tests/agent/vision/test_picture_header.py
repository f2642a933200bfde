from __future__ import annotations

import time
import tracemalloc
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import PictureError
from agent.vision.picture_header import (
    DamagedPictureError,
    PictureInfo,
    TooManyPixelsError,
    UnknownFormatError,
    inspect_picture,
)
from tests.support.pictures import (
    HEIGHT,
    PNG_SIGNATURE,
    WIDTH,
    colourful,
    encoded,
    jpeg_frame,
    png_chunk,
    png_header,
    riff_chunk,
    samples,
    segment,
    webp,
    webp_canvas,
    with_orientation,
)

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_PIXELS = 25_000_000
SAMPLES = samples()
LOSSY = SAMPLES["lossy WebP"]
CUT_FROM_BEHIND = {name: content for name, content in SAMPLES.items() if "more behind" not in name}

SOI, EOI = b"\xff\xd8", b"\xff\xd9"
FRAME = jpeg_frame(WIDTH, HEIGHT)
SCAN = segment(0xDA, b"\1\1\0\0\x3f\0") + b"\x12\xff\x00\x34\xff\xd0\x56"
IHDR, IDAT, IEND = png_header(WIDTH, HEIGHT), png_chunk(b"IDAT", b"zlib"), png_chunk(b"IEND")
CANVAS = webp_canvas(WIDTH, HEIGHT)


@pytest.mark.parametrize("name", SAMPLES)
def test_format_and_size_come_from_the_header(name: str) -> None:
    info = inspect_picture(SAMPLES[name], WIDTH * HEIGHT)
    assert (info.width, info.height) == (WIDTH, HEIGHT)
    assert info.format in name.lower().split()


@pytest.mark.parametrize("name", SAMPLES)
def test_one_pixel_more_than_allowed_is_too_many(name: str) -> None:
    with pytest.raises(TooManyPixelsError, match=f"header says {WIDTH} x {HEIGHT}"):
        inspect_picture(SAMPLES[name], WIDTH * HEIGHT - 1)


@pytest.mark.parametrize("name", CUT_FROM_BEHIND)
def test_a_file_that_was_cut_anywhere_is_refused(name: str) -> None:
    content = SAMPLES[name]
    for length in range(len(content)):
        with pytest.raises((DamagedPictureError, UnknownFormatError)) as caught:
            inspect_picture(content[:length], MAX_PIXELS)
        assert length < 12 or isinstance(caught.value, DamagedPictureError)


@pytest.mark.parametrize("name", CUT_FROM_BEHIND)
def test_a_header_that_is_too_large_is_reported_before_a_missing_rest(name: str) -> None:
    kinds = []
    for length in range(len(SAMPLES[name])):
        with pytest.raises(PictureError) as caught:
            inspect_picture(SAMPLES[name][:length], 1)
        kinds.append(type(caught.value))
    header_bytes = kinds.index(TooManyPixelsError)
    assert set(kinds[header_bytes:]) == {TooManyPixelsError}
    if "JPEG" not in name:  # where tables precede the header
        assert header_bytes <= 33


@pytest.mark.parametrize(
    ("content", "error", "sentence"),
    [
        (b"", DamagedPictureError, "got 0 bytes"),
        (b"hello, world", UnknownFormatError, r"expected a JPEG, PNG or WebP picture, .* b'hello, world'; convert it"),
        (b"GIF89a" + bytes(20), UnknownFormatError, "GIF89a"),
        (b"RIFF\4\0\0\0WAVE", UnknownFormatError, "WAVE"),
        (
            png_header(50_000, 50_000),
            TooManyPixelsError,
            r"^expected at most 25\.0 megapixels, the PNG header says 50000 x 50000 \(2500\.0\); send a smaller",
        ),
        (png_header(2**31 - 1, 2**31 - 1), TooManyPixelsError, "4611686014"),
        (png_header(2**32 - 1, 2**32 - 1), TooManyPixelsError, "4294967295 x 4294967295"),
        (png_header(65_536, 1), TooManyPixelsError, "sides of at most 65500 pixels, the PNG header says 65536 x 1;"),
        (png_header(0, 5), DamagedPictureError, "at least one pixel, the header says 0 x 5"),
        (SOI + jpeg_frame(65_535, 65_535), TooManyPixelsError, "JPEG header says 65535 x 65535"),
        (SOI + jpeg_frame(0, 5) + SCAN + EOI, DamagedPictureError, "0 x 5"),
        (SOI + jpeg_frame(5, 0) + SCAN + EOI, DamagedPictureError, "5 x 0"),  # the size comes later, in a DNL
        (webp(webp_canvas(2**24, 2**24)), TooManyPixelsError, "WebP header says 16777216 x 16777216"),
        (webp(webp_canvas(2**24, 1)), TooManyPixelsError, "sides"),
        (webp(riff_chunk(b"VP8 ", b"\0\0\0\x9d\x01\x2a\0\0\5\0")), DamagedPictureError, "0 x 5"),
        (
            SOI + FRAME + SCAN,
            DamagedPictureError,
            "truncated JPEG: expected the end marker FF D9, .* send the whole file",
        ),
        (SOI + FRAME + EOI, DamagedPictureError, "a picture before the end marker"),
        (SOI + EOI, DamagedPictureError, "a picture before the end marker"),
        (SOI + SCAN + FRAME + EOI, DamagedPictureError, "a frame header before the first scan"),
        (SOI + FRAME + FRAME + SCAN + EOI, DamagedPictureError, "one frame header, another one is at byte 21"),
        (SOI + FRAME + SCAN + jpeg_frame(9, 9, code=0xC2) + EOI, DamagedPictureError, "one frame header"),
        (SOI + FRAME + SOI + SCAN + EOI, DamagedPictureError, "marker FF D8"),
        (SOI + FRAME + b"\xff\x02" + SCAN + EOI, DamagedPictureError, "marker FF 02"),
        (SOI + b"\xff\xe0\0\1" + FRAME + SCAN + EOI, DamagedPictureError, "segments of at least 2 bytes, one of 1"),
        (SOI + FRAME.replace(b"\x11", b"\x0b", 1) + SCAN + EOI, DamagedPictureError, "3 per component"),
        (SOI + jpeg_frame(WIDTH, HEIGHT, 0) + SCAN + EOI, DamagedPictureError, "3 per component, it has 8 for 0"),
        (SOI + FRAME + SCAN * 65 + EOI, DamagedPictureError, "at most 64 scans"),
        (SOI + b"\xff\xfe\0\2" * 65_536 + FRAME + SCAN + EOI, DamagedPictureError, "at most 65536 segments"),
        (IHDR + IDAT, DamagedPictureError, "truncated PNG: expected an IEND chunk"),
        (IHDR + IEND, DamagedPictureError, "a picture in IDAT chunks"),
        (IHDR + IHDR[8:] + IDAT + IEND, DamagedPictureError, "type b'IHDR' is at byte 33"),
        (IHDR + png_chunk(b"ID\0T") + IEND, DamagedPictureError, "type b'ID"),
        (
            IHDR + b"\xff" * 4 + IDAT[4:] + IEND,
            DamagedPictureError,
            "truncated PNG: expected 4294967295",
        ),
        (IHDR + png_chunk(b"tEXt") * 65_536 + IDAT + IEND, DamagedPictureError, "at most 65536 segments"),
        (IHDR[:-1] + b"?" + IDAT + IEND, DamagedPictureError, "matching CRC"),
        (PNG_SIGNATURE + png_chunk(b"CgBI", bytes(13)) + IHDR[8:], DamagedPictureError, "a first chunk IHDR"),
        (png_header(8, 8, depth=16, colour_type=3) + IDAT + IEND, DamagedPictureError, r"\[16, 3, 0, 0, 0\]"),
        (png_header(8, 8, colour_type=5) + IDAT + IEND, DamagedPictureError, r"\[8, 5, 0, 0, 0\]"),
        (png_header(8, 8, rest=(1, 0, 0)) + IDAT + IEND, DamagedPictureError, r"\[8, 2, 1, 0, 0\]"),
        (png_header(8, 8, rest=(0, 1, 0)) + IDAT + IEND, DamagedPictureError, r"\[8, 2, 0, 1, 0\]"),
        (png_header(8, 8, rest=(0, 0, 2)) + IDAT + IEND, DamagedPictureError, r"\[8, 2, 0, 0, 2\]"),
        (webp(riff_chunk(b"LIST", bytes(10))), DamagedPictureError, "a chunk VP8, VP8L or VP8X, b'LIST'"),
        (webp(riff_chunk(b"VP8 ", bytes(10))), DamagedPictureError, "a key frame"),
        (webp(riff_chunk(b"VP8L", bytes(5))), DamagedPictureError, "signature 2F, 00"),
        (
            webp(riff_chunk(b"VP8L", b"\x2f")),
            DamagedPictureError,
            "truncated WebP: expected the rest of the chunk VP8L",
        ),
        (webp(LOSSY[12:16] + b"\0\1\0\0" + LOSSY[20:]), DamagedPictureError, "chunks within the file's"),
        (webp(CANVAS, LOSSY[12:16] + b"\0\1\0\0" + LOSSY[20:]), DamagedPictureError, "chunks within the file's"),
        (webp(CANVAS), DamagedPictureError, "a picture in the file, there is none"),
        (webp(CANVAS, riff_chunk(b"EXIF", b"")), DamagedPictureError, "a picture in the file, there is none"),
        (webp(webp_canvas(WIDTH, HEIGHT, 2), LOSSY[12:]), DamagedPictureError, "a picture in the file"),
        (webp(webp_canvas(HEIGHT, WIDTH), LOSSY[12:]), DamagedPictureError, "as large as the canvas 16 x 24"),
        (webp(CANVAS, riff_chunk(b"EXIF", b"") * 65_536, LOSSY[12:]), DamagedPictureError, "at most 65536 segments"),
    ],
    ids=lambda value: f"{len(value)} bytes" if isinstance(value, bytes) else None,
)
def test_what_is_wrong_is_said(content: bytes, error: type[PictureError], sentence: str) -> None:
    with pytest.raises(error, match=sentence) as caught:
        inspect_picture(content, MAX_PIXELS)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    "content",
    [
        SOI + FRAME + SCAN + EOI,  # nothing but structure is judged here
        SOI + FRAME + SCAN * 64 + EOI,
        SOI + FRAME + SCAN + b"\xff\xff\xff" + EOI[1:],  # padding
        SOI + b"\xff\x01" + b"junk" + FRAME + SCAN + EOI,  # libjpeg skips both, so do we
        IHDR + IDAT + IEND,
        IHDR + png_chunk(b"IDAT", b"x") * 60_000 + IEND,
        webp(LOSSY[12:]) + b"more",
    ],
    ids=lambda content: f"{len(content)} bytes",
)
def test_odd_but_whole_files_pass(content: bytes) -> None:
    info = inspect_picture(content, MAX_PIXELS)
    assert (info.width, info.height) == (WIDTH, HEIGHT)


def test_a_thumbnail_is_not_taken_for_the_picture() -> None:
    thumbnail = encoded(".jpg", colourful(8, 8))
    photo = with_orientation(SAMPLES["JPEG"], 1, thumbnail=thumbnail)
    assert inspect_picture(photo, MAX_PIXELS) == PictureInfo("jpeg", WIDTH, HEIGHT)
    with pytest.raises(DamagedPictureError, match="end marker"):  # the thumbnail's does not count
        inspect_picture(photo[:-2], MAX_PIXELS)


@pytest.mark.parametrize("code", sorted({0xC0 + n for n in range(16)} - {0xC4, 0xC8, 0xCC}))
def test_every_kind_of_frame_header_gives_the_size(code: int) -> None:
    content = SOI + jpeg_frame(7, 9, code=code) + SCAN + EOI
    assert inspect_picture(content, MAX_PIXELS) == PictureInfo("jpeg", 7, 9)


@pytest.mark.parametrize("code", [0xC4, 0xC8, 0xCC])
def test_other_segments_give_no_size(code: int) -> None:
    with pytest.raises(DamagedPictureError, match="a frame header before the first scan"):
        inspect_picture(SOI + jpeg_frame(7, 9, code=code) + SCAN + EOI, MAX_PIXELS)


BODY_BYTES = 50_000_000
HEAVY: dict[str, Callable[[], bytes]] = {
    "text": lambda: b"text" * (BODY_BYTES // 4),
    "a JPEG of padding": lambda: SOI + b"\xff" * BODY_BYTES,
    "a JPEG of padding in a scan": lambda: SOI + FRAME + SCAN + b"\xff" * BODY_BYTES,
    "a JPEG of stuffed bytes": lambda: SOI + FRAME + SCAN + b"\xff\0" * (BODY_BYTES // 2),
    "a JPEG of restarts": lambda: SOI + FRAME + SCAN + b"\xff\xd0" * (BODY_BYTES // 2),
    "a JPEG of empty segments": lambda: SOI + b"\xff\xfe\0\2" * (BODY_BYTES // 4),
    "a JPEG of scans": lambda: SOI + FRAME + SCAN * (BODY_BYTES // len(SCAN)),
    "a PNG of empty chunks": lambda: IHDR + png_chunk(b"IDAT") * (BODY_BYTES // 12),
    "a PNG of different chunks": lambda: (
        IHDR + b"".join(png_chunk(b"aa%c%c" % (65 + n % 26, 65 + n // 26)) for n in range(600))
    ),
    "a WebP of empty chunks": lambda: webp(CANVAS, riff_chunk(b"EXIF", b"") * (BODY_BYTES // 8)),
    "zeros after a header": lambda: IHDR + bytes(BODY_BYTES),
    "a header of 50,000 pixels a side": lambda: png_header(50_000, 50_000),
}


@pytest.mark.parametrize("name", HEAVY)
def test_a_heavy_body_is_refused_quickly_and_without_memory(name: str) -> None:
    """The bound is generous (0.3 s at most were measured); looking at each byte again for each byte takes years."""
    content = HEAVY[name]()
    tracemalloc.start()
    try:
        started_s = time.thread_time()
        with pytest.raises(PictureError):
            inspect_picture(content, MAX_PIXELS)
        took_s = time.thread_time() - started_s
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 100_000
    assert took_s < 10.0


def test_the_bound_on_memory_would_notice_a_copy() -> None:
    content = HEAVY["text"]()
    tracemalloc.start()
    try:
        half = content[: len(content) // 2]
        assert tracemalloc.get_traced_memory()[1] > 100_000
    finally:
        tracemalloc.stop()
    assert half


BEGINNINGS = [b"", b"\xff\xd8\xff", PNG_SIGNATURE, IHDR, b"RIFF\x20\0\0\0WEBP", SOI + FRAME, webp(CANVAS)]


@given(st.sampled_from(BEGINNINGS), st.binary())
def test_any_bytes_are_a_picture_or_one_of_three_errors(start: bytes, rest: bytes) -> None:
    try:
        info = inspect_picture(start + rest, MAX_PIXELS)
    except (UnknownFormatError, TooManyPixelsError, DamagedPictureError):
        return
    assert 0 < info.width * info.height <= MAX_PIXELS
