"""The Explorer as a person meets it: a real JupyterLab, a real kernel, mouse and keyboard."""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import expect

from .view import (
    EPOCHS,
    EPSILON,
    GEOMETRY,
    MOVED,
    REGULARIZATION,
    View,
    assert_readout,
    drag,
    first_view,
    show,
    significant,
    wait_moved,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .conftest import OpenNotebook
    from .lab import Lab, Notebook
    from .view import Saved

TALL = {"width": 1400, "height": 1500}
LIVE = """
import qwidgets as qw
e = qw.Explorer(epsilon=[0, .1], regularization=[0, .1], epochs=200)
e
"""


@pytest.fixture(scope="module")
def opened(lab: Lab, saved: Saved) -> Iterator[Notebook]:
    with lab.notebook([show(saved.path), "'another cell'"], viewport=TALL) as notebook:
        notebook.run(0)
        yield notebook
        assert notebook.errors == []


# Runs code in the kernel until what it prints, or what the page shows, is as expected. A move that
# has not come to rest yet overrules Python: so a reset may have to be repeated.
UNTIL = """
async ([code, printed, shown]) => {
  const text = name => document.querySelector(`.qw-readout-${name}`).textContent;
  const deadline = performance.now() + 15000;
  while (performance.now() < deadline) {
    const outputs = await window.notebookDriver.execute(10, code);
    await new Promise(resolve => setTimeout(resolve, 150));
    const right = Object.entries(shown).every(([name, end]) => text(name).endsWith(end));
    if (outputs.map(output => output.text).join('') === printed && right) return true;
  }
  return false;
}
"""
RESET = f"""
e.epsilon, e.regularization, e.label, e.epoch, e.attack_epsilon = 0.0, 0.0, 0, {EPOCHS}, 0.1
e.plane = "attack"
"""
START = {"epsilon": "0.00", "regularization": "0.00", "label": "0", "epoch": str(EPOCHS)}


@pytest.fixture
def view(opened: Notebook) -> Iterator[View]:
    """The finished sweep, every control where it was at first."""
    shown = first_view(opened)
    start = START | {"robust": "at 0.10"}
    # Twice: what came to rest after the first reset is undone by the second.
    for _ in range(2):
        assert opened.page.evaluate(UNTIL, [RESET, "", start])
    yield shown
    assert opened.errors == []


def test_the_figures_are_drawn(view: View, saved: Saved) -> None:
    networks = len(EPSILON) * len(REGULARIZATION)
    dots = {
        name: len(json.loads(marks)[0])
        for name, marks in view.geometry().items()
        if name.startswith(("plane", "tradeoff"))
        and name.endswith(("networks", "reference", "now"))
    }
    assert dots == {
        "plane_networks": networks,
        "plane_reference": 1,
        "plane_now": 1,
        "tradeoff_networks": networks,
        "tradeoff_reference": 1,
        "tradeoff_now": 1,
    }
    for panel in ("plane-attack", "tradeoff", "curves", "robustness"):
        expect(view.root.locator(f".qw-{panel} text.axislabel")).to_have_count(2)
        box = view.root.locator(f".qw-{panel} svg.svg-figure").bounding_box()
        assert box is not None
        assert min(box["width"], box["height"]) > 200
    colors = view.root.locator(".qw-phase-body canvas").evaluate(
        "c => new Set(new Uint32Array("
        "c.getContext('2d').getImageData(0, 0, c.width, c.height).data.buffer)).size"
    )
    assert colors > 30
    expect(view.status).to_have_text(f"{networks} trained networks")
    assert_readout(view, saved.sweep)


@pytest.mark.parametrize(
    ("name", "key", "values"),
    [
        ("epsilon", "ArrowRight", [0.1, 0.2]),
        ("regularization", "ArrowRight", [0.3]),
        ("attack_epsilon", "ArrowRight", [0.15, 0.2]),
        ("epoch", "ArrowLeft", [2, 1, 0]),
    ],
)
def test_keys_on_a_slider_move_its_marks_and_the_readout(
    view: View, saved: Saved, name: str, key: str, values: list[float]
) -> None:
    presses = 1 if name == "epoch" else 4
    for value in values:
        before = view.geometry()
        for _ in range(presses):
            view.slider(name).press(key)
        # The front may consist of the same networks, and the untrained ones may coincide.
        grid = name == "epoch" or (name == "attack_epsilon" and value == 0.2)
        perhaps = frozenset({"tradeoff_front", "tradeoff_reference"} if grid else ())
        wait_moved(view, before, MOVED[name], perhaps=perhaps)
        expect(view.value(name)).to_have_text(str(value) if name == "epoch" else f"{value:.2f}")
        assert_readout(view, saved.sweep, **{name: value})


@pytest.mark.parametrize(
    ("name", "fraction", "value"),
    [
        ("epsilon", 0.5, 0.1),
        ("epsilon", 1.0, 0.2),
        ("regularization", 1.0, 0.3),
        ("attack_epsilon", 0.8, 0.15),
        ("epoch", 0.34, 1),
    ],
)
def test_dragging_a_slider_moves_its_marks_and_the_readout(
    view: View, saved: Saved, name: str, fraction: float, value: float
) -> None:
    before = view.geometry()
    drag(view, name, fraction)
    assert_readout(view, saved.sweep, **{name: value})
    wait_moved(view, before, MOVED[name])


def test_between_networks_the_marker_is_hollow_and_the_words_say_so(
    view: View, saved: Saved
) -> None:
    numbers = saved.sweep.dataset.isel(epoch=-1, label=0, regularization=0)
    for panel in ("plane-attack", "tradeoff"):
        assert view.now_fill(panel) not in {"none", "rgba(0, 0, 0, 0)"}
    view.slider("epsilon").press("ArrowRight")
    expect(view.readout("kind")).to_have_text(re.compile("^interpolated"))
    expect(view.slider("epsilon")).to_have_attribute("aria-valuetext", "0.025, interpolated")
    for panel in ("plane-attack", "tradeoff"):
        assert view.now_fill(panel) in {"none", "rgba(0, 0, 0, 0)"}
    a, b = (float(value) for value in numbers.position_std[:2])
    between = significant(0.75 * a + 0.25 * b)
    expect(view.readout("position")).to_have_text(re.compile(f"^{between} ± "))
    for _ in range(3):
        view.slider("epsilon").press("ArrowRight")
    expect(view.readout("kind")).to_have_text("trained network")
    expect(view.slider("epsilon")).to_have_attribute("aria-valuetext", "0.10")
    for panel in ("plane-attack", "tradeoff"):
        assert view.now_fill(panel) not in {"none", "rgba(0, 0, 0, 0)"}


def test_the_marker_stands_where_the_cube_says(view: View, saved: Saved) -> None:
    # Two networks calibrate the logarithmic axis, a third one is then where it must be.
    x = saved.sweep.dataset.position_std.isel(epoch=-1, label=0).values.ravel()
    marks = view.geometry()
    places = [
        float(re.search(r"\(([-\d.]+)", place)[1])  # type: ignore[index]
        for place, _ in json.loads(marks["plane_networks"])[0]
    ]
    order = sorted(range(len(x)), key=lambda i: x[i])
    first, last = order[0], order[-1]
    scale = (places[last] - places[first]) / math.log(x[last] / x[first])
    for i in order:
        expected = places[first] + scale * math.log(x[i] / x[first])
        assert places[i] == pytest.approx(expected, abs=0.05)
    [(now, _)] = json.loads(marks["plane_now"])[0]
    assert now == json.loads(marks["plane_networks"])[0][0][0]


def test_a_move_takes_nothing_out_of_the_figures(view: View) -> None:
    gone = view.root.evaluate_handle(
        "root => { const gone = [];"
        " const look = records => gone.push(...records.flatMap(record => [...record.removedNodes])"
        ".filter(node => node instanceof Element).map(node => node.outerHTML));"
        " for (const figure of root.querySelectorAll('.qw-figure'))"
        " new MutationObserver(look).observe(figure, {childList: true, subtree: true});"
        " return gone; }"
    )
    before = view.geometry()
    view.slider("epsilon").press("End")
    wait_moved(view, before, MOVED["epsilon"])
    assert gone.json_value() == []


def test_a_move_is_drawn_in_one_frame(view: View) -> None:
    drawn = view.root.evaluate_handle(
        """root => {
          const drawn = {};
          let frame = 0;
          const next = () => { frame += 1; requestAnimationFrame(next); };
          requestAnimationFrame(next);
          for (const panel of root.querySelectorAll('.qw-panel:has(.qw-figure, canvas)')) {
            const look = () => (drawn[panel.className] ??= []).push(frame);
            const moves = {attributes: true, attributeFilter: ['d', 'transform'], subtree: true};
            new MutationObserver(look).observe(panel, moves);
          }
          return drawn;
        }"""
    )
    before = view.geometry()
    view.slider("epsilon").press("ArrowRight")
    wait_moved(view, before, MOVED["epsilon"])
    view.settle()
    frames: dict[str, list[int]] = drawn.json_value()
    panels = ("plane", "phase-space", "tradeoff", "curves", "robustness")
    assert set(frames) == {f"qw-panel qw-{name}" for name in panels}
    assert len({frame for found in frames.values() for frame in found}) == 1, frames


PARTS = ("plane", "phase-space", "tradeoff", "curves", "robustness", "lens")


def test_panels_that_are_not_wanted_are_not_there_and_come_when_they_are(
    lab: Lab, saved: Saved
) -> None:
    code = show(saved.path).replace("))", "), panels=['curves', 'plane'])")
    with lab.notebook([code], viewport=TALL) as notebook:
        notebook.run(0)
        view = View(notebook.cell(0).locator(".qw-root"))
        figures = view.root.locator("svg.svg-figure")

        def there() -> set[str]:
            return {name for name in PARTS if view.root.locator(f".qw-{name}").is_visible()}

        # The plane keeps its other figure ready beside it.
        expect(figures).to_have_count(3)
        expect(view.root.locator(".qw-plane-attack g.object_grp").last).to_be_visible()
        assert there() == {"plane", "curves"}
        sides = [view.root.locator(f".qw-{name}").bounding_box() for name in ("plane", "curves")]
        [one, two] = [side for side in sides if side is not None]
        assert one["y"] == two["y"]
        assert one["width"] == pytest.approx(two["width"], abs=1)
        notebook.page.wait_for_timeout(300)
        assert notebook.execute("print(e.lens['state'])") == "empty\n"
        curve = view.root.locator(".qw-curves path.line").nth(1)
        before = curve.get_attribute("d")
        view.slider("epsilon").press("ArrowRight")
        expect(curve).not_to_have_attribute("d", before or "")
        view.root.locator(".qw-export").click()
        expect(view.root.locator(".qw-save-plane-png")).to_be_visible()
        expect(view.root.locator(".qw-save-tradeoff-png")).to_be_hidden()
        view.page.keyboard.press("Escape")

        # All of them: as if they had been there from the beginning.
        notebook.execute("e.panels = qw.Explorer(e.sweep).panels")
        view.wait_drawn()
        view.slider("epsilon").press("End")
        expect(view.root.locator(".qw-lens-image img")).to_have_attribute(
            "src", re.compile("^data")
        )
        assert there() == set(PARTS)
        expect(figures).to_have_count(5)
        assert_readout(view, saved.sweep, epsilon=EPSILON[-1])
        drawn = view.geometry()
        notebook.execute("e.panels = ['robustness']")
        expect(figures).to_have_count(1)
        assert there() == {"robustness"}
        view.slider("epsilon").press("Home")
        expect(view.root.locator(".qw-key-forbidden")).to_be_hidden()
        notebook.execute("e.panels = ['tradeoff', 'phase_space', 'robustness', 'curves']")
        expect(figures).to_have_count(3)
        places = [view.root.locator(f".qw-{name}").bounding_box() for name in sorted(there())]
        # Two and two.
        assert [len({round(place[side]) for place in places if place}) for side in "xy"] == [2, 2]
        expect(view.root.locator(".qw-key-networks")).to_be_visible()
        expect(view.root.locator(".qw-key-trail")).to_be_hidden()
        notebook.execute("e.panels = ['tradeoff', 'phase_space', 'plane', 'robustness', 'curves']")
        expect(view.root.locator(".qw-key-forbidden")).to_be_visible()
        view.wait_drawn()
        view.slider("epsilon").press("End")
        again = view.geometry()
        for name in ("plane_now", "tradeoff_networks", "tradeoff_now", "robustness_lines"):
            assert len(json.loads(again[name])[0]) == len(json.loads(drawn[name])[0]), name
        assert notebook.errors == []


def test_another_class_shows_its_packets(view: View, saved: Saved) -> None:
    before = view.geometry()
    view.select.select_option("7")
    expect(view.readout("label")).to_have_text("7")
    wait_moved(view, before, MOVED["label"])
    assert_readout(view, saved.sweep, label=7)


def test_the_plane_shows_the_neighbourhood_of_the_class(view: View, saved: Saved) -> None:
    view.root.locator(".qw-plane-view").select_option("class neighbourhood")
    view.slider("epsilon").press("End")
    numbers = saved.sweep.dataset.isel(epsilon=-1, regularization=0, epoch=-1, label=0)
    radii = [float(numbers[f"neighborhood_{name}"]) for name in ("position_std", "momentum_std")]
    for name, value in zip(("position", "momentum"), radii, strict=True):
        text = re.compile(rf"^{re.escape(significant(value))} ± ")
        expect(view.readout(name)).to_have_text(text)
    product, bound = radii[0] * radii[1], float(numbers.neighborhood_bound)
    words = f"{significant(product)} (bound {significant(bound)}, B "
    expect(view.readout("product")).to_have_text(re.compile("^" + re.escape(words)))
    networks = len(EPSILON) * len(REGULARIZATION)
    view.page.wait_for_function(
        f"count => JSON.parse(({GEOMETRY})().neighborhood_networks)[0].length === count",
        arg=networks,
    )
    expect(view.root.locator(".qw-plane-attack")).to_be_hidden()
    expect(view.root.locator(".qw-missing")).to_be_hidden()
    # Only the last epoch was measured, and the panel says so.
    view.slider("epoch").press("ArrowLeft")
    expect(view.root.locator(".qw-missing")).to_have_text(
        f"Not measured at epoch {EPOCHS - 1}; see the last one."
    )
    expect(view.readout("kind")).to_have_text("neighbourhood not measured at this epoch")


def test_play_runs_through_the_epochs_to_the_last(view: View) -> None:
    seen = view.value("epoch").evaluate_handle(
        "output => { const seen = [];"
        " new MutationObserver(() => seen.at(-1) === output.value || seen.push(output.value))"
        ".observe(output, {childList: true, characterData: true, subtree: true}); return seen; }"
    )
    play = view.root.locator(".qw-play")
    play.click()
    expect(play).to_have_attribute("aria-label", "Stop playing")
    expect(play).to_have_attribute("aria-label", "Play the epochs")
    expect(view.readout("epoch")).to_have_text(str(EPOCHS))
    assert seen.json_value() == [str(epoch) for epoch in range(EPOCHS + 1)]


def test_keys_in_a_control_stay_out_of_the_notebook(opened: Notebook, view: View) -> None:
    cells = opened.page.locator(".jp-Notebook .jp-Cell")
    active = """() => [...document.querySelectorAll('.jp-Notebook .jp-Cell')]
      .findIndex(cell => cell.classList.contains('jp-mod-active'))"""
    controls = [view.slider(name) for name in ("epsilon", "regularization", "epoch")]
    for control in [*controls, view.select, view.root.locator(".qw-play")]:
        control.focus()
        before = opened.page.evaluate(active)
        for key in ("ArrowDown", "ArrowUp", "a", "b", "x", "d", "d", "j", "k"):
            opened.page.keyboard.press(key)
        expect(cells).to_have_count(2)
        expect(control).to_be_focused()
        assert opened.page.evaluate(active) == before
    expect(opened.page.locator(".jp-Notebook .jp-CodeCell")).to_have_count(2)


def test_the_same_keys_outside_do_reach_the_notebook(open_notebook: OpenNotebook) -> None:
    # The control experiment of the test above.
    notebook = open_notebook("1", "2")
    notebook.run(0)
    notebook.page.keyboard.press("Escape")
    notebook.page.keyboard.press("b")
    expect(notebook.page.locator(".jp-Notebook .jp-CodeCell")).to_have_count(3)


def test_values_reach_python_at_rest(opened: Notebook, view: View) -> None:
    for _ in range(4):
        view.slider("epsilon").press("ArrowRight")
    drag(view, "regularization", 1.0)
    view.select.select_option("3")
    view.slider("epoch").press("ArrowLeft")
    view.slider("attack_epsilon").press("Home")
    expected = [0.1, 0.3, 3, EPOCHS - 1, 0.0]
    ask = "print([e.epsilon, e.regularization, e.label, e.epoch, e.attack_epsilon])"
    assert opened.page.evaluate(UNTIL, [ask, f"{expected}\n", {}]), opened.execute(ask)


def test_python_moves_the_controls(opened: Notebook, view: View, saved: Saved) -> None:
    before = view.geometry()
    opened.execute("e.epsilon = 0.2")
    expect(view.slider("epsilon")).to_have_value("2")
    expect(view.value("epsilon")).to_have_text("0.20")
    assert_readout(view, saved.sweep, epsilon=0.2)
    wait_moved(view, before, MOVED["epsilon"])
    opened.execute("e.label = 4; e.epoch = 1; e.regularization = 0.15")
    expect(view.select).to_have_value("4")
    expect(view.slider("epoch")).to_have_value("1")
    expect(view.value("regularization")).to_have_text("0.15")
    expect(view.readout("kind")).to_have_text(re.compile("^interpolated"))


def test_a_change_of_theme_recolours_everything_live(opened: Notebook, view: View) -> None:
    def colors() -> dict[str, Any]:
        seen: dict[str, Any] = view.root.evaluate(
            """root => {
              const color = (selector, name) =>
                getComputedStyle(root.querySelector(selector))[name];
              const canvas = root.querySelector('.qw-phase-body canvas');
              return {
                text: color('h2', 'color'),
                panel: color('.qw-panel', 'backgroundColor'),
                axis: color('.qw-plane .axis text', 'fill'),
                curve: color('.qw-curves path.line', 'stroke'),
                canvas: [...canvas.getContext('2d').getImageData(2, 2, 1, 1).data].join(),
              };
            }"""
        )
        return seen

    light = colors()
    try:
        opened.set_theme("dark")
        dark = colors()
        assert {part for part in light if dark[part] == light[part]} == set()
        assert dark["canvas"].startswith("21,25,30")
    finally:
        opened.set_theme("light")
    assert colors() == light


def test_it_redraws_while_the_kernel_is_busy(open_notebook: OpenNotebook, saved: Saved) -> None:
    busy = "import time\nfor _ in range(1000): time.sleep(.02)"
    notebook = open_notebook(show(saved.path), busy, viewport=TALL)
    notebook.run(0)
    view = first_view(notebook)
    notebook.page.evaluate("() => { window.busy = window.notebookDriver.run(60, 1); }")
    prompt = notebook.page.locator(".jp-CodeCell").nth(1).locator(".jp-InputPrompt")
    expect(prompt).to_have_text("[*]:")
    before = view.geometry()
    drag(view, "epsilon", 0.5)
    assert_readout(view, saved.sweep, epsilon=0.1)
    wait_moved(view, before, MOVED["epsilon"])
    before = view.geometry()
    view.select.select_option("5")
    wait_moved(view, before, MOVED["label"])
    view.slider("epoch").press("ArrowLeft")
    assert_readout(view, saved.sweep, epsilon=0.1, label=5, epoch=EPOCHS - 1)
    # All that happened while the cell ran.
    expect(prompt).to_have_text("[*]:")
    notebook.page.evaluate("window.jupyterapp.commands.execute('notebook:interrupt-kernel')")
    notebook.page.evaluate("window.busy")
    assert "KeyboardInterrupt" in notebook.outputs(1)[0]["ename"]
    # What was queued behind the cell arrives.
    ask = "print(e.label, round(e.epsilon, 9))"
    assert notebook.page.evaluate(UNTIL, [ask, "5 0.1\n", {}]), notebook.execute(ask)
    assert notebook.errors == []


def test_training_can_be_used_from_its_first_epoch_paused_and_cancelled(
    open_notebook: OpenNotebook,
) -> None:
    notebook = open_notebook(LIVE, viewport=TALL)
    notebook.run(0)
    view = first_view(notebook)
    bar = view.root.locator(".qw-progress")
    pause, cancel = view.root.locator(".qw-pause"), view.root.locator(".qw-cancel")
    train = view.root.locator(".qw-train")
    expect(view.status).to_have_text(re.compile(r"^Epoch \d+ of 200"))
    expect(bar).to_be_visible()
    expect(train).to_be_hidden()

    # Used while it runs.
    view.page.wait_for_function(
        "() => !document.querySelector('.qw-epsilon input').disabled"
        " && !document.querySelector('.qw-epoch input').disabled"
    )
    before = view.geometry()
    drag(view, "epsilon", 1.0)
    expect(view.readout("epsilon")).to_have_text("0.10")
    view.page.wait_for_function(
        f"before => ({GEOMETRY})().plane_now !== before.plane_now", arg=before
    )
    expect(bar).to_be_visible()
    # The newest epoch is followed.
    expect(view.readout("epoch")).not_to_have_text("1")
    fraction = "() => Number(document.querySelector('.qw-progress').ariaValueNow)"
    view.page.wait_for_function(f"() => ({fraction})() >= 1")

    pause.click()
    expect(view.status).to_have_text(re.compile(r"^Paused in epoch \d+$"))
    expect(pause).to_have_text("Resume")
    # A view that was scrubbed back stays.
    view.slider("epoch").press("Home")
    expect(view.readout("kind")).to_have_text("untrained network")
    paused = int(re.findall(r"\d+", view.status.inner_text())[0])
    pause.click()
    expect(pause).to_have_text("Pause")
    view.page.wait_for_function(
        "paused => Number(/Epoch (\\d+) of/.exec("
        "document.querySelector('.qw-status').textContent)?.[1]) > paused + 1",
        arg=paused,
    )
    expect(view.readout("epoch")).to_have_text("0")

    cancel.click()
    told = re.compile(r"^Cancelled in epoch \d+; epochs 0 to \d+ are kept$")
    expect(view.status).to_have_text(told)
    for element in (bar, pause, cancel):
        expect(element).to_be_hidden()
    expect(train).to_be_visible()
    kept = int(re.findall(r"\d+", view.status.inner_text())[-1])
    assert kept > paused
    shown = notebook.execute("e.wait(30); print(len(e.sweep.dataset.epoch), e.sweep.complete)")
    assert shown == f"{kept + 1} False\n"
    # The slider goes to the last planned epoch; what is chosen ends with what is finished.
    view.slider("epoch").press("End")
    expect(view.readout("epoch")).to_have_text(str(kept))
    drag(view, "epsilon", 0.0)
    expect(view.readout("kind")).to_have_text("trained network")

    train.click()
    view.root.locator(".qw-guard-replace").click()
    expect(view.status).to_have_text(re.compile(r"^(Preparing|Epoch \d+ of 200)"))
    expect(bar).to_be_visible()
    notebook.execute("e.close()")
    expect(view.root).to_have_count(0)
    assert notebook.errors == []


def test_a_reload_while_training_shows_every_finished_epoch(open_notebook: OpenNotebook) -> None:
    notebook = open_notebook(LIVE, viewport=TALL)
    notebook.run(0)
    view = first_view(notebook)
    # The first epoch may be a while in coming on a busy machine.
    expect(view.slider("epoch")).to_be_enabled(timeout=60_000)
    page = notebook.page
    page.evaluate("window.jupyterapp.commands.execute('docmanager:save')")
    page.reload()
    page.wait_for_function("window.jupyterapp !== undefined")
    view = View(page.locator(".qw-root"))
    view.wait_drawn()
    expect(view.slider("epoch")).to_be_enabled(timeout=60_000)
    # The epochs from before the reload and those from after it are all there, and more come.
    epoch = view.readout("epoch")
    count = int(epoch.inner_text())
    for _ in range(2):
        page.wait_for_function(
            f"""count => {{
              const last = Number(document.querySelector('.qw-readout-epoch').textContent);
              const [, curves] = JSON.parse(({GEOMETRY})().curves_clean);
              return last > count && curves.length === 2 && curves.every(
                path => path.split('L').length === last + 1 && !path.includes('NaN'));
            }}""",
            arg=count,
        )
        count = int(epoch.inner_text())
    assert notebook.errors == []


def test_a_cell_can_be_run_again(open_notebook: OpenNotebook, saved: Saved) -> None:
    notebook = open_notebook(show(saved.path), viewport=TALL)
    for _ in range(3):
        notebook.run(0)
        expect(notebook.page.locator(".qw-root")).to_have_count(1)
        view = first_view(notebook)
        assert_readout(view, saved.sweep)
        drag(view, "epsilon", 1.0)
        assert_readout(view, saved.sweep, epsilon=0.2)
    assert notebook.errors == []


def test_two_views_of_one_explorer_move_together(open_notebook: OpenNotebook, saved: Saved) -> None:
    notebook = open_notebook(show(saved.path), "e", viewport={"width": 1400, "height": 2600})
    notebook.run()
    views = [first_view(notebook, cell) for cell in (0, 1)]
    drag(views[0], "epsilon", 0.5)
    views[1].slider("epoch").press("ArrowLeft")
    for view in views:
        assert_readout(view, saved.sweep, epsilon=0.1, epoch=EPOCHS - 1)
        expect(view.slider("epsilon")).to_have_value("1")
        expect(view.slider("epoch")).to_have_value(str(EPOCHS - 1))
    places = [
        view.root.locator(".qw-plane g.object_grp").last.get_attribute("transform")
        for view in views
    ]
    assert places[0] == places[1]
    # Without the first cell's view the second one goes on.
    notebook.page.evaluate("window.jupyterapp.commands.execute('notebook:clear-all-cell-outputs')")
    expect(notebook.page.locator(".qw-root")).to_have_count(0)
    notebook.run(1)
    view = first_view(notebook, 1)
    assert_readout(view, saved.sweep, epsilon=0.1, epoch=EPOCHS - 1)
    drag(view, "epsilon", 1.0)
    assert_readout(view, saved.sweep, epsilon=0.2, epoch=EPOCHS - 1)
    assert notebook.errors == []


DRAWN = """
root => [...root.querySelectorAll('.qw-figure .curve path, .qw-figure .object_grp')].map(part => {
  const shown = part.matches('path') ? part : part.querySelector('path');
  const {fill, stroke, opacity, strokeDasharray} = getComputedStyle(shown);
  // A transition of d3 writes a transform in its own way, in single precision.
  const numbers = text => text?.match(/[A-Za-z]+|-?[0-9.]+(e-?\\d+)?/g)
    .map(word => Number(word) ? Number(word).toFixed(3) : word).join(' ');
  const places = ['d', 'transform'].map(name => numbers(part.getAttribute(name)));
  return [...places, fill, stroke, opacity, strokeDasharray].join(' | ');
})
"""


@pytest.mark.parametrize("plane", ["along the attack", "class neighbourhood"])
def test_what_moved_looks_as_what_is_drawn_anew(
    open_notebook: OpenNotebook, saved: Saved, plane: str
) -> None:
    """Lines and dots are moved by us; the view that is opened afterwards is drawn by bqplot."""
    notebook = open_notebook(show(saved.path), "e", viewport={"width": 1400, "height": 2600})
    notebook.run(0)
    view = first_view(notebook)
    seen = [view.root.evaluate(DRAWN)]
    view.root.locator(".qw-plane-view").select_option(plane)
    drag(view, "epsilon", 0.7)
    drag(view, "regularization", 0.3)
    view.slider("epoch").press("ArrowLeft")
    view.slider("attack_epsilon").press("Home")
    notebook.run(1)
    anew = first_view(notebook, 1)
    expect(anew.readout("epsilon")).to_have_text(view.readout("epsilon").inner_text())
    notebook.wait_idle()
    seen += [each.root.evaluate(DRAWN) for each in (view, anew)]
    assert seen[1] == seen[2]
    changed = [before != now for before, now in zip(seen[0], seen[1], strict=False)]
    assert sum(changed) > 10
    assert notebook.errors == []


@pytest.mark.parametrize("width", [800, 1100, 1900])
def test_it_fits_the_page(open_notebook: OpenNotebook, saved: Saved, width: int) -> None:
    notebook = open_notebook(show(saved.path), viewport={"width": width, "height": 1500})
    notebook.run(0)
    view = first_view(notebook)
    outside = view.root.evaluate(
        """root => {
          const {left, right} = root.getBoundingClientRect();
          const parts = root.querySelectorAll('.qw-control, .qw-panel, .qw-readout, .qw-header *,'
            + ' input, select, svg.svg-figure, canvas');
          return [...parts].filter(part => {
            const box = part.getBoundingClientRect();
            return box.width && (box.left < left - 1 || box.right > right + 1);
          }).map(part => part.className.baseVal ?? part.className ?? part.tagName);
        }"""
    )
    assert outside == []
    assert view.root.evaluate("root => root.scrollWidth <= root.clientWidth")
    boxes = [panel.bounding_box() for panel in view.root.locator(".qw-panel:visible").all()]
    assert all(box is not None and box["width"] > 250 for box in boxes)
    assert notebook.errors == []


def test_what_is_refused_leaves_no_widget(open_notebook: OpenNotebook) -> None:
    notebook = open_notebook(
        "import qwidgets as qw\ntry:\n    qw.Explorer(data='digit')\nexcept ValueError as error:\n"
        "    print(error)"
    )
    notebook.run(0)
    assert "digits" in notebook.text(0)
    expect(notebook.page.locator(".qw-root")).to_have_count(0)
    assert notebook.errors == []


def numbers(look: str) -> list[float]:
    """The numbers of how a mark looks; a transition of d3 writes them in single precision."""
    return [float(number) for number in re.findall(r"-?\d+(?:\.\d+)?", look)]


# Moves sliders to their ends, all before the next frame.
TO_THE_ENDS = """
(root, names) => {
  for (const name of names) {
    const slider = root.querySelector(`.qw-${name} input[type=range]`);
    slider.value = slider.max;
    slider.dispatchEvent(new Event('input', {bubbles: true}));
  }
}
"""


def test_moves_that_follow_at_once_are_drawn_where_the_last_one_led(
    opened: Notebook, view: View
) -> None:
    """The first changes how many dots there are, so that bqplot draws, and takes two frames."""
    opened.execute("e.plane, e.epoch = 'neighborhood', 1")
    expect(view.readout("epoch")).to_have_text("1")
    view.settle()
    view.root.evaluate(TO_THE_ENDS, ["epoch", "epsilon"])
    seen = view.geometry()
    # Drawn anew: there and back.
    view.slider("epsilon").press("Home")
    view.settle()
    view.slider("epsilon").press("End")
    anew = view.geometry()
    assert seen.pop("phase") == anew.pop("phase")
    for name in seen:
        assert numbers(seen[name]) == pytest.approx(numbers(anew[name]), abs=0.01), name


OWN_IN_A_TAB = """
import ipywidgets
import qwidgets as qw
sweep = qw.open_sweep({path!r})
models = {{"one": sweep.model(epsilon=0, regularization=0),
          "two": sweep.model(epsilon=0.2, regularization=0)}}
e = qw.Explorer(qw.measure(models, sweep.data, probe_images=1, test_size=60, progress=False))
ipywidgets.Tab([ipywidgets.HTML("first"), e], titles=["first", "second"])
"""


def test_a_figure_is_drawn_when_there_is_room_for_it(
    open_notebook: OpenNotebook, saved: Saved
) -> None:
    """Not in a panel that models of one's own do not have, and in a tab once it is in front."""
    notebook = open_notebook(OWN_IN_A_TAB.format(path=str(saved.path)), viewport=TALL)
    notebook.run(0)
    figures = notebook.cell(0).locator("svg.svg-figure")
    root = notebook.cell(0).locator(".qw-root")
    expect(root).to_be_attached()
    notebook.wait_idle()
    expect(figures).to_have_count(0)
    notebook.page.get_by_role("tab", name="second").click()
    expect(root.locator(".qw-robustness path.line").last).to_have_attribute("d", re.compile("^M"))
    expect(root.locator(".qw-tradeoff g.object_grp").last).to_be_visible()
    # Both of the plane, and two.
    expect(figures).to_have_count(4)
    expect(root.locator(".qw-curves svg.svg-figure")).to_have_count(0)
    assert notebook.errors == []
