"""From the cube to what a plot needs: compact arrays, axis limits and words. NumPy only.

Arrays are laid out epoch first, so that one finished epoch is one contiguous block that can be sent
on its own, and in single precision; packets, which are only looked at, in half precision.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    import xarray as xr
    from numpy.typing import NDArray

    from qwidgets.lens import Lens
    from qwidgets.regions import Regions

PLOTTED = (
    "clean_accuracy",
    "clean_accuracy_error",
    "robust_accuracy",
    "robust_accuracy_error",
    "position_std",
    "position_std_error",
    "momentum_std",
    "momentum_std_error",
    "uncertainty_product",
    "uncertainty_product_error",
    "packet",
)
# Of the neighbourhood of a class, where the sweep has measured it.
DETAIL = tuple(
    f"neighborhood_{quantity}{error}"
    for quantity in ("position_std", "momentum_std", "bound", "boundary")
    for error in ("", "_error")
)
TITLE = "Uncertainty of a neural network"
# Beyond five widths the window's own density is below 4e-6 of its peak: nothing there can be seen.
_SHOWN_WIDTHS = 5.0
# The Wigner function of a packet is over by three standard deviations of its momentum.
_MOMENTUM_SPAN = 3.0
_LOG_STEPS: tuple[tuple[float, ...], ...] = (
    (1,),
    (1, 2, 5),
    (1, 1.5, 2, 3, 5, 7),
    (1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 3.5, 4, 5, 6, 7, 8, 9),
)
_FEWEST_TICKS = 4
_LINEAR_TICKS = 6
_MODEL_NAMES = {"mlp": "mlp 128-128", "conv": "three-layer conv", "custom": "your model"}
_NORM_NAMES = {"linf": "ℓ∞", "l2": "ℓ2"}
_REGULARIZER_NAMES = {
    "gradient": "input-gradient penalty",
    "weight_decay": "weight decay",
    "label_smoothing": "label smoothing",
}


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Axis limits that hold everything finished so far.

    Attributes
    ----------
    position, momentum : tuple of float
        Limits of the uncertainty plane, in input units and 1 / input units.
    neighborhood_position, neighborhood_momentum : tuple of float
        The same for the neighbourhood of a class.
    phase_momentum : float
        Largest momentum of the phase-space picture.
    accuracy : tuple of float
        Lower ends of the clean and of the robust accuracy axis; both end at 1.
    radius : float
        Largest attack radius, input units.
    excess : float
        Largest excess ``product / bound - 1`` of the colour scale.
    """

    position: tuple[float, float]
    momentum: tuple[float, float]
    neighborhood_position: tuple[float, float]
    neighborhood_momentum: tuple[float, float]
    phase_momentum: float
    accuracy: tuple[float, float]
    radius: float
    excess: float


def plot_axes(dataset: xr.Dataset) -> dict[str, list[Any]]:
    """Coordinates as lists; classes by name, ``t`` cut to what can be seen."""
    return {
        # Models of your own take the place of the grid.
        "model": [] if _is_grid(dataset) else [str(name) for name in dataset.model.values],
        "epsilon": dataset.epsilon.values.tolist() if _is_grid(dataset) else [0.0],
        "regularization": dataset.regularization.values.tolist() if _is_grid(dataset) else [0.0],
        "attack_epsilon": dataset.attack_epsilon.values.tolist(),
        "label": [str(name) for name in dataset.attrs["class_names"]],
        "t": dataset.t.values[_shown(dataset)].tolist(),
    }


def plot_arrays(dataset: xr.Dataset, epoch: int | None = None) -> dict[str, NDArray[Any]]:
    """Take the plotted variables, epoch first, of all finished epochs or of one.

    Parameters
    ----------
    dataset : xarray.Dataset
        The cube of a sweep, or of a measurement, which has a single epoch.
    epoch : int, optional
        Only this epoch: the arrays then lack the epoch dimension.

    Returns
    -------
    dict of str to ndarray
        C-contiguous; float16 for ``packet``, float32 otherwise; those of ``DETAIL`` only where the
        sweep has them. Shapes ``(epoch, epsilon, regularization, ...)``, of a measurement
        ``(1, model, ...)``.
    """
    part = dataset if epoch is None else dataset.sel(epoch=epoch)
    grid = _is_grid(dataset)
    arrays = {}
    for name in (*PLOTTED, *(name for name in DETAIL if name in dataset)):
        values = part[name].values
        if name == "packet":
            values = values[..., _shown(dataset)]
        if epoch is None:
            values = np.moveaxis(values, 2, 0) if grid else values[None]
        kind = np.float16 if name == "packet" else np.float32
        arrays[name] = np.ascontiguousarray(values, dtype=kind)
    return arrays


def limits(dataset: xr.Dataset) -> Limits:
    """Axis limits over all networks, classes and finished epochs, rounded outwards.

    They depend on nothing that a slider chooses, so that no move rescales a plot.
    """
    width = float(dataset.attrs["width"])
    position, momentum = (
        dataset[name].values[np.isfinite(dataset[name].values)]
        for name in ("position_std", "momentum_std")
    )
    flat = 1 / (2 * width)
    low = _round_down(min(float(position.min(initial=width)), 0.8 * width) / 1.08)
    high = _round_up(max(float(momentum.max(initial=flat)), 1.25 * flat) * 1.08)
    product = dataset["uncertainty_product"].values
    excess = float(np.nanmax(2 * product - 1)) if np.isfinite(product).any() else 0.0
    last = dataset.isel(epoch=-1) if _is_grid(dataset) else dataset
    clean = np.nan_to_num(last["clean_accuracy"].values, nan=1.0)
    robust = np.nan_to_num(last["robust_accuracy"].values, nan=1.0)
    return Limits(
        position=(low, _round_up(1.12 * max(width, float(position.max(initial=width))))),
        momentum=(_round_down(min(flat, float(momentum.min(initial=flat))) / 1.12), high),
        neighborhood_position=_log_limits(dataset, "neighborhood_position_std"),
        neighborhood_momentum=_log_limits(dataset, "neighborhood_momentum_std"),
        phase_momentum=_MOMENTUM_SPAN * high,
        accuracy=(_lower_end(clean), _lower_end(robust)),
        radius=float(dataset.attack_epsilon.max()) or 1.0,
        excess=max(_round_up(excess), 0.02),
    )


def log_ticks(low: float, high: float) -> list[float]:
    """Round numbers for a logarithmic axis: the coarsest set that has four, if any has."""
    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    ticks: list[float] = []
    for steps in _LOG_STEPS:
        every = (float(f"{step}e{decade}") for decade in decades for step in steps)
        ticks = [tick for tick in every if low <= tick <= high]
        if len(ticks) >= _FEWEST_TICKS:
            break
    return ticks


def linear_ticks(low: float, high: float) -> list[float]:
    """Round numbers for a linear axis, about six."""
    raw = (high - low) / _LINEAR_TICKS
    power = 10.0 ** np.floor(np.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * (1 - 1e-9))
    first, last = np.ceil(low / step - 1e-9), np.floor(high / step + 1e-9)
    return [round(float(i * step), 12) for i in np.arange(first, last + 1)]


def describe(attributes: Mapping[str, Any], shape: tuple[int, ...]) -> dict[str, str]:
    """Words for the head of the picture: title, what was trained, name of the regularizer."""
    if "regularizer" not in attributes:
        models = "your model" if shape == (1,) else f"{shape[0]} models of yours"
        attack = f"{_NORM_NAMES[attributes['norm']]} PGD"
        return {
            "title": TITLE,
            "subtitle": " · ".join((str(attributes["data"]), models, attack, "not trained here")),
            "regularizer": "",
        }
    parts = (
        str(attributes["data"]),
        _MODEL_NAMES.get(attributes["model"], str(attributes["model"])),
        f"{shape[0]} × {shape[1]} networks",
        f"{_NORM_NAMES[attributes['norm']]} PGD",
        _REGULARIZER_NAMES[attributes["regularizer"]],
    )
    return {
        "title": TITLE,
        "subtitle": " · ".join(parts),
        "regularizer": _REGULARIZER_NAMES[attributes["regularizer"]],
    }


def lens_arrays(lens: Lens) -> dict[str, NDArray[np.float32]]:
    """Take what is drawn of a lens: pictures of the input's shape, and probabilities."""
    arrays = {
        "image": lens.image,
        "attacked": lens.attacked,
        "probability": lens.probability,
        "attacked_probability": lens.attacked_probability,
    }
    for name in ("position_std", "momentum_std"):
        values, error = getattr(lens, name), getattr(lens, f"{name}_error")
        if values is not None:
            arrays |= {name: values, f"{name}_error": error}
    return {name: np.ascontiguousarray(values, np.float32) for name, values in arrays.items()}


def region_arrays(found: Regions) -> dict[str, NDArray[Any]]:
    """Take what is drawn of the input plane, in half precision where it is only looked at."""
    limit = float(np.finfo(np.float16).max)
    odds = np.clip(np.nan_to_num(found.odds, posinf=limit, neginf=-limit), -limit, limit)
    return {
        "odds": np.ascontiguousarray(odds, np.float16),
        "attacked": np.ascontiguousarray(found.attacked, np.float16),
        "points": np.ascontiguousarray(found.points, np.float32),
        "labels": np.ascontiguousarray(found.labels, np.float32),
    }


def _is_grid(dataset: xr.Dataset) -> bool:
    return "epsilon" in dataset.dims


def _shown(dataset: xr.Dataset) -> NDArray[np.bool_]:
    reach = _SHOWN_WIDTHS * float(dataset.attrs["width"])
    shown: NDArray[np.bool_] = np.abs(dataset.t.values) <= reach * (1 + 1e-9)
    return shown


def _log_limits(dataset: xr.Dataset, name: str) -> tuple[float, float]:
    """Limits of a logarithmic axis that holds all finite positive values, if there are any."""
    values = dataset[name].values if name in dataset else np.empty(0)
    values = values[np.isfinite(values) & (values > 0)]
    if not values.size:
        return 0.1, 1.0
    return _round_down(float(values.min()) / 1.12), _round_up(float(values.max()) * 1.12)


def _lower_end(values: NDArray[np.float64]) -> float:
    """Lower end of an accuracy axis, in steps of 0.1, of the last finished epoch."""
    return max(0.0, float(np.floor(10 * float(values.min(initial=1.0)) - 0.3) / 10))


def _round_up(value: float) -> float:
    """Round outwards to two digits, so that limits seldom move while training goes on."""
    if value <= 0:
        return 0.0
    unit = 10.0 ** (np.floor(np.log10(value)) - 1)
    return float(round(np.ceil(value / unit - 1e-9) * unit, 12))


def _round_down(value: float) -> float:
    unit = 10.0 ** (np.floor(np.log10(value)) - 1)
    return float(round(np.floor(value / unit + 1e-9) * unit, 12))
