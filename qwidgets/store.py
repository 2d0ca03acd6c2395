"""A finished sweep on disk: a folder that appears whole or not at all.

The folder holds ``cube.zarr`` (what was measured), ``weights.safetensors`` (the trained networks,
stacked) and ``manifest.json`` (format, settings, versions, checksums). Nothing in it is executable.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xarray as xr
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

if TYPE_CHECKING:
    import os

    from torch import Tensor

_FORMAT = "qwidgets sweep"
_VERSION = 1


@dataclass(frozen=True, kw_only=True, eq=False)
class Content:
    """What a folder holds.

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
        for name in sorted(self.weights):
            digest.update(f"{name} {tuple(self.weights[name].shape)}".encode())
            digest.update(self.weights[name].numpy().tobytes())
        return digest.hexdigest()


def save(path: str | os.PathLike[str], content: Content) -> None:
    """Write a folder, in the place of one saved before.

    Parameters
    ----------
    path : path
        The folder; its parent must exist.
    content : Content
        What to write.

    Raises
    ------
    FileExistsError
        Something that is not a saved sweep is there.
    OSError
        The place cannot be written.
    """
    path = Path(path).absolute()
    if path.exists() and not _is_ours(path):
        message = (
            f"path must be free or hold a saved sweep, but {path} is something else; "
            "choose another name or remove it."
        )
        raise FileExistsError(message)
    try:
        # A sibling, because only a rename within one file system is atomic.
        workshop = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        whole = workshop / "whole"
        whole.mkdir()
        content.cube.to_zarr(whole / "cube.zarr", zarr_format=3, consolidated=False)
        save_file(content.weights, whole / "weights.safetensors")
        manifest = {
            "format": _FORMAT,
            "version": _VERSION,
            "checksum": content.checksum,
            **content.manifest,
        }
        (whole / "manifest.json").write_text(json.dumps(manifest, indent=2), encoding="utf-8")
        if path.exists():
            path.replace(workshop / "before")
        whole.replace(path)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        shutil.rmtree(workshop, ignore_errors=True)


def load(path: str | os.PathLike[str]) -> Content:
    """Read a folder back, bit for bit.

    Parameters
    ----------
    path : path
        A folder written by `save`.

    Returns
    -------
    Content
        In memory; the folder is not needed any more.

    Raises
    ------
    FileNotFoundError
        Nothing is there, or a part is missing.
    ValueError
        It is not a saved sweep, a newer format, or damaged.
    """
    path = Path(path)
    if not path.exists():
        message = f"path must be a saved sweep, but {path} does not exist; check its name."
        raise FileNotFoundError(message)
    parts = [path / name for name in ("manifest.json", "cube.zarr", "weights.safetensors")]
    missing = [part.name for part in parts if not part.exists()]
    if missing:
        message = (
            f"path must be a saved sweep, but {path} lacks {', '.join(missing)}; "
            "check its name, or save the sweep again."
        )
        raise FileNotFoundError(message)
    manifest = _manifest(path)
    if manifest is None:
        message = f"path must be a saved sweep, but {parts[0]} is none; save the sweep again."
        raise ValueError(message)
    if manifest["version"] > _VERSION:
        message = (
            f"path must be in sweep format {_VERSION} or older, got format {manifest['version']} "
            f"in {path}; update qwidgets."
        )
        raise ValueError(message)
    try:
        with warnings.catch_warnings():
            # A missing array is only warned about, as is a stray file; the checksum tells them
            # apart.
            warnings.simplefilter("ignore", UserWarning)
            cube = xr.open_zarr(parts[1], consolidated=False, chunks=None).load()
        content = Content(cube=cube, weights=load_file(parts[2]), manifest=manifest)
        intact = content.checksum == manifest["checksum"]
    # Whatever zarr, its codecs and xarray raise for damaged bytes: the remedy is the same.
    except (SafetensorError, OSError, ValueError, LookupError, TypeError, RuntimeError) as error:
        raise _damaged(path, str(error)) from error
    if not intact:
        raise _damaged(path, "the content does not match its checksum")
    return content


def _manifest(path: Path) -> dict[str, Any] | None:
    try:
        manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    ours = isinstance(manifest, dict) and manifest.get("format") == _FORMAT
    return manifest if ours and isinstance(manifest.get("version"), int) else None


def _is_ours(path: Path) -> bool:
    return _manifest(path) is not None


def _damaged(path: Path, reason: str) -> ValueError:
    return ValueError(
        f"path must be an intact saved sweep, but {path} is damaged ({reason}); save it again."
    )


def _unwritable(path: Path, error: OSError) -> OSError:
    return type(error)(
        f"path {path} cannot be written ({error.strerror or error}); "
        "choose a folder that exists, that you may write to and that has room."
    )
