"""What a sweep is asked to do: its arguments, checked and with all defaults filled in.

`Arguments` is what a caller writes, `SweepSettings` what fixes every number, `Plan` what is ready
to run. Whatever cannot be done is refused here, before anything is trained.
"""

from __future__ import annotations

import copy
import math
import operator
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import KW_ONLY, asdict, dataclass, fields
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn.parameter import is_lazy

from qwidgets.architectures import build_model
from qwidgets.batches import Work
from qwidgets.checks import one_of, positive, whole
from qwidgets.data import Dataset, stored_data
from qwidgets.ensemble import batched_forward
from qwidgets.measurement import Probes
from qwidgets.memory import Memory, needed, refuse_too_much
from qwidgets.models import check_outputs
from qwidgets.neighborhoods import DETAILS, Detail
from qwidgets.training import REGULARIZERS, Objective, Regularizer, TrainingSettings, check_task

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from numpy.typing import ArrayLike

    Architecture = Callable[[], nn.Module]
    Size = int | Literal["all"] | None


class _Radii(NamedTuple):
    """Default radii of a data set, in the l-infinity norm and in input units."""

    epsilon: tuple[float, ...]
    attack_epsilon: tuple[float, ...]
    reference: float


# Of every data set that has a name.
RADII = {
    "digits": _Radii(
        (0, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3), (0, 0.025, 0.05, 0.1, 0.15, 0.2), 0.1
    ),
    "mnist": _Radii(
        (0, 0.025, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3), (0, 0.05, 0.1, 0.15, 0.2, 0.3), 0.1
    ),
    "cifar10": _Radii(
        tuple(step / 255 for step in (0, 1, 2, 3, 4, 6, 8, 12)),
        tuple(step / 255 for step in (0, 1, 2, 4, 8, 12)),
        8 / 255,
    ),
    "moons": _Radii(
        (0, 0.025, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3), (0, 0.05, 0.1, 0.15, 0.2, 0.3), 0.2
    ),
    "temperature": _Radii(
        (0, 0.005, 0.01, 0.02, 0.03, 0.04, 0.06, 0.08), (0, 0.01, 0.02, 0.03, 0.05, 0.08), 0.05
    ),
    "friedman": _Radii(
        (0, 0.0125, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2), (0, 0.025, 0.05, 0.1, 0.15, 0.2), 0.1
    ),
}
_STRENGTHS: dict[Regularizer, tuple[float, ...]] = {
    "gradient": (0, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3),
    "weight_decay": (0, 0.1, 0.3, 1, 3, 10, 30, 100),
    "label_smoothing": (0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6),
}
# Unless asked for more, large data sets are cut to what two cores train and measure in minutes.
_TRAIN_SIZES = {"mnist": 10_000, "cifar10": 10_000}
_TEST_SIZE = 1_000
_LEARNING_RATES = {"mlp": 2e-3, "conv": 2e-3, "encoder_decoder": 4e-3}
# On the digits grid 5 steps find within half a point of what 50 find.
_MEASUREMENT_STEPS = 5
# Eight for each of the sixteen replicates of `uncertainty`.
_FEWEST_SAMPLES = 128
OWN_MODEL = "custom"


@dataclass(frozen=True, kw_only=True)
class SweepSettings:
    """Everything that fixes a sweep, with all defaults filled in; see `sweep` for the meaning."""

    data: str
    model: str
    epsilon: tuple[float, ...]
    regularization: tuple[float, ...]
    regularizer: Regularizer
    epochs: int
    seed: int
    device: str
    norm: Literal["linf", "l2"]
    objective: Objective
    attack_steps: int
    warm_up: float
    trades_weight: float
    batch_size: int
    learning_rate: float
    width: float
    attack_epsilon: tuple[float, ...]
    train_size: int
    test_size: int
    probe_images: int
    detail: Detail | None
    # Later than the others: sweeps saved before have these values.
    attack_step: float = TrainingSettings.attack_step
    detail_samples: int = Probes.neighborhood_samples


@dataclass(frozen=True)
class Arguments:
    """What `iterate_sweep` takes."""

    data: str | Dataset = "digits"
    model: str | Architecture = "mlp"
    epsilon: ArrayLike | None = None
    regularization: ArrayLike | None = None
    regularizer: Regularizer = "gradient"
    epochs: int = 20
    seed: int = 0
    device: str = "auto"
    _: KW_ONLY
    store: str | os.PathLike[str] | None = None
    executor: Executor | None = None
    root: str | os.PathLike[str] | None = None
    train_size: Size = None
    test_size: Size = None
    norm: Literal["linf", "l2"] = "linf"
    objective: Objective = TrainingSettings.objective
    attack_steps: int = 5
    attack_step: float = TrainingSettings.attack_step
    warm_up: float = TrainingSettings.warm_up
    trades_weight: float = TrainingSettings.trades_weight
    attack_epsilon: ArrayLike | None = None
    width: float | None = None
    probe_images: int = 7
    detail: Detail | None = "last-epoch"
    detail_samples: int = Probes.neighborhood_samples
    batch_size: int = 64
    learning_rate: float | None = None


class Plan(NamedTuple):
    """What a sweep does, checked and with all defaults filled in."""

    settings: SweepSettings
    architecture: Architecture
    work: Work
    memory: Memory


def planned(arguments: Arguments) -> Plan:
    """Check what a sweep is asked to do, and fill in what follows from the data.

    Raises
    ------
    TypeError, ValueError, FileNotFoundError, ConnectionError, MemoryError
        As for `qwidgets.sweep`.
    """
    probe_images = whole(arguments.probe_images, "probe_images", 1, "raise it")
    if probe_images % 2 == 0:
        message = (
            "probe_images must be odd, so that their median is one of them, "
            f"got {probe_images}; use {probe_images + 1}."
        )
        raise ValueError(message)
    regularizer, norm = arguments.regularizer, arguments.norm
    one_of("regularizer", regularizer, REGULARIZERS)
    one_of("norm", norm, ("linf", "l2"))

    def default(value: Any, otherwise: Any) -> Any:
        return otherwise if value is None else value

    model = arguments.model
    common = {field.name: getattr(arguments, field.name) for field in fields(TrainingSettings)}
    rate = default(arguments.learning_rate, _LEARNING_RATES.get(str(model), 1e-3))
    training = TrainingSettings(**common | {"learning_rate": rate})
    if arguments.detail is not None:
        one_of("detail", arguments.detail, DETAILS)
    executor: object = arguments.executor
    if not isinstance(executor, Executor | None):
        message = (
            "executor must be a concurrent.futures.Executor, got "
            f"{type(executor).__name__}; of a dask Client take client.get_executor()."
        )
        raise TypeError(message)
    place = _device(arguments.device, elsewhere=executor is not None)
    data = loaded(arguments.data, arguments.root, arguments.train_size, arguments.test_size)
    architecture = _architecture(model, data, training.seed)

    low, high = data.value_range
    root_of_features = math.sqrt(math.prod(data.input_shape))
    # The largest distance inside the value range, and what turns default radii into radii of norm.
    largest = (high - low) * (root_of_features if norm == "l2" else 1)
    scale = root_of_features / 2 if norm == "l2" else 1.0
    radii = RADII.get(data.name) or _scaled(RADII["digits"], high - low)

    attacks = _grid(
        "attack_epsilon",
        default(arguments.attack_epsilon, np.multiply(radii.attack_epsilon, scale)),
        largest,
        "the extent of value_range",
    )
    if attacks[0] != 0:
        message = (
            f"attack_epsilon must begin with 0, which is clean accuracy, got {attacks[0]:g} first; "
            "put 0 before it."
        )
        raise ValueError(message)
    settings = SweepSettings(
        data=data.name,
        model=model if isinstance(model, str) else OWN_MODEL,
        epsilon=_grid(
            "epsilon",
            default(arguments.epsilon, np.multiply(radii.epsilon, scale)),
            largest,
            "the extent of value_range",
        ),
        regularization=_grid(
            "regularization",
            default(arguments.regularization, _STRENGTHS[regularizer]),
            1.0 if regularizer == "label_smoothing" else math.inf,
            "the whole target",
        ),
        device=str(place),
        width=positive(
            default(arguments.width, radii.reference * root_of_features / 2),
            "width",
            "the deviation of the window in input units",
        ),
        attack_epsilon=attacks,
        train_size=len(data.train_labels),
        test_size=len(data.test_labels),
        probe_images=probe_images,
        detail=arguments.detail,
        detail_samples=whole(
            arguments.detail_samples, "detail_samples", _FEWEST_SAMPLES, "a standard error needs it"
        ),
        **asdict(training),
    )
    check_task(training, data.task)
    columns, rows = len(settings.regularization), len(settings.epsilon)
    work = Work(
        network=architecture(),
        data=data,
        probes=_probes(settings, data, radii.reference, scale),
        epsilon=torch.tensor(settings.epsilon, dtype=torch.float64).repeat_interleave(columns),
        regularization=torch.tensor(settings.regularization, dtype=torch.float64).repeat(rows),
        training=training,
        device=settings.device,
        detail=settings.detail,
    )
    memory = needed(work)
    if executor is None:
        refuse_too_much(memory, settings.device)
    return Plan(settings, architecture, work, memory)


def loaded(
    data: object, root: str | os.PathLike[str] | None, train_size: Size, test_size: Size
) -> Dataset:
    """Give the data of a sweep, cut to what it trains and measures on."""
    if isinstance(data, str):
        stored = stored_data(data, root=root)
        there, most = len(stored.train_labels), _TRAIN_SIZES.get(data)
        train = _size("train_size", train_size, there, most)
        test = _size("test_size", test_size, len(stored.test_labels), _TEST_SIZE)
        return stored.dataset(data, train, test)
    if isinstance(data, Dataset):
        train = _size("train_size", train_size, len(data.train_labels), None)
        test = _size("test_size", test_size, len(data.test_labels), _TEST_SIZE)
        return data.subset(train, test)
    message = (
        f"data must be a name or a Dataset, got {type(data).__name__}; "
        "Dataset.from_arrays takes arrays."
    )
    raise TypeError(message)


def _size(name: str, size: Size, there: int, most: int | None) -> int:
    """Say how many of the images that there are to take, by default at most so many."""
    if size is None:
        return there if most is None else min(most, there)
    if isinstance(size, str) and size == "all":
        return there
    try:
        count = operator.index(size)
    except TypeError:
        message = f"{name} must be a whole number of images or 'all', got {size!r}."
        raise TypeError(message) from None
    if not 1 <= count <= there:
        message = (
            f"{name} must be in 1..{there}, the images that there are, got {count}; "
            "'all' takes every one."
        )
        raise ValueError(message)
    return count


def _scaled(radii: _Radii, factor: float) -> _Radii:
    epsilon, attack_epsilon, reference = radii
    return _Radii(
        tuple(factor * value for value in epsilon),
        tuple(factor * value for value in attack_epsilon),
        factor * reference,
    )


def _probes(settings: SweepSettings, data: Dataset, reference: float, scale: float) -> Probes:
    counts = torch.bincount(data.test_labels, minlength=data.classes)
    fewest = int(counts.min())
    if fewest == 0:
        absent = int(counts.argmin())
        remedy = "raise test_size or name fewer classes"
        if not (data.train_labels == absent).any():
            remedy = (
                "training has none either: number the classes from 0 without gaps, with "
                "np.unique(labels, return_inverse=True)[1], or raise train_size and test_size"
            )
        message = (
            "data must have test images of every class, got none of "
            f"{data.class_names[absent]!r}; {remedy}."
        )
        raise ValueError(message)
    images = min(settings.probe_images, fewest - (fewest + 1) % 2)
    first = [(data.test_labels == label).nonzero()[:images, 0] for label in range(data.classes)]
    return Probes(
        inputs=data.test_inputs,
        y=data.test_y,
        labels=data.test_labels,
        task=data.task,
        packets=torch.stack(first),
        width=settings.width,
        reference_epsilon=reference * scale,
        neighborhood_radius=reference,
        attack_epsilon=settings.attack_epsilon,
        attack_steps=max(settings.attack_steps, _MEASUREMENT_STEPS),
        norm=settings.norm,
        value_range=data.value_range,
        seed=settings.seed,
        neighborhood_samples=settings.detail_samples,
    )


def default_probes(
    data: Dataset,
    *,
    norm: Literal["linf", "l2"],
    attack_epsilon: ArrayLike | None,
    attack_steps: int,
    width: float | None,
    probe_images: int,
    seed: int,
) -> Probes:
    """Choose what networks are measured on, with the defaults and the checks of a sweep.

    Parameters
    ----------
    data, norm, attack_epsilon, attack_steps, width, probe_images, seed
        As for `sweep`.

    Returns
    -------
    Probes

    Raises
    ------
    TypeError, ValueError
        As for `sweep`.
    """
    # A sweep of nothing: its plan holds the probes.
    plan = planned(
        Arguments(
            data=data,
            model="mlp",
            epsilon=[0],
            regularization=[0],
            device="cpu",
            seed=seed,
            test_size=len(data.test_labels),
            norm=norm,
            attack_epsilon=attack_epsilon,
            attack_steps=attack_steps,
            width=width,
            probe_images=probe_images,
        )
    )
    return plan.work.probes


def _architecture(model: object, data: Dataset, seed: int) -> Architecture:
    """Return a function that builds the network with its initial weights, tried once."""
    if isinstance(model, str):
        build_model(model, data, seed=seed)
        return partial(build_model, model, data, seed=seed)
    if isinstance(model, nn.Module) or not callable(model):
        message = (
            "model must be a name or a function that returns a new torch.nn.Module, got "
            f"{type(model).__name__}; pass lambda: ... that builds it."
        )
        raise TypeError(message)

    def build() -> nn.Module:
        # The factory draws its weights from the global generator: lend it ours, give theirs back.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return model()  # type: ignore[no-any-return]

    try:
        network: object = build()
    except TypeError as error:
        message = (
            f"model must make a network when called without arguments, but: {error}; pass "
            "lambda: ... that builds it."
        )
        raise TypeError(message) from error
    if not isinstance(network, nn.Module):
        message = (
            "model must return a torch.nn.Module when called, got "
            f"{type(network).__name__}; return the network from it."
        )
        raise TypeError(message)
    if build() is network:
        message = (
            "model must return a new network at every call, got the same one twice; build it "
            "inside of the function."
        )
        raise ValueError(message)
    lazy = [name for name, value in network.named_parameters() if value.is_meta or is_lazy(value)]
    if lazy or isinstance(network, torch.jit.ScriptModule | nn.DataParallel):
        what = f"the parameter {lazy[0]!r} without values" if lazy else type(network).__name__
        message = (
            f"model must return a plain torch.nn.Module that is ready to train, got {what}; give "
            "lazy layers their sizes, and leave out scripting and DataParallel."
        )
        raise ValueError(message)
    try:
        copy.deepcopy(network)
    except Exception as error:
        message = (
            f"model must return a network that copy.deepcopy can copy, but: {error}; let it hold "
            "parameters and buffers alone."
        )
        raise TypeError(message) from error
    check_outputs(network.cpu().eval(), data, "model")
    if not any(value.requires_grad for value in network.parameters()):
        message = (
            "model must have parameters to train, got none with requires_grad; measure() takes "
            "networks as they are."
        )
        raise ValueError(message)
    batched_forward(network, data.input_shape)
    return build


def _device(name: str, *, elsewhere: bool) -> torch.device:
    """Check a device; that of other machines can only be taken at its word."""
    if elsewhere and name != "auto":
        with suppress(RuntimeError, TypeError):
            return torch.device(name)
    usable = usable_devices()
    if name == "auto":
        return torch.device("cuda" if "cuda" in usable else "cpu")
    if name not in usable:
        why = " (which lacks the double precision that sums are kept in)" * (name == "mps")
        message = (
            f"device must be 'auto' or one of {', '.join(map(repr, usable))}, got {name!r}{why}; "
            "'auto' takes the fastest there is."
        )
        raise ValueError(message)
    return torch.device(name)


def usable_devices() -> list[str]:
    """Name the devices of this machine that can compute a sweep."""
    cuda = torch.cuda.device_count()
    return ["cpu", *(["cuda"] if cuda else []), *(f"cuda:{index}" for index in range(cuda))]


def _grid(name: str, values: ArrayLike, largest: float, meaning: str) -> tuple[float, ...]:
    """Check the values of a grid axis: increasing, from 0 to what the largest one can mean."""
    try:
        axis = np.atleast_1d(np.asarray(values, dtype=np.float64))
    except (TypeError, ValueError):
        message = f"{name} must be numbers, got {values!r}; pass a list of floats."
        raise ValueError(message) from None
    if axis.ndim != 1 or axis.size == 0:
        message = f"{name} must be a list of at least one value, got shape {axis.shape}."
        raise ValueError(message)
    wrong = axis[~(np.isfinite(axis) & (axis >= 0))]
    if wrong.size:
        message = f"{name} must be finite and 0 or more, got {wrong[0]}; leave it out."
        raise ValueError(message)
    if (np.diff(axis) <= 0).any():
        message = f"{name} must increase, got {axis.tolist()}; pass sorted(set({name}))."
        raise ValueError(message)
    if axis[-1] > largest:
        message = f"{name} must be at most {largest:g}, {meaning}, got {axis[-1]:g}; lower it."
        raise ValueError(message)
    return tuple(axis.tolist())
