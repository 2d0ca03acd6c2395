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
from scipy.special import softmax

from qwidgets.attacks import pgd
from qwidgets.domain import Neighborhood, NoPacketError
from qwidgets.models import evaluating, packet_loss
from qwidgets.moments import iterate_uncertainty
from qwidgets.tasks import CLASSIFICATION

if TYPE_CHECKING:
    from collections.abc import Generator

    from numpy.typing import ArrayLike, NDArray
    from torch import Tensor, nn

    from qwidgets.moments import Uncertainty
    from qwidgets.tasks import Task

SAMPLES = 2048
_HALF_PRECISION = {torch.float16, torch.bfloat16}


@dataclass(frozen=True, kw_only=True, eq=False)
class Lens:
    """One image, its attack, and the spreads of every pixel.

    Attributes
    ----------
    image, attacked : ndarray, shape (*input_shape), float32
        The image, and what PGD made of it.
    y : int or ndarray, shape (*target_shape), float64
        Its class, or its target.
    epsilon : float
        Radius of the attack, input units.
    output, attacked_output : ndarray, shape (*output_shape), float64
        What the network says of the one and of the other: logits, or an output like the target.
    loss, attacked_loss : float
        The loss of both.
    task : Task
        What is asked for.
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
    y: int | NDArray[np.float64]
    epsilon: float
    output: NDArray[np.float64]
    attacked_output: NDArray[np.float64]
    loss: float
    attacked_loss: float
    radius: float
    task: Task = CLASSIFICATION
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

    @property
    def probability(self) -> NDArray[np.float64]:
        """Probability of each class for the image: softmax of the logits."""
        return np.asarray(softmax(self.output), dtype=np.float64)

    @property
    def attacked_probability(self) -> NDArray[np.float64]:
        """Probability of each class for the attacked image."""
        return np.asarray(softmax(self.attacked_output), dtype=np.float64)


def lens(
    model: nn.Module,
    image: Tensor,
    label: int | ArrayLike | Tensor,
    *,
    epsilon: float,
    radius: float,
    norm: str = "linf",
    steps: int = 10,
    value_range: tuple[float, float] = (0.0, 1.0),
    samples: int = SAMPLES,
    seed: int = 0,
    task: Task = CLASSIFICATION,
) -> Lens:
    """Attack one image, and measure the spreads of its pixels in the ball around it.

    Parameters
    ----------
    model : torch.nn.Module
        Maps ``(n, *input_shape)`` to logits, or to outputs of the shape of the target; evaluated in
        eval mode, in single precision where its weights are in half.
    image : Tensor, shape (*input_shape)
        Inside `value_range`.
    label : int, or array_like, shape (*target_shape)
        Its class, of a regression its target: the attack leads away from it, and the loss is at it.
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
    task : Task
        By default to name the class; a `qwidgets.Regression` for a target.

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
        task=task,
    )
    return last


def iterate_lens(
    model: nn.Module,
    image: Tensor,
    label: int | ArrayLike | Tensor,
    *,
    epsilon: float,
    radius: float,
    norm: str = "linf",
    steps: int = 10,
    value_range: tuple[float, float] = (0.0, 1.0),
    samples: int = SAMPLES,
    seed: int = 0,
    task: Task = CLASSIFICATION,
) -> Generator[Lens]:
    """Do what `lens` does, first the attack, then the spreads in rounds of growing precision.

    Parameters
    ----------
    model, image, label, epsilon, radius, norm, steps, value_range, samples, seed, task
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
    loss = packet_loss(model, label, shape, task=task)
    if len(loss.y) != 1:
        message = f"label must be one, the image's, got {len(loss.y)}; look at one image at a time."
        raise ValueError(message)
    attacked = pgd(
        model,
        image[None],
        loss.y,
        epsilon,
        norm=norm,
        steps=steps,
        value_range=value_range,
        seed=seed,
        task=task,
    )
    place = attacked.device, attacked.dtype
    with torch.no_grad(), evaluating(model):
        outputs = model(torch.cat([image[None].to(*place), attacked])).double().cpu()
    clean_loss, attacked_loss = task.losses(outputs, loss.y.expand(2, *task.target_shape)).tolist()
    output, attacked_output = outputs.numpy()
    found = Lens(
        image=image.detach().cpu().float().numpy(),
        attacked=attacked[0].cpu().float().numpy(),
        y=int(loss.y[0]) if task == CLASSIFICATION else loss.y[0].numpy(),
        epsilon=float(epsilon),
        output=output,
        attacked_output=attacked_output,
        loss=clean_loss,
        attacked_loss=attacked_loss,
        radius=float(radius),
        task=task,
    )
    yield found
    ball = Neighborhood(image.detach().cpu().reshape(1, -1), radius, clip=value_range)
    try:
        for spreads in iterate_uncertainty(loss, ball, samples=samples, seed=seed):
            yield _with_spreads(found, spreads)
    except NoPacketError as error:
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
