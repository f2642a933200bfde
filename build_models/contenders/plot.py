"""A benchmark as a picture: a bar a contender, its quartiles as a line, the first contender's ratio behind it."""

from __future__ import annotations

import textwrap
import warnings
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.figure import Figure

from build_models.errors import RecipeError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_BAR, _BEST, _INK = "#7a93ac", "#1f6fb4", "#333333"

_LINE_LENGTH = 100


def plot_benchmark(told: Mapping[str, Any], path: Path, title: str) -> None:
    """Draw to an SVG, PNG or PDF file.

    Raises:
        RecipeError: it cannot be written.
    """
    results = told["results"]
    rows = range(len(results))
    with mpl.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # in an SVG the reader's font draws it
        mpl.rcdefaults()
        mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "benchmark", "text.parse_math": False})
        figure = Figure(figsize=(9, 1.4 + 0.45 * len(results)), layout="constrained")
        axes = figure.add_subplot()
        colors = [_BEST if each["name"] == told["winner"] else _BAR for each in results]
        axes.barh(rows, [each["median_ms"] for each in results], height=0.55, color=colors)
        for row, each in zip(rows, results, strict=True):
            axes.plot([each["q25_ms"], each["q75_ms"]], [row, row], color=_INK, linewidth=1.4, marker="|")
            said = (
                f"{each['median_ms']:.2f} ms, {each['ratio']:.2f}x [{each['ratio_low']:.2f}, {each['ratio_high']:.2f}]"
            )
            axes.annotate(
                said, (max(each["median_ms"], each["q75_ms"]), row), (6, 0), textcoords="offset points", va="center",
                fontsize=8, color=_INK,
            )  # fmt: skip
        axes.set_yticks(rows, [each["name"] for each in results])
        axes.invert_yaxis()
        said = textwrap.fill(told["said"], _LINE_LENGTH)
        axes.set(title=title)
        axes.set_xlabel(f"ms, median and quartiles of {told['rounds']} rounds\n{said}", fontsize=9)
        axes.set_xlim(0, 1.45 * max(max(each["median_ms"], each["q75_ms"]) for each in results))
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        try:
            figure.savefig(path, dpi=130, metadata={"Date": None} if path.suffix.lower() == ".svg" else None)
        except OSError as err:
            raise RecipeError(f"--plot {path}: cannot write it: {err.strerror}") from err
