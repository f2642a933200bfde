"""The report's section on accuracy: what each variant loses against fp32, how sure that is, on which pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from build_models.markup import Html, tag
from build_models.report_canvas import PACKED, REFUSED, UNSURE
from build_models.report_drops import Interval, drops
from build_models.report_facts import figure, table

if TYPE_CHECKING:
    from collections.abc import Mapping

_COLORS = {"within": PACKED, "inconclusive": UNSURE, "beyond": REFUSED}
_BESIDE = 3  # columns of a table that find room beside the plot
_USES = {
    "calibration": "ranges of the tensors",
    "search": "compares int8 files with each other",
    "val": "judges, once, what the search took",
}


def budget_said(content: Mapping[str, Any]) -> str:
    """What a variant was held to, in one sentence."""
    judged = content["stages"].get("judge", {})
    budget = content.get("budget") or {}
    parts = []
    if "limit" in judged:
        parts.append(f"a variant may lose {judged['limit']:g} of {judged['metric']} against fp32")
    if "min_speedup" in budget:
        least = budget["min_speedup"]
        parts.append(f"must be at least {least:g}x as fast" if least is not None else "must be faster at all")
    if "inconclusive" in budget:
        ships = "still ships" if budget["inconclusive"] == "ship" else "does not ship"
        parts.append(f"{ships} where too few pictures leave the budget inside its 95 % interval")
    return f"Budget: {', '.join(parts)}." if parts else ""


def accuracy(content: Mapping[str, Any]) -> Html:
    """Drops with their intervals against the budget, the figures beside them, and the pictures."""
    judged = content["stages"].get("judge", {})
    rows = {name: told for name, told in judged.items() if isinstance(told, dict) and "outcome" in told}
    parts = [tag("h2", "Accuracy")]
    if rows:
        parts += _drops(judged, rows)
    elif judged:
        parts.append(tag("p", "No variant beside fp32 came so far that it could be judged."))
    unjudged = [each for each in content["variants"] if each["precision"] != "fp32" and each["id"] not in rows]
    if unjudged:
        parts.append(tag("p", f"Not judged: {', '.join(each['id'] for each in unjudged)}; the search refused it."))
    parts.append(_pictures(content["stages"].get("pictures", {})))
    return tag("section", *parts) if len([part for part in parts if part]) > 1 else Html()


def outcome_said(told: Mapping[str, Any]) -> str:
    """The outcome in a few words, with how many pictures more would settle it."""
    first = {"within": "within the budget", "beyond": "beyond the budget"}.get(told["outcome"], "inconclusive")
    more = told.get("more_pictures")
    return f"{first}: about {more} more pictures are needed to be sure" if more else first


def _drops(judged: Mapping[str, Any], rows: Mapping[str, Mapping[str, Any]]) -> list[Html]:
    metric, limit = judged["metric"], judged["limit"]
    intervals = [
        Interval(name, told["value"], told["low"], told["high"], _interval(told), _COLORS[told["outcome"]])
        for name, told in rows.items()
    ]
    names = list(rows)
    cells = [
        [f"{metric}, fp32", *(f"{rows[name]['reference']:.4f}" for name in names)],
        [f"{metric}, variant", *(f"{rows[name]['candidate']:.4f}" for name in names)],
        ["drop", *(f"{rows[name]['value']:+.4f}" for name in names)],
        ["interval from", *(f"{rows[name]['low']:+.4f}" for name in names)],
        ["interval to", *(f"{rows[name]['high']:+.4f}" for name in names)],
        ["budget", *(f"{limit:g}" for _ in names)],
        ["pictures", *(str(rows[name]["pictures"]) for name in names)],
        ["outcome", *(tag("b", rows[name]["outcome"], class_=rows[name]["outcome"]) for name in names)],
    ]
    unsure = [
        tag("p", tag("b", name), " ", outcome_said(told)) for name, told in rows.items() if told.get("more_pictures")
    ]
    truth = (
        "with their labels" if judged.get("labelled") else "by how far a variant gives fp32's own answers: no labels"
    )
    note = f"Judged {truth}. The 95 % interval is of a paired bootstrap over the pictures"
    note += ", widened to Tango's score interval" if any(each["method"] == "score" for each in rows.values()) else ""
    return [
        tag(
            "div",
            figure(f"Drop of {metric}, with its 95 % interval", drops("drops", intervals, limit)),
            tag(
                "div",
                table(["", *names], cells),
                *unsure,
                tag("p", f"{note}. A drop below 0 is a gain.", class_="note"),
            ),
            class_="split" if len(names) <= _BESIDE else "",
        ),
    ]


def _pictures(told: Mapping[str, Any]) -> Html:
    sets = {name: each for name, each in told.items() if isinstance(each, dict) and "pictures" in each}
    if not sets:
        return Html()
    rows = [
        [name, str(each["pictures"]), "yes" if each.get("labelled") else "no", _USES.get(name, "")]
        for name, each in sets.items()
    ]
    heading = tag("h3", "Pictures")
    return tag(
        "div", heading, tag("p", "No picture is in two of these sets.", class_="note"),
        table(["set", "pictures", "labels", "what for"], rows, text=True),
    )  # fmt: skip


def _interval(told: Mapping[str, Any]) -> str:
    return f"{told['value']:+.4f} ({told['low']:+.4f} to {told['high']:+.4f})"
