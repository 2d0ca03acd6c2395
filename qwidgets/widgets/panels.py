"""The bqplot figures of the Explorer: axes, marks and colours; the browser fills them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import bqplot as bq
import numpy as np

from qwidgets.views import linear_ticks, log_ticks

if TYPE_CHECKING:
    from ipywidgets import Widget

    from qwidgets.views import Limits

# CSS variables of the Explorer's style sheet, so that a change of theme needs no kernel.
_NOW = "var(--qw-now)"
_REFERENCE = "var(--qw-reference)"
_FRONT = "var(--qw-front)"
_EXCESS_COLORS = ["#7fa6b8", "#e69f00", "#d55e00"]
_EMPTY = np.zeros(0, np.float32)
_BOUND_POINTS = 2


class Panels:
    """Figures and marks by name; `show_limits` is the only thing that changes after creation."""

    def __init__(self) -> None:
        self._position = bq.LogScale(min=0.1, max=1.0)
        self._momentum = bq.LogScale(min=0.5, max=5.0)
        self._class_position = bq.LogScale(min=0.1, max=1.0)
        self._class_momentum = bq.LogScale(min=0.1, max=1.0)
        self._excess = bq.ColorScale(colors=_EXCESS_COLORS, min=0.0, max=0.1)
        self._clean = bq.LinearScale(min=0.0, max=1.0)
        self._robust = bq.LinearScale(min=0.0, max=1.0)
        self._epoch = bq.LinearScale(min=0.0, max=20.0)
        accuracy = bq.LinearScale(min=0.0, max=1.0)
        plane = {"x": self._position, "y": self._momentum}
        neighborhood = {"x": self._class_position, "y": self._class_momentum}
        tradeoff = {"x": self._clean, "y": self._robust}
        curves = {"x": self._epoch, "y": accuracy}
        self._radius = bq.LinearScale(min=0.0, max=1.0)
        robustness = {"x": self._radius, "y": accuracy}

        self._bound = _lines(plane, "var(--qw-bound)", fill="bottom", stroke_width=1.5)
        self._bound.fill_colors = ["var(--qw-forbidden)"]
        self._bound.fill_opacities = [1.0]
        self.marks: dict[str, Widget] = {
            "plane_networks": bq.Scatter(
                x=_EMPTY,
                y=_EMPTY,
                color=_EMPTY,
                scales={**plane, "color": self._excess},
                default_size=22,
                default_opacities=[0.75],
                stroke_width=0,
            ),
            "plane_trail": _lines(plane, _NOW, stroke_width=1.6, opacities=[0.8]),
            "plane_reference": _dot(plane, _REFERENCE, 90),
            "plane_error": _lines(plane, _NOW, _NOW, stroke_width=1.5),
            "plane_now": _dot(plane, _NOW, 150),
            "neighborhood_bound": _lines(neighborhood, "var(--qw-bound)", stroke_width=1.5),
            "neighborhood_networks": _dots(neighborhood),
            "neighborhood_trail": _lines(neighborhood, _NOW, stroke_width=1.6, opacities=[0.8]),
            "neighborhood_reference": _dot(neighborhood, _REFERENCE, 90),
            "neighborhood_error": _lines(neighborhood, _NOW, _NOW, stroke_width=1.5),
            "neighborhood_now": _dot(neighborhood, _NOW, 150),
            "tradeoff_networks": _dots(tradeoff),
            "tradeoff_front": _lines(tradeoff, _FRONT, stroke_width=1.8),
            "tradeoff_reference": _dot(tradeoff, _REFERENCE, 90),
            "tradeoff_error": _lines(tradeoff, _NOW, _NOW, stroke_width=1.5),
            "tradeoff_now": _dot(tradeoff, _NOW, 150),
            "curves_clean": _lines(curves, _REFERENCE, _NOW),
            "curves_robust": _lines(curves, _REFERENCE, _NOW, line_style="dashed"),
            "curves_epoch": _lines(curves, "var(--qw-epoch)", stroke_width=1.5),
            "robustness_band": _lines(
                robustness,
                _NOW,
                _NOW,
                stroke_width=0,
                fill="between",
                fill_colors=[_NOW],
                fill_opacities=[0.2],
            ),
            "robustness_lines": _lines(robustness, _REFERENCE, _NOW),
            "robustness_radius": _lines(robustness, "var(--qw-epoch)", stroke_width=1.5),
        }
        self._position_axis = _axis(self._position, "position uncertainty σx (input units)")
        self._momentum_axis = _axis(
            self._momentum, "momentum uncertainty σp (1 / input units)", orientation="vertical"
        )
        self._class_position_axis = _axis(
            self._class_position, "effective radius in position Δx (input units)"
        )
        self._class_momentum_axis = _axis(
            self._class_momentum,
            "effective radius in momentum Δp (1 / input units)",
            orientation="vertical",
            label_offset="44px",
        )
        self._epoch_axis = _axis(self._epoch, "epoch")
        self._robust_axis = _axis(
            self._robust, "robust accuracy at the attack radius", orientation="vertical"
        )
        self._clean_axis = _axis(self._clean, "clean accuracy")
        self._radius_axis = _axis(self._radius, "attack radius (input units)")
        accuracy_axis = _axis(accuracy, "accuracy", orientation="vertical")
        accuracy_axis.tick_values = linear_ticks(0.0, 1.0)
        self.figures: dict[str, Widget] = {
            "plane": _figure(
                [self._bound, *self._named("plane")], [self._position_axis, self._momentum_axis]
            ),
            "neighborhood": _figure(
                self._named("neighborhood"), [self._class_position_axis, self._class_momentum_axis]
            ),
            "tradeoff": _figure(self._named("tradeoff"), [self._clean_axis, self._robust_axis]),
            "curves": _figure(self._named("curves"), [self._epoch_axis, accuracy_axis]),
            "robustness": _figure(self._named("robustness"), [self._radius_axis, accuracy_axis]),
        }

    def show_limits(self, limits: Limits, epochs: int) -> None:
        """Fit all axes; scales that already fit are left alone."""
        (self._position.min, self._position.max) = limits.position
        (self._momentum.min, self._momentum.max) = limits.momentum
        self._position_axis.tick_values = log_ticks(*limits.position)
        self._momentum_axis.tick_values = log_ticks(*limits.momentum)
        (self._class_position.min, self._class_position.max) = limits.neighborhood_position
        (self._class_momentum.min, self._class_momentum.max) = limits.neighborhood_momentum
        self._class_position_axis.tick_values = log_ticks(*limits.neighborhood_position)
        self._class_momentum_axis.tick_values = log_ticks(*limits.neighborhood_momentum)
        self._excess.max = limits.excess
        self._clean.min, self._robust.min = limits.accuracy
        self._clean_axis.tick_values = linear_ticks(limits.accuracy[0], 1.0)
        self._robust_axis.tick_values = linear_ticks(limits.accuracy[1], 1.0)
        self._radius.max = limits.radius
        self._radius_axis.tick_values = linear_ticks(0.0, limits.radius)
        self._epoch.max = float(epochs)
        self._epoch_axis.tick_values = [t for t in linear_ticks(0.0, epochs) if t == int(t)]
        # On log axes the bound sigma_x sigma_p = 1/2 is a straight line: its ends are enough.
        x = np.geomspace(*limits.position, _BOUND_POINTS)
        with self._bound.hold_sync():
            self._bound.x = x.astype(np.float32)
            self._bound.y = (0.5 / x).astype(np.float32)

    def close(self) -> None:
        """Close every widget of the figures."""
        for figure in self.figures.values():
            for axis in figure.axes:
                axis.scale.close()
                axis.close()
            for mark in figure.marks:
                mark.close()
            figure.close()
            # Made by bqplot and ipywidgets, one for each figure.
            for part in (figure.scale_x, figure.scale_y, figure.layout):
                part.close()
        self._excess.close()

    def _named(self, panel: str) -> list[Widget]:
        return [mark for name, mark in self.marks.items() if name.startswith(panel)]


def _lines(scales: dict[str, Widget], *colors: str, **options: object) -> bq.Lines:
    return bq.Lines(x=_EMPTY, y=_EMPTY, scales=scales, colors=list(colors), **options)


def _dots(scales: dict[str, Widget]) -> bq.Scatter:
    return bq.Scatter(
        x=_EMPTY,
        y=_EMPTY,
        scales=scales,
        colors=[_FRONT],
        default_size=22,
        default_opacities=[0.5],
        stroke_width=0,
    )


def _dot(scales: dict[str, Widget], color: str, size: int) -> bq.Scatter:
    return bq.Scatter(
        x=_EMPTY,
        y=_EMPTY,
        scales=scales,
        colors=[color],
        stroke=color,
        stroke_width=2.5,
        default_size=size,
    )


def _axis(scale: Widget, label: str, **options: object) -> bq.Axis:
    vertical = options.get("orientation") == "vertical"
    return bq.Axis(
        scale=scale,
        label=label,
        grid_lines="solid",
        **{"tick_format": "~g", "label_offset": "38px" if vertical else "32px", **options},
    )


def _figure(marks: list[Widget], axes: list[Widget]) -> bq.Figure:
    return bq.Figure(
        marks=marks,
        axes=axes,
        animation_duration=0,
        # Its icons are glyphs of a font that an exported page does not have.
        display_toolbar=False,
        layout={"width": "100%", "height": "330px"},
        min_aspect_ratio=0.2,
        max_aspect_ratio=8.0,
        fig_margin={"top": 12, "bottom": 46, "left": 58, "right": 14},
        background_style={"fill": "none"},
        padding_x=0.0,
        padding_y=0.0,
    )
