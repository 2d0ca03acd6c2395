"""Many networks of one architecture as one program.

`stack_parameters` puts N networks side by side, every tensor with a leading axis N, and
`batched_forward` evaluates them together.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal, TypeAlias, final, get_args

import torch
from torch import Tensor, nn

from qwidgets.checks import one_of
from qwidgets.convolution import quickened
from qwidgets.gate import pass_gate
from qwidgets.models import checked_module, pass_both_ways, with_tensors
from qwidgets.perceptron import Linearization, evaluate, layers_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from qwidgets.models import Measurable
    from qwidgets.perceptron import Layers

Strategy = Literal["stacked", "vmap", "loop"]

STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)

# See `linearized`.
Pullback: TypeAlias = Callable[[Tensor], Tensor | None]
# See `Networks.gradients`.
Judge: TypeAlias = Callable[..., tuple[Tensor, Tensor]]


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
        if self.strategy == "stacked":
            return evaluate(self.layers(params), self.features(x, networks))
        shared = self._shares(x, networks)
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

    def _shares(self, x: Tensor, networks: int) -> bool:
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
        layers = self.layers(params) if self.strategy == "stacked" else [None]
        if (affine := layers[0]) is None:
            spread = t.reshape(*t.shape, *[1] * (x.ndim - 1))
            points = x.unsqueeze(1) + spread * direction.unsqueeze(2)
            outputs = self(params, points.flatten(1, 2))
            return outputs.reshape(*t.shape, *outputs.shape[2:])
        # The first layer is affine, so along a line it takes two products with the features,
        # whatever the number of points: what is left of it there is (t, 1) times a 2-row matrix.
        weight = affine.weight.mT
        start = x.flatten(1).expand(len(weight), -1, -1) @ weight
        if affine.bias is not None:
            start = start + affine.bias.unsqueeze(1)
        line = torch.stack([direction.flatten(2) @ weight, start], 2)
        points = torch.stack([t, torch.ones_like(t)], -1)
        hidden = torch.bmm(points.flatten(0, 1), line.flatten(0, 1))
        hidden = hidden.view(len(weight), -1, hidden.shape[-1])
        return evaluate(layers[1:], hidden).reshape(*t.shape, -1)

    def layers(self, params: Mapping[str, Tensor]) -> Layers:
        """Layers of N perceptrons, where they are stacked."""
        return layers_of(self._model, params)

    def features(self, x: Tensor, networks: int) -> Tensor:
        """Give inputs as layers take them, (N, B, features)."""
        shared = self._shares(x, networks)
        flat = x.flatten(-self._input_ndim)
        return flat.expand(networks, -1, -1) if shared else flat


@final
@dataclass(frozen=True)
class Networks:
    """N networks with their weights: a function of the inputs alone, as an attack sees them.

    Parameters
    ----------
    forward : BatchedForward
        The architecture.
    params : mapping of str to torch.Tensor, each (N, *shape)
        Stacked parameters.
    """

    forward: BatchedForward
    params: Mapping[str, Tensor]

    def __len__(self) -> int:
        """How many."""
        return len(next(iter(self.params.values())))

    def __getitem__(self, part: slice) -> Networks:
        """Take some of them."""
        return Networks(self.forward, {name: value[part] for name, value in self.params.items()})

    @cached_property
    def _layers(self) -> Layers:
        # Every step of an attack asks for them.
        return self.forward.layers(self.params)

    def __call__(self, x: Tensor) -> Tensor:
        """Evaluate every network; see `BatchedForward`."""
        return self.forward(self.params, x)

    def linearization(self, x: Tensor) -> Linearization:
        """Evaluate networks that are stacked, and be ready for their derivatives."""
        pass_gate()
        return Linearization(self._layers, self.forward.features(x, len(self)))

    def gradients(
        self, inputs: Sequence[Tensor], judge: Judge, penalty: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Differentiate an objective of every network with respect to its parameters.

        Network i has the objective ``o_i + penalty_i mean_b |d l_ib / d x_ib|^2``, with a norm that
        is Euclidean.

        Parameters
        ----------
        inputs : sequence of torch.Tensor, each (N, B, *input_shape)
            One minibatch, or several.
        judge : callable
            Of the outputs for each minibatch it makes the losses l (N, B), those of the first, and
            the objectives o (N,).
        penalty : torch.Tensor, (N,), optional
            Strength of the gradient penalty.

        Returns
        -------
        losses : torch.Tensor, (N, B)
        gradients : dict of str to torch.Tensor, each (N, *shape)
            By parameter, without those that are frozen; zero where one is not used.
        """
        names = [name for name in self.params if name not in self.forward.frozen]
        differentiate = (
            self._written_out if self.forward.strategy == "stacked" else self._by_autograd
        )
        with torch.enable_grad():
            losses, found = differentiate(inputs, judge, penalty, names)
        return losses.detach(), {name: found[name] for name in names}

    def _by_autograd(
        self, inputs: Sequence[Tensor], judge: Judge, penalty: Tensor | None, names: Sequence[str]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        leaves = {
            name: value.detach().requires_grad_(name in names)
            for name, value in self.params.items()
        }
        first, *others = inputs
        if penalty is not None:
            first = first.detach().requires_grad_()
        losses, objective = judge(*[self.forward(leaves, x) for x in (first, *others)])
        if penalty is not None:
            (slope,) = torch.autograd.grad(losses.sum(), first, create_graph=True)
            objective = objective + penalty * slope.square().flatten(2).sum(2).mean(1)
        found = torch.autograd.grad(
            objective.sum(),
            [leaves[name] for name in names],
            allow_unused=True,
            materialize_grads=True,
        )
        return losses, dict(zip(names, found, strict=True))

    def _written_out(
        self, inputs: Sequence[Tensor], judge: Judge, penalty: Tensor | None, names: Sequence[str]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Do the same; autograd sees what the judge does with the outputs, and no layer."""
        points = [self.linearization(x) for x in inputs]
        outputs = [point.outputs.requires_grad_() for point in points]
        losses, objective = judge(*outputs)
        total = objective.sum()
        pulled: list[Tensor] = []
        pushed: list[Tensor] = []
        if penalty is not None:
            # The slope is s = J^T r. As s . s changes by 2 s . ds, it is differentiated as t . J^T
            # r with a constant t = 2 s.
            (rise,) = torch.autograd.grad(losses.sum(), outputs[0], create_graph=True)
            slope = points[0].pull(rise.detach(), pulled)
            strength = 2 / losses.shape[1] * penalty
            tangent = points[0].push(strength.view(-1, 1, 1) * slope, pushed)
            total = total + (rise * tangent).sum()
        cotangents = torch.autograd.grad(total, outputs, allow_unused=True, materialize_grads=True)
        found = points[0].gradients(cotangents[0], names, pulled=pulled, pushed=pushed)
        for point, cotangent in zip(points[1:], cotangents[1:], strict=True):
            more = point.gradients(cotangent, names)
            found = {name: value + more[name] for name, value in found.items()}
        return losses, found


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
        Takes a cotangent of the outputs back to one of the inputs, the gradient of
        ``(cotangent * outputs).sum()``; None if the outputs carry no gradient. It can be called
        once.
    """
    if isinstance(model, Networks) and model.forward.strategy == "stacked":
        point = model.linearization(x)
        return point.outputs, lambda cotangent: _of_inputs(point.pull(cotangent), x)
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        outputs = model(leaf)

    def pull(cotangent: Tensor) -> Tensor | None:
        if not outputs.requires_grad:
            return None
        return torch.autograd.grad(outputs, leaf, cotangent, allow_unused=True)[0]

    return outputs, pull


def _of_inputs(slope: Tensor, x: Tensor) -> Tensor:
    """Give what came back for (N, B, features) the shape of inputs, which all may share."""
    return (slope if slope.numel() == x.numel() else slope.sum(0)).reshape(x.shape)


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
