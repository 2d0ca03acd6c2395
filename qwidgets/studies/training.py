"""Study: what becomes of accuracy, robustness, position and momentum while a network trains.

After "On the uncertainty principle of neural networks" (arXiv 2205.01493): clean networks, and
networks trained on attacks of four steps, each a quarter of the radius long.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.stats import t

import qwidgets as qw
from qwidgets.studies.study import (
    BEYOND_CHANCE,
    HALF,
    Claim,
    Conclusion,
    Study,
    columns,
    finish,
    over_seeds,
    rank_correlation,
    trained,
    within,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import xarray as xr
    from numpy.typing import NDArray

    from qwidgets.studies.study import Columns, Row, Setting, Table, Verdict, Work

RADII = {"mnist": 0.1, "cifar10": 8 / 255, "digits": 0.1}
"""Of the attack in training and in the measurement, input units."""
ATTACK_STEPS = 4
ROUNDING = 1e-3  # of products measured in single precision
CONFIDENCE = 0.95
SIGMAS = 1.96  # the same confidence, of a normal distribution

_TITLES = {"mnist": "MNIST", "cifar10": "CIFAR-10", "digits": "digits"}
_KINDS = ("clean", "adversarial")
_CHART = 66.0  # mm
# Along the attack, and of the neighbourhood of a class.
_SPREADS = ("position_std", "momentum_std", "uncertainty_product")
_OF_A_CLASS = ("position_std", "momentum_std", "bound", "boundary")


class Trend(NamedTuple):
    """A quantity that is said to rise (+1) or to fall (-1) as training goes on."""

    quantity: str
    sign: int
    words: str


TRENDS = (
    Trend("clean_accuracy", +1, "the clean accuracy rises"),
    Trend("robust_accuracy", -1, "the robust accuracy falls"),
    Trend("momentum_std", +1, "the momentum along the attack rises"),
    Trend("position_std", -1, "the position along the attack narrows"),
    Trend("Dp", +1, "the momentum radius Dp of the classes' neighbourhoods rises"),
    Trend("Dx", -1, "the position radius Dx of the classes' neighbourhoods shrinks"),
)


class Case(NamedTuple):
    """What is trained, clean and adversarially, from one seed."""

    data: str
    model: str
    seed: int

    def store(self, setting: Setting) -> Path:
        """Return where its sweep is kept."""
        return setting.folder / f"{self.data}-{self.model}-{self.seed}.sweep"


def cases(setting: Setting) -> list[Case]:
    """List what is trained, one data set after the other."""
    every = ("mlp", "conv", "resnet", "attention")
    models: dict[str, tuple[str, ...]] = setting.choose(
        smallest={"digits": every[:2]},
        # Attention on CIFAR-10 would take a third of the time of all others together.
        quick={"mnist": every, "cifar10": every[:3]},
        full={"mnist": every, "cifar10": every},
    )
    seeds = range(setting.seed, setting.seed + setting.choose(smallest=2, quick=3, full=5))
    return [Case(data, model, seed) for data in models for model in models[data] for seed in seeds]


def _trained(setting: Setting, case: Case, data: qw.Dataset) -> Work[qw.Sweep]:
    radius = RADII[case.data]
    return trained(
        data=data,
        model=case.model,
        epsilon=[0, radius],
        regularization=[0],
        epochs=setting.choose(smallest=2, quick=4, full=20),
        seed=case.seed,
        attack_steps=ATTACK_STEPS,
        attack_step=1,
        warm_up=0,
        attack_epsilon=[0, radius],
        probe_images=setting.choose(smallest=3, quick=3, full=7),
        detail="every-epoch",
        detail_samples=setting.choose(smallest=128, quick=256, full=1024),
        store=case.store(setting),
    )


def classes(setting: Setting) -> Work[Table]:
    """Train all networks, and tell of every class at every epoch.

    The errors of accuracies are binomial, those of medians along the attack Maritz and Jarrett's,
    those of the neighbourhoods from independent replicates. ``Dx``, ``Dp``, ``bound`` (the sum of
    ``|C|`` over the pixels) and ``boundary`` (the mean of B) are of the class's neighbourhood.
    """
    table: Table = []
    every = cases(setting)
    data: dict[str, qw.Dataset] = {}
    for index, case in enumerate(every):
        if case.data not in data:
            data = {case.data: _loaded(case.data, setting)}
        work = _trained(setting, case, data[case.data])
        sweep = yield from within(work, index, len(every))
        for kind, epoch, at in _states(sweep):
            table += [
                {**_place(case, kind, epoch), "label": label, **_of_class(at.isel(label=label))}
                for label in range(at.sizes["label"])
            ]
    return table


def _loaded(name: str, setting: Setting) -> qw.Dataset:
    return qw.load_data(
        name,
        root=None if name == "digits" else setting.root,
        train_size=setting.choose(smallest=100, quick=1_000, full=10_000),
        test_size=setting.choose(smallest=50, quick=300, full=1_000),
    )


def _states(sweep: qw.Sweep) -> Iterator[tuple[str, int, xr.Dataset]]:
    for row, kind in enumerate(_KINDS):
        for epoch in range(sweep.dataset.sizes["epoch"]):
            yield kind, epoch, sweep.dataset.isel(epsilon=row, regularization=0, epoch=epoch)


def _place(case: Case, kind: str, epoch: int) -> Row:
    return {
        "data": case.data,
        "model": case.model,
        "training": kind,
        "seed": case.seed,
        "epoch": epoch,
    }


def _of_class(at: xr.Dataset) -> Row:
    row: Row = {}
    for place, name in enumerate(("clean_accuracy", "robust_accuracy")):
        row[name] = float(at.label_accuracy[place])
        row[f"{name}_error"] = float(at.label_accuracy_error[place])
    for name in _SPREADS:
        row[name], row[f"{name}_error"] = float(at[name]), float(at[f"{name}_error"])
    for name, short in zip(_OF_A_CLASS, ("Dx", "Dp", "bound", "boundary"), strict=True):
        row[short] = float(at[f"neighborhood_{name}"])
        row[f"{short}_error"] = float(at[f"neighborhood_{name}_error"])
    return row


def networks(setting: Setting) -> Work[Table]:
    """Tell of every network at every epoch: accuracies of all images, means over the classes."""
    table: Table = []
    every = cases(setting)
    for index, case in enumerate(every):
        yield index / len(every)
        for kind, epoch, at in _states(qw.open_sweep(case.store(setting))):
            row = _place(case, kind, epoch)
            for place, name in enumerate(("clean_accuracy", "robust_accuracy")):
                row[name] = float(at.robust_accuracy[place])
                row[f"{name}_error"] = float(at.robust_accuracy_error[place])
            one_each = columns([_of_class(at.isel(label=i)) for i in range(at.sizes["label"])])
            for name in (*_SPREADS, "Dx", "Dp", "bound", "boundary"):
                error = one_each[f"{name}_error"]
                row[name] = float(one_each[name].mean())
                row[f"{name}_error"] = float(np.sqrt((error**2).sum()) / len(error))
            table.append(row)
    return table


def trends(setting: Setting) -> Work[Table]:
    """Tell how each quantity went with the epochs, judged by what differs between the seeds.

    For each seed the rank correlation with the epoch, from epoch 1 on, is one number;
    ``correlation`` is their mean, its error that of the mean, and ``low`` to ``high`` Student's
    interval of 95 %, or the one that ranks without any trend would have, if that is wider.
    ``first`` and ``last`` are means over the seeds at epoch 1 and at the end.
    """
    yield 0.0
    return judged(columns(finish(networks(setting))))


def judged(c: Columns) -> Table:
    """Make the rows of `trends` from the columns of `networks`."""
    table: Table = []
    groups = list(dict.fromkeys(zip(c["data"], c["model"], c["training"], strict=True)))
    for data, model, kind in groups:
        here = (c["data"] == data) & (c["model"] == model) & (c["training"] == kind)
        for quantity, sign, _ in TRENDS:
            curves = _by_seed(c, here & (c["epoch"] >= 1), quantity)
            # What does not change has no trend.
            found = np.nan_to_num(rank_correlation(np.arange(curves.shape[1]), curves, fewest=2))
            mean, error, low, high = interval(found)
            # Few ranks often agree to the last: no interval is narrower than that of chance alone.
            chance = SIGMAS / math.sqrt(len(found) * max(curves.shape[1] - 1, 1))
            low, high = min(low, mean - chance), max(high, mean + chance)
            change = curves[:, -1] - curves[:, 0]
            table.append(
                {
                    "data": str(data),
                    "model": str(model),
                    "training": str(kind),
                    "quantity": quantity,
                    "claimed": sign,
                    "seeds": len(found),
                    "correlation": mean,
                    "correlation_error": error,
                    "low": low,
                    "high": high,
                    "first": float(curves[:, 0].mean()),
                    "first_error": interval(curves[:, 0]).error,
                    "last": float(curves[:, -1].mean()),
                    "last_error": interval(curves[:, -1]).error,
                    "change": float(change.mean()),
                    "change_error": interval(change).error,
                }
            )
    return table


def _by_seed(c: Columns, here: NDArray[np.bool_], quantity: str) -> NDArray[np.float64]:
    """Values over (seed, epoch)."""
    seeds = np.unique(c["seed"][here])
    return np.stack([c[quantity][here & (c["seed"] == seed)] for seed in seeds])


class Interval(NamedTuple):
    """A mean over seeds, its standard error, and Student's interval."""

    mean: float
    error: float
    low: float
    high: float


def interval(values: NDArray[np.float64]) -> Interval:
    """Estimate a mean from one number a seed."""
    mean, error = over_seeds(values)
    reach = float(t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)) * error
    return Interval(mean, error, mean - reach, mean + reach)


def conclude(tables: Mapping[str, Table]) -> Conclusion:
    """Draw the conclusions of the study from its tables."""
    found, c = columns(tables["trends"]), columns(tables["networks"])
    claims = [
        _trend(trend, data, found)
        for data in dict.fromkeys(found["data"].tolist())
        for trend in TRENDS
    ]
    return Conclusion(
        (*claims, _against_attacks(c), _bounds(columns(tables["classes"]))), _figures(c)
    )


def outcome(low: float, high: float, sign: int) -> str:
    """Say what an interval of rank correlations says of a claimed sign."""
    if low * sign > 0 and high * sign > 0:
        return "as claimed"
    if low * sign < 0 and high * sign < 0:
        return "the reverse"
    return "open"


def _trend(trend: Trend, data: str, c: Columns) -> Claim:
    here = np.flatnonzero((c["data"] == data) & (c["quantity"] == trend.quantity))
    lines = [
        "| network | training | at epoch 1 | at the end | rank correlation with the epoch | |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    outcomes = {}
    for i in here.tolist():
        says = outcome(c["low"][i], c["high"][i], trend.sign)
        outcomes[f"{c['model'][i]}, {c['training'][i]}"] = says
        low, high = (min(max(float(c[end][i]), -1), 1) for end in ("low", "high"))
        lines.append(
            f"| {c['model'][i]} | {c['training'][i]} "
            f"| {c['first'][i]:.3g} ± {c['first_error'][i]:.1g} "
            f"| {c['last'][i]:.3g} ± {c['last_error'][i]:.1g} "
            f"| {c['correlation'][i]:+.2f} ± {c['correlation_error'][i]:.2f} ({low:+.2f} to "
            f"{high:+.2f}) | {says} |"
        )
    verdict, condition = _verdict(outcomes)
    seeds = int(c["seeds"][here[0]])
    return Claim(
        f"{_TITLES[data]}: as training goes on, {trend.words}.",
        f"{seeds} seeds from epoch 1 on; ± is the standard error over the seeds, in brackets "
        f"Student's interval of {100 * CONFIDENCE:.0f} %, no narrower than chance makes it.\n\n"
        + "\n".join(lines),
        verdict,
        condition,
    )


def _verdict(outcomes: Mapping[str, str]) -> tuple[Verdict, str]:
    as_claimed = [name for name, says in outcomes.items() if says == "as claimed"]
    reverse = [name for name, says in outcomes.items() if says == "the reverse"]
    against = f" The reverse: {'; '.join(reverse)}." if reverse else ""
    if len(as_claimed) == len(outcomes):
        return "supported", ""
    if not as_claimed:
        return "not supported", against.strip() or "No interval excludes the reverse."
    clean = {name for name in outcomes if name.endswith("clean")}
    if set(as_claimed) == clean:
        return "supported under a condition", f"For clean training alone.{against}"
    return "supported under a condition", f"For {'; '.join(as_claimed)}.{against}"


def _against_attacks(c: Columns) -> Claim:
    """Compare adversarial training with clean training of the same seed, at the end."""
    last = c["epoch"] == c["epoch"].max()
    lines = [
        "| data | network | robust accuracy | momentum σp | position σx | Dp |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    outcomes = {}
    for data, model in dict.fromkeys(zip(c["data"].tolist(), c["model"].tolist(), strict=True)):
        here = last & (c["data"] == data) & (c["model"] == model)
        entries, agree = [], []
        for name, sign in (
            ("robust_accuracy", 1),
            ("momentum_std", -1),
            ("position_std", 1),
            ("Dp", -1),
        ):
            clean, hard = (
                _by_seed(c, here & (c["training"] == kind), name)[:, -1] for kind in _KINDS
            )
            found = interval(hard - clean)
            says = outcome(found.low, found.high, sign)
            agree.append(says)
            entries.append(f"{found.mean:+.3f} ± {found.error:.3f} ({says})")
        lines.append(f"| {_TITLES[data]} | {model} | {' | '.join(entries)} |")
        whole = all(says == "as claimed" for says in agree)
        outcomes[f"{_TITLES[data]}, {model}"] = "as claimed" if whole else "open"
    verdict, condition = _verdict(outcomes)
    return Claim(
        "Adversarial training trades momentum for position: more robust, less momentum, wider "
        "position.",
        "Adversarial minus clean at the end, of the same seed and weights at the start; mean over "
        "the seeds ± its standard error.\n\n" + "\n".join(lines),
        verdict,
        condition,
    )


def _bounds(c: Columns) -> Claim:
    # A network whose loss vanishes in a neighbourhood has no packet there.
    there = np.isfinite(c["uncertainty_product"] * c["Dx"])
    c = {name: values[there] for name, values in c.items()}
    along = c["uncertainty_product"]
    product = c["Dx"] * c["Dp"]
    error = product * np.hypot(c["Dx_error"] / c["Dx"], c["Dp_error"] / c["Dp"])
    margin = (product - c["bound"]) / np.maximum(np.hypot(error, c["bound_error"]), 1e-12)
    least = float(along.min())
    holds = least >= HALF * (1 - ROUNDING) and bool((margin >= -BEYOND_CHANCE).all())
    return Claim(
        "σx σp ≥ 1/2 along the attack, and Dx Dp ≥ Σ|C| in the neighbourhood of every class, at "
        "every epoch.",
        f"{len(along)} classes of networks and epochs: the least median product along the attack "
        f"is {least:.6f}; Dx Dp is {float((product / c['bound']).min()):.2f} times the bound or "
        f"more, nowhere below it by more than {max(0.0, -float(margin.min())):.1f} standard "
        f"errors. The boundary term B is {float(c['boundary'].min()):.3f} to "
        f"{float(c['boundary'].max()):.3f}: the papers' d/2 is no bound there.",
        "supported" if holds else "not supported",
    )


def _figures(c: Columns) -> dict[str, qw.Figure]:
    return {name: _figure(name, c) for name in dict.fromkeys(c["data"].tolist())}


def _figure(data: str, c: Columns) -> qw.Figure:
    """Draw a row for each network: accuracies, spreads along the attack, Dp of the classes."""
    charts = []
    for model in dict.fromkeys(c["model"][c["data"] == data].tolist()):
        title = f"{_TITLES[data]}, {model}"
        here = (c["data"] == data) & (c["model"] == model)
        epochs = np.unique(c["epoch"][here])

        def curve(
            kind: str,
            name: str,
            here: NDArray[np.bool_] = here,
            epochs: NDArray[np.int64] = epochs,
        ) -> qw.Curve:
            values = _by_seed(c, here & (c["training"] == kind), name)
            error = values.std(0, ddof=1) / math.sqrt(len(values))
            return qw.Curve(epochs, values.mean(0), error)

        charts += [
            qw.chart(
                {kind: curve(kind, name) for kind in _KINDS},
                x="epoch",
                y=words,
                title=f"{title}: {what}",
                y_limits=(-0.02, 1.02) if "accuracy" in name else None,
                width=_CHART,
            )
            for name, words, what in (
                ("clean_accuracy", "clean accuracy", "accuracy"),
                ("robust_accuracy", "robust accuracy", "robustness"),
                ("position_std", "σx (input units)", "position"),
                ("momentum_std", "σp (1 / input unit)", "momentum"),
                ("Dp", "Dp (1 / input unit)", "neighbourhoods"),
            )
        ]
    return qw.beside(*charts, columns=5)


def _page(setting: Setting) -> Work[qw.Sweep]:
    yield 0.0
    every = cases(setting)
    conv = next(case for case in every if case.model == "conv")
    # With the images, which the lens of the page shows.
    return qw.open_sweep(conv.store(setting), data=_loaded(conv.data, setting))


STUDY = Study(
    name="training",
    title="Training: accuracy, robustness, position and momentum, epoch by epoch",
    source='"On the uncertainty principle of neural networks", arXiv 2205.01493. Attacks in '
    "training take 4 steps of a quarter of the radius, 0.1 on MNIST and 8/255 on CIFAR-10, as in "
    "the paper; robust accuracy is measured with 5 steps of half the radius, a stronger attack.",
    cost="a night, about 8 hours on two cores (4 networks, clean and adversarial, 2 data sets, 5 "
    "seeds, 20 epochs of 10,000 images); --quick about seven minutes",
    parts={"classes": classes, "networks": networks, "trends": trends},
    conclude=conclude,
    networks=_page,
    data=("mnist", "cifar10"),
)
