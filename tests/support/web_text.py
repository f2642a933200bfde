"""The words that a piece of markup shows."""

from __future__ import annotations

import html
import re


def words(markup: str) -> str:
    """Text without tags, one space between words."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", markup)).split())
