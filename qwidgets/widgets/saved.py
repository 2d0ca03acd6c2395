"""What a saved notebook shows of an Explorer where no kernel or front end is there to draw it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qwidgets.widgets.explorer import Explorer

# Every display of an Explorer puts this much into the notebook's file, so the whole plate gives
# way to one panel on large grids.
LARGEST_PICTURE = 120_000


def standstill(explorer: Explorer) -> dict[str, str]:
    """Words and a picture of the present state, by their media types.

    Parameters
    ----------
    explorer : Explorer
        Before its first finished epoch, and of models of your own, there are words only.

    Returns
    -------
    dict of str to str
        ``text/plain``, and ``image/svg+xml`` of at most `LARGEST_PICTURE` bytes.
    """
    state = explorer.run["message"] or explorer.run["phase"]
    if explorer.sweep is None:
        return {"text/plain": f"Explorer: {state}; display it again to keep a picture of it."}
    from qwidgets.figure import figure
    from qwidgets.sweep import Sweep

    if not isinstance(explorer.sweep, Sweep):
        # Figures are drawn of grids.
        return {"text/plain": f"Explorer: {state}."}
    whole = figure(explorer, "all")
    text = {"text/plain": f"Explorer: {state}. {whole.caption}"}
    if len(whole.svg.encode()) <= LARGEST_PICTURE:
        return {**text, "image/svg+xml": whole.svg}
    part = figure(explorer, "plane")
    return (
        {**text, "image/svg+xml": part.svg} if len(part.svg.encode()) <= LARGEST_PICTURE else text
    )
