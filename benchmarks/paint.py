"""First paint: how long from Shift+Enter to the first panels of an Explorer.

Run it as ``python benchmarks/paint.py``. Each run opens a notebook with a fresh kernel and a fresh
page in a real JupyterLab and presses Shift+Enter on a cell that imports the package and displays an
Explorer, which then imports PyTorch and trains. Beside it stands a bare bqplot figure in such a
cell: what the front ends that are shared cost by themselves. Every number comes from one run on one
machine.

Times are taken inside the page, from the `timeStamp` of the trusted keydown event to the end of the
frame that first shows:

- the frame: all controls and panels in their places, with words in place of the plots;
- the figures: the axes of all of them;
- the numbers: the first finished epoch, which also needs PyTorch, the data, a model and its
  measurement.

The end of the cell is when the kernel says so. Layout shifts are what the browser itself records as
such after the frame was there, except those it lays to a recent press of a key.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))

from ui.lab import temporary_lab  # noqa: E402
from ui.paint import RECORDER  # noqa: E402

if TYPE_CHECKING:
    from ui.lab import Lab

EXPLORER = "import qwidgets as qw\nqw.Explorer()"
PEER = """
import bqplot as bq
x = bq.LinearScale()
bq.Figure(marks=[bq.Lines(x=[0, 1], y=[0, 1], scales={"x": x, "y": x})], axes=[bq.Axis(scale=x)])
"""
# What has to be there, for each of the two.
MOMENTS = {
    "frame": ".qw-root .qw-panel",
    "figures": ".qw-robustness .bqplot g.axis text",
    "numbers": ".qw-root:not(.qw-waiting) .qw-now-area[d^=M]",
}
PEER_MOMENTS = {"figures": ".bqplot g.axis text"}


def paint(lab: Lab, cell: str, moments: dict[str, str]) -> dict[str, Any]:
    """Milliseconds from the press to each moment and to the end of the cell, and the shifts."""
    with lab.notebook([cell], viewport={"width": 1400, "height": 1400}) as notebook:
        page = notebook.page
        page.evaluate(RECORDER, moments)
        page.locator(".jp-CodeCell .cm-content").click()
        page.wait_for_timeout(500)
        page.keyboard.press("Shift+Enter")
        page.wait_for_function(
            "count => Object.keys(paintRecorder.seen).length >= count",
            arg=len(moments) + 1,
            timeout=180_000,
        )
        if notebook.errors:
            message = f"console errors: {notebook.errors}"
            raise RuntimeError(message)
        seen: dict[str, Any] = page.evaluate("paintRecorder.report()")
        return seen


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5, help="fresh kernels for each")
    options = parser.parse_args()
    medians: dict[str, dict[str, float]] = {}
    print(f"{'Shift+Enter to, ms; median (slowest)':40}{'Explorer':>18}{'bqplot figure':>18}")
    with temporary_lab() as lab:
        # The first page of a browser fills its caches; so does the first kernel of the machine.
        paint(lab, PEER, PEER_MOMENTS)
        seen = {
            "Explorer": [paint(lab, EXPLORER, MOMENTS) for _ in range(options.runs)],
            "bqplot": [paint(lab, PEER, PEER_MOMENTS) for _ in range(options.runs)],
        }
    for moment in ("cell", *MOMENTS):
        row = f"{'the end of the cell' if moment == 'cell' else f'the {moment}':40}"
        for name, runs in seen.items():
            times = [run["seen"][moment] for run in runs if moment in run["seen"]]
            if times:
                medians.setdefault(name, {})[moment] = float(np.median(times))
                row += f"{np.median(times):>9.0f} ({max(times):5.0f}) "
            else:
                row += f"{'':>17} "
        print(row)
    after = [run["seen"]["figures"] - run["seen"]["cell"] for run in seen["Explorer"]]
    print(f"figures after the end of the cell: {np.median(after):.0f} ms, at most {max(after):.0f}")
    shifts = [shift for run in seen["Explorer"] for shift in run["shifts"]]
    print(f"layout shifts after the frame: {len(shifts)}; {shifts or 'nothing moved'}")
    ratio = medians["Explorer"]["figures"] / medians["bqplot"]["figures"]
    print(f"all figures of the Explorer take {ratio:.1f} times one bare bqplot figure")


if __name__ == "__main__":
    main()
