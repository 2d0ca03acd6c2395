"""Run a study at its smallest, and assert what is certain of every study."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

import numpy as np

from qwidgets import studies
from qwidgets.studies.study import Conclusion, Setting, iterate_study
from qwidgets.sweep import one_core_spared

if TYPE_CHECKING:
    from pathlib import Path

VERDICTS = {"supported", "supported under a condition", "not supported"}


def read(path: Path) -> dict[str, np.ndarray]:
    """Columns of a table: numbers where every entry is one, else words."""
    with path.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    return {name: _numbers(values) for name, values in columns.items()}


def _numbers(values: list[str]) -> np.ndarray:
    try:
        return np.array([float(value) for value in values])
    except ValueError:
        return np.array(values)


def reproduced(
    name: str, output: Path, *, seed: int = 1, root: Path | None = None
) -> tuple[dict[str, dict[str, np.ndarray]], Conclusion]:
    """Run the study in a folder; return its tables as they were written, and its conclusion."""
    study = studies.STUDIES[name]
    parts = output / "parts"
    parts.mkdir(parents=True, exist_ok=True)
    setting = Setting(size="smallest", seed=seed, root=root, folder=parts)
    # As `studies.reproduce` does: a second thread would spin where the machine is busy.
    with one_core_spared():
        states = list(iterate_study(study, setting, output))
    fractions = [state.fraction for state in states]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1
    conclusion = states[-1].conclusion
    assert conclusion is not None
    tables = {part: read(output / f"{part}.csv") for part in study.tables}
    for part, table in tables.items():
        for column, values in table.items():
            if values.dtype.kind == "f":
                assert np.isfinite(values).all(), (part, column)
                if column.endswith("_error"):
                    assert (values >= 0).all(), (part, column)
    assert {claim.verdict for claim in conclusion.claims} <= VERDICTS
    assert conclusion.figures
    for figure in conclusion.figures:
        assert (output / f"{figure}.svg").stat().st_size > 10_000
    assert (output / "explorer.html").stat().st_size > 500_000
    report = (output / "report.md").read_text("utf-8")
    assert all(claim.text in report and claim.measured in report for claim in conclusion.claims)
    return tables, conclusion
