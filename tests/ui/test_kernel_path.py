"""What the Explorer asks the kernel for: lens, refining, own models, another training."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

import qwidgets as qw

from .view import EPOCHS, GEOMETRY, View, drag, first_view, show, significant

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import OpenNotebook, OpenOffline
    from .lab import Notebook
    from .view import Saved

TALL = {"width": 1400, "height": 1900}
# What an image shows, as on a canvas.
PIXELS = """image => {
  const {naturalWidth: width, naturalHeight: height} = image;
  const pen = new OffscreenCanvas(width, height).getContext('2d');
  pen.drawImage(image, 0, 0);
  return pen.getImageData(0, 0, width, height).data;
}"""
PICTURES = ("image", "perturbation", "attacked", "position", "momentum")


def wait_done(view: View, words: str) -> None:
    """Wait for the end of a run, which a busy machine may put off."""
    expect(view.status).to_have_text(re.compile(words), timeout=60_000)


def wait_seen(view: View) -> None:
    """Wait until the lens has its last picture, of what the sliders choose."""
    there = ".qw-lens:not(.qw-lens-elsewhere) .qw-lens-momentum .qw-lens-cells:not(.qw-lens-none)"
    expect(view.root.locator(there)).to_be_visible(timeout=30_000)


def colors(view: View, picture: str) -> int:
    """Count the colours of a picture of the lens."""
    count: int = view.root.locator(f".qw-lens-{picture} .qw-lens-cells img").evaluate(
        "image => { const pixels = (" + PIXELS + ")(image);"
        " return new Set(new Uint32Array(pixels.buffer)).size; }"
    )
    return count


def lens_of(saved: Saved, epsilon: float, label: int, image: int, radius: float) -> qw.Lens:
    data, attributes = saved.sweep.data, saved.sweep.dataset.attrs
    index = (data.test_labels == label).nonzero()[image, 0]
    return qw.lens(
        saved.sweep.model(epsilon=epsilon, regularization=0),
        data.test_inputs[index],
        label,
        epsilon=radius,
        radius=attributes["neighborhood_radius"],
        steps=attributes["measurement_attack_steps"],
        seed=attributes["seed"],
    )


def test_the_lens_follows_every_choice_and_reads_each_pixel(
    open_notebook: OpenNotebook, saved: Saved
) -> None:
    notebook = open_notebook(show(saved.path), viewport=TALL)
    notebook.run(0)
    view = first_view(notebook)
    wait_seen(view)
    note = view.root.locator(".qw-lens .qw-note")
    expect(note).to_have_text(f"of the trained network at ε 0.00, λ 0.00, after epoch {EPOCHS}")
    for picture in PICTURES:
        assert colors(view, picture) >= 2
    assert view.root.locator(".qw-lens-classes li").count() == 10

    view.root.locator(".qw-lens-next").click()
    view.select.select_option("4")
    drag(view, "epsilon", 1.0)
    drag(view, "attack_epsilon", 1.0)
    expect(note).to_have_text(f"of the trained network at ε 0.20, λ 0.00, after epoch {EPOCHS}")
    expect(view.root.locator(".qw-lens-which")).to_have_text(re.compile("^image 2 of "))
    wait_seen(view)
    seen = lens_of(saved, 0.2, 4, 1, 0.2)

    # Hovering one picture marks the pixel in all, and reads it.
    row, column = 2, 5
    cells = view.root.locator(".qw-lens-perturbation .qw-lens-cells")
    box = cells.bounding_box()
    assert box is not None
    place = {"x": box["width"] * (column + 0.5) / 8, "y": box["height"] * (row + 0.5) / 8}
    cells.hover(position=place)
    expect(view.root.locator(".qw-lens-mark:visible")).to_have_count(len(PICTURES))
    words = view.root.locator(".qw-lens-readout")
    assert seen.momentum_std is not None
    assert seen.momentum_std_error is not None
    momentum = significant(float(seen.momentum_std[0, row, column]))
    expect(words).to_contain_text(f"row {row + 1}, column {column + 1} · image ")
    expect(words).to_contain_text(f"σp {momentum} ± ")
    tops = view.root.locator(".qw-lens-mark").evaluate_all("marks => marks.map(m => m.style.top)")
    assert set(tops) == {f"{100 * row / 8:g}%"}

    # The keyboard reads the pixels too, and what it presses stays here.
    strip = view.root.locator(".qw-lens-strip")
    notebook.page.mouse.move(2, 2)
    strip.focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowDown", "b"):
        notebook.page.keyboard.press(key)
    expect(words).to_contain_text("row 2, column 2 ·")
    expect(notebook.page.locator(".jp-Notebook .jp-CodeCell")).to_have_count(1)
    notebook.page.keyboard.press("Escape")
    expect(words).to_have_text(re.compile(r"^Clean it is read as .*, attacked at radius 0\.20 as "))
    assert notebook.errors == []


def test_refining_turns_the_hollow_marker_solid(open_notebook: OpenNotebook, saved: Saved) -> None:
    notebook = open_notebook(show(saved.path), viewport=TALL)
    notebook.run(0)
    view = first_view(notebook)
    button = view.root.locator(".qw-refine")
    expect(button).to_be_disabled()
    view.slider("epsilon").press("ArrowRight")
    view.slider("epsilon").press("ArrowRight")
    expect(view.readout("kind")).to_have_text(re.compile("^interpolated"))
    for panel in ("plane-attack", "tradeoff"):
        assert view.now_fill(panel) in {"none", "rgba(0, 0, 0, 0)"}
    dots = len(json.loads(view.geometry()["plane_networks"])[0])
    button.click()
    wait_done(view, rf"^Refined ε 0\.05, λ 0 by {EPOCHS} epochs in ")
    expect(view.readout("kind")).to_have_text("refined network")
    for panel in ("plane-attack", "tradeoff"):
        assert view.now_fill(panel) not in {"none", "rgba(0, 0, 0, 0)"}
    assert len(json.loads(view.geometry()["plane_networks"])[0]) == dots + 1
    expect(button).to_be_disabled()
    refined = notebook.execute(
        "d = e.refinements[0].dataset\nprint(float(d.momentum_std[0, 0, -1, 0]))"
    )
    text = re.compile(rf"^{re.escape(significant(float(refined)))} ± ")
    expect(view.readout("momentum")).to_have_text(text)
    expect(view.root.locator(".qw-lens .qw-note")).to_contain_text(
        "of the refined network at ε 0.05"
    )
    # The scrubber plays its trail: epoch 0 is where it started.
    view.slider("epoch").press("Home")
    expect(view.readout("kind")).to_have_text("the network it was refined from")
    view.slider("epoch").press("End")

    # It stays: the sliders leave it, and its button returns to it.
    drag(view, "epsilon", 1.0)
    expect(view.readout("kind")).to_have_text("trained network")
    view.root.locator(".qw-refined button").click()
    expect(view.readout("kind")).to_have_text("refined network")
    expect(view.value("epsilon")).to_have_text("0.05")
    assert notebook.errors == []


def test_a_refinement_streams_and_can_be_cancelled(
    open_notebook: OpenNotebook, saved: Saved
) -> None:
    notebook = open_notebook(show(saved.path), viewport=TALL)
    notebook.run(0)
    view = first_view(notebook)
    notebook.execute("e.epsilon = 0.15; e.refine(100_000)")
    expect(view.readout("kind")).to_have_text(re.compile(r"^being refined, \d+ of 100000 epochs$"))
    expect(view.status).to_have_text(re.compile(r"^Refining ε 0\.15, λ 0: epoch \d+ of 100000"))
    first = view.geometry()["plane_now"]
    view.page.wait_for_function(f"before => ({GEOMETRY})().plane_now !== before", arg=first)
    assert view.now_fill("plane-attack") in {"none", "rgba(0, 0, 0, 0)"}
    trail = json.loads(view.geometry()["plane_trail"])[1][0]
    assert trail.count("L") >= 1
    view.root.locator(".qw-cancel").click()
    expect(view.status).to_have_text(
        re.compile(r"^Cancelled in epoch \d+ of refining ε 0\.15, λ 0; \d+ of its epochs are kept$")
    )
    expect(view.root.locator(".qw-refine")).to_be_enabled()
    assert notebook.errors == []


MODELS = """
import qwidgets as qw
sweep = qw.open_sweep({path!r})
models = {{"clean": sweep.model(epsilon=0, regularization=0),
          "robust": sweep.model(epsilon=0.2, regularization=0)}}
e = qw.Explorer(models=models, data=sweep.data, probe_images=1, test_size=100)
e
"""


def test_models_of_ones_own_have_a_menu_instead_of_the_sliders(
    open_notebook: OpenNotebook, saved: Saved
) -> None:
    notebook = open_notebook(MODELS.format(path=str(saved.path)), viewport=TALL)
    notebook.run(0)
    view = first_view(notebook)
    wait_done(view, r"^Measured 2 models in ")
    menu = view.root.locator(".qw-models select")
    assert menu.locator("option").all_inner_texts() == ["clean", "robust"]
    for control in ("epsilon", "regularization", "epoch", "curves", "refine", "setup"):
        expect(view.root.locator(f".qw-{control}")).to_be_hidden()
    assert len(json.loads(view.geometry()["plane_networks"])[0]) == 2
    for name in ("robust", "clean"):
        menu.select_option(name)
        ask = f"print(float(e.sweep.dataset.sel(model={name!r}).momentum_std[0]))"
        momentum = significant(float(notebook.execute(ask)))
        text = re.compile(rf"^{re.escape(momentum)}( ± |$)")
        expect(view.readout("momentum")).to_have_text(text)
        expect(view.readout("kind")).to_have_text("your model")
        expect(view.root.locator(".qw-lens .qw-note")).to_have_text(f"of {name}")
        wait_seen(view)
        expect(menu).to_have_value(name)
    notebook.execute("e.model = 'robust'")
    expect(menu).to_have_value("robust")
    assert notebook.errors == []


SMALL = """
import qwidgets as qw
e = qw.Explorer(epsilon=[0, .1], regularization=[0, .1], epochs=2, train_size=200, test_size=60,
                attack_steps=1, probe_images=1)
e
"""


def test_a_new_training_asks_before_it_throws_work_away(open_notebook: OpenNotebook) -> None:
    notebook = open_notebook(SMALL, viewport=TALL)
    notebook.run(0)
    view = first_view(notebook)
    wait_done(view, r"^Trained 2 epochs in ")
    view.root.locator(".qw-setup summary").click()
    view.root.locator(".qw-data select").select_option("moons")
    expect(view.root.locator(".qw-model select")).to_have_value("mlp")
    train = view.root.locator(".qw-train-new")
    guard = view.root.locator(".qw-guard")
    train.click()
    expect(guard).to_contain_text("takes the place of 4 networks trained for 2 epochs.")
    keep = view.root.locator(".qw-guard-keep")
    expect(keep).to_be_focused()
    notebook.page.keyboard.press("Escape")
    expect(guard).to_be_hidden()
    expect(train).to_be_focused()
    assert notebook.execute("print(e.sweep.settings.data)") == "digits\n"

    train.press("Enter")
    keep.press("Enter")
    expect(view.root.locator(".qw-subtitle")).to_have_text(re.compile("^moons"))
    wait_done(view, r"^Trained 2 epochs in ")
    runs = view.root.locator(".qw-runs")
    expect(runs).to_be_visible()
    assert len(runs.locator("option").all_inner_texts()) == 2
    told = notebook.execute("print([s.settings.data for s in e.kept], e.wait().settings.epochs)")
    assert told == "['digits', 'moons'] 2\n"
    runs.select_option(index=0)
    expect(view.root.locator(".qw-subtitle")).to_have_text(re.compile("^digits"))
    assert notebook.execute("print(e.sweep.settings.data)") == "digits\n"
    assert notebook.errors == []


# A long training, and beside it a short one.
RUNS = """
import qwidgets as qw
moons = dict(data="moons", epsilon=[0, .1], regularization=[0], train_size=60, test_size=60,
             attack_steps=1, probe_images=1, detail=None)
e = qw.Explorer(epochs=40, **moons)
e.wait()
e
"""
SHORT = "e.train(keep=True, epochs=3, width=0.3); e.wait()"
KINDS = """() => {
  window.kinds = [];
  const kind = document.querySelector('.qw-readout-kind');
  new MutationObserver(() => window.kinds.push(kind.textContent)).observe(
    kind, {subtree: true, childList: true, characterData: true});
}"""


def test_playing_ends_with_the_training_that_was_played(open_notebook: OpenNotebook) -> None:
    notebook = open_notebook(RUNS, viewport=TALL)
    notebook.run(0)
    view = first_view(notebook)
    play = view.root.locator(".qw-play")
    # The question of a training that has begun meanwhile is asked no more.
    view.root.locator(".qw-setup summary").click()
    view.root.locator(".qw-train-new").click()
    expect(view.root.locator(".qw-guard")).to_be_visible()
    play.click()
    expect(view.value("epoch")).to_have_text(re.compile(r"^([4-9]|[12]\d)$"))
    notebook.page.evaluate(KINDS)
    notebook.execute(SHORT)
    expect(view.value("epoch")).to_have_text("3")
    expect(play).to_have_attribute("aria-label", "Play the epochs")
    expect(view.root.locator(".qw-guard")).to_be_hidden()
    notebook.page.wait_for_timeout(500)
    assert not [said for said in notebook.page.evaluate("kinds") if said.startswith("undefined")]
    expect(view.readout("epoch")).to_have_text("3")
    assert notebook.errors == []


def test_playing_goes_on_while_the_networks_train(open_notebook: OpenNotebook) -> None:
    endless = RUNS.replace("epochs=40", "epochs=4000").replace("e.wait()", "")
    notebook = open_notebook(endless, viewport=TALL)
    notebook.run(0)
    view = first_view(notebook)
    expect(view.status).to_have_text(re.compile(r"^Epoch \d\d+ of"), timeout=60_000)
    # Back a little, from where it would follow the newest by itself.
    for _ in range(3):
        view.slider("epoch").press("ArrowLeft")
    view.root.locator(".qw-play").click()
    told = notebook.execute("print(e.cube['finished'])")
    view.page.wait_for_function(
        "last => Number(document.querySelector('.qw-epoch output').textContent) > last",
        arg=int(told),
    )
    view.root.locator(".qw-cancel").click()
    expect(view.status).to_have_text(re.compile("^Cancelled"))
    assert notebook.errors == []


def test_a_kept_training_is_shown_once_and_never_beyond_its_end(
    open_notebook: OpenNotebook,
) -> None:
    notebook = open_notebook(RUNS, viewport=TALL)
    notebook.run(0)
    view = first_view(notebook)
    notebook.execute(SHORT)
    runs = view.root.locator(".qw-runs")
    expect(runs.locator("option")).to_have_count(2)
    notebook.execute(
        "asked, shown = [], e.show\ne.show = lambda index: (asked.append(index), shown(index))"
    )
    notebook.page.evaluate(KINDS)
    runs.select_option(index=0)
    expect(view.value("epoch")).to_have_text("40")
    expect(view.readout("kind")).to_have_text("trained network")
    assert not [said for said in notebook.page.evaluate("kinds") if said.startswith("undefined")]
    # Were it asked for again, the epoch would go back to the last.
    view.slider("epoch").press("Home")
    notebook.page.wait_for_timeout(2000)
    expect(view.readout("epoch")).to_have_text("0")
    assert notebook.execute("print(asked)") == "[0]\n"
    assert notebook.errors == []


def test_a_refined_network_has_epochs_of_its_own(open_notebook: OpenNotebook, saved: Saved) -> None:
    notebook = open_notebook(show(saved.path), viewport=TALL)
    notebook.run(0)
    view = first_view(notebook)
    notebook.execute("e.refine(1, epsilon=0.05); e.wait()")
    expect(view.readout("kind")).to_have_text("refined network")
    expect(view.value("epoch")).to_have_text(str(EPOCHS))
    expect(view.readout("epoch")).to_have_text("1")
    assert notebook.errors == []


FIELDS = """
import qwidgets as qw
e = qw.Explorer(data="temperature", model="encoder_decoder", epsilon=[0, .05], regularization=[0],
                epochs=1, train_size=60, test_size=30, attack_steps=1, probe_images=1, detail=None)
e
"""


def test_regressions_are_shown_and_offered_with_what_suits_them(
    open_notebook: OpenNotebook,
) -> None:
    notebook = open_notebook(FIELDS, viewport=TALL)
    notebook.run(0)
    view = first_view(notebook)
    wait_done(view, r"^Trained 1 epoch in ")
    # A field has pictures of what it should be and what it is.
    for picture in ("target", "output", "attacked-output"):
        cells = view.root.locator(f".qw-lens-{picture} .qw-lens-cells:not(.qw-lens-none)")
        expect(cells).to_be_visible(timeout=60_000)
    words, which = view.root.locator(".qw-lens-readout"), view.root.locator(".qw-lens-which")
    expect(words).to_contain_text(re.compile(r"^Clean it is off by [\d.]+ K, attacked at radius"))
    expect(which).to_have_text("input 1 of 10")

    def choices(name: str) -> list[str]:
        found: list[str] = view.root.locator(f".qw-{name} select").evaluate(
            "select => [...select.options].filter(o => !o.disabled).map(o => o.value)"
        )
        return found

    view.root.locator(".qw-setup summary").click()
    data, model, regularizer = (
        view.root.locator(f".qw-{name} select") for name in ("data", "model", "regularizer")
    )
    regularizer.select_option("label_smoothing")
    data.select_option("temperature")
    expect(model).to_have_value("encoder_decoder")
    expect(regularizer).to_have_value("")
    assert choices("regularizer") == ["", "gradient", "weight_decay"]
    data.select_option("digits")
    expect(model).to_have_value("")
    assert choices("model") == ["", "mlp", "conv", "resnet", "attention"]
    assert choices("regularizer") == ["", "gradient", "weight_decay", "label_smoothing"]

    # Numbers have the words of numbers.
    data.select_option("friedman")
    expect(model).to_have_value("mlp")
    assert choices("model") == ["", "mlp"]
    view.root.locator(".qw-train-new").click()
    view.root.locator(".qw-guard-replace").click()
    expect(view.root.locator(".qw-subtitle")).to_have_text(
        re.compile("^friedman · squared error · accuracy: share within 1 · mlp"), timeout=60_000
    )
    wait_done(view, r"^Trained 1 epoch in ")
    expect(view.root.locator(".qw-label label")).to_have_text("Group")
    expect(which).to_have_text("input 1 of 500", timeout=60_000)
    expect(words).to_contain_text("Point at a coordinate to read it.", timeout=60_000)

    # Classes again; what still runs would go on.
    again = "e.wait(60); e.train(data='digits', train_size=60); print(len(e.kept))"
    assert notebook.execute(again) == "1\n"
    expect(view.root.locator(".qw-subtitle")).to_have_text(re.compile("^digits"), timeout=60_000)
    wait_done(view, r"^Trained 1 epoch in ")
    expect(which).to_have_text(re.compile("^image 1 of"), timeout=60_000)
    expect(view.root.locator(".qw-label label")).to_have_text("Class")
    assert notebook.errors == []


def test_what_cannot_be_trained_says_why_and_leaves_the_rest(open_notebook: OpenNotebook) -> None:
    notebook = open_notebook(SMALL.replace("epochs=2", "epochs=1"), viewport=TALL)
    notebook.run(0)
    view = first_view(notebook)
    wait_done(view, r"^Trained 1 epoch in ")
    notebook.execute("e._handle_custom_msg({'type': 'train', 'width': -1}, [])")
    expect(view.status).to_have_text(re.compile("^ValueError: width must be positive and finite"))
    before = view.geometry()
    drag(view, "epsilon", 1.0)
    view.page.wait_for_function(
        f"before => ({GEOMETRY})().plane_now !== before.plane_now", arg=before
    )
    assert notebook.errors == []


def test_a_page_shows_the_lens_it_was_written_with(
    saved: Saved, tmp_path: Path, offline_page: OpenOffline
) -> None:
    page = offline_page(qw.export_html(saved.sweep, tmp_path / "page.html"), viewport=TALL)
    view = View(page.page.locator(".qw-root"))
    view.wait_drawn()
    expect(view.root.locator(".qw-lens .qw-note")).to_contain_text(
        "of the trained network at ε 0.00"
    )
    wait_seen(view)
    for hidden in ("refine", "setup"):
        expect(view.root.locator(f".qw-{hidden}")).to_be_hidden()
    expect(view.root.locator(".qw-lens-next")).to_be_disabled()
    drag(view, "epsilon", 1.0)
    words = view.root.locator(".qw-lens-readout")
    expect(words).to_contain_text("This page has no kernel: the lens stays with this network")
    view.root.locator(".qw-lens-image .qw-lens-cells").hover()
    expect(words).to_contain_text(re.compile("^row "))
    assert page.requests == []
    assert page.errors == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_maps_take_the_colours_of_the_theme(
    open_notebook: OpenNotebook, saved: Saved, theme: str
) -> None:
    notebook: Notebook = open_notebook(show(saved.path), viewport=TALL)
    notebook.run(0)
    view = first_view(notebook)
    wait_seen(view)
    notebook.set_theme(theme)  # type: ignore[arg-type]
    # The pixel of the smallest spread has the colour of the panel.
    panel = {"light": "255,255,255", "dark": "21,25,30"}[theme]
    view.page.wait_for_function(
        """panel => {
          const image = document.querySelector('.qw-lens-momentum .qw-lens-cells img');
          const data = ("""
        + PIXELS
        + """)(image);
          for (let i = 0; i < data.length; i += 4) {
            if (data.slice(i, i + 3).join() === panel) return true;
          }
          return false;
        }""",
        arg=panel,
    )
    assert notebook.errors == []
