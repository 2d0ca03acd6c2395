"""The first paint: everything in its place before PyTorch is there, and nothing moves after it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from .paint import RECORDER
from .view import View

if TYPE_CHECKING:
    from .conftest import OpenNotebook

# PyTorch cannot be found until somebody lets it: its import waits, as on a slow disk.
SLOW = """
import importlib.abc, sys, threading
class Slow(importlib.abc.MetaPathFinder):
    let = threading.Event()
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            self.let.wait()
sys.meta_path.insert(0, Slow())
"""
EXPLORER = """
import qwidgets as qw
e = qw.Explorer(epsilon=[0, .1], regularization=[0, .1], epochs=3, train_size=300, test_size=40)
e
"""
PLAIN = "import qwidgets as qw\ne = qw.Explorer()\ne"
MOMENTS = {"frame": ".qw-root .qw-panel", "figures": ".qw-robustness .bqplot g.axis text"}


@pytest.mark.parametrize("width", [1100, 1400, 1900])
def test_nothing_moves_from_the_first_paint_to_the_end_of_the_training(
    open_notebook: OpenNotebook, width: int
) -> None:
    notebook = open_notebook(EXPLORER, "", viewport={"width": width, "height": 1700})
    page = notebook.page
    page.evaluate(RECORDER, MOMENTS)
    page.locator(".jp-CodeCell .cm-content").first.click()
    page.keyboard.press("Shift+Enter")
    page.wait_for_function("'figures' in paintRecorder.seen && 'cell' in paintRecorder.seen")
    view = View(notebook.cell(0).locator(".qw-root"))
    expect(view.status).to_have_text(re.compile("^Trained 3 epochs"), timeout=120_000)
    view.wait_drawn()
    seen = view.root.locator(".qw-lens-which")
    expect(seen).to_have_text(re.compile("^image 1 of"), timeout=60_000)
    assert page.evaluate("paintRecorder.report().shifts") == []
    assert notebook.errors == []


def test_the_recorder_sees_what_moves(open_notebook: OpenNotebook) -> None:
    # The control experiment of the test above.
    notebook = open_notebook(PLAIN, viewport={"width": 1400, "height": 1700})
    notebook.execute(SLOW)
    page = notebook.page
    page.evaluate(RECORDER, MOMENTS)
    page.locator(".jp-CodeCell .cm-content").first.click()
    page.keyboard.press("Shift+Enter")
    page.wait_for_function("'figures' in paintRecorder.seen")
    # What comes within half a second of a key is not a shift to the browser.
    page.wait_for_timeout(700)
    page.evaluate("document.querySelector('.qw-readout').style.height = '90px'")
    page.wait_for_function("paintRecorder.report().shifts.length > 0")


def test_all_is_painted_before_pytorch_is_there(open_notebook: OpenNotebook) -> None:
    notebook = open_notebook(PLAIN, viewport={"width": 1400, "height": 1700})
    notebook.execute(SLOW)
    notebook.run(0)
    root = notebook.cell(0).locator(".qw-root")
    for panel in ("plane-attack", "tradeoff", "curves", "robustness"):
        expect(root.locator(f".qw-{panel} g.axis").first).to_be_visible()
    expect(root.locator(".qw-empty")).to_contain_text("The first networks are on their way")
    expect(root.locator(".qw-key li")).to_have_count(6)
    expect(root.locator(".qw-status")).to_contain_text("loading PyTorch")
    assert notebook.execute("print(e.run['phase'], 'torch' in sys.modules)") == "preparing False\n"
    # The cell is done and the kernel answers; let in, the training goes its way.
    notebook.execute("Slow.let.set()")
    expect(root.locator(".qw-status")).to_have_text(re.compile("^Epoch"), timeout=60_000)
    notebook.execute("e.cancel()")
    assert notebook.errors == []
