"""Which choices an Explorer takes: those that what it shows has, before that any sensible one."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import traitlets as tl

from qwidgets.checks import one_of
from qwidgets.widgets.problems import OffTheGridError

if TYPE_CHECKING:
    from collections.abc import Mapping

PANELS = ("plane", "phase_space", "tradeoff", "curves", "robustness", "input_plane", "lens")


def choice(name: str, value: Any, cube: Mapping[str, Any]) -> float | int | str:
    """Return a choice as its trait holds it, or refuse it.

    Parameters
    ----------
    name : str
        The trait: "epsilon", "regularization", "attack_epsilon", "label", "epoch", "model" or
        "image".
    value : float, int or str
        What is to be chosen.
    cube : mapping
        What is shown, as `Shown.cube` gives it; empty while it is nothing.

    Raises
    ------
    OffTheGridError
        What is shown has no such.
    traitlets.TraitError
        Nothing could have such.
    """
    if name == "model":
        return _model(value, cube)
    if name == "image":
        if value < 0:
            message = f"image must be at least 0; got {value}."
            raise tl.TraitError(message)
        return int(value)
    if name in {"label", "epoch"}:
        return _index(name, int(value), cube)
    return _amount(name, float(value), cube)


def _amount(name: str, value: float, cube: Mapping[str, Any]) -> float:
    if cube:
        low, high = min(cube["axes"][name]), max(cube["axes"][name])
        if not low <= value <= high:
            message = f"{name} must be on the trained grid, {low:g} to {high:g}; got {value!r}."
            raise OffTheGridError(message)
    elif not (math.isfinite(value) and value >= 0):
        message = f"{name} must be a finite number of at least 0; got {value!r}."
        raise tl.TraitError(message)
    return value


def _index(name: str, value: int, cube: Mapping[str, Any]) -> int:
    if cube:
        size = len(cube["axes"]["label"]) if name == "label" else cube["finished"]
        if not 0 <= value < size:
            message = f"{name} must be from 0 to {size - 1}; got {value}."
            raise OffTheGridError(message)
    elif value < 0:
        message = f"{name} must be at least 0; got {value}."
        raise tl.TraitError(message)
    return value


def _model(name: str, cube: Mapping[str, Any]) -> str:
    names = cube["axes"]["model"] if cube else [name]
    if name not in names and (name or names):
        known = ", ".join(map(repr, names)) or "none, a grid of networks is shown"
        message = f"model must be one of {known}; got {name!r}."
        raise OffTheGridError(message)
    return name


def checked_panels(names: object) -> list[str]:
    """Return names of panels in the order of the page, each once, or refuse them; None is all.

    Raises
    ------
    TypeError
        They are no sequence of names.
    ValueError
        One is no panel, or there is none.
    """
    if names is None:
        return list(PANELS)
    known = ", ".join(map(repr, PANELS))
    if not isinstance(names, (list, tuple, set, frozenset)):
        message = f"panels must be a list of names, of {known}; got {names!r}."
        raise TypeError(message)
    for name in names:
        one_of("panels", name, PANELS)
    if not names:
        message = f"panels must name at least one panel, of {known}; got {names!r}."
        raise ValueError(message)
    return [name for name in PANELS if name in names]
