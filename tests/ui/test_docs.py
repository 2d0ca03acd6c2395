"""The documentation as a reader meets it: from the disk, without a network, with a live page."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from .view import View

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Browser


@pytest.mark.slow
@pytest.mark.parametrize("name", ["index", "concepts/companion"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_in_the_page_is_live(
    browser: Browser, documentation: Path, name: str, scheme: str
) -> None:
    context = browser.new_context(viewport={"width": 1500, "height": 1200}, color_scheme=scheme)
    asked, errors = [], []
    context.on("request", lambda request: asked.append(request.url))
    page = context.new_page()
    page.on("console", lambda message: message.type == "error" and errors.append(message.text))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto((documentation / f"{name}.html").as_uri())
    page.locator("iframe.live").scroll_into_view_if_needed()
    view = View(page.frame_locator("iframe.live").locator(".qw-root"))
    expect(view.readout("kind")).to_have_text("trained network")
    before = view.readout("position").inner_text()
    view.slider("epsilon").press("End")
    expect(view.readout("epsilon")).to_have_text("0.30")
    expect(view.readout("position")).not_to_have_text(before)
    assert {address.partition(":")[0] for address in asked} <= {"blob", "data", "file"}
    assert errors == []
    context.close()
