"""A sweep on disk: a folder that holds its last state, or the one before, at every moment.

The folder holds ``manifest.json`` (format, settings, versions, checksum, and which content is
valid) and one ``content-<number>`` with ``cube.zarr`` (what was measured) and
``weights.safetensors`` (the trained networks, stacked). While the sweep is unfinished it also holds
``parts``, one file for each checkpoint of a batch. Nothing in it is executable.

Everything is written beside what it replaces, forced to the disk, and made valid by one rename:
content by that of the manifest, a part by its own. What a killed process leaves behind is cleaned
away by the next one that writes. Only one process writes at a time (`locked`); reading needs no
lock.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import socket
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filelock
import xarray as xr
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from safetensors.torch import save as serialised

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor

_FORMAT = "qwidgets sweep"
_VERSION = 2
_MANIFEST = "manifest.json"
_LOCK = ".lock"
_PARTS = "parts"
_SUFFIX = ".safetensors"
_NEW = ".new"
# What a process that was killed before it wrote a manifest can have left behind.
_OURS = re.compile(rf"{re.escape(_LOCK)}|{_PARTS}|content-\d+|{re.escape(_MANIFEST + _NEW)}")
# What file managers put into a folder that is only looked at.
_STRAY = {".DS_Store", "Thumbs.db", "desktop.ini"}
# What a manifest says, and as what; a person may have edited it.
_SAID: dict[str, tuple[type, ...]] = {
    "version": (int,),
    "content": (int,),
    "settings": (dict,),
    "data_checksum": (str,),
    "untrained_loss": (float, int),
    "versions": (dict,),
    "checksum": (str, type(None)),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Content:
    """What can be read from a folder.

    Attributes
    ----------
    cube : xarray.Dataset
        What was measured.
    weights : dict of str to Tensor, shape (N, ...)
        Parameters of the networks.
    manifest : dict
        Anything else, as JSON takes it.
    """

    cube: xr.Dataset
    weights: dict[str, Tensor]
    manifest: dict[str, Any]

    @property
    def checksum(self) -> str:
        """SHA-256 of cube (with its attributes) and weights, in hexadecimal."""
        digest = hashlib.sha256(json.dumps(self.cube.attrs, sort_keys=True).encode())
        for name in sorted(map(str, self.cube.variables)):
            variable = self.cube[name]
            layout = variable.dims, variable.shape, str(variable.dtype), variable.attrs
            digest.update(json.dumps([name, *layout], sort_keys=True).encode())
            digest.update(variable.values.tobytes())
        digest.update(_tensor_checksum(self.weights).encode())
        return digest.hexdigest()


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """A checkpoint of one batch.

    Attributes
    ----------
    tensors : dict of str to Tensor
        Its numbers.
    facts : dict of str to str
        All else.
    """

    tensors: dict[str, Tensor]
    facts: dict[str, str]


@contextmanager
def locked(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Keep a folder to oneself, to write in it.

    Parameters
    ----------
    path : path
        The folder. It is made if it does not exist; its parent must.

    Yields
    ------
    pathlib.Path
        The folder, absolute.

    Raises
    ------
    FileExistsError
        Something that is not a saved sweep is there.
    FileNotFoundError, ValueError
        A saved sweep is there, but its manifest is missing, or damaged or in a newer format.
    BlockingIOError
        Another process (or another thread of this one) is writing in it.
    OSError
        The place cannot be written.
    """
    path = Path(path).absolute()
    _refuse_foreign(path)
    lock = filelock.FileLock(path / _LOCK, thread_local=False)
    made = not path.exists()
    try:
        path.mkdir(exist_ok=True)
        lock.acquire(blocking=False)
    except filelock.Timeout as error:
        raise _in_use(path) from error
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        with suppress(OSError):  # a courtesy to whoever is refused
            (path / _LOCK).write_text(f"process {os.getpid()} on {socket.gethostname()}", "utf-8")
        yield path
    finally:
        with suppress(OSError, ValueError):
            if made and manifest(path) is None and not _content(path):
                shutil.rmtree(path, ignore_errors=True)
        lock.release()


def publish(path: Path, facts: Mapping[str, Any], content: Content | None = None) -> None:
    """Make content valid, in the place of what was there; parts stay as they are.

    Parameters
    ----------
    path : pathlib.Path
        A folder that is `locked`.
    facts : mapping
        For the manifest, as JSON takes it.
    content : Content, optional
        None begins a folder that has none yet.

    Raises
    ------
    OSError
        The place cannot be written; what was valid before still is.
    """
    try:
        before = manifest(path)
        if before is None:
            # Tells what is left of a first writing that was killed from a manifest that was lost.
            (path / (_MANIFEST + _NEW)).touch()
        number = 0 if before is None else before["content"] + 1
        checksum = None if content is None else _write_content(path / f"content-{number}", content)
        described = {"format": _FORMAT, "version": _VERSION, "content": number, **facts}
        text = json.dumps({**described, "checksum": checksum}, indent=2)
        _replace(path / _MANIFEST, text.encode())
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        remove_old(path)


def remove_old(path: Path) -> None:
    """Remove content that is not valid: all but one, or what a writer that was killed has left.

    Parameters
    ----------
    path : pathlib.Path
        A folder that is `locked`.
    """
    # What is valid stays, and all of it if that cannot be told.
    with suppress(OSError, ValueError):
        valid = manifest(path)
        for folder in path.glob("content-*"):
            if valid is None or folder.name != f"content-{valid['content']}":
                shutil.rmtree(folder, ignore_errors=True)


def _write_content(folder: Path, content: Content) -> str:
    """Write to a new folder, on to the disk, and return the checksum."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    content.cube.to_zarr(folder / "cube.zarr", zarr_format=3, consolidated=False)
    (folder / "weights.safetensors").write_bytes(serialised(content.weights))
    with ThreadPoolExecutor(16) as pool:  # a disk waits once for many
        list(pool.map(_force, (*folder.rglob("*"), folder, folder.parent)))
    return content.checksum


def write_part(path: Path, batch: int, epoch: int, part: Part) -> None:
    """Add the checkpoint of a batch after an epoch.

    Parameters
    ----------
    path : pathlib.Path
        A folder that is `locked`.
    batch, epoch : int
        Of what.
    part : Part
        What to write.

    Raises
    ------
    OSError
        The place cannot be written; nothing has changed then.
    """
    facts = {**part.facts, "checksum": _tensor_checksum(part.tensors)}
    try:
        if not (path / _PARTS).is_dir():
            (path / _PARTS).mkdir()
            _force(path)
        _replace(path / _PARTS / f"{batch}-{epoch}{_SUFFIX}", serialised(part.tensors, facts))
    except OSError as error:
        raise _unwritable(path, error) from error


def read_parts(path: Path) -> dict[tuple[int, int], Part]:
    """Read all checkpoints, by batch and epoch.

    Raises
    ------
    ValueError
        One is damaged; it is named.
    """
    parts = {}
    for place, file in _part_files(path).items():
        try:
            with safe_open(file, "pt") as opened:
                facts = dict(opened.metadata() or {})
            tensors = load_file(file)
        except (SafetensorError, OSError, ValueError) as error:
            raise _damaged_part(file, str(error)) from error
        if facts.pop("checksum", None) != _tensor_checksum(tensors):
            raise _damaged_part(file, "the content does not match its checksum")
        parts[place] = Part(tensors=tensors, facts=facts)
    return parts


def remove_parts(path: Path, epoch: int | None) -> None:
    """Remove the checkpoints that are not needed once an epoch of all batches is published.

    Parameters
    ----------
    path : pathlib.Path
        A folder that is `locked`.
    epoch : int or None
        Those up to this epoch go, but the newest of every batch; None: all.
    """
    if epoch is None:
        shutil.rmtree(path / _PARTS, ignore_errors=True)
        return
    files = _part_files(path)
    newest = dict(sorted(files))
    for batch, reached in files:
        if reached <= epoch and reached < newest[batch]:
            files[batch, reached].unlink(missing_ok=True)


def _part_files(path: Path) -> dict[tuple[int, int], Path]:
    found = {}
    for file in (path / _PARTS).glob(f"*{_SUFFIX}"):
        batch, _, epoch = file.stem.partition("-")
        found[int(batch), int(epoch)] = file
    return found


def manifest(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """Read the manifest of a folder: its facts, and the format; None where there is none.

    Raises
    ------
    OSError
        It cannot be read.
    ValueError
        It is in a newer format, or lacks something.
    """
    file = Path(path) / _MANIFEST
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    if not isinstance(found, dict) or found.get("format") != _FORMAT:
        return None
    version = found.get("version")
    if isinstance(version, int) and version > _VERSION:
        message = (
            f"path must be in sweep format {_VERSION} or older, got format {version} "
            f"in {path}; update qwidgets."
        )
        raise ValueError(message)
    if version == 1:
        return None  # no release wrote it; it had its content in the folder itself
    wrong = [name for name, kinds in _SAID.items() if type(found.get(name, ...)) not in kinds]
    if wrong:
        raise ValueError(_lost(path, f"has no valid {' and no valid '.join(wrong)}"))
    return found


def load(path: str | os.PathLike[str]) -> Content:
    """Read a folder back, bit for bit, perhaps while another process writes in it.

    Parameters
    ----------
    path : path
        A folder written by `publish`.

    Returns
    -------
    Content
        In memory; the folder is not needed any more.

    Raises
    ------
    FileNotFoundError
        Nothing is there, or a part is missing.
    ValueError
        It is not a saved sweep, a newer format, without content yet, or damaged.
    """
    path = Path(path)
    while True:
        found = manifest(path)
        try:
            return _load(path, found)
        except (ValueError, FileNotFoundError):
            # Replaced meanwhile, by a process that writes in it?
            if manifest(path) == found:
                raise


def _load(path: Path, found: dict[str, Any] | None) -> Content:
    if not path.exists():
        message = f"path must be a saved sweep, but {path} does not exist; check its name."
        raise FileNotFoundError(message)
    if found is None:
        _refuse_lost(path)
        text = "is none" if (path / _MANIFEST).exists() else "is missing"
        message = (
            f"path must be a saved sweep, but {path / _MANIFEST} {text}; "
            "check its name, or save the sweep again."
        )
        raise (ValueError if (path / _MANIFEST).exists() else FileNotFoundError)(message)
    if found["checksum"] is None:
        message = (
            f"path must hold at least one finished epoch, but {path} has none yet; "
            "call sweep with store=path to go on."
        )
        raise ValueError(message)
    folder = path / f"content-{found['content']}"
    for file in (folder / "cube.zarr", folder / "weights.safetensors"):
        if not file.exists():
            message = (
                f"path must be a saved sweep, but {path} lacks {file.relative_to(path)}; "
                "save the sweep again."
            )
            raise FileNotFoundError(message)
    try:
        with warnings.catch_warnings():
            # A missing array is only warned about, as is a stray file; the checksum tells them
            # apart.
            warnings.simplefilter("ignore", UserWarning)
            cube = xr.open_zarr(folder / "cube.zarr", consolidated=False, chunks=None).load()
        weights = load_file(folder / "weights.safetensors")
        content = Content(cube=cube, weights=weights, manifest=found)
        intact = content.checksum == found["checksum"]
    # Whatever zarr, its codecs and xarray raise for damaged bytes: the remedy is the same.
    except (SafetensorError, OSError, ValueError, LookupError, TypeError, RuntimeError) as error:
        raise _damaged(path, str(error)) from error
    if not intact:
        raise _damaged(path, "the content does not match its checksum")
    return content


def _tensor_checksum(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(f"{name} {tuple(tensors[name].shape)} {tensors[name].dtype}".encode())
        digest.update(tensors[name].contiguous().numpy().tobytes())
    return digest.hexdigest()


def _replace(file: Path, data: bytes) -> None:
    """Put a file in place of another in one step that survives a crash of the machine."""
    new = file.with_name(file.name + _NEW)
    try:
        new.write_bytes(data)
        _force(new)
        new.replace(file)
        _force(file.parent)
    except BaseException:
        new.unlink(missing_ok=True)
        raise


def _force(path: Path) -> None:
    """Wait until a file, or the entries of a folder, are on the disk."""
    if path.is_dir() and os.name == "nt":
        return  # Windows opens no folders
    descriptor = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _refuse_foreign(path: Path) -> None:
    if path.exists() and manifest(path) is None:
        _refuse_lost(path)
        names = {entry.name for entry in path.iterdir()} if path.is_dir() else {path.name}
        if not path.is_dir() or not all(map(_OURS.fullmatch, names - _STRAY)):
            message = (
                f"folder must be free or hold a saved sweep, but {path} is something else; "
                "choose another name or remove it."
            )
            raise FileExistsError(message)


def _content(path: Path) -> bool:
    """Tell whether a folder holds content or checkpoints, valid or not."""
    folders = (*path.glob("content-*"), path / _PARTS)
    return any(file.is_file() for folder in folders for file in folder.rglob("*"))


def _refuse_lost(path: Path) -> None:
    """Refuse a folder without a valid manifest that has had one: what it held is still there."""
    if not _content(path):
        return
    if (path / _MANIFEST).exists():
        raise ValueError(_lost(path, "is damaged"))
    if not (path / (_MANIFEST + _NEW)).exists():
        raise FileNotFoundError(_lost(path, "is missing"))


def _lost(path: str | os.PathLike[str], what: str) -> str:
    return (
        f"path must be a saved sweep, but {Path(path) / _MANIFEST} {what}; restore it from a "
        "backup, or choose another folder: what is in this one stays untouched."
    )


def _in_use(path: Path) -> BlockingIOError:
    try:
        holder = (path / _LOCK).read_text(encoding="utf-8") or "another process"
    except OSError:
        holder = "another process"
    return BlockingIOError(
        f"folder must not be in use, but {holder} is writing to {path}; "
        "wait until it has ended, or choose another."
    )


def _damaged(path: Path, reason: str) -> ValueError:
    return ValueError(
        f"path must be an intact saved sweep, but {path} is damaged ({reason}); save it again."
    )


def _damaged_part(file: Path, reason: str) -> ValueError:
    return ValueError(
        f"folder must hold intact checkpoints, but {file} is damaged ({reason}); remove that file: "
        "its networks are then trained again, with the same result."
    )


def _unwritable(path: Path, error: OSError) -> OSError:
    message = (
        f"folder {path} cannot be written ({error.strerror or error}); "
        "choose one that exists, that you may write to and that has room."
    )
    if os.access(path / _MANIFEST, os.F_OK):  # nobody has removed it meanwhile
        message += " What was saved there before is intact."
    told = type(error)(message)
    told.errno = error.errno
    return told
