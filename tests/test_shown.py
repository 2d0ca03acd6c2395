"""What an Explorer shows, without a widget: it grows by epochs and by refined networks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import qwidgets as qw
from qwidgets import views
from qwidgets.refine import iterate_refinement
from qwidgets.sweep import iterate_sweep
from qwidgets.widgets.shown import Shown, words

TINY = {
    "epsilon": [0, 0.1],
    "regularization": [0, 0.01, 0.3],
    "epochs": 2,
    "train_size": 100,
    "test_size": 60,
    "attack_steps": 1,
    "probe_images": 1,
    "seed": 4,
}


def epochs_of(steps):
    return [step.sweep for step in steps if step.sweep is not None]


@pytest.fixture(scope="module")
def epochs():
    """Sweeps as they come: after the untrained networks, and after each epoch."""
    return epochs_of(iterate_sweep(**TINY))


@pytest.fixture(scope="module")
def refined(epochs):
    return epochs_of(iterate_refinement(epochs[-1], epsilon=0.05, regularization=0.1, epochs=2))


@pytest.fixture(scope="module")
def models(epochs):
    sweep = epochs[-1]
    networks = {
        "clean": sweep.model(epsilon=0, regularization=0),
        "robust": sweep.model(epsilon=0.1, regularization=0.3),
    }
    return qw.measure(networks, sweep.data, probe_images=1, detail=False, progress=False)


def assert_holds(values, dataset):
    """The arrays on the wire are those of the data set, to the last epoch."""
    expected = views.plot_arrays(dataset)
    assert values.keys() == expected.keys()
    for name, wire in values.items():
        array = np.frombuffer(wire["data"], wire["dtype"]).reshape(wire["shape"])
        np.testing.assert_array_equal(array, expected[name])


def test_epochs_are_added_one_by_one(epochs):
    first, *others = epochs
    shown = Shown(first)
    assert (shown.last, shown.planned, shown.cube()["finished"]) == (0, 2, 1)
    assert_holds(shown.cube()["values"], first.dataset)
    for number, found in enumerate(others, 1):
        epoch, new = shown.add(found)
        assert epoch == shown.last == number
        for name, values in views.plot_arrays(found.dataset, number).items():
            np.testing.assert_array_equal(new[name], values)
        assert_holds(shown.cube()["values"], found.dataset)
        assert shown.limits == views.limits(found.dataset)
    assert shown.found is epochs[-1]
    # Added one by one or there at once is the same to the browser.
    whole = Shown(epochs[-1]).cube()
    assert {**shown.cube(), "values": None} == {**whole, "values": None}
    assert_holds(whole["values"], epochs[-1].dataset)


def test_it_says_what_there_is(epochs, models):
    shown = Shown(epochs[1])
    assert shown.state == "stopped after epoch 1, 6 trained networks"
    assert shown.name == f"{shown.heading['subtitle']} · 1 epoch"
    assert "2 × 3 networks" in shown.name
    shown.add(epochs[2])
    assert shown.state == "6 trained networks"
    assert shown.name.endswith(" · 2 epochs")
    measured = Shown(models)
    assert measured.state == "2 models, measured and not trained"
    assert "2 models of yours" in measured.heading["subtitle"]
    assert words({"epsilon": 0.1, "regularization": 0.03}) == "ε 0.1, λ 0.03"


@pytest.mark.parametrize(
    ("epsilon", "regularization", "there"),
    [
        (0, 0, True),
        (0.1, 0.3, True),
        # Off by what text or another precision does to a number.
        (0.1 * (1 + 1e-12), 0.3, True),
        (0.1, 0.02, False),
        (0.05, 0.3, False),
        (0.1 * (1 + 1e-6), 0.3, False),
    ],
)
def test_it_knows_the_points_of_its_grid(epochs, epsilon, regularization, there):
    point = {"epsilon": epsilon, "regularization": regularization}
    assert Shown(epochs[-1]).on_grid(point) is there


def test_refined_networks_are_added_epoch_by_epoch(epochs, refined):
    shown = Shown(epochs[-1])
    point = {"epsilon": 0.05, "regularization": 0.1}
    for number, found in enumerate(refined):
        index, epoch, new = shown.add_refined(found)
        assert (index, epoch) == (0, number)
        for name, values in views.plot_arrays(found.dataset, number).items():
            np.testing.assert_array_equal(new[name], values[0, 0])
        [entry] = shown.refined
        assert (entry["finished"], entry["complete"]) == (number + 1, number == 2)
        assert shown.refined_at(point, complete=False) == 0
        assert shown.refined_at(point, complete=True) == (0 if number == 2 else None)
    assert shown.refinements == [refined[-1]]
    for name, values in views.plot_arrays(refined[-1].dataset).items():
        wire = shown.refined[0]["values"][name]
        array = np.frombuffer(wire["data"], wire["dtype"]).reshape(wire["shape"])
        np.testing.assert_array_equal(array, values[:, 0, 0])
    assert shown.refined_at({"epsilon": 0.05, "regularization": 0}, complete=False) is None
    assert shown.name.endswith(" · 2 epochs · 1 refined")


def test_a_refinement_that_was_stopped_gives_way_to_the_next_at_its_point(epochs, refined):
    shown = Shown(epochs[-1])
    # Stopped after its first epoch, and then begun anew with fewer.
    for found in refined[:2]:
        shown.add_refined(found)
    again = epochs_of(iterate_refinement(epochs[-1], epsilon=0.05, regularization=0.1, epochs=1))
    other = epochs_of(iterate_refinement(epochs[-1], epsilon=0.05, regularization=0.01, epochs=1))
    assert [shown.add_refined(found)[:2] for found in again] == [(0, 0), (0, 1)]
    assert [shown.add_refined(found)[:2] for found in other] == [(1, 0), (1, 1)]
    assert shown.refinements == [again[-1], other[-1]]
    assert [one["epochs"] for one in shown.refined] == [1, 1]
    assert all(one["complete"] for one in shown.refined)


def same_network(one, other):
    states = one.state_dict(), other.state_dict()
    return all(torch.equal(a, b) for a, b in zip(*(s.values() for s in states), strict=True))


def test_networks_come_in_the_order_of_the_grid_and_then_the_refined_ones(epochs, refined):
    shown = Shown(epochs[-1])
    shown.add_refined(refined[-1])
    networks = [make() for make in shown.networks()]
    assert len(networks) == 7
    sweep = epochs[-1]
    for index, (epsilon, regularization) in enumerate(
        (e, r) for e in TINY["epsilon"] for r in TINY["regularization"]
    ):
        expected = sweep.model(epsilon=epsilon, regularization=regularization)
        assert same_network(networks[index], expected)
    assert same_network(networks[6], refined[-1].model(epsilon=0.05, regularization=0.1))


def test_the_nearest_network_is_a_refined_one_where_there_is_one(epochs, refined):
    shown = Shown(epochs[-1])
    make, of = shown.nearest(0.05, 0.1, "")
    trained = {"epsilon": of["epsilon"], "regularization": of["regularization"]}
    assert (of["kind"], of["epoch"]) == ("trained", 2)
    assert shown.on_grid(trained)
    assert same_network(make(), epochs[-1].model(**trained))
    shown.add_refined(refined[1])
    make, of = shown.nearest(0.05, 0.1, "")
    assert of == {
        "epsilon": 0.05,
        "regularization": 0.1,
        "model": "",
        "epoch": 1,
        "kind": "refined",
    }
    assert same_network(make(), refined[1].model(epsilon=0.05, regularization=0.1))


def test_models_are_those_that_were_measured(models):
    shown = Shown(models)
    assert (shown.grid, shown.planned, shown.last) == (False, 0, 0)
    assert_holds(shown.cube()["values"], models.dataset)
    assert [make() for make in shown.networks()] == [models.model(name) for name in models.names]
    make, of = shown.nearest(0.0, 0.0, "robust")
    assert make() is models.model("robust")
    assert (of["kind"], of["model"], of["epoch"]) == ("own", "robust", 0)
