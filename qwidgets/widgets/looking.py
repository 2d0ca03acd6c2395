"""The attack lens of an Explorer: what it looks at, and what crosses the wire."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qwidgets import views
from qwidgets.widgets.runner import Latest

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from torch import nn

    from qwidgets.lens import Lens

NOTHING_SEEN: dict[str, Any] = {"state": "empty", "message": ""}


@dataclass(frozen=True, kw_only=True)
class Look:
    """What to look at.

    Attributes
    ----------
    found : Sweep or Measurement
        The networks, their data, and in its attributes how to attack and measure.
    network : callable
        Returns the network. Called on the worker thread.
    of : dict
        Which one that is, for the browser: ``epsilon``, ``regularization``, ``model``, ``kind``
        ("trained", "refined" or "own") and ``epoch``.
    label, image : int
        Which of the test images of which class.
    attack_epsilon : float
        Radius of the attack, input units.
    """

    found: Any
    network: Callable[[], nn.Module]
    of: dict[str, Any]
    label: int
    image: int
    attack_epsilon: float


class Looking:
    """Computes lenses on a thread of its own, the newest request first and last.

    Parameters
    ----------
    show : callable
        Takes what the browser needs of a lens, on that thread.
    background : bool
        False does it on the caller's thread instead.
    """

    def __init__(self, show: Callable[[dict[str, Any]], None], *, background: bool = True) -> None:
        self._show = show
        self._latest: Latest[Look] = Latest(self._work, self._failed, background=background)
        self._key: tuple[object, ...] | None = None
        self.seen: Lens | None = None
        self.error: Exception | None = None

    def look(self, look: Look) -> None:
        """Look at this, if that is something else than before."""
        key = look.found, tuple(look.of.items()), look.label, look.image, look.attack_epsilon
        if key != self._key or self.error is not None:
            self._key = key
            self._latest.ask(look)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the last look is done; False if that takes longer."""
        return self._latest.wait(timeout)

    def close(self) -> None:
        """Stop looking."""
        self._latest.close()

    def _work(self, look: Look) -> Generator[None]:
        from qwidgets.lens import iterate_lens

        self.seen, self.error = None, None
        data, attributes = look.found.data, look.found.dataset.attrs
        members = (data.test_labels == look.label).nonzero()[:, 0]
        index = min(look.image, len(members) - 1)
        for seen in iterate_lens(
            look.network(),
            data.test_inputs[members[index]],
            data.test_y[members[index]] if data.test_targets is not None else look.label,
            epsilon=look.attack_epsilon,
            radius=attributes["neighborhood_radius"],
            norm=attributes["norm"],
            steps=attributes["measurement_attack_steps"],
            value_range=data.value_range,
            seed=attributes["seed"],
            task=data.task,
        ):
            self.seen = seen
            self._show(
                {
                    "state": "ready",
                    "message": seen.reason,
                    **look.of,
                    "label": look.label,
                    "image": index,
                    "images": len(members),
                    "attack_epsilon": look.attack_epsilon,
                    "radius": seen.radius,
                    "range": list(data.value_range),
                    "shape": list(data.input_shape),
                    "unit": getattr(data.task, "unit", ""),
                    "values": wire(views.lens_arrays(seen)),
                }
            )
            yield

    def _failed(self, look: Look, error: Exception) -> None:
        self.error = error
        self._show({"state": "missing", "message": str(error), **look.of})


@dataclass(frozen=True, kw_only=True)
class Survey:
    """Networks whose input plane is to be drawn.

    Attributes
    ----------
    found : Sweep or Measurement
        What they belong to.
    networks : sequence of callable
        Each returns one; called on the worker thread.
    epoch : int
        After which they are seen.
    """

    found: Any
    networks: Sequence[Callable[[], nn.Module]]
    epoch: int


class Surveying:
    """Draws the input plane of two-dimensional data for all networks, on a thread of its own.

    Parameters
    ----------
    show : callable
        Takes what the browser needs of it, on that thread.
    background : bool
        False does it on the caller's thread instead.
    """

    def __init__(self, show: Callable[[dict[str, Any]], None], *, background: bool = True) -> None:
        self._show = show
        self._latest: Latest[Survey] = Latest(self._work, self._failed, background=background)

    def ask(self, survey: Survey) -> None:
        """Draw other networks, if their inputs are points of a plane."""
        self._latest.ask(survey)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the last survey is done; False if that takes longer."""
        return self._latest.wait(timeout)

    def close(self) -> None:
        """Stop."""
        self._latest.close()

    def _work(self, survey: Survey) -> Generator[None]:
        from qwidgets.regions import iterate_regions

        dataset, data = survey.found.dataset, survey.found.data
        found = yield from iterate_regions(
            survey.networks,
            data,
            attack_epsilon=dataset.attack_epsilon.values.tolist(),
            norm=dataset.attrs["norm"],
            steps=dataset.attrs["measurement_attack_steps"],
            seed=dataset.attrs["seed"],
        )
        references = data.test_inputs[dataset.probe_image.values[:, 0]]
        self._show(
            {
                "state": "ready",
                "message": "",
                "epoch": survey.epoch,
                "range": list(data.value_range),
                "size": len(found.axis),
                "references": references.tolist(),
                "values": wire(views.region_arrays(found)),
            }
        )

    def _failed(self, _survey: Survey, error: Exception) -> None:
        self._show({"state": "missing", "message": str(error)})


def wire(arrays: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Put arrays as the browser takes them: raw bytes, type and shape."""
    return {
        name: {"dtype": str(values.dtype), "shape": list(values.shape), "data": values.data}
        for name, values in arrays.items()
    }
