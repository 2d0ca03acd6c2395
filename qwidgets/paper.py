"""The panels of the Explorer drawn on paper: each takes a view and a size, and returns elements.

What a panel shows and how is said once more in `js/src/marks.ts` and `js/src/phase.ts`, which draw
the same pictures on the screen; the numbers of both come from one rule, see `views`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from qwidgets import svg, views

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import xarray as xr
    from numpy.typing import NDArray

    Entry = tuple[str, str]

TITLES = {
    "plane": "Uncertainty plane",
    "neighborhood": "Class neighbourhood",
    "phase-space": "Phase space",
    "tradeoff": "Accuracy and robustness",
    "curves": "Training",
    "robustness": "Robust accuracy",
}
# Rows and columns of the Wigner picture, for a width of one column in print.
_ROWS, _COLUMNS = 301, 513
# Lengths of a colour bar, in type sizes; a shorter one would not be read.
_BAR, _SHORTEST_BAR = 4.0, 2.4
# As on the screen: colour follows |W| ** 0.6, so that the faint negative parts can be seen.
_GAMMA = 0.6
# Where on the way from nothing to the deepest colour the positive one stands.
_POSITIVE = 0.6
_EXCESS = ("#7fa6b8", "#e69f00", "#d55e00")
_RAMP = np.linspace(0, 1, 41)
_DASHES = "3 2"
# A longer name of a class is cut short in the drawing; the caption has all of it.
_NAME_LENGTH = 24


class Colors(NamedTuple):
    """Colours; on the screen they are those of the Explorer's style sheet."""

    ground: str | None
    panel: str
    text: str
    muted: str
    line: str
    grid: str
    now: str
    reference: str
    front: str
    bound: str
    marker: str
    forbidden: float
    negative: str
    positive: str
    deep: str


PALETTES = {
    "light": Colors(
        *("#ffffff", "#ffffff", "#1c2530", "#56616e", "#c3cbd3", "#eceff2"),
        *("#0072b2", "#8b949e", "#009e73", "#d55e00", "#b36b00", 0.08),
        *("#d55e00", "#2f8fc6", "#00507d"),
    ),
    "dark": Colors(
        *("#15191e", "#15191e", "#e8ecf0", "#a7b1bc", "#4a545e", "#272e36"),
        *("#56b4e9", "#87919c", "#2fc79a", "#f0843c", "#e69f00", 0.12),
        *("#e8772e", "#3fa0da", "#c4e6fb"),
    ),
    # Black on the paper's own white; in grey the colours still differ, and no line needs colour.
    "print": Colors(
        *(None, "#ffffff", "#000000", "#000000", "#000000", "#e9e9e9"),
        *("#0062a0", "#8a8a8a", "#009e73", "#d55e00", "#7a4a00", 0.1),
        *("#d55e00", "#2f8fc6", "#003f66"),
    ),
}


@dataclass(frozen=True, kw_only=True)
class View:
    """One position of the sliders, and how it is drawn."""

    dataset: xr.Dataset
    epsilon: float
    regularization: float
    label: int
    epoch: int
    attack_epsilon: float
    at: views.Place
    limits: views.Limits
    colors: Colors
    type: svg.Type
    keyed: bool
    """Whether each panel says what it is of; else the sheet does, see `heading`."""

    def now(self, name: str, at: views.Place | None = None) -> NDArray[np.float64]:
        """Numbers of the class and epoch at this position, or at another place."""
        values = views.read(self.dataset, name, at or self.at)[self.epoch]
        has_label = "label" in self.dataset[name].dims
        return np.asarray(values[self.label] if has_label else values)

    def value(self, name: str, at: views.Place | None = None) -> float:
        """One number of the class and epoch at this position, or at another place."""
        return float(self.now(name, at))

    def robust(self, at: views.Place | None = None, error: str = "") -> NDArray[np.float64]:
        """Robust accuracy at the attack radius, or its error: a number for each epoch."""
        values = views.read(self.dataset, f"robust_accuracy{error}", at or self.at)
        return views.read_radius(self.dataset, values, self.attack_epsilon)

    def trail(self, name: str) -> NDArray[np.float64]:
        """Numbers of the class at this position, for each epoch up to the chosen one."""
        return views.read(self.dataset, name, self.at)[: self.epoch + 1, self.label]

    def networks(self, name: str) -> NDArray[np.float64]:
        """Numbers of the class and epoch of every network: shape (networks, ...)."""
        values = self.dataset[name].values[:, :, self.epoch]
        if "label" in self.dataset[name].dims:
            values = values[:, :, self.label]
        return np.asarray(values.reshape(-1, *values.shape[2:]))

    @property
    def measured(self) -> bool:
        """Whether the neighbourhoods of the classes were measured at this epoch."""
        name = "neighborhood_momentum_std"
        return name in self.dataset and bool(np.isfinite(self.networks(name)).any())

    @property
    def moved(self) -> bool:
        """Whether this position is another than the one that it is compared with."""
        return self.at != views.REFERENCE

    @property
    def name(self) -> str:
        """Words for the dot at this position."""
        between = "" if self.at.trained else ", interpolated"
        return f"{_name(self.epsilon, self.regularization)}{between}"

    @property
    def reference_name(self) -> str:
        """Words for what it is compared with."""
        return _name(float(self.dataset.epsilon[0]), float(self.dataset.regularization[0]))

    @property
    def subject(self) -> str:
        """Words for the class and the epoch."""
        name = views.one_line(str(self.dataset.attrs["class_names"][self.label]))
        short = name if len(name) <= _NAME_LENGTH else f"{name[: _NAME_LENGTH - 1]}…"
        return f"{views.group(self.dataset.attrs)} {short}, epoch {self.epoch}"


def draw(panel: str, view: View, width: float, height: float) -> list[str]:
    """Draw a panel of this size, points, but for its title: elements."""
    return _PANELS[panel](view, width, height)


def _name(epsilon: float, regularization: float) -> str:
    return f"ε {views.setting(epsilon)}, λ {views.setting(regularization)}"


# Axes and marks


def _axes(view: View, width: float, height: float, x: svg.Scale, y: svg.Scale) -> svg.Axes:
    size = view.type.size
    left, top, right, bottom = y.beside(size) + 1.2 * size, 2.3 * size, 1.3 * size, 3.2 * size
    return svg.Axes(left, top, width - left - right, height - top - bottom, x, y)


def _log(limits: tuple[float, float], title: str, short: str) -> svg.Scale:
    return svg.Scale(*limits, views.log_ticks(*limits), title, short, log=True)


def _linear(low: float, high: float, title: str, short: str = "") -> svg.Scale:
    return svg.Scale(low, high, views.linear_ticks(low, high), title, short or title)


def _dot(view: View, x: float, y: float) -> svg.Mark:
    """Mark of this position: filled where a network was trained, else hollow."""
    color = view.colors.now
    fill = color if view.at.trained else view.colors.panel
    return svg.Mark(x, y, "circle", 0.36 * view.type.size, fill, color)


def _square(view: View, x: float, y: float) -> svg.Mark:
    """Mark of what it is compared with; its shape tells it apart without colour."""
    color = view.colors.reference
    return svg.Mark(x, y, "square", 0.28 * view.type.size, color, color)


def _stroke(view: View, color: str, dashes: str | None = None) -> str:
    half = 0.8 * view.type.size
    d = svg.path([-half, half], [0, 0])
    style = {"fill": "none", "stroke": color, "stroke_width": 1.2, "stroke_dasharray": dashes}
    return svg.element("path", d=d, **style)


def heading(view: View, width: float) -> list[str]:
    """Say in one line what all panels of a sheet are of, at the right of its width."""
    size = view.type.size
    parts, left = [], width - 0.8 * size
    for sample, words in [("", view.subject), *_key(view, "dots")[::-1]]:
        left -= svg.room(words, size) + 1.2 * size
        style = {"x": left, "y": 1.3 * size, "fill": view.type.text}
        parts.append(svg.element("text", svg.words(words), **style))
        if sample:
            left -= 1.2 * size
            move = f"translate({svg.number(left + 0.4 * size)} {svg.number(size)})"
            parts.append(svg.element("g", sample, transform=move))
    return parts


def _key(view: View, kind: Literal["dots", "lines"]) -> list[Entry]:
    """Say what the marks of this position and of what it is compared with look like."""
    if kind == "dots":
        samples = [_dot(view, 0, 0).element, _square(view, 0, 0).element]
    else:
        samples = [_stroke(view, color) for color in (view.colors.now, view.colors.reference)]
    names = view.name, view.reference_name
    return list(zip(samples, names, strict=True))[: 1 + view.moved]


def _finish(
    view: View, axes: svg.Axes, kind: Literal["dots", "lines"], of: str, *more: Entry
) -> list[str]:
    """Put the frame under what was drawn, and the key over it."""
    entries = [*_key(view, kind), *more, *[("", of)] * bool(of)] if view.keyed else more
    axes.key(entries, view.type, view.colors.panel)
    return [*axes.frame(view.type), *axes.parts]


def _points(
    view: View, axes: svg.Axes, names: tuple[str, str], colors: str | Sequence[str]
) -> None:
    """Draw all networks, the path of this one, what it is compared with, and it with its errors."""
    x, y = names
    axes.dots(view.networks(x), view.networks(y), colors, 0.2 * view.type.size)
    axes.line(view.trail(x), view.trail(y), view.colors.now, 0.9, stroke_opacity=0.8)
    if view.moved:
        first = views.REFERENCE
        axes.mark(_square(view, view.value(x, first), view.value(y, first)))
    errors = view.value(f"{x}_error"), view.value(f"{y}_error")
    axes.error_bars(view.value(x), view.value(y), *errors, view.colors.now, 0.9)
    axes.mark(_dot(view, view.value(x), view.value(y)))


# The panels


def _plane(view: View, width: float, height: float) -> list[str]:
    limits, colors = view.limits, view.colors
    axes = _axes(
        view,
        width,
        height,
        _log(limits.position, "position uncertainty σx (input units)", "σx (input units)"),
        _log(limits.momentum, "momentum uncertainty σp (1 / input units)", "σp (1 / input units)"),
    )
    ends, bound = _hyperbola(0.5, axes)
    left, low = axes.x.low, axes.y.low
    corners = [*ends, ends[1], left, left], [*bound, low, low, bound[0]]
    axes.area(*corners, colors.bound, colors.forbidden)
    axes.line(ends, bound, colors.bound, 1.0)
    excess = 2 * view.networks("uncertainty_product") - 1
    shades = svg.hexadecimal(svg.blend(_EXCESS, excess / limits.excess))
    _points(view, axes, ("position_std", "momentum_std"), shades)
    key = _stroke(view, colors.bound), "bound σxσp = ½"
    ramp = svg.hexadecimal(svg.blend(_EXCESS, _RAMP))
    scale = ("excess", "0", f"{100 * limits.excess:.0f}%")
    return [
        *_bar(view, width, scale, ramp, "plane"),
        *_finish(view, axes, "dots", view.subject, key),
    ]


def _neighborhood(view: View, width: float, height: float) -> list[str]:
    limits, colors = view.limits, view.colors
    position, momentum = limits.neighborhood_position, limits.neighborhood_momentum
    axes = _axes(
        view,
        width,
        height,
        _log(position, "effective radius Δx (input units)", "Δx (input units)"),
        _log(momentum, "effective radius Δp (1 / input units)", "Δp (1 / input units)"),
    )
    key = []
    bound = view.value("neighborhood_bound")
    if bound > 0:
        axes.line(*_hyperbola(bound, axes), colors.bound, 1.0)
        key.append((_stroke(view, colors.bound), "its bound"))
    names = "neighborhood_position_std", "neighborhood_momentum_std"
    _points(view, axes, names, colors.front)
    return _finish(view, axes, "dots", view.subject, *key)


def _tradeoff(view: View, width: float, height: float) -> list[str]:
    colors, radius = view.colors, views.setting(view.attack_epsilon)
    clean = view.networks("clean_accuracy")
    robust = views.read_radius(view.dataset, view.networks("robust_accuracy"), view.attack_epsilon)
    # The usual limits are those of the last epoch; an earlier one may need more.
    low = [
        min(limit, views.lower_end(values))
        for limit, values in zip(view.limits.accuracy, (clean, robust), strict=True)
    ]
    axes = _axes(
        view,
        width,
        height,
        _linear(low[0], 1.0, "clean accuracy"),
        _linear(low[1], 1.0, f"robust accuracy at attack radius {radius}", f"robust at {radius}"),
    )
    axes.dots(clean, robust, colors.front, 0.2 * view.type.size)
    front = views.pareto_front(clean, robust)
    axes.line(clean[front], robust[front], colors.front, 1.0)
    if view.moved:
        first = views.REFERENCE
        values = view.value("clean_accuracy", first), float(view.robust(first)[view.epoch])
        axes.mark(_square(view, *values))
    now = view.value("clean_accuracy"), float(view.robust()[view.epoch])
    errors = view.value("clean_accuracy_error"), float(view.robust(error="_error")[view.epoch])
    axes.error_bars(*now, *errors, colors.now, 0.9)
    axes.mark(_dot(view, *now))
    key = _stroke(view, colors.front), "Pareto front"
    return _finish(view, axes, "dots", f"epoch {view.epoch}", key)


def _curves(view: View, width: float, height: float) -> list[str]:
    colors, dataset = view.colors, view.dataset
    epochs = dataset.epoch.values.astype(np.float64)
    last = max(float(epochs[-1]), 1.0)
    ticks = [tick for tick in views.linear_ticks(0.0, last) if tick == int(tick)]
    x = svg.Scale(0.0, last, ticks, "epoch", "epoch")
    axes = _axes(view, width, height, x, _linear(0.0, 1.0, "accuracy"))
    axes.line([view.epoch] * 2, [0, 1], colors.marker, 0.9)
    if view.moved:
        clean = views.read(dataset, "clean_accuracy", views.REFERENCE)
        axes.line(epochs, clean, colors.reference, 1.0)
        axes.line(
            epochs,
            view.robust(views.REFERENCE),
            colors.reference,
            1.0,
            stroke_dasharray=_DASHES,
        )
    clean, error = (
        views.read(dataset, f"clean_accuracy{kind}", view.at) for kind in ("", "_error")
    )
    robust, robust_error = view.robust(), view.robust(error="_error")
    axes.band(epochs, clean - error, clean + error, colors.now)
    axes.band(epochs, robust - robust_error, robust + robust_error, colors.now)
    axes.line(epochs, clean, colors.now, 1.2)
    axes.line(epochs, robust, colors.now, 1.2, stroke_dasharray=_DASHES)
    robust_name = f"robust at {views.setting(view.attack_epsilon)}"
    key = [
        (_stroke(view, colors.muted), "clean"),
        (_stroke(view, colors.muted, _DASHES), robust_name),
    ]
    return _finish(view, axes, "lines", "", *key)


def _robustness(view: View, width: float, height: float) -> list[str]:
    colors, radii = view.colors, view.dataset.attack_epsilon.values
    x = _linear(0.0, view.limits.radius, "attack radius (input units)", "attack radius")
    axes = _axes(view, width, height, x, _linear(0.0, 1.0, "robust accuracy"))
    axes.line([view.attack_epsilon] * 2, [0, 1], colors.marker, 0.9)
    if view.moved:
        axes.line(radii, view.now("robust_accuracy", views.REFERENCE), colors.reference, 1.0)
    now, error = view.now("robust_accuracy"), view.now("robust_accuracy_error")
    axes.band(radii, now - error, now + error, colors.now)
    axes.line(radii, now, colors.now, 1.2)
    return _finish(view, axes, "lines", f"epoch {view.epoch}")


def _phase_space(view: View, width: float, height: float) -> list[str]:
    colors, size = view.colors, view.type.size
    t = np.array(views.plot_axes(view.dataset)["t"])
    span, fastest = float(t[-1]), view.limits.phase_momentum
    k = np.linspace(-fastest, fastest, _ROWS)
    left, top, bottom, rise = 4.6 * size, 2.3 * size, 3.2 * size, 3.2 * size
    axes = svg.Axes(
        left,
        top + rise,
        width - left - rise - size,
        height - top - rise - bottom,
        _linear(-span, span, "position along the attack (input units)", "position t"),
        _linear(-fastest, fastest, "momentum (1 / input units)", "momentum k"),
    )
    places = [views.REFERENCE, view.at][not view.moved :]
    packets = [views.packet(view.dataset, at, view.epoch, view.label) for at in places]
    pictures = [views.phase_space(t, packet, k) for packet in packets]
    parts = axes.frame(view.type)
    wigner = pictures[-1][0]
    if np.isfinite(wigner).all():
        fine = np.linspace(-span, span, _COLUMNS)
        smooth = np.stack([np.interp(fine, t, row) for row in wigner[::-1]])
        address = svg.picture(_wigner_colors(colors, np.clip(math.pi * smooth, -1, 1)))
        box = {"x": axes.left, "y": axes.top, "width": axes.width, "height": axes.height}
        # By its older name, which every drawing program knows.
        carried = {"preserveAspectRatio": "none", "xlink:href": address}
        parts.append(svg.element("image", **box, **carried))
    if view.keyed:
        words = {"x": axes.left + 0.5 * size, "y": axes.top + 1.3 * size, "fill": view.type.text}
        parts.append(svg.element("text", svg.words(view.subject), **words))
    # Both marginals: above the picture that of the position, at its right that of the momentum.
    across, up = axes.at(t, 0)[0], axes.at(0, k)[1]
    densities = [packet**2 for packet in packets]
    highest = np.nanmax([*densities, np.full_like(t, np.finfo(float).tiny)])
    fullest = np.nanmax([*(s for _, s in pictures), np.full_like(k, np.finfo(float).tiny)])
    for at, density, (_, spectrum) in zip(places, densities, pictures, strict=True):
        over = axes.top - 2 - (rise - 2) * density / highest
        beside = axes.left + axes.width + 2 + (rise - 2) * spectrum / fullest
        color, stroke = (colors.now, 1.2) if at == view.at else (colors.reference, 1.0)
        style = {"fill": "none", "stroke": color, "stroke_width": stroke}
        for d in (svg.path(across, over), svg.path(beside, up)):
            if d:
                parts.append(svg.element("path", d=d, stroke_linejoin="round", **style))
    ramp = svg.hexadecimal(_wigner_colors(colors, 2 * _RAMP - 1))
    scale = ("Wigner function", "−1/π", "1/π")
    return [*_bar(view, width, scale, ramp, "phase-space"), *parts]


_PANELS: dict[str, Callable[[View, float, float], list[str]]] = {
    "plane": _plane,
    "neighborhood": _neighborhood,
    "phase-space": _phase_space,
    "tradeoff": _tradeoff,
    "curves": _curves,
    "robustness": _robustness,
}


def _hyperbola(bound: float, axes: svg.Axes) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Find where ``x y = bound``, straight on log axes, enters and leaves them."""
    x, y = axes.x, axes.y
    low, high = max(x.low, bound / y.high), min(x.high, bound / y.low)
    ends = np.array([low, high] if low < high else [math.nan, math.nan])
    return ends, bound / ends


def _wigner_colors(colors: Colors, w: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Colours of the Wigner function in units of its limit 1 / pi, from -1 to 1."""
    shade = np.abs(w) ** _GAMMA
    low = svg.blend((colors.panel, colors.negative), shade)
    high = np.where(
        (shade < _POSITIVE)[..., None],
        svg.blend((colors.panel, colors.positive), shade / _POSITIVE),
        svg.blend((colors.positive, colors.deep), (shade - _POSITIVE) / (1 - _POSITIVE)),
    )
    return np.where((w < 0)[..., None], low, high)


def _bar(
    view: View, width: float, words: tuple[str, str, str], colors: list[str], panel: str
) -> list[str]:
    """Draw a colour scale, its name and its two ends at the right of the head of a panel."""
    name, low, high = words
    size, base = 0.9 * view.type.size, 1.3 * view.type.size
    style = {"y": base, "fill": view.type.muted, "font_size": size, "text_anchor": "end"}
    gap, right = 0.6 * size, width - 0.8 * view.type.size
    end = right - svg.room(high, size) - gap
    # What the title leaves for the bar, if its name is to stand before it.
    title = svg.room(f"a {TITLES[panel]}", view.type.size + 1)
    free = end - title - view.type.size - svg.room(f"{name}{low}", size) - 2 * gap
    named = free >= _SHORTEST_BAR * size
    start = end - (min(free, _BAR * size) if named else _BAR * size)
    parts = [
        svg.element("text", svg.words(high), x=right, **style),
        *svg.bar(start, base - 0.65 * size, end - start, 0.65 * size, colors),
        svg.element("text", svg.words(low), x=start - gap, **style),
    ]
    if named:
        left = start - 2 * gap - svg.room(low, size)
        parts.append(svg.element("text", svg.words(name), x=left, **style))
    return parts
