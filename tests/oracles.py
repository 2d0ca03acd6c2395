"""One-dimensional packets with known answers, shared by the tests of floor 0.

`PRINTED` is the table of the theory. The rows without a closed form are integrated here by
Gauss-Legendre quadrature in pieces, which shares nothing with the package.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import softplus

from qwidgets.domain import Box, Domain, Gaussian

if TYPE_CHECKING:
    from numpy.typing import NDArray

Profile = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Oracle:
    """A loss of one coordinate on a domain, and the exact moments of its packet."""

    name: str
    width: float | None  # of the Gaussian window; None on the box [0, 1]
    profile: Profile
    position_std: float
    momentum_std: float
    boundary: float
    position_mean: float | None = None

    def domain(self, dimension: int) -> Domain:
        if self.width is None:
            return Box(np.zeros(dimension), np.ones(dimension))
        return Gaussian(np.zeros(dimension), self.width)

    @property
    def flat(self) -> tuple[float, float, float]:
        """Position_std, momentum_std and boundary along an axis on which the loss is constant."""
        if self.width is None:
            return 1 / math.sqrt(12), 0.0, 1.0
        return self.width, 1 / (2 * self.width), 0.0


def quadrature(
    psi: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    slope: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    edges: NDArray[np.float64],
) -> tuple[float, float, float, float]:
    """Position_mean, position_std, momentum_std and boundary of a packet smooth between edges."""
    node, weight = np.polynomial.legendre.leggauss(40)
    half = np.diff(edges)[:, None] / 2
    t = (edges[:-1, None] + half + half * node).ravel()
    w = (half * weight).ravel()
    p, dp = psi(t), slope(t)
    norm = w @ p**2
    mean, q = w @ (t * p**2) / norm, w @ (p * dp) / norm
    var, energy = w @ ((t - mean) ** 2 * p**2) / norm, w @ (dp - q * p) ** 2 / norm
    covariance = w @ ((t - mean) * p * dp) / norm
    return float(mean), math.sqrt(var), math.sqrt(energy), float(1 + 2 * covariance)


def softplus_packet(sharpness: float, width: float) -> tuple[float, float, float, float]:
    k, s = sharpness, width

    def window(t: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.exp(-(t**2) / (4 * s**2))

    def slope(t: NDArray[np.float64]) -> NDArray[np.float64]:
        rate = k * np.exp(-np.logaddexp(0, -k * t))
        return (rate - np.logaddexp(0, k * t) * t / (2 * s**2)) * window(t)

    edges = np.linspace(-12 * s, 12 * s, 193)
    return quadrature(lambda t: np.logaddexp(0, k * t) * window(t), slope, edges)


_EXP_SHARE = math.exp(-6) / (1 - math.exp(-6)) ** 2
_WAVE = quadrature(
    lambda t: 1 + 0.3 * np.sin(6 * t), lambda t: 1.8 * np.cos(6 * t), np.linspace(0, 1, 9)
)


def _gaussian(width: float) -> list[Oracle]:
    s = width
    return [
        Oracle(
            name=f"constant, width {s}",
            width=s,
            profile=lambda t: 3 + 0 * t,
            position_mean=0,
            position_std=s,
            momentum_std=1 / (2 * s),
            boundary=0,
        ),
        Oracle(
            name=f"exponential, width {s}",
            width=s,
            profile=lambda t: (0.5 / s * t).exp(),
            position_mean=s,
            position_std=s,
            momentum_std=1 / (2 * s),
            boundary=0,
        ),
        Oracle(
            name=f"abs(t), width {s}",
            width=s,
            profile=lambda t: t.abs(),
            position_mean=0,
            position_std=math.sqrt(3) * s,
            momentum_std=math.sqrt(3) / (2 * s),
            boundary=0,
        ),
        Oracle(
            name=f"abs(t^2 - s^2), width {s}",
            width=s,
            profile=lambda t: (t**2 - s**2).abs(),
            position_mean=0,
            position_std=math.sqrt(5) * s,
            momentum_std=math.sqrt(5) / (2 * s),
            boundary=0,
        ),
    ]


def _softplus(sharpness: float) -> Oracle:
    mean, position_std, momentum_std, _ = softplus_packet(sharpness, 0.5)
    return Oracle(
        name=f"softplus({sharpness} t)",
        width=0.5,
        profile=lambda t: softplus(sharpness * t),
        position_mean=mean,
        position_std=position_std,
        momentum_std=momentum_std,
        boundary=0,
    )


GAUSSIAN = [*_gaussian(0.5), *_gaussian(2.0), *(_softplus(k) for k in (1, 4, 16))]

BOX = [
    Oracle(
        name="constant",
        width=None,
        profile=lambda t: 3 + 0 * t,
        position_mean=0.5,
        position_std=1 / math.sqrt(12),
        momentum_std=0,
        boundary=1,
    ),
    Oracle(
        name="exp(-3 x)",
        width=None,
        profile=lambda t: (-3 * t).exp(),
        position_std=math.sqrt(1 / 36 - _EXP_SHARE),
        momentum_std=0,
        boundary=1,
    ),
    Oracle(
        name="x",
        width=None,
        profile=lambda t: t,
        position_mean=3 / 4,
        position_std=math.sqrt(3 / 80),
        momentum_std=math.sqrt(3) / 2,
        boundary=3 / 4,
    ),
    *(
        Oracle(
            name=f"abs(sin({n} pi x))",
            width=None,
            profile=lambda t, n=n: (n * math.pi * t).sin().abs(),  # type: ignore[misc]
            position_mean=0.5,
            position_std=math.sqrt(1 / 12 - 1 / (2 * n**2 * math.pi**2)),
            momentum_std=n * math.pi,
            boundary=0,
        )
        for n in (1, 2)
    ),
    Oracle(
        name="1 + 0.3 sin(6 x)",
        width=None,
        profile=lambda t: 1 + 0.3 * (6 * t).sin(),
        position_mean=_WAVE[0],
        position_std=_WAVE[1],
        momentum_std=_WAVE[2],
        boundary=_WAVE[3],
    ),
]

ORACLES = GAUSSIAN + BOX

# The table of the theory: position_std, momentum_std and product as printed, where they are.
PRINTED = {
    "softplus(1 t)": ("0.481148", "1.039186", "0.500002"),
    "softplus(4 t)": ("0.381582", "1.322036", "0.504465"),
    "softplus(16 t)": ("0.338798", "1.615038", "0.547171"),
    "exp(-3 x)": ("0.159018", None, None),
    "x": (None, None, "0.167705"),
    "abs(sin(1 pi x))": (None, None, "0.567862"),
    "abs(sin(2 pi x))": (None, None, "1.670290"),
    "1 + 0.3 sin(6 x)": ("0.264047", "1.211047", "0.319773"),
}


def by_name(name: str) -> Oracle:
    return next(oracle for oracle in ORACLES if oracle.name == name)


def along(profile: Profile, axis: int) -> Callable[[Tensor], Tensor]:
    """Lay a loss of one coordinate along an axis; the others are flat."""
    return lambda x: profile(x[:, axis])


def product_of(profiles: list[Profile]) -> Callable[[Tensor], Tensor]:
    """Multiply losses of one coordinate each: every axis keeps its one-dimensional packet."""
    return lambda x: torch.stack([f(x[:, i]) for i, f in enumerate(profiles)]).prod(0)
