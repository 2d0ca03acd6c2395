"""What a person gives to the study of their own network: a factory of the model, and data."""

from __future__ import annotations

import importlib
import sys
import zipfile
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

import qwidgets as qw

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from numpy.typing import NDArray

NAMES = ("digits", "moons", "mnist", "cifar10")
_NEED_ROOT = ("mnist", "cifar10")
# Nothing is trained: of named data no more training inputs are held than a Dataset may show.
_TRAIN_SIZE = 1_000
_PAIRS = (("test_inputs", "test_labels"), ("inputs", "labels"))
_SAVE = "np.savez('data.npz', inputs=x, labels=y)"


def load_model(model: str, *, seed: int = 0) -> nn.Module:
    """Make a network by calling a function of a person's own module.

    Parameters
    ----------
    model : str
        ``"module:factory"``, as an entry point: the module is imported with the current folder on
        the path, and the factory called without arguments; it builds the network and loads its
        weights. A network itself may stand in the place of the factory.
    seed : int
        Of torch's generator on the CPU during the call, so that weights that the factory draws are
        the same in every run.

    Returns
    -------
    torch.nn.Module

    Raises
    ------
    TypeError
        What comes back is no `torch.nn.Module`.
    ValueError
        No colon, a module that cannot be imported, a factory that is not there or that raises.
    """
    module_name, colon, path = model.partition(":")
    if not (colon and module_name and path) or "/" in module_name or module_name.endswith(".py"):
        message = (
            f"model must be module:factory, for example nets:make for the function make of the "
            f"file nets.py in this folder, got {model!r}."
        )
        raise ValueError(message)
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        module = importlib.import_module(module_name)
    # Whatever a person's module does when it is imported, scripts that exit included.
    except (Exception, SystemExit) as error:
        message = (
            f"model must name a module that can be imported, but importing {module_name!r} gave "
            f"{_told(error)}; run the command in its folder, and try: python -c "
            f'"import {module_name}".'
        )
        raise ValueError(message) from error
    try:
        made = reduce(getattr, path.split("."), module)
    except AttributeError:
        public = [name for name in vars(module) if not name.startswith("_")]
        message = (
            f"model must name a factory in {module_name!r}, which has no {path!r}; it has "
            f"{', '.join(public) or 'nothing'}."
        )
        raise ValueError(message) from None
    if not isinstance(made, nn.Module):
        if not callable(made):
            message = (
                f"model must name a function that returns a torch.nn.Module, but {model} is of "
                f"type {type(made).__name__}; write a function that builds it."
            )
            raise TypeError(message)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            try:
                made = made()
            except (Exception, SystemExit) as error:
                message = (
                    f"model must be a factory that can be called without arguments, but {model} "
                    f"gave {_told(error)}; it builds the network and loads its weights by itself."
                )
                raise ValueError(message) from error
    if not isinstance(made, nn.Module):
        message = (
            f"model must be a factory that returns a torch.nn.Module, but {model} returned "
            f"{type(made).__name__}; return the network itself."
        )
        raise TypeError(message)
    return made


def _told(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def load_given(
    data: str | os.PathLike[str], *, root: str | os.PathLike[str] | None = None
) -> qw.Dataset:
    """Read the data on which a network is to be measured.

    Parameters
    ----------
    data : str or path
        One of the names of `qwidgets.load_data`; a folder with the files of MNIST (IDX) or CIFAR-10
        (binary version); or an ``.npz`` file. That holds ``inputs`` ``(n, *input_shape)`` and
        ``labels`` ``(n,)``, or ``test_inputs`` and ``test_labels``, which come first: inputs that
        the network was not trained on; and may hold ``class_names`` and ``value_range``, by default
        the labels and the range that occurs.
    root : path, optional
        Folder of the files, for a name that reads files.

    Returns
    -------
    Dataset

    Raises
    ------
    FileNotFoundError
        There is nothing of that name.
    TypeError, ValueError
        A file of another kind, without the arrays, or with arrays that are no data set.
    """
    name = str(data)
    if name in NAMES:
        return qw.load_data(name, root=root if name in _NEED_ROOT else None, train_size=_TRAIN_SIZE)
    place = Path(data)
    if not place.exists():
        message = (
            f"data must be one of {', '.join(NAMES)}, or a path, but {name!r} is not there; "
            f"save arrays with {_SAVE}."
        )
        raise FileNotFoundError(message)
    return _from_folder(place) if place.is_dir() else _from_archive(place)


def _from_folder(place: Path) -> qw.Dataset:
    patterns = {"mnist": "t10k-images-idx3-ubyte*", "cifar10": "test_batch*.bin*"}
    found = [
        name
        for name, pattern in patterns.items()
        if any(file for folder in (place, place / name) for file in folder.glob(pattern))
    ]
    if len(found) != 1:
        got = " and ".join(found) if found else "neither"
        message = (
            f"data must be a folder with the files of MNIST (IDX) or of CIFAR-10 (binary version), "
            f"one of them, but {place} holds {got}; name the folder of one, or save arrays with "
            f"{_SAVE}."
        )
        raise ValueError(message)
    return qw.load_data(found[0], root=place, train_size=_TRAIN_SIZE)


def _from_archive(place: Path) -> qw.Dataset:
    arrays = _arrays(place)
    pair = next((pair for pair in _PAIRS if set(pair) <= set(arrays)), None)
    if pair is None:
        message = (
            f"data must hold the arrays inputs and labels (or test_inputs and test_labels), but "
            f"{place} holds {', '.join(arrays) or 'nothing'}; save them with {_SAVE}."
        )
        raise ValueError(message)
    inputs, labels = (arrays[name] for name in pair)
    names, limits = arrays.get("class_names"), arrays.get("value_range")
    if limits is not None and (limits.shape != (2,) or limits.dtype.kind not in "fiu"):
        message = (
            f"value_range in {place} must be two numbers (low, high), got shape {limits.shape} and "
            f"dtype {limits.dtype}; leave it out to take the range that occurs."
        )
        raise ValueError(message)
    if names is not None and names.ndim != 1:
        message = (
            f"class_names in {place} must be a list of names, got shape {names.shape}; leave it "
            "out to number the classes."
        )
        raise ValueError(message)
    try:
        return qw.Dataset.from_arrays(
            inputs,
            labels,
            test_inputs=inputs,
            test_labels=labels,
            class_names=None if names is None else [str(name) for name in names],
            value_range=None if limits is None else (float(limits[0]), float(limits[1])),
            name=place.stem,
        )
    except (TypeError, ValueError) as error:
        message = f"data from {place} ({pair[0]}, {pair[1]}): {error}"
        raise type(error)(message) from error


def _arrays(place: Path) -> Mapping[str, NDArray[np.generic]]:
    # What is no archive NumPy may take for a single array or for a pickle.
    if not zipfile.is_zipfile(place):
        message = (
            f"data must be an .npz file or a folder, but {place} is another kind of file; save "
            f"arrays with {_SAVE}."
        )
        raise ValueError(message)
    try:
        with np.load(place, allow_pickle=False) as archive:
            return {name: np.asarray(archive[name]) for name in archive.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        message = (
            f"data must be an .npz file of plain arrays, but {place} cannot be read ({error}); "
            f"save it again with {_SAVE}."
        )
        raise ValueError(message) from error
