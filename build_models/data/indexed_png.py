"""The numbers in a PNG of one channel: grey values, or the indices of a palette, which OpenCV turns into colours."""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING

import cv2
import numpy as np

from agent.vision.picture_file import DamagedPictureError, UnknownFormatError, inspect_picture
from build_models.data.picture import MAX_PIXELS

if TYPE_CHECKING:
    from numpy.typing import NDArray

_HEADER = slice(16, 29)  # the 13 bytes of IHDR's content
_BODY = 33
_DEPTH, _COLOUR = 24, 25
_GREY, _PALETTE = 0, 3
_KEPT = {b"IDAT", b"IEND"}  # colours, transparency and gamma change nothing about the numbers


def check_indexed(content: bytes) -> tuple[int, int]:
    """Width and height of a mask, by its header.

    Raises:
        PictureError: no PNG, a damaged one, or one with several channels.
    """
    info = inspect_picture(content, MAX_PIXELS)
    if info.format != "png":
        raise UnknownFormatError(
            f"expected a PNG, got a {info.format.upper()}, which does not keep numbers; save as PNG"
        )
    if content[_COLOUR] not in (_GREY, _PALETTE):
        raise UnknownFormatError(
            "expected one channel of class ids (grey or a palette), got colours; save the mask with class ids as pixels"
        )
    return info.width, info.height


def read_indices(content: bytes) -> NDArray[np.uint16]:
    """The numbers ``[h, w]`` as the file holds them, of 1 to 16 bits.

    A palette's indices are stored just as grey values are: the file is declared grey and decoded as such.

    Raises:
        PictureError: no such PNG, or a damaged one.
    """
    width, height = check_indexed(content)
    depth = content[_DEPTH]
    header = content[16:_COLOUR] + bytes([_GREY]) + content[_COLOUR + 1 : _HEADER.stop]
    grey = [content[:16], header, struct.pack(">I", zlib.crc32(b"IHDR" + header)), *_chunks(content)]
    try:
        image = cv2.imdecode(np.frombuffer(b"".join(grey), np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as err:
        raise DamagedPictureError(f"OpenCV refuses it ({err.err})") from err
    if image is None or image.shape != (height, width):
        raise DamagedPictureError("expected a PNG of one channel, the decoder refuses it; save it anew")
    step = 255 // (2**depth - 1) if depth < 8 else 1  # the decoder spreads few bits over the range of a byte
    return (image // step).astype(np.uint16)


def _chunks(content: bytes) -> list[bytes]:
    found, position = [], _BODY
    while position + 12 <= len(content):
        (length,) = struct.unpack_from(">I", content, position)
        if content[position + 4 : position + 8] in _KEPT:
            found.append(content[position : position + 12 + length])
        position += 12 + length
    return found
