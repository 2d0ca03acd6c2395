"""Where numbers come from: in words, and as the command that makes them again."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from qwidgets.views import one_line

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qwidgets.plan import SweepSettings


def sources(attributes: Mapping[str, Any]) -> str:
    """Say with what the networks were trained and on which data.

    Parameters
    ----------
    attributes : mapping
        Attributes of the cube of a sweep.
    """
    versions = ", ".join(f"{name} {version}" for name, version in attributes["versions"].items())
    name = one_line(str(attributes["data"]))
    return (
        f"Made with {versions}; seed {attributes['seed']}. Data: {name}, checksum"
        f" {attributes['data_checksum']}."
    )


def command(settings: SweepSettings) -> str:
    """Write the Python that trains and measures the same networks again.

    Every setting is spelt out, so that no default of another version can change it. Data and models
    of one's own have to be put in, where the command says so.

    Parameters
    ----------
    settings : SweepSettings
        Of the sweep.
    """
    from qwidgets.plan import OWN_MODEL, RADII  # loads PyTorch

    lines = []
    for name, value in asdict(settings).items():
        if name == "data" and value not in RADII:
            lines.append(f"data=data,  # your own, named {value!r}: Dataset.from_arrays(...)")
        elif name == "model" and value == OWN_MODEL:
            lines.append("model=model,  # your own: a function that returns a new torch.nn.Module")
        else:
            lines.append(f"{name}={value!r},")
    arguments = "\n".join(f"    {line}" for line in lines)
    return f"import qwidgets as qw\n\nsweep = qw.sweep(\n{arguments}\n)\n"
