"""Domains: where a packet lives, and how points of a unit cube become its samples.

A domain is a positive measure mu on R^d. Its weighted samples stand for mu; the total mass cancels
in every quantity (theory, "Domains"). A loss is any callable that maps
points ``(n, d)`` to values ``(n,)``, each value depending on its own point alone.
"""

from __future__ import annotations

import difflib
import math
import operator
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

Loss = Callable[[Tensor], Tensor]

SAMPLERS = ("sobol", "uniform")


class Domain(ABC):
    """A measure on R^d that can be sampled from uniform points of a unit cube."""

    @property
    @abstractmethod
    def dimension(self) -> int:
        """Number of input coordinates d."""

    @property
    def cube_dimension(self) -> int:
        """Number of coordinates of the unit cube that one sample takes."""
        return self.dimension

    @abstractmethod
    def sample(self, cube: Tensor) -> tuple[Tensor, Tensor]:
        """Map points of the unit cube to weighted samples of the domain.

        Parameters
        ----------
        cube : Tensor, shape (n, cube_dimension), float64
            Strictly between 0 and 1.

        Returns
        -------
        x : Tensor, shape (n, d), float64
            Input units.
        weight : Tensor, shape (n,), float64
            Where the points are uniform, the mean of ``weight * h(x)`` is the mean of h over the
            measure; so the mean weight is 1.
        """

    def score(self, x: Tensor) -> Tensor:
        """Logarithmic derivative of the window, ``d_i log sqrt(g)``; zero where there is none.

        Parameters
        ----------
        x : Tensor, shape (n, d), float64

        Returns
        -------
        Tensor, shape (n, d), float64
            1 / input units.
        """
        return x.new_zeros(()).expand_as(x)


@final
@dataclass(frozen=True, init=False, eq=False)
class Box(Domain):
    """Lebesgue measure on a box.

    Parameters
    ----------
    lower, upper : array_like, shape (d,) or scalar
        Faces, input units; ``lower < upper`` on every axis. A scalar is meant for every axis of the
        other.

    Raises
    ------
    ValueError
        If a face is not finite, the shapes do not match, or a lower face is not below its upper.

    Notes
    -----
    The uncertainty bound 1/2 does not hold here: a flat loss has no momentum at all. The bound that
    holds is ``|1 - B_i| / 2`` (theory, "Notation").
    """

    lower: Tensor
    upper: Tensor

    def __init__(self, lower: ArrayLike | Tensor, upper: ArrayLike | Tensor) -> None:
        low, high = vector(lower, "lower"), vector(upper, "upper")
        if len(low) != len(high) and 1 not in (len(low), len(high)):
            message = (
                "lower and upper must have one number for each axis, got "
                f"{len(low)} and {len(high)} numbers; give both the length of an input."
            )
            raise ValueError(message)
        dimension = max(len(low), len(high))
        low, high = low.expand(dimension).clone(), high.expand(dimension).clone()
        wrong = (low >= high).nonzero().flatten()
        if len(wrong):
            axis = int(wrong[0])
            message = (
                f"lower must be below upper on every axis, got lower {low[axis]:g} and upper "
                f"{high[axis]:g} on axis {axis} ({len(wrong)} of {len(low)} axes); swap them, or "
                "leave out axes without extent."
            )
            raise ValueError(message)
        object.__setattr__(self, "lower", low)
        object.__setattr__(self, "upper", high)

    @property
    def dimension(self) -> int:
        """Number of input coordinates d."""
        return len(self.lower)

    def sample(self, cube: Tensor) -> tuple[Tensor, Tensor]:
        """Stretch the unit cube over the box; see `Domain.sample`."""
        return self.lower + cube * (self.upper - self.lower), cube.new_ones(len(cube))


@final
@dataclass(frozen=True, init=False, eq=False)
class Gaussian(Domain):
    """The packet seen through a Gaussian window, ``psi = l sqrt(g) / norm``.

    g is the normal density of mean ``center`` and standard deviation ``width`` s on every axis.
    psi vanishes at infinity, so ``position_std * momentum_std >= 1/2`` holds exactly.

    Parameters
    ----------
    center : array_like, shape (d,) or scalar
        Input units.
    width : float
        s, input units, positive.

    Raises
    ------
    ValueError
        If the center is not a finite vector or the width is not positive and finite.
    """

    center: Tensor
    width: float

    def __init__(self, center: ArrayLike | Tensor, width: float) -> None:
        object.__setattr__(self, "center", vector(center, "center"))
        object.__setattr__(self, "width", positive(width, "width", "the deviation of the window"))

    @property
    def dimension(self) -> int:
        """Number of input coordinates d."""
        return len(self.center)

    def sample(self, cube: Tensor) -> tuple[Tensor, Tensor]:
        """Apply the inverse normal distribution to each coordinate; see `Domain.sample`.

        The samples are drawn from a normal density ``sqrt(1 + 1 / sqrt(d))`` times as wide and
        carry its ratio to the window as their weight. A loss that grows puts its packet in the
        tails of the window, where draws from the window itself come too rarely for an honest
        standard error. The factor costs at most ``exp(-1/2)`` of the effective sample size in any
        dimension.
        """
        spread = 1 + self.dimension**-0.5
        normal: Tensor = torch.special.ndtri(cube)
        exponent = (1 - spread) * (normal**2).sum(1) + self.dimension * math.log(spread)
        return self.center + self.width * math.sqrt(spread) * normal, torch.exp(exponent / 2)

    def score(self, x: Tensor) -> Tensor:
        """Logarithmic derivative of the window, ``-(x_i - c_i) / (2 s^2)``; see `Domain.score`."""
        return (self.center - x) / (2 * self.width**2)


@final
@dataclass(frozen=True, init=False, eq=False)
class Neighborhood(Domain):
    """The direct sum of the l-infinity balls around data points.

    Each ball has unit weight and is uniform inside, also where it is cut to the valid range or
    overlaps another ball. The first coordinate of the unit cube chooses the ball, so that evenly
    spread points visit all balls evenly.

    Parameters
    ----------
    centers : array_like, shape (n, d)
        Data points, input units.
    radius : float
        Radius of the balls, input units, positive.
    clip : (low, high), optional
        Valid range of every coordinate; each ball is cut to it. The centers must lie inside.

    Raises
    ------
    ValueError
        If there is no center, the centers are not a finite matrix, the radius is not positive and
        finite, or the valid range is empty or does not contain the centers.
    """

    centers: Tensor
    radius: float
    clip: tuple[float, float] | None

    def __init__(
        self,
        centers: ArrayLike | Tensor,
        radius: float,
        clip: tuple[float, float] | None = None,
    ) -> None:
        points = finite(centers, "centers")
        if points.ndim != 2 or points.numel() == 0:  # noqa: PLR2004
            message = (
                "centers must be a matrix of at least one point, shape (n, d), got shape "
                f"{tuple(points.shape)}; flatten images with .reshape(n, -1)."
            )
            raise ValueError(message)
        object.__setattr__(self, "centers", points)
        object.__setattr__(self, "radius", positive(radius, "radius", "the radius of the balls"))
        object.__setattr__(self, "clip", None if clip is None else _valid_range(clip, points))

    @property
    def dimension(self) -> int:
        """Number of input coordinates d."""
        return self.centers.shape[1]

    @property
    def cube_dimension(self) -> int:
        """One coordinate chooses the ball, d place the sample inside."""
        return self.dimension + 1

    def sample(self, cube: Tensor) -> tuple[Tensor, Tensor]:
        """Choose a ball, then a point inside; see `Domain.sample`."""
        # The product may round up to the number of balls.
        ball = (cube[:, 0] * len(self.centers)).long().clamp_max(len(self.centers) - 1)
        center = self.centers[ball]
        lower, upper = center - self.radius, center + self.radius
        if self.clip is not None:
            lower, upper = lower.clamp_min(self.clip[0]), upper.clamp_max(self.clip[1])
        return lower + cube[:, 1:] * (upper - lower), cube.new_ones(len(cube))


def unit_cube(sampler: str, dimension: int, seed: int) -> Callable[[int], Tensor]:
    """Start a stream of points that fill the unit cube uniformly.

    Parameters
    ----------
    sampler : {"sobol", "uniform"}
        Scrambled Sobol' points, or independent ones. The Sobol' sequence is known up to dimension
        21201; beyond, "sobol" means independent points too.
    dimension : int
        Number of coordinates.
    seed : int
        Streams of different seeds are independent.

    Returns
    -------
    callable
        ``draw(n) -> Tensor, shape (n, dimension), float64``: the next n points, strictly between 0
        and 1 in every coordinate.

    Raises
    ------
    ValueError
        If the sampler is unknown.
    """
    if sampler not in SAMPLERS:
        near = difflib.get_close_matches(str(sampler), SAMPLERS, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}?" if near else "choose one of them."
        message = f"sampler must be one of {', '.join(SAMPLERS)}, got {sampler!r}; {hint}"
        raise ValueError(message)
    if sampler == "sobol" and dimension <= torch.quasirandom.SobolEngine.MAXDIM:
        engine = torch.quasirandom.SobolEngine(dimension, scramble=True, seed=seed)
        # The points are multiples of 2^-30, zero included: move them to the middle of their cells.
        shift = 0.5**31
        return lambda n: engine.draw(n, dtype=torch.float64) + shift
    generator = torch.Generator().manual_seed(seed)
    tiny = torch.finfo(torch.float64).tiny
    return lambda n: torch.rand(n, dimension, generator=generator, dtype=torch.float64).clamp(tiny)


def loss_and_gradient(loss: Loss, x: Tensor) -> tuple[Tensor, Tensor]:
    """Evaluate a loss and its input gradient by one backward pass, and check both.

    Parameters
    ----------
    loss : callable
        ``loss((n, d) tensor) -> (n,) tensor``, each value from its own point alone, not negative.
    x : Tensor, shape (n, d), float64
        Points, input units.

    Returns
    -------
    value : Tensor, shape (n,), float64
        Unit of the loss.
    gradient : Tensor, shape (n, d), float64
        ``d l / d x_i`` at each point. Zero where the loss is one constant that autograd knows
        nothing of.

    Raises
    ------
    TypeError
        If the loss does not return a real floating-point tensor.
    ValueError
        If its shape is not (n,), if a value is negative, if a value or a derivative is NaN or
        infinite, or if autograd cannot differentiate it.
    """
    leaf = x.detach().clone().requires_grad_()
    with torch.enable_grad():
        value: object = loss(leaf)
        if not isinstance(value, Tensor) or not value.is_floating_point():
            kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
            message = (
                f"loss must return a floating-point torch tensor, got {kind}; compute it with "
                "torch operations on the points it is given."
            )
            raise TypeError(message)
        if value.shape != x.shape[:1]:
            message = (
                "loss must map points (n, d) to one value for each, shape "
                f"({len(x)},), got shape {tuple(value.shape)} for points {tuple(x.shape)}; "
                "sum or index the trailing axes away."
            )
            raise ValueError(message)
        gradient = _gradient(value, leaf)
    value = value.detach().to(x)
    _check(~value.isfinite(), x, "loss must be finite everywhere", "NaN or infinite value")
    _check(value < 0, x, "loss must not be negative", "negative value")
    _check(
        ~gradient.isfinite().all(1),
        x,
        "the gradient of loss must be finite everywhere",
        "NaN or infinite gradient",
    )
    return value, gradient


def positive(value: object, name: str, meaning: str) -> float:
    """Return the number, refusing what is not positive and finite."""
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, RuntimeError) as error:
        message = f"{name} must be one number, {meaning}, got {value!r}; give a positive number."
        raise TypeError(message) from error
    if not (math.isfinite(number) and number > 0):
        message = f"{name} must be positive and finite, got {number:g}; it is {meaning}."
        raise ValueError(message)
    return number


def whole(value: object, name: str, fewest: int, reason: str) -> int:
    """Return the integer, refusing what is smaller than the fewest."""
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError as error:
        message = f"{name} must be an integer, got {value!r}; give at least {fewest}."
        raise TypeError(message) from error
    if number < fewest:
        message = f"{name} must be at least {fewest}, got {number}; {reason}."
        raise ValueError(message)
    return number


def finite(values: ArrayLike | Tensor, name: str) -> Tensor:
    """Return the numbers as a float64 tensor of its own on the CPU, refusing NaN and infinity."""
    try:
        tensor = torch.as_tensor(np.asarray(values) if not isinstance(values, Tensor) else values)
    except (TypeError, ValueError) as error:
        message = f"{name} must be an array of numbers, got {values!r}; give a list or an array."
        raise TypeError(message) from error
    tensor = tensor.detach().to("cpu", torch.float64, copy=True)
    bad = int((~tensor.isfinite()).sum())
    if bad:
        message = (
            f"{name} must be finite, got {bad} NaN or infinite of {tensor.numel()} numbers; "
            "remove them."
        )
        raise ValueError(message)
    return tensor


def vector(values: ArrayLike | Tensor, name: str) -> Tensor:
    """Return a finite vector as a float64 tensor of its own on the CPU; a scalar has length 1."""
    tensor = finite(values, name)
    tensor = tensor.reshape(1) if tensor.ndim == 0 else tensor
    if tensor.ndim != 1 or tensor.numel() == 0:
        message = (
            f"{name} must be a vector of one number for each axis, shape (d,), got shape "
            f"{tuple(tensor.shape)}; flatten an image with .reshape(-1)."
        )
        raise ValueError(message)
    return tensor


def _gradient(value: Tensor, leaf: Tensor) -> Tensor:
    if value.requires_grad:
        gradient: Tensor | None
        (gradient,) = torch.autograd.grad(value.sum(), leaf, allow_unused=True)
        if gradient is not None:
            return gradient
    if bool((value != value[:1]).any()):
        message = (
            "loss must be differentiable by autograd, got values that vary without a gradient; use "
            "torch operations throughout, without .detach(), .numpy(), .item() or torch.no_grad()."
        )
        raise ValueError(message)
    return torch.zeros_like(leaf)


def _check(bad: Tensor, x: Tensor, expected: str, what: str) -> None:
    count = int(bad.sum())
    if not count:
        return
    place = x[bad][0]
    shown = ", ".join(f"{coordinate:g}" for coordinate in place[:4].tolist())
    dots = ", ..." if len(place) > 4 else ""  # noqa: PLR2004
    message = (
        f"{expected}, got {count} {what}{'s' * (count > 1)} at {len(x)} points, the first at "
        f"x = [{shown}{dots}]; mend the loss there, or keep the domain away from it."
    )
    raise ValueError(message)


def _valid_range(clip: tuple[float, float], centers: Tensor) -> tuple[float, float]:
    try:
        low, high = (float(end) for end in clip)
    except (TypeError, ValueError) as error:
        message = f"clip must be two numbers (low, high), got {clip!r}; write clip=(0, 1)."
        raise TypeError(message) from error
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        message = f"clip must be two finite numbers low < high, got ({low:g}, {high:g}); swap them."
        raise ValueError(message)
    outside = int(((centers < low) | (centers > high)).any(1).sum())
    if outside:
        message = (
            f"clip must contain every center, got ({low:g}, {high:g}) with {outside} of "
            f"{len(centers)} centers outside, which span {centers.min():g} to {centers.max():g}; "
            "give the valid range of the inputs."
        )
        raise ValueError(message)
    return low, high
