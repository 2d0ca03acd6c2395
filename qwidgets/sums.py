"""What samples add up to: sums that merge across batches, replicates, seeds and workers.

A `Meter` evaluates losses and gradients at samples, a batch at a time, and reduces them to `Sums`:
about ten numbers for each direction, whatever the number of samples. Every moment of the packet is
a function of these sums.
"""

from __future__ import annotations

import itertools
import math
import operator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self, final

import numpy as np
import torch

from qwidgets.domain import Box, Domain, Sample, evaluate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from qwidgets.domain import Loss
    from qwidgets.proposal import Balls, Plan

# On a box one sample of so many is also moved to two faces, for the self-check.
_FACES = 32
# The share of these that goes to all axes alike, wherever the loss seems to vary.
_FACE_FLOOR = 0.1
_LARGEST_FACE = 1e50


class Meter:
    """Evaluates a loss at samples and adds up what the moments are made of."""

    def __init__(self, loss: Loss, domain: Domain, basis: Tensor | None) -> None:
        self.loss = loss
        self.domain = domain
        self.basis = basis
        self.alone = True
        # For each label a position and an l' / l inside its packet. Sums are taken from there, so
        # that no digits are lost to a distant domain or a steep loss.
        self.origins: list[tuple[Tensor, Tensor]] = []

    def project(self, vectors: Tensor) -> Tensor:
        """Components (n, k) of vectors (n, d) along the directions."""
        return vectors if self.basis is None else vectors @ self.basis.T

    def along(self, squares: Tensor) -> Tensor:
        """Weigh axes (..., d) by the squared components of the directions: (..., k)."""
        if self.basis is None or squares.shape[-1] == 1:
            return squares
        return squares @ (self.basis**2).T

    def add_up(
        self, samples: Sequence[Sample], pairs: Sequence[int], generator: torch.Generator
    ) -> list[tuple[Sums, ...]]:
        """Add up some samples of each of several replicates, for each label.

        All are evaluated at once: starting a network, or torch's small steps, costs as much for the
        samples of one replicate as for those of all. Of each replicate so many ``pairs`` of the
        first samples are also moved to faces of a box.
        """
        sample = _together(samples)
        lengths = [len(one.x) for one in samples]
        values = evaluate(self.loss, sample.x)
        self.alone = values.alone
        x, middle = self.project(sample.x), self.project(sample.middle)
        score = self.domain.score(sample.x)
        root = sample.weight.sqrt()[:, None]
        table: list[list[Sums]] = [[] for _ in samples]
        activity = torch.zeros(self.domain.dimension, dtype=torch.float64)
        for label, value in enumerate(values.value):
            gradient = values.gradient(label)
            shift, rest = self.domain.stein(sample, value, gradient)
            rate = self.project(gradient + value[:, None] * score)
            amplitude = value[:, None] * root
            if label == len(self.origins):
                self.origins.append(_origin(x, amplitude, rate * root))
            origin, slope = self.origins[label]
            fields = {
                "position": x - origin,
                "middle": (middle - origin).expand_as(x),
                "amplitude": amplitude,
                "rate": (rate - slope * value[:, None]) * root,
                "shift": self.project(shift) * root,
                "rest": self.along(rest) * root,
            }
            still = ~gradient.any(1)
            splits = {name: field.split(lengths) for name, field in fields.items()}
            for index, sums in enumerate(table):
                own = {name: split[index] for name, split in splits.items()}
                sums.append(Sums.of(**own, origin=torch.stack([origin, slope])))
            if still.any():
                each = zip(value.split(lengths), still.split(lengths), strict=True)
                for sums, (own_value, own_still) in zip(table, each, strict=True):
                    sums[-1] = sums[-1].observed(own_value[own_still])
            if any(pairs) and amplitude.any():
                unit = value / value.max()
                activity += unit @ gradient.abs() / (value.max() * unit @ unit)
        if any(pairs):
            self._add_faces(table, sample, lengths, pairs, values.value, activity, generator)
        return [tuple(sums) for sums in table]

    def _add_faces(
        self,
        table: list[list[Sums]],
        sample: Sample,
        lengths: Sequence[int],
        pairs: Sequence[int],
        values: Tensor,
        activity: Tensor,
        generator: torch.Generator,
    ) -> None:
        """Move the first samples of each replicate to faces, and add the flux to its sums."""
        starts = [part.start for part in _parts(lengths)]
        rows = torch.cat(
            [start + torch.arange(count) for start, count in zip(starts, pairs, strict=True)]
        )
        faces = self._faces(sample, rows, activity, generator)
        for sums, part in zip(table, _parts(pairs), strict=True):
            own = faces.some(part)
            for label, value in enumerate(values):
                inside, origin = value[rows[part]], self.origins[label][0]
                sums[label] = sums[label].faced(own, label, inside, origin)

    def _faces(
        self, sample: Sample, rows: Tensor, activity: Tensor, generator: torch.Generator
    ) -> _Faces:
        """Move samples along an axis each, mostly where the loss varies, to both faces."""
        domain = self.domain
        assert isinstance(domain, Box)
        activity = activity * (domain.upper - domain.lower)
        share = torch.full_like(activity, 1 / len(activity))
        if activity.any():
            share = (1 - _FACE_FLOOR) * activity / activity.sum() + _FACE_FLOOR * share
        axis = torch.multinomial(share, len(rows), replacement=True, generator=generator)
        row = torch.arange(len(rows))
        lower, upper = sample.x[rows], sample.x[rows]
        lower[row, axis], upper[row, axis] = domain.lower[axis], domain.upper[axis]
        values = evaluate(self.loss, torch.cat([lower, upper]), derivative=False).value
        weight = sample.weight[rows] / share[axis]
        one = torch.zeros(len(rows), domain.dimension, dtype=torch.float64)
        one[row, axis] = 1.0
        return _Faces(
            lower=self.project(lower),
            upper=self.project(upper),
            values=values.reshape(len(values), 2, -1),
            component=self.project(one),
            distance=(domain.upper - domain.lower)[axis],
            weight=weight,
            face_weight=weight if sample.factor is None else weight / sample.factor[rows, axis],
        )


class Stream:
    """One replicate: an independent stream of samples and its sums so far."""

    def __init__(self, plan: Plan, seed: int) -> None:
        self.plan = plan
        self.draw = plan.stream(seed)
        self.samples = 0
        self.sums: tuple[Sums, ...] = ()
        self.counts = torch.zeros(0 if plan.balls is None else len(plan.balls.probability)).double()

    def take(self, sample: Sample, sums: tuple[Sums, ...]) -> None:
        """Add what some more samples came to."""
        self.sums = tuple(map(operator.add, self.sums, sums)) if self.samples else sums
        self.samples += len(sample.x)
        if self.plan.balls is not None:
            assert sample.ball is not None
            self.counts += torch.bincount(sample.ball, minlength=len(self.counts))


def advance(
    meter: Meter, streams: Sequence[Stream], samples: Sequence[int], generator: torch.Generator
) -> None:
    """Draw and evaluate so many more samples of each stream, together."""
    given = [(stream, count) for stream, count in zip(streams, samples, strict=True) if count]
    drawn = [stream.draw(count) for stream, count in given]
    pairs = [
        min(-(-(stream.samples + count) // _FACES) + -stream.samples // _FACES, count)
        if isinstance(meter.domain, Box)
        else 0
        for stream, count in given
    ]
    for (stream, _), sample, sums in zip(
        given, drawn, meter.add_up(drawn, pairs, generator), strict=True
    ):
        stream.take(sample, sums)


def _together(samples: Sequence[Sample]) -> Sample:
    """Put samples one after the other; what all of a domain share stays one row."""
    first = samples[0]
    if len(samples) == 1:
        return first

    def joined(name: str) -> Tensor | None:
        parts = [getattr(sample, name) for sample in samples]
        return None if parts[0] is None else torch.cat(parts)

    shared = first.ball is None
    return Sample(
        x=torch.cat([sample.x for sample in samples]),
        weight=torch.cat([sample.weight for sample in samples]),
        middle=first.middle if shared else torch.cat([sample.middle for sample in samples]),
        reach=first.reach if shared else torch.cat([sample.reach for sample in samples]),
        ball=joined("ball"),
        factor=joined("factor"),
    )


def _parts(lengths: Sequence[int]) -> list[slice]:
    ends = list(itertools.accumulate(lengths, initial=0))
    return [slice(start, end) for start, end in itertools.pairwise(ends)]


def completed(meter: Meter, streams: Sequence[Stream]) -> tuple[tuple[Sums, ...], ...]:
    """Collect the sums of each stream, for each label, with what is known of the balls."""
    balls = streams[0].plan.balls
    table = [list(stream.sums) for stream in streams]
    if balls is not None:
        counts = torch.stack([stream.counts for stream in streams])
        for label, (origin, slope) in enumerate(meter.origins):
            known = Sums.known(balls, label, counts, meter.basis, origin, slope)
            for sums, missing in zip(table, known, strict=True):
                sums[label] += missing
    return tuple(tuple(sums) for sums in table)


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class _Faces:
    """Points on opposite faces of a box."""

    lower: Tensor  # (n, k)
    upper: Tensor  # (n, k)
    values: Tensor  # (m, 2, n): the losses there
    component: Tensor  # (n, k): of the faces' normal along each direction
    distance: Tensor  # (n,): of the two faces
    weight: Tensor  # (n,): of the sample, over the probability of the axis
    face_weight: Tensor  # (n,): without the part that the place along the axis has in it

    def some(self, rows: slice) -> _Faces:
        """Take some of them."""
        return _Faces(
            lower=self.lower[rows],
            upper=self.upper[rows],
            values=self.values[:, :, rows],
            component=self.component[rows],
            distance=self.distance[rows],
            weight=self.weight[rows],
            face_weight=self.face_weight[rows],
        )


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Sums:
    """What the samples of one label add up to, in a form that merges without loss.

    Sums over the samples, with weight w, of ``w l^2`` times the fields below. Positions and rates
    are counted from an origin inside the packet. All are in units of ``4 ** exponent``, so that no
    scale of the loss under- or overflows.
    """

    exponent: int
    samples: int
    weight: float  # 1
    weight_squared: float  # w l^2 itself
    origin: NDArray[np.float64]  # (2, k): position, rate
    # (8, k): position x, rate r = l' / l + score, shift of Stein's identity, x^2, r^2, x r, what
    # Stein's identity adds to x^2, and the middle of the piece of the domain.
    moments: NDArray[np.float64]
    faces: NDArray[np.float64]  # (1 + k,): flux through faces, and its slope in the origin
    pairs: int  # of points on faces
    still: float  # where the gradient is exactly zero: the weight,
    still_range: tuple[float, float]  # and the least and largest loss

    @classmethod
    def of(
        cls,
        *,
        position: Tensor,
        middle: Tensor,
        amplitude: Tensor,
        rate: Tensor,
        shift: Tensor,
        rest: Tensor,
        origin: Tensor,
    ) -> Self:
        """Sum over a batch, (n, k) each; the amplitude, (n, 1), is in all but the positions."""
        exponent = _exponent(float(amplitude.max()))
        unit = math.ldexp(1.0, -exponent)
        amplitude, rate, shift = amplitude[:, 0] * unit, rate * unit, shift * unit
        weight = amplitude**2
        moments = torch.stack(
            [
                weight @ position,
                amplitude @ rate,
                amplitude @ shift,
                weight @ position**2,
                (rate**2).sum(0),
                amplitude @ (position * rate),
                amplitude @ (shift * (position + middle)) + amplitude @ (rest * unit),
                weight @ middle.expand_as(position),
            ]
        )
        return cls(
            exponent=exponent,
            samples=len(weight),
            weight=float(weight.sum()),
            weight_squared=float(weight @ weight),
            origin=origin.numpy(),
            moments=moments.numpy(),
            faces=np.zeros(1 + len(origin[0])),
            pairs=0,
            still=0.0,
            still_range=(math.inf, -math.inf),
        )

    @classmethod
    def known(
        cls,
        balls: Balls,
        label: int,
        counts: Tensor,
        basis: Tensor | None,
        origin: Tensor,
        slope: Tensor,
    ) -> list[Self]:
        """Sum over the samples that balls should have got and have not, by linearisation."""
        weight, (x, rate, square, rate_square, product, middle) = balls.moments(
            label, counts, basis, origin, slope
        )
        none = torch.zeros_like(x)
        moments = torch.stack(
            [x, rate, none, square, rate_square, product, none, middle], 1
        ).numpy()
        return [
            cls(
                exponent=balls.exponent[label],
                samples=0,
                weight=float(total),
                weight_squared=0.0,
                origin=torch.stack([origin, slope]).numpy(),
                moments=rows,
                faces=np.zeros(1 + len(origin)),
                pairs=0,
                still=0.0,
                still_range=(math.inf, -math.inf),
            )
            for total, rows in zip(weight, moments, strict=True)
        ]

    def observed(self, still: Tensor) -> Self:
        """Note the losses where the gradient is exactly zero."""
        if not len(still):
            return self
        weight = (still * math.ldexp(1.0, -self.exponent)).square().sum()
        return replace(
            self, still=float(weight), still_range=(float(still.min()), float(still.max()))
        )

    def faced(self, faces: _Faces, label: int, value: Tensor, origin: Tensor) -> Self:
        """Add the flux of ``x l^2`` through faces, less l^2 at the points (n,) they belong to."""
        unit = math.ldexp(1.0, -self.exponent)
        # A face may be far above all samples; what only matters is that it is.
        lower, upper = (faces.values[label] * unit).clamp_max(_LARGEST_FACE) ** 2
        component = faces.component
        flux = upper * (component * (faces.upper - origin)).sum(1)
        flux -= lower * (component * (faces.lower - origin)).sum(1)
        inside = (value * unit) ** 2 * (component**2).sum(1)
        share = faces.face_weight / faces.distance
        slope = (share * (upper - lower)) @ component
        total = share @ flux - faces.weight @ inside
        return replace(self, faces=np.append(float(total), slope.numpy()), pairs=len(value))

    def about(self, origin: NDArray[np.float64]) -> Sums:
        """Count from another origin."""
        x0, r0 = origin - self.origin
        x, r, shift, xx, rr, xr, more, middle = self.moments
        moments = np.stack(
            [
                x - self.weight * x0,
                r - self.weight * r0,
                shift,
                xx - 2 * x0 * x + self.weight * x0**2,
                rr - 2 * r0 * r + self.weight * r0**2,
                xr - x0 * r - r0 * x + self.weight * x0 * r0,
                more - 2 * x0 * shift,
                middle - self.weight * x0,
            ]
        )
        faces = np.append(self.faces[0] - self.faces[1:] @ x0, self.faces[1:])
        return replace(self, origin=origin, moments=moments, faces=faces)

    def __add__(self, other: Sums) -> Sums:
        if not np.array_equal(self.origin, other.origin):
            other = other.about(self.origin)
        exponent = max(self.exponent, other.exponent)
        one, two = (math.ldexp(1.0, 2 * (part.exponent - exponent)) for part in (self, other))
        return Sums(
            exponent=exponent,
            samples=self.samples + other.samples,
            weight=one * self.weight + two * other.weight,
            weight_squared=one**2 * self.weight_squared + two**2 * other.weight_squared,
            origin=self.origin,
            moments=one * self.moments + two * other.moments,
            faces=one * self.faces + two * other.faces,
            pairs=self.pairs + other.pairs,
            still=one * self.still + two * other.still,
            still_range=(
                min(self.still_range[0], other.still_range[0]),
                max(self.still_range[1], other.still_range[1]),
            ),
        )


def _origin(x: Tensor, amplitude: Tensor, rate: Tensor) -> tuple[Tensor, Tensor]:
    """Mean position and l' / l of a batch."""
    largest = amplitude.max()
    if largest == 0:
        return x.mean(0), torch.zeros_like(x[0])
    amplitude, rate = amplitude[:, 0] / largest, rate / largest
    total = amplitude @ amplitude
    return amplitude**2 @ x / total, amplitude @ rate / total


def _exponent(largest: float) -> int:
    return min(max(math.frexp(largest)[1], -1000), 1000)
