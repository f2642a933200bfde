"""HTML from Python values: text is escaped unless it is markup already, so no label can become a tag."""

from __future__ import annotations

import html

_VOID = {"img", "link", "meta"}


class Html(str):
    """Text that is markup already; only this module and the plots make it from strings."""

    __slots__ = ()


def escape(text: str) -> Html:
    """Markup that shows this text; markup stays as it is."""
    return text if isinstance(text, Html) else Html(html.escape(text))


def join(*parts: str) -> Html:
    """The parts one after another, plain text escaped."""
    return Html("".join(map(escape, parts)))


def tag(name: str, /, *children: str, **attributes: str) -> Html:
    """An element; an attribute may end in ``_`` (``class_``), and its other underscores become hyphens."""
    pairs = (f' {key.rstrip("_").replace("_", "-")}="{html.escape(value)}"' for key, value in attributes.items())
    opening = f"<{name}{''.join(pairs)}>"
    return Html(opening if name in _VOID else f"{opening}{join(*children)}</{name}>")
