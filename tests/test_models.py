"""One network: as it is evaluated, and its loss as a packet."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, softplus

from qwidgets.architectures import build_model
from qwidgets.data import Dataset, load_data
from qwidgets.models import evaluating, packet_loss
from qwidgets.tasks import log_odds_against

NAMES = ("mlp", "conv", "resnet", "attention")


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_data("digits")


def test_evaluating_gives_every_module_its_own_mode_back() -> None:
    model = nn.Sequential(nn.Dropout(), nn.Sequential(nn.Dropout()))
    model[1].eval()
    before = [module.training for module in model.modules()]

    def fail() -> None:
        with evaluating(model):
            assert not any(module.training for module in model.modules())
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert [module.training for module in model.modules()] == before == [True, True, False, False]


# The loss as a packet


@settings(deadline=None)
@given(
    st.lists(st.floats(-30, 30), min_size=3, max_size=3),
    st.integers(0, 2),
)
def test_softplus_of_the_log_odds_is_the_cross_entropy(values: list[float], label: int) -> None:
    logits = torch.tensor([values], dtype=torch.float64, requires_grad=True)
    y = torch.tensor([label])
    odds = log_odds_against(logits, y)
    loss = cross_entropy(logits, y)
    torch.testing.assert_close(softplus(odds, threshold=40).sum(), loss, rtol=1e-9, atol=1e-13)
    (one,) = torch.autograd.grad(odds.sum(), logits)
    (other,) = torch.autograd.grad(loss, logits)
    scale = 1 - logits.softmax(1)[0, label]
    torch.testing.assert_close(one * scale, other, rtol=1e-6, atol=1e-13)


@pytest.mark.parametrize("name", ["mlp", "conv"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_packet_loss_is_the_cross_entropy_at_a_fixed_label(
    digits: Dataset, name: str, dtype: torch.dtype
) -> None:
    model = build_model(name, digits).to(dtype)
    x = digits.test_inputs[:7]
    for label in (0, 9):
        loss = packet_loss(model, label, digits.input_shape)(x.flatten(1).double())
        expected = cross_entropy(
            model(x.to(dtype)).double(), torch.full((7,), label), reduction="none"
        )
        assert loss.shape == (7,)
        assert loss.dtype == torch.float64
        torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)


def test_packet_loss_has_the_right_gradient(digits: Dataset) -> None:
    model = build_model("conv", digits).double()
    loss = packet_loss(model, 3, digits.input_shape)
    x = digits.test_inputs[:2].flatten(1).double().requires_grad_()
    assert torch.autograd.gradcheck(loss, x)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_packet_loss_keeps_its_precision_where_the_network_is_sure() -> None:
    model = nn.Linear(1, 2, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.0], [1.0]]))
    loss = packet_loss(model, 1, (1,))
    x = torch.tensor([[100.0], [-100.0]], dtype=torch.float64, requires_grad=True)
    value = loss(x)
    expected = torch.tensor([math.exp(-100), 100.0], dtype=torch.float64)
    torch.testing.assert_close(value.detach(), expected, rtol=1e-12, atol=0)
    (slope,) = torch.autograd.grad(value.sum(), x)
    expected = torch.tensor([-math.exp(-100), -1.0], dtype=torch.float64)
    torch.testing.assert_close(slope.flatten(), expected, rtol=1e-12, atol=0)


def test_packet_loss_measures_in_eval_mode_and_restores_the_mode() -> None:
    model = nn.Sequential(nn.Linear(4, 50), nn.Dropout(0.5), nn.Linear(50, 3))
    loss = packet_loss(model, 0, (4,))
    x = torch.rand(6, 4, generator=torch.Generator().manual_seed(0)).double()
    assert torch.equal(loss(x), loss(x))
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize("label", [-1, 10])
def test_packet_loss_refuses_labels_that_are_no_class(digits: Dataset, label: int) -> None:
    with pytest.raises(ValueError, match=rf"label must be in 0..9, .* got {label}"):
        packet_loss(build_model("mlp", digits), label, digits.input_shape)


@pytest.mark.parametrize("label", [1.0, "1", True])
def test_packet_loss_refuses_labels_that_are_no_integers(digits: Dataset, label: Any) -> None:
    with pytest.raises(TypeError, match="label must be an integer"):
        packet_loss(build_model("mlp", digits), label, digits.input_shape)


def test_packet_loss_refuses_inputs_of_another_size(digits: Dataset) -> None:
    loss = packet_loss(build_model("mlp", digits), 0, digits.input_shape)
    with pytest.raises(ValueError, match=r"x must have shape \(n, 64\), got \(2, 63\)"):
        loss(torch.zeros(2, 63))


@pytest.mark.parametrize("labels", [[3], (0, 9, 3), np.array([1, 2]), torch.tensor([5, 5])])
def test_several_labels_share_one_evaluation(digits: Dataset, labels: Any) -> None:
    model = build_model("mlp", digits)
    evaluations = []
    model.register_forward_hook(lambda *_: evaluations.append(1))
    loss = packet_loss(model, labels, digits.input_shape)
    evaluations.clear()
    x = digits.test_inputs[:7].flatten(1).double().requires_grad_()
    found = loss(x)
    assert evaluations == [1]
    assert found.shape == (7, len(labels))
    for column, label in enumerate(labels):
        single = packet_loss(model, int(label), digits.input_shape)(x)
        assert torch.equal(found[:, column], single)
        slopes = [
            torch.autograd.grad(value.sum(), x, retain_graph=True)[0]
            for value in (found[:, column], single)
        ]
        torch.testing.assert_close(*slopes, rtol=1e-12, atol=0)


def test_packet_loss_tells_the_shape_of_one_input(digits: Dataset) -> None:
    loss = packet_loss(build_model("conv", digits), 0, list(digits.input_shape))  # type: ignore[arg-type]
    assert loss.input_shape == (1, 8, 8)
    assert loss.y.tolist() == [0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", NAMES)
def test_half_precision_does_not_reach_the_loss(
    digits: Dataset, name: str, dtype: torch.dtype
) -> None:
    """The same weights in float64 are the oracle, also where half precision underflows."""
    model = build_model(name, digits).to(dtype)
    exact = build_model(name, digits).double()
    exact.load_state_dict(model.state_dict())
    with torch.no_grad():
        for network in (model, exact):
            last = list(network.parameters())[-1]
            last[0] = 24.0  # the loss of label 0 is of the order 1e-10
    points = []
    for network in (model, exact):
        x = digits.test_inputs[:5].flatten(1).double().requires_grad_()
        value = packet_loss(network, 0, digits.input_shape)(x)
        (slope,) = torch.autograd.grad(value.sum(), x)
        points.append((value.detach(), slope))
    (value, slope), (expected, exact_slope) = points
    assert value.dtype == slope.dtype == torch.float64
    assert 0 < expected.max() < 1e-7
    assert exact_slope.abs().max() < 1e-7
    torch.testing.assert_close(value, expected, rtol=1e-4, atol=0)
    torch.testing.assert_close(slope, exact_slope, rtol=1e-2, atol=1e-4 * exact_slope.abs().max())
    assert next(model.parameters()).dtype == dtype


class Chance(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.randn_like(x)


@pytest.mark.parametrize("layer", [nn.BatchNorm1d(10, track_running_stats=False), Chance()])
def test_packet_loss_refuses_what_mixes_inputs_or_is_left_to_chance(layer: nn.Module) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), layer)
    with pytest.raises(ValueError, match=r"by itself and each time alike, .* GroupNorm"):
        packet_loss(model, 0, (1, 8, 8))


def test_packet_loss_refuses_inputs_that_the_network_cannot_take(digits: Dataset) -> None:
    with pytest.raises(ValueError, match=r"input_shape must be .*, got \(1, 7, 7\), and the model"):
        packet_loss(build_model("mlp", digits), 0, (1, 7, 7))


def test_packet_loss_refuses_no_labels_at_all(digits: Dataset) -> None:
    with pytest.raises(ValueError, match="label must name at least one class, got an empty"):
        packet_loss(build_model("mlp", digits), [], digits.input_shape)
