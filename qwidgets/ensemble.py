"""Many networks of one architecture as one program.

`stack_parameters` puts N networks side by side, every tensor with a leading axis N, and
`batched_forward` evaluates them together.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal, TypeAlias, final, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from qwidgets.checks import one_of
from qwidgets.convolution import quickened
from qwidgets.gate import pass_gate
from qwidgets.models import checked_module, pass_both_ways, with_tensors

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from qwidgets.models import Measurable

Strategy = Literal["stacked", "vmap", "loop"]

STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)

# See `linearized`.
Pullback: TypeAlias = "Callable[[Tensor], Tensor | None]"

# From so many rows of one network on, and layers at least so wide, its products are worth oneDNN's
# preparations.
_MANY_ROWS, _WIDE = 512, 32


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
        return with_tensors(self._model, params, x)

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
    model = checked_module(model)
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
    one_of("strategy", strategy, STRATEGIES)
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
    return any(hook is not pass_both_ways for hook in hooks) or "forward" in vars(layer)


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
