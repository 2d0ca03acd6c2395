"""Slider to screen: how long until the last pixel that a key press changes has changed.

Run it as ``python benchmarks/redraw.py`` (a quarter of an hour). It opens a real JupyterLab in
Chromium and presses the arrow keys on a focused slider: with the kernel idle, while the kernel
trains in a thread that gives way as the Explorer's own worker does, and while it trains in an
ordinary thread. The Explorer, whose sliders never ask the kernel, stands beside the same two panels
(the uncertainty plane and the training curves) drawn through the kernel with bqplot, plotly, ipympl
and inline matplotlib. First of all comes what nothing in a notebook can beat, the page's own frame:
two circles that move where the key arrives. Every number comes from one run on one machine.

How a press is timed, inside the page:

- It starts at the `timeStamp` of the trusted keydown event, when the browser received the key, so
  that waiting for a busy page counts.
- A panel changes when an attribute, a text or a child in it becomes different, when a picture in it
  has loaded, while one of its animations runs, or when the pixels of one of its canvases differ
  after something was drawn there. Writing the same value again is no change.
- The change is on the screen when the main thread has finished painting the frame that shows it: a
  message sent from within that frame's animation callbacks arrives right after. No animation loop
  of our own runs, because it would change the timing of the frames.
- It ends with the last such frame, once every panel has changed and none does for a while.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))

from ui.lab import Lab, temporary_lab  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Page, WebSocket

FRAME = 1000 / 60
BLOCK = 10  # presses to the right, then as many to the left
WARM_UP = 6

RECORDER = """
(() => {
  const requestFrame = window.requestAnimationFrame.bind(window);
  const afterFrame = new MessageChannel();
  const drawn = new Set();   // canvases drawn to since the last frame
  const dirty = new Set();   // panels changed since the last frame
  const hashes = new Map();
  let panels = [];
  let press = null;
  let inFrame = false;

  // Called first thing in a frame's animation callbacks; the message follows its painting.
  const enterFrame = () => {
    if (inFrame) return;
    inFrame = true;
    afterFrame.port2.postMessage(null);
  };
  window.requestAnimationFrame = (callback) => requestFrame((time) => {
    enterFrame();
    return callback(time);
  });
  const wantFrame = () => { if (!inFrame) requestFrame(enterFrame); };

  const hash = (canvas) => {
    const {width, height} = canvas;
    if (!width || !height) return 0;
    const pixels = canvas.getContext('2d').getImageData(0, 0, width, height).data;
    const words = new Uint32Array(pixels.buffer);
    let value = 0;
    for (const word of words) value = (Math.imul(value, 31) + word) | 0;
    return value;
  };

  afterFrame.port1.onmessage = () => {
    const now = performance.now();
    inFrame = false;
    for (const canvas of drawn) {
      const value = hash(canvas);
      if (hashes.get(canvas) !== value) {
        hashes.set(canvas, value);
        dirty.add(panels.find((panel) => panel.contains(canvas)));
      }
    }
    drawn.clear();
    const changed = [...dirty];
    dirty.clear();
    if (press && press.start !== null) {
      for (const panel of changed) press.painted.set(panel, now);
    }
    for (const panel of panels) {
      if (panel.getAnimations({subtree: true}).some((it) => it.playState === 'running')) {
        dirty.add(panel);
      }
    }
    if (dirty.size) wantFrame();
  };

  const differs = (record) => {
    if (record.type === 'attributes') {
      return !record.attributeName.startsWith('aria-')
        && record.target.getAttribute(record.attributeName) !== record.oldValue;
    }
    return record.type === 'childList' || record.target.data !== record.oldValue;
  };

  for (const name of ['clearRect', 'drawImage', 'fill', 'fillRect', 'fillText', 'putImageData',
                      'stroke', 'strokeRect', 'strokeText']) {
    const original = CanvasRenderingContext2D.prototype[name];
    CanvasRenderingContext2D.prototype[name] = function (...given) {
      if (panels.some((panel) => panel.contains(this.canvas))) {
        drawn.add(this.canvas);
        wantFrame();
      }
      return original.apply(this, given);
    };
  }

  window.addEventListener('keydown', (event) => {
    if (press && press.start === null && event.isTrusted) press.start = event.timeStamp;
  }, true);

  window.redrawRecorder = {
    watch(selector) {
      panels = [...document.querySelectorAll(selector)];
      for (const panel of panels) {
        new MutationObserver((records) => {
          if (!records.some(differs)) return;
          dirty.add(panel);
          wantFrame();
        }).observe(panel, {
          subtree: true, childList: true, attributes: true, attributeOldValue: true,
          characterData: true, characterDataOldValue: true,
        });
        panel.addEventListener('load', () => { dirty.add(panel); wantFrame(); }, true);
        for (const canvas of panel.querySelectorAll('canvas')) hashes.set(canvas, hash(canvas));
      }
      return panels.length;
    },
    arm() { press = {start: null, painted: new Map()}; },
    settled: (quiet, limit) => new Promise((resolve) => {
      const armed = performance.now();
      const look = () => {
        const now = performance.now();
        const last = Math.max(...press.painted.values());
        const complete = press.painted.size === panels.length && now - last >= quiet;
        if (!complete && now - armed < limit) return setTimeout(look, 20);
        const unchanged = panels.flatMap((panel, i) => press.painted.has(panel) ? [] : [i]);
        resolve({elapsed: last - press.start, unchanged});
      };
      look();
    }),
  };
})();
"""

_PEER_SLIDER = ".jp-OutputArea .noUi-handle"
_EXPLORER_SLIDER = ".qw-epsilon input[type=range]"
_TWO_PANELS = (".qw-plane", ".qw-curves")
_ALL_PANELS = (*_TWO_PANELS, ".qw-tradeoff", ".qw-phase-space", ".qw-robustness")
_STAGE = f"import sys\nsys.path.insert(0, {str(HERE / 'peers')!r})\nfrom stage import training"


@dataclass(frozen=True, kw_only=True)
class Load:
    """What the kernel does meanwhile.

    Attributes
    ----------
    cells
        Sources of the notebook's cells; the last one displays slider and panels.
    begin
        Run in the kernel once the panels are there; returns when the load is under way.
    progress
        Expression that must have grown when the measurement ends; none for an idle kernel.
    quiet
        Milliseconds without a change after which a press counts as answered.
    """

    cells: tuple[str, ...]
    begin: str = ""
    progress: str = ""
    quiet: float


@dataclass(frozen=True, kw_only=True)
class Case:
    """One way to draw the panels.

    Attributes
    ----------
    name
        What the table calls it.
    slider
        CSS selector of what takes the key presses.
    panels
        CSS selector of the panels, all of which a press must change.
    count
        How many panels there are.
    idle, training, ordinary
        What the kernel does.
    """

    name: str
    slider: str
    panels: str
    count: int
    idle: Load
    training: Load
    ordinary: Load


def _peer(
    name: str,
    module: str,
    panels: str,
    count: int,
    quiet: tuple[float, float],
    slider: str = _PEER_SLIDER,
) -> Case:
    cells = (_STAGE, f"from {module} import view\nview()")
    return Case(
        name=name,
        slider=slider,
        panels=panels,
        count=count,
        **_loads(cells, quiet),
    )


def _explorer(name: str, panels: tuple[str, ...], more: str = "") -> Case:
    show = f"qw.Explorer(qw.sweep(epochs=4, progress=False){more})"
    cells = (_STAGE, "import qwidgets as qw", show)
    return Case(
        name=name,
        slider=_EXPLORER_SLIDER,
        panels=", ".join(panels),
        count=len(panels),
        **_loads(cells, (200, 200)),
    )


def _loads(cells: tuple[str, ...], quiet: tuple[float, float]) -> dict[str, Load]:
    """Give what the kernel does; it trains another cube than that on the screen, which stays."""

    def training(begin: str) -> Load:
        return Load(cells=cells, begin=begin, progress="training.units", quiet=quiet[1])

    return {
        "idle": Load(cells=cells, quiet=quiet[0]),
        "training": training("training.start()"),
        "ordinary": training("training.start(giving_way=False)"),
    }


FLOOR = _peer("the page's own frame", "two_circles", ".floor-panel", 2, (200, 200), ".floor-slider")
PEERS = (
    _peer("bqplot through the kernel", "bqplot_kernel", ".bqplot.figure", 2, (200, 600)),
    _peer("plotly FigureWidget", "plotly_figure", ".js-plotly-plot", 2, (300, 800)),
    _peer("ipympl", "ipympl_canvas", ".jupyter-matplotlib", 2, (300, 1200)),
    _peer(
        "interactive_output, inline matplotlib",
        "interactive_matplotlib",
        ".jupyter-widgets.widget-output",
        1,
        (400, 1200),
    ),
)
EXPLORER = (
    _explorer("Explorer, two panels", _TWO_PANELS, ", panels=['plane', 'curves']"),
    _explorer("Explorer, two of all panels", _TWO_PANELS),
    _explorer("Explorer, all panels", _ALL_PANELS),
)


class Wire:
    """Counts what goes between a page and its kernel.

    Attributes
    ----------
    count
        Bytes so far, both ways.
    """

    def __init__(self, lab: Lab) -> None:
        self.count = 0
        lab.context.on("page", lambda page: page.on("websocket", self._listen))

    def _listen(self, socket: WebSocket) -> None:
        socket.on("framesent", self._add)
        socket.on("framereceived", self._add)

    def _add(self, payload: str | bytes) -> None:
        self.count += len(payload)


@contextmanager
def recording_lab() -> Iterator[tuple[Lab, Wire]]:
    """Start a JupyterLab whose pages time redraws, and count what they say to their kernels."""
    with temporary_lab() as lab:
        lab.context.add_init_script(RECORDER)
        yield lab, Wire(lab)


def measure(
    lab: Lab, case: Case, load: Load, presses: int, wire: Wire
) -> tuple[list[float], float]:
    """Milliseconds of every timed press, and bytes over the wire for one."""
    with lab.notebook(load.cells, viewport={"width": 1600, "height": 1100}) as notebook:
        notebook.run(timeout=300)
        page = notebook.page
        page.locator(case.panels).nth(case.count - 1).wait_for()
        notebook.wait_idle()
        page.locator(case.slider).first.scroll_into_view_if_needed()
        found = page.evaluate("selector => redrawRecorder.watch(selector)", case.panels)
        if found != case.count:
            message = f"{case.name}: expected {case.count} panels, found {found}"
            raise RuntimeError(message)
        notebook.execute(load.begin, timeout=300)
        progress = f"print({load.progress or 0})"
        before = float(notebook.execute(progress))
        page.locator(case.slider).first.focus()
        counted = wire.count
        elapsed = press_keys(page, case, load.quiet, presses)
        size = (wire.count - counted) / (WARM_UP + presses)
        if load.progress and float(notebook.execute(progress)) <= before:
            message = f"{case.name}: the training did not go on while the keys were pressed"
            raise RuntimeError(message)
        if notebook.errors:
            message = f"{case.name}: console errors: {notebook.errors}"
            raise RuntimeError(message)
        return elapsed, size


def press_keys(page: Page, case: Case, quiet: float, presses: int) -> list[float]:
    """Milliseconds of every timed press; ``quiet`` as in `Load`."""
    elapsed = []
    for press in range(-WARM_UP, presses):
        key = "ArrowRight" if (press + WARM_UP) // BLOCK % 2 == 0 else "ArrowLeft"
        page.evaluate("redrawRecorder.arm()")
        page.keyboard.press(key)
        wait = "([quiet, limit]) => redrawRecorder.settled(quiet, limit)"
        outcome: dict[str, Any] = page.evaluate(wait, [quiet, quiet + 10_000])
        if outcome["unchanged"]:
            message = (
                f"{case.name}: press {press} ({key}) left panels {outcome['unchanged']} of "
                f"{case.panels!r} as they were"
            )
            raise RuntimeError(message)
        if press >= 0:
            elapsed.append(outcome["elapsed"])
    return elapsed


def main() -> None:
    """Measure, print the table and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--presses", type=int, default=40, help="timed presses a case and load")
    parser.add_argument("--only", default="", help="run the cases whose name contains this")
    options = parser.parse_args()
    cases = [case for case in (FLOOR, *PEERS, *EXPLORER) if options.only in case.name]
    tails: dict[tuple[str, str], float] = {}
    heads = ("kernel idle", "training", "ordinary thread")
    titles = "".join(f"{head:>18}" for head in heads)
    print(f"{'slider to last changed pixel, ms':40}{titles}{'bytes':>12}")
    below = f"{'median / 95th':>18}" * len(heads)
    print(f"{'':40}{below}{'a press':>12}")
    with recording_lab() as (lab, wire):
        for case in cases:
            row = f"{case.name:40}"
            for load in (case.idle, case.training, case.ordinary):
                elapsed, size = measure(lab, case, load, options.presses, wire)
                if load is case.idle:
                    quiet_size = size
                median, tail = np.percentile(elapsed, [50, 95])
                tails[case.name, load.begin] = tail
                row += f"{median:>10.1f} / {tail:<5.1f}"
            print(f"{row}{quiet_size:>12.0f}", flush=True)
    for case in EXPLORER:
        if case not in cases:
            continue
        own = tails[case.name, case.training.begin]
        print(f"{case.name}: 95th percentile while training {own / FRAME:.2f} frames")
        for words, load in (("training", case.training), ("ordinary thread", case.ordinary)):
            peers = [tails[peer.name, load.begin] for peer in PEERS if peer in cases]
            if peers:
                times = min(peers) / tails[case.name, load.begin]
                print(f"  {words}: {times:.1f} times faster than the best kernel-driven peer")


if __name__ == "__main__":
    main()
