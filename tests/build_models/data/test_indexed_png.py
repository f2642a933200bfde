"""The numbers in a mask's PNG: of every depth, of a palette too."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from agent.errors import PictureError
from build_models.data.indexed_png import check_indexed, read_indices
from tests.build_models.data.folders import write_mask

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("bits", "palette"), [(1, False), (2, False), (4, False), (8, False), (16, False), (1, True), (4, True), (8, True)]
)
def test_the_numbers_are_those_of_the_file(bits: int, palette: bool, tmp_path: Path) -> None:
    ids = np.random.default_rng(bits).integers(0, 2**bits, (13, 21))
    content = write_mask(tmp_path / "a.png", ids, bits, palette).read_bytes()
    assert check_indexed(content) == (21, 13)
    assert read_indices(content).dtype == np.uint16
    assert np.array_equal(read_indices(content), ids)


def test_opencv_alone_gives_a_palettes_colours(tmp_path: Path) -> None:
    path = write_mask(tmp_path / "a.png", np.ones((3, 4)).astype(int), 8, palette=True)
    colours = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert colours is not None
    assert colours.shape == (3, 4, 3)


def test_pixels_that_cannot_be_decoded_are_told(tmp_path: Path) -> None:
    content = write_mask(tmp_path / "a.png", np.ones((40, 40)).astype(int)).read_bytes()
    start = content.index(b"IDAT") + 4
    with pytest.raises(PictureError):
        read_indices(content[:start] + b"\x00" * 4 + content[start + 4 :])
