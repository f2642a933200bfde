"""Plain data as HTML: tables that scroll in their own box, lists of facts, counts, figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from build_models.markup import Html, join, tag

_MOST_SHOWN = 24
_DIGEST_LENGTH = 64


def table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, text: bool = False, marks: Sequence[str] = ()
) -> Html:
    """A table whose first column names the rows.

    Args:
        columns: the heads.
        rows: as many cells each as there are columns.
        text: whether the cells are text, which aligns left, rather than numbers.
        marks: a class for each row, or nothing.
    """
    head = tag("thead", tag("tr", *(tag("th", column, scope="col") for column in columns)))
    body = [
        tag(
            "tr",
            tag("th", name, scope="row"),
            *(tag("td", cell) for cell in cells),
            **({"class_": mark} if mark else {}),
        )
        for (name, *cells), mark in zip(rows, marks or [""] * len(rows), strict=True)
    ]
    whole = tag("table", head, tag("tbody", *body), class_="text" if text else "numbers")
    return tag("div", whole, class_="scroll")


def facts(told: Mapping[str, Any]) -> Html:
    """Names and values; what is absent is left out, a long collection is counted and left to report.json."""
    pairs = [
        join(tag("dt", key.replace("_", " ")), tag("dd", _value(value)))
        for key, value in told.items()
        if value is not None and value not in ([], {}, "")
    ]
    return tag("dl", *pairs) if pairs else Html()


def counts(told: Mapping[str, int]) -> Html:
    """Names with how often each occurs."""
    return tag("ul", *(tag("li", name, tag("b", str(count))) for name, count in told.items()), class_="counts")


def figure(title: str, plot: Html) -> Html:
    """A plot under its title."""
    return tag("figure", tag("figcaption", title), plot)


def megabytes(size_bytes: int) -> str:
    """A file's size."""
    return f"{size_bytes / 1e6:.2f} MB"


def number(value: float) -> str:
    """Three digits that count, never an exponent."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _value(value: object) -> str:
    if isinstance(value, Mapping | list | tuple) and len(value) > _MOST_SHOWN:
        return f"{len(value)} entries, in report.json"
    if isinstance(value, Mapping):
        return _separate([join(f"{key} ".replace("_", " "), _value(each)) for key, each in value.items()])
    if isinstance(value, list | tuple):
        return _separate([_value(each) for each in value])
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    text = str(value)
    return tag("code", text) if len(text) == _DIGEST_LENGTH and text.isalnum() else text


def _separate(parts: Sequence[str]) -> Html:
    return join(*[part for each in parts for part in (", ", each)][1:])
