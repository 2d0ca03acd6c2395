"""The attack lens: one image, its attack, and the spreads of its pixels."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

import qwidgets as qw
from qwidgets.lens import iterate_lens


class Sharp(nn.Module):
    """Two classes, told apart by the sum of weighted pixels: the loss is softplus(k w.x - b)."""

    def __init__(self, weights, bias=0.0):
        super().__init__()
        self.weights = nn.Parameter(torch.as_tensor(weights, dtype=torch.float32))
        self.bias = bias

    def forward(self, x):
        odds = (x.flatten(1) * self.weights.flatten()).sum(1) - self.bias
        return torch.stack([-odds / 2, odds / 2], 1)


def exact_spreads(weight, bias, low, high):
    """Of the loss of class 0, softplus(w x - b), on the interval from low to high."""
    x = np.linspace(low, high, 200_001)
    loss = np.logaddexp(0, weight * x - bias)
    slope = weight / (1 + np.exp(-(weight * x - bias)))
    total = np.trapezoid(loss**2, x)
    mean = np.trapezoid(x * loss**2, x) / total
    position = math.sqrt(np.trapezoid((x - mean) ** 2 * loss**2, x) / total)
    momentum_mean = np.trapezoid(loss * slope, x) / total
    momentum = math.sqrt(np.trapezoid(slope**2, x) / total - momentum_mean**2)
    return position, momentum


@pytest.mark.parametrize(("value", "radius"), [(0.5, 0.2), (0.95, 0.1), (0.0, 0.3)])
@pytest.mark.parametrize("seed", [0, 5])
def test_spreads_are_those_of_the_loss_in_the_ball_cut_to_the_range(value, radius, seed):
    model = Sharp([[[6.0]]], 3.0)
    seen = qw.lens(
        model, torch.full((1, 1, 1), value), 0, epsilon=0.1, radius=radius, seed=seed, samples=4096
    )
    low, high = max(value - radius, 0), min(value + radius, 1)
    exact = exact_spreads(6.0, 3.0, low, high)
    for found, error, expected in (
        (seen.position_std, seen.position_std_error, exact[0]),
        (seen.momentum_std, seen.momentum_std_error, exact[1]),
    ):
        assert found.shape == error.shape == (1, 1, 1)
        assert abs(found.item() - expected) < 5 * error.item() + 1e-6 * expected
        assert error.item() < 0.02 * expected


def test_the_attack_follows_the_gradient_and_stays_in_the_ball_and_range():
    weights = torch.tensor([[[1.0, -2.0], [0.5, 3.0]]])
    image = torch.tensor([[[0.5, 0.5], [0.97, 0.5]]])
    seen = qw.lens(Sharp(weights), image, 0, epsilon=0.1, radius=0.1)
    # The loss of class 0 grows with w.x: every pixel moves by the radius, if the range has room.
    expected = torch.minimum(image + 0.1 * weights.sign(), torch.ones(()))
    np.testing.assert_allclose(seen.attacked, expected.numpy(), atol=1e-6)
    np.testing.assert_allclose(seen.perturbation, seen.attacked - seen.image)
    for probability, x in (
        (seen.probability, image),
        (seen.attacked_probability, torch.as_tensor(seen.attacked)),
    ):
        odds = float((x * weights).sum())
        assert probability[1] == pytest.approx(1 / (1 + math.exp(-odds)), rel=1e-5)
        assert probability.sum() == pytest.approx(1)
    assert seen.attacked_probability[0] < seen.probability[0]


def test_without_a_radius_nothing_changes():
    seen = qw.lens(Sharp([[[1.0]]]), torch.full((1, 1, 1), 0.5), 1, epsilon=0, radius=0.1)
    np.testing.assert_array_equal(seen.attacked, seen.image)
    np.testing.assert_array_equal(seen.attacked_probability, seen.probability)


@pytest.mark.parametrize("shape", [(3, 5, 4), (2,), (1, 8, 8), (7, 3)])
def test_pictures_have_the_shape_of_the_input(shape):
    generator = torch.Generator().manual_seed(1)
    model = Sharp(torch.randn(shape, generator=generator))
    seen = qw.lens(model, torch.rand(shape, generator=generator), 0, epsilon=0.05, radius=0.05)
    for values in (
        *(seen.image, seen.attacked, seen.position_std, seen.momentum_std),
        *(seen.position_std_error, seen.momentum_std_error),
    ):
        assert values.shape == shape
        assert np.isfinite(values).all()


def test_it_agrees_with_the_estimator_pixel_by_pixel():
    data = qw.load_data("digits", test_size=20)
    model = qw.build_model("mlp", data, seed=4)
    image, label = data.test_inputs[3], int(data.test_labels[3])
    seen = qw.lens(model, image, label, epsilon=0.1, radius=0.1, samples=1024, seed=2)
    loss = qw.packet_loss(model, label, data.input_shape)
    ball = qw.Neighborhood(image.reshape(1, -1), 0.1, clip=(0, 1))
    expected = qw.uncertainty(loss, ball, samples=1024, seed=2)
    np.testing.assert_allclose(seen.momentum_std.ravel(), expected.momentum_std, rtol=1e-6)
    np.testing.assert_allclose(seen.position_std.ravel(), expected.position_std, rtol=1e-6)


def test_the_attack_comes_first_and_the_work_can_be_stopped():
    data = qw.load_data("digits", test_size=20)
    units = iterate_lens(
        qw.build_model("mlp", data), data.test_inputs[0], 0, epsilon=0.1, radius=0.1
    )
    first = next(units)
    assert first.position_std is None
    assert first.reason == ""
    assert not np.array_equal(first.attacked, first.image)
    units.close()


def test_a_network_in_half_precision_is_seen_in_single():
    data = qw.load_data("digits", test_size=20)
    model = qw.build_model("mlp", data).half().train()
    seen = qw.lens(model, data.test_inputs[0], 0, epsilon=0.1, radius=0.1)
    assert np.isfinite(seen.momentum_std).all()
    assert model.training
    assert next(model.parameters()).dtype == torch.float16


def test_a_network_that_has_failed_is_shown_with_the_reason():
    model = Sharp([[[1.0, 2.0]]])
    with torch.no_grad():
        model.weights.fill_(math.nan)
    seen = qw.lens(model, torch.full((1, 1, 2), 0.5), 0, epsilon=0.1, radius=0.1)
    assert np.isnan(seen.probability).all()
    assert seen.position_std is None
    assert "finite" in seen.reason


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"radius": 0}, "radius must be"),
        ({"epsilon": -1}, "epsilon must be"),
        ({"norm": "l3"}, "norm must be"),
        ({"value_range": (0, 0.2)}, "value_range"),
    ],
)
def test_what_cannot_be_meant_is_refused(change, words):
    settings = {"epsilon": 0.1, "radius": 0.1} | change
    with pytest.raises(ValueError, match=words):
        qw.lens(Sharp([[[1.0]]]), torch.full((1, 1, 1), 0.5), 0, **settings)
