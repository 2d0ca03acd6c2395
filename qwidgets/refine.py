"""One more network, exactly where a person wants it: trained on from the nearest one of a sweep."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import numpy as np

from qwidgets.sweep import arguments_of, iterate_sweep

if TYPE_CHECKING:
    from collections.abc import Generator

    from numpy.typing import NDArray

    from qwidgets.sweep import Progress, Sweep


def refine(
    sweep: Sweep, *, epsilon: float, regularization: float, epochs: int | None = None
) -> Sweep:
    """Train and measure one network at any point of the plane that a sweep's grid spans.

    It starts from the weights of the nearest network of the grid that works, and is trained as
    those of the sweep are, but at its full radius from the first minibatch on.

    Parameters
    ----------
    sweep : Sweep
        Gives the start and all settings; it stays as it is.
    epsilon, regularization : float
        Adversarial radius and regularization strength, inside the grid.
    epochs : int, optional
        Passes over the training images; by default as many as the sweep was to have.

    Returns
    -------
    Sweep
        Of this one network. Its epoch 0 is the network that it starts from.

    Raises
    ------
    ValueError
        A point outside the grid, a sweep whose data or model are not at hand (`Sweep.data`,
        `Sweep.model`), or one in which no network works.
    """
    finished: Sweep | None = None
    with closing(
        iterate_refinement(sweep, epsilon=epsilon, regularization=regularization, epochs=epochs)
    ) as units:
        for unit in units:
            finished = unit.sweep or finished
    assert finished is not None
    return finished


def iterate_refinement(
    sweep: Sweep, *, epsilon: float, regularization: float, epochs: int | None = None
) -> Generator[Progress]:
    """Do what `refine` does, one small unit of work at a time.

    Parameters
    ----------
    sweep, epsilon, regularization, epochs
        As of `refine`.

    Returns
    -------
    iterator of Progress
        As that of `iterate_sweep`.

    Raises
    ------
    ValueError
        As `refine`, at the call.
    """
    chosen = sweep.settings
    for name, value in (("epsilon", epsilon), ("regularization", regularization)):
        low, high = (getattr(chosen, name)[end] for end in (0, -1))
        if not low <= value <= high:
            message = (
                f"{name} must be inside the grid of the sweep, {low:g} to {high:g}, got {value!r}; "
                "train a sweep that reaches so far."
            )
            raise ValueError(message)
    data = sweep.data
    row, column = nearest_network(sweep, epsilon, regularization, working=True)
    start = {
        "epsilon": chosen.epsilon[row],
        "regularization": chosen.regularization[column],
    }
    sweep.model(**start)  # refuses a model that is not known, before anything is done
    asked = arguments_of(sweep) | {
        "data": data,
        "model": lambda: sweep.model(**start),
        "epsilon": [epsilon],
        "regularization": [regularization],
        "epochs": chosen.epochs if epochs is None else epochs,
        "warm_up": 0.0,
    }
    return iterate_sweep(**asked)


def nearest_network(
    sweep: Sweep, epsilon: float, regularization: float, *, working: bool = False
) -> tuple[int, int]:
    """Say which network of the grid is nearest, in steps of the grid; of two as near, the lower.

    Parameters
    ----------
    sweep : Sweep
        The grid.
    epsilon, regularization : float
        The point.
    working : bool
        Leave out networks that have failed.

    Returns
    -------
    (int, int)
        Its row (epsilon) and column (regularization).

    Raises
    ------
    ValueError
        No network works, and one that does was asked for.
    """
    chosen = sweep.settings
    rows = np.arange(len(chosen.epsilon)) - position(chosen.epsilon, epsilon)
    columns = np.arange(len(chosen.regularization)) - position(
        chosen.regularization, regularization, geometric=True
    )
    distance = np.hypot(rows[:, None], columns[None])
    if working:
        distance = np.where(sweep.dataset["diverged"].values < 0, distance, np.inf)
        if not np.isfinite(distance).any():
            message = (
                "sweep must have a network that works to start from, but all have diverged; "
                "train it with a smaller learning_rate."
            )
            raise ValueError(message)
    # Half way between two networks, the browser takes the lower: not the last bit must decide.
    row, column = np.unravel_index(int(distance.round(9).argmin()), distance.shape)
    return int(row), int(column)


def position(
    axis: tuple[float, ...] | NDArray[np.float64], value: float, *, geometric: bool = False
) -> float:
    """Say where a value lies on an axis: 1.5 is half way from its second value to its third.

    ``geometric`` counts by factors between positive values, as the regularization slider does.
    """
    values = np.asarray(axis, dtype=np.float64)
    place = float(np.interp(value, values, np.arange(len(values))))
    below = int(place)
    if geometric and place > below and values[below] > 0:
        place = below + float(
            np.log(value / values[below]) / np.log(values[below + 1] / values[below])
        )
    return place
