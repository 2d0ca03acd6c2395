"""Uncertainty of a loss on a domain in any number of dimensions, with standard errors.

Three steps. *Sample*: independent randomisations (replicates) of points spread evenly over the
domain. *Evaluate*: the loss and its gradient, one backward pass for each batch. *Combine*: every
moment is a function of a few sums that merge across batches and replicates; the spread over the
replicates gives the standard error of each figure. Theory: "Notation" and "Estimating moments in
many dimensions"; arXiv 2205.01493.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self, final

import numpy as np
import torch

from qwidgets.domain import Domain, finite, loss_and_gradient, unit_cube, whole

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import ArrayLike, NDArray
    from torch import Tensor

    from qwidgets.domain import Loss

FEWEST_REPLICATES = 8
FEWEST_SAMPLES_PER_REPLICATE = 8

# Numbers in one batch of points: 8 MB in float64, whatever the dimension.
_BATCH_NUMBERS = 1 << 20
_LARGEST_BATCH = 1 << 16
# Float32 directions are orthonormal to about 1e-7 times a root of the dimension.
_ORTHONORMAL = 1e-5


@dataclass(frozen=True, kw_only=True, eq=False)
class Uncertainty:
    """Position-momentum uncertainty of a loss on a domain.

    All arrays are float64 of shape (k,), one number for each direction; the d input axes unless
    directions were given. Position is ``x_k = u_k . x`` in input units, momentum the attack
    operator ``d / dx_k`` in 1 / input units (hbar = 1, no factor -i).

    Attributes
    ----------
    position_mean : ndarray
        ``m = <x>``, input units.
    position_std : ndarray
        ``sqrt(<(x - m)^2>)``, input units.
    momentum_mean : ndarray
        ``q = integral psi psi' dmu``, 1 / input units.
    momentum_std : ndarray
        ``sqrt(integral psi'^2 dmu - q^2)``, 1 / input units.
    product : ndarray
        ``position_std * momentum_std``, dimensionless; never below ``bound``.
    covariance : ndarray
        ``C = integral (x - m) psi psi' dmu``, dimensionless; -1/2 without boundary.
    boundary : ndarray
        ``B = 1 + 2 C``, dimensionless: the surface term of a box; 0 without boundary.
    bound : ndarray
        ``|C| = |1 - B| / 2``, dimensionless: the bound that holds on this domain.
    total_position_std, total_momentum_std : float
        Root of the sum of squares over the directions: the effective radii Dx and Dp.
    standard_error : mapping of str to ndarray or float
        For each name above its standard error: the standard deviation of the true value given the
        replicates, so that an interval of 2 standard errors covers it about 95 times of 100 with 8
        replicates. Infinite where only one replicate has met the packet.
    effective_sample_size : float
        ``(sum w)^2 / sum w^2`` with w the weight of the sample times l^2: the evaluations that
        carry the packet. Where they are few (below 100, say), the standard errors themselves are
        uncertain.
    evaluations : float
        Number of evaluations of the loss, each with its gradient.
    """

    position_mean: NDArray[np.float64]
    position_std: NDArray[np.float64]
    momentum_mean: NDArray[np.float64]
    momentum_std: NDArray[np.float64]
    product: NDArray[np.float64]
    covariance: NDArray[np.float64]
    boundary: NDArray[np.float64]
    bound: NDArray[np.float64]
    total_position_std: float
    total_momentum_std: float
    standard_error: Mapping[str, NDArray[np.float64] | float]
    effective_sample_size: float
    evaluations: float


def uncertainty(
    loss: Loss,
    domain: Domain,
    *,
    directions: ArrayLike | Tensor | None = None,
    samples: int = 8192,
    replicates: int = 8,
    sampler: str = "sobol",
    seed: int = 0,
) -> Uncertainty:
    """Estimate the position-momentum uncertainty of a loss on a domain.

    ``psi = l / sqrt(integral l^2 dmu)`` is read as a wave function; the loss needs no scale.
    Memory does not depend on the number of samples.

    Parameters
    ----------
    loss : callable
        ``loss((n, d) tensor) -> (n,) tensor``, not negative, differentiable by autograd, each value
        from its own point alone. It is given float64 tensors on the CPU.
    domain : Box, Gaussian or Neighborhood
        The measure mu.
    directions : array_like, shape (k, d), optional
        Orthonormal rows u_k to measure along; by default the d input axes.
    samples : int, default 8192
        Evaluations of the loss in all, at least 8 for each replicate. Sobol' points are most even
        where ``samples / replicates`` is a power of two.
    replicates : int, default 8
        Independent randomisations, from which the standard errors come; at least 8.
    sampler : {"sobol", "uniform"}
        Scrambled Sobol' points or independent ones. Beyond 21201 coordinates "sobol" means
        independent points too.
    seed : int, default 0
        The same seed gives the same numbers.

    Returns
    -------
    Uncertainty
        The estimates come from the samples of all replicates together. Each standard error is the
        jackknife over the replicates, widened to the standard deviation of Student's t.

    Raises
    ------
    TypeError
        If the domain is not one, a number is of the wrong kind, or the loss does not return a
        tensor.
    ValueError
        If the directions are not orthonormal vectors of the domain's dimension, there are too few
        samples or replicates, the sampler is unknown, or the loss has the wrong shape, is negative,
        not finite, not differentiable, or zero at every sample.

    Notes
    -----
    ``position_std * momentum_std >= |C|`` holds for the estimates too, since all sums run over the
    same samples. On a bounded domain 1/2 is not a bound: see ``boundary``.

    Examples
    --------
    >>> import qwidgets as qw
    >>> u = qw.uncertainty(lambda x: 1 + 0.3 * (6 * x[:, 0]).sin(), qw.Box(0, 1))
    >>> round(float(u.product[0]), 4), round(float(u.bound[0]), 4)
    (0.3198, 0.0699)
    """
    _check_domain(domain)
    basis = None if directions is None else _orthonormal(directions, domain.dimension)
    replicates = whole(
        replicates, "replicates", FEWEST_REPLICATES, "the standard errors come from their spread"
    )
    samples = whole(
        samples,
        "samples",
        FEWEST_SAMPLES_PER_REPLICATE * replicates,
        f"each of the {replicates} replicates needs {FEWEST_SAMPLES_PER_REPLICATE}",
    )
    seed = whole(seed, "seed", 0, "it starts the random numbers")
    parts = []
    states = np.random.SeedSequence(seed).generate_state(replicates, np.uint64)
    for replicate, state in enumerate(states):
        draw = unit_cube(sampler, domain.cube_dimension, int(state))
        count = (samples + replicate) // replicates
        part = _Sums.none()
        for size in _batches(count, domain.cube_dimension):
            x, weight = domain.sample(draw(size))
            value, gradient = loss_and_gradient(loss, x)
            rate = gradient + value[:, None] * domain.score(x)
            value, rate = value * weight.sqrt(), rate * weight.sqrt()[:, None]
            if basis is not None:
                x, rate = x @ basis.T, rate @ basis.T
            part += _Sums.of(x, value, rate)
        parts.append(part)
    pooled = sum(parts, _Sums.none())
    if pooled.weight == 0:
        message = (
            f"loss must not vanish everywhere, got zero at all {samples} samples; there is no "
            "packet to normalise: move the domain, or compute the loss in float64."
        )
        raise ValueError(message)
    without_one = [
        sum(parts[:index] + parts[index + 1 :], _Sums.none()) for index in range(replicates)
    ]
    return Uncertainty(
        **_estimates(pooled),
        standard_error=MappingProxyType(_standard_errors(without_one)),
        effective_sample_size=pooled.weight**2 / pooled.weight_squared,
        evaluations=float(samples),
    )


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class _Sums:
    """What the samples add up to, in a form that merges without loss.

    With weights ``l^2 dmu``, position ``x`` and momentum ``l' / l + score``: the total weight, the
    weighted means, and the weighted sums of squares and products about these means (Chan, Golub and
    LeVeque, "Updating formulae", 1979). Sums about the means lose no digits to a distant origin or
    a steep loss. Weights are in units of ``4 ** exponent``, so that no scale of the loss under- or
    overflows.
    """

    exponent: int
    weight: float
    weight_squared: float
    mean: NDArray[np.float64]  # (2, k): position, momentum
    spread: NDArray[np.float64]  # (3, k): position^2, momentum^2, position * momentum

    @classmethod
    def none(cls) -> Self:
        """Start with no samples."""
        return cls(
            exponent=0,
            weight=0.0,
            weight_squared=0.0,
            mean=np.zeros((2, 1)),
            spread=np.zeros((3, 1)),
        )

    @classmethod
    def of(cls, x: Tensor, value: Tensor, rate: Tensor) -> Self:
        """Sum over a batch: positions (n, k), amplitudes (n,) and their derivatives (n, k)."""
        largest = float(value.max())
        if largest == 0:
            return cls.none()
        exponent = min(max(math.frexp(largest)[1], -1000), 1000)
        unit = math.ldexp(1.0, -exponent)
        value, rate = value * unit, rate * unit
        weight = value**2
        total = weight.sum()
        position, momentum = weight @ x / total, value @ rate / total
        x, rate = x - position, rate - value[:, None] * momentum
        return cls(
            exponent=exponent,
            weight=float(total),
            weight_squared=float((weight**2).sum()),
            mean=torch.stack([position, momentum]).numpy(),
            spread=torch.stack([weight @ x**2, (rate**2).sum(0), value @ (x * rate)]).numpy(),
        )

    def __add__(self, other: _Sums) -> _Sums:
        if other.weight == 0:
            return self
        if self.weight == 0:
            return other
        exponent = max(self.exponent, other.exponent)
        one, two = (math.ldexp(1.0, 2 * (part.exponent - exponent)) for part in (self, other))
        weight = one * self.weight + two * other.weight
        share = two * other.weight / weight
        apart = other.mean - self.mean
        position, momentum = apart
        between = np.stack([position**2, momentum**2, position * momentum])
        return _Sums(
            exponent=exponent,
            weight=weight,
            weight_squared=one**2 * self.weight_squared + two**2 * other.weight_squared,
            mean=self.mean + share * apart,
            spread=one * self.spread + two * other.spread + one * self.weight * share * between,
        )


def _estimates(sums: _Sums) -> dict[str, Any]:
    position_var, momentum_var, covariance = sums.spread / sums.weight
    position_std, momentum_std = np.sqrt(position_var), np.sqrt(momentum_var)
    return {
        "position_mean": sums.mean[0],
        "position_std": position_std,
        "momentum_mean": sums.mean[1],
        "momentum_std": momentum_std,
        "product": position_std * momentum_std,
        "covariance": covariance,
        "boundary": 1 + 2 * covariance,
        "bound": np.abs(covariance),
        "total_position_std": math.sqrt(position_var.sum()),
        "total_momentum_std": math.sqrt(momentum_var.sum()),
    }


def _standard_errors(without_one: list[_Sums]) -> dict[str, Any]:
    """Jackknife over the replicates, from the sums that leave out one of them at a time.

    The factor ``sqrt((R - 1) / (R - 3))`` is the standard deviation of Student's t with R - 1
    degrees of freedom (JCGM 101:2008, 6.4.9): with few replicates the jackknife alone claims too
    much.
    """
    if any(rest.weight == 0 for rest in without_one):
        one = without_one[0] + without_one[1]
        return {name: np.inf * np.ones_like(value) for name, value in _estimates(one).items()}
    table = [_estimates(rest) for rest in without_one]
    replicates = len(table)
    factor = (replicates - 1) * math.sqrt(1 / (replicates - 3))
    # std divides by R: (R - 1) / R * sum of squares = (R - 1) * variance.
    return {
        name: factor * np.std([estimate[name] for estimate in table], axis=0) for name in table[0]
    }


def _batches(count: int, dimension: int) -> Iterator[int]:
    size = min(max(_BATCH_NUMBERS // dimension, 1), _LARGEST_BATCH)
    while count > 0:
        yield min(size, count)
        count -= size


def _check_domain(domain: object) -> None:
    if not isinstance(domain, Domain):
        message = (
            f"domain must be a Box, a Gaussian or a Neighborhood, got {type(domain).__name__}; "
            "build one with qw.Box(lower, upper)."
        )
        raise TypeError(message)


def _orthonormal(directions: ArrayLike | Tensor, dimension: int) -> Tensor:
    basis = finite(directions, "directions")
    basis = basis[None] if basis.ndim == 1 else basis
    if basis.ndim != 2 or basis.shape[1] != dimension or not len(basis):  # noqa: PLR2004
        message = (
            f"directions must be rows of the domain's dimension, shape (k, {dimension}), got shape "
            f"{tuple(basis.shape)}; flatten each direction with .reshape(-1)."
        )
        raise ValueError(message)
    product = basis @ basis.T
    miss = (product - torch.eye(len(basis), dtype=basis.dtype)).abs()
    if miss.max() > _ORTHONORMAL:
        row, column = divmod(int(miss.argmax()), len(basis))
        got = (
            f"length {product[row, row].sqrt():g} of direction {row}"
            if row == column
            else f"inner product {product[row, column]:g} of directions {row} and {column}"
        )
        message = (
            f"directions must be orthonormal, got {got}; orthonormalise the rows with "
            "np.linalg.qr(directions.T)[0].T."
        )
        raise ValueError(message)
    return basis
