"""Refining: one more network between those of a grid."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import numpy as np
import pytest
import torch

import qwidgets as qw
from qwidgets.plan import RADII
from qwidgets.refine import iterate_refinement, nearest_network, position

TINY = {
    "epsilon": [0, 0.1, 0.2],
    "regularization": [0, 0.01, 1],
    "train_size": 200,
    "test_size": 60,
    "attack_steps": 2,
    "probe_images": 1,
    "seed": 3,
}


@pytest.fixture(scope="module")
def sweep():
    return qw.sweep(**TINY, epochs=2, progress=False)


@pytest.mark.parametrize(
    ("epsilon", "regularization", "expected"),
    [
        (0, 0, (0, 0)),
        (0.04, 0, (0, 0)),
        (0.06, 0.0, (1, 0)),
        (0.2, 1, (2, 2)),
        # Half way from 0.01 to 1 in steps of the slider is their geometric mean, 0.1.
        (0.2, 0.09, (2, 1)),
        (0.2, 0.11, (2, 2)),
        # Below the first positive value the slider counts evenly.
        (0.2, 0.004, (2, 0)),
        (0.2, 0.006, (2, 1)),
    ],
)
def test_the_nearest_network_is_nearest_on_the_sliders(sweep, epsilon, regularization, expected):
    assert nearest_network(sweep, epsilon, regularization) == expected


@pytest.mark.parametrize("data", RADII)
def test_half_way_it_is_the_lower_as_in_the_browser(sweep, data):
    epsilon = tuple(map(float, RADII[data].epsilon))
    settings = dataclasses.replace(sweep.settings, epsilon=epsilon)
    grid = qw.Sweep(sweep.dataset, settings, {}, None)
    for row, (low, high) in enumerate(pairwise(epsilon)):
        assert nearest_network(grid, (low + high) / 2, 0) == (row, 0)


def test_positions_are_those_of_the_sliders():
    axis = (0.0, 0.01, 0.1, 1.0)
    for place, value in enumerate(axis):
        assert position(axis, value) == position(axis, value, geometric=True) == place
    assert position(axis, 0.005, geometric=True) == pytest.approx(0.5)
    assert position(axis, 10**-0.5, geometric=True) == pytest.approx(2.5)
    assert position(axis, 0.55) == pytest.approx(2.5)


def test_it_starts_from_the_nearest_network_and_learns_on(sweep):
    refined = qw.refine(sweep, epsilon=0.12, regularization=0.02)
    assert refined.settings.epsilon == (0.12,)
    assert refined.settings.regularization == (0.02,)
    assert refined.settings.epochs == 2
    assert refined.complete
    start = refined.dataset.isel(epsilon=0, regularization=0, epoch=0)
    nearest = sweep.dataset.sel(epsilon=0.1, regularization=0.01).isel(epoch=-1)
    for name in ("clean_accuracy", "robust_accuracy", "test_loss", "position_std", "packet"):
        np.testing.assert_allclose(start[name], nearest[name], rtol=1e-3, atol=1e-5)
    first, last = (float(refined.dataset.test_loss[0, 0, epoch]) for epoch in (0, -1))
    assert last < first
    # What it was trained with is what the sweep was.
    for name in ("width", "norm", "attack_epsilon", "learning_rate", "regularizer", "objective"):
        assert getattr(refined.settings, name) == getattr(sweep.settings, name)
    np.testing.assert_array_equal(refined.dataset.probe_image, sweep.dataset.probe_image)


def test_the_sweep_stays_as_it_is(sweep):
    before = sweep.dataset.copy(deep=True)
    weights = {
        name: value.clone()
        for name, value in sweep.model(epsilon=0.1, regularization=0.01).state_dict().items()
    }
    qw.refine(sweep, epsilon=0.12, regularization=0.02, epochs=1)
    assert sweep.dataset.identical(before)
    after = sweep.model(epsilon=0.1, regularization=0.01).state_dict()
    assert all(torch.equal(after[name], value) for name, value in weights.items())


def test_it_is_repeatable_and_its_network_can_be_had(sweep):
    one, two = (qw.refine(sweep, epsilon=0.05, regularization=0.3, epochs=1) for _ in range(2))
    assert one.dataset.identical(two.dataset)
    x = sweep.data.test_inputs[:5]
    networks = [s.model(epsilon=0.05, regularization=0.3) for s in (one, two)]
    assert torch.equal(networks[0](x), networks[1](x))


def test_a_network_that_has_failed_is_no_start():
    broken = qw.sweep(**TINY, epochs=1, progress=False)
    broken.dataset["diverged"][1, 1] = 1
    assert nearest_network(broken, 0.1, 0.01, working=True) != (1, 1)
    assert nearest_network(broken, 0.1, 0.01) == (1, 1)
    broken.dataset["diverged"][:] = 1
    with pytest.raises(ValueError, match="all have diverged"):
        qw.refine(broken, epsilon=0.1, regularization=0.02)


@pytest.mark.parametrize(
    ("point", "words"),
    [
        ({"epsilon": 0.3, "regularization": 0}, "epsilon must be inside the grid .* 0 to 0.2"),
        ({"epsilon": 0.1, "regularization": 2}, "regularization must be inside the grid"),
        ({"epsilon": float("nan"), "regularization": 0}, "got nan"),
    ],
)
def test_points_outside_the_grid_are_refused_at_once(sweep, point, words):
    with pytest.raises(ValueError, match=words):
        iterate_refinement(sweep, **point)


def test_a_reopened_sweep_can_be_refined(sweep, tmp_path):
    sweep.save(tmp_path / "saved")
    opened = qw.open_sweep(tmp_path / "saved")
    assert opened.data.checksum == sweep.data.checksum
    refined = qw.refine(opened, epsilon=0.05, regularization=0.3, epochs=1)
    assert refined.dataset.identical(
        qw.refine(sweep, epsilon=0.05, regularization=0.3, epochs=1).dataset
    )


def test_a_reopened_sweep_of_your_own_data_asks_for_them(tmp_path):
    generator = torch.Generator().manual_seed(0)
    data = qw.Dataset.from_arrays(
        torch.rand((90, 5), generator=generator), torch.arange(90) % 3, value_range=(0, 1)
    )
    settings = {"epsilon": [0, 0.1], "regularization": [0], "epochs": 1, "probe_images": 1}
    qw.sweep(data, **settings, progress=False).save(tmp_path / "own")
    with pytest.raises(ValueError, match=r"open_sweep\(path, data=dataset\)"):
        qw.refine(qw.open_sweep(tmp_path / "own"), epsilon=0.05, regularization=0)
    opened = qw.open_sweep(tmp_path / "own", data=data)
    assert qw.refine(opened, epsilon=0.05, regularization=0).complete
    other = qw.Dataset.from_arrays(
        torch.rand((90, 5), generator=generator), torch.arange(90) % 3, value_range=(0, 1)
    )
    with pytest.raises(ValueError, match="checksum"):
        qw.open_sweep(tmp_path / "own", data=other)
