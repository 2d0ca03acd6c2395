"""Adversarial attacks: the threat model, FGSM, PGD and robust accuracy.

An attack moves an input inside a ball of radius epsilon around its clean value, and inside the
valid range of inputs, so that the network errs. One implementation serves a single network,
``x (B, *shape) -> logits (B, C)`` with labels ``(B,)``, and an ensemble evaluated as one program,
``x (N, B, *shape) -> logits (N, B, C)`` with labels ``(N, B)``. The networks of an ensemble start
from the same random point for the same image, so that only the networks make a difference. What
erring means is the task's to say (`qwidgets.tasks`): by default to name another class, in a
regression to be far off.

Results lie in the ball and in the range without tolerance, and an epsilon of 0 gives the input back
bit for bit.

References
----------
Goodfellow, Shlens, Szegedy, "Explaining and harnessing adversarial examples", arXiv 1412.6572
(FGSM). Madry et al., "Towards deep learning models resistant to adversarial attacks",
arXiv 1706.06083 (PGD).
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Self, final

import numpy as np
import torch
from torch import Tensor, nn

from qwidgets.checks import interval, one_of, random_seed, whole
from qwidgets.domain import check_inside
from qwidgets.ensemble import linearized
from qwidgets.models import evaluating
from qwidgets.tasks import CLASSIFICATION, Task, along_rows

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

Model = Callable[[Tensor], Tensor]

# So many sizes a batch may shrink through while inputs are broken.
_SIZES = 32


class Ball(ABC):
    """The threat model: a ball around every input, cut to the valid range.

    Parameters
    ----------
    center : torch.Tensor, (*leading, *shape) float32 or float64
        Clean inputs, inside `value_range`.
    epsilon : torch.Tensor, (*leading) float64
        Radius around each input, in input units.
    value_range : (float, float)
        Smallest and largest valid value of an input coordinate.
    """

    def __init__(self, center: Tensor, epsilon: Tensor, value_range: tuple[float, float]) -> None:
        self.center = center
        self.epsilon = epsilon
        self.value_range = value_range

    def spread(self, values: Tensor) -> Tensor:
        """Give values of shape (*leading) trailing axes, to broadcast against the inputs."""
        return values.reshape(values.shape + (1,) * (self.center.ndim - values.ndim))

    def take(self, columns: Tensor) -> Self:
        """Keep some inputs: `columns` (*leading[:-1], K) int64 are indices on the batch axis."""
        kept = copy.copy(self)
        kept.center = take(self.center, columns)
        kept.epsilon = self.epsilon.gather(-1, columns)
        return kept

    def random_start(self, generator: torch.Generator, copies: int = 1) -> Tensor:
        """Draw a random point of every ball, (*leading, *shape), and cut it to the range.

        The draw is made once per position on the batch axis and shared by all networks. A batch
        that holds the same inputs in several `copies`, one set after the other, gets for each copy
        of an input the same relative position.
        """
        count, *shape = self.center.shape[self.epsilon.ndim - 1 :]
        offset = self._unit_offset(torch.Size([count // copies, *shape]), generator)
        offset = offset.repeat(copies, *[1] * len(shape)).to(self.center.device)
        return self.project(self.center + self.spread(self.epsilon).to(offset.dtype) * offset)

    @abstractmethod
    def project(self, x: Tensor) -> Tensor:
        """Bring points (*leading, *shape) into the ball and the range; idempotent."""

    @abstractmethod
    def ascend(self, x: Tensor, gradient: Tensor, step_size: Tensor) -> Tensor:
        """Move by `step_size` (*leading) in the steepest direction of the norm, then project."""

    @abstractmethod
    def _unit_offset(self, shape: torch.Size, generator: torch.Generator) -> Tensor:
        """Random points of the unit ball, one for each index on axis 0."""


@final
class LinfBall(Ball):
    """Every coordinate changes by at most epsilon."""

    def __init__(self, center: Tensor, epsilon: Tensor, value_range: tuple[float, float]) -> None:
        super().__init__(center, epsilon, value_range)
        # Rounded down to the dtype first: else a difference taken in it may round up past it.
        radius = _displaced(center.new_zeros(()), self.spread(epsilon))
        self.lower = _at_most(center, -radius, torch.gt).clamp_(min=value_range[0])
        self.upper = _at_most(center, radius, torch.lt).clamp_(max=value_range[1])

    def take(self, columns: Tensor) -> Self:
        """Keep some inputs, and their intervals as they are."""
        kept = super().take(columns)
        kept.lower, kept.upper = take(self.lower, columns), take(self.upper, columns)
        return kept

    def project(self, x: Tensor) -> Tensor:
        """Cut every coordinate to its interval."""
        return x.clamp(self.lower, self.upper)

    def ascend(self, x: Tensor, gradient: Tensor, step_size: Tensor) -> Tensor:
        """Move every coordinate by the step, along the sign of the gradient, then project."""
        step = self.spread(step_size).to(x.dtype)
        moved = gradient.sign()
        return torch.addcmul(x, step, moved, out=moved).clamp_(self.lower, self.upper)

    def _unit_offset(self, shape: torch.Size, generator: torch.Generator) -> Tensor:
        device, dtype = generator.device, self.center.dtype
        return 2 * torch.rand(shape, generator=generator, device=device, dtype=dtype) - 1


@final
class L2Ball(Ball):
    """The Euclidean length of the change is at most epsilon."""

    def project(self, x: Tensor) -> Tensor:
        """Shorten the change to the radius, then cut to the range; cutting lengthens nothing."""
        # A hair inside the radius, so that lengths summed in the dtype of x stay below it too.
        hair = 16 * torch.finfo(x.dtype).eps
        offset = x.double() - self.center.double()
        length = self._length(offset)
        radius = self.spread(self.epsilon)
        shrunk = _displaced(self.center, offset * (radius * (1 - 2 * hair) / length))
        inside = length <= radius * (1 - hair)
        return torch.where(inside, x, shrunk).clamp(*self.value_range)

    def ascend(self, x: Tensor, gradient: Tensor, step_size: Tensor) -> Tensor:
        """Move along the unit vector of the gradient, then project; stay where it vanishes."""
        gradient = gradient.nan_to_num()
        axes = tuple(range(self.epsilon.ndim, gradient.ndim))
        # Scaled to a largest entry of 1 first: squares of tiny gradients would underflow.
        gradient = gradient / gradient.abs().amax(axes, keepdim=True)
        gradient = (gradient / self._length(gradient)).nan_to_num()
        return self.project(x + self.spread(step_size).to(x.dtype) * gradient)

    def _length(self, offset: Tensor) -> Tensor:
        axes = tuple(range(self.epsilon.ndim, offset.ndim))
        length: Tensor = torch.linalg.vector_norm(offset, dim=axes, keepdim=True)
        return length

    def _unit_offset(self, shape: torch.Size, generator: torch.Generator) -> Tensor:
        device, dtype = generator.device, self.center.dtype
        normal = torch.randn(shape, generator=generator, device=device, dtype=dtype).flatten(1)
        # Uniform in length, not in volume: nearly all volume lies at the surface in many
        # dimensions, and from there the way to the worst case is longest.
        radius = torch.rand((shape[0], 1), generator=generator, device=device, dtype=dtype)
        return (radius * torch.nn.functional.normalize(normal)).reshape(shape)


_BALLS: dict[str, type[Ball]] = {"linf": LinfBall, "l2": L2Ball}


def take(values: Tensor, columns: Tensor) -> Tensor:
    """Take from values (*leading, B, ...) those at `columns` (*leading, K) of the batch axis."""
    axis = columns.ndim - 1
    each = columns.flatten(0, axis - 1) if axis else columns.unsqueeze(0)
    first = values.shape[axis] * torch.arange(len(each), device=columns.device).unsqueeze(1)
    taken = values.flatten(0, axis).index_select(0, (each + first).flatten())
    return taken.view(*columns.shape, *values.shape[axis + 1 :])


def _displaced(center: Tensor, displacement: Tensor) -> Tensor:
    """Add a float64 displacement and round to the dtype of the center, never further away."""
    moved = (center.double() + displacement).to(center.dtype)
    too_far = (moved.double() - center.double()).abs() > displacement.abs()
    return torch.where(too_far, torch.nextafter(moved, center), moved)


def _at_most(
    center: Tensor, displacement: Tensor, beyond: Callable[[Tensor, int], Tensor]
) -> Tensor:
    """Add a displacement of the same dtype and round, never further away; as `_displaced`.

    What rounding left out of the sum is known exactly (Knuth's two-sum). Its sign, `beyond` zero
    against the displacement, tells what would take numbers twice as wide to see.
    """
    moved = center + displacement
    added = moved - center
    left_out = torch.sub(moved, added)
    torch.sub(center, left_out, out=left_out)
    left_out += torch.sub(displacement, added, out=added)
    return torch.where(beyond(left_out, 0), torch.nextafter(moved, center), moved)


def fgsm(
    model: Model,
    x: Tensor | ArrayLike,
    y: Tensor | ArrayLike,
    epsilon: float | Tensor,
    *,
    value_range: tuple[float, float] = (0.0, 1.0),
    task: Task = CLASSIFICATION,
) -> Tensor:
    """Fast gradient sign method: one step of length epsilon in the l-infinity norm.

    ``x + epsilon sign(grad_x l(f(x), y))``, cut to the valid range, l the cross-entropy or the loss
    of the task.

    Parameters
    ----------
    model, x, y, epsilon, value_range, task
        As for `pgd`.

    Returns
    -------
    torch.Tensor, (*leading, *shape)
        Attacked inputs, detached.

    Raises
    ------
    TypeError, ValueError
        As for `pgd`.

    References
    ----------
    Goodfellow, Shlens, Szegedy, arXiv 1412.6572.
    """
    x, y, leading = _checked_inputs(model, x, y, value_range, task)
    radius = _checked_radius("epsilon", epsilon, leading, x)
    ball = LinfBall(x, radius, value_range)
    with evaluating(model):
        return _ascended(model, ball, x, y, radius, 1, task)


def pgd(
    model: Model,
    x: Tensor | ArrayLike,
    y: Tensor | ArrayLike,
    epsilon: float | Tensor,
    *,
    norm: str = "linf",
    steps: int = 10,
    step_size: float | Tensor | None = None,
    random_start: bool = True,
    value_range: tuple[float, float] = (0.0, 1.0),
    seed: int | torch.Generator = 0,
    task: Task = CLASSIFICATION,
) -> Tensor:
    """Projected gradient descent: repeated steepest-ascent steps on the loss inside the ball.

    Each step moves along ``sign(g)`` (linf) or ``g / |g|`` (l2), g the gradient of the
    cross-entropy (or of the loss of the task), and projects back to the ball and the valid range.
    Only the direction of g counts, so with labels it is taken from the log odds against the label,
    which point the same way as the cross-entropy and do not vanish where the softmax saturates.

    Parameters
    ----------
    model : callable
        Logits ``(*leading, classes)`` of inputs ``(*leading, *shape)``; of a regression, outputs of
        the shape of `y`. A `torch.nn.Module` is
        attacked in eval mode and given its modes back; gradients of its parameters stay untouched.
    x : torch.Tensor or array_like, (*leading, *shape)
        Clean inputs. For a module they are moved to the device and dtype of its parameters.
    y : torch.Tensor or array_like, (*leading) integers or (*leading, *target_shape) floats
        Labels; ``(B,)`` for a single network, ``(N, B)`` or ``(1, B)`` for an ensemble. Of a
        regression the targets.
    epsilon : float or torch.Tensor
        Radius in input units, broadcast against `leading`: ``(N, 1)`` is a radius for each network.
        Inputs of radius 0 come back bit for bit.
    norm : {"linf", "l2"}
        Norm of the ball.
    steps : int
        Number of steps, at least 1.
    step_size : float or torch.Tensor, optional
        Length of a step in the same norm, by default ``2.5 * epsilon / steps``.
    random_start : bool
        Start from a random point of the ball, by default, or from the clean input. It is uniform in
        linf; in l2 its direction is uniform and its distance is.
    value_range : (float, float)
        Smallest and largest valid value of an input coordinate.
    seed : int or torch.Generator
        Source of the random start.
    task : Task
        What the network is asked for, by default the class; a `qwidgets.Regression` for targets
        that are numbers (``data.task`` of a data set).

    Returns
    -------
    torch.Tensor, (*leading, *shape)
        The last iterate, detached: within epsilon of `x` and within `value_range`, without
        tolerance.

    Raises
    ------
    TypeError
        Inputs or targets that are not floating, labels that are not integers, a number or a task
        that is none.
    ValueError
        Epsilon or step size negative or not finite, fewer than one step, a seed outside 0 to
        2^63 - 1, inputs outside `value_range`, NaN, shapes that do not match, labels that are not
        classes of the model, an unknown norm, a model whose output gives no gradient.

    References
    ----------
    Madry et al., arXiv 1706.06083.
    """
    x, y, leading = _checked_inputs(model, x, y, value_range, task)
    radius = _checked_radius("epsilon", epsilon, leading, x)
    steps = whole(steps, "steps", 1, "raise it")
    stride = _stride(step_size, radius, steps, leading, x)
    ball = _checked_norm(norm)(x, radius, value_range)
    start = ball.random_start(_generator(seed)) if random_start else x
    with evaluating(model):
        return _ascended(model, ball, start, y, stride, steps, task)


def kl_pgd(
    model: Model,
    x: Tensor,
    epsilon: float | Tensor,
    *,
    norm: str = "linf",
    steps: int = 10,
    step_size: float | Tensor | None = None,
    value_range: tuple[float, float] = (0.0, 1.0),
    seed: int | torch.Generator = 0,
) -> Tensor:
    """PGD away from the model's own prediction: the inner maximisation of TRADES.

    Ascends ``KL(softmax f(x) || softmax f(x'))`` over x' in the ball around x, from a random point
    of it (at x itself the gradient vanishes).

    Parameters
    ----------
    model, x, epsilon, norm, steps, step_size, value_range, seed
        As for `pgd`; there are no labels, so `epsilon` is broadcast against the shape of the logits
        without their last axis.

    Returns
    -------
    torch.Tensor, (*leading, *shape)
        The last iterate, detached, as for `pgd`.

    Raises
    ------
    TypeError, ValueError
        As for `pgd`.

    References
    ----------
    Zhang et al., "Theoretically principled trade-off between robustness and accuracy",
    arXiv 1901.08573.
    """
    with evaluating(model):
        with torch.no_grad():
            prediction = along_rows(torch.softmax, model(x))
        x, y, leading = _checked_inputs(
            model, x, prediction.argmax(-1), value_range, CLASSIFICATION
        )
        radius = _checked_radius("epsilon", epsilon, leading, x)
        steps = whole(steps, "steps", 1, "raise it")
        ball = _checked_norm(norm)(x, radius, value_range)
        start = ball.random_start(_generator(seed))
        stride = _stride(step_size, radius, steps, leading, x)
        return _ascended(model, ball, start, y, stride, steps, CLASSIFICATION, prediction)


def _stride(
    step_size: float | Tensor | None, radius: Tensor, steps: int, leading: torch.Size, x: Tensor
) -> Tensor:
    if step_size is None:
        return 2.5 * radius / steps
    return _checked_radius("step_size", step_size, leading, x)


def _ascended(
    model: Model,
    ball: Ball,
    start: Tensor,
    y: Tensor,
    step_size: Tensor,
    steps: int,
    task: Task,
    prediction: Tensor | None = None,
) -> Tensor:
    x = start
    for _ in range(steps):
        _, gradient = _outputs_and_gradient(model, x, y, task, prediction)
        x = ball.ascend(x, gradient, step_size)
    return torch.where(ball.spread(ball.epsilon) == 0, ball.center, x)


def robust_accuracy(
    model: Model,
    x: Tensor | ArrayLike,
    y: Tensor | ArrayLike,
    epsilons: ArrayLike,
    *,
    norm: str = "linf",
    steps: int = 10,
    value_range: tuple[float, float] = (0.0, 1.0),
    batch_size: int = 512,
    seed: int | torch.Generator = 0,
    task: Task = CLASSIFICATION,
) -> NDArray[np.float64]:
    """Fraction of inputs still classified correctly under PGD, at each attack radius.

    In a regression an output within the tolerance of the task takes the place of the right class.
    An input counts as broken at a radius if the clean input or any iterate of the attack (its
    random start included) is misclassified, there or at a smaller radius, whose example is within
    reach as well. So the curve is non-increasing, and at radius 0 it is the clean accuracy.
    The random start has the same relative position in the ball at all radii, which takes its noise
    out of the comparison between radii. Outputs that are NaN are never right.

    Parameters
    ----------
    model, x, y, norm, steps, value_range, seed, task
        As for `pgd`.
    epsilons : array_like, (E,)
        Attack radii in input units, in any order.
    batch_size : int
        Inputs attacked at once, those at different radii counted apart (for each network of an
        ensemble); limits memory.

    Returns
    -------
    numpy.ndarray, (E,) or (N, E) for an ensemble, float64
        Robust accuracy in the order of `epsilons`. The binomial standard error of an entry a is
        ``sqrt(a (1 - a) / B)``.

    Raises
    ------
    TypeError, ValueError
        As for `pgd`; also for no radii.
    """
    right = withstands(
        model,
        x,
        y,
        epsilons,
        norm=norm,
        steps=steps,
        value_range=value_range,
        batch_size=batch_size,
        seed=seed,
        task=task,
    )
    accuracy: NDArray[np.float64] = right.mean(-1)
    return accuracy


def withstands(
    model: Model,
    x: Tensor | ArrayLike,
    y: Tensor | ArrayLike,
    epsilons: ArrayLike,
    *,
    norm: str = "linf",
    steps: int = 10,
    value_range: tuple[float, float] = (0.0, 1.0),
    batch_size: int = 512,
    seed: int | torch.Generator = 0,
    task: Task = CLASSIFICATION,
) -> NDArray[np.bool_]:
    """Say which inputs are still classified correctly under PGD, at each attack radius.

    Parameters
    ----------
    model, x, y, epsilons, norm, steps, value_range, batch_size, seed, task
        As for `robust_accuracy`, which is the mean of this over the inputs.

    Returns
    -------
    numpy.ndarray, (E, B) or (N, E, B) for an ensemble, bool
        In the order of `epsilons` and of the inputs.

    Raises
    ------
    TypeError, ValueError
        As for `robust_accuracy`.
    """
    x, y, leading = _checked_inputs(model, x, y, value_range, task)
    radii, place = np.unique(_checked_radii(epsilons), return_inverse=True)
    steps = whole(steps, "steps", 1, "raise it")
    batch_size = whole(batch_size, "batch_size", 1, "raise it")
    ball_type = _checked_norm(norm)
    generator = _generator(seed)
    axis = len(leading) - 1
    positive = torch.from_numpy(radii[radii > 0]).to(x.device)
    zero, copies = len(radii) - len(positive), max(1, len(positive))
    found: list[Tensor] = []
    with evaluating(model):
        for inputs, answers in zip(
            x.split(max(1, batch_size // copies), axis),
            y.split(max(1, batch_size // copies), axis),
            strict=True,
        ):
            right = task.is_right(_outputs(model, inputs, answers, task), answers)
            at_radii = [right.unsqueeze(-2)] * zero
            if len(positive):
                # All radii at once: more rows for a product, fewer steps.
                ball = ball_type(
                    _copied(inputs, axis, copies),
                    positive.repeat_interleave(inputs.shape[axis]).expand(*leading[:-1], -1),
                    value_range,
                )
                start = ball.random_start(generator, copies)
                at_radii.append(_survivors(model, ball, start, answers, right, steps, task))
            found.append(torch.cat(at_radii, -2).cpu())
    return torch.cat(found, -1).numpy()[..., place, :]


def _copied(values: Tensor, axis: int, copies: int) -> Tensor:
    """Repeat along the batch axis."""
    return values.repeat(*[1] * axis, copies, *[1] * (values.ndim - axis - 1))


def _survivors(
    model: Model, ball: Ball, x: Tensor, y: Tensor, right: Tensor, steps: int, task: Task
) -> Tensor:
    """Which inputs stay right at every iterate from x on, at each of E increasing radii.

    `ball` and `x` hold the inputs at the first radius, then at the second, and so on: their batch
    axis is E times as long as that of the answers `y` (*leading, B, ...) and of `right` (*leading,
    B), the inputs that are right in the first place. The result is (*leading, E, B) bool.
    """
    axis, count = right.ndim - 1, right.shape[-1]
    radii = ball.epsilon.shape[-1] // count
    alive = right.unsqueeze(-2).repeat(*[1] * axis, radii, 1)
    y = _copied(y, axis, radii)
    columns = torch.arange(radii * count, device=y.device).expand(ball.epsilon.shape)
    grain = max(1, radii * count // _SIZES)
    for step in range(steps + 1):
        now = alive.flatten(-2).gather(-1, columns)
        most = min(grain * math.ceil(int(now.sum(-1).max()) / grain), columns.shape[-1])
        if most == 0:
            break
        if most < columns.shape[-1]:
            # Broken inputs need no further attack. Every network keeps as many columns as the one
            # with most survivors, so that the batch stays rectangular; the surplus stays broken.
            # Only certain sizes occur: some kernels are compiled for each.
            keep = now.int().argsort(dim=-1, descending=True, stable=True)[..., :most]
            columns, now = columns.gather(-1, keep), now.gather(-1, keep)
            x, y, ball = take(x, keep), take(y, keep), ball.take(keep)
        if step == steps:
            outputs = _outputs(model, x, y, task)
        else:
            outputs, gradient = _outputs_and_gradient(model, x, y, task)
            x = ball.ascend(x, gradient, 2.5 * ball.epsilon / steps)
        survived = alive.flatten(-2).scatter(-1, columns, now & task.is_right(outputs, y))
        # An input broken at a radius is broken at all larger ones.
        alive = survived.view(alive.shape).cummin(-2).values
    return alive


def _outputs(model: Model, x: Tensor, y: Tensor, task: Task) -> Tensor:
    with torch.no_grad():
        outputs = model(x)
        task.check(outputs, y)
        return outputs


def _outputs_and_gradient(
    model: Model, x: Tensor, y: Tensor, task: Task, prediction: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return outputs at x and the gradient there of what an attack ascends, both detached.

    That is what the task says, or the divergence from a `prediction` (*leading, classes), where one
    is given.
    """
    outputs, pull = linearized(model, x)
    task.check(outputs, y)
    outputs = outputs.detach()
    if prediction is None:
        rise = task.rise(outputs, y)
    else:
        rise = along_rows(torch.softmax, outputs) - prediction
    gradient = pull(rise)
    if gradient is None:
        message = (
            f"model must compute its {task.words} from x with differentiable torch operations, got "
            f"{task.words} that carry no gradient to x; remove detach, no_grad or NumPy steps from "
            "it."
        )
        raise ValueError(message)
    return outputs, gradient


def _checked_inputs(
    model: Model,
    x: Tensor | ArrayLike,
    y: Tensor | ArrayLike,
    value_range: tuple[float, float],
    task: object,
) -> tuple[Tensor, Tensor, torch.Size]:
    """Check inputs and answers; give them as the model takes them, and their leading shape."""
    if not isinstance(task, Task):
        message = f"task must be a qwidgets.Regression, got {task!r}; leave it out for classes."
        raise TypeError(message)
    x, y = _tensor("x", x).detach(), _tensor("y", y)
    if x.dtype not in {torch.float32, torch.float64}:
        message = (
            f"x must be float32 or float64, got {x.dtype}; convert it, for images of bytes with "
            "x / 255."
        )
        raise TypeError(message)
    y = task.checked(y.detach())
    own = task.leading(y)
    if isinstance(model, nn.Module):
        parameter = next(model.parameters(), x)
        x = x.to(parameter.device, parameter.dtype)
    axes = len(own)
    fits = axes >= 1 and x.ndim > axes and x.shape[axes - 1] == own[-1]
    try:
        leading = torch.broadcast_shapes(x.shape[:axes], own)
    except RuntimeError:
        fits = False
    if not fits:
        message = (
            "x must have the shape of y followed by the shape of one input, got x "
            f"{tuple(x.shape)} with y {tuple(own)}; for an ensemble give y as (N, B) or (1, B)."
        )
        raise ValueError(message)
    if x.numel() == 0:
        message = f"x must hold at least one input, got shape {tuple(x.shape)}."
        raise ValueError(message)
    check_inside(x, "x", interval(value_range, "value_range", bounded=False))
    y = y.to(x.device, x.dtype) if y.is_floating_point() else y.to(x.device)
    y = y.expand(*leading, *y.shape[axes:])
    return x.expand(*leading, *x.shape[axes:]), y, leading


def _tensor(name: str, values: Tensor | ArrayLike) -> Tensor:
    try:
        # torch.tensor copies arrays: sharing memory with a read-only one would warn.
        return values if isinstance(values, Tensor) else torch.tensor(values)
    except (TypeError, ValueError, RuntimeError) as error:
        message = f"{name} must be a tensor or an array of numbers, but: {error}; pass one."
        raise TypeError(message) from error


def _checked_radius(name: str, value: float | Tensor, leading: torch.Size, x: Tensor) -> Tensor:
    """Broadcast a length to the leading shape, as float64."""
    try:
        radius = torch.as_tensor(value, dtype=torch.float64, device=x.device).detach()
    except (TypeError, ValueError, RuntimeError):
        message = f"{name} must be a number or a tensor, got {value!r}."
        raise TypeError(message) from None
    wrong = radius[~(radius.isfinite() & (radius >= 0))]
    if wrong.numel():
        message = f"{name} must be a finite number of at least 0, got {wrong[0].item()}."
        raise ValueError(message)
    try:
        return radius.expand(leading)
    except RuntimeError:
        message = (
            f"{name} must be a number or broadcast against y {tuple(leading)}, got shape "
            f"{tuple(radius.shape)}; one value for each network has shape (N, 1)."
        )
        raise ValueError(message) from None


def _checked_radii(epsilons: ArrayLike) -> NDArray[np.float64]:
    try:
        radii = np.asarray(epsilons, dtype=np.float64)
    except (TypeError, ValueError):
        message = f"epsilons must be numbers, got {epsilons!r}; pass a list of floats."
        raise TypeError(message) from None
    if radii.ndim != 1 or radii.size == 0:
        message = (
            "epsilons must be a one-dimensional array of at least one radius, got shape "
            f"{radii.shape}; write a single radius as [radius]."
        )
        raise ValueError(message)
    wrong = radii[~(np.isfinite(radii) & (radii >= 0))]
    if wrong.size:
        message = f"epsilons must be finite numbers of at least 0, got {wrong[0]}."
        raise ValueError(message)
    return radii


def _checked_norm(norm: str) -> type[Ball]:
    one_of("norm", norm, _BALLS)
    return _BALLS[norm]


def _generator(seed: int | torch.Generator) -> torch.Generator:
    if isinstance(seed, torch.Generator):
        return seed
    return torch.Generator().manual_seed(random_seed(seed))
