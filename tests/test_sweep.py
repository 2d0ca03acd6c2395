from __future__ import annotations

import random
import signal
import warnings

import numpy as np
import pytest
import torch
import xarray as xr
from scipy.stats import spearmanr
from torch import nn

import qwidgets as qw
from qwidgets.sweep import SweepSettings

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
        "position_std": ("label",),
        "position_std_error": ("label",),
        "momentum_std": ("label",),
        "momentum_std_error": ("label",),
        "uncertainty_product": ("label",),
        "uncertainty_product_error": ("label",),
        "undefined_packets": ("label",),
        "packet": ("label", "t"),
    }
    dimensions = {name: (*grid, "epoch", *rest) for name, rest in expected.items()}
    dimensions |= {"diverged": grid, "probe_image": ("label", "probe")}
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
            xr.testing.assert_equal(cube.drop_vars("diverged"), kept.drop_vars("diverged"))
    first = next(state.sweep for state in states if state.sweep is not None)
    start = qw.build_model("mlp", qw.load_data("digits", train_size=400, test_size=100))
    network = first.model(epsilon=0.1, regularization=1)
    for value, expected in zip(network.parameters(), start.parameters(), strict=True):
        assert torch.equal(value, expected)


def test_the_same_call_gives_the_same_cube_bit_for_bit(small):
    again = qw.sweep(**SMALL, progress=False)
    assert_same(again, small)


def test_the_number_of_threads_does_not_matter(small):
    threads = torch.get_num_threads()
    torch.set_num_threads(1 if threads > 1 else 2)
    try:
        again = qw.sweep(**SMALL, progress=False)
    finally:
        torch.set_num_threads(threads)
    assert_same(again, small)


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
    assert result.dataset.attrs["strategy"] == "loop"
    assert np.isnan(result.dataset.position_std_error).all()
    assert result.model(epsilon=0.1, regularization=0)(torch.zeros(1, 1, 8, 8)).shape == (1, 10)


# Saving


def test_a_saved_sweep_opens_bit_for_bit(small, data, tmp_path):
    path = tmp_path / "small.sweep"
    small.save(path)
    assert sorted(part.name for part in path.iterdir()) == [
        "cube.zarr",
        "manifest.json",
        "weights.safetensors",
    ]
    reopened = qw.open_sweep(path)
    assert_same(reopened, small)
    assert reopened.settings == small.settings
    assert isinstance(reopened.settings, SweepSettings)
    assert repr(reopened) == repr(small)
    point = {"epsilon": 0.1, "regularization": 1}
    assert torch.equal(
        reopened.model(**point)(data.test_inputs), small.model(**point)(data.test_inputs)
    )


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
    with pytest.raises(ValueError, match=r"regularization .* got 5; the nearest are 1\."):
        small.model(epsilon=0, regularization=5)
    with pytest.raises(ValueError, match=r"epsilon .* got nan"):
        small.model(epsilon=float("nan"), regularization=0)


# Wrong input

WRONG = [
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
        r"model must return logits of shape \(n, 10\).*got \(2, 7\)",
    ),
    (
        {"model": lambda: nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 10))},
        ValueError,
        "buffers",
    ),
    ({"epochs": 0}, ValueError, "epochs must be at least 1, got 0"),
    ({"epochs": 2.5}, TypeError, r"epochs must be an integer, got 2\.5"),
    ({"seed": "x"}, TypeError, "seed must be an integer, got 'x'"),
    ({"batch_size": 0}, ValueError, "batch_size must be at least 1, got 0"),
    ({"attack_steps": 0}, ValueError, "attack_steps must be at least 1, got 0"),
    ({"probe_images": 4}, ValueError, "probe_images must be odd.*got 4; use 5"),
    ({"width": 0}, ValueError, "width must be a positive finite number, got 0"),
    ({"width": np.inf}, ValueError, "width must be a positive finite number, got inf"),
    ({"learning_rate": -1}, ValueError, "learning_rate must be a positive finite number, got -1"),
    ({"attack_epsilon": [0.1, 0.2]}, ValueError, r"attack_epsilon must begin with 0.*got 0\.1"),
    ({"attack_epsilon": [0, 3]}, ValueError, "attack_epsilon must be at most 1, .*, got 3"),
    ({"device": "gpu"}, ValueError, "device must be 'auto' or one of 'cpu'.*got 'gpu'"),
    ({"train_size": 10**6}, ValueError, "train_size must be in"),
    ({"test_size": 5}, ValueError, "data must have test images of every class"),
    ({"root": "/nowhere"}, ValueError, "root must be None for data 'digits'"),
    ({"data": "mnist", "root": "/nowhere"}, FileNotFoundError, "/nowhere does not"),
]


@pytest.mark.parametrize(("wrong", "kind", "text"), WRONG)
def test_wrong_input_is_refused_before_any_work(wrong, kind, text):
    with pytest.raises(kind, match=text):
        qw.iterate_sweep(**wrong)  # not even a first item is taken


def test_unknown_keywords_are_refused():
    with pytest.raises(TypeError, match="epsilons"):
        qw.sweep(epsilons=[0])


def test_nothing_is_warned_about_or_printed_in_a_plain_run(capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        qw.sweep(**SMALL | {"epochs": 1, "regularization": [0]})
    assert capfd.readouterr() == ("", "")
