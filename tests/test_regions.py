"""The input plane of two-dimensional data."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import qwidgets as qw
from qwidgets.regions import is_plane, iterate_regions


class Linear(nn.Module):
    """Class k has the logit w_k . x + b_k."""

    def __init__(self, weights, bias):
        super().__init__()
        self.layer = nn.Linear(2, len(bias))
        with torch.no_grad():
            self.layer.weight.copy_(torch.tensor(weights))
            self.layer.bias.copy_(torch.tensor(bias))

    def forward(self, x):
        return self.layer(x)


def found(networks, data, **settings):
    units = iterate_regions([lambda n=n: n for n in networks], data, **settings)
    count = 0
    while True:
        try:
            next(units)
            count += 1
        except StopIteration as end:
            assert count == len(networks)
            return end.value


@pytest.fixture(scope="module")
def data():
    return qw.load_data("moons", test_size=40)


def test_odds_lie_as_they_say(data):
    networks = [
        Linear([[0.0, 0.0], [2.0, 0.0]], [0.0, 1.0]),
        Linear([[1.0, 1.0], [1.0, 4.0]], [0.5, 0.0]),
    ]
    regions = found(networks, data, attack_epsilon=[0, 0.1], size=9)
    low, high = data.value_range
    np.testing.assert_allclose(regions.axis, np.linspace(low, high, 9))
    assert regions.odds.shape == (2, 1, 9, 9)
    y, x = np.meshgrid(regions.axis, regions.axis, indexing="ij")
    np.testing.assert_allclose(regions.odds[0, 0], 2 * x + 1, atol=1e-5)
    np.testing.assert_allclose(regions.odds[1, 0], 3 * y - 0.5, atol=1e-5)


def test_attacks_go_up_the_gradient_at_every_radius(data):
    network = Linear([[0.0, 0.0], [2.0, -3.0]], [0.0, 0.0])
    regions = found([network], data, attack_epsilon=[0, 0.1, 0.3], points=24)
    assert regions.attacked.shape == (1, 3, 24, 2)
    np.testing.assert_array_equal(regions.attacked[0, 0], regions.points)
    # The odds of class 1 rise along (1, -1) in signs: class 0 is moved there, class 1 away.
    side = np.where(regions.labels == 0, 1, -1)[:, None] * np.array([1, -1])
    for k, radius in ((1, 0.1), (2, 0.3)):
        expected = np.clip(regions.points + radius * side, *data.value_range)
        np.testing.assert_allclose(regions.attacked[0, k], expected, atol=1e-5)
    assert np.bincount(regions.labels).tolist() == [12, 12]


def test_more_classes_than_two():
    generator = torch.Generator().manual_seed(2)
    own = qw.Dataset.from_arrays(
        torch.rand((90, 2), generator=generator), torch.arange(90) % 3, value_range=(0, 1)
    )
    network = Linear([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]], [0.0, 0.0, 0.2])
    regions = found([network], own, attack_epsilon=[0], size=5)
    y, x = np.meshgrid(regions.axis, regions.axis, indexing="ij")
    np.testing.assert_allclose(regions.odds[0], [y - x, 0.2 - x], atol=1e-6)


def test_data_of_another_shape_have_no_plane():
    digits = qw.load_data("digits", test_size=20)
    assert not is_plane(digits)
    with pytest.raises(ValueError, match=r"points of a plane, .* of shape \(1, 8, 8\)"):
        next(iterate_regions([], digits, attack_epsilon=[0]))
