"""Study: the region of a class, the points that an attack makes of it, and where momentum lies.

After "Quantum-inspired analysis of neural network vulnerabilities: the role of conjugate variables
in system attacks" (National Science Review 2024, arXiv 2402.10983).

The plane of a class goes through the means of its training images and of those of the two classes
whose means are nearest; its axes are what `qwidgets.class_directions` gives for these three. It
depends on the data alone: it is the same for all networks and epochs. An image is put at the
coordinates of its orthogonal projection. The region at a place of the plane is what the network
says of the image there, the mean of the class moved within the plane and cut to the valid range:
nothing outside of the plane is decoded. So an image need not have the colour of its place; the
share that does is measured (``seen_in_plane``).

The radius of some points is the root mean square of their distance from their own mean, in the
plane or in all input dimensions; its standard error is from resampling the images of the class. The
attacked points are what PGD in the l-infinity norm makes of the test images of the class.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

import qwidgets as qw
from qwidgets.studies.study import (
    BEYOND_CHANCE,
    Claim,
    Conclusion,
    Study,
    bullets,
    columns,
    measured,
    over_seeds,
    within,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from qwidgets.studies.study import Columns, Row, Setting, Table, Verdict, Work

    Values = NDArray[np.float64]
    Networks = dict[tuple[float, int], nn.Module]

RADIUS = 0.1
TRAINED = (0.0, RADIUS)
"""Radii of training: clean, and adversarial."""

LABEL = 8
RESAMPLES = 200
ROUNDING = 1e-9
SPACES = {
    "pixels": "pixels of largest gradient",
    "components": "components of images",
    "features": "feature directions",
    "random": "random directions",
}


def _data(setting: Setting) -> qw.Dataset:
    """Load MNIST where its files are given, else digits, which come with scikit-learn."""
    if setting.root is None:
        return qw.load_data("digits", train_size=600 if setting.size == "smallest" else None)
    sizes = setting.choose(smallest=(600, 200), quick=(5_000, 500), full=(20_000, 1_000))
    return qw.load_data("mnist", root=setting.root, train_size=sizes[0], test_size=sizes[1])


def _epochs(setting: Setting) -> tuple[int, ...]:
    """Return the epochs that are looked at; the first, a middle and the last one are drawn."""
    return setting.choose(
        smallest=(1, 3, 5), quick=(1, 6, 11, 21, 31, 41), full=(1, 3, 6, 11, 16, 21, 26, 31, 36, 41)
    )


def _seeds(setting: Setting) -> list[int]:
    count = setting.choose(smallest=2, quick=3, full=8)
    return list(range(setting.seed, setting.seed + count))


def _place(setting: Setting, seed: int, epoch: int) -> Path:
    data = "digits" if setting.root is None else "mnist"
    return setting.folder / f"{data}-{seed}-epoch-{epoch}.sweep"


def _trained(setting: Setting, seed: int) -> Work[Networks]:
    """Train a clean and an adversarial network, and keep them as they were at each epoch."""
    epochs = _epochs(setting)
    places = {epoch: _place(setting, seed, epoch) for epoch in epochs}
    if not all(place.exists() for place in places.values()):
        run = qw.iterate_sweep(
            _data(setting),
            "mlp",
            epsilon=TRAINED,
            regularization=[0],
            epochs=epochs[-1],
            seed=seed,
            attack_epsilon=[0, 0.05, RADIUS, 0.2],
            probe_images=3,
            detail=None,
        )
        for state in run:
            yield state.fraction
            if state.sweep is not None and state.epoch in places:
                state.sweep.save(places[state.epoch])
    found = {}
    for epoch, place in places.items():
        sweep = qw.open_sweep(place)
        for epsilon in TRAINED:
            found[epsilon, epoch] = sweep.model(epsilon=epsilon, regularization=0)
    return found


class Plane:
    """The plane of a class, as the module says.

    Attributes
    ----------
    label : int
        The class.
    others : tuple of int
        The two classes whose means are nearest, by number.
    origin : ndarray, shape (d,)
        Mean of the training images of the class.
    axes : ndarray, shape (2, d)
        Orthonormal rows.
    """

    def __init__(self, data: qw.Dataset, label: int) -> None:
        inputs, labels = data.train_inputs.flatten(1).double(), data.train_labels
        means = torch.stack([inputs[labels == name].mean(0) for name in range(data.classes)])
        distance = (means - means[label]).norm(dim=1)
        nearest = sorted(distance.argsort(stable=True)[1:3].tolist())
        some = torch.isin(labels, torch.tensor([label, *nearest]))
        self.label = label
        self.others: tuple[int, ...] = tuple(nearest)
        self.origin: Values = means[label].numpy()
        self.axes = qw.class_directions(inputs[some], labels[some], origin=label)

    def project(self, images: Values) -> Values:
        """Coordinates (n, 2) of images (n, d)."""
        return np.asarray((images - self.origin) @ self.axes.T)

    def images(self, places: Values) -> Values:
        """Images (n, d) at coordinates (n, 2), not yet cut to the valid range."""
        return np.asarray(self.origin + places @ self.axes)


def radius(points: Values) -> float:
    """Root mean square of the distance of points (n, d) from their mean."""
    return math.sqrt(float(((points - points.mean(0)) ** 2).sum(1).mean()))


def _radius_error(points: Values, generator: np.random.Generator) -> float:
    drawn = generator.integers(len(points), size=(RESAMPLES, len(points)))
    # Var = E |x|^2 - |E x|^2, about the mean, from where little cancels.
    centred = points - points.mean(0)
    square = (centred**2).sum(1)[drawn].mean(1)
    weight = np.stack([np.bincount(row, minlength=len(points)) for row in drawn]) / len(points)
    mean = ((weight @ centred) ** 2).sum(1)
    return float(np.sqrt(np.maximum(square - mean, 0)).std(ddof=1))


def _said(network: nn.Module, images: Values, data: qw.Dataset) -> Values:
    """Class probabilities (n, classes) of images (n, d), cut to the valid range."""
    x = torch.from_numpy(images).float().clamp(*data.value_range)
    with torch.no_grad():
        logits: Tensor = network(x.reshape(-1, *data.input_shape)).double()
    return np.asarray(logits.softmax(1).numpy())


def _runs(setting: Setting) -> Work[list[tuple[int, Networks]]]:
    found = []
    seeds = _seeds(setting)
    for index, seed in enumerate(seeds):
        networks = yield from within(_trained(setting, seed), index, len(seeds))
        found.append((seed, networks))
    return found


def radii(setting: Setting) -> Work[Table]:
    """Measure the radii of clean and attacked points of every class as training goes on."""
    data = _data(setting)
    planes = [Plane(data, label) for label in range(data.classes)]
    runs = yield from within(_runs(setting), 0, 2)
    table: Table = []
    for index, (seed, networks) in enumerate(runs):
        for (epsilon, epoch), network in networks.items():
            yield 0.5 + 0.5 * index / len(runs)
            moved = qw.pgd(
                network,
                data.test_inputs,
                data.test_labels,
                RADIUS,
                value_range=data.value_range,
                seed=seed,
            )
            for label, plane in enumerate(planes):
                own = data.test_labels == label
                clean, attacked = (
                    v[own].flatten(1).double().numpy() for v in (data.test_inputs, moved)
                )
                row: Row = {"seed": seed, "trained": epsilon, "epoch": epoch, "label": label}
                for kind, points in (("clean", clean), ("attacked", attacked)):
                    flat = plane.project(points)
                    for space, there in (("plane", flat), ("input", points)):
                        generator = np.random.default_rng(setting.seed)
                        row[f"{kind}_radius_{space}"] = radius(there)
                        row[f"{kind}_radius_{space}_error"] = _radius_error(there, generator)
                    said = _said(network, points, data).argmax(1)
                    share = float((said == label).mean())
                    row[f"{kind}_in_class"] = share
                    row[f"{kind}_in_class_error"] = _binomial(share, len(said))
                    place = _said(network, plane.images(flat), data).argmax(1)
                    # Of the three classes of the plane the class, or not.
                    seen = float(((place == label) == (said == label)).mean())
                    row[f"{kind}_seen_in_plane"] = seen
                    row[f"{kind}_seen_in_plane_error"] = _binomial(seen, len(said))
                row["mean_moved"] = float(np.linalg.norm(attacked.mean(0) - clean.mean(0)))
                steps = attacked - clean
                row["mean_moved_error"] = radius(steps) / math.sqrt(len(steps))
                table.append(row)
    return table


def _binomial(share: float, count: int) -> float:
    return math.sqrt(share * (1 - share) / count)


def _three(epochs: Sequence[int]) -> tuple[int, int, int]:
    """Take the first, a middle and the last epoch: 1, 21 and 41, as the paper does."""
    half = (epochs[0] + epochs[-1]) / 2
    return epochs[0], min(epochs, key=lambda epoch: abs(epoch - half)), epochs[-1]


def _drawn(setting: Setting) -> tuple[int, int, int]:
    return _three(_epochs(setting))


def plane(setting: Setting) -> Work[Table]:
    """Ask the clean network of the first seed about every place of the plane, and attack there.

    Rows of kind ``place`` hold what the network says: ``surplus`` is the probability of the class
    less that of the likeliest other. Rows of the kinds ``clean`` and ``attacked`` are test images.
    """
    data = _data(setting)
    of = Plane(data, LABEL)
    networks = yield from _trained(setting, setting.seed)
    own = data.test_labels == LABEL
    size = setting.choose(smallest=12, quick=48, full=64)
    clean = data.test_inputs[own]
    moved = {
        epoch: qw.pgd(
            networks[0.0, epoch],
            clean,
            data.test_labels[own],
            RADIUS,
            value_range=data.value_range,
            seed=setting.seed,
        )
        for epoch in _drawn(setting)
    }
    points = {
        epoch: [of.project(v.flatten(1).double().numpy()) for v in (clean, attacked)]
        for epoch, attacked in moved.items()
    }
    inputs = data.train_inputs.flatten(1).double()
    means = np.stack([inputs[data.train_labels == n].mean(0).numpy() for n in of.others])
    every = np.concatenate([of.project(means), *(v for both in points.values() for v in both)])
    low, high = every.min(0), every.max(0)
    room = 0.06 * (high - low)
    axes = [np.linspace(*ends, size) for ends in zip(low - room, high + room, strict=True)]
    places = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)
    table: Table = []
    for epoch, kinds in points.items():
        said = _said(networks[0.0, epoch], of.images(places), data)
        others = np.delete(said, LABEL, axis=1).max(1)
        rows = [("place", places, said[:, LABEL] - others, said.argmax(1))]
        for kind, there, images in zip(
            ("clean", "attacked"), kinds, (clean, moved[epoch]), strict=True
        ):
            answer = _said(networks[0.0, epoch], images.flatten(1).double().numpy(), data)
            surplus = answer[:, LABEL] - np.delete(answer, LABEL, axis=1).max(1)
            rows.append((kind, there, surplus, answer.argmax(1)))
        for kind, there, surplus, label in rows:
            table += [
                {
                    "epoch": epoch,
                    "kind": kind,
                    "x": float(x),
                    "y": float(y),
                    "surplus": float(value),
                    "says": int(name),
                }
                for (x, y), value, name in zip(there, surplus, label, strict=True)
            ]
    return table


def neighborhoods(setting: Setting) -> Work[Table]:
    """Measure position and momentum of the class's neighbourhood along the axes of its plane."""
    data = _data(setting)
    of = Plane(data, LABEL)
    images = data.test_inputs[data.test_labels == LABEL].flatten(1).double()
    runs = yield from within(_runs(setting), 0, 2)
    asked = [
        (seed, epsilon, epoch, network)
        for seed, networks in runs
        for (epsilon, epoch), network in networks.items()
        if epoch in _drawn(setting)
    ]
    table: Table = []
    for index, (seed, epsilon, epoch, network) in enumerate(asked):
        work = measured(
            qw.packet_loss(network.double(), LABEL, data.input_shape),
            qw.Neighborhood(images, RADIUS, clip=data.value_range),
            directions=of.axes,
            samples=1 << setting.choose(smallest=10, quick=12, full=14),
            seed=seed,
        )
        u = yield from within(within(work, index, len(asked)), 1, 2)
        row: Row = {"seed": seed, "trained": epsilon, "epoch": epoch}
        for name in ("total_position_std", "total_momentum_std"):
            row[name] = float(getattr(u, name))
            row[f"{name}_error"] = float(u.standard_error[name])
        product = u.total_position_std * u.total_momentum_std
        row["product_of_totals"] = product
        row["product_of_totals_error"] = product * math.hypot(
            *(float(u.standard_error[n]) / float(getattr(u, n)) for n in TOTALS)
        )
        row["sum_of_bounds"] = float(u.bound.sum())
        row["sum_of_bounds_error"] = float(np.sum(u.standard_error["bound"]))
        row["mean_boundary"] = float(u.boundary.mean())
        row["mean_boundary_error"] = float(np.mean(u.standard_error["boundary"]))
        table.append(row)
    return table


TOTALS = ("total_position_std", "total_momentum_std")


# Directions of features and of pixels


def feature_directions(
    network: nn.Sequential, images: Tensor, training: Tensor, count: int
) -> Tensor:
    """Directions of images along which the leading features of a network change most.

    The features are the values before the last layer, their leading directions the principal
    components over training images; each is pulled back to the image by the transpose of the
    Jacobian of the features there, and the results are orthonormalised in this order.

    Parameters
    ----------
    network : torch.nn.Sequential
        Its last layer is that after the features.
    images : Tensor, shape (n, *input_shape)
        Where to pull back.
    training : Tensor, shape (m, *input_shape)
        Images whose features are compared.
    count : int
        How many directions, at most.

    Returns
    -------
    Tensor, shape (n, count, d), float64
        Orthonormal rows for every image.
    """
    body = network[:-1].double().eval()
    with torch.no_grad():
        features = body(training.double())
    leading = torch.from_numpy(qw.principal_directions(features, count))
    leaf = images.double().clone().requires_grad_()
    found = body(leaf)
    pulled = [
        torch.autograd.grad((found @ direction).sum(), leaf, retain_graph=True)[0].flatten(1)
        for direction in leading
    ]
    return _orthonormalised(torch.stack(pulled, 1))


def _orthonormalised(rows: Tensor) -> Tensor:
    """Orthonormalise rows (n, k, d) in their order; a row within the span of those before is 0."""
    found: list[Tensor] = []
    for index in range(rows.shape[1]):
        rest = rows[:, index]
        length = rest.norm(dim=1, keepdim=True)
        for _ in range(2):  # once more for what rounding leaves
            for row in found:
                rest = rest - (rest * row).sum(1, keepdim=True) * row
        left = rest.norm(dim=1, keepdim=True)
        found.append(torch.where(left > ROUNDING * length, rest / left, 0.0).nan_to_num())
    return torch.stack(found, 1)


def directions(
    network: nn.Module, data: qw.Dataset, images: Tensor, labels: Tensor, count: int, seed: int
) -> dict[str, Tensor]:
    """Give for every image the leading directions of each of `SPACES`, (n, count, d)."""
    n, d = len(images), images[0].numel()
    leaf = images.double().clone().requires_grad_()
    logits = network.double()(leaf)
    loss = nn.functional.cross_entropy(logits, labels, reduction="sum")
    gradient = torch.autograd.grad(loss, leaf)[0].flatten(1)
    largest = gradient.abs().topk(count, dim=1).indices
    components = qw.principal_directions(data.train_inputs, count)
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(n, count, d, generator=generator, dtype=torch.float64)
    assert isinstance(network, nn.Sequential)
    return {
        "pixels": nn.functional.one_hot(largest, d).double(),
        "components": torch.from_numpy(components).expand(n, -1, -1),
        "features": feature_directions(network, images, data.train_inputs, count),
        "random": _orthonormalised(drawn),
    }


def attacked_within(
    network: nn.Module, images: Tensor, labels: Tensor, basis: Tensor, reach: float, **settings: Any
) -> Tensor:
    """Attack images within the span of directions: PGD in the l2 norm of the coordinates.

    Parameters
    ----------
    network : torch.nn.Module
    images : Tensor, shape (n, *input_shape)
    labels : Tensor, shape (n,)
    basis : Tensor, shape (n, k, d)
        Orthonormal rows for every image.
    reach : float
        Largest l2 length of the change, input units. What leaves the valid range is cut.
    **settings
        ``value_range`` and ``seed``.

    Returns
    -------
    Tensor, shape (n, *input_shape), float64
    """
    low, high = settings["value_range"]
    start = images.double()

    def moved(coordinates: Tensor) -> Tensor:
        step = torch.einsum("nk,nkd->nd", coordinates, basis)
        return (start + step.reshape(start.shape)).clamp(low, high)

    zero = torch.zeros(basis.shape[:2], dtype=torch.float64)
    found = qw.pgd(
        lambda z: network(moved(z)),
        zero,
        labels,
        reach,
        norm="l2",
        steps=20,
        # The coordinates have no range of their own.
        value_range=(-2 * reach, 2 * reach),
        seed=settings["seed"],
    )
    return moved(found).detach()


def _reach(data: qw.Dataset) -> float:
    return RADIUS * math.sqrt(data.train_inputs[0].numel()) / 2


def attacks(setting: Setting) -> Work[Table]:
    """Attack within few feature directions, components, pixels: who breaks most at equal length."""
    data = _data(setting)
    runs = yield from within(_runs(setting), 0, 2)
    counts = setting.choose(smallest=(1, 5), quick=(1, 2, 3, 5, 8), full=(1, 2, 3, 5, 8))
    some = data.subset(test=setting.choose(smallest=40, quick=200, full=400))
    last = _epochs(setting)[-1]
    reach = _reach(data)
    table: Table = []
    for index, (seed, networks) in enumerate(runs):
        for epsilon in TRAINED:
            network = networks[epsilon, last].double()
            with torch.no_grad():
                right = network(some.test_inputs.double()).argmax(1) == some.test_labels
            images, labels = some.test_inputs[right].double(), some.test_labels[right]
            bases = directions(network, data, images, labels, counts[-1], seed)
            whole = torch.eye(images[0].numel(), dtype=torch.float64)
            tried = [
                (space, count, basis[:, :count])
                for space, basis in bases.items()
                for count in counts
            ]
            tried.append(("everything", len(whole), whole.expand(len(images), -1, -1)))
            for space, count, basis in tried:
                yield 0.5 + 0.5 * index / len(runs)
                moved = attacked_within(
                    network, images, labels, basis, reach, value_range=data.value_range, seed=seed
                )
                with torch.no_grad():
                    broken = float((network(moved).argmax(1) != labels).double().mean())
                lengths = (moved - images).flatten(1).norm(dim=1)
                table.append(
                    {
                        "seed": seed,
                        "trained": epsilon,
                        "space": space,
                        "directions": count,
                        "length": reach,
                        "mean_length": float(lengths.mean()),
                        "mean_length_error": float(lengths.std()) / math.sqrt(len(lengths)),
                        "broken": broken,
                        "broken_error": _binomial(broken, len(labels)),
                    }
                )
    return table


def momenta(setting: Setting) -> Work[Table]:
    """Measure the packet along the gradient and along the first direction of each space.

    Through a Gaussian window around test images, where 1/2 bounds every product; medians over the
    images, with the standard error of the median by resampling the images.
    """
    data = _data(setting)
    runs = yield from within(_runs(setting), 0, 2)
    some = data.subset(test=setting.choose(smallest=10, quick=30, full=100))
    images, labels = some.test_inputs.double(), some.test_labels
    width = _reach(data)
    asked = [
        (seed, epsilon, epoch, networks[epsilon, epoch].double())
        for seed, networks in runs
        for epsilon in TRAINED
        for epoch in _drawn(setting)
    ]
    table: Table = []
    for index, (seed, epsilon, epoch, network) in enumerate(asked):
        bases = directions(network, data, images, labels, 1, seed)
        found: dict[str, list[tuple[float, float, float]]] = {}
        for image, (x, label) in enumerate(zip(images.flatten(1), labels.tolist(), strict=True)):
            yield 0.5 + 0.5 * (index + image / len(images)) / len(asked)
            loss = qw.packet_loss(network, label, data.input_shape)
            toward = {space: basis[image, 0].numpy() for space, basis in bases.items()}
            toward["gradient"] = qw.attack_directions(loss, x)[0]
            for space, direction in toward.items():
                # No feature need change at an image; along no direction there is no packet.
                if direction.any():
                    s = qw.section(loss, x, direction, width, points=257)
                    spreads = s.position_std, s.momentum_std, s.product
                    found.setdefault(space, []).append(spreads)
        for space, values in found.items():
            row: Row = {"seed": seed, "trained": epsilon, "epoch": epoch, "space": space}
            row["images"] = len(values)
            drawn = np.random.default_rng(seed).integers(len(values), size=(RESAMPLES, len(values)))
            names = ("position_std", "momentum_std", "product")
            for name, value in zip(names, np.array(values).T, strict=True):
                row[name] = float(np.median(value))
                row[f"{name}_error"] = float(np.median(value[drawn], axis=1).std(ddof=1))
            row["least_product"] = float(min(value[2] for value in values))
            row["bound"] = 0.5
            table.append(row)
    return table


# What follows


def conclude(tables: Mapping[str, Table]) -> Conclusion:
    """Draw the conclusions of the study from its tables."""
    c = {name: columns(table) for name, table in tables.items()}
    claims = (
        spread(c["radii"]),
        shrinks(c["neighborhoods"]),
        leave(c["radii"]),
        stronger(c["attacks"]),
        carries(c["momenta"]),
    )
    return Conclusion(claims, {"regions": _figure(c)})


WORDS = {0.0: "clean training", RADIUS: f"adversarial training at {RADIUS:g}"}


def _signed(estimate: tuple[float, float], form: str = "+.3f") -> str:
    return f"{estimate[0]:{form}} ± {estimate[1]:{form.lstrip('+')}}"


def _sign(estimate: tuple[float, float]) -> int:
    """Tell the sign of an estimate, 0 where it is within chance."""
    mean, error = estimate
    return int(np.sign(mean)) if abs(mean) > BEYOND_CHANCE * error else 0


def _judged(kept: list[str], refused: list[str]) -> tuple[Verdict, str]:
    if kept and not refused:
        return "supported", ""
    if not kept:
        return "not supported", ""
    return "supported under a condition", f"For {'; '.join(kept)}. Not for {'; '.join(refused)}."


def _change(
    c: Columns, name: str, trained: float, between: tuple[float, float] | None = None
) -> tuple[float, float]:
    """From one epoch to another, by default the last: mean over classes, then over the seeds."""
    first, last = between or (c["epoch"].min(), c["epoch"].max())
    own = c["trained"] == trained
    return over_seeds(
        np.array(
            [
                np.mean(c[name][own & (c["seed"] == seed) & (c["epoch"] == last)])
                - np.mean(c[name][own & (c["seed"] == seed) & (c["epoch"] == first)])
                for seed in np.unique(c["seed"])
            ]
        )
    )


def _at(c: Columns, name: str, trained: float, epoch: float) -> float:
    return float(np.mean(c[name][(c["trained"] == trained) & (c["epoch"] == epoch)]))


def spread(c: Columns) -> Claim:
    """Judge whether the attacked points of a class are spread wider as training goes on."""
    epochs = _three(np.unique(c["epoch"]).astype(int).tolist())
    first, middle, last = epochs
    told: list[str] = []
    kept: list[str] = []
    refused: list[str] = []
    for trained, words in WORDS.items():
        for space, where in (("plane", "in the plane"), ("input", "in all dimensions")):
            name = f"attacked_radius_{space}"
            steps = {
                (a, b): _change(c, name, trained, (a, b))
                for a, b in ((first, middle), (middle, last))
            }
            there = ", ".join(f"{_at(c, name, trained, epoch):.3f}" for epoch in epochs)
            changes = ", ".join(_signed(step) for step in steps.values())
            told.append(
                f"{words}, {where}: {there}; changes {changes}; of the clean points "
                f"{_at(c, f'clean_radius_{space}', trained, last):.3f}"
            )
            for (a, b), step in steps.items():
                place = f"{words} {where} from epoch {a} to {b}"
                (kept if _sign(step) > 0 else refused).append(place)
    moved = ", ".join(f"{_at(c, 'mean_moved', 0.0, epoch):.3f}" for epoch in epochs)
    verdict, condition = _judged(kept, refused)
    return Claim(
        "The attacked points of a class spread wider as training goes on.",
        f"Radius (root mean square distance from their mean, input units) under PGD of radius "
        f"{RADIUS:g} at epochs {first}, {middle} and {last}:{bullets(told)}Mean over all classes, "
        f"then over the seeds ± its standard error. The attack also moves the mean of a class, by "
        f"{moved} (clean training).",
        verdict,
        condition,
    )


def shrinks(c: Columns) -> Claim:
    """Judge whether position narrows and momentum widens in the neighbourhood of the class."""
    told: list[str] = []
    kept: list[str] = []
    refused: list[str] = []
    first, last = int(c["epoch"].min()), int(c["epoch"].max())
    for trained, words in WORDS.items():
        position, momentum = (_change(c, name, trained) for name in TOTALS)
        told.append(
            f"{words}: Dx {_at(c, TOTALS[0], trained, first):.3f} to "
            f"{_at(c, TOTALS[0], trained, last):.3f}, change {_signed(position)}; Dp "
            f"{_at(c, TOTALS[1], trained, first):.2f} to {_at(c, TOTALS[1], trained, last):.2f}, "
            f"change {_signed(momentum, '+.2f')}"
        )
        holds = _sign(position) < 0 < _sign(momentum)
        (kept if holds else refused).append(words)
    error = np.hypot(c["product_of_totals_error"], c["sum_of_bounds_error"])
    short = (c["product_of_totals"] - c["sum_of_bounds"]) / np.maximum(error, ROUNDING)
    verdict, condition = _judged(kept, refused)
    if short.min() < -BEYOND_CHANCE:
        verdict, condition = "not supported", ""
    return Claim(
        "The effective radius of a class shrinks in position and grows in momentum.",
        f"Class {LABEL}, along the two axes of its plane, in the neighbourhood of radius "
        f"{RADIUS:g}, epoch {first} to {last}:{bullets(told)}± is over the seeds. The product of "
        f"the two is {float((c['product_of_totals'] / c['sum_of_bounds']).min()):.2f} times its "
        f"bound or more; B is {float(c['mean_boundary'].min()):.2f} to "
        f"{float(c['mean_boundary'].max()):.2f}.",
        verdict,
        condition,
    )


def leave(c: Columns) -> Claim:
    """Judge whether the attack throws more points out of the region of their class in time."""
    first, last = int(c["epoch"].min()), int(c["epoch"].max())
    told: list[str] = []
    kept: list[str] = []
    refused: list[str] = []
    for trained, words in WORDS.items():
        clean, attacked = (_change(c, f"{k}_in_class", trained) for k in ("clean", "attacked"))
        told.append(
            f"{words}: clean {_at(c, 'clean_in_class', trained, first):.3f} to "
            f"{_at(c, 'clean_in_class', trained, last):.3f}, change {_signed(clean)}; attacked "
            f"{_at(c, 'attacked_in_class', trained, first):.3f} to "
            f"{_at(c, 'attacked_in_class', trained, last):.3f}, change {_signed(attacked)}"
        )
        (kept if _sign(attacked) < 0 < _sign(clean) else refused).append(words)
    seen = [float(np.mean(c[f"{kind}_seen_in_plane"])) for kind in ("clean", "attacked")]
    verdict, condition = _judged(kept, refused)
    return Claim(
        "As training goes on, clean points enter the region of their class and attacked ones leave "
        "it.",
        f"Share in the region of their class, by what the network says of the image itself, epoch "
        f"{first} to {last}, all classes:{bullets(told)}± is over the seeds. The plane shows "
        f"whether a point is in the region for {100 * seen[0]:.0f} % of the clean and "
        f"{100 * seen[1]:.0f} % of the attacked points: what it does not show lies across it.",
        verdict,
        condition,
    )


def _lead(c: Columns, trained: float, count: int, space: str) -> tuple[float, float]:
    def broken(name: str) -> Values:
        rows = (c["space"] == name) & (c["trained"] == trained) & (c["directions"] == count)
        return np.asarray(c["broken"][rows][np.argsort(c["seed"][rows], kind="stable")])

    return over_seeds(broken("features") - broken(space))


def stronger(c: Columns) -> Claim:
    """Judge whether attacks in few feature directions break more than in as many pixels."""
    told: list[str] = []
    kept: list[str] = []
    refused: list[str] = []
    counts = sorted(set(c["directions"][c["space"] == "features"].astype(int).tolist()))
    for trained, words in WORDS.items():
        means = {
            space: ", ".join(
                f"{float(np.mean(c['broken'][rows])):.2f}"
                for count in counts
                if (
                    rows := (c["space"] == space)
                    & (c["trained"] == trained)
                    & (c["directions"] == count)
                ).any()
            )
            for space in SPACES
        }
        everything = np.mean(c["broken"][(c["space"] == "everything") & (c["trained"] == trained)])
        leads = {count: _lead(c, trained, count, "pixels") for count in counts}
        listed = "; ".join(f"{SPACES[space]} {text}" for space, text in means.items())
        told.append(
            f"{words}: {listed}; all directions {float(everything):.2f}; features less pixels "
            f"{', '.join(_signed(lead) for lead in leads.values())}"
        )
        for count, lead in leads.items():
            (kept if _sign(lead) > 0 else refused).append(f"{words}, directions: {count}")
    verdict, condition = _judged(kept, refused)
    return Claim(
        "Attacks along feature directions are stronger than attacks on pixels of the same length.",
        f"Share of correctly classified images that an attack of l2 length "
        f"{float(c['length'][0]):.2f} breaks within {', '.join(map(str, counts))} directions:"
        f"{bullets(told)}± is over the seeds.",
        verdict,
        condition,
    )


def carries(c: Columns) -> Claim:
    """Judge whether feature directions carry more momentum than pixels."""
    last = c["epoch"].max()
    told: list[str] = []
    kept: list[str] = []
    refused: list[str] = []
    for trained, words in WORDS.items():
        found = {}
        for space in ("gradient", *SPACES):
            rows = (c["space"] == space) & (c["trained"] == trained) & (c["epoch"] == last)
            found[space] = c["momentum_std"][rows][np.argsort(c["seed"][rows], kind="stable")]
        order = sorted(found, key=lambda space: -float(found[space].mean()))
        listed = ", ".join(f"{space} {_signed(over_seeds(found[space]), '.2f')}" for space in order)
        told.append(f"{words}: {listed}")
        lead = over_seeds(found["features"] - found["pixels"])
        (kept if _sign(lead) > 0 else refused).append(words)
    least = float(c["least_product"].min())
    verdict, condition = _judged(kept, refused)
    if least < 0.5 - 1e-3:
        verdict, condition = "not supported", ""
    return Claim(
        "Feature directions carry more momentum than pixels.",
        f"Momentum along the first direction of each kind, medians over test images at the last "
        f"epoch, through a Gaussian window, 1 / input unit:{bullets(told)}± is over the seeds. "
        f"The least product of all is {least:.4f}, the bound 1/2.",
        verdict,
        condition,
    )


def _figure(c: Mapping[str, Columns]) -> qw.Figure:
    """Draw the regions at three epochs, the radii, the attacks and the momenta."""
    there = c["plane"]
    panels = []
    for epoch in np.unique(there["epoch"]).tolist():
        kind = {
            name: (there["kind"] == name) & (there["epoch"] == epoch)
            for name in ("place", "clean", "attacked")
        }
        x, y = (np.unique(there[axis][kind["place"]]) for axis in ("x", "y"))
        surplus = there["surplus"][kind["place"]].reshape(len(x), len(y))
        panels.append(
            qw.chart(
                {
                    name: qw.Curve(there["x"][kind[name]], there["y"][kind[name]], style="dots")
                    for name in ("clean", "attacked")
                },
                x="plane of the class, first axis",
                y="second axis",
                title=f"Region of class {LABEL}, epoch {epoch:g}",
                density=(x, y, surplus),
                width=66,
            )
        )
    of = c["radii"]
    epochs = np.unique(of["epoch"])
    lines = {}
    for trained, words in ((0.0, "clean training"), (RADIUS, "adversarial")):
        by_seed = np.array(
            [
                [
                    np.mean(
                        of["attacked_radius_plane"][
                            (of["trained"] == trained)
                            & (of["epoch"] == epoch)
                            & (of["seed"] == seed)
                        ]
                    )
                    for epoch in epochs
                ]
                for seed in np.unique(of["seed"])
            ]
        )
        error = by_seed.std(axis=0, ddof=1) / math.sqrt(len(by_seed))
        lines[f"attacked, {words}"] = qw.Curve(epochs, by_seed.mean(0), error)
    same = float(np.mean(of["clean_radius_plane"]))
    lines["clean points"] = qw.Curve(epochs, np.full(len(epochs), same), style="dashed")
    radii_drawn = qw.chart(
        lines, x="epoch", y="radius in the plane", title="Radius, mean over classes", width=66
    )
    broken, curves = c["attacks"], {}
    for space, words in SPACES.items():
        rows = (broken["space"] == space) & (broken["trained"] == 0)
        counts = np.unique(broken["directions"][rows])
        values = np.array([broken["broken"][rows & (broken["directions"] == n)] for n in counts])
        error = values.std(axis=1, ddof=1) / math.sqrt(values.shape[1])
        curves[words] = qw.Curve(counts, values.mean(1), error)
    whole = (broken["space"] == "everything") & (broken["trained"] == 0)
    level = float(np.mean(broken["broken"][whole]))
    curves["all directions"] = qw.Curve(counts, np.full(len(counts), level), style="dashed")
    attacks_drawn = qw.chart(
        curves,
        x="number of directions",
        y="share broken",
        title="Attacks of equal length",
        # Room for the key.
        y_limits=(0.0, 2.5 * level + ROUNDING),
        width=66,
    )
    spaces = ("gradient", *SPACES)
    momentum: dict[str, qw.Curve] = {}
    m = c["momenta"]
    for shift, (trained, words) in zip((-0.12, 0.12), WORDS.items(), strict=True):
        place, mean, error_bar = [], [], []
        for index, space in enumerate(spaces):
            rows = (m["space"] == space) & (m["trained"] == trained)
            values = m["momentum_std"][rows & (m["epoch"] == m["epoch"].max())]
            place.append(index + shift)
            mean.append(float(values.mean()))
            error_bar.append(float(values.std(ddof=1)) / math.sqrt(len(values)))
        momentum[words.removesuffix(f" at {RADIUS:g}")] = qw.Curve(
            place, mean, error_bar, style="dots"
        )
    momenta_drawn = qw.chart(
        momentum,
        x="first direction of each kind",
        y="momentum σp (1 / input unit)",
        title="Where momentum lies",
        x_names=["gradient", "pixel", "comp.", "feature", "random"],
        width=66,
    )
    return qw.beside(*panels, radii_drawn, attacks_drawn, momenta_drawn, columns=3)


def _page(setting: Setting) -> Work[qw.Sweep]:
    yield from _trained(setting, setting.seed)
    place = _place(setting, setting.seed, _epochs(setting)[-1])
    return qw.open_sweep(place, data=_data(setting))


STUDY = Study(
    name="regions",
    title="Regions: a class, its attacked points, and where momentum lies",
    source='"Quantum-inspired analysis of neural network vulnerabilities: the role of conjugate '
    'variables in system attacks", National Science Review 2024, arXiv 2402.10983.',
    cost="about ten minutes on two cores with digits, an hour or two with the MNIST of --root; "
    "--quick about two minutes, or five",
    parts={
        "radii": radii,
        "plane": plane,
        "neighborhoods": neighborhoods,
        "attacks": attacks,
        "momenta": momenta,
    },
    conclude=conclude,
    networks=_page,
)
