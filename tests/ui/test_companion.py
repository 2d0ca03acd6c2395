"""The companion page as a person meets it: a file, a browser, and no network at all."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import nbformat
import numpy as np
import pytest
from nbconvert import HTMLExporter
from playwright.sync_api import expect

import qwidgets as qw
from qwidgets import companion

from .view import EPOCHS, MOVED, Saved, View, assert_readout, drag, significant, wait_moved

if TYPE_CHECKING:
    from .conftest import OpenNotebook, OpenOffline
    from .lab import OfflinePage

HOSTILE = "</script><script>window.broken = 1</script><b>&amp;"
TITLE = f"{HOSTILE} in the title"


def brightness(view: View, selector: str) -> float:
    color: str = view.page.locator(selector).first.evaluate(
        "element => getComputedStyle(element).backgroundColor"
    )
    red, green, blue = (float(part) for part in re.findall(r"[\d.]+", color)[:3])
    return (red + green + blue) / 3


def test_all_is_drawn(view: View, saved: Saved) -> None:
    dots = {
        name: len(json.loads(marks)[0])
        for name, marks in view.geometry().items()
        if name.startswith(("plane", "tradeoff"))
        and name.endswith(("networks", "reference", "now"))
    }
    networks = 6
    assert dots == {
        "plane_networks": networks,
        "plane_reference": 1,
        "plane_now": 1,
        "tradeoff_networks": networks,
        "tradeoff_reference": 1,
        "tradeoff_now": 1,
    }
    for panel in ("plane", "tradeoff", "curves", "robustness", "phase-space"):
        box = view.root.locator(f".qw-{panel} svg").last.bounding_box()
        assert box is not None
        assert min(box["width"], box["height"]) > 200
    colors = view.root.locator(".qw-phase-body canvas").evaluate(
        "c => new Set(new Uint32Array("
        "c.getContext('2d').getImageData(0, 0, c.width, c.height).data.buffer)).size"
    )
    assert colors > 30
    assert_readout(view, saved.sweep)


def test_the_words_around_the_plots(view: View) -> None:
    expect(view.status).to_have_text("6 trained networks")
    for button in ("pause", "cancel", "train"):
        expect(view.root.locator(f".qw-{button}")).to_be_hidden()
    expect(view.root.locator(".qw-progress")).to_be_hidden()
    expect(view.page.locator(".qw-loading")).to_be_hidden()
    expect(view.page.locator("footer")).to_contain_text("seed 0")
    expect(view.page.locator("footer dl")).to_be_hidden()
    view.page.locator("footer summary").click()
    expect(view.page.locator("footer dl")).to_be_visible()
    expect(view.page.locator("footer pre")).to_contain_text("sweep = qw.sweep(")
    assert view.page.title().startswith("Uncertainty of a neural network")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axes_can_be_read(view: View, scheme: str) -> None:
    view.page.emulate_media(color_scheme=scheme)
    for panel in ("plane", "tradeoff", "curves", "robustness"):
        texts = view.root.locator(f".qw-{panel} .axis text")
        assert texts.count() > 6
        fills = texts.evaluate_all("texts => texts.map(text => getComputedStyle(text).fill)")
        muted = {"light": "rgb(86, 97, 110)", "dark": "rgb(167, 177, 188)"}[scheme]
        assert set(fills) == {muted}


@pytest.mark.parametrize(
    ("name", "key", "presses", "value"),
    [
        ("epsilon", "ArrowRight", 4, 0.1),
        ("epsilon", "End", 1, 0.2),
        ("regularization", "ArrowRight", 4, 0.3),
        ("attack_epsilon", "ArrowRight", 4, 0.15),
        ("epoch", "ArrowLeft", EPOCHS - 1, 1),
    ],
)
def test_keys_on_a_slider_move_its_marks_and_the_readout(
    view: View,
    saved: Saved,
    name: str,
    key: str,
    presses: int,
    value: float,
) -> None:
    before = view.geometry()
    for _ in range(presses):
        view.slider(name).press(key)
    assert_readout(view, saved.sweep, **{name: value})
    wait_moved(view, before, MOVED[name])


@pytest.mark.parametrize(
    ("name", "fraction", "value"),
    [
        ("epsilon", 0.5, 0.1),
        ("regularization", 1.0, 0.3),
        ("attack_epsilon", 0.8, 0.15),
        ("epoch", 0.34, 1),
    ],
)
def test_dragging_a_slider_moves_its_marks_and_the_readout(
    view: View,
    saved: Saved,
    name: str,
    fraction: float,
    value: float,
) -> None:
    before = view.geometry()
    drag(view, name, fraction)
    assert_readout(view, saved.sweep, **{name: value})
    wait_moved(view, before, MOVED[name])


def test_another_class_shows_its_packets(view: View, saved: Saved) -> None:
    before = view.geometry()
    for _ in range(3):
        view.select.press("ArrowDown")
    expect(view.readout("label")).to_have_text("3")
    wait_moved(view, before, MOVED["label"])
    assert_readout(view, saved.sweep, label=3)


def test_play_runs_to_the_last_epoch(view: View) -> None:
    view.root.locator(".qw-play").click()
    expect(view.readout("epoch")).to_have_text("1")
    expect(view.readout("epoch")).to_have_text(str(EPOCHS))


def test_between_networks_the_words_say_so(view: View, saved: Saved) -> None:
    view.slider("epsilon").press("ArrowRight")
    expect(view.readout("kind")).to_have_text(re.compile("^interpolated"))
    a, b = saved.sweep.dataset.momentum_std.isel(epoch=-1, label=0, regularization=0).values[:2]
    between = significant(0.75 * a + 0.25 * b)
    expect(view.readout("momentum")).to_have_text(re.compile(f"^{between} ± "))
    for panel in ("plane", "tradeoff"):
        assert view.now_fill(panel) in {"none", "rgba(0, 0, 0, 0)"}


# Where the Wigner function is zero its picture has the colour of the panel behind.
PHASE_ON_PANEL = """() => {
  const canvas = document.querySelector('.qw-phase-body canvas');
  const corner = [...canvas.getContext('2d').getImageData(0, 0, 1, 1).data].slice(0, 3);
  const panel = getComputedStyle(document.querySelector('.qw-panel')).backgroundColor;
  return panel === `rgb(${corner.join(', ')})`;
}"""


def test_it_follows_the_colour_scheme(view: View) -> None:
    for scheme, bright in (("light", True), ("dark", False), ("light", True)):
        view.page.emulate_media(color_scheme=scheme)
        # Only the colours of the phase space are painted by us; the rest is the style sheet's.
        view.page.wait_for_function(PHASE_ON_PANEL)
        for selector in ("body", ".qw-panel"):
            assert brightness(view, selector) > 240 if bright else brightness(view, selector) < 40


@pytest.mark.parametrize("width", [420, 900, 1900])
def test_it_fits_the_window(view: View, width: int) -> None:
    view.page.set_viewport_size({"width": width, "height": 1000})
    for panel in ("plane", "tradeoff", "curves", "robustness"):
        view.root.locator(f".qw-{panel}").scroll_into_view_if_needed()
        view.page.wait_for_function(
            "panel => { const figure = document.querySelector(`.qw-${panel} .qw-figure`);"
            " const area = figure.querySelector('rect.plotarea_events');"
            " return area.getBoundingClientRect().right < figure.getBoundingClientRect().right"
            " && area.getBoundingClientRect().width > figure.clientWidth / 2; }",
            arg=panel,
        )
    page = view.page.locator("html")
    assert page.evaluate("html => html.scrollWidth <= html.clientWidth")


def test_an_explorers_choices_and_a_hostile_title(
    saved: Saved,
    offline_page: OpenOffline,
    tmp_path: Path,
) -> None:
    explorer = qw.Explorer(saved.sweep)
    explorer.epsilon, explorer.regularization, explorer.label, explorer.epoch = 0.1, 0.3, 4, 2
    opened = offline_page(qw.export_html(explorer, tmp_path / "page.html", title=TITLE))
    explorer.close()
    view = View(opened.page.locator(".qw-root"))
    view.wait_drawn()
    assert_readout(view, saved.sweep, epsilon=0.1, regularization=0.3, label=4, epoch=2)
    expect(view.slider("epsilon")).to_have_value("1")
    expect(opened.page.locator("h1")).to_have_text(TITLE)
    assert opened.page.title() == TITLE
    assert opened.page.evaluate("window.broken") is None
    assert opened.requests == []
    assert opened.errors == []


OTHER_BQPLOT = os.environ.get("QWIDGETS_OTHER_BQPLOT", "")


@pytest.mark.skipif(
    not OTHER_BQPLOT,
    reason="install one with: pip install --no-deps --target DIR bqplot==0.12.47, and name it: "
    "QWIDGETS_OTHER_BQPLOT=DIR",
)
def test_a_page_made_with_another_bqplot(
    saved: Saved, offline_page: OpenOffline, tmp_path: Path
) -> None:
    place = tmp_path / "other.html"
    program = (
        "import sys, bqplot, qwidgets as qw; assert bqplot.__file__.startswith(sys.argv[3]);"
        " qw.export_html(qw.open_sweep(sys.argv[1]), sys.argv[2]); print(bqplot.__version__)"
    )
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, [OTHER_BQPLOT, os.environ.get("PYTHONPATH")])),
        "JUPYTER_PATH": str(Path(OTHER_BQPLOT) / "share" / "jupyter"),
    }
    arguments = [sys.executable, "-c", program, str(saved.path), str(place), OTHER_BQPLOT]
    made = subprocess.run(arguments, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    opened = offline_page(place)
    view = View(opened.page.locator(".qw-root"))
    view.wait_drawn()
    expect(opened.page.locator("footer")).to_contain_text(f"bqplot {made.stdout.strip()}")
    assert_readout(view, saved.sweep)
    for name in ("epsilon", "regularization"):
        before = view.geometry()
        view.slider(name).press("End")
        wait_moved(view, before, MOVED[name])
    assert_readout(view, saved.sweep, epsilon=0.2, regularization=0.3)
    before = view.geometry()
    view.slider("epoch").press("Home")
    wait_moved(view, before, MOVED["epoch"])
    assert_readout(view, saved.sweep, epsilon=0.2, regularization=0.3, epoch=0)
    view.root.locator(".qw-play").click()
    expect(view.readout("epoch")).to_have_text(str(EPOCHS))
    assert opened.requests == []
    assert opened.errors == []


# What a person says, in every field that takes words.

FIELDS = ("title", "authors", "text", "data", "class")
WORDS = {
    "end of a script": "</script><script>window.broken = 1</script>",
    "quotes": "\"'`><img src=x onerror='window.broken = 1'>&amp;&#60;b&#62;",
    "comment": "<!--<script>--> ]]> </style></title></textarea></select>",
    "direction": "\u202etfel ot thgir\u202c \u2066isolate \u200f\u061c",
    "long": "n" * 10_000,
    "controls": "a \x01\x1b[31m\x7f b",
}


@pytest.mark.parametrize("words", WORDS.values(), ids=WORDS.keys())
def test_hostile_words_in_every_field_are_shown(
    words: str, offline_page: OpenOffline, tmp_path: Path
) -> None:
    said = {field: f"{field} {words}" for field in FIELDS}
    rng = np.random.default_rng(0)
    inputs = rng.uniform(size=(90, 2))
    data = qw.Dataset.from_arrays(
        inputs,
        (inputs[:, 0] > inputs[:, 1]).astype(int),
        name=said["data"],
        class_names=[said["class"], "other"],
    )
    sweep = qw.sweep(
        data=data,
        epsilon=[0, 0.1],
        regularization=[0, 0.3],
        attack_epsilon=[0, 0.1],
        epochs=1,
        attack_steps=1,
        probe_images=1,
        width=0.2,
        progress=False,
    )
    # In Markdown a backslash makes each sign the sign itself.
    escaped = re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", said["text"])
    path = qw.export_html(
        sweep,
        tmp_path / "page.html",
        title=said["title"],
        authors=[said["authors"], "other"],
        text=escaped,
    )
    opened = offline_page(path)
    view = View(opened.page.locator(".qw-root"))
    view.wait_drawn()
    page = opened.page
    shown = {
        "title": page.locator("h1"),
        "authors": page.locator(".qw-caption bdi").first,
        "text": page.locator(".qw-text"),
        "class": view.select.locator("option").first,
    }
    for field, element in shown.items():
        found = element.evaluate("element => element.textContent").strip()
        assert found == said[field].strip()
    expect(view.readout("label")).to_have_text(said["class"])
    # The line that the name of the data begins is not turned by it.
    subtitle = view.root.locator(".qw-subtitle")
    expect(subtitle).to_contain_text("· mlp 128-128 · 2 × 2 networks")
    expect(subtitle).to_contain_text(
        re.sub("[\u200f\u061c\u202a-\u202e\u2066-\u2069]", "", words)[:9]
    )
    # Nothing broke out of its place: no element, no script, and no line wider than the window.
    assert page.evaluate("window.broken") is None
    assert page.locator("img, b >> nth=100").count() == 0
    assert page.locator("script").count() == 3
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.locator("footer summary").click()
    expect(page.locator("footer pre")).to_contain_text("data=data,  # your own, named ")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert opened.requests == []
    assert opened.errors == []


def test_equations_are_drawn_without_a_network(
    saved: Saved, offline_page: OpenOffline, tmp_path: Path
) -> None:
    text = "With $\\hat\\psi$ and\n\n$$\\sigma_x \\sigma_p \\ge \\frac{1}{2}$$"
    opened = offline_page(qw.export_html(saved.sweep, tmp_path / "page.html", text=text))
    block = opened.page.locator("math[display=block]")
    fraction = block.locator("mfrac")
    over, under = (fraction.locator("mn").nth(i).bounding_box() for i in (0, 1))
    assert over is not None
    assert under is not None
    # Drawn as a fraction: one number stands above the other.
    assert over["y"] + over["height"] <= under["y"] + 1
    assert abs(over["x"] - under["x"]) < 3
    assert opened.requests == []
    assert opened.errors == []


def test_the_policy_forbids_the_network_and_other_scripts(opened: OfflinePage) -> None:
    page = opened.page
    page.evaluate(
        "addEventListener('securitypolicyviolation', e => (window.refused ??= []).push("
        "e.effectiveDirective))"
    )
    page.evaluate(
        """() => {
          const add = (tag, set) => document.body.append(Object.assign(
            document.createElement(tag), set));
          add('img', {src: 'https://example.org/x.png'});
          add('script', {src: 'https://example.org/x.js'});
          add('script', {textContent: 'window.broken = 1'});
          add('iframe', {src: 'https://example.org/'});
          add('link', {rel: 'stylesheet', href: 'https://example.org/x.css'});
          fetch('https://example.org/').catch(() => undefined);
          new Image().src = 'file:///etc/hostname';
          const trap = '<p onclick="window.broken = 1" id="trap">x</p>';
          document.body.insertAdjacentHTML('beforeend', trap);
          document.getElementById('trap').click();
        }"""
    )
    page.wait_for_function("(window.refused ?? []).length >= 8")
    refused = set(page.evaluate("window.refused"))
    assert {"img-src", "frame-src", "connect-src"} <= refused
    assert {"script-src-elem", "script-src-attr", "style-src-elem"} <= refused
    assert page.evaluate("window.broken") is None
    # Not even asked for.
    assert opened.requests == []


# Pages in pages


def two_frames(first: str, second: str) -> str:
    return f"<!DOCTYPE html><title>two</title>{first}{second}"


@pytest.mark.parametrize("kind", ["files", "blocks"])
def test_two_in_one_page_do_not_clash(
    kind: str, saved: Saved, offline_page: OpenOffline, tmp_path: Path
) -> None:
    if kind == "files":
        frames = []
        for name in ("a", "b"):
            qw.export_html(saved.sweep, tmp_path / f"{name}.html", title=name)
            frames.append(f'<iframe src="{name}.html" width="1300" height="900"></iframe>')
    else:
        frames = [qw.export_html(saved.sweep, title=name, embed=True).html for name in ("a", "b")]
    place = tmp_path / "both.html"
    place.write_text(two_frames(*frames), "utf-8")
    opened = offline_page(place)
    views = []
    for index in range(2):
        opened.page.locator("iframe").nth(index).scroll_into_view_if_needed()
        handle = opened.page.locator("iframe").nth(index).element_handle()
        assert handle is not None
        frame = handle.content_frame()
        assert frame is not None
        view = View(frame.locator(".qw-root"))
        view.wait_drawn()
        expect(frame.locator("h1")).to_have_text("ab"[index])
        views.append(view)
    first, second = views
    first.slider("epsilon").press("End")
    expect(first.readout("epsilon")).to_have_text("0.20")
    expect(second.readout("epsilon")).to_have_text("0.00")
    second.slider("epoch").press("Home")
    assert_readout(second, saved.sweep, epoch=0)
    assert_readout(first, saved.sweep, epsilon=0.2)
    assert opened.requests == []
    assert opened.errors == []


def test_a_block_lives_on_in_a_converted_notebook(
    saved: Saved, offline_page: OpenOffline, tmp_path: Path
) -> None:
    block = qw.export_html(saved.sweep, embed=True, title="in a notebook")
    output = nbformat.v4.new_output("display_data", {"text/html": block._repr_html_()})
    cell = nbformat.v4.new_code_cell("block", outputs=[output], execution_count=1)
    notebook = nbformat.v4.new_notebook(cells=[cell])
    page, _ = HTMLExporter(mathjax_url="", require_js_url="").from_notebook_node(notebook)
    place = tmp_path / "notebook.html"
    place.write_text(page, "utf-8")
    opened = offline_page(place)
    handle = opened.page.locator("iframe").element_handle()
    assert handle is not None
    frame = handle.content_frame()
    assert frame is not None
    view = View(frame.locator(".qw-root"))
    view.wait_drawn()
    view.slider("epsilon").press("End")
    assert_readout(view, saved.sweep, epsilon=0.2)
    expect(frame.locator("h1")).to_have_text("in a notebook")


def test_a_block_is_shown_by_a_cell(saved: Saved, open_notebook: OpenNotebook) -> None:
    notebook = open_notebook(
        f"import qwidgets as qw; qw.export_html(qw.open_sweep({str(saved.path)!r}), embed=True)"
    )
    notebook.run()
    handle = notebook.cell(0).locator("iframe").element_handle()
    assert handle is not None
    frame = handle.content_frame()
    assert frame is not None
    view = View(frame.locator(".qw-root"))
    view.wait_drawn()
    view.slider("epsilon").press("End")
    assert_readout(view, saved.sweep, epsilon=0.2)


def test_a_thinned_page_names_its_epochs(
    saved: Saved, offline_page: OpenOffline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The last epoch is the sweep's own; those before are its first, over and over.
    epochs = [0, *[1] * 39, EPOCHS]
    dataset = saved.sweep.dataset.isel(epoch=epochs).assign_coords(epoch=range(41))
    settings = dataclasses.replace(saved.sweep.settings, epochs=40)
    monkeypatch.setattr(companion, "_MOST", 11 * 14_000)
    with pytest.warns(UserWarning, match="of 40 epochs, evenly spaced"):
        path = qw.export_html(qw.Sweep(dataset, settings, {}, None), tmp_path / "page.html")
    opened = offline_page(path)
    view = View(opened.page.locator(".qw-root"))
    view.wait_drawn()
    expect(view.readout("epoch")).to_have_text("40")
    expect(view.value("epoch")).to_have_text("40")
    expect(view.slider("epoch")).to_have_attribute("aria-valuetext", "40")
    momentum = significant(float(saved.sweep.dataset.momentum_std[0, 0, EPOCHS, 0]))
    expect(view.readout("momentum")).to_have_text(re.compile(f"^{momentum} ± "))
    view.slider("epoch").press("ArrowLeft")
    before = int(view.readout("epoch").inner_text())
    assert 30 < before < 40
    expect(view.slider("epoch")).to_have_attribute("aria-valuetext", str(before))
    view.slider("epoch").press("Home")
    expect(view.readout("kind")).to_have_text("untrained network")
    expect(opened.page.locator("footer")).to_contain_text("of 40 epochs")
    assert opened.requests == []
    assert opened.errors == []


def test_a_figure_says_what_the_page_says(view: View, saved: Saved) -> None:
    # Between networks too: 0.025 is a quarter of the way to 0.1, and 0.1125 of that to 0.15.
    view.slider("epsilon").press("ArrowRight")
    view.slider("attack_epsilon").press("ArrowRight")
    view.select.select_option("3")
    drawn = qw.figure(saved.sweep, "all", epsilon=0.025, label="3", attack_epsilon=0.1125)
    for name, sign in (("position", "σx"), ("momentum", "σp")):
        assert f"{sign} = {view.readout(name).inner_text()}" in drawn.caption
    product, _, _ = view.readout("product").inner_text().partition(" (")
    assert f"σxσp = {product} ± " in drawn.caption
    assert f"clean accuracy {view.readout('clean').inner_text()}" in drawn.caption
    robust, _, at = view.readout("robust").inner_text().partition(" at ")
    assert f"robust accuracy {robust} at attack radius {at}" in drawn.caption
    assert "Interpolated between trained networks" in drawn.caption
