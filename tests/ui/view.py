"""What the browser tests of the notebook and of the page share: one Explorer, seen and handled."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from playwright.sync_api import expect

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Locator, Page

    import qwidgets as qw

    from .lab import Notebook

EPSILON, REGULARIZATION, EPOCHS = [0, 0.1, 0.2], [0, 0.3], 3

# What the marks look like, by name: dots by their places and fills, lines by their paths. The order
# of a figure's children is the order of its marks; the clip path belongs to the marks alone.
GEOMETRY = """
() => {
  const names = {
    plane: ['bound', 'networks', 'trail', 'reference', 'error', 'now'],
    tradeoff: ['networks', 'front', 'reference', 'error', 'now'],
    curves: ['clean', 'robust', 'epoch'],
    robustness: ['band', 'lines', 'radius'],
    neighborhood: ['bound', 'networks', 'trail', 'reference', 'error', 'now'],
  };
  const result = {};
  for (const [panel, marks] of Object.entries(names)) {
    const place = {plane: 'plane-attack', neighborhood: 'plane-neighborhood'}[panel] ?? panel;
    const groups = document.querySelectorAll(`.qw-${place} svg.svg-figure g[clip-path]`);
    marks.forEach((mark, index) => {
      const group = groups[index];
      if (!group) return;
      const dots = [...group.querySelectorAll('g.object_grp')].map(g => [
        g.getAttribute('transform'), getComputedStyle(g.querySelector('path')).fill]);
      const lines = [...group.querySelectorAll('path.line')].map(p => p.getAttribute('d'));
      result[`${panel}_${mark}`] = JSON.stringify([dots, lines]);
    });
  }
  const canvas = document.querySelector('.qw-phase-body canvas');
  const paths = [...document.querySelectorAll('.qw-now-area')].map(p => p.getAttribute('d'));
  result.phase = paths.join() + canvas.toDataURL();
  return result;
}
"""
SETTLED = """async () => {
  for (let frame = 0; frame < 3; frame++) {
    await new Promise(requestAnimationFrame);
    await new Promise(painted => setTimeout(painted));
  }
}"""
# Networks and the front show the whole grid, the reference the clean network: only what changes
# them moves them.
MOVED = {
    "epsilon": {
        *("plane_trail", "plane_error", "plane_now", "phase"),
        *("tradeoff_error", "tradeoff_now", "curves_clean", "curves_robust"),
        *("robustness_band", "robustness_lines"),
    },
    "label": {
        *("plane_networks", "plane_trail", "plane_reference", "plane_error", "plane_now"),
        "phase",
    },
    "epoch": {
        *("plane_networks", "plane_trail", "plane_reference", "plane_error", "plane_now"),
        *("tradeoff_networks", "tradeoff_front", "tradeoff_reference"),
        *("tradeoff_error", "tradeoff_now", "phase"),
        *("curves_epoch", "robustness_band", "robustness_lines"),
    },
    "attack_epsilon": {
        *("tradeoff_networks", "tradeoff_front", "tradeoff_reference"),
        *("tradeoff_error", "tradeoff_now"),
        *("curves_robust", "robustness_radius"),
    },
}
MOVED["regularization"] = MOVED["epsilon"]


class View:
    """One view of an Explorer in a page, in the words of the person before it."""

    def __init__(self, root: Locator) -> None:
        self.root = root
        self.page: Page = root.page

    def slider(self, name: str) -> Locator:
        return self.root.locator(f".qw-{name.replace('_', '-')} input[type=range]")

    def value(self, name: str) -> Locator:
        return self.root.locator(f".qw-{name.replace('_', '-')} output")

    def readout(self, name: str) -> Locator:
        return self.root.locator(f".qw-readout-{name}")

    @property
    def status(self) -> Locator:
        return self.root.locator(".qw-status")

    @property
    def select(self) -> Locator:
        return self.root.locator(".qw-label select")

    def settle(self) -> None:
        """Wait until what was asked for is on the screen; bqplot itself takes two frames."""
        self.page.evaluate(SETTLED)

    def geometry(self) -> dict[str, str]:
        self.settle()
        seen: dict[str, str] = self.page.evaluate(GEOMETRY)
        return seen

    def wait_drawn(self) -> None:
        """Wait until every panel has its marks."""
        for panel, count in (
            *(("plane-attack", 6), ("tradeoff", 5), ("curves", 3)),
            ("robustness", 3),
        ):
            groups = self.root.locator(f".qw-{panel} svg.svg-figure g[clip-path]")
            expect(groups).to_have_count(count)
        # The first networks of a training may be a while in coming on a busy machine.
        dots = self.root.locator(".qw-plane-attack g.object_grp")
        expect(dots.last).to_be_attached(timeout=60_000)
        expect(self.root.locator(".qw-now-area").first).to_have_attribute("d", re.compile("^M"))

    def now_fill(self, panel: str) -> str:
        dot = self.root.locator(f".qw-{panel} g.object_grp path").last
        fill: str = dot.evaluate("path => getComputedStyle(path).fill")
        return fill


def show(path: Path, name: str = "e") -> str:
    """A cell that shows a saved sweep."""
    return f"import qwidgets as qw\n{name} = qw.Explorer(qw.open_sweep({str(path)!r}))\n{name}"


def first_view(notebook: Notebook, cell: int = 0) -> View:
    view = View(notebook.cell(cell).locator(".qw-root"))
    view.wait_drawn()
    return view


def wait_moved(
    view: View, before: dict[str, str], names: set[str], *, perhaps: frozenset[str] = frozenset()
) -> None:
    """Wait until these marks look different, then check that no others do but those `perhaps`."""
    names = names - perhaps
    view.page.wait_for_function(
        f"([before, names]) => {{ const now = ({GEOMETRY})();"
        " return names.every(name => now[name] !== before[name]); }",
        arg=[before, sorted(names)],
    )
    now = view.geometry()
    # The neighbourhood's marks follow too, where it was measured; they have a test of their own.
    shown = {name for name in now if not name.startswith("neighborhood")}
    assert {name for name in shown if now[name] != before[name]} - perhaps == names


def drag(view: View, name: str, fraction: float) -> None:
    """Drag a slider's thumb to a fraction of its track, in steps, as a hand does."""
    slider = view.slider(name)
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()
    assert box is not None
    now = slider.evaluate("s => (s.value - s.min) / (s.max - s.min)")
    thumb = 18
    x = [box["x"] + thumb / 2 + part * (box["width"] - thumb) for part in (now, fraction)]
    y = box["y"] + box["height"] / 2
    view.page.mouse.move(x[0], y)
    view.page.mouse.down()
    view.page.mouse.move(x[1], y, steps=8)
    view.page.mouse.up()


def significant(value: float) -> str:
    """Three significant digits, as they are printed in the readout."""
    exponent = int(f"{value:.2e}".partition("e")[2])
    return f"{value:.{max(0, 2 - exponent)}f}"


class Saved(NamedTuple):
    sweep: qw.Sweep
    path: Path


def assert_readout(view: View, sweep: qw.Sweep, **choice: Any) -> None:
    """The readout of a grid point says what the cube says, to the printed digits."""
    at = {"epsilon": 0.0, "regularization": 0.0, "label": 0, "epoch": EPOCHS} | choice
    radius = at.pop("attack_epsilon", 0.1)
    numbers = sweep.dataset.sel(attack_epsilon=radius, method="nearest").sel(at, method="nearest")
    for name, variable in (("position", "position_std"), ("momentum", "momentum_std")):
        text = re.compile(rf"^{re.escape(significant(float(numbers[variable])))} ± ")
        expect(view.readout(name)).to_have_text(text)
    product = significant(float(numbers.uncertainty_product))
    expect(view.readout("product")).to_have_text(f"{product} (bound 0.500)")
    for name in ("clean", "robust"):
        value = float(numbers[f"{name}_accuracy"])
        error = float(numbers[f"{name}_accuracy_error"])
        text = re.compile(rf"^{100 * value:.1f}% ± {100 * error:.1f}")
        expect(view.readout(name)).to_have_text(text)
    kind = "untrained network" if at["epoch"] == 0 else "trained network"
    expect(view.readout("kind")).to_have_text(kind)
