"""The companion page: an Explorer as one HTML file that needs no kernel, server or network.

The numbers lie in the page as they cross from Python to a browser: what is printed in single
precision, its relative error at most 2**-24, far below half of the last printed digit; the packets,
which are only drawn, in half precision, 2**-11. They are packed, which loses nothing.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import warnings
import zlib
from contextlib import closing, suppress
from dataclasses import dataclass
from html import escape
from importlib import metadata
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
from ipywidgets.embed import dependency_state, embed_data
from jupyter_core.paths import jupyter_path

from qwidgets import __version__, views
from qwidgets.captions import markdown_html
from qwidgets.files import check_place, write_whole
from qwidgets.provenance import command, sources
from qwidgets.widgets.explorer import Explorer
from qwidgets.widgets.looking import NOTHING_SEEN

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from importlib.resources.abc import Traversable
    from os import PathLike

    import xarray as xr
    from numpy.typing import NDArray

    from qwidgets.own import Measurement
    from qwidgets.sweep import Sweep

# The modules that the state of an Explorer may name, each after those that it needs; page.js brings
# ipywidgets' own. bqplot 0.12 has no bqscales.
_MODULES = ("bqscales", "bqplot", "anywidget")
# Bytes of numbers beyond which a grid is thinned; the default one has 3 million.
_MOST = 12_000_000

# Nothing is fetched, and no script runs but the page's own: the one of this digest, and the module
# that the widget state carries, which anywidget imports from a blob.
_POLICY = (
    "default-src 'none'; script-src 'sha256-{digest}' blob:; style-src 'unsafe-inline'; "
    "img-src data: blob:; font-src data:; base-uri 'none'; form-action 'none'"
)

# Colours of the page around the Explorer, whose own are in style.css.
_STYLE = """
:root { color-scheme: light dark; }
body.qw-standalone { margin: 0; padding: 16px; background: #ffffff; color: #56616e;
  font: 13px/1.5 system-ui, -apple-system, "Segoe UI", "Helvetica Neue", Arial, sans-serif; }
.qw-caption, main, .qw-text, footer { max-width: 1320px; margin: 0 auto; overflow-wrap: anywhere; }
main { min-height: 240px; }
.qw-loading { padding: 100px 0; text-align: center; }
.qw-caption h1, .qw-text { color: #1c2530; }
.qw-caption h1 { margin: 4px 0 0; font-size: 26px; line-height: 1.25; letter-spacing: -0.01em; }
.qw-caption p { margin: 4px 0 14px; font-size: 15px; }
.qw-text { padding: 6px 0 2px; }
.qw-text > * { max-width: 46em; margin: 0 0 10px; font-size: 15px; }
.qw-text :is(h1, h2, h3, h4, h5, h6) { margin: 16px 0 6px; font-size: 17px; line-height: 1.3; }
.qw-text a { color: #00609a; }
.qw-text :is(code, pre) { font-size: 13px; }
.qw-text .math.block { overflow-x: auto; text-align: center; }
.qw-text math { font-size: 1.1em; }
.qw-text :is(td, th) { padding: 2px 10px; border-bottom: 1px solid #dfe4e9; }
.qw-text blockquote { padding-left: 12px; border-left: 3px solid #dfe4e9; }
footer { padding-top: 10px; font-size: 12px; }
footer p { margin: 0 0 4px; }
footer summary { cursor: pointer; }
footer dl { display: grid; grid-template-columns: max-content 1fr; gap: 0 14px; margin: 6px 0; }
footer dd { margin: 0; min-width: 0; }
footer pre { margin: 6px 0; padding: 10px 12px; border-radius: 8px; background: #f5f7f9;
  white-space: pre-wrap; user-select: all; }
@media (prefers-color-scheme: dark) {
  body.qw-standalone { background: #111418; color: #a7b1bc; }
  .qw-caption h1, .qw-text { color: #e8ecf0; }
  .qw-text a { color: #7cc7f2; }
  .qw-text :is(td, th, blockquote) { border-color: #343c45; }
  footer pre { background: #1f252c; }
}
"""
_UNSOUND = re.compile("[\0\ud800-\udfff]")
# A frame of its own origin: the page in it can neither read nor change the one around it.
_SANDBOX = "allow-scripts allow-downloads allow-popups allow-popups-to-escape-sandbox"


@dataclass(frozen=True)
class Block:
    """An exported page as a block of HTML for another page; a notebook shows it.

    Attributes
    ----------
    html : str
        One ``<iframe>`` element that carries the whole page.
    """

    html: str

    def __str__(self) -> str:
        """Return the HTML."""
        return self.html

    def _repr_html_(self) -> str:
        return self.html


@overload
def export_html(
    sweep_or_explorer: Sweep | Measurement | Explorer,
    path: str | PathLike[str],
    *,
    title: str | None = None,
    authors: str | Sequence[str] | None = None,
    text: str | None = None,
    embed: bool = False,
) -> Path: ...


@overload
def export_html(
    sweep_or_explorer: Sweep | Measurement | Explorer,
    path: None = None,
    *,
    title: str | None = None,
    authors: str | Sequence[str] | None = None,
    text: str | None = None,
    embed: Literal[True],
) -> Block: ...


def export_html(
    sweep_or_explorer: Sweep | Measurement | Explorer,
    path: str | PathLike[str] | None = None,
    *,
    title: str | None = None,
    authors: str | Sequence[str] | None = None,
    text: str | None = None,
    embed: bool = False,
) -> Path | Block:
    r"""Write the Explorer as one HTML file that works from disk with the network off.

    The page holds all finished epochs and the whole front end; its sliders, class menu and epoch
    player do what they do in a notebook. Its foot says where the numbers come from and how to make
    them again. The file appears whole or not at all.

    Parameters
    ----------
    sweep_or_explorer : Sweep, Measurement or Explorer
        What to show. Of an Explorer the current choices are kept; one that still trains is written
        with what is finished, and goes on training.
    path : path, optional
        The file to write; its folder must exist. A file of that name is replaced. May be left out
        with ``embed=True``.
    title : str, optional
        Heading and window title of the page; default: the Explorer's own.
    authors : str or sequence of str, optional
        Who made it, below the title.
    text : str, optional
        What the page is about, in Markdown, below the pictures; equations in LaTeX between ``$``,
        or ``$$`` on lines of their own.
    embed : bool
        Make a block for another page instead of a page of its own: an ``<iframe>`` that carries
        everything. Without a path it is returned; as the output of a cell it stays alive in what
        ``jupyter nbconvert --to html`` makes.

    Returns
    -------
    pathlib.Path or Block
        The file; without one, the block.

    Raises
    ------
    TypeError
        An argument is of the wrong kind.
    ValueError
        Nothing is finished yet.
    FileNotFoundError
        A part of the front end is not installed.
    OSError
        The path cannot be written.

    Warns
    -----
    UserWarning
        If the grid is so large that the page holds only some of its epochs and networks, or an
        equation cannot be read.
    """
    caption = _Caption.of(title, authors, text)
    if path is None and not embed:
        message = (
            "path must be the name of a file such as 'explorer.html'; only embed=True, which"
            " returns a block for another page, can do without."
        )
        raise TypeError(message)
    sweep = _sweep_of(sweep_or_explorer)
    place = None if path is None else check_place(path, "explorer.html")
    dataset, note = _kept(sweep.dataset)
    # A closed one is nowhere: what it held is exported as any other.
    if isinstance(sweep_or_explorer, Explorer) and sweep_or_explorer.comm is not None:
        data = _embed(sweep_or_explorer, dataset)
    else:
        with closing(Explorer(sweep)) as explorer:
            data = _embed(explorer, dataset)
    page = _page(data, _code(data), caption, _footer(sweep, note, _modules(data)))
    if embed:
        page = _frame(page, caption.title or views.TITLE)
    if place is None:
        return Block(page)
    write_whole(place, page)
    return place


@dataclass(frozen=True)
class _Caption:
    """What a person says about the page; HTML but for the title."""

    title: str | None
    authors: str
    text: str

    @classmethod
    def of(cls, title: object, authors: object, text: object) -> _Caption:
        if not (title is None or isinstance(title, str)):
            message = f"title must be a str, or None for the Explorer's own; got {title!r}."
            raise TypeError(message)
        if not (text is None or isinstance(text, str)):
            message = f"text must be a str of Markdown, or None for none; got {text!r}."
            raise TypeError(message)
        names = [authors] if isinstance(authors, str) else () if authors is None else authors
        if not (isinstance(names, (list, tuple)) and all(isinstance(n, str) for n in names)):
            message = f"authors must be a str or a list of str; got {authors!r}."
            raise TypeError(message)
        return cls(
            title,
            ", ".join(f"<bdi>{_words(name)}</bdi>" for name in names),
            "" if text is None else markdown_html(_sound(text)),
        )

    @property
    def head(self) -> str:
        if self.title is None and not self.authors:
            return ""
        title = _words(self.title or views.TITLE)
        authors = f"\n<p>{self.authors}</p>" if self.authors else ""
        return f'<header class="qw-caption">\n<h1 dir="auto">{title}</h1>{authors}\n</header>'

    @property
    def body(self) -> str:
        return f'<section class="qw-text">\n{self.text}</section>' if self.text else ""


def _sweep_of(source: object) -> Sweep | Measurement:
    if isinstance(source, Explorer):
        if source.sweep is None:
            message = (
                "sweep_or_explorer must hold at least one finished epoch, but this Explorer has"
                " none yet; wait for the first, or for all with explorer.wait()."
            )
            raise ValueError(message)
        return source.sweep
    from qwidgets.own import Measurement
    from qwidgets.sweep import Sweep

    if not isinstance(source, (Sweep, Measurement)):
        message = (
            "sweep_or_explorer must be a Sweep, from qwidgets.sweep(...) or"
            " qwidgets.open_sweep(path), a Measurement, from qwidgets.measure(...), or a"
            f" qwidgets.Explorer; got {type(source).__name__}."
        )
        raise TypeError(message)
    return source


def _kept(dataset: xr.Dataset) -> tuple[xr.Dataset, str]:
    """Take of a cube what a page can hold, and say what was left out."""
    if "epoch" not in dataset.dims:
        return dataset, ""
    kept = views.thinned(dataset, _MOST)
    if kept.sizes == dataset.sizes:
        return dataset, ""
    held = []
    if kept.sizes["epoch"] < dataset.sizes["epoch"]:
        held.append(f"{kept.sizes['epoch'] - 1} of {dataset.sizes['epoch'] - 1} epochs")
    shape, whole = (
        " × ".join(str(part.sizes[axis]) for axis in ("epsilon", "regularization"))
        for part in (kept, dataset)
    )
    if shape != whole:
        held.append(f"{shape} of {whole} networks")
    note = (
        f"This page holds {' and '.join(held)}, evenly spaced: all would be too large for a page."
    )
    message = f"{note} The sweep itself has everything."
    warnings.warn(message, stacklevel=3)
    return kept, note


def _embed(explorer: Explorer, dataset: xr.Dataset) -> dict[str, Any]:
    """State of this Explorer and of all that it refers to, as the widget manager reads it."""
    # With the defaults, because the front end's module itself is one.
    with suppress(Exception):  # what it cannot see, and why, is in the trait
        explorer.look()
    states = dependency_state([explorer], drop_defaults=False)
    entry = states[explorer.model_id]
    state = entry["state"]
    epochs = _epochs(dataset)
    last = len(epochs) - 1
    # Of the snapshot that is exported; more may have been finished while the state was read.
    state["epoch"] = int(np.abs(epochs - state["epoch"]).argmin())
    whole = state["cube"]["axes"]
    state["cube"], arrays = _cube(state["cube"], dataset)
    entry["packed"] = _packed(arrays)
    replaced = {"cube"}
    if any(whole[name] != state["cube"]["axes"][name] for name in ("epsilon", "regularization")):
        # It is drawn of all networks, and would be taken for that of others.
        state["regions"] = dict(NOTHING_SEEN)
        replaced.add("regions")
    entry["buffers"] = [b for b in entry.get("buffers", []) if b["path"][0] not in replaced]
    if state["run"]["phase"] != "done":
        # Nothing can be trained, paused or cancelled from a page.
        message = views.count(last, "trained epoch")
        state["run"] = {"phase": "done", "fraction": 1.0, "message": message}
    # The page shows this lens and cannot look again.
    state["lens"] = {**state["lens"], "live": False}
    data: dict[str, Any] = embed_data(views=[explorer], drop_defaults=False, state=states)
    return {**data, "heading": state["heading"]}


def _epochs(dataset: xr.Dataset) -> NDArray[Any]:
    """Epochs of a cube; the one of a measurement is its epoch 0."""
    return dataset.epoch.values if "epoch" in dataset.dims else np.zeros(1, int)


def _cube(
    cube: Mapping[str, Any], dataset: xr.Dataset
) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Make the Explorer's cube hold this one, its finished epochs alone; arrays lie beside it."""
    arrays = views.plot_arrays(dataset)
    axes = views.plot_axes(dataset)
    epochs = _epochs(dataset).tolist()
    if epochs != list(range(len(epochs))):
        axes["epoch"] = epochs
    values = {
        name: {"dtype": str(array.dtype), "shape": list(array.shape)}
        for name, array in arrays.items()
    }
    own = {"axes": axes, "epochs": len(epochs) - 1, "finished": len(epochs), "values": values}
    return {**cube, **own}, arrays


def _packed(arrays: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    """Pack arrays for `unpack` of page.ts, which puts them back into the state."""
    parts = [
        # First the first bytes of all numbers, then the second ones: like beside like packs better.
        np.ascontiguousarray(values).view(np.uint8).reshape(-1, values.itemsize).T.tobytes()
        for values in arrays.values()
    ]
    return {
        "paths": [["cube", "values", name, "data"] for name in arrays],
        "sizes": [values.itemsize for values in arrays.values()],
        "lengths": [len(part) for part in parts],
        "data": base64.b64encode(zlib.compress(b"".join(parts), 9)).decode(),
    }


def _modules(data: Mapping[str, Any]) -> list[str]:
    """Front-end modules that the state names, in the order in which the page must run them."""
    named = {state["model_module"] for state in data["manager_state"]["state"].values()}
    return [name for name in _MODULES if name in named]


def _code(data: Mapping[str, Any]) -> str:
    """Widget manager and modules, in the order in which the page must run them, as one script."""
    manager = _read("qwidgets", __version__, files("qwidgets") / "static" / "page.js")
    modules = [
        f"qwidgetsPage.load({json.dumps(name)}, function (define) {{\n{_module(name)}\n}});"
        for name in _modules(data)
    ]
    start = 'qwidgetsPage.start(document.currentScript.closest(".qw-page"));'
    # In a function of its own, so that two pages in one document do not share names.
    code = "\n".join(["(function () {", manager, *modules, start, "})();"])
    return f"\n{_escape_code(code)}\n"


def _module(name: str) -> str:
    """AMD module of an installed package: it calls the `define` in its scope."""
    places = [Path(folder) / name / "index.js" for folder in jupyter_path("nbextensions")]
    place = next((place for place in places if place.is_file()), places[-1])
    return _read(name, metadata.version(name), place)


def _read(package: str, version: str, file: Traversable) -> str:
    if not file.is_file():
        message = (
            f"front end of {package} {version} is missing: there is no {file};"
            f" install it again with 'pip install --force-reinstall {package}=={version}',"
            " in a source tree of qwidgets with 'make install'."
        )
        raise FileNotFoundError(message)
    # The maps are not in the page, so nothing may ask for them.
    return re.sub(r"^//# sourceMappingURL=.*", "", file.read_text("utf-8"), flags=re.MULTILINE)


def _page(data: Mapping[str, Any], code: str, caption: _Caption, footer: str) -> str:
    heading = data["heading"]
    name = caption.title
    if name is None:
        name = f"{heading['title']}: {heading['subtitle']}"
    (view,) = data["view_specs"]
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY.format(digest=digest)}">
<meta http-equiv="x-dns-prefetch-control" content="off">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<meta name="generator" content="qwidgets {escape(__version__)}">
<title>{_words(name)}</title>
<style>{_STYLE}</style>
<noscript><style>.qw-loading {{ display: none; }}</style></noscript>
</head>
<body class="qw-standalone">
<div class="qw-page">
{caption.head}
<main>
<p class="qw-loading">Loading the plots …</p>
<noscript><p>The plots are drawn by scripts in this file: allow scripts to see them.</p></noscript>
</main>
{caption.body}
<footer>
{footer}
</footer>
<script type="application/vnd.jupyter.widget-view+json">{_json(view)}</script>
<script type="application/vnd.jupyter.widget-state+json">{_json(data["manager_state"])}</script>
<script>{code}</script>
</div>
</body>
</html>
"""


def _frame(page: str, title: str) -> str:
    """Carry a page in an element of another one."""
    # Within quotes these two are all that must be escaped.
    carried = page.replace("&", "&amp;").replace('"', "&quot;")
    style = "width: 100%; height: 960px; border: 0; resize: vertical;"
    return (
        f'<iframe title="{_words(title)}" sandbox="{_SANDBOX}" loading="lazy" style="{style}"'
        f' srcdoc="{carried}"></iframe>\n'
    )


def _footer(sweep: Sweep | Measurement, note: str, modules: Sequence[str]) -> str:
    """Say what was trained and measured, and with what, so that it can be done again."""
    from qwidgets.sweep import Sweep

    attributes = sweep.dataset.attrs
    stopped, summary, again = "", "Configuration", ""
    if isinstance(sweep, Sweep):
        done, planned = int(sweep.dataset.epoch[-1]), sweep.settings.epochs
        stopped = "" if sweep.complete else f"Stopped after {done} of {planned} epochs."
        summary = "Configuration, and how to make it again"
        again = f"\n<pre>{_words(command(sweep.settings))}</pre>"
    about = " ".join(filter(None, (sources(attributes), stopped, note)))
    drawn = ", ".join(f"{name} {metadata.version(name)}" for name in modules)
    listed = "\n".join(
        f"<dt>{_words(key.replace('_', ' '))}</dt><dd>{_words(_listed(value))}</dd>"
        for key, value in attributes.items()
        if key not in ("versions", "seed", "data", "data_checksum")
    )
    return f"""<p>{_words(about)}</p>
<details><summary>{summary}</summary>
<dl>
{listed}
</dl>{again}
</details>
<p>Printed numbers are within 1 part in 16 million of the sweep's, far below half of their last
digit; the packets that are drawn, within 1 in 2000. Drawn with qwidgets {escape(__version__)},
{_words(drawn)}.</p>"""


def _listed(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _words(value: str) -> str:
    """Make any text the content of an element or of a quoted attribute."""
    return escape(_sound(value))


def _sound(value: str) -> str:
    """Replace what a file cannot hold: halves of surrogate pairs, and the null character."""
    return _UNSOUND.sub("\ufffd", value)


def _json(value: object) -> str:
    # JSON has `<` only in strings. NaN would be no JSON, and a page that does not start.
    return json.dumps(value, allow_nan=False).replace("<", "\\u003c")


def _escape_code(script: str) -> str:
    """Keep code from ending its own element; both occur in strings, patterns and comments only."""
    return re.sub(r"<(?=/script|!--)", r"\\x3c", script, flags=re.IGNORECASE)
