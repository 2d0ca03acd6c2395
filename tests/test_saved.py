"""What stays of an Explorer in a saved notebook."""

from __future__ import annotations

import copy
from xml.etree import ElementTree as ET

import numpy as np
import pytest

import qwidgets as qw
from qwidgets.widgets import saved
from qwidgets.widgets.explorer import Explorer

VIEW = "application/vnd.jupyter.widget-view+json"
TINY = {"epsilon": [0, 0.1], "regularization": [0, 0.3], "train_size": 128, "test_size": 60}
SVG = "{http://www.w3.org/2000/svg}"


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


def bundle(explorer):
    data, _ = explorer._repr_mimebundle_()
    return data


def words(picture):
    return " ".join("".join(text.itertext()) for text in ET.fromstring(picture).iter(f"{SVG}text"))


def test_picture_and_words_stand_beside_the_view(make, sweep):
    explorer = make(sweep)
    data = bundle(explorer)
    assert set(data) == {VIEW, "text/plain", "image/svg+xml"}
    assert data[VIEW]["model_id"] == explorer.model_id
    assert data["text/plain"].startswith("Explorer: 4 trained networks. digits")
    for title in ("Uncertainty plane", "Phase space", "Training"):
        assert title.lower() in words(data["image/svg+xml"]).lower()
    assert len(data["image/svg+xml"].encode()) < 150_000


def test_they_show_the_present_state(make, sweep):
    explorer = make(sweep)
    first = bundle(explorer)
    explorer.epsilon, explorer.label, explorer.epoch = 0.05, 3, 1
    second = bundle(explorer)
    assert second["image/svg+xml"] != first["image/svg+xml"]
    text = second["text/plain"]
    assert "interpolated" in text
    assert "class 3" in text
    assert "epoch 1" in text
    value = sweep.dataset.isel(epoch=1, label=3, regularization=0).position_std.values[:2].mean()
    assert f"σx = {value:.3g}" in text


def test_of_a_large_grid_one_panel_stays(make, sweep, monkeypatch):
    explorer = make(sweep)
    whole = bundle(explorer)["image/svg+xml"]
    monkeypatch.setattr(saved, "LARGEST_PICTURE", len(whole.encode()) - 1)
    smaller = bundle(explorer)["image/svg+xml"]
    assert len(smaller) < len(whole) / 2
    monkeypatch.setattr(saved, "LARGEST_PICTURE", 10)
    data = bundle(explorer)
    assert set(data) == {VIEW, "text/plain"}
    assert "clean accuracy" in data["text/plain"]


def test_before_the_first_epoch_there_are_words(make):
    explorer = make(**TINY, epochs=1, attack_steps=1)
    explorer.cancel()
    explorer._runner.join(60)
    explorer._sweep = None
    data = bundle(explorer)
    assert set(data) == {VIEW, "text/plain"}
    assert "display it again" in data["text/plain"]


def test_a_picture_that_fails_is_shown_as_a_problem_and_the_view_stays(make, sweep, monkeypatch):
    explorer = make(sweep)

    def broken(_explorer):
        message = "no ink"
        raise ValueError(message)

    monkeypatch.setattr("qwidgets.widgets.explorer.standstill", broken)
    data = bundle(explorer)
    assert VIEW in data
    assert explorer.problem.endswith("ValueError: no ink")
    explorer.dismiss()
    assert explorer.problem == ""


def test_a_network_that_diverged_can_be_drawn(make, sweep):
    explorer = make(sweep)
    hidden = sweep.dataset.copy(deep=True)
    for name in ("position_std", "momentum_std", "uncertainty_product"):
        hidden[name][...] = np.nan
    explorer._sweep = copy.copy(sweep)
    explorer._sweep.dataset = hidden
    data = bundle(explorer)
    assert explorer.problem == ""
    assert "image/svg+xml" in data


def test_the_representation_is_one_short_line(make, sweep):
    assert repr(make(sweep)) == "<Explorer: 4 trained networks>"
