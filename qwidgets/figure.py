"""A panel of the Explorer as a figure for a paper: SVG with vector text, in publication sizes.

The numbers are those that the Explorer shows at the same position of its sliders, read from the
cube by `views`; between trained networks they are interpolated, and the dot is hollow. Bars and
bands are one standard error to either side.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from qwidgets import svg, views
from qwidgets.checks import one_of
from qwidgets.files import check_place, write_whole
from qwidgets.paper import PALETTES, TITLES, Colors, View, draw, heading
from qwidgets.provenance import sources

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping
    from pathlib import Path

    import xarray as xr

    from qwidgets.sweep import Sweep
    from qwidgets.widgets.explorer import Explorer

Panel = Literal["plane", "neighborhood", "phase-space", "tradeoff", "curves", "robustness", "all"]
Palette = Literal["light", "dark", "print"]

COLUMN, PAGE = 89.0, 183.0
"""Widths of one column and of two in many journals, mm."""

NAMESPACES = {
    "xmlns": "http://www.w3.org/2000/svg",
    "xmlns:xlink": "http://www.w3.org/1999/xlink",
}
_ASPECT = 0.78
_GUTTER = 8.0
# The smallest panel that its axes leave something of, in sizes of its type.
_LEAST = 11.0, 11.0


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A drawn figure; a notebook shows it.

    Attributes
    ----------
    svg : str
        The drawing, one ``<svg>`` element with its size in millimetres.
    caption : str
        What it shows, with the numbers at the sliders' position and their standard errors.
    width, height : float
        Size on paper, mm.
    ground : str, optional
        Colour behind the whole of it; None if what is below shines through.
    """

    svg: str = field(repr=False)
    caption: str
    width: float
    height: float
    ground: str | None = field(default=None, repr=False)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the SVG file, whole or not at all; its folder must exist.

        Raises
        ------
        TypeError
            It is no path.
        ValueError
            Its name is that of another format.
        OSError
            The path cannot be written.
        """
        place = check_place(path, "figure.svg")
        if place.suffix.lower() not in {"", ".svg"}:
            message = (
                f"path must end in .svg, the only format that is written, got {place}; name it "
                f"{place.with_suffix('.svg').name}, and convert it elsewhere."
            )
            raise ValueError(message)
        write_whole(place, f'<?xml version="1.0" encoding="UTF-8"?>\n{self.svg}\n')
        return place

    def _repr_svg_(self) -> str:
        return self.svg


def figure(
    sweep: Sweep | Explorer,
    panel: Panel = "plane",
    *,
    epsilon: float | None = None,
    regularization: float | None = None,
    label: int | str | None = None,
    epoch: int | None = None,
    attack_epsilon: float | None = None,
    width: float | None = None,
    height: float | None = None,
    font_size: float = 7.0,
    palette: Palette = "light",
) -> Figure:
    """Draw a panel of the Explorer for a paper, at one position of its sliders.

    Parameters
    ----------
    sweep : Sweep or Explorer
        What to draw. Of an Explorer the present position of its sliders is the default.
    panel : {"plane", "neighborhood", "phase-space", "tradeoff", "curves", "robustness", "all"}
        Which panel; ``"all"`` is a plate of every panel that the sweep has numbers for.
    epsilon, regularization : float, optional
        Adversarial radius (input units) and strength, anywhere on the trained grid; default: the
        first of each, the clean network where there is one.
    label : int or str, optional
        The class, by index or by name; default: the first.
    epoch : int, optional
        Epoch; default: the last finished one.
    attack_epsilon : float, optional
        Attack radius of robust accuracy, input units; default: the middle of the measured ones.
    width, height : float, optional
        Size on paper, mm; default: one column of 89 mm, for ``"all"`` two of 183 mm, and a height
        that suits it.
    font_size : float
        Size of the type, points; titles are a point larger.
    palette : {"light", "dark", "print"}
        Colours: as on the screen, or black type on no ground for paper.

    Returns
    -------
    Figure
        Shown by a notebook; ``.save(path)`` writes it, ``.caption`` says in words what it shows.

    Raises
    ------
    TypeError
        An argument is of the wrong kind.
    ValueError
        Nothing is finished yet, or a value lies outside of what was trained and measured.

    Notes
    -----
    The same arguments give the same file, byte for byte.

    Examples
    --------
    >>> figure(sweep, "plane", epsilon=0.1, label=3).save("plane.svg")  # doctest: +SKIP
    """
    source, chosen = _source(sweep)
    chosen |= {
        name: value
        for name, value in {
            "epsilon": epsilon,
            "regularization": regularization,
            "label": label,
            "epoch": epoch,
            "attack_epsilon": attack_epsilon,
        }.items()
        if value is not None
    }
    one_of("panel", panel, [*TITLES, "all"])
    one_of("palette", palette, list(PALETTES))
    font_size = _between("font_size", font_size, 3, 30, "a size of type in points")
    view = _view(source.dataset, chosen, PALETTES[palette], font_size, keyed=panel != "all")
    _refuse_unmeasured(view, panel)
    wide = _between("width", _or(width, PAGE if panel == "all" else COLUMN), 30, 2000, "in mm")
    rows: list[list[str]] = _plate(view) if panel == "all" else [[panel]]
    usual = sum(wide / len(row) * _ASPECT for row in rows)
    high = _between("height", _or(height, usual), 25, 2000, "in mm")
    return _draw(view, rows, wide, high)


def _draw(view: View, rows: list[list[str]], wide: float, high: float) -> Figure:
    """Put panels into rows of equal panels on one sheet."""
    total = wide * svg.POINTS_PER_MM, high * svg.POINTS_PER_MM
    size = view.type.size
    weights = [1 / len(row) for row in rows]
    parts: list[str] = [] if view.keyed else heading(view, total[0])
    first = top = 0.0 if view.keyed else 2 * size
    letter = iter("abcdefg")
    for row, weight in zip(rows, weights, strict=True):
        height = (total[1] - first) * weight / sum(weights)
        width = (total[0] - _GUTTER * (len(row) - 1)) / len(row)
        if width < _LEAST[0] * size or height < _LEAST[1] * size:
            message = (
                f"width and height must leave room for type of {size:g} points, got {wide:g} x"
                f" {high:g} mm; make the figure larger or font_size smaller."
            )
            raise ValueError(message)
        for column, panel in enumerate(row):
            drawn = draw(panel, view, width, height)
            title = TITLES[panel]
            if sum(map(len, rows)) > 1:
                title = f"{next(letter)}\u2002{title}"
            style = {"font_weight": "bold", "font_size": size + 1, "fill": view.type.text}
            head = svg.element("text", svg.words(title), x=1.0, y=1.3 * size, **style)
            move = f"translate({svg.number(column * (width + _GUTTER))} {svg.number(top)})"
            parts.append(svg.element("g", head, *drawn, transform=move))
        top += height
    caption = _caption(view, [panel for row in rows for panel in row])
    title = ", ".join(TITLES[panel].lower() for row in rows for panel in row).capitalize()
    ground = view.colors.ground
    sheet = (
        [] if ground is None else [svg.element("rect", width="100%", height="100%", fill=ground)]
    )
    drawing = svg.element(
        "svg",
        svg.element("title", svg.words(title)),
        svg.element("desc", svg.words(f"{caption} {sources(view.dataset.attrs)}")),
        *sheet,
        svg.element("g", *parts, font_family=svg.FONT, font_size=size),
        **NAMESPACES,
        width=f"{svg.number(wide)}mm",
        height=f"{svg.number(high)}mm",
        viewBox=f"0 0 {svg.number(total[0])} {svg.number(total[1])}",
        role="img",
    )
    return Figure(svg=drawing, caption=caption, width=wide, height=high, ground=ground)


# What was asked for


def _source(source: object) -> tuple[Sweep, dict[str, Any]]:
    from qwidgets.sweep import Sweep

    chosen: dict[str, Any] = {}
    sweep: object = source
    if not isinstance(source, Sweep) and hasattr(source, "sweep"):  # an Explorer
        sweep = source.sweep
        chosen = {name: getattr(source, name) for name in views.POSITION if hasattr(source, name)}
        if sweep is None:
            message = (
                "sweep must hold at least one finished epoch, but this Explorer has none yet; wait"
                " for the first, or for all with explorer.wait()."
            )
            raise ValueError(message)
    if not isinstance(sweep, Sweep):
        message = (
            "sweep must be a Sweep, from qwidgets.sweep(...) or qwidgets.open_sweep(path), or a"
            f" qwidgets.Explorer; got {type(source).__name__}."
        )
        raise TypeError(message)
    if not sweep.dataset.sizes["epoch"]:
        message = "sweep must hold at least one finished epoch, but it has none; train it further."
        raise ValueError(message)
    return sweep, chosen


def _view(
    dataset: xr.Dataset,
    chosen: Mapping[str, Any],
    colors: Colors,
    font_size: float,
    *,
    keyed: bool,
) -> View:
    def on_grid(name: str, default: float) -> float:
        values = dataset[name].values
        what = "on the trained grid" if name != "attack_epsilon" else "among the measured radii"
        low, high = float(values[0]), float(values[-1])
        return _between(name, chosen.get(name, default), low, high, what)

    epsilon = on_grid("epsilon", float(dataset.epsilon[0]))
    regularization = on_grid("regularization", float(dataset.regularization[0]))
    last = dataset.sizes["epoch"] - 1
    return View(
        dataset=dataset,
        epsilon=epsilon,
        regularization=regularization,
        label=_label(chosen.get("label", 0), dataset.attrs["class_names"]),
        epoch=_whole("epoch", chosen.get("epoch", last), last, "a finished epoch"),
        attack_epsilon=on_grid(
            "attack_epsilon", views.middle_radius(dataset.attack_epsilon.values.tolist())
        ),
        at=views.place(dataset, epsilon, regularization),
        limits=views.limits(dataset),
        colors=colors,
        keyed=keyed,
        type=svg.Type(
            size=font_size,
            text=colors.text,
            muted=colors.muted,
            line=colors.line,
            grid=colors.grid,
            stroke=font_size / 14,
        ),
    )


def _label(value: object, names: list[str]) -> int:
    if isinstance(value, str):
        one_of("label", value, names)
        return names.index(value)
    return _whole("label", value, len(names) - 1, "a class, by index or by name")


def _whole(name: str, value: Any, last: int, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        message = f"{name} must be {what}, a whole number; got {value!r}."
        raise TypeError(message)
    if not 0 <= value <= last:
        message = f"{name} must be {what}, 0 to {last}; got {value}."
        raise ValueError(message)
    return int(value)


def _between(name: str, value: Any, low: float, high: float, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
        message = f"{name} must be a number, {what}; got {value!r}."
        raise TypeError(message)
    # A value that went through text may miss the end of the grid by its last digit.
    if math.isclose(value, low, rel_tol=1e-6) or math.isclose(value, high, rel_tol=1e-6):
        return min(max(float(value), low), high)
    if not low <= value <= high:
        message = f"{name} must be from {low:g} to {high:g}, {what}; got {value!r}."
        raise ValueError(message)
    return float(value)


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


def _refuse_unmeasured(view: View, panel: str) -> None:
    if panel != "neighborhood" or view.measured:
        return
    momenta = view.dataset.get("neighborhood_momentum_std")
    ever = momenta is not None and bool(np.isfinite(momenta.values).any())
    remedy = (
        "take the last epoch, or train with detail='every-epoch'"
        if ever
        else ("train with detail='last-epoch'")
    )
    message = (
        f"panel 'neighborhood' has no numbers at epoch {view.epoch}: this sweep did not measure the"
        f" neighbourhoods of the classes there; {remedy}."
    )
    raise ValueError(message)


def _plate(view: View) -> list[list[str]]:
    packets = (
        ["plane", "neighborhood", "phase-space"] if view.measured else ["plane", "phase-space"]
    )
    return [packets, ["tradeoff", "curves", "robustness"]]


# Words


def _caption(view: View, panels: list[str]) -> str:
    dataset = view.dataset
    shape = dataset.sizes["epsilon"], dataset.sizes["regularization"]
    about = views.describe(dataset.attrs, shape)
    name = views.one_line(str(dataset.attrs["class_names"][view.label]))
    if not view.at.trained:
        kind = "interpolated between trained networks"
    else:
        kind = "trained network" if view.epoch else "untrained network"
    said = [f"{view.name}, {views.group(dataset.attrs)} {name}, epoch {view.epoch}"]
    packets = {"plane", "phase-space"} & set(panels)
    if packets:
        said += [
            f"{sign} = {views.with_error(view.value(key), view.value(f'{key}_error'))}"
            for sign, key in (
                ("σx", "position_std"),
                ("σp", "momentum_std"),
                ("σxσp", "uncertainty_product"),
            )
        ]
    if "neighborhood" in panels:
        said += [
            f"{sign} = {views.with_error(view.value(key), view.value(f'{key}_error'))}"
            for sign, key in (
                ("Δx", "neighborhood_position_std"),
                ("Δp", "neighborhood_momentum_std"),
                ("bound", "neighborhood_bound"),
            )
        ]
    if {"tradeoff", "curves", "robustness"} & set(panels):
        clean = views.percentage(view.value("clean_accuracy"), view.value("clean_accuracy_error"))
        robust = views.percentage(
            float(view.robust()[view.epoch]),
            float(view.robust(error="_error")[view.epoch]),
        )
        said += [
            f"clean accuracy {clean}",
            f"robust accuracy {robust} at attack radius {views.setting(view.attack_epsilon)}",
        ]
    return f"{about['subtitle']}. {kind.capitalize()} at {', '.join(said)} (one standard error)."
