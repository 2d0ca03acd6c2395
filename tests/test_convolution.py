"""The quick input gradient of convolutions of few channels, against PyTorch's own."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from qwidgets.convolution import quickened

KERNELS = ((1, 1), (3, 3), (5, 2))
STRIDES = (1, 2, (3, 1))
PADDINGS = (0, 1, (2, 0))


def derivatives(network: nn.Module, x: torch.Tensor, order: int) -> list[torch.Tensor]:
    """Outputs, and derivatives of a curved function of them with respect to x."""
    for parameter in network.parameters():
        parameter.requires_grad_(requires_grad=False)
    x = x.clone().requires_grad_()
    found = [network(x)]
    value = found[0].sin().square().sum()
    for _ in range(order):
        (slope,) = torch.autograd.grad(value, x, create_graph=True)
        found.append(slope)
        value = slope.sin().square().sum()
    return [each.detach() for each in found]


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(("dilation", "bias"), [(1, True), (2, False)])
def test_three_orders_of_derivatives_are_those_of_pytorch(
    channels: int, dilation: int, *, bias: bool
) -> None:
    generator = torch.Generator().manual_seed(channels)
    x = torch.randn((2, channels, 11, 12), generator=generator, dtype=torch.float64)
    for kernel, stride, padding in itertools.product(KERNELS, STRIDES, PADDINGS):
        plain = nn.Conv2d(
            channels, 5, kernel, stride, padding, dilation, bias=bias, dtype=torch.float64
        )
        quick = quickened(plain)
        assert type(quick) is not nn.Conv2d
        for own, expected in zip(derivatives(quick, x, 3), derivatives(plain, x, 3), strict=True):
            torch.testing.assert_close(own, expected, rtol=1e-10, atol=1e-10)


def test_the_copy_shares_the_weights_and_the_original_stays() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3))
    quick = quickened(network)
    assert [type(layer) for layer in network] == [nn.Conv2d, nn.ReLU, nn.Conv2d]
    assert type(quick[2]) is nn.Conv2d
    assert all(
        own is other for own, other in zip(quick.parameters(), network.parameters(), strict=True)
    )
    x = torch.rand(2, 3, 9, 9)
    assert torch.equal(quick(x), network(x))


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(8, 8, 3),
        nn.Conv2d(4, 8, 3, groups=2),
        nn.Conv2d(1, 8, 3, padding="same"),
        nn.Conv2d(1, 8, 3, padding=1, padding_mode="circular"),
        nn.Conv1d(1, 8, 3),
    ],
)
def test_other_layers_are_left_alone(layer: nn.Module) -> None:
    assert quickened(layer) is layer


def test_weights_that_learn_and_an_image_without_a_batch() -> None:
    plain = nn.Conv2d(1, 4, 3, dtype=torch.float64)
    quick = quickened(plain)
    images = torch.rand((2, 1, 6, 6), dtype=torch.float64, requires_grad=True)
    for x in (images, images[0]):
        found = []
        for network in (plain, quick):
            (slope,) = torch.autograd.grad(network(x).sin().sum(), images, create_graph=True)
            penalty = slope.square().sum()
            found.append([slope, *torch.autograd.grad(penalty, list(network.parameters()))])
        for own, expected in zip(*found, strict=True):
            assert torch.equal(own, expected)
