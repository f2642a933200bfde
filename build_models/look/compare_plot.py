"""A comparison as a picture: decibels over the tensors in graph order, coloured by operator, the weakest named."""

from __future__ import annotations

import warnings
from collections import Counter
from typing import TYPE_CHECKING

import matplotlib as mpl
from matplotlib.figure import Figure

from build_models.errors import RecipeError

if TYPE_CHECKING:
    from pathlib import Path

    from build_models.look.compare import Comparison

SUFFIXES = (".svg", ".png", ".pdf")
_COLORS = ("#1f6fb4", "#d1692b", "#3a8f4b", "#8a5fb0", "#b04a6a", "#6b7a29")
_OTHER, _PARTED, _INK = "#999999", "#c4161c", "#333333"
_NAMED = 5
_NAME_LENGTH = 28
_SHOWN_DB = (-20.0, 120.0)  # beyond these lies nothing that one would tell apart


def check_plot_path(path: Path) -> None:
    """Raises RecipeError for a kind of file that cannot be drawn, before any work is done."""
    if path.suffix.lower() not in SUFFIXES:
        raise RecipeError(f"--plot {path}: expected a name that ends in {', '.join(SUFFIXES)}")


def plot_comparison(comparison: Comparison, path: Path, title: str) -> None:
    """Draw to an SVG, PNG or PDF file.

    Raises:
        RecipeError: it cannot be written.
    """
    signals = comparison.signals
    shown = [min(max(each.signal_db, _SHOWN_DB[0]), _SHOWN_DB[1]) for each in signals]
    common = [op for op, _ in Counter(each.op_type for each in signals).most_common(len(_COLORS))]
    with mpl.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # in an SVG the reader's font draws it
        mpl.rcdefaults()
        mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "compare", "text.parse_math": False})
        figure = Figure(figsize=(max(9.0, min(18.0, 3 + len(signals) * 0.05)), 4.2), layout="constrained")
        axes = figure.add_subplot()
        axes.plot(range(len(shown)), shown, color=_OTHER, linewidth=0.7, zorder=1)
        for op, color in [*zip(common, _COLORS, strict=False), ("other", _OTHER)]:
            places = [
                index
                for index, each in enumerate(signals)
                if each.op_type == op or (op == "other" and each.op_type not in common)
            ]
            if places:
                axes.scatter(places, [shown[index] for index in places], s=14, color=color, label=op, zorder=2)
        axes.axhline(comparison.threshold_db, color=_INK, linewidth=0.8, linestyle="--")
        for number, index in enumerate(_named(comparison), start=1):
            parted = signals[index] in comparison.parts[:1]
            color = _PARTED if parted else _INK
            said = f"{number} {_short(signals[index].tensor)}, {signals[index].signal_db:.1f} dB"
            place = (index, shown[index])
            axes.annotate(str(number), place, (4, -9), textcoords="offset points", fontsize=8, color=color)
            marker = "v" if parted else "_"
            axes.plot([], [], color=color, marker=marker, linestyle="none", label=f"{said}{', they part' * parted}")
        axes.set(title=title, xlabel="tensors in graph order", ylabel="signal over difference, dB")
        axes.grid(axis="y", linewidth=0.4)
        figure.legend(fontsize=8, loc="outside right upper", frameon=False)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        try:
            figure.savefig(path, dpi=130, metadata={"Date": None} if path.suffix.lower() == ".svg" else None)
        except OSError as err:
            raise RecipeError(f"--plot {path}: cannot write it: {err.strerror}") from err


def _named(comparison: Comparison) -> list[int]:
    """Where they part, and the weakest of those that have an error at all."""
    signals = comparison.signals
    parted = [index for index, each in enumerate(signals) if each in comparison.parts[:1]]
    weak = sorted(range(len(signals)), key=lambda index: signals[index].signal_db)[:_NAMED]
    worth = [index for index in weak if signals[index].signal_db < _SHOWN_DB[1] and not signals[index].chosen]
    return list(dict.fromkeys([*parted, *worth]))


def _short(name: str) -> str:
    return name if len(name) <= _NAME_LENGTH else f"…{name[1 - _NAME_LENGTH :]}"
