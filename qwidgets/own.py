"""Networks of your own, measured as those of a sweep are, and not trained."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from typing import TYPE_CHECKING, Any, Literal, final

import numpy as np
from torch import nn

from qwidgets import __version__
from qwidgets.cube import make_cube, task_attributes
from qwidgets.data import Dataset
from qwidgets.ensemble import BatchedForward
from qwidgets.measurement import measure as measure_networks
from qwidgets.models import measurable
from qwidgets.neighborhoods import measure_neighborhoods
from qwidgets.plan import default_probes
from qwidgets.progress import progress_bar
from qwidgets.sweep import one_core_spared
from qwidgets.tasks import CLASSIFICATION
from qwidgets.threads import in_turn, mapped

if TYPE_CHECKING:
    from collections.abc import Generator

    import xarray as xr
    from numpy.typing import ArrayLike

    from qwidgets.measurement import Probes, Record
    from qwidgets.models import Measurable

    Models = nn.Module | Mapping[str, nn.Module]
    Normalization = tuple[ArrayLike, ArrayLike]

# A network this near to chance, in standard errors, may lack its normalisation.
_NEAR_CHANCE = 3.0
_OF_TRAINING = ("diverged", "diverged_reason", "train_loss")


@final
class Measurement:
    """Networks of your own, and what was measured on them.

    Attributes
    ----------
    dataset : xarray.Dataset
        The variables of `Sweep.dataset`, those of training left out, over ``model`` (its name) in
        the place of ``epsilon``, ``regularization`` and ``epoch``.
    data : Dataset
        What they were measured on.
    """

    def __init__(self, dataset: xr.Dataset, data: Dataset, models: dict[str, Measurable]) -> None:
        self.dataset = dataset
        self.data = data
        self._models = models

    def __repr__(self) -> str:
        """Say what was measured."""
        return f"<Measurement of {', '.join(map(repr, self.names))} on {self.data.name!r}>"

    @property
    def names(self) -> tuple[str, ...]:
        """The models, in the order in which they were given."""
        return tuple(self._models)

    def model(self, name: str) -> nn.Module:
        """Return the copy that was measured, with its normalisation.

        Parameters
        ----------
        name : str
            One of `names`.

        Returns
        -------
        torch.nn.Module

        Raises
        ------
        KeyError
            Another name.
        """
        if name not in self._models:
            message = f"name must be one of {', '.join(map(repr, self.names))}, got {name!r}."
            raise KeyError(message)
        return self._models[name]


@dataclass(frozen=True, kw_only=True, eq=False)
class MeasurementProgress:
    """How far a measurement is, after one unit of its work.

    Attributes
    ----------
    name : str
        The model that is being measured.
    fraction : float
        Share of all work that is done, 0 to 1.
    measurement : Measurement or None
        All models measured so far, set whenever one more is.
    """

    name: str
    fraction: float
    measurement: Measurement | None = None


def measure(
    models: Models,
    data: Dataset,
    *,
    normalization: Normalization | Mapping[str, Normalization] | None = None,
    norm: Literal["linf", "l2"] = "linf",
    attack_epsilon: ArrayLike | None = None,
    attack_steps: int = 10,
    width: float | None = None,
    probe_images: int = 7,
    test_size: int | None = None,
    detail: bool = True,
    seed: int = 0,
    progress: bool = True,
) -> Measurement:
    """Measure networks of your own on your data, as `sweep` measures those that it trains.

    They are not trained and not changed: copies in eval mode and single precision are measured, on
    the device that each model is on.

    Parameters
    ----------
    models : torch.nn.Module or mapping of str to torch.nn.Module
        One network, or several by name. Any module that maps ``(n, *data.input_shape)`` to logits
        ``(n, classes)``, or to outputs of the shape of the targets, differentiably.
    data : Dataset
        Its test inputs are used; see `Dataset.from_arrays` and `Dataset.for_regression`.
    normalization : (mean, std), or mapping of str to such, optional
        What the models were trained on is ``(x - mean) / std``, x as in `data`: numbers, or one for
        each channel. All figures are then in the units of x.
    norm, attack_epsilon, attack_steps, width, probe_images, seed
        As for `sweep`.
    test_size : int, optional
        Test images to measure on, chosen evenly over the classes; by default all, at most 1000.
    detail : bool
        Measure the neighbourhood of each class too.
    progress : bool
        Show a progress bar, in a terminal or a notebook.

    Returns
    -------
    Measurement

    Raises
    ------
    TypeError, ValueError
        Models, data or settings that cannot be meant, before any work is done.
    KeyboardInterrupt
        Interrupted before a model was measured; later, the measured ones are returned.

    Warns
    -----
    UserWarning
        A model no better than chance: a sign of a missing normalization.

    Examples
    --------
    >>> import qwidgets as qw
    >>> data = qw.load_data("digits", test_size=50)
    >>> models = {"one": qw.build_model("mlp", data), "two": qw.build_model("conv", data)}
    >>> found = qw.measure(models, data, detail=False, probe_images=1)  # doctest: +SKIP
    """
    units = iterate_measurement(
        models,
        data,
        normalization=normalization,
        norm=norm,
        attack_epsilon=attack_epsilon,
        attack_steps=attack_steps,
        width=width,
        probe_images=probe_images,
        test_size=test_size,
        detail=detail,
        seed=seed,
    )
    finished: Measurement | None = None
    with (
        closing(units),
        one_core_spared(),
        progress_bar("Measurement", show=progress) as report,
        suppress(KeyboardInterrupt),
    ):
        for unit in units:
            finished = unit.measurement or finished
            if not report(unit.fraction, unit.name):
                break
    if finished is None:
        raise KeyboardInterrupt
    for reason in doubts(finished):
        warnings.warn(reason, UserWarning, stacklevel=2)
    return finished


def iterate_measurement(
    models: Models,
    data: Dataset,
    *,
    normalization: Normalization | Mapping[str, Normalization] | None = None,
    norm: Literal["linf", "l2"] = "linf",
    attack_epsilon: ArrayLike | None = None,
    attack_steps: int = 10,
    width: float | None = None,
    probe_images: int = 7,
    test_size: int | None = None,
    detail: bool = True,
    seed: int = 0,
) -> Generator[MeasurementProgress]:
    """Do what `measure` does, one small unit of work at a time.

    Parameters
    ----------
    models, data, normalization, norm, attack_epsilon, attack_steps, width, probe_images
        As for `measure`.
    test_size, detail, seed
        As for `measure`.

    Returns
    -------
    iterator of MeasurementProgress

    Raises
    ------
    TypeError, ValueError
        As for `measure`, at the call.
    """
    given: object = data
    if not isinstance(given, Dataset):
        message = (
            f"data must be a Dataset, got {type(given).__name__}; make one with "
            "qw.Dataset.from_arrays(inputs, labels), or load_data(name)."
        )
        raise TypeError(message)
    named = _named(models)
    if test_size is None:
        test_size = min(len(data.test_labels), _TEST_SIZE)
    data = data.subset(test=test_size)
    ready = {
        name: measurable(
            model,
            data,
            normalization=_of(name, normalization, named),
            name="model" if name == _ONLY and len(named) == 1 else f"model {name!r}",
        )
        for name, model in named.items()
    }
    probes = default_probes(
        data,
        norm=norm,
        attack_epsilon=attack_epsilon,
        attack_steps=attack_steps,
        width=width,
        probe_images=probe_images,
        seed=seed,
    )
    return _measured(ready, data, probes, detail=detail)


_TEST_SIZE = 1_000
_ONLY = "model"


def _named(models: object) -> dict[str, nn.Module]:
    if isinstance(models, nn.Module) and not isinstance(models, nn.ModuleDict):
        return {_ONLY: models}
    try:
        named = dict(models.items())  # type: ignore[attr-defined]
    except (AttributeError, TypeError):
        message = (
            "models must be a torch.nn.Module or a mapping of names to such, got "
            f"{type(models).__name__}; pass {{'clean': a, 'robust': b}}."
        )
        raise TypeError(message) from None
    if not named:
        message = "models must name at least one network, got none; pass {'clean': a}."
        raise ValueError(message)
    for name in named:
        if not (isinstance(name, str) and name):
            message = f"models must have names that are text, got {name!r}; pass {{'clean': a}}."
            raise TypeError(message)
    return named


def _of(
    name: str,
    given: Normalization | Mapping[str, Normalization] | None,
    named: Mapping[str, nn.Module],
) -> Normalization | None:
    """Return the normalization of one model."""
    if not isinstance(given, Mapping):
        return given
    unknown = [key for key in given if key not in named]
    if unknown:
        message = (
            f"normalization must be by the names of the models, {', '.join(map(repr, named))}, "
            f"got {unknown[0]!r}."
        )
        raise ValueError(message)
    return given.get(name)


def _measured(
    models: dict[str, Measurable], data: Dataset, probes: Probes, *, detail: bool
) -> Generator[MeasurementProgress]:
    records: list[Record] = []
    for count, (name, model) in enumerate(models.items()):
        there = probes.to(model.anchor.device)
        parameters = {key: value.detach()[None] for key, value in model.named_parameters()}
        forward = BatchedForward.alone(model, len(data.input_shape))
        works = [measure_networks(forward, parameters, there)]
        if detail:
            works.append(measure_neighborhoods(model, parameters, probes))
        told = partial(_progress, name, count, len(models))
        record: Record = {}
        for found in (yield from mapped(in_turn(works, len(works)), told)):
            record |= found
        records.append(record)
        yield MeasurementProgress(
            name=name,
            fraction=(count + 1) / len(models),
            measurement=_measurement(
                dict(list(models.items())[: count + 1]), data, probes, records
            ),
        )


def _progress(name: str, done: int, count: int, share: float) -> MeasurementProgress:
    return MeasurementProgress(name=name, fraction=(done + share) / count)


def _measurement(
    models: dict[str, Measurable], data: Dataset, probes: Probes, records: list[Record]
) -> Measurement:
    together: Record = {
        name: np.concatenate([record[name] for record in records]) for name in records[0]
    }
    count = len(records)
    nothing = {
        "train_loss": np.full(count, np.nan),
        "diverged": np.full(count, -1),
        "reason": np.zeros(count, np.int64),
    }
    attributes: dict[str, Any] = {
        "data": data.name,
        "norm": probes.norm,
        "width": probes.width,
        "seed": probes.seed,
        "measurement_attack_steps": probes.attack_steps,
        "test_images": len(probes.labels),
        "neighborhood_radius": probes.neighborhood_radius,
        "probe_images_per_label": probes.packets.shape[1],
        "class_names": list(data.class_names),
        "input_shape": list(data.input_shape),
        "value_range": list(data.value_range),
        "data_checksum": data.checksum,
        "versions": {name: metadata.version(name) for name in ("torch", "numpy")}
        | {"qwidgets": __version__},
        **task_attributes(data.task),
    }
    cube = make_cube(
        [together | nothing],
        probes,
        epsilon=list(range(count)),
        regularization=[0.0],
        regularization_name="",
        regularization_unit="1",
        attributes=attributes,
    )
    cube = (
        cube.drop_vars(_OF_TRAINING)
        .isel(regularization=0, epoch=0, drop=True)
        .rename(epsilon="model")
        .assign_coords(model=("model", list(models), {"long_name": "name of the model"}))
    )
    return Measurement(cube, data, models)


def doubts(measurement: Measurement) -> list[str]:
    """Say which models are no better than chance, and what that may come from.

    Parameters
    ----------
    measurement : Measurement
        Of any models.

    Returns
    -------
    list of str
        One sentence for each such model.
    """
    data = measurement.data
    if data.task != CLASSIFICATION:
        # That of the mean target.
        constant = data.test_y.mean(0).expand_as(data.test_y)
        least = float(data.task.losses(constant, data.test_y).mean())
        unit = data.task.loss_unit
        return [
            f"model {name!r} has a mean loss of {loss:.3g} {unit} on the test inputs, no better "
            f"than always saying their mean target ({least:.3g} {unit}): if it was trained on "
            "normalised inputs, pass normalization=(mean, std); check the unit of the targets too."
            for name, loss in zip(
                measurement.names, measurement.dataset["test_loss"].values.tolist(), strict=True
            )
            if not loss < least
        ]
    labels = data.test_labels.numpy()
    commonest = float(np.bincount(labels).max()) / len(labels)
    slack = _NEAR_CHANCE * float(np.sqrt(commonest * (1 - commonest) / len(labels)))
    found = measurement.dataset["clean_accuracy"]
    return [
        f"model {name!r} classifies {accuracy:.1%} of the test inputs, no better than chance "
        f"({commonest:.1%}): if it was trained on normalised inputs, pass normalization=(mean, "
        "std); check the order of the classes too."
        for name, accuracy in zip(measurement.names, found.values.tolist(), strict=True)
        if not accuracy > commonest + slack
    ]
