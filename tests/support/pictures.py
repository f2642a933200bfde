"""Picture files of every kind that people upload: encoded by OpenCV or, where it cannot, written byte by byte."""

from __future__ import annotations

import base64
import struct
import zlib
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Image = NDArray[np.uint8]

WIDTH, HEIGHT = 24, 16
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

# 16 x 8, left half (0, 200, 40, 30) and right half (180, 20, 0, 60) in inverted CMYK, as Photoshop writes it.
CMYK_JPEG = base64.b64decode(
    "/9j/7gAOQWRvYmUAZAAAAAAA/9sAQwADAgIDAgIDAwMDBAMDBAUIBQUEBAUKBwcGCAwKDAwLCgsLDQ4SEA0OEQ4LCxAWEBETFBUVFQwPFxgWFBgSFB"
    "UU/8AAFAgACAAQBEMRAE0RAFkRAEsRAP/EABYAAQEBAAAAAAAAAAAAAAAAAAkHCP/EABQQAQAAAAAAAAAAAAAAAAAAAAD/2gAOBEMATQBZAEsAAD8A"
    "VNjxuggYHzwLWl7/2Q=="
)
CMYK_JPEG_BGR = ((190, 50, 225), (195, 180, 58))  # of its halves


def colourful(height: int = HEIGHT, width: int = WIDTH) -> Image:
    """A smooth BGR picture without symmetry."""
    few = np.random.default_rng(5).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(few, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)


def encoded(extension: str, image: NDArray[np.uint8] | NDArray[np.uint16], *parameters: int) -> bytes:
    ok, content = cv2.imencode(extension, image, list(parameters))
    assert ok
    return content.tobytes()


def segment(code: int, data: bytes) -> bytes:
    """A segment of a JPEG."""
    return bytes((0xFF, code)) + struct.pack(">H", 2 + len(data)) + data


def with_orientation(jpeg: bytes, orientation: int, byte_order: str = "<", thumbnail: bytes = b"") -> bytes:
    """A JPEG with an EXIF block in front: one entry, and a thumbnail behind it as cameras do."""
    mark = b"II" if byte_order == "<" else b"MM"
    head = mark + struct.pack(byte_order + "HI", 42, 8)
    entry = struct.pack(byte_order + "HHHIHHI", 1, 0x0112, 3, 1, orientation, 0, 0)
    return jpeg[:2] + segment(0xE1, b"Exif\0\0" + head + entry + thumbnail) + jpeg[2:]


def jpeg_frame(width: int, height: int, components: int = 3, code: int = 0xC0) -> bytes:
    """A JPEG's frame header."""
    return segment(code, struct.pack(">BHHB", 8, height, width, components) + b"\1\x11\0" * components)


def png_chunk(kind: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_header(
    width: int, height: int, depth: int = 8, colour_type: int = 2, rest: tuple[int, ...] = (0, 0, 0)
) -> bytes:
    """Signature and IHDR."""
    return PNG_SIGNATURE + png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour_type, *rest))


def png(width: int, rows: Sequence[bytes], depth: int, colour_type: int, *extra: bytes) -> bytes:
    """A PNG of given rows, with chunks in front of its data."""
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    header = png_header(width, len(rows), depth, colour_type)
    return header + b"".join(extra) + png_chunk(b"IDAT", data) + png_chunk(b"IEND")


def riff_chunk(kind: bytes, data: bytes) -> bytes:
    return kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)


def webp(*chunks: bytes) -> bytes:
    content = b"WEBP" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(content)) + content


def webp_canvas(width: int, height: int, flags: int = 0) -> bytes:
    """The first chunk of an extended WebP; flag 2 is for animations."""
    return riff_chunk(
        b"VP8X", bytes((flags, 0, 0, 0)) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    )


def animated_webp(still: bytes, width: int, height: int, frames: int = 2) -> bytes:
    """An animation that shows the picture of a simple WebP again and again."""
    place = bytes(6) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    frame = riff_chunk(b"ANMF", place + (100).to_bytes(3, "little") + b"\0" + still[12:])
    return webp(webp_canvas(width, height, 2), riff_chunk(b"ANIM", bytes(6)), *[frame] * frames)


def samples() -> dict[str, bytes]:
    """A file of each kind, all ``colourful()`` or a version of it; each is WIDTH x HEIGHT as stored."""
    bgr = colourful()
    grey = np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY), np.uint8)
    opacity = np.ascontiguousarray(grey[:, ::-1])
    bgra = np.dstack([bgr, opacity])
    palette = png_chunk(b"PLTE", bytes((255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 8, 7)))
    lossy = encoded(".webp", bgr, cv2.IMWRITE_WEBP_QUALITY, 80)
    return {
        "JPEG": encoded(".jpg", bgr),
        "progressive JPEG": encoded(".jpg", bgr, cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
        "JPEG with restarts": encoded(".jpg", bgr, cv2.IMWRITE_JPEG_RST_INTERVAL, 1),
        "grey JPEG": encoded(".jpg", grey),
        "JPEG with more behind it": encoded(".jpg", bgr) + encoded(".jpg", grey)[:50],
        "PNG": encoded(".png", bgr),
        "PNG with alpha": encoded(".png", bgra),
        "PNG of 16 bits": encoded(".png", bgr.astype(np.uint16) * 257),
        "grey PNG": encoded(".png", grey),
        "grey PNG with alpha": png(
            WIDTH, [np.dstack([g, o]).tobytes() for g, o in zip(grey, opacity, strict=True)], 8, 4
        ),
        "grey PNG of 16 bits": encoded(".png", grey.astype(np.uint16) * 257),
        "palette PNG": png(WIDTH, [bytes(x % 4 for x in range(y, y + WIDTH)) for y in range(HEIGHT)], 8, 3, palette),
        "palette PNG with alpha": png(
            WIDTH, [bytes((0x1B,)) * (WIDTH // 4)] * HEIGHT, 2, 3, palette, png_chunk(b"tRNS", bytes((0, 128, 255, 9)))
        ),
        "PNG of 1 bit": png(WIDTH, [bytes((0xA5, y, 0x0F)) for y in range(HEIGHT)], 1, 0),
        "PNG with more behind it": encoded(".png", bgr) + b"more",
        "lossy WebP": lossy,
        "lossless WebP": encoded(".webp", bgr, cv2.IMWRITE_WEBP_QUALITY, 101),
        "lossy WebP with alpha": encoded(".webp", bgra, cv2.IMWRITE_WEBP_QUALITY, 80),
        "lossless WebP with alpha": encoded(".webp", bgra, cv2.IMWRITE_WEBP_QUALITY, 101),
        "extended WebP": webp(webp_canvas(WIDTH, HEIGHT), riff_chunk(b"ICCP", b"odd"), lossy[12:]),
        "animated WebP": animated_webp(lossy, WIDTH, HEIGHT),
    }
