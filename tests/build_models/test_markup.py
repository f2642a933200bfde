from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from build_models.markup import Html, escape, join, tag


def test_text_is_escaped_and_markup_is_not() -> None:
    assert tag("p", "a < b & c", tag("b", "d")) == "<p>a &lt; b &amp; c<b>d</b></p>"


def test_attributes_are_escaped_and_their_names_made_html() -> None:
    assert tag("meta", http_equiv='"><script>') == '<meta http-equiv="&quot;&gt;&lt;script&gt;">'
    assert tag("li", class_="packed") == '<li class="packed"></li>'


@given(st.text(), st.text())
def test_no_text_opens_a_tag_or_ends_an_attribute(child: str, value: str) -> None:
    whole = tag("p", child, title=value)
    assert whole.count("<") == whole.count(">") == 2
    assert whole.count('"') == 2


@given(st.text())
def test_escaping_twice_is_escaping_once(text: str) -> None:
    assert escape(escape(text)) == escape(text)
    assert isinstance(join(text), Html)
