"""Two bqplot figures; the kernel observes the slider and sets the marks."""

from __future__ import annotations

from typing import Any

import bqplot
import ipywidgets
import stage


def view() -> ipywidgets.Widget:
    """Slider above the two panels."""
    slider = ipywidgets.IntSlider(max=stage.STEPS - 1)
    plane = {
        "x": bqplot.LogScale(min=stage.POSITION_LIMITS[0], max=stage.POSITION_LIMITS[1]),
        "y": bqplot.LogScale(min=stage.MOMENTUM_LIMITS[0], max=stage.MOMENTUM_LIMITS[1]),
    }
    bound = bqplot.Lines(x=stage.bound_position, y=stage.bound_momentum, scales=plane)
    grid = bqplot.Scatter(
        x=stage.position[:, -1],
        y=stage.momentum[:, -1],
        scales=plane,
        default_size=16,
        opacities=[0.3],
    )
    trail = bqplot.Lines(x=stage.position[0], y=stage.momentum[0], scales=plane, colors=["orange"])
    here = bqplot.Scatter(
        x=stage.position[0, -1:], y=stage.momentum[0, -1:], scales=plane, colors=["orange"]
    )
    lines = bqplot.Lines(
        x=stage.epoch,
        y=stage.curves[0],
        labels=list(stage.NAMES),
        display_legend=True,
        scales={
            "x": bqplot.LinearScale(min=0, max=stage.EPOCHS),
            "y": bqplot.LinearScale(min=stage.CURVE_LIMITS[0], max=stage.CURVE_LIMITS[1]),
        },
    )

    def redraw(change: Any) -> None:
        step = change.new
        # x and y of a mark in one message each: separately they would be drawn twice.
        with trail.hold_sync(), here.hold_sync():
            trail.x, trail.y = stage.position[step], stage.momentum[step]
            here.x, here.y = stage.position[step, -1:], stage.momentum[step, -1:]
        lines.y = stage.curves[step]

    slider.observe(redraw, "value")
    figures = [_figure(bound, grid, trail, here), _figure(lines)]
    return ipywidgets.VBox([slider, ipywidgets.HBox(figures)])


def _figure(*marks: bqplot.Mark) -> bqplot.Figure:
    scales = marks[0].scales
    axes = [
        bqplot.Axis(scale=scales["x"]),
        bqplot.Axis(scale=scales["y"], orientation="vertical"),
    ]
    size = {"width": f"{stage.WIDTH}px", "height": f"{stage.HEIGHT}px"}
    return bqplot.Figure(marks=list(marks), axes=axes, layout=size, animation_duration=0)
