from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from qwidgets.attacks import pgd
from qwidgets.data import Dataset
from qwidgets.models import batched_forward, build_model, stack_parameters, unstack
from qwidgets.training import REGULARIZERS, Epoch, Step, TrainingSettings, train


@pytest.fixture(scope="module")
def data():
    generator = np.random.default_rng(0)
    centers = generator.uniform(0.3, 0.7, (3, 6))
    labels = np.arange(150) % 3
    inputs = np.clip(centers[labels] + generator.normal(0, 0.12, (150, 6)), 0, 1)
    return Dataset.from_arrays(inputs, labels, value_range=(0, 1))


def settings(**changes):
    return TrainingSettings(
        **{"epochs": 2, "batch_size": 32, "learning_rate": 5e-3, "attack_steps": 3} | changes
    )


def trained(data, epsilon, regularization, **changes):
    """Last epoch of networks that all start alike."""
    network = build_model("mlp", data)
    *_, last = train(
        batched_forward(network, data.input_shape),
        stack_parameters([network] * len(epsilon)),
        data,
        torch.tensor(epsilon, dtype=torch.float64),
        torch.tensor(regularization, dtype=torch.float64),
        settings(**changes),
    )
    return last


def trained_alone(data, epsilon, strength, chosen):
    """The same training of one network, written plainly."""
    network = build_model("mlp", data)
    decay = strength if chosen.regularizer == "weight_decay" else 0.0
    optimizer = torch.optim.AdamW(network.parameters(), lr=chosen.learning_rate, weight_decay=decay)
    smoothing = strength if chosen.regularizer == "label_smoothing" else 0.0
    order = torch.Generator().manual_seed(chosen.seed)
    starts = torch.Generator().manual_seed(chosen.seed)
    for _ in range(chosen.epochs):
        losses = 0.0
        for batch in torch.randperm(len(data.train_labels), generator=order).split(
            chosen.batch_size
        ):
            x, y = data.train_inputs[batch], data.train_labels[batch]
            if epsilon:
                x = pgd(
                    network, x, y, epsilon, norm=chosen.norm, steps=chosen.attack_steps, seed=starts
                )
            x.requires_grad_()
            logits = network(x)
            objective = functional.cross_entropy(logits, y, label_smoothing=smoothing)
            loss = functional.cross_entropy(logits, y)
            losses += loss.item() * len(y)
            if chosen.regularizer == "gradient":
                (slope,) = torch.autograd.grad(loss * len(y), x, create_graph=True)
                objective = objective + strength * slope.square().sum() / len(y)
            optimizer.zero_grad()
            objective.backward()
            optimizer.step()
    return network, losses / len(data.train_labels)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize(
    ("regularizer", "strength"),
    [("gradient", 0.2), ("weight_decay", 2.0), ("label_smoothing", 0.3)],
)
def test_every_network_is_trained_as_if_it_were_alone(data, regularizer, strength, norm):
    chosen = settings(regularizer=regularizer, norm=norm)
    grid = [(0.0, 0.0), (0.0, strength), (0.1, 0.0), (0.1, strength), (0.2, strength / 2)]
    last = trained(data, *zip(*grid, strict=True), regularizer=regularizer, norm=norm)
    start = dict(build_model("mlp", data).named_parameters())
    for index, (epsilon, value) in enumerate(grid):
        network, loss = trained_alone(data, epsilon, value, chosen)
        assert last.train_loss[index].item() == pytest.approx(loss, abs=1e-5)
        for name, expected in network.named_parameters():
            moved = (expected - start[name]).abs().max()
            assert moved > 1e-3
            torch.testing.assert_close(
                last.parameters[name][index], expected, atol=1e-3 * moved.item(), rtol=1e-3
            )


@pytest.mark.parametrize("regularizer", REGULARIZERS)
def test_zero_radius_and_zero_strength_are_clean_training_bit_for_bit(data, regularizer):
    mixed = trained(
        data, [0.0, 0.0, 0.1, 0.1, 0.0], [0.0, 0.5, 0.0, 0.5, 0.0], regularizer=regularizer
    )
    clean = trained(data, [0.0] * 5, [0.0] * 5, regularizer=regularizer)
    for index in (0, 4):
        for name, value in clean.parameters.items():
            assert torch.equal(mixed.parameters[name][index], value[index])
    for index in (1, 2, 3):
        assert any(
            not torch.equal(mixed.parameters[name][index], value[index])
            for name, value in clean.parameters.items()
        )


def test_networks_differ_by_radius_and_strength_alone(data):
    twins = trained(data, [0.1, 0.0, 0.1, 0.0], [0.2, 0.2, 0.2, 0.2])
    for value in twins.parameters.values():
        assert torch.equal(value[0], value[2])
        assert torch.equal(value[1], value[3])
        assert not torch.equal(value[0], value[1])


def test_a_network_that_diverges_leaves_the_others_alone(data):
    good = trained(data, [0.1, 0.0, 0.1], [0.1, 0.1, 0.0])
    bad = trained(data, [0.1, 0.0, 0.1], [0.1, 1e39, 0.0])
    assert bad.diverged.tolist() == [-1, 1, -1]
    assert good.diverged.tolist() == [-1, -1, -1]
    for name, value in bad.parameters.items():
        assert torch.equal(value[[0, 2]], good.parameters[name][[0, 2]])
    assert torch.equal(bad.train_loss[[0, 2]], good.train_loss[[0, 2]])


def test_the_epoch_of_divergence_is_that_of_the_first_failure(data):
    start = {
        name: value.clone()
        for name, value in stack_parameters([build_model("mlp", data)] * 2).items()
    }
    name = next(iter(start))
    start[name][1] = torch.nan
    network = build_model("mlp", data)
    events = list(
        train(
            batched_forward(network, data.input_shape),
            start,
            data,
            torch.tensor([0.1, 0.1]),
            torch.zeros(2),
            settings(epochs=3),
        )
    )
    epochs = [event for event in events if isinstance(event, Epoch)]
    assert [epoch.diverged.tolist() for epoch in epochs[1:]] == [[-1, 1]] * 3


def test_training_reports_every_minibatch_and_every_epoch(data):
    network = build_model("mlp", data)
    start = stack_parameters([network] * 2)
    before = {name: value.clone() for name, value in start.items()}
    events = list(
        train(
            batched_forward(network, data.input_shape),
            start,
            data,
            torch.zeros(2),
            torch.zeros(2),
            settings(),
        )
    )
    # 120 training images in minibatches of 32
    steps = [Step(epoch=epoch, step=step, steps=4) for epoch in (1, 2) for step in (1, 2, 3, 4)]
    assert [event for event in events if isinstance(event, Step)] == steps
    places = [place for place, event in enumerate(events) if isinstance(event, Epoch)]
    assert places == [0, 5, 10]
    first, middle, last = (events[place] for place in places)
    assert first.train_loss.isnan().all()
    assert last.train_loss.mean() < middle.train_loss.mean() < 1.2
    for name, value in before.items():
        assert torch.equal(start[name], value)
        assert torch.equal(first.parameters[name], value)
        assert not torch.equal(middle.parameters[name], last.parameters[name])


def test_an_iterator_may_be_paused_and_closed(data):
    network = build_model("mlp", data)
    forward = batched_forward(network, data.input_shape)

    def start():
        return train(
            forward,
            stack_parameters([network]),
            data,
            torch.tensor([0.1]),
            torch.tensor([0.1]),
            settings(),
        )

    whole = list(start())[-1]
    paused = start()
    for _ in range(3):
        next(paused)
    other = start()
    next(other)
    other.close()
    torch.rand(5)  # someone else draws numbers
    resumed = list(paused)[-1]
    for name, value in whole.parameters.items():
        assert torch.equal(resumed.parameters[name], value)


def test_the_global_random_state_is_left_alone_and_the_seed_counts(data):
    state = torch.get_rng_state()
    one, same = (trained(data, [0.1], [0.0], seed=3) for _ in range(2))
    other = trained(data, [0.1], [0.0], seed=4)
    assert torch.equal(torch.get_rng_state(), state)
    name = next(iter(one.parameters))
    assert torch.equal(one.parameters[name], same.parameters[name])
    assert not torch.equal(one.parameters[name], other.parameters[name])


def test_the_order_of_minibatches_does_not_depend_on_the_attack(data):
    """Common random numbers: the clean network is the same whatever trains beside it."""
    beside = trained(data, [0.0, 0.3], [0.0, 0.0])
    alone = trained(data, [0.0, 0.0], [0.0, 0.0])
    for name, value in alone.parameters.items():
        assert torch.equal(beside.parameters[name][0], value[0])


def test_convolutional_networks_train_too():
    generator = np.random.default_rng(1)
    labels = np.arange(60) % 2
    images = generator.uniform(0, 0.3, (60, 1, 8, 8))
    images[labels == 1, :, :4] += 0.7
    data = Dataset.from_arrays(images, labels, value_range=(0, 1))
    network = build_model("conv", data)
    *_, last = train(
        batched_forward(network, data.input_shape),
        stack_parameters([network] * 2),
        data,
        torch.tensor([0.0, 0.05]),
        torch.tensor([0.0, 0.01]),
        settings(epochs=6, batch_size=16),
    )
    for index in range(2):
        network.load_state_dict(unstack(last.parameters, index))
        accuracy = (network(data.test_inputs).argmax(1) == data.test_labels).double().mean()
        assert accuracy > 0.9
