"""Jupyter widgets that make the uncertainty principle of neural networks touchable.

The normalised loss of a network, read as a function of the input, behaves like a wave function: the
input is its position, the input gradient (what an attack uses) its momentum. `qwidgets` measures
both for real trained networks and redraws them as a person moves the adversarial radius and the
regularization. Source: Zhang et al., "On the uncertainty principle of neural networks",
arXiv 2205.01493.

Names are loaded on first use: importing the package imports neither torch nor ipywidgets.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qwidgets.architectures import build_model
    from qwidgets.attacks import fgsm, pgd, robust_accuracy, withstands
    from qwidgets.chart import Curve, beside, chart
    from qwidgets.companion import export_html
    from qwidgets.data import Dataset, load_data
    from qwidgets.directions import attack_directions, class_directions, principal_directions
    from qwidgets.domain import Box, Gaussian, Neighborhood
    from qwidgets.figure import Figure, figure
    from qwidgets.lens import Lens, lens
    from qwidgets.models import packet_loss
    from qwidgets.moments import (
        Uncertainty,
        UncertaintyWarning,
        iterate_uncertainty,
        uncertainty,
    )
    from qwidgets.own import Measurement, iterate_measurement, measure
    from qwidgets.progress import progress_bar
    from qwidgets.refine import refine
    from qwidgets.section import Section, section
    from qwidgets.sweep import Sweep, iterate_sweep, open_sweep, sweep
    from qwidgets.tasks import Regression
    from qwidgets.widgets.explorer import Explorer

__version__ = "0.1.0"

_HOME = {
    "Box": "domain",
    "Curve": "chart",
    "Dataset": "data",
    "Explorer": "widgets.explorer",
    "Figure": "figure",
    "Gaussian": "domain",
    "Lens": "lens",
    "Measurement": "own",
    "Neighborhood": "domain",
    "Regression": "tasks",
    "Section": "section",
    "Sweep": "sweep",
    "Uncertainty": "moments",
    "UncertaintyWarning": "moments",
    "attack_directions": "directions",
    "beside": "chart",
    "build_model": "architectures",
    "chart": "chart",
    "class_directions": "directions",
    "export_html": "companion",
    "fgsm": "attacks",
    "figure": "figure",
    "iterate_measurement": "own",
    "iterate_sweep": "sweep",
    "iterate_uncertainty": "moments",
    "lens": "lens",
    "load_data": "data",
    "measure": "own",
    "open_sweep": "sweep",
    "packet_loss": "models",
    "pgd": "attacks",
    "principal_directions": "directions",
    "progress_bar": "progress",
    "refine": "refine",
    "robust_accuracy": "attacks",
    "section": "section",
    "sweep": "sweep",
    "uncertainty": "moments",
    "withstands": "attacks",
}

__all__ = [
    "Box",
    "Curve",
    "Dataset",
    "Explorer",
    "Figure",
    "Gaussian",
    "Lens",
    "Measurement",
    "Neighborhood",
    "Regression",
    "Section",
    "Sweep",
    "Uncertainty",
    "UncertaintyWarning",
    "attack_directions",
    "beside",
    "build_model",
    "chart",
    "class_directions",
    "export_html",
    "fgsm",
    "figure",
    "iterate_measurement",
    "iterate_sweep",
    "iterate_uncertainty",
    "lens",
    "load_data",
    "measure",
    "open_sweep",
    "packet_loss",
    "pgd",
    "principal_directions",
    "progress_bar",
    "refine",
    "robust_accuracy",
    "section",
    "sweep",
    "uncertainty",
    "withstands",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        msg = f"module 'qwidgets' has no attribute {name!r}; public names: {', '.join(__all__)}"
        raise AttributeError(msg)
    value = getattr(import_module(f"qwidgets.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


class _Package(ModuleType):
    """Keeps `qwidgets.chart`, `qwidgets.figure` and others the functions that they are.

    Python binds a submodule to its package when it is first imported, which would put the module
    in the place of the public function of the same name.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
