"""Effective radii of the classes in the cube, against the estimator and against plain sampling."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import qwidgets as qw
from qwidgets.measurement import Probes
from qwidgets.neighborhoods import VARIABLES

SMALL = {
    "epsilon": [0, 0.2],
    "regularization": [0, 0.3],
    "epochs": 2,
    "train_size": 300,
    "test_size": 100,
    "attack_steps": 1,
    "probe_images": 1,
    "progress": False,
}
LABELS = 10


@pytest.fixture(scope="module")
def sweep():
    return qw.sweep(**SMALL, seed=3)


@pytest.fixture(scope="module")
def images():
    return qw.load_data("digits").subset(train=300, test=100)


def test_only_the_last_epoch_is_measured(sweep):
    for name in VARIABLES:
        values = sweep.dataset[name]
        assert values.dims == ("epsilon", "regularization", "epoch", "label")
        assert np.isnan(values[:, :, :-1]).all()
        assert np.isfinite(values[:, :, -1]).all()
        assert values.attrs["units"]
        assert values.attrs["long_name"]


def test_every_epoch_when_asked(sweep):
    every = qw.sweep(**SMALL, seed=3, detail="every-epoch").dataset
    for name in VARIABLES:
        assert np.isfinite(every[name]).all()
        np.testing.assert_array_equal(every[name][:, :, -1], sweep.dataset[name][:, :, -1])


def test_not_at_all_when_not_asked(sweep):
    without = qw.sweep(**SMALL, seed=3, detail=None).dataset
    assert not set(VARIABLES) & set(without)
    np.testing.assert_array_equal(without.position_std, sweep.dataset.position_std)


def test_an_unknown_detail_is_refused():
    with pytest.raises(ValueError, match=r"did you mean 'every-epoch'\?"):
        qw.sweep(**SMALL, detail="every_epoch")


@pytest.mark.parametrize("label", [0, 7])
def test_the_radii_are_those_of_the_estimator(sweep, images, label):
    network = sweep.model(epsilon=0.2, regularization=0.3)
    centers = images.test_inputs[images.test_labels == label].flatten(1)
    radius = sweep.dataset.attrs["neighborhood_radius"]
    # The sweep adds up on one thread, so that its numbers depend on none.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    expected = qw.uncertainty(
        qw.packet_loss(network, label, images.input_shape),
        qw.Neighborhood(centers, radius, clip=images.value_range),
        samples=Probes.neighborhood_samples,
        seed=3,
    )
    torch.set_num_threads(threads)
    found = sweep.dataset.isel(epsilon=-1, regularization=-1, epoch=-1, label=label)
    for quantity, value in (
        ("position_std", expected.total_position_std),
        ("momentum_std", expected.total_momentum_std),
        ("bound", expected.bound.sum()),
        ("boundary", expected.boundary.mean()),
    ):
        assert float(found[f"neighborhood_{quantity}"]) == pytest.approx(value, rel=1e-9)


def test_the_radii_agree_with_plain_sampling(sweep, images):
    # Independent of the estimator: uniform points of the balls, and sums of the definition.
    radius = sweep.dataset.attrs["neighborhood_radius"]
    generator = torch.Generator().manual_seed(11)
    for label in (2, 5):
        network = sweep.model(epsilon=0.0, regularization=0.0).double()
        centers = images.test_inputs[images.test_labels == label].flatten(1).double()
        lower, upper = (centers - radius).clamp_min(0), (centers + radius).clamp_max(1)
        ball = torch.randint(len(centers), (200_000,), generator=generator)
        share = torch.rand(len(ball), 64, generator=generator, dtype=torch.float64)
        x = (lower[ball] + share * (upper - lower)[ball]).requires_grad_()
        loss = -network(x.reshape(-1, *images.input_shape)).log_softmax(1)[:, label]
        (slope,) = torch.autograd.grad(loss.sum(), x)
        weight = (loss**2 / (loss**2).sum()).detach()
        mean = weight @ x.detach()
        position = (weight @ (x.detach() - mean) ** 2).sum().sqrt()
        rate = slope / (loss**2).sum().sqrt().detach()
        amplitude = weight.sqrt()
        momentum = ((rate**2).sum(0) - (amplitude @ rate) ** 2).sum().sqrt()
        found = sweep.dataset.isel(epsilon=0, regularization=0, epoch=-1, label=label)
        for quantity, value in (("position_std", position), ("momentum_std", momentum)):
            error = float(found[f"neighborhood_{quantity}_error"])
            # What is left of the plain sampling's own error is about half a percent.
            allowed = 5 * error + 0.01 * float(value)
            assert abs(float(found[f"neighborhood_{quantity}"]) - float(value)) < allowed


def test_no_product_is_below_its_bound(sweep):
    last = sweep.dataset.isel(epoch=-1)
    product = last.neighborhood_position_std * last.neighborhood_momentum_std
    slack = 4 * (
        last.neighborhood_bound_error
        + last.neighborhood_position_std_error * last.neighborhood_momentum_std
        + last.neighborhood_momentum_std_error * last.neighborhood_position_std
    )
    assert (product >= last.neighborhood_bound - slack).all()


def test_they_survive_the_store(sweep, tmp_path):
    sweep.save(tmp_path / "one.sweep")
    again = qw.open_sweep(tmp_path / "one.sweep").dataset
    for name in VARIABLES:
        np.testing.assert_array_equal(again[name], sweep.dataset[name])


def test_a_loss_that_is_wrong_is_told_and_not_left_out():
    data = qw.load_data("friedman").subset(100, 60)
    task = qw.Regression(
        target_shape=(1,), tolerance=1.0, loss=lambda out, y: (out - y).square().mean(1) - 1e3
    )
    with pytest.raises(ValueError, match=r"loss must not be negative, got .* at x = \["):
        qw.sweep(
            replace(data, task=task),
            model="mlp",
            epsilon=[0],
            regularization=[0],
            epochs=1,
            detail="every-epoch",
            progress=False,
        )
