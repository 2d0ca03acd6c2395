from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import qwidgets as qw
from qwidgets.ensemble import batched_forward, stack_parameters
from qwidgets.measurement import Probes, measure, median_with_error


def record_of(forward, parameters, probes):
    units = measure(forward, parameters, probes)
    shares = []
    while True:
        try:
            shares.append(next(units))
        except StopIteration as finished:
            return finished.value, shares


@pytest.fixture(scope="module")
def data():
    return qw.load_data("digits", train_size=200, test_size=60)


@pytest.fixture(scope="module")
def networks(data):
    """Three networks, from smooth to sharp."""
    models = [qw.build_model("mlp", data, seed=seed) for seed in range(3)]
    with torch.no_grad():
        for factor, model in zip((1.0, 2.0, 4.0), models, strict=True):
            for parameter in model.parameters():
                parameter.mul_(factor)
    return models


@pytest.fixture(scope="module")
def probes(data):
    first = [(data.test_labels == label).nonzero()[:3, 0] for label in range(data.classes)]
    return Probes(
        inputs=data.test_inputs,
        y=data.test_labels,
        labels=data.test_labels,
        task=data.task,
        packets=torch.stack(first),
        width=0.4,
        reference_epsilon=0.1,
        neighborhood_radius=0.1,
        attack_epsilon=(0.0, 0.05, 0.2),
        attack_steps=4,
        norm="linf",
        value_range=data.value_range,
        seed=5,
    )


@pytest.fixture(scope="module")
def record(networks, data, probes):
    forward = batched_forward(networks[0], data.input_shape)
    result, _ = record_of(forward, stack_parameters(networks), probes)
    return result


def attacked_section(model, data, index, width):
    """The section along the attack by the public functions, in float64."""
    model = model.double()
    x, label = data.test_inputs[index].double(), int(data.test_labels[index])
    loss = qw.packet_loss(model, label, data.input_shape)
    origin = x.flatten().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(origin[None]).sum(), origin)
    direction = gradient / gradient.norm()
    result = qw.section(loss, origin.detach(), direction, width, points=257)
    model.float()
    return result


def test_packets_agree_with_sections_in_double_precision(record, networks, data, probes):
    for place, model in enumerate(networks):
        for label in range(data.classes):
            sections = [
                attacked_section(model, data, index, probes.width)
                for index in probes.packets[label].tolist()
            ]
            for name, attribute in (
                ("position_std", "position_std"),
                ("momentum_std", "momentum_std"),
                ("uncertainty_product", "product"),
            ):
                expected = np.median([getattr(section, attribute) for section in sections])
                assert record[name][place, label] == pytest.approx(expected, rel=2e-4)
            amplitude = np.interp(probes.t, sections[0].t, sections[0].amplitude)
            np.testing.assert_allclose(
                record["packet"][place, label], amplitude, atol=2e-4 * amplitude.max()
            )


def test_a_general_network_is_measured_like_one_of_stacked_layers(record, networks, data, probes):
    class Wrapped(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            return self.inner(x)

    wrapped = [Wrapped(model) for model in networks]
    forward = batched_forward(wrapped[0], data.input_shape)
    assert forward.strategy != "stacked"
    other, _ = record_of(forward, stack_parameters(wrapped), probes)
    for name in ("position_std", "momentum_std", "uncertainty_product", "packet", "test_loss"):
        np.testing.assert_allclose(other[name], record[name], rtol=2e-4, atol=1e-5)
    np.testing.assert_allclose(other["robust_accuracy"], record["robust_accuracy"], atol=1 / 60)


def test_a_network_that_rectifies_its_inputs_first_is_measured_right(data, probes):
    """Its first linear layer does not see the line but a bent one."""

    def made(first):
        torch_layers = [nn.Flatten(start_dim=-3), first, nn.Linear(64, 16), nn.ReLU()]
        model = nn.Sequential(*torch_layers, nn.Linear(16, 10))
        generator = torch.Generator().manual_seed(0)
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.4, generator=generator)
        return model

    rectified = made(nn.ReLU())
    result, _ = record_of(
        batched_forward(rectified, data.input_shape), stack_parameters([rectified]), probes
    )
    label = 3
    expected = np.median(
        [
            attacked_section(rectified, data, index, probes.width).position_std
            for index in probes.packets[label].tolist()
        ]
    )
    assert result["position_std"][0, label] == pytest.approx(expected, rel=1e-3)


def test_accuracies_and_loss_are_those_of_each_network(record, networks, data, probes):
    for place, model in enumerate(networks):
        logits = model(data.test_inputs)
        clean = (logits.argmax(1) == data.test_labels).double().mean().item()
        assert record["robust_accuracy"][place, 0] == pytest.approx(clean, abs=1e-12)
        loss = nn.functional.cross_entropy(logits.double(), data.test_labels).item()
        assert record["test_loss"][place] == pytest.approx(loss, rel=1e-5)
        alone = qw.robust_accuracy(
            model,
            data.test_inputs,
            data.test_labels,
            probes.attack_epsilon,
            steps=probes.attack_steps,
            seed=probes.seed,
        )
        np.testing.assert_allclose(record["robust_accuracy"][place], alone, atol=1.5 / 60)
    assert (np.diff(record["robust_accuracy"], axis=1) <= 0).all()


def test_no_product_is_below_one_half_and_packets_have_unit_norm(record, probes):
    assert record["uncertainty_product"].min() >= 0.5 - 1e-9
    step = float(probes.t[1] - probes.t[0])
    norm = (record["packet"].astype(float) ** 2).sum(-1) * step
    np.testing.assert_allclose(norm, 1, atol=5e-3)


def test_a_constant_network_is_a_coherent_state_in_whatever_direction(networks, data, probes):
    """Its gradient is zero everywhere: the displacement of the attack stands in."""
    parameters = stack_parameters(networks)
    flat = {name: torch.zeros_like(value) for name, value in parameters.items()}
    result, _ = record_of(batched_forward(networks[0], data.input_shape), flat, probes)
    assert not result["undefined_packets"].any()
    np.testing.assert_allclose(result["position_std"], probes.width, rtol=1e-6)
    np.testing.assert_allclose(result["momentum_std"], 1 / (2 * probes.width), rtol=1e-6)
    np.testing.assert_allclose(result["position_std_error"], 0, atol=1e-7)
    np.testing.assert_allclose(result["test_loss"], math.log(10), rtol=1e-6)


def test_images_without_any_direction_are_counted_and_left_out(networks, data, probes):
    from dataclasses import replace

    # No room to move: neither a gradient nor a displacement.
    stuck = replace(probes, reference_epsilon=0.0)
    parameters = stack_parameters(networks)
    name = next(iter(parameters))
    parameters[name][1] = 0.0  # blind to its input
    result, _ = record_of(batched_forward(networks[0], data.input_shape), parameters, stuck)
    assert (result["undefined_packets"] == np.array([[0], [3], [0]])).all()
    for variable in ("position_std", "momentum_std_error", "packet"):
        assert np.isnan(result[variable][1]).all()
        assert np.isfinite(result[variable][[0, 2]]).all()


def test_a_broken_network_is_nan_and_the_others_are_untouched(record, networks, data, probes):
    parameters = stack_parameters(networks)
    for value in parameters.values():
        value[1] = torch.nan
    result, _ = record_of(batched_forward(networks[0], data.input_shape), parameters, probes)
    for name, values in result.items():
        if name == "undefined_packets":
            assert (values[1] == 3).all()
        else:
            assert np.isnan(values[1]).all()
        np.testing.assert_array_equal(values[[0, 2]], record[name][[0, 2]])


def test_work_is_reported_in_growing_shares_up_to_the_whole(networks, data, probes):
    _, shares = record_of(
        batched_forward(networks[0], data.input_shape), stack_parameters(networks), probes
    )
    # Each network is attacked, then its packets are measured; as many at a time as threads.
    assert len(shares) >= 2 * math.ceil(len(networks) / torch.get_num_threads())
    assert (np.diff(shares) > 0).all()
    assert shares[-1] == 1


@pytest.mark.parametrize("count", [3, 5])
def test_the_error_of_the_median_is_that_of_all_bootstrap_samples(count):
    values = np.random.default_rng(count).lognormal(size=count)
    medians = [np.median(sample) for sample in itertools.product(values, repeat=count)]
    median, error = median_with_error(values)
    assert median == np.median(values)
    assert error == pytest.approx(np.std(medians), rel=1e-9)


def test_the_error_of_the_median_covers_the_truth():
    """z-scores of the median of 25 normal values have a spread near 1."""
    values = np.random.default_rng(0).normal(size=(4000, 25))
    median, error = median_with_error(values)
    assert 0.9 < np.std(median) / np.sqrt(np.mean(error**2)) < 1.1


@given(
    st.lists(st.floats(-100, 100), min_size=1, max_size=9),
    st.integers(0, 3),
    st.floats(0.1, 10),
)
def test_the_median_leaves_out_nan_and_scales(values, absent, factor):
    known = np.array(values)
    padded = np.concatenate([np.full(absent, np.nan), known])
    median, error = median_with_error(padded)
    assert median == pytest.approx(np.median(known), abs=1e-12)
    assert np.isnan(error) == (len(known) == 1)
    scaled, scaled_error = median_with_error(factor * padded)
    assert scaled == pytest.approx(factor * median, abs=1e-9)
    assert scaled_error == pytest.approx(factor * error, abs=1e-6, nan_ok=True)


def test_nothing_but_nan_has_no_median():
    median, error = median_with_error(np.full((2, 3), np.nan))
    assert np.isnan(median).all()
    assert np.isnan(error).all()


def test_accuracies_of_the_labels_add_up_to_that_of_all(record, probes):
    images = np.bincount(probes.labels, minlength=len(probes.packets))
    together = (record["label_accuracy"] * images[:, None]).sum(1) / images.sum()
    np.testing.assert_allclose(together, record["robust_accuracy"], atol=1e-12)
    assert record["label_accuracy"].std(1).max() > 0
