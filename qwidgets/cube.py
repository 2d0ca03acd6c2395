"""The labelled cube: what a grid of networks showed, with meaning and unit of everything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from qwidgets.tasks import Regression
from qwidgets.training import REASONS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from qwidgets.measurement import Probes, Record
    from qwidgets.tasks import Task

_GRID = ("epsilon", "regularization")

# Dimensions behind (epsilon, regularization, epoch), meaning and unit of what is measured.
_VARIABLES: dict[str, tuple[tuple[str, ...], str, str]] = {
    "train_loss": (
        (),
        "mean loss during the epoch of the inputs trained on, without regularization",
        "{unit}",
    ),
    "test_loss": ((), "mean {loss} of the test images", "{unit}"),
    "clean_accuracy": ((), "fraction of test images {right}", "1"),
    "clean_accuracy_error": ((), "binomial standard error of clean_accuracy", "1"),
    "robust_accuracy": (
        ("attack_epsilon",),
        "fraction of test images {right} under attack",
        "1",
    ),
    "robust_accuracy_error": (
        ("attack_epsilon",),
        "binomial standard error of robust_accuracy",
        "1",
    ),
    "label_accuracy": (
        ("label", "attack_epsilon"),
        "fraction of the test images of a {label} {right} under attack",
        "1",
    ),
    "label_accuracy_error": (
        ("label", "attack_epsilon"),
        "binomial standard error of label_accuracy",
        "1",
    ),
    "position_std": (
        ("label",),
        "position spread of the packet along the attack, median over probe images",
        "input unit",
    ),
    "position_std_error": (("label",), "standard error of position_std", "input unit"),
    "momentum_std": (
        ("label",),
        "momentum spread of the packet along the attack, median over probe images",
        "1 / input unit",
    ),
    "momentum_std_error": (("label",), "standard error of momentum_std", "1 / input unit"),
    "uncertainty_product": (
        ("label",),
        "position spread times momentum spread, median over probe images; at least 1/2",
        "1",
    ),
    "uncertainty_product_error": (("label",), "standard error of uncertainty_product", "1"),
    "undefined_packets": (
        ("label",),
        "probe images without a direction of attack, left out of the medians",
        "1",
    ),
    "packet": (
        ("label", "t"),
        "amplitude of the reference image's packet along the attack",
        "input unit ** -1/2",
    ),
}
_OF_A_CLASS = {
    "position_std": ("effective radius Dx of the neighbourhood of the class", "input unit"),
    "momentum_std": ("effective radius Dp of the neighbourhood of the class", "1 / input unit"),
    "bound": ("sum of |C| over the pixels: Dx Dp is at least this", "1"),
    "boundary": ("boundary term B of the neighbourhood of the class, mean over the pixels", "1"),
}
for _name, (_meaning, _unit) in _OF_A_CLASS.items():
    _variable = f"neighborhood_{_name}"
    _VARIABLES[_variable] = (("label",), _meaning, _unit)
    _VARIABLES[f"{_variable}_error"] = (("label",), f"standard error of {_variable}", _unit)


# What follows from the rest of a record.
_DERIVED = {
    "clean_accuracy",
    "clean_accuracy_error",
    "robust_accuracy_error",
    "label_accuracy_error",
}


def make_cube(
    records: Sequence[Record],
    probes: Probes,
    *,
    epsilon: Sequence[float],
    regularization: Sequence[float],
    regularization_name: str,
    regularization_unit: str,
    attributes: Mapping[str, Any],
) -> xr.Dataset:
    """Put the records of all epochs so far into one labelled data set.

    Parameters
    ----------
    records : sequence of dict of str to ndarray, shape (N, ...)
        For each epoch, from 0, what `measure` returned, what `measure_neighborhoods` did if it was
        asked, and ``train_loss`` (N,), in the last one
        also ``diverged`` and ``reason`` (N,), all as in `training.Epoch`; N networks with the
        regularization running fastest.
    probes : Probes
        What was measured on.
    epsilon, regularization : sequence of float
        The axes of the grid.
    regularization_name, regularization_unit : str
        What the strength is of, and its unit.
    attributes : mapping
        Attributes of the data set; JSON takes them.

    Returns
    -------
    xarray.Dataset
    """
    shape = len(epsilon), len(regularization)
    stacked = {name: np.stack([record[name] for record in records], 1) for name in records[0]}
    robust = stacked["robust_accuracy"]
    images = len(probes.labels)
    words = _words(probes.task)
    stacked["robust_accuracy_error"] = np.sqrt(robust * (1 - robust) / images)
    if "label_accuracy" in stacked:  # cubes that were begun before it was kept go on without it
        label = stacked["label_accuracy"]
        images_of = np.bincount(probes.labels.cpu(), minlength=len(probes.packets))
        stacked["label_accuracy_error"] = np.sqrt(label * (1 - label) / images_of[:, None])
    # The same images under no attack: equal by definition, so taken from there.
    for name in ("accuracy", "accuracy_error"):
        stacked[f"clean_{name}"] = stacked[f"robust_{name}"][..., 0]
    variables: dict[str, Any] = {
        name: (
            (*_GRID, "epoch", *dimensions),
            stacked[name].reshape(*shape, *stacked[name].shape[1:]),
            {"long_name": meaning.format(**words), "units": unit.format(**words)},
        )
        for name, (dimensions, meaning, unit) in _VARIABLES.items()
        if name in stacked
    }
    variables["diverged"] = (
        _GRID,
        records[-1]["diverged"].reshape(shape),
        {"long_name": "epoch since which the network has failed, -1 where it works", "units": "1"},
    )
    variables["diverged_reason"] = (
        _GRID,
        records[-1]["reason"].reshape(shape),
        {
            "long_name": "why the network has failed",
            "units": "1",
            "flag_values": list(range(len(REASONS))),
            "flag_meanings": list(REASONS),
        },
    )
    variables["probe_image"] = (
        ("label", "probe"),
        probes.packets.cpu().numpy(),
        {"long_name": "index of the probe images among the measured test images", "units": "1"},
    )
    radius = f"input unit, {probes.norm} norm"
    axes: list[tuple[str, Any, str, str]] = [
        ("epsilon", list(epsilon), "adversarial radius in training", radius),
        ("regularization", list(regularization), regularization_name, regularization_unit),
        ("epoch", np.arange(len(records)), "finished epochs of training", "1"),
        ("label", np.arange(len(probes.packets)), words["label"], "1"),
        (
            "attack_epsilon",
            list(probes.attack_epsilon),
            "radius of the attack on the test images",
            radius,
        ),
        ("t", probes.t.numpy(), "position along the attack", "input unit, l2 norm"),
    ]
    coordinates = {
        name: (name, values, {"long_name": meaning, "units": unit})
        for name, values, meaning, unit in axes
    }
    return xr.Dataset(variables, coordinates, attributes)


def _words(task: Task) -> dict[str, str]:
    if not isinstance(task, Regression):
        return {
            "loss": "cross-entropy",
            "unit": task.loss_unit,
            "right": "classified correctly",
            "label": "class",
        }
    return {
        "loss": task.loss_name,
        "unit": task.loss_unit,
        "right": f"predicted within {task.tolerance:g} {task.unit}".rstrip(),
        "label": "group of inputs",
    }


def task_attributes(task: Task) -> dict[str, Any]:
    """Return what a cube says of its task: nothing for the classes that are usual.

    Parameters
    ----------
    task : Task

    Returns
    -------
    dict
        Attributes; JSON takes them.
    """
    return {"task": task.facts} if task.facts else {}


def records(cube: xr.Dataset) -> list[Record]:
    """Take a cube apart again into the records of its epochs, bit for bit.

    What only the last record of a cube has is left out: more epochs are to follow.

    Parameters
    ----------
    cube : xarray.Dataset
        What `make_cube` returned.

    Returns
    -------
    list of dict of str to ndarray, shape (N, ...)
    """
    names = _VARIABLES.keys() - _DERIVED
    stacked = {
        name: cube[name].values.reshape(-1, *cube[name].shape[len(_GRID) :])
        for name in names
        if name in cube
    }
    return [
        {name: values[:, epoch] for name, values in stacked.items()}
        for epoch in range(cube.sizes["epoch"])
    ]
