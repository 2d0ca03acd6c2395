"""What a network is asked for, and how its answers are judged: the class of an input, or numbers.

Everything that is trained, attacked or measured goes by three figures of a task: its loss, which is
the packet before normalisation; what an attack ascends; and whether an answer is right. `Dataset`
holds the task of its data.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, final, get_args

import torch
from torch import Tensor
from torch.nn import functional

from qwidgets.checks import one_of, positive
from qwidgets.domain import check_finite

if TYPE_CHECKING:
    from collections.abc import Iterable

RegressionLoss = Literal["squared", "absolute", "smooth_l1"]
LOSSES: tuple[RegressionLoss, ...] = get_args(RegressionLoss)
PerSample = Callable[[Tensor, Tensor], Tensor]


class Task(ABC):
    """How the outputs of networks are judged by what they should be.

    Outputs are ``(*leading, *output_shape)``, answers `y` ``(*leading, *target_shape)``.

    Attributes
    ----------
    target_shape : tuple of int
        Shape of one answer.
    words : str
        What its outputs are called.
    """

    words: str
    target_shape: tuple[int, ...]

    @abstractmethod
    def output_shape(self, classes: int) -> tuple[int, ...]:
        """Shape of what a network gives for one input, on data of so many classes."""

    @property
    @abstractmethod
    def loss_unit(self) -> str:
        """Unit of the loss."""

    @abstractmethod
    def losses(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Loss of each output, (*leading), not negative."""

    def climbed(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Return what an attack ascends, (*leading): it rises with the loss."""
        return self.losses(outputs, y)

    def rise(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Gradient of what an attack ascends with respect to the outputs, of their shape."""
        with torch.enable_grad():
            outputs = outputs.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(self.climbed(outputs, y).sum(), outputs)
        return gradient

    @abstractmethod
    def is_right(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Whether each output is right, (*leading) bool; one that is NaN is not."""

    @abstractmethod
    def better_than_chance(self, parts: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
        """Whether outputs are better than the best that is the same for all inputs.

        Parameters
        ----------
        parts : iterable of (outputs, y)
            Outputs ``(N, B, ...)`` of N networks and answers ``(B, ...)``, minibatch by minibatch.

        Returns
        -------
        torch.Tensor, (N,) bool
        """

    @abstractmethod
    def checked(self, y: Tensor) -> Tensor:
        """Return answers in the dtype that they are compared in, or refuse them."""

    @abstractmethod
    def check(self, outputs: Tensor, y: Tensor) -> None:
        """Refuse outputs that cannot be judged by these answers."""

    @property
    def facts(self) -> dict[str, Any]:
        """What identifies the task, as JSON takes it; nothing for the classes that are usual."""
        return {}

    def leading(self, y: Tensor) -> torch.Size:
        """Shape of answers without that of one of them."""
        return y.shape[: y.ndim - len(self.target_shape)]


@final
@dataclass(frozen=True)
class Classification(Task):
    """Name the class: outputs are logits, answers integers, the loss is the cross-entropy."""

    target_shape: tuple[int, ...] = ()
    words = "logits"

    def output_shape(self, classes: int) -> tuple[int, ...]:
        """One logit for each class."""
        return (classes,)

    @property
    def loss_unit(self) -> str:
        """Of the cross-entropy."""
        return "nat"

    def losses(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Cross-entropy; log(1 + odds) keeps its relative precision far below machine epsilon."""
        return functional.softplus(log_odds_against(outputs, y), threshold=40.0)

    def climbed(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Log odds against the label, whose gradient no saturated softmax flattens."""
        return log_odds_against(outputs, y)

    def rise(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Return the softmax of the other logits, less that of y: so the log odds rise."""
        index = y.unsqueeze(-1)
        others = outputs.scatter(-1, index, -torch.inf)
        return along_rows(torch.softmax, others).scatter_(-1, index, -1.0)

    def is_right(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Whether the label has the largest logit."""
        # argmax takes NaN for the largest value, which would score a diverged network's first
        # class.
        return (outputs.argmax(-1) == y) & ~outputs.isnan().any(-1)

    def better_than_chance(self, parts: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
        """Whether more labels are named right than by always naming the commonest."""
        right, labels = [], []
        for outputs, y in parts:
            right.append((outputs.argmax(-1) == y).sum(-1))
            labels.append(y)
        return torch.stack(right).sum(0) > torch.cat(labels).bincount().max()

    def checked(self, y: Tensor) -> Tensor:
        """Integers from 0 on."""
        if y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
            message = (
                f"y must hold integer labels, got {y.dtype}; convert it with y.long(), or pass "
                "task=qw.Regression(...) for targets that are numbers."
            )
            raise TypeError(message)
        if y.numel() and int(y.min()) < 0:
            message = f"y must hold labels from 0 on, got {int(y.min())}."
            raise ValueError(message)
        return y.long()

    def check(self, outputs: Tensor, y: Tensor) -> None:
        """Logits of at least two classes, among them those of the labels."""
        if outputs.shape[:-1] != y.shape or outputs.shape[-1] <= 1:
            message = (
                f"model must return logits of shape {(*y.shape, 'classes')} with at least two "
                f"classes, got {tuple(outputs.shape)}."
            )
            raise ValueError(message)
        largest = int(y.max())
        if largest >= outputs.shape[-1]:
            message = (
                f"y must hold labels in 0..{outputs.shape[-1] - 1}, the classes of the model, "
                f"got {largest}."
            )
            raise ValueError(message)


CLASSIFICATION = Classification()


@final
@dataclass(frozen=True, kw_only=True)
class Regression(Task):
    """Name numbers: outputs and targets have one shape, a scalar's or that of a field.

    Parameters
    ----------
    target_shape : tuple of int
        Shape of one target: ``(1,)`` for a number, ``(1, 16, 16)`` for a field.
    tolerance : float
        An output is right where the root of its mean squared error, over the coordinates of the
        target, is at most this; positive, in target units. It takes the place of naming the right
        class: accuracies are shares of inputs that are predicted within it.
    loss : {"squared", "absolute", "smooth_l1"} or callable
        What is trained, attacked and read as a packet: the mean over the coordinates of the target
        of ``e^2``, ``|e|`` or (``smooth_l1``) ``e^2 / 2`` up to 1 and ``|e| - 1/2`` beyond, e the
        error in target units; or a function ``loss(outputs (n, *target_shape), targets) -> (n,)``,
        differentiable and not negative.
    unit : str
        Unit of the target, for people.

    Raises
    ------
    ValueError
        A tolerance that is not positive, an unknown loss, a shape that is none.
    TypeError
        A loss that is neither a name nor callable, a tolerance that is no number.

    Examples
    --------
    >>> import torch, qwidgets as qw
    >>> task = qw.Regression(target_shape=(1,), tolerance=0.5, unit="K")
    >>> task.losses(torch.tensor([[2.0]]), torch.tensor([[5.0]]))
    tensor([9.])
    """

    target_shape: tuple[int, ...]
    tolerance: float
    loss: RegressionLoss | PerSample = "squared"
    unit: str = ""
    words = "outputs"

    def __post_init__(self) -> None:
        shape: object = self.target_shape
        if not (
            isinstance(shape, tuple)
            and shape
            and all(isinstance(side, int) and side >= 1 for side in shape)
        ):
            message = (
                f"target_shape must be a tuple of one or more positive integers, got {shape!r}; a "
                "single number has the shape (1,)."
            )
            raise ValueError(message)
        meaning = "the error up to which an output counts as right, in the unit of the target"
        # Python's own, the only ones that JSON takes: sweeps are saved with them.
        vars(self).update(
            tolerance=positive(self.tolerance, "tolerance", meaning), unit=str(self.unit)
        )
        given: object = self.loss
        if isinstance(given, str):
            one_of("loss", given, LOSSES, "a function (outputs, targets) -> (n,) is taken too")
        elif not callable(given):
            message = (
                f"loss must be a name or a function, got {type(given).__name__}; pass "
                "loss(outputs, targets) -> (n,)."
            )
            raise TypeError(message)

    def output_shape(self, classes: int) -> tuple[int, ...]:
        """Take that of the target."""
        del classes
        return self.target_shape

    @property
    def loss_unit(self) -> str:
        """The target's, or its square."""
        if self.loss == "squared":
            return f"{self.unit}^2" if self.unit else "1"
        return (self.unit or "1") if isinstance(self.loss, str) else "1"

    @property
    def loss_name(self) -> str:
        """What the loss is called; a function by its module and name."""
        if isinstance(self.loss, str):
            return f"{self.loss.replace('_', ' ')} error"
        module, name = (getattr(self.loss, a, "") for a in ("__module__", "__qualname__"))
        return f"{module}.{name}"

    @property
    def facts(self) -> dict[str, Any]:
        """All parameters; a function by its name."""
        return {
            "loss": self.loss_name,
            "tolerance": self.tolerance,
            "unit": self.unit,
            "target_shape": list(self.target_shape),
        }

    def losses(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Mean over the coordinates of the target, or what the function of one's own says."""
        if callable(self.loss):
            return self._own(self.loss, outputs, y)
        error = outputs - y
        if self.loss == "squared":
            each = error.square()
        elif self.loss == "absolute":
            each = error.abs()
        else:
            each = functional.smooth_l1_loss(error, torch.zeros_like(error), reduction="none")
        return each.flatten(-len(self.target_shape)).mean(-1)

    def is_right(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Whether the root mean squared error is within the tolerance."""
        square = (outputs - y).square().flatten(-len(self.target_shape)).mean(-1)
        return square <= self.tolerance**2

    def better_than_chance(self, parts: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
        """Whether the loss is below that of the mean target."""
        outputs, targets = zip(*parts, strict=True)
        y = torch.cat(targets)
        losses = self.losses(torch.cat(outputs, 1), y.expand(len(outputs[0]), *y.shape))
        return losses.mean(1) < self.losses(y.mean(0).expand_as(y), y).mean()

    def checked(self, y: Tensor) -> Tensor:
        """Finite floating-point numbers of the target's shape."""
        if not y.is_floating_point():
            message = (
                f"y must hold targets in floating point, got {y.dtype}; convert with y.float()."
            )
            raise TypeError(message)
        if y.ndim < len(self.target_shape) or tuple(y.shape[len(self.leading(y)) :]) != (
            self.target_shape
        ):
            message = (
                f"y must hold targets of shape {self.target_shape}, got shape {tuple(y.shape)}; "
                "reshape it, or give the task another target_shape."
            )
            raise ValueError(message)
        check_finite(y, "y")
        return y

    def check(self, outputs: Tensor, y: Tensor) -> None:
        """Ask for outputs of the target's shape."""
        if outputs.shape != y.shape:
            message = (
                f"model must return outputs of the shape of the targets, {tuple(y.shape)}, got "
                f"{tuple(outputs.shape)}; match its last layer to target_shape."
            )
            raise ValueError(message)

    def _own(self, loss: PerSample, outputs: Tensor, y: Tensor) -> Tensor:
        leading = torch.broadcast_shapes(self.leading(outputs), self.leading(y))
        flat = [
            values.expand(*leading, *self.target_shape).reshape(-1, *self.target_shape)
            for values in (outputs, y)
        ]
        found: object = loss(*flat)
        count = len(flat[0])
        if not isinstance(found, Tensor) or tuple(found.shape) != (count,):
            message = (
                f"loss must return one number for each of the {count} outputs, shape ({count},), "
                f"got {tuple(getattr(found, 'shape', ())) or type(found).__name__}; take the mean "
                "over the coordinates of the target alone."
            )
            raise ValueError(message)
        return found.reshape(leading)


def along_rows(softmax: Callable[[Tensor, int], Tensor], logits: Tensor) -> Tensor:
    """Apply `torch.softmax` or `torch.log_softmax` to the last axis, (*leading, classes).

    PyTorch's kernels take many rows abreast if the classes are not innermost; with few classes this
    takes a fraction of the time.
    """
    columns = logits.unsqueeze(0).mT.contiguous()
    return softmax(columns, -2).mT.squeeze(0)


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
