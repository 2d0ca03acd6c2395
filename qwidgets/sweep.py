"""The experiment: a grid of networks over adversarial radius and regularization, measured.

`sweep` trains one network at every point of a grid, many of them as one program, and measures all
of them after every epoch. What comes out is a `Sweep`: a labelled cube (`Sweep.dataset`) and the
trained networks (`Sweep.model`). `iterate_sweep` is the same work as an iterator, one small unit at
a time, for whoever wants to draw, pause or cancel in between.

Data flow one way: batches of networks are advanced (`qwidgets.batches`), here or by an executor;
their checkpoints are put together to epochs of the whole grid, and into a store if there is one.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import itertools
import json
import warnings
from collections import defaultdict
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import KW_ONLY, MISSING, asdict, dataclass, fields, replace
from functools import partial
from importlib import metadata
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast, final

import numpy as np
import torch
from torch import nn

from qwidgets import __version__, store
from qwidgets.architectures import build_model
from qwidgets.batches import EACH_NETWORK, Checkpoint, Unit, run_here, run_on
from qwidgets.checks import number
from qwidgets.cube import make_cube, records, task_attributes
from qwidgets.data import Dataset
from qwidgets.ensemble import unstack
from qwidgets.gate import pass_gate
from qwidgets.models import load_parameters
from qwidgets.plan import (
    OWN_MODEL,
    RADII,
    Arguments,
    SweepSettings,
    loaded,
    planned,
    usable_devices,
)
from qwidgets.progress import progress_bar
from qwidgets.tasks import CLASSIFICATION, Regression
from qwidgets.training import (
    Epoch,
    Regularizer,
)
from qwidgets.tuning import fastest_strategy

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
    from concurrent.futures import Executor
    from pathlib import Path

    import xarray as xr
    from torch import Tensor

    from qwidgets.ensemble import Strategy
    from qwidgets.measurement import Record
    from qwidgets.plan import Architecture, Plan
    from qwidgets.tasks import Task

P = ParamSpec("P")
Given = TypeVar("Given")
Result = TypeVar("Result")


# What the strength times the square of the loss's gradient is: a loss.
_STRENGTH_UNITS: dict[Regularizer, str] = {
    "gradient": "input unit^2 / {loss}",
    "weight_decay": "1 / (learning rate * step)",
    "label_smoothing": "1",
}
# Images that a network is asked about at a time.
_AT_ONCE = 1_000
_LATER = {
    field.name: field.default for field in fields(SweepSettings) if field.default is not MISSING
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Progress:
    """How far a sweep is, after one unit of its work.

    Attributes
    ----------
    epoch : int
        The epoch being trained or measured; 0 while the untrained networks are measured.
    epochs : int
        How many there will be.
    fraction : float
        Share of all work that is done, 0 to 1.
    sweep : Sweep or None
        Everything finished so far, set whenever an epoch has just been measured.
    """

    epoch: int
    epochs: int
    fraction: float
    sweep: Sweep | None = None


@final
class Sweep:
    """A grid of trained networks and what was measured on them.

    Attributes
    ----------
    dataset : xarray.Dataset
        The cube, over the coordinates ``epsilon`` (adversarial radius in training),
        ``regularization`` (strength), ``epoch`` (0 is the untrained network), ``label``,
        ``attack_epsilon`` (radius of the attack on the test images) and ``t`` (position along the
        attack). Every variable has its unit and meaning in its attributes. Errors are standard
        errors: binomial for accuracies, Maritz and Jarrett's for medians over probe images.
    settings : SweepSettings
        What was asked for, with all defaults filled in.
    """

    def __init__(
        self,
        dataset: xr.Dataset,
        settings: SweepSettings,
        parameters: dict[str, Tensor],
        architecture: Architecture | None,
        data: Dataset | None = None,
    ) -> None:
        self.dataset = dataset
        self.settings = settings
        self._parameters = parameters
        self._architecture = architecture
        self._data = data

    def __repr__(self) -> str:
        """Say what was trained and how far."""
        done, chosen = int(self.dataset.epoch[-1]), self.settings
        return (
            f"<Sweep of {len(chosen.epsilon)} x {len(chosen.regularization)} {chosen.model!r} "
            f"networks on {chosen.data!r}, {done} of {chosen.epochs} epochs>"
        )

    @property
    def complete(self) -> bool:
        """Whether all epochs were trained and measured."""
        return bool(self.dataset.attrs["complete"])

    @property
    def data(self) -> Dataset:
        """What the networks were trained and measured on.

        Of a reopened sweep the named data are loaded again, and must be the same; such as lie in a
        folder of your own are given to `open_sweep`.

        Raises
        ------
        ValueError
            Data of your own, which a reopened sweep does not hold, or other data than then.
        FileNotFoundError
            Named data that cannot be had without a folder, or not any more.
        """
        if self._data is None:
            chosen = self.settings
            if chosen.data not in RADII:
                message = (
                    f"data of this sweep, {chosen.data!r}, were your own, which are not saved: "
                    "reopen the sweep with open_sweep(path, data=dataset)."
                )
                raise ValueError(message)
            try:
                found = self._cut(chosen.data)
            except (ValueError, FileNotFoundError, ConnectionError) as error:
                message = (
                    f"data of this sweep, {chosen.data!r}, are not at hand: reopen it with "
                    f"open_sweep(path, data=load_data({chosen.data!r}, root=...)). ({error})"
                )
                raise FileNotFoundError(message) from error
            self._data = self._same(found)
        return self._data

    def _cut(self, data: str | Dataset) -> Dataset:
        """Cut data to as many as were trained and measured on."""
        return loaded(data, None, self.settings.train_size, self.settings.test_size)

    def _same(self, same: Dataset) -> Dataset:
        """Refuse data other than those trained and measured on."""
        known: str = self.dataset.attrs["data_checksum"]
        if same.checksum != known:
            message = (
                f"data must be what this sweep was trained on, with checksum {known[:12]}..., got "
                f"{same.name!r} with {same.checksum[:12]}...; pass the data set used then."
            )
            raise ValueError(message)
        return same

    def model(self, *, epsilon: float, regularization: float) -> nn.Module:
        """Return the trained network of a grid point, after the last finished epoch.

        Parameters
        ----------
        epsilon, regularization : float
            A point of the grid, to rounding.

        Returns
        -------
        torch.nn.Module
            A fresh copy on the CPU, in eval mode.

        Raises
        ------
        TypeError
            A value that is no number.
        ValueError
            A value that is not on the grid, or a reopened sweep of a model of your own whose
            factory is not known.
        """
        if self._architecture is None:
            message = (
                "model of this sweep was made by a factory of your own, which is not saved: "
                "reopen the sweep with open_sweep(path, model=factory)."
            )
            raise ValueError(message)
        row = _on_grid("epsilon", epsilon, self.settings.epsilon)
        column = _on_grid("regularization", regularization, self.settings.regularization)
        network = self._architecture()
        index = row * len(self.settings.regularization) + column
        load_parameters(network, unstack(self._parameters, index))
        return network.eval()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the sweep to a folder that `open_sweep` reads.

        A sweep saved there before is replaced, in one step: at every moment, whatever happens to
        process or machine, the folder holds one of the two whole. Checkpoints of this very sweep
        stay, so that it can be gone on with. `qwidgets.store` says what is in the folder.

        Parameters
        ----------
        path : path
            The folder; its parent must exist.

        Raises
        ------
        FileExistsError
            Something that is not a saved sweep is there.
        FileNotFoundError, ValueError
            A sweep is there, but its manifest is missing, or damaged or in a newer format.
        BlockingIOError
            A sweep that is running keeps its checkpoints there.
        OSError
            The place cannot be written.
        """
        with store.locked(path) as folder:
            found = store.manifest(folder)
            if found is None or _differences(found, self._facts):
                store.remove_parts(folder, None)
            self._publish(folder)

    @property
    def _facts(self) -> dict[str, Any]:
        attributes = self.dataset.attrs
        untrained = self.dataset.test_loss.isel(epsilon=0, regularization=0, epoch=0)
        checksum, versions = attributes["data_checksum"], attributes["versions"]
        return _facts(self.settings, checksum, float(untrained), versions)

    def _publish(self, folder: Path) -> None:
        facts = self._facts
        content = store.Content(cube=self.dataset, weights=self._parameters, manifest=facts)
        store.publish(folder, facts, content)
        store.remove_parts(folder, None if self.complete else int(self.dataset.epoch[-1]))


def open_sweep(
    path: str | os.PathLike[str],
    *,
    model: Architecture | None = None,
    data: Dataset | None = None,
) -> Sweep:
    """Open a sweep that `Sweep.save` wrote, or the store of one, finished or not.

    Of a sweep that another process is training, what is finished so far is opened.

    Parameters
    ----------
    path : path
        The folder.
    model : callable, optional
        For a sweep of a model of your own: its factory, without arguments. Only `Sweep.model` needs
        it.
    data : Dataset, optional
        For a sweep on data of your own, or from a folder (``load_data(name, root=...)``): the same
        data, of which it takes as many as then. Only what looks at images needs them.

    Returns
    -------
    Sweep
        With the same cube and weights, bit for bit.

    Raises
    ------
    FileNotFoundError
        Nothing is there, or a part is missing.
    ValueError
        It is not a saved sweep, in a newer format, damaged, of settings that this version does not
        know, or a store without a finished epoch; or the data are others than then.
    """
    content = store.load(path)
    stored: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in content.manifest["settings"].items()
    }
    known = {field.name for field in fields(SweepSettings)}
    strange = sorted(stored.keys() - known | known - _LATER.keys() - stored.keys())
    if strange:
        message = (
            f"path must be a sweep with the settings of this version, but in {path} these are not "
            f"known, or missing: {', '.join(strange)}; open it with the qwidgets that wrote it, "
            f"{content.manifest['versions'].get('qwidgets')}."
        )
        raise ValueError(message)
    settings = SweepSettings(**stored)
    given: object = model
    if given is not None and (isinstance(given, nn.Module) or not callable(given)):
        message = (
            "model must be the function that made the networks, without arguments, got "
            f"{type(given).__name__}; networks of `build_model` need none."
        )
        raise TypeError(message)
    if model is None and settings.model != OWN_MODEL:
        model = partial(_rebuilt, settings, content.cube.attrs)
    opened = Sweep(content.cube, settings, content.weights, model)
    if data is not None:
        opened._data = opened._same(opened._cut(data))  # noqa: SLF001 - of this module
    return opened


def arguments_of(sweep: Sweep) -> dict[str, Any]:
    """Return the arguments of `sweep` that train one again, on this machine.

    Data that are not loaded go by their name, and may be refused as unknown.
    """
    chosen = sweep.settings
    again = {field.name: getattr(chosen, field.name) for field in fields(chosen)}
    own = chosen.model == OWN_MODEL
    return again | {
        "data": chosen.data if sweep._data is None else sweep._data,  # noqa: SLF001 - of this module
        "model": sweep._architecture if own else chosen.model,  # noqa: SLF001 - of this module
        # A sweep may come from a machine with another one.
        "device": "cpu" if chosen.device == "cpu" else "auto",
    }


def _rebuilt(settings: SweepSettings, attributes: dict[str, Any]) -> nn.Module:
    """Build the architecture of a sweep whose data are not at hand, only their shape."""
    low, high = attributes["value_range"]
    blank = torch.full((1, *attributes["input_shape"]), low, dtype=torch.float32)
    label = torch.zeros(1, dtype=torch.int64)
    task: Task = CLASSIFICATION
    target = None
    if "task" in attributes:
        facts = attributes["task"]
        shape = tuple(facts["target_shape"])
        # Its loss may have been a function of one's own; no architecture depends on it.
        task = Regression(target_shape=shape, tolerance=facts["tolerance"], unit=facts["unit"])
        target = torch.zeros((1, *shape))
    data = Dataset(
        train_inputs=blank,
        train_labels=label,
        test_inputs=blank,
        test_labels=label,
        class_names=tuple(attributes["class_names"]),
        value_range=(low, high),
        name=settings.data,
        task=task,
        train_targets=target,
        test_targets=target,
    )
    return build_model(settings.model, data, seed=settings.seed)


@dataclass(frozen=True)
class _ShownArguments(Arguments):
    """What `sweep` takes."""

    _: KW_ONLY
    progress: bool = True


def _called_with(
    arguments: Callable[P, Given],
) -> Callable[[Callable[[Given], Result]], Callable[P, Result]]:
    """Let a function of one settings object be called with its fields, and show them as its own."""
    signature = inspect.signature(arguments)

    def decorate(function: Callable[[Given], Result]) -> Callable[P, Result]:
        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> Result:
            for name in kwargs.keys() - signature.parameters.keys():
                near = difflib.get_close_matches(name, signature.parameters, n=1)
                listed = f"help(qwidgets.{function.__name__}) lists them."
                hint = f"did you mean {near[0]!r}?" if near else listed
                message = f"{function.__name__} has no argument {name!r}; {hint}"
                raise TypeError(message)
            return function(arguments(*args, **kwargs))

        returned = inspect.signature(function).return_annotation
        vars(call)["__signature__"] = signature.replace(return_annotation=returned)
        return call

    return decorate


@_called_with(_ShownArguments)
def sweep(arguments: _ShownArguments) -> Sweep:
    """Train and measure a network at every point of a grid of radii and regularization strengths.

    All networks start from the same weights and see the same minibatches, so that they differ only
    by their radius and strength. Interrupting (Ctrl-C, the kernel's interrupt button, the Cancel
    button) keeps the finished epochs. The same arguments on the same machine give the same cube,
    bit for bit, with or without a store or an executor; the global random state is neither read nor
    changed.

    With a store nothing is lost: whatever ends the process, the same call goes on from the last
    checkpoint, at most one epoch of the networks that were being trained together (64 at most; of
    every batch on a worker, with an executor) is done again, and the cube is that of a run without
    interruption. Once the sweep is finished, the same call returns what is in the store.

    Parameters
    ----------
    data : str or Dataset
        ``"digits"``, ``"moons"``, ``"mnist"``, ``"cifar10"``, ``"temperature"``, ``"friedman"``, or
        your own (`Dataset.from_arrays`, `Dataset.for_regression`). Of a regression an output
        within the tolerance takes the place of a right class, and the loss of its task that of the
        cross-entropy.
    model : str or callable
        A name that `build_model` knows (``"mlp"``, ``"conv"``, ...), or a function without
        arguments that returns a new `torch.nn.Module`, which is trained and measured in eval mode.
    epsilon : array_like, optional
        Radii of adversarial training, increasing, input units; 0 is clean training. By default
        eight values that suit the data.
    regularization : array_like, optional
        Regularization strengths, increasing; 0 is none. By default eight values that suit the
        regularizer.
    regularizer : {"gradient", "weight_decay", "label_smoothing"}
        What the strength multiplies; see `TrainingSettings`.
    epochs : int
        Passes over the training images.
    seed : int
        Seed of the initial weights, the minibatch order and the attacks.
    device : str
        ``"auto"`` (a CUDA device if there is one), ``"cpu"``, ``"cuda"`` or ``"cuda:1"``.
    store : path, optional
        Folder for checkpoints; made if it is not there, its parent must be. `open_sweep` opens it
        at any time.
    executor : concurrent.futures.Executor, optional
        Where to train and measure: `ProcessPoolExecutor`, ``Client.get_executor()`` of dask, and so
        on. It stays open. Jobs are one epoch of eight networks each (64 on a GPU), on one thread:
        give it as many workers as there are cores. One that is lost is done again. Its machines
        need ``qwidgets``, no data and no common file system. Python before 3.11.7 may wait for ever
        for a `ProcessPoolExecutor` one of whose processes was killed (a fault of Python, mended
        since).
    progress : bool
        Show a progress bar, in a terminal or a notebook.
    root : path, optional
        Folder of the files of ``"mnist"`` or ``"cifar10"``.
    train_size, test_size : int or "all", optional
        Images to train and to measure on, in the proportions of the classes; ``"all"`` takes every
        one. By default all of them, but at most 1000 to measure on, and 10,000 to train on of
        ``"mnist"`` and ``"cifar10"``.
    norm : {"linf", "l2"}
        Norm of all radii.
    objective : {"pgd", "trades", "fgsm", "clean"}
        What a network of radius above 0 learns; see `TrainingSettings`.
    attack_steps : int
        PGD steps, in training and (but at least 5) in the measurement.
    attack_step : float
        Length of a step in training, as a multiple of ``epsilon / attack_steps``. With 1 the steps
        just reach the radius; the default, that of `pgd`, lets them turn on the way. The
        measurement keeps to the default.
    warm_up : float
        Share of the training, 0 to 1, in which the radii grow from 0 to their values.
    trades_weight : float
        Weight of the robust term of the objective ``"trades"``.
    attack_epsilon : array_like, optional
        Radii at which robust accuracy is measured, increasing, the first one 0.
    width : float, optional
        Standard deviation s of the Gaussian window on the packet, input units. By default half the
        l2 length of the largest l-infinity perturbation of a reference radius,
        ``s = epsilon_ref * sqrt(d) / 2``, with 0.1 for digits, MNIST and friedman, 8/255 for
        CIFAR-10, 0.2 for moons, 0.05 for temperature and a tenth of the value range for your own
        data.
    probe_images : int
        Test images of each label on which packets are measured, an odd number; fewer where a label
        has fewer.
    detail : {"last-epoch", "every-epoch"} or None
        When to measure the neighbourhood of each class, the l-infinity balls of the reference
        radius (see `width`) around its test images: effective radii, bound and boundary term. It
        takes about as long as an epoch or two.
    detail_samples : int
        Evaluations of each network for the neighbourhood of each class, at least 128. More make the
        standard errors smaller.
    batch_size : int
        Images in a minibatch.
    learning_rate : float, optional
        Of Adam; by default 0.002 for ``mlp`` and ``conv``, 0.004 for ``encoder_decoder``, 0.001 for
        all others.

    Returns
    -------
    Sweep
        ``complete`` is False if it was interrupted.

    Raises
    ------
    TypeError, ValueError
        Anything that cannot be meant, before any work is done.
    FileNotFoundError, ConnectionError
        Data that cannot be had; see `load_data`.
    ValueError, FileExistsError, FileNotFoundError
        A store that holds another sweep (what differs is listed), is damaged, in a newer format,
        without its manifest, or not a store.
    BlockingIOError
        A store that another process is writing to.
    OSError
        A store that cannot be written (any more); the last checkpoint is intact.
    MemoryError
        A sweep that cannot fit into the memory that is free; says what takes how much.
    RuntimeError
        An executor that takes no more work.
    KeyboardInterrupt
        Interrupted before anything was measured.

    Warns
    -----
    UserWarning
        Interrupted later: says after which epoch. A store begun with other versions of packages.

    References
    ----------
    Zhang et al., "On the uncertainty principle of neural networks", arXiv 2205.01493; theory:
    "The packet along the attack".
    """
    finished: Sweep | None = None
    with one_core_spared():
        plan = planned(arguments)
        with (
            closing(_started(plan, arguments)) as units,
            progress_bar(f"Sweep (about {plan.memory})", show=arguments.progress) as report,
            suppress(KeyboardInterrupt),
        ):
            for state in units:
                finished = state.sweep or finished
                if not report(state.fraction, f"epoch {state.epoch} of {state.epochs}"):
                    break
    if finished is None:
        raise KeyboardInterrupt
    if not finished.complete:
        message = (
            f"sweep was interrupted after epoch {int(finished.dataset.epoch[-1])} of "
            f"{arguments.epochs}; the result holds the finished epochs."
        )
        warnings.warn(message, UserWarning, stacklevel=3)
    return finished


@contextmanager
def one_core_spared() -> Iterator[None]:
    """Let PyTorch use one thread fewer than it is set to, for the calling thread's work.

    Its threads wait for each other after every small product. Where one of them has to share its
    core, with a browser say, the others spin until it gets its turn: on two cores an epoch of the
    default grid then took 5 to 20 times as long with two threads, and with one no longer than on an
    idle machine, where the second thread saves two fifths.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, threads - 1))
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@_called_with(Arguments)
def iterate_sweep(arguments: Arguments) -> Generator[Progress]:
    """Do what `sweep` does, one small unit of work at a time.

    Not taking the next item pauses the work, closing the iterator stops it; the last ``sweep`` seen
    stays valid.

    Parameters
    ----------
    data, model, epsilon, regularization, regularizer, epochs, seed, device
        As for `sweep`.
    store, executor, root, train_size, test_size, norm, objective, attack_steps, attack_step
        As for `sweep`.
    warm_up, trades_weight, attack_epsilon, width, probe_images, detail, detail_samples
        As for `sweep`.
    batch_size, learning_rate
        As for `sweep`.

    Returns
    -------
    iterator of Progress
        After every minibatch and every part of a measurement (in the default sweep each takes well
        under a tenth of a second on two cores); with an executor several times a second.

    Raises
    ------
    TypeError, ValueError, FileNotFoundError, ConnectionError, MemoryError
        As for `sweep`, at the call, not at the first item.
    """
    return _started(planned(arguments), arguments)


def _started(plan: Plan, arguments: Arguments) -> Generator[Progress]:
    folder = None
    if arguments.store is not None:
        # Refuses a wrong store at the call. The lock is taken again with the first item: an
        # iterator that is never started would never give it back.
        with store.locked(arguments.store) as folder:
            _refuse_other(folder, _asked(plan))
    # Absolute, because the work may begin in another working directory.
    return _run(plan, folder, arguments.executor)


def _run(plan: Plan, path: Path | None, executor: Executor | None) -> Generator[Progress]:
    work, epochs = plan.work, plan.settings.epochs
    with ExitStack() as stack:
        folder = None if path is None else stack.enter_context(store.locked(path))
        finished, kept = (None, []) if folder is None else _resumed(plan, folder)
        if finished is not None:
            epoch = int(finished.dataset.epoch[-1])
            fraction = _parts(epoch) / _parts(epochs)
            yield Progress(epoch=epoch, epochs=epochs, fraction=fraction, sweep=finished)
            if finished.complete:
                return
        stored = finished.dataset.attrs["strategy"] if finished else None
        plan = _with_strategy(plan, executor, kept[0].strategy if kept else stored)
        work = plan.work
        newest = {point.batch: point for point in kept}
        reached = [newest.get(batch) for batch in range(len(work.batches))]
        units = run_here(work, reached) if executor is None else run_on(executor, work, reached)
        stack.enter_context(closing(units))
        known = (Unit.finished([point]) for point in kept)
        every = itertools.chain(known, units if folder is None else _written(units, folder))
        for state in _gathered(plan, len(reached), every, finished):
            if folder is not None and state.sweep is not None:
                state.sweep._publish(folder)  # noqa: SLF001 - of this module
            yield state


def _with_strategy(plan: Plan, executor: Executor | None, stored: Strategy | None) -> Plan:
    """Fix how the networks are evaluated: as the store began, or as is fastest here."""
    work = plan.work
    if stored is None and (executor is None or work.device in usable_devices()):
        stored = fastest_strategy(plan.architecture(), work.data, work.training, work.device)
    return plan._replace(work=replace(work, strategy=stored))


def _parts(epoch: int) -> int:
    """Count the halves of all epochs up to this: training and measuring, but epoch 0 has one."""
    return max(0, 2 * epoch + 1)


def _gathered(
    plan: Plan, batches: int, units: Iterable[Unit | None], finished: Sweep | None
) -> Generator[Progress]:
    """Put the checkpoints of the batches together to epochs of the whole grid."""
    settings = plan.settings
    past = [] if finished is None else records(finished.dataset)
    done = [float(_parts(len(past) - 1))] * batches
    ahead: defaultdict[int, dict[int, Checkpoint]] = defaultdict(dict)
    for unit in units:
        sweep, epoch = None, len(past)
        if unit is not None:
            before, after = _parts(unit.epoch - 1), _parts(unit.epoch)
            share = before + unit.fraction * (after - before)
            for batch in unit.batches:
                done[batch] = max(done[batch], share)
            if unit.epoch >= epoch:
                ahead[unit.epoch] |= {point.batch: point for point in unit.checkpoints}
        if len(ahead[epoch]) == batches:
            pass_gate()
            sweep = _sweep_of(plan, past, [ahead[epoch][batch] for batch in range(batches)])
            del ahead[epoch]
        yield Progress(
            epoch=min(epoch, settings.epochs),
            epochs=settings.epochs,
            fraction=sum(done) / (batches * _parts(settings.epochs)),
            sweep=sweep,
        )


def _sweep_of(plan: Plan, past: list[Record], points: Sequence[Checkpoint]) -> Sweep:
    """Add the checkpoints of an epoch, one for each batch, to the records of those before."""
    settings, architecture, work, _ = plan
    data, probes = work.data, work.probes
    parts = [
        {
            **point.measured,
            **{name: getattr(point.trained, name).numpy() for name in EACH_NETWORK},
        }
        for point in points
    ]
    record = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    past.append(record)
    strength_unit = _STRENGTH_UNITS[settings.regularizer].format(loss=data.task.loss_unit)
    cube = make_cube(
        past,
        probes,
        epsilon=settings.epsilon,
        regularization=settings.regularization,
        regularization_name=f"strength of {settings.regularizer}",
        regularization_unit=strength_unit,
        attributes={
            "data": settings.data,
            "model": settings.model,
            "strategy": points[0].strategy,
            "regularizer": settings.regularizer,
            "regularization_unit": strength_unit,
            "norm": settings.norm,
            "width": settings.width,
            "seed": settings.seed,
            "device": settings.device,
            "objective": settings.objective,
            "training_attack_steps": settings.attack_steps,
            "training_attack_step": settings.attack_step,
            "warm_up": settings.warm_up,
            "trades_weight": settings.trades_weight,
            "measurement_attack_steps": probes.attack_steps,
            "batch_size": settings.batch_size,
            "learning_rate": settings.learning_rate,
            "train_images": settings.train_size,
            "test_images": settings.test_size,
            # Clean and robust accuracy are measured on the same images, so that they agree at
            # radius 0.
            "robust_images": settings.test_size,
            "neighborhood_radius": probes.neighborhood_radius,
            "neighborhood_samples": probes.neighborhood_samples,
            "probe_images_per_label": probes.packets.shape[1],
            "class_names": list(data.class_names),
            "input_shape": list(data.input_shape),
            "value_range": list(data.value_range),
            "data_checksum": data.checksum,
            "versions": _versions(),
            "complete": points[0].trained.epoch == settings.epochs,
            **task_attributes(data.task),
        },
    )
    each = [point.trained.parameters for point in points]
    weights = {name: torch.cat([parameters[name] for parameters in each]) for name in each[0]}
    return Sweep(cube, settings, weights, architecture, data)


def _versions() -> dict[str, str]:
    return {name: metadata.version(name) for name in ("torch", "numpy")} | {"qwidgets": __version__}


# What the store is told and asked


def _facts(
    settings: SweepSettings, data_checksum: str, untrained_loss: float, versions: dict[str, str]
) -> dict[str, Any]:
    """Everything that two runs must share to give the same cube, for the manifest."""
    return {
        "settings": _plain(settings),
        "data_checksum": data_checksum,
        # Tells one model of your own from another.
        "untrained_loss": untrained_loss,
        "versions": versions,
    }


def _plain(settings: SweepSettings) -> dict[str, Any]:
    """Return settings as they come back from a manifest."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(settings)))
    return plain


def _asked(plan: Plan) -> dict[str, Any]:
    data = plan.work.data
    network, total = plan.architecture().eval(), 0.0
    # In parts, because all layers of thousands of images would take more room than the training.
    parts = (values.split(_AT_ONCE) for values in (data.test_inputs, data.test_y))
    with torch.no_grad():
        for x, y in zip(*parts, strict=True):
            total += data.task.losses(network(x), y).double().sum().item()
    loss = total / len(data.test_labels)
    return _facts(plan.settings, data.checksum, loss, _versions())


def _refuse_other(folder: Path, asked: dict[str, Any]) -> None:
    """Refuse a store whose sweep is another one, naming what differs."""
    found = store.manifest(folder)
    differences = _differences(found, asked) if found else []
    if differences:
        message = (
            f"store must be free or hold this very sweep, but {folder} differs in (stored -> asked "
            f"for) {', '.join(differences)}; choose another folder, or ask for what it holds."
        )
        raise ValueError(message)


def _differences(found: dict[str, Any], asked: dict[str, Any]) -> list[str]:
    """Say in what a stored sweep is another than one that is asked for; its versions may differ."""
    stored, wanted = (
        {**_LATER, **facts["settings"], "data_checksum": facts["data_checksum"]}
        for facts in (found, asked)
    )
    differences = [
        f"{name}: {stored.get(name)!r} -> {wanted.get(name)!r}"
        for name in {**stored, **wanted}
        if stored.get(name) != wanted.get(name)
    ]
    losses = found["untrained_loss"], asked["untrained_loss"]
    # The measurement adds up in another order.
    if not differences and not np.isclose(*losses, rtol=1e-4, equal_nan=True):
        differences = [f"test loss of the untrained model: {losses[0]:.6g} -> {losses[1]:.6g}"]
    return differences


def _resumed(plan: Plan, folder: Path) -> tuple[Sweep | None, list[Checkpoint]]:
    """Return what a store holds: all finished epochs, and checkpoints to go on from."""
    asked = _asked(plan)
    _refuse_other(folder, asked)
    found = store.manifest(folder)
    if found is None:
        store.publish(folder, asked)
        return None, []
    finished = None
    if found["checksum"] is not None:
        content = store.load(folder)
        finished = Sweep(
            content.cube, plan.settings, content.weights, plan.architecture, plan.work.data
        )
        if finished.complete:
            # What a process that was killed between its last manifest and its clean-up has left.
            store.remove_old(folder)
            store.remove_parts(folder, None)
            return finished, []
    if found["versions"] != asked["versions"]:
        message = (
            f"store was begun with {found['versions']} and goes on with {asked['versions']}: "
            "its epochs may differ by rounding from those of one run."
        )
        warnings.warn(message, UserWarning, stacklevel=2)
    parts = store.read_parts(folder)
    first = 0 if finished is None else finished.dataset.sizes["epoch"]
    newest = dict(sorted(parts))
    # A batch that lacks an epoch (its file was damaged, and removed) begins again.
    whole = {
        batch
        for batch, last in newest.items()
        if all((batch, epoch) in parts for epoch in range(first, last + 1))
    }
    return finished, [_checkpoint(at, parts[at]) for at in sorted(parts) if at[0] in whole]


def _written(units: Iterable[Unit | None], folder: Path) -> Iterator[Unit | None]:
    """Write every checkpoint that passes."""
    for unit in units:
        for point in unit.checkpoints if unit is not None else ():
            store.write_part(folder, point.batch, point.trained.epoch, _part(point))
        yield unit


def _part(point: Checkpoint) -> store.Part:
    trained = point.trained
    groups = {
        "measured": {name: torch.from_numpy(values) for name, values in point.measured.items()},
        "trained": {name: getattr(trained, name) for name in EACH_NETWORK},
        "parameters": trained.parameters,
        "moments": trained.moments,
        "streams": trained.streams,
    }
    return store.Part(
        tensors={
            # Copies, because the format takes no two tensors that share memory.
            f"{group}/{name}": value.clone(memory_format=torch.contiguous_format)
            for group, values in groups.items()
            for name, value in values.items()
        },
        facts={"strategy": point.strategy, "abreast": str(point.abreast)},
    )


def _checkpoint(place: tuple[int, int], part: store.Part) -> Checkpoint:
    groups: defaultdict[str, dict[str, Tensor]] = defaultdict(dict)
    for entry, value in part.tensors.items():
        group, _, name = entry.partition("/")
        groups[group][name] = value
    batch, epoch = place
    return Checkpoint(
        batch=batch,
        trained=Epoch(
            epoch=epoch,
            parameters=groups["parameters"],
            moments=groups["moments"],
            streams=groups["streams"],
            **groups["trained"],
        ),
        measured={name: value.numpy() for name, value in groups["measured"].items()},
        strategy=cast("Strategy", part.facts["strategy"]),
        abreast=int(part.facts["abreast"]),
    )


def _on_grid(name: str, value: float, axis: tuple[float, ...]) -> int:
    value = number(value, name, "a value of the grid")
    distance = np.abs(np.subtract(axis, value))
    nearest = int(distance.argmin())  # of NaN: the first, refused below
    if not np.isclose(axis[nearest], value, atol=1e-12):
        below = [known for known in axis if known < value][-1:]
        above = [known for known in axis if known > value][:1]
        near = " and ".join(f"{known:g}" for known in below + above) or f"{axis[nearest]:g}"
        message = f"{name} must be a value of the grid, got {value:g}; the nearest are {near}."
        raise ValueError(message)
    return nearest
