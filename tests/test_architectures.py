"""Networks by name: shapes, seeds, initial weights."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from qwidgets.architectures import build_model
from qwidgets.data import Dataset, load_data

NAMES = ("mlp", "conv", "resnet", "attention")


def images(*shape: int, classes: int = 10) -> Dataset:
    generator = torch.Generator().manual_seed(7)
    inputs = torch.rand((2 * classes, *shape), generator=generator)
    labels = torch.arange(classes).repeat(2)
    return Dataset.from_arrays(inputs, labels, value_range=(0, 1), test_fraction=0.5)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_data("digits")


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("mlp", (1, 8, 8)),
        ("mlp", (2,)),
        ("conv", (1, 8, 8)),
        ("conv", (1, 28, 28)),
        ("conv", (3, 32, 32)),
        ("resnet", (1, 8, 8)),
        ("resnet", (1, 28, 28)),
        ("resnet", (3, 32, 32)),
        ("attention", (1, 8, 8)),
        ("attention", (1, 28, 28)),
        ("attention", (3, 32, 32)),
        ("attention", (1, 7, 9)),
    ],
)
def test_build_model_maps_inputs_to_logits(name: str, shape: tuple[int, ...]) -> None:
    model = build_model(name, images(*shape))
    logits = model(torch.rand(5, *shape))
    assert logits.shape == (5, 10)
    assert logits.dtype == torch.float32
    assert logits.std() > 0


def test_mlp_has_two_hidden_layers_of_128(digits: Dataset) -> None:
    shapes = [tuple(parameter.shape) for parameter in build_model("mlp", digits).parameters()]
    assert shapes == [(128, 64), (128,), (128, 128), (128,), (10, 128), (10,)]


@pytest.mark.parametrize("name", NAMES)
def test_seed_alone_decides_the_parameters(digits: Dataset, name: str) -> None:
    torch.manual_seed(1)
    first = build_model(name, digits, seed=3).state_dict()
    torch.manual_seed(2)
    second = build_model(name, digits, seed=3).state_dict()
    other = build_model(name, digits, seed=4).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)
    # Normalisations begin with ones and zeros.
    drawn = [key for key in first if first[key].unique().numel() > 1]
    assert len(drawn) > len(first) / 2
    assert not any(torch.equal(first[key], other[key]) for key in drawn)


@pytest.mark.parametrize("name", NAMES)
def test_building_leaves_the_global_generator_alone(digits: Dataset, name: str) -> None:
    before = torch.get_rng_state()
    build_model(name, digits)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", NAMES)
def test_initial_parameters_fill_their_range(digits: Dataset, name: str) -> None:
    for layer in build_model(name, digits).modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            fan_in = layer.weight[0].numel()
            limit = math.sqrt((6 if isinstance(layer, nn.Conv2d) else 1) / fan_in)
            largest = layer.weight.abs().max().item()
            # Of n uniform values the largest falls below 0.9 of the limit with chance 0.9^n.
            assert 0.9 * limit < largest <= limit * (1 + 1e-6)
            assert layer.bias is not None
            assert 0 < layer.bias.abs().max().item() <= 1 / math.sqrt(fan_in) * (1 + 1e-6)


def test_unknown_model_is_refused_with_the_near_match(digits: Dataset) -> None:
    with pytest.raises(
        ValueError, match=r"model must be one of 'mlp', 'conv', .*, got 'con' \(did you"
    ):
        build_model("con", digits)


@pytest.mark.parametrize("name", ["conv", "resnet", "attention"])
def test_models_for_images_refuse_other_inputs(name: str) -> None:
    with pytest.raises(
        ValueError, match=rf"'{name}' needs images .* got inputs of shape \(2,\); use model"
    ):
        build_model(name, images(2))


@pytest.mark.parametrize("name", NAMES)
def test_built_models_treat_every_image_by_itself(digits: Dataset, name: str) -> None:
    model = build_model(name, digits).double()
    x = digits.test_inputs[:6].double()
    alone = torch.cat([model(one[None]) for one in x])
    torch.testing.assert_close(model(x), alone, rtol=1e-12, atol=1e-12)
    assert torch.equal(model.train()(x), model.eval()(x))


def test_attention_is_that_of_pytorch(digits: Dataset) -> None:
    model = build_model("attention", digits).double()
    layer = next(part for part in model.modules() if type(part).__name__ == "_Attention")
    reference = nn.MultiheadAttention(64, 4, batch_first=True, dtype=torch.float64)
    named = {"projections": ("in_proj_weight", "in_proj_bias"), "output": ("weight", "bias")}
    with torch.no_grad():
        for mine, theirs in ((layer.projections, reference), (layer.output, reference.out_proj)):
            weight, bias = named["projections" if theirs is reference else "output"]
            getattr(theirs, weight).copy_(mine.weight)
            getattr(theirs, bias).copy_(mine.bias)
    x = torch.randn((3, 7, 64), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(layer(x), reference(x, x, x)[0], rtol=1e-10, atol=1e-10)
