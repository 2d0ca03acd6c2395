"""Runs a sweep on a worker thread and reports to one listener."""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import closing, contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from contextlib import AbstractContextManager

    from qwidgets.sweep import Progress, Sweep

Phase = Literal["empty", "preparing", "training", "paused", "done", "cancelled", "failed"]

# Reports a second; more cannot be seen and would crowd the link to the browser.
_RATE = 15.0
# Training gives way to the browser and the notebook, which share the cores with it. The lowest
# ordinary priority: whatever a redraw wakes up runs at once, and beside other busy programs the
# training still goes on (an idle-time priority would starve there, holding Python's lock).
_NICENESS = 19


class Listener(Protocol):
    """Takes the reports of a `Runner`; called on its thread, one call at a time."""

    def on_progress(self, phase: Phase, fraction: float, message: str) -> None:
        """Show how far the run is."""

    def on_epoch(self, sweep: Sweep) -> None:
        """Show what is finished, after every epoch."""


class Runner:
    """One run of a sweep on a thread of its own, which can be paused and cancelled.

    Parameters
    ----------
    start : callable
        Returns the iterator of the sweep. Called on the worker thread, so that what it imports does
        not hold up the notebook.
    listener : Listener
        Takes the reports.
    """

    def __init__(self, start: Callable[[], Generator[Progress]], listener: Listener) -> None:
        self._start = start
        self._listener = listener
        self._go = threading.Event()
        self._go.set()
        self._cancelled = threading.Event()
        self.error: BaseException | None = None
        self._fraction = 0.0
        self._thread = threading.Thread(target=self._run, name="qwidgets-training", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def work_here(self) -> None:
        """Do the work on the calling thread; an interrupt cancels it, as `cancel` does."""
        # Without giving way: this thread goes on with other work, and could not take it back.
        self._run(nullcontext())

    def pause(self) -> None:
        """Stop before the next unit of work."""
        self._go.clear()

    def resume(self) -> None:
        """Go on after `pause`."""
        self._go.set()

    def cancel(self) -> None:
        """End the run before the next unit of work; finished epochs stay."""
        self._cancelled.set()
        self._go.set()

    def join(self, timeout: float | None = None) -> bool:
        """Wait for the end of the run; False if it has not come within ``timeout`` seconds."""
        if self._thread.is_alive():
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self, manner: AbstractContextManager[None] | None = None) -> None:
        report = self._listener.on_progress
        try:
            report("preparing", 0.0, "Preparing: loading PyTorch and the data")
            with manner or giving_way():
                self._train()
        except KeyboardInterrupt:
            report("cancelled", self._fraction, "Interrupted; finished epochs are kept")
        except Exception as error:  # noqa: BLE001 - shown in the widget and raised again by wait()
            self.error = error
            report("failed", 0.0, f"{type(error).__name__}: {error}")

    def _train(self) -> None:
        report = self._listener.on_progress
        last_report, working, resumed, epoch = 0.0, 0.0, time.monotonic(), 0
        with closing(self._start()) as steps:
            for step in steps:
                self._fraction = step.fraction
                if step.sweep is not None:
                    epoch = step.epoch
                    self._listener.on_epoch(step.sweep)
                working += time.monotonic() - resumed
                if not self._go.is_set():
                    report("paused", step.fraction, f"Paused in epoch {step.epoch}")
                    self._go.wait()
                resumed = time.monotonic()
                if self._cancelled.is_set():
                    kept = f"; epochs 0 to {epoch} are kept" if epoch else ""
                    report("cancelled", step.fraction, f"Cancelled in epoch {step.epoch}{kept}")
                    return
                if resumed - last_report >= 1 / _RATE:
                    last_report = resumed
                    left = working * (1 - step.fraction) / max(step.fraction, 1e-3)
                    told = f" · {_duration(left)} left" if working > 1 else ""
                    message = f"Epoch {step.epoch} of {step.epochs}{told}"
                    report("training", step.fraction, message)
        report("done", 1.0, f"Trained {epoch} epochs in {_duration(working)}")


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


@contextmanager
def giving_way() -> Iterator[None]:
    """Let the browser and the notebook go first on the cores that they share with this thread.

    One core is spared, and the thread and those that PyTorch starts from it get a lower priority,
    which they keep: an unprivileged thread cannot raise it again.
    """
    from qwidgets.sweep import one_core_spared  # loads PyTorch

    if sys.platform == "linux":
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
    with one_core_spared():
        yield
