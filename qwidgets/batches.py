"""A grid of networks in batches, each advanced one epoch at a time, here or on other machines.

The grid is cut into batches by a fixed rule (`Work.batches`). What all of them need is one `Work`;
what one of them has reached is a `Checkpoint`; an epoch of training and measurement turns the
checkpoints of some batches into the next (`advance`). Nothing else flows, so that where the batches
are computed, in which order, how many side by side, on how many workers and with what interruptions
leaves no trace in any number.
"""

from __future__ import annotations

import copy
import hashlib
import os
import pickle
import traceback
import warnings
import zlib
from concurrent.futures import FIRST_COMPLETED, wait
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch

from qwidgets.ensemble import batched_forward, stack_parameters
from qwidgets.gate import is_gated
from qwidgets.measurement import measure
from qwidgets.models import gate_layers
from qwidgets.neighborhoods import measure_neighborhoods, unmeasured
from qwidgets.threads import in_turn, mapped
from qwidgets.training import Step, train

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence
    from concurrent.futures import Executor, Future

    from torch import Tensor, nn

    from qwidgets.data import Dataset
    from qwidgets.ensemble import Strategy
    from qwidgets.measurement import Probes, Record
    from qwidgets.neighborhoods import Detail
    from qwidgets.training import Epoch, TrainingSettings

# A batch is what a worker takes: more networks in each would keep fewer workers busy. On a GPU the
# starting of so many small products would take the time.
_NETWORKS_IN_BATCH = {"cpu": 8}
# Networks that one program takes at most, and weights of all of them: large networks gain nothing
# by others beside them, and take memory.
_MANY_NETWORKS = 64
_MANY_WEIGHTS = 1 << 23
# What an `Epoch` has for each network: numbers, and groups of tensors by name.
EACH_NETWORK = ("train_loss", "diverged", "reason")
_TENSORS = ("parameters", "moments")
# Epochs that a batch may be ahead of the slowest one, so that its worker need not wait.
_LEAD = 2
# Times that one job may be lost with its worker (which had too little memory, say).
_ATTEMPTS = 3
# Level of compression: the images of MNIST become ten times smaller in a second; the usual level
# takes three times as long for a sixth less.
_QUICK = 1
# Seconds between two looks at whether the consumer wants to go on.
_HEARTBEAT = 0.1


@dataclass(frozen=True, kw_only=True, eq=False)
class Work:
    """What all batches of a sweep have in common.

    Attributes
    ----------
    network : torch.nn.Module
        The architecture with the weights that every network starts from, on the CPU.
    data : Dataset
        Trained on.
    probes : Probes
        Measured on, on the CPU.
    epsilon, regularization : Tensor, shape (N,), float64
        Adversarial radius and regularization strength of each network.
    training : TrainingSettings
        How to train.
    device : str
        Where to compute.
    detail : {"last-epoch", "every-epoch"} or None
        When the neighborhoods of the classes are measured.
    strategy : {"stacked", "vmap", "loop"} or None
        How the networks are evaluated; None leaves it to the rule of `batched_forward`.
    """

    network: nn.Module
    data: Dataset
    probes: Probes
    epsilon: Tensor
    regularization: Tensor
    training: TrainingSettings
    device: str
    detail: Detail | None
    strategy: Strategy | None = None

    @property
    def batches(self) -> list[slice]:
        """Which networks a worker takes; depends on their number and the kind of device."""
        size, networks = self._batch_size, len(self.epsilon)
        return [slice(first, min(first + size, networks)) for first in range(0, networks, size)]

    @property
    def abreast(self) -> int:
        """How many networks this process advances together: those of one batch, or of several.

        Batched products of small perceptrons gain by every further network. With sides that are
        even, eight networks fill whole vectors of the processor: a network among others has the
        bits that it has in its own batch.
        """
        forward = batched_forward(self.network, self.data.input_shape, strategy=self.strategy)
        weights = list(self.network.parameters())
        even = all(side % 2 == 0 for value in weights for side in value.shape)
        batches = 1
        if forward.strategy == "stacked" and even:
            each = self._batch_size * sum(value.numel() for value in weights)
            batches = max(batches, _MANY_WEIGHTS // each)
        return min(batches * self._batch_size, _MANY_NETWORKS, len(self.epsilon))

    @property
    def _batch_size(self) -> int:
        return _NETWORKS_IN_BATCH.get(torch.device(self.device).type, _MANY_NETWORKS)


@dataclass(frozen=True, kw_only=True, eq=False)
class Checkpoint:
    """What a batch of n networks has reached; its next epoch follows from it and the `Work`.

    Attributes
    ----------
    batch : int
        Position in `Work.batches`.
    trained : Epoch
        The networks, and all else that training goes on from, on the CPU.
    measured : dict of str to ndarray, shape (n, ...)
        What `measure` found on them.
    strategy : str
        How they were evaluated; see `BatchedForward`.
    abreast : int
        How many networks at a time, at most: fewer than n where the device had no memory for all.
    """

    batch: int
    trained: Epoch
    measured: Record
    strategy: Strategy
    abreast: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Unit:
    """One unit of work on some batches has been done.

    Attributes
    ----------
    batches : sequence of int
        What is being worked on.
    epoch : int
        Of all of them.
    fraction : float
        Share of that epoch that is done.
    checkpoints : sequence of Checkpoint
        One for each batch when the epoch is finished, none before.
    """

    batches: Sequence[int]
    epoch: int
    fraction: float
    checkpoints: Sequence[Checkpoint] = ()

    @classmethod
    def finished(cls, checkpoints: Sequence[Checkpoint]) -> Self:
        """All of an epoch has been done."""
        return cls(
            batches=[point.batch for point in checkpoints],
            epoch=checkpoints[0].trained.epoch,
            fraction=1.0,
            checkpoints=checkpoints,
        )


def advance(
    work: Work, batches: Sequence[int], before: Sequence[Checkpoint | None]
) -> Generator[float, None, list[Checkpoint]]:
    """Train neighbouring batches for one epoch and measure them, all of their networks together.

    Where the device runs out of memory, the epoch begins again with half as many networks at a
    time, one half after the other.

    Parameters
    ----------
    work : Work
        What all batches have in common.
    batches : sequence of int
        Positions in ``work.batches``, one after the other.
    before : sequence of (Checkpoint or None)
        From where each, all from one epoch; from None, the untrained networks are measured.

    Yields
    ------
    float
        Share of the epoch that is done, after every unit of work.

    Returns
    -------
    list of Checkpoint
        After the epoch, one for each batch.

    Raises
    ------
    MemoryError
        There is not enough for a single network.
    """
    own = [work.batches[batch] for batch in batches]
    networks = slice(own[0].start, own[-1].stop)
    count = networks.stop - networks.start
    known = [point for point in before if point is not None]
    begun = _joined_epochs([point.trained for point in known]) if known else None
    abreast = min((point.abreast for point in known), default=_MANY_NETWORKS)
    while True:
        parts = [slice(first, min(first + abreast, count)) for first in range(0, count, abreast)]
        try:
            units = (_advance(work, networks, part, begun) for part in parts)
            done = yield from in_turn(units, len(parts))
            return _checkpoints(done, batches, own, abreast)
        except (MemoryError, RuntimeError) as error:
            if not _out_of_memory(error):
                raise
            if min(abreast, count) == 1:
                message = (
                    f"{work.device!r} must have memory for one network and one minibatch, but: "
                    f"{error}; lower batch_size, or take a smaller model."
                )
                raise MemoryError(message) from error
        # Outside of the handler, because the error holds on to what took the memory.
        abreast = -(-min(abreast, count) // 2)
        if torch.device(work.device).type == "cuda":
            torch.cuda.empty_cache()


def _out_of_memory(error: Exception) -> bool:
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    # PyTorch's allocator for processors has no class of its own for it.
    return any(words in str(error) for words in ("can't allocate memory", "not enough memory"))


def _advance(
    work: Work, networks: slice, part: slice, before: Epoch | None
) -> Generator[float, None, tuple[Epoch, Record, Strategy]]:
    """Advance a part of the networks, as far as `advance` goes."""
    epsilon = work.epsilon[networks][part]
    # A copy, because threads that advance other batches evaluate through the same module.
    network = copy.deepcopy(work.network).to(work.device).eval()
    if is_gated():
        gate_layers(network)
    forward = batched_forward(network, work.data.input_shape, strategy=work.strategy)
    probes = work.probes.to(work.device)
    events = train(
        forward,
        stack_parameters([network] * len(epsilon)),
        work.data,
        epsilon,
        work.regularization[networks][part],
        work.training,
        work.device,
        resume=None if before is None else _part_of(before, part),
    )
    event = next(events)
    while isinstance(event, Step):
        yield event.step / event.steps / 2
        event = next(events)
    del events  # closes it: what it holds to train with is not needed while measuring
    left = 1.0 if before is None else 0.5
    units = measure(forward, event.parameters, probes)
    measured = yield from mapped(units, lambda share: 1 - left * (1 - share))
    if work.detail is not None:
        measured |= unmeasured(len(epsilon), len(probes.packets))
    if work.detail == "every-epoch" or (work.detail and event.epoch == work.training.epochs):
        details = measure_neighborhoods(network, event.parameters, probes)
        measured |= yield from mapped(details, lambda _: 1.0)
    trained = replace(event, parameters=_on_cpu(event.parameters), moments=_on_cpu(event.moments))
    return trained, measured, forward.strategy


def _part_of(epoch: Epoch, part: slice) -> Epoch:
    """Take some of the networks of an epoch."""
    some: dict[str, Any] = {name: getattr(epoch, name)[part] for name in EACH_NETWORK}
    for group in _TENSORS:
        some[group] = {name: value[part] for name, value in getattr(epoch, group).items()}
    return replace(epoch, **some)


def _joined_epochs(epochs: Sequence[Epoch]) -> Epoch:
    """Put the networks of one epoch side by side."""
    if len(epochs) == 1:
        return epochs[0]
    every: dict[str, Any] = {
        name: torch.cat([getattr(one, name) for one in epochs]) for name in EACH_NETWORK
    }
    for group in _TENSORS:
        every[group] = {
            name: torch.cat([getattr(one, group)[name] for one in epochs])
            for name in getattr(epochs[0], group)
        }
    return replace(epochs[0], **every)


def _checkpoints(
    done: Sequence[tuple[Epoch, Record, Strategy]],
    batches: Sequence[int],
    own: Sequence[slice],
    abreast: int,
) -> list[Checkpoint]:
    """Give each batch its networks of the parts in which they were advanced."""
    epochs, records, strategies = zip(*done, strict=True)
    trained = _joined_epochs(epochs)
    measured = {name: np.concatenate([one[name] for one in records]) for name in records[0]}
    first = own[0].start
    points = []
    for batch, networks in zip(batches, own, strict=True):
        part = slice(networks.start - first, networks.stop - first)
        points.append(
            Checkpoint(
                batch=batch,
                trained=_part_of(trained, part),
                measured={name: values[part] for name, values in measured.items()},
                strategy=strategies[0],
                abreast=abreast,
            )
        )
    return points


def _on_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.cpu() for name, value in tensors.items()}


def run_here(work: Work, reached: Sequence[Checkpoint | None]) -> Generator[Unit]:
    """Advance all batches to the last epoch on this machine, all to one epoch before the next.

    Parameters
    ----------
    work : Work
        What to do.
    reached : sequence of (Checkpoint or None)
        For each batch, from where.

    Yields
    ------
    Unit
        After every unit of work.
    """
    newest = list(reached)
    for epoch in range(work.training.epochs + 1):
        while due := [batch for batch, point in enumerate(newest) if _epoch(point) < epoch]:
            batches = _abreast(work, due, newest)
            units = advance(work, batches, [newest[batch] for batch in batches])
            after = yield from mapped(units, partial(_unit_of, batches, epoch))
            for point in after:
                newest[point.batch] = point
            yield Unit.finished(after)


def _unit_of(batches: Sequence[int], epoch: int, fraction: float) -> Unit:
    return Unit(batches=batches, epoch=epoch, fraction=fraction)


def _abreast(work: Work, due: Sequence[int], newest: Sequence[Checkpoint | None]) -> list[int]:
    """Choose the first of the due batches, and as many neighbours as one program takes."""
    room, chosen = work.abreast, [due[0]]
    for batch in due[1:]:
        known = (newest[one] for one in (*chosen, batch))
        room = min([room, *(point.abreast for point in known if point is not None)])
        networks = work.batches[batch].stop - work.batches[chosen[0]].start
        if batch != chosen[-1] + 1 or networks > room:
            break
        chosen.append(batch)
    return chosen


def run_on(
    executor: Executor, work: Work, reached: Sequence[Checkpoint | None]
) -> Generator[Unit | None]:
    """Do what `run_here` does on the workers of an executor, one job for each epoch of a batch.

    A job that is lost with its worker is handed in again. Closing the iterator takes back the jobs
    that have not started; the executor is left open.

    Parameters
    ----------
    executor : concurrent.futures.Executor
        Runs the jobs, on one thread each where its workers are processes.
    work, reached
        As for `run_here`.

    Yields
    ------
    Unit or None
        After every epoch of a batch; None several times a second in between.

    Raises
    ------
    TypeError
        The network or the data cannot be sent to another process.
    RuntimeError
        The executor takes no more jobs, or one job was lost several times.
    """
    # Sent with the first job of every batch.
    payload = zlib.compress(_packed(work), _QUICK)
    key = hashlib.sha256(payload).hexdigest()
    newest = list(reached)
    with_work = [True] * len(newest)
    lost = [0] * len(newest)
    jobs: dict[Future[bytes | None], int] = {}
    try:
        while True:
            for batch in _due(newest, work.training.epochs) - set(jobs.values()):
                job = _Job(
                    caller=os.getpid(),
                    key=key,
                    payload=payload if with_work[batch] else None,
                    batch=batch,
                    attempt=lost[batch],
                    before=_packed(newest[batch]),
                )
                jobs[_handed_in(executor, job)] = batch
            if not jobs:
                return
            done, _ = wait(jobs, timeout=_HEARTBEAT, return_when=FIRST_COMPLETED)
            if not done:
                yield None
            for future in done:
                batch = jobs.pop(future)
                try:
                    answer = future.result()
                except Exception as error:  # what a job raises itself comes back as its answer
                    lost[batch] += 1
                    with_work[batch] = True
                    if lost[batch] == _ATTEMPTS:
                        raise _given_up(work.batches[batch], _epoch(newest[batch]) + 1) from error
                    continue
                after = _unpacked(answer)
                with_work[batch] = after is None
                if after is not None:
                    lost[batch], newest[batch] = 0, after
                    yield Unit.finished([after])
    finally:
        for future in jobs:
            future.cancel()


def _epoch(checkpoint: Checkpoint | None) -> int:
    return -1 if checkpoint is None else checkpoint.trained.epoch


def _due(newest: Sequence[Checkpoint | None], epochs: int) -> set[int]:
    """Which batches may be advanced."""
    last = min(epochs, min(map(_epoch, newest)) + _LEAD)
    return {batch for batch, point in enumerate(newest) if _epoch(point) < last}


@dataclass(frozen=True, kw_only=True, eq=False)
class _Job:
    """An epoch of a batch, as any executor can carry it; see `Work` and `Checkpoint`.

    Attributes
    ----------
    caller : int
        The process that hands it in.
    key : str
        Checksum of the work.
    payload : bytes or None
        The work; None where the worker is believed to have it.
    batch : int
        Which batch.
    attempt : int
        Tells the job from earlier ones, for executors that remember results.
    before : bytes
        From where.
    """

    caller: int
    key: str
    payload: bytes | None
    batch: int
    attempt: int
    before: bytes


def _handed_in(executor: Executor, job: _Job) -> Future[bytes | None]:
    try:
        with warnings.catch_warnings():
            # Dask's: each of its workers is sent the images once, and keeps them.
            warnings.filterwarnings("ignore", "Sending large graph")
            return executor.submit(_done, job)
    except RuntimeError as error:  # broken or shut down
        message = (
            f"executor must take work until the sweep is done, but it says: {error}; call again "
            "with a new one (with store=..., the finished epochs are kept)."
        )
        raise RuntimeError(message) from error


def _given_up(networks: slice, epoch: int) -> RuntimeError:
    return RuntimeError(
        f"executor lost epoch {epoch} of networks {networks.start} to {networks.stop - 1} "
        f"{_ATTEMPTS} times; give its workers more memory, or lower batch_size."
    )


# What this process was sent last, by its checksum.
_held: dict[str, Work] = {}


def _done(job: _Job) -> bytes | None:
    """Do a job, on a worker; None asks for the work, which this process does not have."""
    threads = torch.get_num_threads()
    try:
        work = _held.get(job.key)
        if work is None:
            if job.payload is None:
                return None
            work = pickle.loads(zlib.decompress(job.payload))  # noqa: S301 - from our own caller
            _held.clear()
            _held[job.key] = work
        if os.getpid() != job.caller:
            # The other cores are the other workers'; threads that share one wait for each other.
            torch.set_num_threads(1)
        units = advance(work, [job.batch], [pickle.loads(job.before)])  # noqa: S301
        while True:
            next(units)
    except StopIteration as finished:
        (after,) = finished.value
        return _packed(after)
    except Exception as error:  # noqa: BLE001 - the caller's to raise
        error.add_note(f"On a worker of the executor:\n{traceback.format_exc()}")
        return _packed(error)
    finally:
        if os.getpid() != job.caller:
            torch.set_num_threads(threads)


def _packed(value: object) -> bytes:
    # The former also packs what a notebook defines, and comes with dask.
    packer = "cloudpickle" if find_spec("cloudpickle") else "pickle"
    try:
        packed: bytes = import_module(packer).dumps(value)
    except Exception as error:
        message = (
            f"model and data must be such that they can be sent to a worker, but: {error}; define "
            "the model's class at the top of a module, or leave out executor."
        )
        raise TypeError(message) from error
    return packed


def _unpacked(answer: bytes | None) -> Checkpoint | None:
    """Return what a job came to, or raise what it raised."""
    result = None if answer is None else pickle.loads(answer)  # noqa: S301 - from our own job
    if isinstance(result, Exception):
        raise result
    return result
