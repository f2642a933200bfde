"""A picture file from a stranger: judged before it is decoded, and decoded as a camera's picture file is."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import cv2
import numpy as np

from agent.errors import PictureError
from agent.vision.picture_header import (
    DamagedPictureError,
    PictureInfo,
    TooManyPixelsError,
    UnknownFormatError,
    inspect_picture,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "DamagedPictureError",
    "PictureError",
    "PictureInfo",
    "TooManyPixelsError",
    "UnknownFormatError",
    "decode_picture",
    "inspect_picture",
]


def decode_picture(content: bytes, max_pixels: int) -> NDArray[np.uint8]:
    """The picture as BGR of 8 bits, [h, w, 3]: the same pixels as from the engine ``opencv`` with this file as source.

    Turned as EXIF asks, alpha dropped, grey and CMYK converted, the first frame of an animation. Raises PictureError;
    the decoding libraries may still write a line to standard error, which only closing it for everyone could prevent.
    OpenCV itself refuses more than 2^30 pixels (OPENCV_IO_MAX_IMAGE_PIXELS), whatever ``max_pixels`` says.
    """
    info = inspect_picture(content, max_pixels)
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as err:
        raise _refused(info, f"OpenCV refuses it ({err.err})") from err
    if image is None:
        raise _refused(info, "OpenCV refuses it")
    sizes = {(info.height, info.width, 3), (info.width, info.height, 3)}  # the second is a quarter turn by EXIF
    if image.shape not in sizes or image.dtype != np.uint8:
        raise _refused(info, f"it decodes to {image.shape} of {image.dtype}")
    return cast("NDArray[np.uint8]", image)


def _refused(info: PictureInfo, came: str) -> DamagedPictureError:
    return DamagedPictureError(
        f"expected a {info.format} picture of {info.width} x {info.height} pixels, {came}; it is damaged or of a rare "
        "kind: save it anew as an 8-bit JPEG or a PNG"
    )
