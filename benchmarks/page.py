"""The exported page: how large it is, and how soon it can be used.

Run it as ``python benchmarks/page.py``, or with ``--sweep FOLDER`` for a sweep that is saved. A
page counts as usable when a key press on its first slider has changed what is shown; time runs from
the start of the navigation, in a browser that has not seen the page before. Beside it stands a page
that plotly writes, of two of the same panels with one slider over the epochs, everything inside.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import plotly.graph_objects as go

import qwidgets as qw

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))

from ui.lab import chromium  # noqa: E402

if TYPE_CHECKING:
    import xarray as xr
    from playwright.sync_api import Browser

MEGABYTE = 1e6
# What each page shows when it is drawn, how its slider is moved, and what that changes.
OURS = (
    (
        "document.querySelectorAll('.qw-plane-attack g.object_grp').length > 60"
        " && document.querySelector('.qw-now-area')?.getAttribute('d')?.startsWith('M')"
    ),
    ".qw-epsilon input",
    "document.querySelector('.qw-readout-position').textContent",
)
PLOTLY = (
    (
        "document.querySelectorAll('.scatterlayer .point').length > 60"
        " && document.querySelector('.slider-grip-rect')"
    ),
    ".slider-rail-touch-rect",
    "document.querySelector('.scatterlayer .point').getAttribute('transform')",
)


def plotly_page(cube: xr.Dataset, path: Path) -> None:
    """Write uncertainty plane and training curves of the clean network, a frame for each epoch."""

    def traces(epoch: int) -> list[go.Scatter]:
        now = cube.isel(epoch=epoch, label=0)
        plane = go.Scatter(
            x=now.position_std.values.ravel(), y=now.momentum_std.values.ravel(), mode="markers"
        )
        curve = go.Scatter(y=cube.clean_accuracy.values[0, 0], xaxis="x2", yaxis="y2")
        return [plane, curve]

    epochs = range(cube.sizes["epoch"])
    steps = [
        {"method": "animate", "args": [[str(epoch)], {"mode": "immediate"}]} for epoch in epochs
    ]
    layout = {
        "xaxis": {"domain": [0, 0.45]},
        "xaxis2": {"domain": [0.55, 1]},
        "yaxis2": {"anchor": "x2"},
        "sliders": [{"steps": steps, "active": len(epochs) - 1}],
    }
    frames = [go.Frame(name=str(epoch), data=traces(epoch)) for epoch in epochs]
    figure = go.Figure(data=traces(len(epochs) - 1), layout=layout, frames=frames)
    figure.write_html(path, include_plotlyjs=True)


def measure(browser: Browser, path: Path, handles: tuple[str, str, str], runs: int) -> list[float]:
    """Milliseconds until the page is drawn and has answered, each in a fresh context."""
    drawn, slider, answer = handles
    times = []
    for _ in range(runs):
        context = browser.new_context(viewport={"width": 1400, "height": 1000})
        page = context.new_page()
        page.goto(path.as_uri(), wait_until="commit")
        page.wait_for_function(f"() => {{ {'return ' + drawn} }}")
        before = page.evaluate(answer)
        if slider.endswith("input"):
            page.locator(slider).press("ArrowRight")
        else:
            page.locator(slider).click(position={"x": 40, "y": 5})
        page.wait_for_function(f"before => {answer} !== before", arg=before)
        times.append(page.evaluate("performance.now()"))
        context.close()
    return times


def main() -> None:
    """Measure both pages and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sweep", type=Path, help="a saved sweep instead of the default grid")
    parser.add_argument("--runs", type=int, default=7, help="times that each page is opened")
    options = parser.parse_args()
    sweep = qw.open_sweep(options.sweep) if options.sweep else qw.sweep()
    with tempfile.TemporaryDirectory() as directory, chromium() as browser:
        ours, peer = (Path(directory) / f"{name}.html" for name in ("ours", "peer"))
        qw.export_html(sweep, ours)
        plotly_page(sweep.dataset, peer)
        print(f"{'':34}{'MB':>8}{'usable after, ms':>20}")
        medians = []
        for name, path, handles in (
            ("plotly, two panels, one slider", peer, PLOTLY),
            ("qwidgets, all panels", ours, OURS),
        ):
            times = measure(browser, path, handles, options.runs)
            medians.append(statistics.median(times))
            size = path.stat().st_size / MEGABYTE
            print(f"{name:34}{size:>8.2f}{medians[-1]:>14.0f} (worst {max(times):.0f})")
        ratio = peer.stat().st_size / ours.stat().st_size
        print(
            f"{ratio:.2f} times as small as the peer, {medians[0] / medians[1]:.2f} times as fast"
        )


if __name__ == "__main__":
    main()
