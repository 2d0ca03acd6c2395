"""Uncertainty of a loss on a domain in any number of dimensions, with standard errors.

Three steps. *Sample*: independent randomisations (replicates) of points spread evenly over the
domain, drawn where a pilot found the packet (`qwidgets.proposal`). *Evaluate*: the loss and its
gradient, one backward pass for each batch. *Combine*: every moment is a function of a few sums that
merge across batches, replicates, seeds and workers; the spread over the replicates gives the
standard error of each figure. Theory: "Notation" and "Estimating moments in many dimensions"; arXiv
2205.01493.

What is known exactly is not left to the samples. By Stein's identity (`qwidgets.domain`) the
position is what the domain alone makes of it plus what the slope of the loss adds: along an axis on
which the loss is flat the second part is zero at every sample, and so is the error. In a Gaussian
window the identity is the commutator, ``2 C + 1 = 0``: the covariance and the momentum's mean are
known, and the commutator that the samples show is left over to test them (``self_check``).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from qwidgets.checks import one_of, positive, whole
from qwidgets.directions import orthonormal
from qwidgets.domain import SAMPLERS, Domain, Gaussian
from qwidgets.estimates import Record, estimate, relative_error
from qwidgets.proposal import make_plan
from qwidgets.sums import Meter, Stream, advance, completed

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import ArrayLike, NDArray
    from torch import Tensor

    from qwidgets.domain import Loss

Report = Callable[[float, str], bool]

FEWEST_REPLICATES = 8
FEWEST_SAMPLES_PER_REPLICATE = 8

# Numbers in one batch of points: arrays of this size pass through the caches of a core.
_BATCH_NUMBERS = 1 << 20
_LARGEST_BATCH = 1 << 13
# A result is yielded whenever the evaluations have grown by this share.
_GROWTH = 1 / 8


class UncertaintyWarning(UserWarning):
    """An uncertainty should not be trusted, and why."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Uncertainty:
    """Position-momentum uncertainty of a loss on a domain.

    All arrays are float64 of shape (k,), one number for each direction; the d input axes unless
    directions were given. Position is ``x_k = u_k . x`` in input units, momentum the attack
    operator ``d / dx_k`` in 1 / input units (hbar = 1, no factor -i). Of a loss that returns m
    values at each point arrays have shape (m, k), and what is a float here shape (m,).

    Attributes
    ----------
    position_mean : ndarray
        ``m = <x>``, input units.
    position_std : ndarray
        ``sqrt(<(x - m)^2>)``, input units.
    momentum_mean : ndarray
        ``q = integral psi psi' dmu``, 1 / input units; 0 in a Gaussian window, exactly.
    momentum_std : ndarray
        ``sqrt(integral psi'^2 dmu - q^2)``, 1 / input units.
    product : ndarray
        ``position_std * momentum_std``, dimensionless; never below ``bound``.
    covariance : ndarray
        ``C = integral (x - m) psi psi' dmu``, dimensionless; -1/2 in a Gaussian window, exactly.
    boundary : ndarray
        ``B = 1 + 2 C``, dimensionless: the surface term of a box; 0 in a Gaussian window.
    bound : ndarray
        ``|C| = |1 - B| / 2``, dimensionless: the bound that holds on this domain.
    total_position_std, total_momentum_std : float
        Root of the sum of squares over the directions: the effective radii Dx and Dp.
    standard_error : mapping of str to ndarray or float
        For each name above its standard error: the standard deviation of the true value given the
        replicates, so that an interval of 2 standard errors covers it about 95 times of 100 with 8
        replicates. Never below the rounding of float64 sums. Infinite where only one replicate has
        met the packet.
    effective_sample_size : float
        ``(sum w)^2 / sum w^2`` with w the weight of the sample times l^2: the evaluations that
        carry the packet.
    evaluations : float
        Number of evaluations of the loss, those of the pilot and of the self-check included.
    self_check : float
        An identity that the estimates do not use, in standard errors. In a Gaussian window ``|2 C +
        1|`` of the samples alone; on a box the sum of B over the directions from its faces against
        ``1 + 2 C``; in a neighborhood ``|<l^2 u> - <l l' kappa>|``, Stein's identity. The largest
        over the directions, brought to the scale of one normal variable: with z there, chance
        exceeds it as often as a normal variable exceeds z, whatever the number of directions and
        replicates. Above 4, which chance does 6 times in 100,000 runs, there is a warning.
    warnings : tuple of str
        Reasons not to trust the estimate, each with the remedy; also issued as
        `UncertaintyWarning`. Empty in a sound run.
    input_shape : tuple of int or None
        Shape of one input, where it is known.
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
    self_check: float
    warnings: tuple[str, ...]
    input_shape: tuple[int, ...] | None
    _record: Record

    def merge(self, *others: Uncertainty) -> Uncertainty:
        """Pool with estimates of the same loss from other seeds, processes or machines.

        Replicates are independent, so that those of all estimates together give the pooled estimate
        and its standard errors. The order does not matter, to rounding.

        Parameters
        ----------
        *others : Uncertainty
            Of the same loss, domain and directions, from other seeds.

        Returns
        -------
        Uncertainty

        Raises
        ------
        ValueError
            If the domains, the directions or the numbers of labels differ, or a seed occurs twice.
        """
        record = self._record
        for other in others:
            record = record.merged(other._record)  # noqa: SLF001
        return _result(record)

    def to_xarray(self) -> xr.Dataset:
        """Label all figures and their standard errors as an `xarray.Dataset`.

        Returns
        -------
        xarray.Dataset
            Every name of the attributes, and ``..._standard_error`` for each, with the unit and the
            meaning in the attributes; over ``direction``, or over the pixels where the input shape
            is known, and ``label`` of several losses.
        """
        from qwidgets.table import to_xarray

        return to_xarray(self)

    def __repr__(self) -> str:
        from qwidgets.table import text

        return text(self)

    def _repr_html_(self) -> str:
        from qwidgets.table import html

        return html(self)

    def __reduce__(self) -> tuple[Any, ...]:
        # Everything follows from the sums; what `dataclass` would carry across processes does not
        # all pickle.
        return _result, (self._record,)


def uncertainty(
    loss: Loss,
    domain: Domain,
    *,
    directions: ArrayLike | Tensor | None = None,
    samples: int = 8192,
    target_error: float | None = None,
    limit: int = 1 << 20,
    replicates: int = 16,
    sampler: str = "sobol",
    seed: int = 0,
    input_shape: tuple[int, ...] | None = None,
    progress: Report | None = None,
) -> Uncertainty:
    """Estimate the position-momentum uncertainty of a loss on a domain.

    ``psi = l / sqrt(integral l^2 dmu)`` is read as a wave function; the loss needs no scale.
    Memory does not depend on the number of samples. Interrupting (Ctrl-C, the kernel's interrupt
    button) returns what is done, as soon as anything is.

    Parameters
    ----------
    loss : callable
        ``loss((n, d) tensor) -> (n,) tensor``, not negative, differentiable by autograd, each value
        from its own point alone; or ``-> (n, m)``, m labels that share the evaluations. It is
        given float64 tensors on the CPU and may compute in any precision on any device.
    domain : Box, Gaussian or Neighborhood
        The measure mu.
    directions : array_like, shape (k, d), optional
        Orthonormal rows u_k to measure along; by default the d input axes. See
        `qwidgets.principal_directions`, `class_directions`, `attack_directions`.
    samples : int, default 8192
        Evaluations that make up the estimate, at least 8 for each replicate. Sobol' points are most
        even where ``samples / replicates`` is a power of two. A neighborhood is sampled best with
        at least 4 for every 3 of its balls: then some of them, a pilot, look into each ball. In a
        window and on a box a pilot comes on top, a sixteenth at most, and on a box as much again
        for the self-check.
    target_error : float, optional
        Relative standard error of both totals to be reached: the samples are doubled until it is.
    limit : int, default 1048576
        Samples to stop at if the target error is not reached.
    replicates : int, default 16
        Independent randomisations, from which the standard errors come; at least 8.
    sampler : {"sobol", "uniform"}
        Scrambled Sobol' points or independent ones. Beyond 21201 coordinates "sobol" means
        independent points too.
    seed : int, default 0
        The same seed gives the same numbers.
    input_shape : tuple of int, optional
        Shape of one input, for maps over its pixels; by default the attribute of that name of the
        loss, if it has one.
    progress : callable, optional
        ``progress(fraction, text) -> bool``; False stops and returns what is done.
        `qwidgets.progress_bar` makes one: a bar, in a notebook with a Cancel button.

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

    Warns
    -----
    UncertaintyWarning
        Where the estimate should not be trusted; see `Uncertainty.warnings`.

    Notes
    -----
    On a bounded domain 1/2 is not a bound: see ``boundary``. With `target_error` the run ends when
    the standard error happens to be small enough, which makes it a little too small on average.

    Examples
    --------
    >>> import qwidgets as qw
    >>> u = qw.uncertainty(lambda x: 1 + 0.3 * (6 * x[:, 0]).sin(), qw.Box(0, 1))
    >>> round(float(u.product[0]), 3), round(float(u.bound[0]), 3)
    (0.32, 0.07)
    """
    units = iterate_uncertainty(
        loss,
        domain,
        directions=directions,
        samples=samples,
        target_error=target_error,
        limit=limit,
        replicates=replicates,
        sampler=sampler,
        seed=seed,
        input_shape=input_shape,
    )
    result: Uncertainty | None = None
    try:
        for result in units:
            if progress and not progress(*_progress(result, target_error, samples)):
                break
    except KeyboardInterrupt:
        if result is None:
            raise
    finally:
        units.close()
    assert result is not None
    for reason in result.warnings:
        warnings.warn(reason, UncertaintyWarning, stacklevel=2)
    return result


def iterate_uncertainty(
    loss: Loss,
    domain: Domain,
    *,
    directions: ArrayLike | Tensor | None = None,
    samples: int = 8192,
    target_error: float | None = None,
    limit: int = 1 << 20,
    replicates: int = 16,
    sampler: str = "sobol",
    seed: int = 0,
    input_shape: tuple[int, ...] | None = None,
) -> Generator[Uncertainty]:
    """Do the work of `uncertainty` in rounds, each of which yields all that is known by then.

    Closing the iterator stops. The last result is that of `uncertainty` with the same arguments.

    Parameters
    ----------
    loss, domain, directions, samples, target_error, limit, replicates, sampler, seed, input_shape
        As of `uncertainty`.

    Yields
    ------
    Uncertainty
        Whenever the evaluations have grown by an eighth or a batch, whichever is more. No warnings
        are issued: see `Uncertainty.warnings`.

    Raises
    ------
    TypeError, ValueError
        As `uncertainty`.
    """
    _check_domain(domain)
    basis = None if directions is None else orthonormal(directions, domain.dimension)
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
    totals = [samples]
    if target_error is not None:
        target_error = positive(target_error, "target_error", "the relative error of the totals")
        limit = whole(limit, "limit", samples, "it is reached from samples by doubling")
        while totals[-1] < limit:
            totals.append(min(2 * totals[-1], limit))
    shape = getattr(loss, "input_shape", None) if input_shape is None else input_shape
    if shape is not None and math.prod(shape) != domain.dimension:
        message = (
            f"input_shape must have {domain.dimension} pixels, as the domain, got {tuple(shape)} "
            f"with {math.prod(shape)}; leave it out if the inputs are no images."
        )
        raise ValueError(message)
    one_of("sampler", sampler, SAMPLERS)
    meter = Meter(loss, domain, basis)
    blank = Record(
        kind=type(domain).__name__,
        domain=domain.fingerprint,
        square=domain.width**2 if isinstance(domain, Gaussian) else None,
        variance=meter.along(domain.variance).numpy(),
        basis=None if basis is None else basis.numpy(),
        input_shape=None if shape is None else tuple(shape),
        seeds=(seed,),
    )
    states = np.random.SeedSequence(seed).generate_state(replicates + 3, np.uint64).tolist()
    return _rounds(meter, blank, totals, target_error, sampler, states)


def _rounds(
    meter: Meter,
    blank: Record,
    totals: list[int],
    target_error: float | None,
    sampler: str,
    seeds: list[int],
) -> Generator[Uncertainty]:
    plan = make_plan(meter.loss, meter.domain, samples=totals[0], sampler=sampler, seeds=seeds[-3:])
    streams = [Stream(plan, seed) for seed in seeds[:-3]]
    generator = torch.Generator().manual_seed(seeds[0])
    batch = min(max(_BATCH_NUMBERS // meter.domain.dimension, 2), _LARGEST_BATCH)
    due, reached = 0.0, False
    # Pilot evaluations of balls are part of the estimate; others only steer it.
    spent = plan.evaluations if plan.balls is not None else 0
    for total in totals:
        while True:
            wanted = [
                min((total - spent + index) // len(streams) - stream.samples, batch)
                for index, stream in enumerate(streams)
            ]
            for some in _together(wanted, batch):
                advance(meter, streams[some], wanted[some], generator)
            done = spent + sum(stream.samples for stream in streams)
            if done < min(total, due):
                continue
            due = done * (1 + _GROWTH)
            record = replace(
                blank,
                replicates=completed(meter, streams),
                alone=meter.alone,
                overhead=plan.evaluations,
            )
            if record.met or done == totals[-1]:
                reached = target_error is None or relative_error(record) <= target_error
                if done == totals[-1] and not reached:
                    record = replace(record, missed=target_error)
                yield _result(record)
            if done == total:
                break
        if reached:
            return


def _together(counts: list[int], most: int) -> Iterator[slice]:
    """Group counts that follow each other, so that no group adds up to more."""
    start, total = 0, 0
    for index, count in enumerate(counts):
        if total and total + count > most:
            yield slice(start, index)
            start, total = index, 0
        total += count
    if total:
        yield slice(start, len(counts))


def _result(record: Record) -> Uncertainty:
    return Uncertainty(**estimate(record), _record=record)


def _progress(result: Uncertainty, target_error: float | None, samples: int) -> tuple[float, str]:
    """Fraction of the work that is done, and a few words."""
    error = relative_error(result._record)  # noqa: SLF001
    text = f"{result.evaluations:,.0f} evaluations, relative error {error:.1e}"
    if target_error is None:
        return min(result.evaluations / samples, 1.0), text
    # The error falls at least like the root of the number of samples.
    return min((target_error / error) ** 2, 1.0), text


def _check_domain(domain: object) -> None:
    if not isinstance(domain, Domain):
        message = (
            f"domain must be a Box, a Gaussian or a Neighborhood, got {type(domain).__name__}; "
            "build one with qw.Box(lower, upper)."
        )
        raise TypeError(message)
