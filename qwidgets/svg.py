"""A small writer of SVG: elements, axes with vector text, and pixel pictures. NumPy only.

User units are points (1/72 inch), so that sizes of type and lines are those of print. Nothing has
an id and nothing is clipped: figures can stand beside each other in one page, and every line is a
plain path in a drawing program.
"""

from __future__ import annotations

import base64
import math
import re
import struct
import zlib
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, Literal, NamedTuple
from xml.sax.saxutils import escape, quoteattr

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import ArrayLike, NDArray

POINTS_PER_MM = 72 / 25.4
# Helvetica's, or what is most like it where there is none.
FONT = "Helvetica, Arial, 'Liberation Sans', 'DejaVu Sans', sans-serif"
_GREEK_WITH_INDEX = re.compile(r"([σΔε])([xp])")
# Mean width of a letter in the widest type of the list, in its size; for room, never for position.
_LETTER = 0.6
# Of what stands at the ticks of an upright axis from it, in type sizes.
_FROM_AXIS = 0.45
# Where a key may stand, in parts of the free room.
_PLACES = (0.0, 0.25, 0.5, 0.75, 1.0)
# What XML cannot hold, not even escaped.
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def number(value: float) -> str:
    """Write a coordinate to a hundredth of a point."""
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def words(text: str) -> str:
    """Make any text the content of an element; what XML has no place for shows as U+FFFD."""
    return escape(_NO_XML.sub("\ufffd", text))


def element(tag: str, *children: str, **attributes: object) -> str:
    """Write an element; underscores in names of attributes are hyphens, None leaves one out."""
    parts = [tag]
    for name, value in attributes.items():
        if value is not None:
            written = number(value) if isinstance(value, float) else str(value)
            parts.append(f"{name.rstrip('_').replace('_', '-')}={quoteattr(written)}")
    opening = " ".join(parts)
    return f"<{opening}>{''.join(children)}</{tag}>" if children else f"<{opening}/>"


def label(text: str, size: float) -> str:
    """Write text with the field's signs: a Greek letter in italics, its index below the line."""
    drop = 0.22 * size
    parts, last, lift = [], 0, ""

    def write(part: str, style: str = "") -> None:
        nonlocal lift
        if part:
            parts.append(
                f"<tspan{lift}{style}>{words(part)}</tspan>" if lift or style else words(part)
            )
            lift = ""

    for match in _GREEK_WITH_INDEX.finditer(text):
        greek, index = match.groups()
        write(text[last : match.start()])
        write(greek, "" if greek == "Δ" else ' font-style="italic"')
        write(index, f' dy="{number(drop)}" font-size="{number(0.75 * size)}"')
        lift, last = f' dy="{number(-drop)}"', match.end()
    write(text[last:])
    return "".join(parts)


def room(text: str, size: float) -> float:
    """Width that a text may take."""
    return _LETTER * size * len(text)


def path(x: ArrayLike, y: ArrayLike) -> str:
    """Path through points; it breaks where one of them is undefined."""
    steps, pen = [], "M"
    for px, py in zip(np.atleast_1d(x), np.atleast_1d(y), strict=True):
        if not (math.isfinite(px) and math.isfinite(py)):
            pen = "M"
            continue
        steps.append(f"{pen}{number(px)} {number(py)}")
        pen = "L"
    return "".join(steps)


def picture(colors: NDArray[np.uint8]) -> str:
    """Write pixels as an address that carries them, a PNG.

    Parameters
    ----------
    colors : ndarray of uint8, shape (rows, columns, 3)
        Red, green and blue, from the top.
    """
    rows, columns, _ = colors.shape

    def chunk(kind: bytes, data: bytes) -> bytes:
        checked = kind + data
        return struct.pack(">I", len(data)) + checked + struct.pack(">I", zlib.crc32(checked))

    # Each line begins with its filter: differences to the line above, which are small.
    lines = np.diff(colors, axis=0, prepend=np.zeros((1, columns, 3), np.uint8))
    filtered = np.pad(lines.reshape(rows, -1), ((0, 0), (1, 0)), constant_values=2)
    # At zlib's usual level: the highest takes nine times as long, for a file 7 % smaller.
    content = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", columns, rows, 8, 2, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(filtered.tobytes()))
        + chunk(b"IEND", b"")
    )
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


class Mark(NamedTuple):
    """A circle or a square around a point; ``size`` is half its width."""

    x: float
    y: float
    kind: Literal["circle", "square"]
    size: float
    fill: str
    stroke: str

    @property
    def element(self) -> str:
        """The mark drawn."""
        x, y, kind, size, fill, stroke = self
        style = {"fill": fill, "stroke": stroke, "stroke_width": 1.2}
        if kind == "circle":
            return element("circle", cx=x, cy=y, r=size, **style)
        side = 2.0 * size
        return element("rect", x=x - size, y=y - size, width=side, height=side, **style)


@dataclass(frozen=True)
class Scale:
    """An axis: its ends, its ticks, its words, and shorter ones where these have no room.

    Ticks are written as numbers, or as their names where there are any.
    """

    low: float
    high: float
    ticks: Sequence[float]
    title: str
    short: str
    log: bool = False
    names: Sequence[str] = ()

    @property
    def labels(self) -> list[str]:
        """What stands at the ticks."""
        return list(self.names) or [tick_label(tick) for tick in self.ticks]

    def words(self, length: float, size: float) -> str:
        """Return the title that fits beside an axis of this length."""
        return self.title if room(self.title, size) <= length else self.short

    def beside(self, size: float) -> float:
        """Distance of the title from an upright axis: beyond what stands at its ticks."""
        longest = max((room(text, size) for text in self.labels), default=0.0)
        return max(3.4 * size, _FROM_AXIS * size + longest + 0.35 * size)

    def part(self, values: ArrayLike) -> NDArray[np.float64]:
        """Part of the axis at which values stand: 0 at its low end, 1 at its high end."""
        numbers, ends = np.asarray(values, np.float64), np.array([self.low, self.high])
        if self.log:
            # What is not positive has no place on this axis.
            numbers = np.log(np.where(numbers > 0, numbers, math.nan))
            ends = np.log(ends)
        return np.asarray((numbers - ends[0]) / (ends[1] - ends[0]))


@dataclass(frozen=True)
class Type:
    """Sizes and colours of what frames the data."""

    size: float
    text: str
    muted: str
    line: str
    grid: str
    stroke: float


@dataclass
class Axes:
    """A plot area with two axes, and what is drawn in it so far.

    Attributes
    ----------
    left, top, width, height : float
        The plot area, points.
    x, y : Scale
        What it shows.
    parts : list of str
        The elements drawn, in their order.
    """

    left: float
    top: float
    width: float
    height: float
    x: Scale
    y: Scale
    parts: list[str] = field(default_factory=list)
    _taken: list[NDArray[np.float64]] = field(default_factory=list)

    def at(self, x: ArrayLike, y: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Points of the page at which numbers stand; a number beyond an end stands at it."""
        across, up = (np.clip(scale.part(v), 0, 1) for scale, v in ((self.x, x), (self.y, y)))
        return self.left + across * self.width, self.top + (1 - up) * self.height

    def line(self, x: ArrayLike, y: ArrayLike, color: str, width: float, **style: object) -> None:
        """Draw a line through points."""
        px, py = self.at(x, y)
        d = path(px, py)
        if not d:
            return
        self._take(*_along(px, py), 1)
        style = {"fill": "none", "stroke": color, "stroke_width": width, **style}
        self.parts.append(element("path", d=d, stroke_linejoin="round", **style))

    def area(self, x: ArrayLike, y: ArrayLike, color: str, opacity: float) -> None:
        """Fill the polygon of these corners."""
        px, py = self.at(x, y)
        self.parts.append(
            element("path", d=f"{path(px, py)}Z", fill=color, fill_opacity=opacity, stroke="none")
        )

    def band(self, x: ArrayLike, low: ArrayLike, high: ArrayLike, color: str) -> None:
        """Fill between two lines, where both are defined."""
        x, low, high = (np.asarray(values, np.float64) for values in (x, low, high))
        defined = np.isfinite(low) & np.isfinite(high)
        for run in _runs(defined):
            corners = np.concatenate([x[run], x[run][::-1]])
            self.area(corners, np.concatenate([low[run], high[run][::-1]]), color, 0.2)

    def dots(
        self,
        x: ArrayLike,
        y: ArrayLike,
        colors: str | Iterable[str],
        radius: float,
        edge: str | None = None,
    ) -> None:
        """Draw a small filled dot at each point that is defined, over a picture with an edge."""
        style: dict[str, object] = {"fill_opacity": 0.75}
        if edge is not None:
            style = {"stroke": edge, "stroke_width": radius / 3}
        px, py = self.at(x, y)
        each = [colors] * px.size if isinstance(colors, str) else colors
        self.parts.extend(
            element("circle", cx=cx, cy=cy, r=radius, fill=color, **style)
            for cx, cy, color in zip(px.tolist(), py.tolist(), each, strict=True)
            if math.isfinite(cx) and math.isfinite(cy)
        )
        self._take(px, py, 5)

    def mark(self, mark: Mark) -> None:
        """Draw one mark where its numbers say, if they are defined."""
        px, py = (float(v) for v in self.at(mark.x, mark.y))
        if not (math.isfinite(px) and math.isfinite(py)):
            return
        self.parts.append(mark._replace(x=px, y=py).element)
        self._take(np.array(px), np.array(py), 100)

    def error_bars(
        self, x: float, y: float, dx: float, dy: float, color: str, width: float
    ) -> None:
        """Draw a cross of one standard error to either side."""
        for xs, ys, error in (([x - dx, x + dx], [y, y], dx), ([x, x], [y - dy, y + dy], dy)):
            if math.isfinite(error):
                # On a logarithmic axis a bar that reaches zero reaches the end of the axis.
                ends = np.maximum(xs, self.x.low), np.maximum(ys, self.y.low)
                self.line(*ends, color, width)

    def frame(self, style: Type) -> list[str]:
        """Grid, axes, ticks and their words, which go under the data."""
        right, bottom = self.left + self.width, self.top + self.height
        size, gap = style.size, 0.3 * style.size
        parts = []

        def stroke(x1: float, y1: float, x2: float, y2: float, color: str) -> None:
            d = path([x1, x2], [y1, y2])
            parts.append(element("path", d=d, stroke=color, stroke_width=style.stroke, fill="none"))

        def write(text: str, x: float, y: float, anchor: str, **more: object) -> None:
            attributes = {"x": x, "y": y, "text_anchor": anchor, "fill": style.muted, **more}
            parts.append(element("text", label(text, size), **attributes))

        free = -math.inf
        for text, x in zip(self.x.labels, self.at(self.x.ticks, self.y.low)[0], strict=True):
            stroke(x, self.top, x, bottom, style.grid)
            stroke(x, bottom, x, bottom + gap, style.line)
            half = room(text, size) / 2
            if x - half >= free:
                write(text, float(x), bottom + gap + size, "middle")
                free = x + half + 0.5 * gap
        for text, y in zip(self.y.labels, self.at(self.x.low, self.y.ticks)[1], strict=True):
            stroke(self.left, y, right, y, style.grid)
            stroke(self.left - gap, y, self.left, y, style.line)
            write(text, self.left - _FROM_AXIS * size, float(y) + 0.35 * size, "end")
        stroke(self.left, bottom, right, bottom, style.line)
        stroke(self.left, self.top, self.left, bottom, style.line)
        below = self.x.words(self.width, size)
        write(below, self.left + self.width / 2, bottom + gap + 2.3 * size, "middle")
        place = (self.left - self.y.beside(size), self.top + self.height / 2)
        turn = f"translate({number(place[0])} {number(place[1])}) rotate(-90)"
        write(self.y.words(self.height, size), 0.0, 0.0, "middle", transform=turn)
        return parts

    def key(self, entries: Sequence[tuple[str, str]], style: Type, ground: str | None) -> None:
        """Say what the marks are, where it is emptiest: pairs of a drawn sample and its words.

        A sample is drawn around (0, 0), 1.6 type sizes wide.
        """
        if not entries:
            return
        size = style.size
        pitch, sample = 1.35 * size, 2.2 * size
        width = sample + max(room(text, size) for _, text in entries) + 0.4 * size
        height = pitch * len(entries) + 0.3 * size
        gap = 0.4 * size
        x = self.left + gap, self.left + self.width - gap - width
        y = self.top + gap, self.top + self.height - gap - height
        # Of equals the first is taken: corners, then edges, then the middle.
        parts = sorted(product(_PLACES, _PLACES), key=lambda p: abs(p[0] - 0.5) + abs(p[1] - 0.5))
        corners = [(x[0] + a * (x[1] - x[0]), y[0] + b * (y[1] - y[0])) for a, b in parts[::-1]]
        crowds = [self._crowd(*corner, width, height) for corner in corners]
        left, top = corners[crowds.index(min(crowds))]
        if ground is not None:
            box = {"x": left, "y": top, "width": width, "height": height}
            self.parts.append(element("rect", **box, fill=ground, fill_opacity=0.8))
        for row, (drawn, text) in enumerate(entries):
            base = top + pitch * (row + 0.8)
            move = f"translate({number(left + sample / 2)} {number(base - 0.3 * size)})"
            self.parts.append(element("g", drawn, transform=move))
            at = {"x": left + sample, "y": base, "fill": style.text}
            self.parts.append(element("text", label(text, size), **at))

    def _take(self, px: NDArray[np.float64], py: NDArray[np.float64], weight: float) -> None:
        """Remember points that words should not cover, and how bad it would be."""
        points = np.column_stack([np.ravel(px), np.ravel(py), np.full(np.size(px), weight)])
        self._taken.append(points[np.isfinite(points).all(1)])

    def _crowd(self, left: float, top: float, width: float, height: float) -> float:
        x, y, weight = np.concatenate([np.empty((0, 3)), *self._taken]).T
        # Marks have a size of their own.
        margin = 2.0
        inside = (np.abs(x - left - width / 2) <= width / 2 + margin) & (
            np.abs(y - top - height / 2) <= height / 2 + margin
        )
        return float(weight[inside].sum())


def tick_label(value: float) -> str:
    """Write a tick with a true minus."""
    return f"{value:g}".replace("-", "−")


def blend(colors: Sequence[str], parts: ArrayLike) -> NDArray[np.uint8]:
    """Red, green and blue at parts, 0 to 1, of a scale through colours; undefined is the first."""
    table = np.array([[int(color[i : i + 2], 16) for i in (1, 3, 5)] for color in colors])
    place = np.nan_to_num(np.clip(np.asarray(parts, np.float64), 0, 1)) * (len(colors) - 1)
    columns = [np.interp(place, np.arange(len(colors)), channel) for channel in table.T]
    shades: NDArray[np.uint8] = np.rint(np.stack(columns, axis=-1)).astype(np.uint8)
    return shades


def hexadecimal(colors: NDArray[np.uint8]) -> list[str]:
    """Write colours as attributes have them."""
    return [f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in colors.tolist()]


def bar(x: float, y: float, width: float, height: float, colors: Sequence[str]) -> list[str]:
    """Draw a colour scale as rectangles that overlap, so that no seam shows between two."""
    step = width / len(colors)
    return [
        element("rect", x=x + i * step, y=y, width=width - i * step, height=height, fill=color)
        for i, color in enumerate(colors)
    ]


def _along(
    px: NDArray[np.float64], py: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points along a line, one every two points of length or closer."""
    finite = np.isfinite(px) & np.isfinite(py)
    px, py = px[finite], py[finite]
    length = np.concatenate([[0.0], np.cumsum(np.hypot(np.diff(px), np.diff(py)))])
    places = np.linspace(0.0, length[-1], int(length[-1] / 2) + 2)
    return np.interp(places, length, px), np.interp(places, length, py)


def _runs(defined: NDArray[np.bool_]) -> list[slice]:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], defined, [False]])))
    return [slice(first, last) for first, last in edges.reshape(-1, 2).tolist()]
