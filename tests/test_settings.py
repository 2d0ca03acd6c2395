"""Settings of an Explorer, without one: what a change of them leaves, and what they ask for."""

from __future__ import annotations

import pytest
import torch

from qwidgets.widgets.settings import changed, of_models

CHOSEN = {
    "data": "mnist",
    "root": "/data",
    "train_size": 500,
    "test_size": 100,
    "epsilon": [0, 0.2],
    "attack_epsilon": [0, 0.2],
    "width": 0.3,
    "regularization": [0, 1],
    "learning_rate": 1e-4,
    "store": "mnist.sweep",
    "epochs": 3,
}
OF_DATA = {"root", "train_size", "test_size", "epsilon", "attack_epsilon", "width"}


@pytest.mark.parametrize(
    ("changes", "left"),
    [
        ({}, set()),
        ({"epochs": 5}, set()),
        ({"data": "mnist"}, set()),
        ({"data": "digits"}, OF_DATA),
        ({"regularizer": "gradient"}, set()),
        ({"regularizer": "weight_decay"}, {"regularization"}),
        ({"model": "conv"}, {"learning_rate"}),
        ({"data": "moons", "model": "mlp"}, OF_DATA | {"learning_rate"}),
        # What is changed itself is taken, also with new data.
        ({"data": "moons", "width": 0.1}, OF_DATA),
    ],
)
def test_what_was_chosen_for_what_has_changed_is_left_to_its_default(changes, left):
    before = dict(CHOSEN)
    after = changed(CHOSEN, changes)
    kept = {name: value for name, value in CHOSEN.items() if name not in left | {"store"}}
    assert after == {**kept, **changes}
    assert before == CHOSEN


def test_a_model_of_fields_is_left_where_the_new_data_have_none():
    chosen = {"data": "temperature", "model": "encoder_decoder", "learning_rate": 1e-4, "epochs": 3}
    assert changed(chosen, {"data": "digits"}) == {"data": "digits", "epochs": 3}
    own = object()
    assert changed(chosen, {"data": own}) == {**chosen, "data": own}
    assert changed(chosen, {"epochs": 5}) == {**chosen, "epochs": 5}


def test_digits_and_the_gradient_penalty_are_meant_where_none_is_named():
    chosen = {"epsilon": [0, 0.2], "regularization": [0, 1]}
    assert changed(chosen, {"data": "digits", "regularizer": "gradient"}) == {
        **chosen,
        "data": "digits",
        "regularizer": "gradient",
    }
    assert changed(chosen, {"data": "moons"}) == {"regularization": [0, 1], "data": "moons"}


def test_models_of_ones_own_are_told_from_names_and_factories():
    network = torch.nn.Linear(2, 2)
    assert of_models({"model": network})
    assert of_models({"models": {"one": network}})
    assert not of_models({"model": "mlp"})
    assert not of_models({"model": lambda: network})
    assert not of_models({})
