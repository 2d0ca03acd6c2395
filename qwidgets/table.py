"""How an `Uncertainty` shows itself: a table in a notebook, text elsewhere, maps, xarray."""

from __future__ import annotations

import base64
import html as markup
import math
import struct
import zlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    import xarray as xr
    from numpy.typing import NDArray

    from qwidgets.moments import Uncertainty

_UNITS = {
    "position_mean": ("input unit", "mean of the position"),
    "position_std": ("input unit", "standard deviation of the position"),
    "momentum_mean": ("1 / input unit", "mean of the momentum"),
    "momentum_std": ("1 / input unit", "standard deviation of the momentum"),
    "product": ("1", "position_std * momentum_std"),
    "covariance": ("1", "covariance of position and momentum, C"),
    "boundary": ("1", "boundary term, B = 1 + 2 C"),
    "bound": ("1", "least possible product, |C|"),
    "total_position_std": ("input unit", "effective radius Dx, over all directions"),
    "total_momentum_std": ("1 / input unit", "effective radius Dp, over all directions"),
    "effective_sample_size": ("1", "evaluations that carry the packet"),
    "self_check": ("1", "an identity not used, in standard errors of one normal variable"),
}
_TOTALS = ("total_position_std", "total_momentum_std")
_COLUMNS = ("position_mean", "position_std", "momentum_std", "product", "bound", "boundary")
_ROWS = 12
# A standard error below this says that nothing but rounding is left.
_EXACT = 1e-12
_PIXEL_DIMENSIONS = {1: ("pixel",), 2: ("row", "column"), 3: ("channel", "row", "column")}
# Viridis (Smith and van der Walt, 2015) at nine places: even steps of it look even, also in grey.
_PALETTE = np.array(
    [
        [68, 1, 84],
        [71, 44, 122],
        [59, 81, 139],
        [44, 113, 142],
        [33, 144, 141],
        [39, 173, 129],
        [92, 200, 99],
        [170, 220, 50],
        [253, 231, 37],
    ],
    dtype=np.float64,
)
_MAP_WIDTH = 140
# Colour and font are the page's own, which not every page hands down to tables.
_TABLE = "color:inherit;font:inherit;font-variant-numeric:tabular-nums;white-space:nowrap"


def text(u: Uncertainty) -> str:
    """Lay out the figures with their standard errors as plain text."""
    rows = [list(row) for row in _rows(u)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    table = ["  ".join(map(str.rjust, row, widths)).rstrip() for row in rows]
    totals = [f"{name} {value}" for name, value in _totals(u)]
    notes = [f"Warning: {reason}" for reason in u.warnings]
    return "\n".join([f"<{_title(u)}>", *totals, *table, *_left_out(u), *notes])


def html(u: Uncertainty) -> str:
    """Lay out the figures with their standard errors as a table, with maps where there are pixels.

    Colours come from the page, so that it reads in light and dark.
    """
    head, *body = _rows(u)
    rule = "border-bottom:1px solid currentColor"
    parts = [
        '<div class="qw-uncertainty">',
        f"<div>{_escaped(_title(u))}</div>",
        *(f"<div>{_escaped(name)} <b>{_escaped(value)}</b></div>" for name, value in _totals(u)),
        '<div style="overflow-x:auto">',
        f'<table style="{_TABLE}">',
        f'<thead><tr style="{rule}">{_cells(head, "th")}</tr></thead>',
        "<tbody>",
        *(f"<tr>{_cells(row, 'td')}</tr>" for row in body),
        "</tbody></table></div>",
        *(f"<div>{note}</div>" for note in _left_out(u)),
        *_maps(u),
        *(f'<div role="note"><b>Warning</b>: {_escaped(reason)}</div>' for reason in u.warnings),
        "</div>",
    ]
    return "".join(parts)


def to_xarray(u: Uncertainty) -> xr.Dataset:
    """Label all figures and their standard errors; see `Uncertainty.to_xarray`."""
    import xarray as xr

    labels = ("label",) if _several(u) else ()
    shape = _pixels(u)
    axes: tuple[str, ...] = ("direction",)
    if shape is not None:
        other = tuple(f"axis_{index}" for index in range(len(shape)))
        axes = _PIXEL_DIMENSIONS.get(len(shape), other)
    variables = {}
    for name, (unit, meaning) in _UNITS.items():
        value = np.asarray(getattr(u, name))
        along = axes if value.ndim > len(labels) else ()
        whole = (*value.shape[: len(labels)], *(shape or value.shape[len(labels) :])) * bool(along)
        whole = whole or value.shape
        attributes = {"units": unit, "long_name": meaning}
        variables[name] = ((*labels, *along), value.reshape(whole), attributes)
        if name in u.standard_error:
            error = np.asarray(u.standard_error[name]).reshape(whole)
            about = {"units": unit, "long_name": f"standard error of {name}"}
            variables[f"{name}_standard_error"] = ((*labels, *along), error, about)
    about_all = {"evaluations": u.evaluations, "warnings": list(u.warnings)}
    return xr.Dataset(variables, attrs=about_all)


def _title(u: Uncertainty) -> str:
    count = u.position_std.shape[-1]
    ones = f"{count} direction{'s' * (count > 1)}"
    labels = f"{len(u.position_std)} labels, " if _several(u) else ""
    effective = _range(np.atleast_1d(u.effective_sample_size), ",.0f")
    check = _range(np.atleast_1d(u.self_check), ".1f")
    return (
        f"Uncertainty: {labels}{ones}, {u.evaluations:,.0f} evaluations, effective sample size "
        f"{effective}, self-check {check}"
    )


def _range(values: NDArray[np.float64], form: str) -> str:
    ends = [format(end, form) for end in (values.min(), values.max())]
    return ends[0] if ends[0] == ends[1] else f"{ends[0]} to {ends[1]}"


def _several(u: Uncertainty) -> bool:
    """Whether it has labels, which then are the rows."""
    return u.product.ndim > 1


def _totals(u: Uncertainty) -> Iterator[tuple[str, str]]:
    for name in () if _several(u) else _TOTALS:
        yield name, with_error(getattr(u, name), float(u.standard_error[name]))


def _shown(u: Uncertainty) -> NDArray[np.int64]:
    """Which directions have a row: all, or those with the largest products."""
    if len(u.product) <= _ROWS:
        return np.arange(len(u.product))
    return np.argsort(-u.product, kind="stable")[:_ROWS]


def _rows(u: Uncertainty) -> Iterator[tuple[str, ...]]:
    if _several(u):
        yield ("label", *_TOTALS)
        for label in range(len(u.product)):
            values = [
                with_error(getattr(u, name)[label], np.asarray(u.standard_error[name])[label])
                for name in _TOTALS
            ]
            yield (str(label), *values)
        return
    yield ("direction", *_COLUMNS)
    for index in _shown(u):
        yield (
            str(index),
            *(
                with_error(
                    getattr(u, name)[index],
                    np.asarray(u.standard_error[name])[index],
                    # A mean that happens to be zero is as exact as the spread around it is wide.
                    scale=u.position_std[index] if name == "position_mean" else 1.0,
                )
                for name in _COLUMNS
            ),
        )


def _left_out(u: Uncertainty) -> list[str]:
    units = "Positions in input units, momenta in 1 / input unit; ± one standard error."
    if _several(u):
        return [f"{units} Every direction: to_xarray()."]
    count = u.product.shape[-1] - len(_shown(u))
    return [*([f"and {count} more, of smaller products"] if count else []), units]


def with_error(value: float, error: float, scale: float = 0.0) -> str:
    """Write a number with its standard error, both to the error's second digit.

    One that is only rounding, of the value or of the scale of such values, says that it is exact.
    """
    if error <= _EXACT * (max(abs(value), scale) or 1.0):
        return f"{0.0 if abs(value) <= _EXACT * scale else value:.9g} (exact)"
    digits = 1 - math.floor(math.log10(error)) if math.isfinite(error) else -1
    if digits < 0:
        return f"{value:.4g} ± {error:.2g}"
    return f"{value:.{digits}f} ± {error:.{digits}f}"


def _pixels(u: Uncertainty) -> tuple[int, ...] | None:
    """Shape of the input, where the directions are its pixels."""
    shape = u.input_shape
    return None if shape is None or u._record.basis is not None else shape  # noqa: SLF001


def _maps(u: Uncertainty) -> Iterator[str]:
    shape = _pixels(u)
    if shape is None or len(shape) not in {2, 3} or _several(u):
        return
    yield '<div style="display:flex;gap:1.5em;margin-top:.5em">'
    for name in ("position_std", "momentum_std"):
        # Colours of a pixel together, as the totals put them together.
        square = getattr(u, name).reshape(-1, *shape[-2:]) ** 2
        values = np.sqrt(square.mean(0))
        low, high = values.min(), values.max()
        yield (
            f'<figure style="margin:0"><img alt="{name} of each pixel" width="{_MAP_WIDTH}" '
            f'style="image-rendering:pixelated" src="data:image/png;base64,{_png(values)}"/>'
            f"<figcaption>{name}<br>{low:.3g} (dark) to {high:.3g} (bright)</figcaption></figure>"
        )
    yield "</div>"


def _png(values: NDArray[np.float64]) -> str:
    """Colour a matrix from its least to its largest value: a PNG in base64."""
    low, high = values.min(), values.max()
    place = (values - low) / (high - low) if high > low else np.zeros_like(values)
    stops = np.linspace(0, 1, len(_PALETTE))
    colour = np.stack([np.interp(place, stops, channel) for channel in _PALETTE.T], -1)
    rows = colour.round().astype(np.uint8).reshape(len(values), -1)
    lines = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", values.shape[1], len(values), 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b""))
    image = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    return base64.b64encode(image).decode()


def _cells(row: tuple[str, ...], tag: str) -> str:
    style = "text-align:right;padding:0 .5em"
    # In a narrow page a cell has its error below its value, and no line of a single sign.
    whole = (_escaped(cell).replace("± ", "±\N{NO-BREAK SPACE}") for cell in row)
    return "".join(f'<{tag} style="{style}">{cell}</{tag}>' for cell in whole)


def _escaped(words: str) -> str:
    return markup.escape(words)
