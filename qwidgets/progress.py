"""Showing how far a long computation is: a bar in a terminal, a bar with a button in a notebook."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator


class Report(Protocol):
    """Callable that takes what to show and says whether to go on."""

    def __call__(self, fraction: float, text: str) -> bool:
        """Show a fraction from 0 to 1 and a short text; False once the user has cancelled."""


@contextmanager
def progress_bar(title: str, *, show: bool = True) -> Iterator[Report]:
    """Show a progress bar while the context lasts, where there is someone to see it.

    In a notebook an ipywidgets bar with a Cancel button, in a terminal a rich bar on standard
    error, elsewhere nothing.

    Parameters
    ----------
    title : str
        What is computed.
    show : bool
        False shows nothing.

    Yields
    ------
    callable
        ``report(fraction, text) -> bool``; False asks to stop.

    Examples
    --------
    >>> import qwidgets as qw
    >>> with qw.progress_bar("Uncertainty") as report:
    ...     u = qw.uncertainty(
    ...         lambda x: x[:, 0].exp(), qw.Gaussian(0, 0.5), target_error=1e-4, progress=report
    ...     )
    """
    if show and _in_notebook():
        bar = _notebook_bar(title)
    elif show and sys.stderr.isatty():
        bar = _terminal_bar(title)
    else:
        yield lambda fraction, text: True  # noqa: ARG005
        return
    with bar as report:
        yield report


def _in_notebook() -> bool:
    # No import: a notebook has loaded IPython long before.
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None


@contextmanager
def _terminal_bar(title: str) -> Iterator[Report]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    ) as bar:
        task = bar.add_task(title, total=1.0)

        def report(fraction: float, text: str) -> bool:
            bar.update(task, completed=fraction, description=f"{title}: {text}")
            return True

        yield report


@contextmanager
def _notebook_bar(title: str) -> Iterator[Report]:
    # The kernel runs the button's callback only where it handles widget messages beside the running
    # cell (ipykernel 7 with JupyterLab 4.4); elsewhere interrupting the kernel does the same.
    from IPython.display import display
    from ipywidgets import Button, FloatProgress, HBox, Label

    pressed: list[object] = []
    bar = FloatProgress(max=1.0, description=title, style={"description_width": "initial"})
    label = Label()
    button = Button(description="Cancel", tooltip="Stop and keep the finished epochs")
    button.on_click(pressed.append)
    box = HBox([bar, label, button])
    display(box)
    due = 0.0

    def report(fraction: float, text: str) -> bool:
        nonlocal due
        if time.monotonic() >= due:  # at most ten messages a second
            due = time.monotonic() + 0.1
            bar.value, label.value = fraction, text
        return not pressed

    try:
        yield report
    finally:
        # One by one: `close_all` of a widget closes those of the whole kernel.
        for widget in (box, *box.children):
            for part in (widget.layout, getattr(widget, "style", None), widget):
                if part is not None:
                    part.close()
