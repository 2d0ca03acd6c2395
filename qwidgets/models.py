"""One network of anyone's: evaluated, checked, wrapped to be measured, and as a loss.

`packet_loss` turns a network into the loss function whose uncertainty is measured, `measurable`
makes a copy that can be measured on a data set.
"""

from __future__ import annotations

import copy
import itertools
import math
import operator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch
from torch import Tensor, nn

from qwidgets.gate import pass_gate
from qwidgets.tasks import CLASSIFICATION, Task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import ArrayLike

    from qwidgets.data import Dataset

# Share of the largest output by which those of one input may differ where another is beside it.
_ALIKE = 1e-3


def with_tensors(model: nn.Module, tensors: Mapping[str, Tensor], x: Tensor) -> Tensor:
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


def checked_module(model: object) -> nn.Module:
    """Return a module, refusing anything else."""
    if not isinstance(model, nn.Module):
        message = (
            f"model must be a torch.nn.Module, got {type(model).__name__}; build_model makes one."
        )
        raise TypeError(message)
    return model


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
            layer.register_forward_hook(pass_both_ways)


def pass_both_ways(_layer: nn.Module, _inputs: object, output: object) -> None:
    """Pass the gate after a layer, and before its derivative: the hook of `gate_layers`."""
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
            outputs = with_tensors(model, single, inputs.to(parameter.device, torch.float32))
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
    model = checked_module(model)
    shape = tuple(input_shape)
    y, many = _fixed_labels(label) if task == CLASSIFICATION else _fixed_targets(label, task)
    try:
        with torch.no_grad():
            some = torch.rand((2, *shape), generator=torch.Generator().manual_seed(0))
            outputs = outputs_of(model, some)
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
        task.check(outputs[:1], y[:1])
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
