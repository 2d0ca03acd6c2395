"""How much memory a sweep takes, told before it starts, and refused where there is not so much."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil
import torch
from torch.autograd.graph import saved_tensors_hooks

from qwidgets.ensemble import batched_forward, stack_parameters
from qwidgets.measurement import VALUES_PER_ATTACK, points_at_once

if TYPE_CHECKING:
    from torch import Tensor

    from qwidgets.batches import Work

# Copies of the weights. For every network: what it is trained to and the optimiser's two moments,
# in the newest checkpoint and in the one being replaced, and what a `Sweep` holds. For each of
# those at work also what moves, its gradient and what the optimiser makes of it.
_KEPT, _MOVING = 7, 6
# Whatever is kept for the way back meets a gradient of its size; the gradient penalty also keeps
# the way back. What training frees stays with the process, in blocks that rarely suit measuring.
_WAY_BACK, _PENALTY = 2, 2
# Numbers of one point in the estimator of neighborhoods, and how many points it takes at once.
_MOMENTS, _POINTS = 12, 1 << 13
# Records of the epochs: as they came, as one cube, and as that of the epoch before.
_CUBES = 3
# What else there is, and what is needed for a while.
_SPARE = 1.25
_FLOAT, _DOUBLE = 4, 8
_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB")


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes that a sweep takes at its peak beyond what the process holds already.

    Attributes
    ----------
    images : int
        Training and test images where they are computed on, beside the data set itself.
    networks : int
        Weights, gradients and optimiser of all networks.
    activations : int
        What a minibatch and a part of a measurement keep for the way back.
    cube : int
        What was measured.
    """

    images: int
    networks: int
    activations: int
    cube: int

    @property
    def total(self) -> int:
        """All of them, with something to spare."""
        return round(_SPARE * (self.images + self.networks + self.activations + self.cube))

    def __str__(self) -> str:
        return readable(self.total)


def readable(size: float) -> str:
    """Write a number of bytes for people: 1.3 GiB."""
    power = min(int(math.log2(max(size, 1)) // 10), len(_UNITS) - 1)
    return f"{size / 1024**power:.{0 if power < 1 else 1}f} {_UNITS[power]}"


def needed(work: Work) -> Memory:
    """Estimate the memory of a sweep, from one image through one network.

    Parameters
    ----------
    work : Work
        What to do.

    Returns
    -------
    Memory
    """
    data, probes, training = work.data, work.probes, work.training
    networks = len(work.epsilon)
    forward = batched_forward(work.network, data.input_shape, strategy=work.strategy)
    abreast = work.abreast
    # Networks that are trained one by one, and all while measuring, have a thread of the processor.
    on_cpu = torch.device(work.device).type == "cpu"
    threads = min(torch.get_num_threads(), abreast) if on_cpu else 1
    if forward.strategy == "loop":
        abreast = threads

    weights = _FLOAT * sum(value.numel() for value in work.network.parameters())
    features = math.prod(data.input_shape)
    one_image = _activations(work)
    penalty = _PENALTY if training.regularizer == "gradient" and work.regularization.any() else 1
    batch = min(training.batch_size, len(data.train_inputs))
    minibatch = abreast * batch * one_image * penalty
    # Of the measurement: images under attack, points of lines, points of neighborhoods.
    lines = max(points_at_once(forward.strategy, features), probes.points)
    images = max(VALUES_PER_ATTACK // features, len(probes.attack_epsilon), lines)
    points = min(_POINTS, max((1 << 20) // features, 2)) if work.detail else 0
    one_point = one_image + _MOMENTS * _DOUBLE * features
    measuring = threads * max(images * one_image, points * one_point)
    labels, t = len(probes.packets), len(probes.t)
    epochs = training.epochs + 1
    beside = 0 if on_cpu else 1
    return Memory(
        images=beside * (data.train_inputs.nbytes + data.test_inputs.nbytes),
        networks=weights * (_KEPT * networks + _MOVING * abreast),
        activations=_WAY_BACK * (minibatch + measuring),
        cube=_CUBES * _FLOAT * networks * epochs * labels * (t + 24),
    )


def refuse_too_much(memory: Memory, device: str) -> None:
    """Refuse what does not fit into the memory that is free.

    Raises
    ------
    MemoryError
        It does not fit; says what takes how much, and what to do.
    """
    place = torch.device(device)
    if place.type == "cuda" and torch.cuda.is_available():
        free, _ = torch.cuda.mem_get_info(place)
    else:
        free = psutil.virtual_memory().available
    if memory.total > free:
        message = (
            f"sweep must fit into memory, but needs about {memory} on {device!r} "
            f"(networks {readable(memory.networks)}, activations {readable(memory.activations)}, "
            f"cube {readable(memory.cube)}, images {readable(memory.images)}), of which "
            f"{readable(free)} are free; {_remedy(memory)}."
        )
        raise MemoryError(message)


def _remedy(memory: Memory) -> str:
    remedies = {
        "networks": "take fewer values of epsilon and regularization, or a smaller model",
        "activations": "lower batch_size, or take a smaller model",
        "cube": "take fewer epochs, or fewer values of epsilon and regularization",
        "images": "lower train_size",
    }
    return remedies[max(remedies, key=lambda part: getattr(memory, part))]


def _activations(work: Work) -> int:
    """Bytes that one image in one network leaves behind for the way back."""
    forward = batched_forward(work.network, work.data.input_shape, strategy="loop")
    weights = stack_parameters([work.network])
    own = {value.untyped_storage().data_ptr() for value in weights.values()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    images = work.data.train_inputs[:1].to(next(iter(weights.values())).device)
    for value in weights.values():
        value.requires_grad_()
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        forward(weights, images.clone().requires_grad_())
    return sum(kept.values()) + images.nbytes
