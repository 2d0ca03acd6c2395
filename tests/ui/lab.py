"""Drive a real JupyterLab, with a real kernel, in a real browser.

Shared by the browser tests and the benchmarks, so it knows nothing of pytest::

    with chromium() as browser, start_lab(browser, directory) as lab:
        with lab.notebook(["import ipywidgets", "ipywidgets.IntSlider()"]) as notebook:
            notebook.run()
            notebook.cell(1).get_by_role("slider").press("ArrowRight")

Nothing of the user's Jupyter setup leaks in, and none of it is touched: configuration, data,
settings, workspaces and kernels all live in the directory that the caller gives.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast
from urllib.parse import urlsplit

from playwright.sync_api import sync_playwright

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from playwright.sync_api import (
        Browser,
        BrowserContext,
        ConsoleMessage,
        Locator,
        Page,
        Route,
        ViewportSize,
        WebSocketRoute,
    )

KERNEL = "interpreter"
VIEWPORT: ViewportSize = {"width": 1400, "height": 1000}

# Chromium in a container has no sandbox, no GPU, and nobody to phone home to.
CHROMIUM_ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

# Hints for a person's first Explorer are dismissed, as they are for everyone after it; a page that
# is to show them sets the key to another value.
FAMILIAR = """
try {
  const key = 'qwidgets-hints';
  localStorage.getItem(key) ?? localStorage.setItem(key, 'dismissed');
} catch { /* This page has no storage, and shows no hints. */ }
"""

_SERVER_CONFIGURATION = {
    "ServerApp": {
        "allow_root": True,
        "ip": "127.0.0.1",
        "open_browser": False,
        "terminals_enabled": False,
    },
    "LabApp": {
        "check_for_updates_class": "jupyterlab.NeverCheckForUpdate",
        "expose_app_in_browser": True,
        "extension_manager": "readonly",
        "news_url": None,
    },
}

_USER_SETTINGS = {
    "apputils-extension/notification": {"checkForUpdates": False, "fetchNews": "false"},
    "apputils-extension/themes": {"theme": "JupyterLab Light", "adaptive-theme": False},
}

# One namespace in the page, because every call needs the same application and panel.
_PAGE_DRIVER = """
() => {
  const app = window.jupyterapp;
  const within = (promise, seconds, what) => {
    let timer;
    const late = new Promise((_, reject) => {
      timer = setTimeout(
        () => reject(new Error(`${what} took longer than ${seconds} s`)), seconds * 1000);
    });
    return Promise.race([promise, late]).finally(() => clearTimeout(timer));
  };
  const kernel = () => driver.panel.sessionContext.session.kernel;
  const show = async (path, kernelName) => {
    await app.restored;
    driver.panel = await app.commands.execute(
      'docmanager:open', {path, factory: 'Notebook', kernel: {name: kernelName}});
    await driver.panel.revealed;
  };
  const driver = {
    show,
    async open(path, kernelName) {
      await show(path, kernelName);
      await driver.panel.sessionContext.ready;
      await kernel().info;
    },
    async run(index) {
      const content = driver.panel.content;
      app.shell.activateById(driver.panel.id);
      content.deselectAll();
      content.activeCellIndex = index;
      await app.commands.execute('notebook:run-cell');
      return driver.outputs(index);
    },
    outputs: (index) => driver.panel.content.widgets[index].model.outputs.toJSON(),
    async execute(code) {
      const outputs = [];
      const future = kernel().requestExecute({code, store_history: false});
      future.onIOPub = ({header, content}) => {
        if (['stream', 'error'].includes(header.msg_type)) {
          outputs.push({output_type: header.msg_type, ...content});
        }
      };
      await future.done;
      return outputs;
    },
    status: () => kernel().status,
    async theme(name) {
      await app.commands.execute('apputils:change-theme', {theme: name});
    },
  };
  for (const name of ['show', 'open', 'run', 'execute', 'theme']) {
    const call = driver[name];
    driver[name] = (seconds, ...given) => within(call(...given), seconds, name);
  }
  window.notebookDriver = driver;
}
"""


class CellError(AssertionError):
    """Code in the notebook raised; the message is the kernel's traceback."""


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start a headless Chromium: the system's, else the one that Playwright installed.

    Raises
    ------
    RuntimeError
        If there is neither.
    """
    with sync_playwright() as playwright:
        executable = shutil.which("chromium") or playwright.chromium.executable_path
        if not Path(executable).exists():
            message = (
                "the browser tests need Chromium: none is on PATH and Playwright has none at "
                f"{executable}; run `playwright install chromium` or `apt-get install chromium`"
            )
            raise RuntimeError(message)
        browser = playwright.chromium.launch(
            executable_path=executable, args=list(CHROMIUM_ARGUMENTS)
        )
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def temporary_lab() -> Iterator[Lab]:
    """Start a Chromium and a JupyterLab, of which nothing is left when the block ends."""
    with (
        tempfile.TemporaryDirectory() as directory,
        chromium() as browser,
        start_lab(browser, Path(directory) / "lab") as lab,
    ):
        yield lab


@contextmanager
def start_lab(browser: Browser, directory: Path) -> Iterator[Lab]:
    """Serve JupyterLab from `directory` on a free port until the block ends.

    Parameters
    ----------
    browser
        Opens the notebooks.
    directory
        An empty directory: notebooks in ``root/``, all of Jupyter's own files beside it.

    Raises
    ------
    RuntimeError
        If the server ends or does not answer within a minute; the message ends with its log.
    """
    environment = isolated_environment(directory)
    root = directory / "root"
    root.mkdir(parents=True)
    token = secrets.token_hex(16)
    log = directory / "server.log"
    command = [
        *(sys.executable, "-m", "jupyterlab"),
        f"--ServerApp.root_dir={root}",
        f"--ServerApp.port={free_port()}",
        f"--IdentityProvider.token={token}",
    ]
    with log.open("wb") as output:
        server = subprocess.Popen(
            command, cwd=root, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        # Another process may have taken the port meanwhile: the server's own file tells.
        record = directory / "runtime" / f"jpserver-{server.pid}.json"
        url = _wait_for_server(server, record, token, log)
        context = browser.new_context(viewport=VIEWPORT)
        context.set_default_timeout(30_000)
        context.add_init_script(FAMILIAR)
        try:
            yield Lab(url=url, token=token, root=root, context=context)
        finally:
            context.close()
    finally:
        server.terminate()
        try:
            server.wait(timeout=15)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


@dataclass(frozen=True, kw_only=True)
class Lab:
    """A running JupyterLab server and the browser context that looks at it."""

    url: str
    token: str
    root: Path
    context: BrowserContext

    @contextmanager
    def notebook(
        self,
        cells: Sequence[str],
        *,
        viewport: ViewportSize = VIEWPORT,
        timeout: float = 60.0,
    ) -> Iterator[Notebook]:
        """Open a new notebook of these code cells in a page of its own, with a fresh kernel.

        Parameters
        ----------
        cells
            Sources of the code cells; none has run when the block starts.
        viewport
            Size of the page in CSS pixels.
        timeout
            Seconds within which the page must be loaded and the kernel ready.
        """
        path = f"{secrets.token_hex(4)}.ipynb"
        write_json(self.root / path, notebook_document(cells))
        with self.reopened(path, viewport=viewport, timeout=timeout) as notebook:
            yield notebook

    @contextmanager
    def reopened(
        self,
        path: str,
        *,
        viewport: ViewportSize = VIEWPORT,
        kernel: bool = True,
        timeout: float = 60.0,
    ) -> Iterator[Notebook]:
        """Open a notebook that is there, as `notebook` does; without a kernel if asked to."""
        page = self.context.new_page()
        try:
            page.set_viewport_size(viewport)
            notebook = Notebook(page=page, path=path, errors=record_errors(page))
            # A workspace of its own: nothing of an earlier notebook is restored beside it.
            workspace = secrets.token_hex(4)
            page.goto(f"{self.url}lab/workspaces/{workspace}?token={self.token}")
            page.wait_for_function("window.jupyterapp !== undefined", timeout=timeout * 1000)
            page.evaluate(_PAGE_DRIVER)
            if kernel:
                _call(page, "open", timeout, path, KERNEL)
            else:
                # As on another machine, which does not have it.
                _call(page, "show", timeout, path, "gone")
            # Lab saves the theme for the next page, so that an earlier notebook's would stay.
            notebook.set_theme("light")
            yield notebook
        finally:
            page.close()
            self._shut_down(path)

    def _shut_down(self, path: str) -> None:
        # Through the server, because the page may be the very thing that failed.
        for session in self._request("GET", "sessions"):
            if session["path"] == path:
                self._request("DELETE", f"sessions/{session['id']}")

    def _request(self, method: Literal["GET", "DELETE"], resource: str) -> Any:
        return _request(f"{self.url}api/{resource}", self.token, method)


@dataclass(frozen=True, kw_only=True)
class Notebook:
    """A notebook open in JupyterLab.

    Attributes
    ----------
    page
        The Playwright page, for everything that a person would do with mouse and keyboard.
    path
        The notebook's path below the server's root.
    errors
        Console errors and uncaught exceptions so far, all of them: JupyterLab 4.6 alone
        emits none, so there is nothing to filter.
    """

    page: Page
    path: str
    errors: list[str]

    def run(self, *indices: int, timeout: float = 60.0) -> None:
        """Run the cells with these indices in turn (default: all), each to its end.

        Raises
        ------
        CellError
            If a cell raises.
        """
        for index in indices or range(self.page.locator(".jp-CodeCell").count()):
            _raise_error(_call(self.page, "run", timeout, index))

    def execute(self, code: str, *, timeout: float = 60.0) -> str:
        """Run code in the kernel without a cell and return what it printed.

        Raises
        ------
        CellError
            If the code raises.
        """
        outputs = _call(self.page, "execute", timeout, code)
        _raise_error(outputs)
        return _text(outputs)

    def outputs(self, index: int) -> list[dict[str, Any]]:
        """Outputs of a cell in the notebook format."""
        call = "index => window.notebookDriver.outputs(index)"
        return cast("list[dict[str, Any]]", self.page.evaluate(call, index))

    def text(self, index: int) -> str:
        """Printed text and plain-text results of a cell, in their order."""
        return _text(self.outputs(index))

    def cell(self, index: int) -> Locator:
        """Output area of a cell: where its widgets and pictures are."""
        return self.page.locator(".jp-CodeCell").nth(index).locator(".jp-Cell-outputArea")

    def wait_idle(self, *, timeout: float = 30.0) -> None:
        """Wait until the kernel has nothing to do."""
        idle = "window.notebookDriver.status() === 'idle'"
        self.page.wait_for_function(idle, timeout=timeout * 1000)

    def save(self) -> None:
        """Save the notebook with the keys of a person."""
        self.page.locator(".jp-CodeCell .cm-content").last.click()
        self.page.keyboard.press("Control+s")
        self.page.wait_for_function("!window.notebookDriver.panel.context.model.dirty")

    def set_theme(self, theme: Literal["light", "dark"], *, timeout: float = 30.0) -> None:
        """Switch JupyterLab's theme and wait until the page wears it."""
        _call(self.page, "theme", timeout, f"JupyterLab {theme.title()}")
        light = str(theme == "light").lower()
        self.page.locator(f'body[data-jp-theme-light="{light}"]').wait_for(state="attached")
        # It covers the page, fading, while the style sheets change.
        self.page.locator("#jupyterlab-splash").wait_for(state="detached")

    def screenshot(self, path: Path, *, cell: int | None = None) -> None:
        """Save a PNG of the page, or of one cell's output whole."""
        if cell is None:
            self.page.screenshot(path=path)
        else:
            self.cell(cell).screenshot(path=path)


@dataclass(frozen=True, kw_only=True)
class OfflinePage:
    """A local page in a browser that refuses, and remembers, every request it makes.

    Attributes
    ----------
    page
        The Playwright page.
    requests
        Addresses of everything the page asked for, other local files included.
    errors
        Console errors and uncaught exceptions so far.
    """

    page: Page
    requests: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


@contextmanager
def open_offline(
    browser: Browser, path: Path, *, viewport: ViewportSize = VIEWPORT
) -> Iterator[OfflinePage]:
    """Open a local HTML file from ``file://`` with every request recorded and refused.

    Frames of it may show local files that lie beside it.
    """
    # Without service workers, whose requests would pass the routes by.
    context = browser.new_context(viewport=viewport, service_workers="block")
    try:
        address = path.resolve().as_uri()
        requests: list[str] = []

        def refuse(route: Route) -> None:
            request = route.request
            asked = request.url.partition("#")[0]
            beside = asked.rpartition("/")[0] == address.rpartition("/")[0]
            inner = request.frame.parent_frame is not None
            if request.is_navigation_request() and (asked == address or (inner and beside)):
                route.continue_()
            else:
                requests.append(request.url)
                route.abort()

        def refuse_socket(socket_route: WebSocketRoute) -> None:
            requests.append(socket_route.url)
            socket_route.close()

        context.add_init_script(FAMILIAR)
        context.route("**/*", refuse)
        context.route_web_socket("**/*", refuse_socket)
        page = context.new_page()
        errors = record_errors(page)
        page.goto(address)
        yield OfflinePage(page=page, requests=requests, errors=errors)
    finally:
        context.close()


def isolated_environment(directory: Path) -> dict[str, str]:
    """Write Jupyter's own files below `directory` and return an environment that uses them."""
    configuration = directory / "config"
    data = directory / "data"
    settings = directory / "settings"
    write_json(configuration / "jupyter_lab_config.json", _SERVER_CONFIGURATION)
    for name, values in _USER_SETTINGS.items():
        write_json(settings / "@jupyterlab" / f"{name}.jupyterlab-settings", values)
    # A kernel of our own name: no installed `python3` can stand in for this interpreter.
    arguments = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    kernel = {"argv": arguments, "display_name": KERNEL, "language": "python"}
    write_json(data / "kernels" / KERNEL / "kernel.json", kernel)
    foreign = re.compile(r"JUPYTER|IPYTHON|MPLBACKEND")
    inherited = {name: value for name, value in os.environ.items() if not foreign.match(name)}
    return inherited | {
        "IPYTHONDIR": str(directory / "ipython"),
        "JUPYTERLAB_SETTINGS_DIR": str(settings),
        "JUPYTERLAB_WORKSPACES_DIR": str(directory / "workspaces"),
        "JUPYTER_CONFIG_DIR": str(configuration),
        "JUPYTER_DATA_DIR": str(data),
        "JUPYTER_RUNTIME_DIR": str(directory / "runtime"),
    }


def notebook_document(sources: Sequence[str]) -> dict[str, Any]:
    code: dict[str, Any] = {
        "cell_type": "code",
        "execution_count": None,
        "metadata": {},
        "outputs": [],
    }
    return {
        "nbformat": 4,
        "nbformat_minor": 5,
        "metadata": {"kernelspec": {"name": KERNEL, "display_name": KERNEL, "language": "python"}},
        "cells": [
            {**code, "id": f"cell-{index}", "source": source}
            for index, source in enumerate(sources)
        ],
    }


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return cast("int", listener.getsockname()[1])


def _wait_for_server(
    server: subprocess.Popen[bytes], record: Path, token: str, log: Path, *, timeout: float = 60.0
) -> str:
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        try:
            server.wait(timeout=0.05)
        except subprocess.TimeoutExpired:
            try:
                url = str(json.loads(record.read_text(encoding="utf-8"))["url"])
                _request(f"{url}api/status", token)
            except (FileNotFoundError, json.JSONDecodeError, urllib.error.URLError):
                continue
            return url
        break
    state = "did not answer" if server.poll() is None else f"ended with {server.returncode}"
    tail = log.read_text(encoding="utf-8", errors="replace")[-4000:]
    message = f"JupyterLab {state}; the end of {log}:\n{tail}"
    raise RuntimeError(message)


def _request(url: str, token: str, method: str = "GET") -> Any:
    assert urlsplit(url).hostname in {"127.0.0.1", "localhost"}
    headers = {"Authorization": f"token {token}"}
    request = urllib.request.Request(url, headers=headers, method=method)  # noqa: S310
    with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310
        body = response.read()
    return json.loads(body) if body else None


def _call(page: Page, name: str, timeout: float, *arguments: object) -> Any:
    call = "([name, ...given]) => window.notebookDriver[name](...given)"
    return page.evaluate(call, [name, timeout, *arguments])


def _raise_error(outputs: Sequence[Mapping[str, Any]]) -> None:
    for output in outputs:
        if output["output_type"] == "error":
            raise CellError(re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(output["traceback"])))


def _text(outputs: Sequence[Mapping[str, Any]]) -> str:
    parts = [
        output["text"] if "text" in output else output.get("data", {}).get("text/plain", "")
        for output in outputs
    ]
    return "".join(part if isinstance(part, str) else "".join(part) for part in parts)


def record_errors(page: Page) -> list[str]:
    errors: list[str] = []

    def on_console(message: ConsoleMessage) -> None:
        if message.type == "error":
            errors.append(f"{message.text} ({message.location.get('url', '')})")

    page.on("console", on_console)
    page.on("pageerror", lambda error: errors.append(f"uncaught {error.stack or error.message}"))
    page.on("crash", lambda _: errors.append("the page crashed"))
    return errors
