"""Directions to measure along, other than the input axes: orthonormal rows.

The uncertainty along a few meaningful directions says more than a table of pixels: the attack on an
image, the principal components of the data, the way from one class to another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from qwidgets.checks import whole
from qwidgets.domain import finite, loss_and_gradient

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray
    from torch import Tensor

    from qwidgets.domain import Loss

# Float32 directions are orthonormal to about 1e-7 times a root of the dimension.
_ORTHONORMAL = 1e-5
# A direction that keeps less than this of its length beside the others is one of them, to rounding.
_DEPENDENT = 1e-7


def principal_directions(inputs: ArrayLike | Tensor, count: int) -> NDArray[np.float64]:
    """Principal components of inputs: the directions in which they differ most.

    Parameters
    ----------
    inputs : array_like, shape (n, *input_shape)
        Input units.
    count : int
        How many components.

    Returns
    -------
    ndarray, shape (count, d), float64
        Orthonormal rows, by falling variance; of each the largest component is positive.

    Raises
    ------
    ValueError
        If the inputs are not finite or vary along fewer directions.
    """
    points = _points(inputs, "inputs")
    count = whole(count, "count", 1, "it is the number of directions")
    _, size, rows = torch.linalg.svd(points - points.mean(0), full_matrices=False)
    rank = int((size > _DEPENDENT * size[0]).sum()) if len(size) and size[0] > 0 else 0
    if count > rank:
        message = (
            f"count must be at most {rank}, the number of directions in which the {len(points)} "
            f"inputs vary, got {count}; ask for fewer, or give more inputs."
        )
        raise ValueError(message)
    return _signed(rows[:count])


def class_directions(
    inputs: ArrayLike | Tensor, labels: ArrayLike | Tensor, *, origin: int
) -> NDArray[np.float64]:
    """Directions from the mean of one class to the means of the others, orthonormalised.

    Parameters
    ----------
    inputs : array_like, shape (n, *input_shape)
        Input units.
    labels : array_like of int, shape (n,)
        Class of each input.
    origin : int
        The class to start from.

    Returns
    -------
    ndarray, shape (classes - 1, d), float64
        Orthonormal rows (Gram-Schmidt in the order of the labels): the first points to the first
        other class, each later one to its class as far as the earlier ones do not.

    Raises
    ------
    ValueError
        If the shapes do not match, the class does not occur or is the only one, or the mean of a
        class lies in the span of the others.
    """
    points, classes = _points(inputs, "inputs"), finite(labels, "labels")
    if classes.shape != points.shape[:1]:
        message = (
            f"labels must be one for each of the {len(points)} inputs, shape ({len(points)},), got "
            f"shape {tuple(classes.shape)}; give the labels of these inputs."
        )
        raise ValueError(message)
    names = classes.unique()
    if origin not in names or len(names) == 1:
        message = (
            "origin must be one of at least two classes in labels, got "
            f"{origin!r} with labels {[int(name) for name in names]}; choose one of them."
        )
        raise ValueError(message)
    start = points[classes == origin].mean(0)
    others = [int(name) for name in names if name != origin]
    steps = torch.stack([points[classes == name].mean(0) - start for name in others])
    return _gram_schmidt(steps, [f"the way from class {origin} to class {name}" for name in others])


def attack_directions(loss: Loss, points: ArrayLike | Tensor) -> NDArray[np.float64]:
    """Directions of steepest ascent of a loss at points, orthonormalised: those of the attack.

    Parameters
    ----------
    loss : callable
        ``loss((n, d) tensor) -> (n,) tensor``, differentiable by autograd.
    points : array_like, shape (n, *input_shape) or (d,)
        Input units.

    Returns
    -------
    ndarray, shape (n, d), float64
        Orthonormal rows (Gram-Schmidt in the order of the points); the first is ``grad l / |grad
        l|`` at the first point.

    Raises
    ------
    ValueError
        If a gradient is zero or lies in the span of those before.
    """
    x = finite(points, "points")
    x = x[None] if x.ndim == 1 else _points(x, "points")
    gradient = loss_and_gradient(loss, x)[1]
    return _gram_schmidt(gradient, [f"the gradient at point {index}" for index in range(len(x))])


def orthonormal(directions: ArrayLike | Tensor, dimension: int) -> Tensor:
    """Return directions as float64 rows (k, d), refusing what is not orthonormal."""
    basis = finite(directions, "directions")
    basis = basis[None] if basis.ndim == 1 else basis
    if basis.ndim != 2 or basis.shape[1] != dimension or not len(basis):  # noqa: PLR2004
        message = (
            f"directions must be rows of the domain's dimension, shape (k, {dimension}), got shape "
            f"{tuple(basis.shape)}; flatten each direction with .reshape(-1)."
        )
        raise ValueError(message)
    product = basis @ basis.T
    miss = (product - torch.eye(len(basis), dtype=basis.dtype)).abs()
    if miss.max() > _ORTHONORMAL:
        row, column = divmod(int(miss.argmax()), len(basis))
        got = (
            f"length {product[row, row].sqrt():g} of direction {row}"
            if row == column
            else f"inner product {product[row, column]:g} of directions {row} and {column}"
        )
        message = (
            f"directions must be orthonormal, got {got}; orthonormalise the rows with "
            "np.linalg.qr(directions.T)[0].T."
        )
        raise ValueError(message)
    return basis


def _points(values: ArrayLike | Tensor, name: str) -> Tensor:
    points = finite(values, name)
    if points.ndim < 2 or points.numel() == 0:  # noqa: PLR2004
        message = (
            f"{name} must be at least one point, shape (n, d), got shape {tuple(points.shape)}; "
            "stack the points along a first axis."
        )
        raise ValueError(message)
    return points.flatten(1)


def _gram_schmidt(vectors: Tensor, names: list[str]) -> NDArray[np.float64]:
    rows: list[Tensor] = []
    for vector, name in zip(vectors, names, strict=True):
        rest = vector
        for _ in range(2):  # once more for what rounding leaves
            for row in rows:
                rest = rest - (row @ rest) * row
        if rest.norm() <= _DEPENDENT * vector.norm():
            why = "lies in the span of those before" if vector.any() else "is zero"
            message = f"directions must be independent, but {name} {why}; leave it out."
            raise ValueError(message)
        rows.append(rest / rest.norm())
    return torch.stack(rows).numpy()


def _signed(rows: Tensor) -> NDArray[np.float64]:
    # The sign of a component is arbitrary; this makes it the same everywhere.
    largest = rows.gather(1, rows.abs().argmax(1, keepdim=True))
    return (rows * largest.sign()).numpy()
