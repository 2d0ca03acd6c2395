"""Fixtures: a browser, a JupyterLab, notebooks in it, and pages without a network."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pytest

import qwidgets as qw

from .lab import VIEWPORT, chromium, open_offline, start_lab
from .view import EPOCHS, EPSILON, REGULARIZATION, Saved, View

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, ViewportSize

    from .lab import Lab, Notebook, OfflinePage


class OpenNotebook(Protocol):
    def __call__(self, *cells: str, viewport: ViewportSize = VIEWPORT) -> Notebook: ...


class OpenOffline(Protocol):
    def __call__(self, path: Path, *, viewport: ViewportSize = VIEWPORT) -> OfflinePage: ...


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.ui)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A headless Chromium; without one the tests fail, with the remedy."""
    with chromium() as running:
        yield running


@pytest.fixture(scope="session")
def lab(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A JupyterLab; `with lab.notebook([...])` suits fixtures of a wider scope."""
    with start_lab(browser, tmp_path_factory.mktemp("lab")) as running:
        yield running


@pytest.fixture
def open_notebook(lab: Lab) -> Iterator[OpenNotebook]:
    """Open notebooks of the given code cells; page and kernel end with the test."""
    with ExitStack() as stack:

        def open_(*cells: str, viewport: ViewportSize = VIEWPORT) -> Notebook:
            return stack.enter_context(lab.notebook(cells, viewport=viewport))

        yield open_


@pytest.fixture
def offline_page(browser: Browser) -> Iterator[OpenOffline]:
    """Open local HTML files with every request recorded and refused."""
    with ExitStack() as stack:

        def open_(path: Path, *, viewport: ViewportSize = VIEWPORT) -> OfflinePage:
            return stack.enter_context(open_offline(browser, path, viewport=viewport))

        yield open_


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    sweep = qw.sweep(
        epsilon=EPSILON,
        regularization=REGULARIZATION,
        epochs=EPOCHS,
        train_size=500,
        attack_steps=2,
        progress=False,
    )
    path = tmp_path_factory.mktemp("sweeps") / "small.sweep"
    sweep.save(path)
    return Saved(sweep, path)


# The same sweep as a page. Modules that see an Explorer elsewhere have an `opened` or a `view` of
# their own.


@pytest.fixture(scope="session")
def file(saved: Saved, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return qw.export_html(saved.sweep, tmp_path_factory.mktemp("page") / "page.html")


@pytest.fixture
def viewport() -> ViewportSize:
    return VIEWPORT


@pytest.fixture
def opened(file: Path, offline_page: OpenOffline, viewport: ViewportSize) -> OfflinePage:
    return offline_page(file, viewport=viewport)


@pytest.fixture
def view(opened: OfflinePage) -> Iterator[View]:
    """The page, drawn; whatever a test does with it, it asks for nothing, and reports no error."""
    shown = View(opened.page.locator(".qw-root"))
    shown.wait_drawn()
    yield shown
    assert opened.requests == []
    assert opened.errors == []
