"""Two-dimensional data: the input plane shows what the networks say, and follows the sliders."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import torch
from playwright.sync_api import expect

import qwidgets as qw

from .view import View, drag, first_view, show

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Locator

    from .conftest import OpenNotebook, OpenOffline

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
    saved: Path
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
    folder = tmp_path_factory.mktemp("moons")
    sweep.save(folder / "moons.sweep")
    # A page keeps what the lens saw.
    explorer = qw.Explorer(sweep)
    explorer.look()
    file = qw.export_html(explorer, folder / "moons.html")
    explorer.close()
    return Moons(sweep, folder / "moons.sweep", file)


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


class Card(NamedTuple):
    """What is read where the pointer or the keys are."""

    about: str
    numbers: dict[str, float]
    note: str


def card(view: View) -> Card:
    element = view.root.locator(".qw-card")
    expect(element).to_be_visible()
    names = element.locator("dt").all_inner_texts()
    values = element.locator("dd").all_inner_texts()
    numbers = {
        name: float(re.findall(r"-?[\d.]+", value)[0]) / (100 if value.endswith("%") else 1)
        for name, value in zip(names, values, strict=True)
    }
    lines = element.locator("> span").all_inner_texts()
    return Card(" · ".join(lines[:2]), numbers, lines[2] if len(lines) > 2 else "")


def centers(points: Locator) -> list[tuple[float, float]]:
    """Where circles are, in pixels of the window."""
    found: list[tuple[float, float]] = points.evaluate_all(
        "all => all.map(e => { const {x, y, width, height} = e.getBoundingClientRect();"
        " return [x + width / 2, y + height / 2]; })"
    )
    return [tuple(place) for place in found]  # type: ignore[misc]


def probabilities(sweep: qw.Sweep, point: list[float]) -> list[float]:
    model = sweep.model(epsilon=0, regularization=0)
    with torch.no_grad():
        said: list[float] = model(torch.tensor([point])).softmax(-1)[0].tolist()
    return said


def test_pointing_at_a_place_reads_what_the_network_says_there(view: View, moons: Moons) -> None:
    low, high = moons.sweep.data.value_range
    view.root.locator(".qw-input-plane").scroll_into_view_if_needed()
    places = frame(view)
    said = []
    # Where no test point is near.
    for across, up in ((0.08, 0.3), (0.08, 0.6), (0.9, 0.85), (0.9, 0.1), (0.4, 0.9)):
        view.page.mouse.move(
            places["x"] + across * places["width"], places["y"] + (1 - up) * places["height"]
        )
        about, numbers, _ = card(view)
        assert about == "trained network · epoch 4"
        x, y, *shares = numbers.values()
        point = [low + share * (high - low) for share in (across, up)]
        # Within a pixel or two of where the pointer is.
        assert [x, y] == pytest.approx(point, abs=0.01 * (high - low))
        assert list(numbers)[2:] == list(moons.sweep.data.class_names)
        assert sum(shares) == pytest.approx(1, abs=2e-3)
        # Interpolated, at the printed place.
        assert shares == pytest.approx(probabilities(moons.sweep, [x, y]), abs=0.02)
        said.append(shares[0])
    assert max(said) - min(said) > 0.2
    view.page.mouse.move(places["x"] - 40, places["y"])
    expect(view.root.locator(".qw-card")).to_be_hidden()


def test_pointing_at_a_test_point_reads_it_and_its_attack(view: View, moons: Moons) -> None:
    # So strong that it changes what many are read as.
    drag(view, "attack_epsilon", 1.0)
    view.settle()
    data, radius = moons.sweep.data, view.value("attack_epsilon").inner_text()
    view.root.locator(".qw-input-plane").scroll_into_view_if_needed()
    changed = 0
    for place in centers(view.root.locator(".qw-test-point"))[::6]:
        view.page.mouse.move(*place)
        about, numbers, note = card(view)
        point = [numbers["x₁"], numbers["x₂"]]
        # One of the test points, of which some lie on others.
        index = int((data.test_inputs - torch.tensor(point)).abs().amax(1).argmin())
        assert point == pytest.approx(data.test_inputs[index].tolist(), abs=6e-3)
        label = int(data.test_labels[index])
        name = data.class_names[label]
        assert about == f"trained network · epoch 4 · class {name} · attack radius {radius}"
        said = probabilities(moons.sweep, data.test_inputs[index].tolist())
        assert numbers["p clean"] == pytest.approx(said[label], abs=0.02)
        # An attack does not make its point look more like its class.
        assert numbers["p attacked"] < numbers["p clean"] + 0.02
        shares = [numbers["p clean"], numbers["p attacked"]]
        before, after = (data.class_names[int(share < 0.5) ^ label] for share in shares)
        words = "clean and attacked" if before == after else f"attacked as {after}"
        assert note == f"read as {before}, {words}"
        changed += before != after
    assert changed


def test_the_keys_go_from_point_to_point_from_the_one_in_the_lens(view: View, moons: Moons) -> None:
    area = view.root.locator(".qw-regions-body")
    ring = view.root.locator(".qw-looked-at")
    first = moons.sweep.data.test_inputs[moons.sweep.data.test_labels == 0][0].tolist()
    expect(ring).to_be_visible()
    area.focus()
    view.page.keyboard.press("ArrowRight")
    seen = card(view).numbers
    assert [seen["x₁"], seen["x₂"]] == pytest.approx(first, abs=6e-3)
    view.settle()
    assert centers(ring)[0] == pytest.approx(centers(view.root.locator(".qw-ring"))[0], abs=1)
    for key, name, sign in (("ArrowRight", "x₁", 1), ("ArrowUp", "x₂", 1), ("ArrowLeft", "x₁", -1)):
        before = card(view).numbers[name]
        view.page.keyboard.press(key)
        assert sign * (card(view).numbers[name] - before) > 0
    # There is nobody to look at another point in a page.
    assert "lens" not in card(view).note
    before = centers(ring)
    view.page.keyboard.press("Enter")
    view.settle()
    assert centers(ring) == before
    view.page.keyboard.press("Escape")
    expect(view.root.locator(".qw-card")).to_be_hidden()


def test_a_point_that_is_chosen_is_seen_in_the_lens(
    moons: Moons, open_notebook: OpenNotebook
) -> None:
    notebook = open_notebook(show(moons.saved), viewport=TALL)
    notebook.run()
    view = first_view(notebook)
    points, ring = (view.root.locator(css) for css in (".qw-test-point", ".qw-looked-at"))
    expect(ring).to_be_visible(timeout=60_000)
    labels = moons.sweep.data.test_labels.tolist()
    shown = [
        i for i, label in enumerate(labels) if labels[: i + 1].count(label) <= points.count() // 2
    ]
    ringed = """([index]) => {
      const [dot, ring] = [document.querySelectorAll('.qw-test-point')[index],
        document.querySelector('.qw-looked-at')].map(e => [e.cx.baseVal.value, e.cy.baseVal.value]);
      return dot[0] === ring[0] && dot[1] === ring[1];
    }"""

    def of_class(label: int) -> list[int]:
        return [index for index, i in enumerate(shown) if labels[i] == label]

    def assert_in_the_lens(index: int) -> None:
        label = labels[shown[index]]
        image = labels[: shown[index]].count(label)
        view.page.wait_for_function(ringed, arg=[index])
        expect(view.root.locator(".qw-lens-which")).to_have_text(
            f"input {image + 1} of {labels.count(label)}"
        )
        expect(view.select).to_have_value(moons.sweep.data.class_names[label])
        assert notebook.execute("print(e.label, e.image)") == f"{label} {image}\n"

    assert_in_the_lens(of_class(0)[0])
    # Alone in its place, of the other class than now.
    places = centers(points)
    alone = [
        i
        for i in of_class(1)
        if min(math.dist(places[i], other) for j, other in enumerate(places) if j != i) > 12
    ]
    chosen = alone[1]
    view.root.locator(".qw-input-plane").scroll_into_view_if_needed()
    view.page.mouse.move(*centers(points)[chosen])
    assert card(view).note.endswith(". Click or Enter: in the lens")
    view.page.mouse.click(*centers(points)[chosen])
    assert_in_the_lens(chosen)
    view.settle()
    assert card(view).note.endswith(". It is in the lens")

    # With the keys; the notebook hears nothing of it.
    view.root.locator(".qw-regions-body").focus()
    for key in ("ArrowLeft", "ArrowLeft"):
        view.page.keyboard.press(key)
    at = card(view).numbers
    view.page.keyboard.press("Enter")
    inputs = moons.sweep.data.test_inputs[shown]
    distance = (inputs - torch.tensor([at["x₁"], at["x₂"]])).abs().amax(1)
    assert_in_the_lens(int(distance.argmin()))
    assert notebook.page.locator(".jp-CodeCell").count() == 1

    # The other way round: what the lens is turned to is ringed.
    notebook.execute("e.label, e.image = 0, 3")
    assert_in_the_lens(of_class(0)[3])
    view.root.locator(".qw-lens-next").click()
    assert_in_the_lens(of_class(0)[4])
    told = view.root.locator(".qw-regions-readout")
    expect(told).to_have_text(re.compile("the ringed one is in the lens$"))
    notebook.execute("e.panels = ['input_plane', 'plane']")
    expect(told).to_have_text(re.compile("the ringed one is chosen$"))
    assert notebook.errors == []


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
