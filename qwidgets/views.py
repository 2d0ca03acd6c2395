"""From the cube to what a plot needs: compact arrays, axis limits, readings and words. NumPy only.

A reading is what the sliders show: the numbers of one trained network, or between networks their
interpolation. The rule stands here and in `js/src/cube.ts`, and `tests/reading.json` holds
the numbers that both must give.

Arrays are laid out epoch first, so that one finished epoch is one contiguous block that can be sent
on its own, and in single precision; packets, which are only looked at, in half precision, and in
the unit of their window: whoever draws them makes their norm one again.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

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
# What says where in a sweep one looks: arguments of `qwidgets.figure`, traits of the Explorer.
POSITION = ("epsilon", "regularization", "label", "epoch", "attack_epsilon")
TITLE = "Uncertainty of a neural network"
# Beyond five widths the window's own density is below 4e-6 of its peak: nothing there can be seen.
_SHOWN_WIDTHS = 5.0
# What is drawn of these, single precision holds with room for squares.
_WIDTHS = 1e-30, 1e30
# The Wigner function of a packet is over by three standard deviations of its momentum.
_MOMENTUM_SPAN = 3.0
_LOG_STEPS: tuple[tuple[float, ...], ...] = (
    (1,),
    (1, 2, 5),
    (1, 1.5, 2, 3, 5, 7),
    (1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 3.5, 4, 5, 6, 7, 8, 9),
)
_FEWEST_TICKS = 4
_FEW_EPOCHS = 11
# Decimal exponents of the numbers that are written without one.
_PLAIN = (-4, 5)
# Marks that set the direction of the words after them.
_DIRECTIONS = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
# A grid value that went through text or single precision is still that grid point.
_SAME_POINT = 1e-6
_LINEAR_TICKS = 6
_MODEL_NAMES = {
    "mlp": "mlp 128-128",
    "conv": "three-layer conv",
    "encoder_decoder": "encoder-decoder",
    "custom": "your model",
}
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


class Place(NamedTuple):
    """Networks that a point of the (epsilon, regularization) surface is read from.

    Attributes
    ----------
    networks : tuple of (int, int)
        Rows and columns of the grid, one to four.
    weights : tuple of float
        What each counts; they sum to 1.
    """

    networks: tuple[tuple[int, int], ...]
    weights: tuple[float, ...]

    @property
    def trained(self) -> bool:
        """Whether the numbers are one trained network's, not an interpolation."""
        return len(self.networks) == 1


# Without regularization and at the smallest radius: the clean network wherever the grid has one.
REFERENCE = Place(((0, 0),), (1.0,))


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
            # Of order one, whatever the input units: half precision ends at 6e-8 and 65504.
            values = values[..., _shown(dataset)] * math.sqrt(dataset.attrs["width"])
        if epoch is None:
            values = np.moveaxis(values, 2, 0) if grid else values[None]
        kind = np.float16 if name == "packet" else np.float32
        arrays[name] = np.ascontiguousarray(values, dtype=kind)
    return arrays


def thinned(dataset: xr.Dataset, most: int) -> xr.Dataset:
    """Keep so much of a cube that its plotted arrays take at most so many bytes, if that can be.

    Epochs go first, down to eleven, then rows and columns of the grid, then the other epochs; what
    stays is evenly spaced, with the first and the last of each.

    Parameters
    ----------
    dataset : xarray.Dataset
        The cube.
    most : int
        Bytes, as they come from `plot_arrays`.
    """
    one = dataset.isel(epsilon=[0], regularization=[0], epoch=[0])
    network = sum(values.nbytes for values in plot_arrays(one).values())
    sizes = {name: dataset.sizes[name] for name in ("epoch", "epsilon", "regularization")}

    def excess() -> float:
        return network * math.prod(sizes.values()) / most

    def shrink(name: str, factor: float, least: int) -> None:
        sizes[name] = max(math.floor(sizes[name] / max(factor, 1)), min(sizes[name], least))

    shrink("epoch", excess(), _FEW_EPOCHS)
    side = math.sqrt(max(excess(), 1))
    shrink("epsilon", side, 2)
    shrink("regularization", excess(), 2)
    shrink("epsilon", excess(), 2)
    shrink("epoch", excess(), 2)
    kept = {
        name: np.unique(np.rint(np.linspace(0, dataset.sizes[name] - 1, size)).astype(int))
        for name, size in sizes.items()
    }
    return dataset.isel(kept)


def grid_position(
    values: Sequence[float], value: float, spacing: Literal["linear", "log"] = "linear"
) -> float:
    """Fractional position of a value on a grid, clamped to it; whole at a grid point.

    Parameters
    ----------
    values : sequence of float
        The grid, increasing.
    value : float
        The value to find; not a number is taken for the first.
    spacing : {"linear", "log"}
        How positions run between two grid values: with the value, or, where both are positive,
        with its logarithm.
    """
    last = len(values) - 1
    if not value > values[0]:
        return 0.0
    if value >= values[last]:
        return float(last)
    i = int(np.searchsorted(values, value, side="right")) - 1
    low, high = values[i], values[i + 1]
    if spacing == "log" and low > 0:
        position = i + math.log(value / low) / math.log(high / low)
    else:
        position = i + (value - low) / (high - low)
    nearest = round(position)
    return float(nearest) if abs(position - nearest) < _SAME_POINT else float(position)


def place(dataset: xr.Dataset, epsilon: float, regularization: float) -> Place:
    """Find the trained networks around a point, with bilinear weights in slider coordinates."""
    rows = _around(grid_position(dataset.epsilon.values.tolist(), epsilon))
    columns = _around(grid_position(dataset.regularization.values.tolist(), regularization, "log"))
    corners = [((i, j), a * b) for i, a in rows for j, b in columns]
    return Place(tuple(corner for corner, _ in corners), tuple(weight for _, weight in corners))


def read(dataset: xr.Dataset, name: str, at: Place) -> NDArray[np.float64]:
    """Read one variable at a place, interpolated: shape (epoch, ...).

    A number that is undefined for one of the networks is undefined between them.
    """
    values = dataset[name].values
    terms = [
        weight * values[i, j].astype(np.float64)
        for (i, j), weight in zip(at.networks, at.weights, strict=True)
    ]
    total: NDArray[np.float64] = np.sum(terms, axis=0)
    return total


def read_radius(
    dataset: xr.Dataset, values: NDArray[np.float64], radius: float
) -> NDArray[np.float64]:
    """Read values over the measured attack radii, the last axis, at any: linear between them."""
    position = grid_position(dataset.attack_epsilon.values.tolist(), radius)
    (first, weight), *rest = _around(position)
    total = weight * values[..., first]
    for index, share in rest:
        total = total + share * values[..., index]
    return np.asarray(total)


def packet(dataset: xr.Dataset, at: Place, epoch: int, label: int) -> NDArray[np.float64]:
    """Amplitude of the packet at a place, of unit norm, at each ``t`` of `plot_axes`."""
    psi = read(dataset, "packet", at)[epoch, label, _shown(dataset)]
    step = float(dataset.t[1] - dataset.t[0])
    return np.asarray(psi / math.sqrt(float(np.sum(psi**2)) * step))


def phase_space(
    t: NDArray[np.float64], psi: NDArray[np.float64], k: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Wigner function and momentum density of a real packet, hbar = 1.

    Parameters
    ----------
    t : ndarray, shape (T,)
        Evenly spaced positions, input units; the packet vanishes beyond them.
    psi : ndarray, shape (T,)
        Amplitude, ``integral psi^2 dt = 1``.
    k : ndarray, shape (K,)
        Momenta, 1 / input units.

    Returns
    -------
    wigner : ndarray, shape (K, T)
        ``W(t, k) = integral psi(t + y) psi(t - y) exp(-2 i k y) dy / pi``, from -1/pi to 1/pi.
    density : ndarray, shape (K,)
        ``|integral psi exp(-i k t) dt|^2 / (2 pi)``, input units.
    """
    step = t[1] - t[0]
    shifts = np.arange((len(t) + 1) // 2)
    padded = np.pad(psi, len(shifts))
    centre = np.arange(len(t))[:, None] + len(shifts)
    # Even in the shift: half of the line is enough.
    products = padded[centre + shifts] * padded[centre - shifts] * np.where(shifts, 2, 1)
    wigner = np.cos(2 * step * np.outer(k, shifts)) @ products.T * (step / math.pi)
    wave = np.exp(-1j * np.outer(k, t)) @ psi * step
    return wigner, np.abs(wave) ** 2 / (2 * math.pi)


def pareto_front(x: NDArray[np.float64], y: NDArray[np.float64]) -> list[int]:
    """Find the points that no other point beats in both coordinates, by growing x."""
    finite = np.flatnonzero(np.isfinite(x) & np.isfinite(y))
    front: list[int] = []
    for index in sorted(finite.tolist(), key=lambda i: (-x[i], -y[i])):
        if not front or y[index] > y[front[-1]]:
            front.append(index)
    return front[::-1]


def middle_radius(radii: Sequence[float]) -> float:
    """Return the measured attack radius that is closest to half of the largest."""
    return min(radii, key=lambda radius: abs(radius - max(radii) / 2))


def limits(dataset: xr.Dataset) -> Limits:
    """Axis limits over all networks, classes and finished epochs, rounded outwards.

    They depend on nothing that a slider chooses, so that no move rescales a plot.

    Raises
    ------
    ValueError
        The width is so small or so large that the numbers leave single precision.
    """
    width = float(dataset.attrs["width"])
    if not _WIDTHS[0] <= width <= _WIDTHS[1]:
        message = (
            f"width must be from {_WIDTHS[0]:g} to {_WIDTHS[1]:g} to be drawn, got {width:g}; give "
            "the inputs in another unit."
        )
        raise ValueError(message)
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
        accuracy=(lower_end(clean), lower_end(robust)),
        radius=float(dataset.attack_epsilon.max()) or 1.0,
        excess=max(_round_up(excess), 0.02),
    )


def lower_end(values: NDArray[np.float64]) -> float:
    """Lower end of an accuracy axis, in steps of 0.1, of the last finished epoch."""
    return max(0.0, float(np.floor(10 * float(values.min(initial=1.0)) - 0.3) / 10))


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
    # Without the sign of a zero, which people would read.
    return [_rounded(i * step) + 0.0 for i in np.arange(first, last + 1)]


def significant(value: float, digits: int = 3) -> str:
    """Write a number with so many significant digits, a dash where it is undefined."""
    if not math.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    # Rounded first: 9.996 has its first digit where 10.0 has it.
    exponent = int(f"{value:.{digits - 1}e}".partition("e")[2])
    if not _PLAIN[0] <= exponent < _PLAIN[1]:
        return _plain_exponent(f"{value:.{digits - 1}e}")
    return _fixed(value, max(0, digits - 1 - exponent))


def setting(value: float) -> str:
    """Write the value of a slider: at least two decimals, no trailing zeros beyond them."""
    text = significant(value)
    if "e" in text:
        return text
    decimals = text.rstrip("0").partition(".")[2]
    return _fixed(value, 2) if len(decimals) < 2 else text.rstrip("0")  # noqa: PLR2004


def with_error(value: float, error: float) -> str:
    """Write a value to three digits and its standard error to one."""
    if not (math.isfinite(value) and math.isfinite(error)):
        return significant(value)
    return f"{significant(value)} ± {significant(error, 1)}"


def percentage(value: float, error: float) -> str:
    """Write an accuracy and its standard error in percent."""
    if not math.isfinite(value):
        return "–"
    return f"{_fixed(100 * value, 1)}% ± {_fixed(100 * error, 1)}"


def count(number: int, noun: str) -> str:
    """Write a number of things: "1 epoch", "2 epochs"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def one_line(name: str) -> str:
    """Name of a person's own, for a line of words: without what turns or breaks the line."""
    return " ".join(_DIRECTIONS.sub("", name).split())


def describe(attributes: Mapping[str, Any], shape: tuple[int, ...]) -> dict[str, str]:
    """Words for the head of the picture: title, what was trained, name of the regularizer."""
    if "regularizer" not in attributes:
        models = "your model" if shape == (1,) else f"{shape[0]} models of yours"
        attack = f"{_NORM_NAMES[attributes['norm']]} PGD"
        data = one_line(str(attributes["data"]))
        return {
            "title": TITLE,
            "subtitle": " · ".join((data, *_goal(attributes), models, attack, "not trained here")),
            "regularizer": "",
        }
    parts = (
        one_line(str(attributes["data"])),
        *_goal(attributes),
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


def group(attributes: Mapping[str, Any]) -> str:
    """Say what a label stands for: a class, or a group of inputs where the task has no classes."""
    return "group" if "task" in attributes else "class"


def _goal(attributes: Mapping[str, Any]) -> tuple[str, ...]:
    """Say what the loss of a regression is, and what its accuracy."""
    if "task" not in attributes:
        return ()
    task = attributes["task"]
    within = f"accuracy: share within {task['tolerance']:g} {task['unit']}".rstrip()
    return one_line(task["loss"]), one_line(within)


def _around(position: float) -> list[tuple[int, float]]:
    """Grid points around a position, one or two, and what each counts."""
    index = math.floor(position)
    share = position - index
    return [(index, 1.0)] if share == 0 else [(index, 1 - share), (index + 1, share)]


def _fixed(value: float, decimals: int) -> str:
    """Write with so many decimals; a tie is rounded up, as browsers do."""
    return str(Decimal(value).quantize(Decimal(1).scaleb(-decimals), ROUND_HALF_UP))


def _plain_exponent(text: str) -> str:
    """Write an exponent as browsers do: 1e-7, not 1e-07."""
    mantissa, _, exponent = text.partition("e")
    return f"{mantissa}e{int(exponent):+d}"


def lens_arrays(lens: Lens) -> dict[str, NDArray[np.float32]]:
    """Take what is drawn of a lens: pictures, and probabilities or outputs."""
    arrays: dict[str, NDArray[Any]] = {"image": lens.image, "attacked": lens.attacked}
    if isinstance(lens.y, int):
        arrays |= {
            "probability": lens.probability,
            "attacked_probability": lens.attacked_probability,
        }
    else:
        arrays |= {
            "target": lens.y,
            "output": lens.output,
            "attacked_output": lens.attacked_output,
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


def _round_up(value: float) -> float:
    """Round outwards to two digits, so that limits seldom move while training goes on."""
    if value <= 0:
        return 0.0
    unit = 10.0 ** (np.floor(np.log10(value)) - 1)
    return _rounded(np.ceil(value / unit - 1e-9) * unit)


def _round_down(value: float) -> float:
    unit = 10.0 ** (np.floor(np.log10(value)) - 1)
    return _rounded(np.floor(value / unit + 1e-9) * unit)


def _rounded(value: float) -> float:
    """Round off what the arithmetic left behind, whatever the size of the number."""
    return float(f"{value:.12g}")
