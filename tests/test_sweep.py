from __future__ import annotations

import inspect
import json
import os
import random
import signal
import subprocess
import sys
import threading
import warnings
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from scipy.stats import spearmanr
from torch import nn

import qwidgets as qw
from qwidgets import store
from qwidgets.neighborhoods import VARIABLES
from qwidgets.plan import Arguments, SweepSettings, planned

SMALL = {
    "epsilon": [0, 0.1],
    "regularization": [0, 0.1, 1],
    "epochs": 2,
    "train_size": 400,
    "test_size": 100,
    "probe_images": 3,
}


@pytest.fixture(scope="module")
def states():
    return list(qw.iterate_sweep(**SMALL))


@pytest.fixture(scope="module")
def small(states):
    return states[-1].sweep


@pytest.fixture(scope="module")
def data():
    return qw.load_data("digits", train_size=400, test_size=100)


def assert_same(one, other):
    xr.testing.assert_identical(one.dataset, other.dataset)
    for variable in one.dataset.variables:
        a, b = one.dataset[variable].values, other.dataset[variable].values
        assert a.dtype == b.dtype
        assert a.tobytes() == b.tobytes()
    for name, value in one._parameters.items():
        assert torch.equal(value, other._parameters[name])


# The cube


def test_every_variable_has_its_dimensions_meaning_and_unit(small):
    cube = small.dataset
    grid = ("epsilon", "regularization")
    expected = {
        "clean_accuracy": (),
        "clean_accuracy_error": (),
        "train_loss": (),
        "test_loss": (),
        "robust_accuracy": ("attack_epsilon",),
        "robust_accuracy_error": ("attack_epsilon",),
        "label_accuracy": ("label", "attack_epsilon"),
        "label_accuracy_error": ("label", "attack_epsilon"),
        "position_std": ("label",),
        "position_std_error": ("label",),
        "momentum_std": ("label",),
        "momentum_std_error": ("label",),
        "uncertainty_product": ("label",),
        "uncertainty_product_error": ("label",),
        "undefined_packets": ("label",),
        "packet": ("label", "t"),
    } | dict.fromkeys(VARIABLES, ("label",))
    dimensions = {name: (*grid, "epoch", *rest) for name, rest in expected.items()}
    dimensions |= {"diverged": grid, "diverged_reason": grid, "probe_image": ("label", "probe")}
    assert {name: cube[name].dims for name in cube.data_vars} == dimensions
    for name in cube.variables:
        assert cube[name].attrs["units"]
        assert cube[name].attrs["long_name"]
    assert dict(cube.sizes) == {
        "epsilon": 2,
        "regularization": 3,
        "epoch": 3,
        "label": 10,
        "attack_epsilon": 6,
        "t": 129,
        "probe": 3,
    }
    assert cube.epsilon.values.tolist() == [0, 0.1]
    assert cube.regularization.values.tolist() == [0, 0.1, 1]
    assert cube.epoch.values.tolist() == [0, 1, 2]
    assert cube.packet.dtype == np.float32
    width = cube.attrs["width"]
    assert width == pytest.approx(0.1 * 8 / 2)
    assert cube.t.values[[0, 64, -1]] == pytest.approx([-8 * width, 0, 8 * width])


def test_the_attributes_say_what_was_done(small, data):
    attributes = small.dataset.attrs
    expected = {
        "data": "digits",
        "model": "mlp",
        "strategy": "stacked",
        "regularizer": "gradient",
        "norm": "linf",
        "seed": 0,
        "training_attack_steps": 5,
        "test_images": 100,
        "robust_images": 100,
        "probe_images_per_label": 3,
        "class_names": [str(digit) for digit in range(10)],
        "value_range": [0.0, 1.0],
        "data_checksum": data.checksum,
        "complete": True,
    }
    assert expected.items() <= attributes.items()
    assert attributes["versions"]["torch"] == torch.__version__
    assert attributes["versions"]["qwidgets"] == qw.__version__
    assert small.complete


def test_the_rules_of_the_theory_hold_everywhere(small):
    cube = small.dataset
    assert np.array_equal(cube.robust_accuracy.sel(attack_epsilon=0), cube.clean_accuracy)
    assert (cube.robust_accuracy.diff("attack_epsilon") <= 0).all()
    assert (cube.uncertainty_product >= 0.5 - 1e-9).all()
    assert (cube.position_std <= cube.attrs["width"] * np.sqrt(5)).all()
    accuracy = cube.clean_accuracy
    error = np.sqrt(accuracy * (1 - accuracy) / 100)
    np.testing.assert_allclose(cube.clean_accuracy_error, error, atol=1e-12)
    robust = cube.robust_accuracy
    np.testing.assert_allclose(
        cube.robust_accuracy_error, np.sqrt(robust * (1 - robust) / 100), atol=1e-12
    )
    assert (cube.diverged == -1).all()
    assert (cube.diverged_reason == 0).all()
    assert len(cube.diverged_reason.attrs["flag_meanings"]) == 3
    assert not cube.undefined_packets.any()
    assert cube.train_loss.isnull().sum("epoch").values.tolist() == [[1] * 3] * 2
    untrained = cube.isel(epoch=0)
    for name in ("clean_accuracy", "position_std", "packet", "test_loss"):
        one = untrained[name].isel(epsilon=0, regularization=0)
        np.testing.assert_allclose(*xr.broadcast(untrained[name], one), rtol=1e-5, atol=1e-7)


def test_the_networks_are_those_that_were_measured(small, data):
    last = small.dataset.isel(epoch=-1)
    width = small.settings.width
    for epsilon in (0, 0.1):
        for strength in (0, 1):
            model = small.model(epsilon=epsilon, regularization=strength)
            assert not model.training
            point = last.sel(epsilon=epsilon, regularization=strength)
            correct = model(data.test_inputs).argmax(1) == data.test_labels
            assert correct.double().mean().item() == pytest.approx(point.clean_accuracy.item())
            model = model.double()
            for label in (2, 7):
                spreads = []
                for index in point.probe_image.sel(label=label).values:
                    assert data.test_labels[index] == label
                    loss = qw.packet_loss(model, label, data.input_shape)
                    origin = data.test_inputs[index].double().flatten().requires_grad_()
                    (gradient,) = torch.autograd.grad(loss(origin[None]).sum(), origin)
                    section = qw.section(
                        loss, origin.detach(), gradient / gradient.norm(), width, points=257
                    )
                    spreads.append((section.position_std, section.momentum_std, section.product))
                medians = np.median(spreads, axis=0)
                for name, median in zip(
                    ("position_std", "momentum_std", "uncertainty_product"), medians, strict=True
                ):
                    measured = point[name].sel(label=label).item()
                    assert measured == pytest.approx(median, rel=2e-4)


def test_the_trade_off_is_there():
    """Along either axis: position rises, momentum falls; robustness is bought with accuracy."""
    result = qw.sweep(
        epsilon=[0, 0.05, 0.1, 0.2],
        regularization=[0, 0.03, 0.3, 3],
        epochs=8,
        test_size=150,
        probe_images=3,
        progress=False,
    )
    last = result.dataset.isel(epoch=-1)
    spread = last.position_std.median("label").values
    momentum = last.momentum_std.median("label").values
    curved = spread < 0.99 * result.settings.width
    for values, sign in ((spread, 1), (momentum, -1)):
        lines = [(values[row], curved[row]) for row in range(4)]
        lines += [(values[:, column], curved[:, column]) for column in range(4)]
        order = [
            spearmanr(np.arange(keep.sum()), line[keep])[0]
            for line, keep in lines
            if keep.sum() > 2
        ]
        assert len(order) >= 5
        assert sign * np.median(order) >= 0.9
    robust = last.robust_accuracy.sel(attack_epsilon=0.1).values
    assert robust.max() >= robust[0, 0] + 0.2
    clean = result.dataset.isel(epsilon=0, regularization=0)
    assert clean.clean_accuracy[-1] > 0.93
    assert last.clean_accuracy[-1, -1] < clean.clean_accuracy[-1] - 0.1
    assert clean.position_std.median("label")[-1] < 0.8 * clean.position_std.median("label")[0]
    assert clean.momentum_std.median("label")[-1] > 1.3 * clean.momentum_std.median("label")[0]
    assert (result.dataset.uncertainty_product >= 0.5 - 1e-9).all()


# The iterator


def test_the_iterator_reports_small_units_and_every_finished_epoch(states):
    fractions = [state.fraction for state in states]
    assert (np.diff(fractions) >= 0).all()
    assert fractions[-1] == 1
    assert max(np.diff(fractions)) < 0.04
    finished = [state for state in states if state.sweep is not None]
    assert [state.epoch for state in finished] == [0, 1, 2]
    assert [state.sweep.complete for state in finished] == [False, False, True]
    assert {state.epochs for state in states} == {2}


def test_what_was_seen_before_stays_as_it_was(states, small):
    for state in states:
        if state.sweep is not None:
            cube = state.sweep.dataset
            kept = small.dataset.isel(epoch=slice(0, state.epoch + 1))
            xr.testing.assert_equal(
                cube.drop_vars(["diverged", "diverged_reason"]),
                kept.drop_vars(["diverged", "diverged_reason"]),
            )
    first = next(state.sweep for state in states if state.sweep is not None)
    start = qw.build_model("mlp", qw.load_data("digits", train_size=400, test_size=100))
    network = first.model(epsilon=0.1, regularization=1)
    for value, expected in zip(network.parameters(), start.parameters(), strict=True):
        assert torch.equal(value, expected)


def test_the_same_call_gives_the_same_cube_bit_for_bit(small):
    again = qw.sweep(**SMALL, progress=False)
    assert_same(again, small)


@pytest.mark.parametrize("probe_images", [1, 3, 5])
def test_the_number_of_threads_does_not_matter(probe_images):
    # Of an odd number of lines threads get parts of different sizes.
    asked = {**SMALL, "probe_images": probe_images}
    threads = torch.get_num_threads()
    found = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            # Not `sweep`, which spares a thread.
            found.append([state.sweep for state in qw.iterate_sweep(**asked) if state.sweep][-1])
    finally:
        torch.set_num_threads(threads)
    assert_same(found[1], found[0])
    assert_same(found[2], found[0])


def test_another_seed_gives_other_networks(small):
    other = qw.sweep(**SMALL | {"epochs": 1}, seed=1, progress=False)
    start, kept = (one.dataset.isel(epoch=0) for one in (other, small))
    assert (start.test_loss != kept.test_loss).all()


def test_global_random_states_and_settings_are_left_alone():
    torch.rand(3)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    qw.sweep(
        **SMALL | {"epochs": 1}, model=lambda: nn.Sequential(nn.Flatten(-3), nn.Linear(64, 10))
    )
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
    assert random.getstate() == before[2]
    assert torch.get_default_dtype() == torch.float32
    assert torch.is_grad_enabled()


# Interruption


def interrupting(calls):
    """A factory whose networks press Ctrl-C in the forward pass of this number."""
    seen = []

    class Network(nn.Sequential):
        def forward(self, x):
            seen.append(None)
            if len(seen) == calls:
                signal.raise_signal(signal.SIGINT)
            return super().forward(x)

    return lambda: Network(nn.Flatten(-3), nn.Linear(64, 10))


CHEAP = SMALL | {"epsilon": [0.1], "regularization": [0], "epochs": 30, "attack_epsilon": [0, 0.1]}


def test_an_interrupted_sweep_keeps_the_finished_epochs():
    with pytest.warns(UserWarning, match=r"interrupted after epoch \d+ of 30"):
        result = qw.sweep(**CHEAP, model=interrupting(700), progress=False)
    assert not result.complete
    done = int(result.dataset.epoch[-1])
    assert 0 < done < 30
    whole = qw.sweep(**CHEAP, model=interrupting(0), progress=False)
    xr.testing.assert_equal(result.dataset, whole.dataset.isel(epoch=slice(0, done + 1)))


def test_an_interrupt_before_anything_is_measured_is_not_swallowed():
    with pytest.raises(KeyboardInterrupt):
        qw.sweep(**CHEAP, model=interrupting(3), progress=False)


def test_a_closed_iterator_stops_and_leaves_what_was_seen():
    units = qw.iterate_sweep(**SMALL)
    seen = next(state.sweep for state in units if state.sweep is not None)
    units.close()
    assert list(units) == []
    assert seen.dataset.sizes["epoch"] == 1
    assert not seen.complete


# Your own


def test_your_own_data_and_model(tmp_path):
    generator = np.random.default_rng(0)
    labels = np.arange(120) % 3
    inputs = generator.normal(0, 0.3, (120, 5)) + labels[:, None]
    data = qw.Dataset.from_arrays(inputs, labels, class_names=["a", "b", "c"], name="mine")

    def factory():
        return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3))

    result = qw.sweep(data, factory, regularization=[0], epochs=1, progress=False)
    span = data.value_range[1] - data.value_range[0]
    assert result.settings.epsilon[-1] == pytest.approx(0.3 * span)
    assert result.settings.width == pytest.approx(0.1 * span * np.sqrt(5) / 2)
    assert result.dataset.attrs["class_names"] == ["a", "b", "c"]
    result.save(tmp_path / "mine")
    point = {"epsilon": result.settings.epsilon[3], "regularization": 0}
    expected = result.model(**point)(data.test_inputs)
    with pytest.raises(ValueError, match=r"open_sweep\(path, model=factory\)"):
        qw.open_sweep(tmp_path / "mine").model(**point)
    reopened = qw.open_sweep(tmp_path / "mine", model=factory)
    assert torch.equal(reopened.model(**point)(data.test_inputs), expected)


def test_every_objective_is_swept(small):
    losses = {}
    for objective in ("clean", "fgsm", "pgd", "trades"):
        result = qw.sweep(**SMALL, objective=objective, progress=False)
        assert result.dataset.attrs["objective"] == objective
        losses[objective] = result.dataset.test_loss.isel(epoch=-1).values
    assert_same(qw.sweep(**SMALL, objective="pgd", progress=False), small)
    clean, attacked = zip(*losses.values(), strict=True)
    for loss in clean:
        np.testing.assert_allclose(loss, clean[0], rtol=1e-5)
    assert len({loss.tobytes() for loss in attacked}) == 4


@pytest.mark.parametrize("regularizer", ["weight_decay", "label_smoothing"])
def test_every_regularizer_has_its_default_strengths(regularizer):
    result = qw.sweep(
        "moons", epsilon=[0], regularizer=regularizer, epochs=2, test_size=40, progress=False
    )
    cube = result.dataset
    assert cube.sizes["regularization"] == 8
    assert cube.attrs["regularizer"] == regularizer
    assert cube.regularization.attrs["units"] == cube.attrs["regularization_unit"]
    final = cube.isel(epoch=-1, epsilon=0)
    assert final.momentum_std.median("label")[-1] < 0.95 * final.momentum_std.median("label")[0]
    assert (cube.uncertainty_product >= 0.5 - 1e-9).all()


def test_radii_may_be_measured_in_the_l2_norm():
    result = qw.sweep("moons", norm="l2", regularization=[0], epochs=1, progress=False)
    linf = qw.sweep("moons", epsilon=[0], regularization=[0], epochs=1, progress=False)
    expected = np.multiply(linf.settings.attack_epsilon, np.sqrt(2) / 2)
    assert result.settings.attack_epsilon == pytest.approx(expected)
    assert "l2" in result.dataset.epsilon.attrs["units"]
    assert (result.dataset.robust_accuracy.diff("attack_epsilon") <= 0).all()
    # The balls of a neighbourhood are of linf whatever the norm of the attack.
    assert result.dataset.attrs["neighborhood_radius"] == 0.2
    assert linf.dataset.attrs["neighborhood_radius"] == 0.2


def test_a_convolutional_network_is_swept():
    result = qw.sweep(
        model="conv",
        epsilon=[0, 0.1],
        regularization=[0],
        attack_epsilon=[0, 0.1],
        epochs=1,
        train_size=100,
        test_size=30,
        probe_images=1,
        progress=False,
    )
    assert result.dataset.attrs["strategy"] in {"loop", "vmap"}  # whichever was faster
    assert np.isnan(result.dataset.position_std_error).all()
    assert result.model(epsilon=0.1, regularization=0)(torch.zeros(1, 1, 8, 8)).shape == (1, 10)


# Saving


def test_a_saved_sweep_opens_bit_for_bit(small, data, tmp_path):
    path = tmp_path / "small.sweep"
    small.save(path)
    assert sorted(part.name for part in path.glob("*/*")) == ["cube.zarr", "weights.safetensors"]
    reopened = qw.open_sweep(path)
    assert_same(reopened, small)
    assert reopened.settings == small.settings
    assert isinstance(reopened.settings, SweepSettings)
    assert repr(reopened) == repr(small)
    point = {"epsilon": 0.1, "regularization": 1}
    assert torch.equal(
        reopened.model(**point)(data.test_inputs), small.model(**point)(data.test_inputs)
    )


def test_numbers_and_names_of_any_library_can_be_saved(tmp_path):
    x = np.random.default_rng(0).random((60, 3))
    own = qw.Dataset.for_regression(
        x,
        x.sum(1),
        groups=np.arange(60) % 3,
        group_names=np.arange(3),
        tolerance=np.float32(0.25),
        unit=np.str_("K"),
        value_range=(np.float32(0), torch.tensor(1.0)),
        name=Path("sums"),
    )
    numbers = {"learning_rate": 0.01, "width": 0.5, "attack_step": 2.0, "warm_up": 0.5}
    for kind in (float, np.float32, torch.tensor):
        asked = {name: kind(value) for name, value in numbers.items()}
        trained = qw.sweep(
            own,
            epsilon=[0],
            regularization=[0],
            epochs=np.int64(1),
            seed=torch.tensor(3),
            trades_weight=kind(3.0),
            detail=None,
            attack_epsilon=[0],
            store=tmp_path / kind.__name__,
            progress=False,
            **asked,
        )
        opened = qw.open_sweep(tmp_path / kind.__name__, data=own)
        assert_same(opened, trained)
        assert opened.settings == trained.settings
        assert opened.settings.trades_weight == 3
        assert opened.settings.data == "sums"


def test_a_sweep_that_is_not_complete_can_be_saved(states, tmp_path):
    early = next(state.sweep for state in states if state.sweep is not None)
    early.save(tmp_path / "early")
    reopened = qw.open_sweep(tmp_path / "early")
    assert not reopened.complete
    assert_same(reopened, early)


def test_models_are_found_at_grid_points_only(small):
    assert small.model(epsilon=0.1 + 1e-12, regularization=np.float32(0.1)) is not None
    with pytest.raises(
        ValueError, match=r"epsilon must be a value of the grid, got 0\.05; .* 0 and 0\.1\."
    ):
        small.model(epsilon=0.05, regularization=0)
    for wrong in ("0.1", None, [0.1]):
        with pytest.raises(TypeError, match="epsilon must be one number, a value of the grid, got"):
            small.model(epsilon=wrong, regularization=1)
    with pytest.raises(ValueError, match=r"regularization .* got 5; the nearest are 1\."):
        small.model(epsilon=0, regularization=5)
    with pytest.raises(ValueError, match=r"epsilon .* got nan"):
        small.model(epsilon=float("nan"), regularization=0)


# Stores


def stopped(store, *, after, **settings):
    """Leave a sweep alone after the first unit of work of the epoch after this one."""
    with closing(qw.iterate_sweep(**SMALL | settings, store=store)) as states:
        for state in states:
            if state.sweep is not None and state.epoch == after:
                break
        next(states)
    return state.sweep


def test_a_store_holds_what_the_sweep_returns(small, tmp_path):
    result = qw.sweep(**SMALL, store=tmp_path / "store", progress=False)
    assert_same(result, small)
    assert_same(qw.open_sweep(tmp_path / "store"), small)
    assert not (tmp_path / "store" / "parts").exists()


@pytest.mark.parametrize("after", [0, 1])
def test_an_interrupted_sweep_goes_on_from_its_store(small, tmp_path, after):
    early = stopped(tmp_path / "store", after=after)
    assert_same(qw.open_sweep(tmp_path / "store"), early)
    states = list(qw.iterate_sweep(**SMALL, store=tmp_path / "store"))
    assert_same(states[0].sweep, early)
    assert not states[0].sweep.complete
    assert [state.epoch for state in states if state.sweep is not None] == [*range(after, 3)]
    fractions = [state.fraction for state in states]
    assert fractions[0] == (2 * after + 1) / 5
    assert (np.diff(fractions) >= 0).all()
    assert fractions[-1] == 1
    assert_same(states[-1].sweep, small)
    assert_same(qw.open_sweep(tmp_path / "store"), small)


def test_a_finished_store_trains_nothing(small, tmp_path):
    small.save(tmp_path / "store")
    (state,) = qw.iterate_sweep(**SMALL, store=tmp_path / "store")
    assert (state.fraction, state.epoch) == (1, 2)
    assert_same(state.sweep, small)
    point = {"epsilon": 0.1, "regularization": 1}
    for one, other in zip(
        state.sweep.model(**point).parameters(), small.model(**point).parameters(), strict=True
    ):
        assert torch.equal(one, other)


def test_a_saved_sweep_that_was_interrupted_begins_again_and_ends_the_same(states, small, tmp_path):
    early = next(state.sweep for state in states if state.sweep is not None)
    early.save(tmp_path / "early")
    assert_same(qw.sweep(**SMALL, store=tmp_path / "early", progress=False), small)


def test_saving_to_a_store_keeps_the_checkpoints_of_the_same_sweep_alone(tmp_path):
    early = stopped(tmp_path / "store", after=1)
    early.save(tmp_path / "store")
    assert len(list((tmp_path / "store" / "parts").iterdir())) == 1
    states = qw.iterate_sweep(**SMALL, store=tmp_path / "store")
    assert {state.epoch for state in states} == {1, 2}
    stopped(tmp_path / "other", after=0, seed=1)
    early.save(tmp_path / "other")
    assert not (tmp_path / "other" / "parts").exists()
    assert_same(qw.open_sweep(tmp_path / "other"), early)


@pytest.mark.parametrize("other", ["data", "model"])
def test_checkpoints_of_another_sweep_with_the_same_settings_are_not_kept(data, tmp_path, other):
    def factory(activation=nn.ReLU):
        return nn.Sequential(nn.Flatten(-3), nn.Linear(64, 8), activation(), nn.Linear(8, 10))

    one = SMALL | {"data": data.subset(400, 100), "model": factory}
    two = one | (
        {"model": partial(factory, nn.Tanh)}
        if other == "model"
        else {"data": replace(one["data"], train_inputs=1 - one["data"].train_inputs)}
    )
    stopped(tmp_path / "store", after=1, **one)
    early = stopped(tmp_path / "two", after=1, **two)
    assert early.settings == qw.open_sweep(tmp_path / "store").settings
    early.save(tmp_path / "store")
    assert not (tmp_path / "store" / "parts").exists()
    expected = qw.sweep(**two, progress=False)
    assert_same(qw.sweep(**two, store=tmp_path / "store", progress=False), expected)


DIFFERENT = [
    ({"epochs": 3}, r"epochs: 2 -> 3;"),
    ({"seed": 1, "batch_size": 32}, r"seed: 0 -> 1, batch_size: 64 -> 32;"),
    ({"epsilon": [0, 0.2]}, r"epsilon: \[0.0, 0.1\] -> \[0.0, 0.2\];"),
    ({"regularizer": "weight_decay"}, "regularizer: 'gradient' -> 'weight_decay'"),
    (
        {"model": lambda: nn.Sequential(nn.Flatten(-3), nn.Linear(64, 10))},
        "model: 'mlp' -> 'custom'",
    ),
    ({"train_size": 399}, "train_size: 400 -> 399, data_checksum: "),
]


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize(("change", "told"), DIFFERENT)
def test_a_store_of_another_sweep_is_refused_with_what_differs(
    states, small, tmp_path, change, told, finished
):
    early = next(state.sweep for state in states if state.sweep is not None)
    (small if finished else early).save(tmp_path / "store")
    with pytest.raises(ValueError, match=rf"store must .*\(stored -> asked for\) .*{told}"):
        qw.iterate_sweep(**SMALL | change, store=tmp_path / "store")


def test_another_model_of_ones_own_is_told_by_what_it_computes(tmp_path):
    def factory(activation):
        return lambda: nn.Sequential(
            nn.Flatten(-3), nn.Linear(64, 8), activation(), nn.Linear(8, 10)
        )

    own = CHEAP | {"epochs": 1, "store": tmp_path / "store"}
    qw.sweep(**own, model=factory(nn.ReLU), progress=False)
    assert len(list(qw.iterate_sweep(**own, model=factory(nn.ReLU)))) == 1
    with pytest.raises(ValueError, match=r"test loss of the untrained model: 2\.\d+ -> 2\.\d+;"):
        qw.iterate_sweep(**own, model=factory(nn.Tanh))


def test_a_newer_or_foreign_store_is_refused_at_the_call(small, tmp_path):
    small.save(tmp_path / "store")
    path = tmp_path / "store" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": 99}))
    with pytest.raises(ValueError, match="got format 99 .*update qwidgets"):
        qw.iterate_sweep(**SMALL, store=tmp_path / "store")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("precious")
    with pytest.raises(FileExistsError, match="thesis is something else"):
        qw.iterate_sweep(**SMALL, store=tmp_path / "thesis")
    with pytest.raises(FileNotFoundError, match="nowhere.store cannot be written"):
        qw.iterate_sweep(**SMALL, store=tmp_path / "nowhere" / "store")


def test_a_store_in_use_is_refused(tmp_path):
    with closing(qw.iterate_sweep(**SMALL, store=tmp_path / "store")) as states:
        next(states)
        with pytest.raises(BlockingIOError, match="is writing to .*store; wait"):
            qw.iterate_sweep(**SMALL, store=tmp_path / "store")
        with pytest.raises(ValueError, match="at least one finished epoch"):
            qw.open_sweep(tmp_path / "store")
    assert next(iter(qw.iterate_sweep(**SMALL, store=tmp_path / "store"))) is not None


def test_a_store_that_is_asked_for_and_never_used_leaves_nothing(tmp_path):
    states = qw.iterate_sweep(**SMALL, store=tmp_path / "store")
    assert not (tmp_path / "store").exists()
    states.close()


def test_other_versions_of_packages_are_warned_about(tmp_path):
    stopped(tmp_path / "store", after=0)
    path = tmp_path / "store" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["versions"]["torch"] = "1.0"
    path.write_text(json.dumps(manifest))
    with pytest.warns(UserWarning, match=r"begun with .*'torch': '1.0'.*goes on with"):
        qw.sweep(**SMALL, store=tmp_path / "store", progress=False)


def odd():
    return nn.Sequential(nn.Flatten(-3), nn.Linear(64, 9), nn.ReLU(), nn.Linear(9, 10))


GRID = SMALL | {"regularization": [0, 0.01, 0.03, 0.1, 0.3, 1, 3, 10]}  # of two batches


@pytest.mark.parametrize("lost", ["one", "all"])
def test_a_damaged_checkpoint_is_named_and_can_be_done_without(tmp_path, lost):
    store = tmp_path / "store"
    asked = GRID | {"model": odd}  # whose batches are trained one after the other
    expected = qw.sweep(**asked, progress=False)
    with closing(qw.iterate_sweep(**asked, store=store)) as states:
        while not (store / "parts" / "0-1.safetensors").exists():
            next(states)
    files = sorted((store / "parts").iterdir())
    assert [file.stem for file in files] == ["0-0", "0-1", "1-0"]
    damaged = files[1:2] if lost == "one" else files
    damaged[0].write_bytes(damaged[0].read_bytes()[:-1])
    with pytest.raises(ValueError, match=rf"{damaged[0].name} is damaged .*remove that file"):
        qw.sweep(**asked, store=store, progress=False)
    for file in damaged:
        file.unlink()
    assert_same(qw.sweep(**asked, store=store, progress=False), expected)


def test_batches_trained_together_may_be_cut_off_between_their_checkpoints(tmp_path, monkeypatch):
    path, write = tmp_path / "store", store.write_part

    def fails(folder, batch, epoch, part):
        if (batch, epoch) == (1, 1):
            raise OSError(28, "no space")
        write(folder, batch, epoch, part)

    monkeypatch.setattr(store, "write_part", fails)
    with pytest.raises(OSError, match="no space"):
        qw.sweep(**GRID, store=path, progress=False)
    assert {file.stem for file in (path / "parts").iterdir()} == {"0-0", "1-0", "0-1"}
    monkeypatch.undo()
    resumed = qw.sweep(**GRID, store=path, progress=False)
    assert_same(resumed, qw.sweep(**GRID, progress=False))


def test_a_disk_that_fills_up_keeps_the_last_checkpoint(small, tmp_path):
    """The child may write small files only: the first weights are too large for it."""
    store = tmp_path / "store"
    program = f"""
import resource, qwidgets as qw
states = qw.iterate_sweep(**{SMALL!r}, store={str(store)!r})
for state in states:
    if state.sweep is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert run.returncode == 1
    *_, told = run.stderr.decode().splitlines()
    assert told.startswith("OSError: folder")
    assert "cannot be written (File too large)" in told
    assert qw.open_sweep(store).dataset.sizes["epoch"] == 1
    assert_same(qw.sweep(**SMALL, store=store, progress=False), small)


KILLED = GRID | {"epochs": 6, "train_size": 200, "test_size": 40}


def test_a_sweep_that_is_killed_again_and_again_ends_the_same(tmp_path):
    """Killed after random units of work; tests/test_store.py kills at every step of a write."""
    store = tmp_path / "store"
    program = f"""
import os, random, signal, sys, qwidgets as qw
chance = random.Random(int(sys.argv[1]))
for state in qw.iterate_sweep(**{KILLED!r}, store={str(store)!r}):
    if chance.random() < float(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
"""
    expected = qw.sweep(**KILLED, progress=False)
    killed, code = 0, None
    while code != 0:
        # Three times; then let it come to its end.
        rate = "0.02" if killed < 3 else "0"
        command = [sys.executable, "-c", program, str(killed), rate]
        code = subprocess.run(command, check=False).returncode
        assert code in {0, -signal.SIGKILL}
        killed += code != 0
        if (store / "manifest.json").exists() and (opened := _opened(store)) is not None:
            kept = expected.dataset.isel(epoch=slice(0, opened.dataset.sizes["epoch"]))
            xr.testing.assert_equal(
                opened.dataset.drop_vars(["diverged", "diverged_reason"]),
                kept.drop_vars(["diverged", "diverged_reason"]),
            )
    assert killed == 3
    assert_same(qw.open_sweep(store), expected)


def _opened(store):
    try:
        return qw.open_sweep(store)
    except ValueError as error:
        assert "has none yet" in str(error)  # noqa: PT017
        return None


# One signature


def test_both_ways_to_sweep_take_the_same_arguments():
    whole, units = (
        inspect.signature(function).parameters for function in (qw.sweep, qw.iterate_sweep)
    )
    assert {name: each for name, each in whole.items() if name != "progress"} == dict(units)
    assert list(whole)[:8] == [
        "data",
        "model",
        "epsilon",
        "regularization",
        "regularizer",
        "epochs",
        "seed",
        "device",
    ]
    assert {"store", "executor", "progress"} < whole.keys()
    for name in whole:
        assert name in qw.sweep.__doc__


# Wrong input


class Wrapped(nn.Module):
    """Whatever a function makes of an image and a layer for 64 pixels."""

    def __init__(self, function, **parts):
        super().__init__()
        self.function, self.last = function, nn.Linear(64, 10)
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x):
        return self.function(self, x.flatten(1))


def hooked():
    model = nn.Sequential(nn.Flatten(-3), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))
    model.register_forward_pre_hook(lambda _, given: ((given[0] - 0.5) / 0.25,))
    return model


ORDINARY = {
    "dropout": lambda: nn.Sequential(nn.Flatten(-3), nn.Dropout(0.5), nn.Linear(64, 10)),
    "recurrent": lambda: Wrapped(
        lambda own, x: own.last(own.read(x.reshape(-1, 8, 8))[0].flatten(1)),
        read=nn.GRU(8, 8, batch_first=True),
    ),
    "a number": lambda: Wrapped(
        lambda own, x: own.gain * own.last(x), gain=nn.Parameter(torch.ones(()))
    ),
    "a layer twice": lambda: Wrapped(
        lambda own, x: own.last(own.again(own.again(x).relu())), again=nn.Linear(64, 64)
    ),
    "a layer not used": lambda: Wrapped(lambda own, x: own.last(x), spare=nn.Linear(2, 2)),
    "a hook": hooked,
}


@pytest.mark.parametrize("kind", ORDINARY)
def test_ordinary_networks_are_trained_and_are_those_that_were_measured(kind):
    asked = SMALL | {"epochs": 1, "detail": None, "model": ORDINARY[kind]}
    with torch.no_grad():  # of the caller: it changes nothing
        found = qw.sweep(**asked, progress=False)
    for row, epsilon in enumerate(asked["epsilon"]):
        network = found.model(epsilon=epsilon, regularization=1)
        with torch.no_grad():
            losses = nn.functional.cross_entropy(
                network(found.data.test_inputs), found.data.test_labels
            )
        cube = found.dataset.test_loss.isel(epsilon=row, regularization=-1, epoch=-1)
        assert losses.item() == pytest.approx(float(cube), rel=1e-5)


def test_frozen_layers_stay_as_the_factory_made_them():
    def factory():
        model = nn.Sequential(nn.Flatten(-3), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))
        model[1].requires_grad_(requires_grad=False)
        return model

    asked = SMALL | {"detail": None, "model": factory, "regularizer": "weight_decay"}
    found = qw.sweep(**asked, progress=False)
    with torch.random.fork_rng():
        torch.manual_seed(found.settings.seed)
        before = factory()
    after = found.model(epsilon=0.1, regularization=1)
    assert torch.equal(after[1].weight, before[1].weight)
    assert not torch.equal(after[3].weight, before[3].weight)


THE_SAME = nn.Sequential(nn.Flatten(-3), nn.Linear(64, 10))
LOCKED = {"lock": threading.Lock()}


WRONG = [
    ({"model": lambda: THE_SAME}, ValueError, "a new network at every call, got the same one"),
    ({"model": nn.Linear}, TypeError, "when called without arguments, but: .* missing 2"),
    (
        {"model": lambda: Wrapped(lambda own, x: (own.last(x), 0))},
        TypeError,
        "model must return a tensor of logits, got tuple",
    ),
    (
        {"model": lambda: THE_SAME[:1].append(nn.Linear(64, 10).double())},
        ValueError,
        "model must take inputs of shape .*, float32, but: .* dtype",
    ),
    (
        {"model": lambda: Wrapped(lambda own, x: own.last(x) + torch.randn(len(x), 1))},
        ValueError,
        "by itself and each time alike",
    ),
    (
        {"model": lambda: nn.Sequential(nn.Flatten(-3), nn.LazyLinear(10))},
        ValueError,
        "ready to train, got the parameter '1.weight' without values",
    ),
    ({"model": lambda: nn.DataParallel(nn.Linear(64, 10))}, ValueError, "got DataParallel"),
    (
        {"model": lambda: Wrapped(lambda own, x: own.last(x), **LOCKED)},
        TypeError,
        "copy.deepcopy can copy, but: cannot pickle '_thread.lock'",
    ),
    (
        {
            "model": lambda: nn.Sequential(nn.Flatten(-3), nn.Linear(64, 10)).requires_grad_(
                requires_grad=False
            )
        },
        ValueError,
        "must have parameters to train, got none with requires_grad",
    ),
    ({"epsilon": [0, -0.1]}, ValueError, r"epsilon must be finite and 0 or more, got -0\.1"),
    ({"epsilon": [0, np.nan]}, ValueError, "epsilon must be finite and 0 or more, got nan"),
    ({"epsilon": [0.1, 0]}, ValueError, r"epsilon must increase, got \[0\.1, 0\.0\]"),
    ({"epsilon": [0, 0.1, 0.1]}, ValueError, "epsilon must increase"),
    ({"epsilon": [0, 1.5]}, ValueError, "epsilon must be at most 1, .*, got 1.5"),
    ({"epsilon": []}, ValueError, "epsilon must be a list of at least one value"),
    ({"epsilon": ["much"]}, ValueError, "epsilon must be numbers, got .*much"),
    ({"regularization": [-1]}, ValueError, "regularization must be finite and 0 or more, got -1"),
    ({"regularization": [0, np.inf]}, ValueError, "regularization must be finite .* got inf"),
    (
        {"regularizer": "label_smoothing", "regularization": [0, 2]},
        ValueError,
        "regularization must be at most 1, .*, got 2",
    ),
    ({"regularizer": "gradiant"}, ValueError, "did you mean 'gradient'"),
    ({"norm": "l3"}, ValueError, "norm must be one of 'linf', 'l2', got 'l3'"),
    ({"data": "digts"}, ValueError, "did you mean 'digits'"),
    ({"data": np.zeros((3, 4))}, TypeError, r"Dataset\.from_arrays"),
    ({"model": "mpl"}, ValueError, "did you mean 'mlp'"),
    ({"model": nn.Linear(3, 4)}, TypeError, "function that returns a new torch.nn.Module"),
    ({"model": lambda: 3}, TypeError, "model must return a torch.nn.Module .* got int"),
    (
        {"model": lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 7))},
        ValueError,
        r"model must return logits of shape \(., 10\).*got \(2, 7\)",
    ),
    (
        {"model": lambda: nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 10))},
        ValueError,
        "BatchNorm1d",
    ),
    ({"objective": "trade"}, ValueError, "did you mean 'trades'"),
    ({"objective": "fgsm", "norm": "l2"}, ValueError, "norm must be 'linf' for .* 'fgsm'"),
    ({"warm_up": 2}, ValueError, "warm_up must be a share of the training.* got 2"),
    ({"warm_up": "x"}, TypeError, "warm_up must be one number, a share .*, got 'x'"),
    ({"trades_weight": np.nan}, ValueError, "trades_weight must be finite and 0 or more, got nan"),
    ({"trades_weight": -6}, ValueError, "trades_weight must be finite and 0 or more, got -6"),
    ({"trades_weight": "x"}, TypeError, "trades_weight must be one number, .*, got 'x'"),
    ({"trades_weight": None}, TypeError, "trades_weight must be one number, .*, got None"),
    ({"attack_step": "x"}, TypeError, "attack_step must be one number, .*, got 'x'"),
    ({"attack_step": 0}, ValueError, "attack_step must be a positive finite number, got 0"),
    ({"detail_samples": 64}, ValueError, "detail_samples must be at least 128.*, got 64"),
    ({"epochs": 0}, ValueError, "epochs must be at least 1, got 0"),
    ({"epochs": 2.5}, TypeError, r"epochs must be an integer, got 2\.5"),
    ({"seed": "x"}, TypeError, "seed must be an integer, got 'x'"),
    ({"seed": -1}, ValueError, "seed must be at least 0, got -1"),
    ({"seed": 2**63}, ValueError, r"seed must be below 2\^63, got 9223372036854775808"),
    ({"batch_size": 0}, ValueError, "batch_size must be at least 1, got 0"),
    ({"attack_steps": 0}, ValueError, "attack_steps must be at least 1, got 0"),
    ({"probe_images": 4}, ValueError, "probe_images must be odd.*got 4; use 5"),
    ({"width": 0}, ValueError, "width must be positive and finite, got 0"),
    ({"width": np.inf}, ValueError, "width must be positive and finite, got inf"),
    ({"width": 1e300}, ValueError, r"width must be .* in 1e-150\.\.1e\+150, got 1e\+300"),
    ({"width": "x"}, TypeError, "width must be one number, .*, got 'x'"),
    ({"learning_rate": -1}, ValueError, "learning_rate must be positive and finite, got -1"),
    ({"learning_rate": "x"}, TypeError, "learning_rate must be one number, .*, got 'x'"),
    ({"attack_epsilon": [0.1, 0.2]}, ValueError, r"attack_epsilon must begin with 0.*got 0\.1"),
    ({"attack_epsilon": [0, 3]}, ValueError, "attack_epsilon must be at most 1, .*, got 3"),
    ({"device": "gpu"}, ValueError, "device must be 'auto' or one of 'cpu'.*got 'gpu'"),
    ({"train_size": 10**6}, ValueError, r"train_size must be in 1\.\.1437, .*; 'all' takes every"),
    ({"test_size": 0}, ValueError, r"test_size must be in 1\.\.360, .*, got 0"),
    ({"train_size": "full"}, TypeError, "train_size must be .* number of images or 'all', got 'f"),
    ({"test_size": 99.5}, TypeError, "test_size must be a whole number .* or 'all', got 99.5"),
    (
        {"test_size": 5},
        ValueError,
        "test images of every class, got none of .*; raise test_size or",
    ),
    (
        {"data": qw.Dataset.from_arrays(np.eye(40, 3), 1 + np.arange(40) % 2)},
        ValueError,
        "got none of '0'; training has none either: number the classes from 0 without gaps",
    ),
    ({"root": "/nowhere"}, ValueError, "root must be None for data 'digits'"),
    ({"data": "mnist", "root": "/nowhere"}, FileNotFoundError, "/nowhere does not"),
]


@pytest.mark.parametrize(("wrong", "kind", "text"), WRONG)
def test_wrong_input_is_refused_before_any_work(wrong, kind, text):
    with pytest.raises(kind, match=text):
        qw.iterate_sweep(**wrong)  # not even a first item is taken


def sizes(data, **asked):
    settings = planned(Arguments(data=data, epsilon=[0], regularization=[0], **asked)).settings
    return settings.train_size, settings.test_size


def test_all_images_are_taken_where_all_are_asked_for():
    root = Path(os.environ.get("QWIDGETS_DATA", Path(__file__).parents[2] / "shared/data"))
    if not (root / "mnist").is_dir():
        pytest.skip(f"no folder {root / 'mnist'}: set QWIDGETS_DATA to the folder that holds it")
    assert sizes("mnist", root=root) == (10_000, 1_000)
    assert sizes("mnist", root=root, train_size="all") == (60_000, 1_000)
    assert sizes("mnist", root=root, test_size="all") == (10_000, 10_000)


def test_fewer_images_than_by_default_are_all_taken(tmp_path):
    records = b"".join(bytes([label]) + bytes(3072) for label in range(10))
    (tmp_path / "data_batch_1.bin").write_bytes(3 * records)
    (tmp_path / "test_batch.bin").write_bytes(2 * records)
    assert sizes("cifar10", root=tmp_path) == (30, 20)
    assert sizes("cifar10", root=tmp_path, train_size=20, test_size="all") == (20, 20)


def test_data_from_a_folder_are_given_to_a_reopened_sweep(tmp_path):
    generator = np.random.default_rng(0)
    for name in ("data_batch_1.bin", "test_batch.bin"):
        pixels = generator.integers(0, 256, (30, 3072), np.uint8)
        records = np.c_[np.arange(30, dtype=np.uint8) % 10, pixels]
        (tmp_path / name).write_bytes(records.tobytes())
    asked = {"epsilon": [0], "regularization": [0], "epochs": 1, "attack_epsilon": [0]}
    trained = qw.sweep("cifar10", root=tmp_path, train_size=20, **asked, progress=False)
    trained.save(tmp_path / "saved")
    with pytest.raises(FileNotFoundError, match=r"'cifar10', are not at hand: reopen it with open"):
        _ = qw.open_sweep(tmp_path / "saved").data
    given = qw.load_data("cifar10", root=tmp_path)
    assert len(given.train_labels) == 30
    again = qw.open_sweep(tmp_path / "saved", data=given)
    assert again.data.checksum == trained.data.checksum
    assert len(again.data.train_labels) == 20


def test_all_of_your_own_images_are_trained_on_and_by_default_1000_measured():
    inputs = np.random.default_rng(0).random((12_000, 2))
    labels = (inputs[:, 0] > inputs[:, 1]).astype(int)
    own = qw.Dataset.from_arrays(inputs, labels)
    assert sizes(own) == (9_600, 1_000)
    assert sizes(own, train_size="all", test_size="all") == (9_600, 2_400)
    assert sizes(own, train_size=100, test_size=2_000) == (100, 2_000)
    with pytest.raises(ValueError, match=r"test_size must be in 1\.\.2400, .*, got 2401"):
        sizes(own, test_size=2_401)


def test_unknown_keywords_are_refused():
    with pytest.raises(
        TypeError, match=r"sweep has no argument 'epsilons'; did you mean 'epsilon'"
    ):
        qw.sweep(epsilons=[0])
    with pytest.raises(
        TypeError, match=r"no argument 'colour'; help\(qwidgets.iterate_sweep\) lists"
    ):
        qw.iterate_sweep(colour="red")


def test_nothing_is_warned_about_or_printed_in_a_plain_run(capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        qw.sweep(**SMALL | {"epochs": 1, "regularization": [0]})
    assert capfd.readouterr() == ("", "")
