"""Wire: what a large grid sends to the browser while it trains, and whether sliders stay smooth.

Run it as ``python benchmarks/wire.py`` (a quarter of an hour). An Explorer in a real JupyterLab
trains 16 x 16 networks for 200 epochs; few images keep that short, and change neither the size of
the cube nor of a message. At every quarter it prints the bytes that came and went, each epoch and
with the presses, and the time of a redraw as ``benchmarks/redraw.py`` takes it: an
epoch that is drawn soon after a press counts as its change. It fails if an epoch of the last
quarter costs a tenth more bytes than one of the first: then more is sent than what is new.
"""

from __future__ import annotations

import argparse
import sys
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from redraw import BLOCK, EXPLORER, press_keys, recording_lab

if TYPE_CHECKING:
    from playwright.sync_api import Page

TWO_PANELS = EXPLORER[0]
QUIET = 200
STEPS = 4  # of a slider between two networks, as in js/src/controls.ts
FIRST = 5  # until then neighbouring networks may agree on all test images
GROWTH = 0.1  # of the bytes an epoch, what is too much
CELL = """
import numpy as np
import qwidgets as qw
axis = np.linspace(0, 0.8, {side}).tolist()
explorer = qw.Explorer(epsilon=axis, regularization=axis, epochs={epochs}, train_size=100,
                       test_size=100)
explorer
"""


REACHED = """
epoch => {
  const words = document.querySelector('.qw-status').textContent;
  const found = words.match(/Epoch (\\d+) of|Trained (\\d+) epochs/);
  const now = found ? Number(found[1] ?? found[2]) : 0;
  return now >= epoch && now;
}
"""
PATIENCE = 30 * 60_000  # ms


def reach(page: Page, epoch: int) -> int:
    """Wait until this epoch, or a later one that is returned, is being trained or all is done."""
    seen = page.wait_for_function(REACHED, arg=epoch, polling=200, timeout=PATIENCE)
    return int(seen.json_value())


def main() -> int:
    """Train, count and press."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=16, help="networks along each slider")
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--presses", type=int, default=20, help="timed presses a quarter")
    options = parser.parse_args()
    if (options.side - 1) * STEPS < BLOCK:
        fewest = -(-BLOCK // STEPS) + 1
        parser.error(
            f"--side must be at least {fewest}, got {options.side}: {BLOCK} presses to one side "
            "would reach the end of the slider"
        )
    if options.epochs < 2 * FIRST:
        parser.error(f"--epochs must be at least {2 * FIRST}, got {options.epochs}")
    each = []
    with recording_lab() as (lab, wire):
        cells = (CELL.format(side=options.side, epochs=options.epochs),)
        with lab.notebook(cells, viewport={"width": 1600, "height": 1100}) as notebook:
            page, opened = notebook.page, wire.count
            notebook.run(timeout=300)
            page.locator(TWO_PANELS.panels).nth(TWO_PANELS.count - 1).wait_for()
            now = reach(page, FIRST)
            print(f"{(wire.count - opened) / 1e6:8.2f} MB until epoch {now} is being trained")
            page.evaluate("selector => redrawRecorder.watch(selector)", TWO_PANELS.panels)
            page.locator(TWO_PANELS.slider).first.focus()
            marks = np.linspace(FIRST, options.epochs, 5).astype(int).tolist()
            for begin, end in pairwise(marks):
                first, before = now, wire.count
                elapsed = press_keys(page, TWO_PANELS, QUIET, options.presses)
                median, tail = np.percentile(elapsed, [50, 95])
                now = reach(page, end)
                each.append((wire.count - before) / (now - first))
                print(
                    f"{each[-1] / 1e6:8.3f} MB an epoch from {first} to {now}; redraw at epoch "
                    f"{begin}: {median:.1f} / {tail:.1f} ms (median / 95th)",
                    flush=True,
                )
            problem = notebook.execute("print(explorer.problem or '')").strip()
            errors = [*notebook.errors, *([problem] if problem else [])]
    for error in errors:
        print(f"error: {error}")
    grown = each[-1] > (1 + GROWTH) * each[0]
    if grown:
        print(f"an epoch costs {each[-1] / each[0]:.2f} times the bytes that it cost at first")
    return 1 if errors or grown else 0


if __name__ == "__main__":
    sys.exit(main())
