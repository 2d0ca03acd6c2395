"""Choices of an Explorer, without one: what is taken, and what is refused in which words."""

from __future__ import annotations

import math

import pytest
from traitlets import TraitError

from qwidgets.widgets.choices import choice
from qwidgets.widgets.problems import OffTheGridError

GRID = {
    "axes": {
        "epsilon": [0.0, 0.05, 0.2],
        "regularization": [0.0, 0.3],
        "attack_epsilon": [0.0, 0.1],
        "label": ["cat", "dog", "owl"],
        "model": [],
    },
    "finished": 2,
}
MODELS = {**GRID, "axes": {**GRID["axes"], "model": ["clean", "robust"]}}


@pytest.mark.parametrize(
    ("name", "value", "cube"),
    [
        ("epsilon", 0.0, GRID),
        ("epsilon", 0.2, GRID),
        ("epsilon", 0.123, GRID),
        ("epsilon", 7.0, {}),
        ("label", 2, GRID),
        ("label", 12, {}),
        ("epoch", 1, GRID),
        ("image", 10_000, GRID),
        ("model", "robust", MODELS),
        ("model", "", GRID),
        ("model", "any", {}),
    ],
)
def test_what_there_is_is_taken(name, value, cube):
    taken = choice(name, value, cube)
    assert (taken, type(taken)) == (value, type(value))


@pytest.mark.parametrize(
    ("name", "value", "cube", "words"),
    [
        ("epsilon", 0.21, GRID, "epsilon must be on the trained grid, 0 to 0.2; got 0.21."),
        ("regularization", -1e-9, GRID, "regularization must be on the trained grid"),
        ("attack_epsilon", math.nan, GRID, "got nan"),
        ("label", 3, GRID, "label must be from 0 to 2; got 3."),
        ("epoch", 2, GRID, "epoch must be from 0 to 1; got 2."),
        ("epoch", -1, GRID, "epoch must be from 0 to 1; got -1."),
        ("model", "other", MODELS, "model must be one of 'clean', 'robust'; got 'other'."),
        ("model", "other", GRID, "none, a grid of networks is shown"),
    ],
)
def test_what_is_shown_and_has_no_such_says_what_it_has(name, value, cube, words):
    with pytest.raises(OffTheGridError) as refused:
        choice(name, value, cube)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("name", "value", "cube"),
    [
        ("epsilon", -0.1, {}),
        ("epsilon", math.inf, {}),
        ("attack_epsilon", math.nan, {}),
        ("image", -1, {}),
        ("image", -1, GRID),
    ],
)
def test_what_nothing_could_have_is_another_error(name, value, cube):
    with pytest.raises(TraitError, match=f"{name} must be") as refused:
        choice(name, value, cube)
    assert not isinstance(refused.value, OffTheGridError)
