from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from qwidgets.architectures import build_model
from qwidgets.attacks import fgsm, kl_pgd, pgd
from qwidgets.data import Dataset, load_data
from qwidgets.ensemble import batched_forward, stack_parameters, unstack
from qwidgets.training import (
    OBJECTIVES,
    REASONS,
    REGULARIZERS,
    Epoch,
    Step,
    TrainingSettings,
    train,
)


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


def trained(data, epsilon, regularization, *, rates=None, **changes):
    """Last epoch of networks that all start alike."""
    network = build_model("mlp", data)
    *_, last = train(
        batched_forward(network, data.input_shape),
        stack_parameters([network] * len(epsilon)),
        data,
        torch.tensor(epsilon, dtype=torch.float64),
        torch.tensor(regularization, dtype=torch.float64),
        settings(**changes),
        learning_rate=None if rates is None else torch.tensor(rates, dtype=torch.float64),
    )
    return last


def attacked_alone(network, x, y, radius, chosen, seed):
    step_size = chosen.attack_step * radius / chosen.attack_steps
    ball = {"norm": chosen.norm, "steps": chosen.attack_steps, "seed": seed, "step_size": step_size}
    if radius == 0 or chosen.objective == "clean":
        return x
    if chosen.objective == "fgsm":
        return fgsm(network, x, y, radius)
    if chosen.objective == "trades":
        return kl_pgd(network, x, radius, **ball)
    return pgd(network, x, y, radius, **ball)


def trained_alone(data, epsilon, strength, chosen):
    """The same training of one network, written plainly."""
    network = build_model("mlp", data)
    decay = strength if chosen.regularizer == "weight_decay" else 0.0
    optimizer = torch.optim.AdamW(network.parameters(), lr=chosen.learning_rate, weight_decay=decay)
    smoothing = strength if chosen.regularizer == "label_smoothing" else 0.0
    order = torch.Generator().manual_seed(chosen.seed)
    starts = torch.Generator().manual_seed(chosen.seed)
    images = len(data.train_labels)
    ramp = chosen.warm_up * chosen.epochs * math.ceil(images / chosen.batch_size)
    done = 0
    for _ in range(chosen.epochs):
        losses = 0.0
        for batch in torch.randperm(images, generator=order).split(chosen.batch_size):
            x, y = data.train_inputs[batch], data.train_labels[batch]
            done += 1
            radius = epsilon * min(1, done / ramp) if ramp else epsilon
            seed = int(torch.randint(1 << 62, (), generator=starts))
            attacked = attacked_alone(network, x, y, radius, chosen, seed)
            learned = (x if chosen.objective == "trades" else attacked).requires_grad_()
            logits = network(learned)
            objective = functional.cross_entropy(logits, y, label_smoothing=smoothing)
            loss = functional.cross_entropy(logits, y)
            losses += loss.item() * len(y)
            if chosen.regularizer == "gradient":
                (slope,) = torch.autograd.grad(loss * len(y), learned, create_graph=True)
                objective = objective + strength * slope.square().sum() / len(y)
            if chosen.objective == "trades" and radius:
                divergence = functional.kl_div(
                    functional.log_softmax(network(attacked), 1),
                    functional.log_softmax(logits, 1),
                    reduction="batchmean",
                    log_target=True,
                )
                objective = objective + chosen.trades_weight * divergence
            optimizer.zero_grad()
            objective.backward()
            optimizer.step()
    return network, losses / images


def assert_trained_as_alone(last, data, index, epsilon, strength, chosen):
    network, loss = trained_alone(data, epsilon, strength, chosen)
    start = dict(build_model("mlp", data).named_parameters())
    assert last.train_loss[index].item() == pytest.approx(loss, abs=1e-5)
    for name, expected in network.named_parameters():
        moved = (expected - start[name]).norm()
        assert moved > 1e-3
        assert (last.parameters[name][index] - expected).norm() < 1e-3 * moved


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize(
    ("regularizer", "strength"),
    [("gradient", 0.2), ("weight_decay", 2.0), ("label_smoothing", 0.3)],
)
def test_every_network_is_trained_as_if_it_were_alone(data, regularizer, strength, norm):
    chosen = settings(regularizer=regularizer, norm=norm)
    grid = [(0.0, 0.0), (0.0, strength), (0.1, 0.0), (0.1, strength), (0.2, strength / 2)]
    last = trained(data, *zip(*grid, strict=True), regularizer=regularizer, norm=norm)
    for index, (epsilon, value) in enumerate(grid):
        assert_trained_as_alone(last, data, index, epsilon, value, chosen)


@pytest.mark.parametrize("warm_up", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_and_warm_up_is_that_of_a_network_alone(data, objective, warm_up):
    chosen = settings(objective=objective, warm_up=warm_up)
    grid = [(0.0, 0.0), (0.0, 0.1), (0.1, 0.0), (0.2, 0.1)]
    last = trained(data, *zip(*grid, strict=True), objective=objective, warm_up=warm_up)
    for index, (epsilon, value) in enumerate(grid):
        assert_trained_as_alone(last, data, index, epsilon, value, chosen)


@pytest.mark.parametrize("objective", ["pgd", "trades"])
def test_steps_of_the_attack_are_as_long_as_asked(data, objective):
    chosen = settings(objective=objective, attack_step=1.0)
    short = trained(data, [0.1], [0.0], objective=objective, attack_step=1.0)
    assert_trained_as_alone(short, data, 0, 0.1, 0.0, chosen)
    default = trained(data, [0.1], [0.0], objective=objective)
    assert short.train_loss[0] != default.train_loss[0]


def test_every_network_may_have_its_own_learning_rate(data):
    rates = [5e-3, 5e-3, 1e-3, 5e-3]
    last = trained(data, [0.0, 0.1, 0.1, 0.1], [0.5] * 4, rates=rates, regularizer="weight_decay")
    for index, (epsilon, rate) in enumerate(zip([0.0, 0.1, 0.1, 0.1], rates, strict=True)):
        chosen = settings(learning_rate=rate, regularizer="weight_decay")
        assert_trained_as_alone(last, data, index, epsilon, 0.5, chosen)
    for value in last.parameters.values():
        assert torch.equal(value[1], value[3])


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("regularizer", REGULARIZERS)
def test_zero_radius_and_strength_are_clean_training_bit_for_bit(data, regularizer, objective):
    chosen = {"regularizer": regularizer, "objective": objective}
    mixed = trained(data, [0.0, 0.0, 0.1, 0.1, 0.0], [0.0, 0.5, 0.0, 0.5, 0.0], **chosen)
    clean = trained(data, [0.0] * 5, [0.0] * 5, regularizer=regularizer, objective="clean")
    for index in (0, 4):
        for name, value in clean.parameters.items():
            assert torch.equal(mixed.parameters[name][index], value[index])
    for index in (1, 3) if objective == "clean" else (1, 2, 3):
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


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_network_that_diverges_leaves_the_others_alone(data, objective):
    radii = [0.1, 0.0, 0.1]
    good = trained(data, radii, [0.1, 0.1, 0.0], objective=objective)
    bad = trained(data, radii, [0.1, 1e39, 0.0], objective=objective)
    assert bad.diverged.tolist() == [-1, 1, -1]
    assert [REASONS[reason] for reason in bad.reason] == ["", "not finite", ""]
    assert good.diverged.tolist() == [-1, -1, -1]
    assert good.reason.tolist() == [0, 0, 0]
    for name, value in bad.parameters.items():
        assert torch.equal(value[[0, 2]], good.parameters[name][[0, 2]])
    assert torch.equal(bad.train_loss[[0, 2]], good.train_loss[[0, 2]])


def epochs_from(data, start, **changes):
    network = build_model("mlp", data)
    count = len(next(iter(start.values())))
    events = train(
        batched_forward(network, data.input_shape),
        start,
        data,
        torch.full((count,), 0.1),
        torch.zeros(count),
        settings(**changes),
    )
    return [event for event in events if isinstance(event, Epoch)]


def test_the_epoch_of_divergence_is_that_of_the_first_failure(data):
    start = stack_parameters([build_model("mlp", data)] * 2)
    name = next(iter(start))
    start[name][1] = torch.nan
    epochs = epochs_from(data, start, epochs=3)
    assert [epoch.diverged.tolist() for epoch in epochs] == [[-1, -1]] + [[-1, 1]] * 3
    assert [epoch.reason.tolist() for epoch in epochs] == [[0, 0]] + [[0, 1]] * 3


def test_a_network_at_chance_is_marked_until_it_recovers(data):
    healthy = build_model("mlp", data)
    dead, asleep = (build_model("mlp", data) for _ in range(2))
    with torch.no_grad():
        for parameter in dead.parameters():
            parameter.zero_()  # no gradient reaches its weights: only the last bias learns
        for parameter in asleep.parameters():
            parameter.mul_(1e-2)
    start = stack_parameters([healthy, dead, asleep])
    epochs = epochs_from(data, start, epochs=14, learning_rate=1e-3)
    diverged = torch.stack([epoch.diverged for epoch in epochs])
    reason = torch.stack([epoch.reason for epoch in epochs])
    assert (diverged[1:, 1] == 1).all()
    assert REASONS[reason[-1, 1]] == "chance"
    assert diverged[-1].tolist() == [-1, 1, -1]
    woken = int((diverged[1:, 2] == -1).int().argmax()) + 1
    assert woken > 1
    assert (diverged[1:woken, 2] == 1).all()
    assert torch.equal(reason > 0, diverged > 0)
    alone = epochs_from(data, stack_parameters([healthy] * 3), epochs=14, learning_rate=1e-3)
    for name, value in epochs[-1].parameters.items():
        assert torch.equal(value[0], alone[-1].parameters[name][0])


@pytest.mark.parametrize("labels", [np.arange(1024) % 4, np.arange(1024) // 256])
def test_a_network_that_learns_is_not_at_chance_in_whatever_order_the_classes_come(labels):
    inputs = np.eye(4)[labels]
    data = Dataset.from_arrays(inputs, labels, value_range=(0, 1))
    last = trained(data, [0], [0], learning_rate=3e-2)
    assert last.diverged.tolist() == [-1]


class Odd(torch.nn.Module):
    """A frozen layer, one that is not used, and a parameter that is a number."""

    def __init__(self):
        super().__init__()
        self.frozen, self.head, self.unused = (
            torch.nn.Linear(*sizes) for sizes in ((6, 8), (8, 3), (2, 2))
        )
        self.frozen.requires_grad_(requires_grad=False)
        self.gain = torch.nn.Parameter(torch.tensor(1.0))

    def forward(self, x):
        return self.gain * self.head(self.frozen(x).relu())


@pytest.mark.parametrize("regularizer", REGULARIZERS)
@pytest.mark.parametrize("strategy", ["loop", "vmap"])
def test_frozen_and_unused_parameters_stay_and_numbers_learn(data, regularizer, strategy):
    network = Odd()
    start = stack_parameters([network] * 2)
    forward = batched_forward(network, data.input_shape, strategy=strategy)
    epsilon, strength = torch.tensor([0, 0.05]).double(), torch.tensor([0.1, 0.1]).double()
    chosen = settings(regularizer=regularizer)
    *_, last = train(forward, start, data, epsilon, strength, chosen)
    moved = {name: not torch.equal(value, start[name]) for name, value in last.parameters.items()}
    decays = regularizer == "weight_decay"
    assert moved == {
        "gain": True,
        "head.weight": True,
        "head.bias": True,
        "frozen.weight": False,
        "frozen.bias": False,
        "unused.weight": decays,
        "unused.bias": decays,
    }
    assert last.train_loss.isfinite().all()


def test_a_caller_without_gradients_trains_the_same(data):
    expected = trained(data, [0, 0.1], [0.1, 0])
    with torch.no_grad():
        found = trained(data, [0, 0.1], [0.1, 0])
    for name, value in expected.parameters.items():
        assert torch.equal(value, found.parameters[name])


def test_training_goes_on_from_any_epoch_bit_for_bit(data):
    network = build_model("mlp", data)
    grid = torch.tensor([0.0, 0.1]), torch.tensor([0.1, 0.1])
    chosen = settings(epochs=3, regularizer="weight_decay")

    def start(**resumed):
        forward = batched_forward(network, data.input_shape)
        return train(forward, stack_parameters([network] * 2), data, *grid, chosen, **resumed)

    events = list(start())
    whole = [event for event in events if isinstance(event, Epoch)]
    for epoch in whole[:3]:
        rest = list(start(resume=epoch))
        assert isinstance(rest[0], Step)
        assert [event for event in rest if isinstance(event, Step)] == [
            event for event in events if isinstance(event, Step) and event.epoch > epoch.epoch
        ]
        assert torch.equal(rest[-1].train_loss, whole[-1].train_loss)
        assert torch.equal(rest[-1].diverged, whole[-1].diverged)
        for kind in ("parameters", "moments", "streams"):
            expected = getattr(whole[-1], kind)
            found = getattr(rest[-1], kind)
            assert list(found) == list(expected)
            assert all(torch.equal(found[name], expected[name]) for name in expected)


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


def grown(name, strategy, data, threads=1, **changes):
    """A clean and two attacked networks of an architecture, trained for two epochs."""
    network = build_model(name, data)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        *_, last = train(
            batched_forward(network, data.input_shape, strategy=strategy),
            stack_parameters([network] * 3),
            data,
            torch.tensor([0.0, 0.05, 0.1], dtype=torch.float64),
            torch.tensor([0.1, 0.0, 0.1], dtype=torch.float64),
            settings(learning_rate=1e-3, **changes),
        )
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    return last


@pytest.fixture(scope="module")
def digits():
    return load_data("digits", train_size=160, test_size=60)


@pytest.mark.parametrize(
    ("name", "strategies"),
    [
        ("mlp", ["stacked", "vmap", "loop"]),
        ("conv", ["vmap", "loop"]),
        ("resnet", ["vmap", "loop"]),
        ("attention", ["vmap", "loop"]),
    ],
)
def test_all_strategies_give_the_same_networks(digits, name, strategies):
    """Weights agree within a hundredth of how far they moved, as `batched_forward` says.

    Attacked in l2: the other attack's steps follow signs, which rounding may turn.
    """
    start = dict(build_model(name, digits).named_parameters())
    first, *others = (
        grown(name, strategy, digits, norm="l2").parameters for strategy in strategies
    )
    for index in range(3):
        moved = sum((first[key][index] - start[key]).square().sum() for key in start)
        assert moved > 0.1
        for other in others:
            apart = sum((first[key][index] - other[key][index]).square().sum() for key in start)
            assert apart < 1e-4 * moved


@pytest.mark.parametrize("strategy", ["vmap", "loop"])
def test_weights_laid_out_for_images_train_as_others_do(digits, strategy):
    """Convolutions of `channels_last` weights give gradients of that layout."""
    usual = build_model("conv", digits)
    found = []
    for network in (usual, copy.deepcopy(usual).to(memory_format=torch.channels_last)):
        *_, last = train(
            batched_forward(network, digits.input_shape, strategy=strategy),
            stack_parameters([network] * 2),
            digits,
            torch.tensor([0.0, 0.1], dtype=torch.float64),
            torch.tensor([0.1, 0.1], dtype=torch.float64),
            settings(learning_rate=1e-3, norm="l2"),
        )
        found.append(last.parameters)
    for name, start in usual.named_parameters():
        moved = (found[0][name] - start).norm()
        assert (found[1][name] - found[0][name]).norm() < 1e-2 * moved


def test_networks_trained_by_several_threads_are_those_of_one(digits):
    one, two = (grown("conv", "loop", digits, threads) for threads in (1, 2))
    assert torch.equal(one.train_loss, two.train_loss)
    for name, value in one.parameters.items():
        assert torch.equal(value, two.parameters[name])


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        (
            {"objective": "trade"},
            r"objective must be one of .*, got 'trade' \(did you mean 'trades'",
        ),
        ({"objective": "fgsm", "norm": "l2"}, "norm must be 'linf' for the objective 'fgsm'"),
        ({"attack_step": -1.0}, "attack_step must be a positive finite number, got -1.0"),
        ({"warm_up": 1.5}, "warm_up must be a share of the training, 0 to 1, got 1.5"),
        ({"warm_up": float("nan")}, "warm_up must be .* got nan"),
    ],
)
def test_wrong_settings_are_refused(changes, match):
    with pytest.raises(ValueError, match=match):
        settings(**changes)
