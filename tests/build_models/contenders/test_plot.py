"""The plot of a benchmark has a bar for each contender, its spread in words, and what was concluded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("matplotlib", reason="needs the build extra")

from build_models.contenders.figures import summary, winner
from build_models.contenders.plot import plot_benchmark
from build_models.errors import RecipeError

if TYPE_CHECKING:
    from pathlib import Path


def told() -> dict[str, Any]:
    results = summary(["slow <1>", "fast"], [[[4.0 + turn / 10], [1.0 + turn / 100]] for turn in range(6)])
    fastest, said = winner(results, 6)
    return {"results": results, "rounds": 6, "winner": fastest, "said": said}


def test_every_contender_has_its_bar_and_figures(tmp_path: Path) -> None:
    plot_benchmark(told(), tmp_path / "b.svg", "model.onnx")
    text = (tmp_path / "b.svg").read_text(encoding="utf-8")
    for said in ("slow &lt;1&gt;", "fast", "model.onnx", "4.25 ms, 1.00x [1.00, 1.00]", "fastest: fast"):
        assert said in text
    plot_benchmark(told(), tmp_path / "again.svg", "model.onnx")
    assert (tmp_path / "again.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_where_it_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="cannot write it: No such file"):
        plot_benchmark(told(), tmp_path / "none" / "b.png", "t")
