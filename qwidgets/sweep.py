"""The experiment: a grid of networks over adversarial radius and regularization, measured.

`sweep` trains one network at every point of a grid, all of them as one program, and measures all of
them after every epoch. What comes out is a `Sweep`: a labelled cube (`Sweep.dataset`) and the
trained networks (`Sweep.model`). `iterate_sweep` is the same work as an iterator, one small unit at
a time, for whoever wants to draw, pause or cancel in between.
"""

from __future__ import annotations

import difflib
import math
import operator
import warnings
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from importlib import metadata
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, final

import numpy as np
import torch
from torch import nn

from qwidgets import __version__, store
from qwidgets.cube import make_cube
from qwidgets.data import Dataset, load_data
from qwidgets.measurement import Probes, measure
from qwidgets.models import batched_forward, build_model, stack_parameters, unstack
from qwidgets.progress import progress_bar
from qwidgets.training import REGULARIZERS, Regularizer, Step, TrainingSettings, train

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Generator, Iterator

    import xarray as xr
    from numpy.typing import ArrayLike
    from torch import Tensor

    from qwidgets.measurement import Record

    Architecture = Callable[[], nn.Module]


class _Radii(NamedTuple):
    """Default radii of a data set, in the l-infinity norm and in input units."""

    epsilon: tuple[float, ...]
    attack_epsilon: tuple[float, ...]
    reference: float


_RADII = {
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
}
_STRENGTHS: dict[Regularizer, tuple[float, ...]] = {
    "gradient": (0, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3),
    "weight_decay": (0, 0.1, 0.3, 1, 3, 10, 30, 100),
    "label_smoothing": (0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6),
}
_STRENGTH_UNITS: dict[Regularizer, str] = {
    "gradient": "input unit^2 / nat",
    "weight_decay": "1 / (learning rate * step)",
    "label_smoothing": "1",
}
# Large data sets are cut to what two cores can train and measure in minutes.
_TRAIN_SIZES = {"mnist": 10_000, "cifar10": 10_000}
_TEST_SIZE = 1_000
_LEARNING_RATES = {"mlp": 2e-3, "conv": 2e-3}
# On the digits grid 5 steps find within half a point of what 50 find.
_MEASUREMENT_STEPS = 5
_OWN_MODEL = "custom"


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
    attack_steps: int
    batch_size: int
    learning_rate: float
    width: float
    attack_epsilon: tuple[float, ...]
    train_size: int
    test_size: int
    probe_images: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Progress:
    """How far a sweep is, after one unit of its work.

    Attributes
    ----------
    epoch : int
        The epoch being trained or measured; 0 while the untrained networks are measured.
    epochs : int
        How many there will be.
    fraction : float
        Share of all work that is done, 0 to 1.
    sweep : Sweep or None
        Everything finished so far, set whenever an epoch has just been measured.
    """

    epoch: int
    epochs: int
    fraction: float
    sweep: Sweep | None = None


@final
class Sweep:
    """A grid of trained networks and what was measured on them.

    Attributes
    ----------
    dataset : xarray.Dataset
        The cube, over the coordinates ``epsilon`` (adversarial radius in training),
        ``regularization`` (strength), ``epoch`` (0 is the untrained network), ``label``,
        ``attack_epsilon`` (radius of the attack on the test images) and ``t`` (position along the
        attack). Every variable has its unit and meaning in its attributes. Errors are standard
        errors: binomial for accuracies, Maritz and Jarrett's for medians over probe images.
    settings : SweepSettings
        What was asked for, with all defaults filled in.
    """

    def __init__(
        self,
        dataset: xr.Dataset,
        settings: SweepSettings,
        parameters: dict[str, Tensor],
        architecture: Architecture | None,
    ) -> None:
        self.dataset = dataset
        self.settings = settings
        self._parameters = parameters
        self._architecture = architecture

    def __repr__(self) -> str:
        """Say what was trained and how far."""
        done, chosen = int(self.dataset.epoch[-1]), self.settings
        return (
            f"<Sweep of {len(chosen.epsilon)} x {len(chosen.regularization)} {chosen.model!r} "
            f"networks on {chosen.data!r}, {done} of {chosen.epochs} epochs>"
        )

    @property
    def complete(self) -> bool:
        """Whether all epochs were trained and measured."""
        return bool(self.dataset.attrs["complete"])

    def model(self, *, epsilon: float, regularization: float) -> nn.Module:
        """Return the trained network of a grid point, after the last finished epoch.

        Parameters
        ----------
        epsilon, regularization : float
            A point of the grid, to rounding.

        Returns
        -------
        torch.nn.Module
            A fresh copy on the CPU, in eval mode.

        Raises
        ------
        ValueError
            A value that is not on the grid, or a reopened sweep of a model of your own whose
            factory is not known.
        """
        if self._architecture is None:
            message = (
                "model of this sweep was made by a factory of your own, which is not saved: "
                "reopen the sweep with open_sweep(path, model=factory)."
            )
            raise ValueError(message)
        row = _on_grid("epsilon", epsilon, self.settings.epsilon)
        column = _on_grid("regularization", regularization, self.settings.regularization)
        network = self._architecture()
        index = row * len(self.settings.regularization) + column
        network.load_state_dict(unstack(self._parameters, index))
        return network.eval()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the sweep to a folder that `open_sweep` reads.

        The folder holds ``cube.zarr``, ``weights.safetensors`` and ``manifest.json`` and appears
        whole or not at all; a sweep saved there before is replaced.

        Parameters
        ----------
        path : path
            The folder; its parent must exist.

        Raises
        ------
        FileExistsError
            Something that is not a saved sweep is there.
        OSError
            The place cannot be written.
        """
        manifest = {"settings": asdict(self.settings), "versions": self.dataset.attrs["versions"]}
        content = store.Content(cube=self.dataset, weights=self._parameters, manifest=manifest)
        store.save(path, content)


def open_sweep(path: str | os.PathLike[str], *, model: Architecture | None = None) -> Sweep:
    """Open a sweep that `Sweep.save` wrote.

    Parameters
    ----------
    path : path
        The folder.
    model : callable, optional
        For a sweep of a model of your own: its factory, without arguments. Only `Sweep.model` needs
        it.

    Returns
    -------
    Sweep
        With the same cube and weights, bit for bit.

    Raises
    ------
    FileNotFoundError
        Nothing is there, or a part is missing.
    ValueError
        It is not a saved sweep, in a newer format, or damaged.
    """
    content = store.load(path)
    stored: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in content.manifest["settings"].items()
    }
    settings = SweepSettings(**stored)
    if model is None and settings.model != _OWN_MODEL:
        model = partial(_rebuilt, settings, content.cube.attrs)
    return Sweep(content.cube, settings, content.weights, model)


def _rebuilt(settings: SweepSettings, attributes: dict[str, Any]) -> nn.Module:
    """Build the architecture of a sweep whose data are not at hand, only their shape."""
    low, high = attributes["value_range"]
    blank = torch.full((1, *attributes["input_shape"]), low, dtype=torch.float32)
    label = torch.zeros(1, dtype=torch.int64)
    data = Dataset(
        train_inputs=blank,
        train_labels=label,
        test_inputs=blank,
        test_labels=label,
        class_names=tuple(attributes["class_names"]),
        value_range=(low, high),
        name=settings.data,
    )
    return build_model(settings.model, data, seed=settings.seed)


def sweep(
    data: str | Dataset = "digits",
    model: str | Architecture = "mlp",
    epsilon: ArrayLike | None = None,
    regularization: ArrayLike | None = None,
    regularizer: Regularizer = "gradient",
    epochs: int = 20,
    seed: int = 0,
    device: str = "auto",
    *,
    progress: bool = True,
    root: str | os.PathLike[str] | None = None,
    train_size: int | None = None,
    test_size: int | None = None,
    norm: Literal["linf", "l2"] = "linf",
    attack_steps: int = 5,
    attack_epsilon: ArrayLike | None = None,
    width: float | None = None,
    probe_images: int = 7,
    batch_size: int = 64,
    learning_rate: float | None = None,
) -> Sweep:
    """Train and measure a network at every point of a grid of radii and regularization strengths.

    All networks start from the same weights and see the same minibatches, so that they differ only
    by their radius and strength. Interrupting (Ctrl-C, the kernel's interrupt button, the Cancel
    button) keeps the finished epochs. The same arguments on the same machine give the same cube,
    bit for bit; the global random state is neither read nor changed.

    Parameters
    ----------
    data : str or Dataset
        ``"digits"``, ``"moons"``, ``"mnist"``, ``"cifar10"``, or your own
        (`Dataset.from_arrays`).
    model : str or callable
        ``"mlp"``, ``"conv"``, or a function without arguments that returns a new
        `torch.nn.Module`, which is trained and measured in eval mode.
    epsilon : array_like, optional
        Radii of adversarial training, increasing, input units; 0 is clean training. By default
        eight values that suit the data.
    regularization : array_like, optional
        Regularization strengths, increasing; 0 is none. By default eight values that suit the
        regularizer.
    regularizer : {"gradient", "weight_decay", "label_smoothing"}
        What the strength multiplies; see `TrainingSettings`.
    epochs : int
        Passes over the training images.
    seed : int
        Seed of the initial weights, the minibatch order and the attacks.
    device : str
        ``"auto"`` (a CUDA device if there is one), ``"cpu"``, ``"cuda"`` or ``"cuda:1"``.
    progress : bool
        Show a progress bar, in a terminal or a notebook.
    root : path, optional
        Folder of the files of ``"mnist"`` or ``"cifar10"``.
    train_size, test_size : int, optional
        Images to train and to measure on, chosen evenly over the classes. By default all of them,
        but at most 1000 to measure on, and 10,000 to train on of ``"mnist"`` and ``"cifar10"``.
    norm : {"linf", "l2"}
        Norm of all radii.
    attack_steps : int
        PGD steps, in training and (but at least 5) in the measurement.
    attack_epsilon : array_like, optional
        Radii at which robust accuracy is measured, increasing, the first one 0.
    width : float, optional
        Standard deviation s of the Gaussian window on the packet, input units. By default half the
        l2 length of the largest l-infinity perturbation of a reference radius,
        ``s = epsilon_ref * sqrt(d) / 2``, with 0.1 for digits and MNIST, 8/255 for CIFAR-10, 0.2
        for moons and a tenth of the value range for your own data.
    probe_images : int
        Test images of each label on which packets are measured, an odd number; fewer where a label
        has fewer.
    batch_size : int
        Images in a minibatch.
    learning_rate : float, optional
        Of Adam; by default 0.002 for the named models, 0.001 for your own.

    Returns
    -------
    Sweep
        ``complete`` is False if it was interrupted.

    Raises
    ------
    TypeError, ValueError
        Anything that cannot be meant, before any work is done.
    FileNotFoundError, ConnectionError
        Data that cannot be had; see `load_data`.
    KeyboardInterrupt
        Interrupted before anything was measured.

    Warns
    -----
    UserWarning
        Interrupted later: says after which epoch.

    References
    ----------
    Zhang et al., "On the uncertainty principle of neural networks", arXiv 2205.01493; theory:
    "The packet along the attack".
    """
    units = iterate_sweep(
        data,
        model,
        epsilon,
        regularization,
        regularizer,
        epochs,
        seed,
        device,
        root=root,
        train_size=train_size,
        test_size=test_size,
        norm=norm,
        attack_steps=attack_steps,
        attack_epsilon=attack_epsilon,
        width=width,
        probe_images=probe_images,
        batch_size=batch_size,
        learning_rate=learning_rate,
    )
    finished: Sweep | None = None
    with (
        closing(units),
        one_core_spared(),
        progress_bar("Sweep", show=progress) as report,
        suppress(KeyboardInterrupt),
    ):
        for state in units:
            finished = state.sweep or finished
            if not report(state.fraction, f"epoch {state.epoch} of {state.epochs}"):
                break
    if finished is None:
        raise KeyboardInterrupt
    if not finished.complete:
        message = (
            f"sweep was interrupted after epoch {int(finished.dataset.epoch[-1])} of {epochs}; "
            "the result holds the finished epochs."
        )
        warnings.warn(message, UserWarning, stacklevel=2)
    return finished


@contextmanager
def one_core_spared() -> Iterator[None]:
    """Let PyTorch use one thread fewer than it is set to, for the calling thread's work.

    Its threads wait for each other after every small product. Where one of them has to share its
    core, with a browser say, the others spin until it gets its turn: on two cores an epoch of the
    default grid then took 5 to 20 times as long with two threads, and with one no longer than on an
    idle machine, where the second thread saves two fifths.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, threads - 1))
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def iterate_sweep(
    data: str | Dataset = "digits",
    model: str | Architecture = "mlp",
    epsilon: ArrayLike | None = None,
    regularization: ArrayLike | None = None,
    regularizer: Regularizer = "gradient",
    epochs: int = 20,
    seed: int = 0,
    device: str = "auto",
    *,
    root: str | os.PathLike[str] | None = None,
    train_size: int | None = None,
    test_size: int | None = None,
    norm: Literal["linf", "l2"] = "linf",
    attack_steps: int = 5,
    attack_epsilon: ArrayLike | None = None,
    width: float | None = None,
    probe_images: int = 7,
    batch_size: int = 64,
    learning_rate: float | None = None,
) -> Generator[Progress]:
    """Do what `sweep` does, one small unit of work at a time.

    Not taking the next item pauses the work, closing the iterator stops it; the last ``sweep`` seen
    stays valid.

    Parameters
    ----------
    data, model, epsilon, regularization, regularizer, epochs, seed, device
        As for `sweep`.
    root, train_size, test_size, norm, attack_steps, attack_epsilon, width
        As for `sweep`.
    probe_images, batch_size, learning_rate
        As for `sweep`.

    Returns
    -------
    iterator of Progress
        After every minibatch and every part of a measurement (in the default sweep each takes well
        under a tenth of a second on two cores).

    Raises
    ------
    TypeError, ValueError, FileNotFoundError, ConnectionError
        As for `sweep`, at the call, not at the first item.
    """
    epochs = _count("epochs", epochs)
    attack_steps = _count("attack_steps", attack_steps)
    batch_size = _count("batch_size", batch_size)
    probe_images = _count("probe_images", probe_images)
    if probe_images % 2 == 0:
        message = (
            "probe_images must be odd, so that their median is one of them, "
            f"got {probe_images}; use {probe_images + 1}."
        )
        raise ValueError(message)
    seed = _integer("seed", seed)
    _choice("regularizer", regularizer, REGULARIZERS)
    _choice("norm", norm, ("linf", "l2"))
    place = _device(device)
    data = _loaded(data, root, train_size, test_size)
    architecture = _architecture(model, data, seed)

    low, high = data.value_range
    root_of_features = math.sqrt(math.prod(data.input_shape))
    # The largest distance inside the value range, and what turns default radii into radii of norm.
    largest = (high - low) * (root_of_features if norm == "l2" else 1)
    scale = root_of_features / 2 if norm == "l2" else 1.0
    radii = _RADII.get(data.name) or _scaled(_RADII["digits"], high - low)
    if epsilon is None:
        epsilon = np.multiply(radii.epsilon, scale)
    if attack_epsilon is None:
        attack_epsilon = np.multiply(radii.attack_epsilon, scale)
    if regularization is None:
        regularization = _STRENGTHS[regularizer]
    if width is None:
        width = radii.reference * root_of_features / 2
    if learning_rate is None:
        learning_rate = _LEARNING_RATES.get(str(model), 1e-3)
    attacks = _grid("attack_epsilon", attack_epsilon, largest, "the extent of value_range")
    if attacks[0] != 0:
        message = (
            f"attack_epsilon must begin with 0, which is clean accuracy, got {attacks[0]:g} first; "
            "put 0 before it."
        )
        raise ValueError(message)
    settings = SweepSettings(
        data=data.name,
        model=model if isinstance(model, str) else _OWN_MODEL,
        epsilon=_grid("epsilon", epsilon, largest, "the extent of value_range"),
        regularization=_grid(
            "regularization",
            regularization,
            1.0 if regularizer == "label_smoothing" else math.inf,
            "the whole target",
        ),
        regularizer=regularizer,
        epochs=epochs,
        seed=seed,
        device=str(place),
        norm=norm,
        attack_steps=attack_steps,
        batch_size=batch_size,
        learning_rate=_positive("learning_rate", learning_rate),
        width=_positive("width", width),
        attack_epsilon=attacks,
        train_size=len(data.train_labels),
        test_size=len(data.test_labels),
        probe_images=probe_images,
    )
    return _run(settings, data, architecture, _probes(settings, data, radii.reference * scale))


def _loaded(
    data: object,
    root: str | os.PathLike[str] | None,
    train_size: int | None,
    test_size: int | None,
) -> Dataset:
    if isinstance(data, str):
        size = _TRAIN_SIZES.get(data) if train_size is None else train_size
        loaded = load_data(data, root=root, train_size=size, test_size=test_size)
    elif isinstance(data, Dataset):
        loaded = data.subset(train=train_size, test=test_size)
    else:
        message = (
            f"data must be a name or a Dataset, got {type(data).__name__}; "
            "Dataset.from_arrays takes arrays."
        )
        raise TypeError(message)
    if test_size is None and len(loaded.test_labels) > _TEST_SIZE:
        return loaded.subset(test=_TEST_SIZE)
    return loaded


def _scaled(radii: _Radii, factor: float) -> _Radii:
    epsilon, attack_epsilon, reference = radii
    return _Radii(
        tuple(factor * value for value in epsilon),
        tuple(factor * value for value in attack_epsilon),
        factor * reference,
    )


def _probes(settings: SweepSettings, data: Dataset, reference_epsilon: float) -> Probes:
    counts = torch.bincount(data.test_labels, minlength=data.classes)
    fewest = int(counts.min())
    if fewest == 0:
        message = (
            "data must have test images of every class, got none of "
            f"{data.class_names[int(counts.argmin())]!r}; raise test_size or name fewer classes."
        )
        raise ValueError(message)
    images = min(settings.probe_images, fewest - (fewest + 1) % 2)
    first = [(data.test_labels == label).nonzero()[:images, 0] for label in range(data.classes)]
    return Probes(
        inputs=data.test_inputs.to(settings.device),
        labels=data.test_labels.to(settings.device),
        packets=torch.stack(first).to(settings.device),
        width=settings.width,
        reference_epsilon=reference_epsilon,
        attack_epsilon=settings.attack_epsilon,
        attack_steps=max(settings.attack_steps, _MEASUREMENT_STEPS),
        norm=settings.norm,
        value_range=data.value_range,
        seed=settings.seed,
    )


def _run(
    settings: SweepSettings, data: Dataset, architecture: Architecture, probes: Probes
) -> Generator[Progress]:
    network = architecture().to(settings.device).eval()
    forward = batched_forward(network, data.input_shape)
    rows, columns = len(settings.epsilon), len(settings.regularization)
    attributes = _attributes(settings, data, probes, forward.strategy)
    # Every epoch has two parts, training and measuring; epoch 0 is only measured.
    parts = 2 * settings.epochs + 1

    def progress(epoch: int, part: int, done: float, sweep: Sweep | None = None) -> Progress:
        fraction = (part + done) / parts
        return Progress(epoch=epoch, epochs=settings.epochs, fraction=fraction, sweep=sweep)

    records: list[Record] = []
    for event in train(
        forward,
        stack_parameters([network] * (rows * columns)),
        data,
        torch.tensor(settings.epsilon, dtype=torch.float64).repeat_interleave(columns),
        torch.tensor(settings.regularization, dtype=torch.float64).repeat(rows),
        TrainingSettings(
            epochs=settings.epochs,
            batch_size=settings.batch_size,
            learning_rate=settings.learning_rate,
            attack_steps=settings.attack_steps,
            norm=settings.norm,
            regularizer=settings.regularizer,
            seed=settings.seed,
        ),
        settings.device,
    ):
        if isinstance(event, Step):
            yield progress(event.epoch, 2 * event.epoch - 1, event.step / event.steps)
            continue
        units = measure(forward, event.parameters, probes)
        while True:
            try:
                done = next(units)
            except StopIteration as finished:
                record = finished.value
                break
            yield progress(event.epoch, 2 * event.epoch, done)
        records.append(record | {"train_loss": event.train_loss.numpy()})
        attributes = attributes | {"complete": event.epoch == settings.epochs}
        cube = make_cube(
            records,
            event.diverged.numpy(),
            probes,
            epsilon=settings.epsilon,
            regularization=settings.regularization,
            regularization_name=f"strength of {settings.regularizer}",
            regularization_unit=_STRENGTH_UNITS[settings.regularizer],
            attributes=attributes,
        )
        weights = {name: value.cpu() for name, value in event.parameters.items()}
        so_far = Sweep(cube, settings, weights, architecture)
        yield progress(event.epoch, 2 * event.epoch, 1.0, so_far)


def _attributes(
    settings: SweepSettings, data: Dataset, probes: Probes, strategy: str
) -> dict[str, Any]:
    return {
        "data": settings.data,
        "model": settings.model,
        "strategy": strategy,
        "regularizer": settings.regularizer,
        "regularization_unit": _STRENGTH_UNITS[settings.regularizer],
        "norm": settings.norm,
        "width": settings.width,
        "seed": settings.seed,
        "device": settings.device,
        "training_attack_steps": settings.attack_steps,
        "measurement_attack_steps": probes.attack_steps,
        "batch_size": settings.batch_size,
        "learning_rate": settings.learning_rate,
        "train_images": settings.train_size,
        "test_images": settings.test_size,
        # Clean and robust accuracy are measured on the same images, so that they agree at radius 0.
        "robust_images": settings.test_size,
        "probe_images_per_label": probes.packets.shape[1],
        "class_names": list(data.class_names),
        "input_shape": list(data.input_shape),
        "value_range": list(data.value_range),
        "data_checksum": data.checksum,
        "versions": {name: metadata.version(name) for name in ("torch", "numpy")}
        | {"qwidgets": __version__},
        "complete": False,
    }


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

    network: object = build()
    if not isinstance(network, nn.Module):
        message = (
            "model must return a torch.nn.Module when called, got "
            f"{type(network).__name__}; return the network from it."
        )
        raise TypeError(message)
    with torch.no_grad():
        logits = network.cpu().eval()(data.test_inputs[:2])
    expected = (len(data.test_inputs[:2]), data.classes)
    if tuple(logits.shape) != expected:
        message = (
            f"model must return logits of shape (n, {data.classes}) for inputs of shape "
            f"{(expected[0], *data.input_shape)}, got {tuple(logits.shape)}; "
            "match its last layer to the classes."
        )
        raise ValueError(message)
    batched_forward(network, data.input_shape)
    return build


def _device(name: str) -> torch.device:
    cuda = torch.cuda.device_count()
    if name == "auto":
        return torch.device("cuda" if cuda else "cpu")
    usable = ["cpu", *(["cuda"] if cuda else []), *(f"cuda:{index}" for index in range(cuda))]
    if name not in usable:
        message = (
            f"device must be 'auto' or one of {', '.join(map(repr, usable))}, got {name!r}; "
            "'auto' takes the fastest there is."
        )
        raise ValueError(message)
    return torch.device(name)


def _choice(name: str, value: str, options: tuple[str, ...]) -> None:
    if value not in options:
        near = difflib.get_close_matches(str(value), options, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        message = f"{name} must be one of {', '.join(map(repr, options))}, got {value!r}{hint}."
        raise ValueError(message)


def _integer(name: str, value: int) -> int:
    try:
        return operator.index(value)
    except TypeError:
        message = f"{name} must be an integer, got {value!r}; pass a whole number."
        raise TypeError(message) from None


def _count(name: str, value: int) -> int:
    count = _integer(name, value)
    if count < 1:
        message = f"{name} must be at least 1, got {count}; raise it."
        raise ValueError(message)
    return count


def _positive(name: str, value: float) -> float:
    if not (math.isfinite(value) and value > 0):
        message = f"{name} must be a positive finite number, got {value}; None takes the default."
        raise ValueError(message)
    return float(value)


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


def _on_grid(name: str, value: float, axis: tuple[float, ...]) -> int:
    distance = np.abs(np.subtract(axis, value))
    nearest = int(distance.argmin())  # of NaN: the first, refused below
    if not np.isclose(axis[nearest], value, atol=1e-12):
        below = [known for known in axis if known < value][-1:]
        above = [known for known in axis if known > value][:1]
        near = " and ".join(f"{known:g}" for known in below + above) or f"{axis[nearest]:g}"
        message = f"{name} must be a value of the grid, got {value:g}; the nearest are {near}."
        raise ValueError(message)
    return nearest
