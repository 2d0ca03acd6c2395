"""The documentation: its code runs as printed, and it builds without a warning."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest
from sphinx.util.inventory import InventoryFile

import qwidgets as qw

DOCS = Path(__file__).parents[1] / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
SESSION = re.compile(r"^```pycon\n(.*?)^```$", re.MULTILINE | re.DOTALL)
WITH_SESSIONS = [page for page in PAGES if SESSION.search(page.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("page", WITH_SESSIONS, ids=lambda page: page.stem)
def test_sessions_give_what_is_printed(page):
    text = "\n".join(SESSION.findall(page.read_text(encoding="utf-8")))
    test = doctest.DocTestParser().get_doctest(text, {}, page.stem, str(page), 0)
    told = []
    failed, tried = doctest.DocTestRunner().run(test, out=told.append)
    assert tried
    assert not failed, "".join(told)


def test_pages_of_concepts_have_sessions():
    assert {page.stem for page in WITH_SESSIONS} >= {"packet", "domains", "errors", "grid", "store"}


@pytest.mark.slow
def test_every_public_name_is_documented(documentation):
    inventory = InventoryFile.loads((documentation / "objects.inv").read_bytes(), uri="")
    documented = {name for kind in inventory.data.values() for name in kind}
    assert {f"qwidgets.{name}" for name in qw.__all__} <= documented


@pytest.mark.slow
def test_equations_need_no_script(documentation):
    page = (documentation / "concepts" / "packet.html").read_text(encoding="utf-8")
    assert page.count("<math") > 30
    assert not re.search(r"<script[^>]*mathjax", page, re.IGNORECASE)
