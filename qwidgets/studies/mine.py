"""Study of a network of your own: what can be checked without training it.

``qwidgets reproduce mine --model module:factory --data path``. The network is measured as it is;
`study` makes the study from what was given, and refuses what cannot be meant before any work.
"""

from __future__ import annotations

import copy
import hashlib
import math
import shlex
import sys
import zipfile
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import nn

import qwidgets as qw
from qwidgets.domain import NoPacketError
from qwidgets.studies.study import (
    BEYOND_CHANCE,
    HALF,
    Claim,
    Conclusion,
    Study,
    columns,
    measured,
    rank_correlation,
    within,
)

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from qwidgets.studies.study import Columns, Row, Setting, Table, Verdict, Work

NAME = "mine"
ROUNDING = 1e-6
# Radii at which images are attacked one by one, in units of the neighbourhood's radius.
LADDER = tuple(np.linspace(0, 2, 17).tolist())
FEWEST = 5
"""Fewer pairs say nothing about a correlation."""

_MNIST = ("t10k-images-idx3-ubyte", "t10k-images-idx3-ubyte.gz")
_ARRAYS = ("inputs", "labels", "test_inputs", "test_labels", "class_names", "value_range")
_NORMALIZATION = ("mean", "std")


# What is given


class Given(NamedTuple):
    """A network and the data to measure it on."""

    model: nn.Module
    data: qw.Dataset
    normalization: tuple[Any, Any] | None


def load_model(
    place: str, weights: str | os.PathLike[str] | None = None, *, seed: int = 0
) -> nn.Module:
    """Make the network that ``module:factory`` names.

    Parameters
    ----------
    place : str
        A module, found as Python finds it from the current folder, a colon, and a name in it: of a
        function or class that returns a `torch.nn.Module` without arguments, or of such a module.
        The factory may load its weights itself.
    weights : path, optional
        A file with the weights to load into it: a state dict, by `torch.save` or as safetensors.
    seed : int
        Of the weights that the factory draws, so that a network without weights of its own is the
        same in every run.

    Raises
    ------
    TypeError, ValueError, ImportError, FileNotFoundError
        What is wrong with which part, and what to do.
    """
    name, colon, attribute = place.partition(":")
    if not (name and colon and attribute):
        message = (
            f"model must be module:factory, got {place!r}; write for example --model "
            "networks:trained for the function trained() in networks.py in the current folder."
        )
        raise ValueError(message)
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        found: object = _imported(name, place)
        for part in attribute.split("."):
            if not hasattr(found, part):
                message = (
                    f"model must name something in {name!r}, got {place!r}, but there is no "
                    f"{part!r}; check its spelling."
                )
                raise ValueError(message)
            found = getattr(found, part)
        model = found if isinstance(found, nn.Module) else _made(found, place)
    if weights is not None:
        _load_weights(model, Path(weights))
    return model


def _imported(name: str, place: str) -> object:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if name == missing or name.startswith(f"{missing}."):
            message = (
                f"model must name a module that can be imported, got {place!r}: there is no "
                f"{missing!r} in {Path.cwd()} or among the installed packages; go to its folder, "
                "or install it."
            )
        else:
            message = f"model {place!r} needs the module {missing!r}, which is missing; install it."
        raise ImportError(message) from error
    # A file of one's own may fail in any way; a script may even end the process.
    except (Exception, SystemExit) as error:
        message = (
            f"model must name a module that can be imported, but {name!r} fails with "
            f"{type(error).__name__}: {error}; what a script does when it is run belongs below "
            'if __name__ == "__main__".'
        )
        raise ImportError(message) from error


def _made(factory: object, place: str) -> nn.Module:
    if not callable(factory):
        message = (
            f"model must name a function or class that makes a torch.nn.Module, but {place!r} is "
            f"of type {type(factory).__name__}."
        )
        raise TypeError(message)
    try:
        model: object = factory()
    except (Exception, SystemExit) as error:
        message = (
            f"model must name a factory that needs no arguments, but {place!r} fails with "
            f"{type(error).__name__}: {error}; wrap it in a function that gives it what it needs."
        )
        raise ValueError(message) from error
    if not isinstance(model, nn.Module):
        message = (
            f"model must name a factory that returns a torch.nn.Module, but {place!r} returns "
            f"{type(model).__name__}; return the network."
        )
        raise TypeError(message)
    return model


def _load_weights(model: nn.Module, path: Path) -> None:
    if not path.is_file():
        message = f"weights must be a file, but there is none at {path}."
        raise FileNotFoundError(message)
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: object = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    # An unpickler and a parser of someone else's format: they may fail in any way.
    except Exception as error:
        message = (
            f"weights must be a state dict, by torch.save(model.state_dict(), path) or as "
            f"safetensors, but {path} cannot be read as one: {error}"
        )
        raise ValueError(message) from error
    if not isinstance(state, dict):
        message = (
            f"weights must be a state dict, got {type(state).__name__} in {path}; save "
            "model.state_dict()."
        )
        raise TypeError(message)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        message = f"weights in {path} must be those of the model, but: {error}"
        raise ValueError(message) from error


def load_data(
    place: str, root: str | os.PathLike[str] | None = None
) -> tuple[qw.Dataset, tuple[Any, Any] | None]:
    """Load what ``--data`` names, and the normalisation of the network if the data tell it.

    Parameters
    ----------
    place : str
        A data set that `qwidgets.load_data` knows, by its name; a folder with the files of MNIST or
        CIFAR-10; or an ``.npz`` file. The file holds ``inputs`` (n, ...) and ``labels`` (n,), all
        of which are measured, or the ones to measure as ``test_inputs`` and ``test_labels``; it may
        hold ``class_names``, ``value_range`` (low, high), and ``mean`` and ``std`` where the
        network was trained on ``(x - mean) / std``.
    root : path, optional
        Folder of the files of a named data set.

    Raises
    ------
    TypeError, ValueError, FileNotFoundError, ConnectionError
        What is wrong, and what to do.
    """
    if place in {"digits", "moons", "mnist", "cifar10"}:
        named = place in {"mnist", "cifar10"}
        return qw.load_data(place, root=root if named else None), None
    path = Path(place)
    if path.is_dir():
        return qw.load_data(_kind_of_folder(path), root=path), None
    if not path.is_file():
        message = (
            "data must be digits, moons, mnist, cifar10, a folder with the files of MNIST or "
            f"CIFAR-10, or an .npz file, but there is nothing at {place!r}."
        )
        raise FileNotFoundError(message)
    arrays = _arrays(path)
    normalization = None
    if any(name in arrays for name in _NORMALIZATION):
        if not all(name in arrays for name in _NORMALIZATION):
            message = f"data in {path} must hold both mean and std, or neither; add the other."
            raise ValueError(message)
        normalization = (arrays["mean"], arrays["std"])
    inputs, labels = (arrays.get(f"test_{name}", arrays.get(name)) for name in _ARRAYS[:2])
    given: dict[str, Any] = {}
    if "class_names" in arrays:
        given["class_names"] = [str(name) for name in np.atleast_1d(arrays["class_names"])]
    if "value_range" in arrays:
        ends = np.ravel(arrays["value_range"])
        if len(ends) != 2:  # noqa: PLR2004
            message = f"value_range in {path} must be two numbers, (low, high), got {len(ends)}."
            raise ValueError(message)
        given["value_range"] = (float(ends[0]), float(ends[1]))
    assert inputs is not None
    assert labels is not None
    # Nothing is trained: what is measured stands in the place of training data.
    data = qw.Dataset.from_arrays(
        inputs, labels, test_inputs=inputs, test_labels=labels, name=path.stem, **given
    )
    return data, normalization


def _kind_of_folder(path: Path) -> str:
    inner = {
        "mnist": [path / name for name in _MNIST] + [path / "mnist" / name for name in _MNIST],
        "cifar10": [*path.glob("test_batch*.bin*"), *path.glob("cifar10/test_batch*.bin*")],
    }
    there = [name for name, files in inner.items() if any(file.is_file() for file in files)]
    if len(there) == 1:
        return there[0]
    message = f"data must be a folder with the files of MNIST or of CIFAR-10, but {path} holds " + (
        "both; name the folder of one." if there else "neither; arrays go in an .npz file."
    )
    raise ValueError(message)


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            if not isinstance(file, np.lib.npyio.NpzFile):
                message = f"data in {path} must be named arrays; write them with numpy.savez."
                raise TypeError(message)
            arrays = {name: file[name] for name in file.files}
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        message = (
            f"data must be an .npz file of plain arrays, but {path} cannot be read as one "
            f"({error}); write it with numpy.savez(path, inputs=..., labels=...)."
        )
        raise ValueError(message) from error
    known = {*_ARRAYS, *_NORMALIZATION}
    one_pair = {"inputs", "labels"} <= arrays.keys()
    other = {"test_inputs", "test_labels"}
    if not (other <= arrays.keys() or (one_pair and not other & arrays.keys())):
        message = (
            f"data in {path} must hold inputs and labels, or test_inputs and test_labels, got "
            f"{', '.join(sorted(arrays)) or 'nothing'}; known names are {', '.join(sorted(known))}."
        )
        raise ValueError(message)
    return arrays


def study(
    model: str,
    data: str,
    *,
    weights: str | os.PathLike[str] | None = None,
    root: str | os.PathLike[str] | None = None,
) -> Study:
    """Make the study of a network of your own.

    Parameters
    ----------
    model, weights
        As for `load_model`.
    data, root
        As for `load_data`.

    Returns
    -------
    Study

    Raises
    ------
    TypeError, ValueError, ImportError, FileNotFoundError, ConnectionError
        As those; also a model that is no classifier of the data.
    """
    samples, normalization = load_data(data, root)
    given = Given(load_model(model, weights), samples, normalization)
    _check_weights(given.model)
    # Refuses what cannot be measured, before anything is done.
    qw.iterate_measurement(given.model, given.data, normalization=normalization).close()
    arguments = {"model": model, "data": data, "weights": weights}
    work = _Work(given)
    return Study(
        name=NAME,
        title=f"Your network {model} on {samples.name}",
        source="Measured as it is, in eval mode, and not trained.",
        cost="as long as attacking a thousand images and a look at every class take: on two cores "
        "a minute for a small network",
        parts={"robustness": work.robustness, "classes": work.classes, "images": work.images},
        conclude=conclude,
        networks=work.page,
        arguments="".join(
            f" --{name} {shlex.quote(str(value))}"
            for name, value in arguments.items()
            if value is not None
        ),
        given=_fingerprint(given),
    )


def _check_weights(model: nn.Module) -> None:
    for name, value in [*model.named_parameters(), *model.named_buffers()]:
        if value.device.type == "meta":
            message = (
                f"model must hold its weights, but {name!r} is on the device 'meta', which holds "
                "none; load them in the factory, on a real device."
            )
            raise ValueError(message)
        if value.is_floating_point() and not value.isfinite().all():
            message = (
                f"model must have finite weights, got NaN or infinity in {name!r}; take those of a "
                "training that did not diverge."
            )
            raise ValueError(message)


def _fingerprint(given: Given) -> str:
    """Checksum of the data, the weights and what the network answers.

    The answers tell networks apart that differ in their code alone. They are rounded: the order in
    which a machine adds up does not count.
    """
    digest = hashlib.sha256(given.data.checksum.encode())
    for answer in _losses(given.model, given.data).flatten().tolist():
        digest.update(f"{answer:.3g} ".encode())
    digest.update(repr((str(given.model), given.normalization)).encode())
    for name, value in given.model.state_dict().items():
        digest.update(name.encode())
        if isinstance(value, torch.Tensor):
            digest.update(value.detach().cpu().double().numpy().tobytes())
    return digest.hexdigest()


def _losses(model: nn.Module, data: qw.Dataset) -> torch.Tensor:
    """Loss of every label at a few inputs, (n, classes)."""
    loss = qw.packet_loss(model, range(data.classes), data.input_shape)
    with torch.no_grad():
        return loss(data.test_inputs[:16].flatten(1))


# What is measured


def _precise(model: nn.Module, data: qw.Dataset) -> nn.Module:
    """Copy in double precision, or in single if the code of the network insists on it."""
    network = copy.deepcopy(model).double()
    try:
        _losses(network, data)
    except ValueError:
        network.float()
    return network


class _Work:
    """The parts of the study; the measurement is made once a run."""

    def __init__(self, given: Given) -> None:
        self._given = given
        self._done: qw.Measurement | None = None

    def _measurement(self, setting: Setting) -> Work[qw.Measurement]:
        data = self._given.data
        size = min(setting.choose(smallest=100, quick=500, full=1_000), len(data.test_labels))
        if self._done is None:
            for state in qw.iterate_measurement(
                self._given.model,
                data,
                normalization=self._given.normalization,
                test_size=size,
                probe_images=setting.choose(smallest=3, quick=5, full=7),
                seed=setting.seed,
            ):
                yield state.fraction
                self._done = state.measurement or self._done
        assert self._done is not None
        return self._done

    def robustness(self, setting: Setting) -> Work[Table]:
        """Attack all images: accuracy against radius, with binomial errors."""
        found = yield from self._measurement(setting)
        at = found.dataset.isel(model=0)
        labels = found.data.test_labels.numpy()
        return [
            {
                "attack_epsilon": radius,
                "accuracy": float(at.robust_accuracy[index]),
                "accuracy_error": float(at.robust_accuracy_error[index]),
                "images": len(labels),
                "commonest_class": float(np.bincount(labels).max() / len(labels)),
            }
            for index, radius in enumerate(at.attack_epsilon.values.tolist())
        ]

    def classes(self, setting: Setting) -> Work[Table]:
        """Measure the neighbourhood of every class, pixel by pixel, in double precision.

        The errors are those of the estimates; those of accuracies are binomial.
        """
        found = yield from within(self._measurement(setting), 0, 2)
        at, data = found.dataset.isel(model=0), found.data
        radius = float(found.dataset.attrs["neighborhood_radius"])
        place = _reference(at.attack_epsilon.values, radius)
        network = _precise(found.model("model"), data)
        table: Table = []
        for label in range(data.classes):
            images = data.test_inputs[data.test_labels == label].flatten(1).double()
            halves = _halves(
                qw.packet_loss(network, label, data.input_shape),
                qw.Neighborhood(images, radius, clip=data.value_range),
                setting,
            )
            try:
                first, second = yield from within(within(halves, label, data.classes), 1, 2)
            except NoPacketError:
                continue
            table.append(
                {
                    "label": label,
                    "class": data.class_names[label],
                    "images": len(images),
                    "clean_accuracy": float(at.label_accuracy[label, 0]),
                    "clean_accuracy_error": float(at.label_accuracy_error[label, 0]),
                    "robust_accuracy": float(at.label_accuracy[label, place]),
                    "robust_accuracy_error": float(at.label_accuracy_error[label, place]),
                    **_radii(first, second),
                }
            )
        if not table:
            message = (
                "model must have a loss above zero somewhere near the images of a class, got none; "
                "such a network has no packets."
            )
            raise ValueError(message)
        return table

    def images(self, setting: Setting) -> Work[Table]:
        """Take the packet along the attack of single images, and the radius that breaks each.

        ``withstood`` is the largest of a ladder of radii at which the image, and at all smaller
        ones, stayed classified correctly under attack.
        """
        found = yield from within(self._measurement(setting), 0, 2)
        attributes = found.dataset.attrs
        few = found.data
        count = min(setting.choose(smallest=20, quick=100, full=400), len(few.test_labels))
        few = few.subset(test=max(count, few.classes))
        network = _precise(found.model("model"), few)
        radii = [float(attributes["neighborhood_radius"]) * step for step in LADDER]
        stays = qw.withstands(
            network,
            few.test_inputs.double(),
            few.test_labels,
            radii,
            norm=attributes["norm"],
            value_range=few.value_range,
            seed=setting.seed,
        )
        table: Table = []
        for index, label in enumerate(few.test_labels.tolist()):
            yield (1 + index / len(few.test_labels)) / 2
            # An image in the wrong class has nothing to withstand.
            if not stays[0, index]:
                continue
            loss = qw.packet_loss(network, label, few.input_shape)
            image = few.test_inputs[index].flatten().double()
            try:
                direction = qw.attack_directions(loss, image)[0]
                s = qw.section(loss, image, direction, float(attributes["width"]))
            except ValueError:  # no direction, or no packet
                continue
            table.append(
                {
                    "image": index,
                    "label": label,
                    "position_mean": s.position_mean,
                    "position_std": s.position_std,
                    "momentum_std": s.momentum_std,
                    "product": s.product,
                    "withstood": float(radii[int(stays[:, index].sum()) - 1]),
                }
            )
        if not table:
            message = (
                "model must classify some images correctly, got none of "
                f"{len(few.test_labels)}; check its weights, the normalization and the labels."
            )
            raise ValueError(message)
        return table

    def page(self, setting: Setting) -> Work[qw.Measurement]:
        """Return what the Explorer shows."""
        return self._measurement(setting)


def _reference(radii: NDArray[np.float64], radius: float) -> int:
    """Place of the measured attack radius that is nearest to that of the neighbourhoods."""
    return int(np.abs(radii - radius).argmin())


def _halves(
    loss: Callable[[torch.Tensor], torch.Tensor], domain: qw.Neighborhood, setting: Setting
) -> Work[tuple[qw.Uncertainty, qw.Uncertainty]]:
    """Two independent estimates: against its own bound none can fail, against the other's it can.

    An estimate comes from sums to which Cauchy and Schwarz's inequality applies, whatever they are.
    """
    found = []
    for half in range(2):
        work = measured(
            loss,
            domain,
            samples=setting.choose(smallest=256, quick=512, full=2048),
            seed=2 * setting.seed + half,
        )
        found.append((yield from within(work, half, 2)))
    return found[0], found[1]


def _margins(one: qw.Uncertainty, other: qw.Uncertainty) -> NDArray[np.float64]:
    """Products of one estimate minus the bounds of the other, in standard errors."""
    error = np.hypot(one.standard_error["product"], other.standard_error["bound"])
    return np.asarray((one.product - other.bound) / error)


def _radii(first: qw.Uncertainty, second: qw.Uncertainty) -> Row:
    u = first.merge(second)
    margins = np.minimum(_margins(first, second), _margins(second, first))
    error = u.standard_error
    slack = BEYOND_CHANCE * np.asarray(error["product"])
    low = u.product < HALF - slack
    inside = np.abs(u.boundary) <= BEYOND_CHANCE * np.asarray(error["boundary"])
    return {
        "Dx": u.total_position_std,
        "Dx_error": float(error["total_position_std"]),
        "Dp": u.total_momentum_std,
        "Dp_error": float(error["total_momentum_std"]),
        "bound": float(u.bound.sum()),
        "bound_error": float(np.sum(error["bound"])),
        "boundary": float(u.boundary.mean()),
        "boundary_error": float(np.mean(error["boundary"])),
        "pixels": len(u.product),
        "pixels_below_bound": int((margins < -BEYOND_CHANCE).sum()),
        "least_margin": float(margins.min()),
        "pixels_below_half": int(low.sum()),
        "pixels_below_half_without_boundary": int((low & inside).sum()),
        "self_check": float(u.self_check),
    }


# What follows


def conclude(tables: Mapping[str, Table]) -> Conclusion:
    """Draw the conclusions of the study from its tables."""
    curve, classes, images = (columns(tables[name]) for name in ("robustness", "classes", "images"))
    claims = (
        _knows(curve),
        _bound(classes, images),
        _one_half(classes, images),
        _correlated(
            "What is narrower in position is wider in momentum.",
            "position and momentum along the attack",
            images["position_std"],
            images["momentum_std"],
            "images",
        ),
        _fragile(images),
        _correlated(
            "Classes with more momentum in their neighbourhood are less robust.",
            "Dp and robust accuracy",
            classes["Dp"],
            classes["robust_accuracy"],
            "classes",
        ),
    )
    return Conclusion(claims, _figures(curve, classes, images))


def _knows(c: Columns) -> Claim:
    accuracy, chance = float(c["accuracy"][0]), float(c["commonest_class"][0])
    slack = BEYOND_CHANCE * math.sqrt(chance * (1 - chance) / float(c["images"][0]))
    above = accuracy > chance + slack
    return Claim(
        "The network classifies better than chance.",
        f"{int(c['images'][0])} images: {100 * accuracy:.1f} ± "
        f"{100 * float(c['accuracy_error'][0]):.1f} % classified correctly, against "
        f"{100 * chance:.1f} % for its commonest class; under attack "
        + ", ".join(
            f"{100 * a:.1f} ± {100 * e:.1f} % at {radius:.3g}"
            for radius, a, e in zip(
                c["attack_epsilon"][1:], c["accuracy"][1:], c["accuracy_error"][1:], strict=True
            )
        )
        + ".",
        "supported" if above else "not supported",
        ""
        if above
        else "Nothing below says much then. If it was trained on normalised inputs, put mean and "
        "std into the .npz file or the normalisation into the model; check weights and labels.",
    )


def _bound(c: Columns, images: Columns) -> Claim:
    least = float(images["product"].min())
    below = int(c["pixels_below_bound"].sum())
    product = c["Dx"] * c["Dp"]
    error = product * np.hypot(c["Dx_error"] / c["Dx"], c["Dp_error"] / np.maximum(c["Dp"], 1e-300))
    classes_below = int(
        (product < c["bound"] - BEYOND_CHANCE * np.hypot(error, c["bound_error"])).sum()
    )
    check = float(c["self_check"].max())
    holds = least >= HALF - ROUNDING and below == 0 and classes_below == 0
    holds = holds and check <= BEYOND_CHANCE
    return Claim(
        "The bound holds: σx σp ≥ 1/2 along every attack, σx σp ≥ |C| for every pixel of every "
        "class's neighbourhood, Dx Dp ≥ Σ|C| for every class.",
        f"{len(images['product'])} images: the least product is {least:.6f}. "
        f"{len(c['Dx'])} classes: {below} of {int(c['pixels'].sum())} pixels and {classes_below} "
        f"classes are below the bound by more than {BEYOND_CHANCE:.0f} standard errors; each "
        f"product is held against the bound of an independent estimate, the least difference is "
        f"{float(c['least_margin'].min()):+.1f} standard errors. The largest self-check is "
        f"{check:.1f}.",
        "supported" if holds else "not supported",
    )


def _one_half(c: Columns, images: Columns) -> Claim:
    below, pixels = int(c["pixels_below_half"].sum()), int(c["pixels"].sum())
    along = bool((images["product"] >= HALF - ROUNDING).all())
    against = int(c["pixels_below_half_without_boundary"].sum())
    free = along and below > 0 and not against
    verdict: Verdict = "supported" if along and not below else "not supported"
    if free:
        verdict = "supported under a condition"
    return Claim(
        "σx σp ≥ 1/2 (the papers' statement for images).",
        f"In the neighbourhoods of the classes {below} of {pixels} pixels are below 1/2 by more "
        f"than {BEYOND_CHANCE:.0f} standard errors, {against} of them where no boundary term is "
        f"seen; the boundary term B is "
        f"{float(c['boundary'].min()):.3f} to {float(c['boundary'].max()):.3f} (mean over the "
        f"pixels of a class). Along the attack, through a window, B is 0.",
        verdict,
        "Where the packet does not reach the boundary: through a window." if free else "",
    )


class Correlation(NamedTuple):
    """Spearman's rank correlation of n pairs, its standard error and 95 % interval."""

    value: float
    error: float
    low: float
    high: float


def correlation(x: NDArray[np.float64], y: NDArray[np.float64]) -> Correlation | None:
    """Estimate a rank correlation, with Bonett and Wright's error of Fisher's transform.

    None where there are too few pairs, or all are the same.

    References
    ----------
    Bonett and Wright, "Sample size requirements for estimating Pearson, Kendall and Spearman
    correlations", Psychometrika 65 (2000).
    """
    if len(x) < FEWEST or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    value = float(rank_correlation(x, y))
    inside = min(max(value, -1 + 1e-9), 1 - 1e-9)
    z, error = math.atanh(inside), math.sqrt((1 + value**2 / 2) / (len(x) - 3))
    return Correlation(
        value,
        error * (1 - inside**2),
        math.tanh(z - 1.96 * error),
        math.tanh(z + 1.96 * error),
    )


def _correlated(
    text: str, what: str, x: NDArray[np.float64], y: NDArray[np.float64], of: str
) -> Claim:
    """Judge a claim that two quantities fall as the other rises."""
    found = correlation(x, y)
    if found is None:
        same = f"at least {FEWEST} {of} that differ are needed, there are {len(x)}"
        return Claim(text, f"Nothing can be said: {same}.", "not supported", "Not measurable here.")
    holds = found.high < 0
    remark = "The reverse." if found.low > 0 else "The interval does not exclude 0."
    return Claim(
        text,
        f"Rank correlation of {what} over {len(x)} {of}: {found.value:+.3f} ± {found.error:.3f}, "
        f"95 % interval {found.low:+.3f} to {found.high:+.3f}.",
        "supported" if holds else "not supported",
        "" if holds else remark,
    )


def _fragile(c: Columns) -> Claim:
    """Judge whether momentum goes with fragility; if the reverse is seen, say where it is from."""
    claim = _correlated(
        "Images with more momentum along the attack are broken at smaller radii.",
        "momentum and the largest radius withstood",
        c["momentum_std"],
        c["withstood"],
        "images",
    )
    found = correlation(c["momentum_std"], c["withstood"])
    where = correlation(c["position_mean"], c["withstood"])
    if found is None or where is None or found.low <= 0 or where.low <= 0:
        return claim
    return claim._replace(
        condition="The reverse. The packet of an image that withstands more lies farther out along "
        f"the attack, where the boundary is (rank correlation {where.value:+.3f} ± "
        f"{where.error:.3f}), and the window leaves it narrow there. The papers' statement "
        "compares networks, not images of one."
    )


def _figures(curve: Columns, classes: Columns, images: Columns) -> dict[str, qw.Figure]:
    position = np.geomspace(
        float(images["position_std"].min()) / 1.1, float(images["position_std"].max()) * 1.1, 50
    )
    plane = qw.chart(
        {"images": qw.Curve(images["position_std"], images["momentum_std"], style="dots")},
        x="position σx along the attack (input units)",
        y="momentum σp (1 / input unit)",
        title="The packet of each image",
        log="xy",
        forbidden_below=(position, HALF / position),
    )
    fragile = qw.chart(
        {"images": qw.Curve(images["momentum_std"], images["withstood"], style="dots")},
        x="momentum σp along the attack (1 / input unit)",
        y="largest radius withstood (input units)",
        title="Momentum and fragility of images",
    )
    of_classes = qw.chart(
        {
            "classes": qw.Curve(
                classes["Dp"],
                classes["robust_accuracy"],
                classes["robust_accuracy_error"],
                style="dots",
            )
        },
        x="Dp of the neighbourhood (1 / input unit)",
        y="robust accuracy",
        title="Momentum and robustness of classes",
    )
    robust = qw.chart(
        {
            "the network": qw.Curve(
                curve["attack_epsilon"], curve["accuracy"], curve["accuracy_error"]
            )
        },
        x="attack radius (input units)",
        y="accuracy under attack",
        title="Accuracy against attack radius",
        y_limits=(-0.02, 1.02),
    )
    return {NAME: qw.beside(plane, fragile, of_classes, robust)}
