"""What goes wrong, and what ends: errors, closed widgets, lost kernels, cells that run again."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from .view import EPOCHS, View, assert_readout, drag, first_view, show

if TYPE_CHECKING:
    from .conftest import OpenNotebook
    from .lab import Notebook
    from .view import Saved

TALL = {"width": 1400, "height": 1500}
TWO = {"width": 1400, "height": 2600}
ENDLESS = "epsilon=[0, .1], regularization=[0], epochs=800, test_size=40"
THREADS = """
import threading
print(sum(t.name == "qwidgets-training" for t in threading.enumerate()))
"""
# A training ends after the piece of work at hand: wait for that, not for a time.
JOIN = """
import threading
for thread in threading.enumerate():
    if thread.name == "qwidgets-training":
        thread.join(20)
"""
RESTART = """async () => {
  const {session} = window.notebookDriver.panel.sessionContext;
  await session.kernel.restart();
  await session.kernel.info;
}"""


def threads(notebook: Notebook) -> int:
    return int(notebook.execute(THREADS))


# Nothing swallowed


def test_an_error_of_an_observer_is_shown_and_the_rest_works(
    open_notebook: OpenNotebook, saved: Saved
) -> None:
    notebook = open_notebook(show(saved.path), viewport=TALL)
    notebook.run(0)
    view = first_view(notebook)
    notebook.execute(
        "seen = []\n"
        "def broken(change):\n"
        "    raise RuntimeError(f'no such radius: {change.new:.2f}')\n"
        "e.observe(broken, 'epsilon')\n"
        "e.observe(lambda change: seen.append(change.new), 'label')"
    )
    drag(view, "epsilon", 0.5)
    problem = view.root.locator(".qw-problem")
    expect(problem).to_contain_text("RuntimeError: no such radius: 0.10")
    assert_readout(view, saved.sweep, epsilon=0.1)
    # The next one takes its place; other observers are told.
    drag(view, "epsilon", 1.0)
    expect(problem).to_contain_text("no such radius: 0.20")
    expect(problem).to_have_count(1)
    view.select.select_option("2")
    notebook.page.wait_for_timeout(500)
    assert notebook.execute("print(seen, e.epsilon)") == "[2] 0.2\n"
    # It is there also for a page that is opened later, until it is dismissed.
    notebook.run(0)
    notebook.execute("e.set_trait('problem', 'Something. ValueError: else')")
    view = first_view(notebook)
    problem = view.root.locator(".qw-problem")
    expect(problem).to_contain_text("ValueError: else")
    problem.get_by_role("button", name="Dismiss").click()
    expect(problem).to_have_count(0)
    notebook.page.wait_for_timeout(300)
    assert notebook.execute("print(repr(e.problem))") == "''\n"
    assert notebook.errors == []


def test_an_error_in_a_command_is_shown(open_notebook: OpenNotebook) -> None:
    notebook = open_notebook(f"import qwidgets as qw\ne = qw.Explorer({ENDLESS})\ne", viewport=TALL)
    notebook.run(0)
    view = first_view(notebook)
    notebook.execute("def broken():\n    raise OSError('the brakes are gone')\ne.pause = broken")
    view.root.locator(".qw-pause").click()
    problem = view.root.locator(".qw-problem")
    expect(problem).to_contain_text("The Explorer could not pause. OSError: the brakes are gone")
    # Training goes on, and the rest of the buttons work.
    expect(view.status).to_have_text(re.compile(r"^Epoch \d+"))
    view.root.locator(".qw-cancel").click()
    expect(view.status).to_have_text(re.compile("^Cancelled"))
    assert notebook.errors == []


def test_pause_and_cancel_act_while_a_cell_runs(open_notebook: OpenNotebook) -> None:
    # Each cell ends with what it waits for, or late.
    wait = """
import time
late = time.time() + 30
while e.run["phase"] != "{0}" and time.time() < late:
    sum(range(1000)); time.sleep(0.005)
print(e.run["phase"])
"""
    notebook = open_notebook(
        f"import qwidgets as qw\ne = qw.Explorer({ENDLESS})\ne",
        wait.format("paused"),
        wait.format("cancelled"),
        viewport=TALL,
    )
    notebook.run(0)
    view = first_view(notebook)
    expect(view.status).to_have_text(re.compile(r"^Epoch [3-9]"), timeout=60_000)
    for cell, button, phase in ((1, "pause", "paused"), (2, "cancel", "cancelled")):
        notebook.page.evaluate(
            "cell => { window.running = window.notebookDriver.run(60, cell); }", cell
        )
        running = notebook.page.locator(".jp-CodeCell").nth(cell).locator(".jp-InputPrompt")
        expect(running).to_have_text("[*]:")
        # The training speaks on meanwhile.
        view.page.wait_for_timeout(500)
        view.root.locator(f".qw-{button}").click()
        notebook.page.evaluate("window.running")
        assert notebook.text(cell) == f"{phase}\n"
        if button == "pause":
            view.root.locator(".qw-pause").click()
            expect(view.status).to_have_text(re.compile("^Epoch"))
    assert notebook.errors == []


def test_an_error_of_the_training_is_shown_with_a_way_on(open_notebook: OpenNotebook) -> None:
    notebook = open_notebook(
        """
import threading, torch, qwidgets as qw
class Brittle(torch.nn.Module):
    broken = True
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(64, 10)
    def forward(self, inputs):
        if Brittle.broken and threading.current_thread().name == "qwidgets-training":
            raise ArithmeticError("the network is broken")
        return self.layer(inputs.flatten(1))
e = qw.Explorer(model=Brittle, epsilon=[0, .1], regularization=[0], epochs=2, train_size=200)
e
""",
        viewport=TALL,
    )
    notebook.run(0)
    root = notebook.cell(0).locator(".qw-root")
    empty = root.locator(".qw-empty")
    expect(empty).to_contain_text("ArithmeticError: the network is broken")
    expect(root.locator(".qw-status")).to_contain_text("ArithmeticError")
    notebook.execute("Brittle.broken = False")
    empty.get_by_role("button", name="Train again").click()
    view = View(root)
    view.wait_drawn()
    expect(empty).to_be_hidden()
    expect(view.status).to_have_text(re.compile(r"^Trained 2 epochs"))
    assert notebook.errors == []


def test_an_error_in_drawing_is_shown_and_the_other_panels_go_on(
    open_notebook: OpenNotebook, saved: Saved
) -> None:
    notebook = open_notebook(show(saved.path), viewport=TALL)
    notebook.run(0)
    view = first_view(notebook)
    notebook.page.evaluate(
        """() => {
          window.working = CanvasRenderingContext2D.prototype.putImageData;
          CanvasRenderingContext2D.prototype.putImageData = () => {
            throw new Error('the canvas is torn');
          };
        }"""
    )
    before = view.geometry()
    drag(view, "epsilon", 1.0)
    problems = view.root.locator(".qw-problem")
    problem = problems.filter(has_text="phase space")
    expect(problem).to_contain_text("The phase space cannot be drawn. Error: the canvas is torn")
    # The lens follows when the kernel has looked.
    expect(problems.filter(has_text="The attack lens cannot be drawn")).to_be_visible()
    assert_readout(view, saved.sweep, epsilon=0.2)
    after = view.geometry()
    assert after["plane_now"] != before["plane_now"]
    assert after["phase"] == before["phase"]
    # In a function, because what an expression gives is called if it can be.
    notebook.page.evaluate(
        "() => { CanvasRenderingContext2D.prototype.putImageData = window.working; }"
    )
    problem.get_by_role("button", name="Draw again").click()
    expect(problems).to_have_count(0)
    assert view.geometry()["phase"] != before["phase"]
    assert notebook.errors == []


def test_an_error_in_saving_is_shown(open_notebook: OpenNotebook, saved: Saved) -> None:
    notebook = open_notebook(show(saved.path), viewport=TALL)
    notebook.run(0)
    view = first_view(notebook)
    notebook.page.evaluate(
        "() => { HTMLCanvasElement.prototype.toBlob = function (done) { done(null); }; }"
    )
    view.root.locator("button.qw-export").click()
    view.root.locator(".qw-save-plane-png").click()
    problem = view.root.locator(".qw-problem")
    expect(problem).to_contain_text("could not write the PNG; the SVG has the same picture")
    assert notebook.errors == []


# Nothing left behind


def test_a_closed_explorer_leaves_no_view_and_no_thread(open_notebook: OpenNotebook) -> None:
    notebook = open_notebook(f"import qwidgets as qw\ne = qw.Explorer({ENDLESS})\ne", viewport=TALL)
    notebook.run(0)
    view = first_view(notebook)
    expect(view.root.locator(".qw-play")).to_be_enabled()
    assert threads(notebook) == 1
    view.root.locator(".qw-play").click()
    notebook.execute("e.close()")
    expect(view.root).to_have_count(0)
    notebook.execute(JOIN)
    assert threads(notebook) == 0
    # Its timers are gone too: whatever they would draw into is no more.
    notebook.page.wait_for_timeout(600)
    assert notebook.errors == []


def test_a_cell_run_again_ends_what_it_had_started(open_notebook: OpenNotebook) -> None:
    notebook = open_notebook(
        f"import qwidgets as qw\ne = qw.Explorer({ENDLESS})\ne",
        f"other = qw.Explorer({ENDLESS})\nother",
        viewport=TWO,
    )
    notebook.run()
    # Cancelled before it has finished anything it would have nothing to wait for.
    first_view(notebook)
    notebook.execute("first = e")
    for _ in range(2):
        notebook.run(0)
        first_view(notebook)
    notebook.execute("first.wait(20)")
    assert notebook.execute("print(first.run['phase'], first is e)") == "cancelled False\n"
    notebook.page.wait_for_timeout(500)
    # One for each cell.
    assert threads(notebook) == 2
    assert notebook.execute("print(other.run['phase'])") == "training\n"
    notebook.execute("e.cancel(); other.cancel()" + JOIN)
    assert threads(notebook) == 0
    assert notebook.errors == []


def test_without_its_kernel_it_says_so_and_can_be_explored(open_notebook: OpenNotebook) -> None:
    notebook = open_notebook(f"import qwidgets as qw\ne = qw.Explorer({ENDLESS})\ne", viewport=TALL)
    notebook.run(0)
    view = first_view(notebook)
    expect(view.slider("epoch")).to_be_enabled()
    process = notebook.execute("import os; print(os.getpid())")
    notebook.page.evaluate(RESTART)
    expect(view.status).to_contain_text("No kernel: run the cell again")
    for button in ("pause", "cancel", "train"):
        expect(view.root.locator(f".qw-{button}")).to_be_hidden()
    before = view.geometry()
    view.slider("epsilon").press("End")
    expect(view.readout("epsilon")).to_have_text("0.10")
    assert view.geometry() != before
    # Run again, in the new kernel, it is as new.
    assert notebook.execute("import os; print(os.getpid())") != process
    assert threads(notebook) == 0
    notebook.run(0)
    view = first_view(notebook)
    expect(view.status).to_have_text(re.compile(r"^Epoch \d+ of"))
    assert threads(notebook) == 1
    notebook.execute("e.close()")
    # JupyterLab speaks to the new kernel before ipywidgets is there. ipykernel 7.4 says so from two
    # threads at once, and now and then sends one message with the frames of the other.
    mixed = "Kernel message validation error: Unexpected token 's', \"stream.stderr\""
    assert [error for error in notebook.errors if mixed not in error] == []


# No cross-talk


def test_two_explorers_in_one_notebook_do_not_meddle(
    open_notebook: OpenNotebook, saved: Saved
) -> None:
    notebook = open_notebook(
        show(saved.path, "a"),
        f"b = qw.Explorer({ENDLESS})\nb",
        viewport=TWO,
    )
    notebook.run()
    a, b = first_view(notebook, 0), first_view(notebook, 1)
    expect(b.slider("epoch")).to_be_enabled()
    drag(a, "epsilon", 1.0)
    b.slider("attack_epsilon").press("Home")
    notebook.page.wait_for_timeout(400)
    state = "print([a.epsilon, round(a.attack_epsilon, 6), b.epsilon, b.attack_epsilon])"
    assert notebook.execute(state) == "[0.2, 0.1, 0.0, 0.0]\n"
    assert_readout(a, saved.sweep, epsilon=0.2)
    expect(b.readout("epsilon")).to_have_text("0.00")
    b.root.locator(".qw-cancel").click()
    expect(b.status).to_have_text(re.compile("^Cancelled"))
    expect(a.status).to_have_text("6 trained networks")
    notebook.execute("b.close()")
    expect(b.root).to_have_count(0)
    drag(a, "epsilon", 0.5)
    assert_readout(a, saved.sweep, epsilon=0.1)
    assert notebook.errors == []


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_of_two_views_each_can_go_first(
    open_notebook: OpenNotebook, saved: Saved, order: tuple[int, int]
) -> None:
    notebook = open_notebook(show(saved.path), "e", "''", viewport=TWO)
    notebook.run()
    gone, kept = order
    views = [first_view(notebook, cell) for cell in (0, 1)]
    notebook.page.evaluate(
        """cell => {
          const {content} = window.notebookDriver.panel;
          content.widgets[cell].model.outputs.clear();
        }""",
        gone,
    )
    expect(views[gone].root).to_have_count(0)
    for _ in range(4):
        views[kept].slider("epsilon").press("ArrowRight")
    views[kept].slider("epoch").press("ArrowLeft")
    assert_readout(views[kept], saved.sweep, epsilon=0.1, epoch=EPOCHS - 1)
    notebook.page.mouse.move(*_middle(views[kept]))
    expect(views[kept].root.locator(".qw-card")).to_be_visible()
    assert notebook.errors == []


def _middle(view: View) -> tuple[float, float]:
    box = view.root.locator(".qw-phase-body").bounding_box()
    assert box is not None
    return box["x"] + 200, box["y"] + 150
