"""What all studies share: tables, claims with verdicts, and a run that goes on where it stopped.

A study is a few parts, each of which makes one table, and a conclusion drawn from the tables. A
part that is finished is on the disk before the next begins; networks that a part trains are kept by
the store of their sweep. So an interrupted run, called again, goes on, and gives what one run would
have given.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
from dataclasses import dataclass, field
from functools import partial
from importlib import metadata
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

import numpy as np
from scipy.stats import rankdata

import qwidgets as qw
from qwidgets.files import write_whole
from qwidgets.threads import mapped

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
    from pathlib import Path

    from numpy.typing import ArrayLike, NDArray
    from torch import Tensor

    from qwidgets.domain import Domain

Row = dict[str, float | int | str]
Table = list[Row]
Verdict = Literal["supported", "supported under a condition", "not supported"]
Size = Literal["smallest", "quick", "full"]
T = TypeVar("T")

if TYPE_CHECKING:
    # What is being done: it yields the share that is, 0 to 1, and returns what came out.
    Work = Generator[float, None, T]
    Columns = dict[str, NDArray[Any]]

BEYOND_CHANCE = 4.0
"""Standard errors beyond which a deviation is no chance."""

HALF = 0.5
"""What the papers say that no product is below."""

FEWEST = 4
"""Fewer points have no order worth the name."""

_PACKAGES = ("torch", "numpy", "scipy")


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a run is asked for.

    Attributes
    ----------
    size : {"smallest", "quick", "full"}
        ``quick`` stays within ten minutes on two cores; ``smallest`` within seconds, for the tests:
        all that the full run does, on fewer networks, images and samples.
    seed : int
        Of every random stream.
    root : pathlib.Path or None
        Folder of the files of MNIST and CIFAR-10.
    folder : pathlib.Path
        Where sweeps may keep their stores.
    """

    size: Size
    seed: int
    root: Path | None
    folder: Path

    def choose(self, *, smallest: T, quick: T, full: T) -> T:
        """Pick what belongs to the size."""
        return {"smallest": smallest, "quick": quick, "full": full}[self.size]


class Claim(NamedTuple):
    """A statement, what was measured about it, and what follows."""

    text: str
    measured: str
    verdict: Verdict
    condition: str = ""


class Conclusion(NamedTuple):
    """What the tables of a study say."""

    claims: tuple[Claim, ...]
    figures: Mapping[str, qw.Figure]


@dataclass(frozen=True, kw_only=True)
class Study:
    """A study that can be run.

    Attributes
    ----------
    name, title, source : str
        What it is called, what it is about, and whose claims it checks.
    cost : str
        What a full run takes, told beforehand.
    parts : mapping of str to callable
        For each table, in order, a generator function of the setting: it yields the share of its
        work that is done, and returns the table.
    analyses : mapping of str to callable
        The same for tables that follow from those of the parts: generator functions of the setting
        and of all tables before, by name.
    conclude : callable
        From the tables by name to claims and figures.
    networks : callable
        From the setting, a generator that returns what the interactive page shows: a sweep, whose
        store is filled by then, or a measurement.
    data : tuple of str
        Named data sets that it reads from files.
    arguments : str
        What its command needs beside its name.
    given : str
        A fingerprint of what it was given: another one makes every part anew.
    """

    name: str
    title: str
    source: str
    cost: str
    parts: Mapping[str, Callable[[Setting], Work[Table]]]
    conclude: Callable[[Mapping[str, Table]], Conclusion]
    networks: Callable[[Setting], Work[qw.Sweep]] | Callable[[Setting], Work[qw.Measurement]]
    data: tuple[str, ...] = ()
    arguments: str = ""
    given: str = ""
    analyses: Mapping[str, Callable[[Setting, Mapping[str, Table]], Work[Table]]] = field(
        default_factory=dict
    )

    @property
    def tables(self) -> list[str]:
        """Names of all tables, in the order in which they are made."""
        return [*self.parts, *self.analyses]


class Progress(NamedTuple):
    """How far a study is, 0 to 1."""

    fraction: float
    text: str
    conclusion: Conclusion | None = None


def iterate_study(study: Study, setting: Setting, output: Path) -> Iterator[Progress]:
    """Run a study, one part at a time, and write what it found.

    Parameters
    ----------
    study : Study
    setting : Setting
    output : pathlib.Path
        Folder for the results; it exists.

    Yields
    ------
    Progress
        As the parts go on, and at the end, then with the conclusion.
    """
    key = _key(study, setting)
    tables: dict[str, Table] = {}
    begin: dict[str, Callable[[], Work[Table]]] = {
        **{name: partial(part, setting) for name, part in study.parts.items()},
        **{name: partial(analysis, setting, tables) for name, analysis in study.analyses.items()},
    }
    steps = len(begin) + 1
    for index, (name, start) in enumerate(begin.items()):
        yield Progress(index / steps, name)
        place = setting.folder / f"{name}.json"
        table = _finished(place, key)
        if table is None:
            table = yield from _telling(within(start(), index, steps), name)
            write_whole(place, json.dumps({"key": key, "table": table}))
        tables[name] = table
        write_whole(output / f"{name}.csv", comma_separated(table))
    work: Work[qw.Sweep | qw.Measurement] = study.networks(setting)
    networks = within(work, steps - 1, steps)
    shown = yield from _telling(networks, "figures and page")
    conclusion = study.conclude(tables)
    for name, figure in conclusion.figures.items():
        figure.save(output / f"{name}.svg")
    qw.export_html(shown, output / "explorer.html")
    write_whole(output / "report.md", report(study, setting, conclusion, tables))
    yield Progress(1.0, "done", conclusion)


def _telling(work: Work[T], text: str) -> Generator[Progress, None, T]:
    return mapped(work, lambda share: Progress(share, text))


def measured(
    loss: Callable[[Tensor], Tensor], domain: Domain, *, samples: int, **settings: Any
) -> Work[qw.Uncertainty]:
    """Do what `qwidgets.uncertainty` does, but whole: an interruption is passed on.

    A partial result would be taken for a finished table.
    """
    for found in qw.iterate_uncertainty(loss, domain, samples=samples, **settings):
        yield min(found.evaluations / samples, 1.0)
    return found


def trained(**settings: Any) -> Work[qw.Sweep]:
    """Do what `qwidgets.sweep` does, but whole: an interruption is passed on."""
    found = None
    for state in qw.iterate_sweep(**settings):
        found = state.sweep or found
        yield state.fraction
    assert found is not None
    return found


def within(work: Work[T], done: int, count: int) -> Work[T]:
    """Do one of several pieces of work of the same size, of which some are done."""
    return mapped(work, lambda share: (done + share) / count)


def finish(work: Work[T]) -> T:
    """Do all of the work at once."""
    while True:
        try:
            next(work)
        except StopIteration as finished:
            result: T = finished.value
            return result


def over_seeds(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return the mean of one number a seed, and its standard error."""
    return float(values.mean()), float(values.std(ddof=1)) / math.sqrt(len(values))


def rank_correlation(x: ArrayLike, y: ArrayLike, fewest: int = FEWEST) -> NDArray[np.float64]:
    """Spearman's rank correlation along the last axis, of the pairs that are defined.

    NaN where they are fewer than ``fewest``, or where one of the two is constant.
    """
    x, y = np.broadcast_arrays(np.asarray(x, np.float64), np.asarray(y, np.float64))
    known = np.isfinite(x) & np.isfinite(y)
    ranks = [rankdata(np.where(known, v, np.inf), axis=-1) for v in (x, y)]
    count = known.sum(-1, keepdims=True)
    a, b = (np.where(known, r - (count + 1) / 2, 0) for r in ranks)
    scale = np.sqrt((a**2).sum(-1) * (b**2).sum(-1))
    fits = (scale > 0) & (count[..., 0] >= fewest)
    return np.asarray(
        np.divide((a * b).sum(-1), scale, out=np.full(scale.shape, np.nan), where=fits)
    )


def columns(table: Table) -> Columns:
    """Turn rows with the same keys into columns."""
    return {name: np.array([row[name] for row in table]) for name in table[0]}


def bullets(lines: Iterable[str]) -> str:
    """Write lines as a list of a report, with room before and after."""
    return "\n\n" + "\n".join(f"- {line}" for line in lines) + "\n\n"


def comma_separated(table: Table) -> str:
    """Write a table as CSV: ten significant digits, the columns of the first row.

    Parameters
    ----------
    table : list of dict
        Rows with the same keys.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(table[0]), lineterminator="\n")
    writer.writeheader()
    for row in table:
        writer.writerow(
            {name: f"{v:.10g}" if isinstance(v, float) else v for name, v in row.items()}
        )
    return text.getvalue()


def report(
    study: Study, setting: Setting, conclusion: Conclusion, tables: Mapping[str, Table]
) -> str:
    """Write the claims, the numbers and the verdicts as Markdown."""
    quick = " --quick" * (setting.size == "quick")
    seed = f" --seed {setting.seed}" * (setting.seed != 0)
    root = " --root DIR" * (setting.root is not None)
    command = f"qwidgets reproduce {study.name}{study.arguments}{quick}{root}{seed}"
    lines = [f"# {study.title}", "", study.source, ""]
    for number, claim in enumerate(conclusion.claims, start=1):
        condition = f" {claim.condition}" if claim.condition else ""
        lines += [
            f"## {number}. {claim.text}",
            "",
            f"{claim.measured}",
            "",
            f"**{claim.verdict.capitalize()}.**{condition}",
            "",
        ]
    for name, figure in conclusion.figures.items():
        lines += [f"![{figure.caption}]({name}.svg)", ""]
    lines += ["## Tables", ""]
    lines += [f"- [`{name}.csv`]({name}.csv): {len(table)} rows" for name, table in tables.items()]
    lines += [
        "",
        "[The networks in the Explorer](explorer.html)",
        "",
        f"Made by `{command}` with {_versions()}.",
        "Numbers after ± are one standard error.",
        "",
    ]
    return "\n".join(lines)


def _versions() -> str:
    found = {"qwidgets": qw.__version__, **{name: metadata.version(name) for name in _PACKAGES}}
    return ", ".join(f"{name} {version}" for name, version in found.items())


def _key(study: Study, setting: Setting) -> str:
    # With files of their own studies may take other data.
    rooted = setting.root is not None
    asked = [study.name, setting.size, setting.seed, rooted, study.given, _versions()]
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()


def _finished(place: Path, key: str) -> Table | None:
    """Read a table that an earlier run with the same settings has finished."""
    try:
        content = json.loads(place.read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    if not isinstance(content, dict) or content.get("key") != key:
        return None
    table: Table = content["table"]
    return table
