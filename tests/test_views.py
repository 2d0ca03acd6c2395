"""From the cube to plots: layout, limits that hold everything, round ticks, words."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import qwidgets as qw
from qwidgets import views

EPSILON, REGULARIZATION, EPOCHS = [0, 0.1, 0.2], [0, 0.3], 2


@pytest.fixture(scope="module")
def sweep():
    return qw.sweep(
        epsilon=EPSILON,
        regularization=REGULARIZATION,
        epochs=EPOCHS,
        train_size=200,
        test_size=100,
        attack_steps=2,
        progress=False,
    )


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
    norm = (packets**2).sum(-1) * (t[1] - t[0])
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
