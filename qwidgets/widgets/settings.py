"""What an Explorer is to train or to measure: its settings refused, changed, and begun with."""

from __future__ import annotations

import inspect
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from qwidgets.own import Measurement
    from qwidgets.sweep import Sweep

_DATA = "digits"
_REGULARIZER = "gradient"
# Left to their defaults again where the data change.
_OF_DATA = ("epsilon", "attack_epsilon", "width", "root", "train_size", "test_size")


def refuse_what_is_no_sweep(sweep: object, settings: Mapping[str, Any]) -> None:
    """Refuse what an Explorer cannot show, and settings for what is finished."""
    if sweep is None:
        return
    from qwidgets.own import Measurement
    from qwidgets.sweep import Sweep

    if not isinstance(sweep, (Sweep, Measurement)):
        message = (
            f"sweep must be a Sweep, from qwidgets.sweep(...) or qwidgets.open_sweep(path), or a "
            f"Measurement, from qwidgets.measure(...); got {type(sweep).__name__}."
        )
        raise TypeError(message)
    if settings:
        message = (
            f"a finished sweep takes no settings; got {', '.join(settings)}. Leave out the sweep to"
            " train with them."
        )
        raise TypeError(message)


def settings_of(sweep: Sweep | Measurement | None) -> dict[str, Any]:
    """Return what trains a given sweep again."""
    if sweep is None:
        return {}
    from qwidgets.sweep import Sweep, arguments_of

    return arguments_of(sweep) if isinstance(sweep, Sweep) else {}


def of_models(settings: Mapping[str, Any]) -> bool:
    """Whether models are given that are to be measured and not trained."""
    torch = sys.modules.get("torch")
    model = settings.get("model")
    return "models" in settings or (torch is not None and isinstance(model, torch.nn.Module))


def changed(settings: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Change settings; what was chosen for what has changed is left to its default again."""
    if of_models(changes) != of_models(settings) and {"model", "models"} & set(changes):
        # A grid and models of one's own have little to choose in common.
        return dict(changes)
    # A folder holds one sweep, and a new one would be refused there.
    left = {"store"}
    if _differs("data", settings, changes, _DATA):
        left.update(_OF_DATA)
        # Of the other data with a name none has fields for answers.
        if settings.get("model") == "encoder_decoder" and isinstance(changes["data"], str):
            left.update(("model", "learning_rate"))
    if _differs("regularizer", settings, changes, _REGULARIZER):
        left.add("regularization")
    if "model" in changes:
        left.add("learning_rate")
    return {name: value for name, value in settings.items() if name not in left} | dict(changes)


def iterate(settings: Mapping[str, Any]) -> Generator[Any]:
    """Start a sweep or a measurement; refuses wrong settings at once.

    It loads PyTorch, so plain `Explorer()` leaves it to its worker, and the controls are on the
    page before. Whoever names settings gets a wrong one refused in the cell that named it.
    """
    if not of_models(settings):
        from qwidgets.sweep import iterate_sweep

        return iterate_sweep(**settings)
    from qwidgets.own import iterate_measurement

    given = dict(settings)
    models = given.pop("models", None)
    model = given.pop("model", None)
    if models is not None and model is not None:
        message = "model and models are the same choice; pass one of them."
        raise TypeError(message)
    if "data" not in given:
        message = (
            "data must be given with models of your own; pass data=dataset, from "
            "qwidgets.Dataset.from_arrays(inputs, labels) or qwidgets.load_data(name)."
        )
        raise TypeError(message)
    known = inspect.signature(iterate_measurement).parameters
    for name in given:
        if name not in known or name == "models":
            message = (
                f"{name} is nothing that models of your own are measured with; take it out. "
                f"Explorer(data=..., {name}=...) without models trains a grid."
            )
            raise TypeError(message)
    return iterate_measurement(model if models is None else models, **given)


def _differs(
    name: str, settings: Mapping[str, Any], changes: Mapping[str, Any], default: str
) -> bool:
    before = settings.get(name, default)
    return bool(changes.get(name, before) != before)
