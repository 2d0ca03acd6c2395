"""Study: what training does to accuracy, robustness and the packets of four kinds of networks.

After Zhang et al., "On the uncertainty principle of neural networks" (arXiv 2205.01493): clean and
adversarially trained networks on MNIST and CIFAR-10, followed epoch by epoch.
"""

from __future__ import annotations

import itertools
import shutil
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

import qwidgets as qw
from qwidgets.studies.study import (
    BEYOND_CHANCE,
    Claim,
    Conclusion,
    Study,
    aside,
    columns,
    kept,
    measured,
    trained,
    within,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray

    from qwidgets.studies.study import Columns, Row, Setting, Table, Verdict, Work

RADII = {"mnist": 0.1, "cifar10": 8 / 255, "digits": 0.1}
NAMES = {"mnist": "MNIST", "cifar10": "CIFAR-10", "digits": "digits"}
MODELS = ("mlp", "conv", "resnet", "attention")
STEPS = 4
"""Of the attack, in training; each is a quarter of the radius long, as in the paper."""
TRAININGS = ("clean", "adversarial")
HALF = 0.5


class Plan(NamedTuple):
    """How much a size asks for; see `qwidgets.sweep`."""

    epochs: int
    train_size: int
    test_size: int
    probe_images: int
    labels: tuple[int, ...]
    samples: int
    seeds: int


def plan(setting: Setting) -> Plan:
    """Choose how much to do."""
    return setting.choose(
        smallest=Plan(2, 200, 60, 3, (8,), 256, 2),
        quick=Plan(4, 1000, 200, 3, (3, 8), 512, 3),
        full=Plan(20, 10_000, 1000, 7, tuple(range(10)), 2048, 3),
    )


def _data(setting: Setting) -> tuple[str, ...]:
    return ("digits",) if setting.size == "smallest" else ("mnist", "cifar10")


def _part(model: str) -> Callable[[Setting], Work[Table]]:
    """Follow a kind of network on all data and with every seed."""

    def follow(setting: Setting) -> Work[Table]:
        table: Table = []
        seeds = range(setting.seed, setting.seed + plan(setting).seeds)
        runs = list(itertools.product(_data(setting), seeds))
        for index, (data, seed) in enumerate(runs):
            work = _followed(setting, data, model, seed)
            table += yield from within(work, index, len(runs))
        return table

    return follow


def _arguments(setting: Setting, data: str, model: str, seed: int) -> dict[str, Any]:
    chosen = plan(setting)
    return {
        "data": data,
        "model": model,
        "epsilon": [0, RADII[data]],
        "regularization": [0],
        "epochs": chosen.epochs,
        "seed": seed,
        "root": setting.root,
        "train_size": chosen.train_size,
        "test_size": chosen.test_size,
        "attack_steps": STEPS,
        "attack_epsilon": [0, RADII[data]],
        "probe_images": chosen.probe_images,
        # Of fewer classes, and at every epoch: done here.
        "detail": None,
        "store": setting.folder / f"{data}-{model}-{seed}.sweep",
    }


def _followed(setting: Setting, data: str, model: str, seed: int) -> Work[Table]:
    """Train and measure with one seed; what is measured of an epoch is kept."""
    try:
        return (yield from _followed_on(setting, data, model, seed))
    except _LostError:
        # A sweep has the weights of its newest epoch only: begin again.
        shutil.rmtree(_arguments(setting, data, model, seed)["store"])
        return (yield from _followed_on(setting, data, model, seed))


class _LostError(Exception):
    """What was measured of an epoch is not there any more, and neither are its networks."""


def _lost() -> Work[Table]:
    yield 0.0
    raise _LostError


def _followed_on(setting: Setting, data: str, model: str, seed: int) -> Work[Table]:
    arguments = _arguments(setting, data, model, seed)
    epochs: list[Table] = []
    for state in qw.iterate_sweep(**arguments):
        yield state.fraction
        if state.sweep is None:
            continue
        for epoch in range(len(epochs), state.epoch + 1):
            newest = epoch == state.epoch
            work = _measured(state.sweep, setting, model, seed) if newest else _lost()
            name = f"training-{data}-{model}-{seed}-{epoch}"
            epochs.append((yield from aside(kept(setting, name, work), state.fraction)))
    return [row for table in epochs for row in table]


def _measured(sweep: qw.Sweep, setting: Setting, model: str, seed: int) -> Work[Table]:
    """Measure both networks after the newest epoch, class by class."""
    chosen, data, epoch = plan(setting), sweep.data, int(sweep.dataset.epoch[-1])
    radius = RADII[data.name]
    cube = sweep.dataset.isel(regularization=0, epoch=-1)
    table: Table = []
    for index, training in enumerate(TRAININGS):
        network = sweep.model(epsilon=(0.0, radius)[index], regularization=0)
        at = cube.isel(epsilon=index)
        for step, label in enumerate(chosen.labels):
            some = data.test_labels == label
            images = data.test_inputs[some]
            work = measured(
                qw.packet_loss(network, label, data.input_shape),
                qw.Neighborhood(images.flatten(1), radius, clip=data.value_range),
                samples=chosen.samples,
                seed=seed,
            )
            u = yield from within(work, index * len(chosen.labels) + step, 2 * len(chosen.labels))
            accuracy = qw.robust_accuracy(
                network,
                images,
                data.test_labels[some],
                [0, radius],
                steps=at.attrs["measurement_attack_steps"],
                value_range=data.value_range,
                seed=seed,
            )
            row: Row = {
                "data": data.name,
                "model": model,
                "training": training,
                "seed": seed,
                "epoch": epoch,
                "label": label,
            }
            found: dict[str, tuple[Any, Any]] = {
                "clean_accuracy": (at.clean_accuracy, at.clean_accuracy_error),
                "robust_accuracy": (at.robust_accuracy[-1], at.robust_accuracy_error[-1]),
            }
            for name, share in zip(("class_clean", "class_robust"), accuracy, strict=True):
                error = np.sqrt(share * (1 - share) / len(images))
                found[f"{name}_accuracy"] = (share, error)
            for name in ("position_std", "momentum_std", "uncertainty_product"):
                found[name] = (at[name][label], at[f"{name}_error"][label])
            error = u.standard_error
            found["effective_position"] = (u.total_position_std, error["total_position_std"])
            found["effective_momentum"] = (u.total_momentum_std, error["total_momentum_std"])
            # Neighbouring pixels share their samples: sums of their errors are the most that the
            # errors of the sums can be.
            found["bound"] = (u.bound.sum(), np.sum(error["bound"]))
            found["boundary"] = (u.boundary.mean(), np.mean(error["boundary"]))
            for name, (value, uncertain) in found.items():
                row[name], row[f"{name}_error"] = float(value), float(uncertain)
            table.append(row)
    return table


def conclude(tables: Mapping[str, Table]) -> Conclusion:
    """Draw the conclusions of the study from its tables."""
    c = columns([row for table in tables.values() for row in table])
    claims = (
        _trend(
            c,
            "clean_accuracy",
            +1,
            "As training goes on, accuracy rises.",
            "clean accuracy of all test images",
        ),
        _trend(
            c,
            "momentum_std",
            +1,
            "As training goes on, the momentum spreads.",
            "momentum spread along the attack, 1 / input unit",
        ),
        _trend(
            c,
            "position_std",
            -1,
            "As training goes on, the position narrows.",
            "position spread along the attack, input units",
        ),
        _trend(
            c,
            "effective_momentum",
            +1,
            "The neighbourhood of a class, too, gains momentum with training.",
            "effective radius Dp of the neighbourhood, 1 / input unit",
        ),
        _trend(
            c,
            "fragility",
            +1,
            "As training goes on, robustness falls.",
            "share of the correctly classified test images that the attack breaks, from the first "
            "epoch on",
            first=1,
        ),
        _adversarial(c),
        _bounds(c),
    )
    return Conclusion(claims, _figures(c))


class Group(NamedTuple):
    """A kind of network, with every seed."""

    data: str
    model: str
    training: str

    def __str__(self) -> str:
        """Name it."""
        return f"{NAMES.get(self.data, self.data)} {self.model}, {self.training}"


def _groups(c: Columns) -> Iterator[Group]:
    seen = zip(c["data"].tolist(), c["model"].tolist(), c["training"].tolist(), strict=True)
    for group in dict.fromkeys(seen):
        yield Group(*group)


def by_epoch(c: Columns, group: Group, name: str) -> NDArray[np.float64]:
    """Return the mean of a quantity over the classes, (seeds, epochs)."""
    if name == "fragility":
        share = by_epoch(c, group, "robust_accuracy") / by_epoch(c, group, "clean_accuracy")
        return np.asarray(1 - share)
    inside = np.logical_and.reduce([c[key] == value for key, value in group._asdict().items()])
    seeds, epochs = (np.unique(c[key][inside]) for key in ("seed", "epoch"))
    return np.array(
        [
            [c[name][inside & (c["seed"] == s) & (c["epoch"] == e)].mean() for e in epochs]
            for s in seeds
        ]
    )


def _over_seeds(values: NDArray[np.float64]) -> tuple[float, float]:
    """Mean over the seeds, and its standard error."""
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))


def _trend(c: Columns, name: str, sign: int, text: str, words: str, *, first: int = 0) -> Claim:
    """Judge whether a quantity changes from an epoch to the last as claimed, kind by kind.

    It does where it does with every seed, by more than two standard errors on the average; their
    spread over the seeds is the standard error.
    """
    told: list[str] = []
    holds: list[Group] = []
    fails: list[Group] = []
    for group in _groups(c):
        values = by_epoch(c, group, name)
        change = values[:, -1] - values[:, first]
        mean, error = _over_seeds(change)
        start, end = values[:, first].mean(), values[:, -1].mean()
        told.append(f"{group}: {start:.3g} to {end:.3g}, by {mean:+.3g} ± {error:.1g}")
        as_claimed = bool((sign * change > 0).all()) and sign * mean > 2 * error
        (holds if as_claimed else fails).append(group)
    return Claim(
        text,
        f"{words[0].upper()}{words[1:]}, first to last epoch, mean over the seeds: "
        + "; ".join(told)
        + ".",
        *_verdict(holds, fails),
    )


def _verdict(holds: list[Group], fails: list[Group]) -> tuple[Verdict, str]:
    if not fails:
        return "supported", ""
    if not holds:
        return "not supported", ""
    if not {group.training for group in holds} & {group.training for group in fails}:
        return "supported under a condition", f"Of {holds[0].training} training only."
    kinds = "; ".join(map(str, holds))
    return "supported under a condition", f"Beyond the seeds' spread for {kinds}; not for the rest."


def _adversarial(c: Columns) -> Claim:
    """Compare both trainings at the last epoch, seed by seed."""
    told: list[str] = []
    holds: list[Group] = []
    fails: list[Group] = []
    for group in _groups(c):
        if group.training != "adversarial":
            continue
        clean = group._replace(training="clean")
        as_claimed, parts = True, []
        for name, words, sign in (
            ("momentum_std", "σp", -1),
            ("position_std", "σx", +1),
            ("fragility", "fragility", -1),
        ):
            apart = by_epoch(c, group, name)[:, -1] - by_epoch(c, clean, name)[:, -1]
            mean, error = _over_seeds(apart)
            parts.append(f"{words} {mean:+.3g} ± {error:.1g}")
            as_claimed &= bool((sign * apart > 0).all()) and sign * mean > 2 * error
        told.append(f"{NAMES.get(group.data, group.data)} {group.model}: {', '.join(parts)}")
        (holds if as_claimed else fails).append(group)
    verdict, _ = _verdict(holds, fails)
    kinds = "; ".join(f"{NAMES.get(group.data, group.data)} {group.model}" for group in holds)
    return Claim(
        "Adversarial training does the reverse: less momentum, more position, less fragile.",
        f"Against clean training after the last epoch: {'; '.join(told)}.",
        verdict,
        "" if verdict != "supported under a condition" else f"All three for {kinds} only.",
    )


def _bounds(c: Columns) -> Claim:
    product = c["effective_position"] * c["effective_momentum"]
    error = np.hypot(
        c["effective_position_error"] * c["effective_momentum"],
        c["effective_momentum_error"] * c["effective_position"],
    )
    spare = product - c["bound"] + BEYOND_CHANCE * (error + c["bound_error"])
    along = c["uncertainty_product"]
    return Claim(
        "The uncertainty relation holds, for every network, class and epoch.",
        f"{len(product)} neighbourhoods: Δx Δp is between {(product / c['bound']).min():.3g} and "
        f"{(product / c['bound']).max():.3g} times its bound, B from {c['boundary'].min():.3g} to "
        f"{c['boundary'].max():.3g}. Along the attack, where the bound is 1/2, the least median "
        f"product is {along.min():.6f}.",
        # The window makes 1/2 exact: no standard error is needed to meet it.
        "supported" if (spare >= 0).all() and (along >= HALF).all() else "not supported",
    )


def _figures(c: Columns) -> dict[str, qw.Figure]:
    figures = {}
    for data in np.unique(c["data"]).tolist():
        charts = []
        for model in dict.fromkeys(c["model"][c["data"] == data].tolist()):
            charts += [
                _chart(
                    c,
                    data,
                    model,
                    {"clean_accuracy": "clean", "robust_accuracy": "robust"},
                    "accuracy",
                    "accuracy",
                ),
                _chart(
                    c,
                    data,
                    model,
                    {"momentum_std": ""},
                    "momentum σp (1 / input unit)",
                    "momentum",
                ),
                _chart(
                    c, data, model, {"position_std": ""}, "position σx (input units)", "position"
                ),
            ]
        figures[f"training-{data}"] = qw.beside(*charts, columns=3)
    return figures


def _chart(
    c: Columns, data: str, model: str, names: Mapping[str, str], y: str, title: str
) -> qw.Figure:
    """Draw means over classes and seeds, with the standard error over the seeds."""
    curves = {}
    for name, words in names.items():
        for training in TRAININGS:
            values = by_epoch(c, Group(data, model, training), name)
            mean = values.mean(0)
            error = values.std(0, ddof=1) / np.sqrt(len(values))
            style: Literal["line", "dashed"] = "line" if training == "clean" else "dashed"
            key = f"{words}, {training[:5]}." if words else f"{training} training"
            curves[key] = qw.Curve(np.arange(len(mean)), mean, error, style=style)
    return qw.chart(
        curves,
        x="epoch",
        y=y,
        title=f"{NAMES.get(data, data)} {model}: {title}",
        y_limits=(0, 1) if title == "accuracy" else None,
        width=62,
        font_size=6,
    )


def _page(setting: Setting) -> Work[qw.Sweep]:
    return trained(**_arguments(setting, _data(setting)[0], MODELS[1], setting.seed))


STUDY = Study(
    name="training",
    title="Training: accuracy, robustness and the packets of four kinds of networks",
    source='"On the uncertainty principle of neural networks" (arXiv 2205.01493), the main paper.',
    cost="about six hours on two cores; --quick about eight minutes",
    parts={model: _part(model) for model in MODELS},
    conclude=conclude,
    networks=_page,
)
