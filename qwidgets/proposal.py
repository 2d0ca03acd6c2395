"""Where to draw: plans that put the samples of a domain where the packet is.

A plan starts independent streams of weighted samples. A few evaluations, the pilot, steer it. They
do not enter the estimate as samples, so that, given the pilot, every stream is an unbiased sample
of the domain, independent of the others.

*Gaussian.* A network's loss varies along few directions. The pilot finds them (the leading
eigenvectors of ``<a a^T>`` with ``a = l' / l``) and the packet's mean and spread along them, which
Stein's identity tells even where no sample has reached the packet: ``<u> = 2 s^2 <a>``. Along these
directions samples come from a normal density at the packet, wider than the window; across them from
the window itself.

*Neighborhood.* The pilot evaluates the loss once in the middle of every ball. Linearised there, the
loss has an exact mean square over the ball, to which antithetic pairs of samples are allocated. The
linearisation serves a second time, as control variate: how many samples a ball got, less how many
it should get on average, has mean zero; times what the linearisation says of the ball, it is taken
off.

*Box.* Evenly spread points are hard to beat unless the packet is concentrated. Only then they are
tilted towards it, ``exp(2 <a_i> x_i)`` on each axis with a mean slope, beside a share of even ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, final

import torch
from torch import Tensor

from qwidgets.domain import Box, Domain, Gaussian, Neighborhood, Sample, evaluate, unit_cube

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qwidgets.domain import Loss

Draw = Callable[[int], Sample]

# A pilot of a sixteenth of the samples; below 64 of them it misleads more than it helps.
_PILOT_SHARE = 16
_SMALLEST_PILOT = 64
_LARGEST_PILOT = 4096
_STEPS = (0.25, 0.25, 0.5)
_FEWEST_EFFECTIVE = 0.1
# Every ball gets a pilot evaluation where this leaves a quarter of the samples for the estimate.
_MOST_BALLS = 0.75
# The share of the samples that goes to all balls alike whatever the pilot says.
_FLOOR = 0.1
# Along a direction with less than this the window itself is as good: weights like exp(0.2 t).
_ACTIVE = 0.05
_MOST_ACTIVE = 8
_WIDEST = 2.0
# On a box a tilt pays where even points are worth less than this share of their number.
_CONCENTRATED = 0.05
_BINS = 64
_STEEPEST = 100.0
# Balls that are looked at together: a few MB, whatever their number.
_CHUNK = 1 << 10


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """How to draw samples of a domain.

    Attributes
    ----------
    stream : callable
        ``stream(seed) -> draw`` and ``draw(n) -> Sample``, the next n points of that stream.
        Streams of different seeds are independent.
    evaluations : int
        Evaluations that the pilot took.
    balls : Balls or None
        What is known of the balls that samples are allocated to.
    """

    stream: Callable[[int], Draw]
    evaluations: int = 0
    balls: Balls | None = None


def make_plan(
    loss: Loss, domain: Domain, *, samples: int, sampler: str, seeds: Sequence[int]
) -> Plan:
    """Spend a pilot on finding out where the packet is, and plan the draws.

    Parameters
    ----------
    loss : callable
    domain : Domain
    samples : int
        Evaluations that there will be at least, the pilot's included.
    sampler : {"sobol", "uniform"}
    seeds : sequence of 3 int
        Of the pilot's own streams.

    Returns
    -------
    Plan
    """
    pilot = min(samples // _PILOT_SHARE, _LARGEST_PILOT)
    steps = [
        (int(share * pilot), seed)
        for share, seed in zip(_STEPS, seeds, strict=True)
        if pilot >= _SMALLEST_PILOT
    ]
    if isinstance(domain, Neighborhood) and len(domain.centers) <= _MOST_BALLS * samples:
        return _plan_neighborhood(loss, domain, sampler)
    if isinstance(domain, Gaussian):
        return _plan_gaussian(loss, domain, sampler, steps)
    if isinstance(domain, Box):
        return _plan_box(loss, domain, sampler, steps)

    def stream(seed: int) -> Draw:
        cube = unit_cube(sampler, domain.cube_dimension, seed)
        return lambda n: domain.sample(cube(n))

    return Plan(stream=stream)


class _Packet(NamedTuple):
    """The packets of all labels at samples, one after the other."""

    position: Tensor  # (m n, d), from the middle in units of the reach
    slope: Tensor  # (m n, d), l' / l in units of 1 / reach
    weight: Tensor  # (m n,), of sum 1; every label has the same share
    effective_share: float  # of the samples, before the weights were tempered


def _packet(loss: Loss, sample: Sample) -> _Packet | None:
    """Evaluate the loss at samples; None where one of the labels is zero everywhere."""
    values = evaluate(loss, sample.x)
    slopes, weights = [], []
    for index, value in enumerate(values.value):
        gradient = values.gradient(index) * sample.reach
        if not value.any():
            return None
        slopes.append(torch.where(value > 0, 1 / value, 0.0)[:, None] * gradient)
        weight = sample.weight * (value / value.max()) ** 2
        weights.append(weight / weight.sum())
    share = min(_effective_share(weight) for weight in weights)
    position = (sample.x - sample.middle) / sample.reach
    weight = torch.cat([_tempered(weight) for weight in weights]) / len(weights)
    return _Packet(position.repeat(len(slopes), 1), torch.cat(slopes), weight, share)


def _effective_share(weight: Tensor) -> float:
    return float(1 / (weight**2).sum() / len(weight))


def _tempered(weight: Tensor) -> Tensor:
    """Flatten weights by roots until enough samples count, so that no single one leads astray."""
    while _effective_share(weight) < _FEWEST_EFFECTIVE:
        weight = weight.sqrt()
        weight = weight / weight.sum()
    return weight


# Gaussian


class _Shift(NamedTuple):
    """A normal density along k directions, from the center in units of the window's width."""

    axes: Tensor  # (d, k), orthonormal columns
    mean: Tensor  # (k,)
    spread: Tensor  # (k,), above 1


def _plan_gaussian(
    loss: Loss, domain: Gaussian, sampler: str, steps: list[tuple[int, int]]
) -> Plan:
    none = torch.zeros(domain.dimension, 0, dtype=torch.float64)
    shift = _Shift(none, none[0], none[0])
    for count, seed in steps:
        packet = _packet(loss, _shifted(domain, shift, sampler, seed)(count))
        shift = shift if packet is None else _fitted(packet)
    return Plan(
        stream=lambda seed: _shifted(domain, shift, sampler, seed),
        evaluations=sum(count for count, _ in steps),
    )


def _shifted(domain: Gaussian, shift: _Shift, sampler: str, seed: int) -> Draw:
    axes, mean, spread = shift
    active = len(mean)
    cube = unit_cube(sampler, domain.dimension + active, seed)

    def draw(n: int) -> Sample:
        normal: Tensor = torch.special.ndtri(cube(n))
        # The first coordinates, the most even ones, replace what the others have along the active
        # directions: so the axes across these keep a coordinate each.
        first, rest = normal[:, :active], normal[:, active:]
        along = mean + spread * first
        weight = spread.prod() * torch.exp(((first**2 - along**2) / 2).sum(1))
        return domain.place(rest + (along - rest @ axes) @ axes.T, weight)

    return draw


def _fitted(packet: _Packet) -> _Shift:
    position, slope, weight, _ = packet
    _, size, axes = torch.linalg.svd(slope * weight[:, None].sqrt(), full_matrices=False)
    active = int((size[:_MOST_ACTIVE] ** 2 > _ACTIVE).sum())
    axes = axes[:active].T
    slope = slope @ axes
    mean = 2 * weight @ slope
    position = position @ axes
    position = position - weight @ position
    # The spread twice, by samples and by Stein's identity: tails that one misses the other sees.
    square = torch.maximum(weight @ position**2, 1 + 2 * weight @ (position * slope))
    # Wider than the packet, towards the center too: this bounds the weights in the tails and keeps
    # the integrands smooth; all directions together cost at most a quarter of the samples.
    wider = 1 + 1 / math.sqrt(max(active, 1))
    reach = (mean**2 / 4).clamp_max(_WIDEST)
    return _Shift(axes, mean, (square.clamp_min(1) * wider + reach).sqrt())


# Box


class _Tilt(NamedTuple):
    """Probabilities of equal bins along some axes of a box."""

    axes: Tensor  # (k,) int64
    probability: Tensor  # (k, bins)


def _plan_box(loss: Loss, domain: Box, sampler: str, steps: list[tuple[int, int]]) -> Plan:
    tilt = None
    evaluations = 0
    for count, seed in steps:
        packet = _packet(loss, _tilted(domain, tilt, sampler, seed)(count))
        evaluations += count
        if packet is None:
            continue
        if tilt is None and packet.effective_share > _CONCENTRATED:
            break
        tilt = _towards(packet)
    return Plan(stream=lambda seed: _tilted(domain, tilt, sampler, seed), evaluations=evaluations)


def _tilted(domain: Box, tilt: _Tilt | None, sampler: str, seed: int) -> Draw:
    cube = unit_cube(sampler, domain.dimension, seed)
    if tilt is None:
        return lambda n: domain.sample(cube(n))
    axes, probability = tilt
    edges = torch.cat([torch.zeros(len(axes), 1, dtype=torch.float64), probability.cumsum(1)], 1)

    def draw(n: int) -> Sample:
        points = cube(n)
        height = points[:, axes].T.contiguous()
        # The last edge is 1 but for rounding.
        index = (torch.searchsorted(edges, height, right=True) - 1).clamp(0, _BINS - 1)
        share = probability.gather(1, index)
        place = (index + (height - edges.gather(1, index)) / share) / _BINS
        points[:, axes] = place.T.clamp(0.0, 1.0)
        factor = torch.ones_like(points)
        factor[:, axes] = 1 / (share * _BINS).T
        return domain.sample(points)._replace(weight=factor.prod(1), factor=factor)

    return draw


def _towards(packet: _Packet) -> _Tilt:
    slope, weight = packet.slope, packet.weight
    mean = weight @ slope
    # What is known of the mean: a slope that only chance has made costs samples.
    error = (weight**2 @ (slope - mean) ** 2).sqrt()
    axes = (mean.abs() > 3 * error + _ACTIVE).nonzero().flatten()
    steepness = (2 * mean[axes]).clamp(-_STEEPEST, _STEEPEST)
    middle = torch.linspace(-1 + 1 / _BINS, 1 - 1 / _BINS, _BINS, dtype=torch.float64)
    probability = torch.softmax(steepness[:, None] * middle, 1)
    # Even ones beside, so few that on all axes together they cost at most a factor of exp(1/2).
    floor = 0.5 / (len(axes) + 1)
    return _Tilt(axes, (1 - floor) * probability + floor / _BINS)


# Neighborhood


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Balls:
    """The losses linearised in the middle of every ball, and the samples each ball should get.

    Attributes
    ----------
    domain : Neighborhood
    probability : Tensor, shape (balls,)
        That a sample goes to the ball.
    value : Tensor, shape (m, balls)
        Losses in the middles, in units of ``2 ** exponent``.
    gradient : Tensor, shape (m, balls, d)
        Their gradients, in the same units.
    exponent : list of int
        One for each loss.
    """

    domain: Neighborhood
    probability: Tensor
    value: Tensor
    gradient: Tensor
    exponent: list[int]

    def moments(
        self, label: int, counts: Tensor, basis: Tensor | None, origin: Tensor, rate: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Add up what the linearised loss has too little of in each of some streams.

        Parameters
        ----------
        label : int
            Which of the losses.
        counts : Tensor, shape (streams, balls)
            Samples that each ball got.
        basis : Tensor, shape (k, d), or None
            Directions; None for the axes.
        origin, rate : Tensor, shape (k,)
            Position and ``l' / l`` to count from.

        Returns
        -------
        weight : Tensor, shape (streams,)
            Sums over the missing samples of ``l^2``, in units of ``4 ** exponent``; of mean 0.
        sums : Tensor, shape (6, streams, k)
            Likewise of ``x l^2``, ``l l'``, ``x^2 l^2``, ``l'^2``, ``x l l'``, and the middle of
            the ball times ``l^2``.
        """
        drawn = counts.sum(1, keepdim=True)
        # One sample stands for all balls: the mean over the balls, not their sum.
        missing = (drawn - counts / self.probability) / len(self.probability)
        weight = torch.zeros(len(counts), dtype=torch.float64)
        sums = torch.zeros(6, len(counts), len(origin), dtype=torch.float64)
        for ball in torch.arange(len(self.probability)).split(_CHUNK):
            middle, reach = self.domain.extent(ball)
            value, slope = self.value[label, ball, None], self.gradient[label, ball]
            third = reach**2 / 3
            tilt = slope * third
            square = value**2 + (slope * tilt).sum(1, keepdim=True)
            if basis is not None:
                middle, slope, tilt = (part @ basis.T for part in (middle, slope, tilt))
                third = third @ (basis**2).T
            middle = middle - origin
            share = missing[:, ball]
            weight += share @ square[:, 0]
            moved = square * middle + 2 * value * tilt
            for index, part in enumerate(
                (
                    moved,
                    value * slope - rate * square,
                    square * (middle**2 + third) + 4 * value * middle * tilt,
                    slope**2 - 2 * rate * value * slope + rate**2 * square,
                    slope * (value * middle + tilt) - rate * moved,
                    square * middle,
                )
            ):
                sums[index] += share @ part
        return weight, sums


def _plan_neighborhood(loss: Loss, domain: Neighborhood, sampler: str) -> Plan:
    found = [
        _linearised(loss, domain, ball) for ball in torch.arange(len(domain.centers)).split(_CHUNK)
    ]
    value, gradient = (torch.cat(parts, 1) for parts in zip(*found, strict=True))
    largest = [
        max(float(one.max()), float(slope.abs().max()) * domain.radius)
        for one, slope in zip(value, gradient, strict=True)
    ]
    exponent = [min(max(math.frexp(size)[1], -1000), 1000) for size in largest]
    unit = torch.tensor([math.ldexp(1.0, -power) for power in exponent], dtype=torch.float64)
    value, gradient = value * unit[:, None], gradient * unit[:, None, None]
    probability = _allocated(domain, value, gradient)
    edges = probability.cumsum(0)

    def stream(seed: int) -> Draw:
        cube = unit_cube(sampler, domain.cube_dimension, seed)

        def draw(n: int) -> Sample:
            points = cube((n + 1) // 2)
            ball = torch.searchsorted(edges, points[:, 0].contiguous()).clamp_max(len(edges) - 1)
            ball, inside = ball.repeat(2), points[:, 1:]
            # Antithetic pairs: what is odd about the middle of a ball cancels.
            inside = torch.cat([inside, 1 - inside])
            weight = 1 / (len(edges) * probability[ball])
            return domain.place(ball[:n], inside[:n], weight[:n])

        return draw

    balls = Balls(
        domain=domain,
        probability=probability,
        value=value,
        gradient=gradient,
        exponent=exponent,
    )
    return Plan(stream=stream, evaluations=len(edges), balls=balls)


def _linearised(loss: Loss, domain: Neighborhood, ball: Tensor) -> tuple[Tensor, Tensor]:
    """Losses (m, n) and their gradients (m, n, d) in the middles of balls."""
    values = evaluate(loss, domain.extent(ball)[0])
    return values.value, torch.stack([values.gradient(i) for i in range(len(values.value))])


def _allocated(domain: Neighborhood, value: Tensor, gradient: Tensor) -> Tensor:
    """Give each ball its share of the samples: of l^2 for the position, of l'^2 for the momentum.

    Every label counts the same.
    """
    square, steep = value**2, (gradient**2).sum(2)
    for ball in torch.arange(value.shape[1]).split(_CHUNK):
        square[:, ball] += (gradient[:, ball] * domain.extent(ball)[1]).square().sum(2) / 3
    shares = [part / part.sum() for part in (*square, *steep) if part.any()]
    even = torch.full_like(square[0], 1 / len(square[0]))
    wanted = torch.stack(shares).mean(0) if shares else even
    return (1 - _FLOOR) * wanted + _FLOOR * even
