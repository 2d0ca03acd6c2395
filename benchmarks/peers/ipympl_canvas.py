"""Two ipympl canvases; the kernel observes the slider and draws with matplotlib."""

from __future__ import annotations

from typing import Any

import ipywidgets
import matplotlib as mpl
import matplotlib.pyplot as plt
import stage


def view() -> ipywidgets.Widget:
    """Slider above the two panels."""
    mpl.use("module://ipympl.backend_nbagg")
    slider = ipywidgets.IntSlider(max=stage.STEPS - 1)
    x, y = stage.position, stage.momentum
    size = (stage.WIDTH / 100, stage.HEIGHT / 100)
    with plt.ioff():
        plane, plane_axes = plt.subplots(figsize=size, dpi=100)
        lines, lines_axes = plt.subplots(figsize=size, dpi=100)
    plane_axes.loglog(stage.bound_position, stage.bound_momentum)
    plane_axes.scatter(x[:, -1], y[:, -1], alpha=0.3, s=9)
    (trail,) = plane_axes.plot(x[0], y[0])
    (here,) = plane_axes.plot(x[0, -1:], y[0, -1:], "o")
    plane_axes.set(xlim=stage.POSITION_LIMITS, ylim=stage.MOMENTUM_LIMITS)
    traces = lines_axes.plot(stage.epoch, stage.curves[0].T, label=stage.NAMES)
    lines_axes.set(xlim=(0, stage.EPOCHS), ylim=stage.CURVE_LIMITS)
    lines_axes.legend()

    def redraw(change: Any) -> None:
        step = change.new
        trail.set_data(x[step], y[step])
        here.set_data(x[step, -1:], y[step, -1:])
        for trace, curve in zip(traces, stage.curves[step], strict=True):
            trace.set_ydata(curve)
        plane.canvas.draw_idle()
        lines.canvas.draw_idle()

    slider.observe(redraw, "value")
    return ipywidgets.VBox([slider, ipywidgets.HBox([plane.canvas, lines.canvas])])
