"""What a careful person tries: reading values, saving, hints, the whole screen, other senses."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import pytest
from playwright.sync_api import expect

import qwidgets as qw

from .view import EPOCHS, View, drag, first_view, show, significant

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Locator, Page, ViewportSize

    from .conftest import OpenNotebook, OpenOffline
    from .lab import Lab, Notebook
    from .view import Saved

TALL: ViewportSize = {"width": 1400, "height": 1500}
AXE = Path(__file__).parents[2] / "js" / "node_modules" / "axe-core" / "axe.min.js"
PANELS = ("plane", "phase-space", "tradeoff", "curves", "robustness")
# Where the card reads values; the attack lens reads its pixels by itself.
AREAS = ":is(.qw-figure, .qw-phase-body)[tabindex='0']"
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def viewport() -> ViewportSize:
    return TALL


@pytest.fixture(scope="module")
def notebook(lab: Lab, saved: Saved) -> Iterator[Notebook]:
    with lab.notebook([show(saved.path), "'another cell'"], viewport=TALL) as running:
        running.run(0)
        yield running
        assert running.errors == []


# Reading values


def card(view: View) -> Locator:
    return view.root.locator(".qw-card")


def point_at(view: View, place: Locator) -> None:
    place.scroll_into_view_if_needed()
    box = place.bounding_box()
    assert box is not None
    view.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)


def read(view: View) -> dict[str, str]:
    """The numbers on the card by their symbols; settings and kind beside them."""
    expect(card(view)).to_be_visible()
    return dict(
        card(view).evaluate(
            """card => [
              ['where', card.querySelector('strong').textContent],
              ['kind', card.querySelector('.qw-card-kind').textContent],
              ['what', card.textContent],
              ...[...card.querySelectorAll('dt')].map(
                dt => [dt.textContent, dt.nextSibling.textContent])]"""
        )
    )


def settings(where: str) -> dict[str, float]:
    epsilon, regularization = re.findall(r"[\d.]+", where)
    return {"epsilon": float(epsilon), "regularization": float(regularization)}


@pytest.mark.parametrize(
    ("panel", "variables"),
    [
        ("plane-attack", {"σx": "position_std", "σp": "momentum_std"}),
        ("tradeoff", {"clean": "clean_accuracy", "robust": "robust_accuracy"}),
    ],
)
def test_pointing_at_a_dot_reads_its_network(
    view: View, saved: Saved, panel: str, variables: dict[str, str]
) -> None:
    # Between the networks, and with no card over the dots.
    view.slider("epsilon").press("ArrowRight")
    seen = set()
    for dot in view.root.locator(f".qw-{panel} g.object_grp").all():
        point_at(view, dot)
        numbers = read(view)
        at = settings(numbers["where"])
        if numbers["kind"] == "interpolated between trained networks":
            assert at == {"epsilon": 0.025, "regularization": 0.0}
            continue
        assert numbers["kind"] == "trained network"
        seen.add(tuple(at.values()))
        cube = saved.sweep.dataset.isel(epoch=-1, label=0)
        cube = cube.sel(attack_epsilon=0.1, method="nearest").sel(at, method="nearest")
        for symbol, name in variables.items():
            value, error = float(cube[name]), float(cube[f"{name}_error"])
            accuracy = name.endswith("accuracy")
            expected = (
                f"{100 * value:.1f}% ± {100 * error:.1f}"
                if accuracy
                else f"{significant(value)} ± "
            )
            assert numbers[symbol].startswith(expected), (numbers, name)
            assert accuracy or "input units" in numbers[symbol]
    assert len(seen) > 3


def test_lines_are_read_at_the_nearest_of_their_points(view: View, saved: Saved) -> None:
    cube = saved.sweep.dataset.isel(epsilon=0, regularization=0)
    for epoch in (1, EPOCHS):
        figure = view.root.locator(".qw-curves rect.plotarea_events")
        box = figure.bounding_box()
        assert box is not None
        x = box["x"] + box["width"] * epoch / EPOCHS
        view.page.mouse.move(x + (-9 if epoch == EPOCHS else 9), box["y"] + 30)
        numbers = read(view)
        assert f"epoch {epoch}" in numbers["what"]
        assert numbers["clean"].startswith(f"{100 * float(cube.clean_accuracy[epoch]):.1f}% ± ")
    figure = view.root.locator(".qw-robustness rect.plotarea_events")
    box = figure.bounding_box()
    assert box is not None
    radii = saved.sweep.dataset.attack_epsilon.values
    view.page.mouse.move(box["x"] + box["width"] * radii[2] / radii[-1], box["y"] + 5)
    numbers = read(view)
    robust = float(cube.robust_accuracy[EPOCHS, 2])
    assert numbers["robust"].startswith(f"{100 * robust:.1f}% ± ")


def test_the_map_and_its_marginals_are_read_with_their_units(view: View, saved: Saved) -> None:
    body = view.root.locator(".qw-phase-body")
    box = body.bounding_box()
    assert box is not None
    frame = view.root.locator(".qw-phase-axes .qw-frame").bounding_box()
    assert frame is not None
    view.page.mouse.move(frame["x"] + frame["width"] / 2, frame["y"] + frame["height"] / 2)
    numbers = read(view)
    assert float(numbers["t"].split()[0]) == pytest.approx(0, abs=0.05)
    assert numbers["t"].endswith("(input units)")
    assert float(numbers["k"].split()[0]) == 0
    assert numbers["k"].endswith("(1 / input units)")
    # W(0, 0) = (1/pi) integral psi(y) psi(-y) dy, by the trapezoid on the packet's own grid.
    packet = saved.sweep.dataset.packet.isel(
        epsilon=0, regularization=0, epoch=-1, label=0
    ).values.astype(float)
    step = float(saved.sweep.dataset.t[1] - saved.sweep.dataset.t[0])
    norm = (packet**2).sum() * step
    expected = (packet * packet[::-1]).sum() * step / norm / 3.14159265
    assert float(numbers["W"].split()[0]) == pytest.approx(expected, rel=0.02, abs=2e-3)
    assert "no standard error" in numbers["what"]
    assert numbers["kind"] == "trained network"
    view.page.mouse.move(frame["x"] + frame["width"] / 2, frame["y"] - 10)
    assert "|ψ(t)|²" in read(view)
    view.page.mouse.move(frame["x"] + frame["width"] + 12, frame["y"] + frame["height"] / 2)
    assert "|ψ(k)|²" in read(view)
    # Its colours are named, with the unit.
    scale = view.root.locator(".qw-wigner-scale text")
    expect(scale.last).to_have_text("W (ħ = 1)")
    assert scale.count() > 5


def test_the_card_follows_a_move_and_goes_with_the_pointer(view: View) -> None:
    box = view.root.locator(".qw-phase-body").bounding_box()
    assert box is not None
    view.page.mouse.move(box["x"] + 200, box["y"] + 150)
    assert read(view)["kind"] == "trained network"
    view.slider("epsilon").press("ArrowRight")
    expect(card(view)).to_contain_text("interpolated between trained networks")
    expect(card(view)).to_contain_text("ε 0.025")
    view.page.mouse.move(5, 5)
    expect(card(view)).to_be_hidden()


def test_the_arrow_keys_read_every_panel(view: View) -> None:
    areas = view.root.locator(AREAS)
    assert areas.count() == len(PANELS) + 1
    for area in areas.all():
        if not area.is_visible():
            continue
        area.focus()
        seen = set()
        for key in ("ArrowRight", "ArrowLeft", "ArrowUp", "ArrowDown", "ArrowLeft"):
            view.page.keyboard.press(key)
            seen.add(read(view)["what"])
        assert len(seen) > 1, area.get_attribute("aria-label")
        view.page.keyboard.press("Escape")
        expect(card(view)).to_be_hidden()
        expect(area).to_be_focused()


@pytest.mark.parametrize("width", [700, 1000, 2000])
def test_the_card_stays_in_the_picture(view: View, width: int) -> None:
    view.page.set_viewport_size({"width": width, "height": 1200})
    for name in PANELS:
        area = view.root.locator(f".qw-{name} {AREAS}").first
        area.scroll_into_view_if_needed()
        box = area.bounding_box()
        assert box is not None
        for x in (80, box["width"] / 2, box["width"] - 30):
            view.page.mouse.move(box["x"] + x, box["y"] + 150)
            if not card(view).is_visible():
                continue
            inside = view.root.evaluate(
                """root => {
                  const outer = root.getBoundingClientRect();
                  const card = root.querySelector('.qw-card').getBoundingClientRect();
                  return card.left >= outer.left && card.right <= outer.right
                    && card.top >= outer.top && card.bottom <= outer.bottom;
                }"""
            )
            assert inside, (name, x)


def test_reading_sends_nothing_to_the_kernel(open_notebook: OpenNotebook, saved: Saved) -> None:
    notebook = open_notebook(show(saved.path), viewport=TALL)
    sent: list[object] = []

    def listen(frame: object) -> None:
        sent.append(frame)

    notebook.page.on("websocket", lambda socket: socket.on("framesent", listen))
    # So that the socket is one whose frames are seen.
    notebook.page.evaluate("window.notebookDriver.panel.sessionContext.session.kernel.reconnect()")
    notebook.run(0)
    view = first_view(notebook)
    notebook.wait_idle()
    # The lens is asked for once, when the page has time.
    lens = view.root.locator(".qw-lens-momentum .qw-lens-cells:not(.qw-lens-none)")
    expect(lens).to_be_visible(timeout=60_000)
    notebook.page.wait_for_timeout(1500)
    assert sent
    sent.clear()
    for panel in ("plane-attack", "tradeoff"):
        point_at(view, view.root.locator(f".qw-{panel} g.object_grp").first)
        read(view)
    view.root.locator(".qw-phase-body").focus()
    for _ in range(5):
        notebook.page.keyboard.press("ArrowRight")
    read(view)
    notebook.page.wait_for_timeout(300)
    assert sent == []
    assert notebook.errors == []


# Saving


def save(view: View, name: str, kind: str) -> bytes:
    with view.page.expect_download() as download:
        view.root.locator(f".qw-save-{name}-{kind}").click()
    assert download.value.suggested_filename == f"qwidgets-{name}.{kind}"
    expect(view.root.locator(".qw-export-told")).to_have_text(f"Saved qwidgets-{name}.{kind}")
    return Path(download.value.path()).read_bytes()


def open_menu(view: View) -> None:
    button = view.root.locator("button.qw-export")
    button.click()
    expect(button).to_have_attribute("aria-expanded", "true")


def texts(picture: ET.Element) -> list[str]:
    return ["".join(text.itertext()) for text in picture.iter(f"{SVG}text")]


TITLES = {
    "plane": "Uncertainty plane",
    "phase-space": "Phase space",
    "tradeoff": "Accuracy and robustness",
    "curves": "Training",
    "robustness": "Robust accuracy",
    "lens": "Attack lens",
    "explorer": "Uncertainty of a neural network",
}


def check_svg(source: bytes, name: str) -> ET.Element:
    text = source.decode()
    picture = ET.fromstring(text)
    assert TITLES[name] in texts(picture)
    assert len(texts(picture)) > 8
    # Nothing in it asks for a style sheet or for another file.
    assert "var(" not in text
    assert "class=" not in text
    assert "currentColor" not in text
    links = re.findall(r'(?:href|src)="([^"]{0,30})', text)
    assert all(link.startswith("data:image/png") for link in links)
    assert bool(links) == (name in {"phase-space", "lens", "explorer"})
    description = picture.find(f"{SVG}desc")
    assert description is not None
    assert "trained network" in (description.text or "")
    return picture


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_each_panel_is_saved_as_svg_with_text_and_colours(view: View, scheme: str) -> None:
    view.page.emulate_media(color_scheme=scheme)
    open_menu(view)
    colors = view.root.locator(".qw-export-menu select")
    expect(colors).to_have_value(scheme)
    panel, ink = {
        "light": ("#ffffff", "rgb(28, 37, 48)"),
        "dark": ("#15191e", "rgb(232, 236, 240)"),
    }[scheme]
    for name, title in TITLES.items():
        source = save(view, name, "svg")
        picture = check_svg(source, name)
        background = picture.find(f"{SVG}rect")
        assert background is not None
        assert background.get("fill") == panel
        heading = next(t for t in picture.iter(f"{SVG}text") if t.text == title)
        assert heading.get("fill") == ink
        assert "system-ui" in (heading.get("font-family") or "")
    # The axis labels and every dot are in the picture of the plane.
    plane = check_svg(save(view, "plane", "svg"), "plane")
    assert "position uncertainty σx (input units)" in texts(plane)
    networks = 6
    assert sum(p.get("d", "").startswith("M0,2.") for p in plane.iter(f"{SVG}path")) == networks


def test_the_other_colours_and_none_behind(view: View) -> None:
    open_menu(view)
    before = view.geometry()
    view.root.locator(".qw-export-menu select").select_option("dark")
    dark = check_svg(save(view, "phase-space", "svg"), "phase-space")
    assert dark.find(f"{SVG}rect").get("fill") == "#15191e"  # type: ignore[union-attr]
    # The page itself keeps its colours.
    assert view.geometry() == before
    view.root.locator(".qw-export-menu select").select_option("light")
    view.root.locator(".qw-export-menu input").check()
    clear = check_svg(save(view, "plane", "svg"), "plane")
    sizes = [
        float(rect.get("width", 0)) * float(rect.get("height", 0))
        for rect in clear.iter(f"{SVG}rect")
        if rect.get("fill", "black") != "none" and not rect.get("id")
    ]
    clips = [part for clip in clear.iter(f"{SVG}clipPath") for part in clip]
    assert len([size for size in sizes if size > 2000]) == len(clips)


def test_what_was_out_of_sight_at_a_resize_is_saved_as_wide_as_its_panel(
    file: Path, offline_page: OpenOffline
) -> None:
    opened = offline_page(file, viewport={"width": 1400, "height": 500})
    view = View(opened.page.locator(".qw-root"))
    view.wait_drawn()
    # Seen once, and left.
    view.root.locator(".qw-robustness").scroll_into_view_if_needed()
    opened.page.wait_for_timeout(500)
    view.root.locator("h2").scroll_into_view_if_needed()
    opened.page.wait_for_timeout(500)
    opened.page.set_viewport_size({"width": 1000, "height": 500})
    opened.page.wait_for_timeout(500)
    open_menu(view)
    for name, count in (("robustness", 1), ("explorer", 4)):
        picture = check_svg(save(view, name, "svg"), name)
        figures = [
            (part.get("width"), clip.get("width"))
            for part in picture.findall(f"{SVG}svg")
            for clip in part.findall(f".//{SVG}clipPath/{SVG}rect")
        ]
        assert len(figures) == count
        for figure, clip in figures:
            assert figure is not None
            assert clip is not None
            # All but the margins, of 58 and 14 pixels.
            assert float(clip) + 72 == pytest.approx(float(figure), abs=1)
    assert opened.errors == []


# Texts of a picture that run beyond it, or beyond the menu that they stand in.
BEYOND = """
source => {
  document.body.insertAdjacentHTML('beforeend', source);
  const picture = document.body.lastElementChild;
  const right = part => part.getBoundingClientRect().right;
  const beyond = [...picture.querySelectorAll(':scope > text')]
    .filter(text => right(text) > right(picture)).map(text => text.textContent);
  picture.remove();
  return beyond;
}
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_name_of_any_length_is_cut_in_a_picture_as_in_the_page(
    saved: Saved, tmp_path: Path, offline_page: OpenOffline, scheme: str
) -> None:
    long = "x" * 150
    network = saved.sweep.model(epsilon=0, regularization=0)
    models = {long: network, "short": saved.sweep.model(epsilon=0.2, regularization=0)}
    found = qw.measure(models, saved.sweep.data, probe_images=1, test_size=60, progress=False)
    opened = offline_page(qw.export_html(found, tmp_path / "page.html"), viewport=TALL)
    opened.page.emulate_media(color_scheme=scheme)
    view = View(opened.page.locator(".qw-root"))
    expect(view.root.locator(".qw-robustness path.line").last).to_have_attribute(
        "d", re.compile("^M")
    )
    expect(view.root.locator(".qw-lens-image img")).to_have_attribute("src", re.compile("^data"))
    open_menu(view)
    for width in (1400, 800):
        opened.page.set_viewport_size({"width": width, "height": 1500})
        source = save(view, "explorer", "svg").decode()
        words = texts(ET.fromstring(source))
        assert opened.page.evaluate(BEYOND, source) == []
        assert long not in "\n".join(words)
        cut = [text for text in words if re.search("x…$", text)]
        menu = view.root.locator(".qw-models select").bounding_box()
        assert menu is not None
        # That in the menu is the shortest of them; no letter is narrower than 4 pixels.
        assert 5 < min(map(len, cut)) < menu["width"] / 4
        assert any(text.startswith("of xxx") for text in cut)
        # The legend breaks it into lines, which are all there.
        broken = [text for text in words if re.fullmatch("x+", text)]
        assert sum(map(len, broken)) == len(long)
        # What fits is whole.
        assert "short" not in words
        assert "± 1 standard error" in words
    assert opened.errors == []


PIXELS = """
async (source) => {
  const image = new Image();
  image.src = source;
  await image.decode();
  const canvas = document.createElement('canvas');
  [canvas.width, canvas.height] = [image.width, image.height];
  const context = canvas.getContext('2d');
  context.drawImage(image, 0, 0);
  const data = context.getImageData(0, 0, image.width, image.height).data;
  const colors = new Set(new Uint32Array(data.buffer)).size;
  return [image.width, image.height, [...data.slice(0, 4)], colors];
}
"""


@pytest.mark.parametrize("name", TITLES)
def test_each_panel_is_saved_as_png(view: View, name: str) -> None:
    open_menu(view)
    place = ".qw-root" if name == "explorer" else f".qw-{name}"
    box = view.page.locator(place).bounding_box()
    assert box is not None
    for clear, corner in ((False, [255, 255, 255, 255]), (True, [0, 0, 0, 0])):
        view.root.locator(".qw-export-menu input").set_checked(clear)
        source = save(view, name, "png")
        assert source.startswith(b"\x89PNG")
        address = "data:image/png;base64," + base64.b64encode(source).decode()
        width, height, first, colors = view.page.evaluate(PIXELS, address)
        assert [width, height] == pytest.approx([2 * box["width"], 2 * box["height"]], abs=3)
        assert first == corner
        assert colors > 60


def rows(source: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(source.decode("utf-8"))))


def test_the_numbers_are_saved_as_they_are_shown(view: View, saved: Saved) -> None:
    view.slider("epsilon").press("ArrowRight")
    open_menu(view)
    cube = saved.sweep.dataset.isel(epoch=-1, label=0)
    table = rows(save(view, "plane", "csv"))
    networks = [row for row in table if row["series"] == "networks"]
    assert len(networks) == 6
    for row in networks:
        at = {name: float(row[name]) for name in ("epsilon", "regularization")}
        numbers = cube.sel(at, method="nearest")
        for name in ("position_std", "momentum_std_error", "uncertainty_product"):
            assert float(row[name]) == pytest.approx(float(numbers[name]), rel=1e-6)
        assert row["kind"] == "trained network"
    (now,) = [row for row in table if row["series"] == "now"]
    assert now["kind"] == "interpolated between trained networks"
    assert float(now["epsilon"]) == pytest.approx(0.025)
    assert len([row for row in table if row["series"] == "path"]) == EPOCHS + 1
    phase = rows(save(view, "phase-space", "csv"))
    wigner = [row for row in phase if row["series"] == "wigner"]
    times = sorted({float(row["t"]) for row in wigner})
    momenta = sorted({float(row["k"]) for row in wigner})
    assert len(wigner) == len(times) * len(momenta)
    cell = (times[1] - times[0]) * (momenta[1] - momenta[0])
    # What is shown holds all but the tails of a function that integrates to 1.
    assert sum(float(row["value"]) for row in wigner) * cell == pytest.approx(1, abs=0.02)
    everything = rows(save(view, "explorer", "csv"))
    assert {"robust_accuracy", "momentum_std"} <= set(everything[0])


def test_the_numbers_of_the_lens_are_saved(view: View, saved: Saved) -> None:
    open_menu(view)
    table = rows(save(view, "lens", "csv"))
    data, attributes = saved.sweep.data, saved.sweep.dataset.attrs
    image = data.test_inputs[data.test_labels == 0][0]
    seen = qw.lens(
        saved.sweep.model(epsilon=0, regularization=0),
        image,
        0,
        epsilon=0.1,
        radius=attributes["neighborhood_radius"],
        steps=attributes["measurement_attack_steps"],
        seed=attributes["seed"],
    )
    pixels = [row for row in table if row["series"] == "pixels"]
    assert [(row["row"], row["column"]) for row in pixels[7:9]] == [("1", "8"), ("2", "1")]
    assert [float(row["image"]) for row in pixels] == pytest.approx(image.flatten().tolist())
    for row in pixels:
        attack = float(row["attacked"]) - float(row["image"])
        assert float(row["perturbation"]) == pytest.approx(attack, abs=1e-6)
    assert seen.momentum_std is not None
    expected = seen.momentum_std.flatten().tolist()
    assert [float(row["momentum_std"]) for row in pixels] == pytest.approx(expected, rel=1e-3)
    classes = [row for row in table if row["series"] == "classes"]
    assert [row["class"] for row in classes] == list(data.class_names)
    for name in ("probability", "attacked_probability"):
        assert sum(float(row[name]) for row in classes) == pytest.approx(1, abs=1e-5)


def test_everything_without_a_figure_is_what_the_other_panels_have(
    open_notebook: OpenNotebook, saved: Saved
) -> None:
    code = show(saved.path).replace("))", "), panels=['lens'])")
    notebook = open_notebook(code, viewport=TALL)
    notebook.run(0)
    view = View(notebook.cell(0).locator(".qw-root"))
    expect(view.root.locator(".qw-lens-image img")).to_have_attribute("src", re.compile("^data"))
    open_menu(view)
    lens = rows(save(view, "lens", "csv"))
    everything = rows(save(view, "explorer", "csv"))
    assert [row["image"] for row in everything] == [row["image"] for row in lens]
    assert len(everything) == 64 + 10
    notebook.execute("e.panels = ['lens', 'phase_space']")
    expect(view.root.locator(".qw-phase-space")).to_be_visible()
    view.settle()
    everything = rows(save(view, "explorer", "csv"))
    series = {row["series"] for row in everything}
    assert series == {"pixels", "classes", "wigner", "density, now", "density, reference"}
    assert all(row["value"] and not row["image"] for row in everything if row["t"])
    assert notebook.errors == []


def test_what_has_no_numbers_yet_is_not_saved(open_notebook: OpenNotebook) -> None:
    notebook = open_notebook("import qwidgets as qw\ne = qw.Explorer()\ne.cancel()\ne")
    notebook.run(0)
    view = View(notebook.cell(0).locator(".qw-root"))
    expect(view.status).to_contain_text("ancelled", timeout=60_000)
    open_menu(view)
    told = view.root.locator(".qw-export-told")
    for name in ("curves", "explorer"):
        view.root.locator(f".qw-save-{name}-csv").click()
        expect(told).to_have_text("Nothing is measured yet: no numbers to save")
    assert notebook.errors == []


def test_the_menu_closes_and_gives_the_focus_back(view: View) -> None:
    button = view.root.locator("button.qw-export")
    menu = view.root.locator(".qw-export-menu")
    button.focus()
    view.page.keyboard.press("Enter")
    expect(menu).to_be_visible()
    view.page.keyboard.press("Tab")
    expect(menu.locator("button").first).to_be_focused()
    view.page.keyboard.press("Escape")
    expect(menu).to_be_hidden()
    expect(button).to_be_focused()
    button.click()
    view.root.locator("h2").click()
    expect(menu).to_be_hidden()


def test_it_is_saved_from_a_notebook_too(notebook: Notebook) -> None:
    view = first_view(notebook)
    open_menu(view)
    check_svg(save(view, "phase-space", "svg"), "phase-space")
    assert save(view, "tradeoff", "png").startswith(b"\x89PNG")
    assert len(rows(save(view, "robustness", "csv"))) == 2 * 6
    notebook.page.keyboard.press("Escape")


# The whole screen


def test_the_whole_screen_and_back(view: View) -> None:
    button = view.root.locator(".qw-full-screen")
    expect(button).to_have_attribute("aria-label", "Full screen")
    button.click()
    expect(button).to_have_attribute("aria-label", "Leave full screen")
    element = "document.fullscreenElement?.classList.contains('qw-explorer')"
    assert view.page.evaluate(element)
    # It goes on working there.
    drag(view, "epsilon", 0.5)
    expect(view.readout("epsilon")).to_have_text("0.10")
    button.click()
    expect(button).to_have_attribute("aria-label", "Full screen")
    assert not view.page.evaluate(element)


# Hints

NEW = "localStorage.setItem('qwidgets-hints', '')"


def reload_as_new(page: Page) -> None:
    # Set by the next page itself: of a page without a server, what this one writes comes later.
    mark = f"reloaded-{secrets.token_hex(4)}"
    page.add_init_script(
        f"if (!sessionStorage.getItem('{mark}')) {{ sessionStorage.setItem('{mark}', 1); {NEW}; }}"
    )
    page.reload()


def test_hints_come_once_and_never_after_they_were_dismissed(
    file: Path, offline_page: OpenOffline
) -> None:
    opened = offline_page(file, viewport=TALL)
    page = opened.page
    tour = page.locator(".qw-tour")
    view = View(page.locator(".qw-root"))
    view.wait_drawn()
    expect(tour).to_be_hidden()
    # As a new person: they come, also with the next page, until they are dismissed.
    for _ in range(2):
        reload_as_new(page)
        view.wait_drawn()
        expect(tour).to_be_visible()
    height = view.root.bounding_box()
    seen = []
    for number in range(1, 5):
        expect(tour.locator(".qw-tour-count")).to_have_text(f"Hint {number} of 4")
        expect(view.root.locator(".qw-hinted")).to_have_count(1)
        seen.append(tour.locator("p").inner_text())
        tour.locator(".qw-tour-next").click()
    assert len(set(seen)) == 4
    expect(tour).to_be_hidden()
    expect(view.root.locator(".qw-hinted")).to_have_count(0)
    assert view.root.bounding_box() == height
    page.wait_for_timeout(500)
    page.reload()
    view.wait_drawn()
    expect(tour).to_be_hidden()
    # Except for who asks for them; Escape puts them away.
    view.root.locator(".qw-help").click()
    expect(tour.locator(".qw-tour-count")).to_have_text("Hint 1 of 4")
    page.keyboard.press("Escape")
    expect(tour).to_be_hidden()
    expect(view.root.locator(".qw-help")).to_be_focused()
    assert opened.errors == []


def test_hints_are_dismissed_in_the_middle(file: Path, offline_page: OpenOffline) -> None:
    opened = offline_page(file, viewport=TALL)
    reload_as_new(opened.page)
    opened.page.locator(".qw-tour-next").click()
    opened.page.get_by_label("Dismiss the hints").click()
    opened.page.wait_for_timeout(500)
    opened.page.reload()
    View(opened.page.locator(".qw-root")).wait_drawn()
    expect(opened.page.locator(".qw-tour")).to_be_hidden()


def test_without_storage_hints_come_only_when_asked(file: Path, offline_page: OpenOffline) -> None:
    opened = offline_page(file, viewport=TALL)
    opened.page.add_init_script(
        "Object.defineProperty(window, 'localStorage',"
        " {get() { throw new DOMException('denied', 'SecurityError'); }})"
    )
    opened.page.reload()
    view = View(opened.page.locator(".qw-root"))
    view.wait_drawn()
    tour = view.root.locator(".qw-tour")
    expect(tour).to_be_hidden()
    view.root.locator(".qw-help").click()
    expect(tour).to_be_visible()
    tour.locator(".qw-tour-close").click()
    expect(tour).to_be_hidden()
    assert opened.errors == []


def test_hints_come_in_one_explorer_of_a_notebook(
    open_notebook: OpenNotebook, saved: Saved
) -> None:
    notebook = open_notebook(show(saved.path), show(saved.path), viewport={**TALL, "height": 2600})
    notebook.page.evaluate(NEW)
    try:
        notebook.run()
        for cell in (0, 1):
            first_view(notebook, cell)
        visible = notebook.page.locator(".qw-tour:visible")
        expect(visible).to_have_count(1)
        visible.locator(".qw-tour-close").click()
        notebook.run(1)
        first_view(notebook, 1)
        expect(visible).to_have_count(0)
    finally:
        notebook.page.evaluate("localStorage.setItem('qwidgets-hints', 'dismissed')")
    assert notebook.errors == []


def test_a_hint_points_at_what_is_there_now(notebook: Notebook) -> None:
    view = first_view(notebook)
    try:
        notebook.execute("before, e.panels = e.panels, ['robustness']")
        expect(view.root.locator(".qw-plane")).to_be_hidden()
        view.root.locator(".qw-help").click()
        for _ in range(4):
            hinted = view.root.locator(".qw-hinted")
            expect(hinted).to_have_count(1)
            expect(hinted).to_be_visible()
            view.root.locator(".qw-tour-next").click()
    finally:
        notebook.execute("e.panels = before")
    first_view(notebook)


# Other senses


def violations(view: View) -> list[str]:
    if not view.page.evaluate("'axe' in window"):
        view.page.evaluate(AXE.read_text("utf-8"))
    found: list[dict[str, Any]] = view.page.evaluate(
        "axe.run('.qw-explorer', {resultTypes: ['violations']}).then(r => r.violations)"
    )
    serious = [one for one in found if one["impact"] in {"serious", "critical"}]
    return [f"{one['id']}: {[node['html'][:120] for node in one['nodes']]}" for one in serious]


def test_the_checker_finds_what_is_wrong(view: View) -> None:
    # The control experiment of the tests below.
    view.root.locator("select").first.evaluate(
        "select => { for (const name of ['aria-label', 'id']) select.removeAttribute(name); }"
    )
    view.select.evaluate("select => select.removeAttribute('id')")
    assert "select-name" in "".join(violations(view))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_serious_violation_in_the_page(view: View, scheme: str) -> None:
    view.page.emulate_media(color_scheme=scheme)
    assert violations(view) == []
    open_menu(view)
    assert violations(view) == []
    view.page.keyboard.press("Escape")
    view.root.locator(".qw-help").click()
    assert violations(view) == []
    view.root.locator(".qw-phase-body").focus()
    view.page.keyboard.press("ArrowRight")
    assert violations(view) == []


def test_no_serious_violation_in_the_notebook(notebook: Notebook) -> None:
    view = first_view(notebook)
    try:
        for theme in ("light", "dark"):
            notebook.set_theme(theme)
            assert violations(view) == []
            notebook.execute("e.on_progress('failed', 0.5, 'ValueError: no such thing')")
            notebook.execute("e.set_trait('problem', 'An observer failed. ValueError: no')")
            expect(view.root.locator(".qw-problem")).to_be_visible()
            assert violations(view) == []
            notebook.execute("e.dismiss(); e.on_progress('done', 1.0, '6 trained networks')")
    finally:
        notebook.set_theme("light")


def test_every_control_has_a_name_and_visible_focus(view: View) -> None:
    for control in view.root.locator("button, select, input, [tabindex='0']").all():
        if not control.is_visible() or control.is_disabled():
            continue
        name = control.evaluate(
            "e => e.getAttribute('aria-label') || e.labels?.[0]?.textContent || e.textContent"
        )
        assert name.strip()
        control.focus()
        # As the keyboard would: a focus that is not from the mouse.
        view.page.keyboard.press("Shift")
        outline = control.evaluate("e => getComputedStyle(e).outlineStyle")
        assert outline == "solid", name


def test_nothing_moves_for_those_who_want_less_motion(view: View) -> None:
    view.page.emulate_media(reduced_motion="reduce")
    view.page.reload()
    view.wait_drawn()
    view.slider("epsilon").press("ArrowRight")
    open_menu(view)
    assert view.page.evaluate("document.getAnimations().length") == 0


def test_the_dots_of_a_saved_plane_stand_where_they_are_shown(view: View) -> None:
    shown = [place for place, _ in json.loads(view.geometry()["plane_networks"])[0]]
    open_menu(view)
    plane = check_svg(save(view, "plane", "svg"), "plane")
    saved = [group.get("transform") for group in plane.iter(f"{SVG}g")]
    assert set(shown) <= set(saved)
