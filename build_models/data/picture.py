"""Picture files: listed by their header, decoded as the device decodes a picture file."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray


def read_picture(path: Path, sha256: str, size_wh: tuple[int, int]) -> NDArray[np.uint8]:
    """Decode a listed picture: uint8 ``[h, w, 3]`` BGR."""
    raise NotImplementedError
