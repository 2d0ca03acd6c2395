"""Perceptrons of one architecture side by side, with their derivatives written out.

Every layer of N networks is one batched product of its stacked weights. The derivatives are those
of autograd and take less time: no graph is kept, what is not needed again is overwritten, and what
goes to one place is added up there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias, final

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Container, Mapping

# From so many rows of one network on, and layers at least so wide, its products are worth oneDNN's
# preparations.
_MANY_ROWS, _WIDE = 512, 32


@final
@dataclass(frozen=True)
class Affine:
    """``x weight^T + bias`` of N networks; the parameters' names are those of the layer.

    Attributes
    ----------
    name : str
        Of the layer.
    weight : Tensor, shape (N, outputs, inputs)
    bias : Tensor, shape (N, outputs), or None
    """

    name: str
    weight: Tensor
    bias: Tensor | None


# None stands for a rectifier.
Layers: TypeAlias = Sequence[Affine | None]


def layers_of(model: nn.Module, params: Mapping[str, Tensor]) -> Layers:
    """Give the layers of a `Sequential` of `Flatten`, `Linear` and `ReLU` stacked parameters."""
    return [
        Affine(name, params[f"{name}.weight"], params.get(f"{name}.bias"))
        if isinstance(layer, nn.Linear)
        else None
        for name, layer in model.named_modules(remove_duplicate=False)
        if isinstance(layer, nn.Linear | nn.ReLU)
    ]


def evaluate(layers: Layers, x: Tensor, taken: list[Tensor] | None = None) -> Tensor:
    """Apply layers to inputs (N, B, features).

    Parameters
    ----------
    layers : Layers
        What `layers_of` returned, or the end of it.
    x : torch.Tensor, (N, B, features)
        Left as it is.
    taken : list of torch.Tensor, optional
        To it is appended what each layer takes; after a product, what the rectifier makes of it.

    Returns
    -------
    torch.Tensor, (N, B, outputs)
        Differentiable any number of times.
    """
    hidden, after_product = x, False
    for layer in layers:
        if taken is not None:
            taken.append(hidden)
        if layer is not None:
            hidden = _product(hidden, layer.weight.mT, layer.bias)
        else:
            # What a product gave may be overwritten: its derivative does not need it. That of a
            # rectified value does.
            hidden = hidden.relu_() if after_product else hidden.relu()
        after_product = layer is not None
    return hidden


@final
class Linearization:
    """N perceptrons close to their inputs: outputs, and products with the Jacobian J of each.

    Parameters
    ----------
    layers : Layers
        Parameters of N networks.
    x : torch.Tensor, (N, B, features)
        Inputs.

    Attributes
    ----------
    outputs : torch.Tensor, (N, B, outputs)
    """

    @torch.no_grad()
    def __init__(self, layers: Layers, x: Tensor) -> None:
        self._layers = layers
        self._taken: list[Tensor] = []
        self.outputs = evaluate(layers, x.detach(), self._taken)

    def pull(self, cotangent: Tensor, taken: list[Tensor] | None = None) -> Tensor:
        """Return ``J^T c`` (N, B, features) of cotangents c (N, B, outputs).

        To `taken` is appended what each product takes on the way.
        """
        return self._back(cotangent, taken, to_inputs=True)

    @torch.no_grad()
    def push(self, tangent: Tensor, taken: list[Tensor]) -> Tensor:
        """Return ``J t`` (N, B, outputs) of tangents t (N, B, features); `taken` as for `pull`."""
        given = tangent
        for layer, before in zip(self._layers, self._taken, strict=True):
            if layer is None:
                tangent = _where_positive(tangent, before, in_place=tangent is not given)
            else:
                taken.append(tangent)
                tangent = _product(tangent, layer.weight.mT)
        return tangent

    @torch.no_grad()
    def gradients(
        self,
        cotangent: Tensor,
        names: Container[str],
        *,
        pulled: Sequence[Tensor] = (),
        pushed: Sequence[Tensor] = (),
    ) -> dict[str, Tensor]:
        """Return gradients with respect to parameters.

        Parameters
        ----------
        cotangent : torch.Tensor, (N, B, outputs)
            What is differentiated is ``(c . outputs).sum()``, with constant c.
        names : container of str
            With respect to which parameters.
        pulled, pushed : sequence of torch.Tensor
            What `pull` of cotangents r and `push` of tangents t appended. They add the gradient of
            ``(t . J^T r).sum()``, with constant r and t: a rectifier is piecewise linear, so J
            depends on each weight only where the product with it is taken, and the gradient with
            respect to that is the product of what comes there from r and from t.

        Returns
        -------
        dict of str to torch.Tensor
            Of the shapes of the parameters.
        """
        own: list[Tensor] = []
        self._back(cotangent, own, to_inputs=False)
        found: dict[str, Tensor] = {}
        for place, (layer, before) in enumerate(self._products()):
            if layer.bias is not None and f"{layer.name}.bias" in names:
                found[f"{layer.name}.bias"] = own[-1 - place].sum(1)
            if f"{layer.name}.weight" in names:
                gradient = torch.bmm(own[-1 - place].mT, before)
                if pulled:
                    gradient.baddbmm_(pulled[-1 - place].mT, pushed[place])
                found[f"{layer.name}.weight"] = gradient
        return found

    def _products(self) -> list[tuple[Affine, Tensor]]:
        """Layers that multiply, and what they take."""
        pairs = zip(self._layers, self._taken, strict=True)
        return [(layer, before) for layer, before in pairs if layer is not None]

    @torch.no_grad()
    def _back(self, cotangent: Tensor, taken: list[Tensor] | None, *, to_inputs: bool) -> Tensor:
        """Lead cotangents back, to the first product or through it to the inputs."""
        given, (first, _) = cotangent, self._products()[0]
        for layer, before in zip(reversed(self._layers), reversed(self._taken), strict=True):
            if layer is None:
                cotangent = _where_positive(cotangent, before, in_place=cotangent is not given)
                continue
            if taken is not None:
                taken.append(cotangent)
            if layer is first and not to_inputs:
                break
            cotangent = _product(cotangent, layer.weight)
        return cotangent


def _product(x: Tensor, matrix: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return ``x matrix + bias`` of N layers: (N, B, inputs) to (N, B, outputs)."""
    if (
        len(x) == 1
        and x.shape[1] >= _MANY_ROWS
        and min(matrix.shape[1:]) >= _WIDE
        and (x.device.type, x.dtype) == ("cpu", torch.float32)
        and torch.backends.mkldnn.is_available()
    ):
        # oneDNN's convolution of 1 x 1 pixels is this product, and on processors whose vector units
        # MKL leaves half idle (AMD's) it takes half the time. PyTorch gives it the convolution if
        # that is dilated, which means nothing for one pixel.
        pixels = x.unsqueeze(1).permute(0, 3, 1, 2)
        own_bias = None if bias is None else bias[0]
        product = functional.conv2d(pixels, matrix[0].mT[:, :, None, None], own_bias, dilation=2)
        return product.permute(0, 2, 3, 1).squeeze(1)
    if bias is None:
        return torch.bmm(x, matrix)
    return torch.baddbmm(bias.unsqueeze(1), x, matrix)


def _where_positive(values: Tensor, where: Tensor, *, in_place: bool) -> Tensor:
    """Set derivatives to zero where what was rectified is not positive."""
    # The kernel of autograd, which leaves NaN alone.
    kernel = torch.ops.aten.threshold_backward
    zeroed: Tensor = (
        kernel.grad_input(values, where, 0, grad_input=values)
        if in_place
        else kernel(values, where, 0)
    )
    return zeroed
