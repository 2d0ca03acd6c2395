"""The demo notebooks run from top to bottom, and each opens with the picture that it makes."""

import re
import shutil
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[1] / "demo_notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
PICTURE = re.compile(r"!\[[^\]]+\]\((images/[^)]+)\)")
# What a run prints, whatever the machine: closed forms to the digits, and bounds that hold.
PRINTED = {
    "01_first_packet": ("σx = 0.338798  σp = 1.615038  σx σp = 0.547171", "ε = 0.3"),
    "02_clean_and_adversarial": ("uncertainty_product 0.5", "Dp fell in"),
    "03_your_own_model": ("model must treat every image by itself", "smooth  Dx ="),
    "04_theory": (
        "by hand 0.381582   qwidgets 0.381582   exact 0.381582",
        "by hand 1.322036   qwidgets 1.322036   exact 1.322036",
        "softplus(16 t)   0.338798  0.338798  1.615038  1.615038  0.547171",
        "0.319773   0.8603   0.8603   0.0699",
    ),
    "05_workshop": ("k = 4: σx = 0.382  σp = 1.322  product 0.504", "exp(1 t): product 0.500000"),
}


def opening_picture(notebook):
    first = notebook.cells[0]
    assert first.cell_type == "markdown"
    return PICTURE.search(first.source)[1]


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs_from_top_to_bottom(path, tmp_path):
    folder = shutil.copytree(FOLDER, tmp_path / "notebooks")
    notebook = nbformat.read(path, as_version=4)
    picture = folder / opening_picture(notebook)
    if picture.suffix == ".svg":  # drawn by the notebook itself
        picture.unlink()
    NotebookClient(notebook, timeout=900, resources={"metadata": {"path": folder}}).execute()
    printed = "".join(
        output.get("text", "")
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if output["output_type"] == "stream" and output["name"] == "stdout"
    )
    for text in PRINTED[path.stem]:
        assert text in printed
    # No Explorer was ended by what came after it.
    shown = [
        output["data"]["text/plain"]
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "qw-saved" in output.get("data", {}).get("text/html", "")
    ]
    assert len(shown) == sum(
        "qw.Explorer(" in c.source for c in notebook.cells if c.cell_type == "code"
    )
    assert not any("Cancelled" in words for words in shown)
    assert picture.is_file()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_opens_with_a_small_picture(path):
    notebook = nbformat.read(path, as_version=4)
    picture = FOLDER / opening_picture(notebook)
    assert picture.stat().st_size < 200_000
    assert notebook.cells[0].source.startswith("# ")


def test_every_exercise_has_an_answer():
    source = (FOLDER / "05_workshop.ipynb").read_text(encoding="utf-8")
    exercises = re.findall(r"\*\*Exercise (\d+)", source)
    answers = re.findall(r"<b>Answer (\d+)", source)
    assert exercises == answers == [str(number) for number in range(1, len(answers) + 1)]
    assert len(answers) >= 8


def test_notebooks_are_kept_without_outputs():
    assert NOTEBOOKS
    for path in NOTEBOOKS:
        for cell in nbformat.read(path, as_version=4).cells:
            assert not cell.get("outputs"), f"clear the outputs of {path.name}"
