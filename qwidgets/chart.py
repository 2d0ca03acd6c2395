"""Charts of whatever was measured: curves, dots with error bars, a map; SVG with vector text.

What `figure` does for the panels of the Explorer, for numbers of one's own: notebooks and studies
draw with it.
"""

from __future__ import annotations

import itertools
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from qwidgets import svg
from qwidgets.checks import one_of
from qwidgets.figure import COLUMN, NAMESPACES, Figure
from qwidgets.paper import PALETTES
from qwidgets.views import linear_ticks, log_ticks

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

    from qwidgets.figure import Palette
    from qwidgets.paper import Colors

Style = Literal["line", "dashed", "dots"]
STYLES: tuple[Style, ...] = ("line", "dashed", "dots")

_ASPECT = 0.72
_GUTTER = 4.0
# Okabe and Ito's colours, the strongest first; in the dark their lighter neighbours.
_CYCLE = {
    "light": ("#0072b2", "#d55e00", "#009e73", "#8b949e", "#cc79a7", "#b36b00", "#56b4e9"),
    "dark": ("#56b4e9", "#f0843c", "#2fc79a", "#87919c", "#e29cc3", "#e69f00", "#9ad1f2"),
}
_DASHES = "3 2"
_MARGIN = 0.04
# Colour follows |value| ** 0.6, so that faint negative parts can be seen.
_GAMMA = 0.6
_SHADES = 61
# How a figure begins: what its size on paper is replaced by, where it stands within another.
_OPENING = re.compile('<svg (.*?)width="[^"]*" height="[^"]*" ')


@dataclass(frozen=True)
class Curve:
    """Points of a chart that belong together.

    Parameters
    ----------
    x, y : array_like, shape (n,)
        Where they are; NaN leaves a gap.
    error : array_like, shape (n,), optional
        Standard errors of y: a band around a line, bars at dots.
    style : {"line", "dashed", "dots"}
        How they are drawn.
    color : int, optional
        Place of its colour in the cycle, from 0; by default the next of the cycle.

    Raises
    ------
    ValueError
        Lengths that differ, or an unknown style.
    """

    x: ArrayLike
    y: ArrayLike
    error: ArrayLike | None = None
    style: Style = "line"
    color: int | None = None

    def __post_init__(self) -> None:
        sizes = {name: np.shape(np.atleast_1d(value)) for name, value in self._arrays.items()}
        if len(set(sizes.values())) > 1 or any(len(shape) != 1 for shape in sizes.values()):
            listed = ", ".join(f"{name} {shape}" for name, shape in sizes.items())
            message = f"curve must have vectors of one length, got {listed}; flatten or cut them."
            raise ValueError(message)
        one_of("style", self.style, STYLES)

    @property
    def _arrays(self) -> dict[str, ArrayLike]:
        given = {"x": self.x, "y": self.y}
        return given if self.error is None else {**given, "error": self.error}

    @property
    def points(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Return x, y and error (NaN where there is none), float64."""
        x, y = (np.atleast_1d(np.asarray(v, dtype=np.float64)) for v in (self.x, self.y))
        if self.error is None:
            return x, y, np.full_like(y, np.nan)
        return x, y, np.atleast_1d(np.asarray(self.error, dtype=np.float64))


def chart(
    curves: Mapping[str, Curve | tuple[ArrayLike, ArrayLike]],
    *,
    x: str,
    y: str,
    title: str = "",
    log: Literal["", "x", "y", "xy"] = "",
    x_limits: tuple[float, float] | None = None,
    y_limits: tuple[float, float] | None = None,
    x_names: Sequence[str] = (),
    forbidden_below: tuple[ArrayLike, ArrayLike] | None = None,
    density: tuple[ArrayLike, ArrayLike, ArrayLike] | None = None,
    width: float = COLUMN,
    height: float | None = None,
    font_size: float = 7.0,
    palette: Palette = "light",
) -> Figure:
    """Draw a chart: curves with errors, a bound with what it forbids, a signed density.

    Parameters
    ----------
    curves : mapping of str to Curve or (x, y)
        By the name in the key; a name that begins with an underscore is not in it. A bare pair is a
        line.
    x, y : str
        Titles of the axes, with their units.
    title : str
        Of the chart.
    log : {"", "x", "y", "xy"}
        Which axes are logarithmic; what is not positive is then left out.
    x_limits, y_limits : (float, float), optional
        Ends of an axis; by default what holds all points and errors.
    x_names : sequence of str
        What stands at 0, 1, 2, ... of the axis, in the place of numbers.
    forbidden_below : (x, y), optional
        A bound: a line, and a shade below it.
    density : (x, y, values), optional
        A map under the curves, values of shape ``(len(x), len(y))``: blue where positive, orange
        where negative, as in a Wigner function. Both axes evenly spaced and linear.
    width, height : float
        Size on paper, mm; by default a column of a journal.
    font_size : float
        Size of the type, points.
    palette : {"light", "dark", "print"}
        Colours.

    Returns
    -------
    Figure
        A notebook shows it, ``.save(path)`` writes it.

    Raises
    ------
    ValueError
        Nothing finite to draw, limits without extent, a density of the wrong shape, or an unknown
        palette.

    Examples
    --------
    >>> t = np.linspace(-2, 2, 101)
    >>> figure = chart({"a packet": (t, np.exp(-(t**2)))}, x="t (input units)", y="ψ")
    >>> figure.svg.startswith("<svg")
    True
    """
    drawn = {
        name: curve if isinstance(curve, Curve) else Curve(*curve) for name, curve in curves.items()
    }
    if forbidden_below is not None:
        drawn = {**drawn, "_bound": Curve(*forbidden_below)}
    one_of("palette", palette, PALETTES)
    colors = PALETTES[palette]
    high = width * _ASPECT if height is None else height
    axes = _axes(
        _scale(
            drawn.values(),
            0,
            x,
            log="x" in log,
            limits=(-0.5, len(x_names) - 0.5) if x_names and x_limits is None else x_limits,
            density=density,
            names=x_names,
        ),
        _scale(drawn.values(), 1, y, log="y" in log, limits=y_limits, density=density),
        (width * svg.POINTS_PER_MM, high * svg.POINTS_PER_MM),
        font_size,
        titled=bool(title),
    )
    style = svg.Type(font_size, colors.text, colors.muted, colors.line, colors.grid, font_size / 14)
    under: list[str] = []
    if density is not None:
        under = [_picture(axes, density, colors)]
    if forbidden_below is not None:
        _forbid(axes, drawn.pop("_bound"), colors)
    colored = _CYCLE["dark" if palette == "dark" else "light"]
    cycle = itertools.cycle(
        color
        for color in colored
        # The colour of the bound is the bound's alone.
        if forbidden_below is None or color != colors.bound
    )
    key = []
    for name, curve in drawn.items():
        color = next(cycle) if curve.color is None else colored[curve.color % len(colored)]
        # On a map, which may have any colour, dots stand out by their edge.
        _draw(axes, curve, color, font_size, None if density is None else colors.panel)
        if not name.startswith("_"):
            key.append((_sample(curve.style, color, font_size), name))
    axes.key(key, style, colors.panel)
    words = svg.element(
        "text",
        svg.label(title, font_size + 1),
        x=1.0,
        y=1.4 * font_size,
        font_weight="bold",
        font_size=font_size + 1,
        fill=colors.text,
    )
    parts = [words] * bool(title) + [*axes.frame(style), *under, *axes.parts]
    named = [name for name in drawn if not name.startswith("_")]
    caption = f"{title or y}: {y} against {x}" + (f"; {', '.join(named)}." if named else ".")
    return _sheet(parts, width, high, caption, colors.ground, font_size)


def beside(*figures: Figure, columns: int = 2) -> Figure:
    """Put figures beside and below each other, in rows.

    Parameters
    ----------
    *figures : Figure
        At least one.
    columns : int
        How many stand in a row.

    Returns
    -------
    Figure
        Its caption is theirs, one after the other.
    """
    if not figures:
        message = "figures must be at least one, got none; pass what chart(...) returns."
        raise ValueError(message)
    rows = [figures[first : first + columns] for first in range(0, len(figures), columns)]
    top, parts = 0.0, []
    for row in rows:
        left = 0.0
        for one in row:
            # In points, the unit of the sheet: within it a millimetre would be one of the screen.
            x, y, wide, high = (
                svg.number(svg.POINTS_PER_MM * size) for size in (left, top, one.width, one.height)
            )
            place = f'<svg \\1x="{x}" y="{y}" width="{wide}" height="{high}" '
            parts.append(_OPENING.sub(place, one.svg, count=1))
            left += one.width + _GUTTER
        top += max(one.height for one in row) + _GUTTER
    total = max(sum(one.width + _GUTTER for one in row) for row in rows) - _GUTTER
    caption = " ".join(one.caption for one in figures)
    # Between figures on one ground nothing else may show: on a dark page that is a dark cross.
    ground, *others = {one.ground for one in figures}
    return _sheet(parts, total, top - _GUTTER, caption, None if others else ground, None)


def _sheet(
    parts: Sequence[str],
    width: float,
    height: float,
    caption: str,
    ground: str | None,
    font_size: float | None,
) -> Figure:
    total = width * svg.POINTS_PER_MM, height * svg.POINTS_PER_MM
    back = [] if ground is None else [svg.element("rect", width="100%", height="100%", fill=ground)]
    drawing = svg.element(
        "svg",
        svg.element("title", svg.words(caption)),
        *back,
        svg.element("g", *parts, font_family=svg.FONT, font_size=font_size),
        **NAMESPACES,
        width=f"{svg.number(width)}mm",
        height=f"{svg.number(height)}mm",
        viewBox=f"0 0 {svg.number(total[0])} {svg.number(total[1])}",
        role="img",
    )
    return Figure(svg=drawing, caption=caption, width=width, height=height, ground=ground)


def _axes(
    x: svg.Scale, y: svg.Scale, size: tuple[float, float], font_size: float, *, titled: bool
) -> svg.Axes:
    left, right, bottom = y.beside(font_size) + 1.4 * font_size, 1.2 * font_size, 3.2 * font_size
    top = (2.4 if titled else 0.8) * font_size
    return svg.Axes(left, top, size[0] - left - right, size[1] - top - bottom, x, y)


def _scale(
    curves: Iterable[Curve],
    axis: int,
    title: str,
    *,
    log: bool,
    limits: tuple[float, float] | None,
    density: tuple[ArrayLike, ArrayLike, ArrayLike] | None,
    names: Sequence[str] = (),
) -> svg.Scale:
    values = [np.empty(0)]
    for curve in curves:
        points = curve.points
        values.append(points[axis])
        if axis == 1:
            values += [points[1] - points[2], points[1] + points[2]]
    if density is not None:
        values.append(np.asarray(density[axis], dtype=np.float64))
    every = np.concatenate(values)
    every = every[np.isfinite(every) & ((every > 0) | (not log))]
    if limits is None:
        if not every.size:
            message = (
                "curves must have something to draw, got no finite"
                f"{' positive' * log} number for the axis {title!r}."
            )
            raise ValueError(message)
        low, high = float(every.min()), float(every.max())
        if log:
            room = max((high / low) ** _MARGIN, 1.02)
            low, high = low / room, high * room
        elif density is None:
            room = _MARGIN * (high - low) or _MARGIN * abs(high) or 1.0
            low, high = low - room, high + room
    else:
        low, high = limits
    if not (math.isfinite(low) and math.isfinite(high) and low < high and (low > 0 or not log)):
        message = (
            f"limits of the axis {title!r} must be finite{' and positive' * log}, the first below "
            f"the second, got {low:g} and {high:g}."
        )
        raise ValueError(message)
    short = title.partition(" (")[0]
    if names:
        shown = [place for place in range(len(names)) if low <= place <= high]
        words = [names[place] for place in shown]
        return svg.Scale(low, high, shown, title, short, log=log, names=words)
    ticks = log_ticks(low, high) if log else linear_ticks(low, high)
    return svg.Scale(low, high, ticks, title, short, log=log)


def _draw(axes: svg.Axes, curve: Curve, color: str, font_size: float, edge: str | None) -> None:
    x, y, error = curve.points
    # Beyond an end of an axis there is no place; the axes would put it at the end.
    shown = (x >= axes.x.low) & (x <= axes.x.high) & (y >= axes.y.low) & (y <= axes.y.high)
    x, y = np.where(shown, x, np.nan), np.where(shown, y, np.nan)
    if curve.style == "dots":
        for place in zip(x.tolist(), y.tolist(), error.tolist(), strict=True):
            axes.error_bars(place[0], place[1], math.nan, place[2], color, 0.9)
        axes.dots(x, y, color, 0.3 * font_size, edge)
        return
    if np.isfinite(error).any():
        axes.band(x, y - error, y + error, color)
    axes.line(x, y, color, 1.3, stroke_dasharray=_DASHES if curve.style == "dashed" else None)


def _sample(style: Style, color: str, font_size: float) -> str:
    if style == "dots":
        return svg.element("circle", r=0.3 * font_size, fill=color, fill_opacity=0.75)
    half = 0.8 * font_size
    dashes = _DASHES if style == "dashed" else None
    look = {"fill": "none", "stroke": color, "stroke_width": 1.3, "stroke_dasharray": dashes}
    return svg.element("path", d=svg.path([-half, half], [0, 0]), **look)


def _forbid(axes: svg.Axes, bound: Curve, colors: Colors) -> None:
    x, y, _ = bound.points
    inside = (x >= axes.x.low) & (x <= axes.x.high)
    x, y = x[inside], y[inside]
    low = np.full_like(y, axes.y.low)
    corners = np.concatenate([x, x[::-1]]), np.concatenate([np.maximum(y, low), low])
    axes.area(*corners, colors.bound, colors.forbidden)
    seen = np.where((y >= axes.y.low) & (y <= axes.y.high), y, np.nan)
    axes.line(x, seen, colors.bound, 1.0)


def _picture(
    axes: svg.Axes, density: tuple[ArrayLike, ArrayLike, ArrayLike], colors: Colors
) -> str:
    x, y, values = (np.asarray(part, dtype=np.float64) for part in density)
    if values.shape != (len(x), len(y)):
        message = (
            f"density must have values of shape ({len(x)}, {len(y)}), as its axes, got shape "
            f"{values.shape}; transpose it."
        )
        raise ValueError(message)
    largest = float(np.nanmax(np.abs(values))) or 1.0
    place = np.sign(values) * np.abs(values / largest) ** _GAMMA
    scale = [colors.negative, colors.panel, colors.positive, colors.deep]
    # Nothing is a third of the way through four colours.
    part = np.where(place < 0, (1 + place) / 3, (1 + 2 * place) / 3)
    pixels = svg.blend(scale, part.T[::-1])
    left, bottom = (float(v) for v in axes.at(x[0], y[0]))
    right, top = (float(v) for v in axes.at(x[-1], y[-1]))
    box = {"x": left, "y": top, "width": right - left, "height": bottom - top}
    # By its older name, which every drawing program knows.
    carried = {"preserveAspectRatio": "none", "xlink:href": svg.picture(pixels)}
    return svg.element("image", **box, **carried)
