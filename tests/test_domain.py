"""Domains: samples, weights, scores, and what they refuse."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qwidgets.domain import Box, Gaussian, Neighborhood, evaluate, loss_and_gradient, unit_cube

DOMAINS = [
    Box([-1, 2], [3, 2.5]),
    Gaussian([1, -2], 0.7),
    Neighborhood([[0.1, 0.5], [0.5, 0.95], [0.4, 0.4]], 0.2),
    Neighborhood([[0.1, 0.5], [0.5, 0.95], [0.0, 0.4]], 0.2, clip=(0, 1)),
]


@pytest.mark.parametrize("sampler", ["sobol", "uniform"])
def test_unit_cube_is_strictly_inside_reproducible_and_fills_evenly(sampler):
    points = unit_cube(sampler, 3, 7)(1 << 14)
    assert points.shape == (1 << 14, 3)
    assert points.dtype == torch.float64
    assert 0 < points.min() < 1e-3
    assert 1 - 1e-3 < points.max() < 1
    torch.testing.assert_close(points, unit_cube(sampler, 3, 7)(1 << 14), rtol=0, atol=0)
    assert not torch.equal(points, unit_cube(sampler, 3, 8)(1 << 14))
    # 4 standard errors of independent points; Sobol' points are much closer.
    error = (points.mean(0) - 0.5).abs().max()
    assert error < (4 / math.sqrt(12 * (1 << 14)) if sampler == "uniform" else 1e-4)


def test_unit_cube_goes_on_where_it_stopped():
    draw = unit_cube("sobol", 5, 0)
    torch.testing.assert_close(
        torch.cat([draw(100), draw(28)]), unit_cube("sobol", 5, 0)(128), rtol=0, atol=0
    )


@pytest.mark.parametrize("first", [1, 5, 32, 1 << 15])  # the last is too long to be remembered
def test_a_remembered_beginning_is_nobody_elses(first):
    whole = unit_cube("sobol", 5, 3)(1 << 16)
    for _ in range(2):
        draw = unit_cube("sobol", 5, 3)
        for expected in (whole[:first], whole[first : first + 2]):
            points = draw(len(expected))
            assert torch.equal(points, expected)
            points.zero_()


def test_sobol_points_put_one_in_each_interval_of_every_axis():
    points = unit_cube("sobol", 21201, 3)(64)
    cells = (points * 64).long().sort(0).values
    assert (cells == torch.arange(64)[:, None]).all()


def test_sobol_points_of_two_axes_fill_all_boxes_of_the_same_area():
    # What makes them Sobol' points, (0, m, 2)-nets, survives the scrambling.
    points = unit_cube("sobol", 2, 5)(64)
    for power in range(7):
        cells = torch.tensor([2**power, 2 ** (6 - power)])
        index = (points * cells).long()
        assert len(set(map(tuple, index.tolist()))) == 64


def test_sobol_errors_of_replicates_are_nearly_normal():
    # What makes standard errors from a few replicates honest: no heavy tails.
    errors = torch.tensor(
        [float((unit_cube("sobol", 1, s)(64) ** 2).mean() - 1 / 3) for s in range(400)]
    )
    spread = errors.std()
    assert abs(errors.mean()) < 4 * spread / 20
    # n^(-3/2) times the deviation of a cell, sqrt(4 / 3 / 12).
    assert spread == pytest.approx(64**-1.5 / 3, rel=0.2)
    assert 2 < (errors**4).mean() / spread**4 < 4.5


def test_beyond_the_sobol_dimensions_points_are_independent():
    points = unit_cube("sobol", 21202, 3)(4)
    torch.testing.assert_close(points, unit_cube("uniform", 21202, 3)(4), rtol=0, atol=0)


def test_unit_cube_leaves_the_global_random_state_alone():
    before = torch.get_rng_state()
    unit_cube("sobol", 3, 1)(10)
    unit_cube("uniform", 3, 1)(10)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("domain", DOMAINS, ids=lambda domain: type(domain).__name__)
@pytest.mark.parametrize("sampler", ["sobol", "uniform"])
def test_weights_have_mean_one_and_samples_the_moments_of_the_measure(domain, sampler):
    sample = domain.sample(unit_cube(sampler, domain.cube_dimension, 1)(1 << 16))
    x, weight = sample.x, sample.weight
    assert x.shape == (1 << 16, domain.dimension)
    assert weight.shape == (1 << 16,)
    if isinstance(domain, Box):
        mean = (domain.lower + domain.upper) / 2
        variance = (domain.upper - domain.lower) ** 2 / 12
    elif isinstance(domain, Gaussian):
        mean, variance = domain.center, torch.full((2,), domain.width**2, dtype=torch.float64)
    else:
        low, high = domain.centers - domain.radius, domain.centers + domain.radius
        if domain.clip:
            low, high = low.clamp(*domain.clip), high.clamp(*domain.clip)
        middle = (low + high) / 2
        mean = middle.mean(0)
        variance = ((high - low) ** 2 / 12 + middle**2).mean(0) - mean**2
    # The largest deviation in units of the standard error of independent points.
    for values, expected in ((weight[:, None], torch.ones(1)), (weight[:, None] * x, mean)):
        error = values.std(0) / math.sqrt(len(x))
        assert ((values.mean(0) - expected).abs() <= 4 * error + 1e-12).all()
    square = weight[:, None] * (x - mean) ** 2
    assert ((square.mean(0) - variance).abs() <= 4 * square.std(0) / math.sqrt(len(x))).all()


def test_gaussian_score_is_the_gradient_of_the_log_amplitude():
    domain = Gaussian([1, -2, 0.5], 0.7)
    x = torch.randn(20, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x.requires_grad_()
    normal = torch.distributions.Normal(domain.center, domain.width)
    (gradient,) = torch.autograd.grad(normal.log_prob(x).sum() / 2, x)
    torch.testing.assert_close(domain.score(x.detach()), gradient)


@pytest.mark.parametrize("domain", [DOMAINS[0], *DOMAINS[2:]])
def test_uniform_measures_have_no_score(domain):
    assert not domain.score(torch.ones(4, 2, dtype=torch.float64)).any()


@pytest.mark.parametrize("domain", DOMAINS, ids=lambda domain: type(domain).__name__)
def test_stein_identity(domain):
    # <u> = <kappa a> and <u^2> = <kappa a u + rest>, weighted by l^2; within 5 standard errors of
    # independent points.
    def loss(x):
        return 1 + (x[:, 0] - 0.5 * x[:, 1]) ** 2 + (2 * x[:, 0]).sin()

    cube = unit_cube("uniform", domain.cube_dimension, 2)(1 << 17)
    sample = domain.sample(cube)
    value, gradient = loss_and_gradient(loss, sample.x)
    shift, rest = domain.stein(sample, value, gradient)
    u = sample.x - sample.middle
    first = value[:, None] * shift
    second = value[:, None] * (shift * u + rest)
    # One that is not zero shows that the errors are small enough to tell.
    wrong = value[:, None] ** 2 * u**2
    assert (wrong.mean(0) > 50 * wrong.std(0) / math.sqrt(len(wrong))).all()
    for zero in (first, second):
        error = zero.std(0) / math.sqrt(len(zero))
        assert (zero.mean(0).abs() <= 5 * error).all()


@pytest.mark.parametrize("domain", DOMAINS, ids=lambda domain: type(domain).__name__)
def test_along_a_flat_axis_steins_identity_has_no_noise(domain):
    sample = domain.sample(unit_cube("uniform", domain.cube_dimension, 2)(100))
    value = torch.rand(100, dtype=torch.float64)
    shift, rest = domain.stein(sample, value, torch.zeros_like(sample.x))
    u = sample.x - sample.middle
    torch.testing.assert_close(shift / value[:, None], -u)
    variance = sample.reach**2 / (1 if isinstance(domain, Gaussian) else 3)
    torch.testing.assert_close((rest / value[:, None]).expand_as(u), variance.expand_as(u))


@pytest.mark.parametrize("domain", DOMAINS, ids=lambda domain: type(domain).__name__)
def test_variance_is_that_of_the_position_in_a_piece(domain):
    sample = domain.sample(unit_cube("uniform", domain.cube_dimension, 3)(1 << 16))
    square = (sample.x - sample.middle) ** 2
    error = square.std(0) / math.sqrt(len(square))
    assert ((square.mean(0) - domain.variance).abs() <= 4 * error).all()


def test_fingerprints_tell_domains_apart():
    one = Box([0, 0], [1, 2])
    assert one.fingerprint == Box([0, 0], [1, 2]).fingerprint
    others = [Box([0, 0], [1, 3]), Gaussian([0, 0], 1), Gaussian([0, 0], 2), *DOMAINS[2:]]
    assert len({domain.fingerprint for domain in [one, *others]}) == 1 + len(others)


def test_neighborhood_visits_all_balls_evenly_and_stays_inside():
    centers = np.random.default_rng(0).random((37, 4))
    domain = Neighborhood(centers, 0.1, clip=(0, 1))
    cube = unit_cube("sobol", domain.cube_dimension, 0)(128)
    x = domain.sample(cube).x
    ball = (cube[:, 0] * 37).long()
    counts = torch.bincount(ball, minlength=37)
    # One point in each of 128 intervals, of which a ball takes two whole ones and touches five.
    assert counts.min() >= 2
    assert counts.max() <= 5
    assert ((x - domain.centers[ball]).abs() <= 0.1 + 1e-15).all()
    assert x.min() >= 0
    assert x.max() <= 1


def test_neighborhood_ball_index_survives_rounding_up():
    last = torch.full((1, 3), 1 - 2.0**-53, dtype=torch.float64)
    for balls in range(1, 200):
        x = Neighborhood(np.arange(2.0 * balls).reshape(balls, 2), 0.5).sample(last).x
        assert (x[0] > 2 * balls - 2).all()


def test_scalars_are_one_dimensional_and_broadcast():
    assert Box(0, 1).dimension == 1
    assert Box(0, [1, 2, 3]).dimension == 3
    assert Gaussian(0, 1).dimension == 1
    assert Neighborhood(torch.zeros(5, 7), 1).dimension == 7


def test_domains_keep_their_own_copy_and_cannot_be_changed():
    center = np.zeros(2)
    domain = Gaussian(center, 1)
    center += 1
    assert not domain.center.any()
    with pytest.raises(AttributeError):
        domain.width = 2  # type: ignore[misc]


@pytest.mark.parametrize(
    ("build", "kind", "message"),
    [
        (
            lambda: Box(1, 0),
            ValueError,
            r"lower must be below upper.*lower 1 and upper 0 on axis 0",
        ),
        (lambda: Box([0, 1], [1, 1]), ValueError, r"on axis 1 \(1 of 2 axes\)"),
        (lambda: Box([0, 0], [1, 1, 1]), ValueError, r"got 2 and 3 numbers"),
        (lambda: Box(0, math.nan), ValueError, r"upper must be finite, got 1 NaN"),
        (
            lambda: Box(np.zeros((2, 2)), 1),
            ValueError,
            r"lower must be a vector.*got shape \(2, 2\)",
        ),
        (lambda: Box([], []), ValueError, r"got shape \(0,\)"),
        (lambda: Box("a", 1), TypeError, r"lower must be an array of numbers, got 'a'"),
        (lambda: Gaussian(0, 0), ValueError, r"width must be positive and finite, got 0"),
        (lambda: Gaussian(0, -2), ValueError, r"width must be positive and finite, got -2"),
        (lambda: Gaussian(0, math.nan), ValueError, r"width must be positive and finite, got nan"),
        (lambda: Gaussian(0, [1, 2]), TypeError, r"width must be one number"),
        (lambda: Gaussian(0, "1"), TypeError, r"width must be one number, .*, got '1'"),  # type: ignore[arg-type]
        (
            lambda: Gaussian(0, 1e300),
            ValueError,
            r"width must be .* in 1e-150\.\.1e\+150, got 1e\+300",
        ),
        (lambda: Gaussian([1j], 1), TypeError, r"center must be real, got torch.complex128"),
        (lambda: Gaussian([math.inf], 1), ValueError, r"center must be finite"),
        (lambda: Neighborhood([], 1), ValueError, r"at least one point.*got shape \(0,\)"),
        (lambda: Neighborhood(np.zeros((0, 3)), 1), ValueError, r"at least one point"),
        (lambda: Neighborhood(np.zeros((2, 3, 3)), 1), ValueError, r"reshape\(n, -1\)"),
        (lambda: Neighborhood([[0.0]], 0), ValueError, r"radius must be positive.*got 0"),
        (lambda: Neighborhood([[0.0]], -1), ValueError, r"radius must be positive.*got -1"),
        (lambda: Neighborhood([[0.0], [2]], 1, clip=(0, 1)), ValueError, r"1 of 2 centers outside"),
        (
            lambda: Neighborhood([[0.0]], 1, clip=(1, 0)),
            ValueError,
            r"low < high, got \(1.0, 0.0\)",
        ),
        (lambda: Neighborhood([[0.0]], 1, clip=(0, math.inf)), ValueError, r"two finite numbers"),
        (lambda: Neighborhood([[0.0]], 1, clip=3), TypeError, r"clip must be two numbers"),  # type: ignore[arg-type]
        (lambda: unit_cube("sobel", 2, 0), ValueError, r"got 'sobel' \(did you mean 'sobol'\?"),
        (lambda: unit_cube("halton", 2, 0), ValueError, r"one of 'sobol', 'uniform', got 'halton'"),
    ],
)
def test_refuses(build, kind, message):
    with pytest.raises(kind, match=message):
        build()


@settings(deadline=None)
@given(st.integers(1, 4), st.integers(1, 6), st.integers(0, 100))
def test_loss_and_gradient_agree_with_a_quadratic_form(dimension, count, seed):
    x = torch.randn(
        count, dimension, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )
    value, gradient = loss_and_gradient(lambda x: (x**2).sum(1), x)
    torch.testing.assert_close(value, (x**2).sum(1))
    torch.testing.assert_close(gradient, 2 * x)
    assert not x.requires_grad


def test_loss_and_gradient_work_without_a_graph_around_and_in_float32():
    x = torch.ones(3, 2, dtype=torch.float64)
    with torch.no_grad():
        value, gradient = loss_and_gradient(lambda x: (x.float() ** 2).sum(1), x)
    assert value.dtype == gradient.dtype == torch.float64
    torch.testing.assert_close(gradient, 2 * x)


def test_a_constant_loss_has_no_gradient():
    x = torch.rand(5, 2, dtype=torch.float64)
    for loss in (lambda x: torch.ones(len(x)), lambda x: torch.ones(len(x), requires_grad=True)):
        value, gradient = loss_and_gradient(loss, x)
        assert (value == 1).all()
        assert not gradient.any()


def _hole(x):
    value = 1 + x[:, 0] ** 2
    return torch.where(x[:, 0] > 0.5, value * math.nan, value)


@pytest.mark.parametrize(
    ("loss", "kind", "message"),
    [
        (
            lambda x: x.sum(1).detach().numpy(),
            TypeError,
            r"floating-point torch tensor, got ndarray",
        ),
        (lambda x: (x[:, 0] > 0).long(), TypeError, r"got torch.int64"),
        (lambda x: x.sum(), ValueError, r"shape \(8,\), got shape \(\) for points \(8, 6\)"),
        (lambda x: x**2, ValueError, r"got shape \(8, 6\)"),
        (_hole, ValueError, r"got 3 NaN or infinite values at 8 points, the first at x = \[0.625"),
        (
            lambda x: x[:, 0] - 0.2,
            ValueError,
            r"got 2 negative values at 8 points.*x = \[0, 0, 0, 0, ",
        ),
        (lambda x: x[:, 0].detach() ** 2, ValueError, r"differentiable by autograd.*\.detach\(\)"),
        (lambda x: x[:, 0].sqrt(), ValueError, r"got 1 NaN or infinite gradient at 8 points"),
    ],
)
def test_a_bad_loss_is_refused(loss, kind, message):
    x = torch.zeros(8, 6, dtype=torch.float64)
    x[:, 0] = torch.arange(8) / 8
    with pytest.raises(kind, match=message):
        loss_and_gradient(loss, x)


def test_several_losses_share_the_points():
    x = torch.rand(7, 3, dtype=torch.float64)
    values = evaluate(lambda x: torch.stack([x[:, 0] ** 2, x.prod(1)], 1), x)
    assert not values.alone
    torch.testing.assert_close(values.value, torch.stack([x[:, 0] ** 2, x.prod(1)]))
    first, second = values.gradient(0), values.gradient(1)
    torch.testing.assert_close(first[:, 0], 2 * x[:, 0])
    torch.testing.assert_close(second, x.prod(1, keepdim=True) / x)
    assert evaluate(lambda x: x[:, 0], x).alone


def test_without_derivative_no_graph_is_recorded():
    seen = []

    def loss(x):
        seen.append(x.requires_grad)
        return x[:, 0]

    evaluate(loss, torch.ones(2, 1, dtype=torch.float64), derivative=False)
    assert seen == [False]


def test_half_precision_that_overflows_is_named():
    x = torch.full((4, 1), 300.0, dtype=torch.float64)
    with pytest.raises(
        ValueError, match=r"got 4 NaN or infinite values.*float16.*model\.float\(\)"
    ):
        loss_and_gradient(lambda x: x.half()[:, 0] ** 2, x)
