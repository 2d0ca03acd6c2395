"""Checks of arguments: what each refuses is named, with the remedy."""

from __future__ import annotations

import difflib
import math
import operator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

# Lengths are squared, and the squares multiplied by some: beyond, that is no normal float64.
_LEAST, _MOST = 1e-150, 1e150


def one_of(name: str, value: object, options: Iterable[str], remedy: str = "") -> None:
    """Refuse what is none of the options, with the one that may have been meant."""
    known = list(options)
    if value in known:
        return
    near = difflib.get_close_matches(str(value), known, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    message = f"{name} must be one of {', '.join(map(repr, known))}, got {value!r}{hint}"
    raise ValueError(f"{message}; {remedy}." if remedy else f"{message}.")


def number(value: object, name: str, meaning: str) -> float:
    """Return the number, of whatever library it is, as Python's."""
    try:
        math.isfinite(value)  # type: ignore[arg-type]  # refuses text, which float() would read
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        message = f"{name} must be one number, {meaning}, got {value!r}; give a number."
        raise TypeError(message) from error


def positive(value: object, name: str, meaning: str) -> float:
    """Return the number, refusing what is not positive and finite, or has no square that is."""
    found = number(value, name, meaning)
    if not _LEAST <= found <= _MOST:
        within = f" and in {_LEAST:g}..{_MOST:g}" if 0 < found < math.inf else ""
        message = f"{name} must be positive and finite{within}, got {found:g}; it is {meaning}."
        raise ValueError(message)
    return found


def interval(ends: object, name: str, *, bounded: bool = True) -> tuple[float, float]:
    """Return the two ends, refusing what is no interval, or has no finite ends if it should."""
    try:
        low, high = (number(end, name, "an end") for end in ends)  # type: ignore[attr-defined]
    except (TypeError, ValueError) as error:
        message = f"{name} must be two numbers (low, high), got {ends!r}; write {name}=(0, 1)."
        raise TypeError(message) from error
    if not low < high or (bounded and math.inf in (-low, high)):
        message = (
            f"{name} must be two {'finite ' * bounded}numbers (low, high) with low < high, got "
            f"({low}, {high}); pass the range that inputs may take."
        )
        raise ValueError(message)
    return low, high


def whole(value: object, name: str, fewest: int, reason: str) -> int:
    """Return the integer, refusing what is smaller than the fewest."""
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError as error:
        message = f"{name} must be an integer, got {value!r}; give at least {fewest}."
        raise TypeError(message) from error
    if number < fewest:
        message = f"{name} must be at least {fewest}, got {number}; {reason}."
        raise ValueError(message)
    return number


def random_seed(value: object) -> int:
    """Return the seed, refusing what a generator of random numbers does not take."""
    seed = whole(value, "seed", 0, "it starts the random numbers")
    if seed >= 1 << 63:
        message = f"seed must be below 2^63, got {seed}; take a smaller one."
        raise ValueError(message)
    return seed
