"""Picture files: what their header says is what the device decodes."""

from __future__ import annotations

import hashlib
import struct
import zlib
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from agent.errors import PictureError
from agent.vision.picture_file import decode_picture
from build_models.data.picture import MAX_PIXELS, listed_size, read_picture
from build_models.errors import RecipeError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

PIXELS: NDArray[np.uint8] = np.random.default_rng(0).integers(0, 256, (30, 50, 3)).astype(np.uint8)


def encoded(suffix: str) -> bytes:
    done, content = cv2.imencode(suffix, PIXELS)
    assert done
    return content.tobytes()


def exif(orientation: int, order: str) -> bytes:
    head = b"II*\0" if order == "<" else b"MM\0*"
    entries = [(0x010F, 2, 4, 0x41414141), (0x0112, 3, 1, orientation << (16 if order == ">" else 0))]
    body = b"".join(struct.pack(f"{order}HHII", *entry) for entry in entries)
    return head + struct.pack(f"{order}IH", 8, len(entries)) + body + struct.pack(f"{order}I", 0)


def turned(suffix: str, orientation: int, order: str) -> bytes:
    content, block = encoded(suffix), exif(orientation, order)
    if suffix == ".jpg":
        block = b"Exif\0\0" + block
        return content[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + content[2:]
    chunk = struct.pack(">I", len(block)) + b"eXIf" + block + struct.pack(">I", zlib.crc32(b"eXIf" + block))
    return content[:33] + chunk + content[33:]


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp"])
def test_the_header_tells_the_size_that_is_decoded(suffix: str, tmp_path: Path) -> None:
    content = encoded(suffix)
    path = tmp_path / f"x{suffix}"
    path.write_bytes(content)
    assert listed_size(content) == (50, 30)
    image = read_picture(path, hashlib.sha256(content).hexdigest(), (50, 30))
    assert np.array_equal(image, np.asarray(cv2.imread(str(path))))


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_as_exif_asks(suffix: str, order: str, orientation: int) -> None:
    content = turned(suffix, orientation, order)
    height, width = decode_picture(content, MAX_PIXELS).shape[:2]
    assert listed_size(content) == (width, height)
    assert (width, height) == ((30, 50) if orientation > 4 else (50, 30))


@pytest.mark.parametrize("block", [b"", b"II*\0", b"II*\0\xff\xff\xff\xff", b"nonsense", exif(6, "<")[:14]])
def test_an_exif_block_that_says_nothing_turns_nothing(block: bytes) -> None:
    content = encoded(".jpg")
    block = b"Exif\0\0" + block
    content = content[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + content[2:]
    assert listed_size(content) == (50, 30)


@pytest.mark.parametrize("content", [b"", b"text", encoded(".png")[:-20], encoded(".jpg")[:200], b"BM" + bytes(10)])
def test_what_is_no_whole_picture_is_refused_by_its_header(content: bytes) -> None:
    with pytest.raises(PictureError):
        listed_size(content)


def test_a_bitmap_without_pixels_is_refused() -> None:
    with pytest.raises(PictureError, match="got 0 x 5"):
        listed_size(b"BM" + bytes(16) + struct.pack("<ii", 0, 5))


def test_pixels_that_cannot_be_decoded_name_the_file(tmp_path: Path) -> None:
    content = encoded(".webp")
    content = content[:40] + bytes(len(content) - 40)  # the header and all lengths are whole
    path = tmp_path / "broken.webp"
    path.write_bytes(content)
    assert listed_size(content) == (50, 30)
    with pytest.raises(RecipeError, match=r"broken\.webp: cannot decode the picture"):
        read_picture(path, hashlib.sha256(content).hexdigest(), (50, 30))


def test_a_file_that_changed_or_went_is_not_used(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encoded(".png"))
    with pytest.raises(RecipeError, match=r"a\.png: the file has changed since it was listed"):
        read_picture(path, "0" * 64, (50, 30))
    path.unlink()
    with pytest.raises(RecipeError, match=r"a\.png: cannot read the file"):
        read_picture(path, "0" * 64, (50, 30))


def test_another_size_than_listed_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.bmp"
    path.write_bytes(encoded(".bmp"))
    with pytest.raises(RecipeError, match="expected 30 x 50 pixels by its header, it decodes to 50 x 30"):
        read_picture(path, hashlib.sha256(path.read_bytes()).hexdigest(), (30, 50))
    cut = encoded(".bmp")[:60]
    path.write_bytes(cut)
    with pytest.raises(RecipeError, match=r"a\.bmp: cannot decode the picture"):
        read_picture(path, hashlib.sha256(cut).hexdigest(), (50, 30))
