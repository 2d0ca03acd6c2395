"""A person's text: Markdown and equations become HTML, and nothing of it can act."""

from __future__ import annotations

import html
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwidgets.captions import markdown_html

HARMLESS = {
    *("p", "em", "strong", "s", "a", "code", "pre", "ul", "ol", "li", "blockquote", "hr", "br"),
    *("h1", "h2", "h3", "h4", "h5", "h6", "table", "thead", "tbody", "tr", "th", "td", "span"),
    *("div", "math", "menclose", "mfrac", "mi", "mmultiscripts", "mn", "mo", "mover", "mpadded"),
    *("mphantom", "mprescripts", "mroot", "mrow", "ms", "mspace", "msqrt", "mstyle", "msub"),
    *("msubsup", "msup", "mtable", "mtd", "mtext", "mtr", "munder", "munderover", "none"),
}


class Seen(HTMLParser):
    """Elements, attributes and text, as a browser's parser sees them."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_data(self, data):
        self.text += data


def assert_harmless(rendered):
    seen = Seen(rendered)
    assert set(seen.tags) <= HARMLESS
    active = re.compile(r"\s*(javascript|vbscript|data|file):", re.IGNORECASE)
    for tag, name, value in seen.attributes:
        assert not name.startswith("on")
        assert name != "src"
        if name == "style":  # of a table's cell, by its colons
            assert tag in ("th", "td")
            assert re.fullmatch("text-align:(left|center|right)", value)
        if name == "href":
            assert tag == "a"
            assert not active.match(html.unescape(value))
    return seen


def test_markdown_is_rendered():
    seen = assert_harmless(
        markdown_html(
            "# A\n\n- *b* **c** `d`\n\n| e | f |\n|:--|---|\n| 1 | 2 |\n\n[g](https://h.org)"
        )
    )
    assert {"h1", "li", "em", "strong", "code", "td", "a"} <= set(seen.tags)
    assert ("a", "href", "https://h.org") in seen.attributes
    assert ("a", "rel", "noopener noreferrer") in seen.attributes


def test_equations_are_mathml():
    seen = assert_harmless(
        markdown_html(
            "With $\\sigma_x$ and\n\n$$\\frac{1}{2} \\le \\int \\psi^2$$\n\nit costs \\$5 or 5$."
        )
    )
    displays = [value for tag, name, value in seen.attributes if (tag, name) == ("math", "display")]
    assert displays == ["inline", "block"]
    assert {"msub", "mfrac", "msup"} <= set(seen.tags)
    for sign in ("σ", "≤", "∫", "ψ", "$5 or 5$"):
        assert sign in seen.text


@pytest.mark.parametrize(
    "text",
    [
        "</script><script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "<!-- <b> --> &amp; &lt;",
        "[a](javascript:alert(1)) [b](JaVaScRiPt:alert(1)) [c](data:text/html,x) [d](file:///etc)",
        "![picture](https://example.org/x.png 'title')",
        '![x" onload="alert(1)](https://example.org/"onload="x)',
        '[a](https://x.org/"onclick="alert(1) "b\\" onmouseover=\\"c")',
        "`</code><script>`",
        "```</pre><script>\n<b>\n```",
        "$\\text{</script><script>alert(1)</script>}$",
        "$\\href{javascript:alert(1)}{x}$ $\\style{background:url(http://x)}{y}$ $\\class{z}{w}$",
        "$\\color{red;background:url(http://x.org)} a$",
        "$&lt;script&gt;$ $\\text{&lt;b&gt;}$",
        "<https://x.org/'\"><javascript:alert(1)>",
        "[x]: javascript:alert(1)\n\n[x]",
        "\u202eright to left\u2066 \x00 \x1b[31m",
        "n" * 10_000,
        "> " * 500 + "x",
    ],
)
def test_hostile_text_is_shown(text):
    assert_harmless(markdown_html(text))


def test_what_looks_like_markup_is_read_as_it_was_written():
    for text in ("</script><script>alert(1)</script>", "<b>&amp;", "a < b > c & d"):
        seen = Seen(markdown_html(text.replace("&amp;", "&amp;amp;")))
        assert text in seen.text
    assert "</b>" in Seen(markdown_html("$\\text{</b>}$")).text


@given(st.text(alphabet="$\\{}_^&<>\"'/()[]!`#*|:- \nabsrcdox=", max_size=60))
@pytest.mark.filterwarnings("ignore:text must hold equations")
def test_no_text_does_harm(text):
    assert_harmless(markdown_html(text))


@pytest.mark.parametrize("source", ["\\frac{", "{" * 3000, "x_", "\\left( x", "\\begin{matrix} a"])
def test_an_equation_that_cannot_be_read_is_shown_and_told(source):
    with pytest.warns(UserWarning, match="this one cannot be read.*write a dollar sign"):
        seen = assert_harmless(markdown_html(f"before ${source}$ after"))
    assert source in seen.text
    assert "before" in seen.text
