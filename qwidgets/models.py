"""Networks, and how many of them run as one program.

`build_model` makes a small classifier for a data set from an explicit seed. `stack_parameters`
puts N networks of one architecture side by side, every tensor with a leading axis N, and
`batched_forward` evaluates them together. `packet_loss` turns a network into the loss function
whose uncertainty is measured.
"""

from __future__ import annotations

import difflib
import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, final

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from qwidgets.data import Dataset

Strategy = Literal["stacked", "vmap", "loop"]

# Up to this side the first convolution keeps every pixel.
_LARGEST_SMALL_IMAGE = 16


def build_model(name: str, data: Dataset, *, seed: int = 0) -> nn.Module:
    """Build an untrained classifier that fits the inputs and classes of a data set.

    Parameters
    ----------
    name : str
        ``"mlp"``: two hidden layers of 128 rectified units. ``"conv"``: 3 x 3 convolutions of
        16, 16 and 32 rectified channels, the last with stride 2 (the first too where images are
        larger than 16 pixels), and a linear head; inputs must be images.
    data : Dataset
        Gives the input shape and the number of classes.
    seed : int
        Seed of the initial parameters; the global random state is neither read nor changed.

    Returns
    -------
    torch.nn.Module
        Maps ``(n, *data.input_shape)`` float32 to logits ``(n, classes)`` float32, on the CPU.

    Raises
    ------
    ValueError
        Unknown name, or inputs that the architecture cannot take.
    """
    if name not in _ARCHITECTURES:
        near = difflib.get_close_matches(str(name), _ARCHITECTURES, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        known = ", ".join(repr(known) for known in _ARCHITECTURES)
        message = f"model must be one of {known}, got {name!r}{hint}."
        raise ValueError(message)
    # On the meta device no layer draws its initial values: the global generator stays untouched.
    with torch.device("meta"):
        model = _ARCHITECTURES[name](data.input_shape, data.classes)
    model.to_empty(device="cpu")
    _initialise(model, torch.Generator().manual_seed(seed))
    return model


def _mlp(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    width = 128
    return nn.Sequential(
        # Counted from the end, so that the layer tells how many axes one input has.
        nn.Flatten(start_dim=-len(input_shape)),
        nn.Linear(math.prod(input_shape), width, dtype=torch.float32),
        nn.ReLU(),
        nn.Linear(width, width, dtype=torch.float32),
        nn.ReLU(),
        nn.Linear(width, classes, dtype=torch.float32),
    )


def _conv(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    axes = ("channels", "height", "width")
    if len(input_shape) != len(axes):
        message = (
            f"model 'conv' needs images of shape ({', '.join(axes)}), "
            f"got inputs of shape {input_shape}; use model='mlp'."
        )
        raise ValueError(message)
    channels, height, width = input_shape
    layers: list[nn.Module] = []
    first_stride = 2 if min(height, width) > _LARGEST_SMALL_IMAGE else 1
    for features, stride in ((16, first_stride), (16, 1), (32, 2)):
        layers += [
            nn.Conv2d(channels, features, 3, stride=stride, padding=1, dtype=torch.float32),
            nn.ReLU(),
        ]
        channels, height, width = features, -(-height // stride), -(-width // stride)
    head = nn.Linear(channels * height * width, classes, dtype=torch.float32)
    return nn.Sequential(*layers, nn.Flatten(start_dim=-3), head)


_ARCHITECTURES: dict[str, Callable[[tuple[int, ...], int], nn.Module]] = {
    "mlp": _mlp,
    "conv": _conv,
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
    """

    def __init__(self, model: nn.Module, input_ndim: int, strategy: Strategy) -> None:
        self._model = model
        self._input_ndim = input_ndim
        self.strategy: Strategy = strategy

    @property
    def input_layer(self) -> str | None:
        """Name of the linear layer that takes the flattened inputs, None where there is none."""
        if self.strategy != "stacked":
            return None
        for name, layer in self._model.named_modules(remove_duplicate=False):
            if isinstance(layer, nn.Linear | nn.ReLU):
                return name if isinstance(layer, nn.Linear) else None
        return None

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
        torch.Tensor, (N, B, classes)
            Logits.
        """
        networks = len(next(iter(params.values())))
        extra = x.ndim - 1 - self._input_ndim
        if extra not in {0, 1} or (extra and x.shape[0] != networks):
            message = (
                f"x must have shape (B, *input_shape) or ({networks}, B, *input_shape) with "
                f"{self._input_ndim} axes in input_shape, got {tuple(x.shape)}."
            )
            raise ValueError(message)
        shared = extra == 0
        if self.strategy == "stacked":
            return self._stacked(params, x, shared=shared)
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

    def _one(self, params: dict[str, Tensor], x: Tensor) -> Tensor:
        logits: Tensor = torch.func.functional_call(self._model, params, (x,))
        return logits

    def _stacked(self, params: Mapping[str, Tensor], x: Tensor, *, shared: bool) -> Tensor:
        # Every layout of these products measures the same, the arithmetic takes the time: the plain
        # one is (N, B, features).
        hidden = x.flatten(-self._input_ndim)
        if shared:
            hidden = hidden.expand(len(next(iter(params.values()))), -1, -1)
        for name, layer in self._model.named_modules(remove_duplicate=False):
            if isinstance(layer, nn.ReLU):
                hidden = hidden.relu()
            elif isinstance(layer, nn.Linear):
                weight = params[f"{name}.weight"].transpose(1, 2)
                bias = params.get(f"{name}.bias")
                if bias is None:
                    hidden = torch.bmm(hidden, weight)
                else:
                    hidden = torch.baddbmm(bias.unsqueeze(1), hidden, weight)
        return hidden


def batched_forward(model: nn.Module, input_shape: tuple[int, ...] | None = None) -> BatchedForward:
    """Prepare an architecture for evaluating many networks as one program.

    The strategy follows from the architecture and the device alone, so that reruns are
    bit-identical: a `Sequential` of `Flatten`, `Linear` and `ReLU` is ``"stacked"``; a model with
    convolutions is a ``"loop"`` on the CPU, where batching them costs time; the rest is ``"vmap"``.

    Parameters
    ----------
    model : torch.nn.Module
        The architecture; only its structure and device are used. It must hold no buffers (running
        statistics), which N networks cannot share.
    input_shape : tuple of int, optional
        Shape of one input. May be left out where the first layer tells how many axes an input
        has: every network of `build_model`, and any that begins with `Linear` or `Conv2d`.

    Returns
    -------
    BatchedForward
        Callable ``(params, x) -> logits (N, B, classes)``.

    Raises
    ------
    TypeError
        `model` is not a `torch.nn.Module`.
    ValueError
        The model has buffers or no parameters, or the number of input axes cannot be told.
    """
    model = _checked_module(model)
    buffers = [name for name, _ in model.named_buffers()]
    if buffers:
        message = (
            f"model must have no buffers, got {buffers[0]!r}: networks trained together cannot "
            "share running statistics; replace BatchNorm by GroupNorm or LayerNorm."
        )
        raise ValueError(message)
    parameter = next(model.parameters(), None)
    if parameter is None:
        message = "model must have parameters to stack, got a model with none."
        raise ValueError(message)
    ndim = _input_ndim(model, input_shape)
    strategy: Strategy = "vmap"
    if _is_perceptron(model, ndim):
        strategy = "stacked"
    elif parameter.device.type == "cpu" and any(
        isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d) for layer in model.modules()
    ):
        strategy = "loop"
    return BatchedForward(model, ndim, strategy)


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


def log_odds_against(logits: Tensor, y: Tensor) -> Tensor:
    """Log odds against the label, ``log((1 - p_y) / p_y)`` with p the softmax of the logits.

    Computed as ``logsumexp_{k != y} z_k - z_y``, which no saturation flattens. The cross-entropy is
    its softplus, so its gradient is the gradient of the cross-entropy divided by ``1 - p_y``.

    Parameters
    ----------
    logits : torch.Tensor, (*leading, classes), at least two classes
    y : torch.Tensor, (*leading,) int64

    Returns
    -------
    torch.Tensor, (*leading,)
        In nats, dtype of the logits.
    """
    index = y.unsqueeze(-1)
    others = logits.scatter(-1, index, -torch.inf).logsumexp(-1)
    return others - logits.gather(-1, index).squeeze(-1)


def packet_loss(
    model: nn.Module, label: int, input_shape: tuple[int, ...]
) -> Callable[[Tensor], Tensor]:
    """Read a network as the loss function of one label: the packet before normalisation.

    ``l(x) = -log softmax(f(x))[label]``, the cross-entropy in nats, with the network in eval mode.
    The network computes in the dtype and on the device of its parameters, the cross-entropy in
    float64.

    Parameters
    ----------
    model : torch.nn.Module
        Maps ``(n, *input_shape)`` to logits ``(n, classes)``.
    label : int
        The fixed label Y.
    input_shape : tuple of int
        Shape of one input; ``d = prod(input_shape)``.

    Returns
    -------
    callable
        ``loss((n, d) tensor) -> (n,) float64 tensor`` on the device of its argument,
        differentiable.

    Raises
    ------
    TypeError
        `model` is not a `torch.nn.Module`, `label` not an integer.
    ValueError
        `label` is not a class of the model, or the model cannot take inputs of that shape.

    References
    ----------
    Zhang et al., "On the uncertainty principle of neural networks", arXiv 2205.01493.
    """
    if isinstance(label, bool) or not hasattr(label, "__index__"):
        message = f"label must be an integer, got {label!r}."
        raise TypeError(message)
    model = _checked_module(model)
    parameter = next(model.parameters(), torch.empty(0))
    size = math.prod(input_shape)

    def loss(x: Tensor) -> Tensor:
        if tuple(x.shape[1:]) != (size,):
            message = f"x must have shape (n, {size}), got {tuple(x.shape)}."
            raise ValueError(message)
        inputs = x.to(parameter.device, parameter.dtype).reshape(-1, *input_shape)
        with evaluating(model):
            logits = model(inputs).double()
        labels = torch.full(x.shape[:1], label, device=logits.device)
        # log(1 + odds) keeps its relative precision where the loss is far below machine epsilon.
        odds = log_odds_against(logits, labels)
        return torch.nn.functional.softplus(odds, threshold=40.0).to(x.device)

    with torch.no_grad(), evaluating(model):
        probe = torch.zeros((1, *input_shape), device=parameter.device, dtype=parameter.dtype)
        classes = model(probe).shape[-1]
    if not 0 <= label < classes:
        message = f"label must be in 0..{classes - 1}, the classes of the model, got {label}."
        raise ValueError(message)
    return loss
