"""The report for people: one self-contained HTML page, made of nothing but the report's plain data.

It loads nothing: style, plots and pictures stand in the page, and its content security policy forbids the rest.
"""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING, Any

from build_models import report_plots
from build_models.markup import Html, join, tag
from build_models.report_facts import counts, facts, number, table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_WEAKEST = 10


def page(content: Mapping[str, Any]) -> str:
    """The whole page; ``content`` is what `build_models.report.collect` returns, or its JSON read again."""
    title = f"{content['name']} {content['version']}"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("link", rel="icon", href="data:,"),
        tag("title", f"{title}: build report"),
        tag("style", Html(resources.files(__package__).joinpath("report.css").read_text(encoding="utf-8"))),
    )
    body = tag("body", *(section(content) for section in _SECTIONS))
    return f"<!DOCTYPE html>\n{tag('html', head, body, lang='en')}\n"


def _header(content: Mapping[str, Any]) -> Html:
    """What was built, and what became of each variant."""
    size = content["stages"].get("native input", {})
    what = [content["task"], f"{len(content['labels'])} classes"]
    if "width" in size:
        what.append(f"input {size['width']}x{size['height']}")
    verdicts = []
    for variant in content["variants"]:
        said = "packed" if variant["packed"] else f"refused: {variant['refused']}"
        kind = "packed" if variant["packed"] else "refused"
        verdicts.append(tag("li", tag("b", variant["id"]), " ", said, class_=kind))
    return tag(
        "header",
        tag("h1", content["name"]),
        tag("p", f"Build report, version {content['version']}: {', '.join(what)}", class_="note"),
        tag("ul", *verdicts, class_="verdicts"),
    )


def _variants(content: Mapping[str, Any]) -> Html:
    """A column per file: on a phone that is narrower than a row per file."""
    variants = content["variants"]
    times = _times(content)
    columns = [*(["source"] if "source" in times else []), *(variant["id"] for variant in variants)]
    by_id = {variant["id"]: variant for variant in variants}
    fp32_ms = next(
        (times[each["id"]]["median_ms"] for each in variants if each["precision"] == "fp32" and each["id"] in times),
        None,
    )

    def verdict(name: str) -> str:
        if name not in by_id:
            return "as given"
        packed = by_id[name]["packed"]
        return tag("b", "packed" if packed else "refused", class_="packed" if packed else "refused")

    def time(name: str, key: str, unit: str) -> str:
        return f"{number(times[name][key])}{unit}" if name in times else "-"

    def against_fp32(name: str) -> str:
        return f"{times[name]['median_ms'] / fp32_ms:.2f}x" if fp32_ms and name in times else "-"

    def agreement(name: str) -> str:
        if name not in by_id:
            return "-"
        return "reference" if by_id[name]["precision"] == "fp32" else _agreement_said(by_id[name])

    rows = [
        ["verdict", *map(verdict, columns)],
        ["precision", *(by_id[name]["precision"] if name in by_id else "-" for name in columns)],
        ["size", *(_megabytes(by_id[name]["bytes"]) if name in by_id else "-" for name in columns)],
        ["latency, median", *(time(name, "median_ms", " ms") for name in columns)],
        ["latency, p90", *(time(name, "p90_ms", " ms") for name in columns)],
        ["time / source", *(time(name, "ratio", "x") for name in columns)],
        ["time / fp32", *(against_fp32(name) for name in columns)],
        ["agreement", *map(agreement, columns)],
    ]
    return tag(
        "section", tag("h2", "Variants"), table(["", *columns], rows), tag("p", _taken_on(content), class_="note")
    )


def _plots(content: Mapping[str, Any]) -> Html:
    variants, times = content["variants"], _times(content)
    ids = [variant["id"] for variant in variants]
    colors = [report_plots.PACKED if variant["packed"] else report_plots.REFUSED for variant in variants]
    megabytes = [variant["bytes"] / 1e6 for variant in variants]
    sizes = report_plots.bars("size", ids, megabytes, [_megabytes(variant["bytes"]) for variant in variants], colors)
    figures = [_figure("Size", sizes)]
    if times:
        timed = ["source", *ids] if "source" in times else ids
        latency = report_plots.bars(
            "latency",
            timed,
            [times[name]["median_ms"] for name in timed],
            [f"{number(times[name]['median_ms'])}, p90 {number(times[name]['p90_ms'])} ms" for name in timed],
            [*([report_plots.SOURCE] * (len(timed) - len(ids))), *colors],
            whiskers=[times[name]["p90_ms"] for name in timed],
        )
        figures.append(_figure("Latency: median and p90", latency))
    judged = [(each, color) for each, color in zip(variants, colors, strict=True) if _agreement(each) is not None]
    if judged:
        least = content["stages"].get("verify", {}).get(judged[0][0]["id"], {}).get("least")
        accuracy = report_plots.bars(
            "accuracy",
            [each["id"] for each, _ in judged],
            [_agreement(each) or 0.0 for each, _ in judged],
            [_agreement_said(each) for each, _ in judged],
            [color for _, color in judged],
            limit=least,
            limit_said=f"least {least:g}" if least is not None else "",
        )
        figures.append(_figure("Accuracy: agreement with fp32", accuracy))
    return tag("section", tag("h2", "Size, latency, accuracy"), tag("div", *figures, class_="plots"))


def _layers(content: Mapping[str, Any]) -> Html:
    signals: Sequence[Mapping[str, Any]] = content["stages"].get("quantise", {}).get("layers", [])
    if not signals:
        return Html()
    modules = content["stages"].get("source", {}).get("modules") or {}
    plot = report_plots.layers("layers", [each["node"] for each in signals], [each["sqnr_db"] for each in signals])
    weakest = sorted(signals, key=lambda each: each["sqnr_db"])[:_WEAKEST]
    rows = [
        [each["node"], f"{each['sqnr_db']:.2f} dB", modules.get(each["node"]) or each["op_type"]] for each in weakest
    ]
    return tag(
        "section",
        tag("h2", "Signal to noise per layer, int8"),
        tag(
            "p",
            f"Power of each layer's float output over the power of its int8 error, {len(signals)} layers. "
            "Where it falls, accuracy is lost; below 0 dB the error is larger than the signal.",
        ),
        tag(
            "div",
            tag("figure", plot),
            tag(
                "div",
                tag("h3", f"The {len(rows)} weakest"),
                table(["layer", "", "module" if modules else "kind"], rows),
            ),
            class_="split",
        ),
    )


def _verification(content: Mapping[str, Any]) -> Html:
    """What was compared, how closely, and that the check could have failed."""
    parts = [tag("h2", "Verification")]
    for variant in content["variants"]:
        told = content["stages"].get("verify", {}).get(variant["id"])
        if told is None:
            continue
        against = "fp32" if variant["precision"] != "fp32" else "the source"
        compared = {key: value for key, value in told.items() if key not in ("controls", "refused")}
        parts += [tag("h3", f"{variant['id']} against {against}"), facts(compared)]
        if "controls" in told:
            parts += [
                tag("p", "The same check must fail on other inputs, and does:"),
                table(["control", "what the check said"], list(told["controls"].items()), text=True),
            ]
    return tag("section", *parts)


def _evaluation(content: Mapping[str, Any]) -> Html:
    evaluation = content.get("evaluation")
    if not evaluation:
        return Html()
    tables = [join(tag("h3", each["title"]), table(each["columns"], each["rows"])) for each in evaluation["tables"]]
    pictures = [
        tag(
            "figure",
            tag("figcaption", each["title"]),
            tag(
                "div",
                tag("img", src=f"data:{each['mime']};base64,{each['base64']}", alt=each["title"]),
                class_="scroll sheet",
            ),
        )
        for each in evaluation["pictures"]
    ]
    return tag("section", tag("h2", evaluation["title"]), *tables, *pictures)


def _calibration(content: Mapping[str, Any]) -> Html:
    told = {key: value for key, value in content["stages"].get("pictures", {}).items() if key != "said"}
    return tag("section", tag("h2", "Calibration pictures"), facts(told))


def _kernels(content: Mapping[str, Any]) -> Html:
    told = content["stages"].get("quantise", {})
    if "kernels_on_this_cpu" not in told:
        return Html()
    rest = told.get("float_ops_in_body") or []
    text = f"What ONNX Runtime makes of the int8 file on {content['cpu']}."
    text += f" Left in float inside the network: {', '.join(rest)}." if rest else " Nothing is left in float inside."
    return tag("section", tag("h2", "Kernels on this CPU"), tag("p", text), counts(told["kernels_on_this_cpu"]))


def _stages(content: Mapping[str, Any]) -> Html:
    items = []
    for name, told in content["stages"].items():
        rest = facts({key: value for key, value in told.items() if key not in ("said", *_SHOWN_ELSEWHERE)})
        more = tag("details", tag("summary", "facts"), rest) if rest and name not in _OWN_SECTION else Html()
        items.append(tag("li", tag("b", name), tag("span", told["said"]), more))
    return tag("section", tag("h2", "What each stage did"), tag("ol", *items, class_="stages"))


def _provenance(content: Mapping[str, Any]) -> Html:
    return tag("section", tag("h2", "Provenance"), facts(content["provenance"]))


_SECTIONS = (
    _header, _variants, _plots, _layers, _verification, _evaluation, _stages, _kernels, _calibration, _provenance,
)  # fmt: skip
_OWN_SECTION = ("pictures", "verify")
_SHOWN_ELSEWHERE = ("layers", "kernels_on_this_cpu", "results")


def _figure(title: str, plot: Html) -> Html:
    return tag("figure", tag("figcaption", title), plot)


def _times(content: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Latency results by contender."""
    return {each["name"]: each for each in content["stages"].get("benchmark", {}).get("results", [])}


def _taken_on(content: Mapping[str, Any]) -> str:
    told = content["stages"].get("benchmark")
    if told is None:
        return f"Built on {content['cpu']}."
    return (
        f"Latency taken on {told['cpu']}, {told['threads']} threads, onnxruntime {told['onnxruntime']}, "
        f"{told['rounds']} rounds in turns; p90 is the 90th percentile. "
        "Times hold for that machine, the ratios are the figures to quote."
    )


def _agreement(variant: Mapping[str, Any]) -> float | None:
    return next((each["value"] for each in variant["metrics"] if each["name"].endswith("_vs_fp32")), None)


def _agreement_said(variant: Mapping[str, Any]) -> str:
    metric = next((each for each in variant["metrics"] if each["name"].endswith("_vs_fp32")), None)
    return f"{metric['name'].removesuffix('_vs_fp32')} {metric['value']:.3f}" if metric else "not measured"


def _megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.2f} MB"
