"""The cache of histograms: right, atomic, and believed only when it is whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the build extra")

from agent.model.runtime import ort
from build_models.errors import RecipeError
from build_models.quantize import range_cache
from build_models.quantize.range_cache import cached_histograms, read_histograms, write_histograms
from tests.build_models.quantize.test_histograms import TENSORS, model, pictures

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from build_models.quantize.histograms import Histograms

pytestmark = pytest.mark.build

DIGESTS = ("a", "b", "c")


class Stream:
    """The pictures, and how often they were asked for."""

    def __init__(self) -> None:
        self.passes = 0

    def __call__(self) -> Iterator[NDArray[np.uint8]]:
        self.passes += 1
        yield from pictures()


def collect(folder: Path, stream: Stream) -> Histograms:
    return cached_histograms(folder, model(), TENSORS, stream, DIGESTS)


def test_the_second_time_no_picture_is_looked_at(tmp_path: Path) -> None:
    stream = Stream()
    first = collect(tmp_path / "cache", stream)
    asked = stream.passes
    second = collect(tmp_path / "cache", stream)
    assert asked == 2
    assert stream.passes == asked
    assert second.digest == first.digest
    assert second.tensors.keys() == set(TENSORS)
    for name in TENSORS:
        np.testing.assert_array_equal(second.tensors[name].counts, first.tensors[name].counts)


@pytest.mark.parametrize("changed", ["model", "tensors", "pictures", "order", "bins", "format", "runtime"])
def test_another_input_is_another_entry(tmp_path: Path, changed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Stream()
    collect(tmp_path, stream)
    if changed == "format":
        monkeypatch.setattr(range_cache, "_FORMAT", 99)
    if changed == "runtime":
        monkeypatch.setattr(ort, "__version__", "0.0.1")
    cached_histograms(
        tmp_path,
        model(18 if changed == "model" else 17),
        TENSORS[:2] if changed == "tensors" else TENSORS,
        stream,
        {"pictures": ("a", "b", "d"), "order": ("b", "a", "c")}.get(changed, DIGESTS),
        bins=1024 if changed == "bins" else 2048,
    )
    assert stream.passes == 4
    assert len(list(tmp_path.iterdir())) == 2


def test_a_file_cut_or_changed_anywhere_is_collected_anew_and_replaced(tmp_path: Path) -> None:
    right = collect(tmp_path, Stream())
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    rng = np.random.default_rng(2)
    damaged = [b"", b"no zip file", whole[: len(whole) // 2], whole[:-1]]
    places = rng.integers(0, len(whole), 60).tolist()
    damaged += [whole[:place] + bytes([whole[place] ^ 0x5A]) + whole[place + 1 :] for place in places]
    refused = 0
    for data in damaged:
        path.write_bytes(data)
        found = read_histograms(path)
        refused += found is None
        assert found is None or found.digest == right.digest  # a byte of the zip's own that says nothing
    assert refused > 50
    path.write_bytes(damaged[2])
    stream = Stream()
    assert collect(tmp_path, stream).digest == right.digest
    assert stream.passes == 2
    assert read_histograms(path) is not None


def test_a_well_formed_file_with_other_counts_is_not_believed(tmp_path: Path) -> None:
    right = collect(tmp_path, Stream())
    (path,) = tmp_path.iterdir()
    with np.load(path) as file:
        arrays = dict(file)
    arrays["counts"][0, 7] += 1
    np.savez_compressed(path, allow_pickle=False, **arrays)
    assert read_histograms(path) is None
    arrays["counts"][0, 7] -= 1
    np.savez_compressed(path, allow_pickle=False, **arrays)
    found = read_histograms(path)
    assert found is not None
    assert found.digest == right.digest


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = collect(tmp_path, Stream())
    (path,) = tmp_path.iterdir()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(RecipeError, match="cannot write the calibration cache: No space left on device"):
        write_histograms(path, right)
    assert list(tmp_path.iterdir()) == [path]
    assert read_histograms(path) is not None


def test_a_folder_that_is_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("")
    with pytest.raises(RecipeError, match=r"cache: cannot write the calibration cache"):
        collect(tmp_path / "cache", Stream())
