"""Two plotly FigureWidgets; the kernel observes the slider and updates the traces."""

from __future__ import annotations

from typing import Any

import ipywidgets
import numpy as np
import plotly.graph_objects as go
import stage


def view() -> ipywidgets.Widget:
    """Slider above the two panels."""
    slider = ipywidgets.IntSlider(max=stage.STEPS - 1)
    x, y = stage.position, stage.momentum
    plane = _figure(
        [
            go.Scatter(x=stage.bound_position, y=stage.bound_momentum, mode="lines"),
            go.Scatter(x=x[:, -1], y=y[:, -1], mode="markers", opacity=0.3),
            go.Scatter(x=x[0], y=y[0], mode="lines"),
            go.Scatter(x=x[0, -1:], y=y[0, -1:], mode="markers"),
        ],
        {"type": "log", "range": np.log10(stage.POSITION_LIMITS).tolist()},
        {"type": "log", "range": np.log10(stage.MOMENTUM_LIMITS).tolist()},
    )
    lines = _figure(
        [
            go.Scatter(x=stage.epoch, y=curve, mode="lines", name=name)
            for name, curve in zip(stage.NAMES, stage.curves[0], strict=True)
        ],
        {"range": [0, stage.EPOCHS]},
        {"range": list(stage.CURVE_LIMITS)},
    )

    def redraw(change: Any) -> None:
        step = change.new
        with plane.batch_update():
            trail, here = plane.data[2:]
            trail.x, trail.y = x[step], y[step]
            here.x, here.y = x[step, -1:], y[step, -1:]
        with lines.batch_update():
            for trace, curve in zip(lines.data, stage.curves[step], strict=True):
                trace.y = curve

    slider.observe(redraw, "value")
    return ipywidgets.VBox([slider, ipywidgets.HBox([plane, lines])])


def _figure(traces: list[Any], xaxis: dict[str, Any], yaxis: dict[str, Any]) -> go.FigureWidget:
    size = {"width": stage.WIDTH, "height": stage.HEIGHT}
    return go.FigureWidget(traces, {"xaxis": xaxis, "yaxis": yaxis, **size})
