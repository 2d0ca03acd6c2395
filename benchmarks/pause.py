"""Pause: how long until a click is shown, and until the computation has really stopped.

Run it as ``python benchmarks/pause.py``. In a real JupyterLab an Explorer trains on a thread of the
kernel, with ``--cell`` beside a cell that computes too, and at random moments, epoch 0 included, a
click on *Pause* and later one on *Resume* follow. Every few pauses the training is cancelled the
same way, and begun again. Every number comes from one run on one machine, by its clock: on a busy
one it is the other programs' too.

- Shown: from the click in the page to the frame in which the button says *Resume* (or, after
  *Cancel*, the status says so).
- Stopped: from the click to the last moment at which the training thread used the processor. A
  thread of the kernel that reads the processor time of that thread every few milliseconds tells it;
  page and kernel share the clock of the machine.
"""

from __future__ import annotations

import argparse
import random
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from playwright.sync_api import expect

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))

from ui.lab import temporary_lab  # noqa: E402

if TYPE_CHECKING:
    from ui.lab import Lab, Notebook

# Every change of the processor time of the training's thread, by the clock, into a file: the kernel
# is busy and answers nothing.
WATCH = """
import threading, time
moves = open("moves.txt", "w", buffering=1)
def watch():
    used = {}
    while True:
        for thread in threading.enumerate():
            if thread.name == "qwidgets-training" and thread.native_id:
                try:
                    with open(f"/proc/self/task/{thread.native_id}/schedstat") as file:
                        now = int(file.read().split()[0])
                except OSError:
                    continue
                # Waking up to look whether to go on is no work.
                if now - used.get(thread.native_id, 0) > 300_000:
                    moves.write(f"{1000 * time.time()}\\n")
                    used[thread.native_id] = now
        time.sleep(0.004)
threading.Thread(target=watch, daemon=True).start()
"""
BUSY = """
import time
while not globals().get("enough"):
    sum(range(10_000)); time.sleep(0.005)
"""
SECOND_SHELL = """
while not any("subshell" in thread.name for thread in threading.enumerate()):
    time.sleep(0.05)
"""
CLICK = """
([button, css, text]) => new Promise((resolve, reject) => {
  setTimeout(() => reject(new Error(`${button} was not answered`)), 20_000);
  const root = document.querySelector('.qw-root');
  const clicked = performance.timeOrigin + performance.now();
  const look = () => {
    if (!new RegExp(text).test(root.querySelector(css).textContent))
      return requestAnimationFrame(look);
    const channel = new MessageChannel();
    channel.port1.onmessage = () =>
      resolve([clicked, performance.timeOrigin + performance.now() - clicked]);
    channel.port2.postMessage(null);
  };
  root.querySelector(button).click();
  look();
})
"""
PAUSES_A_CANCEL = 4
PAUSE = [".qw-pause", ".qw-pause", "^Resume"]
RESUME = [".qw-pause", ".qw-pause", "^Pause"]
CANCEL = [".qw-cancel", ".qw-status", "^Cancelled"]


def click(notebook: Notebook, moves: Path, what: list[str]) -> tuple[float, float]:
    """Milliseconds from a click to what it shows and to the last work after it."""
    page = notebook.page
    clicked, shown = page.evaluate(CLICK, what)
    # Longer than the work could go on; a pause that does not hold would be seen.
    page.wait_for_timeout(1200)
    moved = [float(line) - clicked for line in moves.read_text().split()]
    return shown, max(0.0, *moved)


def measure(
    lab: Lab, model: str, count: int, random_: random.Random, cell: str
) -> dict[str, list[tuple[float, float]]]:
    """Shown and stopped, milliseconds, for each click on Pause and on Cancel."""
    cells = [WATCH, f"import qwidgets as qw\ne = qw.Explorer(model={model!r}, epochs=50)\ne", cell]
    moves = lab.root / "moves.txt"
    found: dict[str, list[tuple[float, float]]] = {"Pause": [], "Cancel": []}
    with lab.notebook(cells, viewport={"width": 1400, "height": 1400}) as notebook:
        notebook.run(0, 1)
        page = notebook.page
        page.locator(".qw-plane-attack g.axis").first.wait_for()
        # JupyterLab opens the kernel's second shell, which answers beside a running cell, with the
        # first message of a widget.
        notebook.execute(SECOND_SHELL, timeout=30)
        # Not waited for: it runs as long as the clicks.
        page.evaluate("void window.notebookDriver.run(60, 2).catch(() => {})")
        for number in range(1, count + 1):
            page.wait_for_timeout(random_.uniform(0, 700))
            found["Pause"].append(click(notebook, moves, PAUSE))
            page.evaluate(CLICK, RESUME)
            if number % PAUSES_A_CANCEL == 0:
                page.wait_for_timeout(random_.uniform(0, 1500))
                found["Cancel"].append(click(notebook, moves, CANCEL))
                train = page.locator(".qw-train")
                train.click()
                keep = page.locator(".qw-guard-replace")
                if keep.is_visible():
                    keep.click()
                working = re.compile("^(Preparing|Epoch)")
                expect(page.locator(".qw-status")).to_have_text(working, timeout=60_000)
        if notebook.errors:
            message = f"console errors: {notebook.errors}"
            raise RuntimeError(message)
    return found


def main() -> None:
    """Measure and print the distributions."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=30, help="pauses for each model")
    parser.add_argument("--models", nargs="*", default=["mlp", "conv"], help="what is trained")
    parser.add_argument("--cell", action="store_true", help="run a cell meanwhile")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments")
    options = parser.parse_args()
    print(f"{'from the click, ms: median / 95th / max':40}{'shown':>24}{'stopped':>24}")
    with temporary_lab() as lab:
        for model in options.models:
            moments = random.Random(options.seed)  # noqa: S311
            cell = BUSY if options.cell else ""
            found: Any = measure(lab, model, options.count, moments, cell)
            for button, times in found.items():
                row = f"{f'{model}, {button}, {len(times)} times':40}"
                for some in np.transpose(times):
                    median, tail = np.percentile(some, [50, 95])
                    row += f"{median:>10.0f} /{tail:>5.0f} /{max(some):>5.0f}"
                print(row, flush=True)


if __name__ == "__main__":
    main()
