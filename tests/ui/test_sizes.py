"""Widths from 700 to 2000 pixels: no text is cut, nothing lies over anything, nothing scrolls."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from .view import View, first_view, show

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Page, ViewportSize

    from .conftest import OpenOffline
    from .lab import Lab, Notebook
    from .view import Saved

WIDTHS = [700, 800, 1000, 1200, 1600, 2000]
# Words that are cut off or broken out of their place, heads that need more than their lines, and
# words over others. A menu is as wide as its longest choice needs with the font it has.
FAULTS = """
root => {
  const faults = [];
  const name = (e) => `${e.localName}.${e.getAttribute('class') ?? ''} "${e.textContent}"`;
  const shown = (e) => e.checkVisibility({visibilityProperty: true, opacityProperty: true});
  const words = [...root.querySelectorAll(
    'h2, h3, label, button, summary, li, output, p, b, figcaption, .qw-note, .qw-subtitle,'
    + ' .qw-status, .qw-readout > span, .qw-lens-which, .qw-lens-scale span')].filter(shown);
  for (const element of words) {
    if (element.scrollWidth > element.clientWidth + 1 && element.clientWidth)
      faults.push(`cut: ${name(element)} ${element.scrollWidth} > ${element.clientWidth}`);
  }
  const pen = document.createElement('canvas').getContext('2d');
  for (const select of [...root.querySelectorAll('select')].filter(shown)) {
    const style = getComputedStyle(select);
    pen.font = style.font;
    const needed = Math.max(...[...select.options].map(({text}) => pen.measureText(text).width));
    const padding = parseFloat(style.paddingLeft) + parseFloat(style.paddingRight);
    const room = select.clientWidth - padding;
    // Beside its words a menu shows an arrow.
    if (needed > room - 14) faults.push(`cut: menu ${name(select)} ${needed} > ${room} - 14`);
  }
  for (const head of [...root.querySelectorAll('.qw-panel-head')].filter(shown)) {
    const bottom = Math.max(...[...head.children].map((e) => e.getBoundingClientRect().bottom));
    if (bottom > head.getBoundingClientRect().bottom + 1) faults.push(`too low: ${name(head)}`);
  }
  for (const head of [...root.querySelectorAll('.qw-control-head')].filter(shown)) {
    const right = head.getBoundingClientRect().right;
    for (const part of head.children) {
      const box = part.getBoundingClientRect();
      if (box.height > head.clientHeight || box.right > right + 1)
        faults.push(`cut: ${name(part)}`);
    }
  }
  // A line of the readout holds more than one left-over value, but on half a window.
  const lines = Map.groupBy([...root.querySelectorAll('.qw-readout > span')].filter(shown),
    (e) => Math.round(e.getBoundingClientRect().top));
  for (const line of lines.values()) {
    if (line.length === 1 && root.clientWidth > 640) faults.push(`alone: ${name(line[0])}`);
  }
  const places = words.filter((e) => !e.closest('.qw-lens-classes') && e.textContent.trim())
    .map((e) => {
      const range = document.createRange();
      range.selectNodeContents(e);
      return [e, range.getBoundingClientRect()];
    });
  for (const [i, [a, p]] of places.entries()) {
    for (const [b, q] of places.slice(i + 1)) {
      if (a.contains(b) || b.contains(a)) continue;
      const wide = Math.min(p.right, q.right) - Math.max(p.left, q.left);
      const high = Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top);
      if (wide > 1 && high > 3) faults.push(`over: ${name(a)} and ${name(b)}`);
    }
  }
  const box = root.getBoundingClientRect();
  for (const panel of root.querySelectorAll('.qw-panel, .qw-controls, .qw-header > *')) {
    if (shown(panel) && panel.getBoundingClientRect().right > box.right + 1)
      faults.push(`outside: ${name(panel).slice(0, 60)}`);
  }
  for (let e = root; e; e = e.parentElement) {
    if (e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).overflowX !== 'visible')
      faults.push(`scrolls: ${name(e).slice(0, 60)} ${e.scrollWidth} > ${e.clientWidth}`);
  }
  return faults;
}
"""
# The heads of panels that stand side by side leave their figures at one height.
ROWS = """
root => [...root.querySelectorAll('.qw-figure:not(.qw-away), .qw-phase-body')].map(
  (e) => e.getBoundingClientRect().top)
"""


def faults(view: View) -> list[str]:
    # Sizes are told to the figures, which draw anew.
    view.page.wait_for_timeout(300)
    found: list[str] = view.root.evaluate(FAULTS)
    return found


def aligned(view: View) -> bool:
    tops = sorted(view.root.evaluate(ROWS))
    return all(not 1 < after - before < 60 for before, after in pairwise(tops))


def sideways(page: Page) -> bool:
    found: bool = page.evaluate(
        "document.documentElement.scrollWidth > document.documentElement.clientWidth"
    )
    return found


@pytest.fixture
def page_view(file: Path, offline_page: OpenOffline) -> View:
    view = View(offline_page(file).page.locator(".qw-root"))
    view.wait_drawn()
    return view


@pytest.fixture(scope="module")
def notebook(lab: Lab, saved: Saved) -> Iterator[Notebook]:
    with lab.notebook([show(saved.path)]) as running:
        # The notebook alone, as a person who works in it sees it.
        running.page.evaluate("jupyterapp.commands.execute('application:toggle-left-area')")
        running.run(0)
        first_view(running)
        yield running
        assert running.errors == []


def test_the_check_finds_what_is_cut(page_view: View) -> None:
    # The control experiment of the tests below.
    page_view.root.locator(".qw-plane-view").evaluate("select => { select.style.width = '80px'; }")
    page_view.root.locator("h3").first.evaluate("h3 => { h3.style.width = '40px'; }")
    page_view.root.locator(".qw-lens .qw-note").evaluate("e => { e.style.position = 'absolute'; }")
    found = faults(page_view)
    assert any(fault.startswith("cut: menu select.qw-plane-view") for fault in found)
    assert any(fault.startswith("cut: h3") for fault in found)
    assert any(fault.startswith("over: ") for fault in found)


@pytest.mark.parametrize("width", WIDTHS)
def test_a_page_of_any_width(page_view: View, width: int) -> None:
    page_view.page.set_viewport_size({"width": width, "height": 1200})
    assert faults(page_view) == []
    assert aligned(page_view)
    assert not sideways(page_view.page)
    # With the longest words: between the networks, and of the neighbourhood.
    page_view.slider("epsilon").press("ArrowRight")
    expect(page_view.readout("kind")).to_have_text("interpolated between trained networks")
    page_view.root.locator(".qw-plane-view").select_option("class neighbourhood")
    expect(page_view.root.locator(".qw-readout")).to_contain_text("Δx")
    assert faults(page_view) == []


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_a_notebook_of_any_width(notebook: Notebook, width: int, theme: str) -> None:
    notebook.set_theme(theme)  # type: ignore[arg-type]
    notebook.page.set_viewport_size({"width": width, "height": 1200})
    view = first_view(notebook)
    details = view.root.locator(".qw-setup details")
    for opened in (True, False):
        details.evaluate("(details, opened) => { details.open = opened; }", opened)
        assert faults(view) == []
    # While it trains its header says more.
    message = "Refining ε 0.025, λ 0.03: epoch 13 of 20 · 12 min 13 s so far, 45 s left"
    notebook.execute(f"e.on_progress('refining', 0.5, {message!r})")
    expect(view.status).to_have_text(message)
    assert faults(view) == []
    notebook.execute("e.on_progress('done', 1.0, '6 trained networks')")
    expect(view.status).to_have_text("6 trained networks")


# What is in the head, and whether all of it can be seen.
HEAD = """
root => {
  const right = root.getBoundingClientRect().right;
  const parts = [...root.querySelectorAll('.qw-run :is(.qw-progress, .qw-status, button)')]
    .filter((e) => getComputedStyle(e).visibility === 'visible' && e.offsetWidth);
  return {
    cut: parts.filter((e) => e.getBoundingClientRect().right > right + 1).map((e) => e.className),
    status: root.querySelector('.qw-status').clientWidth,
    body: root.querySelector('.qw-body').getBoundingClientRect().top
      - root.getBoundingClientRect().top,
  };
}
"""


def test_the_head_beside_the_files_of_a_small_window(lab: Lab, saved: Saved) -> None:
    viewport: ViewportSize = {"width": 700, "height": 1000}
    with lab.notebook([show(saved.path)], viewport=viewport) as notebook:
        # The notebook has half of the window.
        hidden = "!document.querySelector('#jp-left-stack')?.checkVisibility()"
        if notebook.page.evaluate(hidden):
            notebook.page.evaluate("jupyterapp.commands.execute('application:toggle-left-area')")
        notebook.run(0)
        view = first_view(notebook)
        tops = []
        for phase, message in (
            ("training", "Epoch 13 of 300 · 12 min 13 s so far, 45 min left"),
            ("training", "Epoch 14 of 300"),
            ("paused", "Paused after epoch 14 of 300"),
            ("cancelled", "Cancelled in epoch 15 of 300; 14 epochs are kept"),
            ("done", "6 trained networks"),
        ):
            notebook.execute(f"e.on_progress({phase!r}, 0.5, {message!r})")
            expect(view.status).to_have_text(message)
            head = view.root.evaluate(HEAD)
            assert head["cut"] == [], phase
            assert head["status"] > 300, phase
            assert faults(view) == [], phase
            tops.append(head["body"])
        assert len(set(tops)) == 1
        assert notebook.errors == []


MOONS = """
import qwidgets as qw
e = qw.Explorer(data="moons", epochs=1, epsilon=[0, .1], regularization=[0], train_size=60,
                test_size=60, attack_steps=1, probe_images=1, detail=None, panels=["input_plane"])
e.wait()
e
"""
# Where the panels are, in the frame of their area.
PLACES = """
root => {
  const area = root.querySelector('.qw-panels').getBoundingClientRect();
  const places = [...root.querySelectorAll('.qw-panel')].filter((e) => e.offsetWidth).map((e) => {
    const {left, right, top} = e.getBoundingClientRect();
    return {left: left - area.left, right: area.right - right, top: Math.round(top)};
  });
  const pictures = [...root.querySelectorAll('.qw-lens-picture')].map((e) => e.offsetWidth);
  return {rows: [...Map.groupBy(places, ({top}) => top).values()], widest: Math.max(...pictures)};
}
"""


def test_the_panels_of_a_plane_fill_their_rows(lab: Lab) -> None:
    with lab.notebook([MOONS]) as notebook:
        notebook.run(0)
        view = View(notebook.cell(0).locator(".qw-root"))
        expect(view.root.locator(".qw-input-plane")).to_be_visible(timeout=30_000)
        expect(view.root.locator(".qw-none")).to_be_hidden()
        for panels, columns in (
            (["input_plane", "lens"], 2),
            (["plane", "input_plane", "lens"], 2),
            (["plane", "phase_space", "tradeoff", "input_plane", "lens"], 2),
            (["lens"], 1),
        ):
            notebook.execute(f"e.panels = {panels!r}")
            for width in (700, 1000, 1500, 2000):
                notebook.page.set_viewport_size({"width": width, "height": 1600})
                assert faults(view) == [], (panels, width)
                seen = view.root.evaluate(PLACES)
                for row in seen["rows"]:
                    assert min(place["left"] for place in row) == pytest.approx(0, abs=1)
                    assert min(place["right"] for place in row) == pytest.approx(0, abs=1)
                assert seen["widest"] <= 190
            assert max(map(len, seen["rows"])) == columns
        assert notebook.errors == []


def test_panels_grow_with_the_whole_screen(page_view: View) -> None:
    figure = page_view.root.locator(".qw-plane-attack")
    drawn = figure.locator("rect.plotarea_events")
    small, plot = figure.bounding_box(), drawn.bounding_box()
    assert small is not None
    assert plot is not None
    page_view.page.set_viewport_size({"width": 2000, "height": 1400})
    page_view.root.locator(".qw-full-screen").click()
    page_view.page.wait_for_timeout(500)
    large, grown = figure.bounding_box(), drawn.bounding_box()
    assert large is not None
    assert grown is not None
    # What is drawn takes the room, and two rows of panels fill the screen.
    assert large["height"] > 1.5 * small["height"]
    assert large["height"] - grown["height"] == pytest.approx(small["height"] - plot["height"])
    assert large["width"] - grown["width"] == pytest.approx(small["width"] - plot["width"])
    curves = page_view.root.locator(".qw-robustness").bounding_box()
    assert curves is not None
    assert 1300 < curves["y"] + curves["height"] <= 1400
    map_ = page_view.root.locator(".qw-phase-axes .qw-frame").first.bounding_box()
    assert map_ is not None
    assert map_["height"] > 0.7 * large["height"]
    assert faults(page_view) == []
    page_view.root.locator(".qw-full-screen").click()
    page_view.page.wait_for_timeout(500)
    back = figure.bounding_box()
    assert back is not None
    assert back["height"] == small["height"]
