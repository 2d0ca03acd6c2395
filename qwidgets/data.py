"""Data sets for classification, checked when they are made.

`load_data` gives the named data sets: digits and moons come with scikit-learn, MNIST is downloaded
once or read from files, CIFAR-10 is read from files. `Dataset.from_arrays` takes your own arrays.
"""

from __future__ import annotations

import difflib
import gzip
import hashlib
import math
import operator
import re
import zlib
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence

    from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """Inputs and labels for training and for testing.

    Parameters
    ----------
    train_inputs, test_inputs : torch.Tensor, (n, *input_shape) float32
        Inputs, finite and inside `value_range`.
    train_labels, test_labels : torch.Tensor, (n,) int64
        Class of each input, an index into `class_names`.
    class_names : tuple of str
        At least two.
    value_range : (float, float)
        Smallest and largest valid value of an input coordinate; attacks stay inside.
    name : str
        What the data set is called in results.

    Raises
    ------
    TypeError
        Inputs that are not float32 tensors or labels that are not int64 tensors.
    ValueError
        No inputs, inputs and labels of different length, train and test inputs of different shape,
        NaN, inputs outside `value_range`, labels that are no class, fewer than two classes.
    """

    train_inputs: Tensor
    train_labels: Tensor
    test_inputs: Tensor
    test_labels: Tensor
    class_names: tuple[str, ...]
    value_range: tuple[float, float]
    name: str

    def __post_init__(self) -> None:
        low, high = self.value_range
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            message = (
                "value_range must be two finite numbers (low, high) with low < high, got "
                f"{self.value_range}; pass the range that inputs may take."
            )
            raise ValueError(message)
        if self.classes <= 1:
            message = (
                f"class_names must name at least two classes, got {self.class_names}; "
                "a classifier needs something to tell apart."
            )
            raise ValueError(message)
        for part, inputs, labels in (
            ("train", self.train_inputs, self.train_labels),
            ("test", self.test_inputs, self.test_labels),
        ):
            _check_inputs(f"{part}_inputs", inputs, self.value_range)
            _check_labels(f"{part}_labels", labels, len(inputs), self.classes)
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

    @cached_property
    def checksum(self) -> str:
        """SHA-256 of the content (arrays, class names, value range) in hexadecimal."""
        digest = hashlib.sha256(repr((self.class_names, self.value_range)).encode())
        for array in (self.train_inputs, self.train_labels, self.test_inputs, self.test_labels):
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
            Inputs that are not numbers, labels that are not integers.
        ValueError
            As for `Dataset`; also test inputs without test labels or the reverse, a test fraction
            outside (0, 1) or one that leaves training or testing without inputs.
        """
        train_x, train_y = _floats("inputs", inputs), _integers("labels", labels)
        _check_labels("labels", train_y, len(train_x))
        if (test_inputs is None) != (test_labels is None):
            given, absent = (
                ("test_labels", "test_inputs")
                if test_inputs is None
                else ("test_inputs", "test_labels")
            )
            message = f"{absent} must be given with {given}, got None; pass both or neither."
            raise ValueError(message)
        if test_inputs is None or test_labels is None:
            if not 0 < test_fraction < 1:
                message = f"test_fraction must lie between 0 and 1, got {test_fraction}."
                raise ValueError(message)
            count = round(test_fraction * len(train_y))
            if not 0 < count < len(train_y):
                message = (
                    "test_fraction must leave inputs for training and for testing, got "
                    f"{test_fraction} of {len(train_y)} inputs; pass test_inputs and test_labels."
                )
                raise ValueError(message)
            rest, held_out = _stratified_split(train_y.numpy(), count, seed)
            test_x, test_y = train_x[held_out], train_y[held_out]
            train_x, train_y = train_x[rest], train_y[rest]
        else:
            test_x, test_y = (
                _floats("test_inputs", test_inputs),
                _integers("test_labels", test_labels),
            )
            _check_labels("test_labels", test_y, len(test_x))
        if class_names is None:
            largest = int(max(train_y.max(), test_y.max()))
            class_names = [str(label) for label in range(largest + 1)]
        if value_range is None:
            value_range = (
                float(min(train_x.min(), test_x.min())),
                float(max(train_x.max(), test_x.max())),
            )
        return cls(
            train_inputs=train_x,
            train_labels=train_y,
            test_inputs=test_x,
            test_labels=test_y,
            class_names=tuple(class_names),
            value_range=(float(value_range[0]), float(value_range[1])),
            name=name,
        )


def _check_inputs(name: str, inputs: object, value_range: tuple[float, float]) -> None:
    if not isinstance(inputs, Tensor) or inputs.dtype != torch.float32:
        message = (
            f"{name} must be a float32 tensor, got {getattr(inputs, 'dtype', type(inputs))}; "
            "Dataset.from_arrays converts arrays."
        )
        raise TypeError(message)
    _check_shape(name, tuple(inputs.shape))
    # Compared as float32, in which the inputs are held.
    low, high = torch.tensor(value_range, dtype=torch.float32).tolist()
    smallest, largest = (value.item() for value in inputs.aminmax())
    if not (low <= smallest and largest <= high):
        offending = largest if low <= smallest else smallest
        message = (
            f"{name} must lie in value_range {value_range}, got {offending}; rescale the inputs "
            "or pass the value_range that they have."
        )
        raise ValueError(message)


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


def _floats(name: str, values: ArrayLike | Tensor) -> Tensor:
    array = np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values)
    if array.dtype.kind not in "fiu":
        message = f"{name} must be an array of real numbers, got dtype {array.dtype}."
        raise TypeError(message)
    _check_shape(name, array.shape)
    return torch.from_numpy(array.astype(np.float32))


def _integers(name: str, values: ArrayLike | Tensor) -> Tensor:
    array = np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values)
    if array.dtype.kind not in "iu" and array.size:
        message = (
            f"{name} must be an array of integers, got dtype {array.dtype}; number the classes "
            "from 0 and convert with astype(int)."
        )
        raise TypeError(message)
    return torch.from_numpy(array.astype(np.int64))


def _first_of_each_class(
    name: str, labels: NDArray[np.int64], count: int | None
) -> NDArray[np.int64]:
    """Ascending indices of the first inputs of every class, `count` in all, in proportion."""
    if count is None:
        return np.arange(len(labels))
    try:
        count = operator.index(count)
    except TypeError:
        message = f"{name} must be an integer or None, got {count!r}."
        raise TypeError(message) from None
    if not 1 <= count <= len(labels):
        message = f"{name} must be in 1..{len(labels)}, the inputs that there are, got {count}."
        raise ValueError(message)
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


class _Source(NamedTuple):
    """Arrays as stored: inputs become floats only once the subset is chosen."""

    train_inputs: NDArray[np.generic]
    train_labels: NDArray[np.generic]
    test_inputs: NDArray[np.generic]
    test_labels: NDArray[np.generic]
    class_names: tuple[str, ...]
    value_range: tuple[float, float]
    scale: float


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
    name : {"digits", "moons", "mnist", "cifar10"}
        ``"digits"``: 8 x 8 images that come with scikit-learn, ``(1, 8, 8)`` in [0, 1], 1437 to
        train and 360 to test. ``"moons"``: two interleaved half circles in the plane, ``(2,)``,
        2000 and 1000. ``"mnist"``: ``(1, 28, 28)`` in [0, 1], 60,000 and 10,000. ``"cifar10"``:
        ``(3, 32, 32)`` in [0, 1], as many as the files hold.
    root : path, optional
        Folder with the files of ``"mnist"`` (IDX) or ``"cifar10"`` (binary version), plain or
        gzip, directly or in a folder of that name. MNIST without a root is downloaded once to the
        user's cache (or to the folder that the environment variable ``QWIDGETS_CACHE`` names).
        Either way its content must match the published checksums.
    train_size, test_size : int, optional
        Keep that many inputs, chosen as by `Dataset.subset`; by default all.
    seed : int
        Seed of the digits' split and of the moons' draw.

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
        A size that is not an integer.
    ValueError
        An unknown name, a size that the data set does not have, a file that is truncated,
        corrupted or of another kind, a root where none is used.
    """
    if name not in _SOURCES:
        near = difflib.get_close_matches(str(name), _SOURCES, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        known = ", ".join(repr(known) for known in _SOURCES)
        message = (
            f"data must be one of {known}, got {name!r}{hint}; "
            "Dataset.from_arrays takes your own arrays."
        )
        raise ValueError(message)
    source = _SOURCES[name](None if root is None else Path(root), seed)
    train_labels, test_labels = (
        labels.astype(np.int64) for labels in (source.train_labels, source.test_labels)
    )
    train = _first_of_each_class("train_size", train_labels, train_size)
    test = _first_of_each_class("test_size", test_labels, test_size)
    return Dataset(
        train_inputs=torch.from_numpy(source.train_inputs[train].astype(np.float32)) / source.scale,
        train_labels=torch.from_numpy(train_labels[train]),
        test_inputs=torch.from_numpy(source.test_inputs[test].astype(np.float32)) / source.scale,
        test_labels=torch.from_numpy(test_labels[test]),
        class_names=source.class_names,
        value_range=source.value_range,
        name=name,
    )


def _digits(root: Path | None, seed: int) -> _Source:
    _refuse_root("digits", root)
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images, labels = bunch.images[:, None], bunch.target
    train, test = _stratified_split(labels, 360, seed)
    names = tuple(str(digit) for digit in range(10))
    return _Source(
        images[train], labels[train], images[test], labels[test], names, (0.0, 1.0), 16.0
    )


def _moons(root: Path | None, seed: int) -> _Source:
    _refuse_root("moons", root)
    from sklearn.datasets import make_moons

    points, labels = make_moons(3000, noise=0.1, random_state=seed)
    train, test = _stratified_split(labels, 1000, seed)
    # Room for attacks around the outermost points.
    margin = 0.1 * (points.max() - points.min())
    bounds = (float(points.min() - margin), float(points.max() + margin))
    names = ("upper", "lower")
    return _Source(points[train], labels[train], points[test], labels[test], names, bounds, 1.0)


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


def _mnist(root: Path | None, _seed: int) -> _Source:
    if root is None:
        paths = [_download(file) for file in _MNIST_FILES]
    else:
        paths = [_find(root, "mnist", file.name) for file in _MNIST_FILES]
    train_x, train_y, test_x, test_y = (
        _read_idx(path, file) for path, file in zip(paths, _MNIST_FILES, strict=True)
    )
    names = tuple(str(digit) for digit in range(10))
    return _Source(train_x[:, None], train_y, test_x[:, None], test_y, names, (0.0, 1.0), 255.0)


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


def _cifar10(root: Path | None, _seed: int) -> _Source:
    if root is None:
        message = (
            "root must be given for data 'cifar10', which is not downloaded: get the binary "
            "version from https://www.cs.toronto.edu/~kriz/cifar.html, unpack it and pass its "
            "folder as root=."
        )
        raise ValueError(message)
    train_x, train_y = _read_cifar10(root, "data_batch_")
    test_x, test_y = _read_cifar10(root, "test_batch")
    return _Source(train_x, train_y, test_x, test_y, _CIFAR10_NAMES, (0.0, 1.0), 255.0)


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


_SOURCES: dict[str, Callable[[Path | None, int], _Source]] = {
    "digits": _digits,
    "moons": _moons,
    "mnist": _mnist,
    "cifar10": _cifar10,
}
