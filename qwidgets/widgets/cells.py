"""A notebook cell that is run again takes the place of what it started before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from collections.abc import Hashable

    class Cancellable(Hashable, Protocol):
        """Something that works in the background."""

        def cancel(self) -> None:
            """End the work; what is finished stays."""


# The cell of each, and which of its executions. What a cell started is not found by name any more
# once the cell ran again, but the kernel keeps it, and it would train on unseen.
_started: WeakKeyDictionary[Cancellable, tuple[str, str]] = WeakKeyDictionary()


def supersede(newcomer: Cancellable) -> None:
    """Cancel what earlier executions of the running cell have started; does nothing elsewhere."""
    place = _running_cell()
    if place is None:
        return
    cell, execution = place
    for other, (of_cell, of_execution) in list(_started.items()):
        if of_cell == cell and of_execution != execution:
            other.cancel()
            del _started[other]
    _started[newcomer] = place


def answered_beside_cells(comm: Any) -> None:
    """Let messages of a page take the way that the page has chosen for them.

    JupyterLab sends them to a shell of the kernel that is free while a cell runs. ipykernel 7.4
    leads them from there to the shell in whose name the widget spoke last, which for a training is
    that of the cell that began it: Pause would wait for the end of whatever cell runs.
    """
    if hasattr(comm, "_reply_subshell_for"):
        comm._reply_subshell_for = None  # noqa: SLF001 - there is no public way


def in_a_kernel() -> bool:
    """Whether a front end may be watching."""
    from IPython import get_ipython

    return hasattr(get_ipython(), "get_parent")


def _running_cell() -> tuple[str, str] | None:
    """Identity of the cell and of its execution, where the front end tells them."""
    from IPython import get_ipython

    if not in_a_kernel():
        return None
    request = get_ipython().get_parent()
    cell = request.get("metadata", {}).get("cellId")
    return None if cell is None else (str(cell), str(request["header"]["msg_id"]))
