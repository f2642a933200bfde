"""The report's section on the search: every file that was made, what it loses and costs, what stays in float."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from build_models.markup import Html, join, tag
from build_models.report_canvas import SOURCE, UNSURE
from build_models.report_drops import Point, front
from build_models.report_facts import figure, megabytes, number, table
from build_models.report_plots import bars

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Attempts = Sequence[Mapping[str, Any]]

_LOUDEST = 12
_WHOLE = ("float16", "dynamic")  # files of which no share of the arithmetic is chosen


def search(content: Mapping[str, Any]) -> Html:
    """A part for each variant that was searched for, then what holds for all of them."""
    stages = content["stages"]
    told = stages.get("search", {})
    parts = [_variant(name, found, told) for name, found in told.get("variants", {}).items()]
    parts += [_joins(stages.get("calibrate", {}).get("joins", [])), _equalised(told.get("equalised", []))]
    if not any(parts):
        return Html()
    return tag("section", tag("h2", "The search"), *parts)


def not_made(content: Mapping[str, Any]) -> dict[str, str]:
    """Variants that a target of the recipe asked for and that could not be made, with the reason."""
    told = content["stages"].get("search", {})
    return {name: why for name, why in told.items() if isinstance(why, str) and name not in ("said", "metric")}


def _variant(name: str, found: Mapping[str, Any], told: Mapping[str, Any]) -> Html:
    attempts: Attempts = found["attempts"]
    metric, limit = told.get("metric", ""), found.get("limit")
    pictures = attempts[0]["drop"]["pictures"] if attempts else 0
    said = f"{_count(len(attempts), 'attempt')}, run on {pictures} search pictures and compared with fp32."
    if limit is not None:
        said += f" A file may lose {limit:g} of {metric}."
        aim = found.get("aim", limit)
        if aim < limit:
            said += (
                f" It is good where it loses {aim:g} at most and either would keep {limit:g} with a standard error "
                "more, or gives fp32's answers: labels of few pictures are a rough scale."
            )
    if found["chosen"] is None:
        said += " None of them keeps that."
    parts = [tag("h3", name), tag("p", said), _attempts(found)]
    if limit is not None and attempts:
        parts.append(_fronts(name, found))
    parts += [_sensitivities(name, found.get("sensitivities", [])), _exceptions(found)]
    return join(*parts)


def _attempts(found: Mapping[str, Any]) -> Html:
    attempts: Attempts = found["attempts"]
    first = {each["sha256"]: index for index, each in reversed(list(enumerate(attempts, 1)))}
    timed = any(each["latency"] for each in attempts)
    agreeing = any(each.get("agreement") not in (None, each["drop"]) for each in attempts)
    rows: list[list[str]] = []
    marks: list[str] = []
    for index, each in enumerate(attempts, 1):
        drop = each["drop"]
        is_first = first[each["sha256"]] == index
        role = _role(each, found)
        marks.append(role if is_first else "")
        mark = role or ("good" if each.get("good") else "")
        said = Html() if is_first else join(f" (the same file as {first[each['sha256']]})")
        label = tag("b", f" {mark}", class_="mark") if mark and is_first else said
        row = [join(f"{index}  {each['said']}", label), f"{drop['value']:+.4f}"]
        row += [
            f"{drop['low']:+.4f} to {drop['high']:+.4f}",
            "-" if each["choice"]["method"] in _WHOLE else f"{100 * each['float_share']:.1f} %",
            megabytes(each["bytes"]),
        ]
        if agreeing:
            row.insert(3, f"{100 * (1 - each['agreement']['value']):.1f} %")
        if timed:
            latency = each["latency"].get("here") or {}
            row += [f"{number(latency['median_ms'])} ms", f"{latency['speedup']:.2f}x"] if latency else ["-", "-"]
        rows.append(row)
    columns = ["how it was made", "drop", "95 % interval", *(["as fp32"] if agreeing else []), "in float", "size"]
    columns += ["latency here", "against fp32"] if timed else []
    note = "As fp32: how many of its own answers the file gives. " if agreeing else ""
    note += "Closest: keeps most of fp32's answers. " if "closest" in marks else ""
    note += "In float: the share of the network's arithmetic that the choice leaves there."
    note += " Latency: of those timed on this machine." if timed else " None of them was timed on this machine."
    return join(table(columns, rows, marks=marks), tag("p", note, class_="note"))


def _fronts(name: str, found: Mapping[str, Any]) -> Html:
    """Drop against speed where it was measured, against what stays in float where that differs."""
    attempts: Attempts = found["attempts"]
    limit, aim = found["limit"], found.get("aim", found["limit"])
    seen: set[str] = set()
    speeds, shares = [Point(1.0, 0.0, "", "fp32")], []
    for index, each in enumerate(attempts, 1):
        if each["sha256"] in seen:
            continue
        seen.add(each["sha256"])
        role = _role(each, found)
        latency = each["latency"].get("here")
        if latency:
            speeds.append(Point(latency["speedup"], each["drop"]["value"], str(index), role))
        shares.append(Point(100 * each["float_share"], each["drop"]["value"], str(index), role))
    figures = []
    if len(speeds) > 1:
        plot = front(f"speed-{name}", speeds, "times as fast as fp32, here", limit, aim, more_is_better=True)
        figures.append(figure("What is lost, what is gained", plot))
    if len({each.x for each in shares}) > 1:
        plot = front(f"share-{name}", shares, "% of the arithmetic in float", limit, aim, more_is_better=False)
        figures.append(figure("What is lost, what stays in float", plot))
    if not figures:
        return Html()
    note = "Numbers are those of the table. The line joins what nothing else beats in both; a triangle lies outside."
    return join(tag("div", *figures, class_="plots"), tag("p", note, class_="note"))


def _role(attempt: Mapping[str, Any], found: Mapping[str, Any]) -> Literal["", "chosen", "closest"]:
    if attempt["sha256"] == found["chosen"]:
        return "chosen"
    return "closest" if attempt["sha256"] == found["closest"] else ""


def _sensitivities(name: str, told: Attempts) -> Html:
    if not told:
        return Html()
    loudest = sorted(told, key=lambda each: each["sqnr_db"])[:_LOUDEST]
    shares = [100 * 10 ** (-each["sqnr_db"] / 10) for each in loudest]
    plot = bars(
        f"noise-{name}",
        [f"{each['site']} ({each['kind']})" for each in loudest],
        shares,
        [f"{each['sqnr_db']:.1f} dB" for each in loudest],
        [SOURCE if each.get("gone") else UNSURE for each in loudest],
    )
    said = (
        f"Each of the {len(told)} roundings was switched on alone. Bars: its noise at the network's heads, as a share "
        "of their power; beside them the same as signal to noise, where less is louder. Grey: it does not happen in "
        "the file, because its nodes stay in float. What takes most noise away for its arithmetic goes there first."
    )
    text = tag("div", tag("p", said))
    return tag("div", figure(f"The {len(loudest)} loudest roundings", plot), text, class_="split")


def _exceptions(found: Mapping[str, Any]) -> Html:
    """Nodes of the taken file that stay in float, those of one reason together."""
    taken = found["chosen"] or found["closest"]
    choice: Mapping[str, Any] = next((each["choice"] for each in found["attempts"] if each["sha256"] == taken), {})
    reasons = found.get("reasons", {})
    nodes = list(choice.get("float_nodes", []))
    if not nodes:
        return Html()
    by_reason: dict[str, list[str]] = {}
    for node in sorted(
        nodes, key=lambda node: (node not in reasons, list(reasons).index(node) if node in reasons else 0)
    ):
        by_reason.setdefault(
            reasons.get(node, "goes along with its neighbours: no loud rounding of its own"), []
        ).append(node)
    rows = [[", ".join(names), reason] for reason, names in by_reason.items()]
    summary = tag("summary", f"Why {_count(len(nodes), 'node')} of the file stay in float")
    return tag("details", summary, table(["nodes", "reason"], rows, text=True))


def _joins(joins: Attempts) -> Html:
    if not joins:
        return Html()
    rows = [[each["node"], f"{each['ratio']:.1f}x", ", ".join(each["tensors"])] for each in joins]
    said = "One scale for tensors of such different ranges would round the narrow ones away: each keeps its own."
    return join(
        tag("h3", "Joins that stay in float"),
        tag("p", said),
        table(["join", "widest / narrowest", "tensors"], rows, text=True),
    )


def _equalised(changes: Attempts) -> Html:
    if not changes:
        return Html()
    rows = [
        [
            each["tensor"],
            str(each["channels"]),
            f"{each['spread_before']:.2f}",
            f"{each['spread_after']:.2f}",
            f"{each['gain_db']:+.1f} dB",
        ]
        for each in sorted(changes, key=lambda each: -each["gain_db"])
    ]
    said = (
        "Between neighbouring layers the ranges of the channels were made more alike, which leaves the float network "
        "the same; files called “equalised” are made from it. Spread: the largest channel over the median one."
    )
    summary = tag("summary", f"{_count(len(changes), 'tensor')} equalised")
    inner = table(["tensor", "channels", "spread before", "after", "gain"], rows)
    return join(tag("h3", "Channels that were equalised"), tag("p", said), tag("details", summary, inner))


def _count(number_of: int, noun: str) -> str:
    return f"{number_of} {noun}" if number_of == 1 else f"{number_of} {noun}s"
