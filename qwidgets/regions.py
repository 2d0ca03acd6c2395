"""The input plane of two-dimensional data: what each network says everywhere, and attacks there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from qwidgets.attacks import pgd
from qwidgets.models import evaluating
from qwidgets.tasks import CLASSIFICATION

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from numpy.typing import NDArray
    from torch import nn

    from qwidgets.data import Dataset

SIZE = 64
POINTS = 120
_PLANE = 2


@dataclass(frozen=True, kw_only=True, eq=False)
class Regions:
    """N networks on the square of valid inputs.

    Attributes
    ----------
    axis : ndarray, shape (S,), float64
        Coordinates of the grid, the same along x and y; input units.
    odds : ndarray, shape (N, C - 1, S, S), float32
        Logit of each class but the first, less that of the first, in nats; rows along y, columns
        along x.
    points : ndarray, shape (P, 2), float32
        Some test inputs, evenly over the classes.
    labels : ndarray, shape (P,), int64
        Their classes.
    attacked : ndarray, shape (N, A, P, 2), float32
        What PGD makes of them at each of A radii.
    """

    axis: NDArray[np.float64]
    odds: NDArray[np.float32]
    points: NDArray[np.float32]
    labels: NDArray[np.int64]
    attacked: NDArray[np.float32]


def is_plane(data: Dataset) -> bool:
    """Whether inputs are points of a plane that classes divide."""
    return data.input_shape == (_PLANE,) and data.task == CLASSIFICATION


def iterate_regions(
    networks: Sequence[Callable[[], nn.Module]],
    data: Dataset,
    *,
    attack_epsilon: Sequence[float],
    norm: Literal["linf", "l2"] = "linf",
    steps: int = 10,
    seed: int = 0,
    size: int = SIZE,
    points: int = POINTS,
) -> Generator[None, None, Regions]:
    """Ask every network about a grid of inputs, and attack some test inputs.

    Parameters
    ----------
    networks : sequence of callable
        Each returns a network; called one after another.
    data : Dataset
        Of points in the plane.
    attack_epsilon : sequence of float
        Radii.
    norm : {"linf", "l2"}
        Of the attack.
    steps : int
        Of PGD.
    seed : int
        Of its starts, the same for every network.
    size : int
        Points of the grid along each axis, at least 2.
    points : int
        Test inputs, at most.

    Yields
    ------
    None
        After every network.

    Returns
    -------
    Regions

    Raises
    ------
    ValueError
        Data that are not points of a plane.
    """
    if not is_plane(data):
        message = (
            "data must be points of a plane, of shape (2,), with classes, got inputs of shape "
            f"{data.input_shape}{'' if data.task == CLASSIFICATION else ' of a regression'}."
        )
        raise ValueError(message)
    low, high = data.value_range
    axis = torch.linspace(low, high, size, dtype=torch.float64)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    grid = torch.stack([x, y], -1).reshape(-1, _PLANE).float()
    some = data.subset(test=min(points, len(data.test_labels)))
    inputs, labels = some.test_inputs, some.test_labels
    radii = torch.tensor(list(attack_epsilon), dtype=torch.float64)
    odds, attacked = [], []
    for make in networks:
        network = make()
        device = next(network.parameters(), inputs).device
        with torch.no_grad(), evaluating(network):
            logits = network(grid.to(device)).float().cpu()
        odds.append((logits[:, 1:] - logits[:, :1]).T.reshape(-1, size, size).numpy())
        # All radii at once.
        moved = pgd(
            network,
            inputs.repeat(len(radii), 1),
            labels.repeat(len(radii)),
            radii.repeat_interleave(len(labels)),
            norm=norm,
            steps=steps,
            value_range=data.value_range,
            seed=seed,
        )
        attacked.append(moved.float().cpu().reshape(len(radii), len(labels), _PLANE).numpy())
        yield
    return Regions(
        axis=axis.numpy(),
        odds=np.stack(odds),
        points=inputs.numpy(),
        labels=labels.numpy(),
        attacked=np.stack(attacked),
    )
