"""Convolutions of images of few channels, whose input gradient would take most of an attack.

Every step of an attack differentiates the loss with respect to the image. Where that has one
channel or three, the last product of the chain takes oneDNN several times as long as the
convolution itself: it works on blocks of channels, which are nearly empty then. One matrix product
for all positions of the kernel, added up where the kernel stood (`fold`), is faster.
"""

from __future__ import annotations

import copy
import itertools
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.autograd import Function
from torch.nn import functional

if TYPE_CHECKING:
    from torch import Tensor

# Channels of an image up to which the product is the faster way.
_FEW = 4


def quickened(network: nn.Module) -> nn.Module:
    """Give the convolutions of few channels of a network the quick input gradient.

    It is used on the CPU while their weights are held fixed. The outputs are the same bit for bit,
    the gradients to rounding; they can be differentiated as often as before.

    Parameters
    ----------
    network : torch.nn.Module
        Stays as it is.

    Returns
    -------
    torch.nn.Module
        A copy that shares the parameters and buffers, or the network itself if it has no such
        convolution.
    """
    if not any(map(_is_suited, network.modules())):
        return network
    shared = itertools.chain(network.parameters(), network.buffers())
    quick = copy.deepcopy(network, {id(tensor): tensor for tensor in shared})
    for layer in quick.modules():
        if _is_suited(layer):
            layer.__class__ = _FewChannels
    return quick


def _is_suited(layer: nn.Module) -> bool:
    return (
        type(layer) is nn.Conv2d
        and layer.in_channels <= _FEW
        and layer.groups == 1
        and layer.padding_mode == "zeros"
        and not isinstance(layer.padding, str)
    )


class _FewChannels(nn.Conv2d):
    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # noqa: A002
        batch = input.ndim == 4 and input.device.type == "cpu"  # noqa: PLR2004
        fixed = not (weight.requires_grad or (bias is not None and bias.requires_grad))
        if not (batch and fixed and input.requires_grad and torch.is_grad_enabled()):
            output: Tensor = super()._conv_forward(input, weight, bias)
        else:
            output = _Convolution.apply(input, weight, bias, self)  # type: ignore[no-untyped-call]
        return output


class _Convolution(Function):
    """What a layer does to a batch of images, its weight and bias held fixed."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, layer: nn.Conv2d
    ) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.layer, ctx.size = layer, x.shape[2:]
        output: Tensor = nn.Conv2d._conv_forward(layer, x, weight, bias)  # noqa: SLF001
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (weight,) = ctx.saved_tensors
        layer = ctx.layer
        # (channels x kernel, features) times (B, features, places)
        shares = weight.flatten(1).T @ gradient.flatten(2)
        slope = functional.fold(
            shares, ctx.size, layer.kernel_size, layer.dilation, layer.padding, layer.stride
        )
        return slope, None, None, None
