"""The report's plots of accuracy: drops with their intervals, and what each attempt of the search gains and loses."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from build_models.report_canvas import INK, MUTED, PACKED, RULE, SOURCE, TEXT_PX, WIDTH_PX, canvas, svg

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from build_models.markup import Html

_ROW_PX = 46
_ABOVE_PX = 22  # for the names of the lines
_AXIS_PX = 44  # for ticks and what they count
_FRONT_PX = 230
_SHOWN_LIMITS, _FRONT_LIMITS = 6.0, 4.0  # a drop of more limits than this lies at the edge of the plot
_LABEL_PX = 13


@dataclass(frozen=True)
class Interval:
    """A drop with its 95 % interval, what is said of it, and one of the canvas's colours."""

    name: str
    value: float
    low: float
    high: float
    said: str
    color: str


@dataclass(frozen=True)
class Point:
    """An attempt: its place, its number in the table, and whether it is one to be found at once."""

    x: float
    drop: float
    label: str
    role: Literal["", "chosen", "closest", "fp32"] = ""


def drops(name: str, rows: Sequence[Interval], limit: float) -> Html:
    """A dot with whiskers for each variant, the first on top; lines stand at fp32 and at the budget.

    Args:
        name: of the plot, unique in the page.
        rows: at least one.
        limit: the most that may be lost.
    """
    height_px = _ABOVE_PX + _ROW_PX * len(rows) + _AXIS_PX
    edge = _SHOWN_LIMITS * limit or math.inf
    least = max(-edge, min(0.0, *(row.low for row in rows)))
    most = min(edge, max(limit, *(row.high for row in rows)))
    wide = most - least or 1e-3
    left, right = min(least - 0.04 * wide, -0.15 * wide), max(most + 0.04 * wide, limit + 0.35 * wide)
    with canvas(height_px) as figure:
        axes = figure.add_axes((0.01, _AXIS_PX / height_px, 0.98, _ROW_PX * len(rows) / height_px))
        axes.set(xlim=(left, right), ylim=(len(rows) - 0.5, -0.5), yticks=[])
        starts = [index - 0.05 for index in range(len(rows))]  # not through the words
        ends = [index + 0.45 for index in range(len(rows))]
        axes.vlines([0] * len(rows), starts, ends, color=MUTED, linewidth=0.8)
        axes.vlines([limit] * len(rows), starts, ends, color=INK, linewidth=1, linestyle=(0, (3, 2)))
        for index, row in enumerate(rows):
            spot: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "va": "center"}
            axes.annotate(row.name, (0, index - 0.27), **spot)
            axes.annotate(row.said, (1, index - 0.27), ha="right", color=MUTED, **spot)
            _whiskers(axes, row, index + 0.2, (left, right))
        above: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points", "va": "bottom"}
        axes.annotate("fp32", (0, 1), (-4, 4), ha="right", color=MUTED, **above)
        axes.annotate(f"budget {limit:g}", (limit, 1), (0, 4), **above)
        _scale(axes, "drop, further left is better")
        return svg(figure, name)


def _whiskers(axes: Axes, row: Interval, y: float, shown: tuple[float, float]) -> None:
    """What lies outside the plot ends in an arrow at its edge."""
    left, right = shown
    low, high, value = (min(max(each, left), right) for each in (row.low, row.high, row.value))
    axes.plot([low, high], [y, y], color=row.color, linewidth=1.5)
    for end, exact in ((low, row.low), (high, row.high)):
        marker = "|" if end == exact else "<" if exact < end else ">"
        axes.plot([end], [y], color=row.color, marker=marker, markersize=8, clip_on=False)
    if value == row.value:
        axes.plot([value], [y], color=row.color, marker="o", markersize=7)


def front(name: str, points: Sequence[Point], x_said: str, limit: float, aim: float, *, more_is_better: bool) -> Html:
    """Each attempt's drop against what it gains; a thin line joins those that no other beats in both.

    Args:
        name: of the plot, unique in the page.
        points: attempts and fp32, in the order of the table.
        x_said: what the x axis counts.
        limit: the most that may be lost.
        aim: what the search holds a file to.
        more_is_better: of the x axis.
    """
    shown = [point for point in points if math.isfinite(point.drop) and math.isfinite(point.x)]
    top = max([limit * 1.3, *(min(each.drop, limit * _FRONT_LIMITS or each.drop) for each in shown)]) or 1e-3
    bottom = min([0.0, *(max(each.drop, -limit * _FRONT_LIMITS or each.drop) for each in shown)])
    height_px = _ABOVE_PX + _FRONT_PX + _AXIS_PX
    with canvas(height_px) as figure:
        axes = figure.add_axes((0.15, _AXIS_PX / height_px, 0.7, _FRONT_PX / height_px))
        left, right = min(each.x for each in shown), max(each.x for each in shown)
        wide = (right - left) or max(abs(right), 0.1)
        tall = top - bottom
        axes.set(xlim=(left - 0.1 * wide, right + 0.16 * wide), ylim=(bottom - 0.08 * tall, top + 0.06 * tall))
        axes.axhline(0, color=MUTED, linewidth=0.8)
        axes.axhline(limit, color=INK, linewidth=1, linestyle=(0, (3, 2)))
        _line_said(axes, "budget", limit)
        if aim < limit:
            axes.axhline(aim, color=MUTED, linewidth=1, linestyle=(0, (1, 2)))
            _line_said(axes, "aim", aim)
        best = _best(shown, more_is_better=more_is_better)
        axes.plot([each.x for each in best], [each.drop for each in best], color=RULE, linewidth=2, zorder=1)
        for each in shown:
            at_edge = not bottom <= each.drop <= top
            marker = ("^" if each.drop > top else "v") if at_edge else "s" if each.role == "fp32" else "o"
            color = PACKED if each.role == "chosen" else SOURCE if each.role == "fp32" else INK
            size = 10 if each.role == "chosen" else 8 if each.role == "closest" else 6
            face = "none" if each.role == "closest" else color
            axes.plot([each.x], [min(max(each.drop, bottom), top)], linestyle="none", marker=marker, markersize=size,
                      color=color, markerfacecolor=face, zorder=3)  # fmt: skip
        _labels(axes, [(each, min(max(each.drop, bottom), top)) for each in shown])
        above: dict[str, Any] = {"xycoords": ("figure fraction", "axes fraction"), "textcoords": "offset points"}
        axes.annotate("drop, lower is better", (0, 1), (0, 8), color=MUTED, **above)
        axes.tick_params(axis="y", labelcolor=MUTED)
        axes.locator_params(axis="y", nbins=5)
        _scale(axes, x_said)
        return svg(figure, name)


def _best(points: Sequence[Point], *, more_is_better: bool) -> list[Point]:
    """Those that no other beats in both, from one end of the x axis to the other."""
    sign = -1 if more_is_better else 1
    best: list[Point] = []
    for each in sorted(points, key=lambda each: (sign * each.x, each.drop)):
        if not best or each.drop < best[-1].drop:
            best.append(each)
    return best


def _labels(axes: Axes, places: Sequence[tuple[Point, float]]) -> None:
    """Name what matters first; a label that would lie on another is left out, the table has them all."""
    order = {"chosen": 0, "closest": 1, "fp32": 2, "": 3}
    taken: list[tuple[float, float, float]] = []
    for each, y in sorted(places, key=lambda place: order[place[0].role]):
        text = " ".join(filter(None, (each.label, each.role)))
        x_px, y_px = axes.transData.transform((each.x, y))
        width_px = 0.55 * TEXT_PX * len(text) + 10
        to_left = x_px + width_px > 0.85 * WIDTH_PX
        start_px = x_px - width_px if to_left else x_px
        if any(abs(y_px - other_y) < _LABEL_PX and start_px < end and start_px + width_px > start
               for start, end, other_y in taken):  # fmt: skip
            continue
        taken.append((start_px, start_px + width_px, y_px))
        axes.annotate(text, (each.x, y), (-7 if to_left else 7, 0), textcoords="offset points", va="bottom",
                      ha="right" if to_left else "left", zorder=4)  # fmt: skip


def _line_said(axes: Axes, text: str, y: float) -> None:
    """In the margin, where no point can lie on it."""
    axes.annotate(
        text, (1, y), (4, 0), xycoords=("axes fraction", "data"), textcoords="offset points", va="center", color=MUTED
    )


def _scale(axes: Axes, said: str) -> None:
    axes.set_xlabel(said)
    axes.locator_params(axis="x", nbins=6)
    axes.tick_params(length=0)
    axes.grid(linewidth=0.6)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_visible(False)
