"""A file for readers: refused before the work if its place cannot hold it, never half there."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def check_place(path: object, example: str) -> Path:
    """Refuse a path that cannot be the file that is to be written.

    Parameters
    ----------
    path : path
        The file; its folder must exist. A file of that name is allowed: it will be replaced.
    example : str
        A name that would do, for the messages, for example ``"explorer.html"``.

    Returns
    -------
    pathlib.Path

    Raises
    ------
    TypeError
        It is no path.
    OSError
        It names something else than a file, or a folder that is not there.
    """
    if not isinstance(path, (str, os.PathLike)):
        message = (
            f"path must be the name of a file, a str or pathlib.Path such as {example!r};"
            f" got {path!r}."
        )
        raise TypeError(message)
    place = Path(path)
    if place.exists() and not place.is_file():
        kind = "a folder" if place.is_dir() else "no ordinary file"
        error = IsADirectoryError if place.is_dir() else OSError
        message = (
            f"path must name a file, but {place} is {kind}; give a file's name such as"
            f" {place / example if place.is_dir() else example}."
        )
        raise error(message)
    if not place.parent.is_dir():
        message = (
            f"path must be in a folder that exists, but {place.parent} is none; create it, or"
            f" choose another place than {place}."
        )
        raise FileNotFoundError(message)
    return place


def write_whole(path: Path, text: str) -> None:
    """Write a text as UTF-8 so that at every moment the file is the old one or the new one.

    Raises
    ------
    OSError
        It cannot be written; what was there before is still there.
    """
    target = path.resolve()
    # A sibling, because only a rename within one file system is atomic; a short name, because
    # that of the file may be as long as names can be.
    temporary = target.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        try:
            temporary.write_text(text, "utf-8")
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        message = (
            f"path {path} cannot be written ({error.strerror or error}); choose a folder that you"
            " may write to and that has room."
        )
        raise type(error)(message) from error
