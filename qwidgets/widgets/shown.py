"""What an Explorer shows: a grid or models, their arrays, and the networks refined from them."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from qwidgets import views
from qwidgets.widgets.looking import wire

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray
    from torch import nn

    from qwidgets.sweep import Sweep

    Arrays = dict[str, NDArray[Any]]


class Shown:
    """A sweep or a measurement of this session, as the browser is told of it; it grows by epochs.

    Arrays have room for all planned epochs from the first on, and what is still to come is not a
    number in them: an epoch is written in its place, and nothing else is copied.

    Parameters
    ----------
    found : Sweep or Measurement
        What was finished first.
    settings : dict
        What trains or measures it again.

    Attributes
    ----------
    found : Sweep or Measurement
        Everything finished so far.
    grid : bool
        Whether it is a grid of trained networks, not models that were measured.
    planned : int
        The last epoch that is planned.
    axes : dict
        See `qwidgets.views.plot_axes`.
    limits : Limits
        Axis limits that hold everything finished so far.
    refinements : list of Sweep
        The refined networks, each a sweep of one.
    refined : list of dict
        The same for the browser: point, epochs, what is finished, and the arrays.
    """

    def __init__(self, found: Any, settings: Mapping[str, Any] | None = None) -> None:
        from qwidgets.sweep import Sweep

        self.settings = dict(settings or {})
        self.found = found
        self.grid = isinstance(found, Sweep)
        self.planned: int = found.settings.epochs if self.grid else 0
        self.axes = views.plot_axes(found.dataset)
        self.limits = views.limits(found.dataset)
        self._arrays = _with_room(views.plot_arrays(found.dataset), self.planned)
        self.refinements: list[Sweep] = []
        self.refined: list[dict[str, Any]] = []
        self._refined_arrays: list[Arrays] = []

    @property
    def last(self) -> int:
        """The last finished epoch."""
        return int(self.found.dataset.sizes.get("epoch", 1)) - 1

    @property
    def heading(self) -> dict[str, str]:
        """Words for the head of the picture."""
        shape = [len(self.axes[name]) for name in ("epsilon", "regularization")]
        models = [len(self.axes["model"])]
        return views.describe(self.found.dataset.attrs, tuple(shape if self.grid else models))

    @property
    def name(self) -> str:
        """What it is called among those that are kept."""
        more = f" · {len(self.refined)} refined" if self.refined else ""
        return f"{self.heading['subtitle']} · {views.count(self.last, 'epoch')}{more}"

    @property
    def state(self) -> str:
        """What there is, where it was not trained just now."""
        if not self.grid:
            return f"{views.count(len(self.found.names), 'model')}, measured and not trained"
        networks = len(self.axes["epsilon"]) * len(self.axes["regularization"])
        stopped = "" if self.found.complete else f"stopped after epoch {self.last}, "
        return f"{stopped}{views.count(networks, 'trained network')}"

    def cube(self) -> dict[str, Any]:
        """Return all numbers for the browser, of the finished epochs alone."""
        finished = self.last + 1
        return {
            "axes": self.axes,
            "epochs": self.planned,
            "finished": finished,
            "group": views.group(self.found.dataset.attrs),
            "width": float(self.found.dataset.attrs["width"]),
            "momentum_limit": self.limits.phase_momentum,
            "excess_limit": self.limits.excess,
            "values": wire({name: values[:finished] for name, values in self._arrays.items()}),
        }

    def add(self, found: Any) -> tuple[int, Arrays]:
        """Take one more epoch of the grid in; return which it is, and what is new."""
        epoch = int(found.dataset.epoch[-1])
        arrays = views.plot_arrays(found.dataset, epoch)
        for name, values in arrays.items():
            self._arrays[name][epoch] = values
        self.found, self.limits = found, views.limits(found.dataset)
        return epoch, arrays

    def on_grid(self, point: Mapping[str, float]) -> bool:
        """Whether a network of the grid was trained at a point."""
        chosen = self.found.settings
        return all(
            any(_same(value, on) for on in getattr(chosen, name)) for name, value in point.items()
        )

    def refined_at(self, point: Mapping[str, float], *, complete: bool) -> int | None:
        """Position of the refined network at a point, if there is one (that is complete)."""
        for index, entry in enumerate(self.refined):
            if all(_same(value, entry[name]) for name, value in point.items()):
                return index if entry["complete"] or not complete else None
        return None

    def add_refined(self, found: Sweep) -> tuple[int, int, Arrays]:
        """Take an epoch of a refined network in; one begun before at its point gives way.

        Parameters
        ----------
        found : Sweep
            Of this one network, with everything finished so far.

        Returns
        -------
        index : int
            Its position among the refined networks.
        epoch : int
            Which epoch it is.
        arrays : dict of str to ndarray
            What is new.
        """
        epoch, point = int(found.dataset.epoch[-1]), _point_of(found)
        index = self.refined_at(point, complete=False)
        if index is None or epoch == 0:
            index = len(self.refined) if index is None else index
            whole = {name: one[:, 0, 0] for name, one in views.plot_arrays(found.dataset).items()}
            arrays = _with_room(whole, found.settings.epochs)
            entry = {**point, "epochs": found.settings.epochs, "values": wire(arrays)}
        else:
            arrays, entry = self._refined_arrays[index], self.refined[index]
        new = {name: one[0, 0] for name, one in views.plot_arrays(found.dataset, epoch).items()}
        for name, values in new.items():
            arrays[name][epoch] = values
        entry.update(finished=epoch + 1, complete=found.complete)
        # A new one is appended. Whoever looks from another thread finds it last, and then whole.
        self.refinements[index : index + 1] = [found]
        self._refined_arrays[index : index + 1] = [arrays]
        self.refined[index : index + 1] = [entry]
        return index, epoch, new

    def networks(self) -> Sequence[Callable[[], nn.Module]]:
        """Return all networks, to be made later: the grid or the models, then the refined ones."""
        found = self.found
        if not self.grid:
            return [partial(found.model, name) for name in found.names]
        grid = [
            partial(found.model, epsilon=epsilon, regularization=regularization)
            for epsilon in found.settings.epsilon
            for regularization in found.settings.regularization
        ]
        return grid + [partial(one.model, **_point_of(one)) for one in self.refinements]

    def nearest(
        self, epsilon: float, regularization: float, model: str
    ) -> tuple[Callable[[], nn.Module], dict[str, Any]]:
        """Return the network at a point or nearest to it, to be made later, and which that is."""
        of: dict[str, Any] = {
            "epsilon": 0.0,
            "regularization": 0.0,
            "model": "",
            "epoch": self.last,
        }
        if not self.grid:
            return partial(self.found.model, model), of | {"model": model, "kind": "own"}
        point = {"epsilon": epsilon, "regularization": regularization}
        index = self.refined_at(point, complete=False)
        found: Any = self.found
        if index is not None:
            found = self.refinements[index]
            of |= {**point, "kind": "refined", "epoch": int(found.dataset.epoch[-1])}
        else:
            from qwidgets.refine import nearest_network

            row, column = nearest_network(found, epsilon, regularization)
            point = {
                "epsilon": found.settings.epsilon[row],
                "regularization": found.settings.regularization[column],
            }
            of |= {**point, "kind": "trained"}
        return partial(found.model, **point), of


def words(point: Mapping[str, float]) -> str:
    """Say where a point of the grid's plane is."""
    return f"ε {point['epsilon']:.3g}, λ {point['regularization']:.3g}"


def _point_of(refinement: Sweep) -> dict[str, float]:
    chosen = refinement.settings
    return {"epsilon": chosen.epsilon[0], "regularization": chosen.regularization[0]}


def _with_room(arrays: Arrays, epochs: int) -> Arrays:
    """Copy arrays, epoch first, into ones that have room for all epochs."""
    roomy = {}
    for name, values in arrays.items():
        roomy[name] = np.full((epochs + 1, *values.shape[1:]), np.nan, values.dtype)
        roomy[name][: len(values)] = values
    return roomy


def _same(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12)
