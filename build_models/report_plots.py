"""The report's bars: sizes, times and noises, and the signal to noise of every layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from build_models.report_canvas import INK, MUTED, PACKED, REFUSED, TEXT_PX, canvas, svg

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from build_models.markup import Html

_ROW_PX = 38
_NAMED_LAYERS = 10
_NAME_LENGTH = 16
_EXACT_DB = 80.0  # beyond the 48 dB or so that 8 bits can hold, a layer is as good as exact


def bars(
    name: str,
    labels: Sequence[str],
    values: Sequence[float],
    said: Sequence[str],
    colors: Sequence[str],
    *,
    whiskers: Sequence[float | None] = (),
    limit: float | None = None,
    limit_said: str = "",
) -> Html:
    """Horizontal bars from 0, the first on top, each with its value in words.

    Args:
        name: of the plot, unique in the page; becomes the prefix of its ids.
        labels: of the bars.
        values: their lengths.
        said: what stands behind each bar.
        colors: one of this module's colours each.
        whiskers: how far a thin line goes on behind each bar, in the values' unit.
        limit: where a dashed line stands.
        limit_said: what the dashed line means; the words of the bars stand behind it.
    """
    ends = [max(value, whisker or value) for value, whisker in zip(values, whiskers or values, strict=True)]
    height_px = _ROW_PX * len(values) + (TEXT_PX * 2 if limit is not None else 6)
    with canvas(height_px) as figure:
        axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
        rows = range(len(values))
        axes.barh(rows, values, height=0.34, color=list(colors))
        for row, (label, text, value, end) in enumerate(zip(labels, said, values, ends, strict=True)):
            if end > value:
                axes.plot([value, end, end], [row, row, row], color=MUTED, linewidth=1, marker="|", markevery=[2])
            axes.annotate(label, (0, row), (0, 9), textcoords="offset points", va="bottom")
            axes.annotate(
                text, (max(end, limit or 0.0), row), (5, 0), textcoords="offset points", va="center", color=MUTED
            )
        if limit is not None:
            feet = [*(row + 0.3 for row in rows[:-1]), len(values)]  # not through the labels
            axes.vlines(
                [limit] * len(feet), [row - 0.22 for row in rows], feet, color=INK, linewidth=1, linestyle=(0, (3, 2))
            )
            at_right = limit > 0.5 * max(ends)
            axes.annotate(
                limit_said, (limit, len(values) - 0.5), (-4 if at_right else 4, -2), textcoords="offset points",
                ha="right" if at_right else "left", va="top", color=MUTED,
            )  # fmt: skip
        below = 0.5 + (height_px - _ROW_PX * len(values)) / _ROW_PX
        axes.set(xlim=(0, max(*ends, limit or 0.0, 1e-9) * 1.6), ylim=(len(values) - 1 + below, -0.6))
        axes.set_axis_off()
        return svg(figure, name)


def layers(name: str, names: Sequence[str], values_db: Sequence[float]) -> Html:
    """A thin horizontal bar per layer, input on top; the weakest are coloured and named at the right.

    Args:
        name: of the plot, unique in the page.
        names: of the layers, in graph order.
        values_db: their signal-to-noise ratios, in decibels; at least one.
    """
    count = len(names)
    plot_px = min(900, max(160, 6 * count))
    row_px = plot_px / count
    shown_db = [min(max(value, -_EXACT_DB), _EXACT_DB) for value in values_db]
    weakest = sorted(sorted(range(count), key=lambda index: (values_db[index], index))[: _named(count)])
    colors = [REFUSED if index in weakest else PACKED for index in range(count)]
    height_px = plot_px + 40
    with canvas(height_px) as figure:
        axes = figure.add_axes((0.07, 38 / height_px, 0.57, plot_px / height_px))
        axes.hlines(range(count), 0, shown_db, colors=colors, linewidth=0.7 * row_px)
        left, right = min(0.0, *shown_db) - 1, max(30.0, *shown_db) * 1.02
        for index, place in zip(weakest, _spread(weakest, (TEXT_PX + 1) / row_px, count - 1), strict=True):
            elbow = [max(shown_db[index], 0.0), right, right + (right - left) * 0.05]
            axes.plot(elbow, [index, index, place], color=REFUSED, linewidth=0.6, clip_on=False)
            axes.annotate(
                _short(names[index]), (elbow[-1], place), (3, 0), textcoords="offset points", va="center",
                fontsize=TEXT_PX - 1, annotation_clip=False,
            )  # fmt: skip
        axes.set(ylim=(count - 0.2, -0.8), xlim=(left, right), yticks=[])
        axes.set(xlabel="dB, higher is better", ylabel="layers, input to output")
        axes.yaxis.set_label_coords(-0.06, 0.5)
        _bare(axes)
        return svg(figure, name)


def _named(count: int) -> int:
    """How many layers stand out: a quarter, and no more than find room."""
    return min(_NAMED_LAYERS, max(1, count // 4))


def _spread(wanted: Sequence[int], least: float, last: int) -> list[float]:
    """Places as near to the wanted ones, which ascend, as a least distance and the last place allow."""
    places: list[float] = []
    for place in wanted:
        places.append(max(place, places[-1] + least) if places else place)
    limit = float(last)
    for index in reversed(range(len(places))):
        places[index] = min(places[index], limit)
        limit = places[index] - least
    return places


def _short(name: str) -> str:
    return name if len(name) <= _NAME_LENGTH else f"{name[: _NAME_LENGTH // 2 - 1]}…{name[-_NAME_LENGTH // 2 :]}"


def _bare(axes: Axes) -> None:
    axes.grid(axis="x", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
    for side in ("top", "right", "left", "bottom"):
        axes.spines[side].set_visible(False)
    axes.axvline(0, color=MUTED, linewidth=0.8)
