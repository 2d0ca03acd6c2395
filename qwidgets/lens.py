"""One image under attack: what changes, what the network then says, and what each pixel does.

`lens` attacks one image and measures the neighbourhood in which the attack moves: for every pixel
the spreads of position and momentum of the loss there, with standard errors.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from qwidgets.attacks import pgd
from qwidgets.domain import Neighborhood
from qwidgets.models import evaluating, packet_loss
from qwidgets.moments import iterate_uncertainty

if TYPE_CHECKING:
    from collections.abc import Generator

    from numpy.typing import NDArray
    from torch import Tensor, nn

    from qwidgets.moments import Uncertainty

SAMPLES = 2048
_HALF_PRECISION = {torch.float16, torch.bfloat16}


@dataclass(frozen=True, kw_only=True, eq=False)
class Lens:
    """One image, its attack, and the spreads of every pixel.

    Attributes
    ----------
    image, attacked : ndarray, shape (*input_shape), float32
        The image, and what PGD made of it.
    label : int
        Its class.
    epsilon : float
        Radius of the attack, input units.
    probability, attacked_probability : ndarray, shape (classes,), float64
        What the network says of the one and of the other: softmax of its logits.
    radius : float
        Of the l-infinity ball around the image, cut to the valid range, in which the spreads are
        measured; input units.
    position_std, momentum_std : ndarray, shape (*input_shape), float64, or None
        Spreads of each pixel in that ball, in input units and 1 / input units; None as long as, or
        if, they are not known.
    position_std_error, momentum_std_error : ndarray, shape (*input_shape), float64, or None
        Their standard errors, as `qwidgets.uncertainty` gives them.
    evaluations : float
        Evaluations of the loss behind the spreads.
    reason : str
        Why there are no spreads; empty where there are, or will be.
    """

    image: NDArray[np.float32]
    attacked: NDArray[np.float32]
    label: int
    epsilon: float
    probability: NDArray[np.float64]
    attacked_probability: NDArray[np.float64]
    radius: float
    position_std: NDArray[np.float64] | None = None
    momentum_std: NDArray[np.float64] | None = None
    position_std_error: NDArray[np.float64] | None = None
    momentum_std_error: NDArray[np.float64] | None = None
    evaluations: float = 0.0
    reason: str = ""

    @property
    def perturbation(self) -> NDArray[np.float32]:
        """What the attack added to the image."""
        return self.attacked - self.image


def lens(
    model: nn.Module,
    image: Tensor,
    label: int,
    *,
    epsilon: float,
    radius: float,
    norm: str = "linf",
    steps: int = 10,
    value_range: tuple[float, float] = (0.0, 1.0),
    samples: int = SAMPLES,
    seed: int = 0,
) -> Lens:
    """Attack one image, and measure the spreads of its pixels in the ball around it.

    Parameters
    ----------
    model : torch.nn.Module
        Maps ``(n, *input_shape)`` to logits; evaluated in eval mode, in single precision where its
        weights are in half.
    image : Tensor, shape (*input_shape)
        Inside `value_range`.
    label : int
        Its class: the attack leads away from it, and it is the label of the loss.
    epsilon : float
        Radius of the attack, in `norm`.
    radius : float
        Of the l-infinity ball that is measured, positive.
    norm : {"linf", "l2"}
        Of the attack.
    steps : int
        Of PGD.
    value_range : (float, float)
        Valid values; attack and ball stay inside.
    samples : int
        Evaluations for the spreads; see `qwidgets.uncertainty`.
    seed : int
        Of the attack's start and of the samples.

    Returns
    -------
    Lens

    Raises
    ------
    TypeError, ValueError
        As `qwidgets.pgd`, `qwidgets.packet_loss` and `qwidgets.uncertainty`. A loss that is zero or
        not finite in the ball is no error: `Lens.reason` says so.

    Examples
    --------
    >>> import qwidgets as qw
    >>> data = qw.load_data("digits")
    >>> model = qw.build_model("mlp", data)
    >>> seen = qw.lens(model, data.test_inputs[0], 0, epsilon=0.1, radius=0.1)
    >>> seen.momentum_std.shape
    (1, 8, 8)
    """
    *_, last = iterate_lens(
        model,
        image,
        label,
        epsilon=epsilon,
        radius=radius,
        norm=norm,
        steps=steps,
        value_range=value_range,
        samples=samples,
        seed=seed,
    )
    return last


def iterate_lens(
    model: nn.Module,
    image: Tensor,
    label: int,
    *,
    epsilon: float,
    radius: float,
    norm: str = "linf",
    steps: int = 10,
    value_range: tuple[float, float] = (0.0, 1.0),
    samples: int = SAMPLES,
    seed: int = 0,
) -> Generator[Lens]:
    """Do what `lens` does, first the attack, then the spreads in rounds of growing precision.

    Parameters
    ----------
    model, image, label, epsilon, radius, norm, steps, value_range, samples, seed
        As of `lens`.

    Yields
    ------
    Lens
        All that is known by then. Closing the iterator stops the work.

    Raises
    ------
    TypeError, ValueError
        As `lens`, with the first item.
    """
    if any(parameter.dtype in _HALF_PRECISION for parameter in model.parameters()):
        model = copy.deepcopy(model).float()
    shape = tuple(image.shape)
    loss = packet_loss(model, label, shape)
    attacked = pgd(
        model,
        image[None],
        torch.tensor([label]),
        epsilon,
        norm=norm,
        steps=steps,
        value_range=value_range,
        seed=seed,
    )
    place = attacked.device, attacked.dtype
    with torch.no_grad(), evaluating(model):
        logits = model(torch.cat([image[None].to(*place), attacked])).double().cpu()
    probability, attacked_probability = logits.softmax(-1).numpy()
    found = Lens(
        image=image.detach().cpu().float().numpy(),
        attacked=attacked[0].cpu().float().numpy(),
        label=label,
        epsilon=float(epsilon),
        probability=probability,
        attacked_probability=attacked_probability,
        radius=float(radius),
    )
    yield found
    ball = Neighborhood(image.detach().cpu().reshape(1, -1), radius, clip=value_range)
    try:
        for spreads in iterate_uncertainty(loss, ball, samples=samples, seed=seed):
            yield _with_spreads(found, spreads)
    except ValueError as error:  # no packet: the loss is zero or not finite
        yield replace(found, reason=str(error))


def _with_spreads(found: Lens, spreads: Uncertainty) -> Lens:
    def picture(values: NDArray[np.float64] | float) -> NDArray[np.float64]:
        return np.asarray(values, dtype=np.float64).reshape(found.image.shape)

    return replace(
        found,
        position_std=picture(spreads.position_std),
        momentum_std=picture(spreads.momentum_std),
        position_std_error=picture(spreads.standard_error["position_std"]),
        momentum_std_error=picture(spreads.standard_error["momentum_std"]),
        evaluations=spreads.evaluations,
    )
