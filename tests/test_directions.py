"""Directions to measure along: what they are, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import qwidgets as qw
from qwidgets.directions import (
    attack_directions,
    class_directions,
    orthonormal,
    principal_directions,
)

RANDOM = np.random.default_rng(0)


def assert_orthonormal(rows, shape):
    assert rows.shape == shape
    assert rows.dtype == np.float64
    np.testing.assert_allclose(rows @ rows.T, np.eye(len(rows)), atol=1e-12)


def test_principal_directions_are_eigenvectors_by_falling_variance():
    images = (RANDOM.normal(size=(300, 20)) * np.linspace(3, 1, 20)).reshape(300, 4, 5) + 7
    rows = principal_directions(images, 6)
    assert_orthonormal(rows, (6, 20))
    covariance = np.cov(images.reshape(300, 20).T)
    values, vectors = np.linalg.eigh(covariance)
    for row, value, vector in zip(rows, values[::-1], vectors.T[::-1], strict=False):
        np.testing.assert_allclose(covariance @ row, value * row, atol=1e-9)
        assert abs(row @ vector) == pytest.approx(1)
        assert row[np.abs(row).argmax()] > 0


def test_class_directions_point_to_the_other_classes():
    labels = np.array([3, 1, 2] * 50)
    means = {1: [0, 0, 0, 0], 2: [2, 0, 0, 0], 3: [1, 3, 0, 0]}
    inputs = np.array([means[label] for label in labels], dtype=float)
    rows = class_directions(inputs, labels, origin=1)
    assert_orthonormal(rows, (2, 4))
    np.testing.assert_allclose(rows, [[1, 0, 0, 0], [0, 1, 0, 0]], atol=1e-12)
    np.testing.assert_allclose(
        class_directions(torch.tensor(inputs), torch.tensor(labels), origin=2)[0], [-1, 0, 0, 0]
    )


def test_attack_directions_are_the_gradient():
    slope = torch.tensor([1.0, 2.0, -2.0], dtype=torch.float64)

    def loss(x):
        return (x @ slope).exp() + x[:, 0] ** 2

    point = torch.tensor([0.5, -1.0, 0.3], dtype=torch.float64)
    gradient = slope * (point @ slope).exp() + torch.tensor([1.0, 0, 0])
    (row,) = attack_directions(loss, point)
    np.testing.assert_allclose(row, gradient / gradient.norm(), rtol=1e-12)
    rows = attack_directions(loss, torch.stack([point, point - 1]))
    assert_orthonormal(rows, (2, 3))
    np.testing.assert_allclose(rows[0], row)
    # The gradients lie in the plane of the slope and the first axis.
    across = np.cross([1, 0, 0], slope)
    np.testing.assert_allclose(rows @ across, 0, atol=1e-12)


def test_the_packet_along_the_attack_is_measured_along_it():
    data = torch.tensor([[0.2, -0.1, 0.4]], dtype=torch.float64)
    tilt = torch.tensor([2.0, -1.0, 2.0], dtype=torch.float64)

    def loss(x):
        return torch.nn.functional.softplus(4 * x @ tilt)

    directions = attack_directions(loss, data)
    u = qw.uncertainty(loss, qw.Gaussian(data[0], 0.5), directions=directions)
    s = qw.section(loss, data[0], directions[0], 0.5)
    assert abs(u.position_std[0] - s.position_std) < 4 * u.standard_error["position_std"][0]
    assert abs(u.momentum_std[0] - s.momentum_std) < 4 * u.standard_error["momentum_std"][0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: principal_directions(np.ones((5, 3)), 1), r"at most 0.*5 inputs vary, got 1"),
        (lambda: principal_directions(np.eye(3), 3), r"count must be at most 2.*got 3"),
        (lambda: principal_directions(np.zeros(3), 1), r"at least one point.*shape \(3,\)"),
        (lambda: principal_directions(np.eye(3), 0), r"count must be at least 1, got 0"),
        (lambda: principal_directions(np.full((2, 2), np.nan), 1), r"inputs must be finite"),
        (lambda: class_directions(np.eye(3), [0, 1], origin=0), r"one for each of the 3 inputs"),
        (lambda: class_directions(np.eye(3), [0, 1, 1], origin=2), r"got 2 with labels \[0, 1\]"),
        (lambda: class_directions(np.eye(3), [1, 1, 1], origin=1), r"at least two classes"),
        (
            lambda: class_directions([[0.0], [1], [2]], [0, 1, 2], origin=0),
            r"class 0 to class 2 lies in the span of those before; leave it out",
        ),
        (
            lambda: class_directions([[1.0], [1]], [0, 1], origin=0),
            r"class 0 to class 1 is zero",
        ),
        (
            lambda: attack_directions(lambda x: 1 + 0 * x[:, 0], np.zeros(2)),
            r"gradient at point 0 is zero",
        ),
        (
            lambda: attack_directions(lambda x: 3 + x[:, 0], np.zeros((2, 2))),
            r"gradient at point 1 lies in the span",
        ),
        (lambda: orthonormal([[1, 1]], 2), r"length 1.41421 of direction 0"),
    ],
)
def test_refuses(call, message):
    with pytest.raises(ValueError, match=message):
        call()
