"""A person's text for a page: Markdown with equations as HTML in which nothing of it can act.

Markup of their own comes out as text, equations as MathML, which browsers draw without a script.
"""

from __future__ import annotations

import html
import re
import warnings
from typing import TYPE_CHECKING, Any

from latex2mathml.converter import convert_to_element
from markdown_it import MarkdownIt
from mdit_py_plugins.dollarmath import dollarmath_plugin

if TYPE_CHECKING:
    from collections.abc import Sequence
    from xml.etree.ElementTree import Element

    from markdown_it.renderer import RendererHTML
    from markdown_it.token import Token
    from markdown_it.utils import EnvType, OptionsDict

_ELEMENTS = frozenset(
    re.findall(
        r"\w+",
        """math menclose mfrac mi mmultiscripts mn mo mover mpadded mphantom mprescripts mroot mrow
        ms mspace msqrt mstyle msub msubsup msup mtable mtd mtext mtr munder munderover none""",
    )
)
_ATTRIBUTES = frozenset(
    re.findall(
        r"\w+",
        """accent accentunder columnalign columnlines columnspacing depth display displaystyle fence
        form height largeop linebreak linethickness lspace mathcolor mathsize mathvariant maxsize
        minsize movablelimits notation rowlines rowspacing rspace scriptlevel separator stretchy
        symmetric voffset width""",
    )
)
_PLAIN = re.compile(r"[\w.#%+ -]*")


def markdown_html(text: str) -> str:
    """Render Markdown, with tables, and equations between ``$`` or ``$$``.

    Parameters
    ----------
    text : str
        CommonMark. HTML in it is shown, not obeyed; pictures become links, for a page must fetch
        nothing.

    Returns
    -------
    str
        HTML whose only active parts are links to ``http``, ``https`` and ``mailto`` addresses.

    Warns
    -----
    UserWarning
        For an equation that cannot be read; its source is shown in its place.
    """
    rendered: str = _renderer().render(text)
    return rendered


def _renderer() -> MarkdownIt:
    markdown = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])
    dollarmath_plugin(
        markdown, allow_labels=False, allow_space=False, allow_digits=False, renderer=_equation
    )
    markdown.add_render_rule("image", _picture)
    markdown.add_render_rule("link_open", _link)
    return markdown


def _link(
    self: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, env: EnvType
) -> str:
    del env
    # A page that stands in a frame may not be replaced, and no one need know where it is read.
    tokens[index].attrSet("target", "_blank")
    tokens[index].attrSet("rel", "noopener noreferrer")
    return self.renderToken(tokens, index, options, {})


def _picture(
    self: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, env: EnvType
) -> str:
    token = tokens[index]
    words = self.renderInlineAsText(token.children or [], options, env)
    address = html.escape(str(token.attrs.get("src", "")))
    shown = html.escape(words) or address
    return f'<a href="{address}" target="_blank" rel="noopener noreferrer">{shown}</a>'


def _equation(source: str, options: dict[str, Any]) -> str:
    display = "block" if options["display_mode"] else "inline"
    try:
        return _written(convert_to_element(source, display=display))
    except Exception as error:  # noqa: BLE001  # the faults of the library have no common class
        reason = f"{type(error).__name__} {error}".strip()
        message = (
            f"text must hold equations in LaTeX, but this one cannot be read ({reason}) and is"
            f" shown as it is: {source[:80]!r}; write a dollar sign that is none as \\$."
        )
        warnings.warn(message, stacklevel=2)
        return f"<code>{html.escape(source)}</code>"


def _written(element: Element) -> str:
    """Write MathML anew, of its own elements and harmless attributes alone.

    Links and styles, which LaTeX can smuggle in, are left out; and text, which the library holds as
    character references, is escaped once, after they are read.
    """
    attributes = "".join(
        f' {name}="{value}"'
        for name, value in element.attrib.items()
        if name in _ATTRIBUTES and _PLAIN.fullmatch(value)
    )
    name = element.tag if element.tag in _ELEMENTS else "mrow"
    text = html.escape(html.unescape(element.text or ""))
    return f"<{name}{attributes}>{text}{''.join(map(_written, element))}</{name}>"
