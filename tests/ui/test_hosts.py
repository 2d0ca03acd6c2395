"""The Explorer in Notebook 7 and in Voila: drawn, moved by mouse and keys, read and saved."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from .hosts import notebook_7, voila
from .view import MOVED, View, assert_readout, drag, show, wait_moved

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from .view import Saved

# Presses go to the slider's handle; the page must not take them for itself.
KEYS = ("ArrowRight",) * 4


@pytest.mark.parametrize("host", [notebook_7, voila], ids=["notebook 7", "voila"])
def test_it_works_there(browser: Browser, saved: Saved, tmp_path: Path, host) -> None:
    with host(browser, tmp_path, [show(saved.path)]) as shown:
        root = shown.page.locator(".qw-root")
        root.wait_for(timeout=120_000)
        view = View(root)
        view.wait_drawn()
        assert_readout(view, saved.sweep)
        # The picture for whoever opens the file without a kernel is in the page, and not shown.
        expect(shown.page.locator(".qw-saved")).to_have_count(1)
        expect(shown.page.locator(".qw-saved")).to_be_hidden()
        # The hosts have console errors of their own while they start: fonts that Voila asks the
        # network for, a setting that Notebook has no schema of.
        before_us = len(shown.errors)

        before = view.geometry()
        drag(view, "epsilon", 0.5)
        assert_readout(view, saved.sweep, epsilon=0.1)
        wait_moved(view, before, MOVED["epsilon"])

        view.slider("epsilon").focus()
        for key in KEYS:
            shown.page.keyboard.press(key)
        assert_readout(view, saved.sweep, epsilon=0.2)
        view.slider("epoch").press("ArrowLeft")
        expect(view.readout("epoch")).to_have_text("2")
        # Letters that are shortcuts of a notebook do nothing while a control has the focus.
        for key in ("a", "b", "d", "d", "x"):
            shown.page.keyboard.press(key)
        expect(root).to_have_count(1)

        phase = root.locator(".qw-phase-body").bounding_box()
        assert phase is not None
        shown.page.mouse.move(phase["x"] + 200, phase["y"] + 150)
        expect(root.locator(".qw-card")).to_contain_text("trained network")

        root.locator("button.qw-export").click()
        with shown.page.expect_download() as download:
            root.locator(".qw-save-plane-svg").click()
        assert "<svg" in Path(download.value.path()).read_text("utf-8")
        assert root.locator(".qw-problem").count() == 0
        assert shown.errors[before_us:] == []
