"""Many networks as one program: every strategy against the networks one by one."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from qwidgets.architectures import build_model
from qwidgets.data import Dataset, load_data
from qwidgets.ensemble import (
    STRATEGIES,
    Networks,
    Strategy,
    batched_forward,
    linearized,
    stack_parameters,
    unstack,
)
from qwidgets.models import load_parameters, packet_loss

NAMES = ("mlp", "conv", "resnet", "attention")


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_data("digits")


class Normalised(nn.Module):
    """A user's module that is no plain Sequential."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(64, 12)
        self.norm = nn.LayerNorm(12)
        self.last = nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = self.last(torch.tanh(self.norm(self.first(x.flatten(1)))))
        return hidden


def architecture(name: str, digits: Dataset) -> nn.Module:
    relu = nn.ReLU()
    shared = nn.Linear(64, 64)
    makers: dict[str, nn.Module] = {
        **{known: build_model(known, digits) for known in NAMES},
        "normalised": Normalised(),
        "no bias": nn.Sequential(
            nn.Flatten(), nn.Linear(64, 9, bias=False), nn.ReLU(), nn.Linear(9, 10)
        ),
        "one relu twice": nn.Sequential(
            nn.Flatten(), nn.Linear(64, 9), relu, nn.Linear(9, 9), relu, nn.Linear(9, 10)
        ),
        "one layer twice": nn.Sequential(
            nn.Flatten(), shared, nn.ReLU(), shared, nn.Linear(64, 10)
        ),
        "columns first": nn.Sequential(nn.Linear(8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(24, 10)),
    }
    return makers[name]


def randomised(model: nn.Module, count: int) -> list[nn.Module]:
    generator = torch.Generator().manual_seed(5)
    models = [copy.deepcopy(model).double() for _ in range(count)]
    with torch.no_grad():
        for parameter in nn.ModuleList(models).parameters():
            parameter.normal_(0, 0.3, generator=generator)
    return models


RULE: dict[str, Strategy] = {
    "mlp": "stacked",
    "no bias": "stacked",
    "one relu twice": "stacked",
    "one layer twice": "vmap",
    "columns first": "vmap",
    "normalised": "vmap",
    "conv": "loop",
    "resnet": "loop",
    "attention": "loop",
}


@pytest.mark.parametrize("name", RULE)
def test_strategy_follows_from_the_architecture(digits: Dataset, name: str) -> None:
    forward = batched_forward(architecture(name, digits), digits.input_shape)
    assert forward.strategy == RULE[name]


CASES = [
    *RULE.items(),
    ("mlp", "vmap"),
    ("mlp", "loop"),
    ("conv", "vmap"),
    ("resnet", "vmap"),
    ("attention", "vmap"),
    ("normalised", "loop"),
]


@pytest.mark.parametrize(("name", "strategy"), CASES)
@pytest.mark.parametrize("shared", [True, False])
def test_every_strategy_equals_the_networks_one_by_one(
    digits: Dataset, name: str, strategy: Strategy, *, shared: bool
) -> None:
    model = architecture(name, digits)
    models = randomised(model, 3)
    params = {key: value.requires_grad_() for key, value in stack_parameters(models).items()}
    # As many inputs as networks and one channel: shapes alone cannot tell shared from own.
    x = digits.train_inputs[:3].double()
    if not shared:
        x = digits.train_inputs[:9].double().reshape(3, 3, 1, 8, 8)
    x = x.clone().requires_grad_()
    y = torch.tensor([4, 0, 9])
    logits = batched_forward(model, (1, 8, 8), strategy=strategy)(params, x)
    assert logits.shape == (3, 3, 10)

    # Loss plus gradient penalty, whose parameter gradient is a double backward.
    loss = cross_entropy(logits.flatten(0, 1), y.repeat(3), reduction="sum")
    (slope,) = torch.autograd.grad(loss, x, create_graph=True)
    if shared:
        (penalised,) = torch.autograd.grad(logits.logsumexp(-1).sum(), x, create_graph=True)
    else:
        penalised = slope
    gradients = torch.autograd.grad(
        loss + penalised.square().sum(), list(params.values()), allow_unused=True
    )

    total_slope = torch.zeros_like(x)
    total_penalised = torch.zeros_like(x)
    losses = []
    for index, single in enumerate(models):
        own = x if shared else x[index]
        expected = single(own)
        torch.testing.assert_close(logits[index], expected, rtol=1e-12, atol=1e-12)
        losses.append(cross_entropy(expected, y, reduction="sum"))
        (one,) = torch.autograd.grad(losses[-1], own, create_graph=True)
        (spread,) = torch.autograd.grad(expected.logsumexp(-1).sum(), own, create_graph=True)
        if shared:
            total_slope, total_penalised = total_slope + one, total_penalised + spread
        else:
            torch.testing.assert_close(slope[index], one, rtol=1e-10, atol=1e-12)
            losses[-1] = losses[-1] + one.square().sum()
    expected_loss = torch.stack(losses).sum()
    if shared:
        torch.testing.assert_close(slope, total_slope, rtol=1e-10, atol=1e-12)
        expected_loss = expected_loss + total_penalised.square().sum()
    for index, single in enumerate(models):
        reference = torch.autograd.grad(
            expected_loss, list(single.parameters()), retain_graph=True, allow_unused=True
        )
        for gradient, one in zip(gradients, reference, strict=True):
            torch.testing.assert_close(gradient[index], one, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", ["mlp", "normalised", "conv"])
def test_reruns_are_bit_identical(digits: Dataset, name: str) -> None:
    model = architecture(name, digits)
    params = stack_parameters([model, model])
    x = digits.train_inputs[:32]
    forward = batched_forward(model, digits.input_shape)
    assert torch.equal(forward(params, x), forward(params, x))


@pytest.mark.parametrize("name", NAMES)
def test_built_networks_tell_their_input_axes(digits: Dataset, name: str) -> None:
    model = build_model(name, digits)
    assert batched_forward(model)(stack_parameters([model]), digits.test_inputs[:4]).shape == (
        1,
        4,
        10,
    )


def test_a_model_that_does_not_tell_its_input_axes_needs_input_shape() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    with pytest.raises(ValueError, match=r"input_shape must be given.*Flatten.*data.input_shape"):
        batched_forward(model)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(
    "name", ["mlp", "no bias", "conv", "attention", "normalised", "columns first"]
)
def test_logits_on_lines_are_those_at_their_points(
    digits: Dataset, name: str, strategy: Strategy
) -> None:
    if strategy == "stacked" and RULE[name] != "stacked":
        return
    model = architecture(name, digits)
    params = stack_parameters(randomised(model, 2))
    forward = batched_forward(model, digits.input_shape, strategy=strategy)
    generator = torch.Generator().manual_seed(1)
    x = digits.test_inputs[:3].double()
    direction = torch.randn((2, *x.shape), generator=generator, dtype=torch.float64)
    t = torch.randn((2, 3, 5), generator=generator, dtype=torch.float64).requires_grad_()
    found = forward.along(params, x, direction, t)
    points = x.unsqueeze(1) + t[..., None, None, None] * direction.unsqueeze(2)
    expected = forward(params, points.flatten(1, 2)).reshape(2, 3, 5, 10)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    slopes = [torch.autograd.grad(value.square().sum(), t)[0] for value in (found, expected)]
    torch.testing.assert_close(*slopes, rtol=1e-8, atol=1e-8)


PERCEPTRONS: dict[str, list[nn.Module]] = {
    "mlp": [nn.Flatten(), nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 32), nn.ReLU()],
    "rectified first": [nn.Flatten(), nn.ReLU(), nn.ReLU(), nn.Linear(64, 32), nn.ReLU()],
    "no bias": [nn.Flatten(), nn.Linear(64, 32, bias=False)],
    "rectified twice": [nn.Flatten(), nn.Linear(64, 32), nn.ReLU(inplace=True), nn.ReLU()],
}


@pytest.mark.parametrize("last", [[], [nn.ReLU()]])
@pytest.mark.parametrize("name", PERCEPTRONS)
@pytest.mark.parametrize(
    ("networks", "leading"), [(3, (3, 5)), (3, (5,)), (8, (8, 64)), (1, (1, 600))]
)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_derivative_written_out_is_that_of_autograd(
    strategy: Strategy, networks: int, leading: tuple[int, ...], name: str, last: list[nn.Module]
) -> None:
    model = nn.Sequential(*copy.deepcopy(PERCEPTRONS[name]), nn.Linear(32, 10), *last)
    forward = batched_forward(model, (1, 8, 8), strategy=strategy)
    generator = torch.Generator().manual_seed(3)
    params = {
        key: torch.randn((networks, *value.shape), generator=generator) / 4
        for key, value in model.named_parameters()
    }
    if networks > 1:
        params["1.weight" if "1.weight" in params else "3.weight"][0] = torch.nan
    x = torch.randn((*leading, 1, 8, 8), generator=generator).requires_grad_()
    cotangent = torch.randn((networks, leading[-1], 10), generator=generator)

    expected = forward(params, x)
    (slope,) = torch.autograd.grad(expected, x, cotangent)
    before = x.detach().clone(), {key: value.clone() for key, value in params.items()}
    outputs, pull = linearized(Networks(forward, params), x)

    assert torch.equal(outputs.nan_to_num(9e9), expected.nan_to_num(9e9))
    assert not outputs[1:].isnan().any()
    kept = cotangent.clone()
    gradient = pull(cotangent)
    torch.testing.assert_close(gradient, slope, equal_nan=True)
    if len(leading) > 1:
        assert gradient is not None
        assert torch.equal(gradient[1:], slope[1:])
    torch.testing.assert_close(
        (x.detach(), params, cotangent), (*before, kept), rtol=0, atol=0, equal_nan=True
    )


@pytest.mark.parametrize("penalty", [None, (0.0, 0.3, 2.0)])
@pytest.mark.parametrize("attacked", [False, True])
@pytest.mark.parametrize("last", [[], [nn.ReLU()]])
@pytest.mark.parametrize("name", PERCEPTRONS)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_gradients_of_an_objective_are_those_of_each_network_alone(
    strategy: Strategy,
    name: str,
    last: list[nn.Module],
    *,
    attacked: bool,
    penalty: tuple[float, ...] | None,
) -> None:
    """Cross-entropy, how far attacked outputs are from the others, and the gradient penalty."""
    model = nn.Sequential(*copy.deepcopy(PERCEPTRONS[name]), nn.Linear(32, 10), *last).double()
    frozen = next(key for key, _ in model.named_parameters() if key.endswith("weight"))
    model.get_parameter(frozen).requires_grad_(requires_grad=False)
    generator = torch.Generator().manual_seed(3)
    params = {
        key: torch.randn((3, *value.shape), generator=generator, dtype=torch.float64) / 4
        for key, value in model.named_parameters()
    }
    inputs = torch.randn((2, 3, 5, 1, 8, 8), generator=generator, dtype=torch.float64)
    y = torch.arange(5)

    def judge(outputs: Tensor, moved: Tensor | None = None) -> tuple[Tensor, Tensor]:
        losses = cross_entropy(outputs.flatten(0, 1), y.repeat(len(outputs)), reduction="none")
        losses = losses.view(len(outputs), 5)
        objective = losses.mean(1) ** 2
        if moved is not None:
            objective = objective + (outputs - moved).square().sum((1, 2))
        return losses, objective

    networks = Networks(batched_forward(model, (1, 8, 8), strategy=strategy), params)
    some = inputs.unbind()[: 1 + attacked]
    losses, found = networks.gradients(
        some, judge, None if penalty is None else torch.tensor(penalty, dtype=torch.float64)
    )

    assert list(found) == [key for key in params if key != frozen]
    for index in range(3):
        alone = copy.deepcopy(model)
        load_parameters(alone, unstack(params, index))
        x = some[0][index].clone().requires_grad_()
        own, objective = judge(
            *[alone(one).unsqueeze(0) for one in (x, *(s[index] for s in some[1:]))]
        )
        torch.testing.assert_close(losses[index], own[0].detach())
        total = objective.sum()
        if penalty is not None:
            (slope,) = torch.autograd.grad(own.sum(), x, create_graph=True)
            total = total + penalty[index] * slope.square().sum() / 5
        expected = torch.autograd.grad(total, [alone.get_parameter(key) for key in found])
        for value, key in zip(expected, found, strict=True):
            torch.testing.assert_close(found[key][index], value, rtol=1e-9, atol=1e-12)


def test_some_of_the_networks_are_those_networks(digits: Dataset) -> None:
    model = build_model("mlp", digits)
    params = stack_parameters(randomised(model, 5))
    networks = Networks(batched_forward(model), params)
    x = digits.test_inputs[:7].double()
    some = networks[1:4]
    assert len(some) == 3
    outputs, pull = linearized(some, x)
    torch.testing.assert_close(outputs, networks(x)[1:4])
    torch.testing.assert_close(outputs, some(x))
    _, whole = linearized(networks, x.expand(5, *x.shape))
    cotangent = torch.ones_like(outputs)
    every = whole(torch.ones(5, *outputs.shape[1:], dtype=outputs.dtype))
    assert every is not None
    torch.testing.assert_close(pull(cotangent), every[1:4].sum(0))


def test_inputs_of_the_wrong_shape_are_refused_before_the_derivative(digits: Dataset) -> None:
    network = build_model("mlp", digits)
    networks = Networks(batched_forward(network), stack_parameters([network] * 3))
    with pytest.raises(ValueError, match=r"x must have shape .* got \(2, 5, 1, 8, 8\)"):
        linearized(networks, torch.zeros(2, 5, 1, 8, 8))


@pytest.mark.parametrize("name", ["mlp", "no bias"])
def test_many_rows_of_one_network_are_computed_alike(digits: Dataset, name: str) -> None:
    """They take another kernel: values, slopes and the derivatives of slopes agree to rounding."""
    model = architecture(name, digits)
    forward = batched_forward(model, digits.input_shape)
    single = {key: value.requires_grad_() for key, value in stack_parameters([model]).items()}
    exact = {key: value.detach().double().requires_grad_() for key, value in single.items()}
    results = []
    for params, dtype in ((single, torch.float32), (exact, torch.float64)):
        x = digits.train_inputs[:1100].to(dtype).requires_grad_()
        logits = forward(params, x)
        (slope,) = torch.autograd.grad(logits.logsumexp(-1).sum(), x, create_graph=True)
        total = logits.square().mean() + slope.square().sum()
        gradients = torch.autograd.grad(total, list(params.values()), allow_unused=True)
        results.append([logits, slope, *(value for value in gradients if value is not None)])
    for found, expected in zip(*results, strict=True):
        atol = 1e-5 * expected.abs().max().item()
        torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=atol)


@pytest.mark.parametrize(
    "layer", [nn.BatchNorm1d(4), nn.BatchNorm1d(4, track_running_stats=False), nn.LazyBatchNorm1d()]
)
def test_normalising_over_the_batch_is_refused(layer: nn.Module) -> None:
    model = nn.Sequential(nn.Linear(2, 4), layer, nn.Linear(4, 2))
    with pytest.raises(ValueError, match=r"by itself, got \w*BatchNorm1d '1'.*GroupNorm"):
        batched_forward(model)


def test_running_statistics_of_images_are_refused() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.InstanceNorm2d(4, track_running_stats=True))
    with pytest.raises(ValueError, match=r"got InstanceNorm2d '1'.*GroupNorm"):
        batched_forward(model)


class Scaled(nn.Module):
    """A user's module with a constant."""

    def __init__(self, *, persistent: bool) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 10)
        self.register_buffer("mean", torch.full((64,), 0.3), persistent=persistent)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.layer(x.flatten(1) - self.mean)
        return logits


def test_constants_are_shared_unless_they_are_saved_with_the_weights(digits: Dataset) -> None:
    with pytest.raises(ValueError, match=r"got the buffer 'mean'.*persistent=False"):
        batched_forward(Scaled(persistent=True), digits.input_shape)
    models = [Scaled(persistent=False) for _ in range(2)]
    forward = batched_forward(models[0], digits.input_shape)
    x = digits.test_inputs[:5]
    expected = torch.stack([model(x) for model in models])
    torch.testing.assert_close(forward(stack_parameters(models), x), expected)
    models[0].load_state_dict(unstack(stack_parameters(models), 1))
    assert torch.equal(models[0](x), models[1](x))


class Tied(nn.Module):
    """A layer that is there twice, and a weight that two layers share."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(64, 64)
        self.again = self.first
        self.one, self.two = nn.Linear(64, 10), nn.Linear(64, 10)
        self.two.weight = self.one.weight

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.again(self.first(x.flatten(1)).relu()).relu()
        logits: Tensor = self.one(hidden) + self.two(hidden.square())
        return logits


@pytest.mark.parametrize("strategy", ["vmap", "loop"])
def test_shared_layers_and_weights_are_one_and_stay_as_they_are(
    digits: Dataset, strategy: Strategy
) -> None:
    models = [Tied() for _ in range(3)]
    before = {name: (value, value.clone()) for name, value in models[0].named_parameters()}
    params, x = stack_parameters(models), digits.test_inputs[:5]
    expected = torch.stack([model(x) for model in models])
    forward = batched_forward(models[0], digits.input_shape, strategy=strategy)
    torch.testing.assert_close(forward(params, x), expected)
    for name, value in models[0].named_parameters():
        assert value is before[name][0]
        assert torch.equal(value, before[name][1])
    assert models[0].first is models[0].again
    assert models[0].two.weight is models[0].one.weight
    load_parameters(models[0], unstack(params, 2))
    torch.testing.assert_close(models[0](x), expected[2])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_shared_layers_in_half_precision_stay_as_they_are(dtype: torch.dtype) -> None:
    model = Tied().to(dtype)
    before = dict(model.named_parameters())
    packet_loss(model, 3, (1, 8, 8))(torch.rand(2, 64, dtype=torch.float64))
    after = dict(model.named_parameters())
    assert {name: value.dtype for name, value in after.items()} == dict.fromkeys(before, dtype)
    assert all(after[name] is value for name, value in before.items())


def test_parameters_of_another_architecture_are_not_loaded(digits: Dataset) -> None:
    other = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    own = dict(build_model("mlp", digits).named_parameters())
    with pytest.raises(ValueError, match=r"'1.weight' has shape \(10, 64\) in it and \(128, 64\)"):
        load_parameters(other, own)


@pytest.mark.parametrize("where", ["model", "layer", "forward"])
def test_what_a_hook_does_is_done_in_every_strategy(digits: Dataset, where: str) -> None:
    model = build_model("mlp", digits)
    if where == "model":
        model.register_forward_pre_hook(lambda _, given: (given[0] - 0.5,))
    elif where == "layer":
        model[1].register_forward_hook(lambda _, __, output: 2 * output)
    else:
        plain = model[3].forward
        model[3].forward = lambda x: -plain(x)
    x = digits.test_inputs[:5]
    forward = batched_forward(model)
    assert forward.strategy == "vmap"
    torch.testing.assert_close(forward(stack_parameters([model]), x)[0], model(x))


def test_strategies_that_cannot_be_are_refused(digits: Dataset) -> None:
    wrong: Any = "stack"
    with pytest.raises(
        ValueError, match=r"strategy must be .* got 'stack' \(did you mean 'stacked'"
    ):
        batched_forward(build_model("mlp", digits), strategy=wrong)
    with pytest.raises(ValueError, match=r"'stacked' needs a Sequential.*use 'vmap' or 'loop'"):
        batched_forward(build_model("conv", digits), strategy="stacked")


def test_a_model_without_parameters_is_refused() -> None:
    with pytest.raises(ValueError, match="must have parameters"):
        batched_forward(nn.Flatten())


def test_something_else_than_a_module_is_refused() -> None:
    wrong: Any = len
    with pytest.raises(TypeError, match=r"model must be a torch.nn.Module, got builtin"):
        batched_forward(wrong)


@pytest.mark.parametrize("shape", [(8, 8), (3, 5, 1, 8, 8), (2, 2, 5, 1, 8, 8)])
def test_inputs_of_the_wrong_shape_are_refused(digits: Dataset, shape: tuple[int, ...]) -> None:
    model = build_model("mlp", digits)
    forward, params = batched_forward(model), stack_parameters([model, model])
    with pytest.raises(ValueError, match=r"x must have shape \(B, .* or \(2, B, "):
        forward(params, torch.zeros(shape))


def test_unstack_returns_what_was_stacked(digits: Dataset) -> None:
    models = [build_model("conv", digits, seed=seed) for seed in range(3)]
    params = stack_parameters(models)
    for index, model in enumerate(models):
        restored = build_model("conv", digits, seed=99)
        restored.load_state_dict(unstack(params, index))
        assert all(
            torch.equal(new, old)
            for new, old in zip(restored.parameters(), model.parameters(), strict=True)
        )
    params["0.weight"].zero_()
    assert models[0].get_parameter("0.weight").abs().sum() > 0


def test_architectures_are_not_mixed(digits: Dataset) -> None:
    with pytest.raises(ValueError, match=r"parameters of models\[1\] differ"):
        stack_parameters([build_model("mlp", digits), build_model("conv", digits)])
    with pytest.raises(ValueError, match="at least one network, got none"):
        stack_parameters([])
