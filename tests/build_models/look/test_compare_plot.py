"""The plot of a comparison: it names where the models part, and is the same bytes each time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import pytest

pytest.importorskip("onnx", reason="needs the build extra")
pytest.importorskip("matplotlib", reason="needs the build extra")

from build_models.errors import RecipeError
from build_models.look.compare import Comparison, TensorSignal
from build_models.look.compare_plot import check_plot_path, plot_comparison

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.build


def comparison(*values_db: float) -> Comparison:
    signals, before = [], 200.0
    for index, value in enumerate(values_db):
        signals.append(TensorSignal(f"t$_{index}", "", f"Op{index % 9}", "", "", value, before, 1.0, 0.1, chosen=False))
        before = value
    return Comparison(tuple(signals), frozenset(), 20.0, (), 0, 0, 1)


def test_the_tensor_where_they_part_is_named(tmp_path: Path) -> None:
    plot_comparison(comparison(*[200.0] * 20, 5.0, *[60.0] * 20), tmp_path / "p.svg", "a and <b>")
    text = (tmp_path / "p.svg").read_text()
    assert "1 t$_20, 5.0 dB, they part" in text
    assert "a and &lt;b&gt;" in text
    assert text.count("they part") == 1


def test_equal_models_have_nothing_to_name(tmp_path: Path) -> None:
    plot_comparison(comparison(*[200.0] * 5), tmp_path / "p.svg", "t")
    text = (tmp_path / "p.svg").read_text()
    assert "they part" not in text
    assert "1 t$_" not in text


def test_it_is_the_same_bytes_each_time_and_ignores_the_users_style(tmp_path: Path) -> None:
    import matplotlib as mpl

    plot_comparison(comparison(30.0, 10.0), tmp_path / "1.svg", "t")
    with mpl.rc_context({"font.size": 30}):
        plot_comparison(comparison(30.0, 10.0), tmp_path / "2.svg", "t")
    assert (tmp_path / "1.svg").read_bytes() == (tmp_path / "2.svg").read_bytes()


def test_other_kinds_of_files(tmp_path: Path) -> None:
    plot_comparison(comparison(-300.0, 10.0), tmp_path / "p.png", "t")
    assert cv2.imread(str(tmp_path / "p.png")) is not None
    with pytest.raises(RecipeError, match=r"ends in \.svg, \.png, \.pdf"):
        check_plot_path(tmp_path / "p.doc")
    with pytest.raises(RecipeError, match="cannot write it: No such file"):
        plot_comparison(comparison(10.0), tmp_path / "none" / "p.svg", "t")
