"""Study: two classes, a boundary of known sharpness, and networks that learn it.

After "Exploring the uncertainty principle in neural networks through binary classification"
(Scientific Reports 2024, s41598-024-79028-4).
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from scipy.integrate import quad
from scipy.stats import spearmanr
from torch import nn
from torch.nn.functional import softplus

import qwidgets as qw
from qwidgets.studies.study import (
    BEYOND_CHANCE,
    Claim,
    Conclusion,
    Study,
    columns,
    measured,
    over_seeds,
    trained,
    within,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from qwidgets.studies.study import Columns, Row, Setting, Table, Verdict, Work

WIDTH = 0.5
# Of the packets of networks on the unit interval.
LINE_WIDTH = 0.1
ROUNDING = 1e-6
# Networks may miss the closed form of their own sharpness by this part of the product.
CLOSE = 0.02

LIMIT_POSITION = WIDTH * math.sqrt(3 - 8 / math.pi)
LIMIT_MOMENTUM = math.sqrt(3) / (2 * WIDTH)
"""Spreads of the ramp max(0, t), the boundary that is infinitely sharp: psi^2 is Maxwell's law."""


class Spreads(NamedTuple):
    """Position and momentum spread of a packet through a window."""

    position_std: float
    momentum_std: float


def by_quadrature(sharpness: float, width: float) -> Spreads:
    """Integrate the packet of ``log(1 + exp(k t))`` adaptively; shares nothing with `section`."""
    k, s = sharpness, width

    def amplitude(t: float) -> float:
        return float(np.logaddexp(0, k * t) * math.exp(-(t**2) / (4 * s**2)))

    def rate(t: float) -> float:
        slope = k * math.exp(-float(np.logaddexp(0, -k * t)))
        window = math.exp(-(t**2) / (4 * s**2))
        return (slope - float(np.logaddexp(0, k * t)) * t / (2 * s**2)) * window

    # In pieces, so that the bend at 0 is not missed between the nodes.
    edges = [-12 * s, *(place for place in (-4 / k, 0.0, 4 / k) if abs(place) < 12 * s), 12 * s]

    def integral(value: Callable[[float], float]) -> float:
        pieces = (
            quad(value, a, b, epsabs=0, epsrel=1e-11, limit=200)[0]
            for a, b in itertools.pairwise(edges)
        )
        return float(sum(pieces))

    norm = integral(lambda t: amplitude(t) ** 2)
    first = integral(lambda t: t * amplitude(t) ** 2)
    second = integral(lambda t: t**2 * amplitude(t) ** 2)
    energy = integral(lambda t: rate(t) ** 2)
    return Spreads(math.sqrt(second / norm - (first / norm) ** 2), math.sqrt(energy / norm))


def sharpness(_setting: Setting) -> Work[Table]:
    """Let a boundary in one dimension become sharper, beside independent quadrature."""
    table: Table = []
    values = np.geomspace(0.5, 512, 21).tolist()
    for index, k in enumerate(values):
        yield index / len(values)
        s = qw.section(lambda x, k=k: softplus(k * x[:, 0]), [0.0], [1.0], WIDTH)  # type: ignore[misc]
        exact = by_quadrature(k, WIDTH)
        table.append(
            {
                "sharpness": k,
                "position_std": s.position_std,
                "momentum_std": s.momentum_std,
                "product": s.product,
                "quadrature_position_std": exact.position_std,
                "quadrature_momentum_std": exact.momentum_std,
                "quadrature_product": exact.position_std * exact.momentum_std,
            }
        )
    return table


def plane(setting: Setting) -> Work[Table]:
    """Measure boundaries in two dimensions, straight and round, across them and along them."""
    angle = math.radians(30)
    normal = torch.tensor([math.cos(angle), math.sin(angle)], dtype=torch.float64)
    tangent = torch.tensor([-math.sin(angle), math.cos(angle)], dtype=torch.float64)
    radius = 2 * WIDTH
    table: Table = []
    values = (1.0, 4.0, 16.0)
    for step, k in enumerate(values):
        exact = by_quadrature(k, WIDTH)

        def straight(x: torch.Tensor, k: float = k) -> torch.Tensor:
            return softplus(k * (x @ normal))

        def curved(x: torch.Tensor, k: float = k) -> torch.Tensor:
            return softplus(k * ((x + radius * normal).norm(dim=1) - radius))

        for half, (shape, loss) in enumerate((("straight", straight), ("round", curved))):
            work = measured(
                loss,
                qw.Gaussian([0.0, 0.0], WIDTH),
                directions=torch.stack([normal, tangent]),
                samples=1 << setting.choose(smallest=12, quick=14, full=17),
                seed=setting.seed,
            )
            u = yield from within(work, 2 * step + half, 2 * len(values))
            for index, direction in enumerate(("across", "along")):
                known = exact if direction == "across" else Spreads(WIDTH, 1 / (2 * WIDTH))
                row: Row = {"sharpness": k, "boundary": shape, "direction": direction}
                for name in ("position_std", "momentum_std", "product"):
                    row[name] = float(getattr(u, name)[index])
                    row[f"{name}_error"] = float(np.asarray(u.standard_error[name])[index])
                row["straight_position_std"] = known.position_std
                row["straight_momentum_std"] = known.momentum_std
                table.append(row)
    return table


def _line_network() -> nn.Module:
    return nn.Sequential(
        nn.Linear(1, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 2)
    )


def _line_data(true_sharpness: float, seed: int) -> qw.Dataset:
    """Points of the unit interval; the label is drawn, 1 with probability sigmoid(K (x - 1/2))."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(3000, 1, generator=generator)
    chance = torch.sigmoid(true_sharpness * (x[:, 0] - 0.5))
    labels = (torch.rand(3000, generator=generator) < chance).long()
    return qw.Dataset.from_arrays(
        x, labels, value_range=(0, 1), name=f"line {true_sharpness:g}", test_fraction=0.33
    )


def line(setting: Setting) -> Work[Table]:
    """Train networks on the line, and compare each with the packet of its own sharpness."""
    table: Table = []
    seeds = _seeds(setting, setting.choose(smallest=2, quick=2, full=4))
    runs = list(itertools.product((10.0, 40.0, 160.0), seeds))
    for index, (true, seed) in enumerate(runs):
        run = qw.iterate_sweep(
            _line_data(true, seed),
            _line_network,
            epsilon=[0],
            regularization=[0],
            epochs=16,
            seed=seed,
            width=LINE_WIDTH,
            learning_rate=3e-3,
            detail=None,
            # Only the accuracy of each epoch is asked for here.
            attack_epsilon=[0],
            probe_images=1,
        )
        for state in run:
            yield (index + state.fraction) / len(runs)
            if state.sweep is None or state.epoch not in {1, 2, 4, 8, 16}:
                continue
            network = state.sweep.model(epsilon=0, regularization=0).double()
            accuracy = state.sweep.dataset.isel(epoch=-1, epsilon=0, regularization=0)
            found = _at_boundary(network)
            if found is not None:
                row: Row = {"true_sharpness": true, "seed": seed, "epoch": state.epoch}
                row["accuracy"] = float(accuracy.clean_accuracy)
                row["accuracy_error"] = float(accuracy.clean_accuracy_error)
                table.append(row | found)
    return table


def _seeds(setting: Setting, count: int) -> range:
    return range(setting.seed, setting.seed + count)


def _at_boundary(network: nn.Module) -> Row | None:
    """Packet of a network at the place where both classes are equally likely, if there is one."""
    loss = qw.packet_loss(network, 0, (1,))
    x = torch.linspace(0, 1, 4001, dtype=torch.float64)[:, None]
    surplus = loss(x).detach() - math.log(2)
    crossing = (surplus[:-1] < 0) & (surplus[1:] >= 0)
    if not crossing.any():
        return None
    first = int(crossing.nonzero()[0])
    share = float(-surplus[first] / (surplus[first + 1] - surplus[first]))
    place = float(x[first, 0]) + share * float(x[1, 0])
    s = qw.section(loss, [place], [1.0], LINE_WIDTH)
    # At the boundary the slope of the loss is half that of the log odds.
    found = 2 * float(s.slope[len(s.slope) // 2])
    exact = by_quadrature(found, LINE_WIDTH)
    return {
        "boundary": place,
        "network_sharpness": found,
        "position_std": s.position_std,
        "momentum_std": s.momentum_std,
        "product": s.product,
        "closed_form_product": exact.position_std * exact.momentum_std,
    }


def _moons(setting: Setting, seed: int) -> Work[qw.Sweep]:
    return trained(
        data="moons",
        epsilon=[0, 0.1],
        regularization=[0, 0.1],
        epochs=setting.choose(smallest=5, quick=10, full=30),
        seed=seed,
        probe_images=21,
        detail=None,
        store=setting.folder / f"moons-{seed}.sweep",
    )


def moons(setting: Setting) -> Work[Table]:
    """Follow clean networks on two moons, epoch by epoch, for several seeds."""
    table: Table = []
    seeds = _seeds(setting, setting.choose(smallest=2, quick=3, full=6))
    for index, seed in enumerate(seeds):
        sweep = yield from within(_moons(setting, seed), index, len(seeds))
        cube = sweep.dataset.isel(epsilon=0, regularization=0)
        for epoch in cube.epoch.values.tolist():
            at = cube.sel(epoch=epoch)
            row: Row = {
                "seed": seed,
                "epoch": epoch,
                "accuracy": float(at.clean_accuracy),
                "accuracy_error": float(at.clean_accuracy_error),
                "test_loss": float(at.test_loss),
            }
            for name in ("position_std", "momentum_std", "uncertainty_product"):
                row[name] = float(at[name].mean())
                row[f"{name}_error"] = float(
                    np.sqrt((at[f"{name}_error"] ** 2).sum()) / at.sizes["label"]
                )
            table.append(row)
    return table


def conclude(tables: Mapping[str, Table]) -> Conclusion:
    """Draw the conclusions of the study from its tables."""
    found = {name: columns(table) for name, table in tables.items()}
    claims = (
        _trade(found["sharpness"]),
        _limit(found["sharpness"]),
        _two_dimensions(found["plane"]),
        _own_sharpness(found["line"]),
        _learning(found["moons"]),
    )
    return Conclusion(claims, _figures(found))


def _trade(c: Columns) -> Claim:
    falls = bool((np.diff(c["position_std"]) < 0).all())
    rises = bool((np.diff(c["momentum_std"]) > 0).all())
    above = bool((c["product"] >= 0.5 - ROUNDING).all())
    return Claim(
        "A sharper boundary is narrower in position and wider in momentum.",
        f"From sharpness {c['sharpness'][0]:g} to {c['sharpness'][-1]:g} the position spread falls "
        f"from {c['position_std'][0]:.4f} to {c['position_std'][-1]:.4f} and the momentum spread "
        f"rises from {c['momentum_std'][0]:.4f} to {c['momentum_std'][-1]:.4f}, at every step; the "
        f"product goes from {c['product'][0]:.6f} to {c['product'][-1]:.6f}.",
        "supported" if falls and rises and above else "not supported",
    )


def _limit(c: Columns) -> Claim:
    limit = LIMIT_POSITION * LIMIT_MOMENTUM
    miss = float(np.abs(c["product"] - c["quadrature_product"]).max())
    below = bool((c["product"] < limit).all())
    rises = bool((np.diff(c["product"]) > -ROUNDING).all())
    return Claim(
        "The product rises with the sharpness of the boundary.",
        f"It rises at every step, from {float(c['product'][0]):.6f} to "
        f"{float(c['product'][-1]):.6f}, towards that of the infinitely sharp boundary, "
        f"(√3/2) √(3 - 8/π) = {limit:.6f}, {100 * (2 * limit - 1):.0f} % above the bound. "
        f"Independent quadrature agrees to {miss:.1e}.",
        "supported" if rises and below and miss < ROUNDING else "not supported",
    )


def _two_dimensions(c: Columns) -> Claim:
    straight = c["boundary"] == "straight"
    z = np.concatenate(
        [
            (c[name][straight] - c[f"straight_{name}"][straight])
            / np.maximum(c[f"{name}_error"][straight], ROUNDING)
            for name in ("position_std", "momentum_std")
        ]
    )
    margin = (c["product"] - 0.5) / np.maximum(c["product_error"], ROUNDING)
    bent = ~straight & (c["direction"] == "along")
    holds = np.abs(z).max() <= BEYOND_CHANCE and margin.min() >= -BEYOND_CHANCE
    return Claim(
        "In two dimensions the packet is that of one dimension across the boundary, and at rest "
        "along it.",
        f"Straight boundary: all spreads within {float(np.abs(z).max()):.1f} standard errors of "
        f"the exact ones. Along a round one, of a radius twice the window's width, the position "
        f"spread is {float(c['position_std'][bent].min()):.3f} to "
        f"{float(c['position_std'][bent].max()):.3f} in place of {WIDTH:g}, the momentum spread "
        f"{float(c['momentum_std'][bent].min()):.3f} to {float(c['momentum_std'][bent].max()):.3f} "
        f"in place of {1 / (2 * WIDTH):g}.",
        "supported under a condition" if holds else "not supported",
        "For a straight boundary; a curved one is not at rest along itself." if holds else "",
    )


def _own_sharpness(c: Columns) -> Claim:
    miss = np.abs(c["product"] / c["closed_form_product"] - 1)
    order, p_value = spearmanr(c["network_sharpness"], c["momentum_std"])
    close = float((miss <= CLOSE).mean())
    verdict: Verdict = "not supported"
    if close == 1 and order > 0:
        verdict = "supported"
    elif close >= 0.5 and order > 0:  # noqa: PLR2004
        verdict = "supported under a condition"
    sharp = c["network_sharpness"] * LINE_WIDTH
    return Claim(
        "The packet of a network on the line is that of a boundary of the network's own sharpness.",
        f"{len(miss)} networks, sharpness times window {float(sharp.min()):.2f} to "
        f"{float(sharp.max()):.2f}: the product misses the closed form by "
        f"{100 * float(np.median(miss)):.1f} % (median) and at most {100 * float(miss.max()):.1f} "
        f"%; {100 * close:.0f} % of them by less than {100 * CLOSE:.0f} %. Rank correlation of "
        f"sharpness and momentum {order:.3f} (p = {p_value:.0e}).",
        verdict,
        "Where the log odds are straight over the window; networks bend them at its ends."
        if verdict == "supported under a condition"
        else "",
    )


def _learning(c: Columns) -> Claim:
    seeds = np.unique(c["seed"])
    correlation = {
        name: np.array(
            [
                spearmanr(c["accuracy"][c["seed"] == seed], c[name][c["seed"] == seed])[0]
                for seed in seeds
            ]
        )
        for name in ("position_std", "momentum_std")
    }

    def told(values: NDArray[np.float64]) -> str:
        mean, error = over_seeds(values)
        return f"{mean:+.2f} ± {error:.2f}"

    up, down = correlation["momentum_std"] > 0, correlation["position_std"] < 0
    verdict: Verdict = "not supported"
    if up.all() and down.all():
        verdict = "supported"
    elif up.mean() > 0.5 and down.mean() > 0.5:  # noqa: PLR2004
        verdict = "supported under a condition"
    # Once the accuracy has reached its end, the loss still says that the network learns.
    fall = np.array(
        [
            spearmanr(-c["test_loss"][c["seed"] == seed], c["momentum_std"][c["seed"] == seed])[0]
            for seed in seeds
        ]
    )
    above = float(c["uncertainty_product"].min())
    return Claim(
        "As a network becomes more accurate, its momentum rises and its position narrows.",
        f"Two moons, {len(seeds)} seeds, every epoch: rank correlation with the accuracy "
        f"{told(correlation['momentum_std'])} for the momentum and "
        f"{told(correlation['position_std'])} for the position (mean over the seeds and its "
        f"standard error). The momentum goes on rising where the accuracy has reached its end: its "
        f"rank correlation with the fall of the test loss is {told(fall)}. The least median "
        f"product is {above:.6f}.",
        verdict,
        "For most seeds, not for all." if verdict == "supported under a condition" else "",
    )


def _figures(columns: Mapping[str, Columns]) -> dict[str, qw.Figure]:
    one, networks, learned = columns["sharpness"], columns["line"], columns["moons"]
    k = one["sharpness"]
    spreads = qw.chart(
        {
            "position σx": (k, one["position_std"]),
            "momentum σp": (k, one["momentum_std"]),
            "_x limit": qw.Curve(k, np.full(len(k), LIMIT_POSITION), style="dashed"),
            "_p limit": qw.Curve(k, np.full(len(k), LIMIT_MOMENTUM), style="dashed"),
        },
        x="sharpness k (1 / input unit)",
        y="spread",
        title="One dimension: spreads and their limits",
        log="xy",
    )
    fine = np.geomspace(0.2, 60, 40)
    exact = [by_quadrature(value / WIDTH, WIDTH) for value in fine.tolist()]
    product = qw.chart(
        {
            "networks": qw.Curve(
                networks["network_sharpness"] * LINE_WIDTH, networks["product"], style="dots"
            ),
            "closed form": (fine, [x * p for x, p in exact]),
        },
        x="sharpness times window, k s",
        y="product σx σp",
        title="Networks beside the closed form",
        log="x",
        y_limits=(0.49, 0.65),
        forbidden_below=(fine, np.full(len(fine), 0.5)),
    )
    accuracy, momentum = (
        qw.chart(
            {
                f"seed {seed}": qw.Curve(
                    learned["epoch"][learned["seed"] == seed],
                    learned[name][learned["seed"] == seed],
                    learned[f"{name}_error"][learned["seed"] == seed],
                )
                for seed in np.unique(learned["seed"]).tolist()[:3]
            },
            x="epoch",
            y=words,
            title=title,
        )
        for name, words, title in (
            ("accuracy", "clean accuracy", "Two moons: accuracy"),
            ("momentum_std", "momentum σp (1 / input unit)", "Two moons: momentum"),
        )
    )
    return {"binary": qw.beside(spreads, product, accuracy, momentum)}


def _page(setting: Setting) -> Work[qw.Sweep]:
    return _moons(setting, setting.seed)


STUDY = Study(
    name="binary",
    title="Two classes: sharpness, product, and networks that learn",
    source='"Exploring the uncertainty principle in neural networks through binary '
    'classification", Scientific Reports 2024, s41598-024-79028-4.',
    cost="about three minutes on two cores; --quick about one",
    parts={"sharpness": sharpness, "plane": plane, "line": line, "moons": moons},
    conclude=conclude,
    networks=_page,
)
