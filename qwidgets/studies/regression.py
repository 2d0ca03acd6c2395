"""Study: packets of networks that predict numbers, a scalar and a field.

A regression has no classes and no cross-entropy; the packet needs neither. What is different is the
loss: a squared error vanishes where the network is right, so that its packet may have a node there,
which no cross-entropy has.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.stats import spearmanr

import qwidgets as qw
from qwidgets.studies.study import (
    BEYOND_CHANCE,
    HALF,
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
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from torch import nn

    from qwidgets.studies.study import Columns, Setting, Table, Verdict, Work

ROUNDING = 1e-6
# Radius of adversarial training and of the attacks: that of the packets' window, see `sweep`.
RADIUS = {"temperature": 0.05, "friedman": 0.1}
MODEL = {"temperature": "encoder_decoder", "friedman": "mlp"}
FLOORS = (100.0, 30.0, 10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.0)
KINDS = {
    "temperature": ("stations", "no station", "mask", "elevation"),
    "friedman": ("used", "unused"),
}


def nodes(_setting: Setting) -> Work[Table]:
    """Lower the floor under a parabola until it vanishes at one point, beside the closed form."""
    table: Table = []
    for index, floor in enumerate(FLOORS):
        yield index / len(FLOORS)
        s = qw.section(lambda x, b=floor: b + x[:, 0] ** 2, [0.0], [1.0], 1.0)  # type: ignore[misc]
        # Moments of the normal density: 1, 3, 15 of t^2, t^4, t^6.
        norm = floor**2 + 2 * floor + 3
        position = math.sqrt((floor**2 + 6 * floor + 15) / norm)
        a = 2 - floor / 2
        momentum = math.sqrt((a**2 - 3 * a + 15 / 4) / norm)
        table.append(
            {
                "floor": floor,
                "position_std": s.position_std,
                "momentum_std": s.momentum_std,
                "product": s.product,
                "exact_position_std": position,
                "exact_momentum_std": momentum,
                "exact_product": position * momentum,
            }
        )
    return table


def _sweep(setting: Setting, name: str, seed: int) -> Work[qw.Sweep]:
    field = name == "temperature"
    radius = RADIUS[name]
    return trained(
        data=name,
        model=MODEL[name],
        # One more network for the page, between clean and robust.
        epsilon=setting.choose(
            smallest=[0, radius], quick=[0, radius / 2, radius], full=[0, radius / 2, radius]
        ),
        regularization=[0],
        epochs=(
            setting.choose(smallest=2, quick=12, full=40)
            if field
            else setting.choose(smallest=6, quick=16, full=60)
        ),
        seed=seed,
        train_size=setting.choose(smallest=150, quick=1500, full=1500),
        test_size=setting.choose(smallest=30, quick=150, full=300),
        attack_epsilon=[0, radius / 2, radius],
        attack_steps=setting.choose(smallest=2, quick=3, full=5),
        batch_size=32 if field else 64,
        probe_images=setting.choose(smallest=3, quick=15, full=41),
        detail=None,
        store=setting.folder / f"{name}-{seed}.sweep",
    )


def _seeds(setting: Setting) -> range:
    return range(setting.seed, setting.seed + setting.choose(smallest=2, quick=3, full=5))


def _runs(setting: Setting) -> list[tuple[str, int]]:
    return list(itertools.product(RADIUS, _seeds(setting)))


def training(setting: Setting) -> Work[Table]:
    """Follow clean and adversarially trained networks, epoch by epoch, for several seeds."""
    table: Table = []
    runs = _runs(setting)
    for index, (name, seed) in enumerate(runs):
        sweep = yield from within(_sweep(setting, name, seed), index, len(runs))
        for epsilon in (0.0, RADIUS[name]):
            cube = sweep.dataset.sel(epsilon=epsilon).isel(regularization=0)
            for epoch in cube.epoch.values.tolist():
                at = cube.sel(epoch=epoch)
                row: dict[str, float | int | str] = {
                    "data": name,
                    "seed": seed,
                    "training_epsilon": epsilon,
                    "epoch": epoch,
                    "test_loss": float(at.test_loss),
                    "accuracy": float(at.clean_accuracy),
                    "accuracy_error": float(at.clean_accuracy_error),
                    "robust_accuracy": float(at.robust_accuracy[-1]),
                    "robust_accuracy_error": float(at.robust_accuracy_error[-1]),
                }
                for quantity in ("position_std", "momentum_std", "uncertainty_product"):
                    row[quantity] = float(at[quantity].mean())
                    row[f"{quantity}_error"] = float(
                        np.sqrt((at[f"{quantity}_error"] ** 2).sum()) / at.sizes["label"]
                    )
                table.append(row)
    return table


def _networks(setting: Setting) -> Work[list[tuple[str, int, float, qw.Dataset, nn.Module]]]:
    """Read all networks from the stores of their sweeps."""
    found = []
    runs = _runs(setting)
    for index, (name, seed) in enumerate(runs):
        sweep = yield from within(_sweep(setting, name, seed), index, len(runs))
        for epsilon in (0.0, RADIUS[name]):
            network = sweep.model(epsilon=epsilon, regularization=0)
            found.append((name, seed, epsilon, sweep.data, network))
    return found


def packets(setting: Setting) -> Work[Table]:
    """Measure the packet along the attack at test inputs, one by one."""
    networks = yield from within(_networks(setting), 0, 10)
    table: Table = []
    count = setting.choose(smallest=2, quick=9, full=60)
    for index, (name, seed, epsilon, data, network) in enumerate(networks):
        yield 0.1 + 0.9 * index / len(networks)
        inputs, targets = data.test_inputs[:count].flatten(1).double(), data.test_y[:count]
        width = RADIUS[name] * math.sqrt(inputs.shape[1]) / 2
        for image, (x, target) in enumerate(zip(inputs, targets, strict=True)):
            loss = qw.packet_loss(network, target, data.input_shape, task=data.task)
            s = qw.section(loss, x, qw.attack_directions(loss, x)[0], width, points=257)
            table.append(
                {
                    "data": name,
                    "seed": seed,
                    "training_epsilon": epsilon,
                    "input": image,
                    "loss": float(loss(x[None]).detach()[0]),
                    "width": width,
                    "position_std": s.position_std,
                    "momentum_std": s.momentum_std,
                    "product": s.product,
                }
            )
    return table


def _kinds(data: qw.Dataset, x: torch.Tensor) -> NDArray[np.int64]:
    """Say of each coordinate which of `KINDS` it is."""
    if data.name == "friedman":
        return np.repeat([0, 1], 5)
    mask = x[1].numpy() > 0
    kinds = np.stack([np.where(mask, 0, 1), np.full_like(mask, 2, int), np.full_like(mask, 3, int)])
    return kinds.reshape(-1)


def channels(setting: Setting) -> Work[Table]:
    """Measure the momentum of each kind of input, in the ball around single test inputs."""
    networks = yield from within(_networks(setting), 0, 10)
    table: Table = []
    count = setting.choose(smallest=1, quick=3, full=20)
    for index, (name, seed, epsilon, data, network) in enumerate(networks):
        for image in range(count):
            x = data.test_inputs[image]
            loss = qw.packet_loss(network, data.test_y[image], data.input_shape, task=data.task)
            work = measured(
                loss,
                qw.Neighborhood(x.reshape(1, -1), RADIUS[name], clip=data.value_range),
                samples=setting.choose(smallest=128, quick=512, full=8192),
                seed=setting.seed,
            )
            u = yield from within(within(work, index * count + image, len(networks) * count), 9, 10)
            errors = u.standard_error
            kinds = _kinds(data, x)
            # In standard errors of both; rounding where there are none.
            spread = np.hypot(errors["product"], errors["bound"]) + ROUNDING
            margin = (u.product - u.bound) / spread
            for kind, words in enumerate(KINDS[name]):
                of = kinds == kind
                p, p_error = u.momentum_std[of], np.asarray(errors["momentum_std"])[of]
                size = float(np.sqrt(np.mean(p**2)))
                table.append(
                    {
                        "data": name,
                        "seed": seed,
                        "training_epsilon": epsilon,
                        "input": image,
                        "kind": words,
                        "coordinates": int(of.sum()),
                        "momentum_std": size,
                        # The coordinates taken as fully correlated: an upper bound.
                        "momentum_std_error": float(np.mean(p * p_error)) / size,
                        "share": float(np.sum(p**2) / np.sum(u.momentum_std**2)),
                        "boundary": float(u.boundary[of].mean()),
                        "least_product": float(u.product[of].min()),
                        "least_margin": float(margin[of].min()),
                    }
                )
    return table


def attacks(setting: Setting) -> Work[Table]:
    """Attack test inputs at several radii, beside random perturbations of the same size."""
    networks = yield from within(_networks(setting), 0, 10)
    table: Table = []
    count = setting.choose(smallest=30, quick=100, full=300)
    steps = setting.choose(smallest=3, quick=10, full=20)
    for index, (name, seed, epsilon, data, network) in enumerate(networks):
        x, y = data.test_inputs[:count], data.test_y[:count]
        generator = torch.Generator().manual_seed(setting.seed)
        sign = 2.0 * torch.randint(2, x.shape, generator=generator) - 1
        clean = _errors(network, x, y)
        for share in (0.25, 0.5, 1.0, 1.5):
            yield 0.1 + 0.9 * (index + share / 2) / len(networks)
            radius = share * RADIUS[name]
            random = (x + radius * sign).clamp(*data.value_range)
            ascent = qw.pgd(
                *(network, x, y, radius),
                steps=steps,
                value_range=data.value_range,
                seed=setting.seed,
                task=data.task,
            )
            row: dict[str, float | int | str] = {
                "data": name,
                "seed": seed,
                "training_epsilon": epsilon,
                "attack_epsilon": radius,
            }
            moved = {"random": _errors(network, random, y), "attacked": _errors(network, ascent, y)}
            for words, values in {
                "clean": clean,
                **moved,
                "random_rise": moved["random"] - clean,
                "attacked_rise": moved["attacked"] - clean,
                "beyond_random": moved["attacked"] - moved["random"],
            }.items():
                row[words] = float(values.mean())
                row[f"{words}_error"] = float(values.std(ddof=1) / math.sqrt(len(values)))
            table.append(row)
    return table


@torch.no_grad()
def _errors(network: nn.Module, x: torch.Tensor, y: torch.Tensor) -> NDArray[np.float64]:
    """Root mean squared error of each output, target units."""
    square = (network(x) - y).square().flatten(1).mean(1)
    return np.asarray(square.sqrt().double())


def conclude(tables: Mapping[str, Table]) -> Conclusion:
    """Draw the conclusions of the study from its tables."""
    c = {name: columns(table) for name, table in tables.items()}
    claims = (
        _bounds(c["packets"], c["channels"], c["training"]),
        _node(c["nodes"], c["training"]),
        _learning(c["training"]),
        _robust(c["packets"], c["attacks"]),
        _beyond_random(c["attacks"]),
        _inputs(c["channels"]),
    )
    return Conclusion(claims, {"regression": _figure(c)})


def _of(c: Columns, name: str, epsilon: float | None = None) -> NDArray[np.bool_]:
    chosen: NDArray[np.bool_] = c["data"] == name
    return chosen if epsilon is None else chosen & (c["training_epsilon"] == epsilon)


def _bounds(packet: Columns, channel: Columns, training: Columns) -> Claim:
    section = float(packet["product"].min())
    medians = float(training["uncertainty_product"].min())
    margin = float(channel["least_margin"].min())
    below = channel["least_product"] < HALF
    holds = section >= HALF - ROUNDING and margin >= -BEYOND_CHANCE and medians >= HALF * (1 - 1e-3)
    return Claim(
        "σx σp ≥ ½ along the attack through the window, and σx σp ≥ |1 - B| / 2 for every "
        "coordinate in the ball around an input, whatever the loss.",
        f"{len(packet['product'])} packets along attacks: the least product is {section:.6f} "
        f"(least median of a sweep {medians:.6f}). In balls around inputs, every coordinate of "
        f"{len(channel['share'])} groups of coordinates: the product less its bound is at least "
        f"{margin:.1f} standard errors; {int(below.sum())} of the groups have coordinates whose "
        f"product is below ½, as B is {float(channel['boundary'].mean()):.2f} there on the mean.",
        "supported" if holds else "not supported",
    )


def _node(c: Columns, training: Columns) -> Claim:
    miss = max(
        float(np.abs(c[name] - c[f"exact_{name}"]).max())
        for name in ("position_std", "momentum_std", "product")
    )
    rises = c["product"][-1] > c["product"][0]
    ends = []
    for name in RADIUS:
        of = _of(training, name, 0.0)
        for seed in np.unique(training["seed"][of]):
            run = of & (training["seed"] == seed)
            first, last = (
                np.flatnonzero(run & (training["epoch"] == training["epoch"][run].min()))[0],
                np.flatnonzero(run & (training["epoch"] == training["epoch"][run].max()))[0],
            )
            error = math.hypot(
                *(float(training["uncertainty_product_error"][at]) for at in (first, last))
            )
            before, after = (float(training["uncertainty_product"][at]) for at in (first, last))
            ends.append((name, before, after, (after - before) / (error + ROUNDING)))
    up = np.array([z > BEYOND_CHANCE for *_, z in ends])
    exact = miss < ROUNDING and bool(rises)
    verdict: Verdict = "not supported"
    if exact and up.all():
        verdict = "supported"
    elif exact and up.any():
        verdict = "supported under a condition"
    told = "; ".join(
        f"{name} {np.mean([b for n, b, *_ in ends if n == name]):.3f} to "
        f"{np.mean([a for n, _, a, _ in ends if n == name]):.3f}"
        for name in RADIUS
    )
    return Claim(
        "A loss that vanishes where the network is right has a packet with a node, which is wider "
        "in position and in momentum than the window, far above the bound.",
        f"b + t² through a window of width 1: the product rises from {float(c['product'][0]):.4f} "
        f"(b = {float(c['floor'][0]):g}) to {float(c['product'][-1]):.4f} (b = 0: position "
        f"{float(c['position_std'][-1]):.4f} = √5, momentum {float(c['momentum_std'][-1]):.4f}); "
        f"the closed form agrees to {miss:.0e}. Median product of clean networks from before "
        f"training to its end, mean over the seeds: {told}; it rises beyond chance in "
        f"{int(up.sum())} of {len(up)} runs.",
        verdict,
        "Where the error comes to vanish on the way of the attack, as not in every run."
        if verdict == "supported under a condition"
        else "",
    )


def _learning(c: Columns) -> Claim:
    told, narrower, wider = [], [], []
    for name in RADIUS:
        of = _of(c, name, 0.0)
        seeds = np.unique(c["seed"][of])
        both = {}
        for quantity in ("position_std", "momentum_std"):
            both[quantity] = np.array(
                [
                    spearmanr(
                        -c["test_loss"][of & (c["seed"] == s)], c[quantity][of & (c["seed"] == s)]
                    )[0]
                    for s in seeds
                ]
            )
        narrower.append(both["position_std"] < 0)
        wider.append(both["momentum_std"] > 0)
        told.append(
            f"{name}: {_mean(both['position_std'])} for the position, "
            f"{_mean(both['momentum_std'])} for the momentum"
        )
    down, up = np.concatenate(narrower), np.concatenate(wider)
    verdict: Verdict = "not supported"
    if down.all() and up.all():
        verdict = "supported"
    elif up.all() and down.any():
        verdict = "supported under a condition"
    return Claim(
        "As a network learns, its packet narrows in position and widens in momentum.",
        f"Rank correlation with the fall of the test loss over the epochs of clean networks, mean "
        f"over {len(seeds)} seeds and its standard error. {'; '.join(told)}. The momentum rises in "
        f"{int(up.sum())} of {len(up)} runs, the position narrows in {int(down.sum())}.",
        verdict,
        "The momentum rises in every run; the position narrows only in those without a node, which "
        "widens it."
        if verdict == "supported under a condition"
        else "",
    )


def _mean(values: NDArray[np.float64]) -> str:
    mean, error = over_seeds(values)
    return f"{mean:+.2f} ± {error:.2f}"


def _robust(packet: Columns, attack: Columns) -> Claim:
    told: list[tuple[str, list[float]]] = []
    signs = []
    for name, radius in RADIUS.items():
        for seed in np.unique(packet["seed"]):
            momentum, attacked, clean = [], [], []
            for epsilon in (0.0, radius):
                of = _of(packet, name, epsilon) & (packet["seed"] == seed)
                momentum.append(float(np.median(packet["momentum_std"][of])))
                at = (
                    _of(attack, name, epsilon)
                    & (attack["seed"] == seed)
                    & (attack["attack_epsilon"] == radius)
                )
                attacked.append(float(attack["attacked"][at][0]))
                clean.append(float(attack["clean"][at][0]))
            signs.append(
                (momentum[1] < momentum[0], attacked[1] < attacked[0], clean[1] > clean[0])
            )
            told.append((name, [after / before for before, after in (momentum, attacked, clean)]))
    each = np.array(signs)
    verdict: Verdict = "not supported"
    if each.all():
        verdict = "supported"
    elif each[:, :2].all():
        verdict = "supported under a condition"
    said = "; ".join(
        f"{name}: "
        + ", ".join(
            f"{words} × {_geometric([by[k] for of_name, by in told if of_name == name])}"
            for k, words in enumerate(("momentum", "attacked error", "clean error"))
        )
        for name in RADIUS
    )
    return Claim(
        "Adversarial training lowers the momentum and the error under attack, and raises the error "
        "without one.",
        f"Networks trained at the radius of the attack beside clean ones, {len(each)} pairs: the "
        f"momentum falls in {int(each[:, 0].sum())}, the attacked error in "
        f"{int(each[:, 1].sum())}, the clean error rises in {int(each[:, 2].sum())}. "
        f"Factors, geometric mean over the seeds: {said}.",
        verdict,
        "The price in clean error is not paid by every pair."
        if verdict == "supported under a condition"
        else "",
    )


def _geometric(values: list[float]) -> str:
    logs = np.log(values)
    error = math.exp(logs.mean()) * logs.std(ddof=1) / math.sqrt(len(logs))
    return f"{math.exp(logs.mean()):.2f} ± {error:.2f}"


def _beyond_random(c: Columns) -> Claim:
    z = c["beyond_random"] / np.maximum(c["beyond_random_error"], ROUNDING)
    clear = z > BEYOND_CHANCE
    verdict: Verdict = "not supported"
    if clear.all():
        verdict = "supported"
    elif clear.mean() > 0.5:  # noqa: PLR2004
        verdict = "supported under a condition"
    parts = []
    for name, radius in RADIUS.items():
        of = _of(c, name, 0.0) & (c["attack_epsilon"] == radius)
        clean, random, attacked = (float(c[w][of].mean()) for w in ("clean", "random", "attacked"))
        parts.append(f"{name}, radius {radius:g}: {clean:.2f}, {random:.2f}, {attacked:.2f}")
    return Claim(
        "An attack raises the error far more than a random perturbation of the same size.",
        f"Root mean squared error of clean networks without, with random signs, and with PGD (mean "
        f"over seeds and inputs; of a field in kelvin). {'; '.join(parts)}. The attack is beyond "
        f"the random one by {float(z.min()):.1f} to {float(z.max()):.1f} standard errors, at all "
        f"radii and networks.",
        verdict,
        "Not at every radius of every network." if verdict == "supported under a condition" else "",
    )


def _inputs(c: Columns) -> Claim:
    told: list[str] = []
    names: list[str] = []
    first = []
    for name, kinds in KINDS.items():
        of = _of(c, name, 0.0)
        means = []
        for kind in kinds:
            p = np.log(c["momentum_std"][of & (c["kind"] == kind)])
            means.append((p.mean(), p.std(ddof=1) / math.sqrt(len(p))))
            share = c["share"][of & (c["kind"] == kind)]
            size = math.exp(p.mean())
            told.append(
                f"{name}, {kind} {size:.3g} ± {size * means[-1][1]:.1g} "
                f"({100 * float(share.mean()):.0f} % of Δp²)"
            )
        (top, top_error), *others = means
        first += [top - mean > BEYOND_CHANCE * math.hypot(top_error, e) for mean, e in others]
        names += kinds[1:]
    verdict: Verdict = "not supported"
    if all(first):
        verdict = "supported"
    elif np.mean(first) >= 0.5:  # noqa: PLR2004
        verdict = "supported under a condition"
    return Claim(
        "The momentum lies in the inputs that the answer depends on: a reading of a station "
        "carries more than any other pixel, a number that counts more than one that does not.",
        "Momentum of one coordinate (root mean square over its kind, geometric mean over inputs "
        f"and seeds, clean networks, 1 / input unit): {'; '.join(told)}.",
        verdict,
        "Not more than: "
        + ", ".join(name for name, more in zip(names, first, strict=True) if not more)
        + "."
        if verdict == "supported under a condition"
        else "",
    )


def _figure(c: Mapping[str, Columns]) -> qw.Figure:
    node, training, attack = c["nodes"], c["training"], c["attacks"]
    charts = [
        qw.chart(
            {
                "position σx": (node["floor"][:-1], node["position_std"][:-1]),
                "momentum σp": (node["floor"][:-1], node["momentum_std"][:-1]),
                "product": (node["floor"][:-1], node["product"][:-1]),
                "_half": qw.Curve([FLOORS[0], FLOORS[-2]], [0.5, 0.5], style="dashed"),
            },
            x="floor b of the loss b + t²",
            y="spread, window of width 1",
            title="A loss that comes to vanish at a point",
            log="x",
        )
    ]
    trails = {}
    for name, words in (("temperature", "field"), ("friedman", "number")):
        for epsilon, how in ((0.0, "clean"), (RADIUS[name], "robust")):
            of = _of(training, name, epsilon) & (training["seed"] == training["seed"].min())
            width = RADIUS[name] * math.sqrt(768 if name == "temperature" else 10) / 2
            trails[f"{words}, {how}"] = qw.Curve(
                training["position_std"][of] / width,
                training["momentum_std"][of] * width,
                style="line",
            )
    x = np.geomspace(0.8, 2.3, 40)
    charts.append(
        qw.chart(
            trails,
            x="position σx / s",
            y="momentum σp · s",
            title="Training, epoch by epoch",
            x_limits=(0.8, 2.3),
            forbidden_below=(x, 0.5 / x),
        )
    )
    for name, title in (("temperature", "Temperature field"), ("friedman", "Friedman's function")):
        curves = {}
        for epsilon, how in ((0.0, "clean"), (RADIUS[name], "robust")):
            of = _of(attack, name, epsilon)
            radii = np.unique(attack["attack_epsilon"][of])
            for words, style in (("attacked", "line"), ("random", "dashed")):
                at = [of & (attack["attack_epsilon"] == radius) for radius in radii]
                y = [attack["clean"][at[0]], *(attack[words][each] for each in at)]
                means = [values.mean() for values in y]
                error = [values.std(ddof=1) / math.sqrt(len(values)) for values in y]
                curves[f"{how}, {words}"] = qw.Curve(
                    np.concatenate([[0], radii]),
                    means,
                    error,
                    style=style,  # type: ignore[arg-type]
                )
        charts.append(
            qw.chart(
                curves,
                x="size of the perturbation (input units, ℓ∞)",
                y="error (K)" if name == "temperature" else "error",
                title=title,
            )
        )
    return qw.beside(*charts)


def _page(setting: Setting) -> Work[qw.Sweep]:
    return _sweep(setting, "temperature", setting.seed)


STUDY = Study(
    name="regression",
    title="Not only classifiers: a number, and a field of temperatures",
    source="The packets of the main paper (arXiv 2205.01493), for other losses.",
    cost="about an hour on two cores; --quick about five minutes",
    parts={
        "nodes": nodes,
        "training": training,
        "packets": packets,
        "channels": channels,
        "attacks": attacks,
    },
    conclude=conclude,
    networks=_page,
)
