"""Study: the whole surface of adversarial radius and regularization, and what foretells robustness.

Every network of three surfaces, one for each regulariser, is measured twice: with an attack, for
its robust accuracy, and without, for its uncertainty and for simpler numbers that are said to go
with robustness. The question is how far the second foretells the first, on networks that had no
part in the fit.

What is measured without an attack, on the probe images of the sweep, as the mean over the classes
of the median over a class's images, with the standard error of Maritz and Jarrett:

- ``product``, ``momentum_std``, ``position_std``: of the packet along the gradient;
- ``gradient_norm``: l2 length of the input gradient of the loss, ``|grad l|``;
- ``margin``: logit of the label less the largest other one;
- ``linear_distance``: l-infinity distance to the boundary of the network made linear at the image,
  ``margin / |grad margin|_1``, at most the extent of the valid range;
- ``gradient_correlation``: cosine between the gradients of the loss at the image and at a random
  point of the l-infinity ball of the attack radius around it: how linear the network is there;
- ``clean_accuracy``: on all test images, with its binomial standard error.

``fragility`` is the share of the correctly classified images that the attack breaks, ``1 - robust /
clean``, with its binomial standard error. A network is ``flat`` where its packets are those of a
constant loss (mean position spread from 0.99 windows on) or its clean accuracy is within three
standard errors of that of always naming the commonest class.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from scipy.stats.mstats import mjci
from sklearn.isotonic import IsotonicRegression

import qwidgets as qw
from qwidgets.studies.study import (
    BEYOND_CHANCE,
    FEWEST,
    Claim,
    Conclusion,
    Study,
    bullets,
    columns,
    rank_correlation,
    trained,
    within,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray
    from torch import Tensor, nn

    from qwidgets.studies.study import Columns, Row, Setting, Table, Verdict, Work

    Values = NDArray[np.float64]

RADIUS = 0.1
"""Of the attack, in the l-infinity norm, on images of values from 0 to 1."""

FAR = 0.2
"""A second radius, for the trade-off alone."""

REGULARIZERS = {
    "gradient": "input-gradient penalty",
    "weight_decay": "weight decay",
    "label_smoothing": "label smoothing",
}
EVERY = "all"
SIMPLE = {
    "gradient_norm": "gradient norm",
    "margin": "margin",
    "linear_distance": "linear distance",
    "gradient_correlation": "gradient correlation",
    "clean_accuracy": "clean accuracy",
}
PREDICTORS = {
    "product": "product",
    "momentum_std": "momentum",
    "position_std": "position",
    **SIMPLE,
}
TARGETS = {"robust_accuracy": "robust accuracy", "fragility": "fragility"}
CONDITIONS = {"all": "all networks", "not flat": "without flat networks"}

FLAT = 0.99
AT_CHANCE = 3.0
RESAMPLES = 500
ROUNDING = 1e-9


def _datasets(setting: Setting) -> list[str]:
    return setting.choose(smallest=["digits"], quick=["digits"], full=["digits", "mnist"])


def _seeds(setting: Setting, data: str) -> list[int]:
    count = setting.choose(smallest=2, quick=3, full=6 if data == "digits" else 3)
    return list(range(setting.seed, setting.seed + count))


_STRENGTHS = {
    "gradient": (0, 0.01, 0.03, 0.1, 0.3, 1),
    "weight_decay": (0, 0.1, 1, 3, 10, 30),
    "label_smoothing": (0, 0.02, 0.05, 0.1, 0.2, 0.4),
}


def _surface(setting: Setting, data: str, regularizer: str, seed: int) -> Work[qw.Sweep]:
    """Train the networks of one surface, or take them from their store."""
    smallest, full = setting.size == "smallest", setting.size == "full"
    own: dict[str, Any] = {} if full else {"regularization": _STRENGTHS[regularizer]}
    if not full:
        own["epsilon"] = (0, 0.025, 0.05, 0.1, 0.2, 0.3)
    if smallest:
        own = {"epsilon": (0, 0.05, 0.2), "regularization": _STRENGTHS[regularizer][:5:2]}
        own |= {"train_size": 600, "test_size": 150, "attack_epsilon": (0, RADIUS, FAR)}
    return trained(
        data=data,
        root=setting.root if data == "mnist" else None,
        regularizer=regularizer,
        epochs=setting.choose(smallest=5, quick=16, full=20 if data == "digits" else 10),
        seed=seed,
        probe_images=setting.choose(smallest=3, quick=7, full=7),
        detail=None,
        store=setting.folder / f"{data}-{regularizer}-{seed}.sweep",
        **own,
    )


def networks(setting: Setting) -> Work[Table]:
    """Train every surface, and measure each of its networks with and without an attack."""
    names = _datasets(setting)
    for data in names:
        # What is missing is told before hours of training, not after.
        qw.load_data(data, root=setting.root if data == "mnist" else None)
    runs = [
        (data, regularizer, seed)
        for data in names
        for regularizer in REGULARIZERS
        for seed in _seeds(setting, data)
    ]
    table: Table = []
    for index, (data, regularizer, seed) in enumerate(runs):
        sweep = yield from within(_surface(setting, data, regularizer, seed), index, len(runs))
        for row in _measured(sweep):
            yield (index + 1) / len(runs)
            table.append({"data": data, "regularizer": regularizer, "seed": seed, **row})
    return table


def _measured(sweep: qw.Sweep) -> Iterator[Row]:
    """Measure the networks of a sweep, but for those that have failed."""
    cube = sweep.dataset.isel(epoch=-1)
    labels = sweep.data.test_labels
    images, probes = len(labels), torch.from_numpy(cube.probe_image.values)
    commonest = float(torch.bincount(labels).max()) / images
    chance = commonest + AT_CHANCE * math.sqrt(commonest * (1 - commonest) / images)
    for epsilon in sweep.settings.epsilon:
        for strength in sweep.settings.regularization:
            at = cube.sel(epsilon=epsilon, regularization=strength)
            clean = float(at.clean_accuracy)
            robust = float(at.robust_accuracy.sel(attack_epsilon=RADIUS))
            spreads: dict[str, float] = {}
            for name, variable in (
                ("product", "uncertainty_product"),
                ("momentum_std", "momentum_std"),
                ("position_std", "position_std"),
            ):
                spreads[name], spreads[f"{name}_error"] = _over_classes(
                    at[variable].values, at[f"{variable}_error"].values
                )
            network = sweep.model(epsilon=epsilon, regularization=strength)
            simple = without_attack(
                network,
                sweep.data.test_inputs[probes.flatten()],
                labels[probes.flatten()],
                radius=RADIUS,
                value_range=sweep.data.value_range,
                seed=sweep.settings.seed,
            )
            row: Row = {"epsilon": epsilon, "regularization": strength}
            row |= {"clean_accuracy": clean, "clean_accuracy_error": float(at.clean_accuracy_error)}
            for name, radius in (("robust_accuracy", RADIUS), ("robust_accuracy_far", FAR)):
                under = at.sel(attack_epsilon=radius)
                row[name] = float(under.robust_accuracy)
                row[f"{name}_error"] = float(under.robust_accuracy_error)
            fragility = 1 - robust / clean if clean > 0 else 1.0
            row["fragility"] = fragility
            row["fragility_error"] = math.sqrt(fragility * (1 - fragility) / max(clean * images, 1))
            row |= spreads
            for name, values in simple.items():
                each = values.reshape(probes.shape)
                middle = np.median(each, axis=1)
                # From the median on, so that rounding leaves no negative variance.
                error = mjci(each - middle[:, None], prob=[0.5], axis=1)[:, 0]
                row[name], row[f"{name}_error"] = _over_classes(middle, error)
            flat = spreads["position_std"] >= FLAT * sweep.settings.width or clean <= chance
            row["flat"] = int(flat)
            # A network that has failed in training has no numbers.
            if all(math.isfinite(float(value)) for value in row.values()):
                yield row


def _over_classes(values: Values, errors: Values) -> tuple[float, float]:
    """Mean over the classes that have a value, and its standard error."""
    known = np.isfinite(values)
    if not known.any():
        return math.nan, math.nan
    spread = math.sqrt(float((errors[known] ** 2).sum())) / int(known.sum())
    return float(values[known].mean()), spread


def without_attack(
    network: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    radius: float,
    value_range: tuple[float, float],
    seed: int,
) -> dict[str, Values]:
    """Measure on each image what is said to go with robustness, and takes no attack.

    Parameters
    ----------
    network : torch.nn.Module
        Maps images to logits.
    x : Tensor, shape (n, *input_shape)
    y : Tensor, shape (n,)
        Labels.
    radius : float
        Of the l-infinity ball from which the second gradient is taken.
    value_range : (float, float)
        Valid values of an input coordinate.
    seed : int
        Of the random point of the ball.

    Returns
    -------
    dict of str to ndarray, shape (n,)
        ``gradient_norm``, ``margin``, ``linear_distance``, ``gradient_correlation``.
    """
    network = network.double().eval()
    x = x.double()
    low, high = value_range

    def gradient(at: Tensor) -> Tensor:
        leaf = at.clone().requires_grad_()
        loss = torch.nn.functional.cross_entropy(network(leaf), y, reduction="sum")
        return torch.autograd.grad(loss, leaf)[0].flatten(1)

    leaf = x.clone().requires_grad_()
    logits = network(leaf)
    others = logits.scatter(1, y[:, None], -math.inf).amax(1)
    margin = logits.gather(1, y[:, None])[:, 0] - others
    (slope,) = torch.autograd.grad(margin.sum(), leaf)
    distance = margin.detach() / slope.flatten(1).abs().sum(1)
    # Where the network is constant, 0 / 0, no image is on the way to another class.
    distance = distance.nan_to_num(nan=high - low).clamp(low - high, high - low)
    generator = torch.Generator().manual_seed(seed)
    step = radius * (2 * torch.rand(x.shape, generator=generator, dtype=x.dtype) - 1)
    here, there = gradient(x), gradient((x + step).clamp(low, high))
    lengths = here.norm(dim=1) * there.norm(dim=1)
    # Gradients that vanish differ in nothing.
    cosine = torch.where(lengths > 0, (here * there).sum(1) / lengths, 1.0)
    return {
        "gradient_norm": here.norm(dim=1).numpy(),
        "margin": margin.detach().numpy(),
        "linear_distance": distance.numpy(),
        "gradient_correlation": cosine.numpy(),
    }


# From the networks to what they say together


@dataclass(frozen=True)
class Surface:
    """Networks at the same P points of the grid from S seeds; NaN where one has failed.

    Attributes
    ----------
    values : mapping of str to ndarray, shape (S, P)
        By quantity.
    regularizer : ndarray of str, shape (P,)
    epsilon, regularization : ndarray, shape (P,)
        Where the points are.
    field : ndarray of int, shape (P,)
        0 or 1, as the fields of a chessboard.
    """

    values: Mapping[str, Values]
    regularizer: NDArray[np.str_]
    epsilon: Values
    regularization: Values
    field: NDArray[np.int64]

    def take(self, kept: NDArray[np.bool_]) -> Surface:
        """Keep some points."""
        values = {name: v[:, kept] for name, v in self.values.items()}
        place = self.regularizer[kept], self.epsilon[kept], self.regularization[kept]
        return Surface(values, *place, self.field[kept])

    def under(self, condition: str) -> Surface:
        """Leave networks out that do not meet a condition, or have failed."""
        kept = np.isfinite(self.values["flat"])
        if condition == "not flat":
            kept &= self.values["flat"] == 0
        values = {name: np.where(kept, v, np.nan) for name, v in self.values.items()}
        place = self.regularizer, self.epsilon, self.regularization, self.field
        return Surface(values, *place)

    @property
    def count(self) -> int:
        """How many networks there are."""
        return int(np.isfinite(self.values["flat"]).sum())


def surfaces(table: Table, data: str) -> dict[str, Surface]:
    """Put the networks of a data set in order, for each regulariser and for all of them.

    Without regularization all regularisers give the same networks: together they count once.
    """
    c = columns([row for row in table if row["data"] == data])
    quantities = [*PREDICTORS, *TARGETS, "robust_accuracy_far", "flat"]
    found = {}
    for regularizer in REGULARIZERS:
        own = c["regularizer"] == regularizer
        seeds, seed = np.unique(c["seed"], return_inverse=True)
        epsilons, i = np.unique(c["epsilon"][own], return_inverse=True)
        strengths, j = np.unique(c["regularization"][own], return_inverse=True)
        values = {}
        for name in quantities:
            cube = np.full((len(seeds), len(epsilons), len(strengths)), np.nan)
            cube[seed[own], i, j] = c[name][own]
            values[name] = cube.reshape(len(seeds), -1)
        rows, fields = np.indices((len(epsilons), len(strengths))).reshape(2, -1)
        found[regularizer] = Surface(
            values,
            np.full(len(rows), regularizer),
            epsilons[rows],
            strengths[fields],
            (rows + fields) % 2,
        )
    first, *others = found.values()
    parts = [first, *(other.take(other.regularization > 0) for other in others)]
    found[EVERY] = Surface(
        {name: np.concatenate([part.values[name] for part in parts], 1) for name in first.values},
        np.concatenate([part.regularizer for part in parts]),
        np.concatenate([part.epsilon for part in parts]),
        np.concatenate([part.regularization for part in parts]),
        np.concatenate([part.field for part in parts]),
    )
    return found


class Estimate(NamedTuple):
    """A mean over seeds, its standard error over seeds, and a 95 % interval over grid points."""

    mean: float
    error: float
    low: float
    high: float


def _estimate(by_seed: Values, resampled: Values) -> Estimate | None:
    """Put together what was found for each of S seeds and for each of R resamplings."""
    known = by_seed[np.isfinite(by_seed)]
    resampled = resampled[np.isfinite(resampled)]
    if len(known) < 2 or not len(resampled):  # noqa: PLR2004 - a spread takes two
        return None
    low, high = np.quantile(resampled, [0.025, 0.975])
    error = float(known.std(ddof=1)) / math.sqrt(len(known))
    return Estimate(float(known.mean()), error, float(low), float(high))


def _mean(values: Values, axis: int) -> Values:
    """Mean of what is defined along an axis; NaN where nothing is."""
    known = np.isfinite(values)
    total = np.where(known, values, 0).sum(axis)
    count = known.sum(axis)
    return np.asarray(np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0))


def correlation(
    x: Values, y: Values, group: NDArray[Any], generator: np.random.Generator
) -> Estimate | None:
    """Rank correlation of two quantities, within groups of grid points.

    It is the mean over the groups, then over the seeds. The standard error is that over the seeds,
    each of which is a whole surface. The interval is from resampling the groups, or where there is
    a single one its points, the same for all seeds: the networks of a point stay together.

    Parameters
    ----------
    x, y : ndarray, shape (S, P)
        From S seeds at P points; NaN is left out.
    group : ndarray, shape (P,)
        Which points are compared with each other.
    generator : numpy.random.Generator
        Of the resampling.
    """
    names = np.unique(group)
    if len(names) == 1:
        found = rank_correlation(x, y)
        drawn = generator.integers(x.shape[1], size=(RESAMPLES, x.shape[1]))
        resampled = _mean(
            np.stack([rank_correlation(a[drawn], b[drawn]) for a, b in zip(x, y, strict=True)]), 0
        )
        return _estimate(found, resampled)
    each = np.stack(
        [rank_correlation(x[:, group == name], y[:, group == name]) for name in names], 1
    )
    drawn = generator.integers(len(names), size=(RESAMPLES, len(names)))
    return _estimate(_mean(each, 1), _mean(_mean(each[:, drawn], 2), 0))


SCOPES = ("surface", "fixed radius", "fixed strength")
PAIRS = (
    ("momentum_std", "fragility"),
    ("position_std", "fragility"),
    ("product", "fragility"),
    ("momentum_std", "position_std"),
    ("momentum_std", "clean_accuracy"),
    ("clean_accuracy", "robust_accuracy"),
)


def correlations(setting: Setting, tables: Mapping[str, Table]) -> Work[Table]:
    """Correlate momentum and fragility, and others, over all networks of each regulariser."""
    table: Table = []
    names = _datasets(setting)
    for index, data in enumerate(names):
        for regularizer, surface in surfaces(tables["networks"], data).items():
            yield index / len(names)
            groups = {
                "surface": np.zeros(len(surface.epsilon)),
                "fixed radius": surface.epsilon,
                "fixed strength": surface.regularization,
            }
            for condition in CONDITIONS:
                some = surface.under(condition)
                for scope in SCOPES[: 1 if regularizer == EVERY else None]:
                    for first, second in PAIRS:
                        found = correlation(
                            some.values[first],
                            some.values[second],
                            groups[scope],
                            np.random.default_rng(setting.seed),
                        )
                        if found is not None:
                            table.append(
                                {
                                    "data": data,
                                    "regularizer": regularizer,
                                    "condition": condition,
                                    "scope": scope,
                                    "first": first,
                                    "second": second,
                                    "networks": some.count,
                                    "correlation": found.mean,
                                    "correlation_error": found.error,
                                    "low": found.low,
                                    "high": found.high,
                                }
                            )
    return table


SPLITS = {
    "points": "other seeds and grid points",
    "regularizers": "the other regularisers and other seeds",
}


def held_out(surface: Surface, others: Surface, predictor: str, target: str, split: str) -> Values:
    """Predict the target for every network from networks that had no part in the fit.

    The fit is monotone, rising or falling as the networks of the fit say. They are of the other
    seeds, and of the other fields of the chessboard (split ``"points"``), or of the other
    regularisers (``"regularizers"``), then without those of strength 0, which are the same for all.

    Returns
    -------
    ndarray, shape (S, P)
        NaN where nothing can be predicted.
    """
    x, y = surface.values[predictor], surface.values[target]
    predicted = np.full_like(y, np.nan)
    for seed in range(len(y)):
        for field in (0, 1):
            if split == "points":
                from_x, from_y = (v[:, surface.field != field] for v in (x, y))
            else:
                foreign = (others.regularizer != surface.regularizer[0]) & (
                    others.regularization > 0
                )
                from_x, from_y = (others.values[name][:, foreign] for name in (predictor, target))
            from_x, from_y = (np.delete(v, seed, axis=0).ravel() for v in (from_x, from_y))
            known = np.isfinite(from_x) & np.isfinite(from_y)
            asked = (surface.field == field) & np.isfinite(x[seed]) & np.isfinite(y[seed])
            if split == "regularizers":
                asked &= surface.regularization > 0
            if known.sum() >= FEWEST and asked.any():
                rises = float(rank_correlation(from_x, from_y)) >= 0
                fit = IsotonicRegression(increasing=rises, out_of_bounds="clip")
                fit.fit(from_x[known], from_y[known])
                predicted[seed, asked] = fit.predict(x[seed, asked])
    return predicted


def explained(y: Values, predicted: Values) -> Values:
    """Share of the variance that a prediction explains, along the last axis: held-out R2.

    It is 1 less the squared misses in units of those of the mean of these very networks, and
    negative for a prediction that is worse than that mean.
    """
    known = np.isfinite(y) & np.isfinite(predicted)
    miss = np.where(known, (y - predicted) ** 2, 0).sum(-1)
    mean = _mean(np.where(known, y, np.nan), -1)[..., None]
    total = np.where(known, (y - mean) ** 2, 0).sum(-1)
    fits = (known.sum(-1) >= FEWEST) & (total > 0)
    return np.asarray(1 - np.divide(miss, total, out=np.full(total.shape, np.nan), where=fits))


def predictions(setting: Setting, tables: Mapping[str, Table]) -> Work[Table]:
    """Predict robust accuracy and fragility of held-out networks, from each number alone."""
    table: Table = []
    names = _datasets(setting)
    for index, data in enumerate(names):
        every = surfaces(tables["networks"], data)
        for regularizer in REGULARIZERS:
            for condition in CONDITIONS:
                yield index / len(names)
                surface = every[regularizer].under(condition)
                others = every[EVERY].under(condition)
                for split in SPLITS:
                    for target in TARGETS:
                        common = {
                            "data": data,
                            "regularizer": regularizer,
                            "condition": condition,
                            "split": split,
                            "target": target,
                        }
                        compared = _compared(surface, others, target, split, setting.seed)
                        table += [{**common, **row} for row in compared]
    return table


def _compared(
    surface: Surface, others: Surface, target: str, split: str, seed: int
) -> Iterator[Row]:
    """Compare all predictors on the same held-out networks, and with the product on each of them.

    The errors are over the seeds, the intervals over the grid points, resampled once for all.
    """
    y = surface.values[target]
    generator = np.random.default_rng(seed)
    drawn = generator.integers(y.shape[1], size=(RESAMPLES, y.shape[1]))
    found = {}
    for name in PREDICTORS:
        predicted = held_out(surface, others, name, target, split)
        resampled = np.stack(
            [explained(a[drawn], b[drawn]) for a, b in zip(y, predicted, strict=True)]
        )
        found[name] = predicted, explained(y, predicted), resampled
    product = found["product"]
    for name, (predicted, by_seed, resampled) in found.items():
        share = _estimate(by_seed, _mean(resampled, 0))
        lead = _estimate(product[1] - by_seed, _mean(product[2] - resampled, 0))
        if share is None or lead is None:
            continue
        miss = _mean(np.abs(y - predicted), 1)
        # A prediction that is the same for all says nothing of their order.
        order = np.nan_to_num(rank_correlation(y, predicted))
        root = math.sqrt(len(y))
        yield {
            "predictor": name,
            "networks": int(np.isfinite(predicted).sum()),
            "r2": share.mean,
            "r2_error": share.error,
            "r2_low": share.low,
            "r2_high": share.high,
            "rank_correlation": float(order.mean()),
            "rank_correlation_error": float(order.std(ddof=1)) / root,
            "miss": float(_mean(miss, 0)),
            "miss_error": float(np.nanstd(miss, ddof=1)) / root,
            "product_leads": lead.mean,
            "product_leads_error": lead.error,
            "product_leads_low": lead.low,
            "product_leads_high": lead.high,
        }


# What follows


def conclude(tables: Mapping[str, Table]) -> Conclusion:
    """Draw the conclusions of the study from its tables."""
    names = list(dict.fromkeys(str(row["data"]) for row in tables["networks"]))
    order, ahead = columns(tables["correlations"]), columns(tables["predictions"])
    every = {data: surfaces(tables["networks"], data) for data in names}
    claims = (
        trade(every),
        conjugate(columns(tables["networks"]), order),
        fragile(order),
        foretold(ahead),
        better(ahead),
    )
    figures = {}
    for data in names:
        name = "tradeoff" if data == names[0] else f"tradeoff-{data}"
        figures[name] = _figure(data, every[data], ahead)
    return Conclusion(claims, figures)


def _signed(estimate: float, error: float) -> str:
    return f"{estimate:+.2f} ± {error:.2f}"


def _listed(places: list[str]) -> str:
    # They hold commas themselves.
    return "; ".join(places) if places else "none"


def _where(data: str, regularizer: str) -> str:
    words = REGULARIZERS.get(regularizer, "all regularisers together")
    return f"{data}, {words}"


def trade(every: Mapping[str, Mapping[str, Surface]]) -> Claim:
    """Compare the most accurate network with the most robust one, chosen on the other seeds."""
    told: list[str] = []
    kept: list[str] = []
    refused: list[str] = []
    for data, found in every.items():
        for regularizer, surface in found.items():
            for name, radius in (("robust_accuracy", RADIUS), ("robust_accuracy_far", FAR)):
                gain, cost = _ends(surface.values["clean_accuracy"], surface.values[name])
                place = f"{_where(data, regularizer)}, radius {radius:g}"
                told.append(
                    f"{place}: robust accuracy {gain[0]:+.3f} ± {gain[1]:.3f}, clean accuracy "
                    f"{-cost[0]:+.3f} ± {cost[1]:.3f}"
                )
                certain = all(m > 0 and m > BEYOND_CHANCE * e for m, e in (gain, cost))
                (kept if certain else refused).append(place)
    return Claim(
        "Robustness is paid for with accuracy: the most robust network of a surface is less "
        "accurate than the most accurate one.",
        "From the most accurate to the most robust point of the surface, both chosen on the other "
        f"seeds, so that neither is the luckiest:{bullets(told)}Mean over the seeds ± its standard "
        "error.",
        _verdict(kept, refused),
        f"Beyond {BEYOND_CHANCE:.0f} standard errors for {_listed(kept)}. Not for "
        f"{_listed(refused)}."
        if kept and refused
        else "",
    )


def _ends(clean: Values, robust: Values) -> tuple[tuple[float, float], tuple[float, float]]:
    """Gain in robust and loss in clean accuracy between the ends of a front, and their errors."""
    gain, cost = [], []
    for seed in range(len(clean)):
        # On the networks that it was chosen by, the best one would look too good.
        accurate, sturdy = (
            int(np.nanargmax(_mean(np.delete(v, seed, axis=0), 0))) for v in (clean, robust)
        )
        gain.append(robust[seed, sturdy] - robust[seed, accurate])
        cost.append(clean[seed, accurate] - clean[seed, sturdy])
    root = math.sqrt(len(clean))
    first, second = (
        (float(np.nanmean(v)), float(np.nanstd(v, ddof=1)) / root) for v in (gain, cost)
    )
    return first, second


def _verdict(kept: list[str], refused: list[str]) -> Verdict:
    if not refused and kept:
        return "supported"
    return "supported under a condition" if kept else "not supported"


def _rows(c: Columns, **asked: str) -> NDArray[np.int64]:
    fits = np.ones(len(c["data"]), dtype=bool)
    for name, value in asked.items():
        fits &= c[name] == value
    return np.flatnonzero(fits)


def _certain(c: Columns, row: int, sign: int) -> bool:
    """Whether a correlation has a sign over the seeds and over the grid points."""
    mean, error = float(c["correlation"][row]), float(c["correlation_error"][row])
    nearer = min(sign * float(c["low"][row]), sign * float(c["high"][row]))
    return sign * mean > BEYOND_CHANCE * error and nearer > 0


def _with_interval(c: Columns, row: int) -> str:
    return (
        f"{_signed(float(c['correlation'][row]), float(c['correlation_error'][row]))} "
        f"[{float(c['low'][row]):+.2f}, {float(c['high'][row]):+.2f}]"
    )


INTERVALS = "Mean over the seeds ± its standard error [95 % over resampled grid points]."


def conjugate(network: Columns, c: Columns) -> Claim:
    """Judge whether momentum and position exclude each other over the networks."""
    told: list[str] = []
    kept: list[str] = []
    refused: list[str] = []
    for row in _rows(c, scope="surface", first="momentum_std", second="position_std"):
        place = _where(str(c["data"][row]), str(c["regularizer"][row]))
        if c["condition"][row] == "all":
            told.append(f"{place}: {_with_interval(c, int(row))}")
            (kept if _certain(c, int(row), -1) else refused).append(place)
    short = (network["product"] - 0.5) / np.maximum(network["product_error"], ROUNDING)
    least = float(network["product"].min())
    holds = float(short.min()) >= -BEYOND_CHANCE
    return Claim(
        "Networks that are wider in momentum are narrower in position, and no product is below "
        "1/2.",
        f"The least product of {len(short)} networks is {least:.4f}. Rank correlation of the two "
        f"spreads:{bullets(told)}{INTERVALS}",
        _verdict(kept, refused) if holds else "not supported",
        f"For {_listed(kept)}. Not for {_listed(refused)}." if holds and kept and refused else "",
    )


def fragile(c: Columns) -> Claim:
    """Judge whether momentum rises with fragility for each regulariser."""
    told: list[str] = []
    kept: list[str] = []
    refused: list[str] = []
    verdicts: dict[str, list[bool]] = {name: [] for name in CONDITIONS}
    for row in _rows(c, scope="surface", first="momentum_std", second="fragility"):
        condition = str(c["condition"][row])
        place = _where(str(c["data"][row]), str(c["regularizer"][row]))
        told.append(f"{place}, {CONDITIONS[condition]}: {_with_interval(c, int(row))}")
        certain = _certain(c, int(row), 1)
        verdicts[condition].append(certain)
        (kept if certain else refused).append(f"{place} ({CONDITIONS[condition]})")
    lines, alone = [], []
    for scope in SCOPES[1:]:
        for row in _rows(
            c, scope=scope, first="momentum_std", second="fragility", condition="not flat"
        ):
            place = f"{_where(str(c['data'][row]), str(c['regularizer'][row]))}, {scope}"
            lines.append(f"{place}: {_with_interval(c, int(row))}")
            if not _certain(c, int(row), 1):
                alone.append(place)
    verdict, condition = _verdict(kept, refused), ""
    if kept and refused:
        condition = f"For {_listed(kept)}. Not for {_listed(refused)}."
        if all(verdicts["not flat"]) and verdicts["not flat"]:
            condition = f"Without flat networks; with them not for {_listed(refused)}."
    if kept and alone:
        verdict = "supported under a condition"
        condition += f" Over whole surfaces; along one axis alone not for {_listed(alone)}."
    along = f"Along one axis alone, without flat networks:{bullets(lines)}" if lines else ""
    return Claim(
        "Over all networks, the wider the momentum, the more fragile the network.",
        f"Rank correlation of momentum and fragility (the share of correctly classified images "
        f"that the attack of radius {RADIUS:g} breaks):{bullets(told)}{along}{INTERVALS}",
        verdict,
        condition.strip(),
    )


def foretold(c: Columns) -> Claim:
    """Judge whether the product says more of held-out networks than their mean does."""
    told: list[str] = []
    kept: list[str] = []
    refused: list[str] = []
    for row in _rows(c, split="points", predictor="product"):
        place = (
            f"{_where(str(c['data'][row]), str(c['regularizer'][row]))}, "
            f"{TARGETS[str(c['target'][row])]}, {CONDITIONS[str(c['condition'][row])]}"
        )
        r2, error, low = (float(c[n][row]) for n in ("r2", "r2_error", "r2_low"))
        told.append(
            f"{place}: {_signed(r2, error)} [{low:+.2f}, {float(c['r2_high'][row]):+.2f}], off by "
            f"{float(c['miss'][row]):.3f}"
        )
        if c["target"][row] == "robust_accuracy":
            certain = low > 0 and r2 > BEYOND_CHANCE * error
            short = place.replace(f", {TARGETS['robust_accuracy']}", "")
            (kept if certain else refused).append(short)
    return Claim(
        "The uncertainty product, measured without any attack, predicts robust accuracy.",
        f"Held-out R² of a monotone fit to the networks of other seeds and other grid points (0 is "
        f"to predict the mean), and the mean absolute miss:{bullets(told)}{INTERVALS} The verdict "
        f"is on robust accuracy.",
        _verdict(kept, refused),
        f"For {_listed(kept)}. Not for {_listed(refused)}." if kept and refused else "",
    )


def better(c: Columns) -> Claim:
    """Judge whether the product predicts better than each of the simpler numbers."""
    compared, beaten, ahead = [], [], []
    for name, called in SIMPLE.items():
        rows = _rows(c, split="points", target="robust_accuracy", predictor=name)
        wins = [float(c["product_leads_low"][row]) > 0 for row in rows]
        losses = [float(c["product_leads_high"][row]) < 0 for row in rows]
        compared.append(f"than {called} in {sum(wins)} of {len(rows)}, worse in {sum(losses)}")
        if len(rows) and all(wins):
            beaten.append(called)
        if any(losses):
            ahead.append(called)
    places = max(
        len(_rows(c, split="points", target="robust_accuracy", predictor=n)) for n in SIMPLE
    )
    ranked = []
    for split, words in SPLITS.items():
        for condition, of in CONDITIONS.items():
            means = {
                called: float(np.mean(c["r2"][rows]))
                for name, called in PREDICTORS.items()
                if len(
                    rows := _rows(
                        c,
                        split=split,
                        target="robust_accuracy",
                        condition=condition,
                        predictor=name,
                    )
                )
            }
            order = sorted(means.items(), key=lambda item: -item[1])
            listed = ", ".join(f"{name} {value:.2f}" for name, value in order)
            ranked += [f"fitted on {words}, {of}: {listed}"] * bool(order)
    verdict: Verdict = "not supported"
    if len(beaten) == len(SIMPLE):
        verdict = "supported"
    elif beaten and not ahead:
        verdict = "supported under a condition"
    return Claim(
        "The product predicts robust accuracy better than simpler numbers do.",
        f"In {places} cases (data, regulariser, with and without flat networks) the product "
        f"predicts better with 95 % confidence (over resampled grid points, the same for both) "
        f"{'; '.join(compared)}. Mean held-out R² of robust accuracy:{bullets(ranked)}",
        verdict,
        f"Better than {_listed(beaten)} everywhere; than the others not with certainty."
        if verdict == "supported under a condition"
        else "",
    )


def _front(clean: Values, robust: Values) -> NDArray[np.int64]:
    """Points that no other beats in both coordinates, by growing clean accuracy."""
    front: list[int] = []
    for index in np.lexsort((-robust, -clean)).tolist():
        if np.isfinite(clean[index]) and (not front or robust[index] > robust[front[-1]]):
            front.append(index)
    return np.array(front[::-1], dtype=np.int64)


def _spread(values: Values) -> Values:
    """Tell the standard error of the mean over the seeds; NaN where there are fewer than two."""
    known = np.isfinite(values)
    count = known.sum(0)
    square = _mean((values - _mean(values, 0)) ** 2, 0)
    return np.asarray(np.sqrt(np.where(count > 1, square / np.maximum(count - 1, 1), np.nan)))


def _figure(data: str, found: Mapping[str, Surface], ahead: Columns) -> qw.Figure:
    """Draw the surfaces in both planes, momentum against fragility, and the predictors."""
    panels: list[dict[str, qw.Curve]] = [{}, {}, {}, {}]
    # Where training is short all may be flat.
    few = min(found[name].under("not flat").count for name in REGULARIZERS) < FEWEST
    condition = "all" if few else "not flat"
    # The colour between them is that of the bound.
    colors = dict(zip(REGULARIZERS, (0, 2, 4), strict=True))
    for regularizer, words in REGULARIZERS.items():
        seen = found[regularizer].under(condition).values
        of = {name: _mean(v, 0) for name, v in seen.items()}
        spread = {
            name: _spread(seen[name]) for name in ("robust_accuracy", "momentum_std", "fragility")
        }
        front = _front(of["clean_accuracy"], of["robust_accuracy"])
        pairs = (
            ("clean_accuracy", "robust_accuracy"),
            ("position_std", "momentum_std"),
            ("momentum_std", "fragility"),
            ("product", "robust_accuracy"),
        )
        for index, (x, y) in enumerate(pairs):
            panels[index][words] = qw.Curve(
                of[x], of[y], spread[y], style="dots", color=colors[regularizer]
            )
            if index < 2:  # noqa: PLR2004 - the two planes
                panels[index][f"_front of {words}"] = qw.Curve(
                    of[x][front], of[y][front], color=colors[regularizer]
                )
    hyperbola = np.geomspace(1e-3, 1e3, 2001)
    spans = [
        [np.concatenate([np.asarray(curve.x) for curve in panels[1].values()])],
        [np.concatenate([np.asarray(curve.y) for curve in panels[1].values()])],
    ]
    x_span, y_span = ((0.9 * np.nanmin(v), 1.1 * np.nanmax(v)) for v in spans)
    accuracy = qw.chart(
        panels[0],
        x="clean accuracy",
        y=f"robust accuracy at {RADIUS:g}",
        title=f"{data}, {CONDITIONS[condition]}: Pareto fronts",
    )
    plane = qw.chart(
        panels[1],
        x="position σx (input units)",
        y="momentum σp (1 / input unit)",
        title="The same in the uncertainty plane",
        log="xy",
        x_limits=(float(x_span[0]), float(x_span[1])),
        y_limits=(float(y_span[0]), float(y_span[1])),
        forbidden_below=(hyperbola, 0.5 / hyperbola),
    )
    momentum = qw.chart(
        panels[2],
        x="momentum σp (1 / input unit)",
        y=f"fragility at {RADIUS:g}",
        title="Momentum and fragility",
        log="x",
    )
    product = qw.chart(
        panels[3],
        x="product σx σp",
        y=f"robust accuracy at {RADIUS:g}",
        title="Product and robust accuracy",
    )
    shares, lowest = {}, 0.0
    for shift, (regularizer, words) in zip((-0.2, 0.0, 0.2), REGULARIZERS.items(), strict=True):
        place, r2, error = [], [], []
        for index, name in enumerate(PREDICTORS):
            for row in _rows(
                ahead,
                data=data,
                regularizer=regularizer,
                condition=condition,
                split="points",
                target="robust_accuracy",
                predictor=name,
            ):
                place.append(index + shift)
                r2.append(float(ahead["r2"][row]))
                error.append(float(ahead["r2_error"][row]))
        if place:
            shares[words] = qw.Curve(place, r2, error, style="dots", color=colors[regularizer])
            lowest = min(lowest, float(np.min(np.subtract(r2, error))))
    four = qw.beside(accuracy, plane, momentum, product)
    if not shares:
        return four
    # The longest is too long for its place.
    names = [words.replace("gradient correlation", "correlation") for words in PREDICTORS.values()]
    shares["_the mean"] = qw.Curve([-0.5, len(names) - 0.5], [0, 0], style="dashed", color=3)
    wide = qw.chart(
        shares,
        x="predictor, measured without an attack",
        y="held-out R²",
        title=f"How well each alone predicts robust accuracy, {CONDITIONS[condition]}",
        x_names=names,
        y_limits=(lowest - 0.05, 1.05),
        width=four.width,
        height=0.6 * qw.chart(panels[0], x="", y="").height,
    )
    return qw.beside(four, wide, columns=1)


def _page(setting: Setting) -> Work[qw.Sweep]:
    return _surface(setting, _datasets(setting)[0], "gradient", setting.seed)


STUDY = Study(
    name="tradeoff",
    title="The trade-off: accuracy, robustness, uncertainty, and what foretells robustness",
    source='Zhang et al., "On the uncertainty principle of neural networks", arXiv 2205.01493, '
    "carried further.",
    cost="about an hour and a half on two cores (digits and MNIST, whose files are those of --root "
    "or downloaded once); --quick about five minutes, digits alone",
    parts={"networks": networks},
    analyses={"correlations": correlations, "predictions": predictions},
    conclude=conclude,
    networks=_page,
)
