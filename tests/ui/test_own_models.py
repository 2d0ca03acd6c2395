"""Models of one's own: their names, words that fit them, their panels in a narrow page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from .view import View

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .lab import Lab, Notebook

LONG = "trained with adversarial examples at 8/255 and a cosine schedule"
CELL = f"""
import torch, qwidgets as qw
from torch import nn
def network(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
digits = qw.load_data("digits", test_size=60)
names = ["a", "automobile", "cat", "aeroplane of war", "frog", "x", "deer", "ship", "dog", "truck"]
data = qw.Dataset.from_arrays(
    digits.train_inputs, digits.train_labels, class_names=names,
    test_inputs=digits.test_inputs, test_labels=digits.test_labels)
e = qw.Explorer(models={{"plain": network(0), {LONG!r}: network(1)}}, data=data,
                probe_images=1, attack_steps=1, detail=False)
e.wait()
e
"""
ALL = "e.panels = ['plane', 'phase_space', 'tradeoff', 'curves', 'robustness', 'lens']"


@pytest.fixture(scope="module")
def notebook(lab: Lab) -> Iterator[Notebook]:
    with lab.notebook([CELL], viewport={"width": 1400, "height": 1900}) as running:
        running.run(0)
        yield running
        assert running.errors == []


@pytest.fixture
def view(notebook: Notebook) -> Iterator[View]:
    view = View(notebook.cell(0).locator(".qw-root"))
    # All that it draws; it has no curves of a training.
    expect(view.root.locator(".qw-robustness svg.svg-figure g[clip-path]")).to_have_count(3)
    yield view
    notebook.page.set_viewport_size({"width": 1400, "height": 1900})
    notebook.execute(ALL + "; e.model = 'plain'")


def test_the_words_are_of_models_and_not_of_a_grid(view: View) -> None:
    expect(view.readout("model")).to_have_text("plain")
    for of_grid in ("epsilon", "regularization", "epoch"):
        expect(view.readout(of_grid)).to_be_hidden()
    legend = view.root.locator(".qw-key li:visible")
    assert legend.all_inner_texts() == [
        *("this model", "compare: plain", "the other models", "forbidden: σx σp < ½")
    ]
    view.root.locator(".qw-models select").select_option(LONG)
    expect(view.readout("model")).to_have_text(LONG)
    # The same words describe a picture that is saved.
    view.root.locator("button.qw-export").click()
    with view.page.expect_download() as saving:
        view.root.locator(".qw-save-plane-svg").click()
    view.page.keyboard.press("Escape")
    drawn = Path(saving.value.path()).read_text("utf-8")
    assert f"model {LONG}, class a, σx" in drawn
    assert "ε" not in drawn


def test_the_bars_of_the_classes_compare(view: View) -> None:
    expect(view.root.locator(".qw-lens-classes li")).to_have_count(10, timeout=30_000)
    places = view.root.locator(".qw-lens-classes div").evaluate_all(
        "bars => bars.map(b => b.getBoundingClientRect()).map(b => `${b.left} ${b.width}`)"
    )
    assert len(set(places)) == 1


def test_each_has_a_row_in_a_narrow_page(view: View) -> None:
    view.page.set_viewport_size({"width": 700, "height": 1900})
    # Sizes are told to the figures, which draw anew.
    view.page.wait_for_timeout(500)
    (all_, *each) = view.root.evaluate(
        "root => [...root.querySelectorAll('.qw-panels, .qw-panel')]"
        ".map(e => e.offsetWidth).filter(width => width)"
    )
    assert all_ < 640
    assert each == [all_] * 5


def test_what_they_have_no_panel_for_is_said(notebook: Notebook, view: View) -> None:
    words = view.root.locator(".qw-none")
    expect(words).to_be_hidden()
    notebook.execute("e.panels = ['curves']")
    expect(words).to_have_text("Panels chosen: Training. These data have none of them.")
    notebook.execute("e.panels = ['curves', 'robustness']")
    expect(words).to_be_hidden()
    expect(view.root.locator(".qw-robustness")).to_be_visible()
    notebook.execute("e.panels = ['curves', 'input_plane']")
    expect(words).to_contain_text("Panels chosen: Training, Input plane.")
