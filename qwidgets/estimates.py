"""From sums to figures: estimates, standard errors, the self-check and the warnings.

A `Record` holds the sums of all replicates. Estimates are functions of the pooled sums; leaving out
one replicate at a time gives their standard errors (the jackknife), and records of other seeds or
workers merge by putting their replicates together.
"""

from __future__ import annotations

import itertools
import math
import operator
from dataclasses import dataclass, replace
from statistics import NormalDist
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, final

import numpy as np

from qwidgets.domain import NoPacketError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from qwidgets.sums import Sums

    Figures = dict[str, Any]

# Standard errors do not go below the rounding of float64 sums.
_ROUNDING = 64 * float(np.finfo(np.float64).eps)
_FEW = 100
_DOUBT = 4.0
_STILL = 0.01


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Record:
    """Everything that an `Uncertainty` follows from, in a form that merges."""

    kind: str  # of domain
    domain: str  # its fingerprint
    square: float | None  # of the width of a Gaussian window
    variance: NDArray[np.float64]  # of the position within a piece of the domain, (k,) or (1,)
    basis: NDArray[np.float64] | None
    input_shape: tuple[int, ...] | None
    seeds: tuple[int, ...]
    replicates: tuple[tuple[Sums, ...], ...] = ()  # for each replicate and label
    alone: bool = True  # one label whose results have no axis of labels
    overhead: int = 0  # evaluations of pilots
    missed: float | None = None  # a target error that was not reached

    def merged(self, other: Record) -> Record:
        """Take the replicates of both."""
        if self.domain != other.domain:
            message = (
                "others must be of the same domain, got different domains; call merge on results "
                "of one uncertainty(loss, domain, seed=...) each."
            )
            raise ValueError(message)
        same = (self.basis is None) == (other.basis is None) and (
            self.basis is None or np.array_equal(self.basis, other.basis)  # type: ignore[arg-type]
        )
        if not same:
            message = (
                "others must have the same directions, got different ones; pass the same array as "
                "directions= to all."
            )
            raise ValueError(message)
        labels = [len(record.replicates[0]) for record in (self, other)]
        if labels[0] != labels[1] or self.alone != other.alone:
            message = (
                f"others must have the same number of labels, got {labels[0]} and {labels[1]}."
            )
            raise ValueError(message)
        twice = sorted(set(self.seeds) & set(other.seeds))
        if twice:
            message = (
                f"others must come from other seeds, got seed {twice[0]} twice; its samples would "
                "count double: give each run a seed= of its own."
            )
            raise ValueError(message)
        missed = [record.missed for record in (self, other) if record.missed is not None]
        merged = replace(
            self,
            input_shape=self.input_shape or other.input_shape,
            seeds=self.seeds + other.seeds,
            replicates=self.replicates + other.replicates,
            overhead=self.overhead + other.overhead,
            missed=min(missed, default=None),
        )
        if merged.missed is not None and relative_error(merged) <= merged.missed:
            return replace(merged, missed=None)
        return merged

    @property
    def met(self) -> bool:
        """Whether samples have met the packet of every label."""
        labels = zip(*self.replicates, strict=True)
        return all(sum(sums.weight for sums in label) > 0 for label in labels)

    @property
    def evaluations(self) -> int:
        """Evaluations of the loss, those of pilots and on faces included."""
        parts = [replicate[0] for replicate in self.replicates]
        return self.overhead + sum(part.samples + 2 * part.pairs for part in parts)


def estimate(record: Record) -> dict[str, Any]:
    """Compute all attributes of the `Uncertainty` of a record.

    Raises
    ------
    ValueError
        If the loss was zero at every sample.
    """
    packets = [_packet(record, label) for label in range(len(record.replicates[0]))]

    def column(values: list[Any]) -> Any:
        return values[0] if record.alone else np.stack(values)

    def columns(tables: list[Figures]) -> Figures:
        return {name: column([table[name] for table in tables]) for name in tables[0]}

    return {
        **columns([packet.figures for packet in packets]),
        "standard_error": MappingProxyType(columns([packet.errors for packet in packets])),
        "effective_sample_size": column([packet.effective_sample_size for packet in packets]),
        "self_check": column([packet.self_check for packet in packets]),
        "evaluations": float(record.evaluations),
        "input_shape": record.input_shape,
        "warnings": tuple(
            reason if record.alone else f"label {label}: {reason}"
            for label, packet in enumerate(packets)
            for reason in _reasons(record, packet)
        ),
    }


def relative_error(record: Record) -> float:
    """Largest standard error of the totals in units of the totals, over all labels."""
    packets = [_packet(record, label) for label in range(len(record.replicates[0]))]
    ratios = [
        packet.errors[name] / packet.figures[name]
        for packet in packets
        for name in ("total_position_std", "total_momentum_std")
        if packet.figures[name] > 0
    ]
    return float(max(ratios))


class _Packet(NamedTuple):
    """What is known of the packet of one label."""

    figures: Figures
    errors: Figures
    effective_sample_size: float
    self_check: float
    still: float  # share of the packet where the gradient is zero though the loss varies


def _packet(record: Record, label: int) -> _Packet:
    parts = [replicate[label] for replicate in record.replicates]
    # Everything before a replicate and everything after it, so that nothing is subtracted.
    before = list(itertools.accumulate(parts, operator.add))
    after = list(itertools.accumulate(parts[::-1], operator.add))[::-1]
    pooled = before[-1]
    rest = [after[1], *map(operator.add, before[:-2], after[2:]), before[-2]]
    if pooled.weight <= 0:
        message = (
            f"loss must not vanish everywhere, got zero at all {record.evaluations} samples; there "
            "is no packet to normalise: move the domain, or compute the loss in float64."
        )
        raise NoPacketError(message)
    met = all(sums.weight > 0 for sums in rest)
    groups = [pooled, *(sums.about(pooled.origin) for sums in rest if met)]
    means = np.stack([sums.moments / sums.weight for sums in groups], 1)
    shares = np.array([part.samples for part in parts]) / pooled.samples

    core = _core(means, pooled.origin, record)
    figures = _figures(_unbiased(core, shares) if met else core[:, 0], record)
    identity, identity_size = _identity(means, groups, record)
    table = _figures(core, record)
    errors = {
        name: np.hypot(_jackknife(table[name], shares), _ROUNDING * size)
        if met
        else np.full_like(size, np.inf)[()]
        for name, size in _sizes(figures).items()
    }
    doubt = np.hypot(_jackknife(identity, shares), _ROUNDING * identity_size) if met else np.inf
    # Of many errors from few replicates some are far too small.
    doubt = np.maximum(doubt, np.sqrt(np.mean(np.square(doubt))))
    low, high = pooled.still_range
    return _Packet(
        figures=figures,
        errors=errors,
        effective_sample_size=pooled.weight**2 / pooled.weight_squared,
        self_check=_normal_score(identity[0] / doubt, len(parts)),
        still=pooled.still / pooled.weight if low < high else 0.0,
    )


def _core(
    means: NDArray[np.float64], origin: NDArray[np.float64], record: Record
) -> NDArray[np.float64]:
    """Reduce means over samples, (8, groups, k), to what is nearly linear in them.

    Five rows: the mean of the position and its variance, the mean of the momentum, its variance
    (in a Gaussian window that part of it which does not go with the position), and the correlation.
    """
    x, rate, shift, square, rate_square, product, more, middle = means
    sampled = square - x**2
    position_var = sampled + more - shift * (x + middle)
    momentum_var = rate_square - rate**2
    covariance = product - x * rate
    rough = _rough(sampled[0], momentum_var[0], origin[1] + rate[0], record)
    rough |= position_var[0] <= 0
    position_var = np.where(rough, sampled, position_var)
    position_std, momentum_std = (
        np.sqrt(np.maximum(variance, 0.0)) for variance in (sampled, momentum_var)
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = np.where(sampled > 0, covariance / sampled, 0.0)
        defined = (position_std > 0) & (momentum_std > 0)
        correlation = np.where(defined, covariance / position_std / momentum_std, 0.0)
    if record.square is not None:
        momentum_var = momentum_var - slope * covariance
    mean = origin[0] + x + np.where(rough, 0.0, shift)
    return np.stack([mean, position_var, origin[1] + rate, momentum_var, correlation])


def _rough(
    position_var: NDArray[np.float64],
    momentum_var: NDArray[np.float64],
    momentum_mean: NDArray[np.float64],
    record: Record,
) -> NDArray[np.bool_]:
    """Where Stein's identity is the noisier of two estimates of the position.

    With S the variance of the domain itself and V that of the packet, a sample alone has a variance
    of about ``V^2``, the identity one of ``c S^2 <a^2>`` with a the slope; V counts as S where it
    is larger. Of independent points c is near 2 in a window and near 1 on a box; 3 does justice to
    even points, which serve a square better than a slope.
    """
    if record.square is None:
        steepness = momentum_var + momentum_mean**2
    else:
        # In a window kappa is constant, and with it the part of a constant slope.
        steepness = momentum_var - 0.25 / record.square
    narrow = np.minimum(position_var / record.variance, 1.0)
    rough: NDArray[np.bool_] = 3 * steepness * record.variance > narrow**2
    return rough


def _figures(core: NDArray[np.float64], record: Record) -> Figures:
    """All figures from rows (5, ..., k)."""
    position_mean, position_var, momentum_mean, momentum_var, correlation = core
    position_var, momentum_var = np.maximum(position_var, 0.0), np.maximum(momentum_var, 0.0)
    if record.square is None:
        # By the correlation, so that the product is never below its bound.
        covariance = np.clip(correlation, -1, 1) * np.sqrt(position_var * momentum_var)
    else:
        # The commutator is known: the samples only say by how much the product exceeds its bound.
        momentum_var = momentum_var + 0.25 / position_var
        covariance, momentum_mean = np.full_like(position_mean, -0.5), np.zeros_like(position_mean)
    position_std, momentum_std = np.sqrt(position_var), np.sqrt(momentum_var)
    return {
        "position_mean": position_mean,
        "position_std": position_std,
        "momentum_mean": momentum_mean,
        "momentum_std": momentum_std,
        "product": position_std * momentum_std,
        "covariance": covariance,
        "boundary": 1 + 2 * covariance,
        "bound": np.abs(covariance),
        "total_position_std": np.sqrt(position_var.sum(-1)),
        "total_momentum_std": np.sqrt(momentum_var.sum(-1)),
    }


def _sizes(figures: Figures) -> Figures:
    """Sizes of the numbers that each figure was computed from: what rounding is relative to."""
    position, momentum = figures["position_std"], figures["momentum_std"]
    # A flat loss on a box has no momentum; what rounds is a slope over the packet.
    momentum = momentum + np.abs(figures["momentum_mean"]) + 1 / np.maximum(position, 1e-300)
    return {
        "position_mean": np.abs(figures["position_mean"]) + position,
        "position_std": position,
        "momentum_mean": momentum,
        "momentum_std": momentum,
        "product": 1 + figures["product"],
        "covariance": 1 + figures["bound"],
        "boundary": 1 + figures["bound"],
        "bound": 1 + figures["bound"],
        "total_position_std": np.linalg.norm(position),
        "total_momentum_std": np.linalg.norm(momentum),
    }


def _unbiased(core: NDArray[np.float64], shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Take off the bias of order 1 / n that leaving out a replicate reveals: the jackknife."""
    whole, rest = core[:, 0], core[:, 1:]
    return whole + ((1 - shares)[:, None] * (whole[:, None] - rest)).sum(1)  # type: ignore[no-any-return]


def _jackknife(table: NDArray[np.float64], shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Take the standard error from what leaves out one replicate of any size at a time.

    Busing, Meijer and van der Leeden, "Delete-m jackknife for unequal m" (1999). The factor
    ``sqrt((R - 1) / (R - 3))`` is the standard deviation of Student's t with R - 1 degrees of
    freedom (JCGM 101:2008, 6.4.9): with few replicates the jackknife alone claims too much.
    """
    whole, rest = table[0], table[1:]
    count = len(rest)
    parts = 1 / shares.reshape(-1, *[1] * (rest.ndim - 1))
    # Deviations from the whole, so that equal numbers give exactly zero.
    apart = (parts - 1) * (whole - rest)
    apart = apart - (apart / parts).sum(0)
    variance = (apart**2 / (parts - 1)).mean(0)
    return np.sqrt(variance * (count - 1) / (count - 3))  # type: ignore[no-any-return]


def _identity(
    means: NDArray[np.float64], groups: list[Sums], record: Record
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Evaluate what must be zero and is not used, (groups, k), and the size of what cancels."""
    x, rate, shift, _, _, product, *_ = means
    covariance = product - x * rate
    if record.kind == "Gaussian":
        return 2 * covariance + 1, np.ones_like(x[0])
    if record.kind == "Neighborhood":
        return shift, np.sqrt(np.broadcast_to(record.variance, x[0].shape))
    flux = [
        (sums.faces[0] - sums.faces[1:] @ place) / sums.pairs * (sums.samples / sums.weight)
        for sums, place in zip(groups, x, strict=True)
    ]
    return (np.array(flux) - 2 * covariance.sum(-1))[:, None], np.array([float(len(x[0]))])


def _normal_score(scores: NDArray[np.float64], replicates: int) -> float:
    """Largest of several scores, as one normal variable would show it.

    Student's t to normal by Wallace's approximation (Annals of Mathematical Statistics 30, 1959),
    and the largest of several by Bonferroni's bound.
    """
    freedom = replicates - 1
    # The errors are widened to the deviation of Student's t; the test knows the law itself.
    square = scores**2 * freedom / (freedom - 2)
    factor = (8 * freedom + 1) / (8 * freedom + 3)
    largest = float(factor * np.sqrt(freedom * np.log1p(square / freedom)).max())
    tail = len(scores) * math.erfc(largest / math.sqrt(2))
    if tail == 0:  # beyond 38, where the number of scores is lost in rounding
        return largest
    return 0.0 if tail >= 1 else -NormalDist().inv_cdf(tail / 2)


def _reasons(record: Record, packet: _Packet) -> list[str]:
    """Why an estimate should not be trusted, each with the remedy."""
    reasons = []
    if packet.effective_sample_size < _FEW:
        reasons.append(
            f"the effective sample size is {packet.effective_sample_size:.0f} of "
            f"{record.evaluations} evaluations, too few for honest standard errors; raise "
            "samples=, or choose a smaller domain."
        )
    if packet.self_check > _DOUBT:
        reasons.append(
            f"the self-check is off by {packet.self_check:.1f} standard errors, beyond chance; the "
            "samples miss a part of the packet (raise samples=), or the gradient is not that of "
            "the loss (a jump, .detach(), low precision: mend the loss)."
        )
    if packet.still > _STILL:
        reasons.append(
            f"the gradient is exactly zero on {packet.still:.0%} of the packet though the loss "
            "varies there; it underflows (call model.float() on a float16 model), or the loss is "
            "made of steps."
        )
    if record.missed is not None:
        reasons.append(
            f"target_error {record.missed:g} was not reached within {record.evaluations} "
            f"evaluations, the relative error is {relative_error(record):.2g}; raise limit=."
        )
    return reasons
