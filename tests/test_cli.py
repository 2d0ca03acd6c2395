"""The command line, run as a person runs it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import qwidgets as qw
from qwidgets import architectures, cli, data

TINY = ["--epochs", "1", "--epsilon", "0,0.1", "--regularization", "0", "--train-size", "200"]


def run(*arguments, cwd):
    return subprocess.run(
        [sys.executable, "-m", "qwidgets", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    answer = run("sweep", *TINY, "--output", "deep/digits", cwd=folder)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.strip() == str(folder / "deep/digits")
    return folder / "deep/digits"


def test_help_names_all_data_and_networks(tmp_path):
    told = run("sweep", "--help", cwd=tmp_path).stdout
    for name in (*data._SOURCES, *architectures._ARCHITECTURES):
        assert re.search(rf"\b{name}\b", told), name


def test_sweep_saves_what_was_asked_for(saved):
    cube = qw.open_sweep(saved).dataset
    assert cube.epsilon.values.tolist() == [0, 0.1]
    assert cube.regularization.values.tolist() == [0]
    assert cube.sizes["epoch"] == 2  # untrained, and after one epoch


def test_export_writes_the_page(saved, tmp_path):
    answer = run("export", saved, tmp_path / "page.html", cwd=tmp_path)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.strip() == str(tmp_path / "page.html")
    assert "<html" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_export_takes_what_is_said_about_the_page(saved, tmp_path):
    (tmp_path / "about.md").write_text("It obeys $\\sigma_x \\sigma_p \\ge 1/2$.", encoding="utf-8")
    words = ["--title", "Packets", "--author", "Ada", "--author", "Alan", "--text", "about.md"]
    answer = run("export", saved, "page.html", *words, cwd=tmp_path)
    assert answer.returncode == 0, answer.stderr
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    for part in (">Packets</h1>", "<bdi>Ada</bdi>, <bdi>Alan</bdi>", "<mi>σ</mi>"):
        assert part in page
    answer = run("export", saved, "block.html", "--embed", cwd=tmp_path)
    assert answer.returncode == 0, answer.stderr
    assert (tmp_path / "block.html").read_text(encoding="utf-8").startswith("<iframe ")
    answer = run("export", saved, "none.html", "--text", "missing.md", cwd=tmp_path)
    assert answer.returncode == 2
    assert answer.stderr == "No such file or directory: missing.md\n"
    (tmp_path / "bad.md").write_bytes("Unschärfe".encode("utf-16"))
    answer = run("export", saved, "none.html", "--text", "bad.md", cwd=tmp_path)
    assert answer.returncode == 2
    assert answer.stderr.startswith("text must be a file in UTF-8, got bad.md (")
    assert not (tmp_path / "none.html").exists()


@pytest.mark.slow
def test_demo_writes_the_page_and_prints_its_path(tmp_path):
    answer = run("demo", "--epochs", "1", cwd=tmp_path)
    assert answer.returncode == 0, answer.stderr
    assert Path(answer.stdout.strip()) == tmp_path / "build/demo.html"
    assert (tmp_path / "build/demo.html").stat().st_size > 1_000_000


@pytest.mark.skipif(os.name == "nt", reason="Windows has no pseudo-terminals")
def test_interrupt_keeps_the_finished_epochs(tmp_path):
    terminal, end = os.openpty()
    arguments = ["sweep", "--epsilon", "0", "--regularization", "0", "--epochs", "100000"]
    with subprocess.Popen(
        [sys.executable, "-m", "qwidgets.cli", *arguments, "--output", str(tmp_path / "kept")],
        stdout=subprocess.DEVNULL,
        stderr=end,
    ) as process:
        os.close(end)
        said = read_until(terminal, r"epoch ([3-9]|\d{2,}) of 100000")
        process.send_signal(signal.SIGINT)
        said = read_until(terminal, None)
    os.close(terminal)
    assert process.returncode == 0, said
    kept = qw.open_sweep(tmp_path / "kept")
    assert not kept.complete
    assert kept.dataset.sizes["epoch"] >= 3
    assert "interrupted" in said
    assert "Warning" not in said  # a sentence, not Python's report of a warning


def read_until(terminal, words):
    """Read what a program says on its terminal up to a pattern, or to its end."""
    said = ""
    while words is None or not re.search(words, said):
        try:
            part = os.read(terminal, 4096)
        except OSError:  # Linux reports the end of a pseudo-terminal so
            part = b""
        if not part:
            assert words is None, said
            break
        said += part.decode(errors="replace")
    return said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["sweep", "--data", "digit"], ["'digit'", "'digits'"]),
        (["sweep", "--model", "mpl"], ["'mpl'", "'mlp'"]),
        (["sweep", "--regularizer", "gradients"], ["'gradients'", "'gradient'"]),
        (["sweep", "--epsilon", "0,x"], ["epsilon", "'0,x'", "0,0.1,0.3"]),
        (["sweep", "--epsilon", "-0.1,0"], ["epsilon", "-0.1"]),
        (["sweep", "--epsilon", "0,nan"], ["epsilon", "nan"]),
        (["sweep", "--train-size", "many"], ["train_size", "'many'", "'all'"]),
        (["sweep", "--train-size", "-3"], ["train_size", "-3", "1437"]),
        (["sweep", "--test-size", "1e3"], ["test_size", "'1e3'", "'all'"]),
        (["sweep", "--output", "file/sweep"], ["file/sweep", "--output"]),
        (["sweep", "--output", "."], ["something else"]),
        (["demo", "--output", "file/page.html"], ["file/page.html", "--output"]),
        (["demo", "--output", "."], ["--output"]),
        (["export", "nowhere", "page.html"], ["nowhere"]),
        (["export", "file", "page.html"], ["file"]),
    ],
)
def test_fault_is_one_sentence(arguments, words, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    answer = CliRunner().invoke(cli.app, arguments)
    assert answer.exit_code == 2
    assert answer.stdout == ""
    assert "Traceback" not in answer.stderr
    assert len(answer.stderr.strip().splitlines()) == 1
    for word in words:
        assert word in answer.stderr
    left = {path.name for path in tmp_path.rglob("*")}
    assert left <= {"file", "build"}  # an empty folder at the most


def test_a_folder_is_taken_for_a_store_where_the_library_takes_it(tmp_path):
    (tmp_path / "looked-at").mkdir()
    (tmp_path / "looked-at" / ".DS_Store").touch()
    arguments = ["sweep", *TINY, "--output"]
    answer = CliRunner().invoke(cli.app, [*arguments, str(tmp_path / "looked-at")])
    assert answer.exit_code == 0, answer.stderr
    manifest = tmp_path / "looked-at" / "manifest.json"
    manifest.unlink()
    answer = CliRunner().invoke(cli.app, [*arguments, str(tmp_path / "looked-at")])
    assert answer.exit_code == 2
    assert f"{manifest} is missing; restore it" in answer.stderr


def test_debug_shows_where_a_fault_came_from(tmp_path):
    answer = run("--debug", "sweep", "--data", "digit", cwd=tmp_path)
    assert answer.returncode != 0
    assert "Traceback" in answer.stderr


def test_mistyped_command_gets_the_near_match(tmp_path):
    answer = run("swep", cwd=tmp_path)
    assert answer.returncode == 2
    assert "'sweep'" in answer.stderr


@pytest.mark.parametrize("module", ["qwidgets", "qwidgets.cli"])
def test_version(module, tmp_path):
    arguments = [sys.executable, "-X", "importtime", "-m", module, "--version"]
    answer = subprocess.run(arguments, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert answer.stdout == f"qwidgets {qw.__version__}\n"
    loaded = {line.rpartition("|")[2].strip() for line in answer.stderr.splitlines()}
    assert "typer" in loaded
    assert "torch" not in loaded


def test_doctor_finds_nothing_here():
    answer = CliRunner().invoke(cli.app, ["doctor"])
    assert answer.exit_code == 0, answer.stdout
    for part in ("python", "torch", "bqplot", "front end", "device", "threads"):
        assert part in answer.stdout


@pytest.fixture
def jupyter_folder(tmp_path, monkeypatch):
    """A folder that Jupyter searches first."""
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


def test_doctor_sees_a_stale_front_end(jupyter_folder):
    extension = jupyter_folder / "labextensions" / "bqplot"
    extension.mkdir(parents=True)
    about = {"name": "bqplot", "version": "0.4.0", "jupyterlab": {"_build": {"load": "entry.js"}}}
    (extension / "package.json").write_text(json.dumps(about), encoding="utf-8")
    answer = CliRunner().invoke(cli.app, ["doctor"])
    assert answer.exit_code == 1
    (line,) = [line for line in answer.stdout.splitlines() if line.startswith("bqplot in J")]
    assert "pip install" in line


def test_doctor_sees_a_stale_page_part(jupyter_folder):
    part = jupyter_folder / "nbextensions" / "anywidget"
    part.mkdir(parents=True)
    (part / "index.js").write_text('define([], () => ({version: "0.1.0"}))', encoding="utf-8")
    answer = CliRunner().invoke(cli.app, ["doctor"])
    assert answer.exit_code == 1
    assert any(line.startswith("anywidget in pages: run") for line in answer.stdout.splitlines())


@pytest.mark.parametrize(("needs", "told"), [(["bqscales>=0.3"], True), (["numpy"], False)])
def test_doctor_asks_for_the_scales_where_bqplot_does(monkeypatch, needs, told):
    # bqplot 0.12 comes without bqscales.
    real_spec, real_requires = cli.find_spec, cli.metadata.requires
    monkeypatch.setattr(cli, "find_spec", lambda n: None if n == "bqscales" else real_spec(n))
    monkeypatch.setattr(
        cli.metadata, "requires", lambda n: needs if n == "bqplot" else real_requires(n)
    )
    parts = {finding.part for finding in cli._examine_front_ends()}
    assert "bqplot in JupyterLab" in parts
    assert ("bqscales in JupyterLab" in parts) == told


def test_doctor_sees_a_disabled_extension(tmp_path, monkeypatch):
    monkeypatch.setenv("JUPYTER_CONFIG_DIR", str(tmp_path))
    monkeypatch.setenv("JUPYTERLAB_SETTINGS_DIR", str(tmp_path))
    folder = tmp_path / "labconfig"
    folder.mkdir()
    config = {"disabledExtensions": {cli._WIDGET_MANAGER: True}}
    (folder / "page_config.json").write_text(json.dumps(config), encoding="utf-8")
    answer = CliRunner().invoke(cli.app, ["doctor"])
    assert answer.exit_code == 1
    assert f"jupyter labextension enable {cli._WIDGET_MANAGER}" in answer.stdout


def test_doctor_sees_a_missing_bundle(tmp_path, monkeypatch):
    static = tmp_path / "static"
    shutil.copytree(cli._PACKAGE / "static", static)
    (static / "style.css").unlink()
    monkeypatch.setattr(cli, "_PACKAGE", tmp_path)
    answer = CliRunner().invoke(cli.app, ["doctor"])
    assert answer.exit_code == 1
    assert "missing: style.css" in answer.stdout


@pytest.mark.parametrize(
    ("version", "wanted", "fits"),
    [
        ("0.6.1", "^0.6.1", True),
        ("0.6.4", "^0.6.1", True),
        ("0.6.0", "^0.6.1", False),
        ("0.7.0", "^0.6.1", False),
        ("0.3.7", "^0.3", True),
        ("0.4.0", "^0.3", False),
        ("0.11.2", "~0.11.*", True),
        ("0.12.0", "~0.11.*", False),
        ("2.3.0", "^2.1.4", True),
        ("3.0.0", "^2.1.4", False),
        ("2.0.0", "2.0.0", True),
        ("2.0.1", "2.0.0", False),
        ("5.0.16", "", True),
        ("missing", "", False),
    ],
)
def test_npm_ranges(version, wanted, fits):
    assert cli._fits(version, wanted) is fits


def test_lab_copies_notebooks_without_touching_edited_ones(tmp_path, monkeypatch):
    package = tmp_path / "package"
    (package / "notebooks").mkdir(parents=True)
    (package / "notebooks" / "images").mkdir()
    for name in ("01_a.ipynb", "02_b.ipynb", "images/01_a.svg"):
        (package / "notebooks" / name).write_text("new", encoding="utf-8")
    monkeypatch.setattr(cli, "_PACKAGE", package)
    monkeypatch.chdir(tmp_path)
    folder = cli._notebooks()
    (folder / "01_a.ipynb").write_text("edited", encoding="utf-8")
    (folder / "02_b.ipynb").unlink()
    assert cli._notebooks() == folder
    assert (folder / "01_a.ipynb").read_text(encoding="utf-8") == "edited"
    assert (folder / "02_b.ipynb").read_text(encoding="utf-8") == "new"
    assert (folder / "images" / "01_a.svg").read_text(encoding="utf-8") == "new"
