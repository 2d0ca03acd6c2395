"""`qw.uncertainty` against plain Monte Carlo on a network, and against integrators on a ridge.

Run it as ``python benchmarks/moments.py``.

Part 1, a class of MNIST: the effective radii Dx and Dp of a convolutional network around the test
images of one class, at equal evaluations of the loss. Standard errors are the spread over
independent seeds. Both sides evaluate the same loss; plain Monte Carlo, written here, draws a ball
uniformly and a point uniformly inside.

Part 2, a ridge across the unit cube, ``softplus(20 u . (x - 1/2))`` with u the diagonal: the time
in which each method finds position_std and momentum_std of every axis to 1e-3. The evaluations
double until eight seeds of eight succeed; the least time of the eight counts. The truth is exact
quadrature. Each peer gets what serves it best: gradients in the same batch, single precision, all
integrals from one pass where the method allows that (torchquad's Monte Carlo, vegas), and only the
first axis to find where it does not (torchquad's VEGAS, an integral at a time). All run on one
thread.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import gvar
import numpy as np
import torch
import torchquad
import vegas

import qwidgets as qw

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Loss = Callable[[torch.Tensor], torch.Tensor]
    Method = Callable[[int, int, int], tuple[NDArray, NDArray]]

DATA = Path(os.environ.get("QWIDGETS_DATA", Path(__file__).parents[2] / "shared/data"))
LABEL = 8
RADIUS = 0.1
EVALUATIONS = 8192
LONG = 64  # times as many evaluations in the runs that stand for the truth

SHARPNESS = 20.0
TOLERANCE = 1e-3
SEEDS = range(8)
BATCH = 1 << 16


def network_and_centers() -> tuple[Loss, torch.Tensor]:
    """Train a network on MNIST; its loss for the class, and the class's test images."""
    trained = qw.sweep(
        "mnist",
        "conv",
        epsilon=[0.0],
        regularization=[0.0],
        epochs=3,
        progress=False,
        root=DATA,
        probe_images=1,
        attack_epsilon=[0.0],
    )
    network = trained.model(epsilon=0.0, regularization=0.0)
    data = qw.load_data("mnist", root=DATA)
    with torch.no_grad():
        accuracy = float((network(data.test_inputs).argmax(1) == data.test_labels).double().mean())
    centers = data.test_inputs[data.test_labels == LABEL].reshape(-1, math.prod(data.input_shape))
    print(
        f"MNIST, conv network, test accuracy {accuracy:.1%}; the {len(centers)} test images of "
        f"class {LABEL}, radius {RADIUS}; {EVALUATIONS} evaluations"
    )
    if accuracy < 0.95:  # noqa: PLR2004
        message = f"the network must reach 95 % test accuracy, got {accuracy:.1%}"
        raise RuntimeError(message)
    return qw.packet_loss(network, LABEL, data.input_shape), centers.double()


def plain_radii(loss: Loss, centers: torch.Tensor, evaluations: int, seed: int) -> list[float]:
    """Dx and Dp by plain Monte Carlo."""
    generator = torch.Generator().manual_seed(seed)
    norm = 0.0
    x_sum, x2_sum, rate_sum, rate2_sum = (torch.zeros(centers.shape[1]).double() for _ in range(4))
    for batch in torch.randint(len(centers), (evaluations,), generator=generator).split(1024):
        low = (centers[batch] - RADIUS).clamp_min(0)
        high = (centers[batch] + RADIUS).clamp_max(1)
        uniform = torch.rand(low.shape, generator=generator, dtype=torch.float64)
        x = (low + uniform * (high - low)).requires_grad_()
        value = loss(x)
        (rate,) = torch.autograd.grad(value.sum(), x)
        value, x = value.detach(), x.detach()
        norm += float(value @ value)
        x_sum += value**2 @ x
        x2_sum += value**2 @ x**2
        rate_sum += value @ rate
        rate2_sum += (rate**2).sum(0)
    position_var = x2_sum / norm - (x_sum / norm) ** 2
    momentum_var = rate2_sum / norm - (rate_sum / norm) ** 2
    return [math.sqrt(position_var.sum()), math.sqrt(momentum_var.sum())]


def compare_on_network(seeds: int) -> None:
    """Print the standard errors of both sides, their ratios, and the bias."""
    loss, centers = network_and_centers()
    domain = qw.Neighborhood(centers, RADIUS, clip=(0, 1))
    names = ("total_position_std", "total_momentum_std")

    def radii(samples: int, seed: int) -> tuple[list[float], list[float]]:
        result = qw.uncertainty(loss, domain, samples=samples, seed=seed)
        return (
            [getattr(result, name) for name in names],
            [float(result.standard_error[name]) for name in names],
        )

    own, reported = np.array([radii(EVALUATIONS, seed) for seed in range(seeds)]).swapaxes(0, 1)
    plain = np.array([plain_radii(loss, centers, EVALUATIONS, seed) for seed in range(seeds)])
    long, long_error = np.array(radii(LONG * EVALUATIONS, seeds))
    long_plain = np.array(plain_radii(loss, centers, LONG * EVALUATIONS, seeds))

    spread, plain_spread = own.std(0, ddof=1), plain.std(0, ddof=1)
    rows = {
        "plain Monte Carlo, standard error": plain_spread,
        f"qw.uncertainty, standard error ({seeds} seeds)": spread,
        "  mean reported standard error": reported.mean(0),
        f"mean of the {seeds}": own.mean(0),
        f"{LONG} times the evaluations": long,
        "  its reported standard error": long_error,
        f"plain Monte Carlo, {LONG} times the evaluations": long_plain,
        "  its standard error": plain_spread / math.sqrt(LONG),
        "bias, in standard errors": (own.mean(0) - long) / spread,
        "  known to within": np.hypot(1 / math.sqrt(seeds), long_error / spread),
        "standard error, plain over own": plain_spread / spread,
    }
    print(f"{'':44}{'Dx':>10}{'Dp':>10}")
    for name, (position, momentum) in rows.items():
        print(f"{name:44}{position:10.5f}{momentum:10.5f}")
    position, momentum = rows["standard error, plain over own"]
    print(
        f"standard error of Dx {position:.1f} times smaller than plain (goal: 30), "
        f"of Dp {momentum:.1f} times (goal: 10)"
    )


def ridge(x: torch.Tensor) -> torch.Tensor:
    """Rise softly across the diagonal of the unit cube."""
    dimension = x.shape[1]
    return torch.nn.functional.softplus(SHARPNESS * (x - 0.5).sum(1) / math.sqrt(dimension))


def exact(dimension: int) -> tuple[float, float]:
    """Position_std and momentum_std of the ridge along any axis.

    The ridge depends on one coordinate x and on the sum y of the others, whose density is a
    piecewise polynomial (Irwin and Hall): Gauss-Legendre quadrature in both.
    """
    node, weight = np.polynomial.legendre.leggauss(240)
    x, x_weight = (node + 1) / 2, weight / 2
    others = dimension - 1
    y = (np.arange(others)[:, None] + x).ravel()
    y_weight = np.tile(x_weight, others) * _sum_of_uniforms(others, y)
    steepness = SHARPNESS / math.sqrt(dimension)
    argument = steepness * (x[:, None] + y - dimension / 2)
    value = np.logaddexp(0, argument)
    slope = steepness * np.exp(-np.logaddexp(0, -argument))

    def mean(values: NDArray[np.float64]) -> float:
        return float(x_weight @ (values * value**2) @ y_weight / (x_weight @ value**2 @ y_weight))

    x, momentum = x[:, None], slope / value
    return (
        math.sqrt(mean((x - mean(x)) ** 2)),
        math.sqrt(mean((momentum - mean(momentum)) ** 2)),
    )


def _sum_of_uniforms(count: int, y: NDArray[np.float64]) -> NDArray[np.float64]:
    if count == 1:
        return ((y >= 0) & (y < 1)).astype(float)
    below, above = _sum_of_uniforms(count - 1, y), _sum_of_uniforms(count - 1, y - 1)
    return (y * below + (count - y) * above) / (count - 1)


def integrands(x: torch.Tensor, axes: slice = slice(None)) -> torch.Tensor:
    """Everything whose integrals give the moments: l^2, then x l^2, x^2 l^2, l l', l'^2."""
    x = x.detach().requires_grad_()
    value = ridge(x)
    (rate,) = torch.autograd.grad(value.sum(), x)
    # From the middle of the cube, x^2 - <x>^2 cancels fewest digits.
    x, rate, value = x.detach()[:, axes] - 0.5, rate[:, axes], value.detach()[:, None]
    return torch.cat([value**2, x * value**2, (x * value) ** 2, value * rate, rate**2], dim=1)


def deviations(integrals: NDArray) -> tuple[NDArray, NDArray]:
    """Position_std and momentum_std from the integrals of these, numbers or `gvar`s."""
    x, x2, q, p2 = integrals[1:].reshape(4, -1) / integrals[0]
    return np.sqrt(x2 - x**2), np.sqrt(p2 - q**2)


def by_qwidgets(dimension: int, evaluations: int, seed: int) -> tuple[NDArray, NDArray]:
    """Moments of the ridge by this package."""
    cube = qw.Box(np.zeros(dimension), np.ones(dimension))
    result = qw.uncertainty(ridge, cube, samples=evaluations, seed=seed)
    return result.position_std, result.momentum_std


def by_monte_carlo(dimension: int, evaluations: int, seed: int) -> tuple[NDArray, NDArray]:
    """Moments by torchquad's Monte Carlo, in batches that fit the cache."""
    cube = torch.tensor([[0.0, 1.0]]).repeat(dimension, 1)
    rng = torchquad.RNG(backend="torch", seed=seed)
    batch = min(BATCH, evaluations)
    parts = [
        torchquad.MonteCarlo().integrate(
            integrands, dimension, N=batch, integration_domain=cube, rng=rng
        )
        for _ in range(evaluations // batch)
    ]
    return deviations(torch.stack(parts).double().mean(0).numpy())


def by_torchquad_vegas(dimension: int, evaluations: int, seed: int) -> tuple[NDArray, NDArray]:
    """Moments of the first axis by torchquad's VEGAS, an integral at a time."""
    cube = torch.tensor([[0.0, 1.0]]).repeat(dimension, 1)
    integrals = [
        torchquad.VEGAS().integrate(
            lambda x, column=column: integrands(x, slice(1))[:, column],
            dimension,
            N=evaluations,
            integration_domain=cube,
            seed=1000 * seed + column,
        )
        for column in range(5)
    ]
    return deviations(torch.stack(integrals).double().numpy())


def by_vegas(dimension: int, evaluations: int, seed: int) -> tuple[NDArray, NDArray]:
    """Moments by vegas: correlated integrals from one pass, their ratios as `gvar`s.

    As its tutorial advises, the map adapts first, here to l^2 in a fifth of the evaluations, and
    then stays.
    """
    gvar.ranseed(seed)

    @vegas.lbatchintegrand
    def weight(x: NDArray[np.float64]) -> NDArray[np.float64]:
        return ridge(torch.tensor(x, dtype=torch.float32)).double().numpy() ** 2

    @vegas.lbatchintegrand
    def batch(x: NDArray[np.float64]) -> NDArray[np.float64]:
        return integrands(torch.tensor(x, dtype=torch.float32)).double().numpy()

    integrator = vegas.Integrator([[0, 1]] * dimension)
    integrator(weight, nitn=5, neval=evaluations // 25)
    integrals = integrator(batch, nitn=5, neval=4 * evaluations // 25, adapt=False)
    position, momentum = deviations(np.array(integrals))
    return gvar.mean(position), gvar.mean(momentum)


METHODS = {
    "qw.uncertainty": by_qwidgets,
    "torchquad MonteCarlo": by_monte_carlo,
    "torchquad VEGAS": by_torchquad_vegas,
    "vegas": by_vegas,
}


@dataclass(frozen=True, kw_only=True)
class Effort:
    """What a method spent.

    Attributes
    ----------
    evaluations
        Evaluations asked for; of each integral where the method takes one at a time.
    seconds
        Least time of the calls.
    error
        Largest relative error of any axis and seed.
    """

    evaluations: int
    seconds: float
    error: float


def effort(method: Method, dimension: int, patience: float) -> Effort:
    """Double the evaluations until all seeds succeed, or until a call takes too long."""
    truth = exact(dimension)
    evaluations = 1 << 12
    method(dimension, evaluations, 0)  # what a first call loads is not timed
    while True:
        seconds, error = math.inf, 0.0
        for seed in SEEDS:
            start = time.perf_counter()
            found = method(dimension, evaluations, seed)
            seconds = min(seconds, time.perf_counter() - start)
            off = [got / true - 1 for got, true in zip(found, truth, strict=True)]
            error = float(np.abs([error, *np.ravel(off)]).max())  # keeps NaN, as max() does not
            if not error < TOLERANCE:
                break
        if error < TOLERANCE or seconds > patience:
            return Effort(evaluations=evaluations, seconds=seconds, error=error)
        evaluations *= 2


def compare_on_ridge(dimensions: list[int], patience: float) -> None:
    """Print evaluations and seconds of each method, and how much longer each peer takes."""
    torch.set_num_threads(1)  # vegas has no more
    print(f"ridge, {TOLERANCE:g} relative error of every position_std and momentum_std")
    print(f"{'':8}{'method':24}{'evaluations':>12}{'seconds':>10}{'error':>10}{'times own':>12}")
    for dimension in dimensions:
        own = effort(by_qwidgets, dimension, patience)
        for name, method in METHODS.items():
            spent = own if method is by_qwidgets else effort(method, dimension, patience)
            more = ">" if spent.error >= TOLERANCE else ""
            print(
                f"d = {dimension:<4}{name:24}{spent.evaluations:12}{spent.seconds:10.3f}"
                f"{spent.error:10.1e}{more:>4}{spent.seconds / own.seconds:8.1f}",
                flush=True,
            )


def main() -> None:
    """Run both parts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=24, help="independent runs on the network")
    parser.add_argument(
        "--dimensions", type=int, nargs="*", default=[2, 5, 10], help="dimensions of the ridge"
    )
    parser.add_argument(
        "--patience", type=float, default=10, help="seconds of one call after which it gives up"
    )
    options = parser.parse_args()
    if options.seeds:
        compare_on_network(options.seeds)
    if options.dimensions:
        compare_on_ridge(options.dimensions, options.patience)


if __name__ == "__main__":
    main()
