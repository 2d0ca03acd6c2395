"""Other front ends than JupyterLab, with a real kernel each: Notebook 7 and Voila."""

from __future__ import annotations

import secrets
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .lab import (
    FAMILIAR,
    VIEWPORT,
    free_port,
    isolated_environment,
    notebook_document,
    record_errors,
    write_json,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from playwright.sync_api import Browser, Page

FILE = "explorer.ipynb"


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A notebook that has run in a page.

    Attributes
    ----------
    page
        The page.
    errors
        Console errors and uncaught exceptions so far.
    """

    page: Page
    errors: list[str]


@contextmanager
def notebook_7(browser: Browser, directory: Path, cells: Sequence[str]) -> Iterator[Shown]:
    """Open the cells in Notebook 7 and run the first with the keyboard."""
    token = secrets.token_hex(16)
    port = free_port()
    command = [
        *("-m", "notebook", f"--ServerApp.port={port}", f"--IdentityProvider.token={token}"),
        f"--ServerApp.root_dir={directory / 'root'}",
    ]
    address = f"http://127.0.0.1:{port}/notebooks/{FILE}?token={token}"
    with _served(browser, directory, cells, command, address) as shown:
        page = shown.page
        cell = page.locator(".jp-CodeCell").first
        cell.wait_for()
        prompt = cell.locator(".jp-InputArea-prompt")
        # A run that is asked for before the kernel is there is none.
        for _ in range(60):
            cell.locator(".cm-content").click()
            page.keyboard.press("Shift+Enter")
            page.wait_for_timeout(1000)
            if prompt.inner_text() != "[ ]:":
                break
        yield shown


@contextmanager
def voila(browser: Browser, directory: Path, cells: Sequence[str]) -> Iterator[Shown]:
    """Serve the cells with Voila, which runs them before it shows the page."""
    port = free_port()
    command = [
        *("-m", "voila", str(directory / "root" / FILE), "--no-browser"),
        *(f"--port={port}", "--Voila.ip=127.0.0.1"),
    ]
    with _served(browser, directory, cells, command, f"http://127.0.0.1:{port}/") as shown:
        yield shown


@contextmanager
def _served(
    browser: Browser, directory: Path, cells: Sequence[str], command: list[str], address: str
) -> Iterator[Shown]:
    environment = isolated_environment(directory)
    write_json(directory / "root" / FILE, notebook_document(cells))
    log = directory / "server.log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            [sys.executable, *command], env=environment, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        _wait(server, address, log)
        context = browser.new_context(viewport={**VIEWPORT, "height": 1500})
        context.set_default_timeout(60_000)
        context.add_init_script(FAMILIAR)
        try:
            page = context.new_page()
            errors = record_errors(page)
            page.goto(address)
            yield Shown(page=page, errors=errors)
        finally:
            context.close()
    finally:
        server.terminate()
        try:
            server.wait(timeout=15)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _wait(server: subprocess.Popen[bytes], address: str, log: Path, timeout: float = 90) -> None:
    base = address.partition("notebooks/")[0]
    # Voila runs the notebook for whoever asks for it: asked for here is only what costs nothing.
    probe = f"{base}voila/static/none" if base == address else f"{base}api/status"
    deadline = time.monotonic() + timeout
    while server.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(probe, timeout=5):  # noqa: S310
                return
        except urllib.error.HTTPError:
            return  # It answers.
        except OSError:
            time.sleep(0.1)
    tail = log.read_text("utf-8", errors="replace")[-4000:]
    message = f"{address} did not answer; the end of {log}:\n{tail}"
    raise RuntimeError(message)
