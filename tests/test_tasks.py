"""Regression: losses that are no cross-entropy, from the data to the lens and the cube."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import qwidgets as qw
from qwidgets.tasks import CLASSIFICATION
from qwidgets.views import plot_arrays


def weird(outputs, targets):
    """A loss of one's own, at module level so that it can be sent to a worker."""
    return (outputs - targets).abs().flatten(1).amax(1)


class Affine(nn.Module):
    """Scalar outputs ``w.x + b`` with exact spreads."""

    def __init__(self, weights, bias=0.0):
        super().__init__()
        self.weights = nn.Parameter(torch.as_tensor(weights, dtype=torch.float32))
        self.bias = bias

    def forward(self, x):
        return (x.flatten(1) @ self.weights.to(x.dtype) + self.bias)[:, None]


@pytest.fixture(scope="module")
def field():
    return qw.load_data("temperature", train_size=90, test_size=30)


@pytest.fixture(scope="module")
def number():
    return qw.load_data("friedman", train_size=200, test_size=60)


@pytest.fixture(scope="module")
def swept(field):
    return qw.sweep(
        data=field,
        model="encoder_decoder",
        epsilon=[0, 0.05],
        regularization=[0, 0.01],
        epochs=2,
        attack_steps=2,
        attack_epsilon=[0, 0.05],
        probe_images=3,
        progress=False,
    )


# Tasks


@pytest.mark.parametrize("shape", [(1,), (3,), (2, 4, 4)])
@pytest.mark.parametrize("leading", [(5,), (2, 5)])
def test_losses_are_means_over_the_target(shape, leading):
    generator = torch.Generator().manual_seed(3)
    outputs, y = (3 * torch.randn((*leading, *shape), generator=generator) for _ in range(2))
    error = (outputs - y).numpy().reshape(*leading, -1)
    for loss, each in (
        ("squared", error**2),
        ("absolute", np.abs(error)),
        ("smooth_l1", np.where(np.abs(error) < 1, error**2 / 2, np.abs(error) - 0.5)),
    ):
        task = qw.Regression(target_shape=shape, tolerance=1.0, loss=loss)
        np.testing.assert_allclose(task.losses(outputs, y), each.mean(-1), rtol=1e-5)
    task = qw.Regression(target_shape=shape, tolerance=1.5, loss=weird)
    np.testing.assert_allclose(task.losses(outputs, y), np.abs(error).max(-1), rtol=1e-6)
    right = np.sqrt((error**2).mean(-1)) <= 1.5
    np.testing.assert_array_equal(task.is_right(outputs, y), right)
    assert not task.is_right(torch.full_like(y, torch.nan), y).any()


@pytest.mark.parametrize("loss", ["squared", "absolute", "smooth_l1", weird])
def test_what_an_attack_ascends_is_the_gradient_of_the_loss(loss):
    task = qw.Regression(target_shape=(2,), tolerance=1.0, loss=loss)
    outputs = torch.tensor([[1.0, -3.0], [0.2, 0.1]], dtype=torch.float64)
    y = torch.tensor([[0.3, 0.5], [0.0, 0.5]], dtype=torch.float64)
    rise = task.rise(outputs, y)
    step = 1e-6
    for row in range(2):
        for column in range(2):
            moved = outputs.clone()
            moved[row, column] += step
            slope = (task.losses(moved, y) - task.losses(outputs, y)).sum() / step
            assert rise[row, column].item() == pytest.approx(slope.item(), abs=1e-5)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"target_shape": ()}, ValueError, "a single number has the shape (1,)"),
        ({"target_shape": (0,)}, ValueError, "positive integers"),
        ({"target_shape": 3}, ValueError, "must be a tuple"),
        ({"tolerance": 0.0}, ValueError, "tolerance must be positive and finite, got 0; it is the"),
        ({"tolerance": math.nan}, ValueError, "tolerance must be positive and finite, got nan"),
        ({"tolerance": "x"}, TypeError, "tolerance must be one number, the error up to which"),
        ({"loss": "sqared"}, ValueError, "did you mean 'squared'?"),
        ({"loss": 3}, TypeError, "must be a name or a function, got int"),
    ],
)
def test_tasks_that_cannot_be_meant_are_refused(settings, error, message):
    with pytest.raises(error) as caught:
        qw.Regression(**({"target_shape": (1,), "tolerance": 1.0} | settings))
    assert message in str(caught.value)


def test_a_loss_that_is_not_one_number_for_each_output_is_refused():
    task = qw.Regression(target_shape=(2,), tolerance=1.0, loss=lambda o, y: (o - y).square())
    with pytest.raises(ValueError, match=r"one number for each of the 3 outputs"):
        task.losses(torch.zeros(3, 2), torch.ones(3, 2))


# Data


def test_fields_are_what_their_documentation_says():
    data = qw.load_data("temperature", seed=5)
    assert data.train_inputs.shape == (1500, 3, 16, 16)
    assert data.test_targets.shape == (300, 1, 16, 16) == (300, *data.output_shape)
    assert data.value_range == (-1, 1)
    reading, station, elevation = data.train_inputs.unbind(1)
    here = station == 1
    assert ((station == 0) | here).all()
    assert not reading[~here].any()
    within = data.train_targets[:, 0].abs() < 20
    expected = (data.train_targets[:, 0] / 20)[here & within]
    np.testing.assert_allclose(reading[here & within], expected, rtol=1e-6, atol=1e-7)
    # Standard errors of the means over independent fields.
    assert station.sum((1, 2)).mean().item() == pytest.approx(24, abs=4 * math.sqrt(22 / 1500))
    rest = data.train_targets[:, 0] + 2 * elevation
    for group, offset in enumerate((-4, 0, 4)):
        each = rest[data.train_labels == group].mean((1, 2))
        assert abs(each.mean().item() - offset) < 4 * each.std().item() / math.sqrt(len(each))
    smooth = (rest - rest.mean((1, 2), keepdim=True)).double()
    assert (elevation.double() * smooth).mean().abs() < 0.1  # independent of each other


def test_seeds_give_the_same_data_and_others_give_others():
    for name in ("temperature", "friedman"):
        one, same, other = (qw.load_data(name, seed=seed).checksum for seed in (1, 1, 2))
        assert one == same != other


def test_friedman_is_the_function_of_its_paper():
    data = qw.load_data("friedman")
    x, y = data.test_inputs.double().T, data.test_targets[:, 0].double()
    exact = 10 * torch.sin(math.pi * x[0] * x[1]) + 20 * (x[2] - 0.5) ** 2 + 10 * x[3] + 5 * x[4]
    np.testing.assert_allclose(y, exact, rtol=1e-5)


def test_arrays_are_split_with_their_targets():
    x = np.arange(40.0).reshape(20, 2)
    data = qw.Dataset.for_regression(x, x.sum(1), groups=np.arange(20) % 2, seed=4, tolerance=0.5)
    assert data.class_names == ("0", "1")
    for inputs, targets in (
        (data.train_inputs, data.train_targets),
        (data.test_inputs, data.test_targets),
    ):
        np.testing.assert_array_equal(inputs.sum(1), targets[:, 0])
    assert len(data.test_inputs) == 4
    small = data.subset(train=6)
    np.testing.assert_array_equal(small.train_inputs.sum(1), small.train_y[:, 0])
    given = qw.Dataset.for_regression(x, x.sum(1), test_inputs=x[:3], test_targets=x[:3].sum(1))
    assert given.class_names == ("all",)
    assert given.task.tolerance == pytest.approx(x.sum(1).std() / 3)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"targets": np.ones(3)}, ValueError, "one target for each of the 10 inputs, got 3"),
        ({"targets": ["a"] * 10}, TypeError, "targets must be an array of real numbers"),
        (
            {"targets": np.full(10, np.nan), "tolerance": 1},
            ValueError,
            "targets must be finite, got 10",
        ),
        (
            {"targets": np.where(np.arange(10) == 7, np.nan, 1.0)},
            ValueError,
            "finite, got 1 NaN or infinite of 10 numbers (as torch.float32), the first at [7, 0];",
        ),
        ({"inputs": [[1], [2, 3]]}, TypeError, "inputs must be an array or a tensor of numbers"),
        (
            {"groups": np.r_[np.zeros(9, int), 10**9]},
            ValueError,
            "groups must count from 0 without large gaps, got 1000000000 among 10",
        ),
        ({"test_inputs": np.ones((2, 2))}, ValueError, "test_targets must be given"),
        ({"groups": np.ones(10)}, TypeError, "groups must be an array of integers"),
    ],
)
def test_targets_that_cannot_be_meant_are_refused(arguments, error, message):
    given = {"targets": np.arange(10.0), "inputs": np.arange(20.0).reshape(10, 2)} | arguments
    with pytest.raises(error) as caught:
        qw.Dataset.for_regression(given.pop("inputs"), given.pop("targets"), **given)
    assert message in str(caught.value)


# Packets


@pytest.mark.parametrize("error", [0.0, 0.4, 3.0])
def test_a_number_predicted_by_a_plane_has_the_packet_of_a_parabola(error):
    # Along the attack the loss is (error + |w| t)^2, moments of a normal density.
    weights, width = torch.tensor([3.0, -4.0]), 0.5
    target = torch.tensor([2.0])
    task = qw.Regression(target_shape=(1,), tolerance=1.0)
    loss = qw.packet_loss(Affine(weights, 2.0 + error).double(), target, (2,), task=task)
    s = qw.section(loss, [0.0, 0.0], [0.6, -0.8], width)
    t = np.linspace(-12, 12, 200_001) * width
    values, slope = (error + 5 * t) ** 2, 10 * (error + 5 * t)
    window = np.exp(-(t**2) / (2 * width**2))
    norm = np.trapezoid(values**2 * window, t)
    mean = np.trapezoid(t * values**2 * window, t) / norm
    position = math.sqrt(np.trapezoid((t - mean) ** 2 * values**2 * window, t) / norm)
    rate = slope - values * t / (2 * width**2)
    momentum = math.sqrt(np.trapezoid(rate**2 * window, t) / norm)
    assert s.position_std == pytest.approx(position, rel=1e-6)
    assert s.momentum_std == pytest.approx(momentum, rel=1e-6)
    assert s.product >= 0.5
    if error == 0:
        assert s.position_std == pytest.approx(math.sqrt(5) * width, rel=1e-6)


def test_several_targets_share_each_evaluation(field):
    model = qw.build_model("encoder_decoder", field)
    x = field.test_inputs[:4].flatten(1)
    many = qw.packet_loss(model, field.test_targets[:3], field.input_shape, task=field.task)(x)
    assert many.shape == (4, 3)
    for index in range(3):
        target = field.test_targets[index]
        one = qw.packet_loss(model, target, field.input_shape, task=field.task)(x)
        np.testing.assert_allclose(many[:, index].detach(), one.detach(), rtol=1e-12)
        expected = (model(field.test_inputs[:4]) - target).square().mean((1, 2, 3))
        np.testing.assert_allclose(one.detach(), expected.detach(), rtol=1e-5)


@pytest.mark.parametrize(
    ("target", "error", "message"),
    [
        (np.ones(3), ValueError, "targets of shape (1,)"),
        (np.ones((2, 2, 1)), ValueError, "one or more of them along a first axis"),
        ([2], TypeError, "floating point"),
        ([math.inf], ValueError, "y must be finite, got 1 NaN or infinite of 1"),
    ],
)
def test_targets_that_do_not_fit_are_refused(target, error, message):
    task = qw.Regression(target_shape=(1,), tolerance=1.0)
    with pytest.raises(error) as caught:
        qw.packet_loss(Affine([1.0, 2.0]), target, (2,), task=task)
    assert message in str(caught.value)


# Attacks


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_attacks_of_a_plane_reach_the_worst_corner(norm):
    weights = torch.tensor([3.0, -4.0])
    task = qw.Regression(target_shape=(1,), tolerance=0.2)
    x, y = torch.full((6, 2), 0.5), torch.linspace(-1, 1, 6)[:, None]
    model = Affine(weights)
    # From the clean input the error grows on the side where it is.
    away = (model(x).detach() - y).sign()
    length = weights.abs().sum() if norm == "linf" else weights.norm()
    moved = qw.pgd(model, x, y, 0.1, norm=norm, task=task, random_start=False)
    worst = (model(x) - y).abs() + 0.1 * length
    np.testing.assert_allclose((model(moved) - y).abs().detach(), worst.detach(), rtol=1e-4)
    if norm == "linf":
        step = qw.fgsm(model, x, y, 0.1, task=task)
        np.testing.assert_allclose(step, x + 0.1 * away * weights.sign(), atol=1e-6)


def test_accuracy_is_the_share_within_the_tolerance(field):
    model = qw.build_model("encoder_decoder", field)
    task = qw.Regression(target_shape=(1, 16, 16), tolerance=4.0)
    curve = qw.robust_accuracy(
        *(model, field.test_inputs, field.test_y, [0.4, 0.0, 0.1]),
        value_range=field.value_range,
        task=task,
        steps=3,
    )
    error = (model(field.test_inputs) - field.test_y).square().mean((1, 2, 3)).sqrt()
    assert curve[1] == (error <= 4.0).double().mean().item()
    assert 0 < curve[1] < 1
    assert curve[1] >= curve[2] >= curve[0]


def test_ensembles_are_attacked_as_single_networks_are(number):
    models = [qw.build_model("mlp", number, seed=seed) for seed in range(2)]

    def both(x):
        return torch.stack([model(own) for model, own in zip(models, x, strict=True)])

    x, y = number.test_inputs[:7], number.test_y[:7]
    together = qw.pgd(both, x.expand(2, -1, -1), y[None], 0.1, task=number.task, seed=3)
    for index, model in enumerate(models):
        alone = qw.pgd(model, x, y, 0.1, task=number.task, seed=3)
        np.testing.assert_allclose(together[index], alone, atol=1e-6)


def test_attacks_refuse_what_does_not_fit(number):
    model = qw.build_model("mlp", number)
    x, y = number.test_inputs[:5], number.test_y[:5]
    with pytest.raises(TypeError, match=r"task=qw.Regression"):
        qw.pgd(model, x, y, 0.1)
    with pytest.raises(TypeError, match=r"targets in floating point"):
        qw.pgd(model, x, torch.zeros(5, 1, dtype=torch.int64), 0.1, task=number.task)
    with pytest.raises(ValueError, match=r"targets of shape \(1,\)"):
        qw.pgd(model, x, y[:, 0], 0.1, task=qw.Regression(target_shape=(1,), tolerance=1.0))
    wide = qw.Regression(target_shape=(2,), tolerance=1.0)
    with pytest.raises(ValueError, match=r"outputs of the shape of the targets, \(5, 2\)"):
        qw.pgd(model, x, torch.zeros(5, 2), 0.1, task=wide)


# Networks, training, measurement


@pytest.mark.parametrize("sides", [(5, 7), (4, 4), (16, 16)])
def test_encoder_decoders_keep_the_sides(sides):
    x = torch.rand((12, 2, *sides))
    data = qw.Dataset.for_regression(x, torch.rand((12, 3, *sides)))
    model = qw.build_model("encoder_decoder", data, seed=1)
    assert model(x).shape == (12, 3, *sides)
    for name in ("mlp", "conv"):
        assert qw.build_model(name, data)(x).shape == (12, 3, *sides)


def test_an_image_for_a_class_is_refused():
    with pytest.raises(ValueError, match=r"use model='conv'"):
        qw.build_model("encoder_decoder", qw.load_data("digits"))


def test_a_sweep_of_fields_is_the_cube_of_classes_with_other_words(swept, field):
    cube = swept.dataset
    assert cube.clean_accuracy.attrs["long_name"] == (
        "fraction of test images predicted within 1.5 K"
    )
    assert cube.test_loss.attrs == {
        "long_name": "mean squared error of the test images",
        "units": "K^2",
    }
    assert cube.regularization.attrs["units"] == "input unit^2 / K^2"
    assert json.loads(json.dumps(cube.attrs["task"]))["target_shape"] == [1, 16, 16]
    assert (cube.uncertainty_product >= 0.5 * (1 - 1e-3)).all()
    network = swept.model(epsilon=0, regularization=0)
    last = cube.isel(epoch=-1, epsilon=0, regularization=0)
    error = (network(field.test_inputs) - field.test_y).square().mean((1, 2, 3))
    assert float(last.test_loss) == pytest.approx(error.mean().item(), rel=1e-4)
    assert float(last.clean_accuracy) == (error <= 1.5**2).double().mean().item()
    margin = (
        last.neighborhood_position_std * last.neighborhood_momentum_std - last.neighborhood_bound
    )
    assert (margin >= -4 * last.neighborhood_bound_error).all()
    assert np.isfinite(plot_arrays(cube)["packet"]).all()


def test_the_packet_in_the_cube_is_the_section_of_its_network(swept, field):
    last = swept.dataset.isel(epoch=-1)
    network = swept.model(epsilon=0.05, regularization=0.01).double()
    index = int(last.probe_image[1, 0])
    loss = qw.packet_loss(network, field.test_y[index], field.input_shape, task=field.task)
    x = field.test_inputs[index].flatten().double()
    s = qw.section(loss, x, qw.attack_directions(loss, x)[0], last.attrs["width"], points=257)
    packet = last.packet.sel(epsilon=0.05, regularization=0.01, label=1)
    np.testing.assert_allclose(packet, s.amplitude[::2], atol=2e-3 * s.amplitude.max())


def test_sweeps_of_numbers_are_saved_and_opened(tmp_path, number):
    sweep = qw.sweep(
        data="friedman",
        epsilon=[0, 0.1],
        regularization=[0],
        epochs=15,
        train_size=200,
        test_size=50,
        detail=None,
        store=tmp_path / "numbers.sweep",
        progress=False,
    )
    assert (sweep.dataset.train_loss.isel(epoch=-1) < sweep.dataset.train_loss.isel(epoch=1)).all()
    opened = qw.open_sweep(tmp_path / "numbers.sweep")
    assert opened.dataset.identical(sweep.dataset)
    x = number.test_inputs
    one, same = (s.model(epsilon=0.1, regularization=0)(x) for s in (sweep, opened))
    assert torch.equal(one, same)
    assert opened.data.task == sweep.data.task != CLASSIFICATION
    one_more = qw.refine(opened, epsilon=0.05, regularization=0, epochs=1)
    assert one_more.dataset.sizes["epoch"] == 2


def test_losses_of_ones_own_are_trained_and_measured(number):
    data = qw.Dataset.for_regression(
        number.train_inputs, number.train_targets, loss=weird, tolerance=2.0, value_range=(0, 1)
    )
    sweep = qw.sweep(
        data=data,
        epsilon=[0, 0.1],
        regularization=[0],
        epochs=4,
        detail=None,
        progress=False,
    )
    assert sweep.dataset.test_loss.attrs["long_name"] == "mean test_tasks.weird of the test images"
    network = sweep.model(epsilon=0.1, regularization=0)
    loss = (network(data.test_inputs) - data.test_y).abs().mean()
    assert float(sweep.dataset.test_loss[1, 0, -1]) == pytest.approx(loss.item(), rel=1e-4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"objective": "trades"}, "objective must be one of 'clean', 'fgsm', 'pgd'"),
        ({"regularizer": "label_smoothing"}, "regularizer must be one of"),
    ],
)
def test_what_is_about_classes_is_refused(number, settings, message):
    with pytest.raises(ValueError, match=message):
        qw.sweep(data=number, progress=False, **settings)


def test_networks_of_ones_own_are_measured(number):
    good, bad = qw.build_model("mlp", number), Affine(torch.zeros(10), -30.0)
    optimizer = torch.optim.Adam(good.parameters(), 1e-2)
    for _ in range(200):
        loss = (good(number.train_inputs) - number.train_targets).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with pytest.warns(UserWarning, match=r"model 'bad' has a mean loss of .* mean target"):
        found = qw.measure(
            {"good": good, "bad": bad}, number, probe_images=3, detail=False, progress=False
        )
    # The packet of a constant loss is the window itself.
    assert found.dataset.uncertainty_product.sel(model="bad").item() == pytest.approx(0.5)
    with torch.no_grad():
        error = (good(number.test_inputs) - number.test_y).abs()
    share = (error <= 1).double().mean().item()
    assert found.dataset.clean_accuracy.sel(model="good").item() == pytest.approx(share)


def test_outputs_of_another_shape_are_refused(number):
    with pytest.raises(ValueError, match=r"outputs of shape \(2, 1\) .* got \(2, 10\)"):
        qw.measure(nn.Identity(), number, progress=False)


# The lens and the Explorer


def test_the_example_of_the_readme_runs():
    text = (Path(__file__).parents[1] / "README.md").read_text("utf-8")
    section = text.split("### Not only classifiers")[1]
    code = re.search(r"```python\n(.*?)```", section, re.DOTALL)[1]
    names = {}
    exec(compile(code, "README.md", "exec"), names)  # noqa: S102
    assert names["packet"].product >= 0.5 * (1 - 1e-3)
    assert (names["worst"] - names["x"]).abs().max() <= 0.05


def test_the_explorer_shows_outputs_in_the_place_of_classes(swept, tmp_path):
    explorer = qw.Explorer(swept)
    explorer.label = 2
    seen = explorer.look()
    assert "accuracy: share within 1.5 K" in explorer.heading["subtitle"]
    values = explorer.lens["values"]
    assert explorer.lens["unit"] == "K"
    assert values["target"]["shape"] == [1, 16, 16] == values["attacked_output"]["shape"]
    assert "probability" not in values
    index = swept.data.test_labels.eq(2).nonzero()[0, 0]
    np.testing.assert_array_equal(seen.y, swept.data.test_targets[index].double())
    assert explorer.problem == ""
    qw.export_html(explorer, tmp_path / "fields.html")
    assert "share within 1.5 K" in (tmp_path / "fields.html").read_text("utf-8")
    explorer.close()


def test_the_lens_sees_outputs_and_losses(field):
    model = qw.build_model("encoder_decoder", field)
    seen = qw.lens(
        *(model, field.test_inputs[0], field.test_targets[0]),
        epsilon=0.1,
        radius=0.05,
        value_range=field.value_range,
        samples=128,
        task=field.task,
    )
    assert seen.y.shape == seen.output.shape == seen.attacked_output.shape == (1, 16, 16)
    with torch.no_grad():
        np.testing.assert_allclose(seen.output, model(field.test_inputs[:1])[0], atol=1e-5)
    assert seen.loss == pytest.approx(np.mean((seen.output - seen.y) ** 2), rel=1e-6)
    assert seen.attacked_loss > seen.loss
    assert seen.momentum_std.shape == (3, 16, 16)
    assert (seen.momentum_std > 0).all()
