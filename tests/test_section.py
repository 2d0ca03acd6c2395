"""The packet along one line: closed forms, independent quadrature, bounds, Wigner function."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from oracles import GAUSSIAN, PRINTED, along, by_name, product_of

import qwidgets as qw
from qwidgets.section import packet_moments

LOWEST = 0.5 * (1 - 1e-3)


def line(profile, width, **settings):
    return qw.section(along(profile, 0), [0.0], [1.0], width, **settings)


@pytest.mark.parametrize("oracle", GAUSSIAN, ids=lambda oracle: oracle.name)
@pytest.mark.parametrize("points", [257, 512, 513])
def test_moments_are_exact(oracle, points):
    s = line(oracle.profile, oracle.width, points=points)
    assert s.position_mean == pytest.approx(oracle.position_mean, rel=1e-6, abs=1e-9)
    assert s.position_std == pytest.approx(oracle.position_std, rel=1e-6)
    assert s.momentum_std == pytest.approx(oracle.momentum_std, rel=1e-6)
    assert s.product == pytest.approx(oracle.position_std * oracle.momentum_std, rel=1e-6)
    assert s.product >= 0.5 * (1 - 1e-9)


@pytest.mark.parametrize("name", [name for name in PRINTED if "softplus" in name])
def test_softplus_rows_to_the_printed_digits(name):
    s = line(by_name(name).profile, 0.5)
    shown = tuple(f"{value:.6f}" for value in (s.position_std, s.momentum_std, s.product))
    assert shown == PRINTED[name]


@pytest.mark.parametrize("dimension", [2, 3, 10])
def test_an_oracle_laid_along_one_axis_and_a_tilted_line(dimension):
    oracle = by_name("softplus(4 t)")
    tilt = np.linspace(1, 2, dimension)
    tilt /= np.linalg.norm(tilt)
    unit = torch.from_numpy(tilt)
    origin = np.full(dimension, 0.3) - 0.3 * tilt.sum() * tilt  # on the boundary
    tilted = qw.section(lambda x: oracle.profile(x @ unit), origin, 7 * tilt, 0.5)
    straight = qw.section(along(oracle.profile, 1), np.zeros(dimension), np.eye(dimension)[1], 0.5)
    for s in (tilted, straight):
        assert s.position_std == pytest.approx(oracle.position_std, rel=1e-6)
        assert s.momentum_std == pytest.approx(oracle.momentum_std, rel=1e-6)
    np.testing.assert_allclose(tilted.direction, tilt, rtol=1e-14)
    across = qw.section(along(oracle.profile, 1), np.zeros(dimension), np.eye(dimension)[0], 0.5)
    assert across.product == pytest.approx(0.5, rel=1e-9)


def test_a_product_of_oracles_keeps_its_axes_apart():
    names = ["softplus(4 t)", "abs(t), width 0.5", "exponential, width 0.5"]
    loss = product_of([by_name(name).profile for name in names])
    for axis, name in enumerate(names):
        # The other factors are constants on the line; abs(t) must not be zero there.
        s = qw.section(
            loss, np.array([0.0, 0.2, 0.1]) * (np.arange(3) != axis), np.eye(3)[axis], 0.5
        )
        assert s.product == pytest.approx(
            by_name(name).position_std * by_name(name).momentum_std, rel=1e-6
        )


def test_a_flat_loss_is_the_coherent_state():
    s = line(lambda t: 2 + 0 * t, 0.7)
    assert s.product == pytest.approx(0.5, abs=1e-10)
    np.testing.assert_allclose(
        s.amplitude, np.exp(-(s.t**2) / (4 * 0.49)) / (2 * math.pi * 0.49) ** 0.25, rtol=1e-10
    )


def test_fields():
    s = line(torch.cosh, 0.5, points=300)
    np.testing.assert_allclose(s.t, np.linspace(-4, 4, 300))
    np.testing.assert_allclose(s.loss, np.cosh(s.t))
    np.testing.assert_allclose(s.slope, np.sinh(s.t))
    assert s.amplitude.shape == (300,)
    assert np.trapezoid(s.amplitude**2, s.t) == pytest.approx(1, rel=1e-9)
    assert s.width == 0.5
    assert s.product == s.position_std * s.momentum_std


@given(st.floats(0.1, 6), st.floats(-2, 2), st.floats(0, 3), st.floats(0.05, 4), st.floats(0.1, 5))
@settings(deadline=None)
def test_agrees_with_the_trapezoid_rule_where_the_loss_is_smooth(k, a, floor, height, width):
    # Sharpness at most 6 / width: the rule converges faster than any power of the step there.
    t = np.linspace(-8, 8, 1025) * width
    steep = k * (t / width - a)
    loss = floor + height * np.logaddexp(0, steep)
    slope = height * k / width * np.exp(-np.logaddexp(0, -steep))
    window = np.exp(-((t / (2 * width)) ** 2))
    psi, dpsi = loss * window, (slope - loss * t / (2 * width**2)) * window
    norm = (psi**2).sum()
    mean = (t * psi**2).sum() / norm
    std = math.sqrt(((t - mean) ** 2 * psi**2).sum() / norm)
    momentum = math.sqrt((dpsi**2).sum() / norm)
    result = packet_moments(t[::4], loss[::4], slope[::4], width)
    assert result.position_mean == pytest.approx(mean, abs=2e-6 * width)
    assert result.position_std == pytest.approx(std, rel=2e-6)
    assert result.momentum_std == pytest.approx(momentum, rel=2e-6)


coordinate = st.floats(-9, 9, allow_subnormal=False)
slopes = st.floats(-1e3, 1e3, allow_subnormal=False)


@settings(deadline=None, max_examples=300)
@given(
    st.lists(st.tuples(coordinate, slopes, st.booleans()), min_size=1, max_size=6),
    st.sampled_from([0.0, 1e-6, 0.1, 1.0, 10.0]),
    st.sampled_from([257, 258, 513]),
)
@example([(7.97, 1.0, True)], 0.0, 257)  # a packet cut out of the very edge of the window
@example([(0.0, 1.0, True), (0.0, 1.0, False)], 0.0, 257)  # a kink on a point
@example([(0.03, 1e3, True), (0.04, -2e3, True), (0.05, 1e3, True)], 0.0, 257)  # below one step
def test_no_piecewise_linear_loss_goes_below_the_bound(hinges, floor, points):
    t = np.linspace(-8, 8, points)
    raw, slope = np.full(points, floor), np.zeros(points)
    for place, rate, right in hinges:
        reach = t - place if right else place - t
        raw += rate * np.maximum(reach, 0)
        slope += rate * (reach > 0) * (1 if right else -1)
    loss, slope = np.maximum(raw, 0), slope * (raw > 0)
    result = packet_moments(t, loss, slope, 1.0)
    if loss.any():
        assert result.product >= LOWEST
    else:
        assert np.isnan(result.product)


@given(
    st.lists(st.tuples(coordinate, slopes), min_size=1, max_size=4),
    st.floats(0.01, 10),
    st.floats(0.1, 3),
)
@settings(deadline=None, max_examples=60)
def test_no_section_of_a_relu_network_goes_below_the_bound(hinges, floor, width):
    def profile(t):
        return floor + sum(rate * torch.relu(t - place) for place, rate in hinges).abs()

    assert line(profile, width).product >= LOWEST


@given(st.lists(st.integers(0, 9), min_size=257, max_size=257), st.integers(0, 1 << 30))
@settings(deadline=None, max_examples=60)
def test_slopes_that_contradict_the_values_keep_the_bound(values, seed):
    slope = np.random.default_rng(seed).normal(size=257) * 100
    result = packet_moments(np.linspace(-8, 8, 257), np.array(values, dtype=float), slope, 1.0)
    if np.any(values):
        assert result.product >= LOWEST


@pytest.mark.parametrize("place", [0.0, 0.01, 1 / 3, -1.0, 2.345])
@pytest.mark.parametrize("points", [257, 514])
def test_a_kink_anywhere_is_followed_to_its_place(place, points):
    # relu(t - a) in a Gaussian window, integrated from its kink on.
    s = line(lambda t: torch.relu(t - place), 1.0, points=points)
    node, weight = np.polynomial.legendre.leggauss(200)
    t = place + 6 * (node + 1)
    density = 6 * weight * np.exp(-(t**2) / 2)
    loss = t - place
    norm = density @ loss**2
    mean = density @ (t * loss**2) / norm
    std = math.sqrt(density @ ((t - mean) ** 2 * loss**2) / norm)
    momentum = math.sqrt(density @ (1 - loss * t / 2) ** 2 / norm)
    assert s.position_mean == pytest.approx(mean, rel=1e-6)
    assert s.position_std == pytest.approx(std, rel=1e-6)
    assert s.momentum_std == pytest.approx(momentum, rel=1e-6)


def test_rough_losses_end_the_search_for_kinks():
    evaluations = []

    def noisy(t):
        evaluations.append(len(t))
        return 2 + 1e-3 * (1e4 * t.float()).sin().double()

    assert line(noisy, 1.0).product >= LOWEST
    assert sum(evaluations) < 4 * 513


@given(st.floats(-200, 200))
@settings(deadline=None)
def test_the_scale_of_the_loss_cancels(exponent):
    t = np.linspace(-4, 4, 257)
    loss, slope = np.logaddexp(0, 4 * t), 4 / (1 + np.exp(-4 * t))
    scale = 10.0**exponent
    one, other = (
        packet_moments(t, loss, slope, 0.5),
        packet_moments(t, scale * loss, scale * slope, 0.5),
    )
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10)


@given(st.floats(-3, 3), st.floats(0.2, 5))
@settings(deadline=None)
def test_units_of_the_input(shift, unit):
    one = line(lambda t: 1 + (2 * t - 1) ** 2, 0.5)
    other = qw.section(
        lambda x: 1 + (2 * (x[:, 0] - shift) / unit - 1) ** 2, [shift], [1], 0.5 * unit
    )
    assert other.position_mean == pytest.approx(one.position_mean * unit, rel=1e-6)
    assert other.position_std == pytest.approx(one.position_std * unit, rel=1e-6)
    assert other.momentum_std == pytest.approx(one.momentum_std / unit, rel=1e-6)
    assert other.product == pytest.approx(one.product, rel=1e-6)


def test_turning_the_direction_round_mirrors_the_packet():
    def loss(x):
        return torch.nn.functional.softplus(3 * x[:, 0]) + 0.1

    one, other = (qw.section(loss, [0.1], [sign], 0.5) for sign in (1, -2))
    assert other.position_mean == pytest.approx(-one.position_mean, rel=1e-9)
    assert other.position_std == pytest.approx(one.position_std, rel=1e-9)
    np.testing.assert_allclose(other.amplitude, one.amplitude[::-1], rtol=1e-9)


def test_batches_tensors_arrays_and_float32():
    generator = np.random.default_rng(0)
    t = np.linspace(-4, 4, 257)
    k = generator.uniform(0.1, 10, (3, 5, 1))
    loss, slope = np.logaddexp(0, k * t), k / (1 + np.exp(-k * t))
    loss[1, 2] = slope[1, 2] = 0  # saturated everywhere
    arrays = packet_moments(t, loss, slope, 0.5)
    tensors = packet_moments(*(torch.from_numpy(value) for value in (t, loss, slope)), 0.5)
    assert arrays.product.shape == (3, 5)
    assert arrays.amplitude.shape == (3, 5, 257)
    assert isinstance(arrays.product, np.ndarray)
    assert isinstance(tensors.product, torch.Tensor)
    single = torch.from_numpy(loss).float(), torch.from_numpy(slope).float()
    rough = packet_moments(torch.from_numpy(t), *single, 0.5)
    assert rough.product.dtype == torch.float64
    for a, b, c in zip(arrays, tensors, rough, strict=True):
        np.testing.assert_array_equal(a, b.numpy())
        np.testing.assert_allclose(a, c.numpy(), rtol=1e-4, atol=1e-6)
        assert np.isnan(a[1, 2]).all()
        assert np.isnan(a).sum() == np.isnan(a[1, 2]).sum()
    alone = packet_moments(t, loss[2, 4], slope[2, 4], 0.5)
    assert alone.product == pytest.approx(arrays.product[2, 4], rel=1e-12)


def test_points_need_not_be_equally_spaced():
    t = np.sort(
        np.concatenate([np.linspace(-8, 8, 257), np.random.default_rng(0).uniform(-8, 8, 99)])
    )
    result = packet_moments(t, 1 + t**2, 2 * t, 1.0)
    even = packet_moments(
        np.linspace(-8, 8, 2049),
        *(f(np.linspace(-8, 8, 2049)) for f in (lambda t: 1 + t**2, lambda t: 2 * t)),
        1.0,
    )
    for a, b in zip(result[:4], even[:4], strict=True):
        assert a == pytest.approx(b, rel=1e-9, abs=1e-9)


# Momentum density and Wigner function


def test_momentum_density_of_a_gaussian_packet():
    s = line(lambda t: 1 + 0 * t, 0.6)
    k, density = s.momentum_density()
    spread = 1 / (2 * 0.6)
    expected = np.exp(-(k**2) / (2 * spread**2)) / (math.sqrt(2 * math.pi) * spread)
    np.testing.assert_allclose(density, expected, atol=1e-9)


@pytest.mark.parametrize("k", [1, 4])
def test_momentum_density_is_normalised_and_its_std_is_momentum_std(k):
    s = line(by_name(f"softplus({k} t)").profile, 0.5)
    momenta, density = s.momentum_density(np.linspace(-30, 30, 1501))
    step = momenta[1] - momenta[0]
    assert density.sum() * step == pytest.approx(1, rel=1e-6)
    assert (momenta * density).sum() * step == pytest.approx(0, abs=1e-9)
    assert math.sqrt((momenta**2 * density).sum() * step) == pytest.approx(s.momentum_std, rel=1e-5)


def test_momentum_density_is_parseval_of_the_derivative():
    s = line(lambda t: torch.nn.functional.softplus(6 * t - 1) + 0.05, 0.5)
    k, density = s.momentum_density(np.linspace(-60, 60, 4001))
    assert np.sqrt((k**2 * density).sum() * (k[1] - k[0])) == pytest.approx(
        s.momentum_std, rel=1e-5
    )


def naive_wigner(psi, t, k, reach, count=2001):
    """The definition, one complex sum for each point of phase space."""
    y = np.linspace(-reach, reach, count)
    table = np.empty((len(t), len(k)), dtype=complex)
    for i, place in enumerate(t):
        for j, momentum in enumerate(k):
            values = psi(place + y) * psi(place - y) * np.exp(-2j * momentum * y)
            table[i, j] = values.sum() * (y[1] - y[0]) / math.pi
    assert np.abs(table.imag).max() < 1e-12
    return table.real


def test_wigner_of_a_gaussian_packet_is_the_positive_gaussian():
    s = line(lambda t: 1 + 0 * t, 0.6)
    t, k, density = s.wigner()
    expected = np.exp(-(t[:, None] ** 2) / (2 * 0.36) - 2 * 0.36 * k**2) / math.pi
    np.testing.assert_allclose(density, expected, atol=1e-9)
    assert density.min() > -1e-12


def test_wigner_of_abs_against_its_closed_form_on_the_momentum_axis():
    # psi ~ |t| exp(-t^2 / 4 s^2). At k = 0: W(t, 0) = (1 / pi) integral |t + y| |t - y| G dy with
    # G = exp(-(t^2 + y^2) / 2 s^2) / norm; the integrand is |t^2 - y^2|, elementary with erf:
    # integral |t^2 - y^2| g = (t^2 - 1)(2 erf(t / sqrt 2) - 1) + 4 t phi(t) in units of s,
    # and norm = s^3 sqrt(2 pi).
    s = line(torch.abs, 1.0)
    t = np.linspace(-4, 4, 33)
    _, _, density = s.wigner(t, [0.0])
    phi = np.exp(-(t**2) / 2) / math.sqrt(2 * math.pi)
    erf = np.array([math.erf(value / math.sqrt(2)) for value in np.abs(t)])
    expected = np.exp(-(t**2) / 2) / math.pi * ((t**2 - 1) * (2 * erf - 1) + 4 * np.abs(t) * phi)
    np.testing.assert_allclose(density[:, 0], expected, atol=2e-4)


def test_wigner_of_the_first_excited_state_has_the_textbook_hole():
    # No loss changes its sign, t does: the amplitude t sqrt(g) is the oscillator's first excited
    # state, whose closed form is (1 / pi)(q - 1) exp(-q / 2) with q = t^2 / s^2 + 4 s^2 k^2.
    s = line(torch.abs, 1.0)
    odd = type(s)(
        **{
            **{name: getattr(s, name) for name in s.__dataclass_fields__},
            "loss": s.t,
            "slope": np.ones_like(s.t),
            "amplitude": s.amplitude * np.sign(s.t),
        }
    )
    t, k, density = odd.wigner()
    square = t[:, None] ** 2 + 4 * k**2
    np.testing.assert_allclose(
        density, (square - 1) * np.exp(-square / 2 + 0 * k) / math.pi, atol=1e-6
    )


@pytest.mark.parametrize("points", [513, 514])
def test_wigner_against_the_naive_sum(points):
    s = line(lambda t: torch.nn.functional.softplus(8 * t) + 0.1, 0.5, points=points)

    def psi(t):
        raw = (np.logaddexp(0, 8 * t) + 0.1) * np.exp(-(t**2) / (4 * 0.25))
        return raw * (s.amplitude.max() / (s.loss * np.exp(-(s.t**2))).max())

    t, k = np.array([-0.9, 0.0, 0.123, 0.6]), np.array([-5.0, 0.0, 0.7, 3.0])
    expected = naive_wigner(psi, t, k, 4.0)
    np.testing.assert_allclose(s.wigner(t, k)[2], expected, atol=1e-5)


@pytest.mark.parametrize("k", [1, 4, 16])
def test_wigner_marginals_and_integral(k):
    s = line(by_name(f"softplus({k} t)").profile, 0.5)
    momenta = np.linspace(-50, 50, 1601)
    t, momenta, density = s.wigner(s.t, momenta)
    step_t, step_k = t[1] - t[0], momenta[1] - momenta[0]
    np.testing.assert_allclose(density.sum(1) * step_k, s.amplitude**2, atol=2e-4)
    marginal = s.momentum_density(momenta)[1]
    np.testing.assert_allclose(density.sum(0) * step_t, marginal, atol=2e-6)
    assert density.sum() * step_t * step_k == pytest.approx(1, abs=1e-4)
    assert np.abs(density).max() <= 1 / math.pi + 1e-9


def test_only_gaussian_packets_have_a_positive_wigner_function():
    # An exponential loss only shifts the coherent state; a boundary makes it negative somewhere.
    assert line(lambda t: (2 * t).exp(), 0.5).wigner()[2].min() > -1e-6
    negative = [
        line(lambda t, k=k: torch.nn.functional.softplus(k * t), 0.5).wigner()[2].min()
        for k in (4, 16)
    ]
    assert negative[0] < -5e-5
    assert negative[1] < -5e-3


def test_axes_come_back_with_the_arrays():
    s = line(lambda t: 1 + 0 * t, 0.6)
    t, k, density = s.wigner([0.0, 0.5, 1.0], [-1.0, 1.0])
    assert (t.shape, k.shape, density.shape) == ((3,), (2,), (3, 2))
    np.testing.assert_array_equal(t, [0, 0.5, 1])
    k, density = s.momentum_density([0.5])
    assert k.shape == density.shape == (1,)
    assert s.wigner()[2].shape == (129, 257)


# Bad calls


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"direction": [0.0, 0.0]}, ValueError, r"direction must not be zero.*PGD attack"),
        ({"direction": [1.0]}, ValueError, r"each of the 2 coordinates of origin, got 1"),
        ({"direction": [math.nan, 1]}, ValueError, r"direction must be finite, got 1 NaN"),
        ({"origin": np.zeros((1, 2))}, ValueError, r"origin must be a vector.*\.reshape\(-1\)"),
        ({"width": 0}, ValueError, r"width must be positive and finite, got 0"),
        ({"width": math.nan}, ValueError, r"width must be positive and finite, got nan"),
        ({"width": "wide"}, TypeError, r"width must be one number.*got 'wide'"),
        ({"width": 1e300}, ValueError, r"width must be .* in 1e-150\.\.1e\+150, got 1e\+300"),
        ({"width": 1e-320}, ValueError, r"width must be .* in 1e-150\.\.1e\+150, got 9.99"),
        ({"origin": [1j, 0]}, TypeError, r"origin must be real, got torch.complex128"),
        ({"points": 256}, ValueError, r"points must be at least 257, got 256"),
        ({"points": 300.5}, TypeError, r"points must be an integer, got 300.5"),
        ({"loss": lambda x: 0 * x[:, 0]}, ValueError, r"vanish everywhere, got zero at all 513"),
        ({"loss": lambda x: x[:, 0]}, ValueError, r"loss must not be negative, got 256 negative"),
        ({"loss": lambda x: x}, ValueError, r"shape \(513,\), got shape \(513, 2\)"),
        ({"loss": lambda x: x[:, 0].log()}, ValueError, r"got 257 NaN or infinite values at 513"),
        ({"loss": lambda x: x[:, 0].detach() ** 2}, ValueError, r"differentiable by autograd"),
    ],
)
def test_refuses(change, kind, message):
    call = {
        "loss": lambda x: 1 + x[:, 0] ** 2,
        "origin": [0.0, 0.0],
        "direction": [1.0, 0.0],
        "width": 1,
    }
    with pytest.raises(kind, match=message):
        qw.section(**{**call, **change})


def test_momenta_beyond_the_resolution_are_refused():
    s = line(lambda t: 1 + 0 * t, 0.6)
    with pytest.raises(ValueError, match=r"k must lie within .* 513 points resolve, got 1e\+06"):
        s.momentum_density([0.0, 1e6])
    with pytest.raises(ValueError, match="more points"):
        s.wigner(k=[-1e6])


def test_tiny_gradients_make_a_direction():
    s = qw.section(lambda x: 1 + x[:, 0] ** 2, [0.0, 0.0], [3e-200, 4e-200], 1.0)
    np.testing.assert_allclose(s.direction, [0.6, 0.8], rtol=1e-14)
