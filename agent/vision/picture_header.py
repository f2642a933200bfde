"""A picture file from a stranger, judged by its bytes: no decoding, no copies, time linear in its length.

This finds what decoders are lenient or helpless with: headers that ask for gigabytes, cut files, files made to be slow.
What it cannot find is missing data in a JPEG that ends as it should: OpenCV shows that part grey.
"""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from agent.errors import PictureError

if TYPE_CHECKING:
    from collections.abc import Iterator

Format = Literal["jpeg", "png", "webp"]

_NAMES = {"jpeg": "JPEG", "png": "PNG", "webp": "WebP"}
_MAX_SIDE = 65_500  # what a JPEG can hold: the picture may be drawn on and sent back
_MAX_SEGMENTS = 65_536  # walking them takes tens of milliseconds; real files have tens to thousands
_MAX_SCANS = 64  # real progressive JPEGs have about ten; an empty one costs 42 bytes and, at 25 megapixels, 10 ms

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}  # by colour type
_PNG_HEADER = struct.Struct(">I4sIIBBBBBI")  # length, type, width, height, five settings, CRC
_PNG_CHUNK = struct.Struct(">I4s")
_PNG_BODY = len(_PNG_SIGNATURE) + _PNG_HEADER.size  # where the second chunk begins
_PNG_CHUNK_FRAME = 12  # bytes of a chunk around its data: length, type, CRC

# FF 00 is an FF of the data, FF FF is padding, FF 01 and FF D0 to D7 stand alone and carry nothing we need.
_JPEG_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")
_JPEG_SIZES = {0xC0 + n for n in range(16)} - {0xC4, 0xC8, 0xCC}  # SOF0 to SOF15 without DHT, JPG, DAC
_JPEG_FRAME = struct.Struct(">HBHHB")  # length, bits, height, width, components
_SOI, _EOI, _SOS = 0xD8, 0xD9, 0xDA

_WEBP_CHUNK = struct.Struct("<4sI")


class UnknownFormatError(PictureError):
    """Neither JPEG nor PNG nor WebP."""


class TooManyPixelsError(PictureError):
    """Larger than the caller allows, by its header."""


class DamagedPictureError(PictureError):
    """Empty, cut, contradicting itself, or refused by the decoder."""


@dataclass(frozen=True, slots=True)
class PictureInfo:
    """What a file's header says; the size is as stored, before a turn that EXIF asks for."""

    format: Format
    width: int
    height: int


def inspect_picture(content: bytes, max_pixels: int) -> PictureInfo:
    """Format and size of a whole picture file of at most ``max_pixels``; PictureError says what is wrong with others.

    A header that is too large is reported before a missing rest.
    """
    if not content:
        raise DamagedPictureError("expected a picture file, got 0 bytes; send the file's content")
    if content.startswith(b"\xff\xd8\xff"):
        return _inspect_jpeg(content, max_pixels)
    if content.startswith(_PNG_SIGNATURE):
        return _inspect_png(content, max_pixels)
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return _inspect_webp(content, max_pixels)
    raise UnknownFormatError(
        f"expected a JPEG, PNG or WebP picture, the content begins with {content[:12]!r}; convert it to one of these"
    )


def _inspect_jpeg(content: bytes, max_pixels: int) -> PictureInfo:
    info: PictureInfo | None = None
    scans = 0
    for code, start in _jpeg_segments(content):
        if code in _JPEG_SIZES:
            if info is not None:
                raise _damaged("jpeg", "one frame header", f"another one is at byte {start - 2}")
            info = _allowed(_jpeg_frame(content, start), max_pixels)
        elif code == _SOS:
            scans += 1
            if info is None:
                raise _damaged("jpeg", "a frame header before the first scan", "there is none")
            if scans > _MAX_SCANS:
                raise _damaged("jpeg", f"at most {_MAX_SCANS} scans", "there are more")
    if info is None or not scans:
        raise _damaged("jpeg", "a picture before the end marker", "there is none")
    return info


def _jpeg_segments(content: bytes) -> Iterator[tuple[int, int]]:
    """Each segment's marker and the place of its length, through the scans' data to the end marker.

    Without that marker the file was cut. OpenCV fills up with grey then, and says nothing (before version 5, and still
    when it reads a file itself). What lies behind it (further pictures, a video) is none of ours; what lies within a
    segment (a thumbnail) is skipped.
    """
    position = 2
    for _ in range(_MAX_SEGMENTS):
        marker = _JPEG_MARKER.search(content, position)
        if marker is None:
            raise _truncated("jpeg", "the end marker FF D9", content)
        start, code = marker.end(), content[marker.end() - 1]
        if code == _EOI:
            return
        if code < 0xC0 or code == _SOI:
            raise _damaged("jpeg", "a segment that JPEG allows there", f"marker FF {code:02X} is at byte {start - 2}")
        yield code, start  # the size is judged before the rest is missed
        length = int.from_bytes(content[start : start + 2], "big")
        if length < 2 <= len(content) - start:
            raise _damaged("jpeg", "segments of at least 2 bytes", f"one of {length} is at byte {start - 2}")
        position = start + max(length, 2)
        if position > len(content):
            raise _truncated("jpeg", f"the rest of the segment at byte {start - 2}", content)
    raise _too_many_segments("jpeg")


def _jpeg_frame(content: bytes, start: int) -> PictureInfo:
    if len(content) < start + _JPEG_FRAME.size:
        raise _truncated("jpeg", "the rest of the frame header", content)
    length, _bits, height, width, components = _JPEG_FRAME.unpack_from(content, start)
    if not components or length != 8 + 3 * components:
        raise _damaged("jpeg", "a frame header of 8 bytes and 3 per component", f"it has {length} for {components}")
    return PictureInfo("jpeg", width, height)


def _inspect_png(content: bytes, max_pixels: int) -> PictureInfo:
    info = _allowed(_png_header(content), max_pixels)
    if not _png_has_data(content):
        raise _damaged("png", "a picture in IDAT chunks", "there is none")
    return info


def _png_header(content: bytes) -> PictureInfo:
    if len(content) < _PNG_BODY:
        raise _truncated("png", "the rest of the header", content)
    length, kind, width, height, *settings, crc = _PNG_HEADER.unpack_from(content, len(_PNG_SIGNATURE))
    if kind != b"IHDR" or length != 13:
        raise _damaged("png", "a first chunk IHDR of 13 bytes", f"it is {kind!r} of {length}")
    if zlib.crc32(content[_PNG_BODY - 21 : _PNG_BODY - 4]) != crc:
        raise _damaged("png", "a header with a matching CRC", "it differs")
    depth, colour, compression, filters, interlace = settings
    if depth not in _PNG_DEPTHS.get(colour, ()) or compression or filters or interlace > 1:
        raise _damaged("png", "settings (depth, colour type, compression, filter, interlace) of PNG", f"got {settings}")
    return PictureInfo("png", width, height)


def _png_has_data(content: bytes) -> bool:
    """Walk the chunks up to the end chunk; what is in them is left to libpng, which checks it well."""
    has_data = False
    position = _PNG_BODY
    for _ in range(_MAX_SEGMENTS):
        if position + _PNG_CHUNK_FRAME > len(content):
            raise _truncated("png", "an IEND chunk", content)
        length, kind = _PNG_CHUNK.unpack_from(content, position)
        if not kind.isalpha() or kind == b"IHDR":
            raise _damaged("png", "a chunk that PNG allows there", f"type {kind!r} is at byte {position}")
        position += _PNG_CHUNK_FRAME + length
        if position > len(content):
            raise _truncated("png", f"{length} bytes in chunk {kind.decode()}", content)
        if kind == b"IEND":
            return has_data
        has_data = has_data or kind == b"IDAT"
    raise _too_many_segments("png")


def _inspect_webp(content: bytes, max_pixels: int) -> PictureInfo:
    """Check the first chunk's size, that all of the file is there and, in an extended file, that a picture follows."""
    kind, start, end = _webp_chunk(content, 12)
    info = _allowed(_webp_size(content, kind, start, end), max_pixels)
    whole = 8 + int.from_bytes(content[4:8], "little")
    if whole > len(content):
        raise _truncated("webp", f"{whole} bytes by the header", content)
    if kind != b"VP8X":
        _within_webp(end, whole)
        return info
    is_animated = bool(content[start] & 0x02)
    wanted = (b"ANMF",) if is_animated else (b"VP8 ", b"VP8L")
    for _ in range(_MAX_SEGMENTS):
        position = end + end % 2  # chunks begin at even bytes
        if position + _WEBP_CHUNK.size > whole:
            raise _damaged("webp", "a picture in the file", "there is none")
        kind, start, end = _webp_chunk(content, position)
        _within_webp(end, whole)
        if kind in wanted:
            if not is_animated and _webp_size(content, kind, start, end) != info:
                raise _damaged("webp", f"a picture as large as the canvas {info.width} x {info.height}", "it is not")
            return info
    raise _too_many_segments("webp")


def _webp_chunk(content: bytes, position: int) -> tuple[bytes, int, int]:
    """Type of the chunk at ``position``, and where its data begins and ends."""
    start = position + _WEBP_CHUNK.size
    if start > len(content):
        raise _truncated("webp", "the rest of a chunk", content)
    kind, length = _WEBP_CHUNK.unpack_from(content, position)
    return kind, start, start + length


def _within_webp(end: int, whole: int) -> None:
    if end > whole:
        raise _damaged("webp", f"chunks within the file's {whole} bytes", f"one ends at byte {end}")


def _webp_size(content: bytes, kind: bytes, start: int, end: int) -> PictureInfo:
    if kind not in {b"VP8 ", b"VP8L", b"VP8X"}:
        raise _damaged("webp", "a chunk VP8, VP8L or VP8X", f"{kind!r}")
    header = content[start : min(end, start + 10)]
    if len(header) < (5 if kind == b"VP8L" else 10):
        raise _truncated("webp", f"the rest of the chunk {kind.decode().strip()}", content)
    if kind == b"VP8X":
        width, height = (1 + int.from_bytes(header[at : at + 3], "little") for at in (4, 7))
    elif kind == b"VP8 ":
        if header[0] & 1 or header[3:6] != b"\x9d\x01\x2a":
            raise _damaged("webp", "a key frame", "another one, or its start code is missing")
        width, height = (int.from_bytes(header[at : at + 2], "little") & 0x3FFF for at in (6, 8))
    else:
        if header[0] != 0x2F:
            raise _damaged("webp", "the lossless signature 2F", f"{header[0]:02X}")
        bits = int.from_bytes(header[1:5], "little")
        width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    return PictureInfo("webp", width, height)


def _allowed(info: PictureInfo, max_pixels: int) -> PictureInfo:
    size = f"{info.width} x {info.height}"
    pixels = info.width * info.height
    if not pixels:
        raise _damaged(info.format, "at least one pixel", f"the header says {size}")
    if pixels > max_pixels:
        raise TooManyPixelsError(
            f"expected at most {max_pixels / 1e6:.1f} megapixels, the {_NAMES[info.format]} header says "
            f"{size} ({pixels / 1e6:.1f}); send a smaller picture"
        )
    if max(info.width, info.height) > _MAX_SIDE:
        raise TooManyPixelsError(
            f"expected sides of at most {_MAX_SIDE} pixels, the {_NAMES[info.format]} header says {size}; "
            "send a smaller picture"
        )
    return info


def _truncated(format_: Format, expected: str, content: bytes) -> DamagedPictureError:
    came = f"the content ends after {len(content)} bytes"
    return DamagedPictureError(f"truncated {_NAMES[format_]}: expected {expected}, {came}; send the whole file")


def _damaged(format_: Format, expected: str, came: str) -> DamagedPictureError:
    return DamagedPictureError(f"damaged {_NAMES[format_]}: expected {expected}, {came}; save the picture anew")


def _too_many_segments(format_: Format) -> DamagedPictureError:
    return _damaged(format_, f"at most {_MAX_SEGMENTS} segments", "there are more")
