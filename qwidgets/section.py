"""The packet along one line: exact moments, momentum density and Wigner function.

The loss along a line through an input ``x0`` in a unit direction ``u``, seen through a Gaussian
window of standard deviation ``s``, is a one-dimensional wave function

    psi(t) = l(x0 + t u) sqrt(g(t)) / sqrt(norm),

with g the normal density of mean 0 and standard deviation s. It vanishes at infinity, so
``position_std * momentum_std >= 1/2`` holds exactly (hbar = 1); a flat or an exponential loss
attains it. Source: theory, "The packet along the attack"; arXiv 2205.01493.

Why not the plain trapezoid rule: the loss of a ReLU network has kinks. At a kink the square of the
derivative jumps and the rule is wrong by a part of one step, in either sense, which takes narrow
packets below the bound. Here the loss between two points is the cubic through both values and both
derivatives, and the moments of *that* packet are integrated to rounding. It is a packet like any
other, so no product can come out below 1/2, and where the loss is smooth the result is the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

import numpy as np
import torch

from qwidgets.checks import positive, whole
from qwidgets.domain import NoPacketError, loss_and_gradient, vector

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike, NDArray
    from torch import Tensor

    from qwidgets.domain import Loss

Array = TypeVar("Array", "NDArray[np.float64]", "Tensor")

WINDOW = 8.0
"""Half the length of a section in units of the width: the window there is exp(-32)."""

FEWEST_POINTS = 257

_GAUSS_POINTS = 6
# A kink is followed through so many halvings of its cell at most ...
_HALVINGS = 20
# ... until the cubic misses the loss by less than this part of the largest amplitude.
_MISS = 1e-7


class PacketMoments(NamedTuple, Generic[Array]):
    """Moments of packets along lines; each packet that vanishes everywhere has NaN.

    Attributes
    ----------
    position_mean : array, shape (...), float64
        ``<t>``, input units.
    position_std : array, shape (...), float64
        ``sqrt(<(t - <t>)^2>)``, input units.
    momentum_std : array, shape (...), float64
        ``sqrt(integral psi'^2 dt)``, 1 / input units; the mean momentum of a real packet is zero.
    product : array, shape (...), float64
        ``position_std * momentum_std``, at least 1/2.
    amplitude : array, shape (..., points), float64
        ``psi(t)``, input units ** -1/2; ``integral psi^2 dt = 1``.
    """

    position_mean: Array
    position_std: Array
    momentum_std: Array
    product: Array
    amplitude: Array


def packet_moments(t: Array, loss: Array, slope: Array, width: float) -> PacketMoments[Array]:
    """Moments of any number of packets on one common grid: the one implementation of the formula.

    ``psi = l sqrt(g)`` and ``psi' = sqrt(g) (l' - l t / (2 s^2))`` with l the cubic Hermite
    interpolant of ``loss`` and ``slope``, constant outside the grid. All integrals are quadratic
    forms in the values at the points and are exact for this l to rounding.

    Parameters
    ----------
    t : ndarray or Tensor, shape (points,)
        Strictly increasing points of the line, input units. Equal spacing is not needed; steps of
        ``width / 16`` or less resolve the window.
    loss : ndarray or Tensor, shape (..., points)
        Loss at the points, any unit and any scale: it cancels.
    slope : ndarray or Tensor, shape (..., points)
        Derivative of the loss with respect to t, from autograd.
    width : float
        Standard deviation s of the Gaussian window, input units.

    Returns
    -------
    PacketMoments
        Of tensors on the device of ``loss`` where ``loss`` is a tensor, else of NumPy arrays;
        float64. A packet that is zero or not finite somewhere it matters is NaN throughout.

    Notes
    -----
    Where the loss is smooth on the scale of the step h, the relative error is of order h^4 (5e-7
    for a softplus boundary of sharpness 8 / s on 257 points). A kink leaves an error of order h
    times the squared jump of the slope; `section` removes it. No product is below 1/2 in either
    case.

    Source: theory, "The packet along the attack".
    """
    if isinstance(loss, torch.Tensor):
        return PacketMoments(*_moments(torch.as_tensor(t), loss, torch.as_tensor(slope), width))
    grid, value, rate = (torch.from_numpy(np.array(a, dtype=np.float64)) for a in (t, loss, slope))
    return PacketMoments(*(result.numpy() for result in _moments(grid, value, rate, width)))


def _moments(
    t: Tensor, loss: Tensor, slope: Tensor, width: float
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    u = t.detach().to("cpu", torch.float64) / width
    # Apple's GPUs know no float64.
    device = torch.device("cpu") if loss.device.type == "mps" else loss.device
    value = loss.detach().to(device, torch.float64)
    # In units of the largest value neither tiny nor huge losses under- or overflow when squared.
    scale = value.abs().amax(-1, keepdim=True)
    value = value / scale
    rate = slope.detach().to(device, torch.float64) * (width / scale)
    weights = _hermite_weights(u.numpy().tobytes()).to(device)
    after, rate_after = value[..., 1:], rate[..., 1:]
    before, rate_before = value[..., :-1], rate[..., :-1]
    products = (
        value * value,
        value * rate,
        rate * rate,
        before * after,
        before * rate_after,
        rate_before * after,
        rate_before * rate_after,
    )
    integrals = value.new_zeros((*value.shape[:-1], 4))
    for product, weight in zip(products, weights, strict=True):
        integrals += product @ weight[: product.shape[-1]]
    norm, first, second, energy = integrals.unbind(-1)
    mean = first / norm
    position = (second / norm - mean**2).clamp_min(0).sqrt() * width
    momentum = (energy / norm).sqrt() / width
    window = torch.exp(-(u**2) / 4).to(device) / (2 * math.pi * width**2) ** 0.25
    amplitude = value * window / norm.sqrt().unsqueeze(-1)
    return mean * width, position, momentum, position * momentum, amplitude


@dataclass(frozen=True, kw_only=True, eq=False)
class Section:
    """The loss along one line and its packet.

    Attributes
    ----------
    t : ndarray, shape (points,), float64
        Equally spaced places on the line, from ``-8 * width`` to ``8 * width``, input units.
    loss : ndarray, shape (points,), float64
        ``l(origin + t * direction)``, unit of the loss.
    slope : ndarray, shape (points,), float64
        ``dl/dt`` by autograd, unit of the loss / input units.
    amplitude : ndarray, shape (points,), float64
        ``psi(t)``, input units ** -1/2, with ``integral psi^2 dt = 1``.
    position_mean, position_std : float
        Mean and spread of the position, input units, measured from the origin along the line.
    momentum_std : float
        Spread of the momentum, 1 / input units; its mean is zero because psi is real.
    product : float
        ``position_std * momentum_std``, at least 1/2.
    origin, direction : ndarray, shape (d,), float64
        The line; the direction has length 1.
    width : float
        Standard deviation s of the Gaussian window, input units.
    """

    t: NDArray[np.float64]
    loss: NDArray[np.float64]
    slope: NDArray[np.float64]
    amplitude: NDArray[np.float64]
    position_mean: float
    position_std: float
    momentum_std: float
    product: float
    origin: NDArray[np.float64]
    direction: NDArray[np.float64]
    width: float

    def momentum_density(
        self, k: ArrayLike | None = None
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Probability density of the momentum, ``|integral psi exp(-i k t) dt|^2 / (2 pi)``.

        With hbar = 1: k is the wave number, its mean is zero and its standard deviation is
        ``momentum_std``. A kink of the loss gives a tail that falls as ``k ** -4``.

        Parameters
        ----------
        k : array_like, shape (K,), optional
            Momenta, 1 / input units. By default 257 of them between ``-6 * momentum_std`` and
            ``6 * momentum_std``.

        Returns
        -------
        k : ndarray, shape (K,), float64
            1 / input units.
        density : ndarray, shape (K,), float64
            Input units; its integral over all k is 1.

        Raises
        ------
        ValueError
            If a momentum is beyond ``pi / step``, which the points do not resolve.
        """
        step = self.t[1] - self.t[0]
        momenta = self._momenta(k, math.pi / step)
        wave = np.exp(-1j * np.outer(momenta, self.t)) @ self.amplitude * step
        return momenta, np.abs(wave) ** 2 / (2 * math.pi)

    def wigner(
        self, t: ArrayLike | None = None, k: ArrayLike | None = None
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Wigner function, ``W(t, k) = integral psi(t + y) psi(t - y) exp(-2 i k y) dy / pi``.

        With hbar = 1. Real; integrated over k it is ``psi^2``, over t the momentum density, over
        both 1. Of pure packets only Gaussian ones have no negative values (Hudson).

        Parameters
        ----------
        t : array_like, shape (T,), optional
            Places on the line, input units; by default every fourth point of the section.
        k : array_like, shape (K,), optional
            Momenta, 1 / input units. By default 257 of them between ``-6 * momentum_std`` and
            ``6 * momentum_std``.

        Returns
        -------
        t : ndarray, shape (T,), float64
            Input units.
        k : ndarray, shape (K,), float64
            1 / input units.
        density : ndarray, shape (T, K), float64
            Dimensionless, between -1/pi and 1/pi.

        Raises
        ------
        ValueError
            If a momentum is beyond ``pi / (2 step)``, which the points do not resolve.
        """
        step = self.t[1] - self.t[0]
        places = self.t[::4].copy() if t is None else _axis(t, "t")
        momenta = self._momenta(k, math.pi / (2 * step))
        # The integrand is even in y: half of the line is enough.
        y = np.arange((len(self.t) + 1) // 2) * step
        weight = np.full(len(y), 2 * step)
        weight[0] = step
        correlation = self._psi(places[:, None] + y) * self._psi(places[:, None] - y) * weight
        return places, momenta, correlation @ np.cos(2 * np.outer(y, momenta)) / math.pi

    def _momenta(self, k: ArrayLike | None, largest: float) -> NDArray[np.float64]:
        if k is None:
            return np.linspace(-1, 1, 257) * min(6 * self.momentum_std, largest)
        momenta = _axis(k, "k")
        if np.abs(momenta).max() > largest:
            message = (
                f"k must lie within {largest:g}, what {len(self.t)} points resolve, got "
                f"{np.abs(momenta).max():g}; make the section with more points."
            )
            raise ValueError(message)
        return momenta

    def _psi(self, t: NDArray[np.float64]) -> NDArray[np.float64]:
        """Amplitude between the points and beyond: the packet whose moments are reported."""
        inside = np.clip(t, self.t[0], self.t[-1])
        cell = np.clip(np.searchsorted(self.t, inside, side="right") - 1, 0, len(self.t) - 2)
        step = self.t[1] - self.t[0]
        basis, _ = _hermite((inside - self.t[cell]) / step, step)
        data = np.stack(
            [self.loss[cell], self.slope[cell], self.loss[cell + 1], self.slope[cell + 1]]
        )
        peak = np.argmax(np.abs(self.amplitude))
        window = np.exp((self.t[peak] ** 2 - t**2) / (4 * self.width**2))
        scale = self.amplitude[peak] / self.loss[peak]
        return np.asarray((data * basis).sum(0) * window * scale)


def section(
    loss: Loss,
    origin: ArrayLike | Tensor,
    direction: ArrayLike | Tensor,
    width: float,
    *,
    points: int = 513,
) -> Section:
    """Loss along a line as a one-dimensional packet, with its moments free of sampling error.

    The line is sampled at equally spaced points; cells in which the slope is not smooth (kinks of
    ReLU networks) are then halved until nothing is left of them, so that the moments are those of
    the loss itself, not of a smoothed one.

    Parameters
    ----------
    loss : callable
        ``loss((n, d) tensor) -> (n,) tensor``, not negative, differentiable by autograd, each value
        from its own point alone. It is given float64 tensors on the CPU.
    origin : array_like, shape (d,)
        The input x0, input units.
    direction : array_like, shape (d,)
        Any length but zero; it is normalised. The loss gradient at the origin is the attack.
    width : float
        Standard deviation s of the Gaussian window, input units.
    points : int, default 513
        Equally spaced points on ``[-8 width, 8 width]``, at least 257.

    Returns
    -------
    Section

    Raises
    ------
    TypeError
        If the loss does not return a tensor, or a number is of the wrong kind.
    ValueError
        If shapes do not match, the direction is zero, the width or its square is not positive and
        finite, there are too few points, or the loss is negative, not finite, not differentiable,
        or zero on the whole line.

    Notes
    -----
    Source: theory, "The packet along the attack"; arXiv 2205.01493.

    Examples
    --------
    >>> import torch
    >>> s = section(lambda x: torch.nn.functional.softplus(4 * x[:, 0]), [0.0], [1.0], 0.5)
    >>> round(s.position_std, 6), round(s.momentum_std, 6), round(s.product, 6)
    (0.381582, 1.322036, 0.504465)
    """
    start, toward = vector(origin, "origin"), vector(direction, "direction")
    if len(start) != len(toward):
        message = (
            f"direction must have one number for each of the {len(start)} coordinates of origin, "
            f"got {len(toward)}; flatten both with .reshape(-1)."
        )
        raise ValueError(message)
    # The largest entry first: squares of tiny gradients would underflow.
    largest = toward.abs().max()
    if largest == 0:
        message = (
            "direction must not be zero, got the zero vector; where the gradient vanishes, use the "
            "displacement of a PGD attack."
        )
        raise ValueError(message)
    toward = toward / largest
    toward = toward / toward.norm()
    width = positive(width, "width", "the deviation of the window in input units")
    points = whole(points, "points", FEWEST_POINTS, "the window is not resolved by fewer")

    def on_line(t: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        value, gradient = loss_and_gradient(loss, start + torch.from_numpy(t)[:, None] * toward)
        return value.numpy(), (gradient @ toward).numpy()

    t = np.linspace(-WINDOW * width, WINDOW * width, points)
    value, slope = on_line(t)
    if not value.any():
        message = (
            f"loss must not vanish everywhere, got zero at all {points} points of the line; "
            "there is no packet to normalise: widen the window, or compute the loss in float64."
        )
        raise NoPacketError(message)
    mesh, *data = _resolve_kinks(on_line, np.stack([t, value, slope]), width)
    packet = packet_moments(mesh, data[0], data[1], width)
    return Section(
        t=t,
        loss=value,
        slope=slope,
        amplitude=packet.amplitude[np.searchsorted(mesh, t)],
        position_mean=float(packet.position_mean),
        position_std=float(packet.position_std),
        momentum_std=float(packet.momentum_std),
        product=float(packet.product),
        origin=start.numpy(),
        direction=toward.numpy(),
        width=width,
    )


def _resolve_kinks(
    on_line: Callable[[NDArray[np.float64]], tuple[NDArray[np.float64], NDArray[np.float64]]],
    samples: NDArray[np.float64],
    width: float,
) -> NDArray[np.float64]:
    """Add points to the rows t, loss and slope where the cubic between two misses the loss."""

    def window(t: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.exp(-((t / (2 * width)) ** 2))

    tolerance = _MISS * (samples[1] * window(samples[0])).max()
    found = [samples]
    left, right = samples[:, :-1], samples[:, 1:]
    for _ in range(_HALVINGS):
        middle = (left[0] + right[0]) / 2
        found.append(np.stack([middle, *on_line(middle)]))
        (t_0, loss_0, slope_0), (t_1, loss_1, slope_1), (_, loss, slope) = left, right, found[-1]
        step = t_1 - t_0
        # The value alone misses kinks at a quarter of the cell, the slope those in its middle.
        miss = np.abs(loss - (loss_0 + loss_1) / 2 - (slope_0 - slope_1) * step / 8)
        miss += np.abs(slope * step - 1.5 * (loss_1 - loss_0) + (slope_0 + slope_1) * step / 4) / 8
        kinked = miss * window(middle) > tolerance
        # More kinked cells than points: the loss is rough everywhere (float32 rounding looks so),
        # and halving would not end.
        if not 0 < kinked.sum() <= samples.shape[1]:
            break
        left, right, center = left[:, kinked], right[:, kinked], found[-1][:, kinked]
        left, right = np.hstack([left, center]), np.hstack([center, right])
    mesh = np.hstack(found)
    return mesh[:, np.argsort(mesh[0])]


def _axis(values: ArrayLike, name: str) -> NDArray[np.float64]:
    return np.asarray(vector(values, name))


def _hermite(
    v: NDArray[np.float64], step: NDArray[np.float64] | float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Cubics of value, slope, next value, next slope at the part v of a step; and their slopes."""
    cubics = np.stack(
        [
            (1 + 2 * v) * (1 - v) ** 2 + 0 * step,
            v * (1 - v) ** 2 * step,
            v**2 * (3 - 2 * v) + 0 * step,
            v**2 * (v - 1) * step,
        ]
    )
    slopes = np.stack(
        [
            6 * v * (v - 1) / step,
            (1 - v) * (1 - 3 * v) + 0 * step,
            6 * v * (1 - v) / step,
            v * (3 * v - 2) + 0 * step,
        ]
    )
    return cubics, slopes


@lru_cache(maxsize=8)
def _hermite_weights(grid: bytes) -> Tensor:
    """Weights of the integrals of psi^2, t psi^2, t^2 psi^2 and psi'^2, in units of the width.

    Shape (7, points, 4): for the products of value and rate at one point (three) and at a point and
    its successor (four), each at the (former) point; the last row of the latter is not used.
    """
    u = np.frombuffer(grid)
    step = np.diff(u)[:, None]
    node, node_weight = np.polynomial.legendre.leggauss(_GAUSS_POINTS)
    v, node_weight = (node + 1) / 2, node_weight / 2
    x = u[:-1, None] + v * step
    basis, derivative = _hermite(v, step)
    measure = node_weight * step * _normal_density(x)
    forms = np.stack(
        [np.einsum("cq,acq,bcq->cab", measure * x**power, basis, basis) for power in range(3)]
        + [np.einsum("cq,acq,bcq->cab", measure, *2 * [derivative - basis * x / 2])],
        axis=-1,
    )
    weights = np.zeros((7, len(u), 4))
    for row, (a, b) in enumerate(((0, 0), (0, 1), (1, 1))):
        factor = 1 if a == b else 2
        weights[row, :-1] += factor * forms[:, a, b]
        weights[row, 1:] += factor * forms[:, a + 2, b + 2]
    for row, (a, b) in enumerate(((0, 2), (0, 3), (1, 2), (1, 3)), start=3):
        weights[row, :-1] = 2 * forms[:, a, b]
    # The constant continuation beyond both ends: without it a packet at the edge would be cut off,
    # and a cut packet need not respect the bound.
    for index, sign in ((0, -1), (-1, 1)):
        end = sign * u[index]
        density, mass = _normal_density(end), math.erfc(end / math.sqrt(2)) / 2
        second = end * density + mass
        weights[0, index] += (mass, sign * density, second, second / 4)
    return torch.from_numpy(weights)


def _normal_density(x: NDArray[np.float64] | float) -> NDArray[np.float64]:
    return np.asarray(np.exp(-np.square(x) / 2) / math.sqrt(2 * math.pi))
