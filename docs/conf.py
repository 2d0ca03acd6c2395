"""How `make docs` builds the documentation: pages in Markdown, the API from the docstrings.

Nothing is fetched, neither by the build nor by who reads its result: equations are MathML, fonts
the reader's own, and the live page is the one that `qwidgets.export_html` writes.
"""

from __future__ import annotations

import re
import tomllib
from functools import partial
from pathlib import Path
from pkgutil import iter_modules
from typing import TYPE_CHECKING

import typer
from docutils.nodes import SkipNode
from docutils.utils.math.latex2mathml import tex2mathml

import qwidgets as qw
from qwidgets.cli import app as program

if TYPE_CHECKING:
    from collections.abc import Iterator

    from docutils import nodes
    from sphinx.application import Sphinx
    from sphinx.writers.html5 import HTML5Translator

project = "qwidgets"
author = "the qwidgets developers"
project_copyright = f"{author}, BSD-3-Clause"
version = release = qw.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["deflist", "dollarmath", "substitution"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = f"qwidgets {version}"
html_static_path = ["static"]
html_css_files = ["docs.css"]
html_copy_source = False
html_math_renderer = "mathml"

# Names in docstrings stand in single backticks and become links where they are documented.
default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings say more: shapes, dtypes and units
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True

LIVE_PAGE = "live.html"
SHAPE_STAR = re.compile(r"(?<=[(, ])\*(?=\w+[,)])")
TWO_NAMES = re.compile(r"^(\w+), (\w+)( : .*\n(?: {4}.*\n)+)", re.MULTILINE)


def modules() -> Iterator[str]:
    """Name all modules, lowest floor first, as import-linter knows the floors."""
    settings = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8"))
    floors = settings["tool"]["importlinter"]["contracts"][0]["layers"]
    for floor in reversed(floors):
        for name in floor.split(" : "):
            yield f"qwidgets.{name}"
            folder = Path(qw.__file__).parent / name
            for inner in iter_modules([str(folder)]):
                yield f"qwidgets.{name}.{inner.name}"


def commands() -> Iterator[str]:
    """Describe every command of the program and its options."""
    for name, command in typer.main.get_command(program).commands.items():
        yield f"## `qwidgets {name}`\n\n{command.help}"
        rows = [
            f"| `{' '.join(option.opts) or option.name}` | {option.help} |"
            for option in command.params
            if getattr(option, "help", None)
        ]
        if rows:
            yield "\n".join(["| option | |", "| --- | --- |", *rows])


MODULE = """## `{0}`

```{{eval-rst}}
.. automodule:: {0}
   :no-members:
   :no-index:
```"""

myst_substitutions = {
    "modules": "\n\n".join(map(MODULE.format, modules())),
    "commands": "\n\n".join(commands()),
}


def write_live_page(app: Sphinx, exception: Exception | None) -> None:
    """Train a small grid and export it beside the pages that show it."""
    if exception is not None or app.builder.format != "html":
        return
    sweep = qw.sweep(
        epsilon=[0, 0.05, 0.1, 0.2, 0.3],
        regularization=[0, 0.03, 0.3, 3],
        epochs=12,
        progress=False,
    )
    qw.export_html(sweep, Path(app.outdir) / LIVE_PAGE)


def write_mathml(translator: HTML5Translator, node: nodes.Node, *, block: bool) -> None:
    """Write an equation as MathML, which browsers draw without a script."""
    equation = tex2mathml(node.astext(), as_block=block)
    label = node.get("label") if block else None  # type: ignore[attr-defined]
    opening = f'<div class="math" id="equation-{label}">' if label else '<div class="math">'
    translator.body.append(f"{opening}{equation}</div>" if block else equation)
    raise SkipNode


def prepare_docstring(_app: Sphinx, _what: str, _name: str, *rest: object) -> None:
    """Say in a docstring what napoleon would misread: stars in shapes, and two names in one."""
    lines = rest[-1]
    assert isinstance(lines, list)
    text = SHAPE_STAR.sub(r"\\*", "\n".join(lines))
    lines[:] = TWO_NAMES.sub(r"\1\3\2\3", text).split("\n")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register what is ours."""
    app.add_html_math_renderer(
        "mathml",
        inline_renderers=(partial(write_mathml, block=False), None),
        block_renderers=(partial(write_mathml, block=True), None),
    )
    app.connect("autodoc-process-docstring", prepare_docstring, priority=0)  # before napoleon
    app.connect("build-finished", write_live_page)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
