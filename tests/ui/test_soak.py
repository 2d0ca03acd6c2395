"""The soak of `benchmarks/soak.py`, short: what must hold at any length, and nothing timed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .lab import Lab

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))


@pytest.mark.slow
def test_nothing_goes_wrong_and_nothing_is_left(lab: Lab) -> None:
    from soak import soak

    outcome = soak(lab, 20, settle=8, seed=1)
    assert outcome.errors == []
    assert outcome.threads == 0
    assert outcome.actions > 20
    # Each page was weighed twice: once warm, once at the end.
    for first, last in (outcome.kernel, outcome.page):
        assert last < 1.5 * first
