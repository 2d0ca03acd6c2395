"""Models of one's own: measured as they are, whatever they are, and left as they were."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

import qwidgets as qw

QUICK = {"test_size": 60, "probe_images": 1, "detail": False, "progress": False}


@pytest.fixture(scope="module")
def data():
    return qw.load_data("digits")


@pytest.fixture(scope="module")
def sweep():
    return qw.sweep(
        epsilon=[0, 0.1],
        regularization=[0, 0.3],
        epochs=3,
        train_size=400,
        test_size=60,
        attack_steps=5,
        probe_images=1,
        progress=False,
    )


@pytest.fixture(scope="module")
def network(sweep):
    return sweep.model(epsilon=0.1, regularization=0.3)


def test_it_finds_what_the_sweep_found(sweep, network):
    found = qw.measure(
        {"clean": sweep.model(epsilon=0, regularization=0), "robust": network},
        sweep.data,
        attack_steps=5,
        probe_images=1,
        progress=False,
    )
    assert found.names == ("clean", "robust")
    # Of the training nothing is known; all else has the same variables.
    missing = {"train_loss", "diverged", "diverged_reason"}
    assert set(found.dataset) == set(sweep.dataset) - missing
    for name, point in (("clean", (0, 0)), ("robust", (0.1, 0.3))):
        expected = sweep.dataset.sel(epsilon=point[0], regularization=point[1]).isel(epoch=-1)
        own = found.dataset.sel(model=name)
        for variable in found.dataset.data_vars:
            np.testing.assert_allclose(
                own[variable], expected[variable], rtol=1e-3, atol=1e-5, err_msg=variable
            )
            assert own[variable].attrs == expected[variable].attrs


def test_the_model_stays_as_it_was(data, network):
    model = copy.deepcopy(network).double().train()
    model[0].eval()
    before = copy.deepcopy(model.state_dict())
    found = qw.measure(model, data, **QUICK)
    assert found.names == ("model",)
    assert model.training
    assert not model[0].training
    for name, value in model.state_dict().items():
        assert value.dtype == torch.float64
        assert torch.equal(value, before[name])
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_dropout_and_batch_statistics_are_those_of_evaluation(data, network):
    noisy = nn.Sequential(
        nn.Flatten(), nn.BatchNorm1d(64, affine=False), nn.Dropout(0.9), network[1:]
    )
    with torch.no_grad():
        noisy(data.train_inputs)  # statistics of training
    plain = nn.Sequential(copy.deepcopy(noisy[:2]).eval(), network[1:])
    noisy.train()
    one, two = (qw.measure(model, data, **QUICK).dataset for model in (noisy, plain.eval()))
    assert one.identical(two)
    assert noisy.training


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_measured_in_single(data, network, dtype):
    own = qw.measure(copy.deepcopy(network).to(dtype), data, **QUICK).dataset
    single = qw.measure(network, data, **QUICK).dataset
    assert abs(float(own.clean_accuracy[0] - single.clean_accuracy[0])) < 0.06
    np.testing.assert_allclose(own.position_std, single.position_std, rtol=0.1)
    np.testing.assert_array_less(0.5 * (1 - 1e-3), own.uncertainty_product)


def test_a_normalisation_is_part_of_the_model(data, network):
    mean, std = 0.3, 0.25

    class Undone(nn.Module):
        """A network that was trained on normalised inputs."""

        def forward(self, x):
            return network(x * std + mean)

    own = qw.measure(Undone(), data, normalization=(mean, std), **QUICK).dataset
    plain = qw.measure(network, data, **QUICK).dataset
    for name in ("clean_accuracy", "robust_accuracy", "position_std", "momentum_std"):
        np.testing.assert_allclose(own[name], plain[name], rtol=2e-3, atol=1e-3)
    by_name = qw.measure(
        {"a": Undone(), "b": network}, data, normalization={"a": ([mean], [std])}, **QUICK
    ).dataset
    np.testing.assert_allclose(by_name.test_loss[0], by_name.test_loss[1], rtol=1e-3)


def test_a_missing_normalisation_is_suspected(data):
    with pytest.warns(UserWarning, match=r"no better than chance .* normalization=\(mean, std\)"):
        qw.measure(qw.build_model("mlp", data), data, **QUICK)


class Prototypes(nn.Module):
    """A classifier without a single parameter."""

    def __init__(self, inputs):
        super().__init__()
        self.register_buffer("inputs", inputs.flatten(1))

    def forward(self, x):
        return -((x.flatten(1)[:, None] - self.inputs) ** 2).sum(-1)


def test_a_model_without_parameters(data):
    means = torch.stack(
        [data.train_inputs[data.train_labels == label].mean(0) for label in range(10)]
    )
    found = qw.measure(Prototypes(means), data, **QUICK)
    assert float(found.dataset.clean_accuracy[0]) > 0.7
    assert isinstance(found.model("model"), nn.Module)
    with pytest.raises(KeyError, match="'other'"):
        found.model("other")


@pytest.mark.parametrize(("classes", "shape"), [(2, (3,)), (7, (3, 6, 5)), (3, (4, 4))])
def test_any_number_of_classes_and_any_shape(classes, shape):
    generator = torch.Generator().manual_seed(classes)
    labels = torch.arange(40 * classes) % classes
    centers = torch.rand((classes, *shape), generator=generator)
    inputs = (centers[labels] + 0.1 * torch.randn((len(labels), *shape), generator=generator)).clip(
        0, 1
    )
    own = qw.Dataset.from_arrays(inputs, labels, value_range=(0, 1), name="blobs")
    means = torch.stack(
        [own.train_inputs[own.train_labels == label].mean(0) for label in range(classes)]
    )
    found = qw.measure(Prototypes(means), own, probe_images=1, progress=False)
    assert found.dataset.sizes["label"] == classes
    assert float(found.dataset.clean_accuracy[0]) > 0.9
    assert np.isfinite(found.dataset.neighborhood_momentum_std).all()


class Wrong(nn.Module):
    def __init__(self, make):
        super().__init__()
        self.make = make
        self.layer = nn.Linear(64, 10)

    def forward(self, x):
        return self.make(self.layer(x.flatten(1)))


@pytest.mark.parametrize(
    ("model", "error", "words"),
    [
        ("mlp", TypeError, "models must be a torch.nn.Module or a mapping"),
        ({}, ValueError, "at least one network"),
        ({1: nn.Linear(2, 2)}, TypeError, "names that are text, got 1"),
        ({"a": "mlp"}, TypeError, "model 'a' must be a torch.nn.Module, got str"),
        (nn.Linear(64, 10), ValueError, r"must take inputs of shape \(2, 1, 8, 8\)"),
        (
            Wrong(lambda z: z[:, :9]),
            ValueError,
            r"logits of shape \(2, 10\) .* got \(2, 9\); match",
        ),
        (Wrong(lambda z: z[:, 0]), ValueError, r"got \(2,\); match .* as \(0, z\)"),
        (Wrong(lambda z: (z, z)), TypeError, "a tensor of logits, got tuple"),
        (Wrong(lambda z: z.detach()), ValueError, "without a gradient; remove detach"),
        (Wrong(lambda z: z.argmax(1)), ValueError, r"got \(2,\)"),
        (
            Wrong(nn.BatchNorm1d(10, track_running_stats=False)),
            ValueError,
            "by itself and each time alike, .* running statistics",
        ),
        (Wrong(lambda z: z + torch.randn_like(z)), ValueError, "draws random numbers in eval"),
    ],
)
def test_what_is_no_classifier_of_the_data_is_refused_with_the_remedy(data, model, error, words):
    with pytest.raises(error, match=words):
        qw.measure(model, data, **QUICK)


@pytest.mark.parametrize(
    ("normalization", "words"),
    [
        ((0.5,), "must be .mean, std."),
        ((0.5, 0), "std in the normalization of model must be a finite positive"),
        ((0.5, float("nan")), "std"),
        (([0.5, 0.5, 0.5], 1), "one for each of the 1 channels"),
        ({"other": (0, 1)}, "names of the models, 'model', got 'other'"),
    ],
)
def test_a_wrong_normalization_is_refused(data, network, normalization, words):
    with pytest.raises(ValueError, match=words):
        qw.measure(network, data, normalization=normalization, **QUICK)


def test_data_must_be_a_data_set(network):
    with pytest.raises(TypeError, match=r"data must be a Dataset, got str"):
        qw.measure(network, "digits")
