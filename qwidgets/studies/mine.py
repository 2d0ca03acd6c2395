"""Study: the claims that need no training, on a network of your own."""

from __future__ import annotations

import copy
import hashlib
import math
import time
import warnings
from typing import TYPE_CHECKING, NamedTuple, final

import numpy as np
import torch
from scipy.stats import norm, spearmanr
from scipy.stats import t as student

import qwidgets as qw
from qwidgets.studies.study import (
    BEYOND_CHANCE,
    Claim,
    Conclusion,
    Study,
    columns,
    kept,
    measured,
    within,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray
    from torch import Tensor, nn

    from qwidgets.studies.study import Columns, Row, Setting, Table, Verdict, Work

HALF = 0.5
# Of a section, whose loss a network may compute in single precision.
QUADRATURE = 1e-3
CONFIDENCE = 0.95
# Radii of attacks, in units of the radius of the neighborhoods.
SHARES = (0, 0.125, 0.25, 0.5, 0.75, 1, 1.5, 2, 3)
# Attacks look this many units far for the radius that breaks an image, by halving.
FARTHEST = 4
HALVINGS = 8
# A rank correlation of fewer has no interval.
FEWEST = 4
_RADII = {"digits": 0.1, "mnist": 0.1, "cifar10": 8 / 255, "moons": 0.2}


class Plan(NamedTuple):
    """How much a size asks for.

    Test images, images with a section over all classes, evaluations of a neighborhood.
    """

    test_size: int
    images: int
    samples: int


PLANS = {
    "smallest": Plan(60, 20, 256),
    "quick": Plan(500, 120, 2048),
    "full": Plan(2000, 600, 8192),
}


def radius(data: qw.Dataset) -> float:
    """Return the reference radius of a data set, that of `qwidgets.sweep`, in input units."""
    low, high = data.value_range
    return _RADII.get(data.name, 0.1 * (high - low))


def fingerprint(model: nn.Module, data: qw.Dataset) -> str:
    """Checksum of a network's weights, of what it answers, and of the data.

    The answers tell networks apart that differ in code alone. They are rounded, so that the order
    in which a machine adds up does not count.
    """
    digest = hashlib.sha256(data.checksum.encode())
    for name, value in model.state_dict().items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        content = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(content.numpy().tobytes())
    answers = _some_losses(model, data).flatten().tolist()
    digest.update(" ".join(f"{value:.3g}" for value in answers).encode())
    return digest.hexdigest()


def _some_losses(model: nn.Module, data: qw.Dataset) -> Tensor:
    loss = qw.packet_loss(model, range(data.classes), data.input_shape)
    with torch.no_grad():
        return loss(data.test_inputs[:16].flatten(1))


def study(model: nn.Module, data: qw.Dataset, *, options: str = "") -> Study:
    """Make the study of a network; whether it can be measured is found before any work.

    Parameters
    ----------
    model : torch.nn.Module
        Maps ``(n, *data.input_shape)`` to logits ``(n, classes)``. It stays as it is: copies in
        eval mode are measured, on its device.
    data : Dataset
        Its test inputs are used.
    options : str
        What the command says after the name of the study.

    Returns
    -------
    Study

    Raises
    ------
    TypeError, ValueError
        As `qwidgets.measure`; also weights that are not there or not finite.
    """
    # Meant for its checks: nothing is measured before the first step.
    qw.iterate_measurement(model, data).close()
    _check_weights(model)
    subject = _Subject(model, data)
    return Study(
        name="mine",
        title=f"A network of your own: {type(model).__name__} on {data.name}",
        source="The claims of arXiv 2205.01493 that need no training, and the bound that holds.",
        cost=_cost(model, data),
        parts={
            "accuracy": subject.accuracy,
            "neighborhoods": subject.neighborhoods,
            "images": subject.images,
        },
        conclude=conclude,
        networks=subject.measurement,
        options=options,
        given=fingerprint(model, data),
    )


def _check_weights(model: nn.Module) -> None:
    for name, value in model.state_dict().items():
        if value.device.type == "meta":
            message = (
                f"model must hold its weights, but {name!r} is on the device 'meta', which holds "
                "none; load them in the factory, on a real device."
            )
            raise ValueError(message)
        if value.is_floating_point() and not value.isfinite().all():
            message = (
                f"model must have finite weights, got NaN or infinity in {name!r}; load weights of "
                "a training that did not diverge."
            )
            raise ValueError(message)


def _cost(model: nn.Module, data: qw.Dataset) -> str:
    """Count the evaluations, and time a few of them."""
    evaluations = {size: _evaluations(plan, data) for size, plan in PLANS.items()}
    images = data.test_inputs[:64].flatten(1)
    loss = qw.packet_loss(model, 0, data.input_shape)
    for _ in range(2):  # the first warms up
        begun = time.perf_counter()
        x = images.clone().requires_grad_()
        torch.autograd.grad(loss(x).sum(), x)
        each = (time.perf_counter() - begun) / len(images)
    full, quick = (_lasting(each * evaluations[size]) for size in ("full", "quick"))
    return (
        f"about {evaluations['full']:.1e} evaluations of the network and its gradient, on this "
        f"machine {full}; --quick {quick}"
    )


def _evaluations(plan: Plan, data: qw.Dataset) -> int:
    accuracy = min(plan.test_size, len(data.test_labels)) * len(SHARES) * 11
    sections = plan.images * (1024 + HALVINGS * 11)
    return accuracy + 2 * plan.samples * data.classes + sections


def _lasting(seconds: float) -> str:
    minutes = seconds / 60
    return "less than a minute" if minutes < 1 else f"about {minutes:.0f} minutes"


@final
class _Subject:
    """The network and the data that the parts of the study measure."""

    def __init__(self, model: nn.Module, data: qw.Dataset) -> None:
        self._model = model
        self._data = data
        self._radius = radius(data)
        self._width = self._radius * math.sqrt(data.test_inputs[0].numel()) / 2
        self._found: dict[Setting, qw.Measurement] = {}

    def _tested(self, setting: Setting) -> qw.Dataset:
        size = min(PLANS[setting.size].test_size, len(self._data.test_labels))
        return self._data.subset(test=max(size, self._data.classes))

    def _copy(self) -> nn.Module:
        """Copy in eval mode: in double precision, or in single where the network insists on it."""
        network = copy.deepcopy(self._model).eval().requires_grad_(requires_grad=False)
        try:
            network.double()
            _some_losses(network, self._data)
        except (RuntimeError, TypeError):
            network.float()
        return network

    def measurement(self, setting: Setting) -> Work[qw.Measurement]:
        """Measure the network as `qwidgets.measure` does, once."""
        if setting not in self._found:
            data = self._tested(setting)
            work = qw.iterate_measurement(
                {type(self._model).__name__: self._model},
                data,
                attack_epsilon=[self._radius * share for share in SHARES],
                width=self._width,
                test_size=len(data.test_labels),
                seed=setting.seed,
            )
            for state in work:
                yield state.fraction
            assert state.measurement is not None
            self._found[setting] = state.measurement
        return self._found[setting]

    def accuracy(self, setting: Setting) -> Work[Table]:
        """Robust accuracy at each radius, with its binomial error."""
        found = yield from self.measurement(setting)
        cube = found.dataset.isel(model=0)
        counts = np.bincount(found.data.test_labels.numpy())
        return [
            {
                "attack_epsilon": float(at.attack_epsilon),
                "robust_accuracy": float(at.robust_accuracy),
                "robust_accuracy_error": float(at.robust_accuracy_error),
                "images": int(counts.sum()),
                "commonest_class": int(counts.max()),
            }
            for at in (cube.isel(attack_epsilon=i) for i in range(cube.sizes["attack_epsilon"]))
        ]

    def neighborhoods(self, setting: Setting) -> Work[Table]:
        """Measure the neighborhood of each class; each is kept as soon as it is there."""
        table: Table = []
        network, data = self._copy(), self._tested(setting)
        for label in range(data.classes):
            one = kept(
                setting,
                f"neighborhood-{label}",
                self._neighborhood(setting, network, data, label),
            )
            table += yield from within(one, label, data.classes)
        return table

    def _neighborhood(
        self, setting: Setting, network: nn.Module, data: qw.Dataset, label: int
    ) -> Work[Table]:
        """Two independent estimates: the product of one is held against the bound of the other.

        Against its own bound no estimate can fail.
        """
        centers = data.test_inputs[data.test_labels == label].flatten(1).double()
        domain = qw.Neighborhood(centers, self._radius, clip=data.value_range)
        loss = qw.packet_loss(network, label, data.input_shape)
        halves = []
        for half in range(2):
            work = measured(
                loss,
                domain,
                samples=PLANS[setting.size].samples,
                seed=2 * setting.seed + half,
            )
            halves.append((yield from within(work, half, 2)))
        first, second = halves
        u = first.merge(second)
        error = u.standard_error
        scores = np.concatenate([_scores(first, second), _scores(second, first)])
        return [
            {
                "label": label,
                "class": data.class_names[label],
                "total_position_std": u.total_position_std,
                "total_position_std_error": float(error["total_position_std"]),
                "total_momentum_std": u.total_momentum_std,
                "total_momentum_std_error": float(error["total_momentum_std"]),
                "mean_boundary": float(u.boundary.mean()),
                # Of fully correlated pixels: an upper bound.
                "mean_boundary_error": float(np.mean(error["boundary"])),
                "sum_of_products": float(u.product.sum()),
                "sum_of_bounds": float(u.bound.sum()),
                "pixels": len(u.product),
                "pixels_below_half": int(_below_half(u).sum()),
                "pixels_below_half_without_boundary": int((_below_half(u) & _inside(u)).sum()),
                "least_margin": float(scores.min()),
                "self_check": float(u.self_check),
                "effective_sample_size": float(u.effective_sample_size),
            }
        ]

    def images(self, setting: Setting) -> Work[Table]:
        """Take sections along the attack, and the radii that break images; kept class by class."""
        table: Table = []
        network, data = self._copy(), self._tested(setting)
        each = max(2, PLANS[setting.size].images // data.classes)
        for label in range(data.classes):
            chosen = (data.test_labels == label).nonzero()[:each, 0]
            work = self._images_of(network, data, label, chosen, setting.seed)
            some = kept(setting, f"images-{label}", work)
            table += yield from within(some, label, data.classes)
        return table

    def _images_of(
        self, network: nn.Module, data: qw.Dataset, label: int, chosen: Tensor, seed: int
    ) -> Work[Table]:
        x, y = data.test_inputs[chosen], data.test_labels[chosen]
        breaking = yield from within(self._breaking(network, x, y, seed), 0, 2)
        loss = qw.packet_loss(network, label, data.input_shape)
        table: Table = []
        for index, image in enumerate(x):
            yield (1 + index / len(x)) / 2
            row: Row = {
                "image": int(chosen[index]),
                "label": label,
                "correct": int(breaking[index] > 0),
                "broken": int(breaking[index] < FARTHEST * self._radius),
                "breaking_radius": float(breaking[index]),
                "loss": float(loss(image.reshape(1, -1).double())),
            }
            s = self._section(network, loss, image, label, seed)
            for name in ("position_mean", "position_std", "momentum_std", "product"):
                row[name] = math.nan if s is None else float(getattr(s, name))
            table.append(row)
        return table

    def _section(
        self,
        network: nn.Module,
        loss: Callable[[Tensor], Tensor],
        image: Tensor,
        label: int,
        seed: int,
    ) -> qw.Section | None:
        """Packet along the attack; None where there is no attack or no loss."""
        origin = image.flatten().double()
        try:
            direction = torch.from_numpy(qw.attack_directions(loss, origin)[0])
        except ValueError:  # the gradient vanishes
            epsilon = torch.tensor([self._radius])
            moved = self._attacked(network, image[None], torch.tensor([label]), epsilon, seed)
            direction = moved[0].flatten().double() - origin
        try:
            return qw.section(loss, origin, direction, self._width)
        except ValueError:  # there is no direction, or the loss is zero all along it
            return None

    def _breaking(
        self, network: nn.Module, x: Tensor, y: Tensor, seed: int
    ) -> Work[NDArray[np.float64]]:
        """Radius at which PGD breaks each image, by halving; 0 of one that is misclassified."""
        low, high = torch.zeros(len(y)), torch.full((len(y),), FARTHEST * self._radius)
        correct = self._correct(network, x, y)
        survives = self._correct(network, self._attacked(network, x, y, high, seed), y)
        found = high
        for step in range(HALVINGS):
            yield step / HALVINGS
            middle = (low + high) / 2
            holds = self._correct(network, self._attacked(network, x, y, middle, seed), y)
            low, high = torch.where(holds, middle, low), torch.where(holds, high, middle)
        found = torch.where(survives, found, high)
        return torch.where(correct, found, 0.0).double().numpy()

    def _attacked(
        self, network: nn.Module, x: Tensor, y: Tensor, epsilon: Tensor, seed: int
    ) -> Tensor:
        moved = qw.pgd(network, x, y, epsilon, value_range=self._data.value_range, seed=seed)
        return moved.cpu()

    def _correct(self, network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        loss = qw.packet_loss(network, range(self._data.classes), self._data.input_shape)
        with torch.no_grad():
            return loss(x.flatten(1)).argmin(1) == y  # the likeliest class has the least loss


def _scores(one: qw.Uncertainty, other: qw.Uncertainty) -> NDArray[np.float64]:
    """Product of one estimate minus the bound of an independent one, in standard errors."""
    error = np.hypot(one.standard_error["product"], other.standard_error["bound"])
    return np.asarray((one.product - other.bound) / error)


def _below_half(u: qw.Uncertainty) -> NDArray[np.bool_]:
    return np.asarray(u.product < HALF - BEYOND_CHANCE * np.asarray(u.standard_error["product"]))


def _inside(u: qw.Uncertainty) -> NDArray[np.bool_]:
    """Pixels on which no boundary term is seen."""
    return np.abs(u.boundary) <= BEYOND_CHANCE * np.asarray(u.standard_error["boundary"])


class Interval(NamedTuple):
    """A rank correlation with its confidence interval, NaN where there is none."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """Say it, or that there is none."""
        if math.isnan(self.low):
            return "not defined"
        return f"{self.value:+.2f} ({self.low:+.2f} to {self.high:+.2f})"


def rank_correlation(x: NDArray[np.float64], y: NDArray[np.float64]) -> Interval:
    """Spearman's rank correlation, with Bonett and Wright's interval.

    References
    ----------
    Bonett and Wright, "Sample size requirements for estimating Pearson, Kendall and Spearman
    correlations", Psychometrika 65 (2000).
    """
    known = np.isfinite(x) & np.isfinite(y)
    x, y = x[known], y[known]
    if len(x) < FEWEST or np.ptp(x) == 0 or np.ptp(y) == 0:
        return Interval(math.nan, math.nan, math.nan)
    value = float(spearmanr(x, y)[0])
    limit = 1 - 1e-9  # a perfect one has no interval on the scale of the logarithm
    z = math.atanh(min(max(value, -limit), limit))
    half = norm.isf((1 - CONFIDENCE) / 2) * math.sqrt((1 + value**2 / 2) / (len(x) - 3))
    return Interval(value, math.tanh(z - half), math.tanh(z + half))


def within_classes(
    x: NDArray[np.float64], y: NDArray[np.float64], labels: NDArray[np.int64]
) -> Interval:
    """Mean of the rank correlations of the classes, with Student's interval."""
    each = np.array(
        [rank_correlation(x[labels == label], y[labels == label]).value for label in set(labels)]
    )
    each = each[np.isfinite(each)]
    if len(each) < 2:  # noqa: PLR2004 - one has no spread
        return Interval(math.nan, math.nan, math.nan)
    half = student.isf((1 - CONFIDENCE) / 2, len(each) - 1) * each.std(ddof=1) / len(each) ** 0.5
    mean = float(each.mean())
    return Interval(mean, max(-1.0, mean - half), min(1.0, mean + half))


def conclude(tables: Mapping[str, Table]) -> Conclusion:
    """Draw the conclusions of the study from its tables."""
    accuracy, classes, images = (
        columns(tables[name]) for name in ("accuracy", "neighborhoods", "images")
    )
    doubt = _no_better_than_chance(accuracy)
    if doubt:
        warnings.warn(doubt, UserWarning, stacklevel=2)
    claims = (
        _the_bound_that_holds(classes),
        _one_half(classes),
        _along_the_attack(images),
        _fragility(accuracy, classes, images, doubt),
    )
    return Conclusion(claims, _figures(accuracy, classes, images))


def _no_better_than_chance(accuracy: Columns) -> str:
    found, images = float(accuracy["robust_accuracy"][0]), int(accuracy["images"][0])
    chance = float(accuracy["commonest_class"][0]) / images
    if found > chance + 3 * math.sqrt(chance * (1 - chance) / images):
        return ""
    return (
        f"The network classifies {found:.1%} of the images, no better than chance ({chance:.1%}): "
        "if it was trained on normalised inputs, let the factory put that first; check the order "
        "of the classes too."
    )


def _the_bound_that_holds(c: Columns) -> Claim:
    least, check = float(np.nanmin(c["least_margin"])), float(np.nanmax(c["self_check"]))
    holds = least >= -BEYOND_CHANCE and check <= BEYOND_CHANCE
    return Claim(
        "The product σx σp is at least |1 - B| / 2 for every pixel in the neighbourhood of every "
        "class.",
        f"{int(c['pixels'].sum())} products of {len(c['label'])} classes, each held against the "
        f"bound of an independent estimate: the least difference is {least:+.1f} standard errors, "
        f"the largest self-check {check:.1f}. Mean B {float(np.nanmin(c['mean_boundary'])):.3f} to "
        f"{float(np.nanmax(c['mean_boundary'])):.3f}.",
        "supported" if holds else "not supported",
    )


def _one_half(c: Columns) -> Claim:
    below, free = (
        int(np.nansum(c[name]))
        for name in ("pixels_below_half", "pixels_below_half_without_boundary")
    )
    verdict: Verdict = "supported"
    if below:
        verdict = "not supported" if free else "supported under a condition"
    return Claim(
        "The product σx σp is at least 1/2 (the papers' statement for images).",
        f"{below} of {int(c['pixels'].sum())} products are below 1/2 by more than "
        f"{BEYOND_CHANCE:.0f} standard errors, {free} of them on pixels without a boundary term.",
        verdict,
        "Where the packet does not reach the boundary, B = 0; in the neighbourhoods of this "
        "network it does."
        if verdict == "supported under a condition"
        else "",
    )


def _along_the_attack(c: Columns) -> Claim:
    product = c["product"][np.isfinite(c["product"])]
    if not len(product):
        return Claim(
            "Along the attack the product σx σp is at least 1/2.",
            f"None of {len(c['product'])} images has a packet: the loss vanishes along the line, "
            "or there is no direction of attack.",
            "not supported",
        )
    least, middle = float(product.min()), float(np.median(product))
    return Claim(
        "Along the attack the product σx σp is at least 1/2.",
        f"{len(product)} of {len(c['product'])} images have a packet; the least product is "
        f"{least:.6f}, the median {middle:.4f}, the largest {float(product.max()):.4f}.",
        "supported" if least >= HALF * (1 - QUADRATURE) else "not supported",
    )


def _fragility(accuracy: Columns, classes: Columns, images: Columns, doubt: str) -> Claim:
    momentum, fragility = images["momentum_std"], -images["breaking_radius"]
    right = images["correct"] == 1
    found = {
        "over all images": rank_correlation(momentum, fragility),
        "over those classified correctly": rank_correlation(momentum[right], fragility[right]),
        "within classes": within_classes(momentum, fragility, images["label"]),
    }
    above = [words for words, interval in found.items() if interval.low > 0]
    verdict: Verdict = "not supported"
    if above:
        verdict = "supported" if len(above) == len(found) else "supported under a condition"
    strength = np.array(
        [images["breaking_radius"][images["label"] == label].mean() for label in classes["label"]]
    )
    over_classes = rank_correlation(classes["total_momentum_std"], -strength)
    condition = f"Only {' and '.join(above)}." if verdict == "supported under a condition" else ""
    if all(interval.high < 0 for interval in found.values()):
        where = rank_correlation(images["position_mean"], images["breaking_radius"])
        condition = (
            "The reverse is seen among the images of this network. The packet of an image that is "
            "far from the boundary lies where the boundary is, at the far end of the window, and "
            f"is narrow there: rank correlation of its mean position with the radius {where}."
            if where.low > 0
            else "The reverse is seen among the images of this network."
        ) + " The papers' statement compares networks, not images of one."
    told = "; ".join(f"{words} {interval}" for words, interval in found.items())
    clean = float(accuracy["robust_accuracy"][0]), float(accuracy["robust_accuracy_error"][0])
    return Claim(
        "Images with more momentum along the attack are broken by a smaller one.",
        f"Clean accuracy {clean[0]:.3f} ± {clean[1]:.3f}. Rank correlation of the momentum spread "
        f"with fragility, minus the radius that breaks the image, with its interval of "
        f"{CONFIDENCE:.0%}: {told}. {int((1 - images['broken']).sum())} of {len(right)} images "
        f"withstand the largest radius. Over the classes, Dp of the neighbourhood with the mean "
        f"fragility: {over_classes}." + f" {doubt}" * bool(doubt),
        verdict,
        condition,
    )


def _around(values: NDArray[np.float64]) -> tuple[float, float]:
    known = values[np.isfinite(values) & (values > 0)]
    return float(known.min()) / 1.2, float(known.max()) * 1.2


def _figures(accuracy: Columns, classes: Columns, images: Columns) -> dict[str, qw.Figure]:
    robust = qw.chart(
        {
            "robust accuracy": qw.Curve(
                accuracy["attack_epsilon"],
                accuracy["robust_accuracy"],
                accuracy["robust_accuracy_error"],
            )
        },
        x="attack radius (input units)",
        y="share classified correctly",
        title="Accuracy under attack",
        y_limits=(0, 1),
    )
    totals = classes["total_position_std"] * classes["total_momentum_std"]
    x_limits = _around(classes["sum_of_bounds"])
    diagonal = np.geomspace(x_limits[0], max(x_limits[1], float(np.nanmax(totals)) * 1.2), 50)
    neighborhoods = qw.chart(
        {"classes": qw.Curve(classes["sum_of_bounds"], totals, style="dots")},
        x="bound Σ |C|",
        y="Dx Dp",
        title="Neighbourhoods of the classes",
        log="xy",
        forbidden_below=(diagonal, diagonal),
        x_limits=x_limits,
        y_limits=_around(np.append(totals, classes["sum_of_bounds"])),
    )
    position, momentum = images["position_std"], images["momentum_std"]
    line = np.geomspace(*_around(position), 100)
    sections = qw.chart(
        {"images": qw.Curve(position, momentum, style="dots")},
        x="position σx (input units)",
        y="momentum σp (1 / input unit)",
        title="Packets along the attack",
        log="xy",
        forbidden_below=(line, HALF / line),
        x_limits=_around(position),
        y_limits=_around(momentum),
    )
    right = images["correct"] == 1
    fragility = qw.chart(
        {
            name: qw.Curve(momentum[which], images["breaking_radius"][which], style="dots")
            for name, which in (("correct", right), ("misclassified", ~right))
            if which.any()
        },
        x="momentum σp (1 / input unit)",
        y="radius that breaks it",
        title="Momentum and fragility",
        log="x",
    )
    return {"mine": qw.beside(robust, neighborhoods, sections, fragility)}
