"""The companion page as a person meets it: a file, a browser, and no network at all."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

import qwidgets as qw

from .view import EPOCHS, MOVED, Saved, View, assert_readout, drag, significant, wait_moved

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .conftest import OpenOffline
    from .lab import OfflinePage

HOSTILE = "</script><script>window.broken = 1</script><b>&amp;"
TALL = {"width": 1400, "height": 1000}


@pytest.fixture(scope="module")
def file(saved: Saved, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return qw.export_html(saved.sweep, tmp_path_factory.mktemp("page") / "page.html")


@pytest.fixture
def opened(file: Path, offline_page: OpenOffline) -> OfflinePage:
    return offline_page(file, viewport=TALL)


@pytest.fixture
def view(opened: OfflinePage) -> Iterator[View]:
    """The page, drawn; whatever a test does with it, it asks for nothing."""
    shown = View(opened.page.locator(".qw-root"))
    shown.wait_drawn()
    yield shown
    assert opened.requests == []
    assert opened.errors == []


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
    opened = offline_page(qw.export_html(explorer, tmp_path / "page.html", title=HOSTILE))
    explorer.close()
    view = View(opened.page.locator(".qw-root"))
    view.wait_drawn()
    assert_readout(view, saved.sweep, epsilon=0.1, regularization=0.3, label=4, epoch=2)
    expect(view.slider("epsilon")).to_have_value("1")
    expect(view.root.locator("h2")).to_have_text(HOSTILE)
    assert opened.page.title() == HOSTILE
    assert opened.page.evaluate("window.broken") is None
    assert opened.requests == []
    assert opened.errors == []
