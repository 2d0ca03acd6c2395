"""What a saved notebook shows when it is opened again: live, or as a picture with words."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from .view import View, assert_readout, first_view

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Locator

    from .conftest import OpenNotebook
    from .lab import Lab, Notebook
    from .view import Saved

TALL = {"width": 1400, "height": 1800}
PICTURE = "text/html"
DEAD = re.compile("Loading widget|Error displaying widget")
TRAINED = """
import qwidgets as qw
t = qw.Explorer(epsilon=[0, .1], regularization=[0, .1], epochs=2, train_size=300, test_size=40)
display(t)
"""
# Looks at every frame whether a picture is seen; what is hidden has no boxes.
WATCH = """
() => {
  window.seenPictures = [];
  const look = () => {
    for (const picture of document.querySelectorAll('.qw-saved')) {
      if (picture.getClientRects().length) seenPictures.push(picture.className);
    }
    requestAnimationFrame(look);
  };
  look();
}
"""
SEEN = "seenPictures.length"


def show(path: Path, name: str = "e") -> str:
    return f"import qwidgets as qw\n{name} = qw.Explorer(qw.open_sweep({str(path)!r}))\n{name}"


def picture(notebook: Notebook, cell: int = 0) -> Locator:
    return notebook.cell(cell).locator(".qw-saved")


def assert_picture(notebook: Notebook, cell: int = 0) -> None:
    """A drawing that has been decoded, words, and no word of a widget that is not there."""
    shown = picture(notebook, cell)
    expect(shown).to_be_visible()
    image = shown.locator("img")
    image.evaluate("image => image.decode()")
    assert image.evaluate("image => image.naturalWidth / image.naturalHeight") > 1.5
    box, around = image.bounding_box(), notebook.cell(cell).bounding_box()
    assert box is not None
    assert around is not None
    assert box["width"] > 300
    assert box["x"] >= around["x"]
    assert box["x"] + box["width"] <= around["x"] + around["width"]
    expect(shown).to_contain_text(
        re.compile(r"^\s*Explorer: 6 trained networks\. digits .*σx = \d")
    )
    expect(shown).to_contain_text("Run the cell")
    expect(notebook.cell(cell).get_by_text(DEAD)).to_be_hidden()


@pytest.fixture(scope="module")
def written(lab: Lab, saved: Saved) -> str:
    """A notebook with three Explorers, one of which has two views, saved by a person."""
    cells = [show(saved.path), "e", show(saved.path, "other"), "'last'"]
    with lab.notebook(cells, viewport=TALL) as notebook:
        notebook.page.evaluate(WATCH)
        for cell in range(3):
            notebook.run(cell)
            first_view(notebook, cell)
        # Neither while the views came nor now.
        notebook.page.wait_for_timeout(500)
        assert notebook.page.evaluate(SEEN) == 0
        for cell in range(3):
            # The view is all there is.
            around = notebook.cell(cell).bounding_box()
            view = notebook.cell(cell).locator(".qw-explorer").bounding_box()
            assert around is not None
            assert view is not None
            assert around["height"] - view["height"] < 12
        notebook.save()
        assert notebook.errors == []
        return notebook.path


@pytest.mark.parametrize("kernel", [True, False], ids=["another kernel", "no kernel"])
def test_it_shows_pictures_and_words(lab: Lab, written: str, *, kernel: bool) -> None:
    with lab.reopened(written, viewport=TALL, kernel=kernel) as notebook:
        for cell in range(3):
            assert_picture(notebook, cell)
        notebook.set_theme("dark")
        ink = "element => getComputedStyle(element).color"
        grounds = picture(notebook).locator("img"), picture(notebook).locator("p").first
        assert grounds[0].evaluate("image => getComputedStyle(image).backgroundColor") == (
            "rgb(255, 255, 255)"
        )
        red = int(re.findall(r"\d+", grounds[1].evaluate(ink))[0])
        assert red > 180
        assert all("widget model not found" in error for error in notebook.errors)


def test_it_shows_them_to_whom_does_not_trust_it(lab: Lab, written: str) -> None:
    content = json.loads((lab.root / written).read_text("utf-8"))
    # Another file than the one that was signed.
    content["metadata"]["changed"] = True
    (lab.root / "untrusted.ipynb").write_text(json.dumps(content), "utf-8")
    with lab.reopened("untrusted.ipynb", viewport=TALL) as notebook:
        trusted = "notebookDriver.panel.content.widgets[0].model.trusted"
        assert notebook.page.evaluate(trusted) is False
        for cell in range(3):
            assert_picture(notebook, cell)
        assert notebook.errors == []


def test_a_cell_that_is_run_again_is_live(lab: Lab, written: str, saved: Saved) -> None:
    with lab.reopened(written, viewport=TALL) as notebook:
        assert_picture(notebook, 0)
        notebook.run(0)
        view = first_view(notebook, 0)
        assert_readout(view, saved.sweep)
        expect(picture(notebook, 0)).to_be_hidden()
        # The other cells are as they were.
        for cell in (1, 2):
            assert_picture(notebook, cell)


def test_a_page_that_is_loaded_again_is_live(
    open_notebook: OpenNotebook, lab: Lab, saved: Saved
) -> None:
    notebook = open_notebook(show(saved.path), viewport=TALL)
    notebook.run(0)
    first_view(notebook)
    notebook.save()
    with lab.reopened(notebook.path, viewport=TALL) as again:
        assert_readout(first_view(again), saved.sweep)
        expect(picture(again)).to_be_hidden()
        # What is closed leaves its picture.
        again.execute("e.close()")
        expect(again.cell(0).locator(".qw-root")).to_have_count(0)
        assert_picture(again)
        assert again.errors == []


def test_the_picture_follows_a_training(open_notebook: OpenNotebook) -> None:
    notebook = open_notebook(TRAINED, "t.refine(1, epsilon=0.05)", viewport=TALL)
    page = notebook.page
    page.evaluate(WATCH)
    notebook.run(0)
    view = View(notebook.cell(0).locator(".qw-root"))
    view.wait_drawn()
    for said in ("Trained 2 epochs", "Refined"):
        expect(view.status).to_have_text(re.compile(f"^{said}"), timeout=120_000)
        page.wait_for_function(
            "said => notebookDriver.outputs(0)[1].data['text/html'].includes(said)", arg=said
        )
        assert "<img" in notebook.outputs(0)[1]["data"][PICTURE]
        if said == "Trained 2 epochs":
            notebook.run(1)
    assert page.evaluate(SEEN) == 0
    assert notebook.errors == []


def test_the_watch_sees_what_is_shown(lab: Lab, written: str) -> None:
    # The control experiment of the tests above.
    with lab.reopened(written, viewport=TALL) as notebook:
        notebook.page.evaluate(WATCH)
        assert_picture(notebook)
        notebook.page.wait_for_function(f"{SEEN} > 0")


@pytest.mark.parametrize("comes", [True, False], ids=["comes", "does not come"])
def test_it_waits_for_a_view_that_is_loading(lab: Lab, written: str, *, comes: bool) -> None:
    content = json.loads((lab.root / written).read_text("utf-8"))
    html = "".join(content["cells"][0]["outputs"][1]["data"][PICTURE])
    model = re.search("qw-saved-([0-9a-f]{32})", html)
    assert model is not None
    view_class = f"'lm-Widget qw-view-{model[1]}'"
    become_live = f'view => {{ view.innerHTML = "<p class={view_class}>live"; }}'
    child, output = "jp-OutputArea-child", "jp-OutputArea-output"
    page = lab.context.new_page()
    try:
        page.set_content(
            f'<div class="{child}"><div id="view" class="lm-Panel {output}">Loading widget...</div>'
            f'</div><div class="{child}"><div class="{output}">{html}</div></div>'
        )
        view, shown = page.locator("#view"), page.locator(".qw-saved")
        page.wait_for_timeout(500)
        expect(shown).to_be_hidden()
        expect(view).to_be_visible()
        if comes:
            view.evaluate(become_live)
            page.wait_for_timeout(4000)
            expect(shown).to_be_hidden()
            expect(view).to_be_visible()
        else:
            expect(shown).to_be_visible()
            expect(view).to_be_hidden()
            # Late is better than never.
            view.evaluate(become_live)
            expect(shown).to_be_hidden()
            expect(view).to_be_visible()
    finally:
        page.close()
