"""The long work of an Explorer in the words of a `Job`: train a grid, refine a point, measure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qwidgets.views import count
from qwidgets.widgets.runner import Job

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from qwidgets.own import Measurement, MeasurementProgress
    from qwidgets.sweep import Progress, Sweep


def training(
    start: Callable[[], Generator[Progress]], show: Callable[[Sweep], None]
) -> Job[Progress]:
    """Train a grid; ``show`` takes every finished epoch."""
    last, taken = _epochs(show)
    return Job(
        phase="training",
        start=start,
        show=taken,
        place=lambda step: f"epoch {step.epoch}",
        title=lambda step: f"Epoch {step.epoch} of {step.epochs}",
        kept=lambda: f"; epochs 0 to {last()} are kept" if last() else "",
        done=lambda: f"Trained {count(last(), 'epoch')}",
    )


def refining(
    start: Callable[[], Generator[Progress]], show: Callable[[Sweep], None], name: str
) -> Job[Progress]:
    """Train one more network, ``name``; ``show`` takes every finished epoch."""
    last, taken = _epochs(show)
    return Job(
        phase="refining",
        start=start,
        show=taken,
        place=lambda step: f"epoch {step.epoch} of refining {name}",
        title=lambda step: f"Refining {name}: epoch {step.epoch} of {step.epochs}",
        kept=lambda: f"; {last()} of its epochs are kept" if last() else "",
        done=lambda: f"Refined {name} by {count(last(), 'epoch')}",
    )


def measuring(
    start: Callable[[], Generator[MeasurementProgress]], show: Callable[[Measurement], None]
) -> Job[MeasurementProgress]:
    """Measure models of one's own; ``show`` takes those measured so far."""
    measured: list[str] = []

    def taken(step: MeasurementProgress) -> None:
        if step.measurement is not None:
            measured[:] = step.measurement.names
            show(step.measurement)

    return Job(
        phase="measuring",
        start=start,
        show=taken,
        place=lambda step: f"measuring {step.name}",
        title=lambda step: f"Measuring {step.name}: {step.fraction:.0%}",
        kept=lambda: f"; {count(len(measured), 'model')} measured" if measured else "",
        done=lambda: f"Measured {count(len(measured), 'model')}",
    )


def _epochs(
    show: Callable[[Sweep], None],
) -> tuple[Callable[[], int], Callable[[Progress], None]]:
    """Show every finished epoch, and know which was the last."""
    last = 0

    def taken(step: Progress) -> None:
        nonlocal last
        if step.sweep is not None:
            last = step.epoch
            show(step.sweep)

    return lambda: last, taken
