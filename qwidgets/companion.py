"""The companion page: an Explorer as one HTML file that needs no kernel, server or network."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from contextlib import closing
from html import escape
from importlib import metadata
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ipywidgets.embed import dependency_state, embed_data
from jupyter_core.paths import jupyter_path

from qwidgets import __version__
from qwidgets.files import check_place, write_whole
from qwidgets.widgets.explorer import Explorer

if TYPE_CHECKING:
    from collections.abc import Mapping
    from importlib.resources.abc import Traversable
    from os import PathLike

    from qwidgets.sweep import Sweep

# The modules that the state of an Explorer names; page.js brings ipywidgets' own.
_MODULES = ("bqscales", "bqplot", "anywidget")

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
main, footer { max-width: 1320px; margin: 0 auto; }
main { min-height: 240px; }
.qw-loading { padding: 100px 0; text-align: center; }
footer { padding-top: 10px; font-size: 12px; overflow-wrap: anywhere; }
footer p { margin: 0 0 4px; }
footer summary { cursor: pointer; }
footer dl { display: grid; grid-template-columns: max-content 1fr; gap: 0 14px; margin: 6px 0; }
footer dd { margin: 0; }
@media (prefers-color-scheme: dark) {
  body.qw-standalone { background: #111418; color: #a7b1bc; }
}
"""


def export_html(
    sweep_or_explorer: Sweep | Explorer,
    path: str | PathLike[str],
    *,
    title: str | None = None,
) -> Path:
    """Write the Explorer as one HTML file that works from disk with the network off.

    The page holds all finished epochs and the whole front end; its sliders, class menu and epoch
    player do what they do in a notebook. The file appears whole or not at all.

    Parameters
    ----------
    sweep_or_explorer : Sweep or Explorer
        What to show. Of an Explorer the current choices are kept; one that still trains is written
        with what is finished, and goes on training.
    path : path
        The file to write; its folder must exist. A file of that name is replaced.
    title : str, optional
        Heading and window title of the page; default: the Explorer's own.

    Returns
    -------
    pathlib.Path
        The file.

    Raises
    ------
    TypeError
        An argument is of the wrong kind.
    ValueError
        The Explorer has nothing finished yet.
    FileNotFoundError
        A part of the front end is not installed.
    OSError
        The path cannot be written.
    """
    _check_title(title)
    sweep = _sweep_of(sweep_or_explorer)
    place = check_place(path, "explorer.html")
    code = _escape_code(_code())
    if isinstance(sweep_or_explorer, Explorer):
        data = _embed(sweep_or_explorer, title)
    else:
        with closing(Explorer(sweep)) as explorer:
            data = _embed(explorer, title)
    write_whole(place, _page(data, code, title, sweep.dataset.attrs))
    return place


def _check_title(title: object) -> None:
    if not (title is None or isinstance(title, str)):
        message = f"title must be a str, or None for the Explorer's own heading; got {title!r}."
        raise TypeError(message)


def _sweep_of(source: object) -> Sweep:
    if isinstance(source, Explorer):
        if source.sweep is None:
            message = (
                "sweep_or_explorer must hold at least one finished epoch, but this Explorer has"
                " none yet; wait for the first, or for all with explorer.wait()."
            )
            raise ValueError(message)
        return source.sweep
    from qwidgets.sweep import Sweep

    if not isinstance(source, Sweep):
        message = (
            "sweep_or_explorer must be a Sweep, from qwidgets.sweep(...) or"
            f" qwidgets.open_sweep(path), or a qwidgets.Explorer; got {type(source).__name__}."
        )
        raise TypeError(message)
    return source


def _embed(explorer: Explorer, title: str | None) -> dict[str, Any]:
    """State of this Explorer and of all that it refers to, as the widget manager reads it."""
    # With the defaults, because the front end's module itself is one.
    states = dependency_state([explorer], drop_defaults=False)
    state = states[explorer.model_id]["state"]
    # Epochs may be added while the state is read: what is shown must be one of those in it.
    last = state["cube"]["finished"] - 1
    state["epoch"] = min(state["epoch"], last)
    if state["run"]["phase"] != "done":
        # Nothing can be trained, paused or cancelled from a page.
        message = f"{last} trained epoch{'' if last == 1 else 's'}"
        state["run"] = {"phase": "done", "fraction": 1.0, "message": message}
    if title is not None:
        state["heading"] = {**state["heading"], "title": title}
    data: dict[str, Any] = embed_data(views=[explorer], drop_defaults=False, state=states)
    return {**data, "heading": state["heading"]}


def _code() -> str:
    """Widget manager and modules, in the order in which the page must run them, as one script."""
    manager = _read("qwidgets", __version__, files("qwidgets") / "static" / "page.js")
    modules = [
        f"qwidgetsPage.load({json.dumps(name)}, function (define) {{\n{_module(name)}\n}});"
        for name in _MODULES
    ]
    start = 'qwidgetsPage.start(document.currentScript.closest(".qw-page"));'
    # In a function of its own, so that two pages in one document do not share names.
    return "\n".join(["(function () {", manager, *modules, start, "})();"])


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


def _page(
    data: Mapping[str, Any], code: str, title: str | None, attributes: Mapping[str, Any]
) -> str:
    heading = data["heading"]
    name = f"{heading['title']}: {heading['subtitle']}" if title is None else title
    (view,) = data["view_specs"]
    code = f"\n{code}\n"
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY.format(digest=digest)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="qwidgets {escape(__version__)}">
<title>{escape(name)}</title>
<style>{_STYLE}</style>
<noscript><style>.qw-loading {{ display: none; }}</style></noscript>
</head>
<body class="qw-standalone">
<div class="qw-page">
<main>
<p class="qw-loading">Loading the plots …</p>
<noscript><p>The plots are drawn by scripts in this file: allow scripts to see them.</p></noscript>
</main>
<footer>
{_provenance(attributes)}
</footer>
<script type="application/vnd.jupyter.widget-view+json">{_json(view)}</script>
<script type="application/vnd.jupyter.widget-state+json">{_json(data["manager_state"])}</script>
<script>{code}</script>
</div>
</body>
</html>
"""


def _provenance(attributes: Mapping[str, Any]) -> str:
    """Say what was trained and measured, and with what, so that it can be done again."""
    versions = ", ".join(f"{name} {version}" for name, version in attributes["versions"].items())
    first = f"Made with {versions}; seed {attributes['seed']}."
    second = f"Data: {attributes['data']}, checksum {attributes['data_checksum']}."
    listed = "\n".join(
        f"<dt>{escape(key.replace('_', ' '))}</dt><dd>{escape(_words(value))}</dd>"
        for key, value in attributes.items()
        if key not in ("versions", "seed", "data", "data_checksum")
    )
    return f"""<p>{escape(first)} {escape(second)}</p>
<details><summary>Configuration</summary>
<dl>
{listed}
</dl>
</details>"""


def _words(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _json(value: object) -> str:
    # JSON has `<` only in strings. NaN would be no JSON, and a page that does not start.
    return json.dumps(value, allow_nan=False).replace("<", "\\u003c")


def _escape_code(script: str) -> str:
    """Keep code from ending its own element; both occur in strings, patterns and comments only."""
    return re.sub(r"<(?=/script|!--)", r"\\x3c", script, flags=re.IGNORECASE)
