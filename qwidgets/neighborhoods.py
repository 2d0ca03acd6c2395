"""The neighbourhood of each class, as every network of a batch sees it: its effective radii."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from qwidgets.domain import Neighborhood, NoPacketError
from qwidgets.ensemble import unstack
from qwidgets.models import load_parameters, outputs_of, packet_loss
from qwidgets.moments import iterate_uncertainty
from qwidgets.tasks import CLASSIFICATION
from qwidgets.threads import mapped, side_by_side

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

    from torch import Tensor, nn

    from qwidgets.measurement import Probes, Record
    from qwidgets.moments import Uncertainty

Detail = Literal["last-epoch", "every-epoch"]
DETAILS: tuple[Detail, ...] = ("last-epoch", "every-epoch")

# Numbers in the samples of a class from which on threads share the work. Of fewer (8 x 8 pixels)
# they make small steps and wait for Python's lock: two took longer than one.
_WORTH_A_THREAD = 1 << 18


def measure_neighborhoods(
    network: nn.Module, parameters: Mapping[str, Tensor], probes: Probes
) -> Generator[float, None, Record]:
    """Measure the l-infinity balls around the test images of each class, network by network.

    The quantity is `qwidgets.uncertainty` on the `Neighborhood` of the measured test images of a
    class, of radius ``probes.neighborhood_radius``, with the cross-entropy of that class as the
    loss.
    In a regression each ball has the target of its own image: there the loss of a point is that of
    the nearest image, in the norm of the balls.

    Parameters
    ----------
    network : torch.nn.Module
        The architecture; the weights it has are not used.
    parameters : mapping of str to Tensor, shape (N, ...)
        Of N networks.
    probes : Probes
        Images, radius, valid range, number of evaluations and seed.

    Yields
    ------
    float
        Share that is done, after every network and class.

    Returns
    -------
    dict of str to ndarray, shape (N, L), float64
        ``neighborhood_position_std`` and ``neighborhood_momentum_std``, the effective radii Dx and
        Dp; ``neighborhood_bound``, the sum of |C| over the pixels, which Dx Dp never falls below;
        ``neighborhood_boundary``, the mean of B over the pixels; and the standard error of each as
        ``..._error``. Those of the sum and of the mean are upper bounds, the pixels taken as fully
        correlated. NaN for a class without test images, and for a network whose loss is zero or not
        finite there.
    """
    networks, classes = len(next(iter(parameters.values()))), len(probes.packets)
    on_cpu = next(iter(parameters.values())).device.type == "cpu"
    works = (_of_network(network, unstack(parameters, index), probes) for index in range(networks))
    numbers = probes.neighborhood_samples * probes.inputs[0].numel()
    worth = on_cpu and numbers >= _WORTH_A_THREAD
    workers = min(torch.get_num_threads(), networks) if worth else 1
    units = networks * classes
    every = yield from mapped(side_by_side(works, workers), lambda done: done / units)
    return {name: np.concatenate([one[name] for one in every]) for name in VARIABLES}


def _of_network(
    network: nn.Module, weights: dict[str, Tensor], probes: Probes
) -> Generator[None, None, Record]:
    """Measure one network, yielding before every class."""
    inputs, labels = probes.inputs.cpu().flatten(1), probes.labels.cpu()
    shape = tuple(probes.inputs.shape[1:])
    classes = len(probes.packets)
    record = unmeasured(1, classes)
    network = copy.deepcopy(network)
    load_parameters(network, weights)
    for label in range(classes):
        yield
        centers = inputs[labels == label]
        if not len(centers):
            continue
        domain = Neighborhood(centers, probes.neighborhood_radius, clip=probes.value_range)
        loss: Callable[[Tensor], Tensor] = (
            packet_loss(network, label, shape)
            if probes.task == CLASSIFICATION
            else _own_targets(network, probes, centers, probes.y.cpu()[labels == label])
        )
        try:
            *_, found = iterate_uncertainty(
                loss, domain, samples=probes.neighborhood_samples, seed=probes.seed
            )
        except NoPacketError:
            continue
        for name, value in _figures(found).items():
            record[name][0, label] = value
    return record


def _own_targets(
    network: nn.Module, probes: Probes, centers: Tensor, targets: Tensor
) -> Callable[[Tensor], Tensor]:
    shape = probes.inputs.shape[1:]

    def loss(x: Tensor) -> Tensor:
        nearest = torch.cdist(x.detach().to(centers), centers, p=float("inf")).argmin(1)
        return probes.task.losses(
            outputs_of(network, x.reshape(-1, *shape)), targets.to(x.device).double()[nearest]
        )

    return loss


def unmeasured(networks: int, classes: int) -> Record:
    """Return the record of an epoch at which the neighborhoods were not measured: all NaN."""
    return {name: np.full((networks, classes), np.nan) for name in VARIABLES}


def _figures(found: Uncertainty) -> dict[str, float]:
    error = found.standard_error
    return {
        "neighborhood_position_std": found.total_position_std,
        "neighborhood_position_std_error": float(error["total_position_std"]),
        "neighborhood_momentum_std": found.total_momentum_std,
        "neighborhood_momentum_std_error": float(error["total_momentum_std"]),
        "neighborhood_bound": float(found.bound.sum()),
        "neighborhood_bound_error": float(np.sum(error["bound"])),
        "neighborhood_boundary": float(found.boundary.mean()),
        "neighborhood_boundary_error": float(np.mean(error["boundary"])),
    }


VARIABLES = tuple(
    f"neighborhood_{quantity}{error}"
    for quantity in ("position_std", "momentum_std", "bound", "boundary")
    for error in ("", "_error")
)
