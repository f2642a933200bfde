"""Picture files: judged by their header when they are listed, decoded as the device decodes them when they are used."""

from __future__ import annotations

import hashlib
import struct
from typing import TYPE_CHECKING

import cv2
import numpy as np

from agent.vision.picture_file import DamagedPictureError, PictureError, decode_picture, inspect_picture
from build_models.errors import RecipeError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

MAX_PIXELS = 2**28  # 805 MB once decoded
_ORIENTATION = 0x0112
_QUARTER_TURNS = range(5, 9)  # the values of the EXIF orientation that exchange width and height
_EXIF = b"Exif\0\0"


def listed_size(content: bytes) -> tuple[int, int]:
    """Width and height of a picture file once it is turned as EXIF asks, without decoding it.

    Raises:
        PictureError: what is wrong with the file, as far as its structure tells.
    """
    if content.startswith(b"BM"):
        return _bmp_size(content)
    info = inspect_picture(content, MAX_PIXELS)
    for block in _EXIF_BLOCKS[info.format](content):
        if _orientation(block) in _QUARTER_TURNS:
            return info.height, info.width
    return info.width, info.height


def read_picture(path: Path, sha256: str, size_wh: tuple[int, int]) -> NDArray[np.uint8]:
    """Decode a listed picture: uint8 ``[h, w, 3]`` BGR.

    Raises:
        RecipeError: it cannot be read or decoded, or is no longer what was listed.
    """
    content = read_listed(path, sha256)
    try:
        image = _decode_bmp(content) if content.startswith(b"BM") else decode_picture(content, MAX_PIXELS)
    except PictureError as err:
        raise RecipeError(f"{path}: cannot decode the picture: {err}") from err
    if image.shape != (size_wh[1], size_wh[0], 3):
        height, width = image.shape[:2]
        raise RecipeError(
            f"{path}: expected {size_wh[0]} x {size_wh[1]} pixels by its header, it decodes to {width} x {height}; "
            "save the picture anew"
        )
    return image


def read_listed(path: Path, sha256: str) -> bytes:
    """A file's content, which must be what was listed: the dataset's digest stands for it.

    Raises:
        RecipeError: it cannot be read, or has changed.
    """
    content = read_file(path)
    if hashlib.sha256(content).hexdigest() != sha256:
        raise RecipeError(f"{path}: the file has changed since it was listed; start again")
    return content


def read_file(path: Path) -> bytes:
    """A file's content.

    Raises:
        RecipeError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as err:
        raise RecipeError(f"{path}: cannot read the file: {err.strerror}; remove it or correct its mode") from err


def _bmp_size(content: bytes) -> tuple[int, int]:
    if len(content) < 26:
        raise DamagedPictureError(f"expected the header of a BMP picture, the file ends after {len(content)} bytes")
    width, height = struct.unpack_from("<ii", content, 18)
    if not 0 < width * abs(height) <= MAX_PIXELS:
        raise DamagedPictureError(f"expected a BMP picture of 1 to {MAX_PIXELS} pixels, got {width} x {abs(height)}")
    return width, abs(height)


def _decode_bmp(content: bytes) -> NDArray[np.uint8]:
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as err:
        raise DamagedPictureError(f"OpenCV refuses it ({err.err})") from err
    if image is None:
        raise DamagedPictureError("OpenCV refuses it; save it anew as PNG")
    return np.asarray(image, np.uint8)


def _jpeg_exif(content: bytes) -> Iterator[bytes]:
    position = 2
    while position + 4 <= len(content) and content[position] == 0xFF and content[position + 1] != 0xDA:
        length = int.from_bytes(content[position + 2 : position + 4], "big")
        body = content[position + 4 : position + 2 + length]
        if content[position + 1] == 0xE1 and body.startswith(_EXIF):
            yield body[len(_EXIF) :]
        position += 2 + length


def _png_exif(content: bytes) -> Iterator[bytes]:
    position = 8
    while position + 8 <= len(content):
        length = int.from_bytes(content[position : position + 4], "big")
        if content[position + 4 : position + 8] == b"eXIf":
            yield content[position + 8 : position + 8 + length]
        position += 12 + length


def _webp_exif(content: bytes) -> Iterator[bytes]:
    position = 12
    while position + 8 <= len(content):
        length = int.from_bytes(content[position + 4 : position + 8], "little")
        if content[position : position + 4] == b"EXIF":
            yield content[position + 8 : position + 8 + length].removeprefix(_EXIF)
        position += 8 + length + length % 2


_EXIF_BLOCKS = {"jpeg": _jpeg_exif, "png": _png_exif, "webp": _webp_exif}


def _orientation(tiff: bytes) -> int:
    """The orientation that a block of EXIF (in TIFF's structure) asks for; 1, upright, where it says nothing."""
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None or len(tiff) < 8:
        return 1
    (start,) = struct.unpack_from(f"{order}I", tiff, 4)
    if start + 2 > len(tiff):
        return 1
    (count,) = struct.unpack_from(f"{order}H", tiff, start)
    for entry in range(start + 2, min(start + 2 + 12 * count, len(tiff) - 11), 12):
        tag, _type, _count, value = struct.unpack_from(f"{order}HHIH", tiff, entry)
        if tag == _ORIENTATION:
            return int(value)
    return 1
