"""Training of a whole grid of networks as one program.

Every network of the grid has its own adversarial radius and its own regularization strength. All of
them see the same minibatches and the same random starts of the attack (common random numbers): from
the same initial weights, two networks differ only because their radius or strength does.

The engine is an iterator. Taking the next item does one minibatch of work, not taking it pauses the
training, closing it stops. Weights, optimiser and random streams live inside and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch.nn import functional

from qwidgets.attacks import pgd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from torch import Tensor

    from qwidgets.data import Dataset

    Forward = Callable[[Mapping[str, Tensor], Tensor], Tensor]

Regularizer = Literal["gradient", "weight_decay", "label_smoothing"]
REGULARIZERS: tuple[Regularizer, ...] = get_args(Regularizer)


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """What all networks of a grid have in common.

    Parameters
    ----------
    epochs : int
        Passes over the training set.
    batch_size : int
        Images in a minibatch (the last one of an epoch may be smaller).
    learning_rate : float
        Step length of Adam (betas 0.9 and 0.999, epsilon 1e-8).
    attack_steps : int
        Steps of the projected gradient attack that makes the training inputs.
    norm : {"linf", "l2"}
        Norm of the attack.
    regularizer : {"gradient", "weight_decay", "label_smoothing"}
        What the regularization strength of each network multiplies. ``gradient``: the mean over the
        minibatch of the squared l2 norm of the gradient of the cross-entropy with respect to the
        training input. ``weight_decay``: decoupled decay, weights shrink by ``1 - learning_rate *
        strength`` before each step. ``label_smoothing``: the share of the target spread evenly
        over all classes.
    seed : int
        Seed of the minibatch order and of the random starts of the attack.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    attack_steps: int = 5
    norm: Literal["linf", "l2"] = "linf"
    regularizer: Regularizer = "gradient"
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Step:
    """One minibatch has been done: number ``step`` of ``steps`` in epoch number ``epoch``."""

    epoch: int
    step: int
    steps: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Epoch:
    """The state of all N networks after an epoch; epoch 0 is the untrained state.

    Attributes
    ----------
    epoch : int
        Number of finished passes over the training set.
    train_loss : Tensor, shape (N,), float64
        Mean cross-entropy (nats) of the inputs trained on (attacked ones where epsilon > 0), taken
        while the weights moved and without the regularization term; NaN at epoch 0.
    diverged : Tensor, shape (N,), int64
        Epoch in which the network's loss or weights stopped being finite, -1 where they are finite.
    parameters : dict of str to Tensor, shape (N, ...)
        A copy of the weights, detached.
    """

    epoch: int
    train_loss: Tensor
    diverged: Tensor
    parameters: dict[str, Tensor]


def train(
    forward: Forward,
    parameters: Mapping[str, Tensor],
    data: Dataset,
    epsilon: Tensor,
    regularization: Tensor,
    settings: TrainingSettings,
    device: torch.device | str = "cpu",
) -> Iterator[Step | Epoch]:
    """Train N networks at once, each with its own radius and regularization.

    Network i minimises the mean over the minibatch of ``l(x_adv)`` plus its regularization term,
    where ``x_adv`` is the PGD example of radius ``epsilon[i]`` (x itself where that is 0). The
    objective is the sum over the networks, which share no weight: a network that diverges leaves
    the gradients of the others as they are.

    Parameters
    ----------
    forward : callable
        ``forward(parameters, x) -> logits`` (N, B, C), as made by ``batched_forward``; x is
        (B, ...) for all networks or (N, B, ...).
    parameters : mapping of str to Tensor, shape (N, ...), float32
        Initial weights; they are copied.
    data : Dataset
        Its training images are used.
    epsilon : Tensor, shape (N,)
        Attack radius of each network, input units of the norm.
    regularization : Tensor, shape (N,)
        Strength of each network.
    settings : TrainingSettings
        What all have in common.
    device : torch.device or str
        Where to compute.

    Yields
    ------
    Step or Epoch
        ``Epoch`` 0 first, then for every epoch a ``Step`` after each minibatch and an ``Epoch``.

    Notes
    -----
    Adversarial training after Madry et al. (arXiv 1706.06083); the gradient penalty is the squared
    momentum of the packet before normalisation (arXiv 2205.01493).
    """
    weights = {
        name: value.to(device, copy=True).requires_grad_() for name, value in parameters.items()
    }
    leaves = list(weights.values())
    inputs, labels = data.train_inputs.to(device), data.train_labels.to(device)
    epsilon = epsilon.to(device)
    regularization = regularization.to(inputs)
    networks, images = len(epsilon), len(inputs)
    optimizer = torch.optim.Adam(leaves, lr=settings.learning_rate, fused=True)
    # Two streams, so that the minibatch order does not depend on whether an attack draws numbers.
    order = torch.Generator().manual_seed(settings.seed)
    starts = torch.Generator(device).manual_seed(settings.seed)

    diverged = torch.full((networks,), -1, device=device)
    snapshot = {name: value.detach().clone() for name, value in weights.items()}
    yield Epoch(
        epoch=0,
        train_loss=torch.full((networks,), torch.nan, dtype=torch.float64),
        diverged=diverged.cpu(),
        parameters=snapshot,
    )
    steps = -(-images // settings.batch_size)
    for epoch in range(1, settings.epochs + 1):
        total = torch.zeros(networks, dtype=torch.float64, device=device)
        batches = torch.randperm(images, generator=order).to(device).split(settings.batch_size)
        for step, batch in enumerate(batches, start=1):
            x, y = inputs[batch], labels[batch]
            x = _attacked(forward, weights, x, y, epsilon, settings, data.value_range, starts)
            loss, objective = _objective(forward, weights, x, y, regularization, settings)
            gradients = torch.autograd.grad(objective.sum(), leaves)
            with torch.no_grad():
                for leaf, gradient in zip(leaves, gradients, strict=True):
                    # The fused kernel walks both in memory order and takes no heed of strides.
                    leaf.grad = gradient.contiguous()
                    if settings.regularizer == "weight_decay":
                        decay = 1 - settings.learning_rate * regularization
                        leaf.mul_(decay.view(-1, *[1] * (leaf.ndim - 1)))
            optimizer.step()
            total += loss.double() * len(batch)
            yield Step(epoch=epoch, step=step, steps=steps)
        snapshot = {name: value.detach().clone() for name, value in weights.items()}
        finite = total.isfinite()
        for value in snapshot.values():
            finite &= value.isfinite().flatten(1).all(1)
        diverged = torch.where(finite | (diverged >= 0), diverged, epoch)
        yield Epoch(
            epoch=epoch,
            train_loss=(total / images).cpu(),
            diverged=diverged.cpu(),
            parameters=snapshot,
        )


def _attacked(
    forward: Forward,
    weights: Mapping[str, Tensor],
    x: Tensor,
    y: Tensor,
    epsilon: Tensor,
    settings: TrainingSettings,
    value_range: tuple[float, float],
    starts: torch.Generator,
) -> Tensor:
    """Return each network's training inputs, (N, B, ...)."""
    networks = len(epsilon)
    everywhere = x.expand(networks, *x.shape)
    attacked = epsilon.nonzero()
    if not len(attacked):
        return everywhere
    # Leading clean networks (the first row of a grid) need no attack: leave them out.
    clean = int(attacked[0])
    frozen = {name: value.detach()[clean:] for name, value in weights.items()}
    examples = pgd(
        partial(forward, frozen),
        everywhere[clean:],
        y.expand(networks - clean, -1),
        epsilon[clean:, None],
        norm=settings.norm,
        steps=settings.attack_steps,
        value_range=value_range,
        seed=starts,
    )
    return torch.cat([everywhere[:clean], examples])


def _objective(
    forward: Forward,
    weights: Mapping[str, Tensor],
    x: Tensor,
    y: Tensor,
    regularization: Tensor,
    settings: TrainingSettings,
) -> tuple[Tensor, Tensor]:
    """Return the mean cross-entropy and what is minimised, both (N,)."""
    networks = len(regularization)
    regularized = bool(regularization.any())
    penalised = regularized and settings.regularizer == "gradient"
    if penalised:
        x = x.detach().requires_grad_()
    logits = forward(weights, x)
    log_probability = functional.log_softmax(logits, dim=-1)
    target = y.expand(networks, -1).unsqueeze(-1)
    losses = -log_probability.gather(-1, target).squeeze(-1)
    loss = losses.mean(1)
    if penalised:
        (slope,) = torch.autograd.grad(losses.sum(), x, create_graph=True)
        return loss.detach(), loss + regularization * slope.square().flatten(2).sum(2).mean(1)
    if regularized and settings.regularizer == "label_smoothing":
        uniform = -log_probability.mean((1, 2))
        return loss.detach(), (1 - regularization) * loss + regularization * uniform
    return loss.detach(), loss
