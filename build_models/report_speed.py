"""The report's sections on speed and size: the files side by side, and what is known of each kind of machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from build_models.markup import Html, join, tag
from build_models.report_canvas import PACKED, REFUSED, SOURCE
from build_models.report_facts import figure, megabytes, number, table
from build_models.report_plots import bars

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_KINDS = {"aarch64": "ARM64", "x86_64": "x86-64"}


def variants(content: Mapping[str, Any]) -> Html:
    """A column per file: on a phone that is narrower than a row per file."""
    files = content["variants"]
    times = _times(content)
    columns = [*(["source"] if "source" in times else []), *(each["id"] for each in files)]
    by_id = {each["id"]: each for each in files}
    fp32_ms = next(
        (times[each["id"]]["median_ms"] for each in files if each["precision"] == "fp32" and each["id"] in times), None
    )

    def verdict(name: str) -> str:
        if name not in by_id:
            return "as given"
        packed = by_id[name]["packed"]
        return tag("b", "packed" if packed else "refused", class_="packed" if packed else "refused")

    def time(name: str, key: str) -> str:
        return f"{number(times[name][key])} ms" if name in times else "-"

    def against_source(name: str) -> str:
        return f"{1 / times[name]['ratio']:.2f}x" if name in times and times[name]["ratio"] else "-"

    def against_fp32(name: str) -> str:
        return f"{fp32_ms / times[name]['median_ms']:.2f}x" if fp32_ms and name in times else "-"

    rows = [
        ["verdict", *map(verdict, columns)],
        ["precision", *(by_id[name]["precision"] if name in by_id else "-" for name in columns)],
        ["size", *(megabytes(by_id[name]["bytes"]) if name in by_id else "-" for name in columns)],
    ]
    if times:
        rows += [
            ["latency, median", *(time(name, "median_ms") for name in columns)],
            ["latency, p90", *(time(name, "p90_ms") for name in columns)],
            ["speed against source", *map(against_source, columns)],
            ["speed against fp32", *map(against_fp32, columns)],
        ]
    whole = tag("p", _taken_on(content), class_="note")
    return tag("section", tag("h2", "Variants"), table(["", *columns], rows), whole, _plots(files, times))


def speed(content: Mapping[str, Any]) -> Html:
    """How much faster than fp32 each variant is on the machines that it is made for, and where nobody looked."""
    rows = [row for each in content["variants"] if each["precision"] != "fp32" for row in _of_variant(content, each)]
    forms = content["stages"].get("search", {}).get("forms")
    if not rows and not forms:
        return Html()
    parts = [tag("h2", "Speed by kind of machine")]
    if rows:
        said = "Speed against fp32, by who measured it. A variant that is too slow for a kind of machine is not for it"
        said += "; where nothing was measured it is kept, and its speed there is not known."
        columns = ["variant", "machine", "against fp32", "so"]
        parts += [tag("p", said), table(columns, rows, text=True)]
    parts += [
        tag("p", each, class_="note") for each in content["stages"].get("benchmark", {}).get("unused_figures", [])
    ]
    return tag("section", *parts, _forms(content, forms) if forms else Html())


def _of_variant(content: Mapping[str, Any], variant: Mapping[str, Any]) -> list[list[str]]:
    told = [
        each for each in content["stages"].get("benchmark", {}).get("speed", []) if each["variant"] == variant["id"]
    ]
    rows = []
    for each in told:
        figures = ", ".join(f"{value:.2f}x on {where}" for where, value in each["speedups"].items())
        unknown = tag("b", "not measured", class_="inconclusive")
        if each["refused"]:
            so: str = join(tag("b", "not for it", class_="refused"), f": {each['refused']}")
        elif variant["packed"]:
            so = "serves it" if figures else "serves it, untested"
        else:
            so = "not packed"
        rows.append([variant["id"], _KINDS.get(each["arch"], each["arch"]), figures or unknown, so])
    if not told:
        machine = ", ".join(variant.get("providers", [])) or "any"
        so = "packed" if variant["packed"] else "not packed"
        rows.append([variant["id"], machine, tag("b", "not measured", class_="inconclusive"), so])
    return rows


def _forms(content: Mapping[str, Any], forms: Mapping[str, Mapping[str, float]]) -> Html:
    """Forms of the int8 file, as timed here before the search."""
    found = content["stages"]["search"].get("variants", {})
    taken = {
        each["choice"]["form"]
        for every in found.values()
        for each in every["attempts"]
        if each["sha256"] == every["chosen"]
    }
    timed = {name: each for name, each in forms.items() if not name.startswith("cpu-fp32")}
    plot = bars(
        "forms",
        [f"{name}, taken" if name in taken else name for name in timed],
        [each["speedup"] for each in timed.values()],
        [f"{each['speedup']:.2f}x, {number(each['median_ms'])} ms" for each in timed.values()],
        [PACKED if name in taken else SOURCE for name in timed],
        limit=1.0,
        limit_said="fp32",
    )
    said = (
        "The same int8 network, written in ways that are fast on one machine and slow on another; timed on this one "
        "before the search. What was found here decides for machines of this kind alone."
    )
    text = tag("div", tag("p", said))
    return join(
        tag("h3", "Forms of the int8 file"), tag("div", figure("Times as fast as fp32", plot), text, class_="split")
    )


def _plots(files: Sequence[Mapping[str, Any]], times: Mapping[str, Mapping[str, Any]]) -> Html:
    ids = [each["id"] for each in files]
    colors = [PACKED if each["packed"] else REFUSED for each in files]
    sizes = [each["bytes"] / 1e6 for each in files]
    figures = [figure("Size", bars("size", ids, sizes, [megabytes(each["bytes"]) for each in files], colors))]
    timed = [name for name in ("source", *ids) if name in times]
    if timed:
        color_of = {"source": SOURCE, **dict(zip(ids, colors, strict=True))}
        latency = bars(
            "latency",
            timed,
            [times[name]["median_ms"] for name in timed],
            [f"{number(times[name]['median_ms'])}, p90 {number(times[name]['p90_ms'])} ms" for name in timed],
            [color_of[name] for name in timed],
            whiskers=[times[name]["p90_ms"] for name in timed],
        )
        figures.append(figure("Latency: median and p90", latency))
    return tag("div", *figures, class_="plots")


def _times(content: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Latency results by contender."""
    return {each["name"]: each for each in content["stages"].get("benchmark", {}).get("results", [])}


def _taken_on(content: Mapping[str, Any]) -> str:
    told = content["stages"].get("benchmark")
    if told is None or "results" not in told:
        return f"Built on {content['cpu']}."
    return (
        f"Latency taken on {told['cpu']}, {told['threads']} threads, onnxruntime {told['onnxruntime']}, "
        f"{told['rounds']} rounds in turns; p90 is the 90th percentile. Speed against the source is the median over "
        "the rounds, against fp32 that of the medians. Times hold for that machine."
    )
