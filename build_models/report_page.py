"""The report for people: one self-contained HTML page, made of nothing but the report's plain data.

It loads nothing: style, plots and pictures stand in the page, and its content security policy forbids the rest.
"""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING, Any

from build_models.markup import Html, join, tag
from build_models.report_accuracy import accuracy, budget_said, outcome_said
from build_models.report_facts import facts, table
from build_models.report_inside import inside
from build_models.report_search import not_made, search
from build_models.report_speed import speed, variants

if TYPE_CHECKING:
    from collections.abc import Mapping

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


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
    """What was built, what it was held to, and what became of each variant."""
    size = content["stages"].get("native input", {})
    what = [content["task"], f"{len(content['labels'])} classes"]
    if "width" in size:
        what.append(f"input {size['width']}x{size['height']}")
    verdicts = [_verdict(content, each) for each in content["variants"]]
    verdicts += [
        tag("li", tag("b", name), f" not made: {why}", class_="refused") for name, why in not_made(content).items()
    ]
    return tag(
        "header",
        tag("h1", content["name"]),
        tag("p", f"Build report, version {content['version']}: {', '.join(what)}", class_="note"),
        tag("p", budget_said(content)),
        tag("ul", *verdicts, class_="verdicts"),
    )


def _verdict(content: Mapping[str, Any], variant: Mapping[str, Any]) -> Html:
    """Packed or refused, why, and what to try."""
    name = tag("b", variant["id"])
    if not variant["packed"]:
        advice = [tag("li", each) for each in variant.get("advice") or []]
        try_this = join(tag("div", "What to try:"), tag("ul", *advice)) if advice else Html()
        return tag("li", name, f" refused: {variant['refused']}", try_this, class_="refused")
    judged = content["stages"].get("judge", {}).get(variant["id"])
    if judged is None:
        known = [f"{each['name']} {each['value']:.4f}" for each in variant["metrics"] if each.get("value") is not None]
        said = f", the reference: {', '.join(known)}" if known and variant["precision"] == "fp32" else ""
        return tag("li", name, f" packed{said}", class_="packed")
    said = f" packed: drop {judged['value']:+.4f}, {outcome_said(judged)}"
    return tag("li", name, said, class_="inconclusive" if judged["outcome"] == "inconclusive" else "packed")


def _verification(content: Mapping[str, Any]) -> Html:
    """What was compared, how closely, and that the check could have failed."""
    parts = []
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
    return tag("section", tag("h2", "Verification"), *parts) if parts else Html()


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


def _stages(content: Mapping[str, Any]) -> Html:
    items = []
    for name, told in content["stages"].items():
        hidden = _SHOWN_ELSEWHERE.get(name, ())
        rest = facts({key: value for key, value in told.items() if key != "said" and key not in hidden})
        more = tag("details", tag("summary", "facts"), rest) if rest and name not in _OWN_SECTION else Html()
        items.append(tag("li", tag("b", name), tag("span", told["said"]), more))
    return tag("section", tag("h2", "What each stage did"), tag("ol", *items, class_="stages"))


def _provenance(content: Mapping[str, Any]) -> Html:
    return tag("section", tag("h2", "Provenance"), facts(content["provenance"]))


_SECTIONS = (
    _header, variants, accuracy, speed, search, inside, _evaluation, _verification, _stages, _provenance,
)  # fmt: skip
_OWN_SECTION = ("verify", "judge")
_SHOWN_ELSEWHERE = {
    "search": ("variants", "forms", "equalised"),
    "calibrate": ("joins",),
    "benchmark": ("results", "speed", "unused_figures"),
}
