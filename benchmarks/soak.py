"""Soak: minutes of random slider moves, plays, trainings and cancels, and what they leave behind.

Run it as ``python benchmarks/soak.py`` (ten minutes; ``--minutes 1`` for less). A person who never
rests sits before an Explorer in a real JupyterLab; what is done next is drawn by a seeded
generator. It fails if anything on the console, in the widget or in the kernel is an error, if a
thread is left, if the memory of the kernel or of the page grew by more than 10 % after the first
minute, or if a redraw takes 1.5 times as long at the end as at the start.

Memory of the kernel is its unique set size; that of the page its JavaScript heap after a
collection. A redraw is timed in the page, from a move of the slider to the message after the frame
that shows it.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))

from ui.lab import Lab, temporary_lab  # noqa: E402

if TYPE_CHECKING:
    from playwright.sync_api import CDPSession, Page
    from ui.lab import Notebook

CELL = """
import gc, json, os, threading, psutil
import qwidgets as qw
e = qw.Explorer(epsilon=[0, .1, .2], regularization=[0, .1], epochs=4, train_size=300)
e.wait()
e
"""
STATE = """
gc.collect()
print(json.dumps({
    "memory": psutil.Process().memory_full_info().uss,
    "threads": sum(thread.name == "qwidgets-training" for thread in threading.enumerate()),
    "phase": e.run["phase"],
    "problem": e.problem,
}))
"""
# Milliseconds from a key press on a slider to the message after the frame that shows it.
TIMED_PRESS = """
key => new Promise(resolve => {
  const slider = document.querySelector('.qw-epsilon input[type=range]');
  const start = performance.now();
  key === 'ArrowRight' ? slider.stepUp() : slider.stepDown();
  slider.dispatchEvent(new Event('input', {bubbles: true}));
  requestAnimationFrame(() => {
    const after = new MessageChannel();
    after.port1.onmessage = () => resolve(performance.now() - start);
    after.port2.postMessage(null);
  });
})
"""
SLIDERS = ("epsilon", "regularization", "epoch", "attack-epsilon")
KEYS = ("ArrowRight", "ArrowLeft", "PageUp", "PageDown", "Home", "End")
TIMED = 40
LEG = 4  # presses to the right, then as many to the left
GROWTH, SLOWER = 0.1, 1.5  # what is too much


@dataclass(kw_only=True)
class Outcome:
    """What a soak found.

    Attributes
    ----------
    actions
        How many things were done.
    seconds
        How long it took.
    kernel, page
        Bytes after the first part and at the end.
    redraw
        95th percentile of a redraw at the start and at the end, ms.
    threads
        Training threads left when all is cancelled.
    errors
        Everything that went wrong, in words.
    """

    actions: int = 0
    seconds: float = 0.0
    kernel: list[float] = field(default_factory=list)
    page: list[float] = field(default_factory=list)
    redraw: list[float] = field(default_factory=list)
    threads: int = 0
    errors: list[str] = field(default_factory=list)


def soak(lab: Lab, seconds: float, *, settle: float, seed: int = 0) -> Outcome:
    """Handle an Explorer at random.

    Parameters
    ----------
    lab
        Where.
    seconds
        For how long.
    settle
        Seconds until memory is first looked at: what grows once, while code is compiled and caches
        fill, is no leak.
    seed
        Of what is done.
    """
    outcome = Outcome()
    generator = np.random.default_rng(seed)
    with lab.notebook([CELL], viewport={"width": 1500, "height": 1300}) as notebook:
        notebook.run(timeout=300)
        page = notebook.page
        page.locator(".qw-now-area").first.wait_for(state="attached")
        developer = page.context.new_cdp_session(page)
        start = time.monotonic()
        settled = False
        outcome.redraw.append(_redraw(page))
        while (elapsed := time.monotonic() - start) < seconds:
            if not settled and elapsed >= settle:
                settled = True
                _weigh(notebook, developer, outcome)
            _act(page, generator)
            outcome.actions += 1
        _rest(notebook, page)
        outcome.redraw.append(_redraw(page))
        state = _weigh(notebook, developer, outcome)
        outcome.seconds = time.monotonic() - start
        outcome.threads = state["threads"]
        outcome.errors = list(notebook.errors)
        if state["problem"]:
            outcome.errors.append(state["problem"])
        outcome.errors += page.locator(".qw-problem p").all_inner_texts()
        if state["phase"] == "failed":
            outcome.errors.append(page.locator(".qw-status").inner_text())
    return outcome


def _act(page: Page, generator: np.random.Generator) -> None:
    """Do one thing that a person may do."""
    choice = generator.choice(["slide", "class", "play", "run", "read", "plane"], p=_CHANCES)
    if choice == "slide":
        slider = page.locator(f".qw-{generator.choice(SLIDERS)} input[type=range]")
        if slider.is_enabled():
            for _ in range(generator.integers(1, 8)):
                slider.press(str(generator.choice(KEYS)))
    elif choice == "class":
        page.locator(".qw-label select").select_option(index=int(generator.integers(10)))
    elif choice == "plane":
        page.locator(".qw-plane-view").select_option(index=int(generator.integers(2)))
    elif choice == "read":
        box = page.locator(f".qw-{generator.choice(_PANELS)} [tabindex='0']").first.bounding_box()
        if box:
            x, y = generator.uniform(0.1, 0.9, 2)
            page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
    elif choice == "play":
        play = page.locator(".qw-play")
        if play.is_enabled():
            play.click()
    else:
        _press(page, str(generator.choice(["train", "pause", "cancel"])))


_CHANCES = (0.5, 0.08, 0.08, 0.08, 0.2, 0.06)
_PANELS = ("plane", "phase-space", "tradeoff", "curves", "robustness")


def _press(page: Page, button: str) -> None:
    # What is on offer may be gone before it is pressed, because the training goes on.
    page.evaluate(
        """button => {
          const element = document.querySelector(`.qw-run .qw-${button}`);
          if (element && !element.hidden) element.click();
        }""",
        button,
    )


def _rest(notebook: Notebook, page: Page) -> None:
    """End the training, and wait until nothing is on its way."""
    notebook.execute("e.cancel()\nif e._runner is not None: e._runner.join(60)")
    page.mouse.move(5, 5)
    page.wait_for_timeout(1500)
    notebook.wait_idle()


def _redraw(page: Page) -> float:
    elapsed = [
        page.evaluate(TIMED_PRESS, "ArrowLeft" if i // LEG % 2 else "ArrowRight")
        for i in range(2 * TIMED)
    ]
    # The first half warms up.
    return float(np.percentile(elapsed[TIMED:], 95))


def _weigh(notebook: Notebook, developer: CDPSession, outcome: Outcome) -> dict[str, object]:
    state: dict[str, object] = json.loads(notebook.execute(STATE, timeout=120))
    developer.send("HeapProfiler.collectGarbage")
    outcome.kernel.append(float(state["memory"]))  # type: ignore[arg-type]
    outcome.page.append(float(developer.send("Runtime.getHeapUsage")["usedSize"]))
    return state


def main() -> None:
    """Soak, print what was found, and fail if it is not clean."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    seconds = 60 * options.minutes
    with temporary_lab() as lab:
        outcome = soak(lab, seconds, settle=min(60.0, seconds / 2), seed=options.seed)
    print(f"{outcome.actions} actions in {outcome.seconds:.0f} s, {len(outcome.errors)} errors")
    growth = {}
    for name, (first, last) in (("kernel", outcome.kernel), ("page", outcome.page)):
        growth[name] = last / first - 1
        print(f"{name:7} {first / 1e6:8.1f} MB -> {last / 1e6:8.1f} MB  {growth[name]:+.1%}")
    first, last = outcome.redraw
    print(f"redraw  {first:8.1f} ms -> {last:8.1f} ms  95th percentile, {last / first:.2f} times")
    print(f"threads left: {outcome.threads}")
    clean = max(growth.values()) < GROWTH and last < SLOWER * first
    if outcome.errors or outcome.threads or not clean:
        sys.exit("\n".join(["not clean", *outcome.errors]))


if __name__ == "__main__":
    main()
