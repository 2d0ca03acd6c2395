"""What stays of an Explorer in a saved notebook."""

from __future__ import annotations

import base64
import copy
import re
import threading
from xml.etree import ElementTree as ET

import nbformat
import numpy as np
import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from nbclient import NotebookClient
from nbconvert import HTMLExporter

import qwidgets as qw
from qwidgets.widgets import saved
from qwidgets.widgets.explorer import Explorer

VIEW = "application/vnd.jupyter.widget-view+json"
TINY = {"epsilon": [0, 0.1], "regularization": [0, 0.3], "train_size": 128, "test_size": 60}
SVG = "{http://www.w3.org/2000/svg}"
SOURCE = re.compile(r'<img [^>]*src="data:image/svg\+xml;base64,([^"]+)"')


@pytest.fixture(scope="module")
def sweep():
    return qw.sweep(**TINY, epochs=2, attack_steps=1, progress=False)


@pytest.fixture
def make():
    made = []

    def make_(*arguments, **settings):
        made.append(Explorer(*arguments, **settings))
        return made[-1]

    yield make_
    for explorer in made:
        explorer.close()


@pytest.fixture
def published(monkeypatch):
    """Everything that is sent to a front end, as if there were one."""
    InteractiveShell.instance()
    monkeypatch.setattr(saved, "in_a_kernel", lambda: True)
    sent = []

    def publish(data, metadata=None, *, transient=None, update=False, **_more):
        assert isinstance(metadata or {}, dict)
        sent.append((data, (transient or {}).get("display_id"), update))

    monkeypatch.setattr("IPython.core.display_functions.publish_display_data", publish)
    yield sent
    InteractiveShell.clear_instance()


def kept(explorer):
    return saved.standstill(saved.moment(explorer), "model")


def drawing(data):
    source = SOURCE.search(data["text/html"])
    return None if source is None else base64.b64decode(source[1]).decode()


def words(picture):
    return " ".join("".join(text.itertext()) for text in ET.fromstring(picture).iter(f"{SVG}text"))


def test_picture_and_words_are_displayed_below_the_view(make, sweep, published):
    explorer = make(sweep)
    explorer._ipython_display_()
    (view, view_id, _), (data, picture_id, update) = published
    assert view[VIEW]["model_id"] == explorer.model_id
    assert view["text/plain"] == "<Explorer: 4 trained networks>"
    # Not twice for who reads the file without a front end.
    assert set(view) == {VIEW, "text/plain"}
    assert view_id is None
    assert picture_id
    assert not update
    assert set(data) == {"text/plain", "text/html"}
    assert data["text/plain"].startswith("Explorer: 4 trained networks. digits")
    for title in ("Uncertainty plane", "Phase space", "Training"):
        assert title.lower() in words(drawing(data)).lower()
    assert len(data["text/html"].encode()) < 200_000


def test_the_picture_knows_the_views_of_its_own_explorer(make, sweep, published):
    one, two = make(sweep), make(sweep)
    for explorer in (one, two, one):
        explorer._ipython_display_()
    pages = [data["text/html"] for data, _, _ in published[1::2]]
    ids = [display_id for _, display_id, _ in published[1::2]]
    assert ids[0] == ids[2] != ids[1]
    (css,) = one._dom_classes
    assert css not in two._dom_classes
    assert f"> .{css}) + " in pages[0]
    assert f"> .{css}) + " not in pages[1]


def test_they_show_the_present_state(make, sweep):
    explorer = make(sweep)
    first = kept(explorer)
    explorer.epsilon, explorer.label, explorer.epoch = 0.05, 3, 1
    second = kept(explorer)
    assert drawing(second) != drawing(first)
    text = second["text/plain"]
    assert "interpolated" in text
    assert "class 3" in text
    assert "epoch 1" in text
    value = sweep.dataset.isel(epoch=1, label=3, regularization=0).position_std.values[:2].mean()
    assert f"σx = {value:.3g}" in text
    assert text in second["text/html"]


def test_of_a_large_grid_one_panel_stays(make, sweep, monkeypatch):
    explorer = make(sweep)
    whole = drawing(kept(explorer))
    monkeypatch.setattr(saved, "LARGEST_PICTURE", len(whole.encode()) - 1)
    smaller = drawing(kept(explorer))
    assert len(smaller) < len(whole) / 2
    monkeypatch.setattr(saved, "LARGEST_PICTURE", 10)
    data = kept(explorer)
    assert drawing(data) is None
    assert "clean accuracy" in data["text/plain"]


def test_before_the_first_epoch_there_are_words(make):
    explorer = make(**TINY, epochs=1, attack_steps=1, background=False)
    data = kept(explorer)
    assert drawing(data) is None
    assert "display it again" in data["text/plain"]
    assert "display it again" in data["text/html"]


def test_it_is_renewed_when_the_work_is_at_rest(make, published):
    explorer = make(**TINY, epochs=3, attack_steps=1, background=False)
    explorer.train()
    # Whoever displays nothing is sent nothing.
    assert published == []
    explorer._ipython_display_()
    explorer.train()
    explorer.train(epochs=2)
    _, display_id, _ = published[1]
    renewed = published[2:]
    assert {(one, update) for _, one, update in renewed} == {(display_id, True)}
    # Not after every epoch.
    assert len(renewed) == 2
    assert all("Trained" in data["text/plain"] for data, _, _ in renewed)
    assert "epoch 2," in renewed[1][0]["text/plain"]


def test_the_first_picture_comes_with_the_first_epoch(make, published):
    explorer = make(**TINY, epochs=3, attack_steps=1, background=False)
    explorer._ipython_display_()
    assert drawing(published[1][0]) is None
    explorer.train()
    pictures = [drawing(data) for data, _, _ in published[2:]]
    assert None not in pictures
    first, last = (data["text/plain"] for data, _, _ in published[2:])
    # Reports are not sent more often than a page draws them.
    assert re.match("Explorer: Epoch [12] of 3", first)
    assert last.startswith("Explorer: Trained 3 epochs")


def test_a_cancel_does_not_wait_for_the_picture(make, published, monkeypatch):
    draw, begun, go_on = saved.standstill, threading.Event(), threading.Event()
    cancelled_meanwhile = []

    def slow(*arguments):
        begun.set()
        cancelled_meanwhile.append(go_on.wait(60))
        return draw(*arguments)

    explorer = make(**TINY, epochs=2000, attack_steps=1)
    explorer._ipython_display_()
    monkeypatch.setattr(saved, "standstill", slow)
    over = threading.Event()
    explorer.observe(lambda change: change.new["phase"] == "cancelled" and over.set(), "run")
    try:
        # The picture of the first epoch.
        assert begun.wait(60)
        explorer.cancel()
        assert over.wait(60)
    finally:
        go_on.set()
    explorer.wait()
    assert cancelled_meanwhile[0]
    # Drawn is what was there when the picture was asked for, whatever came meanwhile.
    assert re.match("Explorer: Epoch [12] of", published[2][0]["text/plain"])
    assert published[-1][0]["text/plain"].startswith("Explorer: Cancelled in epoch")


def test_words_of_the_settings_cannot_be_markup(make, sweep):
    explorer = make(sweep)
    explorer.on_progress("failed", 0.0, "ValueError: <script>alert(1)</script> & more")
    page = kept(explorer)["text/html"]
    assert "<script>" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; more" in page


def test_a_picture_that_fails_is_shown_as_a_problem_and_the_view_stays(
    make, sweep, published, monkeypatch
):
    explorer = make(sweep)

    def broken(*_arguments):
        message = "no ink"
        raise ValueError(message)

    monkeypatch.setattr(saved, "standstill", broken)
    explorer._ipython_display_()
    assert VIEW in published[0][0]
    assert explorer.problem.endswith("ValueError: no ink")
    explorer.dismiss()
    assert explorer.problem == ""


def test_a_network_that_diverged_can_be_drawn(make, sweep):
    hidden = copy.copy(sweep)
    hidden.dataset = sweep.dataset.copy(deep=True)
    for name in ("position_std", "momentum_std", "uncertainty_product"):
        hidden.dataset[name][...] = np.nan
    vectors = re.sub('base64,[^"]+', "", drawing(kept(make(hidden))))
    assert "<path" in vectors
    assert "nan" not in vectors.lower()


def test_without_a_notebook_it_is_one_short_line(make, sweep):
    explorer = make(sweep)
    assert repr(explorer) == "<Explorer: 4 trained networks>"
    InteractiveShell.instance()
    try:
        with capture_output() as captured:
            explorer._ipython_display_()
        (output,) = captured.outputs
        assert output.data["text/plain"] == repr(explorer)
        explorer.close()
        with capture_output() as captured:
            explorer._ipython_display_()
        (output,) = captured.outputs
        assert set(output.data) == {"text/plain"}
    finally:
        InteractiveShell.clear_instance()


def test_a_notebook_run_without_a_front_end_keeps_one_picture():
    cells = [
        "import qwidgets as qw",
        f"e = qw.Explorer(**{TINY!r}, epochs=2, attack_steps=1)\ne",
        "e.wait(); None",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
    NotebookClient(notebook, timeout=120).execute()
    page, _ = HTMLExporter().from_notebook_node(notebook)
    assert len(SOURCE.findall(page)) == 1
    assert page.count("Explorer: Trained 2 epochs") == 1
    assert "<svg" not in page
