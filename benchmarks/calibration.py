"""Do intervals of two standard errors cover the truth? Known packets, many seeds.

Run it as ``python benchmarks/calibration.py``. Each row is a packet with a known answer, measured
by `qw.uncertainty` with its defaults from independent seeds. Shown for every quantity is how often
the truth lies within two reported standard errors, over seeds and axes, in per cent, and the bias,
the mean error in units of its standard deviation, the largest of the axes. It fails where a
coverage is outside 90 to 99 %. Axes that are off by no more than rounding count apart: they must be
covered too, but may be so always; "exact" means that there are no others.
"""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn.functional import softplus

import qwidgets as qw

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from oracles import along, by_name, product_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from qwidgets.domain import Domain

QUANTITIES = (
    "position_std",
    "momentum_std",
    "product",
    "total_position_std",
    "total_momentum_std",
)
SAMPLERS = ("sobol", "uniform")
ROUNDING = 1e-10
ROOT_OF_ROUNDING = 1e-7  # of the deviation where the variance is zero
LOWEST, HIGHEST = 0.90, 0.99


@dataclass(frozen=True, kw_only=True)
class Case:
    """A loss on a domain, and the exact deviations along every axis."""

    name: str
    loss: Callable[[torch.Tensor], torch.Tensor]
    domain: Domain
    position_std: NDArray[np.float64]
    momentum_std: NDArray[np.float64]

    @property
    def truth(self) -> tuple[NDArray[np.float64], ...]:
        """Exact values in the order of the quantities, arrays of one number for a total."""
        position, momentum = self.position_std, self.momentum_std
        totals = (np.linalg.norm([std]).reshape(1) for std in (position, momentum))
        return position, momentum, position * momentum, *totals


def laid_along(name: str, dimension: int, axes: int = 1) -> Case:
    """Lay a packet of the table of one-dimensional ones along some axes; the others are flat."""
    oracle = by_name(name)
    flat_position, flat_momentum, _ = oracle.flat
    flat = dimension - axes
    return Case(
        name=f"{type(oracle.domain(1)).__name__}, {name}, d = {dimension}",
        loss=along(oracle.profile, 0) if axes == 1 else product_of([oracle.profile] * axes),
        domain=oracle.domain(dimension),
        position_std=np.array([oracle.position_std] * axes + [flat_position] * flat),
        momentum_std=np.array([oracle.momentum_std] * axes + [flat_momentum] * flat),
    )


def neighborhood(balls: int, dimension: int) -> Case:
    """Lay a wave times a soft edge around scattered points: few balls carry the packet.

    Each ball is a box on which the loss is a product of functions of one coordinate, so its
    integrals are products of one-dimensional ones, done by quadrature.
    """
    centers = np.random.default_rng(0).uniform(size=(balls, dimension))
    radius, low, high = 0.1, np.float64(0), np.float64(1)
    profiles: list[Callable[[torch.Tensor], torch.Tensor]] = [
        lambda t: softplus(16 * (t - 0.7)),
        lambda t: 1 + 0.3 * (6 * t).sin(),
        *[torch.ones_like] * (dimension - 2),
    ]
    start, stop = np.maximum(centers - radius, low), np.minimum(centers + radius, high)
    node, weight = np.polynomial.legendre.leggauss(40)
    # Of shape axes, balls, nodes.
    t = ((start + stop) / 2 + (stop - start) / 2 * node[:, None, None]).transpose(2, 1, 0)
    x = torch.tensor(t, requires_grad=True)
    value = torch.stack([profile(one) for profile, one in zip(profiles, x, strict=True)])
    (slope,) = torch.autograd.grad(value.sum(), x)
    f, df = value.detach().numpy(), slope.numpy()

    share = f**2 @ weight  # (axis, ball): integral of f^2, in units of half a ball
    ball = share.prod(0) / share.prod(0).sum()

    def mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return (values @ weight / share) @ ball

    return Case(
        name=f"Neighborhood, {balls} balls, wave times soft edge, d = {dimension}",
        loss=product_of(profiles),
        domain=qw.Neighborhood(centers, radius, clip=(0, 1)),
        position_std=np.sqrt(mean(t**2 * f**2) - mean(t * f**2) ** 2),
        momentum_std=np.sqrt(mean(df**2) - mean(f * df) ** 2),
    )


def coverage_and_bias(
    error: NDArray[np.float64], claimed: NDArray[np.float64], truth: NDArray[np.float64]
) -> tuple[float, float, float]:
    """Coverage of what is exact, coverage and bias of what is not; NaN where there is none."""
    covered = np.abs(error) <= 2 * claimed
    exact = np.abs(error).max(0) <= np.where(truth == 0, ROOT_OF_ROUNDING, ROUNDING)
    rest = error[:, ~exact]
    bias = np.abs(rest.mean(0) / rest.std(0, ddof=1))
    return (
        float(covered[:, exact].mean()) if exact.any() else math.nan,
        float(covered[:, ~exact].mean()) if len(bias) else math.nan,
        float(bias.max()) if len(bias) else math.nan,
    )


def measure(case: Case, sampler: str, seeds: int) -> dict[str, tuple[float, float, float]]:
    """Measure coverage and bias of every quantity; see `coverage_and_bias`."""
    results = [
        qw.uncertainty(case.loss, case.domain, sampler=sampler, seed=seed) for seed in range(seeds)
    ]
    table = {}
    for name, truth in zip(QUANTITIES, case.truth, strict=True):
        found = np.array([np.reshape(getattr(result, name), -1) for result in results])
        claimed = np.array([np.reshape(result.standard_error[name], -1) for result in results])
        table[name] = coverage_and_bias(found - truth, claimed, truth)
    return table


def main() -> None:
    """Print the table; fail if a coverage is off."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=200, help="independent runs of each packet")
    seeds = parser.parse_args().seeds
    cases = [
        laid_along("softplus(16 t)", 10),
        laid_along("abs(t), width 0.5", 5),
        laid_along("1 + 0.3 sin(6 x)", 1),
        laid_along("exp(-3 x)", 3, axes=3),
        neighborhood(40, 5),
    ]
    print(f"{seeds} seeds: truth within 2 standard errors, per cent | bias, standard errors")
    print(f"{'':66}" + "".join(f"{name:>20}" for name in QUANTITIES))
    off, biases = [], []
    for case in cases:
        for sampler in SAMPLERS:
            row = f"{case.name:58}{sampler:8}"
            for name, (of_exact, coverage, bias) in measure(case, sampler, seeds).items():
                if of_exact < LOWEST or coverage < LOWEST or coverage > HIGHEST:
                    worst = min(of_exact, coverage) if of_exact < LOWEST else coverage
                    off.append(f"{case.name}, {sampler}, {name}: {worst:.1%}")
                if not math.isnan(bias):
                    biases.append(bias)
                row += (
                    f"{'exact':>20}"
                    if math.isnan(bias)
                    else f"{100 * coverage:>13.1f} |{bias:5.2f}"
                )
            print(row, flush=True)
    print(
        f"bias: median {np.median(biases):.2f}, largest {max(biases):.2f} standard errors "
        f"(goal: 0.2; one of {len(biases)}, chance alone makes {1 / math.sqrt(seeds):.2f})"
    )
    print("outside 90 to 99 %:", "; ".join(off) or "none")
    sys.exit(bool(off))


if __name__ == "__main__":
    main()
