"""The harness itself, proved on widgets that are not ours."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from .lab import CellError, Notebook

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .conftest import OpenNotebook, OpenOffline
    from .lab import Lab

SLIDER_DRAWS_LINE = """
import bqplot
import ipywidgets

slider = ipywidgets.IntSlider(max=10)
line = bqplot.Lines(
    x=[0.0, 1.0],
    y=[0.0, 0.0],
    scales={"x": bqplot.LinearScale(min=0, max=1), "y": bqplot.LinearScale(min=0, max=10)},
)
slider.observe(lambda change: setattr(line, "y", [0.0, float(change.new)]), "value")
figure = bqplot.Figure(marks=[line], layout={"width": "400px", "height": "300px"})
ipywidgets.VBox([slider, figure])
"""

# The browser decodes the picture: one image library is enough.
MEASURE_PICTURE = """
async (source) => {
  const image = new Image();
  image.src = source;
  await image.decode();
  const {width, height} = image;
  const context = new OffscreenCanvas(width, height).getContext("2d");
  context.drawImage(image, 0, 0);
  const pixels = context.getImageData(0, 0, width, height).data;
  const total = pixels.reduce((sum, value, index) => index % 4 === 3 ? sum : sum + value, 0);
  return {width, height, brightness: total / (3 * width * height)};
}
"""


@pytest.fixture(scope="module")
def drawn(lab: Lab) -> Iterator[Notebook]:
    with lab.notebook(["import sys\nprint(sys.executable)\n6 * 7", SLIDER_DRAWS_LINE]) as notebook:
        notebook.run()
        yield notebook


def _picture(notebook: Notebook, path: Path) -> dict[str, float]:
    source = "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
    measured: dict[str, float] = notebook.page.evaluate(MEASURE_PICTURE, source)
    return measured


def test_cells_run_in_this_interpreter(drawn: Notebook) -> None:
    assert drawn.text(0) == f"{sys.executable}\n42"
    assert [output["output_type"] for output in drawn.outputs(0)] == ["stream", "execute_result"]


def test_key_presses_reach_the_kernel_and_redraw(drawn: Notebook) -> None:
    output = drawn.cell(1)
    path = output.locator("path.line").first
    before = path.get_attribute("d")
    assert before
    output.get_by_role("slider").press("ArrowRight")
    expect(path).not_to_have_attribute("d", before)
    drawn.wait_idle()
    assert json.loads(drawn.execute("print([slider.value, *line.y.tolist()])")) == [1, 0.0, 1.0]
    assert drawn.errors == []


def test_theme_switches_live(drawn: Notebook, tmp_path: Path) -> None:
    brightness = {}
    for theme in ("dark", "light"):
        drawn.set_theme(theme)
        drawn.screenshot(tmp_path / f"{theme}.png")
        brightness[theme] = _picture(drawn, tmp_path / f"{theme}.png")["brightness"]
    assert brightness["dark"] < 100
    assert brightness["light"] > 200


def test_screenshot_of_one_cell_is_its_output(drawn: Notebook, tmp_path: Path) -> None:
    drawn.screenshot(tmp_path / "cell.png", cell=1)
    box = drawn.cell(1).bounding_box()
    assert box is not None
    picture = _picture(drawn, tmp_path / "cell.png")
    assert picture["width"] == pytest.approx(box["width"], abs=1)
    assert picture["height"] == pytest.approx(box["height"], abs=1)


def test_an_error_in_a_cell_is_raised_with_its_traceback(open_notebook: OpenNotebook) -> None:
    notebook = open_notebook("unknown_name", "print('after')")
    with pytest.raises(CellError, match="NameError: name 'unknown_name' is not defined"):
        notebook.run()
    assert notebook.outputs(1) == []
    notebook.run(1)
    assert notebook.text(1) == "after\n"
    with pytest.raises(CellError, match="ZeroDivisionError"):
        notebook.execute("1 / 0")


def test_a_cell_that_does_not_end_is_reported(open_notebook: OpenNotebook) -> None:
    notebook = open_notebook("import threading\nthreading.Event().wait()")
    with pytest.raises(Exception, match=r"run took longer than 0\.2 s"):
        notebook.run(timeout=0.2)


def test_console_errors_are_collected(open_notebook: OpenNotebook) -> None:
    notebook = open_notebook()
    assert notebook.errors == []
    notebook.page.evaluate("console.error('first', 1)")
    notebook.page.evaluate("console.warn('a warning is no error')")
    notebook.page.evaluate("setTimeout(() => { throw new Error('second'); })")
    # A later message: the events arrive in order.
    with notebook.page.expect_console_message(lambda message: message.text == "last"):
        notebook.page.evaluate("setTimeout(() => console.log('last'))")
    first, second = notebook.errors
    assert first.startswith("first 1")
    assert "Error: second" in second


def test_kernel_ends_with_its_notebook(lab: Lab) -> None:
    with lab.notebook([]) as notebook:
        process = int(notebook.execute("import os; print(os.getpid())"))
        os.kill(process, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


def test_jupyter_of_the_user_is_left_alone(open_notebook: OpenNotebook) -> None:
    notebook = open_notebook()
    directories = notebook.execute(
        "import jupyter_core.paths as paths, IPython.paths\n"
        "print(paths.jupyter_config_dir(), paths.jupyter_data_dir(), paths.jupyter_runtime_dir(),"
        " IPython.paths.get_ipython_dir(), sep='\\n')\n"
    ).splitlines()
    root = Path(notebook.execute("print(__import__('os').getcwd())").strip())
    assert len(directories) == 4
    assert all(Path(directory).parent == root.parent for directory in directories)


def test_offline_page_refuses_and_records_every_request(
    tmp_path: Path, offline_page: OpenOffline
) -> None:
    (tmp_path / "beside.js").write_text("window.beside = true;", encoding="utf-8")
    path = tmp_path / "page.html"
    path.write_text(
        """<!doctype html><title>title</title><p>text</p>
        <img src="data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA=">
        <script src="beside.js"></script>
        <script>
          const settled = [fetch("https://example.invalid/fetched").catch(() => "refused")];
          settled.push(new Promise((resolve) => {
            const socket = new WebSocket("wss://example.invalid/socket");
            socket.onclose = () => resolve("closed");
          }));
          window.settled = Promise.all(settled);
        </script>""",
        encoding="utf-8",
    )
    offline = offline_page(path)
    assert offline.page.evaluate("window.settled") == ["refused", "closed"]
    assert sorted(offline.requests) == [
        (tmp_path / "beside.js").as_uri(),
        "https://example.invalid/fetched",
        "wss://example.invalid/socket",
    ]
    assert offline.page.evaluate("window.beside") is None
    assert offline.page.inner_text("p") == "text"
    assert any("ERR_FAILED" in error for error in offline.errors)


def test_offline_page_without_requests_records_none(
    tmp_path: Path, offline_page: OpenOffline
) -> None:
    path = tmp_path / "a page.html"
    path.write_text("<!doctype html><p>text</p>", encoding="utf-8")
    offline = offline_page(path, viewport={"width": 700, "height": 500})
    assert offline.page.evaluate("innerWidth") == 700
    assert (offline.requests, offline.errors) == ([], [])


def test_without_chromium_the_remedy_is_named(tmp_path: Path) -> None:
    # In a process of its own, because Playwright runs once in a process.
    code = "from ui.lab import chromium\nwith chromium(): pass"
    environment = os.environ | {
        "PATH": str(tmp_path),
        "PLAYWRIGHT_BROWSERS_PATH": str(tmp_path),
        "PYTHONPATH": str(Path(__file__).parents[1]),
    }
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode != 0
    assert "run `playwright install chromium` or `apt-get install chromium`" in result.stderr
