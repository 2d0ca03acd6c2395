"""The distributions: what is in them, and that the wheel alone works."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
PARTS = {f"qwidgets/static/{name}" for name in ("index.js", "style.css", "page.js")}


def run(*command, cwd, env=None):
    return subprocess.run(
        list(map(str, command)),
        check=True,
        capture_output=True,
        cwd=cwd,
        env={**os.environ, **(env or {})},
        text=True,
    ).stdout


@pytest.fixture(scope="session")
def sdist(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sdist")
    run(sys.executable, "-m", "build", "--no-isolation", "--sdist", "-o", folder, ROOT, cwd=folder)
    (archive,) = folder.glob("*.tar.gz")
    return archive


@pytest.fixture(scope="session")
def tree(sdist):
    """The unpacked source distribution."""
    with tarfile.open(sdist) as archive:
        archive.extractall(sdist.parent, filter="data")
    return sdist.parent / sdist.name.removesuffix(".tar.gz")


@pytest.fixture(scope="session")
def wheel(tree, tmp_path_factory):
    """Built from the source distribution, where there is no Node to be found."""
    folder = tmp_path_factory.mktemp("wheel")
    tools = folder / "tools"
    tools.mkdir()
    # Poisoned rather than hidden: the build must not even ask.
    for name in ("node", "npm"):
        (tools / name).write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")
        (tools / name).chmod(0o755)
    path = f"{tools}{os.pathsep}{os.environ['PATH']}"
    command = (sys.executable, "-m", "build", "--no-isolation", "--wheel", "-o", folder, tree)
    run(*command, cwd=folder, env={"PATH": path})
    assert not (tree / "js" / "node_modules").exists()
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="session")
def program(wheel, tmp_path_factory):
    """`qwidgets` from the wheel, in an environment that borrows nothing but the dependencies."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    scripts = folder / ("Scripts" if os.name == "nt" else "bin")
    python = scripts / ("python.exe" if os.name == "nt" else "python")
    layout = {"base": str(folder), "platbase": str(folder)}
    site = Path(sysconfig.get_path("purelib", "venv", vars=layout))
    command = ("pip", "--python", python, "install", "--no-deps", "--no-index", wheel)
    run(sys.executable, "-m", *command, cwd=folder)
    # Links instead of a path entry, which would let the editable install of the checkout in.
    for source in Path(sysconfig.get_path("purelib")).iterdir():
        if "qwidgets" not in source.name and source.suffix != ".pth":
            target = site / source.name
            if not target.exists():
                target.symlink_to(source)
    share = folder / "share" / "jupyter"
    share.parent.mkdir(exist_ok=True)
    share.symlink_to(Path(sys.prefix) / "share" / "jupyter")
    where = run(python, "-P", "-c", "import qwidgets; print(qwidgets.__file__)", cwd=folder)
    assert Path(where.strip()).parent == site / "qwidgets"
    return scripts / "qwidgets"


def test_sdist_holds_what_a_build_needs(tree):
    files = {path.relative_to(tree).as_posix() for path in tree.rglob("*") if path.is_file()}
    assert files >= PARTS
    assert files >= {"js/package-lock.json", "js/src/index.ts", "hatch_build.py", "LICENSE"}
    assert not [name for name in files if "node_modules" in name or "__pycache__" in name]


def test_wheel_holds_the_package_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        files = set(archive.namelist())
    assert files >= PARTS | {"qwidgets/py.typed", "qwidgets/notebooks/01_first_packet.ipynb"}
    assert {name.split("/")[0] for name in files} == {"qwidgets", f"{wheel.stem[:14]}.dist-info"}
    assert not [name for name in files if name.endswith((".ts", ".mjs")) or "node_modules" in name]


def test_sdist_and_checkout_make_the_same_wheel(wheel, tmp_path):
    run(
        sys.executable,
        "-m",
        "build",
        "--no-isolation",
        "--wheel",
        "-o",
        tmp_path,
        ROOT,
        cwd=tmp_path,
    )
    (direct,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as one, zipfile.ZipFile(direct) as two:
        assert sorted(one.namelist()) == sorted(two.namelist())


def test_wheel_alone_passes_doctor(program, tmp_path):
    assert "Everything is in place." in run(program, "doctor", cwd=tmp_path)


def test_wheel_alone_makes_the_demo(program, tmp_path):
    page = Path(run(program, "demo", "--epochs", "1", cwd=tmp_path).strip())
    assert page == tmp_path / "build" / "demo.html"
    assert page.stat().st_size > 1_000_000


def test_wheel_alone_has_a_live_explorer(program, tmp_path):
    words = (
        "import qwidgets as qw; e = qw.Explorer(qw.sweep(epochs=1, progress=False)); print(e.comm)"
    )
    python = shutil.which("python", path=program.parent)
    assert run(python, "-P", "-c", words, cwd=tmp_path)


def test_changed_sources_are_rebuilt(tree, tmp_path):
    checkout = tmp_path / "checkout"
    shutil.copytree(tree, checkout)
    (checkout / "PKG-INFO").unlink()
    (checkout / "js" / "node_modules").symlink_to(ROOT / "js" / "node_modules")
    bundle = checkout / "qwidgets" / "static" / "style.css"
    now = 2_000_000_000
    for part in bundle.parent.iterdir():
        os.utime(part, (now, now))
    before = bundle.read_text(encoding="utf-8")
    run(sys.executable, "hatch_build.py", cwd=checkout)
    assert bundle.stat().st_mtime == now  # newer than its sources: left alone

    style = checkout / "js" / "src" / "style.css"
    style.write_text(".qw-changed { color: red }", encoding="utf-8")
    os.utime(style, (now + 1, now + 1))
    run(sys.executable, "hatch_build.py", cwd=checkout)
    after = bundle.read_text(encoding="utf-8")
    assert after != before
    assert "qw-changed" in after
