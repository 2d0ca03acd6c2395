"""Networks, and how many of them run as one program.

`build_model` makes a small network for a data set from an explicit seed. `stack_parameters` puts N
networks of one architecture side by side, every tensor with a leading axis N, and
`batched_forward` evaluates them together. `packet_loss` turns a network into the loss function
whose uncertainty is measured.
"""

from __future__ import annotations

import copy
import difflib
import itertools
import math
import operator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, final, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from qwidgets.convolution import quickened
from qwidgets.gate import pass_gate
from qwidgets.tasks import CLASSIFICATION, Task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import ArrayLike

    from qwidgets.data import Dataset

Strategy = Literal["stacked", "vmap", "loop"]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)

# See `linearized`.
Pullback: TypeAlias = "Callable[[Tensor], Tensor | None]"

# From so many rows of one network on, and layers at least so wide, its products are worth oneDNN's
# preparations.
_MANY_ROWS, _WIDE = 512, 32

# Share of the largest output by which those of one input may differ where another is beside it.
_ALIKE = 1e-3

# Up to this side the first convolution keeps every pixel.
_LARGEST_SMALL_IMAGE = 16


def build_model(name: str, data: Dataset, *, seed: int = 0) -> nn.Module:
    """Build an untrained network that fits the inputs and the classes or targets of a data set.

    Parameters
    ----------
    name : str
        ``"mlp"``: two hidden layers of 128 rectified units. The others take images. ``"conv"``:
        3 x 3 convolutions of 16, 16 and 32 rectified channels, the last with stride 2 (the first
        too where images are larger than 16 pixels), and a linear head. ``"resnet"``: a convolution
        (of stride 2 likewise), three residual blocks of 16, 32 and 64 channels with group
        normalisation, and a linear head. ``"attention"``: a transformer of two blocks, 64 features
        and 4 heads on patches (16 to 64 of them in images of 8 x 8 to 32 x 32 pixels), and a linear
        head on all of them. ``"encoder_decoder"``: an image for an image; 3 x 3 convolutions of 16
        rectified channels, of 32 at half and of 32 at a quarter of the sides, then up again beside
        what came down (a U-Net).
    data : Dataset
        Gives the input shape, and the number of classes or the shape of the targets.
    seed : int
        Seed of the initial parameters; the global random state is neither read nor changed.

    Returns
    -------
    torch.nn.Module
        Maps ``(n, *data.input_shape)`` float32 to ``(n, *data.output_shape)`` float32, on the CPU:
        logits ``(n, classes)``, or outputs of the shape of the targets.

    Raises
    ------
    ValueError
        Unknown name, or inputs or targets that the architecture cannot take.
    """
    if name not in _ARCHITECTURES:
        near = difflib.get_close_matches(str(name), _ARCHITECTURES, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        known = ", ".join(repr(known) for known in _ARCHITECTURES)
        message = f"model must be one of {known}, got {name!r}{hint}."
        raise ValueError(message)
    # On the meta device no layer draws its initial values: the global generator stays untouched.
    with torch.device("meta"):
        model = _ARCHITECTURES[name](data.input_shape, data.output_shape)
    model.to_empty(device="cpu")
    _initialise(model, torch.Generator().manual_seed(seed))
    return model


def _head(features: int, output_shape: tuple[int, ...]) -> list[nn.Module]:
    """Let a linear layer end in a shape."""
    head: list[nn.Module] = [nn.Linear(features, math.prod(output_shape), dtype=torch.float32)]
    return head if len(output_shape) == 1 else [*head, nn.Unflatten(-1, output_shape)]


def _mlp(input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> nn.Module:
    width = 128
    return nn.Sequential(
        # Counted from the end, so that the layer tells how many axes one input has.
        nn.Flatten(start_dim=-len(input_shape)),
        nn.Linear(math.prod(input_shape), width, dtype=torch.float32),
        nn.ReLU(),
        nn.Linear(width, width, dtype=torch.float32),
        nn.ReLU(),
        *_head(width, output_shape),
    )


def _image_shape(name: str, input_shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Channels, height and width, or the reason why the model cannot take the inputs."""
    try:
        channels, height, width = input_shape
    except ValueError:
        message = (
            f"model {name!r} needs images of shape (channels, height, width), "
            f"got inputs of shape {input_shape}; use model='mlp'."
        )
        raise ValueError(message) from None
    return channels, height, width


def _first_stride(height: int, width: int) -> int:
    return 2 if min(height, width) > _LARGEST_SMALL_IMAGE else 1


def _convolution(channels: int, features: int, stride: int = 1, size: int = 3) -> nn.Conv2d:
    return nn.Conv2d(
        channels, features, size, stride=stride, padding=size // 2, dtype=torch.float32
    )


def _conv(input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> nn.Module:
    channels, height, width = _image_shape("conv", input_shape)
    layers: list[nn.Module] = []
    for features, stride in ((16, _first_stride(height, width)), (16, 1), (32, 2)):
        layers += [_convolution(channels, features, stride), nn.ReLU()]
        channels, height, width = features, -(-height // stride), -(-width // stride)
    head = _head(channels * height * width, output_shape)
    return nn.Sequential(*layers, nn.Flatten(start_dim=-3), *head)


class _Residual(nn.Module):
    """Two convolutions beside a skip connection (He et al., arXiv 1603.05027).

    Normalised over groups of channels of one image: an output that depends on the other images of
    the batch, as with batch normalisation, would be no loss function of its own image.
    """

    def __init__(self, channels: int, features: int, stride: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            *_normalised(channels),
            _convolution(channels, features, stride),
            *_normalised(features),
            _convolution(features, features),
        )
        self.skip = nn.Identity() if stride == 1 else _convolution(channels, features, stride, 1)

    def forward(self, x: Tensor) -> Tensor:
        total: Tensor = self.skip(x) + self.branch(x)
        return total


def _normalised(channels: int) -> tuple[nn.Module, nn.Module]:
    return nn.GroupNorm(channels // 8, channels, dtype=torch.float32), nn.ReLU()


def _resnet(input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> nn.Module:
    channels, height, width = _image_shape("resnet", input_shape)
    first = _first_stride(height, width)
    for stride in (first, 2, 2):
        height, width = -(-height // stride), -(-width // stride)
    return nn.Sequential(
        _convolution(channels, 16, first),
        _Residual(16, 16, 1),
        _Residual(16, 32, 2),
        _Residual(32, 64, 2),
        *_normalised(64),
        nn.Flatten(start_dim=-3),
        *_head(64 * height * width, output_shape),
    )


class _Attention(nn.Module):
    """Self-attention of several heads (Vaswani et al., arXiv 1706.03762).

    Written out, since PyTorch's fused kernels cannot be differentiated twice.
    """

    def __init__(self, features: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.projections = nn.Linear(features, 3 * features, dtype=torch.float32)
        self.output = nn.Linear(features, features, dtype=torch.float32)

    def forward(self, x: Tensor) -> Tensor:
        each = self.projections(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        query, key, value = each.unbind()
        scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
        mixed = (scores.softmax(-1) @ value).transpose(1, 2).flatten(2)
        output: Tensor = self.output(mixed)
        return output


class _Block(nn.Module):
    """Attention and a perceptron, each beside a skip connection and normalised before."""

    def __init__(self, features: int, heads: int) -> None:
        super().__init__()
        self.attention = nn.Sequential(
            nn.LayerNorm(features, dtype=torch.float32), _Attention(features, heads)
        )
        self.perceptron = nn.Sequential(
            nn.LayerNorm(features, dtype=torch.float32),
            nn.Linear(features, 2 * features, dtype=torch.float32),
            nn.GELU(),
            nn.Linear(2 * features, features, dtype=torch.float32),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(x)
        total: Tensor = x + self.perceptron(x)
        return total


class _PatchTransformer(nn.Module):
    """A vision transformer (Dosovitskiy et al., arXiv 2010.11929) without a class token.

    Its head sees every patch: with a mean over them it learns far slower from few images.
    """

    def __init__(self, input_shape: tuple[int, int, int], output_shape: tuple[int, ...]) -> None:
        super().__init__()
        channels, height, width = input_shape
        features, heads = 64, 4
        side = max(2, -(-min(height, width) // 8))
        self.patches = nn.Conv2d(channels, features, side, stride=side, dtype=torch.float32)
        count = (height // side) * (width // side)
        self.position = nn.Parameter(torch.empty((count, features), dtype=torch.float32))
        self.blocks = nn.Sequential(_Block(features, heads), _Block(features, heads))
        self.head = nn.Sequential(
            nn.LayerNorm(features, dtype=torch.float32),
            nn.Flatten(start_dim=-2),
            *_head(count * features, output_shape),
        )

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(-2).transpose(-1, -2) + self.position
        logits: Tensor = self.head(self.blocks(tokens))
        return logits


def _attention(input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> nn.Module:
    return _PatchTransformer(_image_shape("attention", input_shape), output_shape)


class _EncoderDecoder(nn.Module):
    """An image for an image (Ronneberger et al., arXiv 1505.04597), in three resolutions.

    What a pixel says depends on the whole of small images, and its own details reach it past the
    narrow middle.
    """

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        self.fine = _convolution(channels, 16)
        self.middle = _convolution(16, 32, 2)
        self.coarse = nn.Sequential(
            _convolution(32, 32, 2), nn.ReLU(), _convolution(32, 32), nn.ReLU()
        )
        self.to_middle = _convolution(64, 16)
        self.to_fine = _convolution(32, 16)
        self.head = _convolution(16, outputs, size=1)

    def forward(self, x: Tensor) -> Tensor:
        fine = self.fine(x).relu()
        middle = self.middle(fine).relu()
        hidden = self.coarse(middle)
        hidden = self.to_middle(_above(hidden, middle)).relu()
        hidden = self.to_fine(_above(hidden, fine)).relu()
        image: Tensor = self.head(hidden)
        return image


def _above(coarse: Tensor, fine: Tensor) -> Tensor:
    """Enlarge to the sides of another image, and lay it on that."""
    return torch.cat([functional.interpolate(coarse, size=fine.shape[-2:]), fine], -3)


def _encoder_decoder(input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> nn.Module:
    channels, height, width = _image_shape("encoder_decoder", input_shape)
    if len(output_shape) != len(input_shape) or output_shape[1:] != (height, width):
        message = (
            "model 'encoder_decoder' gives images with the sides of the inputs, "
            f"{(height, width)}, got data whose outputs have the shape {output_shape}; use "
            "model='conv'."
        )
        raise ValueError(message)
    return _EncoderDecoder(channels, output_shape[0])


_ARCHITECTURES: dict[str, Callable[[tuple[int, ...], tuple[int, ...]], nn.Module]] = {
    "mlp": _mlp,
    "conv": _conv,
    "resnet": _resnet,
    "attention": _attention,
    "encoder_decoder": _encoder_decoder,
}


@torch.no_grad()
def _initialise(model: nn.Module, generator: torch.Generator) -> None:
    """Draw weights and biases uniformly in +-1/sqrt(fan-in), PyTorch's rule for these layers.

    The weights of convolutions get the range of He et al. (arXiv 1502.01852), ``sqrt(6 / fan-in)``:
    in PyTorch's the signal shrinks from layer to layer, and the first epochs are lost to it.
    """
    for layer in model.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            limit = 1 / math.sqrt(layer.weight[0].numel())
            gain = math.sqrt(6) if isinstance(layer, nn.Conv2d) else 1.0
            layer.weight.uniform_(-gain * limit, gain * limit, generator=generator)
            if layer.bias is not None:
                layer.bias.uniform_(-limit, limit, generator=generator)
        elif isinstance(layer, nn.GroupNorm | nn.LayerNorm):
            layer.reset_parameters()  # ones and zeros
        elif isinstance(layer, _PatchTransformer):
            layer.position.normal_(std=0.5, generator=generator)


def stack_parameters(models: Sequence[nn.Module]) -> dict[str, Tensor]:
    """Put the parameters of N networks of one architecture side by side.

    Parameters
    ----------
    models : sequence of torch.nn.Module
        At least one; all with the same parameter names, shapes and dtypes.

    Returns
    -------
    dict of str to torch.Tensor, each (N, *shape)
        Fresh leaf tensors, detached from the models, under the names of `named_parameters`.

    Raises
    ------
    ValueError
        No models, or models of different architectures.
    """
    if not models:
        message = "models must hold at least one network, got none."
        raise ValueError(message)
    each = [dict(model.named_parameters()) for model in models]
    layout = {name: (value.shape, value.dtype) for name, value in each[0].items()}
    for index, parameters in enumerate(each):
        if {name: (value.shape, value.dtype) for name, value in parameters.items()} != layout:
            message = (
                f"models must share one architecture, but the parameters of models[{index}] differ "
                "from those of models[0] in name, shape or dtype; stack each architecture apart."
            )
            raise ValueError(message)
    return {
        name: torch.stack([parameters[name].detach() for parameters in each]) for name in layout
    }


def unstack(params: Mapping[str, Tensor], index: int) -> dict[str, Tensor]:
    """Take the parameters of one network out of a stack.

    Parameters
    ----------
    params : mapping of str to torch.Tensor, each (N, *shape)
        What `stack_parameters` returned, perhaps trained since.
    index : int
        Which network, from 0.

    Returns
    -------
    dict of str to torch.Tensor
        Detached copies, ready for `torch.nn.Module.load_state_dict`.
    """
    return {name: value[index].detach().clone() for name, value in params.items()}


@final
class BatchedForward:
    """N networks of one architecture evaluated as one program; made by `batched_forward`.

    Attributes
    ----------
    strategy : str
        ``"stacked"``: batched matrix products over the stacked weights. ``"vmap"``:
        `torch.func.vmap` over the networks. ``"loop"``: one network after another.
    frozen : frozenset of str
        Names of the parameters that training leaves as they are (``requires_grad=False``).
    """

    def __init__(self, model: nn.Module, input_ndim: int, strategy: Strategy) -> None:
        self._model = quickened(model) if strategy == "loop" else model
        self._input_ndim = input_ndim
        self.strategy: Strategy = strategy
        self.frozen = frozenset(
            name for name, value in model.named_parameters() if not value.requires_grad
        )

    @classmethod
    def alone(cls, model: Measurable, input_ndim: int) -> BatchedForward:
        """Take one network that is only measured: it may have buffers, being in eval mode."""
        return cls(model, input_ndim, "loop")

    def __call__(self, params: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """Evaluate every network; differentiable any number of times.

        Parameters
        ----------
        params : mapping of str to torch.Tensor, each (N, *shape)
            Stacked parameters, as from `stack_parameters`.
        x : torch.Tensor, (B, *input_shape) or (N, B, *input_shape)
            Inputs shared by all networks, or each network's own.

        Returns
        -------
        torch.Tensor, (N, B, *output_shape)
            Outputs, logits of a classifier.
        """
        pass_gate()
        networks = len(next(iter(params.values())))
        shared = self._is_shared(x, networks)
        if self.strategy == "stacked":
            # Every layout of these products measures the same, the arithmetic takes the time: the
            # plain one is (N, B, features).
            hidden = x.flatten(-self._input_ndim)
            return self._stacked(params, hidden.expand(networks, -1, -1) if shared else hidden)
        if self.strategy == "vmap":
            return torch.func.vmap(self._one, in_dims=(0, None if shared else 0))(dict(params), x)
        # unbind, not indexing: its backward is one stack instead of N full-size scatters.
        each = zip(*(value.unbind() for value in params.values()), strict=True)
        inputs = [x] * networks if shared else x.unbind()
        return torch.stack(
            [
                self._one(dict(zip(params, own, strict=True)), batch)
                for own, batch in zip(each, inputs, strict=True)
            ]
        )

    def _is_shared(self, x: Tensor, networks: int) -> bool:
        """Whether all networks have the same inputs (B, ...), or each its own (N, B, ...)."""
        extra = x.ndim - 1 - self._input_ndim
        if extra not in {0, 1} or (extra and x.shape[0] != networks):
            message = (
                f"x must have shape (B, *input_shape) or ({networks}, B, *input_shape) with "
                f"{self._input_ndim} axes in input_shape, got {tuple(x.shape)}."
            )
            raise ValueError(message)
        return extra == 0

    def _one(self, params: dict[str, Tensor], x: Tensor) -> Tensor:
        pass_gate()
        return _with_tensors(self._model, params, x)

    def linearized(self, params: Mapping[str, Tensor], x: Tensor) -> tuple[Tensor, Pullback]:
        """Evaluate stacked networks; see `linearized`.

        The derivative is written out: it has the bits of autograd's and takes less time than that,
        because it keeps no graph and overwrites what is not needed again.
        """
        pass_gate()
        networks = len(next(iter(params.values())))
        shared = self._is_shared(x, networks)
        hidden = x.detach().flatten(-self._input_ndim)
        hidden = hidden.expand(networks, -1, -1) if shared else hidden
        backwards: list[Callable[[Tensor], Tensor]] = []
        with torch.no_grad():
            outputs = self._stacked(params, hidden, backwards=backwards)

        @torch.no_grad()
        def pull(cotangent: Tensor) -> Tensor:
            for back in reversed(backwards):
                cotangent = back(cotangent)
            return (cotangent.sum(0) if shared else cotangent).reshape(x.shape)

        return outputs, pull

    def along(
        self, params: Mapping[str, Tensor], x: Tensor, direction: Tensor, t: Tensor
    ) -> Tensor:
        """Evaluate every network on lines: its outputs at ``x + t direction``.

        Parameters
        ----------
        params : mapping of str to torch.Tensor, each (N, *shape)
            Stacked parameters.
        x : torch.Tensor, (K, *input_shape)
            Where the K lines begin, shared by all networks.
        direction : torch.Tensor, (N, K, *input_shape)
            Where they lead.
        t : torch.Tensor, (N, K, T)
            Points of each line.

        Returns
        -------
        torch.Tensor, (N, K, T, *output_shape)
            Outputs, differentiable with respect to `t` any number of times.
        """
        if self.strategy != "stacked" or not isinstance(self._layers()[0][1], nn.Linear):
            spread = t.reshape(*t.shape, *[1] * (x.ndim - 1))
            points = x.unsqueeze(1) + spread * direction.unsqueeze(2)
            outputs = self(params, points.flatten(1, 2))
            return outputs.reshape(*t.shape, *outputs.shape[2:])
        # The first layer is affine, so along a line it takes two products with the features,
        # whatever the number of points: what is left of it there is (t, 1) times a 2-row matrix.
        name = self._layers()[0][0]
        weight = params[f"{name}.weight"].transpose(1, 2)
        start = x.flatten(1).expand(len(weight), -1, -1) @ weight
        if f"{name}.bias" in params:
            start = start + params[f"{name}.bias"].unsqueeze(1)
        line = torch.stack([direction.flatten(2) @ weight, start], 2)
        points = torch.stack([t, torch.ones_like(t)], -1)
        hidden = torch.bmm(points.flatten(0, 1), line.flatten(0, 1))
        hidden = hidden.view(len(weight), -1, hidden.shape[-1])
        return self._stacked(params, hidden, first=1).reshape(*t.shape, -1)

    def _layers(self) -> list[tuple[str, nn.Module]]:
        """Linear and rectifying layers of a stacked model, with their names."""
        named = self._model.named_modules(remove_duplicate=False)
        return [(name, layer) for name, layer in named if isinstance(layer, nn.Linear | nn.ReLU)]

    def _stacked(
        self,
        params: Mapping[str, Tensor],
        hidden: Tensor,
        *,
        first: int = 0,
        backwards: list[Callable[[Tensor], Tensor]] | None = None,
    ) -> Tensor:
        """Apply the layers from number `first` on to (N, B, features).

        To `backwards` comes for each layer what takes a cotangent back through it.
        """
        # What a product gave may be overwritten: its derivative does not need it. That of a
        # rectified value does.
        product = False
        for name, layer in self._layers()[first:]:
            back: Callable[[Tensor], Tensor]
            if isinstance(layer, nn.Linear):
                weight = params[f"{name}.weight"]
                hidden = _affine(hidden, weight, params.get(f"{name}.bias"))
                back = partial(_affine, weight=weight.mT, bias=None)
            else:
                hidden = hidden.relu_() if product else hidden.relu()
                back = partial(_where_positive, where=hidden)
            product = isinstance(layer, nn.Linear)
            if backwards is not None:
                backwards.append(back)
        return hidden


def _with_tensors(model: nn.Module, tensors: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """Evaluate with other parameters and buffers, by the names of `named_parameters`.

    Those that two layers share are given to both, and a layer that is there twice is lent them
    once: PyTorch's own way leaves such a layer with the tensors that it was lent.
    """
    known: dict[int, str] = {}
    lent = {}
    for prefix, layer in model.named_modules():
        for name, value in itertools.chain(layer._parameters.items(), layer._buffers.items()):  # noqa: SLF001
            own = f"{prefix}.{name}" if prefix else name
            first = known.setdefault(id(value), own)
            if value is not None and first in tensors:
                lent[own] = tensors[first]
    outputs: Tensor = torch.func.functional_call(model, lent, (x,), tie_weights=False)
    return outputs


def load_parameters(model: nn.Module, parameters: Mapping[str, Tensor]) -> None:
    """Copy parameters into a model in place, by the names of `named_parameters`.

    Raises
    ------
    ValueError
        The model has others.
    """
    own = dict(model.named_parameters())
    shapes, given = (
        {name: tuple(value.shape) for name, value in each.items()} for each in (own, parameters)
    )
    wrong = [name for name in {**shapes, **given} if shapes.get(name) != given.get(name)]
    if wrong:
        name = wrong[0]
        message = (
            f"model must have the parameters that were trained, but {name!r} has shape "
            f"{shapes.get(name)} in it and {given.get(name)} in them (None: is not there); pass "
            "the factory of then."
        )
        raise ValueError(message)
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(parameters[name])


def _affine(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return ``x weight^T + bias`` of N layers: (N, B, inputs) to (N, B, outputs)."""
    if (
        len(x) == 1
        and x.shape[1] >= _MANY_ROWS
        and min(weight.shape[1:]) >= _WIDE
        and (x.device.type, x.dtype) == ("cpu", torch.float32)
        and torch.backends.mkldnn.is_available()
    ):
        # oneDNN's convolution of 1 x 1 pixels is this product, and on processors whose vector units
        # MKL leaves half idle (AMD's) it takes half the time. PyTorch gives it the convolution if
        # that is dilated, which means nothing for one pixel.
        pixels = x.unsqueeze(1).permute(0, 3, 1, 2)
        own_bias = None if bias is None else bias[0]
        product = functional.conv2d(pixels, weight[0, :, :, None, None], own_bias, dilation=2)
        return product.permute(0, 2, 3, 1).squeeze(1)
    if bias is None:
        return torch.bmm(x, weight.transpose(1, 2))
    return torch.baddbmm(bias.unsqueeze(1), x, weight.transpose(1, 2))


def _where_positive(cotangent: Tensor, where: Tensor) -> Tensor:
    """Set a cotangent of rectified values to zero where they are, in place."""
    # The kernel of autograd, which leaves NaN alone.
    zeroed: Tensor = torch.ops.aten.threshold_backward.grad_input(
        cotangent, where, 0, grad_input=cotangent
    )
    return zeroed


@final
@dataclass(frozen=True)
class Networks:
    """N networks with their weights, as an attack sees them: a function of the inputs alone."""

    forward: BatchedForward
    params: Mapping[str, Tensor]

    def __call__(self, x: Tensor) -> Tensor:
        """Evaluate every network."""
        return self.forward(self.params, x)


def linearized(model: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Pullback]:
    """Evaluate a model, and get ready for its derivative with respect to the inputs.

    Parameters
    ----------
    model : callable
        Outputs of inputs; of `Networks` that are stacked the derivative takes less time.
    x : torch.Tensor
        Inputs.

    Returns
    -------
    outputs : torch.Tensor
        What the model returns for `x`.
    pull : callable
        Takes a cotangent of the outputs, which it may overwrite, back to one of the inputs, the
        gradient of ``(cotangent * outputs).sum()``; None if the outputs carry no gradient. It can
        be called once.
    """
    if isinstance(model, Networks) and model.forward.strategy == "stacked":
        return model.forward.linearized(model.params, x)
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        outputs = model(leaf)

    def pull(cotangent: Tensor) -> Tensor | None:
        if not outputs.requires_grad:
            return None
        return torch.autograd.grad(outputs, leaf, cotangent, allow_unused=True)[0]

    return outputs, pull


def batched_forward(
    model: nn.Module,
    input_shape: tuple[int, ...] | None = None,
    *,
    strategy: Strategy | None = None,
) -> BatchedForward:
    """Prepare an architecture for evaluating many networks as one program.

    The strategy follows from the architecture and the device alone, so that reruns are
    bit-identical: a `Sequential` of `Flatten`, `Linear` and `ReLU` is ``"stacked"``; a model with
    convolutions is a ``"loop"`` on the CPU, where batching them costs time; the rest is ``"vmap"``.
    ``benchmarks/sweep.py`` times all strategies of all models beside this rule.

    Parameters
    ----------
    model : torch.nn.Module
        The architecture; only its structure, device and constant buffers are used.
    input_shape : tuple of int, optional
        Shape of one input. May be left out where the first layer tells how many axes an input
        has: every network of `build_model`, and any that begins with `Linear` or `Conv2d`.
    strategy : {"stacked", "vmap", "loop"}, optional
        Overrules the rule. The strategies agree to rounding, which training amplifies: after it the
        weights agree within a hundredth (l2) of how far they moved, and those of a network in which
        rounding turned the sign of an attack's step, or of a unit, within a few hundredths.

    Returns
    -------
    BatchedForward
        Callable ``(params, x) -> logits (N, B, classes)``.

    Raises
    ------
    TypeError
        `model` is not a `torch.nn.Module`.
    ValueError
        The model normalises over the batch, has saved buffers or no parameters, the number of input
        axes cannot be told, or the strategy does not know such models.
    """
    model = _checked_module(model)
    _check_stateless(model)
    parameter = next(model.parameters(), None)
    if parameter is None:
        message = "model must have parameters to stack, got a model with none."
        raise ValueError(message)
    ndim = _input_ndim(model, input_shape)
    perceptron = _is_perceptron(model, ndim)
    if strategy is None:
        convolves = any(
            isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d) for layer in model.modules()
        )
        on_cpu = parameter.device.type == "cpu"
        strategy = "stacked" if perceptron else "loop" if convolves and on_cpu else "vmap"
    if strategy not in STRATEGIES:
        near = difflib.get_close_matches(str(strategy), STRATEGIES, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        known = ", ".join(map(repr, STRATEGIES))
        message = f"strategy must be one of {known}, got {strategy!r}{hint}."
        raise ValueError(message)
    if strategy == "stacked" and not perceptron:
        message = (
            "strategy 'stacked' needs a Sequential of Flatten, Linear and ReLU, got "
            f"{type(model).__name__}; use 'vmap' or 'loop'."
        )
        raise ValueError(message)
    return BatchedForward(model, ndim, strategy)


def _check_stateless(model: nn.Module) -> None:
    """Refuse what N networks cannot share, or what makes images of a batch depend on each other."""
    mixing = [
        (name, layer)
        for name, layer in model.named_modules()
        if isinstance(layer, nn.modules.batchnorm._BatchNorm)  # noqa: SLF001
        or getattr(layer, "running_mean", None) is not None
    ]
    if mixing:
        name, layer = mixing[0]
        message = (
            f"model must treat every image by itself, got {type(layer).__name__} {name!r}, which "
            "normalises over the batch or keeps statistics of it; replace it by GroupNorm or "
            "LayerNorm."
        )
        raise ValueError(message)
    parameters = dict(model.named_parameters(remove_duplicate=False))
    saved = [name for name in model.state_dict() if name not in parameters]
    if saved:
        message = (
            f"model must keep no state beside its parameters, got the buffer {saved[0]!r}: "
            "networks trained together cannot share it; if it is a constant, register it with "
            "persistent=False."
        )
        raise ValueError(message)


def _checked_module(model: object) -> nn.Module:
    if not isinstance(model, nn.Module):
        message = (
            f"model must be a torch.nn.Module, got {type(model).__name__}; build_model makes one."
        )
        raise TypeError(message)
    return model


def _is_perceptron(model: nn.Module, input_ndim: int) -> bool:
    """Whether the model flattens its whole input, then alternates `Linear` and `ReLU` alone."""
    if type(model) is not nn.Sequential:
        return False
    # What a hook does is not in the products.
    if any(map(_is_hooked, model.modules())):
        return False
    first, *rest = model
    if isinstance(first, nn.Flatten):
        flat = first.start_dim in {1, -input_ndim} and first.end_dim == -1
    else:
        flat, rest = input_ndim == 1, [first, *rest]
    # The model counts a parameter that two layers share once; such weights have no name each.
    shares_none = sum(len(list(layer.parameters())) for layer in rest) == len(
        list(model.parameters())
    )
    return flat and shares_none and all(type(layer) in {nn.Linear, nn.ReLU} for layer in rest)


def _is_hooked(layer: nn.Module) -> bool:
    hooks = itertools.chain(layer._forward_hooks.values(), layer._forward_pre_hooks.values())  # noqa: SLF001
    # That of `gate_layers` changes nothing.
    return any(hook is not _pass_both_ways for hook in hooks) or "forward" in vars(layer)


def _input_ndim(model: nn.Module, input_shape: tuple[int, ...] | None) -> int:
    if input_shape is not None:
        return len(input_shape)
    first = next(layer for layer in model.modules() if not any(layer.children()))
    if isinstance(first, nn.Linear):
        return 1
    if isinstance(first, nn.Conv2d):
        return 3
    if isinstance(first, nn.Flatten) and first.start_dim < 0:
        return -first.start_dim
    message = (
        "input_shape must be given, because the first layer of the model "
        f"({type(first).__name__}) does not tell it; pass input_shape=data.input_shape."
    )
    raise ValueError(message)


@contextmanager
def evaluating(model: object) -> Iterator[None]:
    """Put a module in eval mode for a while; every submodule gets its own mode back after."""
    modes = (
        [(module, module.training) for module in model.modules()]
        if isinstance(model, nn.Module)
        else []
    )
    for module, _ in modes:
        module.training = False
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def gate_layers(network: nn.Module) -> None:
    """Let each layer of a network pass the gate, forwards and backwards; see `qwidgets.gate`.

    One evaluation of a large network may take longer than a person wants to wait.

    Parameters
    ----------
    network : torch.nn.Module
        Changed in place: a copy of one's own.
    """
    for layer in network.modules():
        if not any(layer.children()):
            layer.register_forward_hook(_pass_both_ways)


def _pass_both_ways(_layer: nn.Module, _inputs: object, output: object) -> None:
    pass_gate()
    # Inside of vmap a tensor takes no hook.
    if isinstance(output, Tensor) and output.requires_grad and not _is_batched(output):
        output.register_hook(_pass_backwards)


def _pass_backwards(_gradient: Tensor) -> None:
    pass_gate()


def _is_batched(tensor: Tensor) -> bool:
    batched: bool = torch._C._functorch.is_batchedtensor(tensor)  # noqa: SLF001
    return batched


@final
class Measurable(nn.Module):
    """A network of anyone's, ready to be measured; see `measurable`.

    Maps ``(n, *input_shape)`` float32 on its own device to its outputs, float32.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, network: nn.Module, shift: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("shift", shift)
        self.register_buffer("scale", scale)
        # A network without parameters has a device and a dtype all the same.
        self.anchor = nn.Parameter(torch.zeros(1), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs for inputs in the units of the data."""
        outputs: Tensor = self.network((x - self.shift) / self.scale)
        return outputs


def measurable(
    model: nn.Module,
    data: Dataset,
    *,
    normalization: tuple[ArrayLike, ArrayLike] | None = None,
    name: str = "model",
) -> Measurable:
    """Make a copy of a network that can be measured on a data set; the model stays as it is.

    The copy is in eval mode and in single precision, on the device of the model. Layers that
    normalise over a batch use their running statistics there, so that images do not mix.

    Parameters
    ----------
    model : torch.nn.Module
        Maps a batch of inputs to logits (n, classes), or to outputs of the shape of the targets.
    data : Dataset
        Gives the input shape, the valid range, and the classes or the shape of the targets.
    normalization : (mean, std), optional
        What the model was trained on is ``(x - mean) / std``, x in the range of the data: numbers,
        or one for each channel. Attacks and spreads are then in the units of x.
    name : str
        What errors call the model.

    Returns
    -------
    Measurable

    Raises
    ------
    TypeError
        It is not a `torch.nn.Module`, cannot be copied, or returns something else than a tensor.
    ValueError
        It does not take inputs of that shape, its outputs have another shape, do not depend
        differentiably on the input or not on each input alone, or the normalization is none.
    """
    given: object = model
    if isinstance(given, torch.jit.ScriptModule):
        message = f"{name} must be a module in Python, got {type(given).__name__}; pass its source."
        raise TypeError(message)
    if not isinstance(given, nn.Module):
        message = f"{name} must be a torch.nn.Module, got {type(given).__name__}; pass the network."
        raise TypeError(message)
    try:
        network = copy.deepcopy(model)
    except Exception as error:
        message = (
            f"{name} must be a module that copy.deepcopy can copy, because it is measured in eval "
            f"mode and single precision, but: {error}; pass a module that holds parameters and "
            "buffers alone."
        )
        raise TypeError(message) from error
    network = network.eval().float().requires_grad_(requires_grad=False)
    gate_layers(network)
    tensors = itertools.chain(network.parameters(), network.buffers())
    device = next((tensor.device for tensor in tensors), torch.device("cpu"))
    shift, scale = _normalization(normalization, data.input_shape, name)
    ready = Measurable(network, shift, scale).eval().to(device)
    check_outputs(ready, data, name, device)
    return ready


def _normalization(
    given: tuple[ArrayLike, ArrayLike] | None, input_shape: tuple[int, ...], name: str
) -> tuple[Tensor, Tensor]:
    if given is None:
        return torch.zeros(()), torch.ones(())
    try:
        mean, std = (torch.as_tensor(np.asarray(values, dtype=np.float32)) for values in given)
    except (TypeError, ValueError):
        message = f"normalization of {name} must be (mean, std), got {given!r}; pass two numbers."
        raise ValueError(message) from None
    parts = []
    for part, values in (("mean", mean), ("std", std)):
        fits = values.numel() == 1 or values.shape in {input_shape[:1], input_shape}
        positive = part == "mean" or bool((values > 0).all())
        if not (fits and positive and values.isfinite().all()):
            message = (
                f"{part} in the normalization of {name} must be a finite "
                f"{'' if part == 'mean' else 'positive '}number, or one for each of the "
                f"{input_shape[0]} channels of inputs {input_shape}, got {values.tolist()}."
            )
            raise ValueError(message)
        ones = [1] * (len(input_shape) - 1)
        parts.append(
            values.reshape(())
            if values.numel() == 1
            else values
            if values.shape == input_shape
            else values.reshape(-1, *ones)
        )
    return parts[0], parts[1]


@torch.enable_grad()
def check_outputs(
    model: nn.Module, data: Dataset, name: str, device: torch.device | str = "cpu"
) -> None:
    """Refuse a model in eval mode that does not do for a data set, trying it on two inputs.

    Raises
    ------
    TypeError
        It returns something else than a tensor.
    ValueError
        It does not take inputs of that shape, its outputs have another shape, do not depend
        differentiably on the input, or not on each input alone.
    """
    given = data.test_inputs[:2].to(device, copy=True)
    inputs = given.clone().requires_grad_()
    try:
        outputs: object = model(inputs)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        message = (
            f"{name} must take inputs of shape {tuple(inputs.shape)}, float32, but: {error}; "
            "reshape the data, or wrap the model in a module that does."
        )
        raise ValueError(message) from error
    what = data.task.words
    if not isinstance(outputs, Tensor):
        message = (
            f"{name} must return a tensor of {what}, got {type(outputs).__name__}; wrap it in a "
            f"module whose forward returns the {what} alone."
        )
        raise TypeError(message)
    expected = (len(inputs), *data.output_shape)
    if tuple(outputs.shape) != expected:
        of = f"the {data.classes} classes" if data.task == CLASSIFICATION else "the targets"
        remedy = (
            "match its last layer to the classes (a single logit z becomes two as (0, z))"
            if data.task == CLASSIFICATION
            else "match its last layer to their shape"
        )
        message = (
            f"{name} must return {what} of shape {expected} for {expected[0]} inputs of {of} of "
            f"{data.name!r}, got {tuple(outputs.shape)}; {remedy}."
        )
        raise ValueError(message)
    gradient = None
    if outputs.requires_grad:
        (gradient,) = torch.autograd.grad(outputs.sum(), inputs, allow_unused=True)
    if gradient is None:
        message = (
            f"{name} must compute its {what} from its input with differentiable torch operations, "
            f"got {what} without a gradient; remove detach, no_grad or NumPy steps from it."
        )
        raise ValueError(message)
    _check_alone(model, given, name)


@torch.no_grad()
def _check_alone(evaluate: Callable[[Tensor], Tensor], inputs: Tensor, name: str) -> None:
    """Refuse a model whose outputs for an input depend on others, or on chance."""
    together = evaluate(inputs)
    # Sums of another order differ by far less.
    slack = _ALIKE * float(together.abs().nan_to_num(0, 0, 0).amax())
    try:
        alone = torch.cat([evaluate(one) for one in inputs.clone().split(1)])
        alike = torch.allclose(together, alone, rtol=_ALIKE, atol=slack, equal_nan=True)
    except (RuntimeError, ValueError):  # some layers refuse a batch of one
        alike = False
    if not alike:
        message = (
            f"{name} must treat every input by itself and each time alike, but {len(inputs)} "
            "inputs together and one by one have other outputs; replace what normalises over the "
            "batch (by GroupNorm or LayerNorm, or keep running statistics), draws random numbers "
            "in eval mode, or changes its input in place."
        )
        raise ValueError(message)


@final
class PacketLoss:
    """The loss of a network at fixed answers as a function of the input; see `packet_loss`.

    Attributes
    ----------
    input_shape : tuple of int
        Shape of one input; ``d = prod(input_shape)``.
    y : torch.Tensor, (m, *target_shape)
        The fixed labels or targets Y.
    """

    def __init__(
        self, model: nn.Module, y: Tensor, input_shape: tuple[int, ...], task: Task, *, many: bool
    ) -> None:
        self._model = model
        self._task = task
        self._many = many
        self.y = y
        self.input_shape = input_shape

    def __call__(self, x: Tensor) -> Tensor:
        """Evaluate at points (n, d): (n,) or (n, m) float64, differentiable."""
        size = math.prod(self.input_shape)
        if x.shape[1:] != (size,):
            message = f"x must have shape (n, {size}), got {tuple(x.shape)}."
            raise ValueError(message)
        outputs = outputs_of(self._model, x.reshape(-1, *self.input_shape))
        y = self.y.to(outputs.device).expand(len(x), *self.y.shape)
        own = outputs.shape[1:]
        losses = self._task.losses(outputs.unsqueeze(1).expand(-1, y.shape[1], *own), y)
        return losses if self._many else losses.squeeze(1)


def outputs_of(model: nn.Module, inputs: Tensor) -> Tensor:
    """Evaluate in eval mode, float64 and on the device of the inputs, whatever the model's are."""
    pass_gate()
    outputs: Tensor
    parameter = next(model.parameters(), inputs)
    with evaluating(model):
        if parameter.dtype not in {torch.float16, torch.bfloat16}:
            outputs = model(inputs.to(parameter.device, parameter.dtype))
        else:
            # Between numbers of half precision the loss is a staircase, and its gradient under- and
            # overflows: the same weights are evaluated in single precision.
            tensors = itertools.chain(model.named_parameters(), model.named_buffers())
            single = {
                name: value.float() if value.is_floating_point() else value
                for name, value in tensors
            }
            outputs = _with_tensors(model, single, inputs.to(parameter.device, torch.float32))
    return outputs.to(inputs.device).double()


def packet_loss(
    model: nn.Module,
    label: int | Sequence[int] | ArrayLike | Tensor,
    input_shape: tuple[int, ...],
    *,
    task: Task = CLASSIFICATION,
) -> PacketLoss:
    """Read a network as the loss function of one label or target: the packet before normalisation.

    For a label ``l(x) = -log softmax(f(x))[label]``, the cross-entropy in nats; for a target the
    loss of the task. The network is in eval mode and computes in the dtype of its parameters,
    float16 and bfloat16 ones in float32, and on their device; the loss is float64.

    Parameters
    ----------
    model : torch.nn.Module
        Maps ``(n, *input_shape)`` to logits ``(n, classes)``, or to outputs of the targets' shape.
    label : int or sequence of int; array_like, (*target_shape) or (m, *target_shape)
        The fixed label Y, or m labels that share each evaluation of the network; for a regression
        the fixed target, or m of them.
    input_shape : tuple of int
        Shape of one input; ``d = prod(input_shape)``.
    task : Task
        By default to name the class; else a `qwidgets.Regression`, ``data.task`` for instance.

    Returns
    -------
    callable
        ``loss((n, d) tensor) -> (n,) float64 tensor``, ``(n, m)`` for m labels or targets, on the
        device of its argument, differentiable; its attribute ``input_shape`` is the shape of one
        input, ``y`` what was fixed.

    Raises
    ------
    TypeError
        `model` is not a `torch.nn.Module`, a label not an integer, a target not a number.
    ValueError
        A label is not a class of the model or a target not of its shape, there is none, or the
        model cannot take inputs of that shape, or does not treat each of them by itself.

    References
    ----------
    Zhang et al., "On the uncertainty principle of neural networks", arXiv 2205.01493.
    """
    model = _checked_module(model)
    shape = tuple(input_shape)
    y, many = _fixed_labels(label) if task == CLASSIFICATION else _fixed_targets(label, task)
    try:
        with torch.no_grad():
            outputs = outputs_of(model, torch.zeros((1, *shape)))
            some = torch.rand((2, *shape), generator=torch.Generator().manual_seed(0))
            _check_alone(partial(outputs_of, model), some, "model")
    except RuntimeError as error:
        message = (
            f"input_shape must be that of the model's inputs, got {shape}, and the model says: "
            f"{error}; with a Dataset it is data.input_shape."
        )
        raise ValueError(message) from error
    if task == CLASSIFICATION:
        classes = outputs.shape[-1]
        for one in y.tolist():
            if not 0 <= one < classes:
                message = f"label must be in 0..{classes - 1}, the classes of the model, got {one}."
                raise ValueError(message)
    else:
        task.check(outputs, y[:1])
    return PacketLoss(model, y, shape, task, many=many)


def _fixed_labels(label: Any) -> tuple[Tensor, bool]:
    many = np.ndim(label) > 0
    given: Sequence[int] = label if many else [label]
    for one in given:
        if isinstance(one, bool) or not hasattr(one, "__index__"):
            message = f"label must be an integer or a sequence of integers, got {one!r}."
            raise TypeError(message)
    labels = tuple(map(operator.index, given))
    if not labels:
        message = "label must name at least one class, got an empty sequence."
        raise ValueError(message)
    return torch.tensor(labels), many


def _fixed_targets(target: Any, task: Task) -> tuple[Tensor, bool]:
    given = target.detach() if isinstance(target, Tensor) else torch.tensor(np.asarray(target))
    y = task.checked(given).double()
    leading = task.leading(y)
    if len(leading) > 1 or 0 in leading:
        message = (
            f"label must be a target of shape {task.target_shape}, or one or more of them along a "
            f"first axis, got shape {tuple(y.shape)}."
        )
        raise ValueError(message)
    return (y, True) if leading else (y[None], False)
