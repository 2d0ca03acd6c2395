"""Two-dimensional data: the input plane shows what the networks say, and follows the sliders."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import torch
from playwright.sync_api import expect

import qwidgets as qw

from .view import View, drag

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import OpenOffline

TALL = {"width": 1400, "height": 2000}
# The map's pixels, where each attack goes, and the packet's centre, as they are on the page.
SEEN = """
() => {
  const canvas = document.querySelector('.qw-regions-body canvas');
  const lines = [...document.querySelectorAll('line.qw-attack')].map(
    (l) => ['x1', 'y1', 'x2', 'y2'].map((name) => Number(l.getAttribute(name))));
  const centre = document.querySelector('.qw-window-center');
  return {map: canvas.toDataURL(), lines, centre: centre.outerHTML,
    broken: document.querySelectorAll('circle.qw-attack-broken').length};
}
"""


class Moons(NamedTuple):
    sweep: qw.Sweep
    file: Path


@pytest.fixture(scope="module")
def moons(tmp_path_factory: pytest.TempPathFactory) -> Moons:
    sweep = qw.sweep(
        data="moons",
        epsilon=[0, 0.1],
        regularization=[0, 0.1],
        epochs=4,
        train_size=400,
        attack_steps=3,
        progress=False,
    )
    return Moons(sweep, qw.export_html(sweep, tmp_path_factory.mktemp("moons") / "moons.html"))


@pytest.fixture
def view(moons: Moons, offline_page: OpenOffline) -> View:
    opened = offline_page(moons.file, viewport=TALL)
    view = View(opened.page.locator(".qw-root"))
    view.wait_drawn()
    expect(view.root.locator(".qw-input-plane")).to_be_visible()
    return view


def seen(view: View) -> dict[str, Any]:
    view.settle()
    found: dict[str, Any] = view.page.evaluate(SEEN)
    return found


def frame(view: View) -> dict[str, float]:
    box = view.root.locator(".qw-input-plane .qw-frame").bounding_box()
    assert box is not None
    return dict(box)


def test_pointing_at_a_place_reads_what_the_network_says_there(view: View, moons: Moons) -> None:
    low, high = moons.sweep.data.value_range
    model = moons.sweep.model(epsilon=0, regularization=0)
    places = frame(view)
    said = []
    view.root.locator(".qw-input-plane").scroll_into_view_if_needed()
    places = frame(view)
    for across, up in ((0.25, 0.3), (0.5, 0.5), (0.7, 0.35), (0.4, 0.8)):
        view.page.mouse.move(
            places["x"] + across * places["width"], places["y"] + (1 - up) * places["height"]
        )
        text = view.root.locator(".qw-regions-readout").inner_text()
        x, y = (float(value) for value in re.findall(r"-?[\d.]+", text)[:2])
        point = [low + share * (high - low) for share in (across, up)]
        # Within a pixel or two of where the pointer is.
        assert [x, y] == pytest.approx(point, abs=0.01 * (high - low))
        shares = [float(value) / 100 for value in re.findall(r"([\d.]+)%", text)]
        assert sum(shares) == pytest.approx(1, abs=2e-3)
        with torch.no_grad():
            expected = model(torch.tensor([[x, y]])).softmax(-1)[0].tolist()
        # Of the nearest point of a grid.
        assert shares == pytest.approx(expected, abs=0.08)
        said.append(shares[0])
    assert max(said) - min(said) > 0.2


def test_the_plane_follows_the_sliders(view: View, moons: Moons) -> None:
    data = moons.sweep.data
    points = view.root.locator(".qw-test-point")
    assert 20 < points.count() <= len(data.test_labels)
    fills = points.evaluate_all("all => [...new Set(all.map(e => e.getAttribute('fill')))]")
    assert len(fills) == len(data.class_names)
    before = seen(view)
    radius = float(view.value("attack_epsilon").inner_text())
    low, high = data.value_range
    pixels = frame(view)["width"] / (high - low)
    moved = [max(abs(u - x), abs(v - y)) for x, y, u, v in before["lines"]]
    # Every attack stays in its ball, and most of them go to its surface.
    assert moved
    assert max(moved) <= radius * pixels * 1.01
    assert sorted(moved)[len(moved) // 2] == pytest.approx(radius * pixels, rel=0.02)
    assert (
        f"{before['broken']} of {points.count()} points"
        in view.root.locator(".qw-regions-readout").inner_text()
    )

    drag(view, "epsilon", 1.0)
    robust = seen(view)
    assert robust["map"] != before["map"]
    assert robust["lines"] != before["lines"]
    expect(view.root.locator(".qw-input-plane .qw-note")).not_to_contain_text("interpolated")
    view.slider("epsilon").press("ArrowLeft")
    expect(view.root.locator(".qw-input-plane .qw-note")).to_contain_text("interpolated")
    assert seen(view)["map"] != robust["map"]

    # Another class: another packet in the same regions, and the same attacks.
    now = seen(view)
    view.select.select_option(index=1)
    other = seen(view)
    assert other["map"] != now["map"]
    assert other["centre"] != now["centre"]
    assert other["lines"] == now["lines"]

    # Without an attack nothing is moved.
    drag(view, "attack_epsilon", 0.0)
    unmoved = seen(view)
    assert unmoved["lines"] == []
    assert unmoved["map"] == other["map"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_plane_in_both_schemes(view: View, scheme: str, tmp_path: Path) -> None:
    view.page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    view.page.wait_for_timeout(300)
    picture = view.root.locator(".qw-input-plane").screenshot(path=tmp_path / f"{scheme}.png")
    assert len(picture) > 5_000
    colors = view.root.locator(".qw-regions-body canvas").evaluate(
        "c => new Set(new Uint32Array("
        "c.getContext('2d').getImageData(0, 0, c.width, c.height).data.buffer)).size"
    )
    assert colors > 500
