"""Sums over samples: merging, origins, faces."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import qwidgets as qw
from qwidgets.domain import unit_cube
from qwidgets.proposal import make_plan
from qwidgets.sums import Meter, Stream, Sums, advance, completed


def batch(sizes, seed, exponent=0.0, origin=0.0):
    """Random fields as `Sums.of` takes them, in batches of very different scales."""
    generator = torch.Generator().manual_seed(seed)
    count = sum(sizes)
    fields = {
        name: torch.randn(count, 3, dtype=torch.float64, generator=generator)
        for name in ("position", "middle", "rate", "shift", "rest")
    }
    scale = 10.0 ** torch.linspace(0, exponent, count, dtype=torch.float64)[:, None]
    fields["amplitude"] = fields["rest"][:, :1].abs() * scale
    for name in ("rate", "shift", "rest"):
        fields[name] = fields[name] * scale
    fields["position"] = fields["position"] + origin
    return fields


def assert_equal(one, other):
    unit = math.ldexp(1.0, 2 * (other.exponent - one.exponent))
    assert other.weight * unit == pytest.approx(one.weight, rel=1e-12)
    assert other.samples == one.samples
    size = np.abs(one.moments).max() + one.weight
    np.testing.assert_allclose(other.moments * unit, one.moments, rtol=1e-10, atol=1e-12 * size)
    assert other.weight_squared * unit**2 == pytest.approx(one.weight_squared, rel=1e-10)


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=6),
    st.integers(0, 1000),
    st.floats(-140, 140),
)
@settings(deadline=None, max_examples=60)
def test_merged_sums_equal_the_sums_of_one_pass(sizes, seed, exponent):
    fields = batch(sizes, seed, exponent)
    origin = torch.zeros(2, 3, dtype=torch.float64)
    whole = Sums.of(**fields, origin=origin)
    splits = {name: values.split(sizes) for name, values in fields.items()}
    parts = [
        Sums.of(**{name: split[index] for name, split in splits.items()}, origin=origin)
        for index in range(len(sizes))
    ]
    for order in (parts, parts[::-1]):
        assert_equal(whole, sum(order[1:], order[0]))


@given(st.integers(0, 1000), st.lists(st.floats(-5, 5), min_size=6, max_size=6))
@settings(deadline=None, max_examples=40)
def test_counting_from_another_origin_is_counting_anew(seed, numbers):
    fields = batch([30], seed)
    x0, r0 = torch.tensor(numbers, dtype=torch.float64).reshape(2, 3)
    zero = torch.zeros(2, 3, dtype=torch.float64)
    moved = {
        **fields,
        "position": fields["position"] - x0,
        "middle": fields["middle"] - x0,
        "rate": fields["rate"] - r0 * fields["amplitude"],
    }
    anew = Sums.of(**moved, origin=torch.stack([x0, r0]))
    about = Sums.of(**fields, origin=zero).about(anew.origin)
    np.testing.assert_allclose(about.moments, anew.moments, rtol=1e-9, atol=1e-9)
    # Sums from different origins merge.
    assert_equal(about + about, anew + Sums.of(**fields, origin=zero))


def test_a_batch_without_packet_changes_nothing_but_the_count():
    fields = batch([10], 0)
    origin = torch.zeros(2, 3, dtype=torch.float64)
    one = Sums.of(**fields, origin=origin)
    empty = Sums.of(**{name: 0 * values for name, values in fields.items()}, origin=origin)
    for merged in (one + empty, empty + one):
        assert merged.samples == 20
        np.testing.assert_allclose(
            merged.moments / merged.weight, one.moments / one.weight, rtol=1e-12
        )


def test_sums_are_the_means_they_claim():
    def loss(x):
        return 1 + (x[:, 0] - x[:, 1]) ** 2

    domain = qw.Gaussian([0.3, -0.2], 0.6)
    sample = domain.sample(unit_cube("uniform", 2, 0)(500))
    meter = Meter(loss, domain, None)
    ((sums,),) = meter.add_up([sample], [0], torch.Generator())
    x, value = sample.x, loss(sample.x)
    apart = 2 * (x[:, 0] - x[:, 1])
    gradient = torch.stack([apart, -apart], 1)
    rate = gradient / value[:, None] - (x - domain.center) / (2 * 0.6**2)
    weight = (value**2 / (value**2).sum()).numpy()
    x0, r0 = sums.origin
    means = sums.moments / sums.weight
    x, rate = x.numpy(), rate.numpy()
    expected = [x - x0, rate - r0, 2 * 0.6**2 * rate, (x - x0) ** 2, (rate - r0) ** 2]
    for mean, values in zip(means, expected, strict=False):
        np.testing.assert_allclose(mean, weight @ values, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(means[5], weight @ ((x - x0) * (rate - r0)), atol=1e-12)
    np.testing.assert_allclose(means[7], domain.center.numpy() - x0, rtol=1e-12)
    assert weight @ weight == pytest.approx(sums.weight_squared / sums.weight**2)


def test_faces_estimate_the_boundary_term():
    # 1 + x y on the unit square, by Gauss-Legendre on the square and its faces.
    def loss(x):
        return 1 + x[:, 0] * x[:, 1]

    node, weight = np.polynomial.legendre.leggauss(10)
    t, w = (node + 1) / 2, weight / 2
    square = (1 + np.outer(t, t)) ** 2
    beta = w @ square @ w
    mean = (w * t) @ square @ w / beta
    # Twice, for both axes alike: between the faces x = 1 and x = 0.
    boundary = 2 * ((1 - mean) * (w @ (1 + t) ** 2) + mean * 1.0) / beta

    domain = qw.Box([0, 0], [1, 1])
    sample = domain.sample(unit_cube("uniform", 2, 0)(40000))
    meter = Meter(loss, domain, None)
    ((sums,),) = meter.add_up([sample], [40000], torch.Generator().manual_seed(0))
    offset = mean - sums.origin[0]
    flux = (sums.faces[0] - sums.faces[1:] @ offset) / sums.pairs / (sums.weight / sums.samples)
    assert flux + 2 == pytest.approx(boundary, abs=0.05)
    assert boundary == pytest.approx(1.70, abs=0.3)


def test_missing_samples_have_the_moments_of_the_linearised_loss():
    # A linear loss is its own linearisation, and all of its moments are known by quadrature.
    centers = np.random.default_rng(0).random((6, 2))
    domain = qw.Neighborhood(centers, 0.2)
    slope = torch.tensor([0.5, -1.0], dtype=torch.float64)

    def loss(x):
        return 3 + x @ slope

    balls = make_plan(loss, domain, samples=4000, sampler="sobol", seeds=[1, 2, 3]).balls
    origin, rate = torch.rand(2, 2, dtype=torch.float64)
    # As many as there should be: nothing is missing.
    even = (1000 * balls.probability)[None]
    weight, sums = balls.moments(0, even, None, origin, rate)
    assert abs(float(weight)) < 1e-9
    assert sums.abs().max() < 1e-9
    # All drawn from the first ball: the whole is missing, less what that ball has too much of.
    counts = torch.zeros(1, 6, dtype=torch.float64)
    counts[0, 0] = 1000.0
    weight, sums = balls.moments(0, counts, None, origin, rate)
    node, gauss = np.polynomial.legendre.leggauss(4)
    grid = np.stack(np.meshgrid(node, node, indexing="ij"), -1).reshape(-1, 2)
    mass = np.outer(gauss / 2, gauss / 2).ravel()
    missing = (1000 - counts[0] / balls.probability).numpy() / 6
    expected = np.zeros((6, 2))
    total = 0.0
    for center, share in zip(centers, missing, strict=True):
        points = center + 0.2 * grid
        value = loss(torch.from_numpy(points)).numpy()[:, None] / math.ldexp(1.0, balls.exponent[0])
        r = slope.numpy() / math.ldexp(1.0, balls.exponent[0]) - rate.numpy() * value
        x = points - origin.numpy()
        total += share * (mass @ value**2)[0]
        parts = [value**2 * x, value * r, value**2 * x**2, r**2, value * r * x]
        expected[:5] += share * np.array([mass @ part for part in parts])
        expected[5] += share * (mass @ value**2) * (center - origin.numpy())
    assert float(weight) == pytest.approx(total)
    names = ("x", "rate", "x^2", "rate^2", "x rate", "middle")
    for name, one, other in zip(names, sums[:, 0].numpy(), expected, strict=True):
        # Of the second moments the linearisation leaves out what the slope adds in fourth order.
        rel = 1e-2 if name in {"x^2", "rate^2", "x rate"} else 1e-9
        np.testing.assert_allclose(one, other, rtol=rel, err_msg=name)


def test_streams_of_a_neighborhood_are_completed_to_the_exact_answer():
    # What balls got too few of is put back: with a loss that does not vary inside the balls, every
    # stream knows the weights of the balls exactly, however few samples it has drawn.
    centers = torch.arange(9.0)[:, None]

    def loss(x):
        # The middle of the nearest ball, and no slope.
        return 1 + x[:, 0].round().detach() + 0 * x[:, 0]

    domain = qw.Neighborhood(centers, 0.1)
    plan = make_plan(loss, domain, samples=400, sampler="uniform", seeds=[1, 2, 3])
    meter = Meter(loss, domain, None)
    streams = [Stream(plan, seed) for seed in range(4)]
    advance(meter, streams, [6, 4, 6, 0], torch.Generator())
    advance(meter, streams, [0, 2, 0, 6], torch.Generator())
    weight = (1 + centers[:, 0].double()) ** 2
    mean = float(weight @ centers[:, 0].double() / weight.sum())
    for (sums,) in completed(meter, streams):
        unit = math.ldexp(1.0, 2 * sums.exponent)
        assert sums.weight * unit / sums.samples == pytest.approx(float(weight.mean()))
        # The middles are exact, and so is the position but for its place in the ball.
        middle = sums.origin[0] + sums.moments[7] / sums.weight
        assert middle[0] == pytest.approx(mean)
