"""Training of a whole grid of networks as one program.

Every network of the grid has its own adversarial radius and its own regularization strength. All of
them see the same minibatches and the same random starts of the attack (common random numbers): from
the same initial weights, two networks differ only because their radius or strength does.

The engine is an iterator. Taking the next item does one minibatch of work, not taking it pauses the
training, closing it stops. Weights, optimiser and random streams live inside and nowhere else.
"""

from __future__ import annotations

import copy
import ctypes
import functools
import math
import sys
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch.optim.adam import adam

from qwidgets.attacks import fgsm, kl_pgd, pgd
from qwidgets.checks import number, one_of, positive, random_seed, whole
from qwidgets.ensemble import Networks
from qwidgets.tasks import CLASSIFICATION, along_rows
from qwidgets.threads import threads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from torch import Tensor

    from qwidgets.data import Dataset
    from qwidgets.ensemble import BatchedForward
    from qwidgets.tasks import Task

Objective = Literal["clean", "fgsm", "pgd", "trades"]
OBJECTIVES: tuple[Objective, ...] = get_args(Objective)

Regularizer = Literal["gradient", "weight_decay", "label_smoothing"]
REGULARIZERS: tuple[Regularizer, ...] = get_args(Regularizer)

REASONS = ("", "not finite", "chance")
"""What a number in `Epoch.reason` means."""
_NOT_FINITE, _CHANCE = 1, 2

_MOMENTS = ("first", "second")
_COUNTS = ("epochs", "batch_size", "attack_steps")

# Seeds of random starts are drawn below this.
_SEEDS = 1 << 62

# glibc's names for what it may be told, and what it is told, in bytes: up to which size a block
# comes from the heap, and how much of the heap may stay free with the process.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_LARGEST_BLOCK, _LARGEST_REST = 1 << 25, 1 << 28

# Training images on which a network must do better than chance, at most.
_CHANCE_IMAGES = 256


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
    objective : {"pgd", "trades", "fgsm", "clean"}
        What a network of radius epsilon learns, l the cross-entropy or the loss of the task of the
        data, and x' inside its ball.
        ``pgd``: ``max l(f(x'), y)``, the maximum found by projected gradient ascent. ``fgsm``: the
        same with a single signed step. ``trades``: ``l(f(x), y) + trades_weight max KL(softmax f(x)
        || softmax f(x'))``, with classes alone. ``clean``: ``l(f(x), y)`` whatever the radius. At
        radius 0 all are the same.
    attack_steps : int
        Steps of the ascent of ``pgd`` and ``trades``.
    attack_step : float
        Length of a step of it, as a multiple of ``epsilon / attack_steps``.
    norm : {"linf", "l2"}
        Norm of the ball; ``fgsm`` knows linf alone.
    warm_up : float
        Share of the training, 0 to 1, in which the radii grow linearly, minibatch by minibatch,
        from 0 to their values. Training at a large radius from the start ends at chance.
    trades_weight : float
        See ``trades``; 1 / lambda in the source.
    regularizer : {"gradient", "weight_decay", "label_smoothing"}
        What the regularization strength of each network multiplies. ``gradient``: the mean over the
        minibatch of the squared l2 norm of the gradient of the loss with respect to the training
        input. ``weight_decay``: decoupled decay, weights shrink by ``1 - learning_rate *
        strength`` before each step. ``label_smoothing``: the share of the target spread evenly
        over all classes, where there are any.
    seed : int
        Seed of the minibatch order and of the random starts of the attack.

    Raises
    ------
    TypeError
        A number that is none, or not a whole one where it counts something.
    ValueError
        An unknown objective, ``fgsm`` in another norm than linf, a count below 1, a seed outside 0
        to 2^63 - 1, a length of a step that is not positive, a warm-up outside 0 to 1, a weight
        that is negative or not finite.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    objective: Objective = "pgd"
    attack_steps: int = 5
    attack_step: float = 2.5
    norm: Literal["linf", "l2"] = "linf"
    warm_up: float = 0.25
    trades_weight: float = 6.0
    regularizer: Regularizer = "gradient"
    seed: int = 0

    def __post_init__(self) -> None:
        one_of("objective", self.objective, OBJECTIVES)
        if self.objective == "fgsm" and self.norm != "linf":
            message = (
                f"norm must be 'linf' for the objective 'fgsm', got {self.norm!r}; "
                "in other norms take objective='pgd' with attack_steps=1."
            )
            raise ValueError(message)
        # As Python's own numbers, the only ones that JSON takes: sweeps are saved with them.
        vars(self).update(
            {name: whole(getattr(self, name), name, 1, "raise it") for name in _COUNTS},
            seed=random_seed(self.seed),
            learning_rate=positive(self.learning_rate, "learning_rate", "the step length of Adam"),
            attack_step=number(self.attack_step, "attack_step", "a part of the radius"),
            warm_up=number(self.warm_up, "warm_up", "a share of the training"),
            trades_weight=number(self.trades_weight, "trades_weight", "a factor of the loss"),
        )
        if not (math.isfinite(self.attack_step) and self.attack_step > 0):
            message = (
                f"attack_step must be a positive finite number, got {self.attack_step}; 1 reaches "
                "the radius from its centre with the last step."
            )
            raise ValueError(message)
        if not 0 <= self.warm_up <= 1:
            message = (
                f"warm_up must be a share of the training, 0 to 1, got {self.warm_up}; "
                "0 trains at full radius from the start."
            )
            raise ValueError(message)
        if not 0 <= self.trades_weight < math.inf:
            message = (
                f"trades_weight must be finite and 0 or more, got {self.trades_weight}; 0 trains "
                "on clean inputs alone."
            )
            raise ValueError(message)


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
        Mean loss (nats with classes) of the inputs trained on (attacked ones where epsilon > 0, but
        under ``trades`` the clean ones), taken while the weights moved and without the
        regularization term; NaN at epoch 0.
    diverged : Tensor, shape (N,), int64
        Epoch since which the network has failed without interruption, -1 where it works. One whose
        loss or weights are not finite has failed for good. One at chance, no better on clean
        training images than always naming their commonest class (or their mean target), may
        recover.
    reason : Tensor, shape (N,), int64
        Why, as an index into `REASONS`.
    parameters : dict of str to Tensor, shape (N, ...)
        A copy of the weights, detached.
    moments : dict of str to Tensor, shape (N, ...)
        A copy of the optimiser's moments, ``first.NAME`` and ``second.NAME`` for each parameter.
    streams : dict of str to Tensor, uint8
        States of the random streams, on the CPU.
    """

    epoch: int
    train_loss: Tensor
    diverged: Tensor
    reason: Tensor
    parameters: dict[str, Tensor]
    moments: dict[str, Tensor]
    streams: dict[str, Tensor]


def train(
    forward: BatchedForward,
    parameters: Mapping[str, Tensor],
    data: Dataset,
    epsilon: Tensor,
    regularization: Tensor,
    settings: TrainingSettings,
    device: torch.device | str = "cpu",
    *,
    learning_rate: Tensor | None = None,
    resume: Epoch | None = None,
) -> Iterator[Step | Epoch]:
    """Train N networks at once, each with its own radius and regularization.

    Network i minimises the mean over the minibatch of its objective plus its regularization term;
    parameters with ``requires_grad=False`` in the architecture stay as they are.
    What is differentiated is the sum over the networks, which share no weight: a network that
    diverges leaves the gradients of the others as they are.

    Parameters
    ----------
    forward : BatchedForward
        The architecture, as made by `batched_forward`.
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
    learning_rate : Tensor, shape (N,), optional
        Step length of each network, by default that of the settings.
    resume : Epoch, optional
        An epoch of the same training: it goes on there, bit for bit as if it had not stopped. The
        initial weights are not used.

    Yields
    ------
    Step or Epoch
        For every epoch a ``Step`` after each minibatch and an ``Epoch``; before that ``Epoch`` 0,
        unless the training is resumed.

    Notes
    -----
    Adversarial training after Madry et al. (arXiv 1706.06083), TRADES after Zhang et al. (arXiv
    1901.08573); the gradient penalty is the squared momentum of the packet before normalisation
    (arXiv 2205.01493).
    """
    check_task(settings, data.task)
    _keep_freed_memory()
    inputs, answers = _moved(data.train_inputs, device), _moved(data.train_y, device)
    epsilon, regularization = epsilon.to(device), regularization.to(inputs)
    networks, images = len(epsilon), len(inputs)
    common = torch.full((networks,), settings.learning_rate, dtype=torch.float64)
    rates = common if learning_rate is None else learning_rate
    shrinkage = 1 - rates.to(inputs) * regularization
    last = resume or _untrained(parameters, networks, settings.seed, device)
    weights, moments = (_own(tensors, device) for tensors in (last.parameters, last.moments))
    learned = {name: value for name, value in weights.items() if name not in forward.frozen}
    # Two streams, so that the minibatch order does not depend on the attack.
    order, starts = torch.Generator(), torch.Generator()
    order.set_state(last.streams["order"])
    starts.set_state(last.streams["starts"])
    diverged, reason = last.diverged.to(device), last.reason.to(device)
    # Drawn, as the training set may be sorted by class, or its classes take turns.
    drawn = torch.randperm(images, generator=torch.Generator().manual_seed(settings.seed))
    some = drawn[:_CHANCE_IMAGES].sort().values.to(device)
    if resume is None:
        yield last

    steps = -(-images // settings.batch_size)
    ramp = max(settings.warm_up * settings.epochs * steps, 1.0)
    with _learning(forward, weights, epsilon, regularization, settings, data) as learn:
        for epoch in range(last.epoch + 1, settings.epochs + 1):
            total = torch.zeros(networks, dtype=torch.float64, device=device)
            batches = torch.randperm(images, generator=order).to(device).split(settings.batch_size)
            for step, batch in enumerate(batches, start=1):
                done = (epoch - 1) * steps + step
                radius = epsilon * min(1.0, done / ramp)
                seed = int(torch.randint(_SEEDS, (), generator=starts))
                loss, gradients = learn(inputs[batch], answers[batch], radius, seed)
                if settings.regularizer == "weight_decay":
                    for value in learned.values():
                        value.mul_(shrinkage.view(-1, *[1] * (value.ndim - 1)))
                _descend(learned, gradients, moments, rates.tolist(), done)
                total += loss.double() * len(batch)
                yield Step(epoch=epoch, step=step, steps=steps)
            finite = total.isfinite()
            for value in weights.values():
                finite &= value.isfinite().reshape(networks, -1).all(1)
            model, size = partial(forward, weights), settings.batch_size
            chance = _at_chance(model, inputs[some], answers[some], size, data.task)
            reason = torch.where(finite & (reason != _NOT_FINITE), _CHANCE * chance, _NOT_FINITE)
            diverged = torch.where(reason > 0, torch.where(diverged < 0, epoch, diverged), -1)
            yield Epoch(
                epoch=epoch,
                train_loss=(total / images).cpu(),
                diverged=diverged.cpu(),
                reason=reason.cpu(),
                parameters={name: value.clone() for name, value in weights.items()},
                moments={name: value.clone() for name, value in moments.items()},
                streams={"order": order.get_state(), "starts": starts.get_state()},
            )


@functools.cache
def _keep_freed_memory() -> None:
    """Let the C library keep what an operation frees for the next one.

    glibc gives large blocks back to the system at once, which hands them out again page by page,
    each zeroed: a fifth of the time of an epoch of the default grid. Other C libraries are left as
    they are.
    """
    if not sys.platform.startswith("linux"):
        return
    # Of glibc alone.
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _LARGEST_BLOCK)
        mallopt(_TRIM_THRESHOLD, _LARGEST_REST)


def _moved(images: Tensor, device: torch.device | str) -> Tensor:
    """Copy to a device; to a GPU from pinned memory, which it reads by itself."""
    if torch.device(device).type == "cuda":
        images = images.pin_memory()
    return images.to(device, non_blocking=True)


def _own(tensors: Mapping[str, Tensor], device: torch.device | str) -> dict[str, Tensor]:
    """Copy tensors to a device, into the usual order in memory, whatever theirs."""
    usual = torch.contiguous_format
    return {
        name: value.to(device, copy=True, memory_format=usual) for name, value in tensors.items()
    }


def _untrained(
    parameters: Mapping[str, Tensor], networks: int, seed: int, device: torch.device | str
) -> Epoch:
    return Epoch(
        epoch=0,
        train_loss=torch.full((networks,), torch.nan, dtype=torch.float64),
        diverged=torch.full((networks,), -1),
        reason=torch.zeros(networks, dtype=torch.int64),
        parameters={
            name: value.detach().to(device, copy=True) for name, value in parameters.items()
        },
        moments={
            f"{moment}.{name}": torch.zeros_like(value, device=device)
            for name, value in parameters.items()
            for moment in _MOMENTS
        },
        streams={
            "order": torch.Generator().manual_seed(seed).get_state(),
            "starts": torch.Generator().manual_seed(seed).get_state(),
        },
    )


@contextmanager
def _learning(
    forward: BatchedForward,
    weights: Mapping[str, Tensor],
    epsilon: Tensor,
    regularization: Tensor,
    settings: TrainingSettings,
    data: Dataset,
) -> Iterator[Callable[[Tensor, Tensor, Tensor, int], tuple[Tensor, dict[str, Tensor]]]]:
    """Give a function of a minibatch (x, y), the radii and a seed: losses (N,) and gradients.

    Networks that are evaluated one after another take their whole steps so. It needs no more memory
    than one of them, and each thread of the processor can have its own, which serves small products
    better than all threads on one of them.
    """
    networks, device = len(regularization), regularization.device
    alone = forward.strategy == "loop"
    # The longest first, those with attack and penalty: else one thread is left alone with them.
    costs = list(zip((epsilon > 0).tolist(), (regularization > 0).tolist(), strict=True))
    order = sorted(range(networks), key=costs.__getitem__, reverse=True)
    parts = [slice(i, i + 1) for i in order] if alone else [slice(0, networks)]
    workers = min(torch.get_num_threads(), networks) if alone and device.type == "cpu" else 1
    # Evaluating lends the module other parameters for a while: each thread needs its own module.
    own = threading.local()

    def learn(x: Tensor, y: Tensor, radius: Tensor, seed: int) -> tuple[Tensor, dict[str, Tensor]]:
        def work(part: slice) -> tuple[Tensor, dict[str, Tensor]]:
            if not hasattr(own, "forward"):
                own.forward = copy.deepcopy(forward) if workers > 1 else forward
            some = Networks(own.forward, {name: value[part] for name, value in weights.items()})
            strength = regularization[part]
            examples = _attacked(some, x, y, radius[part], settings, data, seed)
            inputs = [examples]
            if settings.objective == "trades":
                attacked = [examples] if radius[part].any() else []
                inputs = [x.expand_as(examples), *attacked]
            penalised = settings.regularizer == "gradient" and bool(strength.any())
            losses, gradients = some.gradients(
                inputs,
                partial(_judged, y, radius[part], strength, settings, data.task),
                strength if penalised else None,
            )
            return losses.mean(1), gradients

        done: list[tuple[Tensor, dict[str, Tensor]]] = run(work, parts)
        if not alone:
            return done[0]
        found = [done[place] for place in sorted(range(networks), key=order.__getitem__)]
        losses, gradients = zip(*found, strict=True)
        return torch.cat(losses), {
            name: torch.cat([one[name] for one in gradients]) for name in gradients[0]
        }

    with threads(workers) as run:
        yield learn


def _attacked(
    networks: Networks,
    x: Tensor,
    y: Tensor,
    epsilon: Tensor,
    settings: TrainingSettings,
    data: Dataset,
    seed: int,
) -> Tensor:
    """Return what each network trains on in place of the images x, (N, B, ...)."""
    count = len(networks)
    everywhere = x.expand(count, *x.shape)
    attacked = epsilon.nonzero()
    if settings.objective == "clean" or not len(attacked):
        return everywhere
    # Leading clean networks (the first row of a grid) need no attack: leave them out.
    clean = int(attacked[0])
    model = networks[clean:]
    inputs, targets, radius = (
        everywhere[clean:],
        y.expand(count - clean, *y.shape),
        epsilon[clean:, None],
    )
    if settings.objective == "fgsm":
        examples = fgsm(
            model, inputs, targets, radius, value_range=data.value_range, task=data.task
        )
    else:
        ascent = (
            partial(kl_pgd, model, inputs)
            if settings.objective == "trades"
            else partial(pgd, model, inputs, targets, task=data.task)
        )
        stream = torch.Generator(x.device).manual_seed(seed)
        examples = ascent(
            radius,
            norm=settings.norm,
            steps=settings.attack_steps,
            step_size=settings.attack_step * radius / settings.attack_steps,
            value_range=data.value_range,
            seed=stream,
        )
    return torch.cat([everywhere[:clean], examples])


def _judged(
    y: Tensor,
    epsilon: Tensor,
    regularization: Tensor,
    settings: TrainingSettings,
    task: Task,
    outputs: Tensor,
    attacked: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return losses (N, B) of outputs, and what is minimised but for a gradient penalty, (N,).

    Under ``trades`` the networks have also outputs for attacked inputs, if any is attacked.
    """
    everywhere = y.expand(len(outputs), *y.shape)
    if task == CLASSIFICATION:
        log_probability = along_rows(torch.log_softmax, outputs)
        losses = -log_probability.gather(-1, everywhere.unsqueeze(-1)).squeeze(-1)
    else:
        task.check(outputs, everywhere)
        losses = task.losses(outputs, everywhere)
    objective = losses.mean(1)
    if settings.regularizer == "label_smoothing" and regularization.any():
        uniform = -log_probability.mean((1, 2))
        objective = (1 - regularization) * objective + regularization * uniform
    if attacked is not None:
        log_attacked = along_rows(torch.log_softmax, attacked)
        divergence = (log_probability.exp() * (log_probability - log_attacked)).sum(2).mean(1)
        # At radius 0 it is 0, but its gradient only to rounding.
        objective = objective + settings.trades_weight * (epsilon > 0) * divergence
    return losses, objective


def _descend(
    weights: Mapping[str, Tensor],
    gradients: Mapping[str, Tensor],
    moments: Mapping[str, Tensor],
    rates: Sequence[float],
    step: int,
) -> None:
    """Take one step of Adam in place; networks side by side at one rate move together."""
    start = 0
    for rate, run in groupby(rates):
        part = slice(start, start + len(list(run)))
        start = part.stop
        first, second = ([moments[f"{m}.{name}"][part] for name in weights] for m in _MOMENTS)
        adam(
            [value[part] for value in weights.values()],
            # The fused kernel pairs numbers by their places in memory, which are the usual ones.
            [value[part].contiguous() for value in gradients.values()],
            first,
            second,
            [],
            [torch.tensor(step - 1.0, device=value.device) for value in first],
            fused=True,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=rate,
            weight_decay=0.0,
            eps=1e-8,
            maximize=False,
        )


@torch.no_grad()
def _at_chance(
    model: Callable[[Tensor], Tensor], x: Tensor, y: Tensor, batch_size: int, task: Task
) -> Tensor:
    """Whether each network is no better than one that always says the same."""
    parts = zip(x.split(batch_size), y.split(batch_size), strict=True)
    return ~task.better_than_chance((model(some), answers) for some, answers in parts)


def check_task(settings: TrainingSettings, task: Task) -> None:
    """Refuse settings that only make sense with classes, where the task has none.

    Raises
    ------
    ValueError
        TRADES or label smoothing with a regression.
    """
    if task == CLASSIFICATION:
        return
    for name, value, others in (
        ("objective", settings.objective, [o for o in OBJECTIVES if o != "trades"]),
        ("regularizer", settings.regularizer, [r for r in REGULARIZERS if r != "label_smoothing"]),
    ):
        if value not in others:
            message = (
                f"{name} must be one of {', '.join(map(repr, others))} for a regression, got "
                f"{value!r}, which is about the probabilities of classes."
            )
            raise ValueError(message)
