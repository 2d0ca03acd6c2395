"""Domains: where a packet lives, and how points of a unit cube become its samples.

A domain is a positive measure mu on R^d. Its weighted samples stand for mu; the total mass cancels
in every quantity (theory, "Domains"). A loss is any callable that maps points ``(n, d)`` to values
``(n,)``, or ``(n, m)`` for m losses at once, each value depending on its own point alone.

Every domain also knows its Stein identity, integration by parts against its own measure. On each
of its pieces (the window, the box, a ball), with u the distance of x from the middle of the piece,
``<u_i> = <kappa_i a_i>`` and ``<u_i^2> = <kappa_i a_i u_i + rest_i>`` hold exactly, where ``a = l'
/ l`` and kappa vanishes on the boundary. The right-hand sides are what a loss makes of the position
beyond what the domain alone would: along an axis on which the loss is flat they have no noise.
Reference: Ledoux, Nourdin and Peccati, "Stein's method, logarithmic Sobolev and transport
inequalities" (2015), on Stein kernels.
"""

from __future__ import annotations

import functools
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, NamedTuple, final

import numpy as np
import torch
from torch import Tensor

from qwidgets.checks import interval, one_of, positive

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

Loss = Callable[[Tensor], Tensor]

SAMPLERS = ("sobol", "uniform")
# Neighbouring bits, pairs of bits, ... change places: all 32 in reverse.
_SWAPS = ((1, 0x55555555), (2, 0x33333333), (4, 0x0F0F0F0F), (8, 0x00FF00FF), (16, 0x0000FFFF))
# The half precisions: their numbers end at 65504 (float16) or have 8 bits (bfloat16).
_HALF = (torch.float16, torch.bfloat16)
# Balls that are looked at together: memory for a few MB of them, whatever their number.
_BALLS = 1 << 10
# Numbers in the longest beginning of a stream that is remembered: 1 MB.
_REMEMBERED = 1 << 17


class NoPacketError(ValueError):
    """The loss has no packet: it vanishes everywhere, or is not finite."""


class Sample(NamedTuple):
    """Weighted points of a domain, float64, each with the piece of the domain that it lies in.

    Where the points of the cube are uniform, the mean of ``weight * h(x)`` is the mean of h over
    the measure; so the mean weight is 1.
    """

    x: Tensor  # (n, d), input units
    weight: Tensor  # (n,)
    middle: Tensor  # (n, d) or (1, d): the middle of the piece
    reach: Tensor  # (n, d) or (1, d): from there to its faces, or the width of the window
    ball: Tensor | None = None  # (n,) int64: which ball of a neighborhood
    factor: Tensor | None = None  # (n, d): what each axis has put into the weight


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

    @property
    @abstractmethod
    def variance(self) -> Tensor:
        """Variance of the position within a piece, shape (d,) or (1,), input units squared."""

    @property
    def fingerprint(self) -> str:
        """Name of this very measure: equal for equal domains, across processes."""
        digest = hashlib.sha256(type(self).__name__.encode())
        for field in fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            content = value.numpy().tobytes() if isinstance(value, Tensor) else repr(value).encode()
            digest.update(content + field.name.encode())
        return digest.hexdigest()

    @abstractmethod
    def sample(self, cube: Tensor) -> Sample:
        """Map points of the unit cube to samples of the domain.

        Parameters
        ----------
        cube : Tensor, shape (n, cube_dimension), float64
            Strictly between 0 and 1.
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

    def stein(self, sample: Sample, value: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Stein identity at samples of a loss; here for measures that are uniform on pieces.

        Uniform on a piece of half width h: ``kappa = h^2 - u^2``, ``rest = (h^2 - kappa a u) / 3``.

        Parameters
        ----------
        sample : Sample
        value : Tensor, shape (n,), float64
            The loss l.
        gradient : Tensor, shape (n, d), float64

        Returns
        -------
        shift : Tensor, shape (n, d), float64
            ``l (kappa_i a_i - u_i)``; times l, it has mean 0 over the measure.
        rest : Tensor, shape (n, d) or (n, 1), float64
            ``l rest_i``; 1 column where all axes have the same.
        """
        u, square = sample.x - sample.middle, sample.reach**2
        drift = (square - u**2) * gradient
        value = value[:, None]
        return drift - value * u, (value * square - drift * u) / 3


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

    @property
    def variance(self) -> Tensor:
        """A twelfth of the squared widths."""
        return (self.upper - self.lower) ** 2 / 12

    def sample(self, cube: Tensor) -> Sample:
        """Stretch the unit cube over the box; see `Domain.sample`."""
        middle, reach = (self.lower + self.upper) / 2, (self.upper - self.lower) / 2
        x = middle + (2 * cube - 1) * reach
        return Sample(x, cube.new_ones(len(cube)), middle[None], reach[None])


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
        If the center is not a finite vector or the width is not positive and finite, or its square
        is not.
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

    @property
    def variance(self) -> Tensor:
        """``s^2`` on every axis."""
        return torch.tensor([self.width**2], dtype=torch.float64)

    def sample(self, cube: Tensor) -> Sample:
        """Apply the inverse normal distribution to each coordinate; see `Domain.sample`."""
        return self.place(torch.special.ndtri(cube), cube.new_ones(len(cube)))

    def place(self, normal: Tensor, weight: Tensor) -> Sample:
        """Put weighted points at a distance from the center, (n, d) in units of the width."""
        middle = self.center[None]
        reach = torch.full_like(middle, self.width)
        return Sample(middle + self.width * normal, weight, middle, reach)

    def score(self, x: Tensor) -> Tensor:
        """Logarithmic derivative of the window, ``-(x_i - c_i) / (2 s^2)``; see `Domain.score`."""
        return (self.center - x) / (2 * self.width**2)

    def stein(self, sample: Sample, value: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """``kappa = 2 s^2`` and ``rest = s^2``: the commutator; see `Domain.stein`."""
        value, square = value[:, None], self.width**2
        return 2 * square * gradient - value * (sample.x - sample.middle), square * value


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

    @property
    def variance(self) -> Tensor:
        """A third of the squared half widths, averaged over the balls."""
        square = torch.zeros(self.dimension, dtype=torch.float64)
        for part in torch.arange(len(self.centers)).split(_BALLS):
            square += (self.extent(part)[1] ** 2).sum(0)
        return square / (3 * len(self.centers))

    def extent(self, ball: Tensor) -> tuple[Tensor, Tensor]:
        """Middles and half widths of balls, each (n, d), after the cut to the valid range."""
        center = self.centers[ball]
        if self.clip is None:
            return center, torch.full_like(center, self.radius)
        lower = (center - self.radius).clamp_min(self.clip[0])
        upper = (center + self.radius).clamp_max(self.clip[1])
        return (lower + upper) / 2, (upper - lower) / 2

    def sample(self, cube: Tensor) -> Sample:
        """Choose a ball, then a point inside; see `Domain.sample`."""
        # The product may round up to the number of balls.
        ball = (cube[:, 0] * len(self.centers)).long().clamp_max(len(self.centers) - 1)
        return self.place(ball, cube[:, 1:], cube.new_ones(len(cube)))

    def place(self, ball: Tensor, cube: Tensor, weight: Tensor) -> Sample:
        """Put weighted points into balls, evenly where the points (n, d) of the cube are even."""
        middle, reach = self.extent(ball)
        return Sample(middle + (2 * cube - 1) * reach, weight, middle, reach, ball)


def unit_cube(sampler: str, dimension: int, seed: int) -> Callable[[int], Tensor]:
    """Start a stream of points that fill the unit cube uniformly.

    Parameters
    ----------
    sampler : {"sobol", "uniform"}
        Scrambled Sobol' points, or independent ones. The Sobol' sequence is known up to dimension
        21201; beyond, "sobol" means independent points too. Sobol' points are most even in numbers
        that are powers of two.
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
    one_of("sampler", sampler, SAMPLERS)
    if sampler == "sobol" and dimension <= torch.quasirandom.SobolEngine.MAXDIM:
        return _sobol(dimension, seed)
    generator, tiny = torch.Generator().manual_seed(seed), torch.finfo(torch.float64).tiny
    return lambda n: torch.rand(n, dimension, generator=generator, dtype=torch.float64).clamp(tiny)


def _sobol(dimension: int, seed: int) -> Callable[[int], Tensor]:
    """Start a stream of scrambled Sobol' points; short beginnings are remembered."""
    first = 0
    stream: Callable[[int], Tensor] | None = None

    def draw(n: int) -> Tensor:
        nonlocal first, stream
        most = 1 << (n - 1).bit_length()
        if first == 0 and stream is None and most * dimension <= _REMEMBERED:
            first = n
            return _beginning(dimension, seed, most)[:n].clone()
        if stream is None:
            stream = _sobol_from(dimension, seed, first)
        return stream(n)

    return draw


# All networks and classes of a sweep are measured with the same few seeds: scrambling their points
# anew took a third of the time.
@functools.lru_cache(maxsize=32)
def _beginning(dimension: int, seed: int, n: int) -> Tensor:
    return _sobol_from(dimension, seed, 0)(n)


def _sobol_from(dimension: int, seed: int, first: int) -> Callable[[int], Tensor]:
    engine = torch.quasirandom.SobolEngine(dimension)
    if first:
        engine.fast_forward(first)
    generator = torch.Generator().manual_seed(seed)
    keys = torch.randint(1 << 32, (dimension,), generator=generator) - (1 << 31)
    keys = keys.to(torch.int32)

    def draw(n: int) -> Tensor:
        # 30 bits, moved up to the sign bit of an integer of 32.
        digits = (engine.draw(n, dtype=torch.float64) * 2.0**30).to(torch.int32) << 2
        _scramble(digits, keys)
        return digits.to(torch.float64).add_(0.5).mul_(2.0**-32).add_(0.5)

    return draw


def _scramble(digits: Tensor, keys: Tensor) -> None:
    """Scramble integers of 32 bits in place, each column in its own way.

    Owen's nested uniform scrambling: every bit is flipped or not by a hash of the bits above it.
    Unlike a linear scrambling it makes the errors of replicates nearly normal, so that standard
    errors from few replicates are honest. The hash sees the bits in reverse order, where products
    carry upwards (Burley, "Practical hash-based Owen scrambling", JCGT 9(4), 2020; constants of N.
    Vegdahl).
    """
    spare = torch.empty_like(digits)
    _reverse(digits, spare)
    digits ^= torch.mul(digits, 0x3D20ADEA, out=spare)
    digits += keys
    digits *= (keys >> 16) | 1
    digits ^= torch.mul(digits, 0x05526C56, out=spare)
    digits ^= torch.mul(digits, 0x53A22864, out=spare)
    _reverse(digits, spare)


def _reverse(digits: Tensor, spare: Tensor) -> None:
    for shift, mask in _SWAPS:
        torch.bitwise_and(digits, mask, out=spare)
        digits.bitwise_right_shift_(shift).bitwise_and_(mask)
        digits |= spare.bitwise_left_shift_(shift)


class Values(NamedTuple):
    """Losses at points, float64 on the CPU, with a way to their gradients."""

    value: Tensor  # (m, n): m losses, not negative
    gradient: Callable[[int], Tensor]  # of one of the losses, (n, d)
    alone: bool  # whether the loss returned (n,), so that m is 1


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
    values = evaluate(loss, x, several=False)
    return values.value[0], values.gradient(0)


def evaluate(loss: Loss, x: Tensor, *, derivative: bool = True, several: bool = True) -> Values:
    """Evaluate one loss or several at once, and check the values; the gradients when asked for.

    Parameters
    ----------
    loss : callable
        ``loss((n, d) tensor) -> (n,) or (n, m) tensor``; m losses share the forward pass, and each
        gradient costs one backward pass.
    x : Tensor, shape (n, d), float64
        Points, input units.
    derivative : bool
        False records no graph: there are no gradients.
    several : bool
        Whether the loss may return m values at each point.

    Returns
    -------
    Values
        ``gradient(j)`` must be asked for once for each loss, in order.

    Raises
    ------
    TypeError, ValueError
        As `loss_and_gradient`; ``gradient`` raises what concerns the derivative.
    """
    leaf = x.detach().clone().requires_grad_(derivative)
    with torch.set_grad_enabled(derivative):
        raw: object = loss(leaf)
    if not isinstance(raw, Tensor) or not raw.is_floating_point():
        kind = raw.dtype if isinstance(raw, Tensor) else type(raw).__name__
        message = (
            f"loss must return a floating-point torch tensor, got {kind}; compute it with "
            "torch operations on the points it is given."
        )
        raise TypeError(message)
    if raw.shape[:1] != x.shape[:1] or raw.ndim > 1 + several or raw.numel() == 0:
        message = (
            "loss must map points (n, d) to one value for each, shape "
            f"({len(x)},), got shape {tuple(raw.shape)} for points {tuple(x.shape)}; "
            "sum or index the trailing axes away."
        )
        raise ValueError(message)
    with torch.set_grad_enabled(derivative):
        columns = raw.reshape(len(x), -1).unbind(1)
    value = torch.stack(columns).detach().to(x)
    remedy = (
        f"it is computed in {raw.dtype}, which overflows easily: call model.float() first."
        if raw.dtype in _HALF
        else "mend the loss there, or keep the domain away from it."
    )
    _check(
        ~value.isfinite().all(0),
        x,
        "loss must be finite everywhere",
        "NaN or infinite value",
        remedy,
    )
    negative = (value < 0).any(0)
    _check(negative, x, "loss must not be negative", "negative value", remedy, ValueError)

    def gradient(index: int) -> Tensor:
        slope = _gradient(columns[index], leaf, keep=index < len(columns) - 1)
        expected = "the gradient of loss must be finite everywhere"
        _check(~slope.isfinite().all(1), x, expected, "NaN or infinite gradient", remedy)
        return slope

    return Values(value, gradient, raw.ndim == 1)


def finite(values: ArrayLike | Tensor, name: str) -> Tensor:
    """Return the numbers as a float64 tensor of its own on the CPU, refusing NaN and infinity."""
    try:
        tensor = torch.as_tensor(np.asarray(values) if not isinstance(values, Tensor) else values)
    except (TypeError, ValueError) as error:
        message = f"{name} must be an array of numbers, got {values!r}; give a list or an array."
        raise TypeError(message) from error
    if tensor.is_complex():
        message = f"{name} must be real, got {tensor.dtype}; take its real part or its modulus."
        raise TypeError(message)
    tensor = tensor.detach().to("cpu", torch.float64, copy=True)
    check_finite(tensor, name)
    return tensor


def check_finite(values: Tensor, name: str) -> None:
    """Refuse NaN and infinity, saying where the first one is."""
    bad = (~values.isfinite()).nonzero()
    if len(bad):
        message = (
            f"{name} must be finite, got {len(bad)} NaN or infinite of {values.numel()} numbers "
            f"(as {values.dtype}), the first at {bad[0].tolist()}; remove or impute them."
        )
        raise ValueError(message)


def check_inside(values: Tensor, name: str, value_range: tuple[float, float]) -> None:
    """Refuse values outside the range, compared in the precision in which they are held."""
    low, high = torch.tensor(value_range, dtype=values.dtype).tolist()
    smallest, largest = (value.item() for value in values.aminmax())
    if low <= smallest and largest <= high:
        return
    check_finite(values, name)
    message = (
        f"{name} must lie in value_range {value_range}, got "
        f"{largest if low <= smallest else smallest}; rescale the inputs or pass the value_range "
        "that they have."
    )
    raise ValueError(message)


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


def _gradient(value: Tensor, leaf: Tensor, *, keep: bool) -> Tensor:
    if value.requires_grad:
        gradient: Tensor | None
        ones = torch.ones_like(value)
        (gradient,) = torch.autograd.grad(value, leaf, ones, allow_unused=True, retain_graph=keep)
        if gradient is not None:
            return gradient
    if bool((value != value[:1]).any()):
        message = (
            "loss must be differentiable by autograd, got values that vary without a gradient; use "
            "torch operations throughout, without .detach(), .numpy(), .item() or torch.no_grad()."
        )
        raise ValueError(message)
    return torch.zeros_like(leaf)


def _check(
    bad: Tensor,
    x: Tensor,
    expected: str,
    what: str,
    remedy: str,
    error: type[ValueError] = NoPacketError,
) -> None:
    count = int(bad.sum())
    if not count:
        return
    place = x[bad][0]
    shown = ", ".join(f"{coordinate:g}" for coordinate in place[:4].tolist())
    dots = ", ..." if len(place) > 4 else ""  # noqa: PLR2004
    message = (
        f"{expected}, got {count} {what}{'s' * (count > 1)} at {len(x)} points, the first at "
        f"x = [{shown}{dots}]; {remedy}"
    )
    raise error(message)


def _valid_range(clip: tuple[float, float], centers: Tensor) -> tuple[float, float]:
    low, high = interval(clip, "clip")
    outside = int(((centers < low) | (centers > high)).any(1).sum())
    if outside:
        message = (
            f"clip must contain every center, got ({low:g}, {high:g}) with {outside} of "
            f"{len(centers)} centers outside, which span {centers.min():g} to {centers.max():g}; "
            "give the valid range of the inputs."
        )
        raise ValueError(message)
    return low, high
