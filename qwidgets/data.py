"""Data sets for classification and regression, checked when they are made.

`load_data` gives the named data sets: digits and moons come with scikit-learn, MNIST is downloaded
once or read from files, CIFAR-10 is read from files, temperature fields and Friedman's function are
drawn. `Dataset.from_arrays` takes your own arrays.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import operator
import re
import zlib
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from qwidgets.checks import interval, number, one_of, random_seed
from qwidgets.domain import check_finite, check_inside
from qwidgets.tasks import CLASSIFICATION, Regression, Task

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence

    from numpy.typing import ArrayLike, NDArray

    from qwidgets.tasks import PerSample, RegressionLoss

    _Chosen = NDArray[np.int64] | slice


@dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """Inputs and labels, or inputs and targets, for training and for testing.

    Parameters
    ----------
    train_inputs, test_inputs : torch.Tensor, (n, *input_shape) float32
        Inputs, finite and inside `value_range`.
    train_labels, test_labels : torch.Tensor, (n,) int64
        Class of each input, an index into `class_names`. Where the task is a regression, the group
        that an input is shown and averaged with.
    class_names : tuple of str
        At least two; of a regression, names of the groups, at least one.
    value_range : (float, float)
        Smallest and largest valid value of an input coordinate; attacks stay inside.
    name : str
        What the data set is called in results.
    task : Task
        What is asked for: by default the class of an input, else a `qwidgets.Regression`.
    train_targets, test_targets : torch.Tensor, (n, *target_shape) float32
        What a regression is to predict for each input; None for classes.

    Raises
    ------
    TypeError
        Inputs or targets that are not float32 tensors, labels that are not int64 tensors, a
        `value_range` that is not two numbers.
    ValueError
        Targets without a regression or the reverse, targets that are not finite; no inputs, inputs
        and labels of different length, train and test inputs of different shape, NaN, inputs
        outside `value_range`, labels that are no class, fewer than two classes.
    """

    train_inputs: Tensor
    train_labels: Tensor
    test_inputs: Tensor
    test_labels: Tensor
    class_names: tuple[str, ...]
    value_range: tuple[float, float]
    name: str
    task: Task = CLASSIFICATION
    train_targets: Tensor | None = None
    test_targets: Tensor | None = None

    def __post_init__(self) -> None:
        # As Python's own, the only ones that JSON takes: sweeps are saved with them.
        vars(self).update(
            class_names=tuple(map(str, self.class_names)),
            value_range=interval(self.value_range, "value_range"),
            name=str(self.name),
        )
        if self.classes <= (self.task == CLASSIFICATION):
            message = (
                f"class_names must name at least two classes, got {self.class_names}; "
                "a classifier needs something to tell apart (a regression at least one group)."
            )
            raise ValueError(message)
        for part, inputs, labels, targets in (
            ("train", self.train_inputs, self.train_labels, self.train_targets),
            ("test", self.test_inputs, self.test_labels, self.test_targets),
        ):
            _check_inputs(f"{part}_inputs", inputs, self.value_range)
            _check_labels(f"{part}_labels", labels, len(inputs), self.classes)
            _check_targets(f"{part}_targets", targets, len(inputs), self.task)
        if self.test_inputs.shape[1:] != self.train_inputs.shape[1:]:
            message = (
                "test_inputs must have the input shape of train_inputs, "
                f"{self.input_shape}, got {tuple(self.test_inputs.shape[1:])}."
            )
            raise ValueError(message)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input."""
        return tuple(self.train_inputs.shape[1:])

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of what a network gives for one input: logits, or an output like a target."""
        return self.task.output_shape(self.classes)

    @property
    def train_y(self) -> Tensor:
        """What networks learn: the labels, or the targets of a regression."""
        return self.train_labels if self.train_targets is None else self.train_targets

    @property
    def test_y(self) -> Tensor:
        """What networks are tested on: the labels, or the targets of a regression."""
        return self.test_labels if self.test_targets is None else self.test_targets

    @cached_property
    def checksum(self) -> str:
        """SHA-256 of the content (arrays, class names, value range, task) in hexadecimal."""
        digest = hashlib.sha256(repr((self.class_names, self.value_range)).encode())
        if self.task.facts:
            digest.update(repr(self.task.facts).encode())
        targets = [array for array in (self.train_targets, self.test_targets) if array is not None]
        arrays = self.train_inputs, self.train_labels, self.test_inputs, self.test_labels
        for array in (*arrays, *targets):
            digest.update(repr((array.dtype, tuple(array.shape))).encode())
            digest.update(array.cpu().contiguous().numpy().data)
        return digest.hexdigest()

    def subset(self, train: int | None = None, test: int | None = None) -> Dataset:
        """Keep the first inputs of every class, as many as give these totals.

        Classes keep their proportions and inputs their order; the same sizes give the same subset.

        Parameters
        ----------
        train, test : int, optional
            Inputs to keep in each part; by default all.

        Returns
        -------
        Dataset
            Under the same name.

        Raises
        ------
        TypeError
            A size that is not an integer.
        ValueError
            A size below 1 or above the inputs that there are.
        """
        chosen_train = _first_of_each_class("train", self.train_labels.numpy(), train)
        chosen_test = _first_of_each_class("test", self.test_labels.numpy(), test)
        return replace(
            self,
            train_inputs=self.train_inputs[chosen_train],
            train_labels=self.train_labels[chosen_train],
            test_inputs=self.test_inputs[chosen_test],
            test_labels=self.test_labels[chosen_test],
            train_targets=None if self.train_targets is None else self.train_targets[chosen_train],
            test_targets=None if self.test_targets is None else self.test_targets[chosen_test],
        )

    @classmethod
    def from_arrays(
        cls,
        inputs: ArrayLike | Tensor,
        labels: ArrayLike | Tensor,
        *,
        test_inputs: ArrayLike | Tensor | None = None,
        test_labels: ArrayLike | Tensor | None = None,
        test_fraction: float = 0.2,
        class_names: Sequence[str] | None = None,
        value_range: tuple[float, float] | None = None,
        name: str = "custom",
        seed: int = 0,
    ) -> Dataset:
        """Make a data set of your own arrays.

        Parameters
        ----------
        inputs : array_like or torch.Tensor, (n, *input_shape)
            Numbers; converted to float32.
        labels : array_like or torch.Tensor, (n,) integers
            Class of each input, from 0.
        test_inputs, test_labels : array_like or torch.Tensor, optional
            Test data; without it, part of `inputs` is set aside.
        test_fraction : float
            Share of each class set aside for testing where no test data is given, in (0, 1).
        class_names : sequence of str, optional
            By default ``"0"``, ``"1"``, ... up to the largest label.
        value_range : (float, float), optional
            Smallest and largest valid input value; by default those that occur.
        name : str
            What the data set is called in results.
        seed : int
            Seed of the choice of test inputs.

        Returns
        -------
        Dataset

        Raises
        ------
        TypeError
            Inputs that are not numbers, labels or a seed that are not integers, a test fraction
            that is no number.
        ValueError
            As for `Dataset`; also test inputs without test labels or the reverse, a test fraction
            outside (0, 1) or one that leaves training or testing without inputs, masked entries,
            a seed outside 0 to 2^63 - 1, and labels without names that leave out many numbers.
        """
        both = _both_parts(inputs, labels, test_inputs, test_labels, test_fraction, seed)
        if class_names is None:
            class_names = both.class_names("labels")
        return cls(
            train_inputs=both.train_inputs,
            train_labels=both.train_labels,
            test_inputs=both.test_inputs,
            test_labels=both.test_labels,
            class_names=tuple(class_names),
            value_range=both.value_range(value_range),
            name=name,
        )

    @classmethod
    def for_regression(
        cls,
        inputs: ArrayLike | Tensor,
        targets: ArrayLike | Tensor,
        *,
        groups: ArrayLike | Tensor | None = None,
        test_inputs: ArrayLike | Tensor | None = None,
        test_targets: ArrayLike | Tensor | None = None,
        test_groups: ArrayLike | Tensor | None = None,
        test_fraction: float = 0.2,
        loss: RegressionLoss | PerSample = "squared",
        tolerance: float | None = None,
        unit: str = "",
        group_names: Sequence[str] | None = None,
        value_range: tuple[float, float] | None = None,
        name: str = "custom",
        seed: int = 0,
    ) -> Dataset:
        """Make a data set of your own arrays whose targets are numbers, not classes.

        Parameters
        ----------
        inputs : array_like or torch.Tensor, (n, *input_shape)
            Numbers; converted to float32.
        targets : array_like or torch.Tensor, (n,) or (n, *target_shape)
            What is to be predicted for each input, converted to float32; ``(n,)`` is taken as
            ``(n, 1)``.
        groups : array_like or torch.Tensor, (n,) integers, optional
            Which inputs are shown and averaged together, from 0; by default one group of all.
        test_inputs, test_targets, test_groups : array_like or torch.Tensor, optional
            Test data; without it, part of `inputs` is set aside.
        test_fraction : float
            Share of each group set aside for testing where no test data is given, in (0, 1).
        loss, unit
            Of the `qwidgets.Regression`.
        tolerance : float, optional
            Of the `qwidgets.Regression`, in the unit of the targets: the error up to which an
            output counts as right. By default a third of the standard deviation of the training
            targets around their mean.
        group_names : sequence of str, optional
            By default ``"all"`` for a single group, ``"0"``, ``"1"``, ... for several.
        value_range : (float, float), optional
            Smallest and largest valid input value; by default those that occur.
        name : str
            What the data set is called in results.
        seed : int
            Seed of the choice of test inputs.

        Returns
        -------
        Dataset

        Raises
        ------
        TypeError
            Inputs or targets that are not numbers, groups that are not integers.
        ValueError
            As for `Dataset` and `qwidgets.Regression`; also inputs and targets of different length,
            test inputs without test targets or the reverse, a test fraction as for `from_arrays`.

        Examples
        --------
        >>> import numpy as np, qwidgets as qw
        >>> x = np.random.default_rng(0).random((200, 3))
        >>> data = qw.Dataset.for_regression(x, x.sum(1), tolerance=0.1, value_range=(0, 1))
        >>> data.test_targets.shape
        torch.Size([40, 1])
        """
        y = _target_rows("targets", targets, inputs)
        _check_pair("test_inputs", test_inputs, "test_targets", test_targets)
        labels = _integers("groups", np.zeros(len(y), int) if groups is None else groups)
        test_y, test_labels = None, None
        if test_targets is not None:
            test_y = _target_rows("test_targets", test_targets, test_inputs)
            given = np.zeros(len(test_y), int) if test_groups is None else test_groups
            test_labels = _integers("test_groups", given)
        both = _both_parts(inputs, labels, test_inputs, test_labels, test_fraction, seed)
        if test_y is None:
            y, test_y = y[both.rest], y[both.held_out]
        if group_names is None:
            group_names = both.class_names("groups")
            group_names = ["all"] if len(group_names) == 1 else group_names
        if tolerance is None:
            tolerance = float((y - y.mean(0)).square().mean().sqrt()) / 3
        task = Regression(
            target_shape=tuple(y.shape[1:]), tolerance=tolerance, loss=loss, unit=unit
        )
        return cls(
            train_inputs=both.train_inputs,
            train_labels=both.train_labels,
            train_targets=y,
            test_inputs=both.test_inputs,
            test_labels=both.test_labels,
            test_targets=test_y,
            class_names=tuple(group_names),
            value_range=both.value_range(value_range),
            name=name,
            task=task,
        )


# Classes that may be named by their numbers whatever the number of inputs.
_MOST_NUMBERED = 1000


class _Both(NamedTuple):
    """Arrays for training and testing; where one was split, which inputs came where."""

    train_inputs: Tensor
    train_labels: Tensor
    test_inputs: Tensor
    test_labels: Tensor
    rest: NDArray[np.int64] | None = None
    held_out: NDArray[np.int64] | None = None

    def class_names(self, name: str) -> list[str]:
        """Call classes by their numbers, unless the numbers are rather names of their own."""
        count = len(self.train_labels) + len(self.test_labels)
        largest = int(max(self.train_labels.max(), self.test_labels.max()))
        if largest >= max(_MOST_NUMBERED, count):
            message = (
                f"{name} must count from 0 without large gaps, got {largest} among {count} of "
                f"them; number them with np.unique({name}, return_inverse=True)[1]."
            )
            raise ValueError(message)
        return [str(label) for label in range(largest + 1)]

    def value_range(self, given: tuple[float, float] | None) -> tuple[float, float]:
        """Take the range that was given, or that of what occurs."""
        if given is not None:
            return given
        return (
            float(min(self.train_inputs.min(), self.test_inputs.min())),
            float(max(self.train_inputs.max(), self.test_inputs.max())),
        )


def _both_parts(
    inputs: ArrayLike | Tensor,
    labels: ArrayLike | Tensor,
    test_inputs: ArrayLike | Tensor | None,
    test_labels: ArrayLike | Tensor | None,
    test_fraction: float,
    seed: int,
) -> _Both:
    """Convert arrays, and set part of them aside where there is nothing to test on."""
    x, y = _floats("inputs", inputs), _integers("labels", labels)
    _check_labels("labels", y, len(x))
    _check_pair("test_inputs", test_inputs, "test_labels", test_labels)
    if test_inputs is not None and test_labels is not None:
        test_x = _floats("test_inputs", test_inputs)
        test_y = _integers("test_labels", test_labels)
        _check_labels("test_labels", test_y, len(test_x))
        return _Both(x, y, test_x, test_y)
    test_fraction = number(test_fraction, "test_fraction", "a share of the inputs")
    if not 0 < test_fraction < 1:
        message = f"test_fraction must lie between 0 and 1, got {test_fraction}."
        raise ValueError(message)
    count = round(test_fraction * len(y))
    if not 0 < count < len(y):
        message = (
            "test_fraction must leave inputs for training and for testing, got "
            f"{test_fraction} of {len(y)} inputs; pass test_inputs and what belongs to them."
        )
        raise ValueError(message)
    rest, held_out = _stratified_split(y.numpy(), count, random_seed(seed))
    return _Both(x[rest], y[rest], x[held_out], y[held_out], rest, held_out)


def _check_pair(inputs: str, x: object, answers: str, y: object) -> None:
    if (x is None) != (y is None):
        given, absent = (answers, inputs) if x is None else (inputs, answers)
        message = f"{absent} must be given with {given}, got None; pass both or neither."
        raise ValueError(message)


def _check_inputs(name: str, inputs: object, value_range: tuple[float, float]) -> None:
    if not isinstance(inputs, Tensor) or inputs.dtype != torch.float32:
        message = (
            f"{name} must be a float32 tensor, got {getattr(inputs, 'dtype', type(inputs))}; "
            "Dataset.from_arrays converts arrays."
        )
        raise TypeError(message)
    _check_shape(name, tuple(inputs.shape))
    check_inside(inputs, name, value_range)


def _check_shape(name: str, shape: tuple[int, ...]) -> None:
    if len(shape) <= 1 or 0 in shape:
        message = (
            f"{name} must hold at least one input in the shape (n, *input_shape), got {shape}; "
            "single features take the shape (n, 1)."
        )
        raise ValueError(message)


def _check_labels(name: str, labels: object, count: int, classes: int | None = None) -> None:
    if not isinstance(labels, Tensor) or labels.dtype != torch.int64:
        message = (
            f"{name} must be an int64 tensor, got {getattr(labels, 'dtype', type(labels))}; "
            "Dataset.from_arrays converts arrays."
        )
        raise TypeError(message)
    if tuple(labels.shape) != (count,) or count == 0:
        message = (
            f"{name} must hold one label for each of the {count} inputs, at least one, "
            f"got shape {tuple(labels.shape)}."
        )
        raise ValueError(message)
    smallest, largest = int(labels.min()), int(labels.max())
    if smallest < 0 or (classes is not None and largest >= classes):
        valid = "0 or more" if classes is None else f"in 0..{classes - 1}, an index of class_names"
        message = (
            f"{name} must be {valid}, got {smallest if smallest < 0 else largest}; "
            "number the classes from 0 and name them all."
        )
        raise ValueError(message)


def _check_targets(name: str, targets: object, count: int, task: Task) -> None:
    if not isinstance(task, Regression):
        if targets is not None:
            message = (
                f"{name} must be None for classes, got {type(targets).__name__}; "
                "Dataset.for_regression makes data sets with targets."
            )
            raise ValueError(message)
        return
    if not isinstance(targets, Tensor) or targets.dtype != torch.float32:
        message = (
            f"{name} must be a float32 tensor, got {getattr(targets, 'dtype', type(targets))}; "
            "Dataset.for_regression converts arrays."
        )
        raise TypeError(message)
    if tuple(targets.shape) != (count, *task.target_shape):
        message = (
            f"{name} must hold one target of shape {task.target_shape} for each of the {count} "
            f"inputs, got shape {tuple(targets.shape)}."
        )
        raise ValueError(message)
    check_finite(targets, name)


def _target_rows(name: str, targets: ArrayLike | Tensor, inputs: Any) -> Tensor:
    """Targets as (n, *target_shape), one for each input."""
    array = _array(name, targets)
    y = _floats(name, array[:, None] if array.ndim == 1 else array)
    count = (*_array(name.replace("targets", "inputs"), inputs).shape, 0)[0]
    if len(y) != count:
        message = f"{name} must hold one target for each of the {count} inputs, got {len(y)}."
        raise ValueError(message)
    return y


def _array(name: str, values: ArrayLike | Tensor) -> NDArray[Any]:
    if np.ma.is_masked(values):
        message = f"{name} must have no masked entries, got some; fill or leave them out first."
        raise ValueError(message)
    try:
        if not isinstance(values, Tensor):
            return np.asarray(values)
        # NumPy has no bfloat16.
        return (values.float() if values.dtype == torch.bfloat16 else values).numpy(force=True)
    except (TypeError, ValueError, RuntimeError) as error:
        message = f"{name} must be an array or a tensor of numbers, but: {error}; pass one."
        raise TypeError(message) from error


def _floats(name: str, values: ArrayLike | Tensor) -> Tensor:
    array = _array(name, values)
    if array.dtype.kind not in "fiu":
        message = f"{name} must be an array of real numbers, got dtype {array.dtype}."
        raise TypeError(message)
    _check_shape(name, array.shape)
    with np.errstate(over="ignore"):  # refused below
        floats = torch.from_numpy(array.astype(np.float32))
    check_finite(floats, name)
    return floats


def _integers(name: str, values: ArrayLike | Tensor) -> Tensor:
    array = _array(name, values)
    if array.dtype.kind not in "iu" and array.size:
        message = (
            f"{name} must be an array of integers, got dtype {array.dtype}; number the classes "
            "from 0 and convert with astype(int)."
        )
        raise TypeError(message)
    return torch.from_numpy(array.astype(np.int64))


def _first_of_each_class(name: str, labels: NDArray[np.int64], count: int | None) -> _Chosen:
    """Ascending indices of the first inputs of every class, `count` in all, in proportion.

    Of all inputs a slice, which copies nothing.
    """
    if count is None:
        return slice(None)
    try:
        count = operator.index(count)
    except TypeError:
        message = f"{name} must be an integer or None, got {count!r}."
        raise TypeError(message) from None
    if not 1 <= count <= len(labels):
        message = f"{name} must be in 1..{len(labels)}, the inputs that there are, got {count}."
        raise ValueError(message)
    if count == len(labels):
        return slice(None)
    _, groups, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    share = sizes * count / len(labels)
    quota = np.floor(share).astype(np.int64)
    # Largest remainders take what rounding down left over; ties go to the smaller label.
    quota[np.argsort(quota - share, kind="stable")[: count - quota.sum()]] += 1
    members = (np.flatnonzero(groups == group)[:taken] for group, taken in enumerate(quota))
    return np.sort(np.concatenate(list(members)))


def _stratified_split(
    labels: NDArray[np.int64], count: int, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Ascending indices of the rest and of `count` inputs chosen at random in every class."""
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    chosen = np.sort(shuffled[_first_of_each_class("count", labels[shuffled], count)])
    return np.setdiff1d(np.arange(len(labels)), chosen, assume_unique=True), chosen


class Stored(NamedTuple):
    """Arrays as stored: inputs become floats only once the subset is chosen."""

    train_inputs: NDArray[np.generic]
    train_labels: NDArray[np.generic]
    test_inputs: NDArray[np.generic]
    test_labels: NDArray[np.generic]
    class_names: tuple[str, ...]
    value_range: tuple[float, float]
    scale: float
    task: Task = CLASSIFICATION
    train_targets: NDArray[np.float32] | None = None
    test_targets: NDArray[np.float32] | None = None

    def dataset(self, name: str, train_size: int | None, test_size: int | None) -> Dataset:
        """Keep that many inputs of each part, as `Dataset.subset` does, and convert them."""
        train_labels, test_labels = (
            labels.astype(np.int64) for labels in (self.train_labels, self.test_labels)
        )
        train = _first_of_each_class("train_size", train_labels, train_size)
        test = _first_of_each_class("test_size", test_labels, test_size)
        # Divided in place: large data sets would take their room a second time.
        train_inputs, test_inputs = (
            torch.from_numpy(inputs[chosen].astype(np.float32)).div_(self.scale)
            for inputs, chosen in ((self.train_inputs, train), (self.test_inputs, test))
        )
        return Dataset(
            train_inputs=train_inputs,
            train_labels=torch.from_numpy(train_labels[train]),
            test_inputs=test_inputs,
            test_labels=torch.from_numpy(test_labels[test]),
            class_names=self.class_names,
            value_range=self.value_range,
            name=name,
            task=self.task,
            train_targets=_taken(self.train_targets, train),
            test_targets=_taken(self.test_targets, test),
        )


def load_data(
    name: str = "digits",
    *,
    root: str | os.PathLike[str] | None = None,
    train_size: int | None = None,
    test_size: int | None = None,
    seed: int = 0,
) -> Dataset:
    """Load a data set by name.

    Parameters
    ----------
    name : {"digits", "moons", "mnist", "cifar10", "temperature", "friedman"}
        ``"digits"``: 8 x 8 images that come with scikit-learn, ``(1, 8, 8)`` in [0, 1], 1437 to
        train and 360 to test. ``"moons"``: two interleaved half circles in the plane, ``(2,)``,
        2000 and 1000. ``"mnist"``: ``(1, 28, 28)`` in [0, 1], 60,000 and 10,000. ``"cifar10"``:
        ``(3, 32, 32)`` in [0, 1], as many as the files hold. Two are regressions with the squared
        error as their loss. ``"temperature"``: fill a smooth field of temperatures, a target ``(1,
        16, 16)`` in kelvin around the mean of the climate, from about 24 stations and the elevation
        of the ground, ``(3, 16, 16)`` in [-1, 1]; right within 1.5 K, 1500 and 300, in three kinds
        of weather (see the notes). ``"friedman"``: Friedman's function of five of ten numbers,
        ``(10,)`` in [0, 1], with noise of standard deviation 1 in the training targets; right
        within 1, 1500 and 500.
    root : path, optional
        Folder with the files of ``"mnist"`` (IDX) or ``"cifar10"`` (binary version), plain or
        gzip, directly or in a folder of that name. MNIST without a root is downloaded once to the
        user's cache (or to the folder that the environment variable ``QWIDGETS_CACHE`` names).
        Either way its content must match the published checksums.
    train_size, test_size : int, optional
        Keep that many inputs, chosen as by `Dataset.subset`; by default all.
    seed : int
        Seed of the digits' split and of all that is drawn.

    Returns
    -------
    Dataset

    Raises
    ------
    FileNotFoundError
        A file is missing from `root`.
    ConnectionError
        The download failed.
    TypeError
        A size or a seed that is not an integer, a root that is no path.
    ValueError
        An unknown name, a size that the data set does not have, a file that is truncated,
        corrupted or of another kind, a root where none is used, a seed outside 0 to 2^63 - 1.

    Notes
    -----
    A field of ``"temperature"`` is ``offset + 3 K g1 - 2 K elevation``: the offset is normal with a
    standard deviation of 1 K around -4, 0 or 4 K in cold, mild and warm weather; g1 and the field
    g2 behind the elevation ``tanh(g2)`` are independent periodic Gaussian random fields of unit
    variance whose correlation falls as ``exp(-r^2 / (2 L^2))``, r in pixels, L = 5 for g1 and 2 for
    g2. The channels of an input are: the temperature at the stations as ``T / 20 K`` cut to [-1,
    1], 0 where there is none; 1 at the stations, else 0; and the elevation. Each pixel has a
    station with probability 24 / 256. The function of ``"friedman"`` is ``10 sin(pi x1 x2) + 20 (x3
    - 1/2)^2 + 10 x4 + 5 x5`` (Friedman, "Multivariate adaptive regression splines", Ann. Statist.
    19, 1991).
    """
    return stored_data(name, root=root, seed=seed).dataset(name, train_size, test_size)


def stored_data(name: str, *, root: str | os.PathLike[str] | None = None, seed: int = 0) -> Stored:
    """Find a data set by name, for whoever chooses by what there is.

    Parameters
    ----------
    name, root, seed
        As for `load_data`.

    Returns
    -------
    Stored

    Raises
    ------
    FileNotFoundError, ConnectionError, TypeError, ValueError
        As for `load_data`.
    """
    one_of("data", name, _SOURCES, "Dataset.from_arrays takes your own arrays")
    try:
        folder = None if root is None else Path(root)
    except TypeError:
        message = f"root must be a folder, got {root!r}; pass its path."
        raise TypeError(message) from None
    return _SOURCES[name](folder, random_seed(seed))


def _taken(targets: NDArray[np.float32] | None, chosen: _Chosen) -> Tensor | None:
    return None if targets is None else torch.from_numpy(targets[chosen])


def _digits(root: Path | None, seed: int) -> Stored:
    _refuse_root("digits", root)
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images, labels = bunch.images[:, None], bunch.target
    train, test = _stratified_split(labels, 360, seed)
    names = tuple(str(digit) for digit in range(10))
    return Stored(images[train], labels[train], images[test], labels[test], names, (0.0, 1.0), 16.0)


def _moons(root: Path | None, seed: int) -> Stored:
    _refuse_root("moons", root)
    from sklearn.datasets import make_moons

    points, labels = make_moons(3000, noise=0.1, random_state=seed)
    train, test = _stratified_split(labels, 1000, seed)
    # Room for attacks around the outermost points.
    margin = 0.1 * (points.max() - points.min())
    bounds = (float(points.min() - margin), float(points.max() + margin))
    names = ("upper", "lower")
    return Stored(points[train], labels[train], points[test], labels[test], names, bounds, 1.0)


_SIDE = 16
_WEATHERS = ("cold", "mild", "warm")
_STATIONS = 24


def _temperature(root: Path | None, seed: int) -> Stored:
    _refuse_root("temperature", root)
    random = np.random.default_rng(seed)
    train, count = 1500, 1800
    weather = np.arange(count) % len(_WEATHERS)
    offset = 4.0 * (weather - 1) + random.standard_normal(count)
    elevation = np.tanh(_random_fields(random, count, 2.0))
    field = offset[:, None, None] + 3 * _random_fields(random, count, 5.0) - 2 * elevation
    station = random.random(field.shape) < _STATIONS / _SIDE**2
    reading = np.where(station, np.clip(field / 20, -1, 1), 0)
    inputs = np.stack([reading, station, elevation], 1)
    targets = field[:, None].astype(np.float32)
    return Stored(
        *(inputs[:train], weather[:train], inputs[train:], weather[train:]),
        _WEATHERS,
        (-1.0, 1.0),
        1.0,
        Regression(target_shape=(1, _SIDE, _SIDE), tolerance=1.5, unit="K"),
        targets[:train],
        targets[train:],
    )


def _random_fields(random: np.random.Generator, count: int, length: float) -> NDArray[np.float64]:
    """Periodic Gaussian random fields (count, side, side) with unit variance at every pixel."""
    k = 2 * np.pi * np.fft.fftfreq(_SIDE)
    # The transform of exp(-r^2 / (2 L^2)), so that its root filters white noise to it.
    spectrum = np.exp(-(k[:, None] ** 2 + k**2) * length**2 / 2)
    noise = np.fft.fft2(random.standard_normal((count, _SIDE, _SIDE)))
    fields = np.fft.ifft2(noise * np.sqrt(spectrum / spectrum.mean())).real
    return np.asarray(fields, dtype=np.float64)


def _friedman(root: Path | None, seed: int) -> Stored:
    _refuse_root("friedman", root)
    random = np.random.default_rng(seed)
    train, count = 1500, 2000
    x = random.random((count, 10)).astype(np.float32)
    y = (
        10 * np.sin(np.pi * x[:, 0] * x[:, 1])
        + 20 * (x[:, 2] - 0.5) ** 2
        + 10 * x[:, 3]
        + 5 * x[:, 4]
    )
    noise = random.standard_normal(train)
    targets = y[:, None].astype(np.float32)
    group = np.zeros(count, np.int64)
    return Stored(
        *(x[:train], group[:train], x[train:], group[train:]),
        ("all",),
        (0.0, 1.0),
        1.0,
        Regression(target_shape=(1,), tolerance=1.0),
        (targets[:train] + noise[:, None]).astype(np.float32),
        targets[train:],
    )


def _refuse_root(name: str, root: Path | None) -> None:
    if root is not None:
        message = (
            f"root must be None for data {name!r}, which reads no files, got {str(root)!r}; "
            "leave it out."
        )
        raise ValueError(message)


class _IdxFile(NamedTuple):
    """One file of MNIST: checksums (SHA-256) of its content and of the published archive."""

    name: str
    magic: int
    content: str
    archive: str


_MNIST_MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
_MNIST_FILES = (
    _IdxFile(
        "train-images-idx3-ubyte",
        2051,
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    ),
    _IdxFile(
        "train-labels-idx1-ubyte",
        2049,
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    ),
    _IdxFile(
        "t10k-images-idx3-ubyte",
        2051,
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    ),
    _IdxFile(
        "t10k-labels-idx1-ubyte",
        2049,
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    ),
)


def _mnist(root: Path | None, _seed: int) -> Stored:
    if root is None:
        paths = [_download(file) for file in _MNIST_FILES]
    else:
        paths = [_find(root, "mnist", file.name) for file in _MNIST_FILES]
    train_x, train_y, test_x, test_y = (
        _read_idx(path, file) for path, file in zip(paths, _MNIST_FILES, strict=True)
    )
    names = tuple(str(digit) for digit in range(10))
    return Stored(train_x[:, None], train_y, test_x[:, None], test_y, names, (0.0, 1.0), 255.0)


def _download(file: _IdxFile) -> Path:
    """Fetch an archive of MNIST to the cache, or find it there, checked."""
    import pooch

    archive = f"{file.name}.gz"
    reasons = []
    for mirror in _MNIST_MIRRORS:
        cache = pooch.create(
            path=pooch.os_cache("qwidgets"),
            base_url=mirror,
            registry={archive: f"sha256:{file.archive}"},
            env="QWIDGETS_CACHE",
        )
        try:
            return Path(cache.fetch(archive))
        # requests' errors are OSErrors; a wrong checksum is pooch's ValueError.
        except (OSError, ValueError) as error:
            reasons.append(f"{mirror}: {error}")
    message = (
        f"MNIST file {archive} could not be downloaded ({'; '.join(reasons)}); check the network, "
        "or get the four files in another way and pass their folder as root=."
    )
    raise ConnectionError(message)


_RETRY = "get the file again, or for MNIST leave out root= to download it"


def _find(root: Path, folder: str, name: str) -> Path:
    candidates = [root / name, root / folder / name]
    for path in (f"{candidate}{suffix}" for candidate in candidates for suffix in ("", ".gz")):
        if Path(path).is_file():
            return Path(path)
    message = (
        f"root must hold the file {name} (plain or .gz), directly or in a folder {folder!r}, but "
        f"{root} does not; add the file, or for MNIST leave out root= to download it."
    )
    raise FileNotFoundError(message)


def _content(path: Path) -> bytes:
    """Bytes of a file, decompressed if it is gzip."""
    stored = path.read_bytes()
    if path.suffix != ".gz":
        return stored
    try:
        return gzip.decompress(stored)
    except EOFError:
        message = f"{path} must be a whole gzip file, but it is truncated; {_RETRY}."
        raise ValueError(message) from None
    except (gzip.BadGzipFile, zlib.error) as error:
        message = f"{path} must be a gzip file, but it is corrupted ({error}); {_RETRY}."
        raise ValueError(message) from None


def _read_idx(path: Path, file: _IdxFile) -> NDArray[np.uint8]:
    content = _content(path)
    magic = int.from_bytes(content[:4], "big")
    if magic != file.magic:
        message = (
            f"{path} must begin with the IDX magic number {file.magic}, got {magic}: it is not the "
            f"MNIST file {file.name}; {_RETRY}."
        )
        raise ValueError(message)
    # The last byte of the magic number counts the axes; a big-endian length follows for each.
    start = 4 + 4 * (magic % 256)
    shape = tuple(int.from_bytes(content[i : i + 4], "big") for i in range(4, start, 4))
    if len(content) != start + math.prod(shape):
        fault = "truncated" if len(content) < start + math.prod(shape) else "too long"
        message = (
            f"{path} must hold {start + math.prod(shape)} bytes (uncompressed) for the shape "
            f"{shape} in its header, got {len(content)}: it is {fault}; {_RETRY}."
        )
        raise ValueError(message)
    found = hashlib.sha256(content).hexdigest()
    if found != file.content:
        message = (
            f"{path} must have the content of MNIST (SHA-256 {file.content} uncompressed), got "
            f"{found}: it is corrupted or another data set; {_RETRY}; use Dataset.from_arrays for "
            "data of your own."
        )
        raise ValueError(message)
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


_CIFAR10_NAMES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)


def _cifar10(root: Path | None, _seed: int) -> Stored:
    if root is None:
        message = (
            "root must be given for data 'cifar10', which is not downloaded: get the binary "
            "version from https://www.cs.toronto.edu/~kriz/cifar.html, unpack it and pass its "
            "folder as root=."
        )
        raise ValueError(message)
    train_x, train_y = _read_cifar10(root, "data_batch_")
    test_x, test_y = _read_cifar10(root, "test_batch")
    return Stored(train_x, train_y, test_x, test_y, _CIFAR10_NAMES, (0.0, 1.0), 255.0)


def _read_cifar10(root: Path, prefix: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Images (n, 3, 32, 32) and labels (n,) of all files that begin with the prefix, in order."""
    folders = [folder for folder in (root, root / "cifar10") if folder.is_dir()]
    # A file that lies there plain and as gzip counts once.
    paths = {
        path.name.removesuffix(".gz"): path
        for folder in folders
        for path in sorted(folder.iterdir(), reverse=True)
        if re.fullmatch(rf"{prefix}.*\.bin(\.gz)?", path.name)
    }
    if not paths:
        message = (
            f"root must hold a file {prefix}*.bin (plain or .gz), directly or in a folder "
            f"'cifar10', but {root} does not; unpack the binary version of CIFAR-10 there."
        )
        raise FileNotFoundError(message)
    images, labels = [], []
    for _, path in sorted(paths.items()):
        content = np.frombuffer(_content(path), np.uint8)
        if content.size == 0 or content.size % 3073:
            message = (
                f"{path} must hold whole CIFAR-10 records of 3073 bytes (uncompressed), got "
                f"{content.size} bytes: it is truncated or of another kind; {_RETRY}."
            )
            raise ValueError(message)
        records = content.reshape(-1, 3073)
        if records[:, 0].max() >= len(_CIFAR10_NAMES):
            message = (
                f"{path} must hold labels in 0..9 at the start of each record, got "
                f"{records[:, 0].max()}: it is not the binary version of CIFAR-10; {_RETRY}."
            )
            raise ValueError(message)
        labels.append(records[:, 0])
        images.append(records[:, 1:].reshape(-1, 3, 32, 32))
    return np.concatenate(images), np.concatenate(labels)


_SOURCES: dict[str, Callable[[Path | None, int], Stored]] = {
    "digits": _digits,
    "moons": _moons,
    "mnist": _mnist,
    "cifar10": _cifar10,
    "temperature": _temperature,
    "friedman": _friedman,
}
