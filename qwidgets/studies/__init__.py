"""Studies that make the claims of the papers checkable: ``qwidgets reproduce NAME``.

Each study is one file on the public functions of `qwidgets` alone, and ends in tables (CSV),
figures (SVG), an interactive page and a short text with a verdict for each claim.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING

from qwidgets.progress import progress_bar
from qwidgets.studies import binary, bounds, regions, tradeoff
from qwidgets.studies.study import Conclusion, Setting, Study, iterate_study
from qwidgets.sweep import one_core_spared

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from qwidgets.studies.study import Size

__all__ = ["STUDIES", "Conclusion", "Study", "named", "reproduce"]

STUDIES: dict[str, Study] = {
    study.name: study for study in (binary.STUDY, bounds.STUDY, regions.STUDY, tradeoff.STUDY)
}
ALL = "all"


def named(name: str) -> Sequence[Study]:
    """Return the study of a name, or all of them.

    Parameters
    ----------
    name : str
        One of `STUDIES`, or ``"all"``.

    Raises
    ------
    ValueError
        Another name.
    """
    if name == ALL:
        return list(STUDIES.values())
    if name not in STUDIES:
        known = [*STUDIES, ALL]
        near = difflib.get_close_matches(str(name), known, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        message = f"name must be one of {', '.join(map(repr, known))}, got {name!r}{hint}."
        raise ValueError(message)
    return [STUDIES[name]]


def reproduce(
    name: str,
    output: str | os.PathLike[str],
    *,
    quick: bool = False,
    root: str | os.PathLike[str] | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Conclusion:
    """Run one study and write what it found; interrupted and called again, it goes on.

    Parameters
    ----------
    name : str
        One of `STUDIES`.
    output : path
        Folder for tables, figures, page and report, made with its parents.
    quick : bool
        Stay within ten minutes on two cores.
    root : path, optional
        Folder of the files of MNIST and CIFAR-10, for studies that need them.
    seed : int
        Of every random stream; the same seed gives the same tables.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Conclusion
        Claims with their verdicts, and the figures.

    Raises
    ------
    ValueError
        An unknown name, or ``"all"``, which is several.
    KeyboardInterrupt
        Interrupted; what is finished is kept.
    """
    study, *others = named(name)
    if others:
        message = f"name must be a single study, got {name!r}; call it for each of STUDIES."
        raise ValueError(message)
    folder = Path(output)
    # Runs with other settings keep their own: none of them undoes another.
    size: Size = "quick" if quick else "full"
    parts = folder / "parts" / f"{size}-{seed}"
    parts.mkdir(parents=True, exist_ok=True)
    setting = Setting(size=size, seed=seed, root=None if root is None else Path(root), folder=parts)
    conclusion = None
    with one_core_spared(), progress_bar(study.title, show=progress) as tell:
        for state in iterate_study(study, setting, folder):
            conclusion = state.conclusion
            if not tell(state.fraction, state.text):
                raise KeyboardInterrupt
    assert conclusion is not None
    return conclusion
