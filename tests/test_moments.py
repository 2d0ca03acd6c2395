"""Uncertainty on domains: oracles, honest errors, properties, refusals."""

from __future__ import annotations

import math
from dataclasses import fields

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import BOX, ORACLES, PRINTED, along, by_name, product_of
from torch.nn.functional import softplus

import qwidgets as qw
from qwidgets.moments import _Sums

NAMES = [
    field.name
    for field in fields(qw.Uncertainty)
    if field.name not in {"standard_error", "effective_sample_size", "evaluations"}
]


def close(u, name, expected, errors=4.0, rel=1e-3, scale=None):
    """Within some reported standard errors, and close in itself; 1e-9 is left to rounding."""
    value, error = np.asarray(getattr(u, name)), np.asarray(u.standard_error[name])
    miss = np.abs(value - expected)
    assert (miss <= errors * error + 1e-9).all(), (name, value, expected, error)
    size = np.abs(expected) if scale is None else scale
    assert (miss <= rel * size + 1e-9).all(), (name, value, expected, error)


@pytest.mark.parametrize("oracle", ORACLES, ids=lambda oracle: oracle.name)
@pytest.mark.parametrize("sampler", ["sobol", "uniform"])
def test_oracles(oracle, sampler):
    u = qw.uncertainty(along(oracle.profile, 0), oracle.domain(1), sampler=sampler)
    # Independent points are 8192 ** -1/2 good, and the packets of the table up to 4 times worse.
    rel = 2e-3 if sampler == "sobol" else 5e-2
    if oracle.position_mean is not None:
        close(u, "position_mean", oracle.position_mean, rel=rel, scale=oracle.position_std)
    close(u, "position_std", oracle.position_std, rel=rel)
    close(u, "momentum_std", oracle.momentum_std, rel=rel)
    close(u, "product", oracle.position_std * oracle.momentum_std, rel=rel)
    close(u, "boundary", oracle.boundary, rel=4 * rel, scale=1)
    close(u, "bound", abs(1 - oracle.boundary) / 2, rel=4 * rel, scale=1)
    if oracle.width is not None:
        close(u, "momentum_mean", 0, rel=4 * rel, scale=oracle.momentum_std)


@pytest.mark.parametrize("name", [name for name in PRINTED if name in {o.name for o in BOX}])
def test_the_answers_on_the_box_are_the_printed_ones(name):
    oracle = by_name(name)
    product = oracle.position_std * oracle.momentum_std
    answers = (oracle.position_std, oracle.momentum_std, product)
    for answer, printed in zip(answers, PRINTED[name], strict=True):
        assert printed is None or f"{answer:.6f}" == printed


@pytest.mark.parametrize(("name", "boundary"), [("1 + 0.3 sin(6 x)", 0.860289), ("x", 0.75)])
def test_the_boundary_term_as_printed(name, boundary):
    u = qw.uncertainty(along(by_name(name).profile, 0), qw.Box(0, 1), samples=1 << 17)
    assert u.boundary[0] == pytest.approx(boundary, abs=2e-6)
    assert u.bound[0] == pytest.approx((1 - boundary) / 2, abs=1e-6)


@pytest.mark.parametrize("dimension", [2, 3, 10])
@pytest.mark.parametrize("oracle", ORACLES, ids=lambda oracle: oracle.name)
def test_oracles_along_one_axis(oracle, dimension):
    axis = dimension // 2
    u = qw.uncertainty(along(oracle.profile, axis), oracle.domain(dimension))
    expected = np.tile(np.array(oracle.flat)[:, None], dimension)
    expected[:, axis] = oracle.position_std, oracle.momentum_std, oracle.boundary
    # 4 standard errors on the axis itself. Of the thousand comparisons on the others some must be
    # further off: with 7 degrees of freedom one of 30,000 is beyond 8.
    errors = np.where(np.arange(dimension) == axis, 4, 8)
    close(u, "position_std", expected[0], errors=errors, rel=2e-2)
    close(u, "momentum_std", expected[1], errors=errors, rel=2e-2)
    close(u, "boundary", expected[2], errors=errors, rel=0.1, scale=1)
    close(u, "total_position_std", np.linalg.norm(expected[0]), rel=2e-2)
    close(u, "total_momentum_std", np.linalg.norm(expected[1]), rel=2e-2)


@pytest.mark.parametrize(
    "names",
    [
        ["softplus(4 t)", "abs(t), width 0.5", "exponential, width 0.5"],
        ["x", "abs(sin(2 pi x))", "1 + 0.3 sin(6 x)"],
    ],
)
def test_products_of_oracles_factorise(names):
    oracles = [by_name(name) for name in names]
    loss = product_of([oracle.profile for oracle in oracles])
    u = qw.uncertainty(loss, oracles[0].domain(3))
    for name in ("position_std", "momentum_std", "boundary"):
        close(u, name, np.array([getattr(oracle, name) for oracle in oracles]), rel=4e-2, scale=1)


def test_a_flat_loss_in_a_window_is_the_coherent_state():
    u = qw.uncertainty(lambda x: torch.ones(len(x)), qw.Gaussian([1, 2, 3], 0.5))
    close(u, "position_mean", np.array([1, 2, 3]))
    close(u, "product", np.full(3, 0.5))
    close(u, "covariance", np.full(3, -0.5))


def test_agrees_with_the_section_in_one_dimension():
    def loss(x):
        return softplus(5 * x[:, 0] - 1) + 0.2 * (x[:, 0] ** 2)

    s = qw.section(loss, [0.1], [1.0], 0.5)
    u = qw.uncertainty(loss, qw.Gaussian(0.1, 0.5))
    close(u, "position_mean", s.position_mean + 0.1)
    close(u, "position_std", s.position_std)
    close(u, "momentum_std", s.momentum_std)


# Self-checks of the theory


@pytest.mark.parametrize("dimension", [1, 4, 30])
def test_the_commutator_is_one_in_a_window(dimension):
    generator = torch.Generator().manual_seed(dimension)
    tilt = torch.randn(dimension, dtype=torch.float64, generator=generator)
    tilt /= tilt.norm()
    u = qw.uncertainty(lambda x: softplus(6 * x @ tilt), qw.Gaussian(np.zeros(dimension), 0.5))
    assert (np.abs(2 * u.covariance + 1) <= 4 * 2 * u.standard_error["covariance"]).all()
    close(u, "boundary", 0, rel=0.2, scale=1)
    assert (u.standard_error["covariance"] < 0.1).all()


def test_the_boundary_term_is_the_surface_term_of_the_box():
    lower, upper = np.array([-1.0, 0.0]), np.array([0.5, 2.0])

    def loss(x):
        return 1 + x[:, 0] ** 2 + (x[:, 0] - 2 * x[:, 1]).sin()

    u = qw.uncertainty(loss, qw.Box(lower, upper), samples=1 << 15)
    # Gauss-Legendre on the box and on its faces.
    node, weight = np.polynomial.legendre.leggauss(24)
    axes = [low + (node + 1) / 2 * (high - low) for low, high in zip(lower, upper, strict=True)]

    def square(x, y):
        return (
            loss(torch.from_numpy(np.stack([x.ravel(), y.ravel()], 1))).numpy().reshape(x.shape)
            ** 2
        )

    volume = square(*np.meshgrid(*axes, indexing="ij"))
    inside = np.outer(weight, weight)
    beta = (inside * volume).sum() / 4  # mean over the box
    means = [
        (inside * volume * grid).sum() / 4 / beta for grid in np.meshgrid(*axes, indexing="ij")
    ]
    boundary = []
    for axis in (0, 1):
        along_face = axes[1 - axis]
        flux = 0.0
        for end, sign in ((upper[axis], 1), (lower[axis], -1)):
            face = np.full_like(along_face, end)
            values = square(*((face, along_face) if axis == 0 else (along_face, face)))
            flux += sign * (end - means[axis]) * (weight @ values) / 2
        boundary.append(flux / beta / (upper[axis] - lower[axis]))
    close(u, "boundary", np.array(boundary), rel=1e-3)
    close(u, "position_mean", np.array(means))


@pytest.mark.parametrize(
    "domain",
    [
        qw.Box([0, 0], [1, 2]),
        qw.Gaussian([0.5, 0.5], 0.3),
        qw.Neighborhood([[0.1, 0.5], [0.9, 0.4]], 0.2, clip=(0, 1)),
    ],
    ids=lambda domain: type(domain).__name__,
)
@given(st.lists(st.floats(-4, 4), min_size=4, max_size=4), st.integers(0, 1000))
@settings(deadline=None, max_examples=20)
def test_no_product_is_below_its_bound(domain, parameters, seed):
    a, b, c, d = parameters
    u = qw.uncertainty(
        lambda x: (a + b * x[:, 0] + c * x[:, 1] ** 2 + (d * x).prod(1)).abs() + 1e-3,
        domain,
        samples=256,
        seed=seed,
    )
    # Slopes below 1e-150 of the loss underflow when squared.
    assert (u.product >= u.bound * (1 - 1e-9) - 1e-150).all()
    np.testing.assert_allclose(u.bound, np.abs(1 - u.boundary) / 2, rtol=1e-9, atol=1e-15)
    assert u.total_position_std * u.total_momentum_std >= u.product.sum() * (1 - 1e-9)


# Neighborhoods


def test_neighborhood_is_the_sum_of_its_balls():
    # On two intervals a quadratic packet is a sum of polynomials: exact by Gauss-Legendre.
    centers, radius, clip = np.array([[0.05], [0.6], [0.7]]), 0.1, (0, 1)
    node, weight = np.polynomial.legendre.leggauss(20)
    low, high = np.maximum(centers - radius, 0), np.minimum(centers + radius, 1)
    t, w = ((low + high) / 2 + (high - low) / 2 * node).ravel(), np.tile(weight, 3)
    psi, slope = 0.3 + t**2, 2 * t
    norm = w @ psi**2
    mean, q = w @ (t * psi**2) / norm, w @ (psi * slope) / norm
    u = qw.uncertainty(lambda x: 0.3 + x[:, 0] ** 2, qw.Neighborhood(centers, radius, clip))
    close(u, "position_mean", mean)
    close(u, "position_std", math.sqrt(w @ ((t - mean) ** 2 * psi**2) / norm))
    close(u, "momentum_mean", q)
    close(u, "momentum_std", math.sqrt(w @ slope**2 / norm - q**2))
    close(u, "covariance", w @ ((t - mean) * psi * slope) / norm, rel=1e-2)


def test_one_ball_is_a_box():
    ball = qw.Neighborhood([[0.5, 0.9]], 0.25, clip=(0, 1))
    box = qw.Box([0.25, 0.65], [0.75, 1.0])

    def loss(x):
        return 1 + (4 * x[:, 0] * x[:, 1]).sin() ** 2

    one, other = qw.uncertainty(loss, ball), qw.uncertainty(loss, box, samples=1 << 16)
    for name in NAMES:
        miss = np.abs(getattr(one, name) - getattr(other, name))
        error = np.hypot(one.standard_error[name], other.standard_error[name])
        assert (miss <= 4 * error + 1e-9).all(), name


def test_more_balls_than_samples_of_a_replicate():
    centers = np.random.default_rng(0).random((500, 3))
    u = qw.uncertainty(lambda x: 1 + x[:, 0], qw.Neighborhood(centers, 0.01), samples=1024)
    weight = (1 + centers[:, 0]) ** 2
    close(u, "position_mean", weight @ centers / weight.sum(), rel=5e-2)


def test_as_many_samples_as_balls_miss_none():
    centers = np.arange(64.0)[:, None]
    visited = []

    def loss(x):
        visited.append(set(x.detach().round().flatten().tolist()))
        return 1 + 0 * x[:, 0]

    qw.uncertainty(loss, qw.Neighborhood(centers, 0.1), samples=8 * 64)
    assert visited == 8 * [set(range(64))]


# Properties


def _loss(x):
    return softplus(3 * x[:, 0] - x[:, 1]) + 0.1 * x[:, 2] ** 2


DOMAIN = qw.Gaussian([0.1, 0.2, 0.3], 0.4)


def assert_same(one, other, names=None, rtol=1e-9):
    for name in names or NAMES:
        np.testing.assert_allclose(
            getattr(one, name), getattr(other, name), rtol=rtol, atol=1e-12, err_msg=name
        )
        np.testing.assert_allclose(
            one.standard_error[name], other.standard_error[name], rtol=1e-5, atol=1e-12
        )


@given(st.floats(-250, 250))
@settings(deadline=None, max_examples=20)
def test_the_scale_of_the_loss_cancels(exponent):
    scale = 10.0**exponent
    one = qw.uncertainty(_loss, DOMAIN, samples=256)
    assert_same(one, qw.uncertainty(lambda x: scale * _loss(x), DOMAIN, samples=256))


@given(st.floats(-1e3, 1e3))
@settings(deadline=None, max_examples=20)
def test_shifting_the_domain_shifts_the_position_alone(shift):
    one = qw.uncertainty(_loss, DOMAIN, samples=256)
    moved = qw.Gaussian(DOMAIN.center + shift, DOMAIN.width)
    other = qw.uncertainty(lambda x: _loss(x - shift), moved, samples=256)
    assert_same(one, other, [name for name in NAMES if name != "position_mean"], rtol=1e-7)
    np.testing.assert_allclose(other.position_mean, one.position_mean + shift, rtol=1e-9)


@given(st.floats(0.01, 100))
@settings(deadline=None, max_examples=20)
def test_units_of_the_input(unit):
    one = qw.uncertainty(_loss, qw.Box([0, 0, 0], [1, 2, 1]), samples=256)
    other = qw.uncertainty(
        lambda x: _loss(x / unit), qw.Box([0, 0, 0], [unit, 2 * unit, unit]), samples=256
    )
    assert_same(one, other, ["product", "covariance", "boundary", "bound"])
    np.testing.assert_allclose(other.position_std, one.position_std * unit, rtol=1e-9)
    np.testing.assert_allclose(other.momentum_mean, one.momentum_mean / unit, rtol=1e-9)


@given(st.permutations(range(3)))
@settings(deadline=None, max_examples=6)
def test_permuting_directions_permutes_the_results(order):
    one = qw.uncertainty(_loss, DOMAIN, samples=256)
    other = qw.uncertainty(_loss, DOMAIN, samples=256, directions=np.eye(3)[order])
    for name in NAMES[:8]:
        np.testing.assert_allclose(getattr(other, name), getattr(one, name)[order], rtol=1e-9)
    assert other.total_position_std == pytest.approx(one.total_position_std)


def test_permuting_the_axes_of_the_loss_permutes_the_results():
    order = [2, 0, 1]
    one = qw.uncertainty(_loss, DOMAIN)
    moved = qw.Gaussian(DOMAIN.center[order], DOMAIN.width)
    other = qw.uncertainty(lambda x: _loss(x[:, torch.argsort(torch.tensor(order))]), moved)
    for name in ("position_mean", "position_std", "momentum_std"):
        error = np.hypot(one.standard_error[name][order], other.standard_error[name])
        assert (np.abs(getattr(other, name) - getattr(one, name)[order]) <= 4 * error).all()


@given(st.integers(0, 1 << 30))
@settings(deadline=None, max_examples=15)
def test_rotating_the_directions_rotates_the_moments(seed):
    rotation = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0]
    one = qw.uncertainty(_loss, DOMAIN, samples=256)
    other = qw.uncertainty(_loss, DOMAIN, samples=256, directions=rotation)
    for name in ("position_mean", "momentum_mean"):
        np.testing.assert_allclose(getattr(other, name), rotation @ getattr(one, name), rtol=1e-9)
    for name in ("total_position_std", "total_momentum_std"):
        assert getattr(other, name) == pytest.approx(getattr(one, name), rel=1e-9)
    assert other.covariance.sum() == pytest.approx(one.covariance.sum(), rel=1e-9)
    # The loss in rotated coordinates along the axes is the same packet.
    back = torch.from_numpy(rotation)
    turned = qw.uncertainty(
        lambda x: _loss(x @ back), qw.Gaussian(back @ DOMAIN.center, 0.4), samples=1 << 12
    )
    many = qw.uncertainty(_loss, DOMAIN, directions=rotation, samples=1 << 12)
    error = np.hypot(turned.standard_error["position_std"], many.standard_error["position_std"])
    assert (np.abs(turned.position_std - many.position_std) <= 5 * error).all()


def test_a_few_directions_are_rows_of_all():
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    all_, one = (
        qw.uncertainty(_loss, DOMAIN, directions=directions)
        for directions in (rotation, torch.from_numpy(rotation[1]).float())
    )
    assert one.product.shape == (1,)
    np.testing.assert_allclose(one.product, all_.product[1:2], rtol=1e-6)


def test_the_same_seed_gives_the_same_numbers_and_others_do_not():
    one, again = (qw.uncertainty(_loss, DOMAIN, samples=512, seed=3) for _ in range(2))
    other = qw.uncertainty(_loss, DOMAIN, samples=512, seed=4)
    for name in NAMES:
        np.testing.assert_array_equal(getattr(one, name), getattr(again, name))
        assert np.all(getattr(one, name) != getattr(other, name)), name


def test_the_result_is_complete():
    u = qw.uncertainty(_loss, DOMAIN, samples=1001, replicates=9)
    assert u.evaluations == 1001
    assert 300 < u.effective_sample_size < 1001
    assert set(u.standard_error) == set(NAMES)
    for name in NAMES:
        value, error = getattr(u, name), u.standard_error[name]
        assert np.shape(value) == np.shape(error) == (() if "total" in name else (3,))
        assert np.all(np.asarray(error) > 0)
    with pytest.raises(TypeError):
        u.standard_error["product"] = 0  # type: ignore[index]


def test_every_sample_is_evaluated_once_in_batches_of_bounded_size():
    sizes = []

    def loss(x):
        sizes.append(len(x))
        return 1 + x[:, 0] ** 2

    qw.uncertainty(loss, qw.Box(np.zeros(784), 1), samples=12000)
    assert sum(sizes) == 12000
    assert max(sizes) * 784 <= 1 << 20


# The accumulator


@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=6),
    st.integers(0, 1000),
    st.floats(-140, 140),
    st.floats(-1e4, 1e4),
)
@settings(deadline=None, max_examples=60)
def test_merged_sums_equal_the_sums_of_one_pass(sizes, seed, exponent, origin):
    generator = torch.Generator().manual_seed(seed)
    count = sum(sizes) + 1
    x, value, rate = (
        torch.randn(count, 3, dtype=torch.float64, generator=generator) for _ in range(3)
    )
    x = x + origin
    # Batches of very different scales, and one that is zero.
    value = value[:, 0].abs() * 10.0 ** torch.linspace(0, exponent, count, dtype=torch.float64)
    value[: sizes[0]] = 0
    rate = rate * value[:, None]
    whole = _Sums.of(x, value, rate)
    parts = [
        _Sums.of(*batch)
        for batch in zip(*(a.split([*sizes, 1]) for a in (x, value, rate)), strict=True)
        if len(batch[0])
    ]
    for merged in (sum(parts, _Sums.none()), sum(reversed(parts), _Sums.none())):
        unit = math.ldexp(1.0, 2 * (merged.exponent - whole.exponent))
        assert merged.weight * unit == pytest.approx(whole.weight, rel=1e-12)
        np.testing.assert_allclose(merged.mean, whole.mean, rtol=1e-10, atol=1e-12)
        variance, expected = merged.spread / merged.weight, whole.spread / whole.weight
        np.testing.assert_allclose(variance, expected, rtol=1e-9, atol=1e-11 * (1 + abs(origin)))
        assert merged.weight**2 / merged.weight_squared == pytest.approx(
            whole.weight**2 / whole.weight_squared, rel=1e-10
        )


# Honest error bars


@pytest.mark.parametrize("sampler", ["sobol", "uniform"])
def test_two_standard_errors_cover_the_truth_as_often_as_they_should(sampler):
    oracles = [
        by_name(name)
        for name in ("abs(t), width 0.5", "softplus(16 t)", "exponential, width 0.5", "x")
    ]
    seeds = 50
    scores = np.array(
        [
            [
                (getattr(u, name)[0] - truth) / u.standard_error[name][0]
                for name, truth in (
                    ("position_std", oracle.position_std),
                    ("momentum_std", oracle.momentum_std),
                    ("product", oracle.position_std * oracle.momentum_std),
                )
            ]
            for oracle in oracles
            for seed in range(seeds)
            for u in [
                qw.uncertainty(
                    along(oracle.profile, 0),
                    oracle.domain(1),
                    samples=2048,
                    sampler=sampler,
                    seed=seed,
                )
            ]
        ]
    )
    # 200 estimates of each figure: the standard error of their coverage is 1.5 percent.
    covered = (np.abs(scores) <= 2).mean(0)
    assert (covered >= 0.90).all(), covered
    assert (covered <= 0.99).all(), covered
    # The bias of the ratios is small against the error of one estimate.
    assert (np.abs(np.median(scores, axis=0)) < 0.25).all()


def test_standard_errors_shrink_as_the_theory_says():
    oracle = by_name("softplus(4 t)")
    few, many = (
        qw.uncertainty(along(oracle.profile, 0), oracle.domain(1), samples=n, sampler="uniform")
        for n in (1 << 11, 1 << 17)
    )
    # A factor 8; 7 degrees of freedom leave each error uncertain by a quarter.
    ratio = few.standard_error["product"][0] / many.standard_error["product"][0]
    assert 3 < ratio < 20
    even = qw.uncertainty(along(oracle.profile, 0), oracle.domain(1), samples=1 << 17)
    assert even.standard_error["product"][0] < many.standard_error["product"][0] / 10


def test_a_packet_that_one_replicate_alone_has_met_has_no_finite_error():
    u = qw.uncertainty(_first_replicate_only(), qw.Box(0, 1), samples=64)
    assert u.position_std[0] > 0
    assert all(np.isinf(error).all() for error in u.standard_error.values())


def _first_replicate_only():
    calls = []

    def loss(x):
        calls.append(len(x))
        return (1.0 if len(calls) == 1 else 0.0) * (1 + x[:, 0])

    return loss


# Bad calls


def _hole(x):
    return torch.where(x[:, 0] < 0.25, torch.full_like(x[:, 0], math.nan), 1 + x[:, 0])


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"domain": (0, 1)}, TypeError, r"domain must be a Box.*got tuple"),
        ({"loss": lambda x: 0 * x[:, 0]}, ValueError, r"zero at all 8192 samples"),
        (
            {"loss": lambda x: x[:, 0] - 0.5},
            ValueError,
            r"loss must not be negative, got 5\d\d neg",
        ),
        ({"loss": _hole}, ValueError, r"got 256 NaN or infinite values at 1024 points, the first"),
        ({"loss": lambda x: x.mean()}, ValueError, r"got shape \(\) for points \(1024, 2\)"),
        ({"loss": lambda x: x.detach()[:, 0]}, ValueError, r"differentiable by autograd"),
        ({"directions": np.eye(3)}, ValueError, r"shape \(k, 2\), got shape \(3, 3\)"),
        ({"directions": np.zeros((0, 2))}, ValueError, r"got shape \(0, 2\)"),
        ({"directions": [[1, 0], [0.6, 0.8]]}, ValueError, r"product 0.6 of directions 0 and 1"),
        ({"directions": [[1, 0], [0, 2]]}, ValueError, r"length 2 of direction 1.*np\.linalg\.qr"),
        ({"directions": [[math.nan, 0]]}, ValueError, r"directions must be finite"),
        ({"samples": 63}, ValueError, r"samples must be at least 64, got 63; each of the 8"),
        ({"samples": 1e4}, TypeError, r"samples must be an integer, got 10000\.0"),
        ({"replicates": 7}, ValueError, r"replicates must be at least 8, got 7"),
        ({"seed": -1}, ValueError, r"seed must be at least 0, got -1"),
        ({"sampler": "sobl"}, ValueError, r"got 'sobl'; did you mean 'sobol'\?"),
    ],
)
def test_refuses(change, kind, message):
    call = {"loss": lambda x: 1 + x[:, 0], "domain": qw.Box([0, 0], [1, 1])}
    with pytest.raises(kind, match=message):
        qw.uncertainty(**{**call, **change})
