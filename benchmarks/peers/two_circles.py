"""The least that a press can change: a circle in each of two panels, moved where the key arrives.

Nothing is computed, and the kernel is never asked. What is left is the page's own frame, which
whatever is drawn in a notebook has to wait for.
"""

from __future__ import annotations

import anywidget
import stage

_MODULE = f"""
function render({{el}}) {{
  el.innerHTML = `<input class="floor-slider" type="range" max="{stage.STEPS - 1}" value="0">
    <svg class="floor-panel" width="{stage.WIDTH}" height="{stage.HEIGHT}"></svg>
    <svg class="floor-panel" width="{stage.WIDTH}" height="{stage.HEIGHT}"></svg>`;
  const slider = el.querySelector('input');
  slider.dataset.lmSuppressShortcuts = 'true';  // else an arrow is the notebook's
  const circles = [...el.querySelectorAll('svg')].map((panel) => {{
    const circle = document.createElementNS('http://www.w3.org/2000/svg', 'circle');
    circle.setAttribute('r', 6);
    circle.setAttribute('cy', {stage.HEIGHT // 2});
    panel.append(circle);
    return circle;
  }});
  slider.addEventListener('input', () => {{
    for (const circle of circles) circle.setAttribute('cx', 10 + 5 * Number(slider.value));
  }});
}}
export default {{render}};
"""


class _TwoCircles(anywidget.AnyWidget):
    _esm = _MODULE


def view() -> anywidget.AnyWidget:
    """Slider above the two panels."""
    return _TwoCircles()
