"""From the cube to plots: layout, limits that hold everything, round ticks, words."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import assume, given
from hypothesis import strategies as st
from small import EPOCHS, EPSILON, REGULARIZATION

import qwidgets as qw
from qwidgets import views

# What the browser must read too: js/src/reading.test.ts.
READING = json.loads((Path(__file__).parent / "reading.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def dataset(sweep):
    return sweep.dataset


def test_arrays_are_laid_out_epoch_first(dataset):
    arrays = views.plot_arrays(dataset)
    grid = (EPOCHS + 1, len(EPSILON), len(REGULARIZATION))
    tails = {
        "clean_accuracy": (),
        "robust_accuracy": (dataset.sizes["attack_epsilon"],),
        "position_std": (10,),
        "momentum_std": (10,),
        "uncertainty_product": (10,),
    }
    assert list(arrays) == [*views.PLOTTED, *views.DETAIL]
    for name, tail in tails.items():
        assert arrays[name].shape == arrays[f"{name}_error"].shape == (*grid, *tail)
    assert arrays["packet"].shape == (*grid, 10, len(views.plot_axes(dataset)["t"]))


def test_arrays_are_contiguous_and_in_the_precision_of_the_wire(dataset):
    for epoch in (None, 1):
        for name, values in views.plot_arrays(dataset, epoch).items():
            assert values.dtype == (np.float16 if name == "packet" else np.float32)
            assert values.flags.c_contiguous


def test_numbers_are_those_of_the_cube(dataset):
    arrays = views.plot_arrays(dataset)
    for i, epsilon in enumerate(EPSILON):
        for j, regularization in enumerate(REGULARIZATION):
            network = dataset.sel(epsilon=epsilon, regularization=regularization)
            for epoch in range(EPOCHS + 1):
                for name in set(views.PLOTTED) - {"packet"}:
                    expected = network[name].sel(epoch=epoch).values.astype(np.float32)
                    np.testing.assert_array_equal(arrays[name][epoch, i, j], expected)


def test_one_epoch_is_a_block_of_all(dataset):
    whole = views.plot_arrays(dataset)
    for epoch in range(EPOCHS + 1):
        for name, values in views.plot_arrays(dataset, epoch).items():
            np.testing.assert_array_equal(values, whole[name][epoch])


def test_t_is_cut_to_what_can_be_seen(dataset):
    width = dataset.attrs["width"]
    t = np.array(views.plot_axes(dataset)["t"])
    assert t[-1] == pytest.approx(5 * width)
    np.testing.assert_allclose(t, -t[::-1], atol=1e-12)
    kept = np.isin(dataset.t.values, t)
    assert abs(dataset.t.values[~kept]).min(initial=np.inf) > 5 * width
    packets = views.plot_arrays(dataset)["packet"].astype(np.float64)
    # The packets stay whole: their norm is still one, to half precision.
    norm = (packets**2).sum(-1) * (t[1] - t[0]) / width
    np.testing.assert_allclose(norm, 1, atol=2e-3)


def test_axes_are_plain_lists(dataset):
    axes = views.plot_axes(dataset)
    assert axes["epsilon"] == pytest.approx(EPSILON)
    assert axes["regularization"] == pytest.approx(REGULARIZATION)
    assert axes["attack_epsilon"] == dataset.attack_epsilon.values.tolist()
    assert axes["label"] == [str(digit) for digit in range(10)]
    assert all(type(values) is list for values in axes.values())


def test_limits_hold_everything(dataset):
    limits = views.limits(dataset)
    for name, (low, high) in (
        ("position_std", limits.position),
        ("momentum_std", limits.momentum),
    ):
        assert low < float(dataset[name].min())
        assert float(dataset[name].max()) < high
    width = dataset.attrs["width"]
    assert limits.position[0] < width < limits.position[1]
    assert limits.momentum[0] < 1 / (2 * width) < limits.momentum[1]
    assert limits.excess >= float((2 * dataset.uncertainty_product - 1).max())
    last = dataset.isel(epoch=-1)
    assert 0 <= limits.accuracy[0] <= float(last.clean_accuracy.min())
    assert 0 <= limits.accuracy[1] <= float(last.robust_accuracy.min())
    assert limits.phase_momentum >= 3 * float(dataset.momentum_std.max())


def test_neighborhoods_are_plotted_where_they_were_measured(dataset):
    limits = views.limits(dataset)
    for name, (low, high) in (
        ("neighborhood_position_std", limits.neighborhood_position),
        ("neighborhood_momentum_std", limits.neighborhood_momentum),
    ):
        assert 0 < low < float(dataset[name].min())
        assert float(dataset[name].max()) < high
    without = dataset.drop_vars(list(views.DETAIL))
    assert list(views.plot_arrays(without)) == list(views.PLOTTED)
    nothing = views.limits(without)
    assert 0 < nothing.neighborhood_position[0] < nothing.neighborhood_position[1]


def in_another_unit(dataset, unit):
    """A cube as it would be were the inputs numbers so much larger."""
    other = dataset.assign_attrs(width=dataset.attrs["width"] * unit)
    for name in (*views.PLOTTED, *views.DETAIL):
        power = -1 if "momentum" in name else 1 if "position" in name else 0
        other[name] = dataset[name] * (unit**-0.5 if name == "packet" else unit**power)
    return other.assign_coords(t=dataset.t * unit)


@pytest.mark.parametrize("unit", [1e-28, 1e-14, 1e14, 1e28])
def test_the_unit_of_the_inputs_does_not_matter(dataset, unit):
    other = in_another_unit(dataset, unit)
    limits, expected = views.limits(other), views.limits(dataset)
    for name in ("position", "neighborhood_position"):
        assert np.divide(getattr(limits, name), unit) == pytest.approx(getattr(expected, name))
    for name in ("momentum", "neighborhood_momentum", "phase_momentum"):
        assert np.multiply(getattr(limits, name), unit) == pytest.approx(getattr(expected, name))
    ticks, usual = (views.log_ticks(*each.position) for each in (limits, expected))
    assert ticks == [float(f"{tick * unit:.2g}") for tick in usual]
    ticks = views.linear_ticks(-unit, unit)
    assert np.divide(ticks, unit) == pytest.approx(views.linear_ticks(-1, 1))
    np.testing.assert_allclose(
        views.plot_arrays(other)["packet"],
        views.plot_arrays(dataset)["packet"],
        rtol=2e-3,
        atol=1e-7,
    )


@pytest.mark.parametrize("unit", [1e-40, 1e40])
def test_a_width_out_of_single_precision_is_refused_by_its_name(dataset, unit):
    other = dataset.assign_attrs(width=dataset.attrs["width"] * unit)
    with pytest.raises(ValueError, match="width must be from 1e-30 to .*; give the inputs in anot"):
        views.limits(other)


def test_limits_ignore_networks_without_numbers(dataset):
    broken = dataset.copy(deep=True)
    for name in ("position_std", "momentum_std", "uncertainty_product", "clean_accuracy"):
        broken[name][0, 0] = np.nan
    broken["momentum_std"][1, 1] = np.inf
    limits = views.limits(broken)
    numbers = (*limits.position, *limits.momentum, *limits.accuracy, limits.excess)
    assert all(math.isfinite(number) for number in numbers)
    finite = broken.position_std.values[np.isfinite(broken.position_std.values)]
    assert limits.position[0] < finite.min()
    assert finite.max() < limits.position[1]


def test_limits_without_any_number(dataset):
    empty = dataset.copy(deep=True)
    for name in views.PLOTTED:
        empty[name][:] = np.nan
    limits = views.limits(empty)
    assert 0 < limits.position[0] < limits.position[1] < math.inf
    assert 0 < limits.momentum[0] < limits.momentum[1] < math.inf
    assert limits.excess > 0
    assert limits.accuracy[0] < 1
    assert limits.accuracy[1] < 1


@given(st.floats(1e-6, 1e6), st.floats(1.25, 1e4))
def test_log_ticks_are_round_inside_and_few(low, ratio):
    high = low * ratio
    ticks = views.log_ticks(low, high)
    assert ticks == sorted(set(ticks))
    assert all(low <= tick <= high for tick in ticks)
    assert all(float(f"{tick:.2g}") == tick for tick in ticks)
    assert len(ticks) <= 11
    # An axis of less than half an octave has no four round numbers of two digits.
    if ratio >= 2:
        assert len(ticks) >= 4


@given(st.floats(-1e3, 1e3), st.floats(1e-3, 1e3))
def test_linear_ticks_are_even_inside_and_about_six(low, extent):
    assume(abs(low) < 1e3 * extent)
    high = low + extent
    ticks = views.linear_ticks(low, high)
    slack = 1e-8 * extent
    assert 2 <= len(ticks) <= 7
    assert low - slack <= ticks[0]
    assert ticks[-1] <= high + slack
    steps = np.diff(ticks)
    np.testing.assert_allclose(steps, steps[0], rtol=1e-6)
    assert ticks[0] - steps[0] < low + slack
    assert ticks[-1] + steps[0] > high - slack
    mantissa = steps[0] / 10 ** math.floor(math.log10(steps[0] * (1 + 1e-9)))
    assert min(abs(mantissa - m) for m in (1, 2, 2.5, 5)) < 1e-5


def test_linear_ticks_of_an_accuracy():
    assert views.linear_ticks(0.0, 1.0) == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert views.linear_ticks(0.4, 1.0) == pytest.approx([0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0])


def test_describe_says_what_was_trained(dataset):
    assert views.describe(dataset.attrs, (3, 2)) == {
        "title": "Uncertainty of a neural network",
        "subtitle": "digits · mlp 128-128 · 3 × 2 networks · ℓ∞ PGD · input-gradient penalty",
        "regularizer": "input-gradient penalty",
    }


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": "conv"}, "three-layer conv"),
        ({"model": "custom"}, "your model"),
        ({"norm": "l2"}, "ℓ2 PGD"),
        ({"regularizer": "weight_decay"}, "weight decay"),
        ({"regularizer": "label_smoothing"}, "label smoothing"),
        ({"data": "mnist"}, "mnist"),
    ],
)
def test_describe_names_every_choice(dataset, changes, words):
    assert words in views.describe(dataset.attrs | changes, (1, 1))["subtitle"]


def test_a_name_of_ones_own_neither_turns_nor_breaks_its_line(dataset):
    name = "a\u202eb\u202c\u2066 c\u2069\n\td\u200f é ي"
    assert views.one_line(name) == "ab c d é ي"
    subtitle = views.describe(dataset.attrs | {"data": name}, (3, 2))["subtitle"]
    assert subtitle.startswith("ab c d é ي · mlp 128-128 · ")


# Readings


@pytest.mark.parametrize(("values", "spacing", "value", "position"), READING["positions"])
def test_positions_on_a_grid(values, spacing, value, position):
    assert views.grid_position(values, value, spacing) == pytest.approx(position, abs=1e-9)
    assert views.grid_position(values, math.nan, spacing) == 0


@pytest.mark.parametrize(
    ("epsilon", "regularization", "networks", "weights"), READING["places"]["cases"]
)
def test_places_between_networks(epsilon, regularization, networks, weights):
    rows, columns = READING["places"]["epsilon"], READING["places"]["regularization"]
    grid = xr.Dataset(coords={"epsilon": rows, "regularization": columns})
    place = views.place(grid, epsilon, regularization)
    assert [i * len(columns) + j for i, j in place.networks] == networks
    assert place.weights == pytest.approx(weights, abs=1e-9)
    assert place.trained == (len(networks) == 1)


@pytest.mark.parametrize(("radius", "value"), READING["radii"]["cases"])
def test_any_radius(radius, value):
    radii = xr.Dataset(coords={"attack_epsilon": READING["radii"]["attack_epsilon"]})
    read = views.read_radius(radii, np.array(READING["radii"]["values"]), radius)
    assert float(read) == pytest.approx(value, abs=1e-9)


@pytest.mark.parametrize(("value", "text"), READING["significant"])
def test_numbers_in_words(value, text):
    assert views.significant(value) == text


@pytest.mark.parametrize(("value", "text"), READING["setting"])
def test_settings_in_words(value, text):
    assert views.setting(value) == text


@pytest.mark.parametrize(("value", "error", "text"), READING["with_error"])
def test_errors_in_words(value, error, text):
    assert views.with_error(value, error) == text


def test_what_is_undefined_is_a_dash():
    assert views.significant(math.nan) == views.significant(math.inf) == "–"
    assert views.with_error(math.nan, 0.1) == views.percentage(math.nan, 0.1) == "–"
    assert views.with_error(1.7634, math.nan) == "1.76"
    assert views.percentage(0.9712, 0.0041) == "97.1% ± 0.4"


@pytest.mark.parametrize(("x", "y", "front"), READING["pareto_front"])
def test_pareto_front(x, y, front):
    assert views.pareto_front(np.array(x), np.array(y)) == front
    # A network that failed is on no front.
    assert views.pareto_front(np.array([*x, np.nan]), np.array([*y, 2.0])) == front


def test_reading_between_networks_is_their_mixture(dataset):
    # 0.06 is a tenth of the way on from 0.05: weights 0.4 and 0.6 of the rows at 0 and 0.1.
    at = views.place(dataset, 0.06, 0.0075)
    values = dataset.momentum_std.values
    expected = 0.75 * (0.4 * values[0, 0] + 0.6 * values[1, 0])
    expected += 0.25 * (0.4 * values[0, 1] + 0.6 * values[1, 1])
    np.testing.assert_allclose(views.read(dataset, "momentum_std", at), expected, rtol=1e-12)


def test_what_is_undefined_for_a_network_is_undefined_beside_it(dataset):
    broken = dataset.copy(deep=True)
    broken.momentum_std[1, 0] = np.nan
    for epsilon, defined in ((0, True), (0.06, False), (0.1, False), (0.3, True)):
        read = views.read(broken, "momentum_std", views.place(broken, epsilon, 0))
        assert np.isfinite(read).all() == defined


def test_packets_between_networks_have_unit_norm(dataset):
    t = np.array(views.plot_axes(dataset)["t"])
    psi = views.packet(dataset, views.place(dataset, 0.05, 0.1), EPOCHS, 4)
    assert psi.shape == t.shape
    assert np.sum(psi**2) * (t[1] - t[0]) == pytest.approx(1, rel=1e-12)


def test_phase_space_of_a_gaussian_packet():
    # W(t, k) = exp(-t^2 / 2 s^2 - 2 s^2 k^2) / pi, the momentum normal with deviation 1 / 2 s.
    s = 0.4
    t, k = np.linspace(-8 * s, 8 * s, 129), np.linspace(-4, 4, 33)
    psi = np.exp(-((t / (2 * s)) ** 2)) / (2 * math.pi * s**2) ** 0.25
    wigner, density = views.phase_space(t, psi, k)
    exact = np.exp(-(t**2) / (2 * s**2) - 2 * (s * k[:, None]) ** 2) / math.pi
    # Where the packet is cut off its amplitude is 1e-7 of the peak.
    np.testing.assert_allclose(wigner, exact, rtol=0, atol=2e-8)
    normal = 2 * s * np.exp(-2 * (s * k) ** 2) / math.sqrt(2 * math.pi)
    np.testing.assert_allclose(density, normal, rtol=0, atol=2e-8)


def test_phase_space_agrees_with_the_section():
    def loss(x):
        return torch.nn.functional.softplus(16 * x[:, 0])

    section = qw.section(loss, [0.0], [1.0], 0.5)
    k = np.linspace(-5, 5, 21)
    wigner, density = views.phase_space(section.t, section.amplitude, k)
    _, _, exact = section.wigner(section.t[100:400:50], k)
    np.testing.assert_allclose(wigner[:, 100:400:50], exact.T, atol=2e-4)
    np.testing.assert_allclose(density, section.momentum_density(k)[1], atol=1e-12)
    assert wigner.min() < -1e-3
