"""What a sweep measures on all its networks after an epoch.

Accuracy (right classes, or outputs within the tolerance of a regression) and loss on the test
images, the robust accuracy curve, and for a few probe images of each label the packet along the
attack: the loss along the line through the image in the direction of its own input gradient, seen
through a Gaussian window (theory: "The packet along the attack"). All networks are measured
together in float32; `qwidgets.section` is the same measurement of one line of one network in
float64.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from scipy.special import betainc

from qwidgets.attacks import pgd, withstands
from qwidgets.ensemble import Networks
from qwidgets.section import PacketMoments, packet_moments
from qwidgets.threads import mapped, side_by_side

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from qwidgets.ensemble import BatchedForward, Strategy
    from qwidgets.tasks import Task

    Record = dict[str, NDArray[Any]]

# Units of work: small enough that a consumer can draw, pause or cancel between two of them.
VALUES_PER_ATTACK = 1 << 18
# Points of lines evaluated at once: more would not stay in the processor's cache.
_POINTS_AT_ONCE = 5_000
# And values of them, where every point is an input of its own: a quick unit for convolutions too.
_VALUES_PER_LINES = 1 << 19


@dataclass(frozen=True, kw_only=True, eq=False)
class Probes:
    """The images and lines on which every network is measured, at every epoch the same.

    Attributes
    ----------
    inputs : Tensor, shape (M, ...), float32
        Test images.
    y : Tensor, shape (M, ...)
        Their labels, or the targets of a regression.
    labels : Tensor, shape (M,), int64
        Their classes or groups.
    task : Task
        What networks are asked for.
    packets : Tensor, shape (L, K), int64
        For each of the L labels the positions in ``inputs`` of its K probe images; the first one is
        the reference image whose packet is kept.
    width : float
        Standard deviation s of the Gaussian window, input units.
    neighborhood_samples : int
        Evaluations for the neighborhood of each label.
    points : int
        Points of the lines, on [-8 s, 8 s], joined by cubics. Kinks between them are not followed,
        as `section` follows them.
    reference_epsilon : float
        Radius, in the norm, of the PGD displacement that takes the place of a vanishing gradient,
        input units.
    neighborhood_radius : float
        Of the l-infinity balls around the images of a class, whatever the norm, input units.
    attack_epsilon : tuple of float
        Radii of the robust accuracy curve, sorted, the first one 0.
    attack_steps : int
        PGD steps at each radius.
    norm : {"linf", "l2"}
        Norm of the attack.
    value_range : (float, float)
        Valid input values.
    seed : int
        Seed of the random starts of the attack.
    """

    inputs: Tensor
    y: Tensor
    labels: Tensor
    task: Task
    packets: Tensor
    width: float
    reference_epsilon: float
    neighborhood_radius: float
    attack_epsilon: tuple[float, ...]
    attack_steps: int
    norm: Literal["linf", "l2"]
    value_range: tuple[float, float]
    seed: int
    neighborhood_samples: int = 1024
    points: int = 129

    def to(self, device: torch.device | str) -> Probes:
        """Return a copy whose tensors are on a device."""
        names = ("inputs", "y", "labels", "packets")
        return replace(self, **{name: getattr(self, name).to(device) for name in names})

    @property
    def t(self) -> Tensor:
        """Points of the lines, shape (points,), float64, input units."""
        return torch.linspace(-8, 8, self.points, dtype=torch.float64) * self.width


def points_at_once(strategy: Strategy, features: int) -> int:
    """Return how many points of lines are evaluated at once, except that a line is not divided."""
    if strategy == "stacked":
        return _POINTS_AT_ONCE
    return min(_POINTS_AT_ONCE, _VALUES_PER_LINES // features)


def measure(
    forward: BatchedForward, parameters: Mapping[str, Tensor], probes: Probes
) -> Generator[float, None, Record]:
    """Measure N networks, yielding after every unit of work.

    Parameters
    ----------
    forward : BatchedForward
        ``forward(parameters, x) -> outputs`` (N, B, ...), logits (N, B, C) of classifiers.
    parameters : mapping of str to Tensor, shape (N, ...)
        Weights of the networks.
    probes : Probes
        What to measure on.

    Yields
    ------
    float
        The share of the measurement that is done, after every unit of work.

    Returns
    -------
    dict of str to ndarray
        ``test_loss`` (N,), ``robust_accuracy`` (N, A), ``label_accuracy`` (N, L, A), the same of
        each label, ``position_std``, ``momentum_std``, ``uncertainty_product`` and each with
        ``_error`` (N, L), ``undefined_packets`` (N, L),
        ``packet`` (N, L, T'). A network with weights that are not finite has NaN everywhere.
    """
    first = next(iter(parameters.values()))
    flat = (value.reshape(len(value), -1) for value in parameters.values())
    finite = torch.stack([value.isfinite().all(1) for value in flat])
    broken = ~finite.all(0).cpu().numpy()
    # A thread of a processor is busy with one network at a time: what one network does then cannot
    # depend on the others, and its many rows make large products. Other devices need all networks
    # for that.
    on_cpu = first.device.type == "cpu"
    abreast = 1 if on_cpu else len(first)
    groups = [
        dict(zip(parameters, some, strict=True))
        for some in zip(*(value.split(abreast) for value in parameters.values()), strict=True)
    ]
    workers = min(torch.get_num_threads(), len(groups)) if on_cpu else 1
    per_image = abreast * len(probes.attack_epsilon) * probes.inputs[0].numel()
    images = max(1, VALUES_PER_ATTACK // per_image)
    parts_of = (probes.inputs, probes.y, probes.labels)
    attacked = list(zip(*(values.split(images) for values in parts_of), strict=True))
    points = points_at_once(forward.strategy, probes.inputs[0].numel())
    lines = probes.packets.flatten().split(max(1, points // (abreast * probes.points)))
    works = (
        # Evaluating lends the module other parameters for a while: each needs its own module.
        _measured(
            copy.deepcopy(forward) if workers > 1 else forward, group, attacked, lines, probes
        )
        for group in groups
    )
    units = len(groups) * (len(attacked) + len(lines))
    every = yield from mapped(side_by_side(works, workers), lambda done: done / units)
    test_loss, correct, packets = zip(*every, strict=True)

    survivors = np.concatenate(correct)
    images_of = np.bincount(probes.labels.cpu().numpy(), minlength=len(probes.packets))
    everything = _joined(packets, 0)
    labels, each = probes.packets.shape
    position, momentum, product = (
        values.cpu().numpy().reshape(-1, labels, each)
        for values in (everything.position_std, everything.momentum_std, everything.product)
    )
    reference = everything.amplitude[:, ::each]
    record: Record = {
        "test_loss": (torch.cat(test_loss) / len(probes.labels)).cpu().numpy(),
        "robust_accuracy": survivors.sum(-1) / len(probes.labels),
        "label_accuracy": (survivors / images_of).swapaxes(1, 2),
        "packet": reference.float().cpu().numpy(),
        "undefined_packets": np.isnan(product).sum(-1),
    }
    for name, values in (
        ("position_std", position),
        ("momentum_std", momentum),
        ("uncertainty_product", product),
    ):
        record[name], record[f"{name}_error"] = median_with_error(values)
    for name in ("test_loss", "robust_accuracy", "label_accuracy"):
        record[name][broken] = np.nan
    return record


def _measured(
    forward: BatchedForward,
    group: Mapping[str, Tensor],
    attacked: Sequence[tuple[Tensor, Tensor, Tensor]],
    lines: Sequence[Tensor],
    probes: Probes,
) -> Generator[None, None, tuple[Tensor, NDArray[np.float64], PacketMoments[Tensor]]]:
    """Measure some networks, yielding before every unit of work.

    Returns their test losses, summed over the images (n,), how many images of each label withstand
    each attack (n, A, L), and the packets of all probe images.
    """
    first = next(iter(group.values()))
    abreast = len(first)
    starts = torch.Generator(first.device).manual_seed(probes.seed)
    of_label = np.eye(len(probes.packets))
    loss = torch.zeros(abreast, dtype=torch.float64, device=first.device)
    count = np.zeros((abreast, len(probes.attack_epsilon), len(probes.packets)))
    for x, y, of in attacked:
        yield
        everywhere = y.expand(abreast, *y.shape)
        with torch.no_grad():
            outputs = forward(group, x)
            probes.task.check(outputs, everywhere)
            loss += probes.task.losses(outputs, everywhere).double().sum(1)
        survived = withstands(
            Networks(forward, group),
            x.expand(abreast, *x.shape),
            everywhere,
            probes.attack_epsilon,
            norm=probes.norm,
            steps=probes.attack_steps,
            value_range=probes.value_range,
            batch_size=len(y) * len(probes.attack_epsilon),
            seed=starts,
            task=probes.task,
        )
        # Whole numbers of images: adding them up is exact.
        count += survived @ of_label[of.cpu().numpy()]
    packets = []
    for some in lines:
        yield
        packets.append(_packets(forward, group, probes.inputs[some], probes.y[some], probes))
    return loss, count, _joined(packets, 1)


def median_with_error(
    values: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Median over the last axis, and its standard error after Maritz and Jarrett.

    The error is the standard deviation of the median of a bootstrap sample, which has a closed form
    and needs no resampling: the i-th smallest of n values carries the weight
    ``I(i / n) - I((i - 1) / n)``, where I is the incomplete beta function with both parameters
    ``(n + 1) / 2``. For odd n this is exact; for even n it smooths over the two middle values.

    Parameters
    ----------
    values : ndarray, shape (..., n), float64
        NaN values are left out.

    Returns
    -------
    median, error : ndarray, shape (...), float64
        NaN where no value is left; the error also where only one is.

    References
    ----------
    Maritz and Jarrett, "A note on estimating the variance of the sample median", JASA 73 (1978).
    """
    ordered = np.sort(values, axis=-1)  # NaN comes last
    count = np.isfinite(ordered).sum(-1, keepdims=True)
    middle = np.concatenate([np.maximum(count - 1, 0) // 2, count // 2], axis=-1)
    median = np.take_along_axis(ordered, middle, -1).mean(-1)
    edges = np.minimum(np.arange(values.shape[-1] + 1) / np.maximum(count, 1), 1)
    shape = (count + 1) / 2
    weight = np.diff(betainc(shape, shape, edges))
    known = np.nan_to_num(ordered)
    mean = (weight * known).sum(-1, keepdims=True)
    variance = (weight * (known - mean) ** 2).sum(-1)
    return median, np.where(count[..., 0] > 1, np.sqrt(variance), np.nan)


def _joined(packets: Sequence[PacketMoments[Tensor]], axis: int) -> PacketMoments[Tensor]:
    return PacketMoments(*(torch.cat(values, axis) for values in zip(*packets, strict=True)))


@torch.enable_grad()
def _packets(
    forward: BatchedForward,
    parameters: Mapping[str, Tensor],
    x: Tensor,
    y: Tensor,
    probes: Probes,
) -> PacketMoments[Tensor]:
    """Packets (N, K) of K images (K, ...), on the line through each in each network's direction."""
    directions = _directions(forward, parameters, x, y, probes)
    t = probes.t.to(x).repeat(*directions.shape[:2], 1).requires_grad_()
    outputs = forward.along(parameters, x, directions, t)
    loss = probes.task.losses(outputs, y.unsqueeze(1).expand(*t.shape, *y.shape[1:]))
    (slope,) = torch.autograd.grad(loss.sum(), t)
    return packet_moments(probes.t, loss, slope, probes.width)


def _directions(
    forward: BatchedForward,
    parameters: Mapping[str, Tensor],
    x: Tensor,
    y: Tensor,
    probes: Probes,
) -> Tensor:
    """Return the unit direction (N, K, ...) in which each network attacks each of K images.

    It is the input gradient of the loss, with classes taken from the log odds, which point the same
    way and do not vanish where the softmax saturates. Where even that is zero, the displacement by
    PGD.
    """
    networks = len(next(iter(parameters.values())))
    everywhere, y = x.expand(networks, *x.shape), y.expand(networks, *y.shape)
    leaf = everywhere.clone().requires_grad_()
    climbed = probes.task.climbed(forward(parameters, leaf), y)
    (gradient,) = torch.autograd.grad(climbed.sum(), leaf)
    gradient = gradient.flatten(2)
    largest = gradient.abs().amax(2, keepdim=True)
    if (largest == 0).any():
        moved = pgd(
            Networks(forward, parameters),
            everywhere,
            y,
            probes.reference_epsilon,
            norm=probes.norm,
            value_range=probes.value_range,
            seed=probes.seed,
            task=probes.task,
        )
        gradient = torch.where(largest == 0, (moved - everywhere).flatten(2), gradient)
        largest = gradient.abs().amax(2, keepdim=True)
    # Scaled to a largest entry of 1 first: squares of tiny gradients would underflow. A direction
    # that is still zero becomes NaN, and so does everything measured along it.
    gradient = gradient / largest
    direction: Tensor = gradient / torch.linalg.vector_norm(gradient, dim=2, keepdim=True)
    return direction.reshape(everywhere.shape)
