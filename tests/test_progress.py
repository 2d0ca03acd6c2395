from __future__ import annotations

import os
import pty
import sys
from contextlib import suppress

import nbformat
import pytest
from ipywidgets import Button, FloatProgress, IntSlider
from ipywidgets.widgets.widget import _instances
from nbclient import NotebookClient

from qwidgets.progress import _notebook_bar, progress_bar


def test_nothing_is_shown_where_nobody_looks(capfd):
    with progress_bar("Work") as report:
        assert report(0.5, "half")
    assert capfd.readouterr() == ("", "")


def drawn_in_a_terminal(*, show):
    leader, follower = pty.openpty()
    with os.fdopen(follower, "w") as terminal, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stderr", terminal)
        patch.setenv("TERM", "xterm")
        with progress_bar("Work", show=show) as report:
            assert report(0.5, "half way")
    text = b""
    # A closed terminal ends with an input/output error once everything is read.
    with suppress(OSError):
        while chunk := os.read(leader, 1 << 16):
            text += chunk
    os.close(leader)
    return text.decode()


def test_a_terminal_gets_a_bar():
    text = drawn_in_a_terminal(show=True)
    assert "Work: half way" in text
    assert "50%" in text
    assert drawn_in_a_terminal(show=False) == ""


def test_a_notebook_gets_a_bar_with_a_button_that_cancels(capsys):
    with _notebook_bar("Work") as report:
        assert report(0.25, "a quarter")
        widgets = list(_instances.values())
        bar = next(widget for widget in widgets if isinstance(widget, FloatProgress))
        button = next(widget for widget in widgets if isinstance(widget, Button))
        assert (bar.value, bar.max) == (0.25, 1)
        button.click()
        assert not report(0.3, "more")
    assert bar.comm is None
    capsys.readouterr()


def test_a_bar_takes_away_its_own_widgets_and_no_others(capsys):
    slider = IntSlider(3)
    others = set(_instances)
    with _notebook_bar("Work") as report:
        assert report(0.25, "a quarter")
        assert set(_instances) > others
    assert set(_instances) == others
    assert slider.comm is not None
    slider.close()
    capsys.readouterr()


def test_a_sweep_in_a_notebook_is_cancelled_by_its_button():
    """A real kernel: the button is pressed from a thread while the cell trains."""
    cell = """
import threading, time, warnings
import qwidgets as qw
from ipywidgets import Button, Label
from ipywidgets.widgets.widget import _instances

def shown(kind):
    return [widget for widget in list(_instances.values()) if isinstance(widget, kind)]

def press():
    while not any(label.value > "epoch 1" for label in shown(Label)):
        time.sleep(0.01)
    shown(Button)[0].click()

threading.Thread(target=press, daemon=True).start()
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    result = qw.sweep(epsilon=[0], regularization=[0], epochs=200, test_size=20,
                      probe_images=1)
print(result.complete, [str(w.message) for w in caught if "interrupted" in str(w.message)])
"""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell)])
    NotebookClient(notebook, timeout=120).execute()
    outputs = notebook.cells[0].outputs
    assert any(
        "application/vnd.jupyter.widget-view+json" in output.get("data", {}) for output in outputs
    )
    printed = "".join(output.text for output in outputs if output.output_type == "stream")
    assert printed.startswith("False ['sweep was interrupted after epoch")
