"""`interactive_output` with inline matplotlib: a new picture of both panels at every step."""

from __future__ import annotations

import ipywidgets
import matplotlib as mpl
import matplotlib.pyplot as plt
import stage


def view() -> ipywidgets.Widget:
    """Slider above the picture of the two panels."""
    mpl.use("module://matplotlib_inline.backend_inline")
    slider = ipywidgets.IntSlider(max=stage.STEPS - 1)
    return ipywidgets.VBox([slider, ipywidgets.interactive_output(_draw, {"step": slider})])


def _draw(step: int) -> None:
    x, y = stage.position, stage.momentum
    size = (2 * stage.WIDTH / 100, stage.HEIGHT / 100)
    _, (plane_axes, lines_axes) = plt.subplots(1, 2, figsize=size, dpi=100)
    plane_axes.loglog(stage.bound_position, stage.bound_momentum)
    plane_axes.scatter(x[:, -1], y[:, -1], alpha=0.3, s=9)
    plane_axes.plot(x[step], y[step])
    plane_axes.plot(x[step, -1:], y[step, -1:], "o")
    plane_axes.set(xlim=stage.POSITION_LIMITS, ylim=stage.MOMENTUM_LIMITS)
    lines_axes.plot(stage.epoch, stage.curves[step].T, label=stage.NAMES)
    lines_axes.set(xlim=(0, stage.EPOCHS), ylim=stage.CURVE_LIMITS)
    lines_axes.legend()
    plt.show()
