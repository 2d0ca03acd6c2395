"""From sums to figures: the jackknife, the self-check's score, records."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
import torch
from scipy import stats

import qwidgets as qw
from qwidgets.estimates import _jackknife, _normal_score, _unbiased, relative_error


def groups(values, sizes, function):
    """The function of the mean of all parts, and of all but one at a time."""
    total, count = np.dot(sizes, values), sum(sizes)
    rest = [(total - m * v) / (count - m) for v, m in zip(values, sizes, strict=True)]
    return np.array([function(total / count), *map(function, rest)])


def test_jackknife_of_a_mean_is_its_standard_error():
    values = np.random.default_rng(0).normal(size=12)
    error = _jackknife(groups(values, np.ones(12), lambda x: x), np.full(12, 1 / 12))
    expected = values.std(ddof=1) / math.sqrt(12)
    # Widened to the deviation of Student's t with 11 degrees of freedom.
    assert error == pytest.approx(expected * stats.t(11).std())


def test_jackknife_of_unequal_parts_covers_the_mean_of_all():
    random = np.random.default_rng(1)
    sizes = np.array([1, 1, 2, 4, 4, 8, 8, 16, 16, 4])
    scores = []
    for _ in range(2000):
        values = random.normal(size=len(sizes)) / np.sqrt(sizes)
        table = groups(values, sizes, lambda x: x)
        scores.append(table[0] / _jackknife(table, sizes / sizes.sum()))
    covered = np.mean(np.abs(scores) <= 2)
    assert 0.92 < covered < 0.98


def test_the_jackknife_takes_off_the_bias_of_a_square():
    random = np.random.default_rng(2)
    sizes = np.array([3, 1, 2, 2, 4, 1, 2, 1])
    squares, plain = [], []
    for _ in range(4000):
        values = 1 + random.normal(size=len(sizes)) / np.sqrt(sizes)
        table = groups(values, sizes, lambda x: x**2)
        plain.append(table[0])
        squares.append(_unbiased(table[None, :, None], sizes / sizes.sum())[0, 0])
    # The variance of the mean, 1/16, is the bias of its square.
    error = np.std(squares) / math.sqrt(4000)
    assert np.mean(plain) - 1 == pytest.approx(1 / 16, abs=4 * error)
    assert np.mean(squares) - 1 == pytest.approx(0, abs=4 * error)


@pytest.mark.parametrize("replicates", [8, 16, 40])
@pytest.mark.parametrize("score", [0.5, 2.0, 6.0, 15.0])
def test_scores_are_translated_from_student_to_normal(replicates, score):
    freedom = replicates - 1
    widened = score / stats.t(freedom).std()
    tail = 2 * stats.t(freedom).sf(score)
    expected = -NormalDist().inv_cdf(tail / 2)
    assert _normal_score(np.array([widened]), replicates) == pytest.approx(expected, rel=0.01)
    # Of many directions the largest; so large in one of them is less of a surprise.
    many = np.append(np.zeros(99), widened)
    if 100 * tail < 1:
        expected = -NormalDist().inv_cdf(100 * tail / 2)
        assert _normal_score(many, replicates) == pytest.approx(expected, rel=0.02)
    else:
        assert _normal_score(many, replicates) == 0


def test_enormous_scores_stay_finite():
    assert 38 < _normal_score(np.array([1e6, 1.0]), 100) < math.inf


def test_relative_error_is_the_larger_of_the_totals():
    u = qw.uncertainty(lambda x: 1 + x[:, 0] ** 2, qw.Box([0, 0], [1, 1]), sampler="uniform")
    expected = max(
        u.standard_error[name] / getattr(u, name)
        for name in ("total_position_std", "total_momentum_std")
    )
    assert relative_error(u._record) == expected
    # A flat loss has no momentum to be relative to.
    flat = qw.uncertainty(lambda x: torch.ones(len(x)), qw.Box(0, 1))
    assert relative_error(flat._record) < 1e-9
