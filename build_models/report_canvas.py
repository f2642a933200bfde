"""What the report's plots are drawn on: SVG text in the page's colours and font, the same bytes at every build."""

from __future__ import annotations

import io
import re
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.figure import Figure

from build_models.markup import Html

if TYPE_CHECKING:
    from collections.abc import Iterator

# Stand-ins that matplotlib understands, for the custom properties of report.css: so a plot follows light and dark.
INK, MUTED, RULE = "#000001", "#000002", "#000003"
SOURCE, PACKED, REFUSED, UNSURE = "#000004", "#000005", "#000006", "#000007"
_PROPERTIES = {
    INK: "ink", MUTED: "muted", RULE: "rule", SOURCE: "source", PACKED: "packed", REFUSED: "refused", UNSURE: "unsure",
}  # fmt: skip

WIDTH_PX = 340  # what a phone shows without shrinking the text
TEXT_PX = 12
_STYLE: Any = {  # a plain mapping; the stubs want literal keys
    "svg.fonttype": "none",  # text stays text: small, selectable, in the reader's font
    "text.parse_math": False,  # a dollar sign in a layer's name is one
    "font.size": TEXT_PX,
    "text.color": INK,
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "xtick.color": RULE,
    "xtick.labelcolor": MUTED,
    "ytick.color": RULE,
    "ytick.labelcolor": INK,
    "grid.color": RULE,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
}


@contextmanager
def canvas(height_px: float) -> Iterator[Figure]:
    """A figure of one unit per CSS pixel, in our style whatever the user's own is."""
    with mpl.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # the reader's font draws it
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        yield Figure(figsize=(WIDTH_PX / 72, height_px / 72), dpi=72)


def svg(figure: Figure, name: str) -> Html:
    """The figure as an element: no prolog, no date, own ids, colours by the page's custom properties."""
    name = re.sub(r"[^\w-]", "-", name)  # it stands in attributes
    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(
        r'<svg [^>]*viewBox="([^"]*)"[^>]*>', rf'<svg role="img" aria-label="{name}" viewBox="\1">', text, count=1
    )
    text = re.sub(r'(?<= id=")|(?<=href="#)|(?<=url\(#)', f"{name}-", text)
    for color, property_name in _PROPERTIES.items():
        text = text.replace(color, f"var(--{property_name})")
    return Html(text.strip())
